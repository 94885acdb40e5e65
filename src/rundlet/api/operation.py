"""What an operation is, and how it is carried out by a program that may block. awaiting.py has the other way.

An operation is a generator that is written once. Whenever it has to wait, it yields what for, a Wait, and is sent the descriptors that are
ready; what it returns is the result. It never blocks, and knows nothing of threads and event loops.

    def _wait(self) -> Operation[int]:
        while (status := self.poll()) is None:
            yield Wait(read=(self.pidfd,))
        return status

Whatever befalls the one who waits (an interrupt, a timeout, the cancellation of a task) is thrown into it where it waits, so that it
undoes what it began as any function does, with try and finally. What must not be disturbed then waits `calmly`.
"""

import functools
import select
import time
from collections.abc import Callable, Generator
from typing import Concatenate, Generic, NamedTuple, ParamSpec, TypeAlias, TypeVar

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")


class Wait(NamedTuple):
    """What an operation waits for: one of these descriptors to be ready, or the time `until`, in seconds of time.monotonic().

    `calm`: a task's cancellation does not disturb it.
    """

    read: tuple[int, ...] = ()
    write: tuple[int, ...] = ()
    until: float | None = None
    calm: bool = False


Ready: TypeAlias = frozenset[int]  # descriptors; none when the time is over
Operation: TypeAlias = Generator[Wait, Ready, T]


class Done(Generic[T]):
    """The result of an operation that has come to its end."""

    def __init__(self, result: T) -> None:
        self.result = result


def go_on(operation: Operation[T], ready: Ready | None = None, thrown: BaseException | None = None) -> Wait | Done[T]:
    """Carries an operation to where it waits next, or to its end: what was ready, None to begin with, or what befell who waited."""
    try:
        return operation.send(ready) if thrown is None else operation.throw(thrown)  # type: ignore[arg-type]  # None begins it
    except StopIteration as done:
        return Done(done.value)


def changed(operation: Operation[T], change: Callable[[Wait], Wait], over: Callable[[Wait, Ready], BaseException | None]) -> Operation[T]:
    """The same operation, each Wait `change`d; `over` may make an exception of what came back, to be thrown into it."""
    ready: Ready | None = None
    thrown: BaseException | None = None
    while not isinstance(wait := go_on(operation, ready, thrown), Done):
        thrown = None
        try:
            ready = yield change(wait)
            thrown = over(wait, ready)
        except BaseException as e:
            thrown = e
    return wait.result


def calmly(operation: Operation[T]) -> Operation[T]:
    """The operation, not disturbed by the cancellation of the task that carries it out: for undoing."""
    return changed(operation, lambda wait: wait._replace(calm=True), lambda wait, ready: None)


def within(seconds: float | None, operation: Operation[T]) -> Operation[T]:
    """The operation, into which TimeoutError is thrown when it takes longer, wherever it then waits; None: it may take for ever."""
    if seconds is None:
        return operation
    end = time.monotonic() + seconds
    told = False

    def change(wait: Wait) -> Wait:
        if told or wait.calm:
            return wait
        return wait._replace(until=end if wait.until is None else min(end, wait.until))

    def over(wait: Wait, ready: Ready) -> BaseException | None:
        nonlocal told
        if ready or told or wait.calm or time.monotonic() < end:
            return None
        told = True
        return TimeoutError(f"it took longer than {seconds:g} seconds")

    return changed(operation, change, over)


def carry(operation: Operation[T], thrown: BaseException | None = None) -> T:
    """Carries out an operation, waiting in poll(2); its result. `thrown` is what to go on with in one that has begun."""
    ready: Ready | None = None
    while not isinstance(wait := go_on(operation, ready, thrown), Done):
        thrown = None
        try:
            ready = _poll(wait)
        except BaseException as e:
            thrown = e
    return wait.result


def _poll(wait: Wait) -> Ready:
    waiting = select.poll()
    for fd in {*wait.read, *wait.write}:
        waiting.register(fd, (select.POLLIN if fd in wait.read else 0) | (select.POLLOUT if fd in wait.write else 0))
    left = None if wait.until is None else max(0.0, wait.until - time.monotonic()) * 1000
    return frozenset(fd for fd, _ in waiting.poll(left))


def blocking(operation: Callable[Concatenate[S, P], Operation[T]]) -> Callable[Concatenate[S, P], T]:
    """Of a function that makes an operation the one that carries it out at once."""

    @functools.wraps(operation)
    def now(self: S, /, *args: P.args, **more: P.kwargs) -> T:
        return carry(operation(self, *args, **more))

    return now
