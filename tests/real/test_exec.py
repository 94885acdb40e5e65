"""One more process in a running container: what may be said of it, and that it is held to what the container is held to."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rundlet.cgroup import files, tasks
from rundlet.cgroup.place import place
from tests import bundles
from tests.bundles import CGROUPS, Box, proc_status, status_of, user_namespace
from tests.real.test_process import filtered, sets


@pytest.fixture
def running(box: Box) -> Box:
    """A container that runs."""
    box.started()
    return box


def test_words_of_the_command_line(running: Box) -> None:
    done = running.exec("sh", "-c", "echo out; echo err >&2; cat; exit 7", input="in\n")
    assert (done.status, done.out, done.err) == (7, "out\nin\n", "err\n")


def test_options_may_follow_the_words(running: Box) -> None:
    assert running.exec("echo", "-d", "--cwd", "/x").out == "-d --cwd /x\n"


def test_a_process_file(running: Box) -> None:
    file = running.folder / "process.json"
    file.write_text(
        json.dumps(
            {
                "args": ["sh", "-c", "pwd; id -u; id -g; echo $A; umask; ulimit -n"],
                "env": ["A=b", "PATH=/bin"],
                "cwd": "/etc",
                "user": {"uid": 5, "gid": 6, "umask": 0o77},
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
            }
        )
    )
    assert running.exec("--process", str(file), "--").out.split() == ["/etc", "5", "6", "b", "0077", "50"]


def test_a_process_file_and_options(running: Box) -> None:
    """What is said on the command line is said last."""
    file = running.folder / "process.json"
    script = "pwd; id -u; id -g; id -G; echo $A$B; grep -E 'CapBnd|NoNew' /proc/self/status"
    file.write_text(json.dumps({
        "args": ["sh", "-c", script], "env": ["A=1", "B=2", "PATH=/bin"], "cwd": "/etc", "user": {"uid": 5, "gid": 6},
        "capabilities": {"bounding": ["CAP_KILL"]},
    }))
    options = ["--cwd", "/tmp", "--user", "7:8", "-g", "9", "--env", "B=3", "--cap", "CAP_CHOWN", "--no-new-privs"]
    done = running.exec("--process", str(file), *options, "--")
    assert (done.err, done.out.split()) == ("", ["/tmp", "7", "8", "8", "9", "13", "CapBnd:", "0" * 14 + "21", "NoNewPrivs:", "1"])
    pid_file = running.folder / "exec.pid"
    file.write_text('{"args": ["/bin/sleep", "1000"], "cwd": "/"}')
    options = ["--detach", "--pid-file", str(pid_file), *options, "--process", str(file)]
    assert running.exec(*options, "--").status == 0
    pid = int(pid_file.read_text())
    status = proc_status(pid)
    assert (status["Uid"].split()[0], status["Gid"].split()[0], status["Groups"].split()) == ("7", "8", ["9"])
    assert os.path.samefile(f"/proc/{pid}/cwd", running.rootfs / "tmp")
    assert b"B=3" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@pytest.mark.parametrize("words", [["nothere"], ["/text"]])
def test_one_that_fails_leaves_no_pid_file(running: Box, words: list[str]) -> None:
    (running.rootfs / "text").write_text("hello")
    (running.rootfs / "text").chmod(0o755)
    done = running.exec("--detach", "--pid-file", str(running.folder / "exec.pid"), "--", *words)
    assert done.status == 255
    assert not [name for name in os.listdir(running.folder) if name.startswith("exec.pid")]
    assert len(bundles.children()) == 1


def test_a_process_file_that_is_bad(running: Box) -> None:
    file = running.folder / "process.json"
    file.write_text('{"args": ["true"], "cwd": 5}')
    done = running.exec("--process", str(file), "--")
    assert done.status == 255
    assert done.err == "rundlet: /cwd: must be an absolute path, not 5\n"


@pytest.mark.parametrize(
    ("options", "script", "wanted"),
    [
        (["--user", "1000"], "id -u; id -g", "1000 0"),
        (["--user", "1000:100", "--additional-gids", "99", "--additional-gids", "100"], "id -u; id -g; id -G", "1000 100 100 99"),
        (["--user", "1000:1001"], "id -u; id -g; echo $HOME", "1000 1001 /home/user"),
        (["--cwd", "/etc"], "pwd", "/etc"),
        (["--env", "A=1", "--env", "B=2"], "echo $A$B$PATH", "12/bin"),
        (["-e", "PATH=/bin:/x"], "echo $PATH", "/bin:/x"),
        (["--additional-gids", "7", "--additional-gids", "8"], "id -G", "0 7 8"),
        (["-u", "3"], "grep CapEff /proc/self/status", "CapEff: 0000000000000000"),
    ],
)
def test_options(running: Box, options: list[str], script: str, wanted: str) -> None:
    done = running.exec(*options, "--", "sh", "-c", script)
    assert (done.status, done.err) == (0, "")
    assert done.out.split() == wanted.split()


def test_capabilities_are_the_containers(running: Box) -> None:
    pid_file = running.folder / "exec.pid"
    running.exec("--detach", "--pid-file", str(pid_file), "--", "sleep", "1000")
    assert sets(int(pid_file.read_text())) == sets(running.pid)


def test_more_capabilities(running: Box) -> None:
    assert running.exec("sh", "-c", "touch /tmp/x; chown 77 /tmp/x").status == 1
    assert running.exec("--cap", "CAP_CHOWN", "--", "chown", "77", "/tmp/x").status == 0
    assert (running.rootfs / "tmp/x").stat().st_uid == 77
    done = running.exec("--cap", "CAP_CHOWN", "--", "sh", "-c", "grep Cap /proc/self/status")
    found = dict(line.split(":\t") for line in done.out.splitlines())
    assert int(found["CapEff"], 16) & 1
    assert int(found["CapBnd"], 16) & 1


def test_more_capabilities_are_ambient_where_they_are_inheritable(boxes: Callable[..., Box]) -> None:
    box = boxes()
    both = ["CAP_KILL", "CAP_SYSLOG"]
    box.process["capabilities"] = {"bounding": both, "effective": [], "permitted": ["CAP_KILL"], "inheritable": both, "ambient": ["CAP_KILL"]}
    box.started()
    found = []
    for options in ((), ("--cap", "CAP_SYSLOG", "--cap", "CAP_CHOWN")):
        done = box.exec(*options, "--", "grep", "Cap", "/proc/self/status")
        found.append({line.split(":")[0]: int(line.split()[1], 16) for line in done.out.splitlines()})
    kill, syslog, chown = 1 << 5, 1 << 34, 1
    assert found[0] == {"CapInh": kill | syslog, "CapPrm": kill, "CapEff": kill, "CapBnd": kill | syslog, "CapAmb": kill}
    more = kill | syslog | chown
    assert found[1] == {"CapInh": kill | syslog, "CapPrm": more, "CapEff": more, "CapBnd": more, "CapAmb": kill | syslog}


def test_a_capability_that_is_none(running: Box) -> None:
    """Left out with a warning, as in a configuration."""
    log = running.folder / "log"
    done = running.call_apart("--log", str(log), "exec", "--cap", "CAP_NOTHING", running.id, "true")
    assert done.status == 0
    assert "CAP_NOTHING is no capability that is known" in log.read_text()


@pytest.mark.parametrize("nnp", [True, False])
def test_the_same_confinement(boxes: Callable[..., Box], nnp: bool) -> None:
    box = boxes()
    box.process["noNewPrivileges"] = nnp
    box.linux["seccomp"] = filtered("SCMP_ACT_ERRNO", "mkdir", "mkdirat")
    pid = box.started()
    pid_file = box.folder / "exec.pid"
    box.exec("--detach", "--pid-file", str(pid_file), "--", "sleep", "1000")
    keys = ("NoNewPrivs", "Seccomp", "Seccomp_filters", "CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb", "Uid", "Gid", "Groups")
    first, second = proc_status(pid), proc_status(int(pid_file.read_text()))
    assert {key: first[key] for key in keys} == {key: second[key] for key in keys}
    for name in os.listdir(f"/proc/{pid}/ns"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/{int(pid_file.read_text())}/ns/{name}")
    assert Path(f"/proc/{pid}/cgroup").read_text() == Path(f"/proc/{int(pid_file.read_text())}/cgroup").read_text()


def test_no_new_privs_can_be_asked_for(boxes: Callable[..., Box]) -> None:
    box = boxes()
    box.process["noNewPrivileges"] = False
    box.started()
    script = "grep NoNewPrivs /proc/self/status"
    assert box.exec("sh", "-c", script).out.split() == ["NoNewPrivs:", "0"]
    assert box.exec("--no-new-privs", "--", "sh", "-c", script).out.split() == ["NoNewPrivs:", "1"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nothere"], 'exec: "nothere": executable file not found in $PATH'),
        (["/nothere"], 'exec: "/nothere": no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 'exec: "/etc": permission denied: is a directory'),
        (["/script"], 'exec /script: no such file or directory: is the interpreter or loader that it names missing?'),
        (["script"], 'exec script: no such file or directory: is the interpreter or loader that it names missing?'),
    ],
)
def test_programs_that_cannot_be_executed(running: Box, words: list[str], text: str) -> None:
    for script in (running.rootfs / "script", running.rootfs / "bin/script"):
        script.write_text("#!/no/such/interpreter\n")
        script.chmod(0o755)
    done = running.exec(*words)
    assert text in done.err
    assert done.err.count("\n") == 1
    assert done.status == 255
    assert len(bundles.children()) == 1


def test_killed(running: Box) -> None:
    assert running.exec("sh", "-c", "kill -9 $$").status == 137


def test_detached(running: Box) -> None:
    pid_file = running.folder / "exec.pid"
    done = running.exec("--detach", "--pid-file", str(pid_file), "--", "sh", "-c", "exec sleep 1000")
    assert (done.status, done.out, done.err) == (0, "", "")
    text = pid_file.read_text()
    assert text.isdigit()
    pid = int(text)
    assert pid in bundles.children()  # as an engine has it
    assert bundles.eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\x00")
    os.kill(pid, 9)
    assert status_of(pid) == 137


def test_it_dies_with_the_container(running: Box) -> None:
    pid_file = running.folder / "exec.pid"
    running.exec("--detach", "--pid-file", str(pid_file), "--", "sleep", "1000")
    pid = int(pid_file.read_text())
    first = running.pid
    running.ok("kill", running.id, "KILL")
    assert status_of(pid) == 137
    assert status_of(first) == 137


def test_a_pid_file_relative_to_the_caller(running: Box) -> None:
    running.exec("--detach", "--pid-file", "exec.pid", "--", "sleep", "1000", cwd=running.folder)
    assert (running.folder / "exec.pid").exists()


def test_descriptors(running: Box) -> None:
    read, write = os.pipe()
    done = running.exec("sh", "-c", "exec ls /proc/self/fd", pass_fds=(read, write))
    os.close(read)
    os.close(write)
    assert done.out.split() == ["0", "1", "2", "3"]  # the last is that of ls


def test_preserved_descriptors(running: Box) -> None:
    (running.folder / "kept").write_text("kept")
    with open(running.folder / "kept") as file:
        script = 'exec 3<&0 </dev/null; exec "$@"'
        words = running.words("exec", "--preserve-fds", "1", running.id, "cat", "/proc/self/fd/3")
        done = subprocess.run(["sh", "-c", script, "sh", *words], stdin=file, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("kept", "", 0)


def test_in_a_user_namespace(boxes: Callable[..., Box]) -> None:
    box = boxes()
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}]
    box.started()
    done = box.exec("--user", "5:6", "--", "sh", "-c", "id -u; id -g; ulimit -n; grep CapBnd /proc/self/status")
    assert (done.status, done.err) == (0, "")
    assert done.out.split()[:3] == ["5", "6", "77"]


def test_in_a_container_that_is_only_created(box: Box) -> None:
    box.created()
    done = box.exec("echo", "here")
    assert (done.status, done.out) == (0, "here\n")
    assert box.status == "created"


def test_in_a_stopped_container(running: Box) -> None:
    running.ended()
    done = running.exec("true")
    assert done.status == 255
    assert "container not running" in done.err


@pytest.mark.skipif(CGROUPS["layout"] == "none", reason="no freezer here")
def test_in_a_paused_container(running: Box) -> None:
    at = place(CGROUPS, str(running.linux["cgroupsPath"]), "")
    tasks.freeze(at)
    try:
        assert running.status == "paused"
        done = running.exec("true")
        assert done.status == 255
        assert "paused" in done.err
        running.ok("delete", "--force", running.id)
    finally:
        tasks.thaw(at) if any(os.path.exists(d.path) for d in at.dirs) else None
    assert running.left() == []


@pytest.mark.skipif(CGROUPS["layout"] == "none", reason="no cgroups here")
def test_a_cgroup_of_its_own(running: Box) -> None:
    from rundlet.cgroup.place import sub

    at = sub(place(CGROUPS, str(running.linux["cgroupsPath"]), ""), "inner")
    if CGROUPS["layout"] == "v2":  # where a cgroup with processes gives nothing to sub-cgroups, it may have them all the same
        os.mkdir(at.dirs[-1].path)
    else:
        files.create(at)
    done = running.exec("--cgroup", "inner", "--", "cat", "/proc/self/cgroup")
    assert (done.status, done.err) == (0, "")
    assert "/inner" in done.out


def test_the_directory_is_inside(running: Box) -> None:
    for number in range(3, 12):
        done = running.exec("--cwd", f"/proc/self/fd/{number}", "--", "readlink", "/proc/self/cwd")
        # one of them is the container's own root, and that is inside
        assert (done.status, done.out) in ((255, ""), (0, "/\n")), done


def test_a_directory_that_is_not_there(running: Box) -> None:
    done = running.exec("--cwd", "/nothere", "--", "true")
    assert done.status == 255
    assert "/nothere" in done.err


def test_signals_are_passed_on(running: Box) -> None:
    words = running.words("exec", running.id, "sh", "-c", "trap 'echo hup; exit 3' HUP; echo ready; while :; do sleep 0.01; done")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        child.send_signal(1)
        assert child.stdout.read() == "hup\n"
        assert child.wait() == 3


def test_many_at_once(running: Box) -> None:
    children = [subprocess.Popen(running.words("exec", running.id, "echo", str(n)), stdout=subprocess.PIPE, text=True) for n in range(8)]
    assert [child.communicate()[0] for child in children] == [f"{n}\n" for n in range(8)]
    assert {child.returncode for child in children} == {0}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "exec needs a command"),
        (["--user", "name", "--", "true"], "must be UID or UID:GID"),
        (["--cwd", "relative", "--", "true"], "must be an absolute path"),
        (["--env", "NAME", "--", "true"], '--env: must be NAME=VALUE, not "NAME"'),
        (["--env", "=value", "--", "true"], '--env: must be NAME=VALUE, not "=value"'),
        (["--env", "", "--", "true"], '--env: must be NAME=VALUE, not ""'),
        (["--process", "/nothere", "--"], "cannot read /nothere"),
    ],
)
def test_what_is_no_command(running: Box, args: list[str], words: str) -> None:
    done = running.exec(*args)
    assert done.status == 255
    assert words in done.err


def test_what_a_process_file_leaves_out(boxes: Callable[..., Box]) -> None:
    """Is as the container has it, where it confines: capabilities, limits, the label, no_new_privs. What it says is its own."""
    box = boxes()
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}]
    box.started()
    file = box.folder / "process.json"
    script = "ulimit -n; grep -E 'NoNewPrivs|CapBnd|CapAmb' /proc/self/status"
    asked: dict[str, object] = {"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"]}
    file.write_text(json.dumps(asked))
    done = box.exec("--process", str(file), "--")
    assert done.out.split() == ["77", "CapBnd:", "0000000000000420", "CapAmb:", "0" * 16, "NoNewPrivs:", "1"]
    own = ["CAP_KILL"]
    asked |= {
        "capabilities": {"bounding": own, "permitted": own, "inheritable": own, "effective": own, "ambient": own}, "noNewPrivileges": False,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
    }
    file.write_text(json.dumps(asked))
    done = box.exec("--process", str(file), "--")
    assert done.out.split() == ["50", "CapBnd:", "0" * 14 + "20", "CapAmb:", "0" * 14 + "20", "NoNewPrivs:", "1"]


def test_a_user_without_a_group_keeps_the_containers(boxes: Callable[..., Box]) -> None:
    box = boxes()
    box.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    box.started()
    assert box.exec("--user", "1000", "--", "sh", "-c", "id -u; id -G").out.split() == ["1000", "6", "7"]


@pytest.mark.parametrize("gid", ["-1", "users", "4294967295", "\u0661"])
def test_a_group_that_is_none(running: Box, gid: str) -> None:
    done = running.exec(f"--additional-gids={gid}", "--", "true")
    assert done.status == 255
    assert "--additional-gids: must be a GID in numbers" in done.err


def test_variables_given_twice(running: Box) -> None:
    assert running.exec("-e", "A=1", "-e", "A=2", "-e", "PATH=/bin", "--", "sh", "-c", "echo $A; env | grep -c PATH").out.split() == ["2", "1"]
