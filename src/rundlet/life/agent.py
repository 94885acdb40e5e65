"""The seccomp agent: another program that decides about system calls of a container, by the listener that it is handed.

config-linux.md, "Seccomp" and "The Container Process State"; seccomp_unotify(2). Imported only for a filter that has such an agent.
"""

import posix

from rundlet import OCI_VERSION, jsontext
from rundlet.errors import Fault
from rundlet.life import sockets, store
from rundlet.plan import seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from rundlet.life.store import Record
    from rundlet.plan.step import Step
    from rundlet.spec.types import Config


def connect(config: "Config") -> "socket | None":
    """A connection to the agent of a configuration that has a filter; None where no listener is wanted.

    Raises BadSpec and Refused for what cannot be handed over, Fault when nobody listens.
    """
    path = seccomp.receiver(config, posix.environ.get(seccomp.VARIABLE, b"").decode("utf-8", "surrogateescape"))
    if not path:
        return None
    try:
        return sockets.connect(path, "socket")
    except Fault as fault:
        raise Fault(f"failed to connect with seccomp agent specified in the seccomp profile: {fault}") from None


def telling(steps: "tuple[Step, ...]", config: "Config", record: "Record", pid: int, status: str) -> "tuple[Step, ...]":
    """The last steps of process `pid` with the container process state, which goes to the agent together with the listener."""
    section = config["linux"]["seccomp"]
    state: "dict[str, object]" = {"ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": pid}
    if section is not None and section["listenerMetadata"]:
        state["metadata"] = section["listenerMetadata"]
    state["state"] = store.state(record, status)
    return seccomp.telling(steps, jsontext.dumps(state))
