"""One mount of config.json, and the steps that make it."""

from rundlet import kernel as k
from rundlet.errors import BadSpec
from rundlet.plan.bundle import ORDINARY, is_bind
from rundlet.plan.mounts.calls import (
    AT,
    CLOSE_AT,
    CLOSE_FS,
    CLOSE_TREE,
    FS,
    MAKE,
    ONTO,
    attributes,
    find,
    forbidden,
    fresh,
    is_root,
    onto,
    target,
    told,
)
from rundlet.plan.mounts.mounting import Fill
from rundlet.plan.mounts.options import PROPAGATION, Options
from rundlet.plan.step import Call, Late, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.bundle import Bundle
    from rundlet.plan.mounts.mounting import Mounting
    from rundlet.spec.types import Config, Mount

RESTRICTIVE = k.MOUNT_ATTR_RDONLY | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV | k.MOUNT_ATTR_NOEXEC
LONGEST = 255  # bytes of a value that fsconfig(2) takes


def add(mounting: "Mounting", i: int, config: "Config", bundle: "Bundle") -> None:
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
    if options.propagation and len({PROPAGATION[word][0] for word in mount["options"] if word in PROPAGATION}) > 1:
        raise BadSpec(f"/mounts/{i}/options", "a mount has one kind of propagation: shared, slave, private or unbindable")
    if (bound or options.bind) and (others := options.others()):  # runc refuses them, too; the kernel would pass over nosiud
        raise BadSpec(f"/mounts/{i}/options", f'"{others[0]}" is not known, and a bind mount has no filesystem to be told of it')
    users = ""
    if options.mapped or mount["uidMappings"]:
        from rundlet.plan.mounts import idmap

        users = idmap.add(mounting, i, mount, options, config)
    if mount["type"] in ("cgroup", "cgroup2") and not bound:
        from rundlet.plan.mounts import cgroup

        cgroup.add(mounting, i, mount, options, path, config["annotations"].get(cgroup.FORCED))
    elif i in bundle.links:
        from rundlet.plan.mounts import links

        mounting.placed.append(links.copy(mount, bundle.links[i], path))
    elif bound:
        where, directory = bundle.sources[i]
        held = mounting.placed if i in bundle.inside else mounting.sources
        held.append(source(i, mount, options, where, mounting.base, mounting.privileged, bundle.inside.get(i, "")))
        if users:
            mapped = idmap.step(i, users, options, where, bundle.filesystems.get(i, ""))
            if i in bundle.inside and mounting.in_user:
                mapped, turn = idmap.turn(i, users, mapped)
                mounting.fills.append(turn)
            held.append(mapped)
        mounting.placed.append(bind(i, mount, options, directory, path))
    elif options.remount:
        mounting.placed.append(remount(mount, options, path))
    elif mount["type"] == "sysfs" and mounting.in_user:
        mounting.placed.append(sysfs(mount, options, path))
    else:
        _filesystem(mounting, i, mount, options, path, bundle.modes.get(i))


def _filesystem(mounting: "Mounting", i: int, mount: "Mount", options: Options, path: str, mode: "int | None") -> None:
    """A mount that is not a bind: a new filesystem of the type given. `mode`: of the directory that a tmpfs takes the place of."""
    kind = mount["type"]
    if not kind or kind == "none":
        raise BadSpec(f"/mounts/{i}/type", "missing, and no bind or rbind among the options")
    data = options.data if mode is None else (*options.data, ("mode", f"{mode:04o}"))
    what = f"mount {kind} on {mount['destination']} ({','.join(mount['options'])})"
    if any(value and len(value.encode()) > LONGEST for _, value in data):
        from rundlet.plan.mounts import long

        mounting.placed.append(long.step(what, mount, options, data, path))
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
        from rundlet.plan.mounts import copyup

        mounting.placed.append(copyup.step(mount, made, place, slot))
        mounting.fills.append(Fill(mount["destination"], not any(name in ("uid", "gid") for name, _ in options.data)))
        made, place = (), ()
    calls = [*made, *place, *landing(options, slot)]
    if options.propagation:
        calls.append(attributes(slot, 0, 0, options.propagation, options.deep))
    calls += _settled(slot, path, not late and slot == "tree")
    mounting.placed.append(Step(what, *calls, kind="mount", hint=_hint(kind, mounting.in_user)))
    if late:
        mounting.sealed.append(Step(
            f"make {mount['destination']} read-only", attributes(slot, late), *(() if is_root(path) else (Call("close", Slot(slot)),)),
            kind="readonly",
        ))


def landing(options: Options, tree: str) -> "tuple[Call, ...]":
    """The move behind target(); where no link was followed, only after a look at what it is that was found."""
    return (*forbidden(), onto(tree, label="")) if options.dest_nofollow else (onto(tree),)


def _settled(tree: str, path: str, close: bool = True) -> "tuple[Call, ...]":
    """What follows a move: descriptors are closed. A mount on / is the root filesystem from then on: what was it lies below it."""
    if is_root(path):
        return (Call("value", Slot(tree), into="root"), CLOSE_AT)
    return (Call("close", Slot(tree)), CLOSE_AT) if close else (CLOSE_AT,)


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
