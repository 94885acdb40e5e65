"""The mounts of config.json: what their options mean, and the steps that make them.

Every mount is first a detached tree behind a descriptor: a clone of a directory of the host (open_tree) or a new filesystem
(fsopen … fsmount). Its attributes are set while nobody can reach it, and only then it is moved onto its destination, which was opened
inside the container's root and nowhere else (RESOLVE_IN_ROOT). So no symlink of an image leads a mount astray, and there is no moment
in which a mount is there without its flags; a tmpfs and /dev alone become read-only last of all, since something is made in them
before. open_tree(2), fsopen(2), mount_setattr(2): Linux 5.2 to 5.12.
"""

from rundlet import kernel as k
from rundlet.errors import BadSpec
from rundlet.plan.bundle import ORDINARY, is_bind
from rundlet.plan.step import Call, Late, Scratch, Slot, Step
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.bundle import Bundle
    from rundlet.plan.cgroupfs import Hierarchy
    from rundlet.plan.copyup import Fill
    from rundlet.plan.idmap import Users
    from rundlet.spec.types import Config, Mount

# option: (attribute bits to set, bits to clear)
ATTRIBUTES = {
    "ro": (0x1, 0), "rw": (0, 0x1), "nosuid": (0x2, 0), "suid": (0, 0x2), "nodev": (0x4, 0), "dev": (0, 0x4),
    "noexec": (0x8, 0), "exec": (0, 0x8), "nodiratime": (0x80, 0), "diratime": (0, 0x80),
    "nosymfollow": (0x200000, 0), "symfollow": (0, 0x200000),
    # the access time is one field of several values: setting one clears the field first
    "noatime": (0x10, 0x70), "atime": (0, 0x70), "relatime": (0, 0x70), "norelatime": (0x20, 0x70), "strictatime": (0x20, 0x70),
    "nostrictatime": (0, 0x70),
}
# the same for a mount and all below it: config.md, "recursive" options since 1.1
DEEP = {"r" + word: bits for word, bits in ATTRIBUTES.items() if "r" + word not in ATTRIBUTES}
PROPAGATION = {
    "shared": (k.MS_SHARED, False), "slave": (k.MS_SLAVE, False), "private": (k.MS_PRIVATE, False), "unbindable": (k.MS_UNBINDABLE, False),
    "rshared": (k.MS_SHARED, True), "rslave": (k.MS_SLAVE, True), "rprivate": (k.MS_PRIVATE, True), "runbindable": (k.MS_UNBINDABLE, True),
}
# flags of a superblock as fsconfig(2) takes them; a bind mount has no superblock of its own, so there they mean nothing
SUPERBLOCK = {
    "sync": ("sync", True), "async": ("sync", False), "dirsync": ("dirsync", True), "lazytime": ("lazytime", True),
    "nolazytime": ("lazytime", False), "mand": ("mand", True), "nomand": ("mand", False),
}
# what is rundlet's own to do: option → the fields of Options that it sets
OWN = {
    "bind": ("bind",), "rbind": ("bind", "recursive"), "remount": ("remount",), "idmap": ("mapped",), "ridmap": ("mapped", "mapped_deep"),
    "tmpcopyup": ("copyup",), "copy-symlink": ("copy_symlink",), "src-nofollow": ("src_nofollow",), "dest-nofollow": ("dest_nofollow",),
}
# fsconfig(2) knows no such words, and filesystems that number their inodes' versions do so unasked since Linux 5.18
NOTHING = ("defaults", "silent", "loud", "iversion", "noiversion")
RESTRICTIVE = k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
LONGEST = 255  # bytes of a value that fsconfig(2) takes

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
CLOSE_AT, CLOSE_TREE, CLOSE_FS = Call("close", AT), Call("close", TREE), Call("close", FS)
MAKE = Call("fsconfig", FS, k.FSCONFIG_CMD_CREATE, 0, 0, 0)
ONTO = Call("move_mount", TREE, "", AT, "", ATTACH, label="there")
STATFS = Scratch("statfs", 120)


class Options(Value):
    """The options of one mount, sorted: mount attributes, propagation, what the filesystem itself is told, and what rundlet does itself.

    `maps` is the text behind `idmap=`. Of options that contradict each other the later one holds.
    """

    __slots__ = (
        "bind", "recursive", "remount", "set", "clear", "deep_set", "deep_clear", "propagation", "deep", "data", "mapped", "mapped_deep",
        "maps", "copyup", "copy_symlink", "src_nofollow", "dest_nofollow",
    )

    def __init__(self, words: "list[str]") -> None:
        self.bind = self.recursive = self.remount = self.deep = self.mapped = self.mapped_deep = False
        self.copyup = self.copy_symlink = self.src_nofollow = self.dest_nofollow = False
        self.set = self.clear = self.deep_set = self.deep_clear = self.propagation = 0
        self.maps = ""
        flags: "dict[str, None]" = {}
        data: "list[tuple[str, str | None]]" = []
        for word in words:
            if word in ATTRIBUTES:
                on, off = ATTRIBUTES[word]
                self.set, self.clear = self.set & ~off | on, self.clear & ~on | off
            elif word in OWN:
                for field in OWN[word]:
                    setattr(self, field, True)
            elif word in PROPAGATION:
                self.propagation, self.deep = PROPAGATION[word]
            elif word in DEEP:
                on, off = DEEP[word]
                self.deep_set, self.deep_clear = self.deep_set & ~off | on, self.deep_clear & ~on | off
            elif word in SUPERBLOCK:
                flag, wanted = SUPERBLOCK[word]
                flags.pop(flag, None)
                if wanted:
                    flags[flag] = None
            elif word not in NOTHING and word:
                name, equals, value = word.partition("=")
                if equals and name in ("idmap", "ridmap"):
                    self.mapped, self.mapped_deep, self.maps = True, name == "ridmap", value
                else:
                    data.append((name, value if equals else None))
        self.data = (*flags.items(), *data)


def words() -> "list[str]":
    """Every mount option that is understood, besides those that a filesystem understands; sorted."""
    return sorted({*ATTRIBUTES, *DEEP, *PROPAGATION, *SUPERBLOCK, *OWN, *NOTHING})


class Mounting:
    """The steps of some mounts: `sources` takes hold of what is on the host, `late` of what is there only once the process is, `placed`
    mounts it, in the order of the configuration. `sealed` makes read-only what had to be written first, `users` are the user namespaces
    of mapped ids, `fills` the tmpfs to be filled."""

    def __init__(
        self, base: int = k.MS_PRIVATE, cgroups: "list[Hierarchy] | None" = None, cgroup_ns: str = "", late_cgroup: bool = False,
        in_user: bool = False, privileged: bool = True,
    ) -> None:
        self.base = base  # the propagation type of what does not ask for one
        self.cgroups = cgroups or []
        self.cgroup_ns = cgroup_ns  # "new", "joined", or "" for the host's
        self.late_cgroup = late_cgroup  # whether the cgroup is made around the process
        self.in_user = in_user
        self.privileged = privileged  # whether what is on the host is taken hold of with the privileges of the host
        self.sources: "list[Step]" = []
        self.late: "list[Step]" = []
        self.placed: "list[Step]" = []
        self.sealed: "list[Step]" = []
        self.users: "list[Users]" = []
        self.fills: "list[Fill]" = []

    def add(self, i: int, config: "Config", bundle: "Bundle") -> None:
        """Adds mount `i` of the configuration. Raises BadSpec and Refused."""
        mount = config["mounts"][i]
        if config["linux"]["mountLabel"]:
            from rundlet.plan import selinux

            mount = selinux.labelled(mount, config)
        options = Options(mount["options"])
        path = bundle.targets.get(i, mount["destination"])
        bound = is_bind(mount) and not options.remount
        if options.copyup and mount["type"] != "tmpfs":
            raise BadSpec(f"/mounts/{i}/options", "tmpcopyup can be used only with tmpfs")
        users = ""
        if options.mapped or mount["uidMappings"]:
            from rundlet.plan import idmap

            users = idmap.add(self, i, mount, options, config)
        if mount["type"] in ("cgroup", "cgroup2") and not bound:
            from rundlet.plan import cgroupfs

            cgroupfs.add(self, i, mount, options, path, config["annotations"].get(cgroupfs.FORCED))
        elif i in bundle.links:
            from rundlet.plan import links

            self.placed.append(links.copy(mount, bundle.links[i], path))
        elif bound:
            where, directory = bundle.sources[i]
            held = self.placed if i in bundle.inside else self.sources
            held.append(source(i, mount, options, where, self.base, self.privileged, bundle.inside.get(i, "")))
            if users:
                held.append(idmap.step(i, users, options, where, bundle.filesystems.get(i, "")))
            self.placed.append(bind(i, mount, options, directory, path))
        elif options.remount:
            self.placed.append(remount(mount, options, path))
        elif mount["type"] == "sysfs" and self.in_user:
            self.placed.append(sysfs(mount, options, path))
        else:
            self._filesystem(i, mount, options, path, bundle.modes.get(i))

    def _filesystem(self, i: int, mount: "Mount", options: Options, path: str, mode: "int | None") -> None:
        """A mount that is not a bind: a new filesystem of the type given. `mode`: of the directory that a tmpfs takes the place of."""
        kind = mount["type"]
        if not kind or kind == "none":
            raise BadSpec(f"/mounts/{i}/type", "missing, and no bind or rbind among the options")
        data = options.data if mode is None else (*options.data, ("mode", f"{mode:04o}"))
        what = f"mount {kind} on {mount['destination']} ({','.join(mount['options'])})"
        if any(value and len(value.encode()) > LONGEST for _, value in data):
            from rundlet.plan import longmount

            self.placed.append(longmount.step(what, mount, options, data, path))
            return
        slot = "devpts" if kind == "devpts" and path.strip("/") == "dev/pts" else "tree"
        attrs, late = options.set, 0
        if kind == "tmpfs" or path.strip("/") == "dev":
            late = (options.set | options.deep_set) & k.MOUNT_ATTR_RDONLY
            attrs &= ~k.MOUNT_ATTR_RDONLY
            slot = f"late{i}" if late else slot
        if kind not in ("tmpfs", "overlay") and (mount["source"] or "")[:1] == "/" and options.set & k.MOUNT_ATTR_RDONLY:
            data = (("ro", None), *data)  # of a device that may be read-only itself
        made = fresh(kind, mount["source"] or kind, data, attrs, slot)
        deep_set = options.deep_set & ~late
        if options.clear & ~0x71 or deep_set or options.deep_clear:
            made = (*made, attributes(slot, deep_set, options.deep_clear, 0, True))
        place: "tuple[Call, ...]" = target(path, True, follow=not options.dest_nofollow and kind not in ORDINARY)
        if options.copyup:
            from rundlet.plan import copyup

            self.placed.append(copyup.step(mount, made, place, slot))
            self.fills.append(copyup.Fill(mount["destination"], not any(name in ("uid", "gid") for name, _ in options.data)))
            made, place = (), ()
        calls = [*made, *place, *landing(options, slot)]
        if options.propagation:
            calls.append(attributes(slot, 0, 0, options.propagation, options.deep))
        calls += _settled(slot, path, not late and slot == "tree")
        self.placed.append(Step(what, *calls, kind="mount", hint=_hint(kind, self.in_user)))
        if late:
            self.sealed.append(Step(
                f"make {mount['destination']} read-only", attributes(slot, late), *(() if is_root(path) else (Call("close", Slot(slot)),)),
                kind="readonly",
            ))


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
    up = ROOT
    for i, part in enumerate(parts if directory else parts[:-1], 1):
        # one name in a directory that is held: nothing to be led astray by
        calls.append(Call("mkdirat", up, part, 0o755, fine=("EEXIST",)))
        if i < len(parts):
            calls.append(Call("openat2", ROOT, "/".join(parts[:i]), FIND_DIR, 24, into="up"))
            up = UP
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


def landing(options: Options, tree: str) -> "tuple[Call, ...]":
    """The move behind target(); where no link was followed, only after a look at what it is that was found."""
    return (*forbidden(), onto(tree, label="")) if options.dest_nofollow else (onto(tree),)


def _settled(tree: str, path: str, close: bool = True) -> "tuple[Call, ...]":
    """What follows a move: descriptors are closed. A mount on / is the root filesystem from then on: what was it lies below it."""
    if is_root(path):
        return (Call("value", Slot(tree), into="root"), CLOSE_AT)
    return (Call("close", Slot(tree)), CLOSE_AT) if close else (CLOSE_AT,)


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


def source(index: int, mount: "Mount", options: Options, path: str, base: int, privileged: bool = True, inner: str = "") -> Step:
    """Takes hold of a bind mount's source on the host, with all its flags: slot `bind<index>`. Runs outside the container; or inside, for
    what is mounted in the root filesystem already, at `inner`.

    A clone is a peer of the host's mount, so before anything else it gets the propagation `base` (MS_PRIVATE unless the root
    filesystem was asked to be something else): what is then mounted below it stays where it is mounted.
    """
    tree = f"bind{index}"
    deep = options.recursive
    how = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | (k.AT_RECURSIVE if deep else 0) | (k.AT_SYMLINK_NOFOLLOW if options.src_nofollow else 0)
    calls = [Call("open_tree", k.AT_FDCWD, Late(f"source {index}", path), how, into=tree)]
    if inner:
        opened = Slot("from")
        calls = [find("root", inner, "from"), Call("open_tree", opened, "", how | k.AT_EMPTY_PATH, into=tree), Call("close", opened)]
        path = f"the container's {inner}"
    if deep:
        calls.append(attributes(tree, 0, 0, options.propagation if options.deep else base, True))
    calls.append(attributes(tree, options.set, options.clear, options.propagation or base))
    if options.deep_set or options.deep_clear:
        calls.append(attributes(tree, options.deep_set, options.deep_clear, 0, True))
    hint = f"it is the source of the mount {mount['destination']}"
    if not privileged and options.clear | options.deep_clear:
        hint += "; what a mount of the host forbids, such as nosuid, cannot be permitted without the host's privileges"
    return Step(f"take hold of {path} for {mount['destination']}", *calls, kind="source", hint=hint)


def bind(index: int, mount: "Mount", options: Options, directory: bool, path: str) -> Step:
    """Moves the source taken hold of before onto its destination."""
    tree = f"bind{index}"
    calls = (*target(path, directory, follow=not options.dest_nofollow), *landing(options, tree), *_settled(tree, path))
    hint = f"override of the mount destination {mount['destination']} is not allowed: proc, sysfs and devpts keep their links"
    return Step(
        f"bind {mount['source']} on {mount['destination']} ({','.join(mount['options'])})", *calls, kind="mount",
        hint=hint if options.dest_nofollow else "",
    )


def remount(mount: "Mount", options: Options, path: str) -> Step:
    """Changes a mount that is there: its flags, and what its filesystem is told unless the word bind says that it is the mount alone."""
    calls = [find("root", path), attributes("at", options.set | options.deep_set, options.clear | options.deep_clear, options.propagation)]
    if options.deep_set or options.deep_clear:
        calls.insert(1, attributes("at", options.deep_set, options.deep_clear, 0, True))
    if options.data and not options.bind:
        pick = Call("fspick", AT, "", k.FSPICK_CLOEXEC | k.FSPICK_EMPTY_PATH, into="fs")
        calls += [pick, *told(options.data), Call("fsconfig", FS, k.FSCONFIG_CMD_RECONFIGURE, 0, 0, 0), CLOSE_FS]
    return Step(f"change the flags of {mount['destination']} ({','.join(mount['options'])})", *calls, CLOSE_AT, kind="mount")


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


def _hint(kind: str, in_user: bool) -> str:
    """What may be behind a refusal of the kernel."""
    if kind == "proc" and in_user:
        return (
            "in a user namespace a new proc takes a PID namespace that belongs to it, and a host's /proc of which nothing is covered "
            "(mount_too_revealing); add a PID namespace, or bind /proc"
        )
    return ""


def sysfs(mount: "Mount", options: Options, path: str) -> Step:
    """A sysfs in a user namespace: the kernel refuses a new one by EPERM where the network namespace whose devices it shows is not owned
    (sysfs_init_fs_context in fs/sysfs/mount.c), or the host's is partly covered (mount_too_revealing in fs/namespace.c). Then the host's
    is shown, all of it with the flags asked for.
    """
    attrs = options.set | options.deep_set
    first, *rest = fresh("sysfs", mount["source"] or "sysfs", options.data, attrs)
    made = [
        Call(call.name, *call.args, into=call.into, fine=("EPERM",), on_fine="late") if call.name == "fsmount" or call is MAKE else call
        for call in rest
    ]
    return Step(
        f"mount sysfs on {mount['destination']} ({','.join(mount['options'])})",
        Call("fsopen", *first.args, into="fs", fine=("EPERM",), on_fine="host"), *made, Call("value", 0, on_zero="made"),
        Call("close", FS, label="late"),
        Call("open_tree", k.AT_FDCWD, "/sys", k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_RECURSIVE, into="tree", label="host"),
        attributes("tree", attrs & RESTRICTIVE, 0, k.MS_PRIVATE, True),
        Call("value", 0, label="made"), *target(path, True, follow=False), ONTO,
        *([attributes("tree", 0, 0, options.propagation, options.deep)] if options.propagation else []), CLOSE_TREE, CLOSE_AT, kind="mount",
    )
