"""Values in GVariant's text format ("GVariant Text Format" of GLib).

    Text("[('/dev/null', 'rw')]").whole() == ("a(ss)", [("/dev/null", "rw")])

Maybe types, dictionaries and variants are not among them: no property of a unit has these. A number that says nothing of its type is an
int32, or a double.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Variant: TypeAlias = tuple[str, object]

INTEGERS = {
    "byte": ("y", 0, 255), "int16": ("n", -(1 << 15), (1 << 15) - 1), "uint16": ("q", 0, (1 << 16) - 1),
    "int32": ("i", -(1 << 31), (1 << 31) - 1), "uint32": ("u", 0, (1 << 32) - 1),
    "int64": ("x", -(1 << 63), (1 << 63) - 1), "uint64": ("t", 0, (1 << 64) - 1),
}
RANGES = {signature: (least, most) for signature, least, most in INTEGERS.values()}
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Text:
    """A text being read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> "Variant":
        """(signature, value) of the text, all of it. Raises ValueError."""
        try:
            found = self._value("")
        except IndexError:
            raise ValueError("it ends too early") from None
        except OverflowError:
            raise ValueError("no such character") from None
        except RecursionError:
            raise ValueError("too many brackets") from None
        self._skip()
        if self.at != len(self.text):
            raise ValueError(f"nothing may follow at {self.at + 1}")
        return found

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\n":
            self.at += 1

    def _next(self) -> str:
        """The next character that is no space."""
        self._skip()
        return self.text[self.at]

    def _word(self) -> str:
        """Up to what cannot be in a word."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in " \t\n,])":
            self.at += 1
        return self.text[start : self.at]

    def _value(self, wanted: str) -> "Variant":
        """One value; `wanted` is its signature where that is known."""
        first = self._next()
        if first == "@":
            signature, _, rest = self.text[self.at + 1 :].partition(" ")
            self.at = len(self.text) - len(rest)
            return self._value(signature)
        if first in "'\"":
            found: "Variant" = wanted if wanted in ("o", "g") else "s", self._string(first)
        elif first == "[":
            found = self._array(wanted)
        elif first == "(":
            found = self._tuple(wanted)
        else:
            found = self._plain(wanted)
        if wanted and found[0] != wanted:
            raise ValueError(f"of type {found[0]}, not {wanted}")
        return found

    def _plain(self, wanted: str) -> "Variant":
        word = self._word()
        if word in ("true", "false"):
            return "b", word == "true"
        if word in ("objectpath", "signature", "boolean", "double", "string") or word in INTEGERS:
            known = {"objectpath": "o", "signature": "g", "boolean": "b", "double": "d", "string": "s"}
            self._next()
            return self._value(known.get(word) or INTEGERS[word][0])
        digits = word.lstrip("+-")
        if not digits[:1].isalnum() or not word.isascii() or "_" in word:
            raise ValueError(f'"{word}" is no value')
        if wanted in RANGES or (not wanted and not set(".eE") & set(digits)) or digits[:2].lower() == "0x":
            # a leading 0 is octal, as in C
            number = _integer(word, 8 if digits[:1] == "0" and digits.isdigit() else 0)
            signature = wanted or "i"
            least, most = RANGES.get(signature, (0, -1))
            if not least <= number <= most:
                raise ValueError("out of range")
            return signature, number
        try:
            return "d", float(word)
        except ValueError:
            raise ValueError(f'"{word}" is no value') from None

    def _string(self, quote: str) -> str:
        out = ""
        self.at += 1
        while (c := self.text[self.at]) != quote:
            self.at += 1
            if c == "\\":
                c = self.text[self.at]
                self.at += 1
                if c in "uU":
                    length = 4 if c == "u" else 8
                    c = chr(int(self.text[self.at : self.at + length], 16))
                    self.at += length
                else:
                    c = ESCAPES.get(c, c)
            out += c
        self.at += 1
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in out):
            raise ValueError("NUL, or half a surrogate pair, in a string")
        return out

    def _array(self, wanted: str) -> "Variant":
        self.at += 1
        element, items = wanted[1:], []
        while self._next() != "]":
            signature, value = self._value(element)
            element = signature
            items.append(value)
            if self._next() == ",":
                self.at += 1
            elif self._next() != "]":
                raise ValueError(f"no comma at {self.at + 1}")
        self.at += 1
        if not element:
            raise ValueError("an empty array needs a type, such as @as []")
        return f"a{element}", bytes(items) if element == "y" else items  # type: ignore[arg-type]  # of bytes alone

    def _tuple(self, wanted: str) -> "Variant":
        self.at += 1
        signatures, items = "", []
        left = _types(wanted[1:-1])
        while self._next() != ")":
            signature, value = self._value(left.pop(0) if left else "")
            signatures += signature
            items.append(value)
            if self._next() == ",":
                self.at += 1
            elif self._next() != ")":
                raise ValueError(f"no comma at {self.at + 1}")
        self.at += 1
        return f"({signatures})", tuple(items)


def _integer(word: str, base: int) -> int:
    try:
        return int(word, base)
    except ValueError:
        raise ValueError(f'"{word}" is no whole number') from None


def _types(signature: str) -> "list[str]":
    """The complete types that a signature consists of."""
    out, start, depth = [], 0, 0
    for at, c in enumerate(signature):
        depth += (c == "(") - (c == ")")
        if not depth and c != "a":
            out.append(signature[start : at + 1])
            start = at + 1
    return out
