"""A look at one container: what verify finds of it, its status and its label, as the table has them."""

import time
from typing import TYPE_CHECKING, Any

from rundlet import host
from rundlet.cgroup import layout, place
from rundlet.confine import verify
from rundlet.confine.verify import Report, Target
from rundlet.confine.verify import target as verify_target
from rundlet.confine.watch.table import VERIFIED, Drift, Look
from rundlet.errors import Fault, Usage, WrongState
from rundlet.life import store

if TYPE_CHECKING:
    from rundlet.life.store import Record

MOST = 64  # processes of a container that are followed besides its first one


def look(root: str, id: str) -> Look | None:
    """What there is of a container; None where there is none of this name."""
    began = time.perf_counter()
    try:
        container = store.find_in(root, store.check_id(id), lock=False)
    except (WrongState, Usage):
        return None  # or no id at all
    except Fault as fault:  # another version's
        return Look("creating", "unknown", why=(str(fault),))
    container.close()
    if not container.complete:
        damaged = f"{container.folder}/state.json is damaged"
        return Look("creating", "unknown", why=(damaged,)) if container.damaged else Look("creating")
    record = container.record
    try:
        return _look(root, id, record, began)
    except WrongState:
        return None  # it was deleted meanwhile
    except Exception as failure:  # no container ends the watch over the others
        return Look(store.status(record), "unknown", why=(_why(failure),), seconds=time.perf_counter() - began, **_held(record))


def _look(root: str, id: str, record: "Record", began: float) -> Look:
    status = store.status(record)
    if status not in VERIFIED:
        return Look(status, **_held(record))
    report = verify.check(verify.Target.of_container(root, id))
    seconds = time.perf_counter() - began
    status = store.status(record)
    if status not in VERIFIED:
        return Look(status, **_held(record))  # it ended while it was looked at: nothing can be said of what was seen
    return _seen(report, status, record["pid"], seconds, _held(record, report))


class Other:
    """The container of any runtime, by its first process and its configuration, until that process has ended."""

    def __init__(self, pid: int, config: str) -> None:
        """Raises Fault for what cannot be looked at."""
        self.target = Target.of_pid(pid, config)
        self.cgroups = tuple(at.path for at in verify_target.place(self.target, layout.read()).dirs)

    def names(self) -> list[str]:
        """Its name, while it is there."""
        return [] if self._ended() else [self.target.name]

    def look(self, id: str) -> Look | None:
        """As look(); None for any other name, too."""
        if id != self.target.name or self._ended():
            return None
        began = time.perf_counter()
        try:
            report = verify.check(self.target)
        except WrongState:
            return None
        except Exception as failure:
            return Look("running", "unknown", why=(_why(failure),), seconds=time.perf_counter() - began, **self._held(None))
        if report.state == "stopped" or self._ended():
            return None
        return _seen(report, report.state, self.target.pid, time.perf_counter() - began, self._held(report))

    def _ended(self) -> bool:
        found = store.stat(self.target.pid)
        return found is None or found[0] in "ZX" or found[1] != self.target.start

    def _held(self, report: Report | None) -> dict[str, Any]:
        return {"processes": _processes((self.target.pid, self.target.start), report), "cgroups": self.cgroups}


def _why(failure: Exception) -> str:
    return str(failure) if isinstance(failure, Fault | OSError) else f"internal error: {type(failure).__name__}: {failure}"


def _seen(report: Report, status: str, pid: int, seconds: float, held: dict[str, Any]) -> Look:
    """What was found of a container, as the table has it."""
    # one that waits for start is confined only then: until then there is nothing that could hold, though something may differ already
    verdict = "" if status == "created" and not report.differences else report.status
    return Look(
        status, verdict, _checks(report),
        tuple(Drift(one.fact, one.subject, one.asked, one.holds) for one in report.differences),
        tuple(f"{one.fact} of {one.subject}: {one.why}" for one in report.unknown),
        _label(pid), seconds=seconds, **held,
    )  # fmt: skip


def _checks(report: Report) -> tuple[tuple[str, str], ...]:
    """What came of each fact that was compared, or could not be."""
    found = dict.fromkeys(report.checked, "holds")
    found |= {one.fact: "unknown" for one in report.unknown}
    found |= {one.fact: "differs" for one in report.differences}
    return tuple(found.items())


def _held(record: "Record", report: Report | None = None) -> dict[str, Any]:
    """What events.py is to follow, as a Look has it."""
    cgroups = tuple(at.path for at in place.load(record["cgroup"]).dirs)
    return {"processes": _processes((record["pid"], record["start_time"]), report), "cgroups": cgroups}


def _processes(first: tuple[int, int], report: Report | None) -> tuple[tuple[int, int], ...]:
    """Those whose end matters, each with its start: the first one, and any that differs."""
    others = dict.fromkeys(one.pid for one in report.differences if one.pid not in (None, first[0])) if report else ()
    starts = [(pid, found[1]) for pid in list(others)[:MOST] if pid and (found := store.stat(pid))]
    return ((first,) if first[0] else ()) + tuple(starts)


def _label(pid: int) -> tuple[str, str]:
    """The label of a process, ("", "") where there is no AppArmor, or the process has ended."""
    try:
        label, mode = host.label_of(pid)
    except Fault:
        return "", ""
    return label, mode or ""
