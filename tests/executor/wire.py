"""A raw conversation with one executor: bytes out, answers in. It must never end by a signal."""

import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.bundles import PATIENCE
from tests.executor.model import ANSWER_SIZE, MAGIC, Answer


class Wire:
    """An executor that was started with a socket, and with nothing else but what `keep` names."""

    def __init__(self, binary: Path, runner: str = "", keep: Sequence[int] = (), cwd: str = "/") -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            words = [*([runner] if runner else []), str(binary), str(theirs.fileno())]
            self.process = subprocess.Popen(words, pass_fds=[theirs.fileno(), *keep], cwd=cwd, stdin=subprocess.DEVNULL)
            self.control = theirs.fileno()  # its number over there
        ours.settimeout(PATIENCE)
        self.socket = ours

    def send(self, text: bytes) -> None:
        self.socket.sendall(text)

    def answer(self) -> Answer:
        """The next answer; EOFError when the executor ended instead."""
        return read_answer(self.socket)

    def ask(self, text: bytes) -> Answer:
        self.send(text)
        return self.answer()

    def end(self) -> int:
        """Sends no more; how the executor then ends, a signal being a failure of the test."""
        self.socket.shutdown(socket.SHUT_WR)
        return self.status()

    def status(self) -> int:
        status = self.process.wait(PATIENCE)
        assert status >= 0, f"the executor was killed by signal {-status}"
        return status

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        assert status == 0 or kind, f"the executor ended with {status}"


def read_answer(source: socket.socket) -> Answer:
    """One answer from a socket; EOFError at its end."""
    raw = _exactly(source, ANSWER_SIZE)
    magic, at, error, count, out, zero = (int.from_bytes(raw[i : i + 4], "little") for i in range(0, 24, 4))
    assert (magic, zero) == (MAGIC, 0)
    raw = _exactly(source, 8 * count)
    slots = tuple(int.from_bytes(raw[8 * i : 8 * i + 8], "little", signed=True) for i in range(count))
    return Answer(at, error, slots, _exactly(source, out))


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        more = source.recv(size - len(parts))
        if not more:
            raise EOFError("the executor ended without an answer")
        parts += more
    return bytes(parts)
