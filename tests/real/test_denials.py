"""rundlet denials on this machine: what filters did to real containers. What AppArmor does is tried in tests/lab/test_denials_lab.py.

The kernel prints ten records in five seconds and drops the rest (kernel.printk_ratelimit), and other tests have processes killed by filters
too: so what is looked for is done again until it is found.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rundlet
from rundlet.confine.denials.reading import Reader, Unreadable
from rundlet.confine.denials.source import AuditSystem
from tests import bundles
from tests.bundles import Box, eventually


def unreadable() -> str:
    """Why nothing can be told of denials on this machine; "" where it can."""
    reader = Reader(0.0)
    try:
        reader.open()
    except Unreadable as why:
        return str(why)
    reader.close()
    return ""


pytestmark = pytest.mark.skipif(bool(unreadable()), reason=unreadable())


def filtered(box: Box, action: str, *names: str) -> None:
    """Gives the container a filter that does this to these calls."""
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": list(names), "action": action}]}


def told(box: Box, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of denials for the container, and what it tells."""
    done = box.call_apart("denials", box.id, "--json", *options)
    return done.status, json.loads(done.out)["denials"]


def test_a_call_that_kills(box: Box) -> None:
    tried = [box]

    def found() -> bool:
        tried.append(box.another())
        filtered(tried[-1], "SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")
        tried[-1].process["args"] = ["mkdir", "/tmp/x"]
        assert tried[-1].run("--keep").status == 128 + 31
        return told(tried[-1])[0] == 1

    assert eventually(found)
    last = tried[-1]
    [denial] = told(last)[1]
    assert (denial["layer"], denial["verdict"], denial["comm"], denial["container"], denial["count"]) == ("seccomp", "killed", "mkdir", last.id, 1)
    assert denial["rule"] == '{"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}'
    # a filter that names what is permitted has it with that entry; this one names what is not, so there it comes off
    permitted = json.loads(denial["rule"])
    filtered(box, "SCMP_ACT_KILL_PROCESS", *({"mkdir", "mkdirat"} - set(permitted["names"])))
    box.process["args"] = last.process["args"]
    assert box.run().status == 0
    kept = {**box.linux["seccomp"], "defaultAction": "SCMP_ACT_LOG", "syscalls": [permitted]}

    def logged() -> bool:
        tried.append(box.another())
        tried[-1].linux["seccomp"], tried[-1].process["args"] = kept, last.process["args"]
        assert tried[-1].run("--keep").status == 0
        return told(tried[-1])[0] == 1

    assert eventually(logged)  # of what else was called
    assert "mkdir" not in {denial["operation"] for denial in told(tried[-1])[1]}


def test_a_process_that_lives_is_told_by_its_cgroup(box: Box) -> None:
    """Not the first one, whose pid is known."""
    filtered(box, "SCMP_ACT_LOG", "umask")
    box.sh("(while :; do umask 1; sleep 1; done) & wait").started()
    assert eventually(lambda: told(box)[0] == 1)
    for denial in told(box)[1]:
        assert (denial["verdict"], denial["operation"], denial["container"]) == ("allowed", "umask", box.id)
        assert denial["pid"] != box.pid
    box.ended()


def inaudible() -> str:
    """Why the audit system cannot be listened to here; "" where it can."""
    log = AuditSystem()
    log.open(0.0)
    log.close()
    return "" if log.readable else log.said


@pytest.mark.skipif(bool(inaudible()), reason=inaudible())
def test_many_at_once(box: Box) -> None:
    """Who follows hears the audit system itself, of which the kernel's log has ten records in five seconds."""
    filtered(box, "SCMP_ACT_LOG", "umask")
    box.sh("i=0; while [ $i -lt 1000 ]; do umask 1; i=$((i+1)); done; while true; do sleep 1; done").created()
    words = box.words("denials", box.id, "--follow", "--json")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        try:
            assert eventually(lambda: listens(follower.pid))
            assert box.call_apart("start", box.id).status == 0
            counts = [json.loads(follower.stdout.readline())["count"] for _ in range(4)]
        finally:
            follower.send_signal(signal.SIGINT)
    assert counts == [1, 10, 100, 1000]
    box.ended()


def listens(pid: int) -> bool:
    """Whether a process listens to the audit system: a socket of that family and group in /proc/net/netlink."""
    rows = [row.split() for row in Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if (row[1], row[3]) == ("9", "00000001")}
    try:
        return any(os.readlink(fd) in sockets for fd in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False  # one that was closed meanwhile


@pytest.mark.parametrize("name", ["crun", "runc"])
def test_a_container_of_another_runtime(boxes: Callable[..., Box], name: str) -> None:
    """By its first process and its configuration, by the command and from Python."""
    words = bundles.crun() if name == "crun" else [shutil.which("runc") or ""]
    if not words or not words[0]:
        pytest.skip(f"no {name} here")
    box = boxes(words)
    own = Box(box.folder, bundles.words(), box.busybox, id=f"{box.id}-not")
    filtered(box, "SCMP_ACT_LOG", "umask")
    box.sh("(while :; do umask 1; sleep 1; done) & wait").created()
    pid = box.pid
    assert box.call_apart("start", box.id).status == 0

    def told() -> list[dict[str, Any]]:
        done = own.call_apart("denials", "--pid", str(pid), "--config", str(box.bundle), "--json")
        return json.loads(done.out)["denials"] if done.status == 1 else []

    assert eventually(lambda: bool(told()))
    [denial] = told()
    assert (denial["verdict"], denial["operation"], denial["container"]) == ("allowed", "umask", f"pid {pid}")
    assert denial["pid"] != pid, "it is known by the cgroup"
    assert {(one.container, one.pid, one.operation) for one in rundlet.denials(pid, config=box.bundle)} == {(f"pid {pid}", denial["pid"], "umask")}
    assert rundlet.denials(pid, config=json.loads((box.bundle / "config.json").read_text()), since=time.time() + 100) == []


@pytest.mark.parametrize("words", [("--pid", "1"), ("--config", "x"), ("x", "--pid", "1", "--config", "x")])
def test_a_process_is_looked_at_with_a_configuration(box: Box, words: tuple[str, ...]) -> None:
    done = box.call("denials", *words)
    assert (done.status, done.out) == (2, "") and "--pid N with --config FILE" in done.err, done


def test_nothing(box: Box) -> None:
    box.started()
    done = box.call_apart("denials", box.id)
    # the kernel may have dropped records of others meanwhile; then it cannot be told
    said, status = ("no record is left of anything that was denied", 2) if done.err else ("nothing was denied", 0)
    assert done.status == status and done.out.startswith(f"{said} to {box.id} since "), done
    assert all("records are missing" in line or "audit system has lost" in line for line in done.err.splitlines()), done
    box.ended()


def test_no_such_container_and_no_such_time(box: Box) -> None:
    done = box.call("denials", "nobody")
    assert (done.status, done.out) == (2, "") and "container nobody does not exist" in done.err, done
    done = box.call("denials", "--since", "yesterday")
    assert (done.status, done.out) == (2, "") and '"yesterday" is no time' in done.err, done


def test_a_program_that_is_killed_for_a_call_says_so(box: Box) -> None:
    """In the foreground, by run and by exec: the command that fails adds what the kernel's log has."""
    filtered(box, "SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")
    box.sh("while true; do sleep 1; done").started()
    says = [
        "rundlet: seccomp: mkdir called mkdir: the filter kills the process for it (SIGSYS)",
        'rundlet: seccomp: to permit it, in /linux/seccomp/syscalls: {"names": ["mkdir"], "action": "SCMP_ACT_ALLOW"}',
    ]
    # the shell's own message stands before them where the shell is what was run
    assert eventually(lambda: box.call("exec", box.id, "mkdir", "/tmp/x").err.splitlines() == says)
    box.ended()

    def ran() -> bool:
        again = box.another()
        filtered(again, "SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")
        again.process["args"] = ["mkdir", "/tmp/x"]
        done = again.run()
        assert (done.status, done.err == "" or done.err.splitlines() == says) == (128 + 31, True), done
        return bool(done.err)

    assert eventually(ran)


def test_a_program_that_fails_by_itself_says_what_it_says(box: Box) -> None:
    done = box.sh("echo mine >&2; exit 3").run()
    assert (done.status, done.err) == (3, "mine\n"), done


def test_a_failure_without_a_denial_says_one_line(box: Box) -> None:
    box.process["args"] = ["/not-there"]
    done = box.run()
    assert (done.status, done.err) == (127, 'rundlet: exec: "/not-there": no such file or directory\n'), done
