"""What is known of each container at the moment: one row each, and nothing of those that are gone. No input, no output.

A look is what was found at one moment; a row is the last look that was believed, and what was counted since. Whoever shows the
table (the page's streams) is woken by every change, and compares revisions: so a slow reader makes no queue grow.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

VERIFIED = ("created", "running", "paused")  # the statuses in which there is something to verify
STATUSES = ("creating", "created", "running", "paused", "stopped")
BAD = ("differs", "unknown")


@dataclass(frozen=True)
class Drift:
    """One thing that is not as it was planned.

    field       what: one of the checks of the look
    where       whose: "process 123", the name of a limit's file; "" where the field says it all
    wanted, found   in words
    """

    field: str
    where: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}{f' of {self.where}' if self.where else ''}: is {self.found}, asked for {self.wanted}"


@dataclass(frozen=True)
class Look:
    """A container as it was found.

    status      one of STATUSES
    verdict     "holds", "differs" or "unknown"; "" where nothing runs that could be verified
    checks      the fields that were looked at → "holds", "differs" or "unknown"
    drifts      what differs
    why         what could not be told, a line each
    label       the first process's AppArmor label and mode, "" where there is none
    processes   those whose end matters, the first one and any that differs: pid, and when it was started in clock ticks since boot
    cgroups     the directories of its cgroups
    seconds     how long the look took
    """

    status: str
    verdict: str = ""
    checks: tuple[tuple[str, str], ...] = ()
    drifts: tuple[Drift, ...] = ()
    why: tuple[str, ...] = ()
    label: tuple[str, str] = ("", "")
    processes: tuple[tuple[int, int], ...] = ()
    cgroups: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class Row:
    """A container in the table."""

    id: str
    look: Look
    time: float  # of the look, in seconds since the epoch
    revision: int = 0
    denials: Counter[str] = field(default_factory=Counter)  # by layer, since watch began


class Table:
    """The rows by id."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.revision = 0
        self.counts_denials = False
        self.elsewhere: Counter[str] = Counter()  # denials of no container that is known, by layer
        self._early: dict[str, Counter[str]] = {}  # of containers that are about to have a row
        self._readers: set[asyncio.Event] = set()

    def put(self, id: str, look: Look, time: float) -> Look | None:
        """Replaces what is known of a container; what was known before, None where it is new."""
        row = self.rows.get(id)
        before = row.look if row else None
        if row is None:
            row = self.rows[id] = Row(id, look, time, denials=self._early.pop(id, Counter()))
        row.look, row.time = look, time
        self._changed(row)
        return before

    def drop(self, id: str) -> bool:
        """Forgets a container; whether it was known."""
        self._early.pop(id, None)
        if self.rows.pop(id, None) is None:
            return False
        self._changed(None)
        return True

    def denied(self, id: str | None, layer: str, count: int, coming: bool = False) -> None:
        """Counts denials. `coming`: the container has no row yet, and will."""
        row = self.rows.get(id) if id else None
        if row is not None:
            row.denials[layer] += count
            self._changed(row)
        elif id and coming:
            self._early.setdefault(id, Counter())[layer] += count
        else:
            self.elsewhere[layer] += count

    def _changed(self, row: Row | None) -> None:
        self.revision += 1
        if row:
            row.revision = self.revision
        for reader in self._readers:
            reader.set()

    def subscribe(self) -> asyncio.Event:
        """An event that is set by every change; the reader clears it."""
        event = asyncio.Event()
        self._readers.add(event)
        return event

    def unsubscribe(self, event: asyncio.Event) -> None:
        """Ends a subscription."""
        self._readers.discard(event)
