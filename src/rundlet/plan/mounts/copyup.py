"""The mount option tmpcopyup: a tmpfs begins with what the image has where it is mounted.

What that is, is known when the container is made and not before. So the plan says where it happens, a step of kind "fill" at the end of
a stage, and the runtime asks the container's first process for it piece by piece (life/copyup.py), with the steps that are made here:
list a folder, look at its entries, copy them. It is done in there, and not by the runtime, since only there files can have owners of
the container's user namespace. The tmpfs is still detached, nothing of the container runs, and every name is opened below the
descriptor of the folder without following links or leaving the image's mount.
"""

from rundlet import kernel as k
from rundlet.plan.mounts.calls import AT, TREE
from rundlet.plan.step import Call, Out, Part, Scratch, Slot, Step
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.spec.types import Mount

BELOW = k.RESOLVE_BENEATH | k.RESOLVE_NO_SYMLINKS | k.RESOLVE_NO_XDEV
READ_DIR = k.open_how(k.O_RDONLY | k.O_DIRECTORY | k.O_CLOEXEC, 0, BELOW)
READ_FILE = k.open_how(k.O_RDONLY | k.O_NONBLOCK | k.O_NOCTTY | k.O_CLOEXEC, 0, BELOW)
SEE = k.open_how(k.O_HERE | k.O_NOFOLLOW, 0, BELOW)
INTO = k.open_how(k.O_HERE | k.O_DIRECTORY, 0, k.RESOLVE_BENEATH | k.RESOLVE_NO_SYMLINKS)
NEW = k.O_CREAT | k.O_EXCL | k.O_WRONLY | k.O_NOFOLLOW | k.O_CLOEXEC
ENTRIES = 32768  # bytes of names a time
LINK = 4096  # and of a symbolic link's text
NAMES = 4096  # and of the names of extended attributes
VALUE = 65536  # XATTR_SIZE_MAX, linux/limits.h
AT_ONCE = 16  # entries looked at, and copied, by one program
STATX_BASIC = 0x7FF
FOLDER, SYMLINK = 0o040000, 0o120000  # S_IFDIR, S_IFLNK
MOST = 0x7FFFF000  # sendfile(2) moves no more a call
FROM, NEWFILE, TO, IT = Slot("from"), Slot("new"), Slot("to"), Slot("it")
SIZE = Scratch("copied", 256)


class Entry(Value):
    """One entry of a folder, as statx(2) and readlink(2) tell.

    Of what is `mounted` over the kind alone is known: that is not the image's, and stays hidden.
    """

    __slots__ = ("name", "mode", "mounted", "uid", "gid", "size", "device", "times", "link")

    def __init__(
        self, name: bytes, mode: int, mounted: bool = False, uid: int = 0, gid: int = 0, size: int = 0, device: int = 0, times: bytes = b"",
        link: bytes = b"",
    ) -> None:
        self.name = name
        self.mode = mode
        self.mounted = mounted
        self.uid = uid
        self.gid = gid
        self.size = size
        self.device = device
        self.times = times  # two struct timespec, of the last access and change
        self.link = link


def step(mount: "Mount", made: "tuple[Call, ...]", place: "tuple[Call, ...]", slot: str) -> Step:
    """Makes the tmpfs, and opens the folder that it will cover; then the runtime has it filled: slots "tree" and "at"."""
    return Step(
        f"fill a tmpfs with what the image has in {mount['destination']}", *made, *place,
        Call("value", Slot(slot), into="tree", label="there"), kind="fill",
    )


def parts(steps: "Sequence[Step]") -> "list[tuple[Step, ...]]":
    """The steps, cut behind each of kind "fill", and "turn": mounting.Turn."""
    found: "list[tuple[Step, ...]]" = []
    begin = 0
    for i, one in enumerate(steps, 1):
        if one.kind in ("fill", "turn") or i == len(steps):
            found.append(tuple(steps[begin:i]))
            begin = i
    return found


def below(folder: bytes, name: bytes) -> bytes:
    """The path of an entry."""
    return folder + b"/" + name if folder else name


def first(folder: bytes) -> Step:
    """Opens a folder of the image, and reads the first names in it: "got" bytes of "entries"."""
    return Step(
        f"list {_shown(folder)}", Call("openat2", AT, folder or b".", READ_DIR, 24, into="dir"),
        Call("getdents64", Slot("dir"), Out("entries", ENTRIES), ENTRIES, into="got"),
    )


def further(folder: bytes) -> Step:
    """More of its names."""
    return Step(f"list more of {_shown(folder)}", Call("getdents64", Slot("dir"), Out("entries", ENTRIES), ENTRIES, into="got"))


def done() -> Step:
    """No more of them."""
    return Step("close the folder", Call("close", Slot("dir")))


def look(folder: bytes, names: "list[bytes]") -> Step:
    """What the entries are: "about N" and "link N". A mount point leaves its buffer empty."""
    calls: "list[Call]" = []
    for n, name in enumerate(names):
        calls += [
            Call("openat2", AT, below(folder, name) or b".", SEE, 24, into="it", fine=("EXDEV",), on_fine=f"next{n}"),
            Call("statx", IT, "", k.AT_EMPTY_PATH, STATX_BASIC, Out(f"about {n}", 256)),
            Call("readlinkat", IT, "", Out(f"link {n}", LINK), LINK - 1, fine=("ENOENT", "EINVAL")),
            Call("close", IT),
            Call("value", 0, label=f"next{n}"),
        ]
    return Step(f"look at what is in {_shown(folder)}", *calls)


def copy(folder: bytes, entries: "list[Entry]") -> "list[Step]":
    """Makes the entries in the tmpfs. The names of their extended attributes come back in "names N"."""
    steps = [Step(f"open {_shown(folder)} in the tmpfs", Call("openat2", TREE, folder or b".", INTO, 24, into="to"))]
    for n, entry in enumerate(entries):
        calls = _make(folder, entry)
        if not entry.mounted and entry.mode & 0o170000 in (FOLDER, k.S_IFREG):
            calls[-1:-1] = [Call("flistxattr", FROM, Out(f"names {n}", NAMES), NAMES, fine=("EOPNOTSUPP",))]
        what = f"copy {_shown(below(folder, entry.name))} into the tmpfs"
        steps.append(Step(what, *calls, hint="is the tmpfs large enough, and did nobody change the image meanwhile?"))
    return [*steps, Step("close the folder", Call("close", TO))]


def _make(folder: bytes, entry: Entry) -> "list[Call]":
    """The calls for one entry; for a file or folder the last one closes "from", which is the original."""
    name, kind = entry.name, entry.mode & 0o170000
    owner = Call("fchownat", TO, name, entry.uid, entry.gid, k.AT_SYMLINK_NOFOLLOW)
    mode = Call("fchmodat", TO, name, entry.mode & 0o7777)
    times = Call("utimensat", TO, name, entry.times, k.AT_SYMLINK_NOFOLLOW)
    if entry.mounted:
        return [Call("mkdirat", TO, name, 0o755) if kind == FOLDER else Call("mknodat", TO, name, k.S_IFREG | 0o644, 0)]
    if kind == SYMLINK:
        return [Call("symlinkat", entry.link, TO, name), owner, times]
    if kind == FOLDER:
        return [
            Call("mkdirat", TO, name, 0o700), owner, mode, Call("openat2", AT, below(folder, name), READ_DIR, 24, into="from"),
            Call("close", FROM),
        ]
    if kind != k.S_IFREG:
        return [Call("mknodat", TO, name, entry.mode, entry.device), owner, mode, times]
    calls = [
        Call("openat2", AT, below(folder, name), READ_FILE, 24, into="from"), Call("openat", TO, name, NEW, 0o600, into="new"),
        *(Call("sendfile", NEWFILE, FROM, 0, min(MOST, entry.size - at)) for at in range(0, entry.size, MOST)),
        Call("statx", NEWFILE, "", k.AT_EMPTY_PATH, STATX_BASIC, SIZE),
        Call("check", Part(SIZE, 40), entry.size.to_bytes(8, "little"), 8, k.ERRNO["EIO"]),
        Call("close", NEWFILE), owner, mode, times,
    ]
    return [*calls, Call("close", FROM)]


def attribute(path: bytes, folder: bool, name: bytes) -> Step:
    """Copies one extended attribute, where the tmpfs takes it: xattr(7)."""
    value = Scratch("value", VALUE)
    how = READ_DIR if folder else READ_FILE
    shown = name.decode("utf-8", "replace")
    return Step(
        f"copy the attribute {shown} of {_shown(path)}",
        Call("openat2", AT, path or b".", how, 24, into="from"), Call("fgetxattr", FROM, name, value, VALUE, into="size"),
        Call("openat2", TREE, path or b".", k.open_how(k.O_RDONLY | k.O_CLOEXEC, 0, BELOW), 24, into="new"),
        Call("fsetxattr", NEWFILE, name, value, Slot("size"), 0, fine=("EOPNOTSUPP", "EPERM", "EINVAL")),
        Call("close", NEWFILE), Call("close", FROM),
    )


def stamp(path: bytes, entry: Entry, owner: bool) -> Step:
    """The times of a folder, once nothing more is put into it; for the tmpfs itself the owner too, where it was not given."""
    calls = [Call("fchownat", TREE, path or b".", entry.uid, entry.gid, k.AT_SYMLINK_NOFOLLOW)] if owner else []
    return Step(f"date {_shown(path)}", *calls, Call("utimensat", TREE, path or b".", entry.times, k.AT_SYMLINK_NOFOLLOW))


def _shown(path: bytes) -> str:
    return "/" + path.decode("utf-8", "replace")
