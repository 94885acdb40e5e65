"""Has a tmpfs filled with what the image has where it will be mounted: plan/mounts/copyup.py says how and why like this.

What comes back is of the image, so it is read as what it is: names and numbers, never more of them than fit.
"""

from _struct import Struct

from rundlet.errors import Fault, StepFailed
from rundlet.kernel import S_IFREG, device
from rundlet.plan.mounts import copyup
from rundlet.plan.mounts.mounting import Fill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rundlet.executor.client import Executor
    from rundlet.plan.mounts.copyup import Entry
    from rundlet.plan.mounts.mounting import Turn
    from rundlet.plan.step import Step

# struct statx: mask; uid, gid, mode; size; the device's numbers. linux/stat.h
DIRECTORY = 4  # DT_DIR
_mask = Struct("=I").unpack_from
_owner = Struct("=IIH").unpack_from
_size = Struct("=Q").unpack_from
_device = Struct("=II").unpack_from
_time = Struct("=qI4x").unpack_from
_timespec = Struct("=qq").pack
_entry = Struct("=QqHB").unpack_from  # struct linux_dirent64: getdents64(2)


def fill(executor: "Executor", asked: Fill) -> None:
    """Copies all there is below the slot "at" to below the slot "tree". Raises StepFailed naming what could not be."""
    try:
        root = _look(executor, b"", [(b"", True)])[0]
        folders = [(b"", root)]
        for folder, _ in folders:  # grows meanwhile
            names = _list(executor, folder)
            for at in range(0, len(names), copyup.AT_ONCE):
                entries = _look(executor, folder, names[at : at + copyup.AT_ONCE])
                _copy(executor, folder, entries)
                folders += [(copyup.below(folder, e.name), e) for e in entries if _is_folder(e) and not e.mounted]
        # from the innermost: nothing is put into a folder after it has got its times
        for path, entry in reversed(folders):
            executor.run([copyup.stamp(path, entry, asked.owner and not path)])
    except StepFailed as failed:
        failed.message = f"tmpcopyup of {asked.destination}: {failed.message}"
        failed.args = (failed.message,)
        raise


def _is_folder(entry: "Entry") -> bool:
    return entry.mode & 0o170000 == copyup.FOLDER


def _list(executor: "Executor", folder: bytes) -> "list[tuple[bytes, bool]]":
    """The names in a folder, and whether each is that of a folder."""
    names: "list[tuple[bytes, bool]]" = []
    reply = executor.run([copyup.first(folder)])
    while reply.slots["got"] > 0:
        raw, at = reply.outs["entries"], 0
        while at + 19 <= min(reply.slots["got"], len(raw)):
            length, kind = _entry(raw, at)[2:]
            if length < 20:
                raise Fault(f"the list of /{folder.decode('utf-8', 'replace')} is malformed")
            name = raw[at + 19 : at + length].split(b"\0", 1)[0]
            if name not in (b".", b".."):
                names.append((name, kind == DIRECTORY))
            at += length
        reply = executor.run([copyup.further(folder)])
    executor.run([copyup.done()])
    return sorted(names)


def _look(executor: "Executor", folder: bytes, names: "list[tuple[bytes, bool]]") -> "list[Entry]":
    outs = executor.run([copyup.look(folder, [name for name, _ in names])]).outs
    found = []
    for n, (name, is_folder) in enumerate(names):
        raw = outs[f"about {n}"]
        if not _mask(raw)[0]:
            found.append(copyup.Entry(name, copyup.FOLDER if is_folder else S_IFREG, True))
            continue
        uid, gid, mode = _owner(raw, 20)
        major, minor = _device(raw, 128)
        times = _timespec(*_time(raw, 64)) + _timespec(*_time(raw, 112))
        link = outs[f"link {n}"].split(b"\0", 1)[0]
        found.append(copyup.Entry(name, mode, False, uid, gid, _size(raw, 40)[0], device(major, minor), times, link))
    return found


def _copy(executor: "Executor", folder: bytes, entries: "list[Entry]") -> None:
    outs = executor.run(copyup.copy(folder, entries)).outs
    steps = []
    for n, entry in enumerate(entries):
        for name in outs.get(f"names {n}", b"").split(b"\0"):
            if name:
                steps.append(copyup.attribute(copyup.below(folder, entry.name), _is_folder(entry), name))
    for one in steps:
        executor.run([one])


def run(executor: "Executor", steps: "Sequence[Step]", fills: "Iterator[Fill | Turn]", users: "dict[str, int]") -> None:
    """Carries out steps, and behind each of kind "fill" or "turn" what is to be done then; `users` are idmounts.hold()'s."""
    for part in copyup.parts(steps):
        reply = executor.run(part)
        if part[-1].kind not in ("fill", "turn"):
            continue
        asked = next(fills)
        if isinstance(asked, Fill):
            fill(executor, asked)
        else:
            from rundlet.life import idmounts

            idmounts.take_turn(asked, executor.pid, reply.slots["turn"], users[asked.users])
