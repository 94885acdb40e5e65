"""The matrix as a document (schema rundlet.matrix/1, described in docs/matrix.md), as a table for people, and held against another."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rundlet.confine.matrix.attribute import text
from rundlet.confine.matrix.build import Cell, Matrix
from rundlet.confine.matrix.probes import Command, Probe
from rundlet.confine.matrix.run import Runtime
from rundlet.confine.matrix.settings import Setting
from rundlet.errors import BadSpec, Refused

SCHEMA = "rundlet.matrix/1"
WORDS = {"allowed": "allowed", "denied": "denied", "refused": "refused to start", "unknown": "unknown", "absent": "not here"}
Document = dict[str, Any]
Key = tuple[str, str, str]


def document(
    machine: Mapping[str, Any], runtimes: Sequence[Runtime], settings: Sequence[Setting], probes: Sequence[Probe | Command], made: Matrix,
    notes: Sequence[str], design: str,
) -> Document:
    """Everything, as plain data."""
    return {
        "schema": SCHEMA,
        "machine": dict(machine),
        "runtimes": [{"name": one.name, "version": one.version} for one in runtimes],
        "settings": [{"name": one.name, "axes": dict(one.axes)} for one in settings],
        "probes": [{"name": one.name, "what": one.what, "harmless": one.harmless} for one in probes],
        "design": design,
        "notes": list(notes),
        "containers": made.runs,
        "rows": [asdict(row) for row in made.rows],
        "cells": [as_json(cell) for cell in made.cells],
    }


def as_json(cell: Cell) -> dict[str, Any]:
    """One cell; empty details are left out."""
    found: dict[str, Any] = {"runtime": cell.runtime, "setting": cell.setting, "probe": cell.probe, "is": cell.is_}
    if cell.is_ == "denied":
        found["layers"] = [list(together) for together in cell.layers]
    return found | {key: value for key, value in (("errno", cell.errno), ("why", cell.why), ("log", list(cell.log))) if value}


def says(cell: Mapping[str, Any]) -> str:
    """A cell in a few words: "allowed", "denied by seccomp and capability", "refused to start"."""
    if cell["is"] == "denied":
        return f"denied by {text(cell['layers'])}"
    return WORDS[cell["is"]]


# ── for people ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def show(found: Document, console: Console) -> None:
    """Prints a table for each runtime, what differs between them, and what was not tried."""
    for runtime in found["runtimes"]:
        console.print(_table(found, runtime, console.is_terminal))
    if len(found["runtimes"]) > 1:
        lines = differences(found)
        console.print(Text("\n  ".join(["The runtimes differ:", *lines]) if lines else "The runtimes do not differ."))
    for row in collapsed(found["rows"]):
        console.print(Text(row))
    for note in found["notes"]:
        console.print(Text(f"Changed for the probes: {note}."))
    console.print(Text(f"Tried: {found['design']}. {found['containers']} containers were run."))


def _table(found: Document, runtime: Mapping[str, Any], terminal: bool) -> Table:
    table = Table(title=f"{runtime['name']}: {runtime['version']}", title_justify="left", box=box.SIMPLE_HEAD if terminal else box.ASCII2)
    for name in ("setting", "runs as", "allowed", "denied, by layer"):
        table.add_column(name, overflow="fold")
    for row in found["rows"]:
        if row["runtime"] != runtime["name"] or row["status"] == "absent":
            continue
        cells = [cell for cell in found["cells"] if (cell["runtime"], cell["setting"]) == (row["runtime"], row["setting"])]
        if row["status"] == "refused":
            table.add_row(row["setting"], Text("refused to start", style="bold red"), "-", Text(row["why"]))
            continue
        allowed = sum(cell["is"] == "allowed" for cell in cells)
        table.add_row(row["setting"], Text(runs_as(row["facts"])), f"{allowed} of {len(cells)}", _denied(cells))
    return table


def runs_as(facts: Mapping[str, Any]) -> str:
    """What a container's process is, short: its label, no_new_privs, seccomp."""
    words = [str(facts.get("label") or "no label")]
    words.append({True: "no_new_privs", False: "privileges may be gained", None: "no_new_privs unknown"}[facts.get("nnp")])
    if facts.get("seccomp") == "filter":
        words.append("filtered")
    if facts.get("exec label", facts.get("label")) != facts.get("label"):
        words.append(f"exec: {facts['exec label'] or 'failed'}")
    return ", ".join(words)


def _denied(cells: Iterable[Mapping[str, Any]]) -> Group:
    by: dict[str, list[str]] = {}
    for cell in cells:
        if cell["is"] != "allowed":
            key = text(cell["layers"]) if cell["is"] == "denied" else WORDS[cell["is"]]
            by.setdefault(key, []).append(cell["probe"])
    lines = []
    for key, names in sorted(by.items()):
        lines.append(Text.assemble((key, "bold"), ": ", ", ".join(names)))
    return Group(*lines)


def differences(found: Document) -> list[str]:
    """Where the runtimes come to different ends, a line each."""
    ends: dict[tuple[str, str], dict[str, str]] = {}
    for cell in found["cells"]:
        ends.setdefault((cell["setting"], cell["probe"]), {})[cell["runtime"]] = says(cell)
    whole = {(row["setting"], row["runtime"]): row["status"] for row in found["rows"]}
    names = [one["name"] for one in found["runtimes"]]
    lines = []
    for setting in dict.fromkeys(setting for setting, _ in ends):
        statuses = {name: whole[setting, name] for name in names}
        if len(set(statuses.values())) > 1:
            lines.append(f"{setting}: " + ", ".join(f"{name} {'refuses' if s == 'refused' else 'runs'}" for name, s in statuses.items()))
        for (where, probe), said in ends.items():
            runs = {name: word for name, word in said.items() if statuses[name] == "ran"}
            if where == setting and len(set(runs.values())) > 1:
                lines.append(f"{setting}, {probe}: " + ", ".join(f"{name} {word}" for name, word in runs.items()))
    return lines


def collapsed(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The settings that this machine has not, one line for each reason."""
    by: dict[str, list[str]] = {}
    for row in rows:
        if row["status"] == "absent" and row["setting"] not in by.setdefault(row["why"], []):
            by[row["why"]].append(row["setting"])
    return [f"not here: {why} ({len(names)} settings: {'; '.join(names)})" for why, names in by.items()]


# ── held against another ─────────────────────────────────────────────────────────────────────────────────────────────────────


def expected(path: str) -> dict[Key, str]:
    """The cells of a document in a file, in words. Raises Refused, BadSpec."""
    try:
        found = json.loads(Path(path).read_bytes())
    except OSError as failure:
        raise Refused(f"cannot read {path}: {(failure.strerror or '').lower()}", "write one with --json") from None
    except ValueError as failure:
        raise BadSpec(path, f"no JSON: {failure}") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise BadSpec(f"{path}: /schema", f"must be {SCHEMA!r}")
    try:
        return cells(found["cells"])
    except (KeyError, TypeError) as wrong:
        raise BadSpec(f"{path}: /cells", f"malformed: {wrong}") from None


def cells(found: Iterable[Mapping[str, Any]]) -> dict[Key, str]:
    """Cells by runtime, setting and probe, each in words."""
    return {(cell["runtime"], cell["setting"], cell["probe"]): says(cell) for cell in found}


def compare(found: Document, wanted: Mapping[Key, str]) -> tuple[list[str], list[str]]:
    """(what differs, what cannot be told), a line for each cell. A cell that is not expected to be anything does not count."""
    seen = cells(found["cells"])
    differs, untold = [], []
    for key, word in wanted.items():
        name = " / ".join(key)
        if key not in seen:
            untold.append(f"{name}: expected {word}, not tried")
        elif seen[key] == word:
            continue
        elif seen[key] in (WORDS["absent"], WORDS["unknown"]):
            untold.append(f"{name}: expected {word}, {seen[key]}")
        else:
            differs.append(f"{name}: expected {word}, is {seen[key]}")
    return differs, untold
