"""rundlet verify: is what runs what was asked for? Every process and thread of a container against its configuration.

    check(Target.of_container(root, id)).status      "holds", "differs" or "unknown"

    target.py    where the configuration and the first process are found
    expect.py    what must hold, from the configuration, the record and the limits as updated: pure
    observe.py   what the kernel says, read once and without judgement
    compare.py   the two side by side: pure
    command.py   the verb, and table.py, sarif.py, junit.py its output
"""

from typing import TYPE_CHECKING

from rundlet.confine.verify.model import Difference, Report, Target, Unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Difference", "Report", "Target", "Unknown", "check", "check_all"]


def check(target: Target) -> Report:
    """Looks at every process of a container and compares. Raises Fault where nothing can be looked at at all; makes and changes nothing."""
    return next(check_all([target]))


def check_all(targets: "Iterable[Target]") -> "Iterator[Report]":
    """check() of each, for which what is the same for all of them is read once."""
    from rundlet.confine.verify import around, look

    host = around.Host()
    for target in targets:
        yield look.check(target, host)
