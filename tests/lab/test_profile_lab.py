"""Profiles that containers bring along, `rundlet profile`, what stacking does to rules for peers, and rundlet under its own profiles.

Each kernel, 6.1 and 6.12, is booted once, and 6.12 once more with AppArmor 4's parser; tests/lab/profiles.py tries, and what it saw is judged here.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from tests.lab import boot, parser4
from tests.lab.boot import KERNELS, Results

if os.environ.get("RUNDLET_LAB") == "1":
    pytest.skip("a lab in the lab would be a hundred times slower", allow_module_level=True)
pytestmark = pytest.mark.skipif(bool(boot.lacking()), reason=boot.lacking())

ROOT = Path(__file__).parents[2]
DENIED = "Permission denied"
ENDED = 7  # how the probe in the container ends
FOUR = "apparmor-4"  # the lab with its parser


@pytest.fixture(autouse=True)
def patience() -> None:
    """The first test waits for a lab of minutes, which has a limit of its own."""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Results]]:
    """What a lab has seen, by the suite's name."""
    code = boot.snapshot(tmp_path_factory.mktemp("code"))
    shutil.copytree(ROOT / "packaging/apparmor", code / "rundlet/apparmor")
    words = boot.rundlet_words(code, str(Path(pyseccomp.__file__).parent))
    seen = tmp_path_factory.mktemp("seen")
    guests = {suite: boot.Guest(code, seen / suite, suite, module="profiles", words=words) for suite in KERNELS}
    guests[FOUR] = boot.Guest(code, seen / FOUR, "backports", "--env", f"PARSER={parser4.parser()}", module="profiles", words=words)
    yield cache(lambda name: guests[name].results())
    for guest in guests.values():
        guest.end()


@pytest.fixture(params=[*KERNELS, FOUR])
def seen(labs: Callable[[str], Results], request: pytest.FixtureRequest) -> Results:
    """What was seen there."""
    return labs(request.param)


def ran(found: dict[str, Any], label: str) -> None:
    """The container ran under the label, and nothing of it is left. It does not end with 0, so what was denied to it may be told."""
    assert (found["status"], boot.besides(found["err"]), found["left"]) == (ENDED, "", False), found
    assert found["out"].startswith(f"label {label} (enforce)\n"), found
    assert found["out"].endswith("ready\n")


def refused(found: dict[str, Any], *says: str) -> None:
    """It did not, for one reason told in one line."""
    assert (found["status"], found["out"], found["left"]) == (1, "", False), found
    assert found["err"].startswith("rundlet: ") and found["err"].count("\n") == 1, found
    for words in says:
        assert words in found["err"], found
    # engines take these words for other faults
    assert "permission denied" not in found["err"].lower() and "no such file" not in found["err"].lower()


# ── profiles that containers bring along ─────────────────────────────────────────────────────────────────────────────────────


def test_a_profile_is_loaded_and_stays(seen: Results) -> None:
    ran(seen["kept"], "kept")
    assert seen["kept"]["loaded"].startswith("enforce ")


@pytest.mark.parametrize("name", ["removed", "by options"])
def test_a_profile_is_loaded_and_removed(seen: Results, name: str) -> None:
    ran(seen[name], "gone")
    assert seen[name]["loaded"] is None


def test_what_is_there_with_the_same_content_is_used_and_stays(seen: Results) -> None:
    ran(seen["there with this content"], "same")
    assert seen["there with this content"]["loaded"] == seen["there with this content"]["before"]


def test_another_content_is_refused(seen: Results) -> None:
    found = seen["there with another content"]
    refused(found, '"other"', "is loaded with another content", "--apparmor-replace")
    assert found["loaded"] == found["before"]


def test_another_content_is_replaced_where_asked_and_stays(seen: Results) -> None:
    found = seen["replaced"]
    ran(found, "other")
    assert "reads public" not in found["out"]  # the new content denies it
    assert found["loaded"] not in (None, found["before"])


def test_all_of_a_file_or_nothing(seen: Results) -> None:
    found = seen["one of two is there with another content"]
    refused(found, '"other"')
    assert found["loaded"] is None
    assert found["other"] == found["before"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("another name", ('"stranger"', '"wanted"', "process.apparmorProfile")),
        ("malformed", ("/p: line 1: syntax error",)),
        ("no profile asked", ("org.rundlet.apparmor.profile-file", "process.apparmorProfile")),
        ("a hook fails", ("createRuntime",)),
    ],
)
def test_nothing_is_left_of_what_is_refused(seen: Results, name: str, says: tuple[str, ...]) -> None:
    refused(seen[name], *says)
    assert seen[name]["loaded"] is None


def test_nothing_is_left_where_the_program_cannot_be_run(seen: Results) -> None:
    found = seen["the program is not there"]
    assert (found["status"], found["out"], found["left"]) == (127, "", False), found
    assert found["loaded"] is None


def test_explain_foresees_it(seen: Results) -> None:
    found = seen["explain"]
    assert (found["status"], found["err"], found["loaded"]) == (0, "", None), found
    shown = json.loads(found["out"])
    assert shown["profiles"] == {"file": "/run/lab/profiles/c16/p", "names": ["foreseen"]}
    assert (shown["refused"], shown["label"]["to"]) == (None, "foreseen")


def test_a_failure_brings_back_what_was_replaced(seen: Results) -> None:
    found = seen["a hook fails after a replacement"]
    refused(found, "createRuntime")
    assert found["loaded"] == found["before"] is not None


def test_odd_names_and_children(seen: Results) -> None:
    ran(seen["an odd name"], 'sp ace "(x)"')
    ran(seen["children"], "family")
    assert seen["an odd name"]["loaded"] is seen["children"]["loaded"] is None
    assert seen["children"]["names"] == 0


def test_a_process_that_has_ended_uses_nothing(seen: Results) -> None:
    found = seen["a zombie"]
    assert [done["status"] for done in found["steps"]] == [0, 0, 0, 0], found
    assert (found["state"], found["loaded"]) == ("Z", None)


@pytest.mark.parametrize("name", ["used by another container", "used by a process", "replaced meanwhile"])
def test_what_is_not_the_containers_alone_stays(seen: Results, name: str) -> None:
    found = seen[name]
    assert found["created"]["status"] == found["deleted"]["status"] == 0, found
    assert found["loaded"].startswith("enforce "), found


def test_the_state_tells(seen: Results) -> None:
    told = seen["used by another container"]["state"]["apparmor"]
    assert told == {"file": "/run/lab/profiles/first/p", "loaded": ["shared"], "onDelete": "remove"}


def test_a_half_made_container_takes_its_profile_along(seen: Results) -> None:
    found = seen["half-made"]
    assert found["before"].startswith("enforce ")
    assert (found["deleted"], found["loaded"]) == ({"status": 0, "out": "", "err": ""}, None)


def test_features_name_the_annotations(seen: Results) -> None:
    assert "org.rundlet.apparmor." in seen["features"]["potentiallyUnsafeConfigAnnotations"]


def test_the_page_shows_what_is_said(seen: Results) -> None:
    """docs/profiles.md has the refusals, of another file."""
    page = (ROOT / "docs/profiles.md").read_text()
    names = {"there with another content": {"other": "web"}, "another name": {"stranger": "shop", "wanted": "web"}, "malformed": {}, "no profile asked": {}}
    for name, renamed in names.items():
        line = re.sub(r"/run/lab/profiles/\w+/p\b", "/srv/web/web.profile", seen[name]["err"].removeprefix("rundlet: "))
        for was, shown in renamed.items():
            line = line.replace(f'"{was}"', f'"{shown}"')
        assert line in page
    state = json.dumps(seen["used by another container"]["state"]["apparmor"]).replace("/run/lab/profiles/first/p", "/srv/web/web.profile")
    assert f'"apparmor": {state.replace("shared", "web")}' in page


# ── rundlet profile ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def document(found: dict[str, Any], status: int) -> Any:
    assert (found["status"], found["err"]) == (status, ""), found
    said = json.loads(found["out"])
    assert said["schema"] == "rundlet.profile/1"
    assert said["holds"] is {0: True, 1: False, 2: None}[status]
    return said


def findings(found: dict[str, Any], status: int) -> dict[str, tuple[str, str]]:
    [source] = document(found, status)["sources"]
    [profile] = source["profiles"]
    return {one["about"]: (one["verdict"], one["text"]) for one in [*source["findings"], *profile["findings"]]}


def test_check(seen: Results) -> None:
    found = findings(seen["check, not loaded"], 0)
    assert (found["abi"], found["loaded"]) == (("good", "<abi/3.0>"), ("note", "no"))
    assert found["with no_new_privs"][1].startswith("changed to checked: the runtime is unconfined")
    assert findings(seen["check"], 0)["loaded"] == ("good", "yes, enforce, with this content")
    assert findings(seen["check, another content"], 1)["loaded"] == ("bad", "yes, enforce, with another content than the file's")
    by_name = findings(seen["check by name"], 0)
    assert by_name["loaded"] == ("good", "yes, enforce")
    assert "does not tell the rules" in by_name["rules"][1]
    assert document(seen["check, no such name"], 2)["sources"][0]["findings"][0]["verdict"] == "unknown"


@pytest.mark.parametrize("name", ["check by a confined runtime", "check for a confined runtime"])
def test_check_for_a_confined_runtime(seen: Results, name: str) -> None:
    found = findings(seen[name], 1)
    assert found["without no_new_privs"][1].startswith("changed to own")
    assert found["with no_new_privs"][1].startswith("stacked as own//&rt")
    assert found["peers"] == ("bad", 'not about the stacked label "own//&rt": signal (send) peer=own, see rundlet profile derive')
    assert found["runtime"][0] == "bad" and "ptrace (readby) peer=rt," in found["runtime"][1]


def test_load(seen: Results) -> None:
    assert (seen["load"]["status"], seen["load"]["out"]) == (0, "checked: loaded\n")
    assert document(seen["load again"], 0)["profiles"] == {"checked": "there already, with this content"}
    first = seen["load"]["loaded"]
    assert first == seen["load again"]["loaded"] == seen["load another"]["loaded"]
    assert seen["load another"]["status"] == 2 and "with another content" in seen["load another"]["err"]
    assert (seen["load another with --replace"]["status"], seen["load another with --replace"]["out"]) == (0, "checked: replaced\n")
    assert seen["load another with --replace"]["loaded"] != first


def test_diff_with_what_is_loaded(seen: Results) -> None:
    [same] = document(seen["diff with what is loaded"], 0)["profiles"]
    assert same["same"] is True and same["modes"] == ["enforce", "enforce"]
    [(one, other)] = same["hash"].values()
    assert one == other == seen["load"]["loaded"].split()[1]
    [changed] = document(seen["diff with another"], 1)["profiles"]
    assert changed["same"] is False
    [twins] = document(seen["diff of two loaded"], 2)["profiles"]
    assert (twins["name"], twins["other"], twins["same"]) == ("checked", "twin", None)


# ── peers under a stack ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "alone", "stacked"),
    [
        ("own", "ok", DENIED), ("whole", DENIED, "ok"), ("unsorted", DENIED, DENIED), ("star", "ok", DENIED),
        ("stars", "ok", "ok"), ("behind", DENIED, DENIED), ("any", "ok", "ok"),
    ],
)  # fmt: skip
def test_a_peer_is_its_whole_label(seen: Results, name: str, alone: str, stacked: str) -> None:
    found = seen[f"signals: {name}"]["found"]
    assert (found["alone"][2], found["stacked"][2]) == (alone, stacked), found
    assert "//&" in found["stacked"][0]


def test_rules_for_each_profile_of_a_stack_do_on_newer_kernels(seen: Results) -> None:
    """Linux 6.1 stops where the whole label does not match, though it has the code to go on with its profiles: label.c, aa_label_match()."""
    found = seen["signals: parts"]["found"]
    due = {"6.1.": DENIED, "6.12": "ok"}[seen["machine"]["kernel"][:4]]
    assert (found["alone"][2], found["stacked"][2]) == ("ok", due)
    assert seen["the runtime's rules: halves"]["found"][2] == due
    assert [one[2] for one in seen["the runtime signals"]["found"]] == [DENIED, DENIED, "ok", "ok"]


def test_both_profiles_have_to_know_it(seen: Results) -> None:
    assert [seen[f"the runtime's rules: {name}"]["found"][2] for name in ("mute", "knows")] == [DENIED, "ok"]


def test_tracing_is_by_the_whole_label_too(seen: Results) -> None:
    found = seen["ptrace: traces"]["found"]
    assert (found["alone"][2:], found["stacked"][2:]) == (["ok", "ok"], [DENIED, DENIED])
    found = seen["ptrace: traces-whole"]["found"]
    assert (found["alone"][2:], found["stacked"][2:]) == ([DENIED, DENIED], ["ok", "ok"])


def test_these_kernels_do_not_look_at_peers_of_unix_sockets(seen: Results) -> None:
    assert [seen["unix sockets"]["found"][how][1] for how in ("alone", "stacked")] == ["ok", "ok"]
    assert seen["unix features"]["found"] == [True, False]


def test_unconfined_in_a_stack_is_a_name_as_any(seen: Results) -> None:
    assert seen["on unconfined"]["found"] == ["own//&unconfined (enforce)", "own//&unconfined (enforce)", DENIED]


def test_a_stack_is_in_the_order_of_bytes(seen: Results) -> None:
    assert seen["order"]["found"] == "Zz//&a//&a-b//&a.b//&a_b//&zz (enforce)"


def test_a_runtime_is_a_peer_of_its_container(seen: Results) -> None:
    assert [one[2] for one in seen["the runtime signals"]["found"]] == [DENIED, DENIED, "ok", "ok"]
    assert [one[2] for one in seen["unconfined signals"]["found"]] == [DENIED, "ok", DENIED, "ok"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("script", "script (enforce)"), ("by a link", "script (enforce)"), ("by the interpreter", "unconfined"), ("a shell script", "shell (enforce)"),
        ("without x", "no-x (enforce)"), ("an interpreter that is a script", "unconfined"),
    ],
)  # fmt: skip
def test_a_script_runs_under_the_profile_of_its_own_path(seen: Results, name: str, label: str) -> None:
    assert seen[f"scripts: {name}"]["found"] == [0, label, ""]


def test_its_profile_has_to_permit_reading_it(seen: Results) -> None:
    status, said, err = seen["scripts: unreadable"]["found"]
    assert (status, said) == (2, "")
    assert DENIED in err


def test_a_derived_profile_works_when_stacked(seen: Results) -> None:
    ran(seen["before"]["run"], "app//&lrt")
    ran(seen["after"]["run"], "app//&lrt")
    assert "signals itself" not in seen["before"]["run"]["out"]
    assert "signals itself" in seen["after"]["run"]["out"]


def test_a_derived_profile_permits_nothing_else(seen: Results) -> None:
    """Every access to and from every peer is as before, but that a stacked peer is what the same peer was alone."""
    before, after = seen["before"]["grid"], seen["after"]["grid"]
    assert before.keys() == after.keys() and len(before) == 16
    changed = {pair: (before[pair], after[pair]) for pair in before if before[pair] != after[pair]}
    # Linux 6.12 takes what is permitted to each profile of a stack as permitted to the stack: the original has rules for both
    assert set(changed) | {"stacked to alone"} == {"alone to stacked", "stacked to alone", "stacked to stacked"}
    for old, new in changed.values():
        for act, outcome in new.items():
            assert outcome in (old[act], before["alone to alone"][act]), changed
    assert after["stacked to stacked"] == before["alone to alone"] == {"term": "ok", "usr1": DENIED, "usr2": DENIED, "read": "ok", "trace": DENIED}


def test_a_derived_profile_lets_the_stack_trace_itself(seen: Results) -> None:
    found = seen["derive for a tracer"]
    assert found["status"] == 0, found
    assert found["before"][2:] == [DENIED] * 3
    assert found["after"][2:] == ["ok"] * 3


def test_a_user_namespace_takes_a_rule(labs: Callable[[str], Results]) -> None:
    """Of AppArmor 4 and Linux 6.12, under a profile that is compiled for them."""
    seen = labs(FOUR)
    assert seen["machine"]["parser"] == 4
    makes, lacks = seen["userns: makes"], seen["userns: lacks"]
    assert (makes["status"], makes["out"], makes["err"], makes["denials"]) == (0, "makes (enforce)\n", "", []), makes
    assert (lacks["status"], lacks["out"]) == (1, ""), lacks
    assert [[what, rule] for what, _, rule in lacks["denials"]] == [["create a user namespace", "userns create,"]], lacks
    error, meaning, rule = lacks["err"].splitlines()
    assert error.endswith('the runtime\'s profile "lacks" needs the rule: userns,'), lacks
    assert meaning == 'rundlet: apparmor: "lacks" does not let rundlet create a user namespace'
    assert rule.startswith('rundlet: apparmor: to permit it, in the profile "lacks": userns create,')


# ── rundlet under the profiles that come with it ─────────────────────────────────────────────────────────────────────────────

OWN = {"bare": "unconfined", "free": "rundlet (unconfined)", "enforcing": "rundlet (enforce)"}
HARMLESS = ("a socket", "a file")


@pytest.mark.parametrize("name", ["free", "enforcing"])
def test_a_shipped_profile_is_installed(seen: Results, name: str) -> None:
    found = seen[f"{name}: install"]
    assert found == found | {"status": 0, "said": "load it with: apparmor_parser -r /run/lab/policy/rundlet\n", "loading": 0, "complaints": ""}


@pytest.mark.parametrize("name", OWN)
def test_the_runtimes_own_label_and_what_it_may_do(seen: Results, name: str) -> None:
    label, *acts = seen[f"{name}: run"]["hook"].splitlines()
    assert label == f"label {OWN[name]}"
    may = {act: outcome == "ok" for act, outcome in (line.split(": ") for line in acts)}
    assert len(may) == 11
    assert may == {act: name != "enforcing" or act in HARMLESS for act in may}


def contained(found: dict[str, Any], label: str, *lines: str) -> None:
    """The container ran under the label, and could do what the lines say, in their order."""
    assert found["status"] == 0, found
    assert found["out"].splitlines() == [label, *lines], found


@pytest.mark.parametrize("name", OWN)
def test_labels_of_containers(seen: Results, name: str) -> None:
    stacks = "//&rundlet" if name == "enforcing" else ""
    kernel = [] if stacks else ["sysrq"]  # the runtime's profile denies that to what is stacked on it
    contained(seen[f"{name}: run"], "box (enforce)", "text", "sysrq", "seccomp 2", "signals", "done")
    contained(seen[f"{name}: no_new_privs"], f"box{stacks} (enforce)", "text", *kernel, "seccomp 2", *([] if stacks else ["signals"]), "done")
    knows = seen[f"{name}: no_new_privs, profile that knows the stack"]
    contained(knows, f"mates{stacks} (enforce)", "text", *kernel, "seccomp 2", "signals", "done")
    contained(seen[f"{name}: user namespace"], f"box{stacks} (enforce)", "text", "seccomp 2", *([] if stacks else ["signals"]), "done")
    contained(seen[f"{name}: no profile"], OWN[name], "text", "text", *kernel, "seccomp 2", "signals", "done")
    contained(seen[f"{name}: a profile brought along"], "brought (enforce)", "text", "text", "sysrq", "seccomp 2", "signals", "done")
    for which in ("run", "no_new_privs", "user namespace"):
        assert "can't open '/container-secret': Permission denied" in seen[f"{name}: {which}"]["err"]


@pytest.mark.parametrize("name", OWN)
def test_only_the_enforcing_one_keeps_containers_from_being_unconfined(seen: Results, name: str) -> None:
    found = seen[f"{name}: unconfined"]
    if name == "enforcing":
        assert (found["status"], found["out"]) == (1, "")
        assert 'the profile "rundlet" needs the rule: change_profile -> unconfined,' in found["err"]
    else:
        contained(found, "unconfined", "text", "text", "sysrq", "seccomp 2", "signals", "done")


@pytest.mark.parametrize("name", OWN)
def test_a_containers_whole_way(seen: Results, name: str) -> None:
    found = seen[f"{name}: the way"]
    for step, done in found["steps"].items():
        assert (done["status"], done["err"]) == (0, ""), step
    label = "mates//&rundlet" if name == "enforcing" else "mates"
    assert found["steps"]["exec"]["out"] == f"{label} (enforce)\n"
    assert json.loads(found["steps"]["state"]["out"])["status"] == "created"
    assert found["left"] is False


@pytest.mark.parametrize("name", OWN)
def test_a_users_container(seen: Results, name: str) -> None:
    contained(seen[f"{name}: rootless"], OWN[name], "done")
