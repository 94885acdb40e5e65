"""Steps become the bytes that the executor reads; its reply becomes results and faults. The layout is that of executor.c.

    head     magic, ops, links, data size, size of the returned buffers, of the others, slots to return, 0         eight u32
    op       nr u16 · into u16 · fine u8×4 · on_zero u16 · on_more u16 · on_fine u16 · 0 u16 · arg u32×6           ten u32
    link     at u32 · arg u32        the eight bytes at data[at] become what the argument is
    data     texts, structures and large numbers as they are first met
    arg      what it is in the upper three bits, in the others a small number itself, an offset, or a slot
"""

from _struct import pack
from posix import strerror, uname

from rundlet.errors import Fault, StepFailed
from rundlet.executor.template import DATA, PADS, SLOTS, Reply, expects, fill, read
from rundlet.kernel import CALLS, ERRNO, MACHINES
from rundlet.plan.step import Call, Data, Late, Out, Part, Ptr, Scratch, Slot, Step, Texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rundlet.executor.template import Template
    from rundlet.plan.step import Arg

NONE = 0xFFFF
OWN = {"check": 0xFF00, "put": 0xFF01, "reply": 0xFF02, "next": 0xFF03, "redirect": 0xFF04, "value": 0xFF05}
NUMBERS = ({**OWN}, {**OWN})  # of the calls met so far by name, on each machine
# what an argument is, besides a small number: a number in the data, an address in the data (DATA), in a returned buffer, in another,
# a slot; and what the executor does not know: a late text, until it has its place
WORD, OUT, SCRATCH, SLOT, LATE = 1 << 29, 3 << 29, 4 << 29, 5 << 29, 6 << 29
SMALL = {n: n for n in range(64)}
ZEROS = ((0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0), (0, 0), (0,), ())  # behind so many arguments
WIDTH = 10  # of an op, in u32

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
        words = ops + args.links
        late = [i for i, word in enumerate(words) if word >> 29 == 6 and (i >= len(ops) or i % WIDTH > 3)] if args.lates else ()
        self.template: "Template" = (
            len(ops) // WIDTH, pack(f"={len(words)}I", *words), tuple((i, words[i] - LATE) for i in late), bytes(args.data),
            tuple(args.lates), args.returned, args.scratched, tuple(slots), args.outs,
        )
        self.text = fill(self.template, args.lates)
        self.expects = expects(self.template)  # bytes of a reply

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

    def whole(self) -> "Program":
        """Itself: as Packed's."""
        return self

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
        """What came back; raises StepFailed when a call of the program failed, Fault when it is no reply to it."""
        at, error, reply = read(self.template, raw)
        if error:
            if at >= len(self.where):
                raise Fault(f"the executor refused the program: {strerror(error).lower()}")
            step, call = self.where[at]
            failed = failure(step, call.name, error)
            failed.outs = reply.outs
            raise failed
        return reply


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
        self.lates: "dict[str, str | tuple[str, ...]]" = {}  # late texts by name
        self.others: "dict[str, int]" = {}  # offsets of buffers that are not returned
        self.returned = self.scratched = 0  # bytes of buffers

    def __missing__(self, arg: "Arg") -> int:
        kind = type(arg)
        data = self.data
        if kind is str:
            self[arg] = value = DATA | len(data)
            data += arg.encode("utf-8", "surrogateescape") + b"\0"  # type: ignore[union-attr]
        elif kind is Late or kind is Texts:
            value = LATE | self.late(arg)  # type: ignore[arg-type]
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

    def late(self, arg: "Late | Texts") -> int:
        """The number of a late text: by its name, which is that of one text only."""
        value = arg.texts if isinstance(arg, Texts) else str(arg)
        if self.lates.setdefault(arg.name, value) != value:
            raise Fault(f"internal error: the plan has two texts of the name {arg.name}")
        return [*self.lates].index(arg.name)

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


def failure(step: "Step", call: str, error: int) -> StepFailed:
    """The fault of a failed step: what was being done, on which call, and the kernel's word in lower case.

    A check that fails has no errno to speak of: there the step's hint says it all.
    """
    what = "error running " + step.what[4:] if step.kind == "hook" else step.what
    why = strerror(error)
    text = f"{what}: {call}: {why[:1].lower()}{why[1:]}"
    if call == "check" and step.hint:
        return StepFailed(what, call, error, f"{what}: {step.hint}")
    hints = (step.hint,) if step.hint else ()
    if call == "move_mount" and error == ERRNO["EINVAL"]:
        # mount(2) says ENOTDIR, and Docker has advice of its own for those words
        hints = (*hints, "source and destination are both directories or both not: is one of them not a directory?")
    return StepFailed(what, call, error, text, hints)


def prepare(lowest: int, end: int) -> "tuple[Step, ...]":
    """What an executor does first of all: it closes what the caller left open, but what it is to pass on (below `lowest`), and its own
    descriptors (below `end`), which close on exec; and takes up two signals.

    posix_spawn refuses to reset glibc's own, and even leaves them ignored (sysdeps/unix/sysv/linux/spawni.c).
    """
    return (
        Step(
            "close what the caller left open", Call("close_range", end, 0xFFFFFFFF, 0),
            *[Call("fcntl", fd, 2, 1) for fd in range(lowest, end)],  # F_SETFD, FD_CLOEXEC
        ),
        Step(
            "take up the signals that glibc ignores",
            *[Call("rt_sigaction", n, Data(bytes(32)), 0, 8) for n in (32, 33)],  # SIG_DFL, no flags, nothing blocked
        ),
    )
