"""What the kernel denies to real containers on 6.1 and 6.12: found in every log, told of the right one, explained, and permitted by the rule.

Each kernel is booted once, and once more with audit=0; denial_kinds.py says what is tried and what is to come of it, and what the lab saw is
judged here.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pyseccomp
import pytest

from rundlet.confine.denials import decode
from tests.lab import boot
from tests.lab.boot import KERNELS, Results
from tests.lab.denial_kinds import BOX, KINDS, PEER, RUNTIME, Kind

if os.environ.get("RUNDLET_LAB") == "1":
    pytest.skip("a lab in the lab would be a hundred times slower", allow_module_level=True)


def lacking() -> str:
    """What this machine lacks for it; "" where nothing is."""
    programs = ("gcc", "auditd", "journalctl", "crun", "runc")
    return boot.lacking() or "; ".join(f"{name} is missing" for name in programs if not shutil.which(name))


pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())
DENIED = ("EACCES", "EPERM", "ENOENT")
AUDIT_LOG = "/var/log/audit/elsewhere.log"  # as auditd.conf in the lab has it


@pytest.fixture(autouse=True)
def patience() -> None:
    """The first test waits for a lab of minutes, which has a limit of its own."""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Results]]:
    """What a lab has seen, by its name."""
    code = boot.snapshot(tmp_path_factory.mktemp("code"))
    helper = code / "trial"
    subprocess.run(["gcc", "-O1", "-static", "-Wall", "-Werror", "-o", helper, code / "tests/lab/trial.c"], check=True)
    site = os.path.dirname(pyseccomp.__file__)
    words = [str(helper), site, *boot.rundlet_words(code, site)]
    seen = tmp_path_factory.mktemp("seen")
    guests = {suite: boot.Guest(code, seen / suite, suite, module="denials", words=words) for suite in KERNELS}
    guests["mute"] = boot.Guest(code, seen / "mute", "backports", "--append", "audit=0", module="denials", words=words)
    guests["order"] = boot.Guest(code, seen / "order", "bookworm", "--append", "lsm=landlock,yama,bpf,apparmor", module="denials", words=words)
    yield cache(lambda name: guests[name].results())
    for guest in guests.values():
        guest.end()


@pytest.fixture(params=KERNELS)
def seen(request: pytest.FixtureRequest, labs: Callable[[str], Results]) -> Results:
    """What was seen on a kernel."""
    return labs(str(request.param))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_denied_is_permitted_by_the_rules_proposed(seen: Results, kind: Kind) -> None:
    found = seen[kind.name]
    first, last = found["tried"][0], found["tried"][-1]
    assert first["status"] == 1 and first["out"].split()[-1] in DENIED, found
    assert (found["rules"], found["peers"]) == (list(kind.rules), list(kind.peers)), found
    if kind.fails:
        assert any(kind.fails in denial["meaning"] and denial["rule"] is None for denial in first["denials"]), found
    else:
        assert last["status"] == 0 and last["out"].endswith("ok\n" if last["out"] else ""), found
    if kind.still:
        assert found["still"].split()[-1] in DENIED, found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_denied_is_told(seen: Results, kind: Kind) -> None:
    denials = [denial for tried in seen[kind.name]["tried"] for denial in tried["denials"]]
    assert denials
    for denial in denials:
        assert (denial["layer"], denial["verdict"]) == ("apparmor", "denied"), denial
        assert denial["label"] in (BOX, PEER) and denial["meaning"] and denial["pid"] > 0, denial
        assert denial["container"] == ("kinds" if denial["label"] == BOX else None), denial
        again = decode(denial["raw"])  # nothing but the record is needed, wherever it is read
        assert again and (again.rule, list(again.widens), again.what) == (denial["rule"], denial["widens"], denial["what"])
    assert any(denial["widens"] for denial in denials) == kind.wider, denials


def test_the_cgroup_tells_containers_under_one_profile_apart(seen: Results) -> None:
    found = seen["by_cgroup"]
    assert {denial["what"]: denial["container"] for denial in found["alive"]} == {"read /srv/f": "one", "read /srv/g": "two"}
    assert [(denial["container"], sorted(denial["maybe"])) for denial in found["dead"]] == [(None, ["kinds", "one", "two"])]


@pytest.mark.parametrize(("name", "what"), [("crun", "read /srv/f"), ("runc", "read /srv/g")])
def test_containers_of_other_runtimes_are_told_apart(seen: Results, name: str, what: str) -> None:
    found = seen["others"][name]
    assert (found["status"], found["err"]) == (1, ""), found
    assert [(denial["what"], denial["container"], denial["rule"]) for denial in found["denials"]] == [
        (what, f"pid {found['pid']}", f"owner {what.removeprefix('read ')} r,"),
    ], found


def test_a_stack_cannot_signal_itself_until_its_rules_name_the_stack(seen: Results) -> None:
    found = seen["stacked"]
    assert [tried["status"] for tried in found["tried"]] == [1, 0], found
    stack = f"{BOX}//&{RUNTIME}"
    assert {f'signal ({way}) set=(term) peer="{stack}",' for way in ("send", "receive")} <= set(found["rules"]), found
    said = next(denial for denial in found["tried"][0]["denials"] if denial["what"].startswith("send"))
    assert f'they run under the stack "{stack}"' in said["meaning"], said
    assert said["container"] == "stacked0", said


def test_a_rule_of_the_runtimes_profile_is_marked(seen: Results) -> None:
    found = seen["of_the_runtime"]
    assert found["out"] == "read EACCES\n", found
    [denial] = found["denials"]
    assert (denial["label"], denial["container"], denial["rule"]) == (RUNTIME, "runtimes", "owner /srv/runtime-audited r,"), denial
    assert "which is the runtime's" in denial["widens"][0], denial


CHANGE = 'rundlet: apparmor: "box-mute" lacks a change_profile rule to change to "box"; '


@pytest.mark.parametrize("way", ["run", "json", "text"])
def test_a_command_that_fails_says_what_was_denied(seen: Results, way: str) -> None:
    found = seen["fails"][way]
    assert (found["status"], found["out"]) == (1, ""), found
    error, meaning, rule = found["err"].splitlines()
    assert error == 'rundlet: write to `/proc/thread-self/attr/apparmor/exec`: EACCES: the profile "box-mute" needs the rule: change_profile -> box,'
    assert meaning.startswith(CHANGE), meaning
    assert rule.startswith('rundlet: apparmor: to permit it, in the profile "box-mute": change_profile -> box,'), rule
    if way == "json":  # podman takes the whole log for one object
        assert json.loads(found["log"])["msg"] == error.removeprefix("rundlet: ")
    else:
        assert found["log"].count("\n") == (way == "text")
        assert "to permit it" not in found["log"]


@pytest.mark.parametrize("verb", ["exec", "start"])
def test_a_program_that_is_not_executed_too(seen: Results, verb: str) -> None:
    found = seen["fails"][verb]
    assert found["status"] == (255 if verb == "exec" else 126), found
    error, *more = found["err"].splitlines()
    assert error == 'rundlet: exec: "/trial": permission denied', found
    assert 1 <= len(more) <= 2 and all(line.startswith("rundlet: apparmor: ") for line in more), found
    assert "/trial" in more[0] or BOX in more[0], found
    if verb == "start":
        assert json.loads(found["log"])["msg"] == error.removeprefix("rundlet: ")


def test_an_error_that_has_another_cause_stays_alone(seen: Results) -> None:
    found = seen["fails"]["nothing"]
    assert found["err"] == 'rundlet: exec: "/not-there": no such file or directory\n'
    assert found["status"] == 127
    assert seen["fails"]["create"]["err"] == ""


@pytest.mark.parametrize("way", ["program", "program's child", "program by exec", "program's child by exec"])
def test_a_program_that_fails_for_a_denial_says_so_too(seen: Results, way: str) -> None:
    found, profile = seen["fails"][way], BOX if way.endswith("exec") else "box-own"
    assert (found["status"], found["out"], found["log"]) == (1, f"{'forked' if 'child' in way else 'read'} EACCES\n", ""), found
    assert found["err"].splitlines() == [
        f'rundlet: apparmor: "{profile}" does not let trial read /srv/f',
        f'rundlet: apparmor: to permit it, in the profile "{profile}": owner /srv/f r,',
    ]


def test_what_a_complaining_profile_hides_is_told(seen: Results) -> None:
    for way, label, says in (
        ("exec", "box-learns//null-/srv/program", '"box-learns" is complaining and has no rule to execute /srv/program: the kernel invented a learning'),
        ("change", "box-learns//null-nope", 'the profile "nope" is not loaded, which the complaining profile "box-learns" hides'),
    ):
        found = seen["learning"][way]
        assert (found["status"], found["out"]) == (0, "read ok\nforked ok\n"), found
        assert {denial["label"] for denial in found["denials"]} == {label}, found
        read = next(denial for denial in found["denials"] if denial["what"] == "read /srv/f")
        assert read["meaning"].startswith(says), read
        assert read["container"] == f"learns-{way}"


def test_a_change_that_becomes_a_stack_is_told(seen: Results) -> None:
    """kernel.apparmor_restrict_unprivileged_unconfined, which Linux 6.1 has not."""
    found = seen["converted"]
    if "lacking" in found:
        assert seen["by_cgroup"] and found["lacking"].endswith("restrict_unprivileged_unconfined")
        return
    [denial] = found["denials"]
    assert "kernel.apparmor_restrict_unprivileged_unconfined is 1" in denial["meaning"], denial
    assert f'gets "{BOX}//&unconfined" instead' in denial["meaning"]


@pytest.mark.parametrize(("name", "verdict", "status"), [("log", "allowed", 0), ("kill", "killed", 128 + 31), ("errno", "denied", 1)])
def test_filters(seen: Results, name: str, verdict: str, status: int) -> None:
    found = seen["filters"][name]
    assert found["first"]["status"] == status, found
    [denial] = found["denials"]
    assert (denial["layer"], denial["verdict"], denial["operation"], denial["container"]) == ("seccomp", verdict, "chroot", f"filter-{name}")
    assert denial["rule"] == '{"names": ["chroot"], "action": "SCMP_ACT_ALLOW"}'
    assert found["again"] == {"status": 0, "out": "chroot ok\n", "err": ""}, found
    assert found["more"] == ["mknodat"], found  # nothing is said of chroot any more


def test_the_command(seen: Results) -> None:
    found = seen["command"]
    text, document = found["text"], json.loads(found["json"]["out"])
    assert text["status"] == found["json"]["status"] == 1
    head, meaning, rule = text["out"].splitlines()
    assert "denied by apparmor  kinds  trial[" in head and head.endswith("  ×2"), text
    assert meaning == '    "box" does not let trial read /srv/f'
    assert rule == '    to permit it, in the profile "box":  owner /srv/f r,'
    assert document["schema"] == "rundlet.denials/1"
    [denial] = document["denials"]  # what a program wrote into the kernel's log is not among them
    assert (denial["count"], denial["container"], denial["rule"]) == (2, "kinds", "owner /srv/f r,")
    assert {log["log"]: log["readable"] for log in document["logs"]}["/dev/kmsg"] is True
    assert (found["none"]["status"], found["none"]["out"][:28]) == (0, "nothing was denied to kinds ")
    assert found["unknown"]["status"] == 2 and "container nobody does not exist" in found["unknown"]["err"]


def test_who_may_not_read_is_told_so(seen: Results) -> None:
    found = seen["command"]["restricted"]
    assert found["status"] == 2, found
    assert found["err"].startswith("rundlet: no log can be read; /dev/kmsg: operation not permitted: kernel.dmesg_restrict is 1"), found
    assert "/var/log/audit/audit.log: " in found["err"] and "journal: " in found["err"]
    document = json.loads(found["out"])
    assert document["denials"] == [] and document["unreadable"] in found["err"]
    assert not any(log["readable"] for log in document["logs"])


def test_following(seen: Results) -> None:
    found = seen["follow"]
    assert (found["status"], found["err"]) == (1, ""), found
    lines = [json.loads(line) for line in (*found["lines"], *found["rest"])]
    assert {line["schema"] for line in lines} == {"rundlet.denial/1"}
    assert {(line["container"], line["what"]) for line in lines} == {("kinds", "read /srv/f")}
    counts = [line["count"] for line in lines]
    assert counts[:2] == [1, 10] and counts[2:] in ([], [11], [12]), found  # the last one may still be on its way


def test_the_journal_has_the_same(seen: Results) -> None:
    found = seen["journal"]
    assert [denial["rule"] for denial in found["journal"]] == ["owner /srv/f r,"], found
    assert [denial["rule"] for denial in found["everywhere"]] == ["owner /srv/f r,"], found  # once, though two or three logs have it


def test_the_journal_alone_has_it(seen: Results) -> None:
    """By the command, and followed."""
    found = seen["journal_alone"]
    assert [denial["rule"] for denial in found["denials"]] == ["owner /srv/f r,"], found
    document = json.loads(found["command"]["out"])
    assert found["command"]["status"] == 1
    assert {log["log"]: log["readable"] for log in document["logs"]} == {"/dev/kmsg": True, AUDIT_LOG: False, "journal": True}
    assert document["denials"][-1]["what"] == json.loads(found["line"])["what"] == "read /srv/f"
    for denial in (json.loads(found["line"]), *found["followed"]):
        assert denial["raw"].startswith("type=1400 msg=audit("), "no line of the kernel's log"
    assert [denial["rule"] for denial in found["followed"]] == ["owner /srv/f r,"], found


def test_auditd_takes_the_records(seen: Results) -> None:
    found = seen["auditd"]
    assert {denial["rule"] for denial in found["denials"]} == {f"signal ({way}) set=(term) peer=box," for way in ("send", "receive")}, found
    assert all(denial["raw"].startswith("type=AVC msg=audit(") for denial in found["denials"]), found
    assert found["failed"]["err"].splitlines()[1].startswith(CHANGE), found
    assert found["program"].splitlines()[0] == f'rundlet: apparmor: "{BOX}" does not let trial read /srv/f'
    logs = {log["log"]: log["readable"] for log in json.loads(found["command"]["out"])["logs"]}
    assert logs[AUDIT_LOG] is True


def test_auditds_file_is_followed_when_it_is_rotated(seen: Results) -> None:
    found = seen["auditd"]
    assert [json.loads(line)["what"] for line in found["lines"]] == ["read /srv/f", "read /srv/g", "write /srv/g"], found
    assert [denial["what"] for denial in found["rotated"]][-3:] == ["read /srv/f", "read /srv/g", "write /srv/g"], found


def test_without_auditds_file_nothing_can_be_told(seen: Results) -> None:
    found = seen["auditd"]["blind"]
    assert (found["status"], found["out"]) == (2, ""), found
    assert "gives its records to auditd" in found["err"] and "/dev/kmsg: read" in found["err"], found


def test_without_an_audit_system_nothing_can_be_told(labs: Callable[[str], Results]) -> None:
    found: Any = labs("mute")["mute"]
    assert (found["status"], found["out"]) == (2, ""), found
    assert "the kernel writes no records" in found["err"] and "audit=0" in found["err"], found


def test_the_order_of_the_security_modules_is_told(labs: Callable[[str], Results]) -> None:
    """What then is written to attr/exec, as older runtimes do, fails without a record. Ours asks by AppArmor's own file."""
    found = labs("order")["order"]
    assert found["error"] == "EINVAL"
    assert found["run"] == {"status": 0, "out": "read ok\n", "err": ""}, found
    assert (found["status"], found["out"].startswith("nothing was denied since ")) == (0, True), found
    [note] = found["err"].splitlines()
    assert note.startswith("rundlet: the security modules are lockdown,capability,landlock,yama,bpf,apparmor: one before apparmor takes what is"), note
