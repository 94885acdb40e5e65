"""A plan: steps in stages, each stage carried out by one process, and what has to hold afterwards."""

from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.apparmor import Transition
    from rundlet.plan.mounts.mounting import Fill, Turn, Users
    from rundlet.plan.step import Step


class Stage(Value):
    """Steps that one process carries out without a word in between."""

    __slots__ = ("name", "steps")

    def __init__(self, name: str, steps: "tuple[Step, ...]") -> None:
        self.name = name
        self.steps = steps


class Plan(Value):
    """What will be done for one container: the stages in order, and what must hold after the exec."""

    __slots__ = ("stages", "transition", "namespaces", "capabilities", "nnp", "seccomp", "users", "fills")

    def __init__(
        self, stages: "tuple[Stage, ...]", transition: "Transition", spaces: "dict[str, str | None]", capabilities: int,
        nnp: bool, seccomp: bool, users: "tuple[Users, ...]" = (), fills: "tuple[Fill | Turn, ...]" = (),
    ) -> None:
        self.stages = stages
        self.transition = transition
        self.namespaces = tuple(sorted(spaces.items()))
        self.capabilities = capabilities  # the bounding set, as bits
        self.nnp = nnp
        self.seccomp = seccomp
        self.users = users  # user namespaces of mounts with mapped ids, which the first stage needs
        self.fills = fills  # tmpfs to be filled, and mounts to be mapped from outside: each at the end of a stage "inside"

    def stage(self, name: str) -> "tuple[Step, ...]":
        """The steps of one stage; none where the plan does without it."""
        return next((stage.steps for stage in self.stages if stage.name == name), ())


class Choices(Value):
    """What the command line decides and the configuration does not know."""

    __slots__ = ("id", "no_pivot", "new_keyring", "stdio", "set_groups", "state", "notify", "said", "privileged", "nodes", "unit")

    def __init__(
        self, id: str, no_pivot: bool = False, new_keyring: bool = True, stdio: "tuple[int, ...]" = (), set_groups: bool = True,
        state: str = "", notify: bool = False, said: "tuple[str, str]" = ("", ""), privileged: bool = True, nodes: bool = True,
        unit: bool = False,
    ) -> None:
        self.id = id
        self.no_pivot = no_pivot
        self.new_keyring = new_keyring
        self.stdio = stdio  # of 0, 1, 2 those that are pipes or files of the caller's
        self.set_groups = set_groups  # false where the user namespace forbids setgroups(2)
        self.state = state  # what startContainer hooks read; known once the process is there
        self.notify = notify  # an agent wants the listener of the seccomp filter
        self.privileged = privileged  # false where the runtime may mount nothing until its process is root of a user namespace
        self.nodes = nodes  # false where the kernel makes no device nodes for the runtime: then the host's are bound
        self.unit = unit  # systemd makes the cgroup, around the process: it is there once the process is
        self.said = said  # slots of the files for what startContainer hooks write to stdout and stderr; "": it is kept for the error

    def told(self, state: str) -> "Choices":
        """The same, with the state."""
        fields = dict(zip(self.__slots__, self.fields(), strict=True)) | {"state": state}
        return Choices(**fields)  # type: ignore[arg-type]
