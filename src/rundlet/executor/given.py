"""An executor that one process starts and another one gives its programs: so the container's process becomes a child of the former.

    launch(fds)                  in the process whose child it is to be, which does nothing else: it may run an event loop
    take(given, …, passed)       in the process that makes the container: instead of client.spawn()

The executor clones its processes with CLONE_PARENT, so they have its parent, whoever sends the programs. What the maker has opened
meanwhile comes to it in a message: unix(7), SCM_RIGHTS.
"""

from _socket import SOCK_STREAM, socket, socketpair
from _struct import pack
from fcntl import F_DUPFD_CLOEXEC, fcntl
from posix import POSIX_SPAWN_DUP2, close

from rundlet import kernel as k
from rundlet.executor import client
from rundlet.plan.step import Call, Data, Ptr, Scratch, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Given:
    """What the maker has to know: the executor's pid, the number that its end of the socket has, and whether it is sealed."""

    def __init__(self, pid: int, number: int, sealed: bool) -> None:
        self.pid = pid
        self.number = number
        self.sealed = sealed


def launch(fds: "Sequence[int]") -> "tuple[Given, socket]":
    """Starts an executor whose descriptors 0, 1, 2 … are `fds`, and the other end of its socket. Raises Refused, as client.spawn().

    It has a group of processes of its own, in which what it clones is until that begins a session.
    """
    ours, theirs = socketpair(1, SOCK_STREAM)  # AF_UNIX
    count = len(fds)
    high: "list[int]" = []
    try:
        for fd in (*fds, theirs.fileno()):  # out of the way first: one may be another's place
            high.append(fcntl(fd, F_DUPFD_CLOEXEC, count + 1))
        pid, sealed = client.start(["rundlet", str(count)], [(POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(high)], setpgroup=0)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in high:
            close(fd)
    return Given(pid, count, sealed), ours


def take(given: Given, control: socket, pass_fds: "dict[str, int]") -> client.Executor:
    """Takes over an executor, `control` being our end of its socket; `pass_fds` as for client.spawn(). It keeps those it was started with.

    Raises StepFailed where the kernel does not put the passed ones right behind these.
    """
    first = given.number + 1  # the next ones are the lowest that are free
    executor = client.Executor(given.pid, control, {"control": given.number, **{name: first + n for n, name in enumerate(pass_fds)}})
    client.PIDS.append(given.pid)
    client.make_ready(executor, ["rundlet", str(given.number)], given.sealed, given.number, first)
    if pass_fds:
        program = executor.send([_receive(given.number, first, len(pass_fds))])
        control.sendmsg([b"\0"], [(k.SOL_SOCKET, k.SCM_RIGHTS, b"".join(fd.to_bytes(4, "little") for fd in pass_fds.values()))])
        executor.receive(program)
    return executor


def _receive(control: int, first: int, count: int) -> Step:
    """Receives so many descriptors, which must be numbered from `first` on: msghdr of recvmsg(2), cmsg(3)."""
    size = 16 + 4 * count
    room = Scratch("rights", (size + 7) // 8 * 8)
    vector = Data(Ptr(Scratch("byte", 8)), pack("Q", 1))
    message = Data(bytes(16), Ptr(vector), pack("Q", 1), Ptr(room), pack("QQ", size, 0))
    wanted = pack(f"QII{count}I", size, k.SOL_SOCKET, k.SCM_RIGHTS, *range(first, first + count))
    return Step(
        "receive the descriptors of who makes the container",
        Call("recvmsg", control, message, k.MSG_CMSG_CLOEXEC),
        Call("check", room, wanted, size, k.ERRNO["EBADF"]),
    )
