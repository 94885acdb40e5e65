"""What was observed of processes beside what they are held to. Pure: values in, findings out.

Narrower than asked is no difference, and is named in the notes: the container's own doing, mostly.
"""

import signal
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rundlet.confine.verify.expect import CAP_SYS_ADMIN, INFINITY, SETS, Confinement, names
from rundlet.confine.verify.facts import why
from rundlet.confine.verify.model import Difference, Unknown
from rundlet.plan.label import LEARNING, components, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rundlet.confine.verify.observe import Files, Leading, Process, Task

ENFORCING = ("enforce", "kill")
HARMLESS = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)}  # null, zero, full, random, urandom, tty, ptmx
TERMINALS = range(136, 144)  # Documentation/admin-guide/devices.txt: pseudoterminals


@dataclass
class Findings:
    """What comes of comparing, gathered under way."""

    differences: list[Difference] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def differs(self, fact: str, subject: str, asked: str, holds: str, because: str = "", task: "Task | None" = None) -> None:
        """Adds a difference, with the reason of its fact unless there is a better one. Threads that differ as others of their process do
        are not told one by one."""
        pid, tid = (task.pid, task.tid) if task else (None, None)
        one = Difference(fact, subject, asked, holds, because or why(fact), pid, tid)
        if pid is None or all((fact, asked, holds, pid) != (other.fact, other.asked, other.holds, other.pid) for other in self.differences):
            self.differences.append(one)

    def cannot_tell(self, fact: str, subject: str, because: str) -> None:
        """Adds something unknown."""
        self.unknown.append(Unknown(fact, subject, because))

    def note(self, text: str) -> None:
        """Adds a note, once."""
        if text not in self.notes:
            self.notes.append(text)

    def add(self, other: "Findings") -> None:
        """Adds those of another."""
        self.differences += other.differences
        self.unknown += [one for one in other.unknown if one not in self.unknown]
        for text in other.notes:
            self.note(text)


@dataclass(frozen=True)
class Around:
    """What processes are compared with besides their own expectation."""

    apparmor: str  # "on", "off", "absent", or "unknown"
    modes: "Mapping[str, str] | None"  # of the loaded profiles by name; None where the list is kept from us
    host: "Mapping[str, str]"  # the namespaces of the host
    container: "Mapping[str, str]"  # those of the first process
    asked: "Mapping[str, str | None]"  # kinds of namespaces that the configuration asks for
    places: "Mapping[str, str]"  # hierarchy → path of the container's cgroup there
    given: frozenset[tuple[int, int]]  # files from outside that it was given: stdin, stdout and stderr of any start, and what was preserved
    mounts: bool  # whether the container has a mount namespace
    deaths: "Mapping[int, int] | None" = None  # the parent-death signals of threads that have one; None where they are not to be learnt


def process(one: "Process", expect: Confinement, around: Around, descent: "Mapping[str, str]") -> Findings:
    """Compares a process and its threads. `descent` tells of namespaces that are neither the host's nor the container's: the namespace as
    readlink says it → "inside", "outside" or "either"."""
    found = Findings()
    for task in one.tasks:
        label(task, expect, around, found)
        user = task.spaces.get("user", "")
        nested = user != around.container.get("user") and descent.get(user) == "inside"
        _privileges(task, expect, nested, found)
        _ids(task, expect, found)
        _spaces(task, expect, around, descent, found)
        for fact, because in task.unread.items():
            found.cannot_tell(fact, task.who, because)
    _limits(one, expect, found)
    for task, words in _deaths(one, around):
        found.note(f"{task.who}: is sent {words}, which it may ask for itself")
    for task in one.tasks:
        _cgroups(task, around, found)
    if around.mounts:
        if one.exe_outside:
            found.differs("program", one.main.who, "a file of the container", one.exe, task=one.main)
        for task in one.tasks:
            if task.files:
                _files(task, task.files, around, found)
    for fact, because in one.unread.items():
        found.cannot_tell(fact, one.main.who, because)
    return found


def label(task: "Task", expect: Confinement, around: Around, found: Findings) -> None:
    """The AppArmor label: components as a set; a hat or child of a profile is no way out of it."""
    if not expect.label or "apparmor.label" in task.unread:
        return
    asked = joined(expect.label)
    if around.apparmor == "unknown":
        found.cannot_tell("apparmor.label", task.who, "it cannot be told whether AppArmor is on")
        return
    if task.label is None:
        words = {"off": "none: AppArmor is off", "absent": "none: the kernel has no AppArmor"}.get(around.apparmor, "none")
        found.differs("apparmor.label", task.who, asked, words, task=task)
        return
    live = set(components(task.label))
    shown = task.label + (f" ({task.mode})" if task.mode else "")
    held = {profile: [part for part in live if part == profile or part.startswith(profile + "//")] for profile in expect.label}
    if learning := [part for part in live if LEARNING in part]:
        why_ = f'"{learning[0]}" is a profile that the kernel invents for a complaining one: it denies nothing'
        found.differs("apparmor.label", task.who, asked, shown, why_, task)
        return
    missing = [profile for profile, parts in held.items() if not parts]
    if missing:
        found.differs("apparmor.label", task.who, asked, shown, _why_missing(missing, live), task)
        return
    rest = live.difference(*held.values())
    if "unconfined" in {part.rpartition(":")[2] for part in rest}:
        because = "the profile is in force, but stacked on unconfined: its signal and ptrace rules for peers of its own name match no more"
        found.differs("apparmor.label", task.who, asked, shown, because, task)
    elif rest:
        found.note(f"{task.who}: narrower: {' and '.join(sorted(rest))} stacked on {asked}")
    for profile, parts in held.items():
        for part in parts:
            if part != profile:
                found.note(f"{task.who}: under {part}, a hat or child of {profile}")
    _mode(task, expect, [part for profile in held if profile == expect.profile for part in held[profile]], around, shown, found)


def _why_missing(missing: list[str], live: set[str]) -> str:
    base = f"{why('apparmor.label')}: {' and '.join(sorted(missing))}"
    if live == {"unconfined"}:
        return f"{base}; the profile was removed, or the process came in from outside (nsenter)"
    return base


def _mode(task: "Task", expect: Confinement, parts: list[str], around: Around, shown: str, found: Findings) -> None:
    """Whether the profile that was asked for enforces. The kernel has one word for a whole label, and mixed tells too little."""
    if not parts or task.mode in ENFORCING:
        return
    if task.mode != "mixed":
        found.differs("apparmor.mode", task.who, "enforce", task.mode or "no mode", f"{_why_mode(task.mode)} ({shown})", task)
        return
    for part in parts:
        mode = (around.modes or {}).get(part)
        if mode is None:
            found.cannot_tell("apparmor.mode", task.who, f"the label is of mixed modes, and that of {part} is not to be read in securityfs")
        elif mode not in ENFORCING:
            found.differs("apparmor.mode", task.who, f"{part} (enforce)", f"{part} ({mode})", _why_mode(mode), task)


def _why_mode(mode: str | None) -> str:
    """A profile with flags=(prompt) denies, too, but not by itself alone."""
    return "somebody may be asked to permit what the profile does not" if mode == "user" else why("apparmor.mode")


def _privileges(task: "Task", expect: Confinement, nested: bool, found: Findings) -> None:
    """no_new_privs, seccomp and capabilities; the latter do not count in a user namespace that the process made for itself."""
    if expect.nnp and not task.nnp:
        found.differs("no-new-privs", task.who, "set", "not set", task=task)
    if expect.filters and task.seccomp != 1:  # strict mode permits less than any filter
        if task.seccomp != 2:
            found.differs("seccomp", task.who, f"{expect.filters} filter(s)", "none", task=task)
        elif task.filters is not None and task.filters < expect.filters:
            because = "a filter that the container was started with is missing: the process came in from outside"
            found.differs("seccomp", task.who, f"{expect.filters} filter(s)", f"{task.filters} filter(s)", because, task)
        elif task.filters is not None and task.filters > expect.filters:
            found.note(f"{task.who}: narrower: {task.filters - expect.filters} more seccomp filter(s)")
    if nested:
        found.note(f"{task.who}: in a user namespace of its own, where capabilities reach no further")
        return
    beyond: dict[tuple[int, int], list[str]] = {}
    for kind, live, most in zip(SETS, task.capabilities, expect.capabilities, strict=True):
        if live & ~most:
            beyond.setdefault((most, live & ~most), []).append(kind)
    for (most, more), kinds in beyond.items():
        sets = ", ".join(kinds)
        found.differs("capabilities", task.who, f"{sets}: {names(most)}", f"{sets}: also {names(more)}", task=task)


def _ids(task: "Task", expect: Confinement, found: Findings) -> None:
    for fact, what, live, asked, known, free in (
        ("user", "user", task.uids, expect.uid, expect.uids, expect.any_user),
        ("user", "group", task.gids, expect.gid, expect.gids, expect.any_group),
    ):
        for number in sorted(set(live)):
            if number == asked:
                continue
            if not _in(number, known):
                because = f"{what} {number} is none of the container's"
                found.differs(fact, task.who, f"{what} {_id(asked)}", f"{what} {number}", because, task)
            elif not free:
                found.differs(fact, task.who, f"{what} {_id(asked)}", f"{what} {number}", task=task)
            else:
                found.note(f"{task.who}: {what} {number}, which it may become")
    if expect.groups is None or expect.any_group:
        return
    allowed = {*expect.groups, expect.gid}
    if more := sorted(task.groups - allowed):
        asked_ = ", ".join(map(str, sorted(expect.groups))) or "none"
        found.differs("groups", task.who, f"groups {asked_}", f"also {', '.join(map(str, more))}", task=task)


def _in(number: int, ranges: "Sequence[tuple[int, int]]") -> bool:
    return any(first <= number < first + count for first, count in ranges)


def _id(number: int | None) -> str:
    return "that has no map" if number is None else str(number)


def _spaces(task: "Task", expect: Confinement, around: Around, descent: "Mapping[str, str]", found: Findings) -> None:
    for kind, live in task.spaces.items():
        own = around.container.get(kind)
        if live == own or own is None:
            continue
        if kind in around.asked and live == around.host.get(kind):
            found.differs("namespace", task.who, f"the container's {kind} namespace", "the host's", task=task)
            continue
        judged = descent.get(live, "either")
        if judged == "either" and not expect.may(CAP_SYS_ADMIN):
            judged = "outside"  # without that capability nobody in the container makes or enters one: setns(2), unshare(2)
        if judged == "inside":
            found.note(f"{task.who}: in a {kind} namespace made inside the container")
        elif judged == "outside" and (kind in around.asked or live != around.host.get(kind)):
            because = f"no process of the container can have made the {kind} namespace that it is in"
            found.differs("namespace", task.who, f"the container's {kind} namespace", live, because, task)
        elif judged == "either":
            found.cannot_tell("namespace", task.who, f"whether the container itself made the {kind} namespace that it is in ({live})")


def _limits(one: "Process", expect: Confinement, found: Findings) -> None:
    who = one.main.who
    for kind, soft, hard in expect.limits:
        if kind not in one.limits:
            continue
        _, live = one.limits[kind]
        if live > hard and not expect.may_raise:
            found.differs("rlimit", who, f"{kind} at most {amount(hard)}", amount(live), task=one.main)
        elif one.limits[kind] != (soft, hard):
            found.note(f"{who}: {kind} is {amount(one.limits[kind][0])} (hard {amount(live)}), which it may set itself")
    if expect.oom is not None and one.oom is not None and one.oom != expect.oom:
        if one.oom < expect.oom and not expect.may_raise:
            found.differs("oom-score", who, str(expect.oom), str(one.oom), task=one.main)
        else:
            found.note(f"{who}: oom_score_adj is {one.oom}, which it may set itself")


def waiting(one: "Process", around: Around, found: Findings) -> None:
    """Compares one that waits for start, and cannot have asked for anything."""
    for task, words in _deaths(one, around):
        found.differs("parent-death", task.who, "no signal", words, task=task)


def _deaths(one: "Process", around: Around) -> "list[tuple[Task, str]]":
    """The threads that have a parent-death signal, which no configuration asks for, with that in words."""
    deaths = around.deaths or {}
    return [(task, f"{_signal(deaths[task.tid])} when its parent ends") for task in one.tasks if task.tid in deaths]


def _signal(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def amount(number: int) -> str:
    """A resource limit as it is said."""
    return "unlimited" if number == INFINITY else str(number)


def _cgroups(task: "Task", around: Around, found: Findings) -> None:
    away: dict[tuple[str, str], list[str]] = {}
    for key, path in around.places.items():
        live = task.cgroups.get(key)
        if live is not None and not (live + "/").startswith(path.rstrip("/") + "/"):
            away.setdefault((path, live), []).append(key)
    for (path, live), keys in away.items():
        found.differs("cgroup", task.who, f"{path} or below", f"{live} ({', '.join(keys)})", task=task)


def _files(task: "Task", files: "Files", around: Around, found: Findings) -> None:
    if files.root_outside:
        found.differs("root", task.who, "inside the container", files.root, task=task)
    if files.cwd_outside:
        found.differs("working-directory", task.who, "inside the container", files.cwd, task=task)
    for leading in files.leading:
        kind = _kind(leading, around)
        if kind:
            holds = f"descriptor {leading.fd}: {kind} {leading.path}"
            found.differs("descriptor", task.who, "nothing outside the container", holds, task=task)


def _kind(leading: "Leading", around: Around) -> str:
    """What an open file outside is, in words; "" where it leads nowhere or was given to the container."""
    if stat.S_ISDIR(leading.mode):
        return "the directory"
    if stat.S_ISCHR(leading.mode) and (leading.device in HARMLESS or leading.device[0] in TERMINALS):
        return ""
    if stat.S_ISFIFO(leading.mode) or stat.S_ISSOCK(leading.mode) or leading.identity in around.given:
        return ""
    return "the device" if stat.S_ISCHR(leading.mode) or stat.S_ISBLK(leading.mode) else "the file"
