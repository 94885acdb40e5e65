"""What is mounted on the host, where a plan needs to know: proc_pid_mountinfo(5)."""

from rundlet.life.store import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def mounts() -> "Iterator[tuple[str, str]]":
    """(mount point, type) of every mount in the runtime's mount namespace, in the order in which they were made."""
    for line in read("/proc/self/mountinfo").decode("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        yield _plain(before.split(" ")[4]), after.split(" ", 1)[0]


def filesystem(path: str) -> str:
    """The type of the filesystem that an absolute path is on; empty where it cannot be told."""
    from posixpath import realpath

    path = realpath(path) + "/"
    best, kind = "", ""
    for point, name in mounts():
        inside = path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later one lies over those before
            best, kind = point, name
    return kind


def revealing() -> "tuple[str, ...]":
    """Where the host has a proc or a sysfs, the one mounted last first."""
    return tuple([point for point, kind in mounts() if kind in ("proc", "sysfs")][::-1])


def _plain(path: str) -> str:
    """A path with its octal escapes (space, tab, newline, backslash) undone."""
    first, *rest = path.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
