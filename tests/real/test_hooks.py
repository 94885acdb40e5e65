"""Hooks: which run when and where, what they are told, and what becomes of the container when one fails."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box, status_of

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
BEFORE_START = ("prestart", "createRuntime", "createContainer")


def hook(box: Box, script: str, **more: Any) -> dict[str, Any]:
    """A hook that is a shell script; of the host, but startContainer finds the same shell in the container."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], **more}


def trace(box: Box) -> Path:
    """A file that every hook can write: in the container it is /log."""
    log = box.rootfs / "log"
    log.touch()
    return log


def all_kinds(box: Box, script: str) -> None:
    """Two hooks of each kind."""
    log = trace(box)
    box.config["hooks"] = {
        kind: [hook(box, f"log={'/log' if kind == 'startContainer' else log}; hook={kind}{n}; {script}") for n in range(2)]
        for kind in KINDS
    }


def lines(box: Box) -> list[str]:
    return (box.rootfs / "log").read_text().splitlines()


def test_the_order(box: Box) -> None:
    all_kinds(box, "cat > /dev/null; echo $hook >> $log")
    done = box.sh("echo process >> /log").run()
    assert (done.status, done.err) == (0, "")
    found = lines(box)
    first = [kind + str(n) for kind in ("prestart", "createRuntime", "createContainer", "startContainer") for n in range(2)]
    # the process and the poststart hooks run side by side
    assert [line for line in found if line != "process"] == [*first, "poststart0", "poststart1", "poststop0", "poststop1"]
    assert found.index("process") > found.index("startContainer1")


def test_each_runs_at_its_time(box: Box) -> None:
    all_kinds(box, "cat > /dev/null; echo $hook >> $log")
    pid = box.created()
    assert lines(box) == [kind + str(n) for kind in BEFORE_START for n in range(2)]
    done = box.call_apart("start", box.id)
    assert done.status == 0
    assert lines(box)[6:] == ["startContainer0", "startContainer1", "poststart0", "poststart1"]
    box.call_apart("kill", box.id, "KILL")
    status_of(pid)
    assert len(lines(box)) == 10
    box.ok("delete", box.id)
    assert lines(box)[10:] == ["poststop0", "poststop1"]


def test_the_state_they_are_told(box: Box) -> None:
    box.config["annotations"] = {"a": "b"}
    all_kinds(box, 'state=$(cat); echo "$hook $state" >> $log')
    pid = box.started()
    box.ended()
    box.ok("delete", box.id)
    told = {line.partition(" ")[0]: json.loads(line.partition(" ")[2]) for line in lines(box)}
    assert len(told) == 12
    for name, state in told.items():
        assert {key: state[key] for key in ("ociVersion", "id", "bundle", "annotations")} == {
            "ociVersion": "1.0.2",
            "id": box.id,
            "bundle": str(box.bundle),
            "annotations": {"a": "b"},
        }, name
    assert {name.rstrip("01"): state["status"] for name, state in told.items()} == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }
    assert {state["pid"] for name, state in told.items() if not name.startswith("poststop")} == {pid}


def test_the_namespaces_they_run_in(either: Box) -> None:
    all_kinds(
        either,
        "cat > /dev/null; echo $hook $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/net) $(readlink /proc/self/ns/uts) >> $log",
    )
    pid = either.started()
    theirs = [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("mnt", "net", "uts")]
    ours = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "net", "uts")]
    either.ended()
    either.ok("delete", either.id)
    for line in lines(either):
        name, *found = line.split()
        if name[:-1] in ("createContainer", "startContainer"):
            assert found == theirs, name
        elif either.runtime == bundles.words() or name[:-1] != "poststop":
            assert (found if either.runtime == bundles.words() else found[1:]) == (
                ours if either.runtime == bundles.words() else ours[1:]
            ), name


def test_the_root_is_populated_and_not_yet_entered(box: Box) -> None:
    """createContainer hooks are of the host, in the container's mount namespace: what they mount below the root is the container's."""
    log = trace(box)
    (box.rootfs / "late").mkdir()
    script = f"cat > /dev/null; mount -t tmpfs late {box.rootfs}/late && touch {box.rootfs}/late/file; [ -e {box.rootfs}/proc/1 ] && echo proc >> {log}; pwd >> {log}"
    box.config["hooks"] = {"createContainer": [hook(box, script)]}
    assert box.says("ls /late") == "file\n"
    assert lines(box)[0] == "proc"
    assert os.listdir(box.rootfs / "late") == []


def test_hooks_before_entering_see_the_namespaces_of_the_process(box: Box) -> None:
    """An engine's network plugins work this way: by the pid in the state."""
    log = trace(box)
    box.config["hooks"] = {
        "createRuntime": [
            hook(
                box,
                f"pid=$(tr ',' '\\n' | grep '\"pid\"' | tr -dc 0-9); readlink /proc/$pid/ns/net >> {log}; ls {box.rootfs}/proc | wc -l >> {log}",
            )
        ]
    }
    pid = box.created()
    assert lines(box) == [os.readlink(f"/proc/{pid}/ns/net"), "0"]


def test_environment_and_arguments(either: Box) -> None:
    log = trace(either)
    probe = either.folder / "probe"
    probe.write_text(f'#!/bin/sh\necho "$0 $*" >> {log}\ntr "\\0" "\\n" < /proc/$$/environ | grep -v "^_=" | sort >> {log}\n')
    probe.chmod(0o755)
    either.config["hooks"] = {
        "createRuntime": [{"path": str(probe), "args": ["name", "one", "two words"], "env": ["A=1", "PATH=/usr/bin:/bin"]}]
    }
    either.created()
    found = lines(either)
    assert found[0] == f"{probe} one two words"
    assert [line for line in found[1:] if line[:4] != "PWD=" and line[:4] != "OLDP" and line[:4] != "SHLV"] == ["A=1", "PATH=/usr/bin:/bin"]


def test_a_hook_that_reads_nothing(box: Box) -> None:
    box.config["annotations"] = {f"k{n}": "x" * 1000 for n in range(200)}
    box.config["hooks"] = {kind: [hook(box, "exit 0")] for kind in KINDS}
    assert box.sh("true").run().status == 0


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
@pytest.mark.parametrize("number", [0, 1])
def test_one_that_fails_fails_the_container(box: Box, kind: str, number: int) -> None:
    log = trace(box)
    good, bad = hook(box, "exit 0"), hook(box, "echo to the user >&2; exit 3")
    box.config["hooks"] = {
        kind: [good, bad, hook(box, f"echo no >> {log}")][1 - number :],
        "poststop": [hook(box, f"echo poststop >> {log}")],
    }
    done = box.create()
    if kind in BEFORE_START:
        assert done.status == 1
    else:
        assert done.status == 0
        done = box.call_apart("start", box.id)
    assert done.status == 1
    assert f"error running {kind} hook #{number}:" in done.err
    assert done.err.count("\n") == 1
    assert bundles.reap() == []
    assert box.left() == []
    assert lines(box) == ["poststop"]


@pytest.mark.parametrize("kind", [*BEFORE_START, "poststart"])
def test_what_a_failed_one_said_is_shown(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [hook(box, "echo to the user >&2; exit 3")]}
    done = box.run()
    assert done.status == 1
    assert "to the user" in done.err
    assert kind == "createContainer" or "exit status 3" in done.err
    assert box.left() == []


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
def test_run_leaves_nothing_of_a_container_whose_hook_failed(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [hook(box, "exit 1")]}
    done = box.run()
    assert done.status == 1
    assert f"error running {kind} hook #0:" in done.err
    assert bundles.reap() == []
    assert box.left() == []


def test_poststop_hooks_that_fail_are_warned_about(box: Box) -> None:
    log = trace(box)
    box.config["hooks"] = {"poststop": [hook(box, "echo bad >&2; exit 3"), hook(box, f"echo second >> {log}")]}
    box.started()
    box.ended()
    text = box.folder / "runtime.log"
    done = box.call("--log", str(text), "delete", box.id)
    assert (done.status, done.err) == (0, "")
    assert lines(box) == ["second"]
    assert "level=warning" in text.read_text()
    assert "error running poststop hook #0:" in text.read_text()


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer", "poststart"])
def test_a_timeout_kills(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [hook(box, "exec sleep 1000", timeout=1)]}
    done = box.run()
    assert done.status == 1
    assert f"error running {kind} hook #0:" in done.err
    assert bundles.reap() == []
    assert box.left() == []


@pytest.mark.parametrize("kind", [*BEFORE_START, "startContainer"])
def test_one_that_is_not_there(box: Box, kind: str) -> None:
    box.config["hooks"] = {kind: [{"path": "/no/such/hook"}]}
    done = box.run()
    assert done.status == 1
    assert f"error running {kind} hook #0:" in done.err
    assert "/no/such/hook" in done.err
    assert box.left() == []


def test_one_that_is_killed(box: Box) -> None:
    box.config["hooks"] = {"createRuntime": [hook(box, "kill -9 $$")]}
    assert "killed by signal 9" in box.run().err


def test_one_may_leave_a_process_behind(box: Box) -> None:
    """Nobody waits for it."""
    box.config["hooks"] = {"createRuntime": [hook(box, "sleep 1000 & exit 0")]}
    assert box.sh("true").run().status == 0
    left = bundles.children()
    assert len(left) == 1
    bundles.kill_all(left)


def test_in_a_user_namespace(box: Box) -> None:
    bundles.user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    all_kinds(box, "cat > /dev/null; echo $hook $(id -u) >> $log")
    trace(box).chmod(0o666)
    closed = [folder for folder in box.rootfs.parents if not folder.stat().st_mode & 0o001]
    for folder in closed:
        folder.chmod(0o711)
    try:
        done = box.sh("true").run()
    finally:
        for folder in closed:
            folder.chmod(0o700)
    assert (done.status, done.err) == (0, "")
    assert {line.split()[1] for line in lines(box)} == {"0"}
    assert [line.split()[0] for line in lines(box)] == [kind + str(n) for kind in KINDS for n in range(2)]
