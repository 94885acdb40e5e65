"""The loop of watch: looks at containers when it is time, keeps the table, and tells what has changed.

A look that is worse than what was known is not believed at once: an exec is confined step by step, and a start as well, so what is
seen in between may differ for a moment. What is told is what a second look a moment later still finds.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from rundlet.confine.watch.events import Events
from rundlet.confine.watch.rounds import Rounds
from rundlet.confine.watch.table import BAD, Look, Table

AGAIN = 0.5  # seconds until a look that is worse is taken again
DENIALS = 2.0  # seconds between two readings of the log of denials


@dataclass(frozen=True)
class Denied:
    """Denials of one kind, and how many there were since the last reading; the words are those of denials/denial.py."""

    container: str | None
    layer: str
    verdict: str
    operation: str
    what: str
    count: int = 1


@dataclass(frozen=True)
class Change:
    """Something to tell: kind is "status", "verdict", "gone", "denied", or "note" with a text."""

    kind: str
    time: float
    id: str | None
    look: Look | None = None
    before: Look | None = None
    denied: Denied | None = None
    text: str = ""


class Log(Protocol):
    """Where denials come from. `begin` gives the reason why they cannot be read, or ""; `read` those since it was called last."""

    def begin(self) -> str: ...
    def read(self) -> Sequence[Denied]: ...
    def close(self) -> None: ...


class Watcher:
    """Looks by `look(id)`, which gives None where there is no such container, of those in `names()`; tells changes by `tell`.

    Looking and the reading of denials may block: they run in one thread of their own.
    """

    def __init__(
        self, table: Table, look: Callable[[str], Look | None], names: Callable[[], Iterable[str]], tell: Callable[[Change], None],
        looked: Callable[[Look], None], interval: float, denials: Log | None = None,
    ) -> None:
        self.table = table
        self.rounds = Rounds(interval)
        self.events: Events | None = None
        self.settled = asyncio.Event()  # every container that was there in the beginning has been looked at
        self._look, self._names, self._denials = look, names, denials
        self._tell, self._looked = tell, looked
        self._doubted: set[str] = set()
        self._first: set[str] = set()
        self._thread = ThreadPoolExecutor(1, "look")

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def changed(self, id: str) -> None:
        """Something happened to a container, or to what has its name in the root."""
        if self.events:
            self.events.meet(id)
        self.rounds.ask(id)

    def all_changed(self) -> None:
        """Something may have happened to any container."""
        for id in {*self._names(), *self.table.rows}:
            self.changed(id)

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def run(self, root: str | None) -> None:
        """Watches the containers of a root, or those alone that there are, for ever."""
        self.events = Events(root, self.changed, self.all_changed)
        try:
            self.events.start()
            self._first = set(self._names())
            if not self._first:
                self.settled.set()
            for id in self._first:
                self.events.meet(id)
                self.rounds.ask(id, 0)
            async with asyncio.TaskGroup() as tasks:
                for job in (self.events.run(), self._rounds(), self._look_around()):
                    tasks.create_task(job)
                if self._denials:
                    tasks.create_task(self._read_denials(self._denials))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None  # each of them ends the others
        finally:
            self.events.close()
            self._thread.shutdown()
            if self._denials:
                self._denials.close()

    async def _rounds(self) -> None:
        while True:
            id = await self.rounds.next()
            self.found(id, await asyncio.get_running_loop().run_in_executor(self._thread, self._look, id))

    async def _look_around(self) -> None:
        """What inotify may have missed."""
        while True:
            await asyncio.sleep(self.rounds.interval)
            for id in set(self._names()) - self.rounds.due.keys():
                self.changed(id)

    async def _read_denials(self, log: Log) -> None:
        apart = asyncio.get_running_loop().run_in_executor
        why = await apart(self._thread, log.begin)
        self.table.counts_denials = not why
        if why:
            self._tell(Change("note", time.time(), None, text=f"denials are not counted: {why}"))
            return
        while True:
            for denied in await apart(self._thread, log.read):
                self.denied(denied)
            await asyncio.sleep(DENIALS)

    # ── what was found ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def found(self, id: str, look: Look | None) -> None:
        """Takes a look in: into the table, and on to whoever is told."""
        now = time.time()
        if look is None:
            self._gone(id, now)
        else:
            self._looked(look)
            if self.events:
                self.events.follow(id, look.processes, look.cgroups)
            self._believe(id, look, now)
        if id not in self._doubted:
            self._first.discard(id)
        if not self._first:
            self.settled.set()

    def _gone(self, id: str, now: float) -> None:
        self.rounds.forget(id)
        self._doubted.discard(id)
        if self.events:
            self.events.forget(id)
        if self.table.drop(id):
            self._tell(Change("gone", now, id))

    def _believe(self, id: str, look: Look, now: float) -> None:
        row = self.table.rows.get(id)
        before = row.look if row else None
        if look.verdict in BAD and id not in self._doubted and not (before and told(before) == told(look)):
            self._doubted.add(id)
            self.rounds.ask(id, AGAIN)
            return
        self._doubted.discard(id)
        self.table.put(id, look, now)
        if before is None or before.status != look.status:
            self._tell(Change("status", now, id, look, before))
        if look.verdict and (before is None or told(before) != told(look)):
            self._tell(Change("verdict", now, id, look, before))

    def denied(self, denied: Denied) -> None:
        """Counts denials, and tells them."""
        self.table.denied(denied.container, denied.layer, denied.count, denied.container in self.rounds.due)
        self._tell(Change("denied", time.time(), denied.container, denied=denied))


def told(look: Look) -> tuple[object, ...]:
    """What of a look is news when it changes: not the time it took, nor in which order things were found."""
    return look.verdict, frozenset(look.drifts), frozenset(look.why)
