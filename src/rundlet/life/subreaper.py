"""Being the one that orphans fall to: prctl(2), PR_SET_CHILD_SUBREAPER.

Only a process itself can do that, and the standard library has no prctl, so here, and only here, ctypes is loaded: for a container
in the foreground that has no PID namespace, whose first process would otherwise be the one that adopts.
"""

import ctypes
import os

from rundlet.errors import Fault

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From now on orphans among our descendants become our children. Raises Fault."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise Fault(f"cannot adopt the container's orphans: prctl: {os.strerror(ctypes.get_errno()).lower()}; --no-subreaper does without")
