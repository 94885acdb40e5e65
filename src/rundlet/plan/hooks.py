"""Hooks as steps: a program run as a child, with the container's state on its stdin, waited for, and its failure ours."""

from _struct import pack

from rundlet import kernel as k
from rundlet.plan.step import Call, Data, Ptr, Scratch, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Hook

STATUS = Scratch("status", 8)
ANSWER = Scratch("answer", 16)


def run(hook: "Hook", name: str, state: str, said: bool = False) -> "tuple[Step, ...]":
    """Runs `hook` as a child of the executor with `state` on stdin; fails unless it exits with 0 within its timeout.

    A hook without an environment gets an empty one: config.md, "POSIX-platform Hooks". `said`: what it writes goes to the file in the slot
    of that name, else to the executor's own stdout and stderr.
    """
    text = state.encode()
    argv = Data(*[Ptr(word) for word in hook["args"]], bytes(8))
    envp = Data(*[Ptr(entry) for entry in hook["env"] or ()], bytes(8))
    clone = Data(pack("11Q", 0, 0, 0, 0, k.SIGCHLD, 0, 0, 0, 0, 0, 0))
    what = f"run {name}: {' '.join(hook['args'])}"
    calls = [
        # a file and not a pipe: a hook that does not read cannot keep us waiting, however large the state
        Call("memfd_create", "state", 1, into="state"),  # MFD_CLOEXEC
        Call("write", Slot("state"), text, len(text)),
        Call("lseek", Slot("state"), 0, 0),
        Call("memfd_create", "failed", 1, into="failed"),
        Call("clone3", clone, 88, into="hook", on_more="parent"),
        # the child: whatever fails in it, its answer is not for the runtime, but a sign for the parent that there was no exec
        Call("redirect", Slot("failed")),
        Call("umask", 0o022),
        Call("dup3", Slot("state"), 0, 0),
        *([Call("dup3", Slot("said"), 1, 0), Call("dup3", Slot("said"), 2, 0)] if said else []),
        Call("execve", hook["path"], argv, envp),
        Call("close", Slot("state"), label="parent"),
    ]
    if hook["timeout"]:
        wait = Data(Slot("hookfd"), pack("hh", k.POLLIN, 0))
        calls += [
            Call("pidfd_open", Slot("hook"), 0, into="hookfd"),
            Call("ppoll", wait, 1, pack("qq", hook["timeout"], 0), 0, 0, on_more="ended"),
            Call("kill", Slot("hook"), k.SIGKILL),
            Call("close", Slot("hookfd"), label="ended"),
        ]
    calls += [
        Call("wait4", Slot("hook"), STATUS, 0, 0),
        Call("lseek", Slot("failed"), 0, 0),
        Call("read", Slot("failed"), ANSWER, 16, into="tried"),
        Call("close", Slot("failed")),
        Call("value", Slot("tried"), on_zero="end"),
        Call("check", b"\0", b"\1", 1, k.ERRNO["ENOEXEC"]),
    ]
    limit = f", or was not done after {hook['timeout']} seconds" if hook["timeout"] else ""
    return (
        Step(what, *calls, kind="hook", hint=f"cannot execute {hook['path']}"),
        Step(what, Call("check", STATUS, bytes(4), 4, k.ERRNO["EIO"]), kind="hook", hint=f"{hook['path']} failed{limit}"),
    )
