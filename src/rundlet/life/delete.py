"""rundlet delete: removes what is left of a container; with --force also one that runs, or that was never completed."""

import posix
from time import monotonic, sleep

from rundlet import kernel, log
from rundlet.cgroup import files, place, tasks
from rundlet.errors import Fault, StepFailed, WrongState
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.store import Container, Record
    from rundlet.options import Options

PATIENCE = 10.0  # seconds for killed processes to be gone; uninterruptible ones may take their time
MOMENT = 3.0  # seconds for one that ends by itself


def main(options: "Options") -> int:
    """The verb."""
    if options.regex:
        from rundlet.life import matching

        return matching.each(options, _one)
    _one(options)
    return 0


def _one(options: "Options") -> None:
    try:
        container = store.find(options)
    except WrongState:
        if options.force:
            return  # as the peers: what is asked for holds
        raise
    try:
        delete(container, options.force)
    finally:
        container.close()


def delete(container: "Container", force: bool) -> None:
    """Removes a locked container: its processes, its cgroup, its folder. Raises WrongState when it runs and `force` is not given."""
    if not container.complete:
        if not force:
            raise WrongState(f"container {container.folder.rpartition('/')[2]} was never completed; remove it with delete --force")
        if container.damaged or container.unit():
            _salvage(container)
        container.remove()
        return
    record = container.record
    at = place.load(record["cgroup"])
    now = store.status(record)
    if now not in ("stopped", "creating", "created") and not force:
        raise WrongState(f"cannot delete container {record['id']} that is not stopped: {now}; stop it first, or give --force")
    if not record["pid"]:
        at = _unclaimed(record, at)
    end(record, at)
    if "systemd" in record:
        from rundlet.life import systemd

        systemd.stop(record["systemd"])
    if at.dirs:
        files.remove(at, PATIENCE)
    if "rdt" in record:
        from rundlet.life import rdt

        rdt.remove(record["rdt"])
    _poststop(container, record)
    if "apparmor" in record:
        from rundlet.life import preload

        preload.release(record, container.folder)
    container.remove()


def _unclaimed(record: "Record", at: "place.Place") -> "place.Place":
    """Of a create that was cut off before its process was known, the cgroups that are its own, or nobody's: the process ends by itself
    with whoever was making it, so what stays in there is another's, and so are the cgroups."""
    deadline = monotonic() + MOMENT
    while left := tasks.pids(at):
        if monotonic() > deadline:
            log.warning(f"the cgroup of {record['id']} is left as it is: it was never its own, and is used by {' '.join(map(str, left))}")
            return place.Place(())
        sleep(0.005)
    return at


def _salvage(container: "Container") -> None:
    """Of a container whose record is damaged, what its unit or its configuration tells: its cgroups, and so its processes."""
    from rundlet import spec
    from rundlet.cgroup import layout

    name = container.folder.rpartition("/")[2]
    unit = container.unit()
    if unit:
        at = place.load(unit["cgroup"])
    else:
        at = place.place(layout.read(), spec.load(container.config())[0]["linux"]["cgroupsPath"], name)
    tasks.signal_all(at, kernel.SIGKILL)
    if unit:
        from rundlet.life import systemd

        systemd.stop(unit["systemd"])
    files.remove(at, PATIENCE)


def end(record: "Record", at: "place.Place") -> None:
    """Kills whatever is left of a container, and waits until its first process is gone."""
    pidfd = -1
    refused = 0
    if record["pid"]:
        try:
            pidfd = store.pidfd(record["pid"])
        except ProcessLookupError:
            pass
    try:
        if pidfd >= 0 and store.alive(record):
            from _signal import pidfd_send_signal

            try:
                pidfd_send_signal(pidfd, kernel.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError as e:  # its cgroup asks no security module
                refused = e.errno or 0
        if at.dirs and tasks.pids(at):
            from rundlet.life import denied

            denied.signal_all(record, at, kernel.SIGKILL)
        elif refused and store.alive(record):
            from rundlet.life import denied

            raise denied.signal(record, kernel.SIGKILL, refused)
        if pidfd >= 0 and store.alive(record):
            _wait(pidfd, at, record["pid"])
    finally:
        if pidfd >= 0:
            posix.close(pidfd)


def _wait(pidfd: int, at: "place.Place", pid: int) -> None:
    from select import POLLIN, poll

    waiting = poll()
    waiting.register(pidfd, POLLIN)
    if waiting.poll(250):
        return
    # somebody may have put processes into a frozen cgroup of v1 that is not the container's: out of it they can die
    for one in {pid, *tasks.pids(at)}:
        try:
            tasks.release(at, one)
        except StepFailed as failed:
            log.debug(str(failed))
    if not waiting.poll(PATIENCE * 1000):
        raise Fault(f"the container's first process does not end within {PATIENCE:.0f} seconds of being killed; the kernel log may say why")


def _poststop(container: "Container", record: "Record") -> None:
    """The poststop hooks of a container that hooks may have been told of."""
    try:
        text = container.config()
        if (b'"poststop"' not in text and b"\\u" not in text) or record["phase"] == "creating":  # a key may be written with escapes
            return
        from rundlet import spec

        asked = spec.load(text)[0]["hooks"]["poststop"]
    except (OSError, Fault) as e:
        log.warning(f"the poststop hooks are not known: {e}")
        return
    from rundlet.life import hooks

    hooks.stopped(asked, record)
