"""The matrix: every setting under every runtime, each denial followed to its layer by experiments that are themselves runs.

A run is kept by what was run, so that settings and experiments which come to the same are one container.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rundlet.confine.matrix import settings as s
from rundlet.confine.matrix.attribute import Search, search
from rundlet.confine.matrix.probes import Command, Probe
from rundlet.confine.matrix.run import Ran, Runner, Runtime

ABSENT = ("ENOENT", "ENOSYS")


@dataclass(frozen=True)
class Cell:
    """One probe under one setting of one runtime.

    `is_`: allowed, denied, refused (the runtime did not start it), unknown, absent (this machine has nothing to try it on). `layers` are
    those that deny: alternatives, each of layers that deny together; () with "denied" is a denial by nobody knows what. `errno` and `why`
    are what was seen.
    """

    runtime: str
    setting: str
    probe: str
    is_: str
    layers: tuple[tuple[str, ...], ...] = ()
    errno: str = ""
    why: str = ""
    log: tuple[str, ...] = ()  # what the kernel's log said of it


@dataclass
class Row:
    """A setting as it was with one runtime: `ran`, `refused` or `absent`, and why; the facts of the container's process."""

    runtime: str
    setting: str
    status: str
    why: str = ""
    command: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Matrix:
    """All rows and cells, and how many containers it took."""

    rows: list[Row] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    runs: int = 0


class Builder:
    """Makes the matrix; `say` is told of each step: what is done, and how many of how many rows are done."""

    def __init__(
        self, runner: Runner, config: Mapping[str, Any], host: s.Host, probes: Sequence[Probe | Command],
        say: Callable[[str, int, int], None],
    ) -> None:
        self.runner = runner
        self.config = config
        self.host = host
        self.probes = probes
        self.say = say
        self.kept: dict[s.Case, Ran] = {}

    def build(self, runtimes: Sequence[Runtime], settings: Sequence[s.Setting]) -> Matrix:
        """Runs everything."""
        made = Matrix()
        every = [(runtime, setting) for runtime in runtimes for setting in settings]
        for number, (runtime, setting) in enumerate(every):
            self.say(f"{runtime.name}: {setting.name}", number, len(every))
            row, cells = self._row(runtime, setting)
            made.rows.append(row)
            made.cells += cells
        made.runs = self.runner.count
        return made

    def _row(self, runtime: Runtime, setting: s.Setting) -> tuple[Row, list[Cell]]:
        try:
            case = replace(s.case(self.config, setting, self.host), runtime=runtime.name)
        except s.NotHere as lacking:
            why = str(lacking)
            return Row(runtime.name, setting.name, "absent", why), self._all(runtime, setting, "absent", why)
        ran = self._run(case, runtime, self.probes)
        row = Row(runtime.name, setting.name, "refused" if ran.refused else "ran", ran.refused, ran.command, ran.facts)
        if ran.refused:
            return row, self._all(runtime, setting, "refused", ran.refused)
        active = s.active(case, self.host)
        denied = [probe for probe in self.probes if ran.outcomes[probe.name].is_ == "denied"]
        found = []
        for probe in self.probes:
            outcome = ran.outcomes[probe.name]
            cell = Cell(runtime.name, setting.name, probe.name, outcome.is_, (), outcome.errno, outcome.at)
            found.append(self._attributed(cell, case, runtime, active, denied) if outcome.is_ == "denied" else cell)
        return row, found

    def _all(self, runtime: Runtime, setting: s.Setting, is_: str, why: str) -> list[Cell]:
        return [Cell(runtime.name, setting.name, probe.name, is_, (), "", why) for probe in self.probes]

    def _run(self, case: s.Case, runtime: Runtime, probes: Sequence[Probe | Command]) -> Ran:
        """Runs these probes, unless that was done: an experiment leaves out what was not denied, and so mostly the runtime's exec."""
        kept = self.kept.get(case)
        if kept is None or not (kept.refused or kept.outcomes.keys() >= {probe.name for probe in probes}):
            kept = self.kept[case] = self.runner.run(case, runtime, probes)
        return kept

    def _attributed(
        self, cell: Cell, case: s.Case, runtime: Runtime, active: tuple[str, ...], denied: Sequence[Probe | Command],
    ) -> Cell:
        """Follows a denial to its layers; `denied` are the row's, which have the same experiments."""
        widest = cell.errno  # with everything taken away

        def ask(layers: frozenset[str]) -> bool | None:
            nonlocal widest
            ran = self._run(s.relaxed(case, [layer for layer in active if layer in layers], self.host), runtime, denied)
            if ran.refused or cell.probe not in ran.outcomes:
                return None
            outcome = ran.outcomes[cell.probe]
            if layers == frozenset(active):
                widest = outcome.errno
            return {"allowed": True, "denied": False}.get(outcome.is_)

        layers = answer(search(active), ask)
        told = self.kept[case].said.get(cell.probe)
        if told:
            layers, also = with_log(layers, told.layers)
            cell = replace(cell, log=told.words, why=cell.why or also)
        if not layers and widest in ABSENT:
            what = "file" if widest == "ENOENT" else "system call"
            return replace(cell, is_="absent", why=f"with every layer taken away there is no such {what} here")
        return replace(cell, layers=layers)


def with_log(layers: tuple[tuple[str, ...], ...], named: frozenset[str]) -> tuple[tuple[tuple[str, ...], ...], str]:
    """What experiments and the kernel's log tell together, and what is to be said besides.

    Where any of several layers could give way, and the log names some, it is those that denied: a stacked label denies a signal that the
    profile alone permits, and without no_new_privs nothing would be stacked. Where no experiment helped, the log alone tells.
    """
    if not layers:
        return tuple((layer,) for layer in sorted(named)), "the log names it; it is not allowed with every layer taken away either"
    kept = tuple(together for together in layers if len(together) == 1 and together[0] in named)
    if not kept or len(layers) == 1:
        return layers, ""
    others = [" and ".join(together) for together in layers if together not in kept]
    return kept, f"without {' or '.join(others)} it would be allowed too" if others else ""


def answer(asking: Search, ask: Callable[[frozenset[str]], bool | None]) -> tuple[tuple[str, ...], ...]:
    """Makes the experiments that a search asks for; its answer."""
    try:
        wanted = next(asking)
        while True:
            wanted = asking.send(ask(wanted))
    except StopIteration as end:
        found: tuple[tuple[str, ...], ...] = end.value
        return found
