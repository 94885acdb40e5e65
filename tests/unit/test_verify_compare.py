"""verify without a kernel: what must hold, what was observed, and what is made of the two."""

import io
import json
import re
import stat
import sys
from dataclasses import replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema

from rundlet import spec
from rundlet.confine.verify import (
    Difference,
    Report,
    Unknown,
    command,
    compare,
    devices,
    expect,
    inside,
    limits,
    lineage,
    sarif,
    table,
    whole,
)
from rundlet.confine.verify.compare import Around, Findings
from rundlet.confine.verify.expect import Confinement
from rundlet.confine.verify.facts import FACTS
from rundlet.confine.verify.observe import Files, Leading, Process, Task
from rundlet.plan import devicefilter
from rundlet.plan.devicefilter import DEFAULTS, Rule
from rundlet.plan.write import Write
from tests import bundles

HOST = {kind: f"{kind}:[1]" for kind in ("user", "mount", "pid", "network", "ipc", "uts", "cgroup", "time")}
OWN = {**{kind: f"{kind}:[2]" for kind in HOST}, "user": "user:[1]", "time": "time:[1]"}
ASKED: dict[str, str | None] = dict.fromkeys(("mount", "pid", "network", "ipc", "uts", "cgroup"))


def configuration(**process: Any) -> Any:
    """A checked configuration."""
    config = bundles.plain("/x")
    config["process"] |= process
    return spec.load(json.dumps(config).encode())[0]


def confined(**changes: Any) -> Confinement:
    """What the process of a plain container under the profile web is held to."""
    config = configuration(apparmorProfile="web")
    return replace(expect.confinement(config, config["process"]), **changes)


MINE = confined()
KILL_AND_BIND = 1 << 5 | 1 << 10


def task(**changes: Any) -> Task:
    """A thread that is as asked."""
    fields: dict[str, Any] = {
        "pid": 7, "tid": 7, "comm": "sh", "label": "web", "mode": "enforce", "nnp": True, "seccomp": 0, "filters": 0,
        "capabilities": (KILL_AND_BIND, KILL_AND_BIND, KILL_AND_BIND, 0, 0), "uids": (0, 0, 0, 0), "gids": (0, 0, 0, 0), "groups": frozenset(),
        "spaces": OWN, "cgroups": {"unified": "/x"}, "unread": {}, "files": None,
    }
    return Task(**{**fields, **changes})


def process(*tasks: Task, **changes: Any) -> Process:
    """A process that is as asked."""
    fields: dict[str, Any] = {
        "pid": 7, "state": "S", "ppid": 1, "session": 7, "start": 100, "tasks": list(tasks) or [task()], "limits": {}, "oom": 0, "exe": "/bin/sh", "exe_outside": False,
        "unread": {},
    }
    return Process(**{**fields, **changes})


def files(**changes: Any) -> Files:
    """Nothing outside."""
    fields: dict[str, Any] = {"cwd": "/", "cwd_outside": False, "root": "/", "root_outside": False, "leading": [], "stdio": frozenset()}
    return Files(**{**fields, **changes})


def around(**changes: Any) -> Around:
    """A host with AppArmor."""
    fields: dict[str, Any] = {
        "apparmor": "on", "modes": {"web": "enforce"}, "host": HOST, "container": OWN, "asked": ASKED, "places": {"unified": "/x"},
        "given": frozenset(), "mounts": True,
    }
    return Around(**{**fields, **changes})


def found(one: Process, mine: Confinement = MINE, beside: Around | None = None, descent: dict[str, str] | None = None) -> Findings:
    return compare.process(one, mine, beside or around(), descent or {})


def facts(findings: Findings) -> list[str]:
    return [one.fact for one in findings.differences]


# ── labels ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

LABELS = [
    # the label and its mode as the kernel prints them; what differs; what is noted
    ("web", "enforce", [], ""),
    ("web", "kill", [], ""),
    ("web", "complain", ["apparmor.mode"], ""),
    ("web", "unconfined", ["apparmor.mode"], ""),
    ("web", "user", ["apparmor.mode"], ""),
    ("web", None, ["apparmor.mode"], ""),
    ("unconfined", None, ["apparmor.label"], ""),
    ("other", "enforce", ["apparmor.label"], ""),
    ("webs", "enforce", ["apparmor.label"], ""),
    ("web//hat", "enforce", [], "under web//hat, a hat or child of web"),
    ("web//child//inner", "enforce", [], "under web//child//inner, a hat or child of web"),
    ("web//null-/bin/sh", "complain", ["apparmor.label"], ""),
    ("web//&web//null-x", "mixed", ["apparmor.label"], ""),
    ("rt//&web", "enforce", [], "rt stacked on web"),
    ("rt//&web", "mixed", [], "rt stacked on web"),
    ("unconfined//&web", "mixed", ["apparmor.label"], ""),
    ("web//&:ns:unconfined", "mixed", ["apparmor.label"], ""),
    (":ns:web", "enforce", ["apparmor.label"], ""),
    ("rt//&other", "enforce", ["apparmor.label"], ""),
]


@pytest.mark.parametrize(("label", "mode", "differs", "note"), LABELS)
def test_labels(label: str, mode: str | None, differs: list[str], note: str) -> None:
    findings = found(process(task(label=label, mode=mode)))
    assert facts(findings) == differs
    assert not findings.unknown
    assert note in " ".join(findings.notes)


def test_a_stack_must_hold_all_that_was_decided() -> None:
    stacked = confined(label=frozenset({"rt", "web"}))
    assert facts(found(process(task(label="rt//&web")), stacked)) == []
    assert facts(found(process(task(label="web")), stacked)) == ["apparmor.label"]
    assert facts(found(process(task(label="rt//&web//hat")), stacked)) == []


@pytest.mark.parametrize(("modes", "differs", "unknown"), [
    ({"web": "enforce", "rt": "complain"}, [], []),
    ({"web": "complain", "rt": "enforce"}, ["apparmor.mode"], []),
    ({"rt": "enforce"}, [], ["apparmor.mode"]),
    (None, [], ["apparmor.mode"]),
])
def test_of_a_mixed_label_the_mode_of_each_profile_counts(modes: dict[str, str] | None, differs: list[str], unknown: list[str]) -> None:
    findings = found(process(task(label="rt//&web", mode="mixed")), beside=around(modes=modes))
    assert (facts(findings), [one.fact for one in findings.unknown]) == (differs, unknown)


@pytest.mark.parametrize("state", ["off", "absent"])
def test_a_profile_where_there_is_no_apparmor(state: str) -> None:
    findings = found(process(task(label=None, mode=None)), beside=around(apparmor=state))
    assert [one.fact for one in findings.differences] == ["apparmor.label"]
    assert findings.differences[0].holds.startswith("none: ")


def test_what_cannot_be_read_is_unknown_and_not_guessed() -> None:
    findings = found(process(task(label=None, mode=None, unread={"apparmor.label": "permission denied"})))
    assert (facts(findings), findings.unknown) == ([], [Unknown("apparmor.label", "process 7 (sh)", "permission denied")])
    findings = found(process(task(label=None, mode=None)), beside=around(apparmor="unknown"))
    assert (facts(findings), [one.fact for one in findings.unknown]) == ([], ["apparmor.label"])


def test_nothing_asked_is_nothing_judged() -> None:
    config = configuration()
    mine = expect.confinement(config, config["process"])
    for label in ("unconfined", "anything", None):
        assert facts(found(process(task(label=label)), mine)) == []
    config = configuration(apparmorProfile="unconfined")
    assert expect.confinement(config, config["process"]).label == frozenset()


# ── capabilities ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

BITS = st.integers(0, (1 << 12) - 1)


def executed(sets: dict[str, int], nnp: bool, root: bool, file: tuple[int, int]) -> dict[str, int]:
    """capabilities(7), "Transformation of capabilities during execve()", for a program with permitted and inheritable file capabilities."""
    file_p, file_i = ((1 << 12) - 1,) * 2 if root else file
    ambient = 0 if (file != (0, 0) and not root) else sets["ambient"]
    permitted = sets["inheritable"] & file_i | file_p & sets["bounding"] | ambient
    if nnp and permitted & ~sets["permitted"]:
        permitted &= sets["permitted"]  # security/commoncap.c, cap_bprm_creds_from_file
    return {**sets, "permitted": permitted, "effective": permitted, "ambient": ambient & permitted}


@given(BITS, BITS, BITS, BITS, st.booleans(), st.lists(st.tuples(st.booleans(), BITS, BITS, BITS, BITS), max_size=4))
def test_no_process_comes_to_more_than_the_bounds(b: int, p: int, i: int, a: int, nnp: bool, steps: list[tuple[bool, int, int, int, int]]) -> None:
    """Whatever programs it executes, and whatever it drops or moves in between, as the kernel permits it."""
    sets = {"bounding": b, "permitted": p, "effective": p, "inheritable": i & (p | b), "ambient": a & i & p}
    asked = dict(sets)
    most = dict(zip(expect.SETS, expect.bounds(asked, nnp), strict=True))
    sets = executed(sets, nnp, True, (0, 0))
    for root, file_p, file_i, drop, move in steps:
        sets = {kind: mask & ~drop for kind, mask in sets.items()}
        sets["effective"] &= sets["permitted"]
        sets["inheritable"] |= move & sets["permitted"] & sets["bounding"]  # capset(2)
        sets["ambient"] = (sets["ambient"] | move) & sets["permitted"] & sets["inheritable"]
        sets = executed(sets, nnp, root, (file_p, file_i))
        for kind in expect.SETS:
            assert not sets[kind] & ~most[kind], kind


@given(st.tuples(*[BITS] * 5))
def test_a_capability_beyond_is_found_whichever_set_it_is_in(live: Any) -> None:
    mine = confined(capabilities=(0b111, 0b11, 0b11, 0b1, 0b1))
    findings = found(process(task(capabilities=live)), mine)
    beyond = {kind for kind, have, most in zip(expect.SETS, live, mine.capabilities, strict=True) if have & ~most}
    assert {kind for one in findings.differences for kind in one.holds.partition(":")[0].split(", ")} == beyond
    nested = found(process(task(capabilities=live, spaces={**OWN, "user": "user:[9]"})), mine, descent={"user:[9]": "inside"})
    assert facts(nested) == []


# ── the other facts of a process ─────────────────────────────────────────────────────────────────────────────────────────────


def test_no_new_privs_and_seccomp() -> None:
    filtered = confined(filters=1)
    assert facts(found(process(task(nnp=False)))) == ["no-new-privs"]
    assert facts(found(process(task(nnp=False)), confined(nnp=False))) == []
    assert facts(found(process(task(seccomp=0)), filtered)) == ["seccomp"]
    assert facts(found(process(task(seccomp=1)), filtered)) == []
    assert facts(found(process(task(seccomp=2, filters=1)), filtered)) == []
    assert facts(found(process(task(seccomp=2, filters=None)), filtered)) == []
    assert facts(found(process(task(seccomp=2, filters=1)), confined(filters=2))) == ["seccomp"]
    assert "2 more seccomp filter(s)" in found(process(task(seccomp=2, filters=3)), filtered).notes[0]


def test_every_thread_is_looked_at_and_the_same_is_told_once() -> None:
    threads = [task(), task(tid=8, nnp=False), task(tid=9, nnp=False, label="unconfined", mode=None)]
    findings = found(process(*threads))
    assert [(one.fact, one.tid) for one in findings.differences] == [("no-new-privs", 8), ("apparmor.label", 9)]
    assert findings.differences[0].subject == "thread 8 (sh) of process 7"


def test_users_and_groups() -> None:
    powerless = confined(any_user=False, any_group=False)
    for changes, fact in (({"uids": (0, 5, 0, 0)}, "user"), ({"gids": (0, 0, 0, 5)}, "user"), ({"groups": frozenset({4})}, "groups")):
        assert facts(found(process(task(**changes)), powerless)) == [fact]
        assert facts(found(process(task(**changes)), confined(any_user=True, any_group=True))) == []
    mapped = confined(uid=100000, uids=((100000, 65536),), any_user=True)
    assert facts(found(process(task(uids=(100005,) * 4)), mapped)) == []
    assert set(facts(found(process(task(uids=(0, 0, 0, 0))), mapped))) == {"user"}
    assert facts(found(process(task(groups=frozenset({4, 7}))), confined(groups=frozenset({4, 7}), any_group=False))) == []
    assert facts(found(process(task(groups=frozenset({4}))), confined(groups=None, any_group=False))) == []


@pytest.mark.parametrize(("live", "descent", "admin", "differs", "unknown"), [
    ("network:[1]", {}, True, ["namespace"], []),  # the host's
    ("network:[9]", {"network:[9]": "inside"}, False, [], []),
    ("network:[9]", {"network:[9]": "outside"}, True, ["namespace"], []),
    ("network:[9]", {"network:[9]": "either"}, False, ["namespace"], []),  # without CAP_SYS_ADMIN nobody inside can have made it
    ("network:[9]", {"network:[9]": "either"}, True, [], ["namespace"]),
    ("network:[9]", {}, True, [], ["namespace"]),
])
def test_namespaces(live: str, descent: dict[str, str], admin: bool, differs: list[str], unknown: list[str]) -> None:
    caps = (1 << 21 | KILL_AND_BIND,) * 5 if admin else MINE.capabilities
    findings = found(process(task(spaces={**OWN, "network": live})), confined(capabilities=caps), descent=descent)
    assert (facts(findings), [one.fact for one in findings.unknown]) == (differs, unknown)


def test_limits_of_processes() -> None:
    mine = confined(limits=(("RLIMIT_NOFILE", 100, 200),), oom=10)
    for live, oom, differs in (((100, 200), 10, []), ((50, 60), 500, []), ((100, 201), 10, ["rlimit"]), ((100, 200), 9, ["oom-score"])):
        one = process(limits={"RLIMIT_NOFILE": live}, oom=oom)
        assert facts(found(one, mine)) == differs
        assert facts(found(one, replace(mine, may_raise=True))) == []


def test_cgroups() -> None:
    for path, differs in (("/x", []), ("/x/inner", []), ("/", ["cgroup"]), ("/xy", ["cgroup"]), ("/y", ["cgroup"])):
        assert facts(found(process(task(cgroups={"unified": path})))) == differs
        assert facts(found(process(task(), task(tid=8, cgroups={"unified": path})))) == differs


@pytest.mark.parametrize(("mode", "device", "given_", "differs"), [
    (stat.S_IFDIR, (0, 0), True, True),  # through a directory everything is within reach, whoever gave it
    (stat.S_IFREG, (0, 0), False, True),
    (stat.S_IFREG, (0, 0), True, False),
    (stat.S_IFCHR, (1, 3), False, False),
    (stat.S_IFCHR, (136, 4), False, False),
    (stat.S_IFCHR, (1, 1), False, True),
    (stat.S_IFBLK, (8, 0), False, True),
    (stat.S_IFIFO, (0, 0), False, False),
])
def test_open_files(mode: int, device: tuple[int, int], given_: bool, differs: bool) -> None:
    leading = files(leading=[Leading(9, "/somewhere", mode, device, (30, 40))])
    for tasks in ((task(files=leading),), (task(files=files()), task(tid=8, files=leading))):
        findings = found(process(*tasks), beside=around(given=frozenset({(30, 40)} if given_ else ())))
        assert [(one.fact, one.tid) for one in findings.differences] == ([("descriptor", tasks[-1].tid)] if differs else [])
        assert facts(found(process(*tasks), beside=around(mounts=False))) == []


def test_root_directory_and_program() -> None:
    outside = task(files=files(cwd="/host", cwd_outside=True, root="/host", root_outside=True))
    assert facts(found(process(outside, exe="/host/sh", exe_outside=True))) == ["program", "root", "working-directory"]


SANE = st.builds(
    process, st.builds(
        task, label=st.sampled_from(["web", "web//hat", "rt//&web"]), seccomp=st.sampled_from([0, 2]), filters=st.integers(0, 3),
        capabilities=st.tuples(*[st.sampled_from([0, 1 << 5, 1 << 10, KILL_AND_BIND])] * 3, st.just(0), st.just(0)), groups=st.just(frozenset()),
    ), oom=st.integers(0, 1000),
)


@given(SANE)
def test_what_is_narrower_is_never_a_difference(one: Process) -> None:
    assert facts(found(one)) == []


# ── lineage ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def kin(pid: int, ppid: int, session: int, start: int = 50) -> lineage.Kin:
    return lineage.Kin(pid, ppid, session, start)


EXECS = [(20, 30), (25, 60)]


@pytest.mark.parametrize(("one", "more", "own_pids", "origins"), [
    (kin(10, 1, 10, 0), [], True, (0,)),  # the first process
    (kin(11, 10, 10), [], True, (0,)),  # its child
    (kin(20, 1, 20, 30), [], True, (1,)),  # an exec
    (kin(20, 1, 20, 31), [], True, (0,)),  # another process that has the number of one
    (kin(21, 20, 20), [kin(20, 1, 20, 30)], True, (1,)),  # its child
    (kin(22, 21, 22), [kin(21, 20, 20), kin(20, 1, 20, 30)], True, (1,)),  # a daemon of its child, as long as that lives
    (kin(21, 10, 20), [], True, (1,)),  # an orphan of it, by the session
    (kin(21, 10, 21), [], True, (0, 1)),  # a daemon that it may have left, but not the second exec, which is younger
    (kin(21, 10, 21, 99), [], True, (0, 1, 2)),
    (kin(21, 10, 10), [], True, (0,)),  # the first one's session: nobody joins that
    (kin(21, 1, 77), [], True, (0,)),  # its parent is outside: it came in from there
    (kin(21, 1, 77), [], False, (0, 1)),  # without a PID namespace orphans go to somebody outside
    (kin(21, 22, 77), [kin(22, 21, 77)], True, (0,)),  # a circle is not followed for ever
])
def test_origins(one: lineage.Kin, more: list[lineage.Kin], own_pids: bool, origins: tuple[int, ...]) -> None:
    everyone = [one, *more] if one.pid == 10 else [one, *more, kin(10, 1, 10, 0)]
    assert lineage.origins(everyone, 10, EXECS, own_pids)[one.pid] == origins


# ── limits and devices ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("file", "asked", "live", "differs"), [
    ("memory.max", "1048576", "1048576\n", False), ("memory.max", "1048576", "max\n", True), ("memory.max", "1048576", "4096\n", False),
    ("memory.max", "1000000", "999424\n", False), ("memory.limit_in_bytes", "-1", "9223372036854771712\n", False),
    ("memory.limit_in_bytes", "1048576", "9223372036854771712\n", True), ("memory.memsw.limit_in_bytes", "1000001", "1003520\n", False),
    ("pids.max", "5", "5\n", False), ("pids.max", "5", "6\n", True), ("pids.max", "max", "max\n", False), ("pids.max", "max", "6\n", False),
    ("cpu.max", "50000 100000", "50000 100000\n", False), ("cpu.max", "50000 100000", "max 100000\n", True), ("cpu.max", "50000 100000", "25000 50000\n", False),
    ("cpu.max", "50000 100000", "60000 100000\n", True), ("cpu.cfs_period_us", "100000", "50000\n", True), ("cpu.cfs_period_us", "50000", "100000\n", False),
    ("cpuset.cpus", "0-2,7", "0,1,2,7\n", False), ("cpuset.cpus", "0-2", "0\n", False), ("cpuset.cpus", "0", "0-1\n", True), ("cpuset.cpus", "0", "\n", True),
    ("cpu.shares", "1", "2\n", False), ("cpu.shares", "512", "1024\n", True), ("cpu.idle", "1", "0\n", True), ("memory.swappiness", "10", "5\n", True),
    ("memory.oom_control", "1", "oom_kill_disable 1\nunder_oom 0\n", False), ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\n", True),
    ("io.max", "8:0 rbps=100", "8:0 rbps=100 wbps=max riops=max wiops=max\n", False), ("io.max", "8:0 rbps=100", "8:0 rbps=200 wbps=max\n", True),
    ("io.max", "8:0 rbps=100", "8:16 rbps=100\n", True), ("io.max", "8:0 rbps=max", "\n", False),
    ("blkio.throttle.read_bps_device", "8:0 100", "8:0 100\n", False), ("blkio.throttle.read_bps_device", "8:0 100", "8:0 101\n", True),
    ("blkio.throttle.read_bps_device", "8:0 100", "\n", True), ("io.weight", "default 200", "default 200\n8:0 100\n", False),
    ("cpuset.cpus.partition", "root", "member\n", True),
])
def test_limits(file: str, asked: str, live: str, differs: bool) -> None:
    findings = Findings()
    limits.compare(Write("x", file, asked, "limit"), live, findings)
    assert ([one.fact for one in findings.differences], findings.unknown) == (["limit"] if differs else [], [])


NUMBER = st.none() | st.integers(0, 4)
RULES = st.lists(
    st.builds(Rule, st.booleans(), st.sampled_from("abc"), NUMBER, NUMBER, st.sampled_from(["r", "w", "m", "rw", "rwm"])), max_size=6,
).map(lambda rules: (*rules, *DEFAULTS))
PROBES = [(kind, major, minor) for kind in "bc" for major in (0, 1, 4, 8) for minor in (0, 3, 9)]


@given(RULES)
def test_a_filter_run_here_decides_as_its_rules(rules: tuple[Rule, ...]) -> None:
    code = devicefilter.program(rules)
    allows = devices.programs([code] if code else [])
    for device in PROBES:
        for letter in "rwm":
            assert allows(*device, letter) == devices.decided(rules, *device, letter), (device, letter)
    findings = Findings()
    devices.compare(rules, allows, False, findings)
    assert (findings.differences, findings.unknown) == ([], [])


@given(RULES, RULES)
def test_a_filter_that_allows_more_is_found(asked: tuple[Rule, ...], live: tuple[Rule, ...]) -> None:
    code = devicefilter.program(live)
    findings = Findings()
    devices.compare(asked, devices.programs([code] if code else []), False, findings)
    named = {(rule.kind, rule.major, rule.minor) for rule in asked if rule.kind != "a" and rule.major is not None and rule.minor is not None}
    more = any(
        devices.decided(live, kind, major, minor, letter) and not devices.decided(asked, kind, major, minor, letter)
        for kind, major, minor in [*devices.OF_HOSTS, *named] for letter in "rwm"
    )
    assert bool(findings.differences) >= (more and not devicefilter.allows_all(asked))


def test_an_instruction_that_is_not_known_decides_nothing() -> None:
    call = bytes([0x85, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])
    assert devices.run(call, bytes(12)) is None
    findings = Findings()
    devices.compare(devicefilter.rules([]), devices.programs([call]), False, findings)
    assert ([one.fact for one in findings.unknown], findings.differences) == (["devices"], [])


def test_the_list_of_cgroup_v1() -> None:
    rules = devicefilter.rules([])
    text = "".join(f"{line}\n" for _, line in devicefilter.lines(rules)[1:])
    findings = Findings()
    devices.compare(rules, devices.listed(text), False, findings)
    assert findings.differences == []
    for more, words in (("b 8:0 r", "b 8:0 r"), ("a *:* rwm", "b 8:0 rw"), ("c *:* w", "c 1:1 w")):
        findings = Findings()
        devices.compare(rules, devices.listed(text + more + "\n"), False, findings)
        assert words in findings.differences[0].holds
    findings = Findings()
    devices.compare(rules, devices.listed(text + "c 10:200 rwm\n"), True, findings)  # another runtime's own default
    assert findings.differences == []


# ── mounts ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_line_of_mountinfo() -> None:
    words = r"36 35 98:0 /mnt1 /a\040b rw,noatime shared:7 master:1 unbindable - ext3 /dev/root rw,errors=continue".split(" ")
    mount = inside.parse(words)
    assert (mount.id, mount.point, mount.root, mount.shared, mount.master, mount.unbindable, mount.type) == (36, "/a b", "/mnt1", 7, 1, True, "ext3")
    assert "noatime" in mount.options
    assert "errors=continue" in mount.super_options


def place(**changes: Any) -> inside.Place:
    return inside.Place(**{"path": "/p", "mount": 1, "flags": 1, "mode": stat.S_IFDIR, "device": (0, 0), "begins": True, "empty": True, **changes})


@pytest.mark.parametrize(("at", "masked"), [
    (place(), True), (place(empty=False), False), (place(empty=None), None), (place(flags=0), False), (place(begins=False), False),
    (place(mode=stat.S_IFCHR, device=(1, 3)), True), (place(mode=stat.S_IFCHR, device=(1, 5)), False), (place(mode=stat.S_IFREG), False), (None, True),
])
def test_masks(at: inside.Place | None, masked: bool | None) -> None:
    config = configuration()
    config["linux"]["maskedPaths"] = ["/p"]
    findings = Findings()
    whole.masked(config, inside.View(places={"/p": at}), findings)
    assert [one.fact for one in findings.differences] == (["masked-path"] if masked is False else [])
    assert [one.fact for one in findings.unknown] == (["masked-path"] if masked is None else [])


def test_a_path_that_could_not_be_looked_at() -> None:
    config = configuration()
    config["linux"]["maskedPaths"] = config["linux"]["readonlyPaths"] = ["/p"]
    findings = Findings()
    view = inside.View(unread={"/p": "why"})
    whole.masked(config, view, findings)
    whole.read_only(config, view, findings)
    assert [one.fact for one in findings.unknown] == ["masked-path", "read-only-path"]


def test_a_peer_of_the_host() -> None:
    config = configuration()
    config["mounts"] = []
    words = "36 35 98:0 / /data rw shared:7 - ext3 /dev/root rw".split(" ")
    view = inside.View({36: inside.parse(words)})
    for peers, shared, differs in (({7}, None, True), ({8}, None, False), ({7}, "shared", False), ({7}, "slave", True)):
        config["linux"]["rootfsPropagation"] = shared
        findings = Findings()
        whole.mounts(config, view, peers, findings)
        assert bool(findings.differences) is differs


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

WORDS = st.text(st.characters() | st.sampled_from("\udc80\udcff"), max_size=20)  # and bytes that are no text, as names may hold
REPORTS = st.lists(st.builds(
    Report, WORDS, st.integers(0, 9), st.sampled_from(["running", "paused", "created", "stopped"]),
    st.lists(st.builds(Difference, st.sampled_from(sorted(FACTS)), WORDS, WORDS, WORDS, WORDS, st.none() | st.integers(1, 9)), max_size=3).map(tuple),
    st.lists(st.builds(Unknown, st.sampled_from(sorted(FACTS)), WORDS, WORDS), max_size=3).map(tuple), st.lists(WORDS, max_size=3).map(tuple),
    st.sets(st.sampled_from(sorted(FACTS))).map(tuple), st.integers(0, 9), st.integers(0, 9),
    config=st.just("") | WORDS.map(lambda text: f"/{text}/config.json"),
), max_size=3)


def text(reports: list[Report], form: str) -> str:
    return command.text(reports, reports, command.overall(reports), form)


@given(REPORTS)
def test_status(reports: list[Report]) -> None:
    for report in reports:
        assert report.status == ("differs" if report.differences else "unknown" if report.unknown else "holds")
    words = {report.status for report in reports}
    assert command.overall(reports) == ("differs" if "differs" in words else "unknown" if "unknown" in words else "holds")
    document = json.loads(text(reports, "json").encode())
    assert (document["schema"], document["status"]) == ("rundlet.verify/1", command.overall(reports))
    assert [one["status"] for one in document["containers"]] == [report.status for report in reports]


@given(REPORTS)
def test_sarif(reports: list[Report]) -> None:
    """By the standard's schema, as a package has it, and what the schema does not say: OASIS, 2020, 3.27."""
    document = json.loads(text(reports, "sarif").encode())
    StaticAnalysisResultsFormatSarifVersion210JsonSchema.model_validate(document)
    assert document["version"] == "2.1.0"
    assert document["$schema"] == sarif.SCHEMA
    [run] = document["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "rundlet"
    rules = [rule["id"] for rule in driver["rules"]]
    assert rules == list(FACTS)
    assert all(rule["shortDescription"]["text"] and rule["fullDescription"]["text"] for rule in driver["rules"])
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["message"]["text"]
        assert result["kind"] in ("pass", "open", "fail")
        # 3.27.10: where kind is not "fail", level must be "none"
        assert result["level"] == ("error" if result["kind"] == "fail" else "none")
        [location] = result["locations"]
        assert location["logicalLocations"]
        if "physicalLocation" in location:  # which GitHub wants
            uri = urlsplit(location["physicalLocation"]["artifactLocation"]["uri"])
            assert uri.scheme == "file"
            assert unquote(uri.path, errors="replace") in [unquote(quote(report.config, errors="replace"), errors="replace") for report in reports]
            assert location["physicalLocation"]["region"] == {"startLine": 1}
    assert sum(result["kind"] == "fail" for result in run["results"]) == sum(len(report.differences) for report in reports)


# Jenkins' junit-10.xsd: element → the attributes it must have, those it may have, and the elements in it
JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests"}, {"failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id", "package"},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name", "classname"}, {"assertions", "time", "status"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
}


@given(REPORTS)
def test_junit(reports: list[Report]) -> None:
    root = ElementTree.fromstring(text(reports, "junit").encode())
    for one in root.iter():
        must, may, inner = JUNIT[one.tag]
        assert must <= set(one.attrib) <= must | may
        assert {child.tag for child in one} <= inner
    assert root.tag == "testsuites"
    assert len(root) == len(reports)
    for suite, report in zip(root, reports, strict=True):
        assert int(suite.get("tests") or -1) == len(suite)
        assert int(suite.get("failures") or 0) == len(suite.findall("testcase/failure")) == len({one.fact for one in report.differences})
        assert int(suite.get("errors") or 0) == len(suite.findall("testcase/error"))
        assert all(case.get("name") and case.get("classname") is not None for case in suite)


@given(REPORTS)
def test_the_table_moves_no_cursor(reports: list[Report]) -> None:
    shown = table.shown(reports)
    assert all(line.isprintable() for line in shown.split("\n"))
    for report in reports:
        for one in report.differences:
            assert one.fact in shown


class Terminal(io.StringIO):
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_and_never_the_only_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [
        Report("web", 7, "running", (Difference("limit", "pids.max", "64", "max", "why"),), (Unknown("seccomp", "process 7 (sh)", "denied"),)),
        Report("db", 8, "running"),
    ]
    plain = text(reports, "table")
    assert plain.isascii()
    assert "\x1b" not in plain
    for words in ("web (running, pid 7): differs;", "unknown seccomp, process 7 (sh): denied", "db (running, pid 8): holds;"):
        assert words in plain
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(table.WIDTH))
    monkeypatch.setattr(sys, "stdout", Terminal())
    coloured = text(reports, "table")
    assert "\x1b[1;31mdiffers" in coloured
    assert [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines()] == plain.splitlines()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in text(reports, "table")


def test_every_fact_has_a_reason() -> None:
    assert all(what and why for what, why in FACTS.values())


def test_the_hosts_user_namespace_is_no_excuse_for_capabilities() -> None:
    mapped = {**OWN, "user": "user:[5]"}
    beside = around(container=mapped, asked={**ASKED, "user": None})
    one = process(task(capabilities=((1 << 41) - 1,) * 5, spaces={**mapped, "user": HOST["user"]}))
    assert {"capabilities", "namespace"} <= set(facts(found(one, beside=beside)))


def test_of_the_hierarchies_of_cgroup_v1_each_is_looked_at() -> None:
    config = configuration()
    config["mounts"] = [{**config["mounts"][0], "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}]
    for flags, differs in (("ro,nosuid", []), ("rw,nosuid", ["/sys/fs/cgroup/pids"]), ("ro", ["/sys/fs/cgroup/pids"])):
        seen = view(
            "31 30 98:0 / /sys rw - sysfs sysfs rw", "32 31 98:0 / /sys/fs/cgroup rw - tmpfs cgroup rw",
            "33 32 98:0 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",  # of the host, below what was mounted over it
            "36 32 98:0 / /sys/fs/cgroup rw,nosuid - tmpfs cgroup rw", f"37 36 98:0 / /sys/fs/cgroup/pids {flags} - cgroup cgroup rw,pids",
        )
        seen.places["/sys/fs/cgroup"] = place(path="/sys/fs/cgroup", mount=36, flags=2)
        findings = Findings()
        whole.mounts(config, seen, set(), findings)
        assert [one.subject for one in findings.differences] == differs


def view(*lines: str) -> inside.View:
    """A root on mount 30, and these lines of mountinfo."""
    return inside.View({mount.id: mount for mount in (inside.parse(line.split(" ")) for line in lines)}, base=30)


def test_what_covers_what() -> None:
    seen = view(
        "30 29 98:0 / / rw - ext4 /dev/a rw", "39 30 98:0 / / rw - tmpfs over-the-root rw",  # no path leads over the root but /..
        "32 30 98:0 / /a/b rw - tmpfs deep rw", "33 32 98:0 / /a/b/c rw - tmpfs deeper rw", "34 30 98:0 / /a rw - tmpfs around rw",
        "35 34 98:0 / /a/b rw - tmpfs new rw", "36 35 98:0 / /a/b rw - tmpfs newer rw", "37 30 98:0 / /ab rw - tmpfs beside rw",
    )
    assert [mount.id for mount in seen.below("/")] == [34, 36, 37]
    assert [mount.id for mount in seen.below("/a")] == [36]
    for path, mount in (("/", 30), ("/a", 34), ("/a/x", 34), ("/a/b", 36), ("/a/b/c", 36), ("/ab/c", 37), ("/x", 30)):
        assert (there := seen.at(path)), path
        assert there.id == mount
    assert inside.View(base=30).at("/x") is None  # of a root that is a folder of a mount, the mount is not listed
