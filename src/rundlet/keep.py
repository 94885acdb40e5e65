"""What commands keep for the next ones: files in a folder that is trusted, by names that say all that their content depends on.

Whoever may write into such a folder decides what containers may do. So it must belong to us and be writable by nobody else, which is
checked on the open descriptor, and everything else happens below that descriptor, following no symbolic link. A file begins with a digest
of its name and of all that follows: that guards against torn files only.
"""

import posix
from _blake2 import blake2b

KEPT = 128  # files in a folder; the oldest go first
SAFE = posix.O_NOFOLLOW | posix.O_CLOEXEC


def home() -> str:
    """The folder of folders: /var/cache/rundlet, for a user $XDG_CACHE_HOME/rundlet or ~/.cache/rundlet. It is made if it can be."""
    if posix.geteuid() == 0:
        folder = "/var/cache/rundlet"
    else:
        own = posix.environ.get(b"HOME", b"/nonexistent").decode("utf-8", "surrogateescape")
        folder = posix.environ.get(b"XDG_CACHE_HOME", b"").decode("utf-8", "surrogateescape") or own + "/.cache"
        folder += "/rundlet"
    try:
        posix.mkdir(folder, 0o755)
    except OSError:
        pass  # there already, or no place for a cache: it is only a cache
    return folder


def opened(folder: str) -> int:
    """The folder as a descriptor, or -1 when it cannot be had or others could have written into it. It is made when its parent is there."""
    flags = posix.O_RDONLY | posix.O_DIRECTORY | SAFE
    try:
        try:
            at = posix.open(folder, flags)
        except FileNotFoundError:
            try:
                posix.mkdir(folder, 0o700)
            except FileExistsError:
                pass  # another start was quicker
            at = posix.open(folder, flags)
    except OSError:
        return -1
    if ours(posix.fstat(at)):
        return at
    posix.close(at)
    return -1


def ours(status: posix.stat_result) -> bool:
    """True when a file is ours and nobody else may write it; an access list shows as its mask in the group's bits (acl(5))."""
    return status.st_uid == posix.geteuid() and not status.st_mode & 0o022


def load(at: int, name: str, kind: bytes, largest: int) -> "bytes | None":
    """What is kept under a name in the folder behind a descriptor, or None when there is nothing to be trusted."""
    try:
        fd = posix.open(name, posix.O_RDONLY | posix.O_NONBLOCK | SAFE, dir_fd=at)  # a fifo must not hold us up
    except OSError:
        return None
    try:
        status = posix.fstat(fd)
        if status.st_mode & 0o170000 != 0o100000 or not ours(status) or status.st_size > largest:
            return None
        raw = posix.read(fd, status.st_size)
    except OSError:
        return None
    finally:
        posix.close(fd)
    head, _, rest = raw.partition(b"\n")
    return rest if head == seal(name, kind, rest) else None


def keep(at: int, name: str, kind: bytes, rest: bytes) -> None:
    """Keeps something for next time, if that can be: whole under its name at once, or not at all."""
    draft = f".{name[:16]}.{posix.urandom(8).hex()}"
    try:
        fd = posix.open(draft, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | SAFE, 0o600, dir_fd=at)
        try:
            posix.write(fd, seal(name, kind, rest) + b"\n" + rest)  # a short write leaves a file whose digest is wrong
        finally:
            posix.close(fd)
        try:
            posix.rename(draft, name, src_dir_fd=at, dst_dir_fd=at)
        except OSError:
            posix.unlink(draft, dir_fd=at)
            return
        prune(at)
    except OSError:
        return  # a full or read-only folder: the next start does its work again


def prune(at: int) -> None:
    """Removes the older half once there are more than KEPT files, drafts of the dead among them."""
    names = posix.listdir(at)
    if len(names) > KEPT:
        for _, old in sorted((posix.stat(name, dir_fd=at, follow_symlinks=False).st_mtime_ns, name) for name in names)[: KEPT // 2]:
            posix.unlink(old, dir_fd=at)


def seal(name: str, kind: bytes, rest: bytes) -> bytes:
    """The first line of a file: what `kind` of thing it is, and the digest."""
    return b"rundlet-" + kind + b" " + blake2b(name.encode() + rest, digest_size=32).hexdigest().encode()


def witness(path: str) -> str:
    """A line that changes when the file at `path` is another or was written to; ctime cannot be set back."""
    try:
        status = posix.stat(path)
    except OSError:
        return f"- - - - - {path}"
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {path}"
