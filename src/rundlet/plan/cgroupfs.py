"""The mount of type cgroup: what the container sees under /sys/fs/cgroup.

On a host with cgroup v2 alone that is the container's own subtree: a new mount of cgroup2 where there is a cgroup namespace (whose
root it shows), else a bind of the container's directory. With v1 it is a tmpfs with one directory a hierarchy, each made the same way.
"""

from rundlet import kernel as k
from rundlet.errors import Refused
from rundlet.plan.mounts import Options, attributes, fresh, onto, target
from rundlet.plan.step import Call, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Mount

    Hierarchy = tuple[str, int, list[str]]


def sources(index: int, dirs: "list[Hierarchy]", namespace: bool) -> "tuple[Step, ...]":
    """Without a cgroup namespace: takes hold, outside, of the container's directory in each hierarchy."""
    if namespace:
        return ()
    return tuple(
        Step(
            f"take hold of the cgroup {path}",
            Call("open_tree", k.AT_FDCWD, path, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC, into=f"cgroup{index}:{n}"),
            attributes(f"cgroup{index}:{n}", 0, 0, k.MS_PRIVATE), kind="source",
        )
        for n, (path, _, _) in enumerate(dirs)
    )


def mount(index: int, given: "Mount", options: Options, dirs: "list[Hierarchy]", namespace: bool) -> "tuple[Step, ...]":
    """Mounts the container's cgroups: `dirs` are (directory on the host, version, controllers) of each hierarchy.

    Raises Refused when there is none.
    """
    path, what = given["destination"], f"mount cgroup on {given['destination']} ({','.join(given['options'])})"
    if not dirs:
        raise Refused(f"/mounts/{index}: no cgroup hierarchy is mounted on this host", "remove this mount")
    flags = options.set
    if len(dirs) == 1 and dirs[0][1] == 2:
        return (Step(what, *_tree(index, 0, dirs[0], flags, namespace), *target(path, True), onto("tree"), kind="mount"),)
    data = options.data or (("mode", "755"),)
    steps = [Step(
        what + " as a tmpfs, with a directory for each hierarchy of v1",
        *fresh("tmpfs", "tmpfs", data, flags & ~k.MOUNT_ATTR_RDONLY, "cgroups"), *target(path, True), onto("cgroups"), kind="mount",
    )]
    for n, one in enumerate(dirs):
        name = "unified" if one[1] == 2 else ",".join(c.removeprefix("name=") for c in one[2])
        steps.append(Step(
            f"mount the cgroups of {name} on {path}/{name}", *_tree(index, n, one, flags, namespace),
            Call("mkdirat", Slot("cgroups"), name, 0o755),
            Call("move_mount", Slot("tree"), "", Slot("cgroups"), name, k.MOVE_MOUNT_F_EMPTY_PATH), Call("close", Slot("tree")),
            kind="mount",
        ))
        if one[1] == 1 and len(one[2]) > 1:
            links = [Call("symlinkat", name, Slot("cgroups"), c.removeprefix("name=")) for c in one[2]]
            steps.append(Step(f"make the links of {name}", *links, kind="mount"))
    if flags & k.MOUNT_ATTR_RDONLY:
        steps.append(Step(f"make {path} read-only", attributes("cgroups", k.MOUNT_ATTR_RDONLY), kind="mount"))
    return tuple(steps)


def _tree(index: int, n: int, one: "Hierarchy", flags: int, namespace: bool) -> "tuple[Call, ...]":
    """A detached mount of one hierarchy, in the slot "tree"."""
    _, version, controllers = one
    if not namespace:
        return (
            Call("value", Slot(f"cgroup{index}:{n}"), into="tree"), attributes("tree", flags),
        )
    if version == 2:
        return fresh("cgroup2", "cgroup", (), flags)
    words: "list[tuple[str, str | None]]" = []
    for c in controllers:
        words += [("none", None), ("name", c[5:])] if c[:5] == "name=" else [(c, None)]
    return fresh("cgroup", "cgroup", tuple(words), flags)
