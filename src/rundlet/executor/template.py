"""A program as the executor reads it, and its reply: what is left of executor/program.py once steps are packed.

A template is a program without its late texts (plan/step.py): they come last in its data, so that nothing else depends on how long they
are. Those who have a template need neither the steps nor what packs them; it is made of plain values, for marshal.
"""

from _struct import Struct, pack, pack_into, unpack_from

from rundlet.errors import Fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from rundlet.executor.program import Program

    # how many ops · their words and those of the links · place of a word, number of the late text it points to … · data · names of the late
    # texts · bytes of the buffers returned · of the others · names of the slots · returned buffers: name → (offset, size)
    Template: TypeAlias = tuple[
        int, bytes, tuple[tuple[int, int], ...], bytes, tuple[str, ...], int, int, tuple[str, ...], dict[str, tuple[int, int]],
    ]
    Values: TypeAlias = Mapping[str, str | tuple[str, ...]]

MAGIC = 0x32545652
SLOTS = 1 << 14
ROOM = 8 << 20
DATA = 2 << 29  # of an argument: an address in the data
PADS = tuple(bytes(-n % 8) for n in range(8))
REPLY = Struct("=6I")  # magic, at, error, slots, bytes of the returned buffers, 0


class Reply:
    """What came back: the slots' values by name, and the returned buffers. From inside a container these are untrusted."""

    __slots__ = ("slots", "outs")

    def __init__(self, slots: "dict[str, int]", outs: "dict[str, bytes]") -> None:
        self.slots = slots
        self.outs = outs


def fill(template: "Template", values: "Values") -> bytes:
    """The program with its late texts, by their names: a text, or several of which there is a list of pointers that ends with a null.

    Raises Fault for one that is too large.
    """
    ops, fixed, places, data, names, returned, scratched, results, _ = template
    words = bytearray(fixed)
    if names:
        data = bytearray(data)  # type: ignore[assignment]  # it is appended to
        found = []
        for name in names:
            value = values[name]
            if type(value) is tuple:
                data += PADS[len(data) & 7]
                at = len(data)
                data += bytes(8 * len(value) + 8)
                for n, text in enumerate(value):
                    words += pack("=2I", at + 8 * n, DATA | len(data))
                    data += text.encode("utf-8", "surrogateescape") + b"\0"
            else:
                at = len(data)
                data += value.encode("utf-8", "surrogateescape") + b"\0"  # type: ignore[union-attr]
            found.append(DATA | at)
        for place, number in places:
            pack_into("=I", words, 4 * place, found[number])
    data += PADS[len(data) & 7]
    program = pack("=8I", MAGIC, ops, (len(words) - 40 * ops) // 8, len(data), returned, scratched, len(results), 0) + words + data
    if len(program) + returned + scratched > ROOM:
        raise Fault(f"arguments and environment too large: the program of {len(program)} bytes exceeds {ROOM}")
    return program


def expects(template: "Template") -> int:
    """How many bytes its reply has."""
    return REPLY.size + 8 * len(template[7]) + template[5]


def read(template: "Template", raw: bytes) -> "tuple[int, int, Reply]":
    """Where a program failed and the errno, or (-1, 0), and what came back. Raises Fault when it is no reply to it."""
    _, _, _, _, _, returned, _, results, places = template
    magic, at, error, count, out, _ = REPLY.unpack_from(raw) if len(raw) >= REPLY.size else (0, 0, 0, 0, 0, 0)
    wrong = error > 4095 or len(raw) != REPLY.size + 8 * count + out
    if magic != MAGIC or wrong or ((count, out) != (len(results), returned) and not error):
        raise Fault("the executor answered with something that is no reply")
    body = raw[REPLY.size + 8 * count :]
    outs = {name: body[offset : offset + size] for name, (offset, size) in places.items()}
    if error:
        return at, error, Reply({}, outs)
    return -1, 0, Reply(dict(zip(results, unpack_from(f"={len(results)}q", raw, REPLY.size), strict=True)), outs)


class Packed:
    """A program of a template, for those who have no steps: as executor/program.py's, but for whoever wants to know which step failed."""

    def __init__(self, template: "Template", values: "Values", whole: "Callable[[], Program]") -> None:
        self.template = template
        self.text = fill(template, values)
        self.expects = expects(template)
        self.whole = whole  # makes the program of its steps, which know

    def reply(self, raw: bytes) -> Reply:
        """As Program.reply()."""
        _, error, reply = read(self.template, raw)
        return self.whole().reply(raw) if error else reply
