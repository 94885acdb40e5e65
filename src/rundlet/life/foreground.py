"""Waiting for a process of a container in the foreground: signals go to it, the terminal goes through us, its status is ours."""

import posix
from _signal import SIG_BLOCK, SIG_DFL, SIG_SETMASK, pidfd_send_signal, pthread_sigmask, set_wakeup_fd, signal, sigwait

from rundlet import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.life.console import Foreground
    from rundlet.life.notify import Notify

# not passed on: those that tell of us and not to us, and those that nobody can catch
OURS = ("CHLD", "KILL", "STOP", "URG", "PIPE", "SEGV", "BUS", "ILL", "FPE", "TTIN", "TTOU")
CHLD = kernel.SIGNALS["CHLD"]
PASSED_ON = set(range(1, 65)) - {kernel.SIGNALS[name] for name in OURS} - {32, 33}  # the last two are glibc's own
AWAITED = PASSED_ON | {CHLD}


class Signals:
    """From now on signals wait and are not obeyed: made before the process runs, so that the first one is passed on as well."""

    def __init__(self) -> None:
        self._before = pthread_sigmask(SIG_BLOCK, AWAITED)
        self._handled = False

    def next(self) -> int:
        """The number of the next one: one that is to be passed on, or SIGCHLD."""
        number: int = sigwait(AWAITED)
        return number

    def noted(self) -> int:
        """A descriptor from which the numbers of those to be passed on can be read: for who waits for more than signals."""
        self._handled = True
        fd, write = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in AWAITED:
            signal(number, _note)
        pthread_sigmask(SIG_SETMASK, self._before)
        return fd

    def close(self) -> None:
        """Signals have their usual effect again."""
        if self._handled:
            set_wakeup_fd(-1)
            for number in AWAITED:
                signal(number, SIG_DFL)
        pthread_sigmask(SIG_SETMASK, self._before)


def wait(pid: int, signals: Signals, terminal: "Foreground | None", notify: "Notify | None" = None) -> int:
    """Waits for a child to end, passing on every signal that came or comes; its exit status, or 128 + the signal that ended it.

    `notify`: what the container says of itself is passed on as well.
    """
    try:
        status = _polling(pid, signals, terminal, notify) if terminal or notify else _alone(pid, signals)
    finally:
        signals.close()
    code = posix.waitstatus_to_exitcode(status)
    if terminal:
        terminal.drain()
    return code if code >= 0 else 128 - code


def _alone(pid: int, signals: Signals) -> int:
    """Without a terminal there is nothing to do but to wait for signals, one of which tells that the child has ended."""
    while True:
        ended, status = posix.waitpid(-1, posix.WNOHANG)
        if ended == pid:
            return status
        if ended:
            continue  # an orphan: subreaper.py
        number = signals.next()
        if number != CHLD:
            posix.kill(pid, number)  # it is our child and not waited for, so the number is its own


def _note(number: int, frame: object) -> None:
    """The number arrives through the wakeup descriptor; a handler must be there for that."""


def _polling(pid: int, signals: Signals, terminal: "Foreground | None", notify: "Notify | None") -> int:
    from select import POLLIN, poll

    noted = signals.noted()
    pidfd = posix.pidfd_open(pid)
    waiting = poll()
    waiting.register(pidfd, POLLIN)
    waiting.register(noted, POLLIN)
    if terminal:
        terminal.register(waiting)
    if notify:
        waiting.register(notify, POLLIN)
    while True:
        # the end last: what was said before it is passed on
        for fd, events in sorted(waiting.poll(), key=lambda event: event[0] == pidfd):
            if fd == noted:
                for number in posix.read(noted, 256):
                    if number == CHLD:
                        _bury(pid)
                    else:
                        _pass_on(pidfd, number, terminal)
            elif fd == pidfd:
                return posix.waitpid(pid, 0)[1]
            elif notify and fd == notify.fileno():
                notify.move(posix.getpid())  # whoever started us waits for us
            elif terminal:
                terminal.move(fd, events, waiting)


def _bury(pid: int) -> None:
    """Reaps orphans that have ended (subreaper.py), but not the child that is waited for."""
    while ended := posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT):
        if ended.si_pid == pid:
            return
        posix.waitpid(ended.si_pid, 0)


def _pass_on(pidfd: int, number: int, terminal: "Foreground | None") -> None:
    if terminal and number == kernel.SIGNALS["WINCH"]:
        terminal.resize()
        return
    try:
        pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        pass  # it has ended: that is what we wait for
