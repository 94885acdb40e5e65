"""rundlet run: create, start, and in the foreground wait for the end, passing on signals and the terminal."""

import posix

from rundlet import kernel
from rundlet.errors import Fault, WrongState
from rundlet.life import bundle, create, deciding, delete, foreground, kept, process, sockets, start, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.console import Foreground
    from rundlet.life.notify import Notify
    from rundlet.life.store import Container, Record
    from rundlet.options import Options


def main(options: "Options") -> int:
    """The verb; the status is the container's own, 128 + the signal that ended it, or 0 when detached."""
    path = bundle.folder(options)
    config, text, known = deciding.load(options)
    terminal = config["process"]["terminal"]
    if options.console_socket and not terminal:
        raise Fault("--console-socket is given, but process.terminal is false")
    if terminal and options.detach and not options.console_socket:
        raise Fault("process.terminal is true: for a container that is not in the foreground, use --console-socket")
    front = None
    console = -1
    held = None
    if terminal and not options.console_socket:
        from rundlet.life.console import Foreground

        front = Foreground()
        console = front.socket
        config["process"]["consoleSize"] = config["process"]["consoleSize"] or front.size()
    elif terminal:
        held = sockets.connect(options.console_socket or "", "console socket")  # in the foreground, too, as crun has it
        console = held.fileno()
    if not (options.detach or options.no_subreaper or any(s["type"] == "pid" for s in config["linux"]["namespaces"])):
        from rundlet.life import subreaper

        subreaper.adopt()
    new = create.Creation(options, config, text, path, console, True, known)
    container = new.build()
    signals = told = None
    try:
        pid = container.record["pid"]
        try:
            process.interruptible()
            told = start.notified(container)
            if not options.detach:
                signals = foreground.Signals()
            if front:
                front.receive()
            start.start(container)
            kept.store(new, container.last)
        except BaseException as first:
            if front:
                front.restore()
            _reap(pid)
            try:
                _leave_nothing(options, container)
            except (Fault, OSError) as second:
                if isinstance(first, Fault):
                    first.cleanup.append(str(second))
            raise
    finally:
        container.close()
    if signals:
        return _wait(options, container.record, signals, front, told)
    if told:
        told.ready(pid)
    return 0


def _leave_nothing(options: "Options", container: "Container") -> None:
    """Of a run that has failed."""
    if options.pid_file:
        try:
            posix.unlink(options.pid_file)
        except FileNotFoundError:
            pass
    if container.exists():
        if "apparmor" in container.record:
            container.record["apparmor"]["remove"] = True
        delete.delete(container, True)


def _wait(
    options: "Options", record: "Record", signals: "foreground.Signals", front: "Foreground | None", told: "Notify | None",
) -> int:
    pid = record["pid"]
    try:
        status = foreground.wait(pid, signals, front, told)
    finally:
        if front:
            front.restore()
    if status and options.failed:
        options.failed(pid, status)
    if not options.keep:
        _remove(options, record)
    return status


def _remove(options: "Options", record: "Record") -> None:
    """Removes the container, which has ended, unless somebody has done it; what has its name by now is another."""
    try:
        container = store.find(options)
    except WrongState:
        return
    try:
        if container.damaged or (container.complete and store.same(container.record, record)):
            delete.delete(container, True)
    finally:
        container.close()


def _reap(pid: int) -> None:
    try:
        posix.kill(pid, kernel.SIGKILL)
        posix.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    except PermissionError:
        pass  # a confined runtime may lack a rule for it: the cgroup of the container asks for none


