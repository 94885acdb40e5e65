"""Namespaces to be joined by path: are they what the configuration says they are, and not the host's where that would harm it?

Looking is not joining: the executor opens the paths anew, and the kernel compares the kind again, setns(2). A path such as
/proc/self/fd/7 names a descriptor that the caller has left open for us; it may be a pidfd too, which stands for the process's namespace.
"""

import posix
from fcntl import ioctl
from posix import O_CLOEXEC, O_NONBLOCK, O_RDONLY

from rundlet import kernel as k
from rundlet.errors import BadSpec, Refused, StepFailed
from rundlet.life.store import read
from rundlet.plan import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Config, Namespace

NS_GET_NSTYPE = 0xB703  # ioctl_nsfs(2)
FILES = {"network": "net", "mount": "mnt"}  # those that /proc/PID/ns calls otherwise


def check(config: "Config") -> None:
    """Raises BadSpec for a path that leads to no namespace of its type, or to the host's where something of it is to be changed."""
    for index, space in enumerate(config["linux"]["namespaces"]):
        if space["path"] is not None and _is_hosts(space, space["path"], f"/linux/namespaces/{index}/path"):
            _spare_the_host(config, space["type"], f"/linux/namespaces/{index}/path")


def held(config: "Config") -> "dict[str, int]":
    """The descriptors of the caller's that are namespaces to be joined, by the slots of plan/namespaces.py; they stay the caller's."""
    named = {f"ns:{space['type']}": namespaces.descriptor(space["path"] or "") for space in config["linux"]["namespaces"]}
    return {slot: fd for slot, fd in named.items() if fd >= 0}


def groups_denied(config: "Config") -> bool:
    """Whether there is a user namespace to be joined that forbids setgroups(2), as one that a user has made for itself does.

    A helper joins it to see: the namespace of a path need not be any process's. Raises Refused where the configuration wants groups.
    """
    path = next((space["path"] for space in config["linux"]["namespaces"] if space["type"] == "user"), None)
    if path is None:
        return False
    from rundlet.executor import client
    from rundlet.life import process

    given = held(config)
    helper = client.spawn({"ns:user": given["ns:user"]} if "ns:user" in given else None)
    try:
        helper.run(namespaces.join({"user": path}))
        denied = read(f"/proc/{helper.pid}/setgroups").strip() == b"deny"
    except StepFailed:
        return False  # it cannot be joined, which the plan's own step tells in its place
    finally:
        process.end(helper)
    if denied and config["process"]["user"]["additionalGids"]:
        raise Refused(
            f"/process/user/additionalGids: the user namespace {path} forbids setgroups(2), so there can be no others",
            "leave them out, or join one whose groups are mapped from /etc/subgid",
        )
    return denied


def _process(path: str) -> "int | None":
    """The process that a descriptor of the runtime stands for, -1 where it has ended; None where it is no pidfd."""
    number = namespaces.descriptor(path)
    if number < 0:
        return None
    for line in read(f"/proc/self/fdinfo/{number}").splitlines():
        if line.startswith(b"Pid:"):
            return int(line.split()[1])
    return None


def _is_hosts(space: "Namespace", path: str, where: str) -> bool:
    """Whether it is the runtime's own."""
    try:
        pid = _process(path)
        if pid is not None:
            path = f"/proc/{pid}/ns/{FILES.get(space['type'], space['type'])}"
        fd = posix.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    except OSError as e:
        raise BadSpec(where, f"{path}: {(e.strerror or '').lower()}; is what the namespace belongs to still there?") from None
    try:
        found = ioctl(fd, NS_GET_NSTYPE)
        theirs = posix.fstat(fd)
    except OSError:
        raise BadSpec(where, f"{path} is not a namespace") from None
    finally:
        posix.close(fd)
    if found != k.NAMESPACES[space["type"]]:
        kind = next((name for name, number in k.NAMESPACES.items() if number == found), "other")
        raise BadSpec(where, f"{path} is a {kind} namespace, not a {space['type']} namespace")
    own = posix.stat(f"/proc/self/ns/{FILES.get(space['type'], space['type'])}")
    return (own.st_dev, own.st_ino) == (theirs.st_dev, theirs.st_ino)


def _spare_the_host(config: "Config", kind: str, where: str) -> None:
    """What is asked for a namespace that is the host's would be done to the host."""
    if kind == "mount":  # pivot_root(2) changes the root of every process in it
        raise BadSpec(where, "is the runtime's own mount namespace, whose root would be replaced: leave the mount namespace out")
    if kind == "user":
        raise BadSpec(where, "is the user namespace that the runtime is in already: leave it out")  # setns(2), EINVAL
    if kind == "uts" and (config["hostname"] or config["domainname"]):
        raise BadSpec(where, "is the host's uts namespace, whose name would be changed: remove /hostname and /domainname")
    prefixes = {"network": ("net/",), "ipc": ("kernel/msg", "kernel/sem", "kernel/shm", "fs/mqueue/"), "uts": ("kernel/domainname",)}
    for name in config["linux"]["sysctl"]:
        if name.startswith(prefixes.get(kind, ())):
            why = f"not allowed in the host's {kind} namespace: it would change the host"
            raise BadSpec(f"/linux/sysctl/{name.replace('/', '.')}", why)
