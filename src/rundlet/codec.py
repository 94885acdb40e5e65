"""What stands in for the module `encodings` at the start of a command: UTF-8, and nothing else until it is asked for.

CPython imports `encodings` before the first line of a program, for one codec: with all its aliases, and the module `codecs` with its
classes, that is a sixth of bare Python's start. `python -m rundlet.install` copies this file into a home of the command's own (home.py),
where the interpreter finds it instead. It says where the interpreter's real home is, so that every later import goes there, and becomes the
real `encodings` as soon as more than UTF-8 is wanted of it.

What is asked of a codec: Python/codecs.c and Modules/_io/textio.c of CPython, and the documentation of codecs.CodecInfo.
"""

import sys
from _codecs import register, utf_8_decode, utf_8_encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

PLAIN: "dict[str, object]" = {}  # the attributes of sys that tell of the home, as they are without this one: written by install
REAL = ""  # the folder of the real package
vars(sys).update(PLAIN)
__path__ = [REAL]
__file__ = REAL + "/__init__.py"


class Encoder:
    """As codecs.IncrementalEncoder."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors

    def encode(self, text: str, final: bool = False) -> bytes:
        """UTF-8 keeps nothing between two calls."""
        return utf_8_encode(text, self.errors)[0]

    def reset(self) -> None:
        """Nothing is kept."""

    def getstate(self) -> int:
        """Nothing is kept."""
        return 0

    def setstate(self, state: int) -> None:
        """Nothing is kept."""


class Decoder:
    """As codecs.BufferedIncrementalDecoder."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors
        self.kept = b""

    def decode(self, data: bytes, final: bool = False) -> str:
        """Keeps the beginning of a character whose end has not come yet."""
        data = self.kept + data
        text, used = utf_8_decode(data, self.errors, final)
        self.kept = data[used:]
        return text

    def reset(self) -> None:
        """Forgets what is kept."""
        self.kept = b""

    def getstate(self) -> "tuple[bytes, int]":
        """What is kept, and 0."""
        return self.kept, 0

    def setstate(self, state: "tuple[bytes, int]") -> None:
        """Back to what getstate() gave."""
        self.kept = state[0]


def decode(data: bytes, errors: str = "strict") -> "tuple[str, int]":
    """All of it: what ends within a character is an error."""
    return utf_8_decode(data, errors, True)


def reader(stream: "Any", errors: str = "strict") -> "Any":
    """Makes the real codec's StreamReader."""
    from encodings.utf_8 import StreamReader

    return StreamReader(stream, errors)


def writer(stream: "Any", errors: str = "strict") -> "Any":
    """Makes the real codec's StreamWriter."""
    from encodings.utf_8 import StreamWriter

    return StreamWriter(stream, errors)


class Info(tuple):  # type: ignore[type-arg]  # nothing generic is wanted here
    """As codecs.CodecInfo."""

    _is_text_encoding = True
    name = "utf-8"
    encode = utf_8_encode
    decode = staticmethod(decode)
    incrementalencoder = Encoder
    incrementaldecoder = Decoder
    streamreader = staticmethod(reader)
    streamwriter = staticmethod(writer)


UTF_8 = Info((utf_8_encode, decode, reader, writer))


def search(name: str) -> "Any":
    """The codec of that name, which the interpreter has in lower case; None where there is none."""
    return UTF_8 if name == "utf-8" or name == "utf_8" else whole().search_function(name)


def whole() -> "ModuleType":
    """This module, made into the real one."""
    module = sys.modules[__name__]
    if vars(module).pop("__getattr__", None):
        assert module.__spec__
        module.__spec__.submodule_search_locations = [REAL]  # a package, as the real one is
        module.__package__ = __name__
        with sys.modules["io"].open_code(__file__) as file:
            exec(compile(file.read(), __file__, "exec"), vars(module))  # noqa: S102  # as importlib does
    return module


def __getattr__(name: str) -> object:
    if name[:2] == "__":
        raise AttributeError(f"module 'encodings' has no attribute '{name}'")
    return getattr(whole(), name)


register(search)
