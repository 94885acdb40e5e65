"""Starts an executor and talks to it: spawn → run(steps) → run(steps) → … The only door from Python to the kernel's rarer calls.

The executor runs from a sealed memfd, so that a container that finds it through /proc/PID/exe finds nothing to overwrite
(CVE-2019-5736). Where executing a memfd is refused (vm.memfd_noexec=2, a profile without a rule for it) the installed file is
executed through a detached read-only mount of itself, which is equally unwritable.
"""

from _socket import SOCK_STREAM, socket, socketpair
from fcntl import F_ADD_SEALS, F_DUPFD_CLOEXEC, F_GETFL, fcntl
from posix import (
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    O_ACCMODE,
    O_CLOEXEC,
    O_RDONLY,
    O_RDWR,
    POSIX_SPAWN_DUP2,
    close,
    fstat,
    memfd_create,
    open,
    posix_spawn,
    read,
    write,
)

from rundlet.errors import Died, Refused, StepFailed
from rundlet.executor.template import REPLY, ROOM, SLOTS, Packed, Reply

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from rundlet.executor.program import Program
    from rundlet.plan.step import Step

BINARY = __file__.rpartition("/")[0] + "/executor"
NULL = 1 << 8 | 3  # the device 1:3
MFD_EXEC = 0x10  # linux/memfd.h, since 6.3
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # no more seals, shrinking, growing or writing: linux/fcntl.h
# a container starts with no signal ignored or blocked; 32 and 33 are glibc's own: executor/program.py
SIGNALS = [n for n in range(1, 65) if n not in (9, 19, 32, 33)]
PIDS: "list[int]" = []  # processes that this command has started, or lets go: after a failure the kernel's log is asked about them


class Executor:
    """A running executor. `pid` is the process that answers (as the caller's PID namespace sees it)."""

    def __init__(self, pid: int, control: socket, bind: "dict[str, int]") -> None:
        self.pid = pid
        self.control = control
        self.bind = bind
        self.slots: "dict[str, int]" = {}
        self.first: "tuple[int, int] | None" = None  # for prepare() to go with the first program
        self.sent: "list[bytes]" = []  # the programs, as they were sent
        self.told: "Callable[[int], object] | None" = None  # of the process that it becomes, before that does anything

    def becomes(self, pid: int) -> None:
        """The process that it has cloned answers from now on."""
        self.pid = pid
        PIDS.append(pid)
        if self.told:
            self.told(pid)

    def send(self, what: "Iterable[Step] | Packed") -> "Program | Packed":
        """Sends steps, or a program that has them already and begins with prepare(), without waiting for the reply. Raises Died."""
        program: "Program | Packed"
        if isinstance(what, Packed):
            program = what
            results = what.template[7]
            self.slots = dict(zip(results, range(len(results)), strict=True))
        else:
            from rundlet.executor.program import Program, prepare

            program = Program((*(prepare(*self.first) if self.first else ()), *what), self.slots, self.bind)
        self.first = None
        try:
            self.control.sendall(program.text)
            self.sent.append(program.text)
        except OSError:
            raise Died("the executor has died") from None
        return program

    def receive(self, program: "Program | Packed") -> Reply:
        """Waits for the reply to `program`; raises StepFailed when a step failed, Died when the executor did."""
        try:
            return program.reply(read_reply(self.control, program.expects))
        except StepFailed as failed:
            if failed.call in ("fsconfig", "fsmount"):
                self._explain(failed)
            raise

    def _explain(self, failed: StepFailed) -> None:
        """Adds what the filesystem logged of a failed mount: "e tmpfs: Bad value for 'size'" says more than EINVAL. fsopen(2)."""
        from rundlet.plan.step import Call, Out, Slot, Step

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
    """One whole reply from a socket, of `size` bytes as a rule; raises Died when it ends before there is any."""
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
        raise Died("the executor ended without an answer; the kernel log may say why")
    return raw


def spawn(pass_fds: "dict[str, int] | None" = None, keep: int = 0) -> Executor:
    """Starts an executor with stdin, stdout, stderr and `keep` descriptors from 3 on, as the caller has them.

    But /dev/null as stdout or stderr can be written to, however the caller has opened it. `pass_fds` are further descriptors by name, for
    steps to use as slots of that name; all else is closed. Raises Refused when the executor cannot be executed.
    """
    ours, theirs = socketpair(1, SOCK_STREAM)  # AF_UNIX
    passed = {"control": theirs.fileno(), **(pass_fds or {})}
    lowest = 3 + keep
    end = lowest + len(passed)
    bind = dict(zip(passed, range(lowest, end), strict=True))  # whatever else is open: so the same plan is the same program
    high: "list[int]" = []
    try:
        for fd in passed.values():
            high.append(fcntl(fd, F_DUPFD_CLOEXEC, end))
        actions = [(POSIX_SPAWN_DUP2, fd, to) for fd, to in zip(high, bind.values(), strict=True)]
        for to in (1, 2):
            if _silent(to):
                null = open("/dev/null", O_RDWR | O_CLOEXEC)
                high.append(fcntl(null, F_DUPFD_CLOEXEC, end))
                close(null)
                actions.append((POSIX_SPAWN_DUP2, high[-1], to))
        argv = ["rundlet", str(lowest)]
        pid, sealed = start(argv, actions)
    finally:
        theirs.close()
        for fd in high:
            close(fd)
    PIDS.append(pid)
    executor = Executor(pid, ours, bind)
    make_ready(executor, argv, sealed, lowest, end)
    return executor


def _silent(fd: int) -> bool:
    """Whether it is /dev/null opened for reading alone, as containerd's null io is: a program that writes there would fail."""
    try:
        return fcntl(fd, F_GETFL) & O_ACCMODE == O_RDONLY and fstat(fd).st_rdev == NULL
    except OSError:  # closed
        return False


def make_ready(executor: Executor, argv: "list[str]", sealed: bool, lowest: int, end: int) -> None:
    """Has an executor that was just started carry out prepare() before all else; one that is not `sealed` executes itself anew first."""
    if sealed:
        executor.first = lowest, end
    else:
        from rundlet.executor.installed import anew
        from rundlet.executor.program import prepare

        first = executor.send([anew(BINARY, argv)])
        executor.send(prepare(lowest, end))
        executor.receive(first)


def start(argv: "list[str]", actions: "list[tuple[int, int, int]]", **how: "Any") -> "tuple[int, bool]":
    """Spawns the executor; its pid, and whether it runs from the sealed memfd. `actions` and `how` are posix_spawn's."""
    memfd = _sealed()
    if memfd >= 0:
        end = 1 + max(to for _, _, to in actions)
        if memfd < end:  # one of the others would take its place
            low, memfd = memfd, fcntl(memfd, F_DUPFD_CLOEXEC, end)
            close(low)
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
