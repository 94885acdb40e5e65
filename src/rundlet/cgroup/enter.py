"""The cgroup of one more process of a container, where it is not simply the container's own: exec --cgroup, and v2 below its root."""

from rundlet.cgroup import files, layout
from rundlet.cgroup.place import Dir, Place, find, sub
from rundlet.errors import Refused, StepFailed, Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def choose(place: Place, paths: "Sequence[str]") -> Place:
    """The sub-cgroups that exec --cgroup names: one path for all hierarchies, or CONTROLLER[,CONTROLLER...]:PATH for one of v1 each.

    "/" is the container's own cgroup. Raises Usage for other shapes, BadSpec for a path that leaves it, Refused for unknown controllers and
    for a container that has no cgroup.
    """
    if not place.dirs:
        raise Refused("--cgroup: the container was made without cgroups", "leave it out, or make it with --cgroup-manager=cgroupfs")
    if len(paths) == 1 and ":" not in paths[0]:
        return sub(place, paths[0])
    chosen: "dict[str, str]" = {}
    for word in paths:
        names, colon, path = word.partition(":")
        if not colon or ":" in path:
            raise Usage(f"invalid --cgroup argument: {word}; several are CONTROLLER:PATH each")
        for name in names.split(","):
            if name in chosen:
                raise Usage(f"invalid --cgroup arguments: controller {name} specified multiple times")
            chosen[name] = path
    dirs = list(place.dirs)
    for name, path in chosen.items():
        at = find(place, name) or find(place, f"name={name}")
        if at is None or at.version != 1:
            raise Refused(f"--cgroup: unknown controller {name} among the cgroups of v1 here", "name one of them, or give a path alone")
        inner = sub(Place((at,)), path).dirs[0]
        index = place.dirs.index(at)
        if dirs[index] not in (at, inner):
            raise Usage(f"invalid --cgroup arguments: the controllers of one hierarchy have one path, not also {path}")
        dirs[index] = inner
    return Place(tuple(dirs))


def beside(place: Place, init: int, pid: int, first: StepFailed) -> None:
    """Moves a process to where the container's first process has gone, below the container's own cgroup of v2.

    That one takes no processes any more when the container has given controllers to its sub-cgroups: cgroup-v2.rst, "No Internal Process
    Constraint". Raises `first`, the fault of trying, when the first process is not there.
    """
    at = place.dirs[-1]
    own = layout.read(init)["own"].get("unified", "")
    path = f"{at.mount}{own}"
    if at.version != 2 or not path.startswith(at.path + "/"):
        raise first
    files.join(Place((Dir(path, at.mount, 2, at.controllers),)), pid)
