"""linux.seccomp: the compiled program against an independent reading of the section, the kept programs, and the step that loads them.

The program is run by an interpreter of classic BPF (kernel/seccomp.c, seccomp_check_filter: the instructions a filter may have), the
section by `verdict`, which knows nothing of libseccomp.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyseccomp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rundlet import keep
from rundlet.errors import BadSpec, Fault, Refused
from rundlet.plan import seccomp as plan
from rundlet.plan.step import Call, Data, Ptr, Slot
from rundlet.seccomp import cache
from rundlet.seccomp.compile import VERSION, compile_section, library
from tests.profiles import DOCKER, ENGINES, resolved

NATIVE = os.uname().machine
on_x86 = pytest.mark.skipif(NATIVE != "x86_64", reason="the numbers of the calls below are those of x86-64")

KILL_THREAD, KILL_PROCESS, TRAP, LOG, ALLOW, NOTIFY = 0, 0x80000000, 0x30000, 0x7FFC0000, 0x7FFF0000, 0x7FC00000
ERRNO, TRACE = 0x50000, 0x7FF00000
X86_64, X86 = 0xC000003E, 0x40000003  # AUDIT_ARCH_…, linux/audit.h
X32 = 0x40000000  # __X32_SYSCALL_BIT, asm/unistd.h: added to the number
U64 = (1 << 64) - 1

# <asm/unistd_64.h>, <asm/unistd_32.h>; none that x32 numbers anew or that x86 reaches through socketcall(2) or ipc(2)
CALLS = {
    "read": (0, 3), "write": (1, 4), "open": (2, 5), "close": (3, 6), "lseek": (8, 19), "mprotect": (10, 125), "getpid": (39, 20),
    "exit": (60, 1), "mkdir": (83, 39), "chmod": (90, 15), "personality": (135, 136), "prctl": (157, 172), "mount": (165, 21),
    "gettid": (186, 224), "keyctl": (250, 288), "openat": (257, 295), "unshare": (272, 310), "seccomp": (317, 354),
    "clone3": (435, 435), "openat2": (437, 437),
}


def section(
    default: str = "SCMP_ACT_ERRNO", errno: int | None = None, syscalls: "list[dict[str, Any]] | None" = None,
    architectures: "list[str] | None" = None,
) -> Any:
    """linux.seccomp as the specification's reader hands it over."""
    return {
        "defaultAction": default, "defaultErrnoRet": errno, "architectures": architectures or [], "flags": [],
        "listenerPath": None, "listenerMetadata": None, "syscalls": syscalls or [],
    }


def rule(names: list[str], action: str = "SCMP_ACT_ALLOW", errno: int | None = None, *args: tuple[int, str, int, int]) -> dict[str, Any]:
    return {
        "names": names, "action": action, "errnoRet": errno,
        "args": [{"index": i, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": two} for i, op, value, two in args],
    }


def run(program: bytes, arch: int, number: int, args: "tuple[int, ...]" = (0,) * 6) -> int:
    """What a filter returns for struct seccomp_data {nr, arch, instruction_pointer, args[6]}."""
    data = struct.pack("=II7Q", number & 0xFFFFFFFF, arch, 0, *args)
    a = at = 0
    while True:
        code, yes, no, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            (a,) = struct.unpack_from("=I", data, k)
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            a &= k
        elif code == 0x05:  # BPF_JMP | BPF_JA
            at += k
        elif code == 0x15:  # BPF_JEQ, and so on
            at += yes if a == k else no
        elif code == 0x25:
            at += yes if a > k else no
        elif code == 0x35:
            at += yes if a >= k else no
        elif code == 0x45:
            at += yes if a & k else no
        elif code == 0x06:  # BPF_RET | BPF_K
            return int(k)
        else:
            raise AssertionError(f"instruction {at - 1}: libseccomp does not make {code:#x}")


def word(action: str, errno: int | None) -> int:
    number = 1 if errno is None else errno
    return {
        "SCMP_ACT_KILL": KILL_THREAD, "SCMP_ACT_KILL_THREAD": KILL_THREAD, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS, "SCMP_ACT_TRAP": TRAP,
        "SCMP_ACT_LOG": LOG, "SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_NOTIFY": NOTIFY, "SCMP_ACT_ERRNO": ERRNO | number,
        "SCMP_ACT_TRACE": TRACE | number,
    }[action]


COMPARE: "dict[str, Callable[[int, int, int], bool]]" = {
    "SCMP_CMP_NE": lambda got, value, two: got != value,
    "SCMP_CMP_LT": lambda got, value, two: got < value,
    "SCMP_CMP_LE": lambda got, value, two: got <= value,
    "SCMP_CMP_EQ": lambda got, value, two: got == value,
    "SCMP_CMP_GE": lambda got, value, two: got >= value,
    "SCMP_CMP_GT": lambda got, value, two: got > value,
    "SCMP_CMP_MASKED_EQ": lambda got, value, two: got & value == two,
}


def verdict(wanted: Any, arch: int, number: int, args: "tuple[int, ...]") -> int:
    """What the section says about a call, read from the specification."""
    listed = {"SCMP_ARCH_X86_64", *wanted["architectures"]}
    if arch == X86_64:
        name = next((name for name, (nr, _) in CALLS.items() if nr == number & ~X32), "")
        if number & X32 and "SCMP_ARCH_X32" not in listed:
            return KILL_THREAD
        said = "SCMP_ARCH_X32" if number & X32 else "SCMP_ARCH_X86_64"
    elif arch == X86 and "SCMP_ARCH_X86" in listed:
        name = next((name for name, (_, nr) in CALLS.items() if nr == number), "")
        said = "SCMP_ARCH_X86"
    else:
        return KILL_THREAD
    named = [CALLS[one][arch == X86] for asked in wanted["syscalls"] for one in asked["names"]]
    denies = wanted["defaultAction"] not in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
    if said in wanted["architectures"] and denies and named and number & ~X32 > max(named):
        return ERRNO | 38  # newer than the profile
    default = word(wanted["defaultAction"], wanted["defaultErrnoRet"])
    telling = [asked for asked in wanted["syscalls"] if name in asked["names"] and word(asked["action"], asked["errnoRet"]) != default]
    for plain in telling:
        if not plain["args"]:
            return word(plain["action"], plain["errnoRet"])
    for asked in telling:
        indexes = [arg["index"] for arg in asked["args"]]
        mask = 0xFFFFFFFF if arch == X86 else U64  # what a register of the architecture holds
        holds = [COMPARE[arg["op"]](args[arg["index"]] & mask, arg["value"] & mask, arg["valueTwo"] & mask) for arg in asked["args"]]
        if any(holds) if len(set(indexes)) < len(indexes) else all(holds):
            return word(asked["action"], asked["errnoRet"])
    return default


EDGES = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 1 << 63, U64 - 1, U64]
numbers = st.sampled_from(EDGES) | st.integers(0, 15) | st.integers(0, U64)
actions = st.one_of(
    st.sampled_from(["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP", "LOG", "ALLOW"]).map(lambda name: (f"SCMP_ACT_{name}", None)),
    st.tuples(st.just("SCMP_ACT_ERRNO"), st.none() | st.sampled_from([0, 1, 38, 4095])),
    st.tuples(st.just("SCMP_ACT_TRACE"), st.none() | st.sampled_from([0, 1, 65535])),
)


@st.composite
def comparisons(draw: st.DrawFn) -> "tuple[int, str, int, int]":
    index, value, two = draw(st.integers(0, 5)), draw(numbers), draw(numbers)
    op = draw(st.sampled_from(sorted(COMPARE))).removeprefix("SCMP_CMP_")
    return index, op, value, two & value if draw(st.booleans()) else two


@st.composite
def profiles(draw: st.DrawFn) -> Any:
    rules = []
    for _ in range(draw(st.integers(0, 8))):
        names = draw(st.lists(st.sampled_from(sorted(CALLS)), min_size=1, max_size=6, unique=True))
        rules.append(rule(names, *draw(actions), *draw(st.lists(comparisons(), max_size=3))))
    architectures = draw(st.lists(st.sampled_from(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]), unique=True))
    return section(*draw(actions), rules, architectures)


def near(wanted: Any) -> "st.SearchStrategy[tuple[int, ...]]":
    """Arguments at, above and below the values that the rules compare with."""
    values = {0} | {arg[key] for asked in wanted["syscalls"] for arg in asked["args"] for key in ("value", "valueTwo")}
    points = sorted({(value + step) & U64 for value in values for step in (-1, 0, 1)})
    return st.tuples(*[st.sampled_from(points) | numbers] * 6)


@on_x86
@settings(max_examples=100, deadline=None)
@given(st.data(), profiles())
def test_program_says_what_the_section_says(data: st.DataObject, wanted: Any) -> None:
    program, warnings = compile_section(wanted)
    assert warnings == []
    for args in data.draw(st.lists(near(wanted), min_size=1, max_size=4)):
        for long, short in [*CALLS.values(), (999, 999)]:
            for arch, number in ((X86_64, long), (X86_64, long | X32), (X86, short), (0xC00000B7, long)):
                assert run(program, arch, number, args) == verdict(wanted, arch, number, args), (hex(arch), number, args)


@on_x86
@pytest.mark.parametrize("many", [False, True], ids=["one call", "all calls"])
def test_no_architecture_listed_means_the_native_one(many: bool) -> None:
    program, _ = compile_section(section(syscalls=[rule(sorted(CALLS) if many else ["read"])]))
    assert run(program, X86_64, 0) == ALLOW
    assert run(program, X86_64, 999) == ERRNO | 1
    assert run(program, X86, 3) == KILL_THREAD
    assert run(program, X86_64, X32) == KILL_THREAD


@on_x86
def test_a_section_without_rules_is_its_default() -> None:
    program, _ = compile_section(section("SCMP_ACT_ALLOW"))
    assert run(program, X86_64, 0) == run(program, X86_64, 435) == ALLOW


@on_x86
def test_a_skipped_call_is_no_x32_call() -> None:
    program, _ = compile_section(section("SCMP_ACT_ALLOW"))  # ptrace(2): a tracer skips a call by the number -1
    assert run(program, X86_64, -1) == ALLOW
    assert run(program, X86_64, -2) == KILL_THREAD


def libseccomp(default: int, rules: "list[tuple[int, str]]", architectures: "list[int]") -> bytes:
    made = pyseccomp.SyscallFilter(default)
    for arch in architectures:
        made.add_arch(arch)
    for action, name in rules:
        made.add_rule(action, name)
    with open(os.memfd_create("bpf"), "rb+") as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


# accept, send and recv, which have no number of their own on x86, are left to the test below: libseccomp 2.5.4 makes no rule of them here
SOCKETS = "socket bind connect listen getsockname socketpair sendto recvfrom shutdown sendmsg accept4 sendmmsg".split()
QUEUES = "semop semget semctl semtimedop msgsnd msgrcv msgget msgctl shmat shmdt shmget shmctl".split()


@on_x86
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([("SCMP_ACT_TRACE", TRACE | 1), ("SCMP_ACT_ALLOW", ALLOW)]),  # with others we answer newer calls otherwise
    st.dictionaries(st.sampled_from([*CALLS, *SOCKETS, *QUEUES, "socketcall", "ipc"]), st.sampled_from(["SCMP_ACT_TRAP", "SCMP_ACT_LOG"])),
    st.booleans(),
)
def test_without_comparisons_it_is_libseccomps_verdict(default: "tuple[str, int]", rules: "dict[str, str]", x32: bool) -> None:
    ours, _ = compile_section(section(
        default[0], None, [rule([name], action) for name, action in rules.items()], ["SCMP_ARCH_X86", *["SCMP_ARCH_X32"] * x32],
    ))
    architectures = [pyseccomp.Arch.X86, *[pyseccomp.Arch.X32] * x32]
    theirs = libseccomp(default[1], [(word(action, None), name) for name, action in rules.items()], architectures)
    for number in [*range(470), 0xFFFFFFFF]:
        for arch, nr in ((X86_64, number), (X86_64, number | X32), (X86, number)):
            for first in range(26) if (arch, nr) in ((X86, 102), (X86, 117)) else (0,):  # socketcall(2), ipc(2)
                args = (first, 0, 0, 0, 0, 0)
                if not (nr == 0xFFFFFFFF and arch == X86):
                    assert run(ours, arch, nr, args) == run(theirs, arch, nr, args), (hex(arch), nr, first)


@on_x86
@pytest.mark.parametrize(("name", "number"), [("accept", 5), ("send", 9), ("recv", 10)])
def test_what_exists_only_through_socketcall_is_found_there(name: str, number: int) -> None:
    program, _ = compile_section(section("SCMP_ACT_ERRNO", None, [rule([name], "SCMP_ACT_ALLOW")], ["SCMP_ARCH_X86"]))
    for first in range(1, 21):
        assert run(program, X86, 102, (first, 0, 0, 0, 0, 0)) == (ALLOW if first == number else ERRNO | 1)


@on_x86
@pytest.mark.parametrize(
    ("default", "action", "through", "direct"),
    [("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", ERRNO | 1, ERRNO | 1), ("SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", ERRNO | 1, ALLOW)],
)
def test_where_arguments_are_hidden_the_stricter_verdict_holds(default: str, action: str, through: int, direct: int) -> None:
    program, _ = compile_section(section(default, None, [rule(["socket"], action, None, (0, "EQ", 38, 0))], ["SCMP_ARCH_X86"]))
    assert run(program, X86, 359, (38, 0, 0, 0, 0, 0)) == run(program, X86_64, 41, (38, 0, 0, 0, 0, 0)) == direct
    assert run(program, X86, 102, (1, 0xFFFF0000, 0, 0, 0, 0)) == through
    assert run(program, X86, 102, (2, 0xFFFF0000, 0, 0, 0, 0)) == word(default, None)


@on_x86
def test_ipc_is_told_by_the_lower_half_of_its_first_argument() -> None:
    program, _ = compile_section(section("SCMP_ACT_ALLOW", None, [rule(["shmget"], "SCMP_ACT_ERRNO")], ["SCMP_ARCH_X86"]))
    for first in (23, 23 | 1 << 16):  # ipc/syscall.c: the upper half is a version
        assert run(program, X86, 117, (first, 0, 0, 0, 0, 0)) == ERRNO | 1


@on_x86
def test_a_long_program_reaches_its_ends() -> None:
    """Conditional jumps reach 255 instructions; this program has thousands between a comparison and its verdict."""
    names = sorted({os.fsdecode(pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, number)) for number in range(330)})
    rules = [rule([name], "SCMP_ACT_ERRNO", i, (1, "EQ", i << 20, 0), (2, "GT", i, 0)) for i, name in enumerate(names)]
    program, _ = compile_section(section("SCMP_ACT_ALLOW", None, rules))
    assert len(program) // 8 > 3000
    for i, name in enumerate(names):
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.X86_64, name)
        assert run(program, X86_64, number, (0, i << 20, i + 1, 0, 0, 0)) == ERRNO | i
        assert run(program, X86_64, number, (0, i << 20, i, 0, 0, 0)) == ALLOW
    assert run(program, X86, 3) == KILL_THREAD


def test_what_is_not_known_is_passed_over_with_a_warning() -> None:
    program, warnings = compile_section(section(syscalls=[rule(["no_such_call", "read\0x"])]))
    assert program == compile_section(section())[0]
    assert warnings == [
        f"/linux/seccomp/syscalls/0/names/0: libseccomp {VERSION} knows no call 'no_such_call', which gets the default action",
        f"/linux/seccomp/syscalls/0/names/1: libseccomp {VERSION} knows no call 'read\\x00x', which gets the default action",
    ]


@pytest.mark.parametrize(
    ("asked", "where"),
    [
        (section(architectures=["SCMP_ARCH_X86", "SCMP_ARCH_PDP11"]), "/linux/seccomp/architectures/1"),
        (section("SCMP_ACT_ERRNO", 4096), "/linux/seccomp/defaultErrnoRet"),
        (section("SCMP_ACT_ALLOW", 1), "/linux/seccomp/defaultErrnoRet"),
        (section("SCMP_ACT_PANIC"), "/linux/seccomp/defaultAction"),
        (section(syscalls=[rule(["read"]), rule(["read"], "SCMP_ACT_TRACE", 65536)]), "/linux/seccomp/syscalls/1/errnoRet"),
        (section(syscalls=[rule(["read"], "SCMP_ACT_LOG", None, (6, "EQ", 0, 0))]), "/linux/seccomp/syscalls/0/args/0/index"),
        (section(syscalls=[rule(["read"], "SCMP_ACT_ALLOW", None, (0, "IS", 0, 0))]), "/linux/seccomp/syscalls/0/args/0/op"),
    ],
)
def test_what_no_filter_can_say_is_told_with_its_place(asked: Any, where: str) -> None:
    with pytest.raises(BadSpec) as e:
        compile_section(asked)
    assert e.value.where == where


@on_x86
@ENGINES
def test_an_engines_profile(profile: Path) -> None:
    asked = resolved(profile)
    rules = [{"errnoRet": None, **rule, "args": [{"valueTwo": 0, **arg} for arg in rule.get("args", [])]} for rule in asked["syscalls"]]
    program, _ = compile_section(section(asked["defaultAction"], asked.get("defaultErrnoRet"), rules, asked["architectures"]))
    assert len(program) // 8 < 600
    # clone3: Docker has it seem unknown, so that programs fall back to clone, whose flags can be looked at
    assert run(program, X86_64, 435, (0,) * 6) == (ERRNO | 38 if profile == DOCKER else ALLOW)
    # read, execve, openat, getpid; personality(PER_LINUX), socket(AF_UNIX, …)
    for number, *values in [(0,), (59,), (257,), (39,), (135, 0), (41, 1, 1)]:
        assert run(program, X86_64, number, (*values, *[0] * (6 - len(values)))) == ALLOW, number
    # kexec_load, bpf, init_module, open_by_handle_at, a call to come; personality(ADDR_NO_RANDOMIZE)
    for number, *values in [(246,), (321,), (175,), (304,), (999,), (135, 0x40000)]:
        assert run(program, X86_64, number, (*values, *[0] * (6 - len(values)))) & 0xFFFF0000 == ERRNO, number
    # an audit socket: EINVAL; Docker's lets it pass, and leaves it to the capabilities
    assert run(program, X86_64, 41, (16, 3, 9, 0, 0, 0)) == (ALLOW if profile == DOCKER else ERRNO | 22)
    assert run(program, X86, 3) == run(program, X86_64, X32) == ALLOW


# kept programs

PROFILE = section(syscalls=[rule(["read", "write"]), rule(["personality"], "SCMP_ACT_ALLOW", None, (0, "EQ", 8, 0))])


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "seccomp")


def entry(folder: str) -> Path:
    (path,) = Path(folder).iterdir()
    return path


def kept(folder: str) -> "bytes | None":
    """The program as a start with a warm folder gets it, None when it would compile: what a hit returns without the compiler."""
    at = keep.opened(folder)
    if at < 0:
        return None
    try:
        return cache._load(at, cache.name(PROFILE))
    finally:
        os.close(at)


def test_a_program_is_kept_and_found_again(folder: str) -> None:
    warnings: list[str] = []
    program = cache.program(PROFILE, folder, warnings)
    assert program == compile_section(PROFILE)[0] == kept(folder) == cache.program(PROFILE, folder)
    assert (os.stat(folder).st_mode & 0o7777, entry(folder).stat().st_mode & 0o7777) == (0o700, 0o600)
    head = entry(folder).read_bytes().partition(b"\n\n")[0].decode().splitlines()
    assert head[1] == f"libseccomp {VERSION}"
    assert head[2].endswith(f" {library()[0]}")


def test_a_hit_needs_no_compiler(folder: str) -> None:
    cache.program(PROFILE, folder)
    text = (
        f"import sys; before = set(sys.modules); sys.path.insert(0, {str(Path(cache.__file__).parents[2])!r})\n"
        f"from rundlet.seccomp.cache import program; program({PROFILE!r}, {folder!r})\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-ISB", "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["_blake2", "rundlet", "rundlet.keep", "rundlet.seccomp", "rundlet.seccomp.cache"]


def other(**change: Any) -> Any:
    return {**PROFILE, **change}


def test_the_name_covers_what_the_program_depends_on() -> None:
    several = [
        PROFILE, other(defaultAction="SCMP_ACT_LOG"), other(defaultErrnoRet=1), other(architectures=["SCMP_ARCH_X86"]), other(syscalls=[]),
        other(syscalls=[rule(["read"]), rule(["write"]), PROFILE["syscalls"][1]]),
        other(syscalls=[PROFILE["syscalls"][0], rule(["personality"], "SCMP_ACT_ALLOW", None, (0, "EQ", 9, 0))]),
        other(syscalls=[PROFILE["syscalls"][0], rule(["personality"], "SCMP_ACT_ALLOW", None, (0, "EQ", 8, 1))]),
        other(syscalls=[PROFILE["syscalls"][0], rule(["personality"], "SCMP_ACT_ALLOW", None, (1, "EQ", 8, 0))]),
        other(syscalls=[PROFILE["syscalls"][0], rule(["personality"], "SCMP_ACT_LOG", None, (0, "EQ", 8, 0))]),
    ]
    assert len({cache.name(asked) for asked in several}) == len(several)
    assert cache.name(other(flags=["SECCOMP_FILTER_FLAG_LOG"], listenerPath="/run/agent")) == cache.name(PROFILE)


def reseal(path: Path, rest: bytes) -> None:
    path.write_bytes(keep.seal(path.name, b"seccomp", rest) + b"\n" + rest)


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-8] ^= 1
    path.write_bytes(raw)


def to_symlink(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to("../elsewhere")


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rest(path: Path) -> bytes:
    return path.read_bytes().partition(b"\n")[2]


SPOILT: "dict[str, Callable[[Path], object]]" = {
    "a bit is flipped": flip,
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "empty": lambda path: path.write_bytes(b""),
    "no program": lambda path: reseal(path, rest(path).partition(b"\n\n")[0] + b"\n\n"),
    "half an instruction": lambda path: reseal(path, rest(path)[:-4]),
    "without a head": lambda path: reseal(path, b"\n\n" + bytes(8)),
    "of another section": lambda path: path.write_bytes(keep.seal("0" * 64, b"seccomp", rest(path)) + b"\n" + rest(path)),
    "of another library": lambda path: reseal(path, rest(path).replace(library()[0].encode(), b"/bin/sh", 1)),
    "of a library that was rewritten": lambda path: reseal(path, rest(path).replace(b" ", b" 1", 3)),
    "too large": lambda path: reseal(path, rest(path) + bytes(8 * 5000)),
    "writable by the group": lambda path: path.chmod(0o620),
    "writable by all": lambda path: path.chmod(0o602),
    "a symbolic link": to_symlink,
    "a fifo": to_fifo,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=list(SPOILT))
def test_a_spoilt_entry_is_made_anew(folder: str, spoil: "Callable[[Path], object]") -> None:
    program = cache.program(PROFILE, folder)
    spoil(entry(folder))
    assert kept(folder) is None
    assert cache.program(PROFILE, folder) == program == kept(folder)
    assert entry(folder).lstat().st_mode == 0o100600


def test_an_entry_that_cannot_be_replaced_costs_a_compilation(folder: str) -> None:
    program = cache.program(PROFILE, folder)
    to_folder(entry(folder))
    assert cache.program(PROFILE, folder) == program
    assert kept(folder) is None
    assert entry(folder).is_dir()  # and no draft is left beside it


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
@pytest.mark.parametrize("whose", ["entry", "folder"])
def test_what_belongs_to_another_is_not_trusted(folder: str, whose: str) -> None:
    program = cache.program(PROFILE, folder)
    os.chown(entry(folder) if whose == "entry" else folder, 65534, 65534)
    assert kept(folder) is None
    assert cache.program(PROFILE, folder) == program
    assert (kept(folder) == program) is (whose == "entry")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o702])
def test_a_folder_that_others_may_write_is_not_used(folder: str, mode: int) -> None:
    program = cache.program(PROFILE, folder)
    os.chmod(folder, mode)
    before = entry(folder).stat()
    assert kept(folder) is None
    assert cache.program(PROFILE, folder) == program
    assert entry(folder).stat() == before


def test_a_folder_behind_a_symbolic_link_is_not_used(folder: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    Path(folder).symlink_to("real")
    assert cache.program(PROFILE, folder) == compile_section(PROFILE)[0]
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.parametrize("where", ["/proc/seccomp", "/dev/null", "/no/such/folder", ""])
def test_a_folder_that_cannot_be_had_costs_a_compilation(where: str) -> None:
    assert cache.program(PROFILE, where) == compile_section(PROFILE)[0]


def test_many_starts_at_once_agree(folder: str) -> None:
    text = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        f"from rundlet.seccomp.cache import program; sys.stdout.buffer.write(program({PROFILE!r}, {folder!r}))"
    )
    starts = [subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) for _ in range(4)]
    said = {start.communicate()[0] for start in starts}
    assert [start.returncode for start in starts] == [0] * 4
    assert said == {kept(folder)} == {compile_section(PROFILE)[0]}
    assert len(os.listdir(folder)) == 1


def test_the_folder_does_not_grow_for_ever(folder: str) -> None:
    cache.program(PROFILE, folder)
    old = entry(folder)
    os.utime(old, ns=(0, 0))
    for i in range(keep.KEPT):
        (Path(folder) / f".draft{i}").touch()
    cache.program(section(), folder)
    assert len(os.listdir(folder)) == keep.KEPT + 2 - keep.KEPT // 2
    assert not old.exists()
    assert (Path(folder) / cache.name(section())).exists()


# the steps

def test_the_step_gives_the_kernel_length_and_address() -> None:
    program = bytes(range(24))
    assert plan.steps(program, ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])[0].calls == (
        Call("seccomp", 1, 2 | 4, Data(b"\3\0\0\0\0\0\0\0", Ptr(program))),
    )


@pytest.mark.parametrize(
    ("flags", "notify", "number"),
    [
        (None, False, 4),
        ([], False, 0),
        (["SECCOMP_FILTER_FLAG_TSYNC"], False, 1),
        (None, True, 4 | 8),
        ([], True, 8),
        (["SECCOMP_FILTER_FLAG_TSYNC"], True, 1 | 8 | 16),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], True, 8 | 32),
    ],
)
def test_flags(flags: "list[str] | None", notify: bool, number: int) -> None:
    step, *more = plan.steps(bytes(8), flags, notify)
    assert step.calls[0].args[1] == number
    assert step.calls[0].into == ("notify" if notify else "")
    assert plan.telling((step, *more), "told") == (step, *([plan.hand_over(b"told")] if notify else []))


def test_flags_that_the_kernel_would_refuse() -> None:
    with pytest.raises(BadSpec, match="^/linux/seccomp/flags/0: .* needs a rule with SCMP_ACT_NOTIFY$"):
        plan.steps(bytes(8), ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    with pytest.raises(BadSpec, match="^/linux/seccomp/flags/1: SECCOMP_FILTER_FLAG_NEW_LISTENER is not"):
        plan.steps(bytes(8), ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_NEW_LISTENER"])


def test_a_program_has_4096_instructions_at_most() -> None:
    plan.steps(bytes(8 * 4096), [])
    with pytest.raises(Refused, match="4097 instructions, and the kernel takes 4096; name fewer"):
        plan.steps(bytes(8 * 4097), [])


def test_the_listener_is_handed_over_as_sendmsg_wants_it() -> None:
    call, close = plan.hand_over(b'{"ociVersion":"1.3.0"}').calls
    assert call.name == "sendmsg"
    assert (close.name, close.args) == ("close", (Slot("notify"),))
    assert call.args[0] == Slot("receiver")
    message = call.args[1]
    assert isinstance(message, Data)
    assert sum(len(part) if isinstance(part, bytes) else 8 for part in message.parts) == 56  # struct msghdr
    rights = message.parts[3]
    assert isinstance(rights, Ptr)
    assert rights.to == Data(struct.pack("=QII", 20, 1, 1), Slot("notify"), bytes(4))


def test_who_asks_for_a_listener() -> None:
    assert not plan.notifies(PROFILE)
    assert plan.notifies(section(syscalls=[rule(["read"]), rule(["mkdir"], "SCMP_ACT_NOTIFY")]))
    for name in ("sendmsg", "write"):
        with pytest.raises(BadSpec, match=f"^/linux/seccomp/syscalls/0/names/1: SCMP_ACT_NOTIFY cannot be used for the {name} syscall"):
            plan.notifies(section(syscalls=[rule(["mkdir", name], "SCMP_ACT_NOTIFY")]))


ASKED = section("SCMP_ACT_ALLOW", syscalls=[rule(["mkdir"], "SCMP_ACT_NOTIFY")])
RECEIVER, BPF = {"run.oci.seccomp.receiver": "/a"}, {"run.oci.seccomp_bpf_data": "AAAAAAAAAAA="}


@pytest.mark.parametrize(
    ("asked", "annotations", "environment", "path"),
    [
        (None, {}, "/e", ""),
        (None, RECEIVER, "/e", ""),
        (None, {**RECEIVER, **BPF}, "", "/a"),
        (None, BPF, "/e", "/e"),
        (PROFILE, {}, "", ""),
        ({**PROFILE, "listenerPath": "/l"}, {}, "", ""),  # nobody asks for it: config-linux.md
        ({**section("SCMP_ACT_ALLOW"), "listenerPath": "/l"}, RECEIVER, "/e", "/a"),
        (section("SCMP_ACT_ALLOW"), {}, "/e", "/e"),
        (ASKED, RECEIVER, "/e", "/a"),
        ({**ASKED, "listenerPath": "/l"}, RECEIVER, "/e", "/l"),
        ({**PROFILE, "listenerPath": "/l"}, BPF, "", "/l"),
    ],
)
def test_where_the_listener_goes(asked: Any, annotations: "dict[str, str]", environment: str, path: str) -> None:
    config: Any = {"linux": {"seccomp": asked}, "annotations": annotations}
    assert plan.receiver(config, environment) == path


@pytest.mark.parametrize(
    ("asked", "annotations", "text"),
    [
        (ASKED, {}, "/linux/seccomp/listenerPath: is required: a rule has SCMP_ACT_NOTIFY"),
        ({**ASKED, "listenerPath": "@abstract"}, {}, "the seccomp agent's socket @abstract is not an absolute path; "),
        (PROFILE, {"run.oci.seccomp.plugins": "/x.so"}, "/annotations/run.oci.seccomp.plugins is not supported; run an agent"),
        (section(syscalls=[rule(["mkdir"], "SCMP_ACT_NOTIFY")]), RECEIVER, "/linux/seccomp: the call sendmsg hands the listener over, and"),
    ],
)
def test_listeners_that_cannot_be_handed_over(asked: Any, annotations: "dict[str, str]", text: str) -> None:
    config: Any = {"linux": {"seccomp": asked}, "annotations": annotations}
    with pytest.raises(Fault, match=f"^{text}"):
        plan.receiver(config, "")


def test_what_becomes_of_a_call() -> None:
    rules = [
        rule(["a"], "SCMP_ACT_ERRNO"), rule(["a", "b"], "SCMP_ACT_LOG"), rule(["b"], "SCMP_ACT_TRAP"), rule(["c"], "SCMP_ACT_LOG", None, (0, "EQ", 0, 0)),
    ]
    asked = section(syscalls=rules)
    assert [plan.action(asked, name) for name in "abcd"] == ["SCMP_ACT_LOG", "SCMP_ACT_LOG", "SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO"]


def test_a_program_given_in_an_annotation() -> None:
    assert plan.given(BPF) == bytes(8)
    for text in ("", "AAAA", "AAAAAAAAAAA=\n", "ä", "AAAAAAAAAAA"):
        with pytest.raises(BadSpec, match="^/annotations/run.oci.seccomp_bpf_data: must be "):
            plan.given({"run.oci.seccomp_bpf_data": text})


@on_x86
@pytest.mark.parametrize("default", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_a_call_newer_than_the_profile_is_not_there(default: str) -> None:
    rules = [rule(["read"]), rule(["openat2"], default)]  # one that the profile has heard of, whatever it says of it
    listed = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]
    program, _ = compile_section(section(default, None, rules, listed))
    refused = word(default, None)
    for bit in (0, X32):
        assert [run(program, X86_64, number | bit) for number in (0, 1, 436, 437, 438, 999)] == [
            ALLOW, refused, refused, refused, ERRNO | 38, ERRNO | 38,
        ]
    assert run(compile_section(section(default, None, rules))[0], X86_64, 999) == refused  # as runc: of no architecture that is not listed
    assert run(compile_section(section("SCMP_ACT_LOG", None, rules, listed))[0], X86_64, 999) == LOG


def test_a_name_that_is_not_known_is_a_fault_if_asked(folder: str) -> None:
    asked = section(syscalls=[rule(["read"]), rule(["no_such_call"])])
    cache.program(asked, folder)
    with pytest.raises(BadSpec, match="^/linux/seccomp/syscalls/1/names/0: libseccomp .* knows no call 'no_such_call'$"):
        cache.program(asked, folder, strict=True)
    assert cache.program(PROFILE, folder, strict=True) == kept(folder)


def test_description() -> None:
    more = [rule(["mount"], "SCMP_ACT_ERRNO"), rule(["bpf", "keyctl"], "SCMP_ACT_ERRNO", 1)]
    assert plan.describe(section(errno=38, syscalls=[*PROFILE["syscalls"], *more])) == {
        "default": "SCMP_ACT_ERRNO(38)", "architectures": [], "flags": [], "rules": 4, "conditional": 1,
        "syscalls": {"SCMP_ACT_ALLOW": 3, "SCMP_ACT_ERRNO(1)": 3}, "listener": None,
    }
