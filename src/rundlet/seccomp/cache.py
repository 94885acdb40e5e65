"""linux.seccomp → the program that the kernel runs, compiled once and kept; the way of a hit needs neither ctypes nor libseccomp.

Compiling costs fifty milliseconds (ctypes, finding and loading libseccomp), reading a kept program a fifth of one. The folder is
trusted, not the entries' content: keep.py. An entry is a text that `head` shows:

    rundlet-seccomp <digest of the key and of all that follows>
    libseccomp 2.5.4
    <device> <inode> <size> <mtime> <ctime> /usr/lib/x86_64-linux-gnu/libseccomp.so.2.5.4
    <device> <inode> <size> <mtime> <ctime> /etc/ld.so.cache
    … and the same of compile.py and bpf.py

    <the program: struct sock_filter[]>

The calls' numbers are libseccomp's knowledge, good for as long as the same libseccomp would be loaded. Asking the library for its
version means loading it, so the entry names witnesses instead, each compared by one stat(2): the library file that was loaded, the
dynamic linker's cache, which ldconfig(8) rewrites when a library comes, goes or moves, and the two modules that write programs.
"""

import posix
from _blake2 import blake2b

from rundlet.keep import keep, load, opened, witness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Seccomp

FORMAT = "rundlet-seccomp 1"  # of the entry
HERE = __file__.rpartition("/")[0]
WITNESSES = ("/etc/ld.so.cache", f"{HERE}/compile.py", f"{HERE}/bpf.py")
KIND = b"seccomp"
LARGEST = 8 * 4096 + 4096  # the kernel takes 4096 instructions (BPF_MAXINSNS) of eight bytes; the rest is for the head


def program(section: "Seccomp", folder: str, warnings: "list[str] | None" = None, strict: bool = False) -> bytes:
    """The filter of linux.seccomp as classic BPF, an array of struct sock_filter (linux/filter.h), in this machine's byte order.

    `folder` keeps programs; it is made (0700) when its parent exists. A folder that cannot be used or is not ours alone only means
    compiling again. `warnings` takes one line for each thing the compiler passed over; a kept program has none to tell.
    Raises what compiling raises: BadSpec, with `strict` also for names that are passed over else (so nothing kept will do), Refused.
    """
    key = name(section)
    at = opened(folder)
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


def _load(at: int, key: str) -> "bytes | None":
    """The kept program, or None when there is none to be trusted."""
    found = _entry(at, key)
    return found[1] if found and stands(found[0]) else None


def _entry(at: int, key: str) -> "tuple[list[str], bytes] | None":
    """Of an entry the witnesses and the program."""
    rest = load(at, key, KIND, LARGEST)
    if rest is None:
        return None
    head, _, code = rest.partition(b"\n\n")
    if not code or len(code) % 8:
        return None
    return head.decode("utf-8", "surrogateescape").split("\n")[1:], code


def witnesses(section: "Seccomp", folder: str, code: "bytes | None") -> "list[str] | None":
    """What the kept program of a section stands and falls with: lines for stands(). None where nothing is kept, or another program than
    `code`: one of a libseccomp that has come meanwhile."""
    at = opened(folder)
    if at < 0:
        return None
    found = _entry(at, name(section))
    posix.close(at)
    return found[0] if found and found[1] == code else None


def stands(lines: "list[str]") -> bool:
    """Whether all the witnesses say what they said, and are those that have to be asked."""
    paths = [line.split(" ", 5)[-1] for line in lines]
    return paths[1:] == [*WITNESSES] and lines == [*map(witness, paths)]


def _keep(at: int, key: str, code: bytes, library: str, version: str) -> None:
    """Keeps a program for next time, if that can be: whole under its name at once, or not at all."""
    if not library or "\n" in library or len(code) > 8 * 4096:
        return  # it is unknown what would be witnessed, or the plan will refuse the program
    head = "\n".join([f"libseccomp {version}", *map(witness, (library, *WITNESSES))])
    keep(at, key, KIND, head.encode("utf-8", "surrogateescape") + b"\n\n" + code)
