"""The processes in a container's cgroups: list, freeze, thaw and signal all."""

from posix import O_CLOEXEC, O_RDONLY, close, kill, lseek, open, read
from time import monotonic, sleep

from rundlet.cgroup.file import failed, read_file, write_file
from rundlet.cgroup.place import Dir, Place, chief, find
from rundlet.cgroup.tree import below, pids_of
from rundlet.errors import Refused, StepFailed
from rundlet.kernel import ENODEV, ENOENT, EOPNOTSUPP, ESRCH, ETIMEDOUT

SIGKILL = 9


def pids(place: Place) -> "list[int]":
    """The processes in the container's cgroup and all below it, as this PID namespace numbers them; none when it is gone."""
    at = chief(place)
    return pids_of(at.path) if at else []


def frozen(place: Place) -> bool:
    """Whether the container's processes are stopped by the freezer, of their own cgroup or an outer one."""
    at = find(place, "freezer")
    if at is None:
        return False
    if at.version == 1:
        return read_file(f"{at.path}/freezer.state").strip() not in ("", "THAWED")
    # the first tells of outer cgroups too, the second while not all have stopped yet
    return "frozen 1" in read_file(f"{at.path}/cgroup.events") or read_file(f"{at.path}/cgroup.freeze").strip() == "1"


def freeze(place: Place, timeout: float = 5.0) -> None:
    """Stops every process of the container, and waits until they are, `timeout` seconds at most.

    Raises Refused when there is no freezer, StepFailed when it does not come to an end; then they run again.
    """
    at = find(place, "freezer")
    if at is None:
        todo = "mount the freezer of cgroup v1, or cgroup v2"
        raise Refused("cannot freeze the container: no freezer in the cgroup hierarchies of this host", todo)
    done = _freeze_v1(at.path, timeout) if at.version == 1 else _freeze_v2(at.path, timeout)
    if not done:
        thaw(place)
        path = f"{at.path}/{'freezer.state' if at.version == 1 else 'cgroup.freeze'}"
        raise failed("freeze the container", "write", path, OSError(ETIMEDOUT, ""), f"not all stopped within {timeout:g} seconds")


def thaw(place: Place) -> None:
    """Lets the processes run again. What the container itself has frozen in sub-cgroups stays frozen. Raises StepFailed."""
    at = find(place, "freezer")
    if at is not None:
        _thaw(at)


def let_die(place: Place) -> None:
    """Thaws a container that a SIGKILL was sent to: cgroup v1 keeps a frozen process from dying, v2 does not. Raises StepFailed."""
    at = find(place, "freezer")
    if at is not None and at.version == 1 and frozen(place):
        _thaw_tree(at)


def release(place: Place, pid: int) -> None:
    """Moves a process out of a frozen cgroup of v1, where it could not die. Raises StepFailed."""
    at = find(place, "freezer")
    if at is not None and at.version == 1:
        _set(f"release process {pid}", f"{at.mount}/cgroup.procs", str(pid))


def signal_all(place: Place, signo: int) -> None:
    """Sends a signal to every process of the container, those of its sub-cgroups too; they cannot outrun it by forking.

    SIGKILL reaches frozen ones as well: v1 has to thaw them for it. Another signal leaves them frozen, and they handle it when they
    are thawed (on v2 one that is fatal ends them at once). No process is fine. Raises StepFailed when the kernel refuses the signal.
    """
    at = chief(place)
    if at is None:
        return
    if signo == SIGKILL and at.version == 2 and _kill_v2(at):
        freezer = find(place, "freezer")
        if freezer is not None and freezer.version == 1:
            _thaw_tree(freezer)  # v1 keeps a frozen process from dying
        return
    froze = False
    if not frozen(place):
        try:
            freeze(place, 0.5)
            froze = True
        except (Refused, StepFailed):
            pass  # one that sleeps uninterruptibly keeps the rest from being frozen, not from being signalled
    try:
        _signal(pids(place), signo)
    finally:
        if signo == SIGKILL:
            freezer = find(place, "freezer")
            if freezer is not None:
                _thaw_tree(freezer)
        elif froze:
            thaw(place)
    if signo == SIGKILL:
        # had freezing failed, a process might have forked between the reading and the signal
        for _ in range(10):
            left = pids(place)
            if not left:
                break
            _signal(left, signo)
            sleep(0.001)


def _signal(targets: "list[int]", signo: int) -> None:
    for pid in targets:
        try:
            kill(pid, signo)
        except OSError as e:
            if e.errno != ESRCH:
                raise failed("signal the container's processes", "kill", str(pid), e) from None


def _kill_v2(at: Dir) -> bool:
    """cgroup.kill, which takes whole trees, frozen ones too, at once; false before 5.14, and of threaded cgroups, which cannot."""
    try:
        write_file(f"{at.path}/cgroup.kill", "1")
    except OSError as e:
        if e.errno == EOPNOTSUPP:
            return False
        if e.errno == ENOENT or e.errno == ENODEV:
            return not pids_of(at.path)
        raise failed("kill the container's processes", "write", f"{at.path}/cgroup.kill", e) from None
    return True


def _freeze_v1(path: str, timeout: float) -> bool:
    """FREEZING becomes FROZEN when it is read after the last one stopped: cgroup-v1/freezer-subsystem.rst.

    Freezing again reaches those forked meanwhile, and a pause now and then those that wait for one that is frozen.
    """
    state = f"{path}/freezer.state"
    deadline = monotonic() + timeout
    turn = 0
    while True:
        turn += 1
        if turn % 50 == 0:
            _set("freeze the container", state, "THAWED")
            sleep(0.01)
        _set("freeze the container", state, "FROZEN")
        if read_file(state).strip() == "FROZEN":
            return True
        if monotonic() > deadline:
            return False
        sleep(0.001)


def _freeze_v2(path: str, timeout: float) -> bool:
    from select import POLLPRI, poll

    _set("freeze the container", f"{path}/cgroup.freeze", "1")
    deadline = monotonic() + timeout
    try:
        fd = open(f"{path}/cgroup.events", O_RDONLY | O_CLOEXEC)
    except OSError as e:
        raise failed("freeze the container", "open", f"{path}/cgroup.events", e) from None
    try:
        watch = poll()
        watch.register(fd, POLLPRI)
        while b"frozen 1" not in read(fd, 256):
            left = deadline - monotonic()
            if left <= 0:
                return False
            watch.poll(max(1, int(1000 * left)))
            lseek(fd, 0, 0)
        return True
    finally:
        close(fd)


def _thaw(at: Dir) -> None:
    name, text = ("freezer.state", "THAWED") if at.version == 1 else ("cgroup.freeze", "0")
    _set("thaw the container", f"{at.path}/{name}", text)


def _thaw_tree(at: Dir) -> None:
    """Thaws a cgroup and all below it; those that are gone are fine."""
    name, text = ("freezer.state", "THAWED") if at.version == 1 else ("cgroup.freeze", "0")
    try:
        write_file(f"{at.path}/{name}", text)
        for fd, inner in below(at.path):
            write_file(f"{inner}/{name}", text, fd)
    except OSError as e:
        if e.errno not in (ENOENT, ENODEV):
            raise failed("thaw the container", "write", f"{at.path}/{name}", e) from None


def _set(what: str, path: str, text: str) -> None:
    try:
        write_file(path, text)
    except OSError as e:
        raise failed(what, "write", path, e) from None
