"""Times as people give them: "10m", "2h30m", an ISO date or time, "boot"."""

import datetime
import re
import time

from rundlet.errors import Usage

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
AGO = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")


def boot() -> float:
    """When the kernel began, in seconds since the epoch."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def parse(text: str, now: float | None = None) -> float:
    """The time that `text` means, in seconds since the epoch; ISO times without a zone are local. Raises Usage."""
    now = time.time() if now is None else now
    if text == "boot":
        return boot()
    if AGO.fullmatch(text):
        return now - sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhdw])", text))
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise Usage(f'--since: "{text}" is no time: 10m, 2h, 2026-11-27, 2026-11-27T13:30:00, or boot') from None
