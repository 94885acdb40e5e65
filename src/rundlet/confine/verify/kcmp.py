"""Whether threads have their descriptors and their directories in common: kcmp(2)."""

import ctypes
import os

FILES, FS = 2, 3  # linux/kcmp.h: descriptors; root and working directory
NUMBER = {"x86_64": 312, "aarch64": 272}.get(os.uname().machine, -1)
libc = ctypes.CDLL(None, use_errno=True)


def same(one: int, other: int) -> bool:
    """Whether two threads of one process share all of both. False as well where that is not to be learnt: then both are to be looked at."""
    return all(libc.syscall(NUMBER, one, other, what, 0, 0) == 0 for what in (FILES, FS))
