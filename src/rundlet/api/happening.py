"""What a container uses, again and again, and each time it runs out of memory: the events of `rundlet events`."""

import os
import select
from time import monotonic
from typing import Any, Literal, NotRequired, TypedDict

from rundlet.api.base import BaseContainer
from rundlet.api.operation import Operation, Wait
from rundlet.cgroup import oom, place
from rundlet.errors import WrongState
from rundlet.life import events, store


class Event(TypedDict):
    """One event: a container has run out of memory (`oom`), or what it uses (`stats`, and then `data` as Container.stats has it)."""

    type: Literal["oom", "stats"]
    id: str
    data: NotRequired[dict[str, Any]]


class BaseEvents:
    """The events of a container until its first process has ended."""

    def __init__(self, container: BaseContainer, interval: float) -> None:
        """Raises WrongState when it does not run, Refused where nobody counts its memory, ValueError for an interval not above 0."""
        if not interval > 0:
            raise ValueError(f"the interval must be above 0 seconds, not {interval}")
        self._record = container.record()
        self._place = place.load(self._record["cgroup"])
        if store.status(self._record) in ("stopped", "creating"):
            raise WrongState(f"container with id {container.id} is not running")
        self._watch = oom.Watch(self._place)
        self._interval = interval
        self._due = monotonic() + interval
        self._happened: list[Event] = []
        self._end = -1
        try:
            self._end = store.pidfd(self._record["pid"])
        except ProcessLookupError:
            pass
        # memory.events of cgroup v2 is ready in a way of its own, POLLPRI, which event loops do not wait for; an epoll is ready as any file
        self._ready = select.epoll()
        self._ready.register(self._watch.fd, self._watch.mask)
        if self._end >= 0:
            self._ready.register(self._end, select.EPOLLIN)
        self._ended = self._end < 0 or not store.alive(self._record)

    def following(self) -> Operation[Event | None]:
        """The next event; None when the container has ended."""
        while not self._happened:
            if self._ended or self._ready.closed:
                return None
            if (yield Wait(read=(self._ready.fileno(),), until=self._due)):
                found = dict(self._ready.poll(0))
                self._ended = self._end in found
                # the last thing that a container does may be to run out of memory
                self._happened += [{"type": "oom", "id": self._record["id"]}] * (self._watch.happened() if found else 0)
            if monotonic() >= self._due and not self._ended:
                usage = events.usage(self._record, self._place)
                self._happened.append({"type": "stats", "id": self._record["id"], "data": usage})
                self._due = max(self._due + self._interval, monotonic())
        return self._happened.pop(0)

    def close(self) -> None:
        """Ends them: there is no further one."""
        if not self._ready.closed:
            self._ready.close()
            self._watch.close()
            if self._end >= 0:
                os.close(self._end)

    def __del__(self) -> None:
        if hasattr(self, "_ready"):
            self.close()
