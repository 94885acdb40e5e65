"""Starts an executor and talks to it: spawn → run(steps) → run(steps) → … The only door from Python to the kernel's rarer calls.

The executor runs from a sealed memfd, so that a container that finds it through /proc/PID/exe finds nothing to overwrite
(CVE-2019-5736). Where executing a memfd is refused (vm.memfd_noexec=2, a profile without a rule for it) the installed file is
executed through a detached read-only mount of itself, which is equally unwritable.
"""

from _socket import SOCK_STREAM, socket, socketpair
from fcntl import F_ADD_SEALS, F_DUPFD_CLOEXEC, fcntl
from posix import (
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    O_CLOEXEC,
    O_RDONLY,
    POSIX_SPAWN_DUP2,
    close,
    fstat,
    memfd_create,
    open,
    posix_spawn,
    read,
    write,
)

from rundlet import kernel as k
from rundlet.errors import Fault, Refused, StepFailed
from rundlet.executor.program import REPLY, ROOM, SLOTS, Program, Reply
from rundlet.plan.step import Call, Data, Out, Ptr, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

BINARY = __file__.rpartition("/")[0] + "/executor"
MFD_EXEC = 0x10  # linux/memfd.h, since 6.3
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # no more seals, shrinking, growing or writing: linux/fcntl.h
# a container starts with no signal ignored or blocked; posix_spawn refuses glibc's own 32 and 33, and even leaves them ignored
# (sysdeps/unix/sysv/linux/spawni.c), so the executor resets those itself
SIGNALS = [n for n in range(1, 65) if n not in (9, 19, 32, 33)]
PIDS: "list[int]" = []  # processes that this command has started, or lets go: after a failure the kernel's log is asked about them
RESET = Step(
    "take up the signals that glibc ignores",
    *[Call("rt_sigaction", n, Data(bytes(32)), 0, 8) for n in (32, 33)],  # SIG_DFL, no flags, nothing blocked
)


class Executor:
    """A running executor. `pid` is the process that answers (as the caller's PID namespace sees it)."""

    def __init__(self, pid: int, control: socket, bind: "dict[str, int]") -> None:
        self.pid = pid
        self.control = control
        self.bind = bind
        self.slots: "dict[str, int]" = {}
        self.first: "tuple[Step, ...]" = ()  # steps that go with the first program
        self.sent: "list[bytes]" = []  # the programs, as they were sent

    def send(self, steps: "Iterable[Step]") -> Program:
        """Sends steps without waiting for the reply."""
        program = Program((*self.first, *steps), self.slots, self.bind)
        self.first = ()
        try:
            self.control.sendall(program.text)
            self.sent.append(program.text)
        except OSError:
            raise Fault("the executor has died") from None
        return program

    def receive(self, program: Program) -> Reply:
        """Waits for the reply to `program`; raises StepFailed when a step failed, Fault when the executor died."""
        try:
            return program.reply(read_reply(self.control, program.expects))
        except StepFailed as failed:
            if failed.call in ("fsconfig", "fsmount"):
                self._explain(failed)
            raise

    def _explain(self, failed: StepFailed) -> None:
        """Adds what the filesystem logged of a failed mount: "e tmpfs: Bad value for 'size'" says more than EINVAL. fsopen(2)."""
        log = Step("read the filesystem's log", Call("read", Slot("fs"), Out("log", 256), 255, fine=("ENODATA", "EBADF")))
        program = self.send([log])
        said = program.reply(read_reply(self.control, program.expects)).outs["log"].rstrip(b"\0\n").decode("utf-8", "replace")
        if said:
            failed.message += f" ({said[2:]})"

    def run(self, steps: "Iterable[Step]") -> Reply:
        """Carries out steps; returns the results. Raises StepFailed, naming the step."""
        return self.receive(self.send(steps))

    def close(self) -> None:
        """Ends the conversation; an executor that still waits for a program exits."""
        self.control.close()


def read_reply(control: socket, size: int = REPLY.size) -> bytes:
    """One whole reply from a socket, of `size` bytes as a rule; raises Fault when it ends before there is any."""
    raw = b""
    while len(raw) < size:
        try:
            more = control.recv(size - len(raw))
        except TimeoutError:
            continue  # in pieces, where signals are to be heard meanwhile
        except ConnectionResetError:
            break
        if not more:
            break
        raw += more
        if len(raw) >= REPLY.size:  # it says itself how long it is
            _, _, _, slots, out, _ = REPLY.unpack_from(raw)
            size = REPLY.size + 8 * min(slots, SLOTS) + min(out, ROOM)
    if len(raw) < REPLY.size:
        raise Fault("the executor ended without an answer; the kernel log may say why")
    return raw


def spawn(pass_fds: "dict[str, int] | None" = None, keep: int = 0) -> Executor:
    """Starts an executor with stdin, stdout, stderr and `keep` descriptors from 3 on, as the caller has them.

    `pass_fds` are further descriptors by name, for steps to use as slots of that name; all else is closed. Raises Refused when the
    executor cannot be executed.
    """
    ours, theirs = socketpair(1, SOCK_STREAM)  # AF_UNIX
    lowest = 3 + keep
    bind: "dict[str, int]" = {}
    high: "list[int]" = []
    try:
        for name, fd in {"control": theirs.fileno(), **(pass_fds or {})}.items():
            bind[name] = fcntl(fd, F_DUPFD_CLOEXEC, lowest)
            high.append(bind[name])
        argv = ["rundlet", str(bind["control"])]
        pid, sealed = start(argv, [(POSIX_SPAWN_DUP2, fd, fd) for fd in high])  # onto itself: clears close-on-exec in the child alone
    finally:
        theirs.close()
        for fd in high:
            close(fd)
    PIDS.append(pid)
    executor = Executor(pid, ours, bind)
    make_ready(executor, argv, sealed, close_others(lowest, sorted(high)))
    return executor


def make_ready(executor: Executor, argv: "list[str]", sealed: bool, *steps: Step) -> None:
    """Has an executor that was just started carry out `steps` before all else; one that is not `sealed` executes itself anew first."""
    ready = *steps, RESET
    if sealed:
        executor.first = ready
    else:
        first = executor.send([_read_only_self(argv)])  # answers only when it fails
        executor.send(ready)
        executor.receive(first)


def start(argv: "list[str]", actions: "list[tuple[int, int, int]]", **how: "Any") -> "tuple[int, bool]":
    """Spawns the executor; its pid, and whether it runs from the sealed memfd. `actions` and `how` are posix_spawn's."""
    memfd = _sealed()
    if memfd >= 0:
        try:
            return posix_spawn(f"/proc/self/fd/{memfd}", argv, {}, file_actions=actions, setsigmask=[], setsigdef=SIGNALS, **how), True
        except PermissionError:
            pass  # memfds are not executable here; the installed file is, through a read-only mount
        finally:
            close(memfd)
    try:
        return posix_spawn(BINARY, argv, {}, file_actions=actions, setsigmask=[], setsigdef=SIGNALS, **how), False
    except OSError as e:
        why = f"cannot execute {BINARY}: {(e.strerror or '').lower()}"
        raise Refused(why, "reinstall rundlet, or permit executing this file") from None


def _sealed() -> int:
    """A sealed memfd with the executor's program, or -1 where the kernel makes none that may be executed."""
    try:
        fd = open(BINARY, O_RDONLY | O_CLOEXEC)
    except OSError as e:
        why = f"cannot open the executor {BINARY}: {(e.strerror or '').lower()}"
        raise Refused(why, "run `make build`, or reinstall rundlet") from None
    program = read(fd, fstat(fd).st_size)
    close(fd)
    try:
        memfd = memfd_create("rundlet", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC)
    except PermissionError:
        return -1
    except OSError:
        memfd = memfd_create("rundlet", MFD_CLOEXEC | MFD_ALLOW_SEALING)  # before 6.3 the flag is unknown
    write(memfd, program)
    fcntl(memfd, F_ADD_SEALS, SEALS)
    return memfd


def _read_only_self(argv: "list[str]") -> Step:
    """The installed executor executes itself anew through a detached read-only mount, so /proc/PID/exe cannot be written through."""
    words = Data(*[Ptr(word) for word in argv], bytes(8))
    return Step(
        "execute the executor through a read-only mount",
        Call("open_tree", k.AT_FDCWD, BINARY, k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC, into="executor"),
        Call("mount_setattr", Slot("executor"), "", k.AT_EMPTY_PATH, k.mount_attr(k.MOUNT_ATTR_RDONLY), 32),
        Call("execveat", Slot("executor"), "", words, Data(bytes(8)), k.AT_EMPTY_PATH),
        hint=f"an apparmor profile of the runtime needs flags=(attach_disconnected), and a rule to execute /memfd:rundlet or {BINARY}",
    )


def close_others(lowest: int, keep: "list[int]") -> Step:
    calls = []
    for fd in keep:
        if fd > lowest:
            calls.append(Call("close_range", lowest, fd - 1, 0))
        lowest = fd + 1
    calls.append(Call("close_range", lowest, 0xFFFFFFFF, 0))
    for fd in keep:
        calls.append(Call("fcntl", fd, 2, 1))  # F_SETFD, FD_CLOEXEC
    return Step("close what the caller left open", *calls)
