"""The executor's protocol, written a second time from its description, to hold executor.c and program.py against.

Offsets are spelled out here rather than shared with program.py: a field that moves in one place only must be seen. `pack`
writes a program, also a wrong one; `decode` reads one; `Model` does what the executor has to do with it, the calls being
made by a function that the test gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

MAGIC = 0x32545652  # "RVT2"
SLOTS, ROOM, NONE = 1 << 14, 8 << 20, 0xFFFF
CHECK, PUT, REPLY, NEXT, REDIRECT, VALUE = 0xFF00, 0xFF01, 0xFF02, 0xFF03, 0xFF04, 0xFF05
HEAD_SIZE, OP_SIZE, LINK_SIZE, ANSWER_SIZE = 32, 40, 8, 24
EBADMSG = 74
NO_HEAD, NO_LINK = 0xFFFFFFFF, 0xFFFFFFFE  # where a program failed that has not begun
WORD = (1 << 64) - 1
SMALL = 1 << 29  # what an argument holds besides its kind is below


@dataclass(frozen=True)
class Word:
    """An argument: the number in the eight bytes at data[at]."""

    at: int


@dataclass(frozen=True)
class Address:
    """An argument: the address of data[at]."""

    at: int


@dataclass(frozen=True)
class Returned:
    """An argument: the address of byte `at` of the buffers that the answer returns."""

    at: int


@dataclass(frozen=True)
class Other:
    """An argument: the address of byte `at` of the buffers that it does not."""

    at: int


@dataclass(frozen=True)
class Kept:
    """An argument: the result in a slot."""

    at: int


@dataclass(frozen=True)
class Odd:
    """An argument of a kind of its own, to see it refused."""

    kind: int
    at: int


Argument = int | Word | Address | Returned | Other | Kept | Odd
KINDS: list[type] = [int, Word, Address, Returned, Other, Kept]


def pack_argument(arg: Argument) -> int:
    """Its 32 bits. A number that is too large for them has to stand in the data."""
    if isinstance(arg, int):
        assert 0 <= arg < SMALL
        return arg
    assert 0 <= arg.at < SMALL
    return (arg.kind if isinstance(arg, Odd) else KINDS.index(type(arg))) << 29 | arg.at


def argument(word: int) -> Argument:
    """The argument of 32 bits."""
    kind, value = word >> 29, word % SMALL
    if kind == 0:
        return value
    made: Argument = KINDS[kind](value) if kind < len(KINDS) else Odd(kind, value)
    return made


@dataclass(frozen=True)
class Op:
    """One operation, as the wire has it; numbers may be of any size."""

    nr: int
    args: tuple[Argument, ...] = ()
    into: int = NONE
    fine: tuple[int, ...] = ()
    on_zero: int = 0
    on_more: int = 0
    on_fine: int = 0

    def pack(self) -> bytes:
        """The 40 bytes."""
        fine = bytes(self.fine).ljust(4, b"\0")
        skips = b"".join(n.to_bytes(2, "little") for n in (self.on_zero, self.on_more, self.on_fine, 0))
        words = [*map(pack_argument, self.args), *[0] * (6 - len(self.args))]
        raw = self.nr.to_bytes(2, "little") + self.into.to_bytes(2, "little") + fine + skips
        return raw + b"".join(word.to_bytes(4, "little") for word in words)


def pack(
    ops: Sequence[Op], data: bytes = b"", out: int = 0, links: Sequence[tuple[int, Argument]] = (), head: Mapping[str, int] | None = None,
    other: int = 0, slots: int = 8,
) -> bytes:
    """A program that returns `out` bytes of buffers and `slots` slots. Large numbers are put behind its data.

    `head` has numbers that the head shall say instead of the true ones: magic, ops, links, data, out, other, slots.
    """
    larger = bytearray(data)
    ready = []
    for op in ops:
        args: list[Argument] = []
        for arg in op.args:
            if isinstance(arg, int) and not 0 <= arg < SMALL:
                args.append(Word(len(larger)))
                larger += (arg & WORD).to_bytes(8, "little")
            else:
                args.append(arg)
        ready.append(Op(op.nr, tuple(args), op.into, op.fine, op.on_zero, op.on_more, op.on_fine))
    said = {
        "magic": MAGIC, "ops": len(ops), "links": len(links), "data": len(larger), "out": out, "other": other, "slots": slots, "zero": 0,
    } | dict(head or {})
    return b"".join([
        *(number.to_bytes(4, "little") for number in said.values()),
        *(op.pack() for op in ready),
        *(at.to_bytes(4, "little") + pack_argument(to).to_bytes(4, "little") for at, to in links),
        larger,
    ])


@dataclass(frozen=True)
class Decoded:
    """A program read back."""

    ops: list[Op]
    links: list[tuple[int, Argument]]
    data: bytes
    out: int
    other: int
    slots: int


def decode(text: bytes) -> Decoded:
    """Reads one whole program; raises AssertionError when the bytes are not exactly one."""
    number = [int.from_bytes(text[i : i + 4], "little") for i in range(0, HEAD_SIZE, 4)]
    magic, count, link_count, size, out, other, slots, zero = number
    assert magic == MAGIC
    assert zero == 0
    assert slots <= SLOTS
    assert len(text) == HEAD_SIZE + count * OP_SIZE + link_count * LINK_SIZE + size
    ops = [_op(text[HEAD_SIZE + i * OP_SIZE :][:OP_SIZE]) for i in range(count)]
    body = text[HEAD_SIZE + count * OP_SIZE :]
    links = [
        (int.from_bytes(body[i : i + 4], "little"), argument(int.from_bytes(body[i + 4 : i + 8], "little")))
        for i in range(0, link_count * LINK_SIZE, LINK_SIZE)
    ]
    return Decoded(ops, links, body[link_count * LINK_SIZE :], out, other, slots)


def _op(raw: bytes) -> Op:
    def number(at: int, size: int) -> int:
        return int.from_bytes(raw[at : at + size], "little")

    args = tuple(argument(number(16 + 4 * i, 4)) for i in range(6))
    return Op(number(0, 2), args, number(2, 2), tuple(n for n in raw[4:8] if n), number(8, 2), number(10, 2), number(12, 2))


@dataclass(frozen=True)
class Answer:
    """One answer: `at` the op that ended the program (or their count), `error` 0 or the errno, the slots, the returned buffers."""

    at: int
    error: int
    slots: tuple[int, ...]
    out: bytes


def signed(value: int) -> int:
    """A 64-bit word as the kernel's signed result."""
    value &= WORD
    return value - (1 << 64) if value >> 63 else value


Kernel = Callable[[int, list[int], "Model"], int]  # number, arguments → result or -errno


@dataclass
class Model:
    """What an executor must do. `room` is the address of its room; memory is that of the program that runs."""

    kernel: Kernel
    room: int = 0x10000
    slots: list[int] = field(default_factory=lambda: [0] * SLOTS)
    base: int = 0
    memory: bytearray = field(default_factory=bytearray)
    program: Decoded = field(default_factory=lambda: Decoded([], [], b"", 0, 0, 0))

    def run(self, text: bytes) -> list[Answer]:
        """Carries out one program that is as long as its head says; the answers it gives."""
        self.program = program = decode(text)
        self.base = self.room + len(program.ops) * OP_SIZE + len(program.links) * LINK_SIZE
        size = len(program.data)
        self.memory = bytearray(program.data) + bytes(program.out + program.other)
        for at, arg in program.links:
            value = self.resolve(arg)
            if at + 8 > size or value is None:
                return [Answer(NO_LINK, EBADMSG, (), b"")]
            self.memory[at : at + 8] = value.to_bytes(8, "little")
        answers: list[Answer] = []

        def answer(at: int, error: int) -> list[Answer]:
            answers.append(Answer(at, error, tuple(self.slots[: program.slots]), bytes(self.memory[size : size + program.out])))
            return answers

        at = 0
        while at < len(program.ops):
            op = program.ops[at]
            if NONE > op.into >= SLOTS:
                return answer(at, EBADMSG)
            if op.nr == NEXT:
                return answers
            if op.nr == REPLY:
                answer(at, 0)
            result = 0 if op.nr == REPLY else self._perform(op)
            if -4095 <= result < 0:
                if -result not in op.fine:
                    return answer(at, -result)
                over = op.on_fine
            else:
                over = op.on_more if result else op.on_zero
            if op.into != NONE:
                self.slots[op.into] = result
            at += 1 + over
        return answer(len(program.ops), 0)

    def resolve(self, arg: Argument) -> int | None:
        """What an argument is; None when it is malformed."""
        size, out, other = len(self.program.data), self.program.out, self.program.other
        match arg:
            case int():
                return arg
            case Word(at) if at + 8 <= size:
                return int.from_bytes(self.memory[at : at + 8], "little")
            case Address(at) if at < size:
                return self.base + at
            case Returned(at) if at < out:
                return self.base + size + at
            case Other(at) if at < other:
                return self.base + size + out + at
            case Kept(at) if at < SLOTS:
                return self.slots[at] & WORD
        return None

    def _perform(self, op: Op) -> int:
        whole = len(self.memory)
        resolved = [self.resolve(arg) for arg in op.args]
        words = [word for word in resolved if word is not None]
        if len(words) < len(resolved):
            return -EBADMSG
        words += [0] * (6 - len(words))
        if op.nr == CHECK:
            a, b, n, error = (words[0] - self.base) & WORD, (words[1] - self.base) & WORD, words[2], words[3]
            if a + n > whole or b + n > whole or not 1 <= error <= 4095:
                return -EBADMSG
            return 0 if self.memory[a : a + n] == self.memory[b : b + n] else -error
        if op.nr == PUT:
            value, at, width = words[0], (words[1] - self.base) & WORD, words[2]
            if width > 8 or at + width > whole:
                return -EBADMSG
            self.memory[at : at + width] = value.to_bytes(8, "little")[:width]
            return 0
        if op.nr == REDIRECT:
            return 0
        if op.nr == VALUE:
            return signed(words[0])
        return self.kernel(op.nr, words, self) if op.nr < CHECK else -EBADMSG
