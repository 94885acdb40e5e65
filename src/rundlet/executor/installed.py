"""The executor where no memfd may be executed: the installed file, through a mount of itself that is read-only."""

from rundlet import kernel as k
from rundlet.plan.step import Call, Data, Ptr, Slot, Step


def anew(binary: str, argv: "list[str]") -> Step:
    """The executor that is installed as `binary` executes itself once more, so that /proc/PID/exe cannot be written through.

    Answers only where it fails.
    """
    words = Data(*[Ptr(word) for word in argv], bytes(8))
    return Step(
        "execute the executor through a read-only mount",
        Call("open_tree", k.AT_FDCWD, binary, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC, into="executor"),
        Call("mount_setattr", Slot("executor"), "", k.AT_EMPTY_PATH, k.mount_attr(k.MOUNT_ATTR_RDONLY), 32),
        Call("execveat", Slot("executor"), "", words, Data(bytes(8)), k.AT_EMPTY_PATH),
        hint=f"an apparmor profile of the runtime needs flags=(attach_disconnected), and a rule to execute /memfd:rundlet or {binary}",
    )
