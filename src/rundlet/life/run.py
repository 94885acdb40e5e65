"""rundlet run: create, start, and in the foreground wait for the end, passing on signals and the terminal."""

import posix

from rundlet import kernel
from rundlet.errors import Fault
from rundlet.life import bundle, create, deciding, delete, foreground, kept, process, sockets, start, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.console import Foreground
    from rundlet.life.notify import Notify
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
        except BaseException:
            if front:
                front.restore()
            _reap(pid)
            if container.exists():
                if "apparmor" in container.record:
                    container.record["apparmor"]["remove"] = True  # a run that fails leaves nothing behind
                delete.delete(container, True)
            raise
    finally:
        container.close()
    if signals:
        return _wait(options, pid, signals, front, told)
    if told:
        told.ready(pid)
    return 0


def _wait(
    options: "Options", pid: int, signals: "foreground.Signals", front: "Foreground | None", told: "Notify | None",
) -> int:
    try:
        status = foreground.wait(pid, signals, front, told)
    finally:
        if front:
            front.restore()
    if status and options.failed:
        options.failed(pid, status)
    if not options.keep:
        container = store.find(options)
        try:
            delete.delete(container, True)
        finally:
            container.close()
    return status


def _reap(pid: int) -> None:
    try:
        posix.kill(pid, kernel.SIGKILL)
        posix.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


