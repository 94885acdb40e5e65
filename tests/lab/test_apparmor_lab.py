"""Every row of the AppArmor table by every verb on real kernels, 6.1 and 6.12, libapparmor asked the same, and what no row shows.

Each kernel is booted once. The rows are those of tests/rulebook.py, the traps' outcomes are in expected.py; what the lab saw is one
line for each attempt, judged here, so that a failure shows it.
"""

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from rundlet.kernel import ERRNO
from rundlet.plan.label import components, parse
from tests.lab import boot, expected
from tests.lab.boot import KERNELS, Results
from tests.lab.cases import HOMES, OFF, REAL, TABLE, TRAPS, VERBS, Attempt, of_case, own
from tests.rulebook import LOADED, NAMESPACE, Case

if os.environ.get("RUNDLET_LAB") == "1":
    pytest.skip("a lab in the lab would be a hundred times slower", allow_module_level=True)
pytestmark = pytest.mark.skipif(bool(boot.lacking()), reason=boot.lacking())

ENDED = 7  # how the probe in the container ends
MODES = {"rt-learns": "complain", "rt-free": "unconfined", "learns-too": "complain", "kills": "kill"}


@pytest.fixture(autouse=True)
def patience() -> None:
    """The first test waits for a lab of minutes, which has a limit of its own."""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Results]]:
    """What a lab has seen, by the lab's name: bookworm, backports, off (apparmor=0). Two of them run at the same time."""
    code = boot.snapshot(tmp_path_factory.mktemp("code"))
    seen = tmp_path_factory.mktemp("seen")
    guests = {suite: boot.Guest(code, seen / suite, suite) for suite in KERNELS}
    guests["off"] = boot.Guest(code, seen / "off", "backports", "--append", "apparmor=0")
    yield cache(lambda name: guests[name].results())
    for guest in guests.values():
        guest.end()


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    """The name of a lab where AppArmor is on."""
    return str(request.param)


@pytest.fixture
def seen(labs: Callable[[str], Results], kernel: str) -> Results:
    """What was seen there."""
    return labs(kernel)


def name(case: Case) -> str:
    """Of a test."""
    return f"{case.row} {case.name}"


def refused(case: Case) -> bool:
    """Whether there is no container in the end."""
    return case.action == "refuse" or bool(case.errno) or case.hidden


def text(found: dict[str, Any]) -> str:
    """The one line with which the command failed; what the kernel denied meanwhile may be told in two more."""
    error = boot.besides(found["err"])
    assert error.startswith("rundlet: ") and error.endswith("\n") and error.count("\n") == 1, found
    return error


def mode(profiles: set[str]) -> str | None:
    """The kernel's one word for a label: aa_label_snxprint(). Plain unconfined has none and does not count among others."""
    modes = {MODES.get(profile, "enforce") for profile in profiles if profile != "unconfined"}
    return None if not modes else modes.pop() if len(modes) == 1 else "mixed"


def inside(profiles: set[str]) -> set[str]:
    """The label as the container itself reads it: below a policy namespace that is all there is."""
    ours = {profile.removeprefix(f":{NAMESPACE}:") for profile in profiles if profile.startswith(f":{NAMESPACE}:")}
    return ours or profiles


def has_label(found: dict[str, Any], profiles: set[str]) -> None:
    """The container's label, from outside by both files and from inside; the mode too."""
    label, word = parse(found["attr/apparmor/current"])
    assert (set(components(label)), word) == (profiles, mode(profiles)), found
    assert found["attr/current"] == found["attr/apparmor/current"], found
    label, word = parse(said(found, "label"))
    assert (set(components(label)), word) == (inside(profiles), mode(inside(profiles))), found


def said(found: dict[str, Any], key: str) -> str:
    """What the probe said of something."""
    return next(line for line in found["said"] if line.startswith(key + " ")).partition(" ")[2]  # type: ignore[no-any-return]


def is_refused(found: dict[str, Any], verb: str) -> None:
    """Nothing ran, and nothing is left but a created container whose start was refused: that is deleted, as an engine does."""
    assert found["status"] == (255 if verb.startswith("exec") else 1), found
    assert (found["said"], found["runs on"], found["left"]) == ([], False, found.get("at") == "start"), found


def runs(found: dict[str, Any], verb: str) -> None:
    """It ran, without a word from the command, and its status is the command's. It is not 0, so what was denied to it may be told."""
    waited = verb.startswith(("run", "exec"))
    assert (boot.besides(found["err"]) if waited else found["err"]) == "", found
    assert found["status"] == (ENDED if waited else 0), found
    assert found["said"][-1] == "ready", found


def test_every_row_is_tried_by_every_verb() -> None:
    rows = {case.row for case in REAL}
    assert rows == {1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15}  # 2 and 3 are without AppArmor, 13 is among the traps
    assert {(case.row, verb) for case, verb in TABLE} == {(row, verb) for row in rows for verb in VERBS}
    assert {case.name for case, _ in TABLE} == {case.name for case in REAL}


def test_the_machine(seen: Results, kernel: str) -> None:
    machine = seen["machine"]
    assert machine["kernel"].startswith(KERNELS[kernel])
    assert machine["on"] is machine["enabled"] is True
    facts = machine["facts"]
    assert (facts["state"], facts["label"], facts["mode"], facts["namespace"]) == ("on", "unconfined", None, "root")
    assert facts["interface"] == ("lsm" if kernel == "backports" else "scoped")
    assert facts["stack"] is True
    # the first is Linux 6.7's, the second Ubuntu's alone
    assert facts["restrict_unconfined"] == (False if kernel == "backports" else None)
    assert facts["restrict_userns"] is None
    loaded = {parse(line)[0] for line in seen["policy"]["profiles"]}
    assert {profile.replace(":box:", ":box://") for profile in LOADED} <= loaded | {":box://web"}


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.name)
def test_run_in_the_background(seen: Results, home: Attempt) -> None:
    found = seen[home.name]
    runs(found, home.verb)
    has_label(found, {home.profile or "unconfined"} | ({home.own.label} - {"unconfined"}))


@pytest.mark.parametrize(("case", "verb"), TABLE, ids=lambda value: value if isinstance(value, str) else name(value))
def test_row(seen: Results, case: Case, verb: str) -> None:
    found = seen[of_case(case, verb).name]
    if refused(case):
        is_refused(found, verb)
        # a name that the kernel would take for another is found by the validation, which has words of its own
        for words in case.says if case.row != 12 else ("apparmor",):
            assert words in text(found).replace("apparmorProfile", "apparmor"), found
        return
    runs(found, verb)
    has_label(found, set(case.label))
    assert said(found, "nnp") == str(int(case.config or case.inherited)), found
    # web takes signals from anyone, but sends them to web alone, which a process under a stack is not
    assert ("signals itself" in found["said"]) == (set(case.label) == {"web"} or "web" not in case.label), found


@pytest.mark.parametrize("case", REAL, ids=name)
def test_libapparmor_agrees(seen: Results, case: Case) -> None:
    found = seen[f"{name(case)}: oracle"]
    assert "failed" not in found, found
    facts = found["apparmor"]
    assert facts["state"] == "on"
    assert found["enabled"] is case.known  # libapparmor takes AppArmor without securityfs for none
    assert found["parsed"] == found["split"] == found["own"] == [facts["label"], facts["mode"]], found
    assert {part["name"]: part["mode"] for part in facts["components"]} == (
        case.own if case.known or len(case.own) == 1 else dict.fromkeys(case.own, "unknown")
    )
    assert found["nnp"] == case.inherited
    assert facts["stack"] == case.stack
    assert (facts["loaded"] is not None) == (case.known and bool(case.profile))
    if case.action == "refuse":
        assert found["refused"]
        return
    assert found["action"] == case.action
    if case.errno:
        assert found["errno"] == ERRNO[case.errno]
    elif case.hidden:
        # what would become of a container if nobody looked
        assert f"//null-{case.profile}" in found["after"], found
    else:
        assert set(found["expected"]) == set(case.label)
        verbs = [verb for other, verb in TABLE if other is case]
        assert verbs
        for verb in verbs:
            there = seen[of_case(case, verb).name]
            assert found["after"] == said(there, "label"), verb
            assert found["shown"] == parse(there["attr/apparmor/current"])[0], verb


@pytest.mark.parametrize("case", REAL, ids=name)
def test_what_is_refused_is_foreseen(seen: Results, case: Case) -> None:
    """By who asks for every fact, as explain does: a rule that is missing too, where the kernel can be asked for it."""
    found = seen[f"{name(case)}: oracle"]
    assert ("foreseen" in found) == (case.action == "refuse" or case.errno == "EACCES"), found
    if case.errno == "EACCES":
        assert all(words in found["foreseen"] for words in case.says), found


@pytest.mark.parametrize("attempt", OFF, ids=lambda attempt: attempt.name)
def test_apparmor_off(labs: Callable[[str], Results], attempt: Attempt) -> None:
    seen = labs("off")
    machine, found = seen["machine"], seen[attempt.name]
    assert machine["on"] is machine["enabled"] is False
    assert (machine["facts"]["state"], machine["facts"]["label"], machine["facts"]["loaded"]) == ("off", None, None)
    assert own(REAL[0]) == attempt.own
    if attempt.profile == "unconfined":
        runs(found, attempt.verb)
        assert found["attr/apparmor/current"] is None
    else:
        is_refused(found, attempt.verb)
        for words in ("AppArmor is off", "apparmor=0", '"web"', "process.apparmorProfile"):
            assert words in text(found)


def test_every_trap_has_its_line() -> None:
    assert expected.TRAPS.keys() == {trap.name for trap in TRAPS}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.name)
def test_trap(seen: Results, kernel: str, trap: Attempt) -> None:
    found, due = seen[trap.name], expected.TRAPS[trap.name]
    if trap.sysctl in expected.LACKING[kernel]:
        assert found["lacking"] == trap.sysctl
        return
    if isinstance(due, expected.Not):
        line = text(found)
        for words in due.says:
            assert words in line, found
        if due.status == 1:
            is_refused(found, trap.verb)
        else:
            status = 255 if trap.verb == "exec" else due.status  # whatever keeps an exec from running: as with the peers
            assert (found["status"], found["said"], found["runs on"]) == (status, [], False), found
        return
    if isinstance(due, expected.Killed):
        assert found["status"] == (255 if trap.verb == "exec" else 1), found
        line = text(found)
        assert f'is killed: the process runs under the apparmor label "{due.label}"' in line, found
        assert due.says in line, found
        assert not found["runs on"], found  # what it said, it said before it was killed
        return
    runs(found, trap.verb)
    has_label(found, set(due.label.split("//&")))
    assert {line.partition(" ")[2] for line in found["said"] if line.startswith("reads ")} == due.reads, found
    assert ("signals itself" in found["said"]) == due.signals, found
    assert said(found, "nnp") == expected.INHERITED.get(trap.name, str(int(trap.nnp or trap.own.nnp))), found


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("changes to another", "elsewhere"),
        ("stacks another on itself", "elsewhere//&roams"),
        ("goes into a hat", "roams//hat"),
        ("leaves confinement as it may", "unconfined"),
        ("of a stack, stacks another", "elsewhere//&roams//&rt-learns"),
        ("learns", "learns-too//null-nope"),
    ],
)
def test_a_process_that_changes_its_label_at_once_may_do_so(seen: Results, name: str, label: str) -> None:
    assert seen[f"moved: {name}"]["seen"] == label


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("returns to the runtime's label", '"unconfined"'),
        ("changes to another while policy is loaded", '"elsewhere" (enforce)'),
        ("its profile is removed", '"unconfined"'),
        ("never came to it, for the runtime complains", '"rt-learns" (complain)'),
    ],
)
def test_a_label_that_may_be_the_kernels_doing_is_none_of_the_process(seen: Results, name: str, label: str) -> None:
    assert f"is killed: the process runs under the apparmor label {label}, not under" in seen[f"moved: {name}"]["fault"]


def test_a_process_that_may_not_be_looked_at_is_not_let_go_on(seen: Results) -> None:
    fault = seen["moved: cannot be looked at"]["fault"]
    assert "the process is killed, for it cannot be seen how it runs" in fault
    assert "EACCES; a profile of the runtime needs the rules: @{PROC}/@{pid}/attr/{,apparmor/}current r," in fault


NEEDS = 'the runtime\'s profile "mute" needs the rule: {0}peer=shut, and the container\'s profile "shut" needs the rule: {1}peer=mute,'


@pytest.mark.parametrize(
    ("deed", "rules"),
    [
        ("signal", ("signal (send) set=(term) ", "signal (receive) set=(term) ")),
        ("signal all", ("signal (send) set=(usr1) ", "signal (receive) set=(usr1) ")),
        ("exec", ("ptrace (read) ", "ptrace (readby) ")),
    ],
)
def test_what_a_confined_runtime_may_not_do_names_both_rules(seen: Results, deed: str, rules: tuple[str, str]) -> None:
    found = seen[f"deed: {deed}"]
    assert NEEDS.format(*rules) in text(found)
    assert (found["status"], found["runs on"], found["left"]) == (255 if deed == "exec" else 1, True, True), found


@pytest.mark.parametrize("deed", ["kill", "delete"])
def test_a_container_that_may_not_be_signalled_can_be_killed_by_its_cgroup(seen: Results, deed: str) -> None:
    found = seen[f"deed: {deed}"]
    assert (found["err"], found["status"], found["runs on"], found["left"]) == ("", 0, False, deed == "kill"), found


def test_a_program_that_is_confined_itself(seen: Results) -> None:
    """The library: the executor is started by the program, and used by a command; both have the program's label."""
    found = seen["in a program"]
    assert (found["status"], found["err"]) == (0, ""), found
    saw = found["saw"]
    assert saw["own"] == "guarded (enforce)"
    assert set(saw["due"].split("//&")) == {"guarded", "sealed"}
    for label in (saw["first"], saw["second"]):
        assert (set(label.removesuffix(" (enforce)").split("//&")), label[-10:]) == ({"guarded", "sealed"}, " (enforce)")
    status, denials = saw["denied"]
    assert status == 1
    assert [(operation, "guarded//&sealed" in what) for operation, what, _ in denials] == [("signal", True)]
    assert (saw["status"], saw["cancelled"], saw["children"], saw["left"]) == ("holds", [True, True], True, [])


def test_a_profile_that_does_not_let_the_executor_be_executed(seen: Results) -> None:
    found = seen["not attached"]
    is_refused(found, "run")
    assert "flags=(attach_disconnected)" in text(found)
