"""Containers for programs that may block. aio.py has the same names for those that may not; what they do is in operations.py, once."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack

from rundlet.api import checking
from rundlet.api import operations as ops
from rundlet.api.asked import Bundle, Making, Path, Read, Spawning
from rundlet.api.base import BaseContainer, BaseProcess, Holder, new
from rundlet.api.checking import Denial
from rundlet.api.checking import verify as verify
from rundlet.api.happening import BaseEvents, Event
from rundlet.api.operation import blocking, carry
from rundlet.api.results import Completed
from rundlet.api.streams import Master, Pipe


class Stream(Pipe):
    """The program's end of a pipe to or from a container's process. Iterated, it gives lines."""

    read = blocking(Pipe.reading)
    readline = blocking(Pipe.reading_line)
    write = blocking(Pipe.writing)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Terminal(Stream, Master):
    """The program's end of a container's terminal."""


class Ends(Holder):
    """The program's ends of a process's descriptors, where it has any."""

    _stream = Stream
    _master = Terminal
    stdin: Stream | None
    stdout: Stream | None
    stderr: Stream | None
    terminal: Terminal | None


class Process(Ends, BaseProcess):
    """A further process of a container, from Container.spawn. At the end of a `with` it is killed, if it still runs."""

    wait = blocking(ops.wait_for)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        carry(ops.end(self))


class Events(BaseEvents):
    """What happens to a container, from Container.events: iterated, it gives each Event, until the container has ended."""

    next = blocking(BaseEvents.following)

    def __iter__(self) -> Iterator[Event]:
        while event := self.next():
            yield event

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Container(Ends, BaseContainer):
    """A container by its id, whoever has made it. At the end of a `with` it is killed and deleted."""

    start = blocking(ops.start)
    wait = blocking(ops.wait)
    kill = blocking(ops.kill)
    pause = blocking(ops.pause)
    resume = blocking(ops.resume)
    update = blocking(ops.update)
    add_mounts = blocking(ops.add_mounts)
    remove_mounts = blocking(ops.remove_mounts)
    delete = blocking(ops.delete)

    @classmethod
    def create(cls, bundle: Bundle, **how: Unpack[Making]) -> Self:
        """Makes a container that waits for `start`. `bundle` is a folder, or a configuration itself; the rest is described at Making.

        Raises Fault, of whichever kind, and TimeoutError; then nothing is left of it.
        """
        made = new(cls, how)
        carry(ops.make(made, Read(bundle, how.get("folder")), "create", how))
        return made

    def spawn(self, args: Sequence[str] = (), **how: Unpack[Spawning]) -> Process:
        """Runs a further program in the container, confined as the container's own; returns once it runs.

        The rest is described at Spawning. Raises Fault, of whichever kind, and TimeoutError; then nothing is left of it.
        """
        made = Process(self.id)
        carry(ops.spawn(made, self, args, how))
        return made

    def exec(self, args: Sequence[str] = (), *, input: bytes | None = None, capture: bool = False, **how: Unpack[Spawning]) -> Completed:
        """Runs a further program in the container to its end. `input` is what it reads; with `capture` what it writes is in the result.

        Raises Fault where it could not be run, and TimeoutError; then it is killed. A status other than 0 is no error: Completed.check.
        """
        return carry(ops.execute(self, args, input, capture, how))

    def events(self, interval: float = 5.0) -> Events:
        """What it uses, every `interval` seconds, and each time it runs out of memory.

        Raises WrongState when it does not run, Refused where nobody counts its memory, ValueError.
        """
        return Events(self, interval)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        carry(ops.remove(self))


def create(bundle: Bundle, **how: Unpack[Making]) -> Container:
    """The same as Container.create."""
    return Container.create(bundle, **how)


def run(bundle: Bundle, *, input: bytes | None = None, capture: bool = False, **how: Unpack[Making]) -> Completed:
    """Runs a container to its end, and deletes it. `input` is what its program reads; with `capture` what it writes is in the result.

    `bundle` is a folder, or a configuration itself; the rest is described at Making. Raises Fault where it could not be made or run, and
    TimeoutError; nothing is left of it, whatever happens. A status other than 0 is no error: Completed.check.
    """
    return carry(ops.run(bundle, input, capture, how))


def exec(
    container: str | Container, args: Sequence[str] = (), *, input: bytes | None = None, capture: bool = False, **how: Unpack[Spawning],
) -> Completed:
    """The same as Container.exec, for a container or the id of one in the default root."""
    held = Container(container) if isinstance(container, str) else container
    return held.exec(args, input=input, capture=capture, **how)


def denials(
    container: str | int | Container | None = None, *, since: float | None = None, root: Path | None = None,
    config: Path | Mapping[str, object] | None = None,
) -> list[Denial]:
    """What the kernel has denied, oldest first, what is repeated once: to a container, or the id of one in `root`, or the pid of any
    runtime's first process with its `config`, as of verify; None: to anything.

    `since` is in seconds since the epoch; None: since the container was made, or since the boot. Raises Fault where no log can be read
    that would have it, WrongState where there is no such container.
    """
    return carry(checking.denials(container, since, root, config))


__all__ = ["Container", "Events", "Process", "Stream", "Terminal", "create", "denials", "exec", "run", "verify"]
