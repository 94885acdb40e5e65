"""The mounts of config.json: what their options mean, and the steps that make them.

Every mount is first a detached tree behind a descriptor: a clone of a directory of the host (open_tree) or a new filesystem
(fsopen … fsmount). Its attributes are set while nobody can reach it, and only then it is moved onto its destination, which was opened
inside the container's root and nowhere else (RESOLVE_IN_ROOT). So no symlink of an image leads a mount astray, and there is no moment
in which a mount is there without its flags. open_tree(2), fsopen(2), mount_setattr(2): Linux 5.2 to 5.12.
"""

from rundlet import kernel as k
from rundlet.errors import BadSpec, Refused
from rundlet.plan.step import Call, Slot, Step, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Mount

# option: (attribute bits to set, bits to clear)
ATTRIBUTES = {
    "ro": (0x1, 0), "rw": (0, 0x1), "nosuid": (0x2, 0), "suid": (0, 0x2), "nodev": (0x4, 0), "dev": (0, 0x4),
    "noexec": (0x8, 0), "exec": (0, 0x8), "nodiratime": (0x80, 0), "diratime": (0, 0x80),
    "nosymfollow": (0x200000, 0), "symfollow": (0, 0x200000),
    # the access time is one field of several values: setting one clears the field first
    "noatime": (0x10, 0x70), "atime": (0, 0x70), "relatime": (0, 0x70), "norelatime": (0x20, 0x70), "strictatime": (0x20, 0x70),
    "nostrictatime": (0, 0x70),
}
PROPAGATION = {"shared": k.MS_SHARED, "slave": k.MS_SLAVE, "private": k.MS_PRIVATE, "unbindable": k.MS_UNBINDABLE}
# flags of a superblock as fsconfig(2) takes them; a bind mount has no superblock of its own, so there they mean nothing
SUPERBLOCK = ("sync", "dirsync", "lazytime", "mand", "iversion", "silent")
NOTHING = ("defaults", "async", "loud", "nolazytime", "nomand", "noiversion", "bind", "rbind", "remount")
LATER = ("idmap", "ridmap", "tmpcopyup", "copy-symlink", "src-nofollow", "dest-nofollow")

IN_ROOT = k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS
FIND = k.open_how(k.O_HERE, 0, IN_ROOT)
FIND_DIR = k.open_how(k.O_HERE | k.O_DIRECTORY, 0, IN_ROOT)
TOUCH = k.open_how(k.O_CREAT | k.O_WRONLY | k.O_CLOEXEC, 0o644, IN_ROOT)
ATTACH = k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH
CLONE = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_EMPTY_PATH

# the descriptors at hand, and the calls that every mount has: made once, and encoded once
ROOT, UP, AT, TREE, FS = Slot("root"), Slot("up"), Slot("at"), Slot("tree"), Slot("fs")
CLOSE_AT, CLOSE_TREE, CLOSE_FS = Call("close", AT), Call("close", TREE), Call("close", FS)
MAKE = Call("fsconfig", FS, k.FSCONFIG_CMD_CREATE, 0, 0, 0)
ONTO = Call("move_mount", TREE, "", AT, "", ATTACH, label="there")


class Options(Value):
    """The options of one mount, sorted: mount attributes, propagation, and what the filesystem itself is told."""

    __slots__ = ("bind", "recursive", "remount", "set", "clear", "deep_set", "deep_clear", "propagation", "deep", "data")

    def __init__(self, words: "list[str]", where: str) -> None:
        self.bind = self.recursive = self.remount = self.deep = False
        self.set = self.clear = self.deep_set = self.deep_clear = self.propagation = 0
        data: "list[tuple[str, str | None]]" = []
        for i, word in enumerate(words):
            deep = word[:1] == "r" and word[1:] in ATTRIBUTES and word not in ATTRIBUTES
            if word in ATTRIBUTES:
                on, off = ATTRIBUTES[word]
                self.set, self.clear = self.set & ~off | on, self.clear & ~on | off
            elif deep:
                on, off = ATTRIBUTES[word[1:]]
                self.deep_set, self.deep_clear = self.deep_set & ~off | on, self.deep_clear & ~on | off
            elif word in PROPAGATION:
                self.propagation = PROPAGATION[word]
            elif word[:1] == "r" and word[1:] in PROPAGATION:
                self.propagation, self.deep = PROPAGATION[word[1:]], True
            elif word in LATER or word.startswith("idmap="):
                raise BadSpec(f"{where}/options/{i}", f"the mount option {word} is not supported")
            elif word in NOTHING:
                self.bind = self.bind or word in ("bind", "rbind")
                self.recursive = self.recursive or word == "rbind"
                self.remount = self.remount or word == "remount"
            elif word:
                name, equals, value = word.partition("=")
                data.append((name, value if equals else None))
        self.data = tuple(data)


def is_bind(mount: "Mount") -> bool:
    """Whether the mount shows a place of the host: spec, config.md: a type of none or bind, or an option that says so."""
    return mount["type"] in ("bind", "rbind") or "bind" in mount["options"] or "rbind" in mount["options"]


def find(root: str, path: str, into: str = "at") -> Call:
    """Opens a place inside the container's root, following its symlinks as if the root were /."""
    return Call("openat2", Slot(root), path.lstrip("/") or ".", FIND, 24, into=into)


def target(path: str, directory: bool, label: str = "there", into: str = "at") -> "tuple[Call, ...]":
    """Calls that open the mount point `path` in the root, making what is missing: directories, and a file when it is to be one.

    The call behind them must carry `label`.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    clean = "/".join(parts)
    if not parts:
        return (Call("openat2", ROOT, ".", FIND, 24, into=into),)
    calls = [Call("openat2", ROOT, clean, FIND, 24, into=into, fine=("ENOENT",), on_more=label)]
    up = ROOT
    for i, part in enumerate(parts if directory else parts[:-1], 1):
        # one name in a directory that is held: nothing to be led astray by
        calls.append(Call("mkdirat", up, part, 0o755, fine=("EEXIST",)))
        if i < len(parts):
            calls.append(Call("openat2", ROOT, "/".join(parts[:i]), FIND_DIR, 24, into="up"))
            up = UP
    if not directory:
        # a dangling symlink as the last part is followed, as long as it stays in the root: openat2 with O_CREAT does both
        calls += [Call("openat2", ROOT, clean, TOUCH, 24, into="made"), Call("close", Slot("made"))]
    calls.append(Call("openat2", ROOT, clean, FIND, 24, into=into))
    return tuple(calls)


def onto(tree: str, at: str = "at", label: str = "there") -> Call:
    """Moves a detached tree onto an opened place."""
    if (tree, at, label) == ("tree", "at", "there"):
        return ONTO
    return Call("move_mount", Slot(tree), "", Slot(at), "", ATTACH, label=label)


def attributes(tree: str, set_: int = 0, clear: int = 0, propagation: int = 0, deep: bool = False) -> Call:
    """Sets attributes and propagation of the mount behind a descriptor, or of all mounts below it too."""
    flags = k.AT_EMPTY_PATH | (k.AT_RECURSIVE if deep else 0)
    return Call("mount_setattr", Slot(tree), "", flags, k.mount_attr(set_, clear, propagation), 32)


def source(index: int, mount: "Mount", options: Options, path: str, base: int) -> Step:
    """Takes hold of a bind mount's source on the host, with all its flags: slot `bind<index>`. Runs outside the container.

    A clone is a peer of the host's mount, so before anything else it gets the propagation `base` (MS_PRIVATE unless the root
    filesystem was asked to be something else): what is then mounted below it stays where it is mounted.
    """
    tree = f"bind{index}"
    deep = options.recursive
    calls = [Call("open_tree", k.AT_FDCWD, path, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | (k.AT_RECURSIVE if deep else 0), into=tree)]
    if deep:
        calls.append(attributes(tree, 0, 0, options.propagation if options.deep else base, True))
    calls.append(attributes(tree, options.set, options.clear, options.propagation or base))
    if options.deep_set or options.deep_clear:
        calls.append(attributes(tree, options.deep_set, options.deep_clear, 0, True))
    return Step(
        f"take hold of {path} for {mount['destination']}", *calls, kind="source",
        hint=f"it is the source of the mount {mount['destination']}",
    )


def bind(index: int, mount: "Mount", directory: bool, path: str) -> Step:
    """Moves the source taken hold of before onto its destination."""
    words = ",".join(mount["options"])
    return Step(
        f"bind {mount['source']} on {mount['destination']} ({words})", *target(path, directory), onto(f"bind{index}"), kind="mount",
    )


def fresh(kind: str, source_: str, data: "tuple[tuple[str, str | None], ...]", attrs: int, into: str = "tree") -> "tuple[Call, ...]":
    """Calls that make a new filesystem and a detached mount of it. What the filesystem says of a bad option comes back as `fslog`."""
    calls = [Call("fsopen", kind, k.FSOPEN_CLOEXEC, into="fs")]
    if source_:
        calls.append(Call("fsconfig", FS, k.FSCONFIG_SET_STRING, "source", source_, 0))
    for name, value in data:
        if value is None:
            calls.append(Call("fsconfig", FS, k.FSCONFIG_SET_FLAG, name, 0, 0))
        else:
            calls.append(Call("fsconfig", FS, k.FSCONFIG_SET_STRING, name, value, 0))
    calls += [MAKE, Call("fsmount", FS, k.FSMOUNT_CLOEXEC, attrs, into=into), CLOSE_FS]
    return tuple(calls)


def filesystem(index: int, mount: "Mount", options: Options, path: str) -> Step:
    """A mount that is not a bind: a new filesystem of the type given."""
    where = f"/mounts/{index}"
    kind = mount["type"]
    if options.remount:
        return Step(
            f"change the flags of {mount['destination']}", find("root", path), attributes("at", options.set, options.clear), kind="mount",
        )
    if not kind or kind == "none":
        raise BadSpec(f"{where}/type", "missing, and no bind or rbind among the options")
    tree = "devpts" if kind == "devpts" and path.strip("/") == "dev/pts" else "tree"
    calls = list(fresh(kind, mount["source"] or kind, options.data, options.set, tree))
    if options.clear & ~0x71 or options.deep_set or options.deep_clear:
        calls.append(attributes(tree, options.deep_set, options.deep_clear, 0, True))
    calls += [*target(path, True), onto(tree)]
    if options.propagation:
        calls.append(attributes(tree, 0, 0, options.propagation, options.deep))
    if tree == "tree":
        calls.append(CLOSE_TREE)
    calls.append(CLOSE_AT)
    return Step(f"mount {kind} on {mount['destination']} ({','.join(mount['options'])})", *calls, kind="mount")


def refuse_foreign(mount: "Mount", index: int) -> None:
    """Mounts whose ids are mapped need a namespace of ids, which this plan does not make."""
    if mount["uidMappings"] or mount["gidMappings"]:
        raise Refused(f"/mounts/{index}/uidMappings: mounts with mapped ids are not supported", "remove the mappings of this mount")
