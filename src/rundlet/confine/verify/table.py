"""Reports for people: a line for each container, and below it what differs, what could not be told, and what was found narrower."""

import io
import shutil
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.confine.verify.model import Report

COLOURS = {"holds": "green", "differs": "bold red", "unknown": "yellow"}
WIDTH = 140  # where it is no terminal


def shown(reports: "Sequence[Report]") -> str:
    """The text, with colours where stdout is a terminal."""
    terminal = sys.stdout.isatty()
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, width=shutil.get_terminal_size((WIDTH, 24)).columns if terminal else WIDTH, highlight=False,
        legacy_windows=False, emoji=False, markup=False,
    )
    if not reports:
        return "no containers\n"
    for report in reports:
        _report(console, report)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def _report(console: Console, report: "Report") -> None:
    counted = f"{_count(report.processes, 'process', 'processes')}, {_count(report.threads, 'thread', 'threads')}"
    line = Text.assemble(
        (_plain(report.name), "bold"), f" ({report.state}, pid {report.pid}): " if report.pid else f" ({report.state}): ",
        (report.status, COLOURS[report.status]), f"; {_count(len(report.checked), 'fact', 'facts')} of {counted}",
    )
    console.print(line)
    if report.differences:
        table = Table("differs", "whose", "asked", "holds", box=None, padding=(0, 2, 0, 2), header_style="bold")
        for column in table.columns:
            column.overflow = "fold"
        for one in report.differences:
            table.add_row(Text(one.fact, style="red"), *(Text(_plain(word)) for word in (one.subject, one.asked, one.holds)))
        console.print(table)
        for fact, why in dict.fromkeys((one.fact, one.why) for one in report.differences):
            console.print(Text(f"  why {fact}: {_plain(why)}"), soft_wrap=True)
    for unknown in report.unknown:
        line = Text.assemble("  unknown ", (unknown.fact, "yellow"), f", {_plain(unknown.subject)}: {_plain(unknown.why)}")
        console.print(line, soft_wrap=True)
    for note in report.notes:
        console.print(Text(f"  note {_plain(note)}", style="dim"), soft_wrap=True)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _plain(text: str) -> str:
    """Names of processes and files are the container's to choose: nothing in them moves the cursor."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
