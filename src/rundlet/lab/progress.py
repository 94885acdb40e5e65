"""Progress on stderr: one rewritten line on a terminal (through rich where it is installed), plain lines elsewhere."""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired
from typing import Any, BinaryIO

PREFIX = "rundlet lab: "


class Progress:
    """Says what is going on. On a terminal the line is transient; elsewhere only work that takes long is said."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.status: Any = None
        if self.terminal:
            try:
                from rich.console import Console

                self.status = Console(stderr=True).status("")
            except ImportError:
                pass
        self.shown = False

    def say(self, text: str, brief: bool = False) -> None:
        """Show `text`; a `brief` one is shown on a terminal only, as it is over in seconds."""
        if self.status is not None:
            self.status.update(f"{PREFIX}{text}")
            if not self.shown:
                self.status.start()
        elif self.terminal:
            sys.stderr.write(f"\r\x1b[K{PREFIX}{text}")
        elif not brief:
            sys.stderr.write(f"{PREFIX}{text}\n")
        sys.stderr.flush()
        self.shown = True

    def clear(self) -> None:
        """Take the transient line away, so that others may write."""
        if self.shown and self.status is not None:
            self.status.stop()
        elif self.shown and self.terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        self.shown = False

    def note(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        sys.stderr.write(f"{PREFIX}{text}\n")
        sys.stderr.flush()


def wait_for(words: Sequence[str], folder: Path, log: BinaryIO, tick: Callable[[float], None] | None = None) -> int:
    """Run the program `words` in `folder` with its output in `log` and return its status (negative: the signal it died of).

    `tick` is called about three times a second with the seconds passed. The program is a session of its own, and is killed
    with everything it started when an exception (such as an interrupt) ends the wait.
    """
    began = time.monotonic()
    process = Popen(words, cwd=folder, stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        while True:
            try:
                return process.wait(0.3)
            except TimeoutExpired:
                if tick is not None:
                    tick(time.monotonic() - began)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
