"""Messages of D-Bus, as far as who calls others needs them: written by a signature, read by the one that they carry. Pure.

    y 8 bits · n q 16 · i u 32 · x t 64, the second of each without a sign · b True or False · d a double · s text · o path · g signature
    aT a list · (T…) a tuple · {KT} a pair, in an array · v (signature, value)

Source: the D-Bus specification, "Type System", "Marshaling", "Message Protocol", "Server Addresses".
"""

from _struct import error, pack, unpack_from  # type: ignore[attr-defined]  # typeshed knows error in struct alone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CALL, ANSWER, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8  # fields of the header
TYPES = {PATH: "o", INTERFACE: "s", MEMBER: "s", DESTINATION: "s", SIGNATURE: "g"}
NUMBERS = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
ALIGNED = {
    "y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8, "s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8,
}
LARGEST = 1 << 27  # bytes of a message
DEEPEST = 64  # containers within each other


class Message:
    """A message that came: its kind, the fields of its header by number, and its body."""

    def __init__(self, kind: int, fields: "dict[int, Any]", body: "tuple[Any, ...]") -> None:
        self.kind = kind
        self.fields = fields
        self.body = body


def call(serial: int, fields: "dict[int, str]", body: "Sequence[object]") -> bytes:
    """The bytes of a call; what is in the body is said by the field SIGNATURE. Raises struct.error for a number that does not fit."""
    held = bytearray()
    for kind, value in zip(types(fields.get(SIGNATURE, "")), body, strict=True):
        _put(held, kind, value)
    out = bytearray(pack("<4BII", ord("l"), CALL, 0, 1, len(held), serial))
    _put(out, "a(yv)", [(number, (TYPES[number], value)) for number, value in sorted(fields.items())])
    return bytes(out + bytes(-len(out) % 8) + held)


class Inbox:
    """What came from the other side, a message at a time."""

    def __init__(self) -> None:
        self.held = b""

    def add(self, data: bytes) -> None:
        """More of it."""
        self.held += data

    def next(self) -> "Message | None":
        """The next message, or None where it is not all there. Raises ValueError for what is none."""
        if len(self.held) < 16:
            return None
        order = {ord("l"): "<", ord("B"): ">"}.get(self.held[0])
        if order is None or self.held[3] != 1:
            raise ValueError("what came is no message of D-Bus")
        size, _, fields = unpack_from(order + "III", self.held, 4)
        end = 16 + (fields + 7) // 8 * 8
        if end + size > LARGEST:
            raise ValueError("a message is too large")
        if len(self.held) < end + size:
            return None
        raw, self.held = self.held[: end + size], self.held[end + size :]
        try:
            known = dict(Reader(raw[:end], order, 12).value("a(yv)", 0))
            found = {number: value for number, (_, value) in known.items()}
            reader = Reader(raw[end:], order, 0)
            return Message(raw[1], found, tuple(reader.value(kind, 0) for kind in types(found.get(SIGNATURE, ""))))
        except (error, IndexError, KeyError, TypeError, UnicodeDecodeError) as e:
            raise ValueError(f"a message cannot be read: {e}") from None


class Reader:
    """Values out of bytes, from `at` on; what begins there is aligned as by its place in them."""

    def __init__(self, raw: bytes, order: str, at: int) -> None:
        self.raw = raw
        self.order = order
        self.at = at

    def number(self, kind: str) -> "Any":
        """A number of one of the types of NUMBERS."""
        self.at += -self.at % ALIGNED[kind]
        found = unpack_from(self.order + NUMBERS[kind], self.raw, self.at)[0]
        self.at += ALIGNED[kind]
        return bool(found) if kind == "b" else found

    def text(self, size: int) -> str:
        """So many bytes, and a zero behind them."""
        start, self.at = self.at, self.at + size + 1
        if self.at > len(self.raw):
            raise IndexError("it ends too early")
        return self.raw[start : self.at - 1].decode()

    def value(self, kind: str, depth: int) -> "Any":
        """A value of a type."""
        first = kind[0]
        if depth > DEEPEST:
            raise IndexError("it is too deep")
        if first in NUMBERS:
            return self.number(first)
        if first in "so":
            return self.text(self.number("u"))
        if first == "g":
            return self.text(self.number("y"))
        if first == "v":
            [inner] = types(self.value("g", depth))
            return inner, self.value(inner, depth + 1)
        if first == "a":
            size = self.number("u")
            self.at += -self.at % ALIGNED[kind[1]]
            end = self.at + size
            if end > len(self.raw):
                raise IndexError("it ends too early")
            found = []
            while self.at < end:
                found.append(self.value(kind[1:], depth + 1))
            return found
        self.at += -self.at % 8
        return tuple(self.value(inner, depth + 1) for inner in types(kind[1:-1]))


def _put(out: bytearray, kind: str, value: "Any") -> None:
    """Appends a value of a type."""
    first = kind[0]
    out += bytes(-len(out) % ALIGNED[first])
    if first in NUMBERS:
        out += pack("<" + NUMBERS[first], value)
    elif first in "sog":
        raw = value.encode()
        out += (bytes((len(raw),)) if first == "g" else pack("<I", len(raw))) + raw + b"\0"
    elif first == "v":
        _put(out, "g", value[0])
        _put(out, *value)
    elif first == "a":
        at = len(out)
        out += bytes(4)
        out += bytes(-len(out) % ALIGNED[kind[1]])
        start = len(out)
        for one in value:
            _put(out, kind[1:], one)
        out[at : at + 4] = pack("<I", len(out) - start)
    else:
        for inner, one in zip(types(kind[1:-1]), value, strict=True):
            _put(out, inner, one)


def types(signature: str) -> "list[str]":
    """The types in a signature, each a whole one. Raises KeyError and IndexError for what is no signature."""
    found = []
    at = 0
    while at < len(signature):
        end = _end(signature, at)
        found.append(signature[at:end])
        at = end
    return found


def _end(signature: str, at: int) -> int:
    """Where the type that begins at `at` ends."""
    first = signature[at]
    ALIGNED[first]
    if first == "a":
        return _end(signature, at + 1)
    if first in "({":
        at += 1
        while signature[at] not in ")}":
            at = _end(signature, at)
    return at + 1


def place(address: str) -> bytes:
    """Where to connect to: of several addresses the first one that is a socket of this machine. Raises ValueError where none is."""
    for one in address.split(";"):
        transport, _, rest = one.partition(":")
        words = dict(word.partition("=")[::2] for word in rest.split(","))
        if transport == "unix" and "path" in words:
            return _plain(words["path"])
        if transport == "unix" and "abstract" in words:
            return b"\0" + _plain(words["abstract"])
    raise ValueError(f"not the address of a socket: {address}")


def _plain(text: str) -> bytes:
    first, *rest = text.split("%")
    return first.encode("utf-8", "surrogateescape") + b"".join(
        bytes.fromhex(part[:2]) + part[2:].encode("utf-8", "surrogateescape") for part in rest
    )
