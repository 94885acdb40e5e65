"""Containers for programs of asyncio: the names of `rundlet` that have to wait for something, here as coroutines.

    async with rundlet.aio.create(bundle) as container:
        await container.start()

Nothing blocks the loop for longer than it takes to start a process, and nothing needs a thread or a child watcher. A task that is
cancelled undoes what it began before it ends: nothing is left behind. Everything else is in `rundlet`, and waits for nothing.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self, Unpack

from rundlet.api import checking
from rundlet.api import operations as ops
from rundlet.api.asked import Bundle, Making, Path, Read, Spawning
from rundlet.api.awaiting import Opening, awaited, carry
from rundlet.api.base import BaseContainer, BaseProcess, Holder, new
from rundlet.api.checking import Denial, Report, verifying
from rundlet.api.happening import BaseEvents, Event
from rundlet.api.results import Completed
from rundlet.api.streams import Master, Pipe


class Stream(Pipe):
    """The program's end of a pipe to or from a container's process. Iterated, it gives lines."""

    read = awaited(Pipe.reading)
    readline = awaited(Pipe.reading_line)
    write = awaited(Pipe.writing)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while line := await self.readline():
            yield line


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
    """A further process of a container, from Container.spawn. At the end of an `async with` it is killed, if it still runs."""

    wait = awaited(ops.wait_for)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await carry(ops.end(self))


class Events(BaseEvents):
    """What happens to a container, from Container.events: iterated, it gives each Event, until the container has ended."""

    next = awaited(BaseEvents.following)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while event := await self.next():
            yield event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Container(Ends, BaseContainer):
    """A container by its id, whoever has made it. At the end of an `async with` it is killed and deleted."""

    start = awaited(ops.start)
    wait = awaited(ops.wait)
    kill = awaited(ops.kill)
    pause = awaited(ops.pause)
    resume = awaited(ops.resume)
    update = awaited(ops.update)
    add_mounts = awaited(ops.add_mounts)
    remove_mounts = awaited(ops.remove_mounts)
    delete = awaited(ops.delete)

    @classmethod
    def create(cls, bundle: Bundle, **how: Unpack[Making]) -> Opening[Self]:
        """As rundlet.Container.create: to be awaited, or the object of `async with`."""

        async def made() -> Self:
            container = new(cls, how)
            await carry(ops.make(container, Read(bundle, how.get("folder")), "create", how))
            return container

        return Opening(made())

    def spawn(self, args: Sequence[str] = (), **how: Unpack[Spawning]) -> Opening[Process]:
        """As rundlet.Container.spawn: to be awaited, or the object of `async with`."""

        async def made() -> Process:
            process = Process(self.id)
            await carry(ops.spawn(process, self, args, how))
            return process

        return Opening(made())

    async def exec(
        self, args: Sequence[str] = (), *, input: bytes | None = None, capture: bool = False, **how: Unpack[Spawning],
    ) -> Completed:
        """As rundlet.Container.exec."""
        return await carry(ops.execute(self, args, input, capture, how))

    def events(self, interval: float = 5.0) -> Events:
        """As rundlet.Container.events: for `async for`."""
        return Events(self, interval)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await carry(ops.remove(self))


def create(bundle: Bundle, **how: Unpack[Making]) -> Opening[Container]:
    """As rundlet.create: to be awaited, or the object of `async with`."""
    return Container.create(bundle, **how)


async def run(bundle: Bundle, *, input: bytes | None = None, capture: bool = False, **how: Unpack[Making]) -> Completed:
    """As rundlet.run."""
    return await carry(ops.run(bundle, input, capture, how))


async def exec(
    container: str | Container, args: Sequence[str] = (), *, input: bytes | None = None, capture: bool = False, **how: Unpack[Spawning],
) -> Completed:
    """As rundlet.exec."""
    held = Container(container) if isinstance(container, str) else container
    return await held.exec(args, input=input, capture=capture, **how)


async def verify(
    target: str | int | Container, *, root: Path | None = None, config: Path | Mapping[str, object] | None = None,
) -> Report:
    """As rundlet.verify, which takes longer than a loop should be held up."""
    return await carry(verifying(target, root=root, config=config))


async def denials(
    container: str | int | Container | None = None, *, since: float | None = None, root: Path | None = None,
    config: Path | Mapping[str, object] | None = None,
) -> list[Denial]:
    """As rundlet.denials."""
    return await carry(checking.denials(container, since, root, config))


__all__ = ["Container", "Events", "Process", "Stream", "Terminal", "create", "denials", "exec", "run", "verify"]
