"""What mounts are planned by, and what comes of it."""

from rundlet import kernel as k
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.step import Step

    Hierarchy = tuple[str, int, list[str]]  # directory on the host, version, controllers


class Users(Value):
    """A user namespace to be had as a descriptor in `slot`: one with these maps, as /proc/PID/uid_map takes them, or that of `path`."""

    __slots__ = ("slot", "uids", "gids", "path")

    def __init__(self, slot: str, uids: str, gids: str, path: str = "") -> None:
        self.slot = slot
        self.uids = uids
        self.gids = gids
        self.path = path


class Fill(Value):
    """One tmpfs that is to be filled: where it will be mounted, and whether it takes over the owner of the folder that it covers."""

    __slots__ = ("destination", "owner")

    def __init__(self, destination: str, owner: bool) -> None:
        self.destination = destination
        self.owner = owner


class Turn(Value):
    """A mount whose ids a helper of the host's maps, in the middle of a stage "inside": the process has its tree in the slot `tree`.

    The process may not do it itself once it is in a user namespace, since the filesystem belongs to the host's: can_idmap_mount() in
    fs/namespace.c. And the tree is there no sooner, since it is what earlier mounts have made.
    """

    __slots__ = ("tree", "users", "step")

    def __init__(self, tree: str, users: str, step: "Step") -> None:
        self.tree = tree
        self.users = users
        self.step = step


class Mounting:
    """The steps of some mounts: `sources` takes hold of what is on the host, `late` of what is there only once the process is, `placed`
    mounts it, in the order of the configuration. `sealed` makes read-only what had to be written first, `users` are the user namespaces
    of mapped ids, `fills` what the runtime does in between: the tmpfs to be filled, and mounts whose ids are mapped from outside."""

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
        self.fills: "list[Fill | Turn]" = []
