"""When each container is looked at next: after what happened to it, and once in every interval. One at a time, no thread for any.

    ask(id)                 something happened: look soon, yet when it has come to its end (an exec is confined step by step)
    ask, ask, ask           are one look
    GAP                     however much happens, a container is looked at once in this time: one that may write to its own cgroup
                            could keep us busy otherwise
"""

import asyncio

SETTLE = 0.3  # seconds between what happens and the look at it
GAP = 1.0


class Rounds:
    """The times, by container."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.due: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self._wake = asyncio.Event()

    def ask(self, id: str, after: float = SETTLE) -> None:
        """Wants a look at a container in `after` seconds, or sooner where that was wanted already."""
        at = asyncio.get_running_loop().time() + after
        if id in self.last:
            at = max(at, self.last[id] + min(GAP, self.interval))
        if at < self.due.get(id, float("inf")):
            self.due[id] = at
            self._wake.set()

    def forget(self, id: str) -> None:
        """Of a container that is gone."""
        self.due.pop(id, None)
        self.last.pop(id, None)

    async def next(self) -> str:
        """Waits for the time of the container that is due first; its id. Its next look is due an interval from now."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            first = min(self.due, key=self.due.__getitem__, default=None)
            wait = self.due[first] - loop.time() if first is not None else None
            if first is not None and wait is not None and wait <= 0:
                self.last[first] = loop.time()
                self.due[first] = loop.time() + self.interval
                return first
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
