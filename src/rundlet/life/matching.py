"""--regex of kill and delete: a command for every container whose id matches, as crun has it."""

import re

from rundlet.errors import Fault, Usage, WrongState
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rundlet.options import Options


def each(options: "Options", act: "Callable[[Options], None]") -> int:
    """Calls `act` with each id in which the pattern, options.id, is found; the exit status, 0.

    One that fails does not keep the others from their turn. Raises Fault with all that went wrong, Usage for what is no pattern.
    """
    try:
        pattern = re.compile(options.id)
    except re.error as e:
        raise Usage(f'"{options.id}" is no regular expression: {e}') from None
    top = store.root(options)
    faults = []
    for name in store.names(top):
        if not pattern.search(name):
            continue
        options.id = name
        try:
            act(options)
        except Fault as fault:
            if name in store.names(top):  # else another command was faster
                faults.append(str(fault) if name in str(fault) else f"{name}: {fault}")
    if faults:
        raise WrongState("; ".join(faults))
    return 0
