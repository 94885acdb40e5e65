"""Steps become the bytes that the executor reads; its reply becomes results and faults. The layout is that of executor.c.

    head     magic, ops, links, data size, out size, 0          six u32
    op       nr u16 · kind u8×6 · fine u8×4 · into u8 · 0 u8 · on_zero u16 · on_more u16 · on_fine u16 · 0 u32 · arg u64×6
    link     at u32, to u32          the eight bytes at data[at] become the address of data[to]
    data     [ buffers that the reply returns | texts and structures ]
"""

from _struct import Struct
from posix import strerror, uname

from rundlet.errors import Fault, StepFailed
from rundlet.kernel import CALLS, ERRNO, MACHINES
from rundlet.plan.step import Data, Out, Part, Ptr, Scratch, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rundlet.plan.step import Arg, Call, Step, Target

MAGIC = 0x31545652
SLOTS = 128
ROOM = 8 << 20
NONE = 255
NOWHERE = NONE << 32  # the second word of an op whose result is not kept
RETURNED = 4608  # bytes of returned buffers: enough for most programs to be assembled once
OWN = {"check": 0xFF00, "put": 0xFF01, "reply": 0xFF02, "next": 0xFF03, "redirect": 0xFF04, "value": 0xFF05}
ADDRESS, SLOT = 1, 2  # what an argument is; 0 is a number
KINDS: "dict[type, int]" = {int: 0, str: ADDRESS, bytes: ADDRESS, Slot: SLOT}  # of plain arguments
NUMBERS: "dict[Arg, int]" = {n: n for n in range(64)}
PADS = tuple(bytes(-n % 8) for n in range(8))
MASK = (1 << 64) - 1

_head = Struct("=6I").pack
OPS = tuple(Struct(f"={3 + n}Q{48 - 8 * n}x").pack for n in range(7))  # by the number of arguments: three words of small fields, then those
_link = Struct("=2I").pack
_reply = Struct("=4I")
_slots = Struct(f"={SLOTS}q").unpack_from
REPLY_SIZE = _reply.size + 8 * SLOTS

MACHINE = MACHINES.get(uname().machine, 0)


class Program:
    """One program: `text` for the executor, and what it takes to read the reply.

    `slots` maps the names of results to their places; it is shared by all programs of one executor and its children.
    `bind` gives the numbers of descriptors that the executor inherited, by slot name.
    """

    def __init__(
        self, steps: "Iterable[Step]", slots: "dict[str, int]", bind: "dict[str, int] | None" = None, machine: int = MACHINE,
    ) -> None:
        self.slots = slots
        self.bind = bind or {}
        self.machine = machine
        self._steps = list(steps)
        if not self._assemble(RETURNED):
            self._assemble(self._used)  # now it is known how much room the returned buffers take
        if len(self.text) > ROOM:
            raise Fault(f"arguments and environment too large: the program of {len(self.text)} bytes exceeds {ROOM}")

    def _assemble(self, room: int) -> bool:
        """Encodes all steps with `room` bytes for returned buffers; false when that was too little."""
        self.outs: "dict[str, tuple[int, int]]" = {}
        self._room, self._used = room, 0
        self._data = bytearray(room)
        self._links: "list[bytes]" = []
        self._scratch: "dict[str, int]" = {}
        self._puts: "list[tuple[int, int, int]]" = []  # slot, offset, width: what is to be put into the data before the call at hand
        self._odd: "list[Slot]" = []  # slots of the call at hand that are numbers already
        self._plain = Plain(self)
        self._done: "dict[int, bytes]" = {}  # the ops of calls that plans use again and again, by identity
        self._before: "dict[int, int]" = {}  # how many puts stand before a call, by the number of the first one
        ops: "list[bytes]" = []
        for step in self._steps:
            self._step(step, ops)
        if self._used > room:
            return False
        data = self._data + bytes(-len(self._data) % 8)
        head = _head(MAGIC, len(ops), len(self._links), len(data), self._used, 0)
        self.text = b"".join([head, *ops, *self._links, data])
        return True

    def _step(self, step: "Step", ops: "list[bytes]") -> None:
        """Appends the ops of a step. Where a jump leads is known once the whole step is there, so ops with one are packed at its end.

        A container's start spends more on this than on anything else in Python, so what can be is looked up and not worked out: the
        first word of an op by the call's name and the types of its arguments, and the arguments by themselves.
        """
        slots, plain, fronts, odd, done = self.slots, self._plain.__getitem__, FRONTS[self.machine], self._odd, self._done
        append = ops.append
        labels: "dict[str, int]" = {}
        jumps: "list[tuple[int, Call, int, int, list[int]]]" = []
        for call in step.calls:
            if call.label:
                labels[call.label] = len(ops)
            if id(call) in done:
                append(done[id(call)])
                continue
            front = fronts[(call.name, *map(type, call.args))]
            plainly = front >= 0
            if plainly:
                args = [*map(plain, call.args)]
            if odd or not plainly:
                front, args = self._by_one(call, ops)
            into, fine = call.into, call.fine
            back = NOWHERE if not into else (slots[into] if into in slots else self._slot(into)) << 32
            if fine:
                if len(fine) > 4:
                    raise Fault(f"{step.what}: {call.name}: more than four errnos are fine")
                back |= FINE[fine]
            if call.on_zero or call.on_more or call.on_fine:
                jumps.append((len(ops), call, front, back, args))
                append(b"")
            else:
                op = OPS[len(args)](front, back, 0, *args)
                append(op)
                if plainly:
                    done[id(call)] = op
        if jumps:
            labels["end"] = len(ops)
            for at, call, front, back, args in jumps:
                back |= (labels[call.on_zero] - at - 1 if call.on_zero else 0) << 48
                more = labels[call.on_more] - at - 1 if call.on_more else 0
                over = labels[call.on_fine] - at - 1 if call.on_fine else 0
                ops[at] = OPS[len(args)](front, back, more | over << 16, *args)

    def _by_one(self, call: "Call", ops: "list[bytes]") -> "tuple[int, list[int]]":
        """The first word and the arguments of a call that is not of the plain kind; puts what it needs before it."""
        self._odd.clear()
        front = FRONTS[self.machine][(call.name,)]
        args: "list[int]" = []
        for shift, arg in zip(range(16, 64, 8), call.args, strict=False):
            if type(arg) is Slot and arg.name in self.bind:
                args.append(self.bind[arg.name] & MASK)
                continue
            front |= KINDS.get(type(arg), ADDRESS) << shift
            args.append(self._plain[arg] if type(arg) in KINDS else self._place(arg))  # type: ignore[arg-type]
        if self._puts:
            self._before[len(ops)] = len(self._puts)
        for slot, offset, width in self._puts:
            ops.append(OPS[3](OWN["put"] | ADDRESS << 24, NOWHERE, 0, slot, offset, width))
        self._puts.clear()
        return front, args

    @property
    def where(self) -> "list[tuple[Step, Call]]":
        """The step and call of each op."""
        found: "list[tuple[Step, Call]]" = []
        for step in self._steps:
            for call in step.calls:
                found += [(step, call)] * (1 + self._before.get(len(found), 0))
        return found

    def _slot(self, name: str) -> int:
        index = self.slots.setdefault(name, len(self.slots))
        if index >= SLOTS:
            raise Fault(f"the plan needs more than {SLOTS} results at a time")
        return index

    def _place(self, what: "Target") -> int:
        """The offset in the data of a text, bytes, structure or buffer, put there when it is not there yet."""
        data = self._data
        if type(what) is str or type(what) is bytes:
            return self._plain[what]
        if type(what) is Data:
            return self._structure(what)
        if type(what) is Part:
            return self._place(what.of) + what.offset
        if type(what) is Out:
            if what.name not in self.outs:
                self.outs[what.name] = (self._used, what.size)
                self._used += what.size + (-what.size % 8)
            return min(self.outs[what.name][0], self._room - 1)
        assert type(what) is Scratch
        if what.name not in self._scratch:
            data += bytes(-len(data) % 8)
            self._scratch[what.name] = len(data)
            data += bytes(what.size)
        return self._scratch[what.name]

    def _structure(self, what: Data) -> int:
        """As _place(), for a structure: what it points to is put behind it."""
        data = self._data
        size = 0
        for part in what.parts:
            size += len(part) if isinstance(part, bytes) else part.width if isinstance(part, Slot) else 8
        data += bytes(-len(data) % 8)
        start = at = len(data)
        data += bytes(size)
        for part in what.parts:
            if isinstance(part, Ptr):
                self._links.append(_link(at, self._place(part.to)))
                at += 8
            elif isinstance(part, Slot):
                if part.name in self.bind:
                    data[at : at + part.width] = self.bind[part.name].to_bytes(part.width, "little")
                else:
                    self._puts.append((self._slot(part.name), at, part.width))
                at += part.width
            else:
                data[at : at + len(part)] = part
                at += len(part)
        return start

    def reply(self, raw: bytes) -> "Reply":
        """Reads a reply to this program; raises StepFailed when a call of it failed, Fault when it is no reply."""
        magic, at, error, out = _reply.unpack_from(raw) if len(raw) >= REPLY_SIZE else (0, 0, 0, 0)
        if magic != MAGIC or len(raw) < REPLY_SIZE + out or error > 4095:
            raise Fault("the executor answered with something that is no reply")
        results = _slots(raw, _reply.size)
        body = raw[REPLY_SIZE : REPLY_SIZE + out]
        reply = Reply(
            {name: results[index] for name, index in self.slots.items()},
            {name: body[offset : offset + size] for name, (offset, size) in self.outs.items()},
        )
        if error:
            if at >= len(self.where):
                raise Fault(f"the executor refused the program: {strerror(error).lower()}")
            step, call = self.where[at]
            failed = failure(step, call.name, error)
            failed.outs = reply.outs
            raise failed
        return reply


class Plain(dict["Arg", int]):
    """What a plain argument becomes: a number itself, a slot its index, a text its offset in the data. Filled as it is asked."""

    def __init__(self, program: Program) -> None:
        super().__init__(NUMBERS)
        self.program = program

    def __missing__(self, arg: "Arg") -> int:
        program = self.program
        kind = type(arg)
        if kind is str or kind is bytes:
            raw: bytes = arg.encode("utf-8", "surrogateescape") if kind is str else arg  # type: ignore[assignment,union-attr]
            if raw in self:
                value = self[raw]
            else:
                data = program._data
                data += PADS[len(data) & 7]
                self[raw] = value = len(data)
                data += raw + b"\0"
        elif kind is int:
            value = arg & MASK  # type: ignore[operator]
        else:
            assert type(arg) is Slot
            if arg.name in program.bind:
                program._odd.append(arg)
                return 0
            value = program._slot(arg.name)
        self[arg] = value
        return value


class Fronts(dict["tuple[object, ...]", int]):
    """(name, types of arguments) → the first word of an op, the call's number and what its arguments are; -1: they are not all plain."""

    def __init__(self, machine: int) -> None:
        super().__init__()
        self.machine = machine

    def __missing__(self, key: "tuple[object, ...]") -> int:
        pair = CALLS.get(key[0])  # type: ignore[call-overload]  # the first one is the name
        front: int = pair[self.machine] if pair else OWN[key[0]]  # type: ignore[index]
        shift = 16
        for kind in key[1:]:
            assert isinstance(kind, type)
            if kind not in KINDS:
                front = -1
                break
            front |= KINDS[kind] << shift
            shift += 8
        self[key] = front
        return front


class Fine(dict["tuple[str, ...]", int]):
    """Names of errnos → four bytes of the second word of an op."""

    def __missing__(self, names: "tuple[str, ...]") -> int:
        self[names] = value = sum(ERRNO[name] << shift for name, shift in zip(names, (0, 8, 16, 24), strict=False))
        return value


FRONTS = (Fronts(0), Fronts(1))
FINE = Fine()


class Reply:
    """What came back: the slots' values by name, and the returned buffers. From inside a container these are untrusted."""

    __slots__ = ("slots", "outs")

    def __init__(self, slots: "dict[str, int]", outs: "dict[str, bytes]") -> None:
        self.slots = slots
        self.outs = outs


def failure(step: "Step", call: str, error: int) -> StepFailed:
    """The fault of a failed step: what was being done, on which call, and the kernel's word in lower case.

    A check that fails has no errno to speak of: there the step's hint says it all.
    """
    what = "error running " + step.what[4:] if step.kind == "hook" else step.what
    why = strerror(error)
    text = f"{what}: {call}: {why[:1].lower()}{why[1:]}"
    if call == "check" and step.hint:
        return StepFailed(what, call, error, f"{what}: {step.hint}")
    return StepFailed(what, call, error, text, (step.hint,) if step.hint else ())
