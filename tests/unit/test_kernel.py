"""kernel.py's numbers against the installed headers of Linux, for both machines.

A compiler evaluates the constants and writes them into assembler text (as the kernel's own asm-offsets.c does), so a cross
compiler is enough to ask about the other machine. What an older header does not know is not compared; what no header is asked
about must be in the short list of EXEMPT.
"""

import errno
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from functools import cache

import pytest

from rundlet import kernel
from tests.executor.builds import NATIVE, TARGETS, Target

# what <asm/unistd.h> of arm64 defines before it includes <asm-generic/unistd.h> (arch/arm64/include/uapi/asm/unistd.h)
ARM64_WANTS = "RENAMEAT NEW_STAT SET_GET_RLIMIT TIME32_SYSCALLS SYS_CLONE3 MEMFD_SECRET"
LINUX = (
    "linux/types.h", "linux/fcntl.h", "linux/openat2.h", "linux/stat.h", "linux/sched.h", "linux/mount.h", "linux/prctl.h",
    "linux/capability.h", "asm/socket.h", "asm/ioctl.h", "asm/ioctls.h", "linux/poll.h", "linux/magic.h", "linux/signal.h",
    "linux/resource.h", "linux/errno.h",
)  # fmt: skip
LIBC = ("sys/socket.h", "sys/mount.h")  # these few stand in no header of Linux itself
LIBC_NAMES = {"SCM_RIGHTS", "MSG_NOSIGNAL", "SOCK_CLOEXEC", "MNT_DETACH"}
ENUMS = {"FSCONFIG_SET_FLAG", "FSCONFIG_SET_STRING", "FSCONFIG_CMD_CREATE"}  # no macros, so #ifdef does not see them
ELSEWHERE = {"LINUX_CAPABILITY_VERSION_3": "_LINUX_CAPABILITY_VERSION_3"}
EXEMPT = {"O_HERE"}  # a word of ours: two flags together


def evaluate(compiler: str, headers: tuple[str, ...], expressions: Mapping[str, str], options: tuple[str, ...] = ()) -> dict[str, int]:
    """The values of C expressions, by name; those of macros that are not defined are left out."""
    lines = [f"#include <{header}>" for header in headers] + ["void show(void)", "{"]
    for name, expression in expressions.items():
        word = re.search(r"[A-Za-z_]\w*", expression)
        guarded = word and word[0] == expression and expression not in ENUMS
        show = f'__asm__ volatile("\\n.ascii \\"->{name} %0\\"" : : "i" ((long long)({expression})));'
        lines += [f"#ifdef {expression}", show, "#endif"] if guarded else [show]
    source = "\n".join([*lines, "}", ""])
    done = subprocess.run([compiler, *options, "-S", "-x", "c", "-", "-o", "-"], input=source, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: int(value) for name, value in re.findall(r'->(\w+) [$#]?(-?\d+)"', done.stdout)}


@cache
def has_headers(compiler: str, headers: tuple[str, ...]) -> str:
    """Why a compiler cannot be asked about headers, or nothing."""
    if not shutil.which(compiler):
        return f"no {compiler} here"
    source = "".join(f"#include <{header}>\n" for header in headers)
    done = subprocess.run([compiler, "-E", "-x", "c", "-"], input=source, text=True, capture_output=True, check=False)
    return f"{compiler} has no Linux headers" if done.returncode else ""


@pytest.fixture(params=TARGETS, ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Target:
    target: Target = request.param
    if missing := has_headers(target.compiler, LINUX):
        pytest.skip(missing)
    return target


def compare(ours: Mapping[str, int], theirs: Mapping[str, int], least: int) -> None:
    """Equal as far as both go, and that is far enough to mean something. Words are compared, whatever their sign."""
    for name, value in theirs.items():
        assert ours[name] % (1 << 64) == value % (1 << 64), name
    assert len(theirs) >= least, f"the headers know only {sorted(theirs)}"


def test_system_calls(target: Target) -> None:
    found = evaluate(target.compiler, ("asm/unistd.h",), {name: f"__NR_{name}" for name in kernel.CALLS})
    compare({name: numbers[target.machine] for name, numbers in kernel.CALLS.items()}, found, len(kernel.CALLS) - 10)


def test_system_calls_of_aarch64_as_any_machine_knows_them() -> None:
    if missing := has_headers(NATIVE.compiler, ("asm-generic/unistd.h",)):
        pytest.skip(missing)
    wants = tuple(f"-D__ARCH_WANT_{name}" for name in ARM64_WANTS.split())
    found = evaluate(NATIVE.compiler, ("asm-generic/unistd.h",), {name: f"__NR_{name}" for name in kernel.CALLS}, wants)
    compare({name: numbers[1] for name, numbers in kernel.CALLS.items()}, found, len(kernel.CALLS) - 10)


def constants() -> dict[str, int]:
    """Every number that kernel.py has a name of Linux's for; but what posix gives is not its own."""
    return {name: value for name, value in vars(kernel).items() if name.isupper() and type(value) is int and not hasattr(os, name)} | {
        name: value for name, value in vars(kernel).items() if name.startswith(("O_", "S_")) and name not in ("O_DIRECTORY", "O_NOFOLLOW")
    }


def test_flags(target: Target) -> None:
    ours = {name: value for name, value in constants().items() if name not in LIBC_NAMES | EXEMPT}
    found = evaluate(target.compiler, LINUX, {name: ELSEWHERE.get(name, name) for name in ours})
    compare(ours, found, len(ours) - 5)


def test_flags_that_only_libc_names() -> None:
    if missing := has_headers(NATIVE.compiler, LIBC):
        pytest.skip(missing)
    found = evaluate(NATIVE.compiler, LIBC, {name: name for name in LIBC_NAMES}, ("-D_GNU_SOURCE",))
    compare(constants(), found, len(LIBC_NAMES))


def spelled(table: Mapping[str, int], others: Mapping[str, str]) -> dict[str, int]:
    """A table by Linux's names: upper case, some being others."""
    return {others.get(name, name).upper(): value for name, value in table.items()}


@pytest.mark.parametrize(("table", "prefix", "least"), [
    (kernel.ERRNO, "", 35), (kernel.RLIMITS, "", 16), ({name: i for i, name in enumerate(kernel.CAPABILITIES)}, "", 38),
    ({name: number for name, number in kernel.SIGNALS.items() if name[:2] != "RT"}, "SIG", 33),  # the real-time ones are libc's to count
    (spelled(kernel.NAMESPACES, {"mount": "ns", "network": "net"}), "CLONE_NEW", 8),
    (spelled(kernel.MOUNT_ATTR, {"ro": "rdonly"}), "MOUNT_ATTR_", 8),
    ({name: int.from_bytes(getattr(kernel, name), "little") for name in ("PROC_SUPER_MAGIC", "DEVPTS_SUPER_MAGIC")}, "", 2),
], ids=["errno", "rlimits", "capabilities", "signals", "namespaces", "mount attributes", "magic"])  # fmt: skip
def test_tables(target: Target, table: dict[str, int], prefix: str, least: int) -> None:
    compare(table, evaluate(target.compiler, LINUX, {name: prefix + name for name in table}), least)


def test_every_capability_of_the_header_has_a_name(target: Target) -> None:
    last = evaluate(target.compiler, LINUX, {"last": "CAP_LAST_CAP"})["last"]
    assert last < len(kernel.CAPABILITIES)
    assert len(set(kernel.CAPABILITIES)) == len(kernel.CAPABILITIES)


def test_structures_have_the_kernels_size(target: Target) -> None:
    found = evaluate(target.compiler, LINUX, {"open_how": "sizeof(struct open_how)", "mount_attr": "sizeof(struct mount_attr)"})
    assert (len(kernel.open_how(0)), len(kernel.mount_attr())) == (found["open_how"], found["mount_attr"])


def test_structures_have_the_kernels_order(target: Target) -> None:
    def offsets(kind: str, names: str) -> list[int]:
        asked = {name: f"__builtin_offsetof(struct {kind}, {name})" for name in names.split()}
        found = evaluate(target.compiler, LINUX, asked)
        return [found[name] // 8 for name in asked]

    assert offsets("open_how", "flags mode resolve") == [0, 1, 2]
    assert offsets("mount_attr", "attr_set attr_clr propagation userns_fd") == [0, 1, 2, 3]
    assert kernel.open_how(1, 2, 3) == b"".join(n.to_bytes(8, "little") for n in (1, 2, 3))
    assert kernel.mount_attr(1, 2, 3, 4) == b"".join(n.to_bytes(8, "little") for n in (1, 2, 3, 4))


def test_this_python_agrees() -> None:
    assert {name: getattr(errno, name) for name in kernel.ERRNO} == kernel.ERRNO
    assert all(number == getattr(kernel, name, number) for name, number in kernel.ERRNO.items())
    assert {name: getattr(signal, f"SIG{name}") for name in kernel.SIGNALS} == kernel.SIGNALS
    assert (kernel.S_IFREG, kernel.S_IFCHR, kernel.S_IFBLK, kernel.S_IFIFO) == (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)
    assert kernel.O_HERE == os.O_PATH | os.O_CLOEXEC


def test_no_errno_is_too_large_for_the_executor() -> None:
    assert max(kernel.ERRNO.values()) < 256
    assert 0 not in kernel.ERRNO.values()


@pytest.mark.parametrize(
    ("major", "minor"), [(0, 0), (1, 3), (5, 2), (136, 0), (255, 255), (256, 256), (4095, 0xFFFFF), (0xFFFFF, 0xFFFFFF)],
)
def test_device_numbers(major: int, minor: int) -> None:
    assert kernel.device(major, minor) == os.makedev(major, minor)
