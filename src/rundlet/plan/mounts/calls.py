"""The calls that mounts are made of: opening a place inside the root, making a filesystem, setting attributes, moving it there."""

from rundlet import kernel as k
from rundlet.plan.step import Call, Scratch, Slot

IN_ROOT = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS
FIND = k.open_how(k.O_HERE, 0, IN_ROOT)
FIND_DIR = k.open_how(k.O_HERE | k.O_DIRECTORY, 0, IN_ROOT)
FIND_LINK = k.open_how(k.O_HERE | k.O_NOFOLLOW, 0, IN_ROOT)
# what another container that shares the root may put there meanwhile keeps nobody waiting
MAKE_FILE = k.O_CREAT | k.O_WRONLY | k.O_NONBLOCK | k.O_NOCTTY | k.O_CLOEXEC
TOUCH = k.open_how(MAKE_FILE, 0o644, IN_ROOT)
TOUCH_LINK = k.open_how(MAKE_FILE | k.O_NOFOLLOW, 0o644, IN_ROOT)
ATTACH = k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH
CLONE = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_EMPTY_PATH

# the descriptors at hand, and the calls that every mount has: made once, and encoded once
ROOT, UP, AT, TREE, FS = Slot("root"), Slot("up"), Slot("at"), Slot("tree"), Slot("fs")
CLOSE_UP, CLOSE_AT, CLOSE_TREE, CLOSE_FS = Call("close", UP), Call("close", AT), Call("close", TREE), Call("close", FS)
MAKE = Call("fsconfig", FS, k.FSCONFIG_CMD_CREATE, 0, 0, 0)
ONTO = Call("move_mount", TREE, "", AT, "", ATTACH, label="there")
STATFS = Scratch("statfs", 120)


def find(root: str, path: str, into: str = "at") -> Call:
    """Opens a place inside the container's root, following its symlinks as if the root were /."""
    return Call("openat2", Slot(root), path.lstrip("/") or ".", FIND, 24, into=into)


def target(path: str, directory: bool, label: str = "there", into: str = "at", follow: bool = True) -> "tuple[Call, ...]":
    """Calls that open the mount point `path` in the root, making what is missing: directories, and a file when it is to be one.

    The call behind them must carry `label`. `follow`: false where a symbolic link as the last part is itself the place.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    clean = "/".join(parts)
    if not parts:
        return (Call("openat2", ROOT, ".", FIND, 24, into=into),)
    look = FIND if follow else FIND_LINK
    calls = [Call("openat2", ROOT, clean, look, 24, into=into, fine=("ENOENT",), on_more=label)]
    folders = parts if directory else parts[:-1]
    for i, part in enumerate(folders):
        # one name in a directory that is held: nothing to be led astray by
        if i:
            calls.append(Call("openat2", ROOT, "/".join(folders[:i]), FIND_DIR, 24, into="up"))
        calls.append(Call("mkdirat", UP if i else ROOT, part, 0o755, fine=("EEXIST",)))
        if i:
            calls.append(CLOSE_UP)
    if not directory:
        # a dangling symlink as the last part is followed, as long as it stays in the root: openat2 with O_CREAT does both
        calls += [Call("openat2", ROOT, clean, TOUCH if follow else TOUCH_LINK, 24, into="made"), Call("close", Slot("made"))]
    calls.append(Call("openat2", ROOT, clean, look, 24, into=into))
    return tuple(calls)


def onto(tree: str, at: str = "at", label: str = "there") -> Call:
    """Moves a detached tree onto an opened place."""
    if (tree, at, label) == ("tree", "at", "there"):
        return ONTO
    return Call("move_mount", Slot(tree), "", Slot(at), "", ATTACH, label=label)


def is_root(path: str) -> bool:
    """Whether a destination is the root filesystem itself."""
    return path.strip("/") in ("", ".")


def forbidden() -> "tuple[Call, ...]":
    """Fails, behind target(), for a link that proc, sysfs or devpts has made: what relies on it would be led astray.

    A check fails unless two things are the same; here that is to be the fault.
    """
    calls = [Call("fstatfs", AT, STATFS, label="there")]
    for n, magic in enumerate((k.PROC_SUPER_MAGIC, k.SYSFS_MAGIC, k.DEVPTS_SUPER_MAGIC)):
        calls += [
            Call("check", STATFS, magic, 8, k.ERRNO["ENODEV"], fine=("ENODEV",), on_fine=f"other{n}", label=f"other{n - 1}" if n else ""),
            Call("check", b"here", b"else", 4, k.ERRNO["EPERM"]),
        ]
    return (*calls, Call("value", 0, label="other2"))


def attributes(tree: str, set_: int = 0, clear: int = 0, propagation: int = 0, deep: bool = False) -> Call:
    """Sets attributes and propagation of the mount behind a descriptor, or of all mounts below it too."""
    flags = k.AT_EMPTY_PATH | (k.AT_RECURSIVE if deep else 0)
    return Call("mount_setattr", Slot(tree), "", flags, k.mount_attr(set_, clear, propagation), 32)


def told(data: "tuple[tuple[str, str | None], ...]") -> "list[Call]":
    """Calls that tell a filesystem its parameters."""
    return [
        Call("fsconfig", FS, k.FSCONFIG_SET_FLAG, name, 0, 0) if value is None
        else Call("fsconfig", FS, k.FSCONFIG_SET_STRING, name, value, 0) for name, value in data
    ]


def fresh(kind: str, source_: str, data: "tuple[tuple[str, str | None], ...]", attrs: int, into: str = "tree") -> "tuple[Call, ...]":
    """Calls that make a new filesystem and a detached mount of it. What the filesystem says of a bad option comes back as `fslog`."""
    calls = [Call("fsopen", kind, k.FSOPEN_CLOEXEC, into="fs")]
    if source_:
        calls.append(Call("fsconfig", FS, k.FSCONFIG_SET_STRING, "source", source_, 0))
    return (*calls, *told(data), MAKE, Call("fsmount", FS, k.FSMOUNT_CLOEXEC, attrs, into=into), CLOSE_FS)
