"""Becomes a command once fewer than two others that were started this way run: each emulated guest takes a processor of its own.

    python3 tests/lab/slot.py COMMAND…
"""

import fcntl
import os
import sys
import time

SLOTS = 2
FOLDER = "/run/lock/rundlet-lab"  # of the whole machine, and root's, as labs are


def main(words: list[str]) -> None:
    """The lock is the command's, by a descriptor without a use: it ends with the command, however that ends."""
    os.makedirs(FOLDER, exist_ok=True)
    slots = [os.open(f"{FOLDER}/{n}", os.O_RDWR | os.O_CREAT, 0o600) for n in range(SLOTS)]
    while True:
        for slot in slots:
            try:
                fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            os.set_inheritable(slot, True)
            os.execvp(words[0], words)
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1:])
