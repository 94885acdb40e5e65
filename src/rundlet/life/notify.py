"""NOTIFY_SOCKET: what a container says of being ready goes to whoever started the runtime. sd_notify(3).

    <root>/<id>/notify           bound read-only in the container, at the very path of the caller's socket
    <root>/<id>/notify/notify    the socket there: made by the command that waits, start or run

`start` and `run --detach` return when the container is ready, or has ended, and make its first process the main one of the service.
`run` in the foreground is the service's main process itself, and passes on whatever the container says as long as it runs.
"""

import posix
from _socket import SOCK_DGRAM
from _struct import pack
from select import POLLIN, poll

from rundlet import kernel, log
from rundlet.errors import Fault
from rundlet.life import sockets, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from rundlet.life.store import Container
    from rundlet.plan.bundle import Bundle
    from rundlet.spec.types import Config

INSIDE = "/run/notify"  # where the caller's socket has no path
NAME = "notify"
# what a container may say of itself; of descriptors and processes it knows other numbers, and who may notify is not its to say
ITS = {
    b"READY", b"RELOADING", b"STOPPING", b"STATUS", b"ERRNO", b"BUSERROR", b"EXIT_STATUS", b"MONOTONIC_USEC", b"WATCHDOG", b"WATCHDOG_USEC",
    b"EXTEND_TIMEOUT_USEC",
}
BARRIER = 30_000  # milliseconds, as long as systemd-notify(1) waits


def offer(config: "Config", bundle: "Bundle", folder: str) -> bool:
    """Adds to a configuration what the container needs to tell: the mount of a folder that is to be made in the container's `folder`, and
    the variable. False where the container has no mounts of its own."""
    if not any(space["type"] == "mount" for space in config["linux"]["namespaces"]):
        log.warning("NOTIFY_SOCKET: a container without a mount namespace cannot be given a socket; nobody is told that it is ready")
        return False
    source, inside = f"{folder}/notify", posix.environ[b"NOTIFY_SOCKET"].decode("utf-8", "surrogateescape")
    inside = inside if inside[:1] == "/" else INSIDE
    bundle.sources[len(config["mounts"])] = source, True
    config["mounts"].append({
        "destination": inside, "type": "bind", "source": source, "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
        "uidMappings": [], "gidMappings": [],
    })
    proc = config["process"]
    proc["env"] = [entry for entry in proc["env"] if entry[:14] != "NOTIFY_SOCKET="] + [f"NOTIFY_SOCKET={inside}/{NAME}"]
    return True


def listen(container: "Container") -> "Notify | None":
    """The socket that the container was offered; None when it was not."""
    try:
        return Notify(container)
    except FileNotFoundError:
        log.warning("NOTIFY_SOCKET: the container was created without one, and cannot tell when it is ready")
        return None


class Notify:
    """The socket of one container, and the way to the caller's."""

    def __init__(self, container: "Container") -> None:
        fd = posix.open("notify", posix.O_PATH | posix.O_CLOEXEC, dir_fd=container.fd)
        try:
            self._theirs = sockets.receive(fd, NAME)
        finally:
            posix.close(fd)
        self._ours: "socket | None" = None
        try:
            self._ours = sockets.connect(posix.environ[b"NOTIFY_SOCKET"].decode("utf-8", "surrogateescape"), "notify socket", SOCK_DGRAM)
        except Fault as fault:  # who does not listen is not told
            log.warning(str(fault))

    def fileno(self) -> int:
        """Where the container's messages arrive."""
        return self._theirs.fileno()

    def ready(self, pid: int) -> None:
        """Waits until the container says READY=1, and tells the caller that `pid` is the service's main process; or until that ends."""
        if self._ours is None:
            return
        try:
            pidfd = store.pidfd(pid)
        except ProcessLookupError:
            return
        waiting = poll()
        waiting.register(pidfd, POLLIN)
        waiting.register(self._theirs, POLLIN)
        try:
            while True:
                # the end last: it may have been the last thing that the process said
                for fd, _ in sorted(waiting.poll(), key=lambda event: event[0] == pidfd):
                    if fd == pidfd:
                        return
                    if self.move(pid):
                        self._barrier()
                        return
        finally:
            posix.close(pidfd)

    def move(self, pid: int) -> bool:
        """Passes one message on, `pid` as the main process where it says READY=1; whether it did."""
        lines = [line for line in self._theirs.recv(65536).split(b"\n") if line.partition(b"=")[0] in ITS]
        ready = b"READY=1" in lines
        if lines:
            self._send(b"\n".join(lines))
        if ready:
            self._send(b"MAINPID=%d" % pid)
        return ready

    def _send(self, text: bytes) -> None:
        try:
            if self._ours:
                self._ours.send(text)
        except OSError as e:
            log.warning(f"NOTIFY_SOCKET: {(e.strerror or '').lower()}")

    def _barrier(self) -> None:
        """Waits until the caller has read what was sent, since it may want to look at this very process meanwhile: sd_notify_barrier(3)."""
        read, write = posix.pipe2(posix.O_CLOEXEC)
        assert self._ours
        try:
            self._ours.sendmsg([b"BARRIER=1"], [(kernel.SOL_SOCKET, kernel.SCM_RIGHTS, pack("i", write))])
        except OSError:
            pass  # it is closed here in a moment, and so the barrier is passed
        posix.close(write)
        waiting = poll()
        waiting.register(read, POLLIN)
        if not waiting.poll(BARRIER):
            log.warning("NOTIFY_SOCKET: the caller does not answer the barrier")
        posix.close(read)
