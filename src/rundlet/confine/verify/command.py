"""rundlet verify: reports of containers as a table, JSON, SARIF or JUnit XML; the exit status says what came of it."""

import json
import sys
from typing import TYPE_CHECKING

from rundlet import log
from rundlet.confine.verify import check_all
from rundlet.confine.verify.model import Report, Target, Unknown
from rundlet.errors import Fault, Usage, WrongState
from rundlet.life import store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rundlet.options import Options

SCHEMA = "rundlet.verify/1"
STATUS = {"holds": 0, "differs": 1, "unknown": 2}


def main(options: "Options") -> int:
    """The verb: 0 everything holds, 1 something differs, 2 something could not be told."""
    untold: list[Report] = []
    reports = [*check_all(targets(options, untold)), *untold]
    # what has ended is not there to be looked at; asked for by name, that it is not is the answer
    count = [report for report in reports if not (options.all and report.state == "stopped" and not report.processes)]
    word = overall(count)
    sys.stdout.write(text(reports, count, word, options.format))
    return STATUS[word]


def targets(options: "Options", untold: "list[Report]") -> "Iterator[Target]":
    """What the command line asks for; one of --all whose record or configuration cannot be read is `untold`. Raises Usage for none, or for
    both ways of asking."""
    ways = [bool(options.args), options.all, bool(options.pid)]
    if sum(ways) != 1 or bool(options.config) != bool(options.pid):
        raise Usage("verify takes IDs, or --all, or --pid N with --config FILE; see rundlet verify --help")
    if options.pid:
        yield Target.of_pid(options.pid, options.config or "")
        return
    root = store.root(options)
    for name in options.args or store.names(root):
        try:
            yield Target.of_container(root, name)
        except WrongState as fault:
            if not options.all:
                raise
            log.warning(str(fault))  # removed meanwhile, or not made to the end
        except Fault as fault:
            if not options.all:
                raise
            untold.append(Report(name, 0, "unknown", unknown=(Unknown("process", "container", str(fault)),)))


def overall(reports: "Sequence[Report]") -> str:
    """One word for all: a difference counts for more than what could not be told, and that for more than what holds."""
    words = {report.status for report in reports}
    return next((word for word in ("differs", "unknown") if word in words), "holds")


def text(reports: "Sequence[Report]", count: "Sequence[Report]", word: str, form: str) -> str:
    """The output in one of the forms; those for CI have the containers that `count`. Raises Fault for a library that is not there."""
    if form == "json":
        return json.dumps(document(reports, word), indent=2) + "\n"
    if form == "sarif":
        from rundlet.confine.verify import sarif

        # bytes that are no text become question marks: many readers take no half of a surrogate pair
        return json.dumps(sarif.log(count), indent=2, ensure_ascii=False).encode("utf-8", "replace").decode() + "\n"
    if form == "junit":
        from rundlet.confine.verify import junit

        return junit.suites(count)
    try:
        from rundlet.confine.verify import table
    except ImportError:
        raise Fault("the table takes the Python package rich; install it, or use --json") from None
    return table.shown(reports)


def document(reports: "Sequence[Report]", word: str) -> dict[str, object]:
    """rundlet.verify/1: docs/verify.md. `word` is that for all."""
    return {"schema": SCHEMA, "status": word, "containers": [report.as_json() for report in reports]}
