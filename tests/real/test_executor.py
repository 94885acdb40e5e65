"""The executor by itself: each word of its protocol, on the machines it is written for, and what it makes of malformed programs.

The programs are raw bytes (tests/executor/model.py packs them), so nothing of program.py stands between; the last tests send what
Program makes. aarch64 runs under qemu's user mode: the calls are plain ones that it knows.
"""

import os
import random
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rundlet.errors import StepFailed
from rundlet.executor.program import Program
from rundlet.kernel import CALLS, ERRNO
from rundlet.plan.step import Call, Data, Out, Ptr, Slot, Step
from tests.bundles import PATIENCE
from tests.executor.builds import NATIVE, SOURCE, TARGETS, Target, build
from tests.executor.model import (
    CHECK,
    EBADMSG,
    HEAD_SIZE,
    NEXT,
    NO_HEAD,
    NO_LINK,
    NONE,
    OP_SIZE,
    PUT,
    REDIRECT,
    REPLY,
    ROOM,
    SLOTS,
    SMALL,
    VALUE,
    WORD,
    Address,
    Answer,
    Argument,
    Kept,
    Model,
    Odd,
    Op,
    Other,
    Returned,
    Word,
    pack,
)  # fmt: skip
from tests.executor.wire import Wire, read_answer

Start = Callable[..., Wire]
WRITEV, CLONE = (20, 66), (56, 220)  # the two calls here that plans have no use for


@pytest.fixture(scope="module", params=TARGETS, ids=lambda target: target.name)
def target(request: pytest.FixtureRequest) -> Target:
    target: Target = request.param
    if missing := target.missing():
        pytest.skip(missing)
    return target


@pytest.fixture(scope="module")
def binary(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(target, tmp_path_factory.mktemp(target.name) / "executor")


@pytest.fixture
def start(target: Target, binary: Path) -> Start:
    return lambda *keep: Wire(binary, target.runner, keep)


@pytest.fixture
def wire(start: Start) -> Iterator[Wire]:
    with start() as wire:
        yield wire


@pytest.fixture
def nr(target: Target) -> Callable[[str], int]:
    return lambda name: CALLS[name][target.machine]


Nr = Callable[[str], int]


# ── the binary ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def segments(binary: Path) -> Iterator[tuple[int, int]]:
    """Type and flags of each program header (elf(5))."""
    raw = binary.read_bytes()
    offset, size, count = struct.unpack_from("<Q", raw, 32)[0], *struct.unpack_from("<HH", raw, 54)
    for i in range(count):
        yield struct.unpack_from("<II", raw, offset + i * size)


def test_the_binary_is_small_static_and_never_writable_and_executable(binary: Path) -> None:
    kinds = dict(segments(binary))
    interpreter, dynamic, loaded, stack = 3, 2, 1, 0x6474E551
    assert interpreter not in kinds
    assert dynamic not in kinds
    assert loaded in kinds
    assert all(flags & 3 != 3 for _, flags in segments(binary)), "writable and executable at once"
    assert kinds[stack] & 1 == 0, "the stack is executable"
    assert binary.stat().st_size < 8192


@pytest.mark.parametrize("options", ["-Wconversion -Wshadow -Wcast-qual -Wpointer-arith", "-O0", "-O3"])
def test_the_source_compiles_without_a_warning_or_a_library(target: Target, tmp_path: Path, options: str) -> None:
    assert build(target, tmp_path / "executor", options).exists()


# ── arguments ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_empty_program_is_answered(wire: Wire) -> None:
    assert wire.ask(pack([], slots=3)) == Answer(0, 0, (0, 0, 0), b"")
    assert wire.end() == 0


def test_numbers(wire: Wire, nr: Nr) -> None:
    answer = wire.ask(pack([Op(nr("umask"), (0o27,)), Op(nr("umask"), (0o22,), into=0)]))
    assert (answer.at, answer.error, answer.slots[0]) == (2, 0, 0o27)


def test_numbers_too_large_for_an_argument_stand_in_the_data(wire: Wire) -> None:
    for number in (SMALL, 0xFFFFFFFF, 1 << 62, -(1 << 63), -5000):
        answer = wire.ask(pack([Op(VALUE, (number,), into=0), Op(VALUE, (Word(0),), into=1)], b"12345678"))
        assert (answer.error, answer.slots[:2]) == (0, (number, int.from_bytes(b"12345678", "little")))


def test_an_address_is_that_of_its_data_or_buffer(wire: Wire, nr: Nr) -> None:
    ops = [
        Op(nr("memfd_create"), (Address(0), 0), into=0), Op(nr("write"), (Kept(0), Address(1), 4), into=1),
        Op(nr("lseek"), (Kept(0), 1, 0)), Op(nr("read"), (Kept(0), Other(3), 6), into=2),
        Op(nr("lseek"), (Kept(0), 0, 0)), Op(nr("write"), (Kept(0), Other(4), 2)),
        Op(nr("lseek"), (Kept(0), 0, 0)), Op(nr("read"), (Kept(0), Returned(2), 6)),
    ]
    answer = wire.ask(pack(ops, b"named\0", out=8, other=16))
    assert answer.error == 0
    assert answer.slots[1:3] == (4, 3)
    assert answer.out == b"\0\0eded\0\0"


@pytest.mark.parametrize(("size", "out", "other"), [(0, 1, 0), (0, 16, 8), (3, 4100, 5), (8, 7, 30000)])
def test_buffers_are_zero_whatever_was_there(wire: Wire, size: int, out: int, other: int) -> None:
    wire.ask(pack([], b"\xff" * 60000))
    same = Op(CHECK, (Returned(0), Other(0), min(out, other), 40))
    answer = wire.ask(pack([same] if other else [], bytes(size), out, other=other))
    assert (answer.error, answer.out) == (0, bytes(out))


def test_all_six_arguments_arrive_in_their_order(wire: Wire, nr: Nr) -> None:
    data = b"f\0......" + b"0123456789abcdef" + (3).to_bytes(8, "little") + (1).to_bytes(8, "little")
    ops = [
        Op(nr("memfd_create"), (Address(0), 0), into=0), Op(nr("memfd_create"), (Address(0), 0), into=1),
        Op(nr("write"), (Kept(0), Address(8), 16)),
        Op(nr("copy_file_range"), (Kept(0), Address(24), Kept(1), Address(32), 5, 0), into=2),
        Op(nr("copy_file_range"), (Kept(0), Address(24), Kept(1), Address(32), 5, 1), into=3, fine=(ERRNO["EINVAL"],)),
        Op(nr("read"), (Kept(1), Returned(0), 16), into=4),
    ]
    answer = wire.ask(pack(ops, data, out=16))
    assert answer.error == 0
    assert answer.slots[2:5] == (5, -ERRNO["EINVAL"], 6)
    assert answer.out[:6] == b"\x0034567"


def test_slots_last_from_one_program_to_the_next(wire: Wire) -> None:
    wire.ask(pack([Op(VALUE, (7,), into=0), Op(VALUE, (-(1 << 62),), into=SLOTS - 1)]))
    answer = wire.ask(pack([Op(VALUE, (Kept(0),), into=1), Op(VALUE, (Kept(SLOTS - 1),), into=2)]))
    assert answer.slots[:3] == (7, 7, -(1 << 62))
    for i in range(20):
        assert wire.ask(pack([Op(VALUE, (i,), into=1)])).slots[:3] == (7, i, -(1 << 62))


@pytest.mark.parametrize("count", [0, 1, 2, 5000, SLOTS])
def test_as_many_slots_return_as_are_wanted(wire: Wire, count: int) -> None:
    answer = wire.ask(pack([Op(VALUE, (7,), into=0), Op(VALUE, (8,), into=4999)], slots=count))
    assert len(answer.slots) == count
    assert (answer.slots[:1], answer.slots[4999:5000]) == ((7,)[:count], (8,) if count > 4999 else ())


def test_a_result_that_is_not_wanted_changes_no_slot(wire: Wire, nr: Nr) -> None:
    assert wire.ask(pack([Op(nr("getpid"))], slots=SLOTS)).slots == (0,) * SLOTS


def test_links_become_addresses(wire: Wire, nr: Nr, target: Target) -> None:
    number = (3).to_bytes(8, "little")
    data = bytes(8) + number + bytes(8) + number + b"abcdef" + b"f\0"  # two iovecs, their bytes, a name
    ops = [
        Op(nr("memfd_create"), (Address(38), 0), into=0), Op(WRITEV[target.machine], (Kept(0), Address(0), 2), into=1),
        Op(nr("lseek"), (Kept(0), 0, 0)), Op(nr("read"), (Kept(0), Returned(0), 16)),
    ]
    answer = wire.ask(pack(ops, data, 16, [(0, Address(35)), (16, Address(32))]))
    assert (answer.error, answer.slots[1], answer.out[:6]) == (0, 6, b"defabc")


def test_a_link_is_of_any_argument_on_any_eight_bytes(wire: Wire) -> None:
    wire.ask(pack([Op(VALUE, (1 << 40,), into=3)]))
    ops = [Op(VALUE, (Word(3),), into=0), Op(VALUE, (Word(11),), into=1), Op(VALUE, (Word(19),), into=2), Op(VALUE, (Word(27),), into=4)]
    answer = wire.ask(pack(ops, bytes(35), 1, [(3, Address(34)), (11, Returned(0)), (19, Kept(3)), (27, 6)]))
    assert answer.error == 0
    assert answer.slots[:5] == (answer.slots[0], answer.slots[0] + 1, 1 << 40, 1 << 40, 6)
    assert answer.slots[0] % 8 == 2


# ── its own words ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", range(9))
def test_put_writes_a_value_little_end_first(wire: Wire, width: int) -> None:
    value = 0x1122334455667788
    ops = [Op(VALUE, (value,), into=5), Op(PUT, (Kept(5), Returned(2), width)), Op(PUT, (0x2E2E, Returned(10), 2))]
    answer = wire.ask(pack(ops, b"." * 12, 12))
    assert answer.error == 0
    assert answer.out == bytes(2) + value.to_bytes(8, "little")[:width] + bytes(8 - width) + b".."


@pytest.mark.parametrize(("a", "b", "size", "error"), [
    (0, 4, 4, 0), (0, 4, 5, 40), (0, 0, 12, 0), (0, 5, 1, 40), (11, 11, 0, 0),
])  # fmt: skip
def test_check_compares(wire: Wire, a: int, b: int, size: int, error: int) -> None:
    answer = wire.ask(pack([Op(CHECK, (Address(a), Address(b), size, 40))], b"samesameelse"))
    assert (answer.at, answer.error) == (0 if error else 1, error)


@pytest.mark.parametrize(("a", "b", "size", "error"), [
    (Address(9), Address(0), 4, 40), (Address(0), Address(9), 4, 40), (Address(0), Address(0), 13, 40), (Address(12), Address(0), 0, 40),
    (Address(0), Address(4), WORD, 40), (0, Address(2), 0, 40), (Address(0), WORD, 1, 40), (Returned(0), Address(0), 1, 40),
    (Address(0), Address(4), 4, 0), (Address(0), Address(4), 4, 4096), (Address(0), Address(4), 4, (1 << 64) - 40),
], ids=str)  # fmt: skip
def test_a_check_outside_the_data_or_without_an_errno_is_refused(wire: Wire, a: Argument, b: Argument, size: int, error: int) -> None:
    larger = [n for n in (a, b, size, error) if isinstance(n, int) and n >= SMALL]  # pack puts them behind the data
    data = b"samesameelse"[: 12 - 8 * len(larger)] if larger else b"samesameelse"
    answer = wire.ask(pack([Op(CHECK, (a, b, size, error))], data))
    assert (answer.at, answer.error) == (0, EBADMSG)


def test_a_failed_check_may_be_fine(wire: Wire) -> None:
    answer = wire.ask(pack([Op(CHECK, (Address(0), Address(1), 1, 40), into=0, fine=(40,), on_fine=1), Op(0xFFFF)], b"ab"))
    assert (answer.at, answer.error, answer.slots[0]) == (2, 0, -40)


def test_value_looks_at_a_slot_again(wire: Wire) -> None:
    ops = [
        Op(VALUE, (-13,), into=0, fine=(13,)), Op(VALUE, (Kept(0),), fine=(13,), on_fine=1), Op(0xFFFF),
        Op(VALUE, (0,), on_zero=1), Op(0xFFFF), Op(VALUE, (1,), on_more=1), Op(0xFFFF), Op(VALUE, (Kept(0),)),
    ]
    answer = wire.ask(pack(ops))
    assert (answer.at, answer.error) == (7, 13)


def test_reply_answers_and_goes_on(wire: Wire) -> None:
    wire.send(pack([Op(VALUE, (1,), into=0), Op(REPLY), Op(VALUE, (2,), into=0), Op(PUT, (Kept(0), Returned(0), 1)), Op(VALUE, (-5,))], out=1))
    first, second = wire.answer(), wire.answer()
    assert (first.at, first.error, first.slots[0], first.out) == (1, 0, 1, b"\0")
    assert (second.at, second.error, second.slots[0], second.out) == (4, 5, 2, b"\2")


def test_next_goes_on_without_a_word(wire: Wire) -> None:
    wire.send(pack([Op(VALUE, (4,), into=0), Op(NEXT), Op(VALUE, (5,), into=0)]))
    assert wire.ask(pack([])).slots[0] == 4


def test_a_child_takes_the_conversation_over(start: Start, nr: Nr, target: Target) -> None:
    with start() as wire:
        fork = Op(CLONE[target.machine], (17, 0, 0, 0, 0), into=0, on_more=1)  # SIGCHLD: a plain fork
        parent = wire.ask(pack([fork, Op(NEXT), Op(REPLY), Op(nr("exit_group"), (0,))]))
        assert (parent.at, parent.error) == (2, 0)
        assert wire.status() == 0
        child = wire.ask(pack([Op(nr("getpid"), into=1)]))
        assert child.slots[:2] == (0, parent.slots[0])
        pidfd = os.pidfd_open(parent.slots[0])
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(1000 * PATIENCE), "the end of the socket must end the child"
    os.close(pidfd)


@pytest.mark.parametrize("by_slot", [False, True])
def test_redirect_answers_elsewhere_and_listens_there(start: Start, by_slot: bool) -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    with ours, theirs, start(theirs.fileno()) as wire:
        to = Kept(3) if by_slot else theirs.fileno()
        wire.send(pack([Op(VALUE, (theirs.fileno(),), into=3), Op(REDIRECT, (to,), into=0, on_zero=1), Op(0xFFFF)]))
        theirs.close()
        assert read_answer(ours).error == 0
        ours.sendall(pack([Op(VALUE, (9,), into=1)]))
        assert read_answer(ours).slots[1] == 9
        ours.close()
        assert wire.status() == 0
        with pytest.raises(EOFError):
            wire.answer()


def test_redirect_to_a_pipe_answers_and_ends(start: Start) -> None:
    reading, writing = os.pipe()
    with start(writing) as wire:
        wire.send(pack([Op(REDIRECT, (writing,)), Op(PUT, (0x61, Returned(0), 1))], out=8))
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            raw = pipe.read()
        assert wire.status() == 0, "nothing can be read from the writing end"
    assert raw[-8:] == b"a" + bytes(7)
    assert len(raw) == 24 + 8 * 8 + 8


def test_redirect_to_nothing_is_the_end(wire: Wire) -> None:
    wire.send(pack([Op(REDIRECT, (999,))]))
    assert wire.status() == 0
    with pytest.raises(EOFError):
        wire.answer()


# ── failing and passing over ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_failure_ends_the_program(wire: Wire, nr: Nr) -> None:
    ops = [Op(VALUE, (1,), into=0), Op(nr("close"), (999,), into=1), Op(VALUE, (2,), into=0)]
    answer = wire.ask(pack([Op(PUT, (0x61, Returned(0), 1)), *ops], b"data", 4))
    assert (answer.at, answer.error, answer.slots[:2], answer.out) == (2, ERRNO["EBADF"], (1, 0), b"a\0\0\0")
    assert wire.ask(pack([Op(VALUE, (3,), into=0)])).slots[0] == 3, "the next program is carried out"


@pytest.mark.parametrize("place", range(4))
def test_each_of_four_errnos_may_be_fine(wire: Wire, nr: Nr, place: int) -> None:
    fine = [1, 2, 3, 5]
    fine[place] = ERRNO["EBADF"]
    answer = wire.ask(pack([Op(nr("close"), (999,), into=0, fine=tuple(fine))]))
    assert (answer.at, answer.error, answer.slots[0]) == (1, 0, -ERRNO["EBADF"])


def test_another_errno_than_the_fine_ones_fails(wire: Wire, nr: Nr) -> None:
    answer = wire.ask(pack([Op(nr("close"), (999,), fine=(1, 2, 3, 255))]))
    assert (answer.at, answer.error) == (0, ERRNO["EBADF"])


def test_a_call_that_this_kernel_has_not_is_enosys(wire: Wire) -> None:
    assert wire.ask(pack([Op(0x7FFF)])).error == ERRNO["ENOSYS"]


@pytest.mark.parametrize(("result", "lands"), [(0, 1), (5, 2), (-3, 3), (1 << 62, 2), (-4096, 2), (-(1 << 63), 2)])
def test_skips_follow_the_result(wire: Wire, result: int, lands: int) -> None:
    ops = [Op(VALUE, (result,), fine=(3,), on_zero=0, on_more=1, on_fine=2), *(Op(VALUE, (-40 - i,)) for i in range(1, 4))]
    answer = wire.ask(pack(ops))
    assert (answer.at, answer.error) == (lands, 40 + lands)


@pytest.mark.parametrize("skip", [1, 2, 1000, 0xFFFF])
def test_a_skip_past_the_end_is_the_end(wire: Wire, skip: int) -> None:
    answer = wire.ask(pack([Op(VALUE, (0,), on_zero=skip), Op(VALUE, (0,))]))
    assert (answer.at, answer.error) == (2, 0)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_what_is_asked_for_returns(wire: Wire) -> None:
    assert wire.ask(pack([], b"0123456789", 4, other=9)).out == bytes(4)


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("other", [0, 1 << 20])
def test_a_program_of_the_rooms_size(wire: Wire, spare: int, other: int) -> None:
    size = ROOM - 2 * OP_SIZE - spare - other - 4
    ops = [Op(CHECK, (Address(0), Address(size - 4), 4, 40)), Op(VALUE, (6,), into=0)]
    answer = wire.ask(pack(ops, b"same" + bytes(size - 8) + b"same", 4, other=other))
    assert (answer.at, answer.error, answer.slots[0], answer.out) == (2, 0, 6, bytes(4))


def test_several_megabytes_return(wire: Wire, nr: Nr) -> None:
    data = random.Random(1).randbytes(3 << 20)
    ops = [
        Op(nr("memfd_create"), (Address(0), 0), into=0), Op(nr("write"), (Kept(0), Address(0), len(data))), Op(nr("lseek"), (Kept(0), 0, 0)),
        Op(nr("read"), (Kept(0), Returned(0), len(data))),
    ]
    data = b"f\0" + data[2:]
    assert wire.ask(pack(ops, data, len(data))).out == data


def test_a_program_may_arrive_byte_by_byte(wire: Wire) -> None:
    for byte in pack([Op(VALUE, (8,), into=0)], b"abc", 3):
        wire.send(bytes([byte]))
    answer = wire.answer()
    assert (answer.slots[0], answer.out) == (8, bytes(3))


# ── malformed ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cut", [0, 1, 4, 31, 32, 33, 71, 72, 76, 79, 80, 87])
def test_a_program_that_breaks_off_ends_the_executor(wire: Wire, cut: int) -> None:
    text = pack([Op(VALUE, (0,))], bytes(8), 0, [(0, 0)])
    assert len(text) == 88 == HEAD_SIZE + OP_SIZE + 16
    wire.send(text[:cut])
    assert wire.end() == 0
    with pytest.raises(EOFError):
        wire.answer()


@pytest.mark.parametrize("head", [
    {"magic": 0}, {"magic": 0x31545652}, {"ops": 0xFFFFFFFF}, {"links": 0xFFFFFFFF}, {"data": 0xFFFFFFFF}, {"out": 0xFFFFFFFF},
    {"other": 0xFFFFFFFF}, {"ops": 0xFFFFFFFF, "links": 0xFFFFFFFF, "data": 0xFFFFFFFF, "out": 0xFFFFFFFF, "other": 0xFFFFFFFF},
    {"out": 0xFFFFFFF8, "other": 8}, {"data": 8, "out": 0x80000000, "other": 0x80000000}, {"data": ROOM + 1}, {"data": ROOM - 39},
    {"out": ROOM - 47}, {"other": ROOM - 47}, {"ops": ROOM // 40 + 1}, {"links": ROOM // 8 + 1}, {"ops": 0x6666667},  # × 40 is 2^32 + 24
    {"slots": SLOTS + 1}, {"slots": 0xFFFFFFFF},
], ids=str)  # fmt: skip
def test_a_wrong_head_is_answered_and_is_the_end(wire: Wire, head: dict[str, int]) -> None:
    answer = wire.ask(pack([Op(VALUE, (0,))], bytes(8), 0, head=head))
    assert answer == Answer(NO_HEAD, EBADMSG, (), b"")
    assert wire.status() == 0


@pytest.mark.parametrize("link", [
    (9, Address(0)), (16, Address(0)), (0xFFFFFFFF, Address(0)), (0xFFFFFFF8, Address(0)), (0, Address(16)), (0, Address(SMALL - 1)),
    (0, Returned(4)), (0, Other(0)), (0, Kept(SLOTS)), (0, Word(9)), (0, Odd(7, 0)),
], ids=str)  # fmt: skip
def test_a_link_outside_the_data_refuses_the_program(wire: Wire, link: tuple[int, Argument]) -> None:
    answer = wire.ask(pack([Op(VALUE, (1,), into=0)], bytes(16), 4, [(0, Address(0)), link]))
    assert answer == Answer(NO_LINK, EBADMSG, (), b"")
    assert wire.ask(pack([])).slots[0] == 0, "where the next program begins is known"


@pytest.mark.parametrize("size", [0, 7])
def test_a_link_into_too_little_data_refuses_the_program(wire: Wire, size: int) -> None:
    assert wire.ask(pack([], bytes(size), 0, [(0, 0)])).at == NO_LINK


@pytest.mark.parametrize("op", [
    Op(VALUE, (Address(16),)), Op(VALUE, (Address(SMALL - 1),)), Op(VALUE, (0, 0, 0, 0, 0, Address(16))),
    Op(VALUE, (Returned(4),)), Op(VALUE, (Returned(SMALL - 1),)), Op(VALUE, (Other(0),)), Op(VALUE, (Word(9),)), Op(VALUE, (Word(SMALL - 1),)),
    Op(VALUE, (Kept(SLOTS),)), Op(VALUE, (Kept(NONE),)), Op(VALUE, (Kept(SMALL - 1),)),
    Op(VALUE, (Odd(6, 0),)), Op(VALUE, (0, Odd(7, 0))),
    Op(VALUE + 1), Op(0xFFFF), Op(VALUE, (1,), into=SLOTS), Op(VALUE, (1,), into=NONE - 1), Op(VALUE, (1,), into=SLOTS, fine=(EBADMSG,)),
    Op(REPLY, into=SLOTS), Op(NEXT, into=SLOTS), Op(PUT, (Kept(SLOTS), Address(0), 8)), Op(PUT, (0, Address(13), 8)), Op(PUT, (0, Address(0), 9)),
    Op(PUT, (0, 0, 0)), Op(PUT, (0, Returned(1), 4)), Op(PUT, (0, Address(0), SMALL - 1)), Op(REDIRECT, (Kept(SLOTS),)),
], ids=repr)  # fmt: skip
def test_a_malformed_op_is_an_error_and_nothing_more(wire: Wire, op: Op) -> None:
    answer = wire.ask(pack([Op(VALUE, (5,), into=0), op, Op(VALUE, (6,), into=0)], b"0123456789abcdef", 4, slots=2))
    assert answer == Answer(1, EBADMSG, (5, 0), bytes(4))
    assert wire.ask(pack([])).slots[0] == 5


def test_bytes_without_sense_are_refused(start: Start) -> None:
    rng = random.Random(4)
    for _ in range(10):
        with start() as wire:
            wire.send(rng.randbytes(rng.randint(24, 4000)))
            assert wire.answer().at == NO_HEAD
            assert wire.status() == 0


# ── any program: the executor against the model ───────────────────────────────────────────────────────────────────────────────────


def any_program(rng: random.Random, calls: dict[str, int]) -> bytes:
    """A program whose calls do no harm whatever their arguments are, malformed in places."""
    size, out, other = (rng.choice([0, 8, 24, 64]) for _ in range(3))
    sizes: dict[type, int] = {Word: size - 7, Address: size, Returned: out, Other: other, Kept: SLOTS}

    def word() -> int:
        return rng.choice([0, 0, 1, 2, 8, size, size + 1, 127, SMALL - 1, SMALL, 1 << 32, 1 << 63, -rng.randint(1, 5000)]) % (1 << 64)

    def place() -> Argument:
        kind: type = rng.choice([Address, Returned, Other])
        made: Argument = kind(rng.randrange(max(1, sizes[kind] + rng.choice([0, 0, 0, 0, 0, 1]))))
        return made

    def argument() -> Argument:
        odd = Odd(6, 0) if rng.random() < 0.2 else 0
        some: list[Argument] = [word(), word(), Kept(rng.randrange(5)), place(), Kept(rng.choice([7, SLOTS - 1, SLOTS])), odd]
        some.append(Word(rng.randrange(max(1, size - rng.choice([6, 7, 7, 7])))))
        return rng.choice(some)

    def op() -> Op:
        rare = rng.choice([NEXT, 0xFFF0, VALUE])
        nr = rng.choice([CHECK, PUT, VALUE, VALUE, REPLY, calls["umask"], calls["getppid"], calls["getpid"], 0x7FFF, rare])
        args: tuple[Argument, ...] = tuple(argument() for _ in range(rng.choice([1, 3, 6])))
        if nr in (CHECK, PUT) and rng.random() < 0.8:
            args = (place() if nr == CHECK else argument(), place(), rng.choice([0, 1, 4, 8]), rng.choice([5, 40]))
        skips = [rng.choice([0, 0, 0, 1, 2, 60000]) for _ in range(3)]
        into = rng.choice([NONE, 0, 1, 2, 3, 4, SLOTS - 1, rng.choice([NONE, SLOTS])])
        return Op(nr, args, into, tuple(rng.sample([38, 5, 40, EBADMSG, 1, 77], rng.randint(0, 4))), *skips)

    links: list[tuple[int, Argument]] = []
    if size and rng.random() < 0.5:
        for _ in range(rng.randint(0, 2)):
            arg = argument()
            links.append((rng.randrange(size - 7), arg % SMALL if isinstance(arg, int) else arg))
    if links and rng.random() < 0.1:
        links.append((size + 1, 0))
    ops = [op() for _ in range(rng.randint(0, 12))]
    return pack(ops, rng.randbytes(size), out, links, other=other, slots=rng.choice([0, 5, 130]))


def test_any_program_ends_as_the_model_says(start: Start, target: Target) -> None:
    rng = random.Random(2)
    calls = {name: CALLS[name][target.machine] for name in ("umask", "getpid", "getppid")}
    mask = 0o22
    with start() as wire:
        pid = wire.ask(pack([Op(calls["getpid"], into=0), Op(calls["umask"], (mask,)), Op(calls["getppid"], into=1)])).slots[:2]

        def kernel(nr: int, words: list[int], model: Model) -> int:
            nonlocal mask
            if nr == calls["umask"]:
                mask, before = words[0] & 0o777, mask
                return before
            return pid[0] if nr == calls["getpid"] else pid[1] if nr == calls["getppid"] else -ERRNO["ENOSYS"]

        # a link tells the address of the data, hence of the room: a static program has one place
        model = Model(kernel, slots=[*pid, *(0,) * (SLOTS - 2)])
        model.room = wire.ask(pack([Op(VALUE, (Word(0),), into=2)], bytes(8), 0, [(0, Address(0))])).slots[2] - OP_SIZE - 8
        model.slots[2] = model.room + OP_SIZE + 8
        failures = 0
        for turn in range(1500):
            text = any_program(rng, calls)
            wire.send(text)
            for expected in model.run(text):
                assert wire.answer() == expected, f"turn {turn}"
                failures += expected.error > 0
        assert wire.ask(pack([], slots=SLOTS)).slots == tuple(model.slots)
    assert 300 < failures < 1200, "the programs are no longer a mixture of good and bad"


# ── what Program makes of steps ───────────────────────────────────────────────────────────────────────────────────────────────────


def answer_bytes(wire: Wire) -> bytes:
    answer = wire.answer()
    words = b"".join((slot % (1 << 64)).to_bytes(8, "little") for slot in answer.slots)
    return struct.pack("<6I", 0x32545652, answer.at, answer.error, len(answer.slots), len(answer.out), 0) + words + answer.out


def test_a_program_of_steps_sends_a_message_with_nested_pointers(start: Start, target: Target) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, start(theirs.fileno()) as wire:
        vectors = Data(Ptr("hello, "), struct.pack("Q", 7), Ptr(Data(Slot("mask"), b"!")), struct.pack("Q", 5))
        message = Data(bytes(16), Ptr(vectors), struct.pack("QQQQ", 2, 0, 0, 0))
        steps = [Step("say hello", Call("umask", 0o77, into="mask"), Call("umask", 0o123), Call("umask", 0, into="mask"),
                      Call("sendmsg", Slot("socket"), message, 0, into="sent"))]  # fmt: skip
        program = Program(steps, {}, {"socket": theirs.fileno()}, target.machine)
        wire.send(program.text)
        reply = program.reply(answer_bytes(wire))
        assert reply.slots == {"mask": 0o123, "sent": 12}
        assert ours.recv(100) == b"hello, " + (0o123).to_bytes(4, "little") + b"!"


def test_a_failure_of_steps_names_them(wire: Wire, target: Target) -> None:
    steps = [
        Step("look", Call("getpid", into="pid")),
        Step("read what is not there", Call("openat", -100, "/nowhere/at all", 0, fine=("EPERM", "EACCES")), hint="make it"),
    ]
    program = Program(steps, {}, machine=target.machine)
    wire.send(program.text)
    with pytest.raises(StepFailed, match="^read what is not there: openat: no such file or directory; make it$"):
        program.reply(answer_bytes(wire))


def test_labels_and_returned_buffers_of_steps(wire: Wire, target: Target) -> None:
    steps = [Step(
        "read a link",
        Call("readlinkat", -100, "/proc/self/nothing", Out("link", 64), 64, fine=("ENOENT",), on_fine="other", on_more="end"),
        Call("exit_group", 1), Call("readlinkat", -100, "/proc/self/cwd", Out("link", 64), 64, label="other", into="size", on_more="end"),
        Call("exit_group", 2),
    )]  # fmt: skip
    program = Program(steps, {}, machine=target.machine)
    wire.send(program.text)
    reply = program.reply(answer_bytes(wire))
    assert reply.outs["link"][: reply.slots["size"]] == b"/"


def test_a_fork_by_clone3(tmp_path: Path) -> None:
    """As plans fork; qemu's user mode has no clone3."""
    if missing := NATIVE.missing():
        pytest.skip(missing)
    fork = Call("clone3", struct.pack("11Q", *(17 if i == 4 else 0 for i in range(11))), 88, into="child", on_more="parent")
    slots: dict[str, int] = {}
    with Wire(build(NATIVE, tmp_path / "executor")) as wire:
        program = Program([Step("fork", fork, Call("next"), Call("reply", label="parent"), Call("exit_group", 0))], slots)
        wire.send(program.text)
        child = program.reply(answer_bytes(wire)).slots["child"]
        assert wire.status() == 0
        program = Program([Step("say who", Call("getpid", into="me"))], slots)
        wire.send(program.text)
        assert program.reply(answer_bytes(wire)).slots == {"child": 0, "me": child}


def test_the_source_names_no_more_calls_of_its_own_than_four() -> None:
    """Reading, answering by send or write, and the end: all else is asked for by a program."""
    text = SOURCE.read_text()
    assert sorted({word.strip(",;") for word in text.replace("(", " ").split() if word.startswith("SYS_")}) == [
        "SYS_EXIT_GROUP", "SYS_READ", "SYS_SENDTO", "SYS_WRITE",
    ]


def test_without_an_argument_it_talks_on_descriptor_3(tmp_path: Path) -> None:
    if missing := NATIVE.missing():
        pytest.skip(missing)
    binary = build(NATIVE, tmp_path / "executor")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        pid = os.posix_spawn(binary, ["rundlet"], {}, file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)])
        theirs.close()
        ours.sendall(pack([Op(VALUE, (2,), into=0)]))
        assert read_answer(ours).slots[0] == 2
        ours.close()
        assert os.waitpid(pid, 0)[1] == 0
