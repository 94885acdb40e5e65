"""The AppArmor profiles that come with rundlet, and the one that is written for a command."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rundlet import shipped
from rundlet.confine.profile.language import parse
from rundlet.install import main

PARSER = shutil.which("apparmor_parser", path=shipped.PATH)


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """A command, by a link."""
    (tmp_path / "real").write_text("#!/bin/sh\n")
    (tmp_path / "rundlet").symlink_to("real")
    return tmp_path / "rundlet"


@pytest.mark.parametrize("enforce", [False, True])
@pytest.mark.parametrize("version", [0, 3, 4])
def test_the_profile_is_attached_to_what_is_executed(command: Path, enforce: bool, version: int) -> None:
    [profile] = [one for one in parse(shipped.text(command, enforce, version)).profiles() if one.name == "rundlet"]
    assert profile.attachment == str(command.parent / "real")
    assert ("unconfined" in profile.flags) is not enforce
    assert ("userns" in [one.text for one in profile.statements]) is (version == 4 and not enforce)


def test_what_is_special_in_a_path_is_escaped(tmp_path: Path) -> None:
    place = tmp_path / "a {folder}*"
    place.mkdir()
    (place / "rundlet").touch()
    assert f'profile rundlet "{tmp_path}/a \\{{folder\\}}\\*/rundlet" flags=(unconfined) {{' in shipped.text(place / "rundlet", False, 3)


def test_both_files_for_unconfined_mode_say_the_same_but_for_user_namespaces(command: Path) -> None:
    texts = []
    for version in (3, 4):
        lines = [line for line in shipped.text(command, False, version).splitlines() if not line.startswith("#")]
        texts.append([line.strip() for line in lines if line.strip()])
    assert texts[1] == [*("abi <abi/4.0>," if line == "abi <abi/3.0>," else line for line in texts[0][:3]), "userns,", *texts[0][3:]]


def test_both_forms_of_change_profile_are_in_the_enforcing_one(command: Path) -> None:
    [profile, parser] = parse(shipped.text(command, True, 3)).profiles()
    rules = [one.text for one in profile.statements]
    assert "change_profile" in rules and "deny change_profile -> unconfined" in rules
    # policy is the parser's alone
    assert parser.name == "rundlet//parser"
    assert "capability mac_admin" in [one.text for one in parser.statements]
    assert "capability mac_admin" not in rules and "capability" not in rules


def test_it_is_written(command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--apparmor", str(tmp_path), "--enforce", str(command)])  # over the command's own link, as it happens: DIR/rundlet
    written = tmp_path / "rundlet"
    assert capsys.readouterr().out == f"load it with: apparmor_parser -r {written}\n"
    assert not written.is_symlink()
    assert written.read_text() == shipped.text(tmp_path / "real", True, shipped.version())
    assert written.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(not PARSER, reason="apparmor_parser is missing")
@pytest.mark.parametrize("enforce", [False, True])
def test_the_parser_takes_it(command: Path, enforce: bool) -> None:
    done = subprocess.run(
        [PARSER or "", "-Q", "-K", "-S"], input=shipped.text(command, enforce, shipped.version()).encode(), capture_output=True, check=False
    )
    assert (done.returncode, b"rundlet" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("words", [["--apparmor"], ["--apparmor", "/no/such"], ["--apparmor", "/tmp", "/no/command"], ["--apparmor", "/tmp", "--nonsense"]])
def test_what_cannot_be_written_is_said(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert isinstance(ended.value.code, str)
