"""To which start of a process in a container each of its processes goes back: the container's own, or an exec. Pure.

An exec may have been given more or other than the container's process, and its children have what it has. Whose child a process is
can be told as long as its parents live, or by its session, which no process can join: setsid(2). What has left both behind is held to
one of all that it may go back to, and never to a mixture of them.
"""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Kin(NamedTuple):
    """A process, or the one that an exec has started."""

    pid: int
    ppid: int
    session: int
    start: int


def origins(processes: "Sequence[Kin]", first: int, execs: "Sequence[tuple[int, int]]", own_pids: bool) -> "Mapping[int, tuple[int, ...]]":
    """pid → the indexes of what it may go back to: 0 the container's process `first`, n + 1 the exec `execs[n]` (pid, start time).

    `own_pids`: the container has a PID namespace of its own, in which orphans go to its first process: pid_namespaces(7).
    """
    known = {one.pid: one for one in processes}
    started = {pid: n + 1 for n, (pid, start) in enumerate(execs) if pid in known and known[pid].start == start}
    # a number that another process has by now is that of another session: it is not given away while the session lasts
    sessions = {pid: n + 1 for n, (pid, start) in enumerate(execs) if pid not in known or known[pid].start == start}
    if first in known:
        sessions[known[first].session] = 0
    found: "dict[int, tuple[int, ...]]" = {}
    for one in processes:
        top, seen = one, {one.pid}
        while top.pid not in started and top.pid != first and top.ppid in known and top.ppid not in seen and top.ppid != first:
            top = known[top.ppid]
            seen.add(top.pid)
        if top.pid in started:
            found[one.pid] = (started[top.pid],)
        elif top.pid == first:
            found[one.pid] = (0,)
        elif top.session in sessions and _fits(top, sessions[top.session], execs):
            found[one.pid] = (sessions[top.session],)
        elif top.ppid == first or not own_pids:
            found[one.pid] = (0, *_younger(one, execs))
        else:
            found[one.pid] = (0,)  # its parent is outside, so it came in from there
    return found


def _younger(one: Kin, execs: "Iterable[tuple[int, int]]") -> "list[int]":
    """The execs that a process may descend from, by their age."""
    return [n + 1 for n, (_, start) in enumerate(execs) if start <= one.start]


def _fits(one: Kin, index: int, execs: "Sequence[tuple[int, int]]") -> bool:
    return index == 0 or execs[index - 1][1] <= one.start
