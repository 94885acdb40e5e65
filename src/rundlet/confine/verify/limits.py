"""The limits of a cgroup: what the files say beside what was written to them. Pure.

The kernel answers in words of its own: bytes rounded to pages, -1 as the largest number, lists of CPUs in order. So both are read as
what they mean. A limit that is lower than asked is none of the container's doing, but no danger: it is a note.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rundlet.confine.verify.compare import Findings
    from rundlet.plan.write import Write

PAGE = 65536  # the largest page size there is: a limit may be rounded by that much
V1_MOST = 1 << 62  # what cgroup v1 prints for no limit of bytes is above this
LISTS = ("cpuset.cpus", "cpuset.mems")
BYTES = ("memory.", "hugetlb.")
# in these more is not more for the container, or it is another kind of choice: they are to be just that
EXACT = ("cpu.idle", "memory.swappiness", "memory.oom_control", "net_cls.classid", "memory.use_hierarchy")
LOWER_IS_MORE = ("cpu.cfs_period_us", "cpu.rt_period_us")


def compare(write: "Write", live: str, found: "Findings") -> None:
    """One limit: what was written, and the text of the file now."""
    file, asked = write.file, write.text
    if file == "memory.oom_control":  # cgroup v1 says more in it than was written: cgroup-v1/memory.rst
        live = live.partition("oom_kill_disable ")[2].partition("\n")[0]
    if file == "cpu.shares":
        asked = str(max(int(asked), 2))  # the kernel has no fewer: MIN_SHARES of kernel/sched/core.c
    if file in LISTS:
        _list(write, live, found)
    elif file == "cpu.max":
        _cpu_max(write, live, found)
    elif " " in asked or "=" in asked or "\n" in live.strip():
        _line(write, live, found)
    else:
        wanted, holds = number(asked), number(live)
        if wanted is None or holds is None:
            if asked.strip() != live.strip():
                _differs(write, live, found)
        elif file in EXACT:
            if wanted != holds:
                _differs(write, live, found)
        elif file in LOWER_IS_MORE:
            if holds < wanted:
                _differs(write, live, found)
        elif holds > wanted and not (file.startswith(BYTES) and holds - wanted < PAGE):
            _differs(write, live, found)
        elif holds < wanted and not (file.startswith(BYTES) and wanted - holds < PAGE):
            found.note(f"narrower: {file} is {live.strip()}, and {asked} was asked for")


def number(text: str) -> float | None:
    """A limit as a number; no limit is more than any. None for what is no number."""
    word = text.strip()
    if word in ("max", "-1"):
        return float("inf")
    if not word.lstrip("-").isdigit():
        return None
    value = int(word)
    return float("inf") if value >= V1_MOST else value


def cpus(text: str) -> frozenset[int] | None:
    """A list such as 0-2,7; None for what is none."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first:
            continue
        if not first.isdigit() or (last and not last.isdigit()):
            return None
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _list(write: "Write", live: str, found: "Findings") -> None:
    asked, holds = cpus(write.text), cpus(live)
    if asked is None or holds is None:
        found.cannot_tell("limit", write.file, f"it says {live.strip()!r}, which is no list")
    elif not holds or holds - asked:
        _differs(write, live or "none of its own", found)
    elif asked - holds:
        found.note(f"narrower: {write.file} is {live.strip()}, and {write.text} was asked for")


def _cpu_max(write: "Write", live: str, found: "Findings") -> None:
    """Time in a period: what counts is the share."""
    asked, holds = write.text.split(), live.split()
    if len(asked) != 2 or len(holds) != 2:
        _differs(write, live, found)
        return
    if asked == holds:
        return
    wanted = float("inf") if asked[0] == "max" else int(asked[0]) / int(asked[1])
    share = float("inf") if holds[0] == "max" else int(holds[0]) / int(holds[1])
    if share > wanted * 1.0001:
        _differs(write, live, found)
    else:
        found.note(f"narrower or the same share: cpu.max is {live.strip()}, and {write.text} was asked for")


def _line(write: "Write", live: str, found: "Findings") -> None:
    """A limit of one device, or of one thing by name: a line of several, whose words may be more than were written."""
    name, *words = write.text.split()
    rows = [row.split() for row in live.splitlines()]
    row = next((row for row in rows if row and row[0] == name), None)
    if row is None:
        gone = all(word in ("0", "max", "default") or word.endswith("=max") for word in words)
        if not gone:
            _differs(write, "no line of it", found)
        return
    if any(word not in row for word in words) and words != row[1:]:
        _differs(write, " ".join(row), found)


def _differs(write: "Write", live: str, found: "Findings") -> None:
    found.differs("limit", write.file, write.text, live.strip() or "nothing")
