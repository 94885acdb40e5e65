"""One limit as it is written: a text for a file of a cgroup."""

from rundlet.plan.value import Value


class Write(Value):
    """`text` for `file` of the controller's cgroup; `what` it is, in words.

    Errnos in `fine` do not fail it; `otherwise` is written instead where the kernel has no such file.
    """

    __slots__ = ("controller", "file", "text", "what", "fine", "otherwise")

    def __init__(
        self, controller: str, file: str, text: str, what: str, fine: "tuple[str, ...]" = (), otherwise: "Write | None" = None
    ) -> None:
        self.controller = controller
        self.file = file
        self.text = text
        self.what = what
        self.fine = fine
        self.otherwise = otherwise
