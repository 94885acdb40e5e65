"""A container and a process as both kinds of programs hold them: what can be said or done at once, without waiting for anything."""

from typing import Any, TypeVar

from rundlet.api.asked import Making, Path, as_root, new_id
from rundlet.api.results import State
from rundlet.api.streams import Console, Master, Pipe, Stdio
from rundlet.api.work import Child
from rundlet.cgroup import place, tasks
from rundlet.errors import Fault
from rundlet.life import events, kill, store
from rundlet.life import list as life_list
from rundlet.options import Options

B = TypeVar("B", bound="BaseContainer")


class Holder:
    """A process that is a child of this program, and the program's ends of its descriptors."""

    _stream: type[Pipe] = Pipe  # of which kind the ends are
    _master: type[Master] = Master

    def __init__(self) -> None:
        self._child: Child | None = None
        self.warnings: tuple[str, ...] = ()  # what the runtime had to say when it was made
        self.stdin: Any = None
        self.stdout: Any = None
        self.stderr: Any = None
        self.terminal: Any = None

    def _hold(self, child: Child, warnings: tuple[str, ...], stdio: Stdio, console: Console | None) -> None:
        """Takes what a command has made, and what it had to say."""
        self.warnings = warnings
        self._child = child
        if console:
            self.terminal = self._master(console.receive())
        self.stdin, self.stdout, self.stderr = (self._stream(end) if end >= 0 else None for end in map(stdio.take, range(3)))

    def close(self) -> None:
        """Closes the program's ends of its descriptors."""
        for end in (self.stdin, self.stdout, self.stderr, self.terminal):
            if end is not None:
                end.close()

    def _status(self) -> int | None:
        if self._child is None or not self._child.poll():
            return None
        return known(self._child)


def known(child: Child) -> int:
    """The status of a child that has ended; raises Fault where it is lost."""
    if child.status is None:
        raise Fault("the exit status is lost: this program ignores SIGCHLD, or something else in it waits for every child")
    return child.status


class BaseProcess(Holder):
    """A further process of a container."""

    def __init__(self, container: str) -> None:
        super().__init__()
        self.container = container  # its id

    def child(self) -> Child:
        """The process as our child."""
        assert self._child
        return self._child

    @property
    def pid(self) -> int:
        """Of the process, as this program sees it."""
        return self.child().pid

    @property
    def status(self) -> int | None:
        """The exit status, or minus the number of the signal that ended it; None while it runs."""
        return self._status()

    def kill(self, signal: int | str = "TERM") -> None:
        """Sends it a signal, by number or name; nothing happens where it has ended. Raises Usage for what is no signal."""
        self.child().signal(kill.signal_number(str(signal)))


class BaseContainer(Holder):
    """A container by its id, whoever has made it."""

    def __init__(self, id: str, *, root: Path | None = None) -> None:
        """Makes nothing, and does not look whether there is such a container. Raises Usage for what can be no id."""
        super().__init__()
        self.id = store.check_id(id)
        self.root = as_root(root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def record(self) -> "store.Record":
        """What is on disk of it. Raises WrongState when there is no such container."""
        container = store.find_in(top(self.root), self.id, lock=False)
        container.close()
        return container.record

    def state(self) -> State:
        """What it is doing; a few small files are read, and nothing is waited for. Raises WrongState when there is no such container."""
        container = store.find_in(top(self.root), self.id, lock=False)
        try:
            return store.shown(container)  # type: ignore[return-value]
        finally:
            container.close()

    @property
    def pid(self) -> int:
        """Of the first process, as this program sees it; 0 when it has ended. Raises WrongState when there is no such container."""
        return self.state()["pid"]

    @property
    def status(self) -> int | None:
        """Of the first process the exit status, or minus the number of the signal that ended it.

        None while it runs, and for a container that somebody else has made.
        """
        return self._status()

    def pids(self) -> list[int]:
        """All its processes, as this program sees them. Raises WrongState when there is no such container."""
        record = self.record()
        at = place.load(record["cgroup"])
        if at.dirs:
            return sorted(tasks.pids(at))
        return [record["pid"]] if store.alive(record) else []

    def stats(self) -> dict[str, Any]:
        """What it uses: the `data` of `rundlet events --stats`, in runc's form. Raises WrongState when there is no such container."""
        record = self.record()
        return events.usage(record, place.load(record["cgroup"]))


def top(root: Path | None) -> str:
    """The folder of all containers."""
    options = Options()
    options.root = as_root(root)
    return store.root(options)


def containers(root: Path | None = None) -> list[State]:
    """The states of all containers of a root, by id; nothing is waited for. `root`: as the command's --root; None is its default."""
    return life_list.states(top(root))  # type: ignore[return-value]


def new(kind: type[B], how: Making) -> B:
    """The object for a container to be made."""
    return kind(how.get("id") or new_id(), root=how.get("root"))
