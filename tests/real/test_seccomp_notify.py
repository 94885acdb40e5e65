"""System calls that another program decides: who is handed the listener, with which words, and what becomes of the container without it."""

import base64
import contextlib
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box
from tests.real.test_filters import NOTIF_RECV, NOTIF_SEND

CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
ENOMEDIUM = 123
LISTED = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"] if os.uname().machine == "x86_64" else ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
BOTH = pytest.mark.parametrize("nnp", [True, False])  # the filter is installed at another place


class Agent(threading.Thread):
    """Takes listeners, and answers every notification: with an error, or that the call may go on. Ends when it is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = str(path)
        self.errno = ENOMEDIUM  # what the next calls get; 0: they go on
        self.hangs_up = False  # at the first notification
        self.waits = threading.Event()  # cleared: nothing is answered for now
        self.waits.set()
        self.told: list[dict[str, Any]] = []
        self.asked: list[int] = []  # by the processes of these numbers
        self.answered = 0  # of them, those who were still there to hear it
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(self.path)
        self._socket.listen()
        self._end, self._ended = os.pipe()
        self._fds: list[int] = []

    def run(self) -> None:
        waiting = select.poll()
        waiting.register(self._end, select.POLLIN)
        waiting.register(self._socket, select.POLLIN)
        connections: dict[int, socket.socket] = {}
        while True:
            for fd, event in waiting.poll():
                if fd == self._end:
                    return
                if fd == self._socket.fileno():
                    made = self._socket.accept()[0]
                    connections[made.fileno()] = made
                    waiting.register(made, select.POLLIN)
                elif fd in connections:
                    waiting.unregister(fd)
                    with connections.pop(fd) as made:
                        text, fds, _, _ = socket.recv_fds(made, 1 << 16, 4)
                    self._fds += fds
                    for one in fds:
                        waiting.register(one, select.POLLIN)
                    if text:  # else it hung up without a word
                        self.told.append(json.loads(text) | {"received": len(fds)})
                elif event & select.POLLIN and not self.hangs_up:
                    self._answer(fd)
                else:  # nobody is left whom it could tell of, or that is what we do
                    waiting.unregister(fd)
                    self._fds.remove(fd)
                    os.close(fd)

    def _answer(self, fd: int) -> None:
        raw = bytearray(80)  # struct seccomp_notif: id, pid, flags, data
        with contextlib.suppress(FileNotFoundError):  # ENOENT: who asked is gone
            ioctl(fd, NOTIF_RECV, raw)
            number, pid = struct.unpack_from("=QI", raw)
            self.asked.append(pid)
            self.waits.wait()
            ioctl(fd, NOTIF_SEND, struct.pack("=QqiI", number, 0, -self.errno, 0 if self.errno else CONTINUE))
            self.answered += 1

    def close(self) -> None:
        os.write(self._ended, b"\0")
        self.waits.set()
        self.join()
        self._socket.close()
        for fd in (self._end, self._ended, *self._fds):
            os.close(fd)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent")
    made.start()
    yield made
    made.close()


def section(path: str | None, *names: str, **more: Any) -> dict[str, Any]:
    rules = [{"names": list(names), "action": "SCMP_ACT_NOTIFY"}] if names else []
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": LISTED, "listenerPath": path, "syscalls": rules, **more}


MKDIR = ("mkdir", "mkdirat")


@BOTH
def test_it_decides_for_the_container(box: Box, agent: Agent, nnp: bool) -> None:
    box.process["noNewPrivileges"] = nnp
    box.linux["seccomp"] = section(agent.path, *MKDIR)
    done = box.sh("mkdir /tmp/a; echo $?").run()
    assert "No medium found" in done.err
    assert done.out == "1\n"
    assert not (box.rootfs / "tmp/a").exists()
    agent.errno = 0
    assert box.says("mkdir /tmp/a; ls /tmp") == "a\n"
    assert len(agent.told) == 2


@BOTH
def test_what_it_is_told(box: Box, agent: Agent, nnp: bool) -> None:
    box.process["noNewPrivileges"] = nnp
    box.config["annotations"] = {"a": "b"}
    box.linux["seccomp"] = section(agent.path, *MKDIR, listenerMetadata="any text, ä")
    pid = box.started()
    assert bundles.eventually(lambda: len(agent.told) == 1)
    state = {"ociVersion": "1.0.2", "id": box.id, "status": "creating", "pid": pid, "bundle": str(box.bundle), "annotations": {"a": "b"}}
    told = {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": pid, "metadata": "any text, ä", "state": state, "received": 1}
    assert agent.told == [told]
    # a process that joins is another one, of a container that runs
    assert "No medium found" in box.exec("sh", "-c", "mkdir /tmp/a").err
    assert agent.told[1].pop("pid") not in (pid, 0)
    del told["pid"]
    assert agent.told[1] == told | {"state": state | {"status": "running"}}
    assert set(agent.asked) != {pid}


def test_without_metadata_there_is_none(box: Box, agent: Agent) -> None:
    box.linux["seccomp"] = section(agent.path, *MKDIR)
    assert box.sh("true").run().status == 0
    assert bundles.eventually(lambda: len(agent.told) == 1)  # nothing waits for it that is not asked about a call
    assert "metadata" not in agent.told[0]


@BOTH
def test_it_may_be_asked_about_what_a_start_needs(box: Box, agent: Agent, nnp: bool) -> None:
    box.process["noNewPrivileges"] = nnp
    agent.errno = 0
    box.linux["seccomp"] = section(agent.path, "execve", "openat", "open", "read", "close", "capset", "prctl", "setresuid", "chdir")
    assert box.says("echo run") == "run\n"
    assert len(agent.asked) >= 3


def test_flags_for_who_decides_slowly(box: Box, agent: Agent) -> None:
    box.linux["seccomp"] = section(agent.path, *MKDIR, flags=["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"])
    assert "No medium found" in box.sh("mkdir /tmp/a").run().err


@pytest.mark.parametrize("killable", [True, False])
def test_signals_while_it_decides(box: Box, agent: Agent, killable: bool) -> None:
    """A call that the agent has received is not interrupted where the flag says so; else it is, and the answer comes too late."""
    agent.errno = 0
    agent.waits.clear()
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] if killable else []
    box.linux["seccomp"] = section(agent.path, "umask", flags=flags)
    box.sh("trap 'echo caught' USR1; echo ready; umask 077; echo done; exec sleep 1000")
    pid = box.started()
    assert bundles.eventually(lambda: len(agent.asked) == 1), box.output.read_text()
    assert box.call_apart("kill", box.id, "USR1").status == 0
    if killable:
        assert int(bundles.proc_status(pid)["ShdPnd"], 16) or int(bundles.proc_status(pid)["SigPnd"], 16)
    else:
        assert bundles.eventually(lambda: not int(bundles.proc_status(pid)["ShdPnd"], 16))
    agent.waits.set()
    assert bundles.eventually(lambda: box.output.read_text() == "ready\ncaught\ndone\n"), box.output.read_text()
    # the process goes on before the agent counts that it was heard
    assert bundles.eventually(lambda: len(agent.asked) - agent.answered == (0 if killable else 1)), (agent.asked, agent.answered)


def test_when_it_is_gone_there_is_no_such_call(box: Box, agent: Agent) -> None:
    agent.hangs_up = True
    box.linux["seccomp"] = section(agent.path, *MKDIR)
    assert "Function not implemented" in box.sh("mkdir /tmp/a").run().err


def test_when_it_is_gone_before_the_program_runs(box: Box, agent: Agent) -> None:
    """The process itself keeps no listener, or it would wait for ever."""
    agent.hangs_up = True
    box.linux["seccomp"] = section(agent.path, "execve")
    done = box.run()
    assert done.status == 126
    assert "function not implemented" in done.err
    assert bundles.reap() == []
    assert box.left() == []


def test_programs_of_the_container_are_its_matter_too(box: Box, agent: Agent) -> None:
    """As with the peers; and they have no descriptor of it."""
    box.linux["seccomp"] = section(agent.path, *MKDIR)
    script = "mkdir /tmp/a; ls /proc/self/fd >&2; exit 3"
    box.config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]}
    done = box.run()
    assert "No medium found | 0 | 1 | 2 | 3\n" in done.err
    assert len(agent.told) == 1


# ── no agent ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_a_rule_for_it_nobody_is_asked(box: Box) -> None:
    box.linux["seccomp"] = section("/no/such/agent")
    assert box.says("echo run") == "run\n"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "/linux/seccomp/listenerPath: is required: a rule has SCMP_ACT_NOTIFY"),
        ("/no/such/agent", "failed to connect with seccomp agent specified in the seccomp profile: "),
        ("@mysocketishere", "the seccomp agent's socket @mysocketishere is not an absolute path"),
        ("nobody", "connection refused"),
    ],
)
def test_where_nobody_listens(box: Box, path: str, words: str) -> None:
    if path == "nobody":
        path = str(box.folder / path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
            left.bind(path)
    box.linux["seccomp"] = section(path, *MKDIR)
    done = box.create()
    assert done.status == 1
    assert words in done.err
    assert done.err.count("\n") == 1
    assert box.left() == []
    assert not box.root.exists() or os.listdir(box.root) == []


@BOTH
def test_one_that_goes_between_create_and_start(box: Box, agent: Agent, nnp: bool) -> None:
    box.process["noNewPrivileges"] = nnp
    path = str(box.folder / "short")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as short:
        short.bind(path)
        short.listen()
        box.linux["seccomp"] = section(path, *MKDIR)
        pid = box.created()
    done = box.call_apart("start", box.id)
    assert done.status == 1
    assert "hand the seccomp listener to the agent: sendmsg: " in done.err
    assert bundles.status_of(pid) >= 0
    assert box.output.read_text() == ""
    box.ok("delete", box.id)
    assert box.left() == []


@pytest.mark.parametrize("name", ["write", "sendmsg"])
def test_calls_that_it_can_never_be_asked_about(box: Box, agent: Agent, name: str) -> None:
    box.linux["seccomp"] = section(agent.path, "mkdir", name)
    done = box.create()
    assert done.status == 1
    assert f"/linux/seccomp/syscalls/0/names/1: SCMP_ACT_NOTIFY cannot be used for the {name} syscall" in done.err
    assert box.left() == []


def test_a_default_that_it_can_never_be_asked_about(box: Box, agent: Agent) -> None:
    box.linux["seccomp"] = section(agent.path, defaultAction="SCMP_ACT_NOTIFY")
    done = box.create()
    assert done.status == 1
    assert "/linux/seccomp/defaultAction: must not be SCMP_ACT_NOTIFY" in done.err


def test_a_profile_that_would_not_let_the_listener_out(box: Box, agent: Agent) -> None:
    box.linux["seccomp"] = section(agent.path, *MKDIR, defaultAction="SCMP_ACT_ERRNO")
    done = box.create()
    assert done.status == 1
    assert "the call sendmsg hands the listener over, and the profile answers it with SCMP_ACT_ERRNO; allow sendmsg" in done.err


# ── annotations, and the environment ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rules", [MKDIR, ()])
@pytest.mark.parametrize("how", ["annotation", "environment"])
def test_a_receiver_that_the_configuration_does_not_name(either: Box, agent: Agent, how: str, rules: tuple[str, ...]) -> None:
    """With these the listener goes out whether a rule needs it or not."""
    agent.errno = 0
    either.linux["seccomp"] = section(None, *rules)
    env = {"PATH": os.environ["PATH"]}
    if how == "annotation":
        either.config["annotations"] = {"run.oci.seccomp.receiver": agent.path}
    else:
        env["RUN_OCI_SECCOMP_RECEIVER"] = agent.path
    done = either.sh("mkdir /tmp/a && echo done").run(env=env)
    assert (done.status, done.out, done.err) == (0, "done\n", "")
    assert bundles.eventually(lambda: len(agent.told) == 1)
    assert agent.told[0]["state"]["id"] == either.id
    assert bool(agent.asked) is bool(rules)


def program(*instructions: tuple[int, int, int, int]) -> str:
    return base64.b64encode(b"".join(struct.pack("=HBBI", *one) for one in instructions)).decode()


ERRNO_NOMEDIUM, ALLOW = 0x00050000 | ENOMEDIUM, 0x7FFF0000
NUMBERS = {"x86_64": 83, "aarch64": 34}  # mkdir(2), mkdirat(2): what busybox calls


@BOTH
def test_a_program_given_in_an_annotation(either: Box, nnp: bool) -> None:
    either.process["noNewPrivileges"] = nnp
    number = NUMBERS[os.uname().machine]
    text = program((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, ERRNO_NOMEDIUM), (0x06, 0, 0, ALLOW))
    either.config["annotations"] = {"run.oci.seccomp_bpf_data": text}
    done = either.sh("mkdir /tmp/a; grep Seccomp: /proc/self/status").run()
    assert "No medium found" in done.err
    assert done.out == "Seccomp:\t2\n"


def test_a_program_that_the_kernel_does_not_take(box: Box) -> None:
    box.config["annotations"] = {"run.oci.seccomp_bpf_data": program((0x05, 0, 0, 77))}
    done = box.run()
    assert done.status == 1
    assert "install the seccomp filter of 1 instructions: seccomp: invalid argument" in done.err
    assert bundles.reap() == []
    assert box.left() == []


def test_names_that_are_not_known(either: Box) -> None:
    either.linux["seccomp"] = section(None, syscalls=[{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}])
    assert either.says("echo run") == "run\n"
    for value, status in (("0", 0), ("1", 1)):
        either.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": value}
        done = either.sh("true").run()
        assert done.status == status
        assert ("no_such_call" in done.err) is bool(status)
    assert either.left() == []
