"""A compiled filter in the kernel: what it refuses is refused, and a listener that was handed over decides."""

import ctypes
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
from tests import bundles
from tests.bundles import Box
from tests.profiles import ENGINES, resolved

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
@ENGINES
def test_an_engines_profile_at_work(box: Box, profile: Path, nnp: bool) -> None:
    box.process["noNewPrivileges"] = nnp
    box.linux["seccomp"] = resolved(profile, {"CAP_KILL", "CAP_NET_BIND_SERVICE"})
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


def compiled(box: Box, source: str) -> None:
    """Makes a program in C the container's process, without libraries."""
    (box.folder / "probe.c").write_text(source)
    subprocess.run(["gcc", "-static", "-O1", "-o", str(box.rootfs / "probe"), str(box.folder / "probe.c")], check=True)
    box.process["args"] = ["/probe"]


def test_arguments(either: Box) -> None:
    """All 64 bits of them count; of two arguments both, of two comparisons of one any. The calls are such as take none, and so never fail."""
    def rule(name: str, *args: "tuple[int, str, int, int]") -> "dict[str, Any]":
        return {
            "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [{"index": i, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two} for i, op, value, two in args],
        }

    big = 1 << 33
    asked = [  # the call, its rule, and arguments with what becomes of them
        ("getuid", rule("getuid", (0, "EQ", big + 5, 0)), [(big + 5, 0, 77), (5, 0, 0), (big, 0, 0)]),
        ("geteuid", rule("geteuid", (0, "NE", 7, 0)), [(7, 0, 0), (big + 7, 0, 77)]),
        ("getgid", rule("getgid", (0, "LT", big, 0)), [(big - 1, 0, 77), (big, 0, 0)]),
        ("getegid", rule("getegid", (0, "LE", big, 0)), [(big, 0, 77), (big + 1, 0, 0)]),
        ("getppid", rule("getppid", (1, "GE", big, 0)), [(0, big, 77), (big, big - 1, 0)]),
        ("getsid", rule("getsid", (1, "GT", big, 0)), [(0, big + 1, 77), (0, big, 0)]),
        ("sched_yield", rule("sched_yield", (1, "MASKED_EQ", 0xF0, 0x20)), [(0, 0x12F, 77), (0, 0x3F, 0)]),
        ("getpgid", rule("getpgid", (0, "EQ", 0, 0), (1, "EQ", 2, 0)), [(0, 2, 77), (0, 1, 0)]),
        ("getpriority", rule("getpriority", (2, "EQ", 1, 0), (2, "EQ", 0, 0)), [(0, 0, 77)]),
    ]
    calls = "".join(f"try(SYS_{name}, {a}UL, {b}UL);" for name, _, tries in asked for a, b, _ in tries)
    compiled(either, f"""
        #include <errno.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static void try(long number, unsigned long a, unsigned long b) {{ printf("%d ", syscall(number, a, b, 0L) == -1 ? errno : 0); }}
        int main(void) {{ {calls} return 0; }}
    """)
    either.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": COMMON["architectures"][:1], "syscalls": [one for _, one, _ in asked]}
    if os.uname().machine == "aarch64":
        either.linux["seccomp"]["architectures"] = ["SCMP_ARCH_AARCH64"]
    done = either.run()
    assert done.out.split() == [str(errno) for _, _, tries in asked for _, _, errno in tries], done


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls of three architectures in one program are x86-64's")
@pytest.mark.parametrize("more", [["SCMP_ARCH_X86", "SCMP_ARCH_X32"], ["SCMP_ARCH_X32"], ["SCMP_ARCH_X86"], []])
def test_architectures(box: Box, more: "list[str]") -> None:
    """By the numbers of each that is listed; a call of another one ends the program."""
    compiled(box, """
        #include <errno.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static int seen(int kind) {  /* mkdir(NULL), as each numbers it; what became of it */
            int status;
            if (fork() == 0) {
                long result = 0;
                if (kind == 0) result = syscall(SYS_mkdir, 0L, 0L) == -1 ? errno : 0;
                if (kind == 1) { __asm__ volatile("int $0x80" : "=a"(result) : "a"(39L), "b"(0L), "c"(0L) : "memory"); result = -(int)result; }
                if (kind == 2) result = syscall(0x40000000L + SYS_mkdir, 0L, 0L) == -1 ? errno : 0;
                _exit(result);
            }
            wait(&status);
            return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
        }
        int main(void) { printf("%d %d %d", seen(0), seen(1), seen(2)); return 0; }
    """)
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", *more],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}],
    }
    said = box.run().out.split()
    emulated = Path("/proc/sys/abi/vsyscall32").exists()  # else the kernel takes no calls of 32 bits: SIGSEGV
    assert said == ["77", ("77" if "SCMP_ARCH_X86" in more else "-31") if emulated else "-11", "77" if "SCMP_ARCH_X32" in more else "-31"]


@pytest.mark.parametrize("nnp", [True, False])
def test_where_it_is_installed(either: Box, nnp: bool) -> None:
    """Under NNP as the last thing, so that a profile need not allow what a start does; without while there is the capability for it."""
    either.process["noNewPrivileges"] = nnp
    setting = ["capset", "setresuid", "setresgid", "setgroups", "setuid", "setgid"]
    either.linux["seccomp"] = {**COMMON, "syscalls": [{"names": setting, "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]}
    either.process["user"] = {"uid": 1000, "gid": 1000}
    either.process["args"] = ["sleep", "1000"]
    if nnp:
        found = bundles.proc_status(either.started())
        assert (found["Seccomp"], found["NoNewPrivs"], found["Uid"].split()[0]) == ("2", "1", "1000")
        return
    done = either.run()
    assert done.status != 0 and "file descriptor in bad state" in done.err.lower(), done
    either.linux["seccomp"]["syscalls"] = [ERRNO]
    either.id += "-allowed"  # what failed may have been kept
    either.linux["cgroupsPath"] += "-allowed"
    found = bundles.proc_status(either.started())
    assert (found["Seccomp"], found["NoNewPrivs"], found["Uid"].split()[0], int(found["CapEff"], 16)) == ("2", "0", "1000", 0)


def metadata(pid: int) -> int:
    """The flags of a process's filter that the kernel tells of, which is LOG alone: ptrace(2), PTRACE_SECCOMP_GET_METADATA."""
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    ptrace.restype = ctypes.c_long
    seize, interrupt, get_metadata, detach = 0x4206, 0x4207, 0x420D, 17
    found = (ctypes.c_uint64 * 2)()
    assert ptrace(seize, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    assert ptrace(interrupt, pid, None, None) == 0
    os.waitpid(pid, 0)
    size = ptrace(get_metadata, pid, ctypes.sizeof(found), found)
    assert ptrace(detach, pid, None, None) == 0
    assert size == ctypes.sizeof(found), os.strerror(ctypes.get_errno())
    return found[1]


def test_a_call_that_the_profile_never_heard_of(box: Box) -> None:
    """What libc is told of it makes it fall back; with runc it is so, too."""
    native = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[os.uname().machine]
    compiled(box, """
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
    libc = ("execve exit_group write read brk mmap munmap mprotect arch_prctl set_tid_address set_robust_list rseq uname readlink readlinkat "
            "getrandom prlimit64 fstat newfstatat ioctl close openat capset setresuid setresgid setgroups prctl umask chdir getcwd faccessat2")
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": [native], "syscalls": [{"names": libc.split(), "action": "SCMP_ACT_ALLOW"}],
    }
    assert box.run().out == "1 1 14 38 38 "  # 439 is faccessat2, the highest that is named: EFAULT
    box.linux["seccomp"]["defaultErrnoRet"] = 6
    assert box.run().out == "6 6 14 38 38 "


@pytest.mark.parametrize(
    "flags",
    [None, [], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]],
)
def test_flags(box: Box, flags: "list[str] | None") -> None:
    box.linux["seccomp"] = {**COMMON, "syscalls": [ERRNO]} | ({} if flags is None else {"flags": flags})
    pid = box.started()
    assert metadata(pid) == plan.FLAGS["SECCOMP_FILTER_FLAG_LOG"] * ("SECCOMP_FILTER_FLAG_LOG" in (flags or []))
    assert "ot permitted" in box.exec("mkdir", "/tmp/a").err


@pytest.mark.parametrize("flag", ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_NEW_LISTENER"])
def test_flags_that_cannot_be(box: Box, flag: str) -> None:
    box.linux["seccomp"] = {**COMMON, "flags": [flag], "syscalls": [ERRNO]}
    done = box.create()
    assert done.status == 1
    assert "/linux/seccomp/flags/0: " in done.err
    assert box.left() == []
