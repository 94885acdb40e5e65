"""pause and resume: what a frozen container does, and what may be done to it."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box

V2 = bundles.CGROUPS["layout"] == "v2"
BUSY = "n=0; while :; do n=$((n+1)); echo $n >/tmp/n; done"


def ticks(pid: int) -> int:
    """The CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def frozen(box: Box) -> bool:
    """What the kernel says of the container's cgroup."""
    return "frozen 1" in box.held("", "cgroup.events") if V2 else box.held("freezer.state", "") == "FROZEN"


def quiet(box: Box, *words: str) -> None:
    """A command that succeeds without a word."""
    done = box.call_apart(*words, box.id)
    assert (done.status, done.out, done.err) == (0, "", ""), done


def test_pause_and_resume(box: Box) -> None:
    pid = box.sh(BUSY).started()
    assert bundles.eventually(lambda: ticks(pid) > 2)
    quiet(box, "pause")
    assert frozen(box), "when pause returns, everything stands still"
    before = ticks(pid)
    assert box.status == "paused"
    listed = box.call_apart("list").out.splitlines()[1].split()
    assert listed[:3] == [box.id, str(pid), "paused"]
    assert ticks(pid) == before
    quiet(box, "resume")
    assert (frozen(box), box.status) == (False, "running")
    assert bundles.eventually(lambda: ticks(pid) > before + 2)


def test_a_state_that_does_not_fit(box: Box) -> None:
    pid = box.created()
    assert "container not paused" in box.call_apart("resume", box.id).err
    quiet(box, "pause")
    assert box.status == "paused"
    done = box.call_apart("start", box.id)
    assert done.status == 1 and "whose cgroup is frozen" in done.err
    done = box.call_apart("pause", box.id)
    assert done.status == 1 and "container not running" in done.err
    quiet(box, "resume")
    assert box.status == "created"
    quiet(box, "start")
    box.ended()
    for verb, words in (("pause", "container not running"), ("resume", "container not paused")):
        done = box.call_apart(verb, box.id)
        assert done.status == 1 and words in done.err
        assert "does not exist" in box.call_apart(verb, "nobody").err
    assert not Path(f"/proc/{pid}").exists()


def test_exec_is_refused(box: Box) -> None:
    box.started()
    quiet(box, "pause")
    done = box.exec("echo", "ok")
    assert (done.status, done.out) == (255, "")
    assert "cannot exec in a paused container (use --ignore-paused to override)" in done.err


def test_exec_that_ignores_it_runs_when_it_is_resumed(box: Box) -> None:
    box.started()
    quiet(box, "pause")
    with subprocess.Popen(box.words("exec", "--ignore-paused", box.id, "echo", "ok"), stdout=subprocess.PIPE, text=True) as child:
        procs = box.cgroups()[0] / "cgroup.procs"
        assert bundles.eventually(lambda: len(procs.read_text().split()) == 2)
        assert child.poll() is None
        quiet(box, "resume")  # no other command has to wait for it
        assert child.communicate(timeout=bundles.PATIENCE)[0] == "ok\n"
    assert child.returncode == 0


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [["--detach"], [], ["--tty"]], ids=["detached", "foreground", "terminal"])
def test_exec_that_is_interrupted_leaves_nothing(box: Box, options: list[str], signo: signal.Signals) -> None:
    box.started()
    quiet(box, "pause")
    words = box.words("exec", *options, "--ignore-paused", box.id, "echo", "ok")
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    procs = box.cgroups()[0] / "cgroup.procs"
    assert bundles.eventually(lambda: len(procs.read_text().split()) == 2)
    child.send_signal(signo)
    assert child.communicate(timeout=bundles.PATIENCE)[0] == b""
    assert child.returncode != 0
    assert bundles.eventually(lambda: len(procs.read_text().split()) == 1)
    assert box.status == "paused"


def test_kill_reaches_a_paused_container(box: Box) -> None:
    pid = box.started()
    quiet(box, "pause")
    done = box.call_apart("kill", box.id, "TERM")
    assert (done.status, done.err) == (0, "")
    done = box.call_apart("kill", box.id, "KILL")
    assert (done.status, done.err) == (0, "")
    assert bundles.status_of(pid) in (128 + signal.SIGKILL, 128 + signal.SIGTERM)
    assert box.status == "stopped"


@pytest.mark.parametrize("processes", [1, 3])
def test_delete_by_force_does_not_hang(box: Box, processes: int) -> None:
    pid = box.sh("sleep 1000 & " * (processes - 1) + "exec sleep 1000").started()
    assert bundles.eventually(lambda: len((box.cgroups()[0] / "cgroup.procs").read_text().split()) == processes)
    quiet(box, "pause")
    done = box.call_apart("delete", box.id)
    assert done.status == 1 and "paused; stop it first" in done.err
    done = box.call_apart("delete", "--force", box.id)
    assert (done.status, done.err) == (0, "")
    assert bundles.status_of(pid) == 128 + signal.SIGKILL
    assert box.left() == []


def test_what_the_container_has_frozen_stays_so(box: Box) -> None:
    """A sub-cgroup that is frozen by itself is not thawed with the container, and delete removes it all the same."""
    pid = box.sh("sleep 1000 & exec sleep 1000").started()
    assert bundles.eventually(lambda: len(bundles.children(pid)) == 1)
    inner = box.limit("freezer.state", "cgroup.freeze").parent
    (inner / "inside").mkdir()
    file, word = ("cgroup.freeze", "1") if V2 else ("freezer.state", "FROZEN")
    (inner / "inside/cgroup.procs").write_text(str(bundles.children(pid)[0]))
    (inner / "inside" / file).write_text(word)
    quiet(box, "pause")
    quiet(box, "resume")
    assert (inner / "inside" / file).read_text().strip() == word
    assert box.call_apart("delete", "--force", box.id).status == 0
    assert bundles.status_of(pid) == 128 + signal.SIGKILL
    assert box.left() == []


def test_a_cgroup_that_is_frozen_takes_no_container(boxes: Callable[..., Box]) -> None:
    box = boxes()
    mount = bundles.CGROUPS["mounts"]["unified" if V2 else "freezer"]
    at = Path(f"{mount}/{box.id}")
    at.mkdir()
    try:
        (at / ("cgroup.freeze" if V2 else "freezer.state")).write_text("1" if V2 else "FROZEN")
        done = box.create()
        assert done.status == 1 and "container's cgroup unexpectedly frozen" in done.err
    finally:
        at.rmdir()
    assert box.left() == []


@pytest.mark.elsewhere
@pytest.mark.skipif(V2, reason="of two freezers for one process only cgroup v1 knows")
def test_delete_by_force_of_what_somebody_else_has_frozen(box: Box) -> None:
    """In a cgroup of v1 that is not the container's a killed process would stay for ever."""
    pid = box.started()
    other = Path(f"{bundles.CGROUPS['mounts']['freezer']}/{box.id}-other")
    other.mkdir()
    try:
        (other / "cgroup.procs").write_text(str(pid))
        (other / "freezer.state").write_text("FROZEN")
        box.ok("delete", "--force", box.id)
        assert bundles.status_of(pid) == 128 + signal.SIGKILL
    finally:
        (other / "freezer.state").write_text("THAWED")
        other.rmdir()
    assert box.left() == []
