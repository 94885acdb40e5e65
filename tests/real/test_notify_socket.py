"""What is passed between a container and whoever started the runtime: readiness, descriptors, and a handle on the process."""

import array
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundles import PATIENCE, Box, eventually, status_of, user_namespace

# a program for the container is made of busybox, which has no sendto: the host's Python speaks for it, in the container's namespaces
SAY = """
import os, socket, sys
os.chroot(f"/proc/{sys.argv[1]}/root")
os.chdir("/")
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(sys.argv[2].encode(), sys.argv[3])
"""


def say(pid: int, text: str, path: str) -> None:
    """Says something to the socket as it is in the container of a process."""
    subprocess.run([sys.executable, "-c", SAY, str(pid), text, path], check=True)


class Manager:
    """A service manager's notify socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path[0] == "@" else path)
        self.socket.settimeout(PATIENCE)
        self.env = {**os.environ, "NOTIFY_SOCKET": path}
        self.inside = (path if path[0] == "/" else "/run/notify") + "/notify"

    def read(self) -> list[str]:
        """The lines of the next message; a descriptor that came with it is closed, which is the answer to a barrier."""
        text, rights, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4))
        for _, _, data in rights:
            for fd in array.array("i", data):
                os.close(fd)
        return text.decode().split("\n")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@rundlet-test-{os.getpid()}")
    yield made
    made.socket.close()


class TestNotify:
    """NOTIFY_SOCKET, sd_notify(3)."""

    def test_start_returns_when_the_container_is_ready(self, box: Box, manager: Manager) -> None:
        assert box.create(env=manager.env).status == 0
        pid = box.pid
        with subprocess.Popen(box.words("start", box.id), env=manager.env) as child:
            assert eventually((box.root / box.id / "notify/notify").exists)
            assert eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
            assert f"NOTIFY_SOCKET={manager.inside}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            say(pid, "STATUS=soon\nMAINPID=1", manager.inside)
            assert manager.read() == ["STATUS=soon"]
            assert child.poll() is None
            assert box.status == "running"  # nobody else has to wait
            say(pid, "READY=1", manager.inside)
            assert [manager.read() for _ in range(3)] == [["READY=1"], [f"MAINPID={pid}"], ["BARRIER=1"]]
            assert child.wait(PATIENCE) == 0

    def test_start_returns_when_the_container_ends(self, box: Box, manager: Manager) -> None:
        box.sh("exit 3")
        assert box.create(env=manager.env).status == 0
        pid = box.pid
        assert box.call_apart("start", box.id, env=manager.env).status == 0
        assert status_of(pid) == 3

    def test_ready_is_the_last_word(self, box: Box, manager: Manager) -> None:
        """A process that says so and ends has said so."""
        box.sh("while [ ! -e /tmp/end ]; do sleep 0.01; done")
        assert box.create(env=manager.env).status == 0
        pid = box.pid
        with subprocess.Popen(box.words("start", box.id), env=manager.env) as child:
            assert eventually(lambda: box.status == "running")  # and the lock is let go of: it waits
            child.send_signal(signal.SIGSTOP)
            try:
                say(pid, "READY=1", manager.inside)
                (box.rootfs / "tmp/end").touch()
                assert eventually(lambda: b"\nState:\tZ" in Path(f"/proc/{pid}/status").read_bytes())
            finally:
                child.send_signal(signal.SIGCONT)
            assert [manager.read() for _ in range(3)] == [["READY=1"], [f"MAINPID={pid}"], ["BARRIER=1"]]
            assert child.wait(PATIENCE) == 0
        assert status_of(pid) == 0

    def test_run_detached(self, box: Box, manager: Manager) -> None:
        box.save()
        pid_file = box.folder / "pid"
        words = box.words("run", "--detach", "--pid-file", str(pid_file), "--bundle", str(box.bundle), box.id)
        with subprocess.Popen(words, env=manager.env, stdout=subprocess.DEVNULL) as child:
            assert eventually(pid_file.exists)
            pid = int(pid_file.read_text())
            assert eventually(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
            say(pid, "READY=1\nSTATUS=up", manager.inside)
            assert [manager.read() for _ in range(3)] == [["READY=1", "STATUS=up"], [f"MAINPID={pid}"], ["BARRIER=1"]]
            assert child.wait(PATIENCE) == 0

    def test_run_in_the_foreground_passes_everything_on(self, box: Box, manager: Manager) -> None:
        """There the runtime itself is the service's main process."""
        box.save()
        pid_file = box.folder / "pid"
        words = box.words("run", "--pid-file", str(pid_file), "--bundle", str(box.bundle), box.id)
        box.sh("trap 'exit 7' TERM; touch /tmp/ready; while :; do sleep 0.01; done").save()
        with subprocess.Popen(words, env=manager.env) as child:
            assert eventually(pid_file.exists)
            pid = int(pid_file.read_text())
            assert eventually((box.rootfs / "tmp/ready").exists)
            say(pid, "READY=1", manager.inside)
            assert [manager.read() for _ in range(2)] == [["READY=1"], [f"MAINPID={child.pid}"]]
            say(pid, "STATUS=working\nFDSTORE=1\nNOTIFYACCESS=all", manager.inside)
            assert manager.read() == ["STATUS=working"]
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE) == 7
        assert box.left() == []

    def test_in_a_user_namespace_as_a_user(self, box: Box, manager: Manager) -> None:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
        box.process["user"] = {"uid": 1000, "gid": 1000}
        box.create(env=manager.env)
        pid = box.pid
        with subprocess.Popen(box.words("start", box.id), env=manager.env) as child:
            assert eventually((box.root / box.id / "notify/notify").exists)
            assert os.stat(box.root / box.id / "notify/notify").st_mode & 0o777 == 0o777
            say(pid, "READY=1", manager.inside)
            assert [manager.read() for _ in range(3)] == [["READY=1"], [f"MAINPID={pid}"], ["BARRIER=1"]]
            assert child.wait(PATIENCE) == 0

    def test_the_folder_cannot_be_written_to(self, box: Box, manager: Manager) -> None:
        box.create(env=manager.env)
        done = box.exec("sh", "-c", f"touch {manager.inside}/../x; touch {manager.inside}x; env")
        assert "Read-only file system" in done.err
        assert "NOTIFY_SOCKET" not in done.out  # exec has no part in it

    def test_without_the_variable_nothing_is_offered(self, box: Box) -> None:
        assert "NOTIFY" not in box.says("env; ls /run 2>/dev/null; :")

    def test_a_variable_of_the_configuration_stays(self, box: Box) -> None:
        box.process["env"].append("NOTIFY_SOCKET=/run/own")
        assert box.says("echo $NOTIFY_SOCKET") == "/run/own\n"

    def test_a_container_created_without_one(self, box: Box, manager: Manager) -> None:
        box.created()
        assert box.call_apart("start", box.id, env=manager.env).status == 0

    def test_a_caller_who_does_not_listen(self, box: Box) -> None:
        box.save()
        env = {**os.environ, "NOTIFY_SOCKET": "/nothere/socket"}
        assert box.call("run", "--detach", "--bundle", str(box.bundle), box.id, env=env).status == 0


LAY = """
import os, sys
at, wanted = int(sys.argv[1]), sys.argv[2].split(",") if sys.argv[2] else []
for n, path in enumerate(wanted):
    fd = os.open(path, os.O_RDONLY)
    os.dup2(fd, 100 + n)
    os.close(fd)
for n in range(len(wanted)):
    os.dup2(100 + n, at + n)
    os.close(100 + n)
if os.environ.get("LISTEN_PID") == "own":
    os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[3], sys.argv[3:])
"""


def laid(files: list[Path], words: list[str], at: int = 3, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs a command with these files as its descriptors from `at` on, and nothing else."""
    command = [sys.executable, "-c", LAY, str(at), ",".join(map(str, files)), *words]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, **(env or {})})


class TestDescriptors:
    """--preserve-fds and LISTEN_FDS; nothing else comes along."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        made = [tmp_path / f"kept{n}" for n in range(4)]
        for n, file in enumerate(made):
            file.write_text(f"file {n}\n")
        return made

    def run(self, box: Box, *options: str) -> list[str]:
        box.save()
        return box.words("run", *options, "--bundle", str(box.bundle), box.id)

    def test_preserved_by_run_and_exec(self, box: Box, boxes: Callable[..., Box], files: list[Path]) -> None:
        box.sh("cat <&3 <&4; echo; ls /proc/$$/fd; :")
        done = laid(files, self.run(box, "--preserve-fds", "2"))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["file", "1", "0", "1", "2", "3", "4"]
        other = boxes()
        other.started()
        done = laid(files, other.words("exec", "--preserve-fds", "3", other.id, "sh", "-c", "cat <&5; ls /proc/$$/fd; :"))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["file", "2", "0", "1", "2", "3", "4", "5"]

    def test_preserved_by_create(self, box: Box, files: list[Path]) -> None:
        box.save()
        words = box.words("create", "--preserve-fds", "1", "--bundle", str(box.bundle), box.id)
        with open(os.devnull, "w") as null:
            subprocess.run([sys.executable, "-c", LAY, "3", ",".join(map(str, files)), *words], stdout=null, stderr=null, check=True)
        pid = box.pid
        box.ok("start", box.id)
        found = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert found.keys() == {"0", "1", "2", "3"}
        assert found["3"] == str(files[0])

    @pytest.mark.parametrize("at", [3, 5, 17, 250])
    def test_what_the_caller_has_open_is_not_the_containers(self, box: Box, boxes: Callable[..., Box], files: list[Path], at: int) -> None:
        done = laid(files, self.run(box.sh("ls /proc/$$/fd; :")), at)
        assert (done.returncode, done.stdout.split()) == (0, ["0", "1", "2"])
        other = boxes()
        other.started()
        done = laid(files, other.words("exec", other.id, "sh", "-c", "ls /proc/$$/fd; :"), at)
        assert (done.returncode, done.stdout.split()) == (0, ["0", "1", "2"])

    def test_some_that_are_not_open(self, box: Box, files: list[Path]) -> None:
        """Nothing of ours takes their place."""
        done = laid(files, self.run(box.sh("ls /proc/$$/fd; :"), "--preserve-fds", "100"), 9)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(map(int, done.stdout.split())) == [0, 1, 2, 9, 10, 11, 12]

    def test_many_more_than_there_can_be(self, box: Box, files: list[Path]) -> None:
        done = laid(files, self.run(box.sh("ls /proc/$$/fd; :"), "--preserve-fds", "999999999"))
        assert (done.returncode, done.stdout.split()) == (0, [*"0123456"])

    def test_none_that_is_open(self, box: Box, files: list[Path]) -> None:
        done = laid([], self.run(box, "--preserve-fds", "1"))
        assert (done.returncode, "unable to stat preserved-fd 0: the descriptor 3 is not open" in done.stderr) == (1, True)
        assert box.left() == []
        box.started()
        done = laid([], box.words("exec", "--preserve-fds", "1", box.id, "true"))
        assert (done.returncode, "unable to stat preserved-fd 0" in done.stderr) == (255, True)

    def test_sockets_of_activation_that_are_not_open(self, box: Box) -> None:
        done = laid([], self.run(box.sh("echo $LISTEN_PID; ls /proc/$$/fd; :")), env={"LISTEN_FDS": "1"})
        assert (done.returncode, done.stdout.split()) == (0, ["1", "0", "1", "2"])

    @pytest.mark.parametrize("pid", ["own", "1", None])
    def test_sockets_of_activation(self, box: Box, files: list[Path], pid: str | None) -> None:
        """What is the runtime's own becomes that of process 1; --preserve-fds come behind."""
        box.process["env"] += ["LISTEN_FDS=77", "LISTEN_PID=77"]
        box.sh("cat <&5; echo $LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES; ls /proc/$$/fd; env | grep -c LISTEN")
        env = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", **({"LISTEN_PID": pid} if pid else {})}
        done = laid(files, self.run(box, "--preserve-fds", "1"), env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.split() == ["file", "2", "2", "1", "a:b", *"012345", "3"]

    def test_sockets_of_activation_of_a_container_that_is_created(self, box: Box, files: list[Path]) -> None:
        """As an engine's monitor passes them on; start has no part in it, nor has exec."""
        box.sh("cat <&4; exec sleep 1000").save()
        words = box.words("create", "--preserve-fds", "1", "--bundle", str(box.bundle), box.id)
        with open(box.output, "w") as out:
            env = {**os.environ, "LISTEN_FDS": "2"}
            subprocess.run([sys.executable, "-c", LAY, "3", ",".join(map(str, files)), *words], stdout=out, env=env, check=True)
        pid = box.pid
        done = laid(files, box.words("start", box.id), env={"LISTEN_FDS": "1"})
        assert (done.returncode, done.stderr) == (0, "")
        assert eventually(lambda: box.output.read_text() == "file 1\n")
        assert {b"LISTEN_FDS=2", b"LISTEN_PID=1"} <= {*Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")}
        kept = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2}
        assert kept == {str(3 + n): str(files[n]) for n in range(3)}
        done = laid(files, box.words("exec", box.id, "sh", "-c", "env | grep LISTEN; ls /proc/$$/fd; :"), env={"LISTEN_FDS": "1"})
        assert (done.returncode, done.stdout.split()) == (0, ["0", "1", "2"])

    def test_sockets_for_somebody_else(self, box: Box, files: list[Path]) -> None:
        done = laid(files, self.run(box.sh("env | grep LISTEN; ls /proc/$$/fd; :")), env={"LISTEN_FDS": "2", "LISTEN_PID": "999999"})
        assert (done.returncode, done.stdout.split()) == (0, ["0", "1", "2"])


class Receiver:
    """Somebody who wants a handle on the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(2)
        self.server.settimeout(PATIENCE)

    def take(self) -> tuple[str, int]:
        peer, _ = self.server.accept()
        with peer:
            text, fds, _, _ = socket.recv_fds(peer, 64, 1)
        return text.decode(), fds[0]


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    made = Receiver(tmp_path / "pidfd.sock")
    yield made
    made.server.close()


def named(pidfd: int) -> int:
    """The process behind a pidfd."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


class TestPidfd:
    """--pidfd-socket, and crun's annotation."""

    def test_create(self, box: Box, receiver: Receiver) -> None:
        box.created("--pidfd-socket", str(receiver.path))
        kind, pidfd = receiver.take()
        pid = box.pid
        assert (kind, named(pidfd)) == ("standard", pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert status_of(pid) == 137
        os.close(pidfd)

    def test_run_by_a_relative_path(self, box: Box, receiver: Receiver) -> None:
        box.save()
        done = box.call("run", "--detach", "--pidfd-socket", "pidfd.sock", "--bundle", str(box.bundle), box.id, cwd=box.folder)
        assert done.status == 0
        kind, pidfd = receiver.take()
        assert (kind, named(pidfd)) == ("standard", box.pid)
        os.close(pidfd)

    def test_exec(self, box: Box, receiver: Receiver) -> None:
        box.started()
        pid_file = box.folder / "exec.pid"
        done = box.exec("--detach", "--pid-file", str(pid_file), "--pidfd-socket", str(receiver.path), "--", "sleep", "1000")
        assert (done.status, done.err) == (0, "")
        kind, pidfd = receiver.take()
        assert (kind, named(pidfd)) == ("setns", int(pid_file.read_text()))
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE)[0]
        assert box.status == "running"
        os.close(pidfd)

    def test_the_annotation(self, box: Box, receiver: Receiver) -> None:
        box.config["annotations"] = {"run.oci.pidfd_receiver": str(receiver.path)}
        pid = box.started()
        _, pidfd = receiver.take()
        assert named(pidfd) == pid
        os.close(pidfd)

    def test_nobody_listens(self, box: Box) -> None:
        done = box.create("--pidfd-socket", "/nothere")
        assert (done.status, done.err) == (1, "rundlet: cannot connect to the pidfd socket /nothere: no such file or directory\n")
        assert box.left() == []
