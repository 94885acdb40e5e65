"""The executor's protocol, written a second time from its description, to hold executor.c and program.py against.

Offsets are spelled out here rather than shared with program.py: a field that moves in one place only must be seen. `pack`
writes a program, also a wrong one; `decode` reads one; `Model` does what the executor has to do with it, the calls being
made by a function that the test gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

MAGIC = 0x31545652  # "RVT1"
SLOTS, ROOM, NONE = 128, 8 << 20, 255
CHECK, PUT, REPLY, NEXT, REDIRECT, VALUE = 0xFF00, 0xFF01, 0xFF02, 0xFF03, 0xFF04, 0xFF05
HEAD_SIZE, OP_SIZE, LINK_SIZE, ANSWER_SIZE = 24, 72, 8, 16 + 8 * SLOTS
EBADMSG = 74
NO_HEAD, NO_LINK = 0xFFFFFFFF, 0xFFFFFFFE  # where a program failed that has not begun
WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Address:
    """An argument: the address of data[at]."""

    at: int


@dataclass(frozen=True)
class Kept:
    """An argument: the result in a slot."""

    slot: int


@dataclass(frozen=True)
class Odd:
    """An argument of a kind of its own, to see it refused."""

    kind: int
    value: int


Argument = int | Address | Kept | Odd


@dataclass(frozen=True)
class Op:
    """One operation, as the wire has it."""

    nr: int
    args: tuple[Argument, ...] = ()
    into: int = NONE
    fine: tuple[int, ...] = ()
    on_zero: int = 0
    on_more: int = 0
    on_fine: int = 0

    def pack(self) -> bytes:
        """The 72 bytes."""
        kinds, words = bytearray(6), [0] * 6
        for i, arg in enumerate(self.args):
            match arg:
                case Address(value):
                    kinds[i], words[i] = 1, value
                case Kept(value):
                    kinds[i], words[i] = 2, value
                case Odd(kind, value):
                    kinds[i], words[i] = kind, value
                case _:
                    words[i] = arg & WORD
        fine = bytes(self.fine).ljust(4, b"\0")
        skips = b"".join(n.to_bytes(2, "little") for n in (self.on_zero, self.on_more, self.on_fine))
        raw = self.nr.to_bytes(2, "little") + kinds + fine + bytes([self.into, 0]) + skips + bytes(4)
        return raw + b"".join(word.to_bytes(8, "little") for word in words)


def pack(
    ops: Sequence[Op], data: bytes = b"", out: int = 0, links: Sequence[tuple[int, int]] = (), head: Mapping[str, int] | None = None,
) -> bytes:
    """A program; `head` has numbers that the head shall say instead of the true ones: magic, ops, links, data, out."""
    said = {"magic": MAGIC, "ops": len(ops), "links": len(links), "data": len(data), "out": out, "zero": 0} | dict(head or {})
    return b"".join([
        *(number.to_bytes(4, "little") for number in said.values()),
        *(op.pack() for op in ops),
        *(at.to_bytes(4, "little") + to.to_bytes(4, "little") for at, to in links),
        data,
    ])


@dataclass(frozen=True)
class Decoded:
    """A program read back."""

    ops: list[Op]
    links: list[tuple[int, int]]
    data: bytes
    out: int


def decode(text: bytes) -> Decoded:
    """Reads one whole program; raises AssertionError when the bytes are not exactly one."""
    number = [int.from_bytes(text[i : i + 4], "little") for i in range(0, HEAD_SIZE, 4)]
    magic, count, link_count, size, out, zero = number
    assert magic == MAGIC
    assert zero == 0
    assert out <= size
    assert len(text) == HEAD_SIZE + count * OP_SIZE + link_count * LINK_SIZE + size
    ops = [_op(text[HEAD_SIZE + i * OP_SIZE :][:OP_SIZE]) for i in range(count)]
    body = text[HEAD_SIZE + count * OP_SIZE :]
    links = [
        (int.from_bytes(body[i : i + 4], "little"), int.from_bytes(body[i + 4 : i + 8], "little"))
        for i in range(0, link_count * LINK_SIZE, LINK_SIZE)
    ]
    return Decoded(ops, links, body[link_count * LINK_SIZE :], out)


def _op(raw: bytes) -> Op:
    def number(at: int, size: int) -> int:
        return int.from_bytes(raw[at : at + size], "little")

    args: list[Argument] = []
    for i in range(6):
        kind, value = raw[2 + i], number(24 + 8 * i, 8)
        args.append(value if kind == 0 else Address(value) if kind == 1 else Kept(value) if kind == 2 else Odd(kind, value))
    return Op(number(0, 2), tuple(args), raw[12], tuple(n for n in raw[8:12] if n), number(14, 2), number(16, 2), number(18, 2))


@dataclass(frozen=True)
class Answer:
    """One answer: `at` the op that ended the program (or their count), `error` 0 or the errno, all slots, the returned data."""

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

    def run(self, text: bytes) -> list[Answer]:
        """Carries out one program that is as long as its head says; the answers it gives."""
        program = decode(text)
        self.base = self.room + len(program.ops) * OP_SIZE + len(program.links) * LINK_SIZE
        self.memory = bytearray(program.data)
        size = len(self.memory)
        for at, to in program.links:
            if at + 8 > size or to >= size:
                return [Answer(NO_LINK, EBADMSG, tuple(self.slots), b"")]
            self.memory[at : at + 8] = (self.base + to).to_bytes(8, "little")
        answers: list[Answer] = []

        def answer(at: int, error: int) -> list[Answer]:
            answers.append(Answer(at, error, tuple(self.slots), bytes(self.memory[: program.out])))
            return answers

        at = 0
        while at < len(program.ops):
            op = program.ops[at]
            if op.nr == NEXT and (op.into == NONE or op.into < SLOTS):
                return answers
            if op.nr == REPLY and (op.into == NONE or op.into < SLOTS):
                answer(at, 0)
            result = self._perform(op)
            if -4095 <= result < 0:
                if -result not in op.fine or NONE > op.into >= SLOTS:
                    return answer(at, -result)
                over = op.on_fine
            else:
                over = op.on_more if result else op.on_zero
            if op.into != NONE:
                self.slots[op.into] = result
            at += 1 + over
        return answer(len(program.ops), 0)

    def _perform(self, op: Op) -> int:
        size, words = len(self.memory), [arg if isinstance(arg, int) else arg.value if isinstance(arg, Odd) else 0 for arg in op.args]
        for i, arg in enumerate(op.args):
            if isinstance(arg, Address | Kept):
                words[i] = arg.at if isinstance(arg, Address) else arg.slot
        words += [0] * (6 - len(words))
        if NONE > op.into >= SLOTS:
            return -EBADMSG
        if op.nr == CHECK:
            a, b, n, error = words[:4]
            if a + n > size or b + n > size or not 1 <= error <= 4095:
                return -EBADMSG
            return 0 if self.memory[a : a + n] == self.memory[b : b + n] else -error
        if op.nr == PUT:
            slot, at, width = words[:3]
            if slot >= SLOTS or width > 8 or at + width > size:
                return -EBADMSG
            self.memory[at : at + width] = (self.slots[slot] & WORD).to_bytes(8, "little")[:width]
            return 0
        if op.nr == REPLY:
            return 0
        for i, arg in enumerate(op.args):
            match arg:
                case Odd():
                    return -EBADMSG
                case Address(at):
                    if at >= size:
                        return -EBADMSG
                    words[i] = self.base + at
                case Kept(slot):
                    if slot >= SLOTS:
                        return -EBADMSG
                    words[i] = self.slots[slot] & WORD
        if op.nr == REDIRECT:
            return 0
        if op.nr == VALUE:
            return signed(words[0])
        return self.kernel(op.nr, words, self) if op.nr < CHECK else -EBADMSG
