"""Tables of verdicts → classic BPF, as seccomp(2) runs it on struct seccomp_data {u32 nr, arch; u64 instruction_pointer, args[6]}.

    arch == a? ── yes ─▶ a tree of `nr >= k?` over ranges of calls with the same verdict ─▶ RET, or the comparisons of one call
         └──── no ──▶ the next architecture … ─▶ kill the thread

libseccomp would generate code, too, but it does not merge several rules of one call soundly: 2.5.4 drops matches (two rules of one
argument, `>= 3` and `< 1 << 32`, do not match 1 << 32) and never returns from others. Here each rule of a call stands by itself, behind
those before it, and loads what it compares; a tree of ranges is also shorter than one comparison for each call.

Pure. Sources: Documentation/userspace-api/seccomp_filter.rst; kernel/seccomp.c, seccomp_check_filter; linux/filter.h.
"""

import sys
from struct import pack
from typing import NamedTuple

LOAD, AND, RETURN = 0x20, 0x54, 0x06  # LD|W|ABS, ALU|AND|K, RET|K
ALWAYS, EQ, GT, GE = 0x05, 0x15, 0x25, 0x35  # JMP|…|K
NUMBER, ARCH, ARGS = 0, 4, 16  # offsets in struct seccomp_data
LOW, HIGH = (0, 4) if sys.byteorder == "little" else (4, 0)
REACH = 250  # a conditional jump skips 255 instructions at most; some are kept for the jumps that go on from there


class Condition(NamedTuple):
    """A comparison of an argument: EQ NE LT LE GE GT, or MASKED_EQ: argument & value == two."""

    arg: int
    op: str
    value: int
    two: int


class Case(NamedTuple):
    """A verdict (SECCOMP_RET_… with its data) for a call whose arguments fulfil all conditions."""

    conditions: tuple[Condition, ...]
    verdict: int


class Range(NamedTuple):
    """Calls with numbers from first to last, and their cases: the first one that holds counts, the last one has no conditions."""

    first: int
    last: int
    cases: tuple[Case, ...]


class Architecture(NamedTuple):
    """AUDIT_ARCH_… (linux/audit.h) as the kernel gives it, whether arguments have 64 bits, the ranges, and the verdict outside of them."""

    word: int
    wide: bool
    ranges: list[Range]
    default: int


def assemble(architectures: list[Architecture], foreign: int) -> bytes:
    """The program, an array of struct sock_filter; calls of an architecture that is not among these get the verdict `foreign`."""
    code = _Code()
    at = code.give(foreign)
    for architecture in reversed(architectures):
        code.leaves.clear()
        tree = code.tree(_split(architecture), architecture.wide)
        tree = code.add(LOAD, NUMBER, tree)
        at = code.branch(EQ, architecture.word, tree, code.near(at))
    code.add(LOAD, ARCH, at)
    return b"".join(reversed(code.text))


def _split(architecture: Architecture) -> list[tuple[int, tuple[Case, ...]]]:
    """Where the cases change, going through all numbers from 0 on."""
    default = (Case((), architecture.default),)
    starts: list[tuple[int, tuple[Case, ...]]] = []
    at = 0
    for first, last, cases in sorted(architecture.ranges):
        starts += [(at, default), (first, cases)] if first > at else [(first, cases)]
        at = last + 1
    if at <= 0xFFFFFFFF:
        starts.append((at, default))
    return [start for i, start in enumerate(starts) if not i or start[1] != starts[i - 1][1]]


class _Code:
    """A program written from its end to its beginning, so that where a jump goes is known when it is written.

    A place is the number of instructions from an instruction to the end, itself included. Jumps go forward only.
    """

    def __init__(self) -> None:
        self.text: list[bytes] = []
        self.leaves: dict[object, int] = {}

    def add(self, code: int, k: int, then: int) -> int:
        """An instruction that goes on at `then`; returns its place."""
        if then != len(self.text):
            self._put(ALWAYS, 0, 0, len(self.text) - then)
        return self._put(code, 0, 0, k)

    def branch(self, test: int, k: int, yes: int, no: int) -> int:
        """A comparison of what was loaded with `k`."""
        if yes == no:
            return yes
        no = self.near(no)
        yes = self.near(yes)
        return self._put(test, len(self.text) - yes, len(self.text) - no, k)

    def near(self, place: int) -> int:
        """A place from which `place` is reached and that a conditional jump can reach."""
        return place if len(self.text) - place < REACH else self._put(ALWAYS, 0, 0, len(self.text) - place)

    def give(self, verdict: int) -> int:
        """Returns from the filter; an instruction that does so already is used when it is near."""
        known = self.leaves.get(verdict)
        if known is None or len(self.text) - known >= REACH:
            known = self.leaves[verdict] = self._put(RETURN, 0, 0, verdict)
        return known

    def tree(self, starts: list[tuple[int, tuple[Case, ...]]], wide: bool) -> int:
        """Finds the cases of the number that was loaded."""
        if len(starts) == 1:
            return self.cases(starts[0][1], wide)
        middle = len(starts) // 2
        above = self.tree(starts[middle:], wide)
        below = self.tree(starts[:middle], wide)
        return self.branch(GE, starts[middle][0], above, below)

    def cases(self, cases: tuple[Case, ...], wide: bool) -> int:
        known = self.leaves.get(cases)
        if known is not None:
            return known
        at = self.give(cases[-1].verdict)
        for conditions, verdict in reversed(cases[:-1]):
            holds = self.give(verdict)
            for condition in reversed(conditions):
                holds = self.compare(condition, holds, at, wide)
            at = holds
        if len(cases) > 1:
            self.leaves[cases] = at
        return at

    def compare(self, condition: Condition, yes: int, no: int, wide: bool) -> int:
        """Compares the lower half, and before it the upper one, which decides unless it is equal."""
        arg, op, value, two = condition
        if op in ("NE", "LT", "LE"):
            op, yes, no = {"NE": "EQ", "LT": "GE", "LE": "GT"}[op], no, yes
        low, high, mask_low, mask_high = value & 0xFFFFFFFF, value >> 32, 0, 0
        if op == "MASKED_EQ":
            mask_low, mask_high = low, high
            low, high = two & 0xFFFFFFFF, two >> 32
        at = self.branch({"EQ": EQ, "MASKED_EQ": EQ, "GT": GT, "GE": GE}[op], low, yes, no)
        if op == "MASKED_EQ":
            at = self.add(AND, mask_low, at)
        at = self.add(LOAD, ARGS + 8 * arg + LOW, at)
        if not wide or (op == "MASKED_EQ" and mask_high == high == 0):
            return at
        at = self.branch(EQ, high, at, no)
        if op in ("GT", "GE"):
            at = self.branch(GT, high, yes, at)
        if op == "MASKED_EQ":
            at = self.add(AND, mask_high, at)
        return self.add(LOAD, ARGS + 8 * arg + HIGH, at)

    def _put(self, code: int, yes: int, no: int, k: int) -> int:
        self.text.append(pack("=HBBI", code, yes, no, k))
        return len(self.text)
