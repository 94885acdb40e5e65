"""Unix sockets by path, whatever the length of the path: sun_path holds 107 bytes, a folder's descriptor stands in for the rest."""

import posix
from _socket import SOCK_STREAM, socket
from posix import O_CLOEXEC, O_PATH

from rundlet.errors import Fault

AF_UNIX = 1
SOCK_CLOEXEC = 0o2000000


def connect(path: str, what: str) -> socket:
    """A connection to the socket at `path`; raises Fault, naming `what` it was wanted for."""
    made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    folder, _, name = path.rpartition("/")
    try:
        fd = posix.open(folder or ("/" if path[:1] == "/" else "."), O_PATH | O_CLOEXEC)
        try:
            made.connect(f"/proc/self/fd/{fd}/{name}")
        finally:
            posix.close(fd)
    except OSError as e:
        made.close()
        raise Fault(f"cannot connect to the {what} {path}: {(e.strerror or str(e)).lower()}") from None
    return made


def listen(folder: int, name: str) -> socket:
    """A listening socket, for root alone, in the folder behind a descriptor."""
    made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    mask = posix.umask(0o177)
    try:
        made.bind(f"/proc/self/fd/{folder}/{name}")
    finally:
        posix.umask(mask)
    made.listen(1)
    return made
