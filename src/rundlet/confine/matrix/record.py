"""What the kernel's log says of each probe: rundlet.confine.denials, told apart by the name that a probe's process has.

A record names the process by its comm, so each probe's process is given one that no other has (talk.py). A program of the bundle has a
name of its own: to it belongs what is denied to the container while it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rundlet.confine.denials import Denial, Unreadable, read
from rundlet.confine.denials.source import AuditSystem

SLACK = 0.05  # seconds: records carry the time of the last tick, and of a loaded machine


@dataclass(frozen=True)
class Mark:
    """How a probe's records are known: by `comm`; where that is empty, by the time from `begin` to `end`, seconds since the epoch."""

    comm: str
    begin: float
    end: float


@dataclass(frozen=True)
class Said:
    """What the log says of one probe: the layers that it names, and its words."""

    layers: frozenset[str]
    words: tuple[str, ...]


def said(marks: Mapping[str, Mark], label: str | None, heard: AuditSystem) -> dict[str, Said]:
    """By probe, of those that a log knows; nothing where none can be read. `label` is the container's, `heard` listened while it ran."""
    if not marks:
        return {}
    begin = min(mark.begin for mark in marks.values()) - SLACK
    try:
        found = [denial for denial in read(begin, None, heard=heard) if denial.verdict in ("denied", "killed")]
    except Unreadable:
        return {}
    return sorted_out(found, marks, label)


def sorted_out(found: Sequence[Denial], marks: Mapping[str, Mark], label: str | None) -> dict[str, Said]:
    """Whose each denial is. One of a process that bears a mark is that probe's alone, whenever it happened."""
    names = {mark.comm for mark in marks.values() if mark.comm}
    made = {}
    for probe, mark in marks.items():
        mine = [denial for denial in found if (denial.comm == mark.comm if mark.comm else _within(denial, mark, names, label))]
        if mine:
            lines = [words(denial).replace(mark.comm, "the probe") if mark.comm else words(denial) for denial in mine]
            made[probe] = Said(frozenset(denial.layer for denial in mine), tuple(dict.fromkeys(lines)))
    return made


def _within(denial: Denial, mark: Mark, names: set[str], label: str | None) -> bool:
    ours = bool(label) and (denial.label in str(label) or denial.layer == "seccomp")
    return ours and denial.comm not in names and mark.begin - SLACK <= denial.time <= mark.end + SLACK


def words(denial: Denial) -> str:
    """One denial on a line."""
    rule = f" ({denial.rule} would permit it)" if denial.rule else ""
    return f"{denial.layer}, {denial.label or 'no label'}: {denial.meaning}{rule}"
