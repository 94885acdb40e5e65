"""linux.seccomp → the filter's program. libseccomp, through pyseccomp, knows calls and architectures; bpf.py writes the program.

Imported only when no kept program serves; see cache.py. What the specification leaves open is done as crun and runc do it
(config-linux.md, "Seccomp"; seccomp_rule_add(3)):

* The native architecture is always part; a call of an architecture that is not listed kills the thread.
* A rule whose action is the default one says nothing.
* A name that libseccomp does not know is passed over with a warning: profiles name calls of kernels to come. One that only other
  architectures have is passed over silently.
* The comparisons of a rule must all hold; but where two look at the same argument, any of them suffices.
* A rule without comparisons wins over those with comparisons for the same call. Otherwise the first in the list wins.
* Arguments are compared as what a register holds: 32 bits on 32-bit architectures.
* A call that is newer than the profile gets ENOSYS, so that programs fall back to an older one: as runc has it, on the architectures
  that are listed, for numbers above the highest one that the profile names, unless the default action lets calls through.

Where they let half of an argument decide, the whole one does: x32 has 64-bit registers, and valueTwo of SCMP_CMP_MASKED_EQ may have
bits outside of the mask, which can never be equal. socketcall(2) and ipc(2) hide the arguments of the calls they stand for behind a
pointer; there a rule with comparisons holds only when it is stricter than the default.
"""

import ctypes
import os
from typing import TYPE_CHECKING

from rundlet.errors import BadSpec, Refused
from rundlet.plan.seccomp import PASSING
from rundlet.seccomp.bpf import Architecture, Case, Condition, Range, assemble

try:
    import pyseccomp
except ModuleNotFoundError as e:
    raise Refused(f"a seccomp filter needs pyseccomp: there is no module {e.name}", "install the Python package pyseccomp") from None
except (RuntimeError, OSError) as e:
    raise Refused(
        f"a seccomp filter needs libseccomp, which cannot be loaded ({str(e).lower()})", "install libseccomp2 (Fedora: libseccomp)",
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rundlet.spec.types import Seccomp, SeccompArg, SeccompSyscall

WHERE = "/linux/seccomp"
EPERM, ENOSYS = 1, 38
# SECCOMP_RET_… (linux/seccomp.h); the strictest first, as the kernel ranks the verdicts of several filters
ACTIONS = {
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
RANK = {verdict: rank for rank, verdict in enumerate(ACTIONS.values())}
KILL_THREAD = 0
# the largest data: MAX_ERRNO (linux/err.h), to which the kernel would cut it down, and 16 bits
DATA = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 0xFFFF}
OPERATORS = ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ")

X86_64, X32 = 0xC000003E, 0x4000003E  # the latter is libseccomp's word; to the kernel x32 is x86-64 with a bit in the number
X32_BIT = 0x40000000  # __X32_SYSCALL_BIT, asm/unistd.h
SKIPPED = 0xFFFFFFFF  # -1, the number of a call that a tracer has skipped; ptrace(2)
UNKNOWN = -1  # __NR_SCMP_ERROR; lower numbers are calls that the architecture lacks or that it reaches through another one
SOCKETCALL, IPC = range(101, 121), range(201, 225)  # minus these: __PNR_socket and so on, seccomp-syscalls.h


class _Version(ctypes.Structure):  # struct scmp_version, seccomp_version(3)
    _fields_ = [("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint)]


# two calls that pyseccomp does not offer, through its own handle of the library
_native = pyseccomp._libseccomp
_native.seccomp_version.restype = ctypes.POINTER(_Version)
_native.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
_native.seccomp_arch_resolve_name.restype = ctypes.c_uint32

_numbers = _native.seccomp_version().contents
VERSION = f"{_numbers.major}.{_numbers.minor}.{_numbers.micro}"


def library() -> tuple[str, str]:
    """The path of the loaded libseccomp ("" when the file is gone or cannot be told) and its version; proc_pid_maps(5)."""
    inside = ctypes.cast(_native.seccomp_version, ctypes.c_void_p).value or 0
    path = ""
    try:
        with open("/proc/self/maps", "rb") as maps:
            for line in maps:
                start, end = (int(address, 16) for address in line.split(b" ", 1)[0].split(b"-"))
                if start <= inside < end:
                    path = os.fsdecode(line.rstrip(b"\n").split(None, 5)[-1])
    except OSError:  # no procfs here: the program is not kept
        pass
    return (path if os.path.isabs(path) and os.path.exists(path) else ""), VERSION


def compile_section(section: "Seccomp", strict: bool = False) -> tuple[bytes, list[str]]:
    """The program of linux.seccomp, an array of struct sock_filter, and a warning for each name that was passed over.

    Flags are the load's, not the filter's: see plan/seccomp.py. Raises BadSpec for what libseccomp does not know or no filter can say;
    with `strict` also for a name that would be passed over.
    """
    default = _verdict(section["defaultAction"], section["defaultErrnoRet"], f"{WHERE}/defaultAction", f"{WHERE}/defaultErrnoRet")
    tokens = [pyseccomp.system_arch() & 0xFFFFFFFF]
    listed = set()
    for i, arch in enumerate(section["architectures"]):
        token = _architecture(arch, f"{WHERE}/architectures/{i}")
        listed.add(token)
        if token not in tokens:
            tokens.append(token)
    tables = [_Table(token, default) for token in tokens]
    warnings: list[str] = []
    for i, rule in enumerate(section["syscalls"]):
        where = f"{WHERE}/syscalls/{i}"
        verdict = _verdict(rule["action"], rule["errnoRet"], f"{where}/action", f"{where}/errnoRet")
        cases = [Case(conditions, verdict) for conditions in _conditions(rule, where)]
        for j, name in enumerate(rule["names"]):
            if _number(tokens[0], name) == UNKNOWN:
                if strict:
                    raise BadSpec(f"{where}/names/{j}", f"libseccomp {VERSION} knows no call {name!r}")
                if verdict != default:
                    warnings.append(f"{where}/names/{j}: libseccomp {VERSION} knows no call {name!r}, which gets the default action")
                continue
            for table in tables:
                table.last = max(table.last, _number(table.token, name))
                if verdict != default:
                    table.add(name, cases)
    for table in tables:
        table.answers_newer = table.token in listed and section["defaultAction"] not in PASSING
    return assemble(_kernel_architectures(tables, default), KILL_THREAD), warnings


class _Table:
    """What an architecture's calls get: number → cases, without the default."""

    def __init__(self, token: int, default: int) -> None:
        self.token = token
        self.default = default
        self.wide = bool(token & 0x80000000) or token == X32  # __AUDIT_ARCH_64BIT
        self.last = -1  # the highest number of a call that the profile names
        self.answers_newer = False  # whether calls above it get ENOSYS
        self.calls: dict[int, list[Case]] = {}
        self._direct: dict[str, int] = {}

    def add(self, name: str, cases: list[Case]) -> None:
        number = _number(self.token, name)
        if number >= 0:
            self._put(number, cases)
            return
        through = _number(self.token, "socketcall" if -number in SOCKETCALL else "ipc" if -number in IPC else "")
        if through >= 0:
            # what the kernel makes of the first argument: an int, and for ipc(2) a version in the upper 16 bits
            seen = Condition(0, "MASKED_EQ", 0xFFFFFFFF if -number in SOCKETCALL else 0xFFFF, -number % 100)
            hidden = [Case((seen,), case.verdict) for case in cases if not case.conditions or _rank(case.verdict) < _rank(self.default)]
            self._put(through, hidden)
            if name in self._directly():  # since Linux 4.3 and 5.1 most of them have numbers of their own, too
                self._put(self._direct[name], cases)

    def _put(self, number: int, cases: list[Case]) -> None:
        known = self.calls.setdefault(number, [])
        if any(not case.conditions for case in known):
            return
        for case in cases:
            if not case.conditions:
                known.clear()
            known.append(case)

    def _directly(self) -> dict[str, int]:
        """The real numbers by name. libseccomp finds a name by such a number, but not the number by the name."""
        if not self._direct:
            first = _number(self.token, "exit") - 1  # 1 of a table that may not begin at 0
            for number in range(first, first + 1000):
                try:
                    self._direct[os.fsdecode(pyseccomp.resolve_syscall(self.token, number))] = number
                except ValueError:
                    pass  # a number that no call has
        return self._direct

    def ranges(self) -> list[Range]:
        last = Case((), self.default)
        filled = [(number, cases) for number, cases in self.calls.items() if cases]
        found = [Range(number, number, (*cases, last) if cases[-1].conditions else tuple(cases)) for number, cases in filled]
        if self.answers_newer and self.last >= 0:
            end = X32_BIT - 1 if self.token == X86_64 else SKIPPED - 1
            found.append(Range(max(self.last, *self.calls, -1) + 1, end, (Case((), ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS),)))
        return found


def _kernel_architectures(tables: list[_Table], default: int) -> list[Architecture]:
    """The tables as the kernel tells architectures apart: x86-64 and x32 are one."""
    found = {table.token: table for table in tables}
    architectures = []
    for table in tables:
        ranges = table.ranges()
        if table.token == X86_64:
            if X32 in found:
                ranges += found[X32].ranges()
            else:
                ranges.append(Range(X32_BIT, SKIPPED - 1, (Case((), KILL_THREAD),)))
        elif table.token == X32 and X86_64 in found:
            continue
        architectures.append(Architecture(X86_64 if table.token == X32 else table.token, table.wide, ranges, default))
    return architectures


def _verdict(word: str, errno: int | None, where: str, where_errno: str) -> int:
    """SECCOMP_RET_… with its data."""
    if word not in ACTIONS:
        raise BadSpec(where, f"{word} is not an action")
    if word not in DATA:
        if errno is not None:
            raise BadSpec(where_errno, f"{word} takes no errno")
        return ACTIONS[word]
    number = EPERM if errno is None else errno
    if not 0 <= number <= DATA[word]:
        raise BadSpec(where_errno, f"must be an integer from 0 to {DATA[word]}, not {number}")
    return ACTIONS[word] | number


def _rank(verdict: int) -> int:
    return RANK[verdict & 0xFFFF0000]


def _architecture(arch: str, where: str) -> int:
    """AUDIT_ARCH_…, or libseccomp's word for x32."""
    token: int = _native.seccomp_arch_resolve_name(arch.removeprefix("SCMP_ARCH_").lower().encode())
    if not arch.startswith("SCMP_ARCH_") or not token:
        raise BadSpec(where, f"libseccomp {VERSION} knows no architecture {arch}")
    return token


def known(words: "Iterable[str]") -> list[str]:
    """Those of the architectures, SCMP_ARCH_…, that this libseccomp knows."""
    return [word for word in words if _native.seccomp_arch_resolve_name(word.removeprefix("SCMP_ARCH_").lower().encode())]


def _number(token: int, name: str) -> int:
    if not name.isascii() or "\0" in name:  # C would read up to the NUL
        return UNKNOWN
    number: int = pyseccomp.resolve_syscall(token, name)
    return number


def _conditions(rule: "SeccompSyscall", where: str) -> "Iterator[tuple[Condition, ...]]":
    """The sets of comparisons of which one must hold."""
    made = tuple(_condition(arg, f"{where}/args/{i}") for i, arg in enumerate(rule["args"]))
    if len({condition.arg for condition in made}) == len(made):
        yield made
    else:
        for condition in made:
            yield (condition,)


def _condition(arg: "SeccompArg", where: str) -> Condition:
    if not 0 <= arg["index"] <= 5:
        raise BadSpec(f"{where}/index", f"must be an integer from 0 to 5, not {arg['index']}")
    if arg["op"] not in OPERATORS:
        raise BadSpec(f"{where}/op", f"{arg['op']} is not a comparison")
    return Condition(arg["index"], arg["op"].removeprefix("SCMP_CMP_"), arg["value"], arg["valueTwo"])
