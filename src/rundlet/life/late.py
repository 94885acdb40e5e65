"""What a start owes that was cut off (SIGKILL, say) between letting its program go and looking how it runs: that look, made late.

    begun()    a program runs that the record does not know of: a start is under way, or was cut off
    owed()     it was cut off: nobody has looked
    told()     that, for whoever asks for the state
    check()    the look, by the next command that has to do with what runs in the container; what is not as decided is killed

Commands that only ask change nothing: they say that it was not looked at, and verify holds nothing for certain until it was.
"""

import posix
from fcntl import LOCK_EX, LOCK_NB, flock
from posix import O_CLOEXEC, O_RDONLY

from rundlet import jsontext, log
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.store import Container, Record

WHY = "its start was cut off before it was looked at how its program runs"


def begun(record: "Record") -> bool:
    """Whether a program runs, and a start has not come to its end: record.json and state.json are completed behind the look."""
    return record["phase"] == "created" and store.alive(record) and not store.waits(record)


def owed(container: "Container") -> bool:
    """Whether the look is owed. It is not as long as a start is under way: then another command has the lock."""
    if not begun(container.record):
        return False
    try:
        flock(container.fd, LOCK_EX | LOCK_NB)
        now: "Record" = jsontext.loads(store.read("state.json", container.fd), "state.json")  # type: ignore[assignment]
    except (BlockingIOError, FileNotFoundError):
        return False
    return begun(now)


def told(container: "Container") -> "dict[str, object]":
    """What the state says of it: nothing, but where the look is owed."""
    return {"unchecked": True} if owed(container) else {}


def check(container: "Container") -> None:
    """Makes the look that is owed to a locked container, if it is. Raises Refused as start does, with the container killed.

    What the process was before its exec is not known any more. So no label is accepted that it may have changed to by itself, and
    capabilities of a user namespace that it may have made itself are taken for the container's.
    """
    if not owed(container):
        return
    from rundlet.life import observe
    from rundlet.life import record as record_file

    record = container.record
    try:
        folder = posix.open(f"/proc/{record['pid']}", O_RDONLY | O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not store.alive(record):  # the number was another's when it was opened
            return
        seen = observe.insist(record, folder, observe.Before(folder, record["pid"], None))
    finally:
        posix.close(folder)
    known = record_file.load(container.folder)
    if known and "observed" not in known:
        record_file.complete(container, seen, None, [])
    record["phase"] = "running"
    container.write(record)
    log.warning(f"container {record['id']}: {WHY}; it runs as was decided")
