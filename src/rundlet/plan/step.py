"""The words a plan is written in: values, printable and comparable, that say which system calls will be made.

    Step("mount proc on /proc", Call(…), Call(…))     one line of the plan, carried out or failed as one
    Call("openat2", Slot("root"), "proc", …, into="at", fine=("ENOENT",), on_fine="end")

An argument is a number, a text (a pointer to its NUL-terminated bytes), bytes (a pointer to them), a Slot (the result of an
earlier call), a Data (a pointer to a structure), an Out (a pointer to a zeroed buffer that the call fills and the reply
carries back) or a Scratch (the same, not carried back). Nothing here does anything: executor/program.py turns steps into bytes,
explain prints them.
"""

from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias


class Slot(tuple[str, int]):
    """The result of an earlier call of the same executor, by name; `width` bytes when it stands inside a Data.

    A Value in all but its base: plans hold hundreds, and as a tuple they are looked up without a word of Python.
    """

    __slots__ = ()

    def __new__(cls, name: str, width: int = 4) -> "Slot":
        return tuple.__new__(cls, (name, width))

    @property
    def name(self) -> str:
        """As given."""
        return self[0]

    @property
    def width(self) -> int:
        """As given."""
        return self[1]

    def __repr__(self) -> str:
        return f"Slot{tuple(self)!r}"


class Out(Value):
    """A zeroed buffer of `size` bytes that a call fills; the same name is the same buffer; the reply returns it."""

    __slots__ = ("name", "size")

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size


class Scratch(Value):
    """A zeroed buffer of `size` bytes like an Out, for later calls of the same program only: the reply leaves it out."""

    __slots__ = ("name", "size")

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size


class Part(Value):
    """The place `offset` bytes into a buffer."""

    __slots__ = ("of", "offset")

    def __init__(self, of: "Out | Scratch", offset: int) -> None:
        self.of = of
        self.offset = offset


class Ptr(Value):
    """Inside a Data: the address, eight bytes, of another text, bytes, Data or Out."""

    __slots__ = ("to",)

    def __init__(self, to: "Target") -> None:
        self.to = to


class Data(Value):
    """A structure in memory: its parts one behind the other, the caller minding the padding."""

    __slots__ = ("parts",)

    def __init__(self, *parts: "bytes | Ptr | Slot") -> None:
        self.parts = parts


class Late(str):
    """A text that is one container's alone, by the `name` of what it is: plans that differ in nothing else are packed to one template.

    A text in all but its hash: so whoever keeps texts by their value does not take it for another that reads the same.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: str, text: str) -> "Late":
        late = str.__new__(cls, text)
        late.name = name
        return late

    def __hash__(self) -> int:
        return hash((Late, self.name))


class Texts(Data):
    """Pointers to texts and a null behind them, as execve(2) takes them: late, as a Late is."""

    __slots__ = ("name", "texts")

    def __init__(self, name: str, texts: "tuple[str, ...]") -> None:
        super().__init__(*[Ptr(text) for text in texts], bytes(8))
        self.name = name
        self.texts = texts


class Call(Value):
    """One system call, or one of the executor's own words:

    check(a, b, size, errno)   fails with `errno` unless `size` bytes at a and b are the same
    value(x)                   its result is x: a slot looked at again
    reply()                    answers now and goes on;   next()  goes on to the next program without an answer
    redirect(fd)               reads programs from, and answers on, another descriptor from now on

    `into` names the slot that keeps the result. `fine` are the names of errnos that do not fail the step. After the call the
    program goes on with the next one, or at the label given for a result of zero, above zero, or a fine errno; a label is the
    `label` of a later call of the same step, or "end", behind its last.
    """

    __slots__ = ("name", "args", "into", "fine", "on_zero", "on_more", "on_fine", "label")

    def __init__(
        self, name: str, *args: "Arg", into: str = "", fine: "tuple[str, ...]" = (),
        on_zero: str = "", on_more: str = "", on_fine: str = "", label: str = "",
    ) -> None:
        self.name = name
        self.args = args
        self.into = into
        self.fine = fine
        self.on_zero = on_zero
        self.on_more = on_more
        self.on_fine = on_fine
        self.label = label


class Step(Value):
    """One line of the plan: `what` it does, in words, and the calls that do it; `kind` groups steps for checks and explain.

    `hint` is the user's next step should this one fail; it is shown after the kernel's word.
    """

    __slots__ = ("what", "calls", "kind", "hint")

    def __init__(self, what: str, *calls: Call, kind: str = "", hint: str = "") -> None:
        self.what = what
        self.calls = calls
        self.kind = kind
        self.hint = hint


if TYPE_CHECKING:
    Target: TypeAlias = str | bytes | Data | Out | Scratch | Part
    Arg: TypeAlias = int | str | bytes | Slot | Data | Out | Scratch | Part
