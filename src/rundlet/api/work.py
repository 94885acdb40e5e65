"""A command at work in a process of its own, beside a program that goes on: how it is started, waited for, and called off.

The process is started by posix_spawn(3), which is no fork: nothing of the program is copied, none of its locks are held by nobody, and it
may have threads. Where the command makes a process of a container, that is made a child of the program, which so learns its status.
rundlet/worker.py is the other end.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from fcntl import F_DUPFD_CLOEXEC, fcntl
from threading import Lock
from typing import Any

from rundlet.api.operation import Operation, Wait, calmly, carry
from rundlet.api.streams import aside
from rundlet.errors import Fault
from rundlet.executor import client, given
from rundlet.life import store

PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BEGIN = f"import sys; sys.path.append({PACKAGES!r}); from rundlet.worker import run; run()"
WRITTEN = f"{PACKAGES}/rundlet/__pycache__/worker.{sys.implementation.cache_tag}"  # by rundlet.install: the same, faster
PIECE = 1 << 16
SIGNALS = client.SIGNALS


class Child:
    """A process that is a child of ours: waited for by its pidfd, by nobody else, and once."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None  # once it has ended: the exit status, or the negative number of the signal
        self.pidfd = -1  # open for as long as this object is there: threads wait for it
        self._lock = Lock()
        try:
            self.pidfd = aside(store.pidfd(pid))
        except ProcessLookupError:
            pass  # ended and gone: SIGCHLD is ignored here, or somebody waits for every child
        self.ended = self.pidfd < 0

    def poll(self) -> bool:
        """Whether it has ended; never waits."""
        with self._lock:
            if self.ended:
                return True
            try:
                found = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
                if found is None:
                    return False
                self.status = found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
            except ChildProcessError:
                pass  # something else in this program has waited for it, or SIGCHLD is ignored: its status is lost
            self.ended = True
            return True

    def wait(self) -> Operation[int | None]:
        """Waits for its end; the status, None where that is lost."""
        while not self.poll():
            yield Wait(read=(self.pidfd,))
        return self.status

    def signal(self, number: int) -> None:
        """Sends a signal; nothing where it has ended."""
        if not self.poll():
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                pass

    def __del__(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)


class Report:
    """What came of a command."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.warnings: tuple[str, ...] = tuple(raw.get("warnings", ()))
        self.done = "status" in raw
        self.left = self.done or "lost" in raw  # whether what it has made is there: else the command has undone that
        self.answer: Any = raw.get("answer")
        self._raw = raw

    def check(self, verb: str) -> None:
        """Raises the Fault with which the command failed."""
        raw = self._raw
        if "lost" in raw:
            raise Fault(raw["lost"])
        if "fault" in raw:
            fault = read(raw["fault"])
            for line in raw.get("denied", ()):
                fault.add_note(line)
            raise fault
        if "bug" in raw:
            bug = Fault(f"internal error: {raw['bug']}")
            if "trace" in raw:
                bug.add_note(raw["trace"])
            raise bug
        if not self.done:
            raise Fault(f"{verb} was interrupted from elsewhere")


def read(written: dict[str, Any]) -> Fault:
    """The fault that worker.written() wrote."""
    kind = _kind(Fault, written["kind"]) or Fault
    fault = kind.__new__(kind, written["known"]["message"])  # its arguments are those of Exception, whatever the kind wants
    vars(fault).update(written["known"])
    fault.status = written["status"]
    return fault


def _kind(base: type[Fault], name: str) -> type[Fault] | None:
    """The kind of fault of that name, among `base` and what is derived from it."""
    if base.__name__ == name:
        return base
    return next((found for kind in base.__subclasses__() if (found := _kind(kind, name))), None)


class Work:
    """A command that has been started; `report` once it has ended."""

    def __init__(
        self, options: Mapping[str, Any], fds: Sequence[int] = (), texts: Mapping[str, bytes] | None = None, makes: bool = False,
        module: str = "",
    ) -> None:
        """Starts it. Raises Fault when that cannot be done.

        `options`: those of rundlet.options.Options that are not as they are without a word. `fds`: what is to be descriptor 0, 1, 2 and
        so on, /dev/null where there are not so many. `texts`: options whose value, or last word, is to be the name of a file with this
        text. `makes`: the command makes a process that is to be our child. `module`: whose main() it is, where not the verb's.
        """
        self.verb: str = options["verb"]
        self.id: str = options["id"]
        self.report: Report | None = None
        self.made: Child | None = None  # the container's process that it has made
        self._said = b""
        self._reading = -1
        self._executor: Child | None = None
        opened: list[int] = []
        try:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            opened.append(null)
            places = [*fds, *[null] * (3 - len(fds))]
            count = len(places)
            request: dict[str, Any] = {"options": dict(options), "module": module, "folders": _folders(), "executor": 0, "sealed": False}
            files: list[int] = []
            for name, text in (texts or {}).items():
                path = f"/proc/self/fd/{count + 3 + len(files)}"
                request["options"][name] = [*options["args"], path] if name == "args" else path
                files.append(_memfd(text))
                opened.append(files[-1])
            control = null
            if makes:
                launched, ours = given.launch(places)
                control = ours.detach()
                opened.append(control)
                self._executor = Child(launched.pid)
                request |= {"executor": launched.pid, "sealed": launched.sealed}
            self._reading, writing = map(aside, os.pipe2(os.O_CLOEXEC))
            os.set_blocking(self._reading, False)
            opened.append(writing)
            asked = _memfd(json.dumps(request).encode("utf-8", "surrogateescape"))
            opened.append(asked)
            self._child = Child(_spawn([*places, asked, writing, control, *files], count))
        except BaseException:
            if self._reading >= 0:
                os.close(self._reading)
            if self._executor:  # it has been told nothing yet
                self._executor.signal(signal.SIGKILL)
                carry(self._executor.wait())
            raise
        finally:
            for fd in opened:
                os.close(fd)

    def wait(self) -> Operation[Report]:
        """Waits for the command's end; how it ended."""
        while self.report is None:
            try:
                part = os.read(self._reading, PIECE)
            except BlockingIOError:
                yield Wait(read=(self._reading,))
                continue
            if part:
                self._said += part
                if self._executor and not self.made and b"\n" in self._said:
                    self._hear()
                continue
            status = yield from self._child.wait()
            report = Report(json.loads(self._said) if self._said.endswith(b"\n") else {"lost": self._lost(status)})
            if self._executor:
                yield from self._bury(self._executor, report)
            os.close(self._reading)  # last: whoever is disturbed in here begins anew
            self.report = report
        return self.report

    def _hear(self) -> None:
        """Takes the line that tells of the process, where that is the first one."""
        line, _, rest = self._said.partition(b"\n")
        said = json.loads(line)
        if said.keys() == {"pid"}:
            self.made = Child(said["pid"])
            self._said = rest

    def _lost(self, status: int | None) -> str:
        """What is said of a command that says nothing: somebody has killed it."""
        why = f"{self.verb} ended with status {status} before it could say what came of it"
        makes = self._executor and not self.made and self.verb != "exec"  # what has been heard of is undone
        return f"{why}; delete --force removes what there may be of {self.id}" if makes else why

    def _bury(self, executor: Child, report: Report) -> Operation[None]:
        """Waits for the executor, and for what it has cloned when the command was called off before it knew: it ends with the command, at
        the end of their socket, and is still in the executor's group."""
        yield from executor.wait()
        if self.made:
            return
        for task in os.listdir("/proc/self/task"):
            for pid in _children(task):
                if _group(pid) == executor.pid:
                    yield from Child(pid).wait()

    def call_off(self) -> Operation[Report]:
        """Has the command undo what it began, and waits until it has; how it ended, which may be well if it was done before."""
        self._child.signal(signal.SIGTERM)
        return (yield from self.wait())


def command(options: Mapping[str, Any], texts: Mapping[str, bytes] | None = None, module: str = "") -> Operation[Report]:
    """A command that makes no process, from its beginning to its end. Raises Fault as it does."""
    work = Work(options, (), texts, module=module)
    try:
        report = yield from work.wait()
    except BaseException:
        yield from calmly(work.call_off())
        raise
    report.check(work.verb)
    return report


def _children(task: str) -> list[int]:
    """The children that a thread of ours has made."""
    try:
        with open(f"/proc/self/task/{task}/children") as file:
            return [int(word) for word in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []  # it has ended


def _group(pid: int) -> int:
    """The process group of a child; that of one that has ended as well: proc_pid_stat(5)."""
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def _memfd(text: bytes) -> int:
    """A file without a name that holds a text."""
    fd = os.memfd_create("rundlet", os.MFD_CLOEXEC)
    left = memoryview(text)
    while left:
        left = left[os.write(fd, left) :]
    return fd


def _spawn(places: list[int], count: int) -> int:
    """Starts the interpreter with these descriptors, in a group of processes of its own: what is typed at our terminal is for us."""
    high: list[int] = []
    argv = [WRITTEN] if os.access(WRITTEN, os.X_OK) else [sys.executable, "-ISBXutf8", "-c", BEGIN]
    try:
        for fd in places:
            high.append(fcntl(fd, F_DUPFD_CLOEXEC, len(places)))
        actions = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(high)]
        return os.posix_spawn(
            argv[0], [*argv, str(count)], os.environ, file_actions=actions, setsigmask=[], setsigdef=SIGNALS, setpgroup=0,
        )
    except OSError as e:
        raise Fault(f"cannot execute {argv[0]}: {(e.strerror or '').lower()}") from None
    finally:
        for fd in high:
            os.close(fd)



def _folders() -> list[str]:
    """Where the libraries are that some commands import."""
    return [path for path in sys.path if path.rpartition("/")[2] in ("site-packages", "dist-packages") and path != PACKAGES]
