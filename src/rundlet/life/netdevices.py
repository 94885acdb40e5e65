"""Network devices of the host: looked at before anything is made, moved into the container, moved back when what follows fails."""

import posix
from _socket import socket
from posix import O_CLOEXEC, O_RDONLY

from rundlet import kernel
from rundlet.errors import BadSpec, Refused, StepFailed
from rundlet.executor import client
from rundlet.jsontext import escape
from rundlet.life import process
from rundlet.plan import netdevices as plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.executor.client import Executor
    from rundlet.plan.stages import Plan
    from rundlet.spec.types import Config

    Devices = tuple[tuple[plan.Device, str], ...]


def look(config: "Config") -> "Devices":
    """The devices asked for as they are on the host, each with its name in the container. Raises BadSpec and Refused."""
    path = next((space["path"] for space in config["linux"]["namespaces"] if space["type"] == "network"), None)
    if path is not None:
        _refuse_own(path)
    found = []
    talk = socket(plan.AF_NETLINK, plan.SOCK_RAW, plan.NETLINK_ROUTE)
    try:
        for name, wanted in config["linux"]["netDevices"].items():
            where = f"/linux/netDevices/{escape(name)}"
            talk.send(plan.ask_link(name))
            answer = talk.recv(1 << 16)
            error = plan.error(answer)
            if error == kernel.ERRNO["ENODEV"]:
                raise BadSpec(where, "there is no such network device on the host: `ip link` lists those that there are")
            if error:
                raise BadSpec(where, f"cannot look at the network device: {posix.strerror(error).lower()}")
            device = plan.link(answer, name)
            talk.send(plan.ask_addresses())
            addresses: "tuple[bytes, ...]" = ()
            while True:
                answer = talk.recv(1 << 16)
                addresses += plan.addresses(answer, device.index)
                if plan.done(answer):
                    break
            found.append((plan.Device(name, device.index, device.up, addresses), wanted["name"]))
    finally:
        talk.close()
    return tuple(found)


def _refuse_own(path: str) -> None:
    """A namespace joined by path may be the runtime's own, where there is nothing to move."""
    try:
        one, other = posix.stat(path), posix.stat("/proc/self/ns/net")
    except OSError:
        return  # joining it will say what is wrong with it
    if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
        raise Refused(
            f"/linux/netDevices: unable to move network devices without a NET namespace: {path} is the host's",
            "give the container a network namespace of its own",
        )


class Movers:
    """A helper of the host's with a socket in its network namespace and one in the container's."""

    def __init__(self, plan_: "Plan", devices: "Devices") -> None:
        self.steps = plan_.stage("network devices")
        self.devices = devices
        self.moved = 0  # so many devices may be in the container
        self.helper: "Executor | None" = None

    def move(self, pid: int) -> None:
        """Carries the stage out for the container whose first process is `pid`. Raises StepFailed."""
        inside = posix.open(f"/proc/{pid}/ns/net", O_RDONLY | O_CLOEXEC)
        host = posix.open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)
        try:
            self.helper = client.spawn({"netns": inside, "hostns": host})
        finally:
            posix.close(inside)
            posix.close(host)
        for step in self.steps:
            try:
                self.helper.run((step,))
            except StepFailed as failed:
                raise _told(failed, step.hint) from None
            self.moved += step.kind == plan.FREE

    def back(self) -> None:
        """Undoes move(), however far it came. The helper keeps the namespace, so that it is there still."""
        if self.helper:
            try:
                for step in plan.move_back(self.devices[: self.moved]):
                    self.helper.run((step,))
            finally:
                self.close()

    def close(self) -> None:
        """The container has its devices."""
        if self.helper:
            process.end(self.helper)
            self.helper = None


def _told(failed: StepFailed, hint: str) -> StepFailed:
    """What the kernel said in an answer, which is no system call's errno."""
    if failed.call != "value":
        return failed
    why = posix.strerror(failed.errno)
    hints = [hint] if hint else []
    if failed.errno == kernel.ERRNO["EPERM"]:
        hints.append("it takes CAP_NET_ADMIN on the host, and over the container's network namespace")
    return StepFailed(failed.step, "rtnetlink", failed.errno, f"{failed.step}: rtnetlink: {why[:1].lower()}{why[1:]}", hints)
