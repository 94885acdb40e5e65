"""rundlet host: the facts that decisions are made from, as they are on this host for this very process."""

import json
import sys
from typing import Any

from rundlet import host
from rundlet.options import Options


def main(options: Options) -> int:
    """The verb."""
    facts = host.facts(everything=True)
    if options.json:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines(facts, "")))
    return 0


def lines(value: Any, name: str) -> list[str]:
    """A nested document as lines `a.b: value`."""
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in lines(inner, f"{name}.{key}" if name else key)] or [f"{name}: none"]
    if isinstance(value, list):
        text = ", ".join(item if isinstance(item, str) else json.dumps(item) for item in value)
        return [f"{name}: {text or 'none'}"]
    return [f"{name}: {'unknown' if value is None else json.dumps(value) if isinstance(value, bool) else value}"]
