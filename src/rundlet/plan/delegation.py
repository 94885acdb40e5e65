"""Whose the container's cgroup is: given to the container where it may write it anyway, and nothing outside of it is to be reached. Pure.

Sources: runtime-spec config-linux.md, "Cgroup ownership"; crun(1), "run.oci.delegate-cgroup"; cgroup-v2.rst, "Delegation".
"""

from rundlet.errors import BadSpec, Refused
from rundlet.plan.bundle import is_bind
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.resources import CgroupFacts
    from rundlet.spec.types import Config

ANNOTATION = "run.oci.delegate-cgroup"


class Delegation(Value):
    """`owner` is the host's uid that the container's cgroup is given to, None for nobody; `path` the sub-cgroup that its first process
    is moved to, "" for none, and `root` the host's (uid, gid) which that one is given to."""

    __slots__ = ("owner", "path", "root")

    def __init__(self, owner: "int | None", path: str, root: "tuple[int, int]") -> None:
        self.owner = owner
        self.path = path
        self.root = root


def decide(config: "Config", cgroups: "CgroupFacts") -> Delegation:
    """Who gets what. Raises BadSpec and Refused for an annotation that cannot be obeyed."""
    linux = config["linux"]
    path = config["annotations"].get(ANNOTATION, "").strip("/")
    if path and cgroups["layout"] != "v2":
        raise Refused(f"/annotations/{ANNOTATION}: delegate-cgroup not supported on cgroup v1", "remove it, or use a host with cgroup v2")
    if {"", ".", ".."} & set(path.split("/")) and path:
        raise BadSpec(f"/annotations/{ANNOTATION}", f'must be a path below the container\'s cgroup, not "{path}"')
    root = (_outside(config, "uidMappings", 0) or 0, _outside(config, "gidMappings", 0) or 0)
    private = any(space["type"] == "cgroup" and space["path"] is None for space in linux["namespaces"])
    writable = any(
        mount["type"] in ("cgroup", "cgroup2") and not is_bind(mount) and "ro" not in mount["options"]
        and mount["destination"].rstrip("/") == "/sys/fs/cgroup"
        for mount in config["mounts"]
    )
    owner = None
    if cgroups["layout"] == "v2" and private and writable:
        owner = _outside(config, "uidMappings", config["process"]["user"]["uid"]) or None  # the host's root has it already
    return Delegation(owner, path, root)


def _outside(config: "Config", maps: "Literal['uidMappings', 'gidMappings']", number: int) -> "int | None":
    """The id on the host; None for one that is not mapped, or mapped by a user namespace that somebody else has made."""
    if not any(space["type"] == "user" for space in config["linux"]["namespaces"]):
        return number
    for part in config["linux"][maps]:
        if part["containerID"] <= number < part["containerID"] + part["size"]:
            return part["hostID"] + number - part["containerID"]
    return None


if TYPE_CHECKING:
    from typing import Literal
