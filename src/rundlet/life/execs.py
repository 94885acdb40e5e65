"""What execs were held to that were given more or other than the container's own process, so that verify does not take them for intruders.

One line of JSON each in the file `execs` of the container's folder, by pid and start time. A line goes once nothing can descend from
its process any more; the file, with the container.
"""

import posix
from posix import O_APPEND, O_CLOEXEC, O_CREAT, O_WRONLY

from rundlet import jsontext
from rundlet.cgroup import place, tasks
from rundlet.errors import Fault
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypedDict

    from rundlet.life.store import Expect, Record
    from rundlet.spec.types import Process

    class Line(TypedDict):
        """One exec: what of `process` the configuration says otherwise, and what was decided."""

        pid: int
        start: int
        process: dict[str, Any]
        expect: Expect


FILE = "execs"
MATTERS = ("user", "capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "oomScoreAdj")
LARGE = 1 << 14  # bytes, from which on it is worth looking what can go


def note(folder: int, record: "Record", pid: int, proc: "Process", expect: "Expect") -> None:
    """Writes down what the exec that is process `pid` is held to, in the container's folder, which is locked. Raises Fault where that
    cannot be: then it must not run."""
    found = store.stat(pid)
    line: "dict[str, Any]" = {
        "pid": pid, "start": found[1] if found else 0,
        "process": {key: proc[key] for key in MATTERS}, "expect": expect,  # type: ignore[literal-required]
    }
    try:
        fd = posix.open(FILE, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            posix.write(fd, jsontext.dumps(line).encode() + b"\n")
            large = posix.fstat(fd).st_size > LARGE
        finally:
            posix.close(fd)
        if large:
            _prune(folder, record)
    except OSError as e:
        raise Fault(f"cannot write {FILE} in the container's folder: {(e.strerror or '').lower()}") from None


def load(folder: str) -> "list[Line]":
    """The lines, in the order of the execs; none where there are none."""
    try:
        return _lines(store.read(f"{folder}/{FILE}"))
    except FileNotFoundError:
        return []


def _lines(text: bytes) -> "list[Line]":
    return [jsontext.loads(line, FILE) for line in text.splitlines()]  # type: ignore[misc]


def _prune(folder: int, record: "Record") -> None:
    """Leaves the lines of processes that run, or of which something that runs may be a descendant: in their session, or as young and in one
    of its own."""
    at = place.load(record["cgroup"])
    if not at.dirs:
        return
    alive = {pid: about for pid in tasks.pids(at) if (about := _about(pid))}
    lines = _lines(store.read(FILE, folder))
    running = {line["pid"] for line in lines if alive.get(line["pid"], (0, 0))[1] == line["start"]}
    first = alive.get(record["pid"], (0, 0))[0]
    strays = [start for pid, (session, start) in alive.items() if session not in running and session != first and pid != record["pid"]]
    sessions = {session for session, _ in alive.values()}
    kept = [
        line for line in lines
        if line["pid"] in running or line["pid"] in sessions or any(start >= line["start"] for start in strays)
    ]
    if len(kept) < len(lines):
        store.put(folder, FILE, "".join(jsontext.dumps(line) + "\n" for line in kept).encode())


def _about(pid: int) -> "tuple[int, int] | None":
    """Session and start time: proc_pid_stat(5)."""
    try:
        fields = store.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[3]), int(fields[19])
