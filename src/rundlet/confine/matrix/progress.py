"""Says on standard error how far the matrix is: one line that changes on a terminal, a line for each row elsewhere."""

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn


class Bar:
    """To be told of each row, as a context: on a terminal it goes when that ends."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not self.terminal)
        self.task: TaskID | None = None

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *how: object) -> None:
        self.progress.stop()

    def say(self, what: str, done: int, of: int) -> None:
        """`what` begins; `done` rows of `of` are done."""
        if not self.terminal:
            sys.stderr.write(f"rundlet matrix: {done + 1} of {of}: {what}\n")
            sys.stderr.flush()
            return
        if self.task is None:
            self.task = self.progress.add_task(what, total=of)
        self.progress.update(self.task, description=what, completed=done)
