"""What the plan is told of the bundle and the host's files."""

from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan import netdevices
    from rundlet.spec.types import Mount

ORDINARY = ("proc", "sysfs")  # are mounted on directories only, not where a symbolic link of the image leads: CVE-2023-27561


def is_bind(mount: "Mount") -> bool:
    """Whether the mount shows a place of the host: spec, config.md: a type of none or bind, or an option that says so."""
    return mount["type"] in ("bind", "rbind") or "bind" in mount["options"] or "rbind" in mount["options"]


class Bundle(Value):
    """What the plan needs to know of the bundle and the host's files, looked up beforehand.

    `rootfs` is absolute and real; `sources` maps each bind mount's index to (absolute path, is a directory); `targets` gives the
    destinations that symlinks of the image lead elsewhere, resolved inside the root, by the mount's index too; `devices` are the network
    devices to be moved, each with its name in the container. Seldom needed: `links`, what the links say that are copied (copy-symlink),
    `modes` of the directories that a tmpfs covers, `filesystems` of the sources whose ids are mapped, and `covers`, where the host has
    a proc or sysfs, the last one first, which --no-pivot would leave within reach; `inside`, the sources that are in the root filesystem,
    below an earlier mount; `dev`, where the image's /dev leads.
    """

    __slots__ = ("rootfs", "sources", "targets", "devices", "links", "modes", "filesystems", "covers", "inside", "dev")

    def __init__(
        self, rootfs: str, sources: "dict[int, tuple[str, bool]]", targets: "dict[int, str]",
        devices: "tuple[tuple[netdevices.Device, str], ...]" = (),
    ) -> None:
        self.rootfs = rootfs
        self.sources = sources
        self.targets = targets
        self.devices = devices
        self.links: "dict[int, str]" = {}
        self.modes: "dict[int, int]" = {}
        self.filesystems: "dict[int, str]" = {}
        self.covers: "tuple[str, ...]" = ()
        self.inside: "dict[int, str]" = {}
        self.dev = "/dev"

    def fields(self) -> "tuple[object, ...]":
        """Hashable, as every value is."""
        tables: "tuple[dict[int, object], ...]"
        tables = (self.sources, self.targets, self.links, self.modes, self.filesystems, self.inside)  # type: ignore[assignment]
        return (self.rootfs, self.devices, self.covers, self.dev, *(tuple(table.items()) for table in tables))
