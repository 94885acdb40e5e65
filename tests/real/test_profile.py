"""`rundlet profile` and profiles that containers bring along, as far as no AppArmor kernel is needed: apparmor_parser compiles without one."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rundlet.errors import Refused
from rundlet.life import loaded as policy
from tests import bundles
from tests.bundles import FACTS, ROOT, Box, Done

pytestmark = pytest.mark.skipif(not shutil.which("apparmor_parser", path=policy.PATH), reason="apparmor_parser is missing")
ON = FACTS["apparmor"]["state"] == "on"
WEB = """\
abi <abi/3.0>,
include <tunables/global>

profile web flags=(attach_disconnected) {
  include <abstractions/base>
  file,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=web,
}
"""


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """A file with a profile."""
    file = tmp_path / "web.profile"
    file.write_text(WEB)
    return file


def document(done: Done, status: int) -> Any:
    assert (done.status, done.err) == (status, "")
    made = json.loads(done.out)
    assert (made["schema"], made["holds"]) == ("rundlet.profile/1", {0: True, 1: False, 2: None}[status])
    return made


def one_line(done: Done, status: int, *says: str) -> None:
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith("rundlet: ") and done.err.count("\n") == 1
    for words in says:
        assert words in done.err


# ── rundlet profile ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(ON, reason="AppArmor is on here, which the lab's own tests are for")
def test_check_cannot_tell_everything_without_apparmor(box: Box, web: Path) -> None:
    [source] = document(box.call("profile", "check", "--json", str(web)), 2)["sources"]
    found = {one["about"]: one["verdict"] for one in [*source["findings"], *source["profiles"][0]["findings"]]}
    assert found == {
        "parses": "good", "abi": "good", "loaded": "unknown", "without no_new_privs": "unknown", "with no_new_privs": "unknown", "peers": "note",
    }


def test_check_for_the_runtime_of_another_host(box: Box, web: Path, tmp_path: Path) -> None:
    facts = json.loads(box.call("host", "--json").out)
    facts["apparmor"] |= {"state": "on", "label": "rt", "mode": "enforce", "components": [{"name": "rt", "mode": "enforce"}], "stack": True, "loaded": []}
    (tmp_path / "facts").write_text(json.dumps(facts))
    done = box.call("profile", "check", "--json", "--assume", str(tmp_path / "facts"), str(web))
    [source] = document(done, 1)["sources"]
    found = {one["about"]: one for one in source["profiles"][0]["findings"]}
    assert found["with no_new_privs"]["text"].startswith("stacked as rt//&web: ")
    assert found["peers"]["verdict"] == "bad" and "signal (send, receive) peer=web," in found["peers"]["text"]
    assert found["runtime"]["verdict"] == "bad" and "signal (receive) peer=rt," in found["runtime"]["text"]


@pytest.mark.parametrize(
    ("text", "says"),
    [("profile web { nonsense }", "line 1: syntax error"), ("", "holds no AppArmor profile"), ("profile web { include <no/such>\n }", "line 1: Could not open")],
)
def test_check_of_what_does_not_parse(box: Box, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad").write_text(text)
    [source] = document(box.call("profile", "check", "--json", str(tmp_path / "bad")), 1)["sources"]
    [finding] = source["findings"]
    assert finding["verdict"] == "bad"
    assert says in finding["text"]


def test_for_people_it_is_lines(box: Box, web: Path) -> None:
    done = box.call("profile", "check", str(web))
    assert done.err == ""
    assert done.out.splitlines()[:3] == [str(web), "good     parses               profiles: web", "good     abi                  <abi/3.0>"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense"], "no action nonsense: it is one of check, load, diff, derive"), (["check"], "needs files or names"), (["load"], "takes one file"),
        (["diff", "one"], "takes two"), (["derive"], "takes no words"), (["load", "/no/such"], "cannot read /no/such: ENOENT"),
        (["diff", "/no/such", "/no/such"], "ENOENT"), (["derive", "--profile", "/no/such", "--runtime-label", "rt"], "ENOENT"),
    ],
)  # fmt: skip
def test_what_cannot_be_told(box: Box, words: list[str], says: str) -> None:
    one_line(box.call("profile", *words), 2, says)


def test_diff(box: Box, web: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(WEB.replace("  file,\n", "  /** r,\n"))
    [found] = document(box.call("profile", "diff", "--json", str(web), str(other)), 1)["profiles"]
    assert (found["only_a"], found["only_b"], found["more"]) == (["file"], [], "a")
    done = box.call("profile", "diff", str(other), str(web))
    assert (done.status, done.out) == (1, "web: B permits more\n  > file,\n")
    other.write_text(WEB.replace("signal (send, receive)", "signal (receive , send)").replace("  file,\n", "  file, # all\n"))
    done = box.call("profile", "diff", str(other), str(web))
    assert (done.status, done.out) == (0, "web: both permit the same\n")


def test_derive(box: Box, web: Path, tmp_path: Path) -> None:
    out = tmp_path / "derived"
    made = document(box.call("profile", "derive", "--json", "--profile", str(web), "--runtime-label", "rt (enforce)", "--output", str(out)), 0)
    assert out.read_text() == made["text"]
    assert [one["rule"] for one in made["added"]] == [
        "ptrace (read) peer=rt//&web,", "signal peer=rt//&web,", "unix peer=(label=rt//&web),", "signal (send, receive) peer=rt//&web,",
    ]
    assert "change_profile -> &web," in made["runtimeNeeds"]
    assert [one.name for one in policy.compiled(str(out))] == ["web"]
    # apart from the rules added, the two are the same, by another way: as the parser prints them
    [found] = document(box.call("profile", "diff", "--json", str(out), str(web)), 1)["profiles"]
    assert (found["only_b"], found["more"]) == ([], "a")
    assert [rule + "," for rule in found["only_a"]] == [one["rule"] for one in made["added"]]
    shown = box.call("profile", "derive", "--profile", str(web), "--runtime-label", "rt")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.endswith(made["text"])


@pytest.mark.skipif(ON, reason="AppArmor is on here, and the page shows a host without")
def test_the_page_shows_what_is_printed(box: Box, tmp_path: Path) -> None:
    """Each command of docs/profiles.md is carried out, and prints what the page shows."""
    page = (ROOT / "docs/profiles.md").read_text()
    blocks = [block.split("```")[0] for block in re.split(r"```(?:text)?\n", page)]
    (tmp_path / "web.profile").write_text(next(block for block in blocks if block.startswith("abi")))
    facts = json.loads(box.call("host", "--json").out)
    facts["apparmor"] |= {"state": "on", "label": "rt", "mode": "enforce", "components": [{"name": "rt", "mode": "enforce"}], "stack": True, "loaded": []}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    (tmp_path / "rundlet").write_text(f"#!/bin/sh\nexec {shlex.join(bundles.words())} \"$@\"\n")
    (tmp_path / "rundlet").chmod(0o755)
    shown = [block for block in blocks if block.startswith("$ ")]
    assert len(shown) == 3
    for block in shown:
        commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        printed = "".join(line for line in block.splitlines(True) if not line.startswith("$ "))
        done = subprocess.run(
            ["sh", "-c", "; ".join(commands)], cwd=tmp_path, capture_output=True, text=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
        )
        assert (done.stdout, done.stderr) == (printed, ""), block


# ── a container that brings one along ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verb", ["run", "create"])
@pytest.mark.skipif(ON, reason="AppArmor is on here, which the lab's own tests are for")
def test_without_apparmor_a_profile_is_refused_with_its_file(box: Box, verb: str) -> None:
    box.process["apparmorProfile"] = "web"
    box.config["annotations"] = {"org.rundlet.apparmor.profile-file": "web"}
    (box.bundle / "web").write_text(WEB)
    box.save()
    one_line(box.call(verb, "--bundle", str(box.bundle), box.id), 1, 'cannot apply the apparmor profile "web"')
    assert box.left() == []


@pytest.mark.parametrize(
    ("annotations", "options", "profile", "says"),
    [
        ({}, ["--apparmor-file", "web"], None, "no profile of it is asked for"),
        ({"profile-file": ""}, [], "web", "/annotations/org.rundlet.apparmor.profile-file"),
        ({"on-delete": "remove"}, [], "web", "not from which file"),
        ({}, ["--apparmor-on-delete", "remove"], "web", "not from which file"),
        ({}, ["--apparmor-replace"], "web", "not from which file"),
        ({"profile-file": "web", "on-delete": "burn"}, [], "web", 'it is keep or remove, not "burn"'),
        ({}, ["--apparmor-file", "web", "--apparmor-on-delete", "burn"], "web", '--apparmor-on-delete: it is keep or remove, not "burn"'),
        ({"profile-file": "web", "replace": "yes"}, [], "web", 'it is true or false, not "yes"'),
        ({"profil-file": "web"}, [], "web", "/annotations/org.rundlet.apparmor.profil-file: is none of"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(box: Box, annotations: dict[str, str], options: list[str], profile: str | None, says: str) -> None:
    if profile:
        box.process["apparmorProfile"] = profile
    box.config["annotations"] = {f"org.rundlet.apparmor.{key}": value for key, value in annotations.items()}
    (box.bundle / "web").write_text(WEB)
    box.save()
    one_line(box.call("create", *options, "--bundle", str(box.bundle), box.id), 1, says)
    assert box.left() == []


# ── compiled policy ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_compiled_policy_is_taken_apart(tmp_path: Path) -> None:
    file = tmp_path / "several"
    file.write_text('profile one { file, profile kid { file, } }\nprofile "sp ace (x)" { /a r, }\nprofile :box:inner { file, }\n')
    whole = policy.compiled(str(file))
    assert sorted(one.name for one in whole) == [":box:inner", "one", "one//kid", "sp ace (x)"]
    assert len({one.hashes["sha1"] for one in whole}) == len({one.hashes["sha256"] for one in whole}) == 4
    assert [one.name for one in policy.split(b"".join(one.text for one in whole))] == [one.name for one in whole]
    again = {one.name: one.hashes for one in policy.compiled(str(file))}
    assert again == {one.name: one.hashes for one in whole}
    file.write_text('profile "sp ace (x)" { /a r, }\n')
    [alone] = policy.compiled(str(file))
    assert alone.hashes == again["sp ace (x)"]
    assert policy.split(b"") == policy.split(b"nonsense") == []


def test_without_the_parser_nothing_can_be_told(box: Box, web: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "PATH", "/no/such")
    with pytest.raises(Refused, match="there is no apparmor_parser, .*; install the package apparmor") as refused:
        policy.compiled(str(web))
    assert not isinstance(refused.value, policy.Malformed)
