"""Filesystems that are told more than fsconfig(2) takes: a value of at most 255 bytes. mount(2) takes a page of all of them together.

It wants a path, and gets ".": the place, opened inside the root as every other, is the working directory meanwhile.
"""

from rundlet.errors import BadSpec
from rundlet.plan.mounts.calls import AT, CLOSE_AT, attributes, find, is_root, target
from rundlet.plan.step import Call, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.mounts.options import Options
    from rundlet.spec.types import Mount

# an attribute of mount_setattr(2) as mount(2) knows it
FLAGS = {0x1: 0x1, 0x2: 0x2, 0x4: 0x4, 0x8: 0x8, 0x10: 0x400, 0x20: 1 << 24, 0x80: 0x800, 0x200000: 0x100}
SUPERBLOCK = {"sync": 0x10, "dirsync": 0x80, "mand": 0x40, "lazytime": 1 << 25}
PAGE = 4095


def step(what: str, mount: "Mount", options: "Options", data: "tuple[tuple[str, str | None], ...]", path: str) -> Step:
    """Mounts a new filesystem. Raises BadSpec where even this is too much."""
    bits = options.set | options.deep_set
    flags = sum(flag for bit, flag in FLAGS.items() if bits & bit) | sum(SUPERBLOCK.get(name, 0) for name, value in data if value is None)
    text = ",".join(name if value is None else f"{name}={value}" for name, value in data if value is not None or name not in SUPERBLOCK)
    if len(text.encode()) > PAGE or is_root(path):
        raise BadSpec(f"the mount {mount['destination']}", f"its options are too long: {len(text)} bytes")
    calls = [
        *target(path, True), Call("fchdir", AT, label="there"), CLOSE_AT,
        Call("mount", mount["source"] or str(mount["type"]), ".", str(mount["type"]), flags, text), Call("chdir", "/"),
    ]
    if options.propagation:
        calls += [find("root", path), attributes("at", 0, 0, options.propagation, options.deep), CLOSE_AT]
    return Step(what, *calls, kind="mount")
