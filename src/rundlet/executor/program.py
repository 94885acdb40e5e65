"""Steps become the bytes that the executor reads; its reply becomes results and faults. The layout is that of executor.c.

    head     magic, ops, links, data size, size of the returned buffers, of the others, slots to return, 0         eight u32
    op       nr u16 · into u16 · fine u8×4 · on_zero u16 · on_more u16 · on_fine u16 · 0 u16 · arg u32×6           ten u32
    link     at u32 · arg u32        the eight bytes at data[at] become what the argument is
    data     texts, structures and large numbers as they are first met
    arg      what it is in the upper three bits, in the others a small number itself, an offset, or a slot
"""

from _struct import Struct, pack, unpack_from
from posix import strerror, uname

from rundlet.errors import Fault, StepFailed
from rundlet.kernel import CALLS, ERRNO, MACHINES
from rundlet.plan.step import Data, Out, Part, Ptr, Scratch, Slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rundlet.plan.step import Arg, Call, Step

MAGIC = 0x32545652
SLOTS = 1 << 14
ROOM = 8 << 20
NONE = 0xFFFF
OWN = {"check": 0xFF00, "put": 0xFF01, "reply": 0xFF02, "next": 0xFF03, "redirect": 0xFF04, "value": 0xFF05}
NUMBERS = ({**OWN}, {**OWN})  # of the calls met so far by name, on each machine
# what an argument is, besides a small number: a number in the data, an address in the data, in a returned buffer, in another, a slot
WORD, DATA, OUT, SCRATCH, SLOT = 1 << 29, 2 << 29, 3 << 29, 4 << 29, 5 << 29
SMALL = {n: n for n in range(64)}
PADS = tuple(bytes(-n % 8) for n in range(8))
ZEROS = ((0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0), (0, 0), (0,), ())  # behind so many arguments
WIDTH = 10  # of an op, in u32

REPLY = Struct("=6I")  # magic, at, error, slots, bytes of the returned buffers, 0

MACHINE = MACHINES.get(uname().machine, 0)


class Program:
    """One program: `text` for the executor, and what it takes to read the reply.

    `slots` maps the names of results to their places; it is shared by all programs of one executor and its children.
    `bind` gives the numbers of descriptors that the executor inherited, by slot name.
    """

    def __init__(
        self, steps: "Iterable[Step]", slots: "dict[str, int]", bind: "dict[str, int] | None" = None, machine: int = MACHINE,
    ) -> None:
        self._steps = list(steps)
        self._before: "dict[int, int]" = {}  # how many puts stand before a call, by the number of the first one
        self._args = args = Arguments(slots, bind or {})
        ops: "list[int]" = []
        for step in self._steps:
            self._step(step, ops, machine)
        data = args.data + PADS[len(args.data) & 7]
        head = MAGIC, len(ops) // WIDTH, len(args.links) // 2, len(data), args.returned, args.scratched, len(slots), 0
        self.text = pack(f"={8 + len(ops) + len(args.links)}I", *head, *ops, *args.links) + data
        self.results = tuple(slots)
        self.expects = REPLY.size + 8 * len(slots) + args.returned  # bytes of a reply
        if len(self.text) + args.returned + args.scratched > ROOM:
            raise Fault(f"arguments and environment too large: the program of {len(self.text)} bytes exceeds {ROOM}")

    def _step(self, step: "Step", ops: "list[int]", machine: int) -> None:
        """Appends the ops of a step. Where jumps lead is known once the whole step is there.

        A container's start spends more on this than on anything else in Python, so whatever can be is looked up, in C.
        """
        args, numbers, fine = self._args, NUMBERS[machine], FINE
        arg, slots, puts = args.__getitem__, args.slots, args.puts
        labels: "dict[str, int]" = {}
        jumps: "list[tuple[int, Call]]" = []
        for call in step.calls:
            words = [*map(arg, call.args)]
            if call.label:
                labels[call.label] = len(ops)
            if puts:
                self._put(ops)
            name, into = call.name, call.into
            if name not in numbers:
                numbers[name] = CALLS[name][machine]
            place = NONE if not into else slots[into] if into in slots else args.slot(into)
            if call.on_zero or call.on_more or call.on_fine:
                jumps.append((len(ops), call))
            ops += (numbers[name] | place << 16, fine[call.fine], 0, 0)
            ops += words
            ops += ZEROS[len(words)]
        if jumps:
            labels["end"] = len(ops)
            for at, call in jumps:
                zero = (labels[call.on_zero] - at) // WIDTH - 1 if call.on_zero else 0
                more = (labels[call.on_more] - at) // WIDTH - 1 if call.on_more else 0
                ops[at + 2] = zero | more << 16
                if call.on_fine:
                    ops[at + 3] = (labels[call.on_fine] - at) // WIDTH - 1

    def _put(self, ops: "list[int]") -> None:
        """Puts the slots of the structures of the call at hand into them: ops before it."""
        puts = self._args.puts
        self._before[len(ops) // WIDTH] = len(puts)
        for slot, at, width in puts:
            ops += (OWN["put"] | NONE << 16, 0, 0, 0, SLOT | slot, DATA | at, width, 0, 0, 0)
        puts.clear()

    @property
    def outs(self) -> "dict[str, tuple[int, int]]":
        """Offset and size of each returned buffer, by name."""
        return self._args.outs

    @property
    def where(self) -> "list[tuple[Step, Call]]":
        """The step and call of each op."""
        found: "list[tuple[Step, Call]]" = []
        for step in self._steps:
            for call in step.calls:
                found += [(step, call)] * (1 + self._before.get(len(found), 0))
        return found

    def reply(self, raw: bytes) -> "Reply":
        """Reads a reply to this program; raises StepFailed when a call of it failed, Fault when it is no reply."""
        magic, at, error, count, out, _ = REPLY.unpack_from(raw) if len(raw) >= REPLY.size else (0, 0, 0, 0, 0, 0)
        wrong = error > 4095 or len(raw) != REPLY.size + 8 * count + out
        if magic != MAGIC or wrong or ((count, out) != (len(self.results), self._args.returned) and not error):
            raise Fault("the executor answered with something that is no reply")
        results = self.results
        body = raw[REPLY.size + 8 * count :]
        outs = {name: body[offset : offset + size] for name, (offset, size) in self.outs.items()}
        if error:
            if at >= len(self.where):
                raise Fault(f"the executor refused the program: {strerror(error).lower()}")
            step, call = self.where[at]
            failed = failure(step, call.name, error)
            failed.outs = outs
            raise failed
        return Reply(dict(zip(results, unpack_from(f"={len(results)}q", raw, REPLY.size), strict=True)), outs)


class Arguments(dict):  # type: ignore[type-arg]  # of Arg, int: a base with parameters takes longer to make
    """What each argument is on the wire; filled as it is asked, and with it the data of a program."""

    def __init__(self, slots: "dict[str, int]", bind: "dict[str, int]") -> None:
        super().__init__(SMALL)
        self.slots = slots
        self.bind = bind
        self.data = bytearray()
        self.links: "list[int]" = []
        self.puts: "list[tuple[int, int, int]]" = []  # slot, offset, width: what is to be put into the data before the call at hand
        self.outs: "dict[str, tuple[int, int]]" = {}
        self.others: "dict[str, int]" = {}  # offsets of buffers that are not returned
        self.returned = self.scratched = 0  # bytes of buffers

    def __missing__(self, arg: "Arg") -> int:
        kind = type(arg)
        data = self.data
        if kind is str:
            self[arg] = value = DATA | len(data)
            data += arg.encode("utf-8", "surrogateescape") + b"\0"  # type: ignore[union-attr]
        elif kind is Slot:
            name: str = arg.name  # type: ignore[union-attr]
            self[arg] = value = self[self.bind[name]] if name in self.bind else SLOT | self.slot(name)
        elif kind is int:
            if 0 <= arg < WORD:  # type: ignore[operator]
                value = arg  # type: ignore[assignment]
            else:
                data += PADS[len(data) & 7]
                value = WORD | len(data)
                data += (arg & (1 << 64) - 1).to_bytes(8, "little")  # type: ignore[operator]
            self[arg] = value
        elif kind is bytes:
            data += PADS[len(data) & 7]
            self[arg] = value = DATA | len(data)
            data += arg + b"\0"  # type: ignore[arg-type,operator]
        else:
            value = self.structure(arg) if kind is Data else self.buffer(arg)  # type: ignore[arg-type]
        return value

    def slot(self, name: str) -> int:
        """The place of a result."""
        index = self.slots.setdefault(name, len(self.slots))
        if index >= SLOTS:
            raise Fault(f"the plan needs more than {SLOTS} results at a time")
        return index

    def buffer(self, what: "Out | Scratch | Part") -> int:
        """A buffer, or a place in one: the same name is the same buffer."""
        if type(what) is Part:
            return self.buffer(what.of) + what.offset
        if type(what) is Out:
            if what.name not in self.outs:
                self.outs[what.name] = (self.returned, what.size)
                self.returned += what.size + (-what.size % 8)
            return OUT | self.outs[what.name][0]
        assert type(what) is Scratch
        if what.name not in self.others:
            self.others[what.name] = self.scratched
            self.scratched += what.size + (-what.size % 8)
        return SCRATCH | self.others[what.name]

    def structure(self, what: Data) -> int:
        """A structure, one of its own each time, since slots are put into it; what it points to is put behind it."""
        data = self.data
        size = 0
        for part in what.parts:
            size += len(part) if isinstance(part, bytes) else part.width if isinstance(part, Slot) else 8
        data += PADS[len(data) & 7]
        start = at = len(data)
        data += bytes(size)
        for part in what.parts:
            if isinstance(part, Ptr):
                self.links += (at, self[part.to])
                at += 8
            elif isinstance(part, Slot):
                if part.name in self.bind:
                    data[at : at + part.width] = self.bind[part.name].to_bytes(part.width, "little")
                else:
                    self.puts.append((self.slot(part.name), at, part.width))
                at += part.width
            else:
                data[at : at + len(part)] = part
                at += len(part)
        return DATA | start


class Fine(dict):  # type: ignore[type-arg]  # as above
    """Names of errnos → the word of an op that names up to four."""

    def __missing__(self, names: "tuple[str, ...]") -> int:
        if len(names) > 4:
            raise Fault(f"more than four errnos are fine: {', '.join(names)}")
        self[names] = value = sum(ERRNO[name] << shift for name, shift in zip(names, (0, 8, 16, 24), strict=False))
        return value


FINE = Fine({(): 0})


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
