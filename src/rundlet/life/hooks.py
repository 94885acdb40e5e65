"""Hooks: programs of the host that are told of a container's way, and may stop it. config.md, "POSIX-platform Hooks"."""

import posix
from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask
from posix import MFD_CLOEXEC, POSIX_SPAWN_DUP2
from select import POLLIN, poll
from time import monotonic, sleep

from rundlet import jsontext, kernel, log
from rundlet.errors import Fault, StepFailed
from rundlet.life import store
from rundlet.life.process import ENDING
from rundlet.plan import hooks as plan_hooks
from rundlet.plan import namespaces, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.store import Record
    from rundlet.spec.types import Hook

PIECE = 250  # milliseconds
SAID = 1024  # so much of what a failed hook wrote is shown


def run(hooks: "list[Hook]", kind: str, state: str) -> None:
    """Runs hooks one after the other in the runtime's namespaces, `state` on stdin; raises Fault at the first that fails."""
    for number, hook in enumerate(hooks):
        _run(hook, f"error running {kind} hook #{number}", state)


def stopped(hooks: "list[Hook]", record: "Record") -> None:
    """Runs the poststop hooks: all of them, and a failure is only warned about (runtime.md, "Lifecycle", step 14)."""
    state = jsontext.dumps(store.state(record, "stopped"))
    for number, hook in enumerate(hooks):
        try:
            _run(hook, f"error running poststop hook #{number}", state)
        except Fault as fault:
            log.warning(str(fault))


def run_inside(hooks: "list[Hook]", kind: str, state: str, pid: int, spaces: "list[str]") -> None:
    """Runs hooks, programs of the host still, in the container's namespaces: a helper of their own joins them.

    The container's own process cannot be their parent: the label that it asked for would be spent on the hook.
    """
    if not hooks:
        return
    from rundlet.executor import client

    kinds = [kind for kind in kernel.NAMESPACES if kind in spaces]
    init = posix.pidfd_open(pid)
    said = posix.memfd_create("said", MFD_CLOEXEC)
    try:
        helper = client.spawn({"init": init, "said": said})
    finally:
        posix.close(init)
    try:
        steps = [process.hide(), *([namespaces.join_container(kinds)] if kinds else [])]
        if "user" in kinds:
            steps.append(namespaces.become_root())
        helper.run(steps)
        helper.control.settimeout(PIECE / 1000)
        for number, hook in enumerate(hooks):
            try:
                helper.run(plan_hooks.run(hook, f"{kind} hook #{number}", state, True))
            except StepFailed as failed:
                raise Fault(f"{failed}{_tail(said)}") from None
    finally:
        posix.close(said)
        helper.close()
        _end(helper.pid)


def _end(pid: int) -> None:
    """Waits for a helper, whose conversation is over; a hook that it still waits for, since we were told to stop, is killed.

    The helper has to outlive its hook, to reap it: a container's PID namespace does not end before, and whoever would inherit
    the hook may be waiting for us. pid_namespaces(7)
    """
    while not posix.waitpid(pid, posix.WNOHANG)[0]:
        try:
            for child in store.read(f"/proc/{pid}/task/{pid}/children").split():
                posix.kill(int(child), kernel.SIGKILL)
        except OSError:
            pass  # it has ended meanwhile, or the kernel does not tell: CONFIG_PROC_CHILDREN
        sleep(0.001)


def _run(hook: "Hook", what: str, state: str) -> None:
    stdin = _file(state.encode())
    said = posix.memfd_create("said", MFD_CLOEXEC)
    env = dict(entry.partition("=")[::2] for entry in hook["env"] or ())
    actions = [(POSIX_SPAWN_DUP2, stdin, 0), (POSIX_SPAWN_DUP2, said, 1), (POSIX_SPAWN_DUP2, said, 2)]
    # whoever stops us between the start of the hook and the wait for it must not lose it
    before = pthread_sigmask(SIG_BLOCK, ENDING)
    try:
        try:
            pid = posix.posix_spawn(hook["path"], hook["args"], env, file_actions=actions, setsigmask=[])
        except OSError as e:
            raise Fault(f"{what}: cannot execute {hook['path']}: {(e.strerror or '').lower()}") from None
        try:
            pthread_sigmask(SIG_SETMASK, before)
            if not _ends(pid, hook["timeout"]):
                raise Fault(f"{what}: {hook['path']} was killed: not done after {hook['timeout']} seconds")
            status = posix.waitpid(pid, 0)[1]
        except BaseException:
            posix.kill(pid, kernel.SIGKILL)
            posix.waitpid(pid, 0)
            raise
        if status:
            code = posix.waitstatus_to_exitcode(status)
            how = f"exit status {code}" if code >= 0 else f"killed by signal {-code}"
            raise Fault(f"{what}: {hook['path']}: {how}{_tail(said)}")
    finally:
        pthread_sigmask(SIG_SETMASK, before)
        posix.close(stdin)
        posix.close(said)


def _file(text: bytes) -> int:
    """A file and not a pipe: a hook that does not read its state cannot keep us waiting."""
    fd = posix.memfd_create("state", MFD_CLOEXEC)
    while text:
        text = text[posix.write(fd, text) :]
    posix.lseek(fd, 0, 0)
    return fd


def _ends(pid: int, seconds: "int | None") -> bool:
    """Waits for a hook, but no longer than its timeout. In pieces: a signal that comes just before a call that waits does not interrupt
    it, and is only heard between two calls."""
    pidfd = posix.pidfd_open(pid)
    try:
        waiting = poll()
        waiting.register(pidfd, POLLIN)
        end = monotonic() + seconds if seconds else None
        while not waiting.poll(PIECE if end is None else max(0, min(PIECE, (end - monotonic()) * 1000))):
            if end is not None and monotonic() >= end:
                return False
        return True
    finally:
        posix.close(pidfd)


def _tail(fd: int) -> str:
    size = posix.lseek(fd, 0, 2)
    text = posix.pread(fd, SAID, max(0, size - SAID)).decode("utf-8", "replace").strip()
    return ", output: " + " | ".join(text.splitlines()) if text else ""
