"""The terminal of a container in the foreground: ours in raw mode, the container's at the other end, bytes and sizes between them."""

import posix
import termios
from _socket import SOCK_STREAM, socketpair
from _struct import unpack
from fcntl import ioctl
from select import POLLIN, POLLOUT

from rundlet import kernel
from rundlet.errors import Fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from select import poll

    from rundlet.spec.types import ConsoleSize


class Foreground:
    """Receives the master of the container's terminal, and carries bytes between it and our stdin and stdout."""

    def __init__(self) -> None:
        self._ours, self._theirs = socketpair(1, SOCK_STREAM)
        self.socket = self._theirs.fileno()
        self.master = -1
        self._saved: "list[object] | None" = None
        self._pending = b""  # read from our side, and not yet taken by the other
        self._over = False  # our side has said everything

    def receive(self) -> None:
        """Takes the master that the container's process sent, and puts our terminal into raw mode.

        Where stdin is no terminal, nothing is in raw mode, and what the container writes goes to a pipe, a file, or a terminal that makes
        CR LF of line ends itself: then the container's leaves them alone, as with runc.
        """
        self.master = take_master(self._ours.fileno(), self._ours)
        self._theirs.close()
        self._ours.close()
        try:
            self._saved = termios.tcgetattr(0)
        except termios.error:
            mode = termios.tcgetattr(self.master)
            mode[1] &= ~termios.ONLCR
            termios.tcsetattr(self.master, termios.TCSANOW, mode)
            return  # its bytes are passed on all the same
        self.resize()
        _make_raw(0)

    def resize(self) -> None:
        """Gives the container's terminal the size of ours: ioctl_tty(2)."""
        try:
            size = ioctl(0, termios.TIOCGWINSZ, bytes(8))
            if size[:4] != bytes(4):
                ioctl(self.master, termios.TIOCSWINSZ, size)
        except OSError:
            pass  # no terminal, no size

    def size(self) -> "ConsoleSize | None":
        """The size of our terminal, for the container's to have from the beginning; None without one."""
        try:
            rows, columns, _, _ = unpack("4H", ioctl(0, termios.TIOCGWINSZ, bytes(8)))
        except OSError:
            return None
        return {"height": rows, "width": columns} if rows or columns else None

    def register(self, waiting: "poll") -> None:
        """Waits for bytes from both sides."""
        posix.set_blocking(self.master, False)
        waiting.register(0, POLLIN)
        waiting.register(self.master, POLLIN)

    def move(self, fd: int, events: int, waiting: "poll") -> None:
        """Carries what there is from one side to the other.

        A program that does not read its terminal must not keep us from reading what it writes to it: what it has not taken yet waits, and
        so long nothing more is read from our side.
        """
        if fd == 0:
            try:
                data = posix.read(0, 65536)
            except OSError:
                data = b""  # EIO: our terminal is another's now
            self._pending = data or b"\4"  # the end of the input, as a terminal says it
            waiting.unregister(0)
            self._over = not data
            self._flush(waiting)
            return
        if events & POLLOUT:
            self._flush(waiting)
        if events & ~POLLOUT:
            try:
                data = posix.read(self.master, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""  # EIO: nobody has the other end open any more
            if data:
                _write(1, data)
            else:
                waiting.unregister(self.master)

    def _flush(self, waiting: "poll") -> None:
        """Writes what waits as far as it is taken, and says what to wait for next."""
        try:
            self._pending = self._pending[posix.write(self.master, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            self._pending = b""  # nobody reads any more
        try:
            waiting.modify(self.master, POLLIN | POLLOUT if self._pending else POLLIN)
        except FileNotFoundError:
            self._pending = b""  # it has been given up
        if not self._pending and not self._over:
            waiting.register(0, POLLIN)

    def drain(self) -> None:
        """What the container wrote last is still in the terminal when it has ended."""
        posix.set_blocking(self.master, False)
        while True:
            try:
                data = posix.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            _write(1, data)

    def restore(self) -> None:
        """Gives our terminal back as it was, unless it is gone."""
        if self._saved is not None:
            try:
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            except termios.error:
                pass  # it has hung up, or is another's now


def take_master(fd: int, control: "object") -> int:
    """Receives one descriptor, the master of a terminal, from a socket; raises Fault when none comes."""
    _, rights, _, _ = control.recvmsg(64, 64)  # type: ignore[attr-defined]
    for level, kind, data in rights:
        if level == kernel.SOL_SOCKET and kind == kernel.SCM_RIGHTS:
            master = int.from_bytes(data[:4], "little")
            posix.set_inheritable(master, False)
            return master
    raise Fault("the container's process did not hand out its terminal")


def _make_raw(fd: int) -> None:
    """cfmakeraw(3)."""
    mode = termios.tcgetattr(fd)
    t = termios
    mode[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
    mode[1] &= ~t.OPOST
    mode[2] = mode[2] & ~(t.CSIZE | t.PARENB) | t.CS8
    mode[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
    mode[6][t.VMIN], mode[6][t.VTIME] = 1, 0
    termios.tcsetattr(fd, t.TCSANOW, mode)


def _write(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[posix.write(fd, data) :]
        except OSError:
            return  # nobody reads any more
