"""A compiled filter in the kernel: what it refuses is refused, and a listener that was handed over decides."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from socket import AF_UNIX, CMSG_LEN, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socketpair
from typing import Any

import pyseccomp
import pytest

from rundlet import kernel as k
from rundlet.errors import StepFailed
from rundlet.executor.client import Executor, spawn
from rundlet.plan import seccomp as plan
from rundlet.plan.step import Call, Step
from rundlet.seccomp.cache import program
from rundlet.seccomp.compile import library

NNP = Step("no new privileges", Call("prctl", k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
PERSONALITY = "personality"
QUERY = 0xFFFFFFFF  # personality(2): change nothing
NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_…, linux/seccomp.h


def section(default: str, *rules: "tuple[list[str], str, int | None, list[tuple[int, str, int]]]") -> Any:
    return {
        "defaultAction": default, "defaultErrnoRet": None, "architectures": [], "flags": [], "listenerPath": None, "listenerMetadata": None,
        "syscalls": [
            {
                "names": names, "action": action, "errnoRet": errno,
                "args": [{"index": i, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": 0} for i, op, value in args],
            }
            for names, action, errno, args in rules
        ],
    }


@pytest.fixture
def executor() -> Iterator[Executor]:
    made = spawn()
    yield made
    made.close()
    os.waitpid(made.pid, 0)


def call(executor: Executor, name: str, *args: "int | str") -> int:
    """The errno of a call, 0 when it succeeded."""
    try:
        executor.run([Step(name, Call(name, *args))])
    except StepFailed as e:
        return e.errno
    return 0


def test_a_filter_refuses_with_the_errno_asked_for(executor: Executor, tmp_path: Path) -> None:
    asked = section(
        "SCMP_ACT_ALLOW", (["mkdirat"], "SCMP_ACT_ERRNO", 95, []), ([PERSONALITY], "SCMP_ACT_ERRNO", None, [(0, "NE", QUERY)]),
    )
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    executor.run([NNP, *plan.steps(program(asked, str(tmp_path / "cache")), flags)])
    assert call(executor, "mkdirat", -100, str(tmp_path / "a"), 0o700) == 95
    assert call(executor, PERSONALITY, 0) == 1
    assert call(executor, PERSONALITY, QUERY) == 0
    assert call(executor, "getpid") == 0
    status = Path(f"/proc/{executor.pid}/status").read_text()
    assert "\nSeccomp:\t2\n" in status
    assert not (tmp_path / "a").exists()


def test_a_default_that_refuses_leaves_what_is_listed(executor: Executor, tmp_path: Path) -> None:
    needed = ["read", "write", "recvmsg", "recvfrom", "sendmsg", "sendto", "exit_group", "getpid", "openat", "mmap", "munmap"]
    executor.run([NNP, *plan.steps(program(section("SCMP_ACT_ERRNO", (needed, "SCMP_ACT_ALLOW", None, [])), str(tmp_path)), [])])
    assert call(executor, "getpid") == 0
    assert call(executor, "gettid") == call(executor, "getppid") == 1


def test_the_kernel_takes_the_longest_programs(executor: Executor, tmp_path: Path) -> None:
    """Hundreds of calls with comparisons of both halves: every form of instruction and long jumps, read by the kernel's checker."""
    names = [name for name in k.CALLS if name not in ("read", "write", "recvmsg", "sendmsg", "sendto", "recvfrom", "exit_group")]
    operators = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
    rules = [
        ([name], "SCMP_ACT_ERRNO", 1 + i, [(5, operators[i % 7], (1 << 63) + i), (4, operators[i % 5], i + 1), (3, "EQ", 1 << 40)])
        for i, name in enumerate(names)
    ]
    code = program(section("SCMP_ACT_ALLOW", *rules), str(tmp_path))
    assert 1000 < len(code) // 8 < 4096
    executor.run([NNP, *plan.steps(code, [])])
    assert call(executor, "getpid") == 0
    at = names.index("getpid")
    arguments = {"NE": 0, "LT": 0, "LE": 0, "EQ": (1 << 63) + at, "GE": (1 << 63) + at, "GT": (1 << 64) - 1, "MASKED_EQ": 0}
    low = {"NE": 0, "LT": 0, "LE": 0, "EQ": at + 1, "GE": at + 1}
    assert call(executor, "getpid", 0, 0, 0, 1 << 40, low[operators[at % 5]], arguments[operators[at % 7]]) == 1 + at


def test_a_listener_that_was_handed_over_decides(tmp_path: Path) -> None:
    ours, theirs = socketpair(AF_UNIX, SOCK_STREAM)
    executor = spawn(pass_fds={"receiver": theirs.fileno()})
    theirs.close()
    asked = section("SCMP_ACT_ALLOW", (["mkdirat"], "SCMP_ACT_NOTIFY", None, []))
    assert plan.notifies(asked)
    state = b'{"ociVersion":"1.3.0","fds":["seccompFd"]}'
    steps = plan.steps(program(asked, str(tmp_path / "cache")), ["SECCOMP_FILTER_FLAG_TSYNC"], notify=True)
    executor.run([NNP, *steps, plan.hand_over(state)])
    with ours:
        said, rights, _, _ = ours.recvmsg(4096, CMSG_LEN(4))
    assert said == state
    assert rights[0][:2] == (SOL_SOCKET, SCM_RIGHTS)
    (listener,) = struct.unpack("i", rights[0][2])
    try:
        path = str(tmp_path / "b")
        for answer, expected in ((-17, 17), (0, 0)):
            waiting = executor.send([Step("mkdir", Call("mkdirat", -100, path, 0o700))])
            raw = bytearray(80)  # struct seccomp_notif: id, pid, flags, data
            ioctl(listener, NOTIF_RECV, raw)
            number, pid, _, nr = struct.unpack_from("=QIIi", raw)
            assert (pid, nr) == (executor.pid, k.CALLS["mkdirat"][k.MACHINES[os.uname().machine]])
            ioctl(listener, NOTIF_SEND, struct.pack("=QqiI", number, 0, answer, 0))  # struct seccomp_notif_resp
            if expected:
                with pytest.raises(StepFailed) as e:
                    executor.receive(waiting)
                assert e.value.errno == expected
            else:
                executor.receive(waiting)  # the agent said it was done: nothing was made
        assert not Path(path).exists()
    finally:
        os.close(listener)
        executor.close()
        os.waitpid(executor.pid, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="hiding a file from one process takes a mount, and that takes root")
@pytest.mark.parametrize(
    ("hidden", "todo"),
    [
        (os.path.realpath(library()[0]), "install libseccomp2 (Fedora: libseccomp)"),
        (str(Path(pyseccomp.__file__)), "install the Python package pyseccomp"),
    ],
    ids=["libseccomp", "pyseccomp"],
)
def test_what_a_filter_needs_is_named_when_it_is_missing(tmp_path: Path, hidden: str, todo: str) -> None:
    asked = section("SCMP_ACT_ALLOW")
    script = tmp_path / "ask.py"
    path = [entry for entry in sys.path if entry]
    if hidden == pyseccomp.__file__:  # an empty file would be another fault than a missing one
        path = [entry for entry in path if not (Path(entry) / "pyseccomp.py").exists()]
    script.write_text(
        f"import sys\nsys.path[:] = {path!r}\nfrom rundlet.errors import Refused\nfrom rundlet.seccomp.cache import program\n"
        f"try:\n    program({asked!r}, {str(tmp_path / 'cache')!r})\nexcept Refused as e:\n    print(e.todo)\n"
    )
    hide = "mount --bind /dev/null \"$0\" && exec \"$@\""
    done = subprocess.run(["unshare", "-m", "sh", "-c", hide, hidden, sys.executable, "-ISB", str(script)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (todo + "\n", "")
