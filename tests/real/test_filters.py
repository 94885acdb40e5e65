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
from tests.bundles import Box
from tests.profiles import engine_profile, resolved

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
    executor.run([NNP, *plan.telling(steps, state.decode())])
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


# ── whole profiles, in containers ────────────────────────────────────────────────────────────────────────────────────────────

WORKLOAD = """
mkdir /tmp/d && cd /tmp/d && seq 1000 | tee a | sort -rn | head -1 && ln -s a b && cp b c && chmod 600 c && mv c e && wc -l < e
mkfifo f; (echo through a fifo > f &) ; cat f; timeout 5 sh -c 'kill -USR1 $$' ; trap 'echo caught' TERM; kill $$; date -d @0 +%Y
find / -xdev -name a; ps > /dev/null && stat -c %s a && rm -r /tmp/d && echo done
"""


@pytest.mark.parametrize("nnp", [True, False])
@pytest.mark.skipif(not engine_profile().exists(), reason="containers-common is not installed: no /usr/share/containers/seccomp.json")
def test_an_engines_profile_at_work(box: Box, nnp: bool) -> None:
    box.process["noNewPrivileges"] = nnp
    box.linux["seccomp"] = resolved(engine_profile(), {"CAP_KILL", "CAP_NET_BIND_SERVICE"})
    (box.rootfs / "log").touch()
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "cat | grep -c created > /log"], "env": ["PATH=/bin"], "timeout": 60}
    box.config["hooks"] = {"startContainer": [hook]}
    done = box.sh(WORKLOAD).run()
    assert (done.status, done.err) == (0, "User defined signal 1\n")
    assert done.out.split() == ["1000", "1000", "through", "a", "fifo", "caught", "1970", "/tmp/d/a", "3893", "done"]
    assert (box.rootfs / "log").read_text() == "1\n"
    done = box.sh("umount /proc; mount -t tmpfs x /tmp; chroot / true; mknod /tmp/x c 1 3; grep ^Seccomp: /proc/self/status").run()
    assert done.err.lower().count("not permitted") + done.err.count("permission denied") == 4
    assert done.out == "Seccomp:\t2\n"
    box.sh("sleep 1000").started()
    assert box.exec("sh", "-c", "grep ^Seccomp: /proc/self/status").out == "Seccomp:\t2\n"


ERRNO = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
COMMON = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}


@pytest.mark.parametrize("nnp", [True, False])
@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"action": "SCMP_ACT_ERRNO"}, "Operation not permitted"),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 100}, "Network is down"),
        ({"action": "SCMP_ACT_TRACE"}, "Function not implemented"),  # nobody traces: seccomp(2)
        ({"action": "SCMP_ACT_LOG"}, ""),
        ({"action": "SCMP_ACT_ALLOW"}, ""),
        ({"action": "SCMP_ACT_KILL"}, "Bad system call"),
        ({"action": "SCMP_ACT_KILL_THREAD"}, "Bad system call"),
        ({"action": "SCMP_ACT_KILL_PROCESS"}, "Bad system call"),
        ({"action": "SCMP_ACT_TRAP"}, "Bad system call"),
    ],
)
def test_every_action(either: Box, nnp: bool, rule: "dict[str, Any]", words: str) -> None:
    either.process["noNewPrivileges"] = nnp
    either.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    either.linux["seccomp"] = {**COMMON, "syscalls": [{"names": ["mkdir", "mkdirat"], **rule}]}
    done = either.sh("(exec mkdir /tmp/a); [ -d /tmp/a ] && echo made").run()
    assert words in done.err
    assert done.out == ("" if words else "made\n")


def test_a_call_that_the_profile_never_heard_of(box: Box) -> None:
    """What libc is told of it makes it fall back; with runc it is so, too."""
    native = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[os.uname().machine]
    probe = box.rootfs / "probe"
    source = box.folder / "probe.c"
    source.write_text("""
        #include <errno.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(void) {
            long numbers[] = {SYS_unshare, SYS_setns, 439, 440, 1000};
            for (int i = 0; i < 5; i++) printf("%d ", syscall(numbers[i], -1L, 0L, 0L, 0L) == -1 ? errno : 0);
            return 0;
        }
    """)
    subprocess.run(["gcc", "-static", "-O1", "-o", str(probe), str(source)], check=True)
    libc = ("execve exit_group write read brk mmap munmap mprotect arch_prctl set_tid_address set_robust_list rseq uname readlink readlinkat "
            "getrandom prlimit64 fstat newfstatat ioctl close openat capset setresuid setresgid setgroups prctl umask chdir getcwd faccessat2")
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": [native], "syscalls": [{"names": libc.split(), "action": "SCMP_ACT_ALLOW"}],
    }
    box.process["args"] = ["/probe"]
    assert box.run().out == "1 1 14 38 38 "  # 439 is faccessat2, the highest that is named: EFAULT
    box.linux["seccomp"]["defaultErrnoRet"] = 6
    assert box.run().out == "6 6 14 38 38 "


@pytest.mark.parametrize(
    "flags",
    [None, [], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]],
)
def test_flags(box: Box, flags: "list[str] | None") -> None:
    box.linux["seccomp"] = {**COMMON, "syscalls": [ERRNO]} | ({} if flags is None else {"flags": flags})
    assert "ot permitted" in box.sh("mkdir /tmp/a").run().err


@pytest.mark.parametrize("flag", ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_NEW_LISTENER"])
def test_flags_that_cannot_be(box: Box, flag: str) -> None:
    box.linux["seccomp"] = {**COMMON, "flags": [flag], "syscalls": [ERRNO]}
    done = box.create()
    assert done.status == 1
    assert "/linux/seccomp/flags/0: " in done.err
    assert box.left() == []
