"""The filesystem of a container: which steps its mounts, devices and masks need, and when each is done."""

from rundlet.errors import Refused
from rundlet.plan import namespaces, rootfs
from rundlet.plan.bundle import Bundle, is_bind
from rundlet.plan.mounts import one
from rundlet.plan.mounts.mounting import Mounting, Turn
from rundlet.plan.stages import Choices, Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.mounts.mounting import Fill, Hierarchy
    from rundlet.plan.step import Step
    from rundlet.spec.types import Config, Device, Mount


def mounts(
    config: "Config", bundle: "Bundle", cgroups: "list[Hierarchy]", choices: Choices, nodes: bool,
) -> Mounting:
    """The steps of the mounts, each kind in the order of the configuration."""
    spaces = namespaces.wanted(config["linux"]["namespaces"])
    found = Mounting(
        rootfs.propagation(config["linux"]["rootfsPropagation"]), cgroups,
        "" if "cgroup" not in spaces else "joined" if spaces["cgroup"] else "new", choices.unit,
        "user" in spaces or not choices.nodes, choices.privileged,
    )
    if "mount" not in spaces:
        if config["mounts"]:
            raise Refused("/mounts: mounts without a mount namespace would be the host's", "add a mount namespace, or remove the mounts")
        return found
    for i in range(len(config["mounts"])):
        one.add(found, i, config, bundle)
    if not nodes and not _own_dev(config, bundle):
        own: "list[Device]" = []
        if config["linux"]["devices"] and choices.nodes and choices.privileged:
            from rundlet.plan import ownnodes

            own = ownnodes.wanted(config["linux"])
            if own:
                found.sources.append(ownnodes.make(config["linux"], own))
                found.placed.append(ownnodes.take(own))  # the last, since the tmpfs of /dev is among them
        found.sources += rootfs.bound_device_sources(config["linux"]["devices"], own)
    return found


def users(mounting: Mounting) -> "tuple[Stage, ...]":
    """What processes of their own do for the mounts with mapped ids, before all else."""
    if not mounting.users:
        return ()
    from rundlet.plan.mounts import idmap

    return tuple(Stage("mapped ids", (idmap.namespace(users),)) for users in mounting.users if not users.path)


def inside(steps: "list[Step]", fills: "list[Fill | Turn]") -> "tuple[Stage, ...]":
    """The steps as one stage, or several where the runtime has something to do in between."""
    if not fills:
        return (Stage("inside", tuple(steps)),)
    from rundlet.plan.mounts import copyup

    stages: "list[Stage]" = []
    between = iter(fills)
    for part in copyup.parts(steps):
        stages.append(Stage("inside", part))
        asked = next(between, None)
        if isinstance(asked, Turn):
            stages.append(Stage("mapped ids", (asked.step,)))
    return tuple(stages)


def populate(config: "Config", bundle: Bundle, placed: "list[Step]", nodes: bool) -> "list[Step]":
    """What is mounted and made in the root filesystem, while the host's root is still the root."""
    linux = config["linux"]
    steps = list(placed)
    if not _own_dev(config, bundle):
        if not nodes:
            steps += rootfs.bound_devices(linux["devices"])
        else:
            steps += rootfs.default_devices({device["path"] for device in linux["devices"]}, _fresh_dev(config, bundle))
        steps += [rootfs.device(device) for device in linux["devices"] if nodes or device["type"] == "p"]
        steps.append(rootfs.links())
    return steps


def seal(config: "Config") -> "list[Step]":
    """What is hidden and read-only, after everything that had to be made was made."""
    linux = config["linux"]
    steps = []
    if config["root"]["readonly"]:
        steps.append(rootfs.read_only_root())
    steps += [rootfs.read_only(path) for path in linux["readonlyPaths"]]
    steps += rootfs.masks(linux["maskedPaths"])
    return steps


def _own_dev(config: "Config", bundle: Bundle) -> bool:
    """Whether /dev is a directory of the host, bound, by whatever name: then nothing is made in it."""
    return any(map(is_bind, _on_dev(config, bundle)))


def _fresh_dev(config: "Config", bundle: Bundle) -> bool:
    return any(mount["type"] == "tmpfs" and "tmpcopyup" not in mount["options"] for mount in _on_dev(config, bundle))


def _on_dev(config: "Config", bundle: Bundle) -> "list[Mount]":
    """The mounts on /dev, by the names they have once the links of the image were followed."""
    mounts = config["mounts"]
    return [mounts[i] for i in range(len(mounts)) if bundle.targets.get(i, mounts[i]["destination"]).rstrip("/") in ("/dev", bundle.dev)]
