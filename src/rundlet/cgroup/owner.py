"""Cgroups of v2 given to the container: their owner, and a sub-cgroup to manage."""

from errno import EPERM
from posix import chown, geteuid, mkdir

from rundlet.cgroup import files
from rundlet.cgroup.file import failed, read_file
from rundlet.cgroup.place import Dir, Place

# cgroup-v2.rst, "Model of Delegation"; a kernel without the list has these
LEAST = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")


def give(at: Dir, uid: int, gid: int = -1) -> None:
    """Gives a cgroup, and those of its files that a delegatee may write, to a user; -1 leaves the group. Raises StepFailed.

    The files are those of /sys/kernel/cgroup/delegate, limits not among them; one that the cgroup has not is passed over. A runtime
    without privilege keeps what it may not give: the specification leaves it free to.
    """
    names = read_file("/sys/kernel/cgroup/delegate").split() or LEAST
    for path in (at.path, *(f"{at.path}/{name}" for name in names if "/" not in name)):
        try:
            chown(path, uid, gid)
        except FileNotFoundError:
            pass
        except OSError as e:
            if e.errno == EPERM and geteuid():
                return
            raise failed("give the container its cgroup", "chown", path, e) from None


def settle(place: Place, path: str, pid: int, owner: "tuple[int, int]") -> None:
    """Makes the sub-cgroup `path` of the container's cgroup of v2, gives it to the (uid, gid), and moves the process there.

    Raises StepFailed. It is removed with the container's cgroup.
    """
    at = place.dirs[-1]
    here = at.path
    for part in path.split("/"):
        here = f"{here}/{part}"
        try:
            mkdir(here, 0o755)
        except FileExistsError:
            pass
        except OSError as e:
            raise failed("make the delegated cgroup", "mkdir", here, e) from None
    below = Dir(here, at.mount, 2, at.controllers)
    give(below, *owner)
    files.join(Place((below,)), pid)
