"""A container's way from create to delete, as engines take it, and what the commands answer."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import CGROUPS, Box, proc_status, status_of


def test_create_start_kill_delete(either: Box) -> None:
    pid = either.created()
    state = either.state
    assert {key: state[key] for key in ("id", "status", "bundle")} == {"id": either.id, "status": "created", "bundle": str(either.bundle)}
    assert pid in bundles.children()  # an engine waits for it as for a child
    either.ok("start", either.id)
    either.executed(pid)
    assert either.status == "running"
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00"
    either.ok("kill", either.id, "KILL")
    assert status_of(pid) == 137
    assert either.status == "stopped"
    either.ok("delete", either.id)
    assert either.left() == []


def test_state_is_what_the_specification_says(box: Box) -> None:
    box.config["annotations"] = {"com.example.key": "ä"}
    pid = box.created()
    state = box.state
    created = state.pop("created")
    assert created.endswith("Z")
    assert state == {
        "ociVersion": "1.0.2",
        "id": box.id,
        "status": "created",
        "pid": pid,
        "bundle": str(box.bundle),
        "rootfs": str(box.rootfs),
        "owner": "root",
        "annotations": {"com.example.key": "ä"},
    }
    box.ended()
    assert box.state["pid"] == 0
    assert box.state["status"] == "stopped"


def test_run_in_the_foreground(either: Box) -> None:
    done = either.sh("echo out; echo err >&2; cat; exit 7").run(input="in\n")
    assert (done.status, done.out, done.err) == (7, "out\nin\n", "err\n")
    assert either.left() == []


@pytest.mark.parametrize("signal", [9, 15])
def test_status_of_a_killed_container(either: Box, signal: int) -> None:
    # the first process of a PID namespace ignores signals from within it, so it has none of its own here
    either.without("pid")
    assert either.sh(f"kill -{signal} $$").run().status == 128 + signal


def test_run_detached(either: Box) -> None:
    pid_file = either.folder / "pid"
    either.sh("exec sleep 1000")
    done = either.run("--detach", "--pid-file", str(pid_file))
    assert (done.status, done.err) == (0, "")
    pid = int(pid_file.read_text())
    assert either.state["status"] == "running"
    assert either.pid == pid
    assert pid in bundles.children()
    either.ended()
    either.ok("delete", either.id)
    assert either.left() == []


def test_run_keeps_what_it_is_told_to(box: Box) -> None:
    """Its folder, its cgroup, and its name; not what could not be started."""
    said = box.folder / "said"
    box.config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"echo stop >> {said}"]}]}
    assert box.sh("exit 3").run("--keep").status == 3
    assert (box.status, box.pid, bool(box.cgroups()), said.exists()) == ("stopped", 0, CGROUPS["layout"] != "none", False)
    again = box.run("--keep")
    assert again.status == 1 and f"container with the id {box.id} already exists" in again.err
    box.ok("delete", box.id)
    assert (box.left(), said.read_text()) == ([], "stop\n")
    box.process["args"] = ["/nothere"]
    assert box.run("--keep").status == 127
    assert box.left() == []


def test_run_of_a_container_that_somebody_else_deletes(either: Box) -> None:
    """Its status is the program's, and what has the container's name by then is left alone."""
    either.sh("echo ready; exec sleep 1000").save()
    with subprocess.Popen(either.words("run", "--bundle", str(either.bundle), either.id), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"ready\n"
        # once it has let go of the container; crun may not even have written down yet that there is one
        assert bundles.eventually(lambda: either.call("kill", either.id, "0").status == 0)
        child.send_signal(signal.SIGSTOP)
        try:
            either.ok("delete", "--force", either.id)
            if either.runtime == bundles.words():  # crun would end that one
                either.created()
        finally:
            child.send_signal(signal.SIGCONT)
        assert (*child.communicate(), child.returncode) == (b"", b"", 137)
    if either.runtime == bundles.words():
        assert either.status == "created"


def test_a_command_that_waits_for_a_container_that_goes(box: Box) -> None:
    """One of the same name that comes meanwhile is not what it was told to act upon."""
    gate = box.folder / "gate"
    os.mkfifo(gate)
    box.config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f"read x < {gate}"]}]}
    box.started()
    delete = subprocess.Popen(box.words("delete", "--force", box.id))
    with open(gate, "w") as opened, subprocess.Popen(box.words("kill", box.id, "KILL"), stderr=subprocess.PIPE, text=True) as waits:
        assert bundles.eventually(lambda: any("->" in line and str(waits.pid) in line.split() for line in Path("/proc/locks").read_text().splitlines()))
        waits.send_signal(signal.SIGSTOP)
        try:
            opened.write("go\n")
            opened.flush()
            assert delete.wait() == 0
            box.config["hooks"] = {}
            pid = box.created()
        finally:
            waits.send_signal(signal.SIGCONT)
        assert waits.communicate()[1] == f"rundlet: container {box.id} does not exist\n"
        assert waits.returncode == 1
    assert (box.status, box.pid) == ("created", pid)


@pytest.mark.parametrize("fails", ["program", "startContainer", "poststart"])
@pytest.mark.parametrize("options", [[], ["--detach"]], ids=["foreground", "detached"])
def test_a_run_that_fails_leaves_no_pid_file(box: Box, fails: str, options: list[str]) -> None:
    if fails == "program":
        (box.rootfs / "text").write_text("hello")
        (box.rootfs / "text").chmod(0o755)
        box.process["args"] = ["/text"]
    else:
        box.config["hooks"] = {fails: [{"path": "/bin/false"}]}
    done = box.run(*options, "--pid-file", str(box.folder / "init.pid"))
    assert done.status == (126 if fails == "program" else 1)
    assert "while cleaning up" not in done.err
    assert not [name for name in os.listdir(box.folder) if name.startswith("init.pid")]
    assert (box.left(), bundles.reap()) == ([], [])


def test_the_pid_file_has_no_newline_and_is_where_the_caller_is(box: Box) -> None:
    box.save()
    box.ok("create", "--bundle", str(box.bundle), "--pid-file", "init.pid", box.id, cwd=box.folder)
    assert (box.folder / "init.pid").read_text() == str(box.pid)
    assert (box.folder / "init.pid").stat().st_mode & 0o777 == 0o644
    assert not [name for name in os.listdir(box.folder) if name.startswith("init.pid.")]


def test_the_bundle_is_where_the_caller_is(box: Box) -> None:
    box.sh("exit 5").save()
    assert box.call("run", box.id, cwd=box.bundle).status == 5


def test_another_configuration_in_the_bundle(box: Box) -> None:
    box.sh("exit 5").save()
    os.rename(box.bundle / "config.json", box.folder / "other.json")
    assert box.call("run", "--config", str(box.folder / "other.json"), "--bundle", str(box.bundle), box.id).status == 5
    assert box.call("run", "-f", "other.json", "-b", box.id, box.id, cwd=box.folder).status == 5  # both relative to the caller's folder


def test_a_pid_file_that_cannot_be_written_fails_the_create(box: Box) -> None:
    done = box.create("--pid-file", "/nonexistent/pid")
    assert done.status == 1
    assert "cannot write the pid file /nonexistent/pid: no such file or directory" in done.err
    assert box.left() == []


@pytest.mark.parametrize(
    ("args", "words", "status"),
    [
        (["nothere"], 'exec: "nothere": executable file not found in $PATH', 127),
        (["/nothere"], 'exec: "/nothere": no such file or directory', 127),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied', 126),
        (["/etc"], 'exec: "/etc": permission denied: is a directory', 126),
        (["/etc/passwd/x"], 'exec: "/etc/passwd/x": no such file or directory', 127),
        (["/text"], 'exec: "/text": exec format error', 126),
        (["/script"], 'exec /script: no such file or directory: is the interpreter or loader that it names missing?', 127),
        (["/loop"], 'exec: "/loop": too many levels of symbolic links', 126),
    ],
)
@pytest.mark.parametrize("verb", ["run", "create"])
def test_programs_that_cannot_be_executed(box: Box, verb: str, args: list[str], words: str, status: int) -> None:
    for name, text in (("text", "hello"), ("script", "#!/no/such/interpreter\n")):
        (box.rootfs / name).write_text(text)
        (box.rootfs / name).chmod(0o755)
    (box.rootfs / "loop").symlink_to("loop")
    box.process["args"] = args
    done = box.run() if verb == "run" else box.create()
    if args[0] in ("/text", "/script") and verb == "create":  # known only once it is tried
        assert done.status == 0
        done = box.call("start", box.id)
        assert box.status == "stopped"
        box.ok("delete", box.id)
    assert words in done.err
    assert done.err.count("\n") == 1
    assert done.status == status
    assert box.left() == []


def test_the_program_is_looked_for_in_the_path_of_the_process(box: Box) -> None:
    (box.rootfs / "opt").mkdir()
    (box.rootfs / "opt/prog").write_text("#!/bin/sh\necho opt\n")
    (box.rootfs / "opt/prog").chmod(0o755)
    (box.rootfs / "bin/prog").mkdir()  # a directory of that name is none
    box.process["args"] = ["prog"]
    box.process["env"] = ["PATH=/nothere:/bin:/opt"]
    assert box.run().out == "opt\n"
    box.process["env"] = ["PATH=:/bin"]
    box.process["cwd"] = "/opt"
    assert box.run().out == "opt\n"


def test_the_process_is_the_one_that_was_created(box: Box) -> None:
    """What is written into the bundle between create and start changes nothing."""
    box.sh("echo first")
    pid = box.created()
    box.sh("echo second").save()
    box.call_apart("start", box.id)
    assert status_of(pid) == 0
    assert box.output.read_text() == "first\n"


def test_start_refuses_what_is_not_created(either: Box) -> None:
    either.started()
    again = either.call("start", either.id)
    assert again.status == 1
    if either.runtime == bundles.words():
        assert "cannot start a container that is running" in again.err
    assert either.status == "running"


def test_delete_refuses_what_runs(either: Box) -> None:
    either.started()
    done = either.call("delete", either.id)
    assert done.status == 1
    if either.runtime == bundles.words():
        assert f"cannot delete container {either.id} that is not stopped: running" in done.err
    assert either.status == "running"
    either.ok("delete", "--force", either.id)
    assert either.left() == []


def test_delete_of_a_created_container(either: Box) -> None:
    """The specification would have this fail; engines rely on the peers, which do it."""
    either.created()
    either.ok("delete", either.id)
    assert either.left() == []


def test_delete_force_ends_all_processes_and_sub_cgroups(box: Box) -> None:
    box.without("pid")
    box.mount("/sys/fs/cgroup", "cgroup", "rw", kind="cgroup")
    box.sh(
        "for i in 1 2 3; do setsid sleep 1000 & done; for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/in/er -p; done; echo ready; wait"
    )
    box.process["capabilities"]["bounding"] = box.process["capabilities"]["effective"] = box.process["capabilities"]["permitted"] = [
        "CAP_SYS_ADMIN"
    ]
    box.started()
    assert bundles.eventually(lambda: "ready" in box.output.read_text())
    box.ok("delete", "--force", box.id)
    assert box.left() == []


def test_unknown_containers(box: Box) -> None:
    for verb in ("state", "start", "kill", "delete"):
        done = box.call(verb, "unknown")
        assert done.status == 1
        assert "container unknown does not exist" in done.err
    done = box.call("exec", "unknown", "true")
    assert done.status == 255
    assert "container unknown does not exist" in done.err
    assert box.call("delete", "--force", "unknown").status == 0


def test_kill_of_a_stopped_container(either: Box) -> None:
    either.started()
    either.ended()
    done = either.call("kill", either.id, "TERM")
    assert done.status == 1
    if either.runtime == bundles.words():
        assert "container not running" in done.err


@pytest.mark.parametrize("words", [["TERM"], ["SIGTERM"], ["15"], ["sigterm"], [], [""]])
def test_kill_by_name_and_number(box: Box, words: list[str]) -> None:
    box.sh("trap 'exit 42' TERM; echo ready; while :; do sleep 0.01; done")
    pid = box.started()
    assert bundles.eventually(lambda: box.output.read_text() == "ready\n")
    box.call_apart("kill", box.id, *words)
    assert status_of(pid) == 42


@pytest.mark.parametrize("name", ["NOTHING", "65", "-1", "²", "１", "RTMIN+²", "RTMIN+31", "99999999999"])
def test_kill_refuses_what_is_no_signal(box: Box, name: str) -> None:
    box.created()
    done = box.call("kill", box.id, name)
    assert done.status == 1
    assert done.err == f"rundlet: unknown signal {name}; give a number from 1 to 64 or a name such as TERM\n"
    assert box.status == "created"


def test_kill_all(box: Box) -> None:
    box.without("pid")
    box.sh("sleep 1000 & sleep 1000 & echo ready; wait; exit 9")
    pid = box.started()
    assert bundles.eventually(lambda: box.output.read_text() == "ready\n")
    assert len(bundles.children(pid)) == 2
    box.ok("kill", "--all", box.id, "KILL")
    assert status_of(pid) == 137
    assert bundles.eventually(lambda: bundles.reap() == [])
    box.ok("kill", "--all", box.id, "KILL")  # of one that has ended there is nobody, and that is as well: runc
    assert "container not running" in box.call("kill", box.id, "KILL").err


def test_kill_all_reaches_those_that_outlive_the_first(box: Box) -> None:
    box.without("pid")
    box.sh("sleep 1000 & exit 0")
    assert status_of(box.started()) == 0
    assert len(bundles.children()) == 1
    box.ok("kill", "--all", box.id, "KILL")
    assert bundles.eventually(lambda: bundles.reap() == [])


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
@pytest.mark.parametrize("kinds", [[], ["pid"]], ids=["first of its namespace", "shared"])
def test_a_created_container_ends_by_signals_that_end_programs(box: Box, name: str, kinds: list[str]) -> None:
    box.without(*kinds)
    pid = box.created()
    box.ok("kill", box.id, name)
    assert status_of(pid) in (143, 128 + signal.Signals[f"SIG{name}"])
    assert box.status == "stopped"
    assert "cannot start" in box.call("start", box.id).err
    box.ok("delete", box.id)


def test_the_program_handles_signals_as_it_likes(box: Box) -> None:
    """What waited for start has left nothing behind: no signal is blocked or ignored."""
    pid = box.started()
    status = proc_status(pid)
    assert {status[key] for key in ("SigBlk", "SigIgn", "SigCgt")} == {"0" * 16}


def test_kill_of_a_container_that_shares_pids(box: Box) -> None:
    """KILL is for all of it, first process or not, where the kernel does not end the others with the first; another signal is not."""
    box.without("pid")
    box.sh("sleep 1000 & echo ready; wait").started()
    assert bundles.eventually(lambda: box.output.read_text() == "ready\n")
    for _ in range(2):
        assert box.exec("--detach", "--", "sleep", "1000").status == 0
    everybody = [int(pid) for pid in (box.cgroups()[0] / "cgroup.procs").read_text().split()]
    assert len(everybody) == 4
    box.call("kill", box.id, "USR1")
    assert bundles.eventually(lambda: box.status == "stopped")
    assert "container not running" in box.call("kill", box.id, "TERM").err
    left = (box.cgroups()[0] / "cgroup.procs").read_text().split()
    assert len(left) == 3, "without its first process the container goes on"
    box.ok("kill", box.id, "KILL")
    assert bundles.eventually(lambda: bundles.reap() == [])
    assert not (box.cgroups()[0] / "cgroup.procs").read_text()
    assert "container not running" in box.call("kill", box.id, "KILL").err


def test_what_the_first_process_leaves_is_ended_with_it(box: Box) -> None:
    """In the foreground, without a PID namespace: it has been waited for, and its number is still that of a session."""
    box.without("pid")
    done = box.sh("sleep 1000 >/dev/null 2>&1 & exit 7").run()
    assert (done.err, done.status) == ("", 7)
    assert bundles.eventually(lambda: bundles.reap() == [])
    assert box.cgroups() == []
    assert not (box.root / box.id).exists()


@pytest.mark.parametrize("name", ["RTMIN+3", "SIGRTMIN+3", "rtmin+3", "37", "RTMAX-27"])
def test_kill_with_a_realtime_signal(box: Box, name: str) -> None:
    box.process["args"] = ["sleep", "1000"]
    box.without("pid")  # the first of a namespace is deaf to signals that it has no handler for
    pid = box.started()
    box.ok("kill", box.id, name)
    assert status_of(pid) == 128 + 37


@pytest.mark.parametrize("state", ["created", "running", "stopped"])
def test_kill_and_delete_in_every_state(either: Box, state: str) -> None:
    pid = either.created() if state == "created" else either.started()
    if state == "stopped":
        either.ended()
    done = either.call("kill", either.id, "KILL")
    if state == "stopped":
        assert done.status == 1
        if either.runtime == bundles.words():
            assert done.err == "rundlet: container not running\n"
    else:
        assert (done.status, done.err) == (0, "")
        assert status_of(pid) == 137
    either.ok("delete", either.id)
    assert either.call("delete", either.id).status == 1
    assert either.left() == []


# ── by regular expression, as crun has it ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("flag", ["--regex", "-r"])
def test_kill_and_delete_those_that_match(either: Box, flag: str) -> None:
    other, third = either.another(), either.another(id=f"another-{os.getpid()}")
    pids = {one.id: one.started() for one in (either, other, third)}
    either.ok("kill", flag, f"^({either.id}|{other.id})$", "KILL")
    assert [status_of(pids[one.id]) for one in (either, other)] == [137, 137]
    assert third.status == "running"
    either.ok("delete", flag, f"{either.id}|{other.id}")
    assert either.ok("list", "-q").out.split() == [third.id]
    either.ok("delete", "--force", flag, ".")
    assert either.ok("list", "-q").out == ""
    assert status_of(pids[third.id]) == 137
    assert third.left() == either.left() == other.left() == []


def test_one_that_fails_does_not_keep_the_others(box: Box) -> None:
    other = box.another()
    box.started()
    other.started()
    other.ended()
    done = box.call("delete", "--regex", "rundlet-test")
    assert (done.status, done.err) == (1, f"rundlet: cannot delete container {box.id} that is not stopped: running; stop it first, or give --force\n")
    assert box.ok("list", "-q").out.split() == [box.id]


def test_a_pattern_that_is_none(box: Box) -> None:
    done = box.call("delete", "--regex", "(")
    assert done.status == 1
    assert '"(" is no regular expression' in done.err


def test_a_pattern_that_nothing_matches(either: Box) -> None:
    either.created()
    either.ok("kill", "--regex", "nothing", "KILL")
    either.ok("delete", "--regex", "nothing")
    assert either.status == "created"


def test_list(box: Box) -> None:
    other = box.another()
    pid = box.created()
    other.started()
    other.ended()
    lines = box.ok("list").out.splitlines()
    assert lines[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert rows[box.id][:3] == [str(pid), "created", str(box.bundle)]
    assert rows[other.id][:3] == ["0", "stopped", str(other.bundle)]
    assert sorted(box.ok("list", "--quiet").out.split()) == sorted([box.id, other.id])
    text = box.ok("list", "--format", "json").out
    assert re.match(r'\[{"ociVersion":"1\.0\.2","id":"[^"]+","pid":[0-9]+,"status":"[a-z]+","bundle":"[^"]+","rootfs":"[^"]+","created":"', text)
    listed = json.loads(text)
    assert {one["id"]: one["status"] for one in listed} == {box.id: "created", other.id: "stopped"}
    assert listed == sorted((box.state, other.state), key=lambda one: str(one["id"]))


def test_list_of_nothing(box: Box) -> None:
    assert json.loads(box.ok("list", "--format", "json").out) == []
    assert box.ok("list", "-q").out == ""


def test_two_of_one_name(either: Box) -> None:
    pid = either.created()
    again = either.create()
    assert again.status == 1
    assert "exist" in again.err
    assert either.status == "created"
    assert either.pid == pid


def test_two_in_one_cgroup(box: Box) -> None:
    box.started()
    other = box.another()
    other.linux["cgroupsPath"] = box.linux["cgroupsPath"]
    done = other.create()
    assert done.status == 1
    assert "container's cgroup is not empty: 1 process(es) found" in done.err
    assert not (other.root / other.id).exists()
    assert box.status == "running"


def test_a_cgroup_of_processes_that_cannot_be_seen(box: Box) -> None:
    """In another PID namespace than the runtime's they have no numbers, and are there all the same."""
    box.started()
    other = box.another()
    other.linux["cgroupsPath"] = box.linux["cgroupsPath"]
    other.sh("true").save()
    words = ["unshare", "--pid", "--fork", "--mount-proc", *other.words("run", "--bundle", str(other.bundle), other.id)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "container's cgroup is not empty: 1 process(es) found" in done.stderr) == (1, True), done
    assert box.status == "running"


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "a b", "ä"])
def test_names_that_cannot_be(box: Box, name: str) -> None:
    box.save()
    done = box.call("create", "--bundle", str(box.bundle), name)
    assert done.status != 0
    assert not box.root.exists() or not os.listdir(box.root)


def test_signals_are_passed_on_in_the_foreground(box: Box) -> None:
    box.sh("trap 'echo hup; exit 3' HUP; echo ready; while :; do sleep 0.01; done").save()
    child = subprocess.Popen(box.words("run", "--bundle", str(box.bundle), box.id), stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "ready\n"
    child.send_signal(1)
    assert child.stdout.read() == "hup\n"
    assert child.wait() == 3
    child.stdout.close()
    assert box.left() == []


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0"])
def test_versions_of_the_specification(box: Box, version: str) -> None:
    box.config["ociVersion"] = version
    box.process["args"] = ["true"]
    assert box.run().status == 0


def test_without_cgroups(box: Box) -> None:
    """--cgroup-manager disabled: the container stays in the cgroups of its caller, and none is made for it."""
    box.without("cgroup")
    box.runtime = [*box.runtime, "--cgroup-manager", "disabled"]
    assert box.says("cat /proc/self/cgroup") == Path("/proc/self/cgroup").read_text()
    box.linux["resources"] = {"pids": {"limit": 5}, "memory": {"limit": -1, "reservation": 0}, "devices": [{"allow": False, "access": "rwm"}]}
    warning = "/linux/resources: without a cgroup no limits are set: pids"
    box.save()
    shown = json.loads(box.ok("explain", "--json", str(box.bundle)).out)
    assert (shown["cgroup"], shown["warnings"]) == ([], [warning])
    log = box.folder / "log"
    box.sh("exec sleep 1000").save()
    assert box.call("--log", str(log), "run", "--detach", "--bundle", str(box.bundle), box.id).status == 0
    assert f'level=warning msg="{warning}"' in log.read_text()
    assert box.cgroups() == []
    for words, status, told in (
        (["pause", box.id], 1, "cannot pause a container that was made without cgroups; "),
        (["update", "--pids-limit", "5", box.id], 1, "cannot update a container that was made without cgroups; "),
        (["exec", "--cgroup", "inner", box.id, "true"], 255, "--cgroup: the container was made without cgroups; "),
    ):
        done = box.call_apart(*words)
        assert (done.status, done.err.startswith(f"rundlet: {told}")) == (status, True), done
    assert json.loads(box.call_apart("ps", "--format", "json", box.id).out) == [box.pid]
    assert box.exec("cat", "/proc/self/cgroup").out == Path("/proc/self/cgroup").read_text()
    box.ok("delete", "--force", box.id)
    assert box.left() == []
