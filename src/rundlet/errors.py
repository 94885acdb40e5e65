"""The faults of rundlet, one tree:

    Fault                      anything the user is told in one line
    ├── BadSpec(where, why)    config.json (or a --process file) asks for something malformed
    ├── Refused(why, todo)     well-formed, but it must not or cannot be done here; says what to do next
    ├── WrongState(why)        the container is not in a state that permits the command
    ├── StepFailed(step, …)    the kernel said no to one step of the plan
    ├── Died(why)              the process that carries the plan out has ended unasked
    └── Usage(why)             the command line is malformed

Every text is one line, lower case, and keeps the words that engines parse.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Fault(Exception):
    """A failure that is told to the user as one line; `status` is the exit status of the command."""

    status = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.cleanup: list[str] = []  # what went wrong while undoing, shown beside the first cause

    def __str__(self) -> str:
        return "; while cleaning up: ".join([self.message, *self.cleanup])


class BadSpec(Fault):
    """The configuration is malformed at `where`, a JSON path such as `/process/user/uid`."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class Refused(Fault):
    """The request is well-formed, but refused: `why` says the reason, `todo` the user's next step."""

    def __init__(self, why: str, todo: str = "") -> None:
        super().__init__(f"{why}; {todo}" if todo else why)
        self.why = why
        self.todo = todo


class WrongState(Fault):
    """The container's state does not permit the command."""


class StepFailed(Fault):
    """A step of the plan failed: `errno` is the kernel's, `call` the system call."""

    def __init__(self, step: str, call: str, errno: int, message: str, hints: "Sequence[str]" = ()) -> None:
        super().__init__("; ".join([message, *hints]))
        self.step = step
        self.call = call
        self.errno = errno
        self.outs: dict[str, bytes] = {}  # the returned buffers, where there are some: from inside a container they are untrusted


class Died(Fault):
    """The process that carries out the plan has ended unasked, killed as a rule."""


class Usage(Fault):
    """The command line is malformed."""
