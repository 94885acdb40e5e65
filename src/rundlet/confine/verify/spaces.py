"""Namespaces that a process is in beside those of its container: whose are they? ioctl_nsfs(2)."""

import os
from fcntl import ioctl
from typing import TYPE_CHECKING

from rundlet.confine.verify.observe import NS_FILES
from rundlet.kernel import NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Mapping

NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE = 0xB701, 0xB702, 0xB703
DEEPEST = 33  # user namespaces in each other: user_namespaces(7)


def host() -> dict[str, str]:
    """Those of verify itself, which runs on the host."""
    found = {}
    for kind, file in NS_FILES.items():
        try:
            found[kind] = os.readlink(f"/proc/self/ns/{file}")
        except FileNotFoundError:
            continue
    return found


def at(path: str, kind: str) -> str | None:
    """The namespace that a path of the configuration leads to, as readlink says it; None where there is none any more."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if ioctl(fd, NS_GET_NSTYPE) != NAMESPACES[kind]:
            return None
        return f"{NS_FILES[kind]}:[{os.fstat(fd).st_ino}]"
    except OSError:
        return None
    finally:
        os.close(fd)


def descent(
    folder: int, below: str, spaces: "Mapping[str, str]", container: "Mapping[str, str]", host_: "Mapping[str, str]",
) -> dict[str, str]:
    """Of the namespaces of a thread that are not the container's, each as readlink says it: "inside", "outside", or "either" where the
    kernel does not tell. `below` is the thread's directory in the process's, `folder`.

    A user namespace is inside when the container's is above it. Another kind belongs to a user namespace, and is inside when that is
    the container's own or one below it. Where the container has the host's user namespace, its root makes what belongs to that one, as
    others on the host do.
    """
    found = {}
    own = container.get("user", "")
    for kind, live in spaces.items():
        if live == container.get(kind) or live == host_.get(kind):
            continue
        found[live] = "either"
        try:
            fd = os.open(f"{below}ns/{NS_FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            continue
        try:
            owner = _above(fd) if kind == "user" else ioctl(fd, NS_GET_USERNS)
            if owner < 0:
                found[live] = "outside"
                continue
            first, within = _chain(owner, own)
            if own == host_.get("user"):
                found[live] = "inside" if kind == "user" or first == spaces.get("user") != own else "either" if first == own else "outside"
            else:
                found[live] = "inside" if within else "outside"
        except OSError:
            pass  # a kernel before 4.9
        finally:
            os.close(fd)
    return found


def _above(fd: int) -> int:
    """The parent of a user namespace; -1 where it is not below our own."""
    try:
        return ioctl(fd, NS_GET_PARENT)
    except PermissionError:
        return -1


def _chain(fd: int, wanted: str) -> tuple[str, bool]:
    """The name of a user namespace, and whether it is the wanted one or below it. Closes the descriptor."""
    first = ""
    for _ in range(DEEPEST):
        name = f"user:[{os.fstat(fd).st_ino}]"
        first = first or name
        if name == wanted:
            os.close(fd)
            return first, True
        up = _above(fd)
        os.close(fd)
        if up < 0:
            return first, False
        fd = up
    os.close(fd)
    return first, False
