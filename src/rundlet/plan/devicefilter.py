"""Which devices a container may open and make: the ordered rules of the config, as lines for cgroup v1 and as an eBPF program for v2.

    rules(config)  →  lines(rules)                          v1: devices.deny, devices.allow
                   →  program(rules)  →  load_steps(…)      v2: BPF_PROG_TYPE_CGROUP_DEVICE on the cgroup

The meaning of the rules, for both: of each kind of access (read, write, mknod) the last rule that covers the device decides, and
without any, no. A request for several is granted when each is. What v1 cannot say is refused rather than approximated.
"""

from _struct import pack

from rundlet import kernel as k
from rundlet.errors import Refused
from rundlet.plan.step import Call, Data, Late, Ptr, Slot, Step
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from rundlet.spec.types import DeviceRule

    Key: TypeAlias = tuple[str, int | None, int | None]  # "b" or "c", major, minor; None is every

ACCESS = {"m": 1, "r": 2, "w": 4}  # linux/bpf.h BPF_DEVCG_ACC_*
FULL = 7
KINDS = {"b": 1, "c": 2}  # linux/bpf.h BPF_DEVCG_DEV_*
HIGHEST = (1 << 31) - 1  # numbers above fit no eBPF immediate, and no device has one: include/linux/kdev_t.h


class Rule(Value):
    """Allows or denies `access` (of "rwm") to the devices of a kind ("a" is both) and numbers; None is every number."""

    __slots__ = ("allow", "kind", "major", "minor", "access")

    def __init__(self, allow: bool, kind: str, major: "int | None", minor: "int | None", access: str) -> None:
        self.allow = allow
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access


# What every container has in /dev, and making nodes of any kind without opening them. /dev/console is not here: inside it is a
# pseudoterminal (136), while 5:1 would be the host's console, within reach of whoever has CAP_MKNOD.
DEFAULTS = (
    Rule(True, "c", None, None, "m"),
    Rule(True, "b", None, None, "m"),
    Rule(True, "c", 1, 3, "rwm"),  # null
    Rule(True, "c", 1, 5, "rwm"),  # zero
    Rule(True, "c", 1, 7, "rwm"),  # full
    Rule(True, "c", 1, 8, "rwm"),  # random
    Rule(True, "c", 1, 9, "rwm"),  # urandom
    Rule(True, "c", 5, 0, "rwm"),  # tty
    Rule(True, "c", 5, 2, "rwm"),  # ptmx
    Rule(True, "c", 136, None, "rwm"),  # pts/*
)


def rules(devices: "Iterable[DeviceRule]") -> "tuple[Rule, ...]":
    """The config's /linux/resources/devices in order, then what every container may use, which so cannot be taken away by the config.

    As runc appends it; runtime-spec, config-linux.md, "Default Devices".
    """
    asked = [Rule(rule["allow"], rule["type"], rule["major"], rule["minor"], rule["access"]) for rule in devices]
    return (*asked, *DEFAULTS)


def allows_all(rules: "Sequence[Rule]") -> bool:
    """Whether the rules forbid nothing, so that there is nothing to load or write."""
    default, rest = since_reset(rules)
    return default and all(rule.allow for rule in rest)


def since_reset(rules: "Sequence[Rule]") -> "tuple[bool, list[Rule]]":
    """The verdict of the last rule about everything (no, when there is none), and the rules behind it that can match a device."""
    rest: "list[Rule]" = []
    default = False
    for rule in rules:
        if rule.kind == "a" and rule.major is None and rule.minor is None and len(rule.access) == 3:
            default = rule.allow
            rest.clear()
        elif (rule.major or 0) <= HIGHEST and (rule.minor or 0) <= HIGHEST:
            rest.append(rule)
    return default, rest


def _bits(access: str) -> int:
    return sum(ACCESS[letter] for letter in access)


# ── cgroup v1 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def lines(rules: "Sequence[Rule]") -> "tuple[tuple[str, str], ...]":
    """The (file, text) writes that make a new v1 cgroup decide as the rules do; none when all is allowed.

    The kernel keeps one default and a set of exceptions to it (security/device_cgroup.c). Denying part of what an earlier, wider
    exception allows is silently nothing there, and allowing part of what is denied likewise: such rules raise Refused.
    """
    if allows_all(rules):
        return ()
    default, rest = since_reset(rules)
    pieces = [
        (rule.allow, (kind, rule.major, rule.minor), _bits(rule.access))
        for rule in rest
        for kind in ("bc" if rule.kind == "a" else rule.kind)
    ]
    exceptions = {key: _exception(key, pieces, default) for key in _keys([key for _, key, _ in pieces])}
    wide = [key for key in exceptions if key[1] is None or key[2] is None]
    out = [("devices.allow" if default else "devices.deny", "a")]
    for key, bits in exceptions.items():
        around = [exceptions[other] for other in wide if other != key and _covers(other, key)]
        for outer in around:
            if outer & ~bits:
                raise _hole(key, outer & ~bits, default)
        if bits and bits not in around:
            out.append(("devices.deny" if default else "devices.allow", _line(key, bits)))
    return tuple(out)


def _keys(keys: "list[Key]") -> "list[Key]":
    """The keys, once each, and those that only the crossing of two names: c 1:* and c *:3 meet in c 1:3."""
    found = dict.fromkeys(keys)
    for kind, major, minor in keys:
        if major is None and minor is not None:
            rows = [other[1] for other in keys if other[0] == kind and other[1] is not None and other[2] is None]
            found.update(((kind, row, minor), None) for row in rows)
    return list(found)


def _covers(wide: "Key", key: "Key") -> bool:
    return wide[0] == key[0] and wide[1] in (None, key[1]) and wide[2] in (None, key[2])


def _exception(key: "Key", pieces: "list[tuple[bool, Key, int]]", default: bool) -> int:
    """The access to the devices of `key` that differs from the default, the last piece that covers them deciding."""
    bits = 0
    for allow, where, access in pieces:
        # most name one device and cover nothing else
        if where == key or ((where[1] is None or where[2] is None) and _covers(where, key)):
            bits = bits | access if allow is not default else bits & ~access
    return bits


def _line(key: "Key", bits: int) -> str:
    kind, major, minor = key
    access = "".join(letter for letter in "rwm" if bits & ACCESS[letter])
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor} {access}"


def _hole(key: "Key", bits: int, default: bool) -> Refused:
    one, other = ("allow", "denies") if default else ("deny", "allows")
    return Refused(
        f"/linux/resources/devices: cgroup v1 cannot {one} `{_line(key, bits)}` while a wider rule {other} it",
        "name the devices of the wider rule one by one, or use a host with cgroup v2",
    )


# ── cgroup v2 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# linux/bpf_common.h, linux/bpf.h: class | size or source | operation
LDX_W = 0x61  # BPF_LDX | BPF_MEM | BPF_W
MOV, AND, RSH = 0xB7, 0x57, 0x77  # BPF_ALU64 | BPF_K
JEQ, JNE, JSET, EXIT = 0x15, 0x55, 0x45, 0x95  # BPF_JMP | BPF_K
ANSWER, CONTEXT, KIND, ASKED, MAJOR, MINOR = 0, 1, 2, 3, 4, 5  # registers
NEXT, ALLOW, DENY = "next", "allow", "deny"


def program(rules: "Sequence[Rule]") -> bytes:
    """The eBPF program (struct bpf_insn, 8 bytes each) that decides as the rules do; empty when all is allowed.

    It walks them from the last to the first and takes from the bits asked for what each rule grants: none left is yes, one that is
    denied is no. The context is struct bpf_cgroup_dev_ctx of linux/bpf.h: access << 16 | kind, major, minor.
    """
    if allows_all(rules):
        return b""
    default, rest = since_reset(rules)
    code: "list[tuple[int, int, int, int, str]]" = [  # operation, register, offset or 0, immediate, where a jump goes
        (LDX_W, KIND, 0, 0, ""),
        (AND, KIND, 0, 0xFFFF, ""),
        (LDX_W, ASKED, 0, 0, ""),
        (RSH, ASKED, 0, 16, ""),
        (LDX_W, MAJOR, 4, 0, ""),
        (LDX_W, MINOR, 8, 0, ""),
    ]
    for rule in reversed(rest):
        bits = _bits(rule.access)
        block: "list[tuple[int, int, int, int, str]]" = []
        if rule.kind != "a":
            block.append((JNE, KIND, 0, KINDS[rule.kind], NEXT))
        if rule.major is not None:
            block.append((JNE, MAJOR, 0, rule.major, NEXT))
        if rule.minor is not None:
            block.append((JNE, MINOR, 0, rule.minor, NEXT))
        if rule.allow:
            block.append((AND, ASKED, 0, FULL & ~bits, ""))
            block.append((JEQ, ASKED, 0, 0, ALLOW))
        else:
            block.append((JSET, ASKED, 0, bits, DENY))
        end = len(code) + len(block)
        for at, (operation, register, offset, number, target) in enumerate(block, len(code) + 1):
            code.append((operation, register, end - at, number, "") if target == NEXT else (operation, register, offset, number, target))
    return _assemble(code, ALLOW if default else DENY)


def _assemble(code: "list[tuple[int, int, int, int, str]]", last: str) -> bytes:
    """The bytes, with the two answers behind the code, the one for devices without a rule first.

    An answer that nothing jumps to is left out: the verifier refuses instructions that cannot be reached.
    """
    ends: "dict[str, int]" = {}
    for answer in (last, DENY if last is ALLOW else ALLOW):
        if answer is last or any(target is answer for *_, target in code):
            ends[answer] = len(code)
            code = [*code, (MOV, ANSWER, 0, 1 if answer is ALLOW else 0, ""), (EXIT, 0, 0, 0, "")]
    if len(code) > 32768:  # a jump's reach: the offset is an s16
        raise Refused("/linux/resources/devices: too many rules for one device filter", "give fewer rules")
    out = bytearray()
    for at, (operation, register, offset, number, target) in enumerate(code):
        registers = register | (CONTEXT << 4 if operation == LDX_W else 0)  # the source in the upper half
        out += pack("=BBhi", operation, registers, ends[target] - at - 1 if target else offset, number)
    return bytes(out)


PROG_LOAD, PROG_ATTACH = 5, 8  # linux/bpf.h enum bpf_cmd
PROG_TYPE_CGROUP_DEVICE, CGROUP_DEVICE, ALLOW_MULTI = 15, 6, 2
NAME = b"rundlet_devices\0"


def load_steps(program: bytes, cgroup_dir: str, kernel: str = "") -> "tuple[Step, ...]":
    """The steps that load the program and attach it to the cgroup at `cgroup_dir`, a path of the host; none for an empty program.

    They need CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the first user namespace. Programs of ancestors stay in force and each
    must allow (BPF_F_ALLOW_MULTI). The program lives as long as the cgroup. `kernel` is the release, which the hint depends on.
    """
    if not program:
        return ()
    return (
        load(program, kernel),
        Step(
            f"attach the device filter to {cgroup_dir}",
            Call("openat", k.AT_FDCWD, Late("cgroup", cgroup_dir), k.O_RDONLY | k.O_CLOEXEC, into="cgroup"),
            Call("bpf", PROG_ATTACH, Data(Slot("cgroup"), Slot("device filter"), pack("=II", CGROUP_DEVICE, ALLOW_MULTI)), 16),
            Call("close", Slot("cgroup")),
            Call("close", Slot("device filter")),
            kind="devices",
        ),
    )


def load(program: bytes, kernel: str) -> Step:
    """Loads the program, into the slot "device filter"."""
    # before 5.11 the memory of programs counts against RLIMIT_MEMLOCK, and too little of that is told as EPERM
    hint = "raise RLIMIT_MEMLOCK, which this kernel charges for the program" if kernel and _release(kernel) < (5, 11) else ""
    return Step("load the device filter", Call("bpf", PROG_LOAD, _load(program), 64, into="device filter"), kind="devices", hint=hint)


def _load(program: bytes) -> Data:
    """The part of union bpf_attr that BPF_PROG_LOAD reads, up to the program's name; without a log."""
    return Data(pack("=II", PROG_TYPE_CGROUP_DEVICE, len(program) // 8), Ptr(program), Ptr("Apache-2.0"), bytes(24), NAME)


def _release(kernel: str) -> "tuple[int, int]":
    major, _, rest = kernel.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return int(major) if major.isdigit() else 0, int(minor) if minor else 0
