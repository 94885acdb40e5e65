"""Cgroups of v2 in a threaded tree: cgroups(7), "Thread mode"; admin-guide/cgroup-v2.rst, "Threads".

A cgroup that is made below a threaded one is "domain invalid", takes no process and passes no controller on, until it is made threaded
itself. Then it takes whole processes, too. Controllers that count for whole processes, as that of memory, are not to be had in there; the
processes are listed in the cgroup that is the domain, and threads alone where they are.
"""

from posix import O_CLOEXEC, O_RDONLY, close, open, read

from rundlet.cgroup.file import read_file, write_file
from rundlet.kernel import ENODEV, ENOENT, EOPNOTSUPP, ESRCH

INVALID = "domain invalid\n"


def become(mount: str, path: str) -> bool:
    """Makes the cgroup at `path` threaded where it has to be, and those between `mount` and it; whether there was one. Raises OSError."""
    made = False
    place = mount
    for part in path[len(mount) + 1 :].split("/"):
        place = f"{place}/{part}"
        if read_file(f"{place}/cgroup.type") == INVALID:
            write_file(f"{place}/cgroup.type", "threaded")
            made = True
    return made


def processes(path: str, dir_fd: "int | None" = None) -> "list[int]":
    """The processes that have threads in a threaded cgroup; none when it is gone."""
    try:
        fd = open(f"{path}/cgroup.threads", O_RDONLY | O_CLOEXEC, dir_fd=dir_fd)
    except OSError as e:
        if e.errno in (ENOENT, ENODEV):
            return []
        raise
    parts = []
    try:
        while part := read(fd, 1 << 16):
            parts.append(part)
    except OSError as e:
        if e.errno not in (ENODEV, EOPNOTSUPP):  # one that is invalid has none
            raise
    finally:
        close(fd)
    return sorted({pid for pid in map(_process, b"".join(parts).split()) if pid})


def _process(thread: bytes) -> int:
    """Whose thread it is, 0 for one that has ended: proc_pid_status(5)."""
    try:
        text = read_file(f"/proc/{thread.decode()}/status")
    except OSError as e:
        if e.errno == ESRCH:
            return 0
        raise
    return int(text.partition("\nTgid:")[2].partition("\n")[0] or 0)
