"""Hooks as steps: a program run as a child, with the container's state on its stdin, waited for, and its failure ours.

Two steps of one name for each: the first makes a child that executes the hook, and fails with EXEC where it could not; the second
fails with ENDED or LATE unless the hook exited with 0 within its timeout. Of two hooks in one program the reply tells of the one that
failed, since nothing comes behind it.
"""

from _struct import pack

from rundlet import kernel as k
from rundlet.plan.step import Call, Data, Out, Ptr, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.spec.types import Hook

SAID = 1024  # so much of the end of what a failed hook wrote is shown
STATUS, ANSWER = Out("hook status", 8), Out("hook answer", 16)
WRITTEN = (Out("hook stdout", SAID), Out("hook stderr", SAID))
FILES = ("hook stdout", "hook stderr")  # slots of the files that annotations name
ANNOTATIONS = ("run.oci.hooks.stdout", "run.oci.hooks.stderr")  # crun(1)
MFD_CLOEXEC = 1
SEEK_SET, SEEK_END = 0, 2
EXEC, ENDED, LATE = k.ERRNO["ENOEXEC"], k.ERRNO["EIO"], k.ERRNO["ETIMEDOUT"]  # what the checks fail with


def run(hook: "Hook", name: str, state: str, env: "Sequence[str]", said: "tuple[str, str]" = ("", "")) -> "tuple[Step, ...]":
    """Runs `hook` as a child of the executor with `state` on stdin; fails unless it exits with 0 within its timeout.

    `env` is the environment of a hook that has none of its own. `said` are the slots of files for its stdout and stderr; where there
    is none, the end of what it wrote is in the reply.
    """
    text = state.encode("utf-8", "surrogateescape")
    argv = Data(*[Ptr(word) for word in hook["args"]], bytes(8))
    envp = Data(*[Ptr(entry) for entry in (env if hook["env"] is None else hook["env"])], bytes(8))
    kept = [n for n in (0, 1) if not said[n]]  # 0 is stdout, 1 is stderr
    files = [Slot(said[n] or f"hook said {n}") for n in (0, 1)]
    calls = [
        # a file and not a pipe: a hook that does not read cannot keep us waiting, however large the state
        Call("memfd_create", "state", MFD_CLOEXEC, into="state"),
        Call("write", Slot("state"), text, len(text)),
        Call("lseek", Slot("state"), 0, SEEK_SET),
        Call("memfd_create", "failed", MFD_CLOEXEC, into="failed"),
        *[Call("memfd_create", "said", MFD_CLOEXEC, into=files[n].name) for n in kept],
        Call("value", 0, into="late"),
        # not clone3: profiles of seccomp answer that with ENOSYS, since they cannot look at its flags
        Call("clone", k.SIGCHLD, 0, 0, 0, 0, into="hook", on_more="parent"),
        # the child: whatever fails in it, its answer is not for the runtime, but a sign for the parent that there was no exec
        Call("redirect", Slot("failed")),
        Call("umask", 0o022),
        Call("dup3", Slot("state"), 0, 0), Call("dup3", files[0], 1, 0), Call("dup3", files[1], 2, 0),
        Call("execve", hook["path"], argv, envp),
        Call("close", Slot("state"), label="parent"),
    ]
    if hook["timeout"]:
        wait = Data(Slot("hookfd"), pack("hh", k.POLLIN, 0))
        calls += [
            Call("pidfd_open", Slot("hook"), 0, into="hookfd"),
            Call("ppoll", wait, 1, pack("qq", hook["timeout"], 0), 0, 0, on_more="ended"),
            Call("kill", Slot("hook"), k.SIGKILL),
            Call("value", 1, into="late"),
            Call("close", Slot("hookfd"), label="ended"),
        ]
    calls += [
        Call("wait4", Slot("hook"), STATUS, 0, 0),
        Call("lseek", Slot("failed"), 0, SEEK_SET),
        Call("read", Slot("failed"), ANSWER, 16, into="tried"),
        Call("close", Slot("failed")),
        Call("value", Slot("tried"), on_zero="end"),
        Call("check", b"\0", b"\1", 1, EXEC),
    ]
    tells: "list[Call]" = []
    for n in kept:
        tells += [
            Call("lseek", files[n], -SAID, SEEK_END, fine=("EINVAL",), on_more=f"read {n}", label=f"tell {n}"),
            Call("lseek", files[n], 0, SEEK_SET),
            Call("read", files[n], WRITTEN[n], SAID, label=f"read {n}"),
        ]
    tell = f"tell {kept[0]}" if kept else "told"
    look = [
        Call("value", Slot("late"), on_more=tell),
        Call("check", STATUS, bytes(4), 4, ENDED, fine=("EIO",), on_zero="well" if kept else "end"),
        *tells,
        Call("value", Slot("late"), on_more="late", label="told"),
        Call("check", b"\0", b"\1", 1, ENDED),
        Call("check", b"\0", b"\1", 1, LATE, label="late"),
        *[Call("close", files[n], label="well" if n == kept[0] else "") for n in kept],
    ]
    what = f"run {name}: {' '.join(hook['args'])}"
    limit = f"hook ran past specified timeout of {hook['timeout']:.1f}s" if hook["timeout"] else ""
    return (
        Step(what, *calls, kind="hook", hint=f"cannot execute {hook['path']}"),
        Step(what, *look, kind="hook", hint=limit),
    )
