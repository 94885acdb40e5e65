"""Where a container's cgroup is: one directory in each hierarchy, all of the same path. Pure."""

from rundlet.errors import BadSpec, Refused
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.resources import CgroupFacts


class Dir(Value):
    """A cgroup: its directory `path`, the `mount` point it is below, the `version` (1 or 2) and the `controllers` of the hierarchy."""

    __slots__ = ("path", "mount", "version", "controllers")

    def __init__(self, path: str, mount: str, version: int, controllers: "tuple[str, ...]") -> None:
        self.path = path
        self.mount = mount
        self.version = version
        self.controllers = controllers


class Place(Value):
    """The cgroups of a container, at most one in each hierarchy, the unified one last."""

    __slots__ = ("dirs",)

    def __init__(self, dirs: "tuple[Dir, ...]") -> None:
        self.dirs = dirs


def place(cgroups: "CgroupFacts", cgroups_path: "str | None", container_id: str) -> Place:
    """The cgroups for the config's /linux/cgroupsPath, or for none, which is the id.

    A path is taken from the mount point of each hierarchy, whether it begins with a slash or not: so it means the same wherever the
    runtime itself runs, as with crun. Raises BadSpec for one that leaves the hierarchy or names its root.
    """
    below = _below(cgroups_path or container_id, "/linux/cgroupsPath")
    names: "dict[str, list[str]]" = {}
    for key, mount in cgroups["mounts"].items():
        if key != "unified":
            names.setdefault(mount, []).append(key)
    dirs = [Dir(f"{mount}/{below}", mount, 1, tuple(keys)) for mount, keys in names.items()]
    if "unified" in cgroups["mounts"]:
        mount = cgroups["mounts"]["unified"]
        dirs.append(Dir(f"{mount}/{below}", mount, 2, tuple(cgroups["controllers"])))
    return Place(tuple(dirs))


def sub(place: Place, path: str) -> Place:
    """The sub-cgroup `path` of each cgroup of a container (exec --cgroup). Raises BadSpec for a path that leaves it."""
    if not path.strip("/"):
        return place
    if ".." in path.split("/"):
        raise BadSpec("--cgroup", f"bad sub cgroup path: {path} is not a sub cgroup path")
    below = _below(path, "--cgroup")
    return Place(tuple(Dir(f"{at.path}/{below}", at.mount, at.version, at.controllers) for at in place.dirs))


def _below(path: str, where: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadSpec(where, f'must not contain "..": "{path}"')
    if not parts:
        raise BadSpec(where, f'must name a cgroup below the root: "{path}"')
    if "\0" in path or "\n" in path:
        raise BadSpec(where, "must not contain NUL or a newline")
    return "/".join(parts)


def find(place: Place, controller: str) -> "Dir | None":
    """The cgroup that `controller` is set in, None when the host has it not; every unified one has "devices", "freezer" and "cgroup"."""
    for at in place.dirs:
        if at.version == 1 and controller in at.controllers:
            return at
        if at.version == 2 and (controller in at.controllers or controller in ("devices", "freezer", "cgroup")):
            return at
    return None


def chief(place: Place) -> "Dir | None":
    """The cgroup from which the container's processes are read: the unified one, else the freezer's, else any."""
    if not place.dirs:
        return None
    last = place.dirs[-1]
    return last if last.version == 2 else find(place, "freezer") or last


def dump(place: Place) -> "list[list[object]]":
    """The place as plain lists, for the state file."""
    return [[at.path, at.mount, at.version, *at.controllers] for at in place.dirs]


def load(lists: "list[list[object]]") -> Place:
    """The place that dump() wrote."""
    rows = [(str(path), str(mount), 1 if version == 1 else 2, tuple(map(str, names))) for path, mount, version, *names in lists]
    return Place(tuple(Dir(*row) for row in rows))


def missing(controller: str, what: str) -> Refused:
    """The fault of a limit whose controller's hierarchy is not the container's to write."""
    todo = f"enable the {controller} controller, or do not ask for this limit"
    return Refused(f"cannot set the {what}: no cgroup for the {controller} controller here", todo)
