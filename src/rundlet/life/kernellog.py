"""After a command has failed, or a container's program: what the kernel wrote down meanwhile of the processes that were started.

Imported on that way alone. The lines are found here and understood elsewhere, so that a failure that has no part in this costs no more
than a look at the log.
"""

import posix
from posix import O_CLOEXEC, O_NONBLOCK, O_RDONLY

from rundlet.executor.client import PIDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

KMSG = "/dev/kmsg"
AUDITD, CONF, AUDIT_LOG = "/run/auditd.pid", "/etc/audit/auditd.conf", "/var/log/audit/audit.log"
ENABLED = "/sys/module/apparmor/parameters/enabled"
LARGEST = 1 << 16
TAIL = 1 << 17  # bytes of auditd's file, from its end, that are looked at
AWAIT = 200  # ms: records go through a thread of the kernel's, kauditd, and auditd writes its file when it comes to it
SHORTLY = 50  # ms: the program has ended since, which took its time; and many end with another status than 0, all being well
PAUSE = 10  # ms between two looks at auditd's file: no descriptor tells that it has grown
CLOCK = 0.02  # seconds by which a record's time, taken from a coarse clock, may be earlier: audit_log_start()


def lately(died: bool = False, whose: "Container[int]" = PIDS, patience: int = AWAIT) -> "list[str]":
    """The lines of the log that are records about our processes since this command began; none where no log can be read.

    `died`: a process of ours did, perhaps by a filter; without it, and without AppArmor, nothing is waited for. `whose`: the pids that are
    asked about. `patience` is in milliseconds.
    """
    if not PIDS:
        return []
    since = _began() - CLOCK
    fd = -1 if _is_taken() else posix.open(KMSG, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
    try:
        found = _found(fd, since, whose)
        if not found and (died or _enabled()):
            found = _awaited(fd, since, whose, patience)
        return found
    finally:
        if fd >= 0:
            posix.close(fd)


def _found(fd: int, since: float, whose: "Container[int]") -> "list[str]":
    """What is there: in the kernel's log behind the descriptor, in auditd's file where it is -1."""
    return _ours(fd, since, whose) if fd >= 0 else _tail(since, whose)


def _awaited(fd: int, since: float, whose: "Container[int]", patience: int) -> "list[str]":
    """What comes within so many milliseconds; what comes of others meanwhile does not end the waiting."""
    from select import POLLIN, poll
    from time import monotonic

    waiting = poll()
    if fd >= 0:
        waiting.register(fd, POLLIN)
    end = monotonic() + patience / 1000
    while (left := (end - monotonic()) * 1000) > 0:
        waiting.poll(left if fd >= 0 else min(left, PAUSE))
        if found := _found(fd, since, whose):
            return found
    return []


def _ours(fd: int, since: float, whose: "Container[int]") -> "list[str]":
    found: "list[str]" = []
    while True:
        try:
            entry = posix.read(fd, LARGEST)
        except BlockingIOError:
            return found
        except BrokenPipeError:
            continue  # what was not read yet is overwritten
        priority, _, rest = entry.partition(b",")
        line = rest.partition(b";")[2].partition(b"\n")[0]
        # of the kernel's own, a program's have a facility; and of its audit system, as others may repeat what a process made up
        if priority.isdigit() and int(priority) < 8 and line.startswith(b"audit: ") and concerns(line, since, whose):
            found.append(_text(line))


def _text(line: bytes) -> str:
    r"""A line as the kernel printed it: \x5c is a backslash. Documentation/ABI/testing/dev-kmsg"""
    first, *rest = line.split(b"\\x")
    parts = [first, *(bytes.fromhex(part[:2].decode()) + part[2:] for part in rest)]
    return b"".join(parts).decode("utf-8", "surrogateescape")


def concerns(line: bytes, since: float, whose: "Container[int]" = PIDS) -> bool:
    """Whether it is a record of one of these processes, and not older."""
    _, found, rest = line.partition(b"audit(")
    when, _, rest = rest.partition(b":")
    if not found or b" pid=" not in rest:
        return False
    pid = rest.rpartition(b" pid=")[2].partition(b" ")[0]
    try:
        return int(pid) in whose and float(when) >= since
    except ValueError:
        return False


def audit_file() -> str:
    """The file that auditd.conf(5) names, else the usual one."""
    from rundlet.life import store

    try:
        for line in store.read(CONF).decode("utf-8", "surrogateescape").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "log_file":
                return value.strip()
    except OSError:
        pass
    return AUDIT_LOG


def _is_taken() -> bool:
    """Whether auditd takes the records, so that the kernel's log has none."""
    try:
        fd = posix.open(AUDITD, O_RDONLY | O_CLOEXEC)
    except OSError:
        return False
    try:
        pid = posix.read(fd, 16).strip().decode()
    finally:
        posix.close(fd)
    return pid.isdigit() and posix.access(f"/proc/{pid}", posix.F_OK)


def _tail(since: float, whose: "Container[int]") -> "list[str]":
    fd = posix.open(audit_file(), O_RDONLY | O_CLOEXEC)
    try:
        text = posix.pread(fd, TAIL, max(0, posix.fstat(fd).st_size - TAIL))
    finally:
        posix.close(fd)
    return [line.decode("utf-8", "surrogateescape") for line in text.split(b"\n") if concerns(line, since, whose)]


def _enabled() -> bool:
    try:
        fd = posix.open(ENABLED, O_RDONLY | O_CLOEXEC)
    except OSError:
        return False
    try:
        return posix.read(fd, 1) == b"Y"
    finally:
        posix.close(fd)


def _began() -> float:
    """When this process began, in seconds since the epoch: proc_pid_stat(5), field 22."""
    import time

    from rundlet.life import store

    found = store.stat(posix.getpid())
    assert found
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + found[1] / posix.sysconf("SC_CLK_TCK")
