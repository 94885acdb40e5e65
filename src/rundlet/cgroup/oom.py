"""Being told when a container runs out of memory, or did before it was one."""

from posix import O_CLOEXEC, O_RDONLY, O_WRONLY, close, lseek, open, read, write

from rundlet.cgroup.file import failed, read_file
from rundlet.cgroup.place import Dir, Place, find
from rundlet.errors import Died, Refused


class Watch:
    """A descriptor that select.poll(2) reports on, and the count of what has happened; `mask` is what to poll for.

    v1: an eventfd given to the cgroup (cgroup-v1/memory.rst, "OOM Control"). v2: `oom_kill` of memory.events, which changes with POLLPRI.
    Raises Refused where the container has no memory controller, StepFailed when the kernel refuses.
    """

    def __init__(self, place: Place) -> None:
        from select import POLLIN, POLLPRI

        at = find(place, "memory")
        if at is None:
            raise Refused("cannot watch the container's memory: no memory controller here", "enable it, or use events --stats")
        self.version = at.version
        self.mask = POLLIN if at.version == 1 else POLLPRI
        self.path = _events(at)
        try:
            if at.version == 1:
                self.fd = _eventfd(at.path, self.path)
            else:
                self.fd = open(self.path, O_RDONLY | O_CLOEXEC)
        except OSError as e:
            raise failed("watch the container's memory", "open", self.path, e) from None
        self.seen = 0 if at.version == 1 else self._count()

    def happened(self) -> int:
        """How often it has run out of memory since this was asked last; to be asked when poll has reported the descriptor."""
        if self.version == 1:
            try:
                number = int.from_bytes(read(self.fd, 8), "little")
            except BlockingIOError:
                return 0
            return number if self.there() else 0  # the removal of the cgroup is told in the same way
        before, self.seen = self.seen, self._count()
        return max(0, self.seen - before)

    def there(self) -> bool:
        """Whether the cgroup has not been removed."""
        try:
            close(open(self.path, O_RDONLY | O_CLOEXEC))
        except OSError:
            return False
        return True

    def _count(self) -> int:
        try:
            lseek(self.fd, 0, 0)
            return _kills(read(self.fd, 4096).decode())
        except OSError:  # removed
            return 0

    def close(self) -> None:
        """Lets go."""
        close(self.fd)


def explain(died: Died, place: Place, limit: "int | None") -> None:
    """Says of what the executor died, where the kernel has killed in this cgroup: the runtime's part counts to its limit."""
    at = find(place, "memory")
    if at is None:
        return
    try:
        killed = _kills(read_file(_events(at)))
    except OSError:
        return
    if killed:
        asked = f"the container's limit, {limit} bytes, may be too low" if limit and limit > 0 else "is a limit above its cgroup too low?"
        died.message = f"the executor was killed, its cgroup is out of memory; {asked}"


def _events(at: Dir) -> str:
    return f"{at.path}/{'memory.oom_control' if at.version == 1 else 'memory.events'}"


def _kills(text: str) -> int:
    return int(text.partition("oom_kill ")[2].split("\n")[0] or 0)


def _eventfd(folder: str, path: str) -> int:
    from posix import EFD_CLOEXEC, EFD_NONBLOCK, eventfd

    events = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    control = open(path, O_RDONLY | O_CLOEXEC)
    try:
        to = open(f"{folder}/cgroup.event_control", O_WRONLY | O_CLOEXEC)
        try:
            write(to, f"{events} {control}".encode())
        finally:
            close(to)
    except OSError:
        close(events)
        raise
    finally:
        close(control)
    return events
