"""rundlet profile: AppArmor profiles looked at, compared, derived and loaded before a container needs them."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from rundlet.confine.profile import check, derive, diff, loading
from rundlet.errors import Usage
from rundlet.options import Options

SCHEMA = "rundlet.profile/1"
ACTIONS = {"check": check.main, "load": loading.main, "diff": diff.main, "derive": derive.main}
HOLDS, DIFFERS, CANNOT_TELL = 0, 1, 2


def main(options: Options) -> int:
    """The verb: 0 when everything holds, 1 when something differs or is in the way, 2 when it cannot be told."""
    action, *words = options.args
    if action not in ACTIONS:
        raise Usage(f"profile has no action {action}: it is one of {', '.join(ACTIONS)}")
    document, lines, verdict = ACTIONS[action](options, words)
    if options.json:
        shown: dict[str, Any] = {"schema": SCHEMA, "action": action, "holds": verdict, **document}
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    else:
        show(lines)
    return {True: HOLDS, False: DIFFERS, None: CANNOT_TELL}[verdict]


def show(lines: list[Any]) -> None:
    """Prints lines, and tables given as lists of rows; on a terminal with colours for the first word of a row."""
    console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
    for line in lines:
        if isinstance(line, str):
            sys.stdout.write(line + "\n")
            continue
        if not console.is_terminal:
            sys.stdout.writelines(f"{verdict:8} {what:20} {text}\n" for verdict, what, text in line)
            continue
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for verdict, what, text in line:
            table.add_row(verdict, what, text, style={"bad": "red", "unknown": "yellow"}.get(verdict))
        console.print(table)
