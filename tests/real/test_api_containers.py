"""The library with real containers: their ways from create to delete, what is passed to them, faults, and that nothing is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import rundlet
from tests import bundles
from tests.bundles import CGROUPS, ROOT, Box, children, eventually, proc_status


@pytest.fixture
def made(box: Box) -> Iterator[rundlet.Container]:
    """A container that waits for start."""
    box.sh("while true; do sleep 1; done").save()
    with rundlet.create(box.bundle, id=box.id, root=box.root) as container:
        yield container
    assert box.left() == []


@pytest.fixture
def running(made: rundlet.Container) -> rundlet.Container:
    """One that runs."""
    made.start()
    return made


def script(text: str, *args: str | Path, before: Sequence[str] = (), **how: Any) -> subprocess.Popen[str]:
    """A program of its own that uses the library, the built one where it is current, else the sources; `before`: words before its own."""
    words = bundles.words()
    python = [ROOT / ".venv/bin/python", "-I"] if words[0].endswith(".venv/bin/rundlet") else [sys.executable, "-s"]
    environment = {"PATH": os.environ["PATH"]} | ({} if python[1] == "-I" else {"PYTHONPATH": str(ROOT / "src")})
    how.setdefault("stdout", subprocess.PIPE)
    return subprocess.Popen([*before, *python, "-c", text, *args], env=environment, text=True, **how)


def ended(child: subprocess.Popen[str]) -> str:
    """What a program printed; it must succeed."""
    out, _ = child.communicate()
    assert child.returncode == 0, out
    return out


# the way of a container


def test_from_create_to_delete(box: Box) -> None:
    box.sh("while true; do sleep 1; done").save()
    container = rundlet.Container.create(box.bundle, id=box.id, root=box.root)
    state = container.state()
    assert (state["status"], state["pid"], state["bundle"]) == ("created", container.pid, str(box.bundle))
    assert container.pid in children(), "it is our child, and no process stays in between"
    container.start()
    assert container.state()["status"] == "running"
    assert not container.status
    with pytest.raises(rundlet.WrongState, match="cannot start a container that is running"):
        container.start()
    with pytest.raises(rundlet.WrongState, match="not stopped: running"):
        container.delete()
    container.kill("TERM")  # ignored by the first process of a PID namespace
    container.kill(signal.SIGKILL)
    assert container.wait() == -signal.SIGKILL
    assert (container.status, container.state()["status"], container.pid) == (-9, "stopped", 0)
    container.delete()
    assert box.left() == []
    with pytest.raises(rundlet.WrongState, match="does not exist"):
        container.delete()
    container.delete(force=True)
    with pytest.raises(rundlet.WrongState, match="does not exist"):
        container.state()


def test_the_exit_status_is_the_programs(box: Box) -> None:
    box.sh("exit 200").save()
    with rundlet.create(box.bundle, id=box.id, root=box.root) as container:
        container.start()
        assert container.wait(60) == 200
        assert container.status == 200


def test_a_run_is_all_of_it(box: Box) -> None:
    box.sh("cat; echo error >&2; exit 3").save()
    done = rundlet.run(box.bundle, id=box.id, root=box.root, input=b"some input\n", capture=True)
    assert (done.status, done.stdout, done.stderr) == (3, b"some input\n", b"error\n")
    assert (done.container, done.args) == (box.id, ("sh", "-c", "cat; echo error >&2; exit 3"))
    assert box.left() == []
    with pytest.raises(rundlet.ProgramFailed, match="exit status 3: error"):
        done.check()


def test_a_configuration_needs_no_file(box: Box) -> None:
    config = rundlet.config(["echo", "hello"], rootfs=box.rootfs, env={"PATH": "/bin"}, cgroup=f"/{box.id}")
    assert rundlet.run(config, id=box.id, root=box.root, capture=True).check().stdout == b"hello\n"
    config["root"]["path"] = "rootfs"
    done = rundlet.run(config, id=box.id, root=box.root, capture=True, folder=box.bundle)
    assert done.stdout == b"hello\n"


def test_ended_by_a_signal(box: Box) -> None:
    box.without("pid")
    box.sh("kill -USR1 $$").save()
    assert rundlet.run(box.bundle, id=box.id, root=box.root).status == -signal.SIGUSR1


def test_a_container_of_somebody_else(box: Box) -> None:
    box.sh("while true; do sleep 1; done")
    box.started()
    container = rundlet.Container(box.id, root=box.root)
    assert container.state()["status"] == "running"
    assert container.exec(["echo", "x"], capture=True).stdout == b"x\n"
    with pytest.raises(TimeoutError):
        container.wait(0.01)
    container.kill("KILL")
    assert container.wait() is None, "only a parent is told"
    assert container.status is None
    bundles.reap()
    container.delete()


def test_all_containers(running: rundlet.Container, boxes: Callable[[], Box]) -> None:
    other = boxes()
    other.save()
    with rundlet.create(other.bundle, id=other.id, root=other.root):
        found = {state["id"]: state["status"] for state in rundlet.containers(other.root)}
    assert found == {running.id: "running", other.id: "created"}


# what is passed


def test_pipes_of_a_container(box: Box) -> None:
    box.process["args"] = ["cat"]
    box.save()
    with rundlet.create(box.bundle, id=box.id, root=box.root, stdin=rundlet.PIPE, stdout=rundlet.PIPE) as container:
        container.start()
        assert container.stdin
        assert container.stdout
        assert container.stderr is None
        container.stdin.write(b"one\ntwo\nthree")
        assert container.stdout.readline() == b"one\n"
        container.stdin.close()
        assert list(container.stdout) == [b"two\n", b"three"]
        assert container.wait() == 0


def test_files_and_descriptors(box: Box, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("of a file")
    (tmp_path / "more").write_text("of another")
    box.sh("cat; cat <&3; cat <&4; echo e >&2").save()
    with open(tmp_path / "in") as stdin, open(tmp_path / "out", "wb") as out, open(tmp_path / "more") as more, open(tmp_path / "in") as again:
        fds = [more.fileno(), again.fileno()]
        done = rundlet.run(box.bundle, id=box.id, root=box.root, stdin=stdin, stdout=out, stderr=rundlet.STDOUT, pass_fds=fds)
    assert done.status == 0
    assert (tmp_path / "out").read_text() == "of a fileof anotherof a filee\n"


def test_a_container_has_no_descriptor_but_those_given(box: Box, tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        box.sh("ls /proc/self/fd").save()
        done = rundlet.run(box.bundle, id=box.id, root=box.root, capture=True)
    assert done.stdout.split() == [b"0", b"1", b"2", b"3"], "3 is the listing's own"


def test_what_the_caller_is_told_by_its_environment_is_not_the_containers(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    box.sh("echo $LISTEN_FDS $NOTIFY_SOCKET").save()
    assert rundlet.run(box.bundle, id=box.id, root=box.root, capture=True).stdout == b"\n"


def test_input_and_stdin_contradict(box: Box) -> None:
    box.save()
    with pytest.raises(ValueError, match="either input is given or stdin"):
        rundlet.run(box.bundle, id=box.id, root=box.root, input=b"x", stdin=rundlet.DEVNULL)
    with pytest.raises(ValueError, match="what is captured"):
        rundlet.run(box.bundle, id=box.id, root=box.root, capture=True, stdout=rundlet.DEVNULL)


def test_files_are_given_to_a_user(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.sh("stat -c %u -L /proc/self/fd/1; echo x > /proc/self/fd/1").save()
    assert rundlet.run(box.bundle, id=box.id, root=box.root, capture=True).stdout == b"1000\nx\n"


# terminals


def test_a_terminal(box: Box) -> None:
    box.process["terminal"] = True
    box.process["consoleSize"] = {"height": 10, "width": 20}
    box.sh("stty size; read line; stty size; echo got $line; tty; exit 5").save()
    with rundlet.create(box.bundle, id=box.id, root=box.root) as container:
        container.start()
        terminal = container.terminal
        assert terminal
        assert terminal.size() == (10, 20)
        assert terminal.readline() == b"10 20\r\n"
        terminal.resize(30, 40)
        terminal.write(b"word\n")
        said = terminal.read()
        assert b"30 40\r\n" in said
        assert b"got word\r\n" in said
        assert container.wait() == 5


def test_a_run_in_a_terminal_captures_it(box: Box) -> None:
    box.process["terminal"] = True
    box.sh("tty; read line; echo $line").save()
    done = rundlet.run(box.bundle, id=box.id, root=box.root, input=b"x\n")
    assert done.status == 0
    assert b"/dev/pts/0\r\n" in done.stdout


def test_a_further_process_in_a_terminal(running: rundlet.Container) -> None:
    with running.spawn(["sh", "-c", "tty; read line; echo $line"], terminal=True) as process:
        assert process.terminal
        process.terminal.write(b"abc\n")
        assert process.wait() == 0
        assert process.terminal.read().count(b"abc\r\n") == 2  # typed, and said


# further processes


def test_exec_is_as_asked(running: rundlet.Container) -> None:
    done = running.exec(
        ["sh", "-c", "pwd; id -u; id -g; echo $A; cat; exit 9"], cwd="/tmp", user="5:6", env={"A": "b"}, input=b"in", capture=True,
    )
    assert (done.status, done.stdout) == (9, b"/tmp\n5\n6\nb\nin")
    assert rundlet.exec(running, process={"args": ["id", "-u"], "cwd": "/", "user": {"uid": 3, "gid": 3}, "env": ["PATH=/bin"]}, capture=True).stdout == b"3\n"


def test_a_process_is_our_child_and_confined(running: rundlet.Container) -> None:
    with running.spawn(["sleep", "1000"]) as process:
        assert process.pid in children()
        assert process.pid in running.pids()
        seen, first = proc_status(process.pid), proc_status(running.pid)
        assert {key: seen[key] for key in ("CapBnd", "CapEff", "NoNewPrivs", "Seccomp")} == {key: first[key] for key in ("CapBnd", "CapEff", "NoNewPrivs", "Seccomp")}
        assert process.status is None
        with pytest.raises(TimeoutError):
            process.wait(0.01)
        process.kill("USR1")
        assert process.wait() == -signal.SIGUSR1
        process.kill()
    assert process.status == -signal.SIGUSR1


def test_the_end_of_a_with_ends_the_process(running: rundlet.Container) -> None:
    with running.spawn(["sleep", "1000"], stdout=rundlet.PIPE) as process:
        pid = process.pid
    assert process.status == -signal.SIGKILL
    assert pid not in children()
    assert process.stdout
    assert process.stdout.fileno() == -1


# what else can be done


def test_pause_and_resume(running: rundlet.Container) -> None:
    running.pause()
    assert running.state()["status"] == "paused"
    with pytest.raises(rundlet.WrongState, match="cannot exec in a paused container"):
        running.exec(["true"])
    running.resume()
    assert running.state()["status"] == "running"
    with pytest.raises(rundlet.WrongState, match="not paused"):
        running.resume()


def test_limits_change_and_what_is_used_is_told(box: Box, running: rundlet.Container) -> None:
    running.update({"pids": {"limit": 77}})
    assert box.held("pids.max", "pids.max") == "77"
    assert running.stats()["pids"]["limit"] == 77
    with pytest.raises(rundlet.BadSpec) as caught:
        running.update({"pids": {"limit": "many"}})
    assert caught.value.where == "/pids/limit"


def test_what_happens_is_told_until_the_end(box: Box, running: rundlet.Container) -> None:
    with running.events(0.01) as events:
        first = events.next()
        assert first
        assert (first["type"], first["id"]) == ("stats", box.id)
        assert first["data"].keys() == running.stats().keys()
        running.kill("KILL")
        assert {event["type"] for event in events} <= {"stats"}
        assert events.next() is None
    with pytest.raises(rundlet.WrongState, match="is not running"):
        running.events()
    with pytest.raises(ValueError, match="above 0"):
        running.events(0)


def test_mounts_of_a_container_that_runs(running: rundlet.Container, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("found")
    mount = {"destination": "/tmp/data", "type": "bind", "source": str(tmp_path / "data"), "options": ["bind", "ro"]}
    running.add_mounts([mount])
    assert running.exec(["cat", "/tmp/data/file"], capture=True).stdout == b"found"
    running.remove_mounts([mount])
    assert running.exec(["cat", "/tmp/data/file"], capture=True).status == 1


def test_a_signal_for_all(running: rundlet.Container) -> None:
    process = running.spawn(["sleep", "1000"])
    running.kill("KILL", all=True)
    assert (process.wait(), running.wait()) == (-9, -9)
    with pytest.raises(rundlet.WrongState, match="container not running"):
        running.kill("KILL")
    with pytest.raises(rundlet.Usage, match="unknown signal"):
        running.kill("NONSENSE")


# what runs is looked at


def test_what_runs_is_what_was_asked_for(box: Box, running: rundlet.Container) -> None:
    found = rundlet.verify(running)
    assert (found.status, found.name, found.pid) == ("holds", box.id, running.pid)
    assert rundlet.verify(box.id, root=box.root) == found
    assert (found.config, "user" in found.host_namespaces) == (str(box.bundle / "config.json"), True)
    assert rundlet.verify(running.pid, config=box.bundle).status == "holds"
    box.process["noNewPrivileges"] = False
    box.process["capabilities"]["bounding"] = ["CAP_KILL"]
    differs = rundlet.verify(running.pid, config={**box.config, "root": {"path": str(box.rootfs)}})
    assert differs.config == ""
    assert differs.status == "differs"
    assert any("CAP_NET_BIND_SERVICE" in one.holds for one in differs.differences)
    with pytest.raises(rundlet.Usage, match="looked at with a configuration"):
        rundlet.verify(running.pid)
    with pytest.raises(rundlet.Usage, match="with its own"):
        rundlet.verify(running, config=box.config)
    with pytest.raises(rundlet.WrongState, match="does not exist"):
        rundlet.verify("nobody", root=box.root)


# faults


def test_a_bad_configuration_says_where(box: Box) -> None:
    box.process["cwd"] = "relative"
    box.save()
    with pytest.raises(rundlet.BadSpec) as caught:
        rundlet.create(box.bundle, id=box.id, root=box.root)
    assert (caught.value.where, caught.value.status) == ("/process/cwd", 1)
    assert box.left() == []


def test_a_refusal_says_what_to_do(box: Box) -> None:
    box.linux["resources"] = {"pids": {"limit": 5}}
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}
    box.save()
    with pytest.raises(rundlet.Fault):
        rundlet.create(box.bundle, id=box.id, root=box.root)
    box.linux["seccomp"] = None
    box.process["selinuxLabel"] = "a:b:c:d"
    box.save()
    with pytest.raises(rundlet.Refused) as caught:
        rundlet.create(box.bundle, id=box.id, root=box.root)
    assert caught.value.todo
    assert str(caught.value) == f"{caught.value.why}; {caught.value.todo}"
    assert box.left() == []


def test_the_kernels_no_says_which_step(box: Box) -> None:
    box.mount("/mnt", "none", kind="nosuchfs")
    box.save()
    with pytest.raises(rundlet.StepFailed) as caught:
        rundlet.create(box.bundle, id=box.id, root=box.root)
    assert caught.value.errno == 19
    assert "/mnt" in caught.value.step
    assert caught.value.call == "fsopen"
    assert box.left() == []
    assert children() == []


@pytest.mark.parametrize("verb", ["create", "run", "exec"])
def test_a_program_that_is_not_there(box: Box, verb: str) -> None:
    box.sh("while true; do sleep 1; done") if verb == "exec" else box.process.update(args=["/bin/nothing"])
    box.save()

    def execute() -> None:
        with rundlet.create(box.bundle, id=box.id, root=box.root) as container:
            container.start()
            container.exec(["/bin/nothing"])

    make: Any = {"create": rundlet.create, "run": rundlet.run}.get(verb)
    with pytest.raises(rundlet.Fault, match=r'exec: "/bin/nothing": ') as caught:
        make(box.bundle, id=box.id, root=box.root) if make else execute()
    assert caught.value.status == 127
    assert box.left() == []
    assert children() == []


def test_what_cannot_be_executed_is_told_by_start(box: Box) -> None:
    (box.rootfs / "bin/odd").write_text("#!/no/interpreter\n")
    (box.rootfs / "bin/odd").chmod(0o755)
    box.process["args"] = ["/bin/odd"]
    box.save()
    with rundlet.create(box.bundle, id=box.id, root=box.root) as container:
        with pytest.raises(rundlet.Fault, match="is the interpreter or loader that it names missing"):
            container.start()
        assert container.wait() == 0
    assert box.left() == []


def test_an_id_that_is_taken_keeps_its_container(made: rundlet.Container, box: Box) -> None:
    with pytest.raises(rundlet.Fault, match="already exists"):
        rundlet.create(box.bundle, id=made.id, root=made.root)
    assert made.state()["status"] == "created"


def test_warnings_are_there_and_are_not_printed(box: Box, capfd: pytest.CaptureFixture[str]) -> None:
    box.process["env"] = ["PATH=/bin", "NOVALUE"]
    box.process["args"] = ["true"]
    box.save()
    done = rundlet.run(box.bundle, id=box.id, root=box.root)
    assert [warning for warning in done.warnings if "NOVALUE" in warning]
    assert capfd.readouterr() == ("", "")


# nothing is left behind


def test_a_run_that_takes_too_long(box: Box) -> None:
    box.save()
    with pytest.raises(TimeoutError):
        rundlet.run(box.bundle, id=box.id, root=box.root, timeout=1)
    assert box.left() == []
    assert children() == []


def test_an_exec_that_takes_too_long(running: rundlet.Container) -> None:
    with pytest.raises(TimeoutError):
        running.exec(["sleep", "1000"], timeout=1)
    assert children() == [running.pid]


def test_a_creation_that_takes_too_long(box: Box, tmp_path: Path) -> None:
    (tmp_path / "hook").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/began\nexec sleep 1000\n")
    (tmp_path / "hook").chmod(0o755)
    box.config["hooks"] = {"createRuntime": [{"path": str(tmp_path / "hook")}]}
    box.save()
    with pytest.raises(TimeoutError):
        rundlet.create(box.bundle, id=box.id, root=box.root, timeout=2)
    assert box.left() == []
    assert eventually(lambda: not bundles.reap())


def test_a_creation_whose_command_is_killed(box: Box, tmp_path: Path) -> None:
    """By SIGKILL, when the container's process has a session of its own: that one is our child, and ended."""
    (tmp_path / "hook").write_text("#!/bin/sh\nkill -KILL $PPID\n")
    (tmp_path / "hook").chmod(0o755)
    box.config["hooks"] = {"createRuntime": [{"path": str(tmp_path / "hook")}]}
    box.save()
    with pytest.raises(rundlet.Fault, match="create ended with status -9 before it could say what came of it"):
        rundlet.create(box.bundle, id=box.id, root=box.root)
    # the hook, whose parent it was, is ours alone because these tests take orphans in
    assert eventually(lambda: {bundles.proc_status(pid)["Name"] for pid in children()} == {"hook"})
    assert eventually(lambda: not bundles.reap())
    box.ok("delete", "--force", box.id)
    assert box.left() == []


INTERRUPTED = """
import sys, rundlet
try:
    with rundlet.create(sys.argv[1], id=sys.argv[2], root=sys.argv[3]) as container:
        container.start()
        print("runs", flush=True)
        container.exec(["sleep", "1000"])
except KeyboardInterrupt:
    print("interrupted", rundlet.containers(sys.argv[3]))
"""


def test_an_interrupt_undoes_everything(box: Box) -> None:
    box.sh("while true; do sleep 1; done").save()
    child = script(INTERRUPTED, box.bundle, box.id, box.root)
    assert child.stdout
    assert child.stdout.readline() == "runs\n"
    container = rundlet.Container(box.id, root=box.root)
    assert eventually(lambda: len(container.pids()) >= 3)  # the shell, its sleep, and the one that exec made
    child.send_signal(signal.SIGINT)
    assert ended(child) == "interrupted []\n"
    assert box.left() == []


def test_a_start_that_takes_too_long_ends_the_container(box: Box, tmp_path: Path) -> None:
    """Nobody has told yet whether all is well, when a poststart hook hangs."""
    box.sh("while true; do sleep 1; done")
    (tmp_path / "hook").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "hook").chmod(0o755)
    box.config["hooks"] = {"poststart": [{"path": str(tmp_path / "hook")}]}
    box.save()
    with rundlet.create(box.bundle, id=box.id, root=box.root) as container:
        with pytest.raises(TimeoutError):
            container.start(timeout=1)
        assert container.state()["status"] == "stopped"
        assert container.status == -signal.SIGKILL
    assert box.left() == []
    assert eventually(lambda: not bundles.reap())


# surroundings


def test_threads_may_wait_for_one_container(running: rundlet.Container) -> None:
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(running.wait) for _ in range(4)]
        running.kill("KILL")
        assert [each.result() for each in waiting] == [-9] * 4


NO_PYTHON = """
import sys, rundlet
from rundlet.api import work
work.WRITTEN, before = "/nowhere", sys.executable
sys.executable = "/no/python"
try:
    rundlet.run(sys.argv[1], id=sys.argv[2], root=sys.argv[3])
except rundlet.Fault as fault:
    print(fault)
with open("/proc/self/task/%d/children" % __import__("os").getpid()) as file:
    print(file.read().split())
"""


def test_where_there_is_no_interpreter(box: Box) -> None:
    box.save()
    out = ended(script(NO_PYTHON, box.bundle, box.id, box.root))
    assert out == "cannot execute /no/python: no such file or directory\n[]\n"


UNSEALED = """
import sys, rundlet
from rundlet.executor import client
client._sealed = lambda: -1
done = rundlet.run(sys.argv[1], id=sys.argv[2], root=sys.argv[3], capture=True)
print(done.status, done.stdout.decode(), end="")
"""


def test_where_a_memfd_may_not_be_executed(box: Box) -> None:
    """vm.memfd_noexec=2, a profile: then the installed executor executes itself through a read-only mount."""
    box.sh("cat /proc/1/comm; exit 7").save()
    assert ended(script(UNSEALED, box.bundle, box.id, box.root)) == "7 sh\n"


def test_threads_have_their_own_containers(boxes: Callable[[], Box]) -> None:
    made = [boxes() for _ in range(4)]
    for box in made:
        box.sh(f"echo {box.id}").save()
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda box: rundlet.run(box.bundle, id=box.id, root=box.root, capture=True), made))
    assert [done.stdout.decode().strip() for done in results] == [box.id for box in made]
    assert threading.active_count() == before


BARE = """
import os, sys, rundlet
for fd in (0, 1, 2):
    os.close(fd)
done = rundlet.run(sys.argv[1], id=sys.argv[2], root=sys.argv[3], stdout=rundlet.PIPE)
os.write(3, done.stdout)
"""


def test_a_program_without_stdin_stdout_and_stderr(box: Box, tmp_path: Path) -> None:
    box.sh("readlink /proc/self/fd/0; readlink /proc/self/fd/2").save()
    with open(tmp_path / "out", "w+") as file:
        child = script("import os; os.dup2(int(__import__('sys').argv[4]), 3)\n" + BARE, box.bundle, box.id, box.root, str(file.fileno()), pass_fds=[file.fileno()])
        ended(child)
    assert (tmp_path / "out").read_text() == "/dev/null\n/dev/null\n"


STATUS_LOST = """
import signal, sys, rundlet
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
try:
    rundlet.run(sys.argv[1], id=sys.argv[2], root=sys.argv[3])
except rundlet.Fault as fault:
    print(fault)
"""


def test_a_status_that_is_lost_is_no_success(box: Box) -> None:
    box.sh("exit 1").save()
    assert "the exit status is lost" in ended(script(STATUS_LOST, box.bundle, box.id, box.root))
    assert box.left() == []


NO_FORK = """
import os, sys, rundlet
forks = []
os.register_at_fork(before=lambda: forks.append("fork"))
with rundlet.create(sys.argv[1], id=sys.argv[2], root=sys.argv[3]) as container:
    container.start()
    assert container.exec(["true"]).status == 0
print(forks)
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
def test_nothing_of_the_program_is_copied(box: Box, tmp_path: Path) -> None:
    """posix_spawn(3) shares the memory with its child until that executes: CLONE_VM and CLONE_VFORK."""
    box.sh("while true; do sleep 1; done").save()
    (tmp_path / "program").write_text(NO_FORK)
    log = tmp_path / "log"
    traced = "import os, sys; os.execvp('strace', ['strace', '-qq', '-e', 'trace=fork,vfork,clone,clone3', '-o', sys.argv[4], sys.executable, '-I' if sys.flags.isolated else '-s', sys.argv[5], *sys.argv[1:4]])"
    out = ended(script(traced, box.bundle, box.id, box.root, log, tmp_path / "program"))
    assert out == "[]\n"
    calls = [line for line in log.read_text().splitlines() if line.startswith(("fork", "vfork", "clone"))]
    assert len(calls) >= 6, "an executor and a command each for create and exec, and a command for start and delete"
    assert [line for line in calls if "CLONE_VM|CLONE_VFORK" not in line] == []


def test_cgroups_by_nobody(box: Box) -> None:
    box.sh("while true; do sleep 1; done").save()
    with rundlet.create(box.bundle, id=box.id, root=box.root, cgroup_manager="disabled") as container:
        container.start()
        assert container.pids() == [container.pid]
        assert not CGROUPS["mounts"] or box.cgroups() == []


def test_what_was_denied_is_what_the_command_tells(box: Box, running: rundlet.Container) -> None:
    done = box.call_apart("denials", "--json", box.id)
    told = json.loads(done.out)
    if "unreadable" in told:
        with pytest.raises(rundlet.Unreadable) as caught:
            rundlet.denials(running)
        assert str(caught.value).split(";")[0] == told["unreadable"].split(";")[0]
        assert caught.value.status == 2
    else:
        assert [json.loads(json.dumps(asdict(one))) for one in rundlet.denials(running)] == told["denials"]
    with pytest.raises(rundlet.WrongState, match="does not exist"):
        rundlet.denials("nobody", root=box.root)
