"""The executor where no memfd may be executed: the installed file, through a mount of itself that is read-only."""

from rundlet import kernel as k
from rundlet.executor.client import BINARY
from rundlet.executor.program import prepare
from rundlet.plan.step import Call, Data, Ptr, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.executor.client import Executor


def execute(executor: "Executor", argv: "list[str]", lowest: int, end: int) -> None:
    """The installed executor executes itself anew through a detached read-only mount, so /proc/PID/exe cannot be written through.

    Raises StepFailed where it cannot.
    """
    words = Data(*[Ptr(word) for word in argv], bytes(8))
    step = Step(
        "execute the executor through a read-only mount",
        Call("open_tree", k.AT_FDCWD, BINARY, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC, into="executor"),
        Call("mount_setattr", Slot("executor"), "", k.AT_EMPTY_PATH, k.mount_attr(k.MOUNT_ATTR_RDONLY), 32),
        Call("execveat", Slot("executor"), "", words, Data(bytes(8)), k.AT_EMPTY_PATH),
        hint=f"an apparmor profile of the runtime needs flags=(attach_disconnected), and a rule to execute /memfd:rundlet or {BINARY}",
    )
    first = executor.send([step])  # answers only when it fails
    executor.send(prepare(lowest, end))
    executor.receive(first)
