"""Denials as they come: read from the logs by confine/denials, counted by kind."""

import time
from collections import Counter
from collections.abc import Sequence

from rundlet.confine.denials.containers import Container
from rundlet.confine.denials.reading import Reader, Unreadable
from rundlet.confine.watch.watcher import Denied


class Denials:
    """Those of the containers of a root, from now on, and of `others`, which are another runtime's."""

    def __init__(self, root: str, others: tuple[Container, ...] = ()) -> None:
        self.reader = Reader(time.time(), root, follow=True, others=others)
        self.open = False

    def begin(self) -> str:
        """Opens the logs; why nothing can be read, "" where it can."""
        try:
            self.reader.open()
        except Unreadable as fault:
            return str(fault)
        self.open = True
        return ""

    def read(self) -> Sequence[Denied]:
        """What has come since it was last read."""
        found: Counter[Denied] = Counter()
        for denial in self.reader.fresh():
            if denial.refused:
                found[Denied(denial.container, denial.layer, denial.verdict, denial.operation, denial.what)] += denial.count
        return [Denied(one.container, one.layer, one.verdict, one.operation, one.what, count) for one, count in found.items()]

    def close(self) -> None:
        """Lets go of the logs."""
        if self.open:
            self.reader.close()
