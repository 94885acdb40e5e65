"""Device nodes for a container in a user namespace, where the kernel makes none: mknod(2), EPERM.

They are made before, with the privileges of the host, on a tmpfs that nobody else can reach, with the mode and the owner asked for: so
a device need not be on the host, and the host's own mode does not count. In the container that tmpfs lies over /dev for a moment: only
what is mounted somewhere can be cloned (before Linux 6.15), and a clone of each node is what is then bound in its place.
"""

from rundlet import kernel as k
from rundlet.plan.mounts.calls import AT, ATTACH, CLOSE_AT, ROOT, fresh, target
from rundlet.plan.rootfs import DEVICES, TYPES
from rundlet.plan.step import Call, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Device, IDMapping, Linux

NODES = Slot("nodes")


def wanted(linux: "Linux") -> "list[Device]":
    """The devices to make: all of the configuration, but fifos, which anybody may make, and those that every container has.

    None where the maps are not known, as of a namespace joined by its path, or an owner is not in them.
    """
    defaults = {"/dev/" + name for name, _, _ in DEVICES} | {"/dev/ptmx"}
    given = [device for device in linux["devices"] if device["type"] != "p" and device["path"] not in defaults]
    if any(_outside(linux["uidMappings"], d["uid"]) is None or _outside(linux["gidMappings"], d["gid"]) is None for d in given):
        return []
    return given


def make(linux: "Linux", given: "list[Device]") -> Step:
    """Makes the nodes, out of everybody's reach. Runs outside the container."""
    calls = list(fresh("tmpfs", "tmpfs", (("mode", "0711"), ("size", "65536")), 0, "nodes"))
    for n, device in enumerate(given):
        uid, gid = _outside(linux["uidMappings"], device["uid"]), _outside(linux["gidMappings"], device["gid"])
        assert uid is not None and gid is not None
        calls += [
            Call("mknodat", NODES, str(n), TYPES[device["type"]] | 0o600, k.device(device["major"], device["minor"])),
            Call("fchownat", NODES, str(n), uid, gid, k.AT_SYMLINK_NOFOLLOW),
            Call("fchmodat", NODES, str(n), device["fileMode"]),  # the mask of the caller is not asked
        ]
    paths = ", ".join(f"{d['path']} ({d['type']} {d['major']}:{d['minor']})" for d in given)
    return Step(f"make the nodes of {paths}", *calls, kind="source", hint="it takes CAP_MKNOD")


def take(given: "list[Device]") -> Step:
    """Inside: takes hold of each node, in the slots from which they are bound."""
    how = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC
    return Step(
        "take hold of the nodes that were made",
        *target("/dev", True), Call("move_mount", NODES, "", AT, "", ATTACH, label="there"), CLOSE_AT,
        *[Call("open_tree", NODES, str(n), how, into=f"device:{device['path']}") for n, device in enumerate(given)],
        Call("fchdir", NODES), Call("umount2", ".", k.MNT_DETACH), Call("fchdir", ROOT), Call("close", NODES),
        kind="device",
    )


def _outside(maps: "list[IDMapping]", inside: int) -> "int | None":
    """What an id of the container is on the host."""
    for entry in maps:
        if entry["containerID"] <= inside < entry["containerID"] + entry["size"]:
            return entry["hostID"] + inside - entry["containerID"]
    return None
