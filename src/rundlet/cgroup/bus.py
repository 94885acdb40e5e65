"""D-Bus to a manager of systemd: a connection, calls with their answers, and the end of a job.

Sources: the D-Bus specification, "Authentication Protocol"; org.freedesktop.systemd1(5).
"""

from _socket import AF_UNIX, SO_PEERCRED, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket
from posix import geteuid, getpid
from time import monotonic

from rundlet.cgroup import dbus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
PATH = "/org/freedesktop/systemd1"
BUS = "org.freedesktop.DBus"
PATIENCE = 30.0  # seconds for an answer, or for the end of a job: as runc


class BusError(Exception):
    """An answer that is an error: its `name`, such as org.freedesktop.DBus.Error.AccessDenied, and its `message`; or none came."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{message} ({name})" if message else name)
        self.name = name
        self.message = message


class Bus:
    """A connection to `address`, "unix:path=…": a message bus, or systemd itself where the path ends in /systemd/private."""

    def __init__(self, address: str) -> None:
        """Raises OSError when nobody is there, BusError when they do not take us."""
        self.address = address
        self.inbox = dbus.Inbox()
        self.serial = 0
        self.name = ""  # ours on the bus
        self.ended: "dict[str, str]" = {}  # jobs that are done: path → result
        try:
            path = dbus.place(address)
        except ValueError:
            raise BusError("unsupported address", address) from None
        self.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(path)
            self._authenticate()
            if not address.endswith("/systemd/private"):
                self.name = str(self._ask("Hello"))
                rule = f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}',member='JobRemoved',path='{PATH}'"
                self._ask("AddMatch", rule)
        except BaseException:
            self.socket.close()
            raise

    def close(self) -> None:
        """Hangs up."""
        self.socket.close()

    def _authenticate(self) -> None:
        """We are who the kernel says that we are: by number, but not from a user namespace, whose numbers tell nobody else.

        All in one piece, as sd-bus does it: systemd's own server overlooks a message that comes together with a late BEGIN.
        """
        name = f" {str(geteuid()).encode().hex()}" if _initial() else "\r\nDATA"
        self.socket.sendall(f"\0AUTH EXTERNAL{name}\r\nBEGIN\r\n".encode())
        answer = self._line()
        if answer == b"DATA":
            answer = self._line()
        if answer[:3] != b"OK ":
            raise BusError("not authenticated", answer.decode(errors="replace"))

    def _line(self) -> bytes:
        line = b""
        while line[-2:] != b"\r\n" and len(line) < 1024:
            more = self.socket.recv(1)
            if not more:
                raise BusError("not authenticated", "the connection was closed")
            line += more
        return line[:-2]

    def call(
        self, member: str, signature: str = "", *body: object, interface: str = MANAGER, path: str = PATH, destination: str = SYSTEMD,
    ) -> "tuple[Any, ...]":
        """The answer to a call. Raises BusError."""
        fields = {dbus.PATH: path, dbus.DESTINATION: destination, dbus.INTERFACE: interface, dbus.MEMBER: member}
        if signature:
            fields[dbus.SIGNATURE] = signature
        self.serial += 1
        serial = self.serial
        deadline = monotonic() + PATIENCE
        try:
            self.socket.sendall(dbus.call(serial, fields, body))
            while True:
                message = self._message(deadline)
                if message.fields.get(dbus.REPLY_SERIAL) == serial:
                    break
        except (OSError, ValueError) as e:
            raise BusError("no answer", f"{member}: {_why(e)}") from None
        if message.kind == dbus.ERROR:
            text = message.body[0] if message.body and isinstance(message.body[0], str) else ""
            raise BusError(str(message.fields.get(dbus.ERROR_NAME)), text)
        return message.body

    def _message(self, deadline: float) -> dbus.Message:
        """The next message; of signals the ends of jobs are noted. Raises OSError, and ValueError for what cannot be read."""
        while (message := self.inbox.next()) is None:
            self.socket.settimeout(max(deadline - monotonic(), 0.001))
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionResetError(0, "the connection was closed")
            self.inbox.add(more)
        if message.kind == dbus.SIGNAL and message.fields.get(dbus.MEMBER) == "JobRemoved":
            _, job, _, result = message.body
            self.ended[str(job)] = str(result)
        return message

    def _ask(self, member: str, *words: str) -> "Any":
        """The answer of the message bus itself. Raises BusError."""
        body = self.call(member, "s" * len(words), *words, interface=BUS, path="/org/freedesktop/DBus", destination=BUS)
        return body[0] if body else None

    def shares_pids(self) -> bool:
        """Whether the other side numbers processes as we do: pid_namespaces(7). Raises BusError."""
        if self.name:
            return bool(self._ask("GetConnectionUnixProcessID", self.name) == getpid())
        return self.socket.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4] != bytes(4)

    def property(self, name: str) -> "Any":
        """A property of the manager. Raises BusError."""
        return self.call("Get", "ss", MANAGER, name, interface="org.freedesktop.DBus.Properties")[0][1]

    def result(self, job: str) -> str:
        """How a job of ours ended, once it has: "done", or why not. Raises BusError when it does not in PATIENCE seconds."""
        deadline = monotonic() + PATIENCE
        try:
            while job not in self.ended:
                self._message(deadline)
        except (OSError, ValueError) as e:
            raise BusError("no answer", f"the job does not end: {_why(e)}") from None
        return self.ended.pop(job)


def _why(failure: "OSError | ValueError") -> str:
    return str(failure.strerror or failure).lower() if isinstance(failure, OSError) else str(failure)


def _initial() -> bool:
    """Whether user ids are the host's own: user_namespaces(7)."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", "4294967295"]
