"""Symbolic links that are copied instead of mounted: the mount option copy-symlink, for a source that is one."""

from rundlet import kernel as k
from rundlet.plan.mounts.calls import target
from rundlet.plan.step import Call, Scratch, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Mount

LONGEST = 4096


def copy(mount: "Mount", text: str, path: str) -> Step:
    """Makes the link to `text` at `path`. One that is there already must be the same."""
    folder, _, name = path.rpartition("/")
    raw = text.encode("utf-8", "surrogateescape") + b"\0"
    there = Scratch(f"link {path}", LONGEST + 1)
    return Step(
        f"make {mount['destination']} a symbolic link to {text}, as {mount['source']} is",
        *target(folder, True, "there", "folder"),
        Call("symlinkat", raw, Slot("folder"), name, fine=("EEXIST",), on_zero="made", label="there"),
        Call("readlinkat", Slot("folder"), name, there, LONGEST),
        Call("check", there, raw, len(raw), k.ERRNO["EEXIST"]), Call("close", Slot("folder"), label="made"),
        kind="mount", hint=f"{mount['destination']} is there already, and is not the same link",
    )
