"""The mount of type cgroup: what the container sees under /sys/fs/cgroup.

On a host with cgroup v2 alone that is the container's own subtree: a new mount of cgroup2 where there is a cgroup namespace (whose
root it shows), else a bind of the container's directory. With v1 it is a tmpfs with one directory a hierarchy, each made the same way.

crun's annotation run.oci.systemd.force_cgroup_v1 names the destination of such a mount, which then has nothing but systemd's own hierarchy
of v1, for a container with a systemd that does not know v2. The host has to have it mounted, beside cgroup v2: crun(1).
"""

from rundlet import kernel as k
from rundlet.errors import Refused
from rundlet.plan.mounts.calls import CLOSE_AT, FS, MAKE, attributes, fresh, onto, target
from rundlet.plan.step import Call, Late, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.mounts.mounting import Hierarchy, Mounting
    from rundlet.plan.mounts.options import Options
    from rundlet.spec.types import Config, Mount

FORCED = "run.oci.systemd.force_cgroup_v1"


def idle(config: "Config") -> str:
    """Why the annotation has no effect; "" where it has, or is not there."""
    path = config["annotations"].get(FORCED)
    if path is None or any(_is_forced(mount, path) for mount in config["mounts"]):
        return ""
    return f"/annotations/{FORCED}: has no effect: there is no mount of type cgroup on {path}"


def _is_forced(mount: "Mount", path: "str | None") -> bool:
    return path is not None and mount["type"] in ("cgroup", "cgroup2") and mount["destination"].rstrip("/") == path.rstrip("/")


def _systemds(dirs: "list[Hierarchy]") -> "list[Hierarchy]":
    """Of the hierarchies systemd's own of v1. Raises Refused where there is none."""
    found = [one for one in dirs if one[2] == ["name=systemd"]]
    if not found:
        todo = "mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd,xattr cgroup /sys/fs/cgroup/systemd"
        raise Refused(f"/annotations/{FORCED}: systemd's hierarchy of cgroup v1 is not mounted on this host", f"{todo}, or remove it")
    return found


def add(mounting: "Mounting", index: int, given: "Mount", options: "Options", path: str, forced: "str | None" = None) -> None:
    """Adds mount `index`, of the container's cgroups, at `path`; `forced` is what the annotation says. Raises Refused.

    In a user namespace the kernel may refuse a new mount even where there is a cgroup namespace, since that one is joined and belongs to
    another. Then the container's directories are shown as without one.
    """
    dirs, namespace = mounting.cgroups, bool(mounting.cgroup_ns)
    if _is_forced(given, forced):
        dirs = _systemds(dirs)
    spare = mounting.cgroup_ns == "joined" and mounting.in_user and mounting.privileged
    if not namespace or spare:
        (mounting.late if mounting.late_cgroup else mounting.sources).extend(sources(index, dirs))
    mounting.placed += mount(index, given, options, dirs, namespace, path, spare)


def sources(index: int, dirs: "list[Hierarchy]") -> "tuple[Step, ...]":
    """Takes hold, outside, of the container's directory in each hierarchy."""
    return tuple(
        Step(
            f"take hold of the cgroup {path}",
            Call("open_tree", k.AT_FDCWD, Late(f"cgroup {n}", path), k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC, into=f"cgroup{index}:{n}"),
            attributes(f"cgroup{index}:{n}", 0, 0, k.MS_PRIVATE), kind="source",
        )
        for n, (path, _, _) in enumerate(dirs)
    )


def mount(
    index: int, given: "Mount", options: "Options", dirs: "list[Hierarchy]", namespace: bool, path: str, spare: bool,
) -> "tuple[Step, ...]":
    """Mounts the container's cgroups: `dirs` are (directory on the host, version, controllers) of each hierarchy.

    Raises Refused when there is none.
    """
    what = f"mount cgroup on {given['destination']} ({','.join(given['options'])})"
    if not dirs:
        raise Refused(f"/mounts/{index}: no cgroup hierarchy is mounted on this host", "remove this mount")
    flags = options.set | options.deep_set
    if len(dirs) == 1 and dirs[0][1] == 2:
        calls = [*_tree(index, 0, dirs[0], flags, namespace, spare), *target(path, True), onto("tree")]
        if options.propagation:
            calls.append(attributes("tree", 0, 0, options.propagation))
        return (Step(what, *calls, Call("close", Slot("tree")), CLOSE_AT, kind="mount"),)
    data = options.data or (("mode", "755"),)
    steps = [Step(
        what + " as a tmpfs, with a directory for each hierarchy of v1",
        *fresh("tmpfs", "tmpfs", data, flags & ~k.MOUNT_ATTR_RDONLY, "cgroups"), *target(path, True), onto("cgroups"), CLOSE_AT,
        kind="mount",
    )]
    for n, one in enumerate(dirs):
        name = "unified" if one[1] == 2 else ",".join(c.removeprefix("name=") for c in one[2])
        steps.append(Step(
            f"mount the cgroups of {name} on {path}/{name}", *_tree(index, n, one, flags, namespace, spare),
            Call("mkdirat", Slot("cgroups"), name, 0o755),
            Call("move_mount", Slot("tree"), "", Slot("cgroups"), name, k.MOVE_MOUNT_F_EMPTY_PATH), Call("close", Slot("tree")),
            kind="mount",
        ))
        if one[1] == 1 and len(one[2]) > 1:
            links = [Call("symlinkat", name, Slot("cgroups"), c.removeprefix("name=")) for c in one[2]]
            steps.append(Step(f"make the links of {name}", *links, kind="mount"))
    if flags & k.MOUNT_ATTR_RDONLY:
        steps.append(Step(f"make {path} read-only", attributes("cgroups", k.MOUNT_ATTR_RDONLY), kind="mount"))
    if options.propagation:
        steps.append(Step(f"set the propagation of {path}", attributes("cgroups", 0, 0, options.propagation, options.deep), kind="mount"))
    return tuple(steps)


def _tree(index: int, n: int, one: "Hierarchy", flags: int, namespace: bool, spare: bool) -> "tuple[Call, ...]":
    """A detached mount of one hierarchy, in the slot "tree". `spare`: what was taken hold of outside stands in for it at need."""
    _, version, controllers = one
    held = (Call("value", Slot(f"cgroup{index}:{n}"), into="tree"), attributes("tree", flags))
    if not namespace:
        return held
    words: "list[tuple[str, str | None]]" = []
    for c in controllers if version == 1 else ():
        # systemd's own hierarchy keeps extended attributes; where it is mounted without, the kernel passes the word over
        words += [("none", None), ("name", c[5:])] if c[:5] == "name=" else [(c, None)]
        words += [("xattr", None)] if c == "name=systemd" else []
    calls = fresh("cgroup2" if version == 2 else "cgroup", "cgroup", tuple(words), flags)
    if not spare:
        return calls
    refusable = [
        Call(call.name, *call.args, into=call.into, fine=("EPERM",), on_fine="refused") if call is MAKE or call.name == "fsmount" else call
        for call in calls
    ]
    return (
        *refusable, Call("value", 0, on_zero="made"), Call("close", FS, label="refused"), *held, Call("value", 0, label="made"),
    )
