"""Limits of a cgroup in use: written in order, and taken back when one is refused, so that all hold or none."""

from posix import stat

from rundlet.cgroup.file import failed, read_file, write_file
from rundlet.cgroup.files import apply
from rundlet.cgroup.place import Place, find
from rundlet.errors import Fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rundlet.plan.write import Write

# what a line about one device says when there is no limit; of other files such a line cannot be taken back
NONE = {
    "io.max": "rbps=max wbps=max riops=max wiops=max", "io.weight": "default", "io.bfq.weight": "default",
    "rdma.max": "hca_handle=max hca_object=max",
}
NAMED = ("net_prio.ifpriomap", "rdma.max")  # files of lines about devices by their names, not their numbers


class Change:
    """Writes to the files of a place, each with what stood there before."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.done: "list[tuple[str, str, str | None]]" = []  # file, what has been written, what takes it back if anything does

    def write(self, writes: "Iterable[Write]") -> None:
        """Carries the writes out. Raises what files.apply() does, when those before it have been taken back."""
        for write in writes:
            path, chosen = self._file(write)
            old = "" if write.controller == "devices" else read_file(path)  # those are to be written only
            lost = forgotten(path, chosen.text, old)
            try:
                apply(self.place, (chosen,))
            except Fault as fault:
                self.take_back(fault)
                raise
            if chosen.fine and read_file(path) == old:
                continue  # it may have been refused, and there is nothing to take back
            self.done += lost
            self.done.append(reverse(path, chosen.text, old))

    def _file(self, write: "Write") -> "tuple[str, Write]":
        """The file that the write goes to, and the write itself or what it is otherwise, where the kernel has no such file."""
        at = find(self.place, write.controller)
        if at is None:
            return "", write
        path = f"{at.path}/{write.file}"
        try:
            stat(path)
        except OSError:
            if write.otherwise is not None:
                return self._file(write.otherwise)
        return path, write

    def held(self, names: "Iterable[str]") -> "dict[str, str]":
        """What the files of these names say now, by their paths, for restore()."""
        paths = (f"{at.path}/{name}" for at in self.place.dirs for name in names)
        return {path: text for path in paths if (text := read_file(path))}

    def take_back(self, fault: Fault) -> None:
        """Undoes the writes, the last one first; what cannot be undone is said in the fault."""
        for path, text, back in reversed(self.done):
            try:
                if back is None:
                    fault.cleanup.append(f"`{path}` has been set to {text}")
                else:
                    write_file(path, back)
            except OSError:
                fault.cleanup.append(f"`{path}` stays set to {text}")
        self.done.clear()


def forgotten(path: str, text: str, old: str) -> "list[tuple[str, str, str | None]]":
    """What a write makes the kernel forget besides, in the form of reverse(); to be called before it.

    A cgroup that becomes idle has no weight any more (sched_group_set_idle), a disk none of its own when that of all is set
    (bfq_io_set_weight_legacy).
    """
    folder, _, file = path.rpartition("/")
    if file == "cpu.idle" and old == "0\n":
        weights = ((f"{folder}/{name}", read_file(f"{folder}/{name}")) for name in ("cpu.weight", "cpu.shares"))
        return [(weight, held, held) for weight, held in weights if held]
    if file in ("io.bfq.weight", "blkio.bfq.weight") and ":" not in text:
        disks = path if file == "io.bfq.weight" else f"{path}_device"
        return [(disks, line, line) for line in read_file(disks).splitlines() if ":" in line]
    return []


def restore(held: "dict[str, str]") -> None:
    """Has files say again what they said, where somebody else has written them since. Raises StepFailed."""
    for last in (False, True):  # of limits that depend on each other the one that goes through opens the way for the other
        for path, text in held.items():
            lines = read_file(path).splitlines()
            for line in text.splitlines():
                if line not in lines:
                    try:
                        write_file(path, line or "\n")
                    except OSError as e:
                        if last:
                            raise failed("keep what was not to change", "write", path, e) from None


def reverse(path: str, text: str, old: str) -> "tuple[str, str, str | None]":
    """The (file, text written, text that takes it back) of a write of `text`, where the file said `old`."""
    folder, _, file = path.rpartition("/")
    if file in ("devices.allow", "devices.deny"):
        other = "devices.deny" if file == "devices.allow" else "devices.allow"
        return f"{folder}/{other}", text, None if text == "a" else text
    if file == "memory.oom_control":
        return path, text, old.partition("oom_kill_disable ")[2][:1]
    key = text.partition(" ")[0]
    if file in ("io.weight", "io.bfq.weight") and ":" not in key:
        key = "default"  # a number alone is that, beside lines about single disks
    if ":" not in key and key != "default" and file not in NAMED:
        # one value; an empty one is written as a line
        return path, text, (old or "\n") if old.count("\n") <= 1 else None
    line = next((line for line in old.splitlines() if line.partition(" ")[0] == key), "")
    if not line and file.startswith("blkio."):
        return path, text, f"{key} 0"
    return path, text, line or (f"{key} {NONE[file]}" if file in NONE else None)
