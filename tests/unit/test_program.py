"""Steps as bytes: what the executor would do with a program is what its steps say.

The bytes are carried out by the model of the protocol, the steps by a second, naive reading of them. Both walk side by side; at
each call they must agree on its number, on every argument down to the last pointer, and on where it goes on from there.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rundlet.errors import Fault, StepFailed
from rundlet.executor.program import Program, failure
from rundlet.executor.template import REPLY, fill
from rundlet.kernel import CALLS, ERRNO
from rundlet.plan.step import Call, Data, Late, Out, Part, Ptr, Scratch, Slot, Step, Texts
from tests.executor.model import (
    ANSWER_SIZE,
    CHECK,
    MAGIC,
    NEXT,
    NONE,
    PUT,
    REDIRECT,
    SLOTS,
    VALUE,
    WORD,
    Address,
    Answer,
    Kept,
    Model,
    Other,
    Returned,
    Word,
    decode,
)  # fmt: skip
from tests.executor.model import REPLY as REPLY_WORD

BOUND = {"root": 9, "console": 11}
SIZES = {"small": 4, "log": 24, "big": 700}  # of the buffers, which keep theirs
SCRATCH = {"scratch": 48, "log": 16}  # "log" is another buffer than the Out of that name
FREE = ["a", "b", "c"]


# ── what the steps say ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Buffer = Out | Scratch
Target = str | bytes | Data | Out | Scratch | Part
Outcome = tuple[Step, Call, int] | None


@dataclass
class Reader:
    """Carries out steps by their words."""

    slots: dict[str, int] = field(default_factory=dict)
    buffers: dict[Buffer, bytes] = field(default_factory=dict)

    def value(self, slot: Slot) -> int:
        return BOUND.get(slot.name, self.slots.get(slot.name, 0)) & WORD

    def number(self, arg: object) -> int:
        """An argument of `value`, signed as a result is."""
        assert isinstance(arg, int | Slot)
        word = self.value(arg) if isinstance(arg, Slot) else arg & WORD
        return word - (word >> 63 << 64)

    def content(self, buffer: Buffer) -> bytes:
        return self.buffers.get(buffer, bytes(buffer.size))

    def run(self, steps: list[Step]) -> Generator[Call, int, Outcome]:
        """Yields each call of the kernel and is sent its result; returns the step, call and errno that failed, or None."""
        for step in steps:
            labels = {call.label: i for i, call in enumerate(step.calls) if call.label} | {"end": len(step.calls)}
            at = 0
            while at < len(step.calls):
                call = step.calls[at]
                if call.name == "value":
                    result = self.number(call.args[0])
                else:
                    result = yield call
                goto = call.on_zero if result == 0 else call.on_more
                if -4095 <= result < 0:
                    if -result not in [ERRNO[name] for name in call.fine]:
                        return step, call, -result
                    goto = call.on_fine
                if call.into:
                    self.slots[call.into] = result
                at = labels[goto] if goto else at + 1
        return None


def assert_points(model: Model, reader: Reader, word: int, target: Target) -> None:
    """What stands in memory at an address is the target."""
    at = word - model.base
    assert 0 <= at < len(model.memory)
    if isinstance(target, Part):
        assert_points(model, reader, word - target.offset, target.of)
    elif isinstance(target, Out | Scratch):
        assert model.memory[at : at + target.size] == reader.content(target)
    elif isinstance(target, Data):
        for part in target.parts:
            if isinstance(part, Ptr):
                assert_points(model, reader, int.from_bytes(model.memory[at : at + 8], "little"), part.to)
                at += 8
            elif isinstance(part, Slot):
                assert model.memory[at : at + part.width] == reader.value(part).to_bytes(8, "little")[: part.width]
                at += part.width
            else:
                assert model.memory[at : at + len(part)] == part
                at += len(part)
    else:
        raw = target.encode("utf-8", "surrogateescape") if isinstance(target, str) else target
        assert model.memory[at : at + len(raw) + 1] == raw + b"\0"


def walk(steps: list[Step], results: list[int], machine: int) -> tuple[Program, Reader, Outcome, Answer]:
    """Carries out steps and their bytes side by side."""
    program = Program(steps, {}, BOUND, machine)
    reader = Reader()
    reading = reader.run(steps)
    ended: list[Outcome] = []
    expected: list[Call] = []

    def go_on(result: int | None) -> None:
        try:
            expected[:] = [next(reading) if result is None else reading.send(result)]
        except StopIteration as end:
            expected.clear()
            ended.append(end.value)

    def kernel(nr: int, words: list[int], model: Model) -> int:
        assert expected, "the bytes make a call more than the steps"
        call = expected[0]
        assert nr == CALLS[call.name][machine]
        for arg, word in zip(call.args, words, strict=False):
            if isinstance(arg, int):
                assert word == arg & WORD
            elif isinstance(arg, Slot):
                assert word == reader.value(arg)
            else:
                assert_points(model, reader, word, arg)
        assert words[len(call.args) :] == [0] * (6 - len(call.args))
        count.append(nr)
        for arg, word in zip(call.args, words, strict=False):
            buffer = arg.of if isinstance(arg, Part) else arg
            if isinstance(buffer, Out | Scratch):
                start = word - model.base - (arg.offset if isinstance(arg, Part) else 0)
                reader.buffers[buffer] = bytes([len(count) & 0xFF]) * buffer.size
                model.memory[start : start + buffer.size] = reader.buffers[buffer]
        result = results[len(count) % len(results)]
        go_on(result)
        return result

    count: list[int] = []
    go_on(None)
    answers = Model(kernel).run(program.text)
    assert len(answers) == 1
    assert len(ended) == 1, "the steps make a call more than the bytes"
    return program, reader, ended[0], answers[0]


def raw(answer: Answer) -> bytes:
    """An answer as the executor sends it."""
    numbers = [MAGIC, answer.at, answer.error, len(answer.slots), len(answer.out), 0]
    words = [slot & WORD for slot in answer.slots]
    return b"".join([*(n.to_bytes(4, "little") for n in numbers), *(w.to_bytes(8, "little") for w in words), answer.out])


# ── any steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

slots = st.builds(Slot, st.sampled_from([*FREE, *BOUND]), st.sampled_from([4, 8]))
outs = st.sampled_from([Out(name, size) for name, size in SIZES.items()])
scratches = st.sampled_from([Scratch(name, size) for name, size in SCRATCH.items()])
parts = st.builds(lambda of, n: Part(of, n % of.size), outs | scratches, st.integers(0, 1000))
letters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
texts = st.text(letters, max_size=12) | st.sampled_from(["proc", "scratch", "/\udcff"])
blobs = st.binary(max_size=20)
lates = texts.map(lambda text: Late(f"late {text}", text)) | st.lists(texts, max_size=3).map(lambda many: Texts(f"{many}", tuple(many)))
targets = st.deferred(lambda: texts | blobs | outs | scratches | parts | datas | lates)
datas: st.SearchStrategy[Data] = st.lists(blobs | slots | st.builds(Ptr, targets), min_size=1, max_size=4).filter(
    lambda items: any(item != b"" for item in items)
).map(lambda items: Data(*items))
arguments = st.integers(-(1 << 63), (1 << 64) - 1) | st.integers(-200, 200) | slots | targets


@st.composite
def a_step(draw: st.DrawFn, number: int) -> Step:
    size = draw(st.integers(1, 5))
    calls = []
    for i in range(size):
        ahead = st.sampled_from(["", "", "end", *(f"l{n}" for n in range(i + 1, size))])
        own = draw(st.integers(0, 9)) == 0
        name = "value" if own else draw(st.sampled_from(sorted(CALLS)))
        args = [draw(slots | st.integers(-4095, 4095))] if own else draw(st.lists(arguments, max_size=6))
        calls.append(Call(
            name, *args, into=draw(st.sampled_from(["", *FREE])),
            fine=tuple(draw(st.lists(st.sampled_from(sorted(ERRNO)), max_size=4))),
            on_zero=draw(ahead), on_more=draw(ahead), on_fine=draw(ahead), label=f"l{i}",
        ))
    return Step(f"step {number}", *calls)


@st.composite
def some_steps(draw: st.DrawFn) -> list[Step]:
    return [draw(a_step(number)) for number in range(draw(st.integers(0, 4)))]


result = st.just(0) | st.integers(1, 1 << 40) | st.sampled_from([-n for n in ERRNO.values()]) | st.just(-4096)
results = st.lists(result, min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(some_steps(), results, st.sampled_from([0, 1]))
def test_the_bytes_do_what_the_steps_say(steps: list[Step], results: list[int], machine: int) -> None:
    program, reader, outcome, answer = walk(steps, results, machine)
    if outcome is None:
        reply = program.reply(raw(answer))
        assert reply.slots == {name: reader.slots.get(name, 0) for name in program.template[7]}
        assert reply.outs == {name: reader.content(Out(name, SIZES[name])) for name in program.outs}
        return
    step, call, error = outcome
    with pytest.raises(StepFailed) as failed:
        program.reply(raw(answer))
    assert (failed.value.step, failed.value.call, failed.value.errno) == (step.what, call.name, error)


@given(st.lists(st.tuples(texts, texts), max_size=4), st.lists(texts, max_size=4), st.lists(texts, max_size=4), texts)
def test_what_late_texts_say_is_not_in_the_template(pairs: list[tuple[str, str]], one: list[str], other: list[str], plain: str) -> None:
    def program(which: int) -> Program:
        lates = [Late(f"late {n}", pair[which]) for n, pair in enumerate(pairs)]
        many = Texts("many", tuple((one, other)[which]))
        calls = [Call("execve", late, plain, many, Data(Ptr(late), Ptr(many))) for late in lates]
        return Program([Step("step", *calls, Call("execve", *lates[:2], many, plain))], {})

    first, second = program(0), program(1)
    assert first.template == second.template
    values = {f"late {n}": text for n, (_, text) in enumerate(pairs)} | {"many": tuple(other)}
    assert fill(first.template, values) == second.text


def test_a_name_is_that_of_one_late_text() -> None:
    with pytest.raises(Fault, match="two texts of the name root"):
        Program([Step("step", Call("chdir", Late("root", "/a")), Call("chdir", Late("root", "/b")))], {})


# ── single features, so that a failure says which ─────────────────────────────────────────────────────────────────────────────────


def ops_of(*calls: Call, slots: dict[str, int] | None = None, bind: dict[str, int] | None = None) -> Program:
    return Program([Step("step", *calls)], {} if slots is None else slots, bind, 0)


def test_an_empty_program_is_a_head_and_room_for_nothing() -> None:
    program = decode(Program([], {}).text)
    assert (program.ops, program.links, program.out) == ([], [], 0)


def test_machines_have_their_own_numbers() -> None:
    for machine in (0, 1):
        text = Program([Step("step", Call("read", 3))], {}, machine=machine).text
        assert decode(text).ops[0].nr == CALLS["read"][machine]


def test_the_executors_own_words() -> None:
    words = {"check": CHECK, "put": PUT, "reply": REPLY_WORD, "next": NEXT, "redirect": REDIRECT, "value": VALUE}
    program = decode(ops_of(*map(Call, words)).text)
    assert [op.nr for op in program.ops] == list(words.values())


def test_numbers_are_words_of_64_bits() -> None:
    program = decode(ops_of(Call("read", -1, -100, 1 << 63, (1 << 64) + 5, 1 << 29, (1 << 29) - 1)).text)
    words = [arg if isinstance(arg, int) else int.from_bytes(program.data[arg.at :][:8], "little") for arg in program.ops[0].args]
    assert words == [(1 << 64) - 1, (1 << 64) - 100, 1 << 63, 5, 1 << 29, (1 << 29) - 1]
    assert [type(arg) for arg in program.ops[0].args] == [Word] * 5 + [int]


def test_a_bound_slot_is_its_number_and_another_its_place() -> None:
    op = decode(ops_of(Call("dup3", Slot("root"), Slot("a")), slots={"z": 0}, bind={"root": 9}).text).ops[0]
    assert op.args[:2] == (9, Kept(1))


def test_slots_are_shared_by_the_programs_of_an_executor() -> None:
    slots: dict[str, int] = {}
    ops_of(Call("getpid", into="pid"), slots=slots)
    op = decode(ops_of(Call("getpid", into="other"), Call("kill", Slot("pid"), 0), slots=slots).text).ops
    assert (op[0].into, op[1].args[0]) == (1, Kept(0))


def test_equal_texts_are_sent_once() -> None:
    program = decode(ops_of(Call("chdir", "/somewhere"), Call("chdir", "/somewhere"), Call("chdir", "/elsewhere")).text)
    first, second, third = (op.args[0] for op in program.ops)
    assert first == second != third
    assert program.data.count(b"/somewhere\0") == 1


def test_structures_are_never_shared_since_slots_are_written_into_them() -> None:
    program = decode(ops_of(Call("read", 0, Data(b"12345678")), Call("read", 0, Data(b"12345678"))).text)
    assert program.ops[0].args[1] != program.ops[1].args[1]


def test_structures_and_numbers_begin_on_eight_bytes() -> None:
    program = decode(ops_of(Call("read", "a", b"efghijklm", Data(b"n"), -1, Data(b"o"))).text)
    assert all(isinstance(arg, Address | Word) and arg.at % 8 == 0 for arg in program.ops[0].args[:5])
    assert len(program.data) % 8 == 0


def test_a_slot_in_a_structure_is_put_there_before_the_call_and_skips_come_to_it() -> None:
    program = decode(ops_of(
        Call("getpid", into="pid", on_more="use"), Call("gettid"), Call("bpf", 0, Data(bytes(4), Slot("pid")), label="use"),
    ).text)
    assert [op.nr for op in program.ops] == [CALLS["getpid"][0], CALLS["gettid"][0], PUT, CALLS["bpf"][0]]
    assert program.ops[0].on_more == 1, "the skip lands on the put, not behind it"
    address = program.ops[3].args[1]
    assert isinstance(address, Address)
    assert program.ops[2].args[:3] == (Kept(0), Address(address.at + 4), 4)


def test_a_scratch_buffer_is_not_taken_for_bytes_like_its_name() -> None:
    program = decode(ops_of(Call("read", 0, b"x", 1), Call("read", 0, b"x\0", 2), Call("read", 0, Scratch("x", 64), 64)).text)
    assert len({op.args[1] for op in program.ops}) == 3


def test_scratch_is_left_out_of_the_reply() -> None:
    program = decode(ops_of(Call("read", 0, Scratch("x", 64), 64), Call("read", 0, Out("y", 16), 16)).text)
    assert (program.out, program.other) == (16, 64)
    assert [op.args[1] for op in program.ops] == [Other(0), Returned(0)]


def test_many_returned_buffers_find_room() -> None:
    program = ops_of(*(Call("read", 0, Out(f"o{i}", 1000), 1000) for i in range(50)))
    decoded = decode(program.text)
    assert decoded.out == 50 * 1000
    places = sorted(arg.at for op in decoded.ops if isinstance(arg := op.args[1], Returned))
    assert [b - a for a, b in pairwise(places)] == [1000] * 49


# ── what cannot be sent ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_more_results_than_slots_are_a_fault() -> None:
    ops_of(*(Call("getpid", into=f"s{i}") for i in range(SLOTS)))
    with pytest.raises(Fault, match=f"more than {SLOTS} results"):
        ops_of(*(Call("getpid", into=f"s{i}") for i in range(SLOTS + 1)))


def test_a_program_larger_than_the_room_is_a_fault() -> None:
    ops_of(Call("chdir", "x" * (7 << 20)))
    with pytest.raises(Fault, match="arguments and environment too large"):
        ops_of(Call("chdir", "x" * (8 << 20)))


def test_a_fifth_fine_errno_is_a_fault_not_forgotten() -> None:
    with pytest.raises(Fault, match="more than four errnos are fine: EPERM, "):
        ops_of(Call("read", fine=("EPERM", "ENOENT", "EIO", "EBUSY", "EEXIST")))


def test_a_label_that_is_nowhere_is_an_error() -> None:
    with pytest.raises(KeyError):
        ops_of(Call("read", on_zero="nowhere"))


# ── replies ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def answered(at: int = 1, error: int = 0, slots: tuple[int, ...] = (), out: bytes = b"") -> bytes:
    return raw(Answer(at, error, slots, out))


def test_a_reply_gives_slots_and_buffers_by_name() -> None:
    program = ops_of(Call("getpid", into="pid"), Call("read", 0, Out("one", 3), 3), Call("read", 0, Out("two", 8), 8))
    reply = program.reply(answered(3, slots=(-5,), out=b"abc\0\0\0\0\0defghijk"))
    assert reply.slots == {"pid": -5}
    assert reply.outs == {"one": b"abc", "two": b"defghijk"}


def test_a_failure_names_the_step_the_call_and_the_kernels_word() -> None:
    program = Program([Step("look", Call("getpid")), Step("mount proc on /proc", Call("fsmount", 3), hint="use another")], {})
    with pytest.raises(StepFailed) as failed:
        program.reply(answered(1, ERRNO["EPERM"]))
    assert str(failed.value) == "mount proc on /proc: fsmount: operation not permitted; use another"
    assert (failed.value.step, failed.value.call, failed.value.errno) == ("mount proc on /proc", "fsmount", ERRNO["EPERM"])


def test_a_failure_of_a_put_names_its_call() -> None:
    with pytest.raises(StepFailed, match="^step: bpf: "):
        ops_of(Call("bpf", 0, Data(Slot("a")))).reply(answered(0, ERRNO["EBADMSG"]))


def test_a_failed_check_says_what_the_plan_has_to_say() -> None:
    program = Program([Step("enter /proc", Call("check", b"a", b"b", 1, ERRNO["EINVAL"]), hint="it is not a procfs")], {})
    with pytest.raises(StepFailed, match="^enter /proc: it is not a procfs$"):
        program.reply(answered(0, ERRNO["EINVAL"]))


def test_a_failed_hook_is_told_in_the_words_that_engines_know() -> None:
    failed = failure(Step("run hook #0", kind="hook"), "execve", ERRNO["ENOENT"])
    assert str(failed) == "error running hook #0: execve: no such file or directory"


@pytest.mark.parametrize("at", [0xFFFFFFFF, 0xFFFFFFFE, 1])
def test_an_error_outside_the_program_is_a_fault(at: int) -> None:
    with pytest.raises(Fault, match="refused the program: bad message"):
        ops_of(Call("getpid")).reply(answered(at, ERRNO["EBADMSG"]))


@pytest.mark.parametrize("text", [
    b"", b"RVT", bytes(REPLY.size), answered()[:-1], answered(out=b"12345678")[:-1], answered(error=4096), answered(error=0xFFFFFFFF),
    answered(error=0x80000000),
])  # fmt: skip
def test_what_is_no_reply_is_a_fault(text: bytes) -> None:
    with pytest.raises(Fault, match="something that is no reply"):
        ops_of(Call("getpid")).reply(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=60, max_size=64), st.integers(0, 120), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_no_reply_from_inside_breaks_the_reader(tail: bytes, cut: int, at: int, error: int) -> None:
    """A container may have taken the executor over: whatever it sends is a reply or a Fault."""
    program = ops_of(Call("getpid", into="pid"), Call("read", 0, Out("fslog", 64), 64))
    try:
        whole = answered(at, error % 5000 if cut % 2 else 0, (7,), tail)
        reply = program.reply(whole[:cut] if cut < 100 else whole)
    except Fault:
        return
    assert reply.slots == {"pid": 7}
    assert reply.outs == {"fslog": tail}


def test_places_are_counted_by_the_bytes_that_are_sent() -> None:
    assert decode(ops_of(Call("getpid")).text).ops[0].into == NONE
    assert len(answered()) == REPLY.size == ANSWER_SIZE
