"""The container's root: bound, populated, entered, and what of it is hidden or read-only.

The order is that of order.py. `root` is the slot of the root filesystem's mount; every path below it is opened inside it.
"""

from _struct import pack

from rundlet import kernel as k
from rundlet.plan.mounts.calls import AT, ATTACH, CLONE, CLOSE_AT, CLOSE_TREE, FIND, ROOT, TREE, attributes, fresh, target
from rundlet.plan.mounts.options import PROPAGATION
from rundlet.plan.step import Call, Late, Part, Scratch, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.spec.types import Device

SYMLINKS = (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"))
DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
TYPES = {"c": k.S_IFCHR, "b": k.S_IFBLK, "p": k.S_IFIFO}
STATX = Scratch("statx", 256)  # struct statx: the numbers of a device stand at byte 128
OTHER = "something else is there already, in the image or by a mount: remove that, or mount a tmpfs on /dev"
NOWHERE = ("ENOENT", "ENOTDIR")
CLOSE_DEV = Call("close", Slot("dev"))
MASK = (("mode", "0555"), ("nr_inodes", "1"), ("size", "4096"))  # an empty directory needs no more

# what is done at each path to be read-only, and at each to be masked, once it is open as "at"
PROTECT = (
    Call("open_tree", AT, "", CLONE | k.AT_RECURSIVE, into="tree"),
    attributes("tree", k.MOUNT_ATTR_RDONLY, 0, 0, True),
    Call("move_mount", TREE, "", AT, "", ATTACH),
    CLOSE_TREE, CLOSE_AT,
)
COVER = (
    # whoever owns the host's /dev/null could change its mode and owner through a mask, were that not read-only
    Call("open_tree", Slot("null"), "", CLONE, into="tree"), attributes("tree", k.MOUNT_ATTR_RDONLY),
    # a file cannot be mounted on a directory: then the empty one is
    Call("move_mount", TREE, "", AT, "", ATTACH, fine=("EINVAL", "ENOTDIR"), on_zero="done"),
    CLOSE_TREE,
    Call("open_tree", Slot("empty"), "", CLONE, into="tree", fine=("EINVAL",), on_more="clone"),
    Call("move_mount", Slot("empty"), "", AT, "", ATTACH, on_zero="first"),
    Call("move_mount", TREE, "", AT, "", ATTACH, label="clone"),
    Call("close", TREE, label="done"),
    Call("close", AT, label="first"),
)


def propagation(word: "str | None") -> int:
    """The propagation type of rootfsPropagation; private when it was not given, so that nothing comes in or goes out unasked."""
    return PROPAGATION[word][0] if word else k.MS_PRIVATE


def hold(rootfs: str, base: int, mount_namespace: bool) -> Step:
    """Takes hold of the root filesystem outside, where the way to it is open: a user namespace may not be let through to it.

    Its clone is made private, or a slave where `base` says so, so that what is mounted in it reaches nobody.
    """
    what, rootfs = f"take hold of the root filesystem {rootfs}", Late("root", rootfs)
    if not mount_namespace:
        return Step(what, Call("openat", k.AT_FDCWD, rootfs, k.O_HERE | k.O_DIRECTORY, 0, into="root"), kind="source")
    return Step(
        what, Call("open_tree", k.AT_FDCWD, rootfs, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE, into="root"),
        attributes("root", 0, 0, k.MS_SLAVE if base == k.MS_SLAVE else k.MS_PRIVATE, True), kind="source",
    )


def take(rootfs: str) -> "tuple[Step, ...]":
    """In the new mount namespace: cut it off from the host, and mount the root filesystem onto itself (pivot_root wants a mount).

    In a user namespace while the process is still the host's user, who is let through to it; and at this place of all, since
    createContainer hooks look for it there.
    """
    return (
        # first slave, so that nothing done here reaches the host; shared would reach it
        Step("receive mounts from the host, send none", Call("mount", 0, "/", 0, k.MS_REC | k.MS_SLAVE, 0), kind="propagation"),
        Step(
            f"mount the root filesystem on {rootfs}",
            Call("move_mount", Slot("root"), "", k.AT_FDCWD, Late("root", rootfs), k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_SYMLINKS),
            kind="root",
        ),
    )


def default_devices(given: "set[str]", empty: bool) -> "tuple[Step, ...]":
    """The devices that every container has (spec, config-linux.md), but those given by the configuration.

    `empty`: /dev is a filesystem that is new. What is there all the same was mounted on purpose; else it has to be the device.
    """
    folder = (*target("dev", True, "there", "dev"), Call("value", 0, label="there"))
    mode = k.S_IFCHR | 0o666
    missing = [(name, (major, minor)) for name, major, minor in DEVICES if "/dev/" + name not in given]
    if empty:
        calls = [Call("mknodat", Slot("dev"), name, mode, k.device(*number), fine=("EEXIST",)) for name, number in missing]
        return (Step("make the default devices", *folder, *calls, CLOSE_DEV, kind="device"),)
    return tuple(
        Step(
            f"make /dev/{name} (c {number[0]}:{number[1]})", *folder, *_node("dev", name, mode, number), CLOSE_DEV,
            kind="device", hint=OTHER,
        )
        for name, number in missing
    )


def _node(folder: str, name: str, mode: int, number: "tuple[int, int]", label: str = "", alike: str = "made") -> "tuple[Call, ...]":
    """Calls that make a node, and go on at `alike` where the same one is there already: config-linux.md, "Devices"."""
    high = mode >> 8 & 0xF0  # the byte of a mode that has the type has whether the owner may read, too
    other = k.ERRNO["EEXIST"]
    return (
        Call("mknodat", Slot(folder), name, mode, k.device(*number), fine=("EEXIST",), on_zero="made", label=label),
        Call("statx", Slot(folder), name, k.AT_SYMLINK_NOFOLLOW, 0x7FF, STATX),
        Call("check", Part(STATX, 29), bytes((high | 1,)), 1, other, fine=("EEXIST",), on_zero="alike"),
        Call("check", Part(STATX, 29), bytes((high,)), 1, other),
        Call("check", Part(STATX, 128), pack("II", *number), 8, other, on_zero=alike, label="alike"),
        Call("value", 0, label="made"),
    )


def links() -> Step:
    """The symbolic links in /dev. An image that has its own keeps them."""
    calls = [*target("dev", True, "there", "dev"), Call("value", 0, label="there")]
    for name, to in SYMLINKS:
        calls.append(Call("symlinkat", to, Slot("dev"), name, fine=("EEXIST",)))
    # a file, a device or a stale link there is replaced: the container's terminals are those of its own devpts
    calls += [
        Call("unlinkat", Slot("dev"), "ptmx", 0, fine=("ENOENT",)),
        Call("symlinkat", "pts/ptmx", Slot("dev"), "ptmx", fine=("EEXIST",)), CLOSE_DEV,
    ]
    return Step("make the links in /dev", *calls, kind="device", hint="mount a tmpfs on /dev, or make the root filesystem writable")


def bound_device_sources(given: "list[Device]", own: "Sequence[Device]" = ()) -> "tuple[Step, ...]":
    """Where the kernel makes no device nodes (in a user namespace) the host's are bound: they are taken hold of outside.

    `own` are those that are made nevertheless: ownnodes.py.
    """
    made = {device["path"] for device in own}
    return tuple(
        Step(
            f"take hold of the host's {path}",
            Call("open_tree", k.AT_FDCWD, path, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC, into=f"device:{path}"),
            # read-only: what is written to a device does not ask, but its mode and owner stay the host's to change
            attributes(f"device:{path}", k.MOUNT_ATTR_RDONLY, 0, k.MS_PRIVATE), kind="source",
        )
        for path in bound_paths(given) if path not in made
    )


def bound_paths(given: "list[Device]") -> "list[str]":
    """The devices to bind from the host in a user namespace: the default ones and those of the configuration, but fifos and /dev/ptmx,

    whose place is the container's own: engines list it among all devices of the host.
    """
    paths = ["/dev/" + name for name, _, _ in DEVICES]
    return paths + [device["path"] for device in given if device["type"] != "p" and device["path"] not in (*paths, "/dev/ptmx")]


def bound_devices(given: "list[Device]") -> "tuple[Step, ...]":
    """Binds the host's devices taken hold of before."""
    return tuple(
        Step(
            f"bind the host's {path}", *target(path, False),
            Call("move_mount", Slot(f"device:{path}"), "", Slot("at"), "", k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH,
                 label="there"),
            Call("close", Slot(f"device:{path}")), CLOSE_AT, kind="device",
        )
        for path in bound_paths(given)
    )


def device(given: "Device") -> Step:
    """Makes one device node or fifo with its mode and owner. The same one stays as it is where it is there: it may be the host's, bound."""
    folder, _, name = given["path"].rstrip("/").rpartition("/")
    mode = TYPES[given["type"]] | given["fileMode"]
    return Step(
        f"make {given['path']} ({given['type']} {given['major']}:{given['minor']})",
        *target(folder, True, "there", "folder"),
        *_node("folder", name, mode, (given["major"], given["minor"]), "there", "kept"),
        Call("fchownat", Slot("folder"), name, given["uid"], given["gid"], k.AT_SYMLINK_NOFOLLOW),
        Call("close", Slot("folder"), label="kept"),
        kind="device", hint=OTHER,
    )


def enter(covers: "tuple[str, ...] | None" = None) -> "tuple[Step, ...]":
    """Makes the root filesystem the root, and lets go of the host's. pivot_root(2); chroot where pivoting is impossible: `covers` are then
    the host's mounts of proc and sysfs.

    They go first. They would stay in the mount namespace, below the root, and a proc of which nothing is covered permits every user
    namespace in it to mount one (mount_too_revealing in fs/namespace.c), masks or not.
    """
    if covers is not None:
        return (*map(_hide, covers), Step(
            "move the root filesystem onto / and enter it",
            Call("fchdir", Slot("root")), Call("mount", ".", "/", 0, 0x2000, 0), Call("chroot", "."), Call("chdir", "/"), kind="enter",
        ))
    return (Step(
        "make the root filesystem the root, and let go of the host's",
        Call("openat", k.AT_FDCWD, "/", k.O_HERE | k.O_DIRECTORY, 0, into="host"),
        Call("fchdir", Slot("root")),
        Call("pivot_root", ".", "."),
        # both are at / now; the old one is left from within, and must not take the host's mounts with it
        Call("fchdir", Slot("host")),
        Call("mount", 0, ".", 0, k.MS_SLAVE | k.MS_REC, 0),
        Call("umount2", ".", k.MNT_DETACH),
        Call("close", Slot("host")),
        Call("fchdir", Slot("root")),
        kind="enter",
    ),)


def _hide(path: str) -> Step:
    """Takes a mount of the host away. One that a user namespace holds fast is covered instead."""
    return Step(
        f"take {path} of the host away",
        Call("umount2", path, k.MNT_DETACH, fine=("EINVAL", "EPERM", "ENOENT"), on_zero="end"),
        *fresh("tmpfs", "tmpfs", MASK, k.MOUNT_ATTR_RDONLY),
        Call("move_mount", TREE, "", k.AT_FDCWD, path, k.MOVE_MOUNT_F_EMPTY_PATH, fine=("ENOENT",)), CLOSE_TREE, kind="enter",
    )


def confine_to_directory(rootfs: str) -> "tuple[Step, ...]":
    """Without a mount namespace there is nothing to pivot: the root directory is changed and nothing else."""
    return (
        Step(
            f"enter {rootfs} by chroot, for want of a mount namespace",
            Call("fchdir", Slot("root")), Call("chroot", "."), kind="enter",
        ),
    )


def enter_held() -> Step:
    """Enters the root directory of a container that has no mount namespace, held in the slot "held"."""
    return Step("enter the container's root directory", Call("fchdir", Slot("held")), Call("chroot", "."), kind="enter")


def shared_root(base: int) -> Step:
    """The propagation type that the root filesystem was asked to have, once it is the root."""
    return Step("set the propagation of the root", attributes("root", 0, 0, base), kind="propagation")


def read_only_root() -> Step:
    """Makes the root filesystem's own mount read-only; mounts in it keep their own flags."""
    return Step("make the root filesystem read-only", attributes("root", k.MOUNT_ATTR_RDONLY), kind="readonly")


def read_only(path: str) -> Step:
    """Binds a path onto itself read-only, with all below it. A path that is not there needs no protection."""
    return Step(
        f"make {path} read-only",
        _seek(path), *PROTECT, kind="readonly",
    )


def mask_source() -> Step:
    """What masked files are covered with: the host's /dev/null, opened before any container had a say, and shown to be just that."""
    return Step(
        "take hold of the host's /dev/null",
        Call("openat", k.AT_FDCWD, "/dev/null", k.O_HERE, 0, into="null"),
        Call("statx", Slot("null"), "", k.AT_EMPTY_PATH, 0x7FF, STATX),
        Call("check", Part(STATX, 128), (1).to_bytes(4, "little") + (3).to_bytes(4, "little"), 8, k.ERRNO["ENODEV"]),
        kind="source", hint="/dev/null of this host is not the device 1:3",
    )


def masks(paths: "list[str]") -> "tuple[Step, ...]":
    """Covers files with /dev/null and directories with one empty, read-only tmpfs. A path that is not there is passed over.

    Only a mount that is attached can be cloned (before Linux 6.15), so the first directory gets the tmpfs itself, the others clones of it.
    """
    if not paths:
        return ()
    steps = [
        mask_source(),
        Step("make the empty directory that covers masked ones", *fresh("tmpfs", "tmpfs", MASK, k.MOUNT_ATTR_RDONLY, "empty"), kind="mask"),
    ]
    for path in paths:
        steps.append(Step(f"mask {path}", _seek(path), *COVER, kind="mask"))
    return tuple(steps)


def _seek(path: str) -> Call:
    """Opens what is to be hidden or read-only; where nothing is there the step ends. A file is found with a slash behind it, too."""
    clean = "/".join(part for part in path.split("/") if part not in ("", "."))
    return Call("openat2", ROOT, clean, FIND, 24, into="at", fine=NOWHERE, on_fine="end")


def let_go(steps: "Sequence[Step]", given: "Sequence[str]", proc: bool) -> Step:
    """Closes what `steps` held open from one to the other: who waits for start holds nothing of the host, and nothing of the container, so
    that a hook can unmount it. `given`: slots that were there from the beginning; `proc`: false where the label is looked at once more.
    """
    held = {call.into for step in steps for call in step.calls}
    slots = [name for name in ("devpts", "cgroups", "null", "empty") if name in held]
    calls = [Call("close", Slot(name)) for name in (*slots, *given, "root", *(["proc"] if proc else []))]
    return Step("let go of what is needed no more", *calls, kind="close")


def working_directory(path: str) -> Step:
    """Makes the working directory where the image lacks it, as the peers do."""
    return Step(f"have the directory {path}", *target(path, True), Call("close", AT, label="there"), kind="directory")
