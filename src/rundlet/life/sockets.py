"""Unix sockets by path, whatever the length of the path: sun_path holds 107 bytes, a folder's descriptor stands in for the rest."""

import posix
from _socket import SOCK_DGRAM, SOCK_STREAM, socket
from posix import O_CLOEXEC, O_PATH

from rundlet import log
from rundlet.errors import Fault
from rundlet.kernel import SCM_RIGHTS, SOL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Process

AF_UNIX = 1
SOCK_CLOEXEC = 0o2000000


def connect(path: str, what: str, kind: int = SOCK_STREAM) -> socket:
    """A connection to the socket at `path`, or of the abstract name behind an "@"; raises Fault, naming `what` it was wanted for."""
    made = socket(AF_UNIX, kind | SOCK_CLOEXEC)
    folder, _, name = path.rpartition("/")
    try:
        if path[:1] == "@":
            made.connect("\0" + path[1:])
            return made
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


def receivers(*paths: "str | None") -> "list[socket]":
    """Connections to those who want the process's pidfd: --pidfd-socket and the annotation run.oci.pidfd_receiver."""
    return [connect(path, "pidfd socket") for path in paths if path]


def hand_out(receiver: socket, pid: int, name: bytes) -> None:
    """Sends the pidfd of a process, and what it is: `standard` for the first one of a container, `setns` for another; as runc says it."""
    pidfd = posix.pidfd_open(pid)
    try:
        receiver.sendmsg([name], [(SOL_SOCKET, SCM_RIGHTS, pidfd.to_bytes(4, "little"))])
    except OSError as e:
        raise Fault(f"cannot send the pidfd to the pidfd socket: {(e.strerror or str(e)).lower()}") from None
    finally:
        posix.close(pidfd)
        receiver.close()


def passed_on(preserve: int, process: "Process | None") -> int:
    """Up to which number the process is given descriptors, counted from 3: those of the caller's LISTEN_FDS, then `preserve` more.

    `process` is told of the former, as the first process of its namespace: sd_listen_fds(3). None takes no LISTEN_FDS. They count where
    LISTEN_PID says that they are ours, or are for PID 1 already (podman writes that), or says nothing. One that is not open is not passed
    on, with a warning; raises Fault when none of the latter is.
    """
    count = 0
    said = posix.environ.get(b"LISTEN_FDS", b"")
    if process is not None and said.isdigit() and len(said) < 8 and _ours(posix.environ.get(b"LISTEN_PID")):
        count = int(said)
        names = posix.environ.get(b"LISTEN_FDNAMES")
        env = [entry for entry in process["env"] if entry.partition("=")[0] not in ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")]
        env += [f"LISTEN_FDS={count}", "LISTEN_PID=1"]
        process["env"] = env + (["LISTEN_FDNAMES=" + names.decode("utf-8", "surrogateescape")] if names else [])
    if not count + preserve:
        return 0
    first, end = 3 + count, 3 + count + preserve
    # what we have opened ourselves closes on exec
    given = [fd for fd in map(int, posix.listdir("/proc/self/fd")) if 3 <= fd < end and _inheritable(fd)]
    if preserve and not any(fd >= first for fd in given):
        raise Fault(f"--preserve-fds {preserve}: unable to stat preserved-fd 0: the descriptor {first} is not open")
    if len(given) < count + preserve:
        log.warning(f"of {count + preserve} descriptors to be passed on only {len(given)} are open: {', '.join(map(str, sorted(given)))}")
    return max(given, default=2) - 2


def _ours(listen_pid: "bytes | None") -> bool:
    return listen_pid in (None, b"1", b"%d" % posix.getpid())


def _inheritable(fd: int) -> bool:
    try:
        return posix.get_inheritable(fd)
    except OSError:
        return False  # that of the listing itself


def receive(folder: int, name: str) -> socket:
    """A socket for datagrams that everybody may send to, in the folder behind a descriptor; takes the place of an older one."""
    made = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        posix.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    mask = posix.umask(0)
    try:
        made.bind(f"/proc/self/fd/{folder}/{name}")
    finally:
        posix.umask(mask)
    return made
