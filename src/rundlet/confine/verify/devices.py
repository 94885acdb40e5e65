"""Which devices a container can open, as the kernel decides it, beside the rules of the configuration. Pure.

On cgroup v1 the kernel tells its list of exceptions. On v2 it is a program of whoever made the container, in an order and with rules of
its own, so the program itself is run here, instruction by instruction, for every device that a rule names and those of a host that matter.
"""

from _struct import unpack_from
from typing import TYPE_CHECKING

from rundlet.plan.devicefilter import ACCESS, DEFAULTS, KINDS, Rule, allows_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rundlet.confine.verify.compare import Findings

    Device = tuple[str, int, int]  # "b" or "c", major, minor
    Allows = Callable[[str, int, int, str], bool | None]  # with one letter of "rwm"

# disks, mapped disks, NVMe, loop; memory, ports, the kernel's log, the host's consoles; KVM, graphics, input, TUN: admin-guide/devices.txt
OF_HOSTS: "tuple[Device, ...]" = (
    ("b", 8, 0), ("b", 8, 16), ("b", 253, 0), ("b", 254, 0), ("b", 259, 0), ("b", 7, 0), ("c", 1, 1), ("c", 1, 2), ("c", 1, 4),
    ("c", 1, 11), ("c", 4, 0), ("c", 4, 64), ("c", 5, 1), ("c", 10, 200), ("c", 10, 229), ("c", 10, 232), ("c", 10, 237), ("c", 13, 64),
    ("c", 226, 0), ("c", 195, 0),
)
PEERS = (Rule(True, "c", 5, 1, "rwm"), Rule(True, "c", 10, 200, "rwm"))  # what other runtimes let every container have besides
MANY = 255  # stands for the numbers that a rule with * has
ENDLESS = 65536  # steps; the kernel's verifier lets no program run for ever


def compare(rules: "Sequence[Rule]", allows: "Allows", peer: bool, found: "Findings") -> None:
    """`allows` says what the kernel permits, None where that cannot be told. `peer`: another runtime made the container."""
    if peer:
        rules = (*rules, *PEERS)
    if allows_all(rules):
        return
    beyond: dict[str, str] = {}
    for kind, major, minor in sorted({*OF_HOSTS, *_named(rules)}):
        for letter in "rwm":
            if decided(rules, kind, major, minor, letter):
                continue
            live = allows(kind, major, minor, letter)
            if live is None:
                found.cannot_tell("devices", "container", f"what the device filter says of {kind} {major}:{minor}")
                return
            if live:
                beyond[f"{kind} {major}:{minor}"] = beyond.get(f"{kind} {major}:{minor}", "") + letter
    if beyond:
        shown = ", ".join(f"{device} {letters}" for device, letters in beyond.items())
        found.differs("devices", "container", "denied", f"allowed: {shown}")


def decided(rules: "Sequence[Rule]", kind: str, major: int, minor: int, letter: str) -> bool:
    """What rules say of one kind of access to a device: the last one that covers it, else no."""
    for rule in reversed(rules):
        if letter in rule.access and rule.kind in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor):
            return rule.allow
    return False


def _named(rules: "Iterable[Rule]") -> "Iterable[Device]":
    for rule in rules:
        for kind in "bc" if rule.kind == "a" else rule.kind:
            for major in (rule.major,) if rule.major is not None else (8, MANY):
                for minor in (rule.minor,) if rule.minor is not None else (0, MANY):
                    yield kind, major, minor


def listed(text: str) -> "Allows":
    """cgroup v1's devices.list: the exceptions to a denial of all, or that all is allowed."""
    rows = []
    for line in text.splitlines():
        kind, numbers, access = line.split()
        major, _, minor = numbers.partition(":")
        rows.append((kind, major, minor, access))

    def allows(kind: str, major: int, minor: int, letter: str) -> bool:
        return any(
            letter in access and k in ("a", kind) and ma in ("*", str(major)) and mi in ("*", str(minor)) for k, ma, mi, access in rows
        )

    return allows


def programs(codes: "Sequence[bytes]") -> "Allows":
    """cgroup v2: every program in force must allow. Without any everything is allowed."""

    def allows(kind: str, major: int, minor: int, letter: str) -> bool | None:
        context = (ACCESS[letter] << 16 | KINDS[kind]).to_bytes(4, "little") + major.to_bytes(4, "little") + minor.to_bytes(4, "little")
        answers = [run(code, context) for code in codes]
        if any(answer == 0 for answer in answers):
            return False
        return None if None in answers else True

    return allows


# ── eBPF, as far as a device filter needs it: Documentation/bpf/standardization/instruction-set.rst ──────────────────────────────

WORD = (1 << 64) - 1
ALU, ALU64, JMP, JMP32, LDX = 0x04, 0x07, 0x05, 0x06, 0x01
EXIT = 0x95
SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}


def run(code: bytes, context: bytes) -> int | None:
    """What a program answers for a context; None where it has an instruction that no device filter needs."""
    registers = [0] * 11
    at = 0
    for _ in range(ENDLESS):
        if not 0 <= at < len(code) // 8:
            return None
        op, regs, offset, immediate = unpack_from("=BBhi", code, at * 8)
        at += 1
        if op == EXIT:
            return registers[0] & 0xFFFFFFFF
        to, kind = regs & 15, op & 7
        if kind == LDX and op & 0xE0 == 0x60 and registers[regs >> 4] == 0:  # from the context alone
            size = SIZES[op & 0x18]
            if not 0 <= offset <= len(context) - size:
                return None
            registers[to] = int.from_bytes(context[offset : offset + size], "little")
        elif kind in (ALU, ALU64):
            value = _computed(op, registers[to], registers[regs >> 4] if op & 8 else immediate & WORD, kind == ALU)
            if value is None:
                return None
            registers[to] = value
        elif kind in (JMP, JMP32):
            taken = _taken(op, registers[to], registers[regs >> 4] if op & 8 else immediate & WORD, kind == JMP32)
            if taken is None:
                return None
            at += offset if taken else 0
        else:
            return None
    return None


def _computed(op: int, a: int, b: int, half: bool) -> int | None:
    """Arithmetic; registers are kept as unsigned. The context, a pointer, is never computed with: it stands for 0."""
    mask, bits = (0xFFFFFFFF, 31) if half else (WORD, 63)
    a, b = a & mask, b & mask
    answers = {
        0x00: a + b, 0x10: a - b, 0x20: a * b, 0x40: a | b, 0x50: a & b, 0x60: a << (b & bits), 0x70: a >> (b & bits), 0x80: -a,
        0xA0: a ^ b, 0xB0: b,
    }
    value = answers.get(op & 0xF0)
    return None if value is None else value & mask


def _taken(op: int, a: int, b: int, half: bool) -> bool | None:
    mask = 0xFFFFFFFF if half else WORD
    a, b = a & mask, b & mask
    answers = {0x00: True, 0x10: a == b, 0x20: a > b, 0x30: a >= b, 0x40: bool(a & b), 0x50: a != b, 0xA0: a < b, 0xB0: a <= b}
    return answers.get(op & 0xF0)


__all__ = ["DEFAULTS", "compare", "decided", "listed", "programs", "run"]
