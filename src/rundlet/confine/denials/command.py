"""rundlet denials: what the kernel denied to containers, what that means, and what would permit it."""

import json
import signal
import sys
import time
from dataclasses import asdict, replace

from rich.console import Console
from rich.text import Text

from rundlet.confine.denials.containers import known, of_pid
from rundlet.confine.denials.denial import Denial
from rundlet.confine.denials.reading import Reader, Unreadable, belongs, counted
from rundlet.confine.denials.since import boot, parse
from rundlet.errors import Usage, WrongState
from rundlet.life import store
from rundlet.options import Options

SCHEMA, ONE = "rundlet.denials/1", "rundlet.denial/1"
FOUND, NONE, CANNOT_TELL = 1, 0, 2
STYLES = {"denied": "bold red", "killed": "bold red", "allowed": "yellow", "audited": "dim"}
MARKS = (10, 100, 1000, 10_000, 100_000, 1_000_000)  # repetitions that --follow tells of


def main(options: Options) -> int:
    """The verb: 0 where nothing was denied, 1 where something was, 2 where it cannot be told."""
    if bool(options.config) != bool(options.pid) or (options.pid and options.args):
        raise Usage("denials takes an ID, or --pid N with --config FILE, or neither; see rundlet denials --help")
    top = store.root(options)
    others = (of_pid(options.pid, options.config or ""),) if options.pid else ()
    wanted = others[0].id if others else store.check_id(options.args[0]) if options.args else None
    created = next((one.created for one in others or known(top) if one.id == wanted), None) if wanted else None
    reader = Reader(_since(options, wanted, created), top, options.follow, others=others)
    try:
        reader.open()
    except Unreadable as why:
        if options.json:
            print(json.dumps({"schema": SCHEMA, "unreadable": str(why), "logs": _logs(reader), "denials": []}, indent=2))
        raise
    try:
        return _follow(reader, wanted, options.json) if options.follow else _once(reader, wanted, options.json)
    finally:
        reader.close()


def _since(options: Options, wanted: str | None, created: float | None) -> float:
    """--since; else for a container its creation, to follow now, and else the boot. Raises Usage, and WrongState for no such container."""
    if wanted and created is None:
        raise WrongState(f"container {wanted} does not exist; what was denied to one that is gone is told without an id")
    if options.since:
        return parse(options.since)
    if options.follow:
        return time.time()
    return boot() if created is None else created - 1


def _once(reader: Reader, wanted: str | None, as_json: bool) -> int:
    found = counted([denial for denial in reader.fresh() if wanted is None or belongs(denial, wanted)])
    refused = any(denial.refused for denial in found)
    if as_json:
        document = {
            "schema": SCHEMA, "since": reader.since, "logs": _logs(reader), "notes": reader.notes(),
            "denials": [asdict(denial) for denial in found],
        }
        print(json.dumps(document, indent=2))
    else:
        console = _console()
        for denial in found:
            _show(console, denial)
        if not found:
            what = "no record is left of anything that was denied" if reader.missing else "nothing was denied"
            console.print(f"{what} {f'to {wanted} ' if wanted else ''}since {_when(reader.since)}")
        _say(reader)
    return FOUND if refused else CANNOT_TELL if reader.missing else NONE


def _logs(reader: Reader) -> list[dict[str, object]]:
    return [{"log": log.name, "readable": log.readable, "said": log.said, "lost": log.lost} for log in reader.logs]


def _say(reader: Reader) -> None:
    """What keeps the answer from being whole, to stderr."""
    for note in reader.notes():
        print(f"rundlet: {note}", file=sys.stderr)


def _follow(reader: Reader, wanted: str | None, as_json: bool) -> int:
    """Until it is interrupted: each denial when it happens, repetitions when they are many, and a count of them in the end."""
    console = _console()
    counts: dict[tuple[object, ...], int] = {}
    shown: dict[tuple[object, ...], int] = {}
    last: dict[tuple[object, ...], Denial] = {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while any(log.readable for log in reader.logs):
            for denial in reader.fresh():
                if wanted is not None and not belongs(denial, wanted):
                    continue
                key = denial.same
                counts[key] = counts.get(key, 0) + 1
                last[key] = denial
                if counts[key] == 1 or counts[key] in MARKS:
                    shown[key] = counts[key]
                    _tell(console, denial, counts[key], as_json)
            reader.wait()
    except KeyboardInterrupt:
        pass
    for key, count in counts.items():
        if count > shown[key]:
            _tell(console, last[key], count, as_json)
    _say(reader)
    return FOUND if any(denial.refused for denial in last.values()) else NONE


def _tell(console: Console, denial: Denial, count: int, as_json: bool) -> None:
    denial = replace(denial, count=count)
    if as_json:
        print(json.dumps({"schema": ONE, **asdict(denial)}), flush=True)
    else:
        _show(console, denial)
        sys.stdout.flush()


def _console() -> Console:
    """To a terminal in its width and with colours; elsewhere as the lines are."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False, emoji=False)


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _show(console: Console, denial: Denial) -> None:
    """One denial: who, then what it means, what would permit it, and what that would be besides."""
    whose = denial.container or (f"perhaps {' or '.join(denial.maybe)}" if denial.maybe else "no container")
    head = Text.assemble(
        _when(denial.time), "  ", (denial.verdict, STYLES[denial.verdict]), f" by {denial.layer}  ", (_printable(whose), "bold"),
        f"  {_printable(denial.comm)}[{denial.pid}]", f"  ×{denial.count}" if denial.count > 1 else "",
    )
    console.print(head)
    console.print(Text("    " + _printable(denial.meaning)))
    if denial.rule:
        place = f'in the profile "{denial.label.partition("//null-")[0]}"' if denial.layer == "apparmor" else "in /linux/seccomp/syscalls"
        console.print(Text.assemble(f"    to permit it, {_printable(place)}:  ", (_printable(denial.rule), "bold")))
    for why in denial.widens:
        console.print(Text.assemble("    ", ("wider:", "yellow"), f" {_printable(why)}"))


def _printable(text: str) -> str:
    """Names that a container chose may hold line ends and terminal controls: escaped."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
