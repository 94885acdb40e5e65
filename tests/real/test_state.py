"""What is on disk and what becomes of it when commands meet, are killed, or find it damaged."""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from rundlet.cgroup import tasks
from rundlet.cgroup.place import place
from rundlet.life import record as record_file
from rundlet.life import store
from tests import bundles
from tests.bundles import CGROUPS, Box, status_of, user_namespace


def spawn(box: Box, *args: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(box.words(*args), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_two_creates_of_one_id(box: Box) -> None:
    box.save()
    both = [spawn(box, "create", "--bundle", str(box.bundle), box.id) for _ in range(3)]
    assert sorted(child.wait() for child in both) == [0, 1, 1]
    assert box.status == "created"


def test_two_starts(box: Box) -> None:
    box.created()
    both = [spawn(box, "start", box.id) for _ in range(3)]
    assert sorted(child.wait() for child in both) == [0, 1, 1]
    assert box.status == "running"


def test_two_deletes(box: Box) -> None:
    box.started()
    both = [spawn(box, "delete", "--force", box.id) for _ in range(3)]
    assert {child.wait() for child in both} == {0}
    assert box.left() == []


def test_two_deletes_of_what_has_ended(box: Box) -> None:
    box.started()
    box.ended()
    deletes = [
        subprocess.Popen(box.words("delete", box.id), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [child.communicate()[1] for child in deletes]
    assert sorted(child.returncode for child in deletes) == [0, 1, 1]
    assert sorted(said) == ["", *[f"rundlet: container {box.id} does not exist\n"] * 2]
    assert box.left() == []


def test_everything_at_once(box: Box) -> None:
    """Whatever the order, each command sees one state or another, and delete has the last word."""
    pid = box.created()
    first = store.stat(pid)
    children = [
        spawn(box, *words)
        for words in (["start", box.id], ["state", box.id], ["exec", box.id, "true"], ["kill", box.id, "KILL"], ["list"], ["state", box.id])
    ]
    for child in children:
        child.wait()
    assert children[1].returncode == 0
    assert children[4].returncode == 0
    box.ok("delete", "--force", box.id)
    assert bundles.eventually(lambda: bundles.reap() == [])
    assert box.left() == []
    last = store.stat(pid)
    assert first and (last is None or last[1] != first[1]), "the pid may be another process's by now"


def test_a_create_under_way_is_waited_for(box: Box) -> None:
    """A hook holds the create back; state does not wait, delete does."""
    gate = box.folder / "gate"
    os.mkfifo(gate)
    box.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"read x < {gate}"]}]}
    box.save()
    create = spawn(box, "create", "--bundle", str(box.bundle), box.id)
    with open(gate, "w") as opened:  # the hook runs
        state = box.call("state", box.id)
        assert (state.status, json.loads(state.out)["status"]) == (0, "creating")
        delete = spawn(box, "delete", "--force", box.id)
        opened.write("go\n")
    assert create.wait() == 0
    assert delete.wait() == 0
    assert bundles.eventually(lambda: bundles.reap() == [])
    assert box.left() == []


def test_the_next_one_of_its_name_is_not_taken_for_the_one_that_was_waited_for(box: Box) -> None:
    """A command that waits for the lock of a container that is being deleted has nothing to do with another one of that name."""
    pid = box.created()
    box.ended()
    folder = box.root / box.id
    with locked(folder):
        deleting = spawn(box, "delete", "--force", box.id)
        assert bundles.eventually(lambda: waits_for_a_lock(deleting.pid))
        shutil.rmtree(folder)  # as the command that holds the lock would
        for cgroup in box.cgroups():
            cgroup.rmdir()
        other = box.created()
    assert deleting.wait() == 0
    assert (box.status, box.pid) == ("created", other)
    assert other != pid


def test_an_exec_that_has_waited_for_resume_writes_down_alone_what_it_is_given(box: Box) -> None:
    """While it waits other commands are at the container; one that replaces the file of the execs must not lose its line."""
    if not CGROUPS["mounts"]:
        pytest.skip("no cgroups")
    box.started()
    box.ok("pause", box.id)
    waiting = spawn(box, "exec", "--ignore-paused", "--detach", "--user", "1000", box.id, "sleep", "1000")
    procs = box.cgroups()[0] / "cgroup.procs"
    assert bundles.eventually(lambda: len(procs.read_text().split()) == 2)
    with locked(box.root / box.id):  # as by another command
        tasks.thaw(place(CGROUPS, str(box.linux["cgroupsPath"]), ""))
        assert bundles.eventually(lambda: waits_for_a_lock(waiting.pid) or waiting.poll() is not None)
        written = box.root / box.id / "execs"
        assert not written.exists()
        other = {"pid": 1, "start": 1, "process": {"user": {"uid": 1, "gid": 1, "umask": None, "additionalGids": []}}, "expect": None}
        written.write_text(json.dumps(other) + "\n")
    assert waiting.wait() == 0
    assert [json.loads(line)["process"]["user"]["uid"] for line in written.read_text().splitlines()] == [1, 1000]
    box.ok("pause", box.id)  # the lock is free again
    box.ok("resume", box.id)


def cut_off(box: Box, verb: str) -> int:
    """Has a start killed that has let its program go, before it has said how that runs: in the wait for the exec, or, of a run, where the
    record of what was seen takes its place (after those of config.json, and of state.json twice). The pid of the first process."""
    when = "recvfrom:signal=KILL:when=1" if verb == "start" else "renameat:signal=KILL:when=4"
    if verb == "start":
        box.created()
        words = box.words("start", box.id)
    else:
        box.save()
        words = box.words("run", "--detach", "--bundle", str(box.bundle), box.id)
    strace = ["strace", "-qq", "-o", os.devnull, "-e", f"inject={when}"]
    killed = subprocess.run([*strace, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    assert killed.returncode == -signal.SIGKILL
    pid = box.pid
    assert bundles.eventually(lambda: bundles.is_busybox(pid))
    assert "observed" not in (record_file.load(str(box.root / box.id)) or {})
    return pid


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.parametrize("verb", ["start", "run"])
def test_a_start_that_was_cut_off_owes_the_look_at_its_program(box: Box, verb: str) -> None:
    """Whoever asks is told; the next command that has to do with what runs looks first."""
    pid = cut_off(box, verb)
    with locked(box.root / box.id):
        assert "unchecked" not in box.state, "a start may be under way"
    state = box.state
    assert (state["status"], state["unchecked"]) == ("running", True)
    listed = box.call_apart("list", "--format", "json")
    assert [row["unchecked"] for row in json.loads(listed.out)] == [True]
    assert f"container {box.id}: its start was cut off before it was looked at how its program runs" in listed.err
    verified = box.call_apart("verify", box.id)
    assert verified.status == 2 and "was cut off before it was looked at" in verified.out, verified
    watched = box.call_apart("watch", "--once")
    assert "was cut off before it was looked at" in watched.out, watched
    assert box.exec("true").status == 0
    assert (box.status, box.pid, "unchecked" in box.state) == ("running", pid, False)
    assert box.call_apart("verify", box.id).status == 0
    assert verb == "run" or json.loads(box.call_apart("record", "--json", box.id).out)["observed"]["noNewPrivileges"] is True


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.parametrize("words", [["start"], ["exec", "true"], ["pause"], ["update", "--pids-limit", "99"]], ids=lambda words: words[0])
def test_what_a_start_that_was_cut_off_has_let_go_is_killed_where_it_is_not_as_decided(box: Box, words: list[str]) -> None:
    cut_off(box, "start")
    file = box.root / box.id / "state.json"
    record = json.loads(file.read_text())
    record["expect"]["seccomp"] = True  # and the kernel has not done it
    file.write_text(json.dumps(record))
    done = box.call_apart(words[0], box.id, *words[1:])
    assert done.status != 0
    assert "the process does not run as was decided and is killed: no seccomp filter is in force" in done.err
    assert bundles.eventually(lambda: box.status == "stopped")


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.parametrize("verb", ["start", "run"])
def test_what_a_start_that_was_cut_off_has_let_go_can_be_killed_and_deleted(box: Box, verb: str) -> None:
    pid = cut_off(box, verb)
    done = box.call_apart("start", box.id)
    assert done.status == 1 and "cannot start a container that is running" in done.err
    box.ok("kill", box.id, "KILL")
    assert status_of(pid) == 128 + signal.SIGKILL
    box.ok("delete", box.id)
    other = box.another()
    cut_off(other, verb)
    other.ok("delete", "--force", other.id)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a container, as a command does."""
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def waits_for_a_lock(pid: int) -> bool:
    """proc_locks(5)."""
    return any(line.split()[1] == "->" and line.split()[5] == str(pid) for line in Path("/proc/locks").read_text().splitlines())


def test_a_run_deletes_no_other_container_than_its_own(box: Box) -> None:
    """While it was stopped, so that it did not see the end, another one of the name has come."""
    box.save()
    run = spawn(box, "run", "--bundle", str(box.bundle), box.id)
    assert bundles.eventually(lambda: box.call("state", box.id).status == 0 and box.status == "running")
    run.send_signal(signal.SIGSTOP)
    box.ok("delete", "--force", box.id)
    other = box.started()
    run.send_signal(signal.SIGCONT)
    assert run.wait() == 128 + signal.SIGKILL
    assert (box.status, box.pid) == ("running", other)


def kinds(box: Box, kind: str) -> None:
    if kind == "users":
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    elif kind == "host pids":
        box.without("pid")
    elif kind == "hooks":
        box.config["hooks"] = {
            name: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 0"]}] for name in ("createRuntime", "createContainer", "poststop")
        }


def gone(box: Box) -> bool:
    return box.left() == []


def spread(count: int) -> list[float]:
    """Moments within the life of a create, the same in each run."""
    return [random.Random(n).uniform(0.001, 0.09) for n in range(count)]


@pytest.mark.parametrize("kind", ["plain", "users", "host pids", "hooks"])
def test_a_killed_create_can_be_deleted(boxes: Callable[..., Box], kind: str) -> None:
    """SIGKILL at whatever moment: what is left is deletable, and nothing is left then."""
    for delay in spread(10):
        box = boxes()
        kinds(box, kind)
        box.save()
        child = spawn(box, "create", "--bundle", str(box.bundle), box.id)
        time.sleep(delay)
        child.kill()
        child.wait()
        done = box.call("delete", "--force", box.id)
        assert (done.status, done.err) == (0, ""), delay
        assert bundles.eventually(lambda: bundles.reap() == []), delay
        assert bundles.eventually(partial(gone, box)), (delay, box.left())


@pytest.mark.skipif(not shutil.which("strace") or not CGROUPS["mounts"], reason="no strace, or no cgroups")
def test_a_killed_create_takes_nobody_elses_processes_along(box: Box) -> None:
    """Its record names a cgroup before it is known that nobody is in there: kill and delete leave those alone that are."""
    pid = box.started()
    other = box.another()
    other.linux["cgroupsPath"] = box.linux["cgroupsPath"]
    other.save()
    words = ["strace", "-qq", "-o", os.devnull, *(word for at in box.cgroups() for word in ("-P", str(at)))]
    words += ["-e", "inject=mkdir:signal=KILL", *other.words("create", "--bundle", str(other.bundle), other.id)]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert other.status == "creating"
    done = other.call("kill", "--all", other.id, "KILL")
    assert (done.status, store.stat(pid) is not None) == (0, True), done
    assert box.status == "running"
    done = other.call("delete", "--force", other.id)
    assert (done.status, box.status) == (0, "running"), done
    assert not (other.root / other.id).exists()
    assert len(box.cgroups()) == len({*CGROUPS["mounts"].values()})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_create_leaves_nothing(boxes: Callable[..., Box], number: int) -> None:
    for delay in spread(8):
        box = boxes()
        box.save()
        child = spawn(box, "create", "--bundle", str(box.bundle), box.id)
        time.sleep(delay)
        child.send_signal(number)
        status = child.wait()
        if status == 0:  # there was no way back any more
            assert box.status == "created"
            box.ok("delete", "--force", box.id)
        assert bundles.eventually(lambda: bundles.reap() == []), delay
        assert box.left() == [], delay


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
@pytest.mark.parametrize("without", [[], ["pid"]])
def test_an_interrupted_create_in_its_hooks_leaves_nothing(box: Box, kind: str, without: list[str]) -> None:
    marker = box.folder / "there"
    box.without(*without)
    box.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"PATH=/bin:/usr/bin; touch {marker}; exec sleep 1000"]}]}
    box.save()
    child = spawn(box, "create", "--bundle", str(box.bundle), box.id)
    assert bundles.eventually(marker.exists)
    child.terminate()
    assert child.wait() == 130
    assert bundles.eventually(lambda: bundles.reap() == [])
    assert box.left() == []


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"version": 1}', b'{"version": "x", "id": 5}'])
def test_a_damaged_record(box: Box, text: bytes) -> None:
    pid = box.started()
    (box.root / box.id / "state.json").write_bytes(text)
    done = box.call("state", box.id)
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert "internal error" not in done.err
    assert box.call("list").status == 0
    assert "internal error" not in box.call("kill", box.id, "KILL").err
    done = box.call("delete", box.id)
    assert done.status == 1
    assert "delete --force" in done.err
    done = box.call("delete", "--force", box.id)
    assert (done.status, done.err) == (0, "")
    assert status_of(pid) == 137
    assert box.left() == []


def test_a_record_of_another_version(box: Box) -> None:
    box.created()
    file = box.root / box.id / "state.json"
    text = file.read_text()
    file.write_text(text.replace('"version":1', '"version":99').replace('"version": 1', '"version": 99'))
    assert file.read_text() != text
    done = box.call("state", box.id)
    assert done.status == 1
    assert "another version of rundlet" in done.err
    file.write_text(text)


def test_a_folder_without_a_record(box: Box) -> None:
    """As a create leaves it that was killed at once."""
    (box.root / box.id).mkdir(parents=True)
    done = box.call("state", box.id)
    assert (done.status, done.out) == (1, "")
    assert f"container {box.id} does not exist yet, or its creation was cut off" in done.err
    assert box.call("delete", box.id).status == 1
    log = box.folder / "log"
    assert box.ok("--log", str(log), "list", "-q").out == ""
    assert f"container {box.id} was never completed; remove it with delete --force" in log.read_text()
    box.ok("delete", "--force", box.id)
    assert box.left() == []


def test_a_pid_used_again(box: Box) -> None:
    """The record tells processes of one number apart by their start."""
    pid = box.started()
    box.ended()
    file = box.root / box.id / "state.json"
    record = json.loads(file.read_text())
    assert record["pid"] == pid
    other = subprocess.Popen(["sleep", "1000"])
    record["pid"] = other.pid
    file.write_text(json.dumps(record))
    assert box.status == "stopped"
    assert "container not running" in box.call("kill", box.id, "KILL").err
    assert "container not running" in box.exec("true").err
    box.ok("delete", "--force", box.id)
    assert other.poll() is None
    other.kill()
    other.wait()


def test_a_zombie_is_stopped(either: Box) -> None:
    pid = either.started()
    os.kill(pid, 9)
    assert bundles.eventually(lambda: (store.stat(pid) or ("?", 0))[0] == "Z")
    assert either.status == "stopped"
    either.ok("delete", either.id)
    assert status_of(pid) == 137
    assert either.left() == []


def test_one_whose_first_thread_has_ended_runs(box: Box) -> None:
    """The letter of its state is a zombie's, and its other threads run."""
    source = box.folder / "threads.c"
    source.write_text("""
        #include <pthread.h>
        #include <unistd.h>
        static void *stays(void *arg) { for (;;) pause(); }
        int main(void) {
            pthread_t thread;
            pthread_create(&thread, 0, stays, 0);
            pthread_exit(0);
        }
    """)
    subprocess.run(["gcc", "-static", "-O1", "-o", str(box.rootfs / "threads"), str(source)], check=True)
    box.process["args"] = ["/threads"]
    pid = box.created()
    box.ok("start", box.id)
    assert bundles.eventually(lambda: bundles.proc_status(pid)["State"].startswith("Z"))
    assert (box.status, box.call("delete", box.id).status) == ("running", 1)
    box.ok("kill", box.id, "KILL")
    assert status_of(pid) == 137
    assert box.status == "stopped"
    box.ok("delete", box.id)
    assert box.left() == []


def test_the_folder_is_roots_alone(box: Box) -> None:
    box.created()
    for path in [box.root, box.root / box.id, *(box.root / box.id).iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_of_root_but_folders_counts(box: Box) -> None:
    box.created()
    (box.root / "stray").write_text("")
    assert box.ok("list", "-q").out.split() == [box.id]
    (box.root / "stray").unlink()


def test_the_bundle_may_go(box: Box) -> None:
    """Commands behind create need no bundle any more."""
    box.started()
    (box.bundle / "config.json").unlink()
    assert box.exec("echo", "x").out == "x\n"
    box.ok("delete", "--force", box.id)


def test_a_bundle_whose_name_is_not_utf_8(box: Box) -> None:
    """Names are bytes to the kernel: the record is none the worse for it, and what is told of the container is JSON."""
    box.save()
    bundle = os.fsencode(box.folder) + b"/caf\xe9"
    os.rename(box.bundle, bundle)
    done = box.call("create", "--bundle", os.fsdecode(bundle), box.id)
    assert (done.status, done.err) == (0, ""), done
    assert os.fsencode(box.state["bundle"]) == bundle
    assert [os.fsencode(one["bundle"]) for one in json.loads(box.ok("list", "--format", "json").out)] == [bundle]
    box.ok("start", box.id)
    assert box.exec("echo", "x").out == "x\n"
    box.ok("delete", "--force", box.id)


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pss(pid: int) -> int:
    """The memory that is a process's own share, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def charged(box: Box) -> int | None:
    """What the container's memory cgroup is charged with; None without one."""
    key = "memory" if "memory" in CGROUPS["mounts"] else "unified"
    if key not in CGROUPS["mounts"]:
        return None
    at = Path(CGROUPS["mounts"][key], str(box.linux["cgroupsPath"]).strip("/"))
    for name in ("memory.usage_in_bytes", "memory.current"):
        if (at / name).exists():
            return int((at / name).read_text())
    return None


MEMORY = "memory" in CGROUPS["mounts"] or "memory" in CGROUPS["controllers"]


def test_a_waiting_container_is_small(box: Box) -> None:
    pid = box.created()
    assert pss(pid) < 1 << 20
    if MEMORY:
        used = charged(box)
        assert used is not None and used < 1 << 20


@pytest.mark.skipif(not MEMORY, reason="no memory controller here")
@pytest.mark.parametrize("more", [{}, {"pids": {"limit": 1}}])
def test_a_container_of_one_megabyte(box: Box, more: dict[str, object]) -> None:
    box.linux["resources"] = {"memory": {"limit": 1 << 20}, **more}
    box.process["args"] = ["/bin/true"]
    done = box.run()
    assert (done.status, done.err) == (0, "")


@pytest.mark.skipif("pids" not in CGROUPS["mounts"] and "pids" not in CGROUPS["controllers"], reason="no pids controller here")
def test_a_container_of_one_process(box: Box) -> None:
    box.linux["resources"] = {"pids": {"limit": 1}}
    done = box.sh("echo alone; (echo second); true").run()
    assert done.out == "alone\n"
    assert "fork" in done.err
