"""The processes of a cgroup, and the cgroups below it: a container that may write its cgroups can nest them deeper than a path is long."""

from posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, close, fstat, open, read, scandir

from rundlet.kernel import ENODEV, ENOENT, EOPNOTSUPP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC


def below(top: str) -> "Iterator[tuple[int, str]]":
    """Every cgroup below the directory `top`, inner ones before outer: (descriptor of its parent, name).

    The descriptor is open until the next one is asked for. One descriptor is held whatever the depth. Nothing when `top` is not there.
    """
    try:
        here = open(top, DIRECTORY)
    except FileNotFoundError:
        return
    try:
        names: "list[str]" = []
        todo = [_children(here)]
        while todo:
            if todo[-1]:
                name = todo[-1].pop()
                try:
                    inner = open(name, DIRECTORY, dir_fd=here)
                except FileNotFoundError:
                    continue
                close(here)
                here = inner
                names.append(name)
                todo.append(_children(here))
                continue
            todo.pop()
            if names:
                outer = open("..", DIRECTORY, dir_fd=here)
                close(here)
                here = outer
                yield here, names.pop()
    finally:
        close(here)


def pids_of(top: str, hidden: bool = False) -> "list[int]":
    """The processes of a cgroup and of all below it, as this PID namespace numbers them; none when it is not there.

    `hidden`: those that it does not see, too, each as 0.
    """
    found = _pids(top)
    try:
        for fd, name in below(top):
            found += _pids(name, fd)
    except OSError as e:
        if e.errno not in (ENOENT, ENODEV):  # removed under way
            raise
    return found if hidden else [pid for pid in found if pid]


def open_procs(path: str, dir_fd: "int | None" = None) -> int:
    """A descriptor of the list of processes of a cgroup, -1 when it is not there."""
    try:
        return open(f"{path}/cgroup.procs", O_RDONLY | O_CLOEXEC, dir_fd=dir_fd)
    except OSError as e:
        if e.errno in (ENOENT, ENODEV):
            return -1
        raise


def _pids(path: str, dir_fd: "int | None" = None) -> "list[int]":
    fd = open_procs(path, dir_fd)
    if fd < 0:
        return []
    parts = []
    try:
        while part := read(fd, 1 << 16):
            parts.append(part)
    except OSError as e:
        if e.errno == EOPNOTSUPP:
            from rundlet.cgroup import threaded

            return threaded.processes(path, dir_fd)
        if e.errno != ENODEV:
            raise
    finally:
        close(fd)
    return [*map(int, b"".join(parts).split())]


def _children(fd: int) -> "list[str]":
    # kernfs counts two links and one for each directory in it; most cgroups have none, but fifty files to list
    if fstat(fd).st_nlink == 2:
        return []
    with scandir(fd) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
