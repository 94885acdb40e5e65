"""rundlet kill: a signal for the container's first process, or with --all for every process of it."""

import posix

from rundlet import jsontext, kernel
from rundlet.cgroup import place, tasks
from rundlet.errors import Usage, WrongState
from rundlet.life import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.store import Container
    from rundlet.options import Options


def main(options: "Options") -> int:
    """The verb."""
    number = signal_number(options.args[0]) if options.args and options.args[0] else kernel.SIGTERM  # an empty one is none: runc
    if options.regex:
        from rundlet.life import matching

        return matching.each(options, lambda one: _kill(one, number))
    _kill(options, number)
    return 0


def _kill(options: "Options", number: int) -> None:
    container = store.find(options)
    try:
        record = container.record
        at = place.load(record["cgroup"] if record["pid"] else [])  # until there is a process, who is in there is another's
        left = store.alive(record) or bool(at.dirs and tasks.pids(at))
        if options.all:
            # of a container without a PID namespace processes may be left when the first has ended; where none is, that is no fault: runc
            if left:
                everyone(container, at, number)
        elif number == kernel.SIGKILL and left and at.dirs and _shares_pids(container):
            # the kernel ends the others with the first process only where that is the first of a PID namespace: as with runc all go
            everyone(container, at, number)
        else:
            _one(container, at, number)
            if number == kernel.SIGKILL:
                tasks.let_die(at)
    finally:
        container.close()


def _shares_pids(container: "Container") -> bool:
    """Whether the container has no PID namespace that was made for it."""
    config = jsontext.loads(container.config(), "config.json")
    spaces = (config.get("linux") or {}).get("namespaces") or []  # type: ignore[attr-defined]  # checked at create
    return not any(space["type"] == "pid" and not space.get("path") for space in spaces)


def _one(container: "Container", at: "place.Place", number: int) -> None:
    record = container.record
    try:
        pidfd = store.pidfd(record["pid"]) if record["pid"] else -1
    except ProcessLookupError:
        pidfd = -1
    if pidfd < 0:
        raise WrongState("container not running")
    try:
        if not store.alive(record):
            raise WrongState("container not running")
        send(pidfd, number)
    except ProcessLookupError:
        raise WrongState("container not running") from None
    except PermissionError as e:
        from rundlet.life import denied

        if number != kernel.SIGKILL or not denied.kill(container, at):
            raise denied.signal(record, number, e.errno or 0) from None
    finally:
        posix.close(pidfd)


def send(pidfd: int, number: int) -> None:
    """Sends a signal to the very process behind a pidfd; raises ProcessLookupError when it has ended."""
    from _signal import pidfd_send_signal

    pidfd_send_signal(pidfd, number)


def everyone(container: "Container", at: "place.Place", number: int) -> None:
    """Signals every process of the container: those in its cgroup, and the first where it has none."""
    if not at.dirs:
        _one(container, at, number)
        return
    from rundlet.life import denied

    denied.signal_all(container.record, at, number)


def signal_number(text: str) -> int:
    """A signal by number or by name, with or without SIG, in any case; RTMIN+n and RTMAX-n too. Raises Usage."""
    if text.isascii() and text.isdigit():
        number = int(text) if len(text) < 4 else -1
    else:
        name = text.upper().removeprefix("SIG")
        base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
        number = kernel.SIGNALS.get(base, -1)
        if sign and number >= 0:
            number = number + int(sign + offset) if base in ("RTMIN", "RTMAX") and offset.isascii() and offset.isdigit() else -1
    if not 0 <= number <= 64:
        raise Usage(f"unknown signal {text}; give a number from 1 to 64 or a name such as TERM")
    return number
