"""ps: which processes a container has."""

import json
import os
from pathlib import Path

import pytest

from rundlet.errors import Fault
from rundlet.life.ps import table
from tests import bundles
from tests.bundles import Box


def pids(box: Box) -> list[int]:
    """What `ps --format json` prints."""
    done = box.call_apart("ps", "--format", "json", box.id)
    assert (done.status, done.err) == (0, ""), done
    found = json.loads(done.out)
    assert done.out.count("\n") == 1 and isinstance(found, list)
    return found


def test_as_json(box: Box) -> None:
    pid = box.sh("sleep 1000 & exec sleep 1001").started()
    assert bundles.eventually(lambda: len(pids(box)) == 2)
    assert pids(box) == sorted([pid, *bundles.children(pid)])
    done = box.exec("--detach", "--pid-file", str(box.folder / "pid"), "--", "sleep", "1002")
    assert done.status == 0
    assert pids(box) == sorted([pid, *bundles.children(pid), int((box.folder / "pid").read_text())])


def test_as_a_table(box: Box) -> None:
    pid = box.started()
    for words in ([box.id], ["--format", "table", box.id], ["-f", "table", box.id, "--", "-ef"]):
        done = box.call_apart("ps", *words)
        assert (done.status, done.err) == (0, "")
        header, *lines = done.out.splitlines()
        assert header.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
        assert [line.split()[1] for line in lines] == [str(pid)] and lines[0].endswith("sleep 1000")
    done = box.call_apart("ps", box.id, "-e", "-x")
    assert done.out.splitlines()[0].split() == ["PID", "TTY", "STAT", "TIME", "COMMAND"]
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == [str(pid)]


def test_of_sub_cgroups_too(box: Box) -> None:
    pid = box.started()
    inner = box.cgroups()[-1] / "inside"
    inner.mkdir()
    assert box.exec("--detach", "--pid-file", str(box.folder / "pid"), "--", "sleep", "1000").status == 0
    other = (box.folder / "pid").read_text()
    (inner / "cgroup.procs").write_text(other)
    assert pids(box) == sorted([pid, int(other)])


def test_of_a_container_that_does_not_run(box: Box) -> None:
    pid = box.created()
    assert pids(box) == [pid]
    box.ended()
    assert pids(box) == []
    assert len(box.call_apart("ps", box.id).out.splitlines()) == 1
    assert "does not exist" in box.call_apart("ps", "nobody").err


def test_what_ps_itself_complains_of(box: Box, tmp_path: Path) -> None:
    box.started()
    done = box.call_apart("ps", box.id, "--no-such-option")
    assert done.status == 1 and "ps --no-such-option: exit status 1" in done.err
    done = box.call_apart("ps", box.id, env={**os.environ, "PATH": str(tmp_path)})
    assert done.status == 1 and 'exec: "ps": executable file not found in $PATH' in done.err
    done = box.call_apart("ps", box.id, env={})  # engines call without any
    assert done.status == 0 and len(done.out.splitlines()) == 2


def test_the_column_is_found_by_its_name() -> None:
    text = "TTY  PID CMD\n?     12 a\n?      7 12 b\n? x y\n\n"
    assert table(text, {12}) == "TTY  PID CMD\n?     12 a\n"
    assert table(text, set()) == "TTY  PID CMD\n"
    for bad in ("", "CMD\n12\n"):
        with pytest.raises(Fault, match="couldn't find PID field in ps output"):
            table(bad, {12})
