"""linux.seccomp → the program that the kernel runs, compiled once and kept; the way of a hit needs neither ctypes nor libseccomp.

Compiling costs fifty milliseconds (ctypes, finding and loading libseccomp), reading a kept program a fifth of one. The folder is
trusted, not the entries' content: whoever may write into it decides what containers may do. So the folder must belong to us and be
writable by nobody else, which is checked on the open descriptor, and everything else happens below that descriptor, following no
symbolic link. An entry is a text that `head` shows:

    rundlet-seccomp <digest of the key and of all that follows>
    libseccomp 2.5.4
    <device> <inode> <size> <mtime> <ctime> /usr/lib/x86_64-linux-gnu/libseccomp.so.2.5.4
    <device> <inode> <size> <mtime> <ctime> /etc/ld.so.cache
    … and the same of compile.py and bpf.py

    <the program: struct sock_filter[]>

The calls' numbers are libseccomp's knowledge, good for as long as the same libseccomp would be loaded. Asking the library for its
version means loading it, so the entry names witnesses instead, each compared by one stat(2): the library file that was loaded, the
dynamic linker's cache, which ldconfig(8) rewrites when a library comes, goes or moves, and the two modules that write programs. The
digest guards against torn files only.
"""

import posix
from _blake2 import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Seccomp

FORMAT = "rundlet-seccomp 1"  # of the entry
HERE = __file__.rpartition("/")[0]
WITNESSES = ("/etc/ld.so.cache", f"{HERE}/compile.py", f"{HERE}/bpf.py")
LARGEST = 8 * 4096 + 4096  # the kernel takes 4096 instructions (BPF_MAXINSNS) of eight bytes; the rest is for the head
KEPT = 128  # entries; a host uses a handful of profiles, the oldest go first
SAFE = posix.O_NOFOLLOW | posix.O_CLOEXEC


def program(section: "Seccomp", folder: str, warnings: "list[str] | None" = None, strict: bool = False) -> bytes:
    """The filter of linux.seccomp as classic BPF, an array of struct sock_filter (linux/filter.h), in this machine's byte order.

    `folder` keeps programs; it is made (0700) when its parent exists. A folder that cannot be used or is not ours alone only means
    compiling again. `warnings` takes one line for each thing the compiler passed over; a kept program has none to tell.
    Raises what compiling raises: BadSpec, with `strict` also for names that are passed over else (so nothing kept will do), Refused.
    """
    key = name(section)
    at = _open(folder)
    try:
        code = _load(at, key) if at >= 0 and not strict else None
        if code is None:
            from rundlet.seccomp.compile import compile_section, library

            code, said = compile_section(section, strict)
            if warnings is not None:
                warnings += said
            if at >= 0:
                _keep(at, key, code, *library())
        return code
    finally:
        if at >= 0:
            posix.close(at)


def name(section: "Seccomp") -> str:
    """The name, 64 hexadecimal digits, under which the program of a section is kept on this machine.

    It covers what the program depends on: the default, the architectures, the rules, the machine. Not the flags, which the load takes,
    nor the listener.
    """
    rules = []
    for rule in section["syscalls"]:
        args = [(arg["index"], arg["op"], arg["value"], arg["valueTwo"]) for arg in rule["args"]]
        rules.append((rule["names"], rule["action"], rule["errnoRet"], args))
    # repr() of nested lists of texts and integers is injective, and ASCII where it must be to be encoded
    said = repr((FORMAT, posix.uname().machine, section["defaultAction"], section["defaultErrnoRet"], section["architectures"], rules))
    return blake2b(said.encode(), digest_size=32).hexdigest()


def _open(folder: str) -> int:
    """The folder as a descriptor, or -1 when it cannot be had or others could have written into it."""
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
    if _ours(posix.fstat(at)):
        return at
    posix.close(at)
    return -1


def _ours(status: posix.stat_result) -> bool:
    """True when a file is ours and nobody else may write it; an access list shows as its mask in the group's bits (acl(5))."""
    return status.st_uid == posix.geteuid() and not status.st_mode & 0o022


def _load(at: int, key: str) -> "bytes | None":
    """The kept program, or None when there is none to be trusted."""
    try:
        fd = posix.open(key, posix.O_RDONLY | posix.O_NONBLOCK | SAFE, dir_fd=at)  # a fifo must not hold us up
    except OSError:
        return None
    try:
        status = posix.fstat(fd)
        if status.st_mode & 0o170000 != 0o100000 or not _ours(status) or status.st_size > LARGEST:
            return None
        raw = posix.read(fd, LARGEST)
    except OSError:
        return None
    finally:
        posix.close(fd)
    seal, _, rest = raw.partition(b"\n")
    if seal != _seal(key, rest):
        return None
    head, _, code = rest.partition(b"\n\n")
    if not code or len(code) % 8:
        return None
    _, *witnesses = head.decode("utf-8", "surrogateescape").split("\n")
    paths = [line.split(" ", 5)[-1] for line in witnesses]
    return code if paths[1:] == [*WITNESSES] and witnesses == [*map(_witness, paths)] else None


def _keep(at: int, key: str, code: bytes, library: str, version: str) -> None:
    """Keeps a program for next time, if that can be: whole under its name at once, or not at all."""
    if not library or "\n" in library or len(code) > 8 * 4096:
        return  # it is unknown what would be witnessed, or the plan will refuse the program
    head = "\n".join([f"libseccomp {version}", *map(_witness, (library, *WITNESSES))])
    rest = head.encode("utf-8", "surrogateescape") + b"\n\n" + code
    text = _seal(key, rest) + b"\n" + rest
    draft = f".{key[:16]}.{posix.urandom(8).hex()}"
    try:
        fd = posix.open(draft, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | SAFE, 0o600, dir_fd=at)
        try:
            posix.write(fd, text)  # a short write leaves an entry whose digest is wrong
        finally:
            posix.close(fd)
        try:
            posix.rename(draft, key, src_dir_fd=at, dst_dir_fd=at)
        except OSError:
            posix.unlink(draft, dir_fd=at)
            return
        _prune(at)
    except OSError:
        return  # a full or read-only folder: the next start compiles again


def _prune(at: int) -> None:
    """Removes the older half once there are more than KEPT files, drafts of the dead among them."""
    names = posix.listdir(at)
    if len(names) > KEPT:
        for _, old in sorted((posix.stat(name, dir_fd=at, follow_symlinks=False).st_mtime_ns, name) for name in names)[: KEPT // 2]:
            posix.unlink(old, dir_fd=at)


def _seal(key: str, rest: bytes) -> bytes:
    return b"rundlet-seccomp " + blake2b(key.encode() + rest, digest_size=32).hexdigest().encode()


def _witness(path: str) -> str:
    """A line that changes when the file at `path` is another or was written to; ctime cannot be set back."""
    try:
        status = posix.stat(path)
    except OSError:
        return f"- - - - - {path}"
    return f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {path}"
