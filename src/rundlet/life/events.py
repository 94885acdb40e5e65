"""rundlet events: what a container uses, every few seconds, and each time it runs out of memory; one line of JSON an event."""

import posix
import sys
from select import POLLIN, poll
from time import monotonic

from rundlet import jsontext
from rundlet.cgroup import oom, place, stats
from rundlet.errors import Usage, WrongState
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.cgroup.place import Place
    from rundlet.life.store import Record
    from rundlet.options import Options

INTERVAL = "5s"
LONGEST = 1e6  # seconds: much longer poll(2) cannot be told to wait
# Go's time.ParseDuration, in seconds
UNITS = (("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0))


def main(options: "Options") -> int:
    """The verb."""
    interval = seconds(options.interval or INTERVAL)
    container = store.find(options, lock=False)
    record = container.record
    container.close()
    at = place.load(record["cgroup"])
    if store.status(record) in ("stopped", "creating"):
        raise WrongState(f"container with id {record['id']} is not running")
    if options.stats:
        _print(record, "stats", usage(record, at))
    else:
        follow(record, at, interval)
    return 0


def seconds(text: str) -> float:
    """A duration as Go writes it: 5s, 100ms, 1m30s. Raises Usage for what is none, or not above zero."""
    left, total = text, 0.0
    while left:
        digits = len(left) - len(left.lstrip("0123456789."))
        number, left = left[:digits], left[digits:]
        unit = max((name for name, _ in UNITS if left.startswith(name)), key=len, default="")
        if not unit or number.count(".") > 1 or not number.strip("."):
            raise Usage(f'option --interval takes a time such as 5s, 100ms or 1m30s, not "{text}"')
        total += float(number) * dict(UNITS)[unit]
        left = left[len(unit) :]
    if total <= 0:
        raise Usage("duration interval must be greater than 0")
    return total


def follow(record: "Record", at: "Place", interval: float) -> None:
    """Prints events until the container's first process has ended. Raises Refused where nobody counts its memory."""
    watch = oom.Watch(at)
    try:
        end = store.pidfd(record["pid"])
    except ProcessLookupError:
        watch.close()
        return
    try:
        ended = not store.alive(record)  # the pid was another process's when it was opened
        waiting = poll()
        waiting.register(watch.fd, watch.mask)
        waiting.register(end, POLLIN)
        due = monotonic() + interval
        while not ended:
            found = dict(waiting.poll(int(1000 * min(max(0.0, due - monotonic()), LONGEST)) + 1))
            ended = end in found
            # the last thing that a container does may be to run out of memory
            for _ in range(watch.happened() if found else 0):
                _print(record, "oom")
            if monotonic() >= due and not ended:
                _print(record, "stats", usage(record, at))
                due = max(due + interval, monotonic())
    finally:
        posix.close(end)
        watch.close()


def usage(record: "Record", at: "Place") -> "dict[str, object]":
    """What a container uses, in runc's form."""
    try:
        same = posix.readlink(f"/proc/{record['pid']}/ns/net") == posix.readlink("/proc/self/ns/net")
        links = None if same else stats.interfaces(store.read(f"/proc/{record['pid']}/net/dev").decode())
    except OSError:
        links = None  # it has ended meanwhile
    found: "dict[str, object]" = {**stats.collect(at), "network_interfaces": links}
    if "rdt" in record:
        from rundlet.life import rdt

        found["intel_rdt"] = rdt.usage(record["rdt"])
    return found


def _print(record: "Record", kind: str, data: "dict[str, object] | None" = None) -> None:
    line: "dict[str, object]" = {"type": kind, "id": record["id"]}
    if data is not None:
        line["data"] = data
    sys.stdout.write(jsontext.dumps(line) + "\n")
    sys.stdout.flush()
