"""What operations return."""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from rundlet.errors import Fault


class State(TypedDict):
    """What a container is doing: the state of the runtime-spec (runtime.md, "State"), and what else is known of it."""

    ociVersion: str
    id: str
    status: str  # creating, created, running, paused, stopped
    pid: int  # of the first process; 0 when it has ended
    bundle: str
    annotations: NotRequired[dict[str, str]]
    rootfs: str
    created: str  # RFC 3339
    owner: str
    unchecked: NotRequired[bool]  # its start was cut off before it was looked at how its program runs


class ProgramFailed(Fault):
    """A program ended otherwise than with exit status 0; `completed` has all of it."""

    def __init__(self, completed: "Completed") -> None:
        last = completed.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        how = f"exit status {completed.status}" if completed.status >= 0 else f"ended by signal {-completed.status}"
        super().__init__(f"{completed.container}: {' '.join(completed.args)}: {how}" + (f": {last}" if last else ""))
        self.completed = completed
        self.status = completed.status if completed.status >= 0 else 128 - completed.status


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended.

    `status` is its exit status, or minus the number of the signal that ended it, as subprocess has it. `stdout` and `stderr` are what it
    wrote, where that was captured; of a terminal everything is `stdout`. `warnings` are the runtime's.
    """

    container: str
    args: tuple[str, ...]
    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    warnings: tuple[str, ...] = ()

    def check(self) -> "Completed":
        """Itself; raises ProgramFailed when the status is not 0."""
        if self.status:
            raise ProgramFailed(self)
        return self
