"""The device rules, three ways: read directly, as cgroup v1 would decide after the lines, and as the eBPF program decides."""

from struct import iter_unpack, pack, unpack_from

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.errors import Refused
from rundlet.plan.devicefilter import ACCESS, DEFAULTS, KINDS, Rule, allows_all, lines, load_steps, program, rules
from rundlet.plan.step import Data, Ptr, Slot

NUMBERS = (1, 3)
ACCESSES = ("r", "w", "m", "rw", "rm", "wm", "rwm")


def direct(given: "tuple[Rule, ...]", kind: str, major: int, minor: int, bits: int) -> bool:
    """The rules as their text says: of each kind of access the last rule that covers the device decides, without any: no."""
    for letter, bit in ACCESS.items():
        if bits & bit:
            verdict = False
            for rule in given:
                if rule.kind in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor) and letter in rule.access:
                    verdict = rule.allow
            if not verdict:
                return False
    return True


def interpret(code: bytes, kind: str, major: int, minor: int, bits: int) -> bool:
    """Runs an eBPF program on a struct bpf_cgroup_dev_ctx: the instructions of this filter, and no others."""
    if not code:
        return True
    context = pack("=III", bits << 16 | KINDS[kind], major, minor)
    instructions = list(iter_unpack("=BBhi", code))
    registers = [0] * 11
    at = 0
    while True:
        operation, pair, offset, immediate = instructions[at]
        target, source = pair & 15, pair >> 4
        at += 1
        if operation == 0x61:  # *(u32 *)
            assert source == 1
            registers[target] = unpack_from("=I", context, offset)[0]
        elif operation == 0xB7:
            registers[target] = immediate
        elif operation == 0x57:
            registers[target] &= immediate
        elif operation == 0x77:
            registers[target] >>= immediate
        elif operation == 0x15:
            at += offset if registers[target] == immediate else 0
        elif operation == 0x55:
            at += offset if registers[target] != immediate else 0
        elif operation == 0x45:
            at += offset if registers[target] & immediate else 0
        elif operation == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"instruction {operation:#x}")


def reachable(code: bytes) -> "set[int]":
    """The instructions that some path reaches, as check_cfg of kernel/bpf/verifier.c walks them."""
    instructions = list(iter_unpack("=BBhi", code))
    seen: "set[int]" = set()
    todo = [0]
    while todo:
        at = todo.pop()
        if at in seen:
            continue
        seen.add(at)
        operation, _, offset, _ = instructions[at]
        if operation == 0x95:
            continue
        todo.append(at + 1)
        if operation in (0x15, 0x55, 0x45):
            todo.append(at + 1 + offset)
    return seen


class KernelV1:
    """security/device_cgroup.c: a default, exceptions to it, and the two files that change them."""

    def __init__(self) -> None:
        self.allow = True
        self.exceptions: "dict[tuple[str, str, str], set[str]]" = {}

    def write(self, file: str, text: str) -> None:
        allow = file == "devices.allow"
        if text == "a":
            self.allow = allow
            self.exceptions.clear()
            return
        kind, numbers, access = text.split(" ")
        major, minor = numbers.split(":")
        key = (kind, major, minor)
        if allow == self.allow:  # narrows an exception, of exactly this name
            self.exceptions[key] = self.exceptions.get(key, set()) - set(access)
        else:
            self.exceptions.setdefault(key, set()).update(access)

    def decide(self, kind: str, major: int, minor: int, bits: int) -> bool:
        asked = {letter for letter, bit in ACCESS.items() if bits & bit}
        here = [
            access
            for (k, a, i), access in self.exceptions.items()
            if k == kind and a in ("*", str(major)) and i in ("*", str(minor)) and access
        ]
        if self.allow:
            return not any(asked & access for access in here)
        return any(asked <= access for access in here)


number = st.none() | st.sampled_from(NUMBERS)
rule = st.builds(Rule, st.booleans(), st.sampled_from("abc"), number, number, st.sampled_from(ACCESSES))
everything = st.builds(Rule, st.booleans(), st.just("a"), st.none(), st.none(), st.just("rwm"))
some = st.lists(rule | everything, max_size=7).map(tuple)
REQUESTS = [(kind, major, minor, bits) for kind in "bc" for major in (*NUMBERS, 9) for minor in (*NUMBERS, 9) for bits in range(1, 8)]


@given(some)
def test_the_program_decides_as_the_rules_read(given: "tuple[Rule, ...]") -> None:
    code = program(given)
    for request in REQUESTS:
        assert interpret(code, *request) is direct(given, *request), request


@given(some)
def test_the_verifier_finds_every_instruction_reachable(given: "tuple[Rule, ...]") -> None:
    code = program(given)
    assert reachable(code) == set(range(len(code) // 8)) if code else allows_all(given)


@given(some)
def test_v1_decides_as_the_rules_read_or_refuses(given: "tuple[Rule, ...]") -> None:
    kernel = KernelV1()
    try:
        for file, text in lines(given):
            kernel.write(file, text)
    except Refused:
        # then there must be a wide rule whose answer a narrower one reverses
        assert any(r.major is None or r.minor is None for r in given)
        return
    for request in REQUESTS:
        assert kernel.decide(*request) is direct(given, *request), request


@given(st.lists(rule.filter(lambda r: r.allow), max_size=7).map(tuple), st.booleans())
def test_v1_can_say_every_list_of_the_usual_form(given: "tuple[Rule, ...]", reset: bool) -> None:
    """All denied, some allowed: the form that engines write is never refused."""
    usual = ((Rule(False, "a", None, None, "rwm"),) if reset else ()) + given
    kernel = KernelV1()
    for file, text in lines(usual):
        kernel.write(file, text)
    assert all(kernel.decide(*request) is direct(usual, *request) for request in REQUESTS)


@given(some)
def test_nothing_is_written_or_loaded_just_when_all_is_allowed(given: "tuple[Rule, ...]") -> None:
    if allows_all(given):
        assert program(given) == b""
        assert lines(given) == ()
        assert all(direct(given, *request) for request in REQUESTS)
    else:
        assert program(given)


def test_without_rules_a_container_has_the_default_devices_only() -> None:
    given = rules([])
    assert given == DEFAULTS
    for kind, major, minor, access, verdict in [
        ("c", 1, 3, "rwm", True), ("c", 136, 77, "rw", True), ("c", 5, 2, "rw", True), ("c", 5, 1, "r", False), ("c", 5, 1, "m", True),
        ("b", 8, 0, "m", True), ("b", 8, 0, "r", False), ("b", 8, 0, "rm", False), ("c", 10, 200, "r", False),
    ]:
        bits = sum(ACCESS[letter] for letter in access)
        assert direct(given, kind, major, minor, bits) is verdict
        assert interpret(program(given), kind, major, minor, bits) is verdict


def test_the_lines_of_the_usual_config() -> None:
    given = rules(
        [
            {"allow": False, "type": "a", "major": None, "minor": None, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        ]
    )
    assert lines(given) == (
        ("devices.deny", "a"),
        ("devices.allow", "c 10:229 rwm"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
        *(("devices.allow", f"c 1:{minor} rwm") for minor in (3, 5, 7, 8, 9)),
        ("devices.allow", "c 5:0 rwm"),
        ("devices.allow", "c 5:2 rwm"),
        ("devices.allow", "c 136:* rwm"),
    )


def test_v1_refuses_what_it_would_silently_ignore() -> None:
    given = (Rule(True, "c", 1, None, "rw"), Rule(False, "c", 1, 3, "w"))
    with pytest.raises(Refused, match=r"cgroup v1 cannot deny `c 1:3 w` while a wider rule allows it"):
        lines(given)
    assert not interpret(program(given), "c", 1, 3, ACCESS["w"])
    assert interpret(program(given), "c", 1, 3, ACCESS["r"])


def test_crossing_wildcards_grant_together_in_v1_too() -> None:
    given = (Rule(True, "c", 1, None, "r"), Rule(True, "c", None, 3, "w"))
    assert ("devices.allow", "c 1:3 rw") in lines(given)


def test_numbers_that_no_device_has_match_none() -> None:
    given = (Rule(True, "c", 1 << 40, None, "rwm"), Rule(True, "c", 1, 1 << 31, "rwm"))
    assert lines(given) == (("devices.deny", "a"),)
    assert not interpret(program(given), "c", 1, 3, 1)


def test_too_many_rules_are_refused_not_miscompiled() -> None:
    with pytest.raises(Refused, match="too many rules"):
        program(tuple(Rule(True, "c", major, 1, "rwm") for major in range(8000)))


def test_the_steps_load_and_attach() -> None:
    code = program(DEFAULTS)
    load, attach = load_steps(code, "/sys/fs/cgroup/x", "6.1.0")
    attr = load.calls[0].args[1]
    assert isinstance(attr, Data)
    assert attr.parts[0] == pack("=II", 15, len(code) // 8)
    assert attr.parts[1] == Ptr(code)
    assert sum(8 if isinstance(part, Ptr) else len(part) for part in attr.parts if isinstance(part, (bytes, Ptr))) == load.calls[0].args[2]
    assert attach.calls[1].args[1] == Data(Slot("cgroup"), Slot("device filter"), pack("=II", 6, 2))
    assert load_steps(b"", "/sys/fs/cgroup/x") == ()


@pytest.mark.parametrize(
    ("kernel", "hinted"), [("5.10.0-28-amd64", True), ("4.18", True), ("5.11.0", False), ("5.9+", True), ("6.12.95", False), ("", False)]
)
def test_the_memlock_hint_is_given_where_it_matters(kernel: str, hinted: bool) -> None:
    assert ("RLIMIT_MEMLOCK" in load_steps(program(DEFAULTS), "/x", kernel)[0].hint) is hinted
