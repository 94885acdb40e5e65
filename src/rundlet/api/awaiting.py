"""How an operation is carried out by a task of asyncio: no thread, no child watcher, nothing but the loop's own readers and writers."""

import asyncio
import functools
import os
import time
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from rundlet.api.operation import Done, Operation, Ready, Wait, go_on
from rundlet.api.operation import carry as blocking

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")


async def carry(operation: Operation[T]) -> T:
    """Carries out an operation; its result. A cancellation is thrown into it, and the task ends once what was begun is undone.

    One that comes while something is undone, or ended, is put off until that is done."""
    ready: Ready | None = None
    thrown: BaseException | None = None
    late: asyncio.CancelledError | None = None
    try:
        while not isinstance(wait := go_on(operation, ready, thrown), Done):
            thrown = None
            while True:
                try:
                    ready = await _ready(wait)
                except asyncio.CancelledError as e:
                    if wait.calm:
                        late = e
                        continue
                    thrown = e
                except GeneratorExit as e:
                    blocking(operation, e)  # the loop is gone: what was begun is undone without it
                    raise
                except BaseException as e:
                    thrown = e
                break
    except TimeoutError as over:
        if late:
            raise late from over
        raise
    if late:
        raise late
    return wait.result


async def _ready(wait: Wait) -> Ready:
    """Waits in the running loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    ready: set[int] = set()

    def note(fd: int) -> None:
        ready.add(fd)
        if not future.done():
            future.set_result(None)

    def over() -> None:
        if not future.done():
            future.set_result(None)

    handle = None if wait.until is None else loop.call_later(max(0.0, wait.until - time.monotonic()), over)
    # a loop has one reader a descriptor, and two tasks may wait for the same end: each has a descriptor of its own
    reading: list[int] = []
    writing: list[int] = []
    try:
        for fd in wait.read:
            reading.append(os.dup(fd))
            loop.add_reader(reading[-1], note, fd)
        for fd in wait.write:
            writing.append(os.dup(fd))
            loop.add_writer(writing[-1], note, fd)
        await future
    finally:
        if handle:
            handle.cancel()
        for forget, fds in ((loop.remove_reader, reading), (loop.remove_writer, writing)):
            for own in fds:
                if not loop.is_closed():
                    forget(own)
                os.close(own)
    return frozenset(ready)


def awaited(operation: Callable[Concatenate[S, P], Operation[T]]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Of a function that makes an operation the coroutine function that carries it out."""

    @functools.wraps(operation)
    async def later(self: S, /, *args: P.args, **more: P.kwargs) -> T:
        return await carry(operation(self, *args, **more))

    return later


class Closing(Protocol):
    """What can be the object of `async with`."""

    async def __aenter__(self) -> Any:
        """Begins."""

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """Ends."""


C = TypeVar("C", bound=Closing)


class Opening(Coroutine[Any, Any, C]):
    """A coroutine whose result may be awaited, or be the object of `async with` at once."""

    def __init__(self, coroutine: Coroutine[Any, Any, C]) -> None:
        self._coroutine = coroutine
        self._made: C | None = None

    def send(self, value: Any) -> Any:
        """As of every coroutine."""
        return self._coroutine.send(value)

    def throw(self, *args: Any) -> Any:
        """As of every coroutine."""
        return self._coroutine.throw(*args)

    def close(self) -> None:
        """As of every coroutine."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, C]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> C:
        self._made = await self._coroutine
        await self._made.__aenter__()
        return self._made

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._made is not None:
            await self._made.__aexit__(kind, value, trace)
