"""Terminals: handed to an engine through its socket, or the user's own in the foreground."""

import array
import fcntl
import os
import pty
import re
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import PATIENCE, Box, status_of, user_namespace


class Console:
    """An engine's console socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(2)
        self.server.settimeout(PATIENCE)
        self.master = -1

    def receive(self) -> str:
        """Takes the master; the name that came with it."""
        peer, _ = self.server.accept()
        name, rights, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(4))
        fds = array.array("i")
        fds.frombytes(rights[0][2][:4])
        self.master = fds[0]
        peer.close()
        return name.decode()

    def close(self) -> None:
        self.server.close()
        if self.master >= 0:
            os.close(self.master)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    made = Console(tmp_path / "console.sock")
    yield made
    made.close()


def read_until(fd: int, pattern: str) -> str:
    """What comes from a terminal until it matches."""
    text = ""
    end = time.monotonic() + PATIENCE
    while not re.search(pattern, text):
        assert time.monotonic() < end, text
        if select.select([fd], [], [], 0.5)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                data = b""
            if not data:
                assert re.search(pattern, text), text
            text += data.decode()
    return text


def size(fd: int) -> tuple[int, ...]:
    return struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))[:2]


def test_create_hands_the_terminal_out(either: Box, console: Console) -> None:
    either.process["terminal"] = True
    either.process["consoleSize"] = {"height": 33, "width": 77}
    either.sh("tty; stty size; stat -c %u $(tty); echo to the console > /dev/console; read line; echo got $line; ls -l /proc/self/fd/0")
    done = either.create("--console-socket", str(console.path))
    assert (done.status, done.err) == (0, "")
    console.receive()
    pid = either.pid
    either.ok("start", either.id)
    text = read_until(console.master, r"to the console\r\n")  # what is typed before would be echoed in between
    os.write(console.master, b"hello\n")
    text += read_until(console.master, r"got hello\r\n")
    assert "/dev/pts/0\r\n" in text
    assert "33 77\r\n" in text
    assert "to the console\r\n" in text
    status_of(pid)


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_who_waits_for_start_holds_nothing_of_the_container(box: Box, console: Console, terminal: bool, user: bool) -> None:
    """A hook may unmount what the container has, and no descriptor of the host's /proc is there to be found."""
    (box.rootfs / "copied").mkdir()
    (box.rootfs / "copied/file").touch()
    if user:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    else:
        box.linux["devices"] = [{"path": f"/dev/more/{name}", "type": "c", "major": 1, "minor": 3} for name in "ab"]
    box.without("network")
    box.linux["namespaces"].append({"type": "network", "path": f"/proc/{box.another().created()}/ns/net"})
    box.mount("/sys/fs/cgroup", "cgroup", "ro", kind="cgroup")
    box.mount("/copied", "tmpfs", "tmpcopyup", kind="tmpfs")
    box.mount("/sealed/and/new", "tmpfs", "ro", kind="tmpfs")
    box.mount("/bound/and/new/file", str(box.busybox), "bind", "ro")
    box.process["terminal"] = terminal
    box.process["cwd"] = "/made/for/it"
    box.linux["maskedPaths"].append("/copied")
    box.config["root"]["readonly"] = True
    pid = box.created(*(["--console-socket", str(console.path)] if terminal else []))
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd") if int(fd) > 2]
    assert [link for link in links if not re.fullmatch(r"socket:\[\d+\]|anon_inode:\[signalfd\]", link)] == []


def test_it_is_the_controlling_terminal(box: Box, console: Console) -> None:
    box.process["terminal"] = True
    box.sh("trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.01; done")
    box.created("--console-socket", str(console.path))
    console.receive()
    pid = box.pid
    box.ok("start", box.id)
    read_until(console.master, "ready")
    os.write(console.master, b"\x03")
    read_until(console.master, "interrupted")
    assert status_of(pid) == 5


def test_the_terminal_belongs_to_the_user(box: Box, console: Console) -> None:
    box.process["terminal"] = True
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.sh("stat -c 'owner %u' $(tty); echo again > /dev/tty; echo more > /dev/console; echo end")
    box.created("--console-socket", str(console.path))
    console.receive()
    pid = box.pid
    box.ok("start", box.id)
    text = read_until(console.master, "end")
    assert "owner 1000" in text
    assert "again" in text
    assert "more" in text
    assert status_of(pid) == 0


def test_in_a_user_namespace(box: Box, console: Console) -> None:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    box.process["terminal"] = True
    box.sh("stat -c 'owner %u' $(tty); echo more > /dev/console; echo end")
    done = box.create("--console-socket", str(console.path))
    assert (done.status, done.err) == (0, "")
    console.receive()
    pid = box.pid
    box.ok("start", box.id)
    text = read_until(console.master, "end")
    assert "owner 0" in text
    assert status_of(pid) == 0


def test_exec_hands_its_terminal_out(box: Box, console: Console) -> None:
    box.started()
    done = box.exec("--tty", "--detach", "--console-socket", str(console.path), "--", "sh", "-c", "tty; echo end; read x")
    assert (done.status, done.err) == (0, "")
    console.receive()
    assert "/dev/pts/0\r\n" in read_until(console.master, "end")


def test_exec_gives_the_console_size(box: Box, console: Console) -> None:
    box.started()
    file = box.folder / "process.json"
    file.write_text(
        '{"terminal": true, "consoleSize": {"height": 12, "width": 34}, "args": ["sh", "-c", "stty size; read x"], "cwd": "/", "env": ["PATH=/bin"]}'
    )
    done = box.exec("--process", str(file), "--detach", "--console-socket", str(console.path), "--")
    assert (done.status, done.err) == (0, "")
    console.receive()
    read_until(console.master, "12 34\r\n")


def test_a_socket_that_nobody_listens_on(box: Box) -> None:
    box.process["terminal"] = True
    done = box.create("--console-socket", "/nothere")
    assert done.status == 1
    assert "console socket /nothere: no such file or directory" in done.err
    assert box.left() == []


def test_a_terminal_needs_a_socket_and_a_socket_a_terminal(box: Box, console: Console) -> None:
    done = box.create("--console-socket", str(console.path))
    assert done.status == 1
    assert "process.terminal is false" in done.err
    box.process["terminal"] = True
    assert "use --console-socket" in box.create().err
    assert "use --console-socket" in box.run("--detach").err
    assert box.left() == []


def test_a_terminal_without_devpts(box: Box, console: Console) -> None:
    box.process["terminal"] = True
    box.config["mounts"] = [m for m in box.config["mounts"] if m["type"] != "devpts"]
    done = box.create("--console-socket", str(console.path))
    assert done.status == 1
    assert "mount a devpts on /dev/pts" in done.err
    assert box.left() == []


class Seat:
    """A command with a terminal of the test's as its own."""

    def __init__(self, words: list[str], rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        # a session of its own, whose terminal the slave becomes: setsid -c does that
        self.child = subprocess.Popen(["setsid", "--ctty", "--wait", *words], stdin=slave, stdout=slave, stderr=slave)
        self.slave = slave

    def write(self, data: bytes) -> None:
        os.write(self.master, data)

    def until(self, pattern: str) -> str:
        return read_until(self.master, pattern)

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def seats() -> Iterator[list[Seat]]:
    made: list[Seat] = []
    yield made
    for seat in made:
        seat.close()


def sit(box: Box, seats: list[Seat], *words: str) -> Seat:
    box.save()
    seats.append(Seat(box.words(*(words or ("run", "--bundle", str(box.bundle), box.id)))))
    return seats[-1]


def test_run_in_the_foreground(box: Box, seats: list[Seat]) -> None:
    box.process["terminal"] = True
    box.sh("tty; stty size; read line; echo got $line; exit 9")
    seat = sit(box, seats)
    assert "24 80\r\n" in seat.until("24 80\r\n")
    seat.write(b"typed\n")
    seat.until("got typed\r\n")
    assert seat.child.wait(PATIENCE) == 9
    assert termios.tcgetattr(seat.slave)[:4] == seat.before[:4]  # as it was
    assert box.left() == []


@pytest.mark.parametrize("status", [0, 7])
def test_a_terminal_that_hangs_up(box: Box, seats: list[Seat], status: int) -> None:
    """The container is told, and when it has ended nothing is left of it, though there is no terminal to be given back any more."""
    box.process["terminal"] = True
    box.sh(f"trap 'exit {status}' HUP; echo ready; while :; do sleep 0.01; done")
    seat = sit(box, seats)
    seat.until("ready")
    for fd in (seat.master, seat.slave):  # the slave stays the one of the runtime
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, fd)
        os.close(nothing)
    assert seat.child.wait(PATIENCE) == status
    assert box.left() == []


def test_resize(box: Box, seats: list[Seat]) -> None:
    box.process["terminal"] = True
    box.sh("trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done")
    seat = sit(box, seats)
    seat.until("ready")
    fcntl.ioctl(seat.master, termios.TIOCSWINSZ, struct.pack("4H", 50, 132, 0, 0))
    seat.until("50 132\r\n")
    assert seat.child.wait(PATIENCE) == 0


def test_control_c_is_a_byte(box: Box, seats: list[Seat]) -> None:
    """It goes to the container's terminal, which makes a signal of it; the runtime is not interrupted."""
    box.process["terminal"] = True
    box.sh("trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.01; done")
    seat = sit(box, seats)
    seat.until("ready")
    seat.write(b"\x03")
    seat.until("interrupted")
    assert seat.child.wait(PATIENCE) == 6
    assert box.left() == []


def test_much_output_arrives_whole(box: Box, seats: list[Seat]) -> None:
    box.process["terminal"] = True
    box.sh("seq 1 20000; echo end")
    seat = sit(box, seats)
    text = seat.until("end\r\n")
    assert [int(word) for word in text.split()[:-1]] == list(range(1, 20001))
    assert seat.child.wait(PATIENCE) == 0


def test_the_terminal_is_given_back_when_the_start_fails(box: Box, seats: list[Seat]) -> None:
    box.process["terminal"] = True
    box.config["hooks"] = {"poststart": [{"path": "/bin/false"}]}
    box.sh("sleep 1000")
    seat = sit(box, seats)
    seat.until("poststart hook #0")
    assert seat.child.wait(PATIENCE) == 1
    assert termios.tcgetattr(seat.slave)[:4] == seat.before[:4]
    assert box.left() == []


def test_exec_in_the_foreground(box: Box, seats: list[Seat]) -> None:
    box.started()
    seat = sit(box, seats, "exec", "--tty", box.id, "sh", "-c", "stty size; read line; echo got $line; exit 4")
    seat.until("24 80\r\n")
    seat.write(b"typed\n")
    seat.until("got typed\r\n")
    assert seat.child.wait(PATIENCE) == 4
    assert termios.tcgetattr(seat.slave)[:4] == seat.before[:4]


def test_run_detached(box: Box, console: Console) -> None:
    """The socket by a path relative to the caller's folder."""
    box.process["terminal"] = True
    box.sh("tty; readlink /proc/self/fd/2; stty size; read x")
    box.process["consoleSize"] = {"height": 10, "width": 110}
    box.save()
    done = box.call("run", "--detach", "--console-socket", "console.sock", "--bundle", str(box.bundle), box.id, cwd=box.folder)
    assert (done.status, done.err) == (0, "")
    assert console.receive() == "/dev/ptmx"
    text = read_until(console.master, "10 110\r\n")
    assert text.count("/dev/pts/0\r\n") == 2


def test_run_in_the_foreground_may_hand_its_terminal_out(box: Box, console: Console) -> None:
    box.process["terminal"] = True
    box.sh("tty; read x; exit 3").save()
    with subprocess.Popen(box.words("run", "--console-socket", str(console.path), "--bundle", str(box.bundle), box.id)) as child:
        console.receive()
        read_until(console.master, "/dev/pts/0\r\n")
        os.write(console.master, b"\n")
        assert child.wait(PATIENCE) == 3


def test_exec_in_the_foreground_may_hand_its_terminal_out(box: Box, console: Console) -> None:
    box.started()
    words = box.words("exec", "--tty", "--console-socket", str(console.path), box.id, "sh", "-c", "tty; exit 3")
    with subprocess.Popen(words) as child:
        console.receive()
        read_until(console.master, "/dev/pts/0\r\n")
        assert child.wait(PATIENCE) == 3


def test_exec_as_a_user_has_a_terminal_of_the_users(box: Box, seats: list[Seat]) -> None:
    devpts = next(m for m in box.config["mounts"] if m["type"] == "devpts")
    devpts["options"] = [*devpts["options"], "gid=5"]
    box.started()
    script = "stat -c 'owner %u:%g %a' $(tty); echo again > /dev/tty; for fd in 0 1 2; do readlink /proc/self/fd/$fd; done"
    seat = sit(box, seats, "exec", "--tty", "--user", "1000:100", box.id, "sh", "-c", script)
    text = seat.until("(/dev/pts/0\r\n){3}")
    assert "owner 1000:5 620\r\n" in text
    assert "again\r\n" in text
    assert seat.child.wait(PATIENCE) == 0


def test_exec_without_a_terminal_of_our_own(box: Box) -> None:
    box.started()
    done = box.exec("--tty", "--", "sh", "-c", "tty; tty <&2; tty <&1", stdin=subprocess.DEVNULL)
    assert (done.status, done.out, done.err) == (0, "/dev/pts/0\n" * 3, "")


def test_exec_what_does_not_go_together(box: Box, console: Console) -> None:
    box.started()
    done = box.exec("--detach", "--tty", "--", "true")
    assert (done.status, "use --console-socket" in done.err) == (255, True)
    done = box.exec("--console-socket", str(console.path), "--", "true")
    assert (done.status, "the process has no terminal" in done.err) == (255, True)


def test_the_end_of_a_terminal_is_a_hangup(box: Box, console: Console) -> None:
    box.process["terminal"] = True
    box.sh("trap 'exit 9' HUP; echo ready; while :; do sleep 0.01; done")
    box.created("--console-socket", str(console.path))
    console.receive()
    pid = box.pid
    box.ok("start", box.id)
    read_until(console.master, "ready")
    os.close(console.master)
    console.master = -1
    assert status_of(pid) == 9


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_program_that_writes_while_it_is_written_to(box: Box, verb: str) -> None:
    """Neither of the two waits for the other for ever, whatever a terminal holds back."""
    lines = "".join(f"{n}\n" for n in range(30000))
    if verb == "run":
        box.process["terminal"] = True
        done = box.sh("stty -echo; cat").run(input=lines)
    else:
        box.started()
        done = box.exec("--tty", "--", "sh", "-c", "stty -echo; cat", input=lines)
    assert done.status == 0
    assert done.out.endswith("29998\n29999\n")


def test_without_a_terminal_of_our_own(box: Box) -> None:
    """stdin is a file: its bytes go to the container's terminal, and its end is the end."""
    box.process["terminal"] = True
    done = box.sh("stty -echo; echo ready; cat; echo end").run(input="line\n")
    assert done.status == 0
    assert "line" in done.out
    assert done.out.endswith("end\n")
    assert bundles.reap() == []


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_line_ends_are_left_alone_where_stdin_is_no_terminal(box: Box, verb: str) -> None:
    """What goes to a pipe is what the program wrote."""
    if verb == "run":
        box.process["terminal"] = True
        box.sh("tty; echo two").save()
        words = box.words("run", "--bundle", str(box.bundle), box.id)
    else:
        box.started()
        words = box.words("exec", "--tty", box.id, "sh", "-c", "tty; echo two")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"/dev/pts/0\ntwo\n", b"")
