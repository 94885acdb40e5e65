"""Hooks: programs of the host that are told of a container's way, and may stop it. config.md, "POSIX-platform Hooks"."""

import posix
from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, strsignal
from _struct import unpack_from
from posix import MFD_CLOEXEC, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_PATH, O_WRONLY, POSIX_SPAWN_CLOSE, POSIX_SPAWN_DUP2
from select import POLLIN, poll
from time import monotonic, sleep

from rundlet import jsontext, kernel, log
from rundlet.cgroup import files as cgroup_files
from rundlet.errors import Fault, Refused, StepFailed
from rundlet.executor.client import SIGNALS
from rundlet.life import store
from rundlet.life.process import ENDING
from rundlet.plan import hooks as plan_hooks
from rundlet.plan import namespaces, process
from rundlet.plan.step import Call, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rundlet.cgroup.place import Place
    from rundlet.life.store import Record
    from rundlet.spec.types import Hook

PIECE = 250  # milliseconds


class Files:
    """The files that annotations give to what hooks write, as crun has them; without one, the end of it is shown when the hook fails."""

    def __init__(self, annotations: "Mapping[str, str]") -> None:
        """Opens the files for appending; raises Refused for a relative path, Fault where one cannot be opened."""
        self.fds: "dict[str, int]" = {}  # slot → descriptor
        for slot, name in zip(plan_hooks.FILES, plan_hooks.ANNOTATIONS, strict=True):
            path = annotations.get(name)
            if path:
                if path[0] != "/":
                    raise Refused(f"/annotations/{name}: {path} is not an absolute path", "give it from the root on")
                try:
                    self.fds[slot] = posix.open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
                except OSError as e:
                    raise Fault(f"/annotations/{name}: cannot open {path}: {(e.strerror or '').lower()}") from None

    @property
    def slots(self) -> "tuple[str, str]":
        """The names of the slots, "" where there is no file; for plan/hooks.run()."""
        out, err = (slot if slot in self.fds else "" for slot in plan_hooks.FILES)
        return out, err


class Failed(Fault):
    """A hook of the host's that ended otherwise than it should; `code` is its exit status, or 128 + the signal that ended it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def run(hooks: "list[Hook]", kind: str, record: "Record", status: str, files: Files) -> None:
    """Runs hooks one after the other in the runtime's namespaces, told that the container is `status`; raises Fault at the first to fail.

    They begin in the bundle, as with both peers.
    """
    state = jsontext.dumps(store.state(record, status))
    for number, hook in enumerate(hooks):
        _run(hook, f"error running {kind} hook #{number}", state, files, record["bundle"])


def stopped(hooks: "list[Hook]", record: "Record") -> None:
    """Runs the poststop hooks: all of them, and a failure is only warned about (runtime.md, "Lifecycle", step 14)."""
    state = jsontext.dumps(store.state(record, "stopped"))
    try:
        files = Files(record["annotations"])
    except Fault as fault:
        log.warning(str(fault))
        files = Files({})
    for number, hook in enumerate(hooks):
        try:
            _run(hook, f"error running poststop hook #{number}", state, files, record["bundle"])
        except Failed as failed:
            # crun's words first, runc's behind them: people look for either
            log.warning(f"poststop hook failed with exit code {failed.code}: {failed}", loud=True)
        except Fault as fault:
            log.warning(str(fault), loud=True)


def inner_state(record: "Record", status: str) -> str:
    """The state for hooks in the container's namespaces: they are told the pid as it is there (runtime.md, "State")."""
    shown = store.state(record, status)
    for line in store.read(f"/proc/{record['pid']}/status").splitlines():
        if line.startswith(b"NSpid:"):
            shown["pid"] = int(line.split()[-1])
    return jsontext.dumps(shown)


def run_inside(
    hooks: "list[Hook]", kind: str, record: "Record", place: "Place", spaces: "list[str]", ids: "tuple[int, int]", files: Files,
) -> None:
    """Runs hooks, programs of the host still, in the container's cgroups and namespaces: a helper of their own joins them.

    The container's own process cannot be their parent: the label that it asked for would be spent on the hook. As with crun they begin
    in the bundle, and are told that the container is created. Without an environment of its own a hook has the runtime's. `ids` are the
    user and group that they are in a user namespace: of its root, where it has one.
    """
    if not hooks:
        return
    from rundlet.executor import client

    state = inner_state(record, "created")
    env = [(name + b"=" + value).decode("utf-8", "surrogateescape") for name, value in posix.environ.items()]
    kinds = [kind for kind in kernel.NAMESPACES if kind in spaces]
    init = posix.pidfd_open(record["pid"])
    try:
        helper = client.spawn({"init": init, **files.fds})
    finally:
        posix.close(init)
    try:
        cgroup_files.join(place, helper.pid)
        steps = [process.hide(), *([namespaces.join_container(kinds)] if kinds else [])]
        # as the host's user, who is let through to it, and root of a user namespace perhaps not
        steps.append(Step(f"go to {record['bundle']}", Call("chdir", record["bundle"]), kind="directory"))
        if "user" in kinds:
            steps.append(namespaces.become_root(ids))
            if ids[0]:
                # an exec as root would give them: capabilities(7), "Transformation of capabilities during execve()"
                every = list(kernel.CAPABILITIES)
                steps += process.capset({
                    "bounding": every, "effective": every, "permitted": every, "inheritable": every, "ambient": every,
                })
        helper.run(steps)
        helper.control.settimeout(PIECE / 1000)
        for number, hook in enumerate(hooks):
            try:
                helper.run(plan_hooks.run(hook, f"{kind} hook #{number}", state, env, files.slots))
            except StepFailed as failed:
                raise told(failed) from None
    finally:
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


def told(failed: StepFailed) -> Fault:
    """What became of a hook that was run by steps, in the words of runc. What the reply says is only the container's word."""
    start, _, hint = failed.message.removeprefix(failed.step).partition(": ")
    start = failed.step.partition(":")[0]
    if failed.call != "check":
        return failed
    answer, status = (failed.outs[out.name].ljust(16, b"\0") for out in (plan_hooks.ANSWER, plan_hooks.STATUS))
    if failed.errno == plan_hooks.EXEC:
        return Fault(f"{start}: {hint}: {posix.strerror(unpack_from('=I', answer, 8)[0] & 0xFFF).lower()}")
    how = hint if failed.errno == plan_hooks.LATE else _how(unpack_from("=H", status)[0])
    written = [failed.outs[out.name].rstrip(b"\0") for out in plan_hooks.WRITTEN if out.name in failed.outs]
    return Fault(f"{start}: {how}{_written(written)}")


def _run(hook: "Hook", what: str, state: str, files: Files, bundle: str) -> None:
    stdin = _file(state.encode())
    said = [files.fds[slot] if slot in files.fds else posix.memfd_create("said", MFD_CLOEXEC) for slot in plan_hooks.FILES]
    kept = [fd for fd in said if fd not in files.fds.values()]
    # one without an environment of its own has ours, as with the peers; an empty one is empty
    env = posix.environ if hook["env"] is None else dict(entry.partition("=")[::2] for entry in hook["env"])
    actions: "list[tuple[int, ...]]" = [(POSIX_SPAWN_DUP2, stdin, 0), (POSIX_SPAWN_DUP2, said[0], 1), (POSIX_SPAWN_DUP2, said[1], 2)]
    # what the caller left open for the container, or by mistake, is not the hook's
    actions += [(POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    # whoever stops us between the start of the hook and the wait for it must not lose it
    before = pthread_sigmask(SIG_BLOCK, ENDING)
    try:
        try:
            # a group of its own, to be killed with whatever it has started; no signal is ignored, as SIGPIPE is by Python
            pid = _in(bundle, lambda: posix.posix_spawn(
                hook["path"], hook["args"], env, file_actions=actions, setpgroup=0, setsigmask=[], setsigdef=SIGNALS,
            ))
        except (OSError, ValueError) as e:  # the latter of a variable without a name
            why = e.strerror or "" if isinstance(e, OSError) else str(e)
            raise Fault(f"{what}: cannot execute {hook['path']}: {why.lower()}") from None
        try:
            pthread_sigmask(SIG_SETMASK, before)
            late = not _ends(pid, hook["timeout"])
            if late:
                posix.kill(-pid, kernel.SIGKILL)
            status = posix.waitpid(pid, 0)[1]
        except BaseException:
            posix.kill(-pid, kernel.SIGKILL)
            posix.waitpid(pid, 0)
            raise
        if late or status:
            how = f"hook ran past specified timeout of {hook['timeout']:.1f}s" if late else _how(status)
            code = posix.waitstatus_to_exitcode(status)
            raise Failed(f"{what}: {how}{_written([_tail(fd) for fd in kept])}", code if code >= 0 else 128 - code)
    finally:
        pthread_sigmask(SIG_SETMASK, before)
        for fd in (stdin, *kept):
            posix.close(fd)


def _in(folder: str, act: "Callable[[], int]") -> int:
    """What `act` gives in another working directory, for posix_spawn(3) has no action for that which Python knew; back again behind it.

    A directory that is gone is left out. One of the caller's that he may not search, he could not have used either.
    """
    here = posix.open(".", O_PATH | O_DIRECTORY | O_CLOEXEC)
    try:
        try:
            posix.chdir(folder)
        except FileNotFoundError:
            return act()
        try:
            return act()
        finally:
            try:
                posix.fchdir(here)
            except PermissionError:
                pass
    finally:
        posix.close(here)


def _inheritable() -> "list[int]":
    """The open descriptors above stderr that a program started by us would have."""
    found = []
    for name in posix.listdir("/proc/self/fd"):
        try:
            if int(name) > 2 and posix.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            pass  # it was the listing's own
    return found


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


def _how(status: int) -> str:
    """How a hook ended, from the status that wait(2) gives, in the words of Go's os.ProcessState, which runc prints."""
    number = status & 0x7F
    if number == 0:
        return f"exit status {status >> 8 & 0xFF}"
    return f"signal: {(strsignal(number) or str(number)).lower() if number < 65 else number}{' (core dumped)' if status & 0x80 else ''}"


def _tail(fd: int) -> bytes:
    return posix.pread(fd, plan_hooks.SAID, max(0, posix.lseek(fd, 0, 2) - plan_hooks.SAID))


def _written(texts: "list[bytes]") -> str:
    """What a hook wrote to stdout and stderr, on one line; nothing where it went to files."""
    if len(texts) < 2:
        return "".join(_line("output", text) for text in texts)
    return _line("stdout", texts[0]) + _line("stderr", texts[1])


def _line(name: str, text: bytes) -> str:
    return f", {name}: " + " | ".join(text.decode("utf-8", "replace").strip().splitlines())
