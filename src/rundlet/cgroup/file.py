"""One file of a cgroup: read, written, and what a failure is called."""

from posix import O_CLOEXEC, O_RDONLY, O_WRONLY, close, open, read, strerror, write

from rundlet.errors import StepFailed
from rundlet.kernel import ENODEV, ENOENT, ENOTDIR, EOPNOTSUPP


def read_file(path: str, gone_ok: bool = True) -> str:
    """The text of a file of a cgroup; empty when it, or its cgroup, is not there and that is fine. Raises OSError."""
    try:
        fd = open(path, O_RDONLY | O_CLOEXEC)
        try:
            return read(fd, 1 << 16).decode("utf-8", "surrogateescape")
        finally:
            close(fd)
    except OSError as e:
        if gone_ok and e.errno in (ENOENT, ENODEV, ENOTDIR, EOPNOTSUPP):
            return ""
        raise


def write_file(path: str, text: str, dir_fd: "int | None" = None) -> None:
    """Writes a file of a cgroup at once, as the kernel wants it. Raises OSError."""
    fd = open(path, O_WRONLY | O_CLOEXEC, dir_fd=dir_fd)
    try:
        write(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        close(fd)


def failed(what: str, call: str, path: str, error: OSError, hint: str = "") -> StepFailed:
    """The fault of a call on a file: what was being done, the file, the kernel's word in lower case."""
    why = strerror(error.errno or 0)
    return StepFailed(what, call, error.errno or 0, f"{what}: {call} `{path}`: {why[:1].lower()}{why[1:]}", (hint,) if hint else ())
