"""JSON text to values and back, on the C scanner and encoder that `json` itself uses, without the 7 ms of importing `json`."""

import _json

from rundlet.errors import BadSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

BLANKS = " \t\n\r"


def loads(text: bytes, name: str) -> object:
    """The value of a JSON text (RFC 8259, UTF-8). Of duplicate keys the last one wins, as in Go's decoder.

    Raises BadSpec(name, why) for whatever is not JSON, NaN, Infinity and numbers beyond a double included, and for nesting
    or integers beyond what Python reads.
    """
    try:
        string = text.decode()
    except UnicodeDecodeError as fault:
        raise BadSpec(name, f"byte {fault.start}: not UTF-8 ({fault.reason})") from None
    start = len(string) - len(string.lstrip(BLANKS))
    try:
        value, end = scan(string, start)
    except StopIteration as stop:
        at = stop.value if isinstance(stop.value, int) else start
        raise BadSpec(name, place(string, at, "expected a value" if at < len(string) else "unexpected end")) from None
    except RecursionError:
        raise BadSpec(name, "nested too deeply") from None
    except SystemError:
        # the scanner wants to raise the JSONDecodeError of a module that nobody has imported: CPython 3.11, Modules/_json.c
        import json.decoder  # noqa: F401

        return loads(text, name)
    except ValueError as fault:  # a JSONDecodeError, or ours, or that of int()
        position: int | None = getattr(fault, "pos", None)
        why = str(getattr(fault, "msg", fault)).lower().removesuffix(" at")  # "Invalid control character at"
        raise BadSpec(name, why if position is None else place(string, position, why)) from None
    end = len(string) - len(string[end:].lstrip(BLANKS))
    if end != len(string):
        raise BadSpec(name, place(string, end, "extra data after the value"))
    return value


def is_odd(text: bytes) -> bool:
    """Whether a JSON text may hold a NUL or half a surrogate pair: they need an escape, since JSON bars the one raw, UTF-8 the other."""
    if b"\\u" not in text:
        return False
    lower = text.lower()
    return b"\\u0000" in lower or b"\\ud" in lower


def dumps(value: object, indent: int = 0) -> str:
    """The JSON text of a value of dicts with string keys, lists, tuples, strings, numbers, booleans and None.

    indent 0 is compact, without blanks; else it is laid out as `json.dumps(value, indent=indent, ensure_ascii=False)` does. Half a
    surrogate pair, as names that are not UTF-8 have it, is escaped: the text is UTF-8, and loads() reads it back.
    Raises TypeError for other values, ValueError for NaN, Infinity and a value that contains itself.
    """
    try:
        text = "".join(lines(value, " " * indent, "\n") if indent else encode(value, 0))
    except RecursionError:
        raise ValueError("nested too deeply for json, or a value that contains itself") from None
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def show(value: object) -> str:
    """A short JSON form of a value for a message: one line, ASCII."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _json.encode_basestring_ascii(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, (int, float)):
        return str(value)[:60]
    return "a list" if isinstance(value, list) else "an object"


def escape(name: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901); what is not printable is written as JSON writes it, to stay on one line."""
    name = name.replace("~", "~0").replace("/", "~1")
    return name if name.isprintable() else _json.encode_basestring_ascii(name)[1:-1]


def place(string: str, at: int, why: str) -> str:
    """Says where in the text: both count from 1, columns in characters."""
    before = string[:at]
    return f"line {before.count(chr(10)) + 1} column {at - before.rfind(chr(10))}: {why}"


def number(digits: str) -> int:
    """An integer. Python refuses more than 4,300 digits with a page of advice; no field here holds more than 20."""
    if len(digits) > 400:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def fraction(digits: str) -> float:
    """A number with a point or exponent."""
    value = float(digits)
    if value in (INFINITY, -INFINITY):
        raise ValueError(f"number {digits[:40]} is out of range")
    return value


def refuse_constant(word: str) -> "NoReturn":
    """NaN, Infinity and -Infinity, which the scanner knows but JSON does not."""
    raise ValueError(f"{word} is not json")


def refuse_value(value: object) -> "NoReturn":
    """A value that has no JSON form."""
    raise TypeError(f"{type(value).__name__} has no json form")


def lines(value: object, step: str, newline: str) -> "Iterator[str]":
    """The pieces of an indented text: the C encoder of Python 3.11 to 3.14 does not indent."""
    if isinstance(value, dict) and value:
        inner = newline + step
        lead = "{" + inner
        for key, item in value.items():
            if not isinstance(key, str):
                refuse_value(key)
            yield lead + _json.encode_basestring(key) + ": "
            yield from lines(item, step, inner)
            lead = "," + inner
        yield newline + "}"
    elif isinstance(value, (list, tuple)) and value:
        inner = newline + step
        lead = "[" + inner
        for item in value:
            yield lead
            yield from lines(item, step, inner)
            lead = "," + inner
        yield newline + "]"
    else:
        yield from encode(value, 0)


class Rules:
    """What the scanner asks of its maker: how each kind of value is read."""

    strict = True  # raw control characters in strings are refused
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(fraction)
    parse_int = staticmethod(number)
    parse_constant = staticmethod(refuse_constant)
    memo: "dict[str, str]" = {}


INFINITY = 1e999
scan: "Any" = _json.make_scanner(Rules)  # type: ignore[arg-type]  # typeshed asks for a scanner where the source asks for attributes
# In order: no markers (they notice a value that contains itself, but keep a value that was refused marked for ever), default,
# encoder of strings, indent, separators of key and item, sort_keys, skipkeys, allow_nan.
encode: "Any" = _json.make_encoder(None, refuse_value, _json.encode_basestring, None, ":", ",", False, False, False)
