"""The descriptors that a container's process is given, and what the program holds of them: pipes, and the other end of a terminal."""

import fcntl
import os
import shutil
import socket
import struct
import tempfile
import termios
from collections.abc import Sequence
from typing import IO, Final, TypeAlias

from rundlet.api.operation import Operation, Wait
from rundlet.errors import Fault
from rundlet.life.console import take_master

PIPE: Final = -1  # the three are those of subprocess
STDOUT: Final = -2
DEVNULL: Final = -3
PIECE = 1 << 16

Given: TypeAlias = int | IO[bytes] | IO[str] | None  # a descriptor, a file with one, PIPE, DEVNULL, STDOUT, or None: the program's own


class Pipe:
    """One end of a pipe, or of a terminal, whose other end is the container's process's. The base of the two Streams."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._read_already = b""  # by readline, or one that was called off, and not returned yet

    def fileno(self) -> int:
        """The descriptor, which does not block; -1 once it is closed."""
        return self._fd

    def close(self) -> None:
        """Closes it. Who reads the other end then reads its end."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def detach(self) -> int:
        """The descriptor, which is somebody else's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def reading(self, size: int = -1) -> Operation[bytes]:
        """As Stream.read."""
        if size == 0:
            return b""
        parts: list[bytes] = []
        try:
            while size < 0 or not parts:
                part = yield from self._part(PIECE if size < 0 else size)
                if not part:
                    break
                parts.append(part)
        except BaseException:
            self._read_already = b"".join(parts)  # for whoever reads next
            raise
        return b"".join(parts)

    def reading_line(self) -> Operation[bytes]:
        """As Stream.readline."""
        line = b""
        try:
            while part := (yield from self._part(PIECE)):
                line += part
                at = line.find(b"\n") + 1
                if at:
                    line, self._read_already = line[:at], line[at:]
                    break
        except BaseException:
            self._read_already = line
            raise
        return line

    def _part(self, size: int) -> Operation[bytes]:
        """What there is next, up to `size` bytes; nothing at the end."""
        if self._read_already:
            part, self._read_already = self._read_already[:size], self._read_already[size:]
            return part
        while self._fd >= 0:
            try:
                return os.read(self._fd, size)
            except BlockingIOError:
                yield Wait(read=(self._fd,))
            except OSError:
                break  # EIO: nobody has the terminal open any more
        return b""

    def writing(self, data: bytes) -> Operation[None]:
        """As Stream.write."""
        left = memoryview(data)
        while left:
            if self._fd < 0:
                raise ValueError("the stream is closed")
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:
                yield Wait(write=(self._fd,))

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)


class Master(Pipe):
    """The program's end of a container's terminal. The base of the two Terminals."""

    def resize(self, rows: int, columns: int) -> None:
        """Gives the terminal another size, of which its programs are told by SIGWINCH: ioctl_tty(2)."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def size(self) -> tuple[int, int]:
        """(rows, columns)"""
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(self._fd, termios.TIOCGWINSZ, bytes(8)))
        return rows, columns


class Console:
    """A socket to which the command connects, and the process sends its terminal, as engines have it: --console-socket."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="rundlet-")
        self.path = self.folder + "/console"
        self._server = socket.socket(socket.AF_UNIX)
        try:
            self._server.bind(self.path)
            self._server.listen(1)
            self._server.setblocking(False)
        except BaseException:
            self.close()
            raise

    def receive(self) -> int:
        """The terminal's descriptor, once the command has ended well. Raises Fault when none was sent."""
        try:
            peer, _ = self._server.accept()
        except BlockingIOError:
            raise Fault("the container's process did not hand out its terminal") from None
        with peer:
            peer.setblocking(False)
            try:
                return take_master(peer.fileno(), peer)
            except BlockingIOError:
                raise Fault("the container's process did not hand out its terminal") from None

    def close(self) -> None:
        """Removes it."""
        self._server.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Stdio:
    """What becomes descriptor 0, 1, 2 and so on of a process, and what of it is the program's."""

    def __init__(self, asked: Sequence[Given], more: Sequence[int] = ()) -> None:
        """Opens what has to be opened for `asked`: stdin, stdout, stderr. Raises ValueError for what cannot be given."""
        self.fds: list[int] = []
        self.ends = [-1, -1, -1]  # of each pipe the program's
        self._theirs: list[int] = []
        self._open = [_is_open(number) for number in range(3)]  # before anything else is
        try:
            for number, given in enumerate(asked):
                self.fds.append(self._place(number, given))
            for fd in more:
                os.fstat(fd)
        except BaseException:
            self.close(True)
            raise
        self.fds += more

    def _place(self, number: int, given: Given) -> int:
        if given is None:
            return number if self._open[number] else self._null()
        if not isinstance(given, int):
            return given.fileno()
        if given == PIPE:
            reading, writing = map(aside, os.pipe2(os.O_CLOEXEC))
            place, self.ends[number] = (reading, writing) if number == 0 else (writing, reading)
            self._theirs.append(place)
            return place
        if given == DEVNULL:
            return self._null()
        if given == STDOUT and number == 2:
            return self.fds[1]
        if given < 0:
            raise ValueError("STDOUT is for stderr alone" if given == STDOUT else f"there is no descriptor {given}")
        os.fstat(given)
        return given

    def _null(self) -> int:
        fd = aside(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        self._theirs.append(fd)
        return fd

    def close(self, all: bool = False) -> None:
        """Closes what is the process's alone; with `all` our ends too."""
        for fd in self._theirs + ([end for end in self.ends if end >= 0] if all else []):
            os.close(fd)
        self._theirs = []
        if all:
            self.ends = [-1, -1, -1]

    def take(self, number: int) -> int:
        """Our end of a pipe, for somebody else to close; -1 where there is none."""
        end, self.ends[number] = self.ends[number], -1
        return end


def aside(fd: int) -> int:
    """The descriptor, moved where nobody takes it for stdin, stdout or stderr: some programs have none."""
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def collecting(fds: dict[int, list[bytes]], feed: int, data: bytes) -> Operation[None]:
    """Reads from each descriptor to its end, into its list, and meanwhile writes `data` to `feed`, which is then closed, if it is not -1.

    All are closed whatever happens.
    """
    open_ = set(fds)
    left = memoryview(data)
    try:
        for fd in (*fds, *([feed] if feed >= 0 else [])):
            os.set_blocking(fd, False)
        while open_ or feed >= 0:
            if feed >= 0:
                try:
                    while left:
                        left = left[os.write(feed, left) :]
                except BlockingIOError:
                    pass
                except BrokenPipeError:
                    left = memoryview(b"")  # it reads no more
                if not left:
                    os.close(feed)
                    feed = -1
            for fd in list(open_):
                try:
                    if part := os.read(fd, PIECE):
                        fds[fd].append(part)
                        continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass  # EIO: the end of a terminal
                os.close(fd)
                open_.discard(fd)
            if open_ or feed >= 0:
                yield Wait(read=tuple(open_), write=(feed,) if feed >= 0 else ())
    finally:
        for fd in (*open_, *([feed] if feed >= 0 else [])):
            os.close(fd)
