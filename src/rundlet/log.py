"""What rundlet tells: errors to stderr and to the log, warnings and debug lines where they do no harm.

The log is a file, `file:PATH`, `journald:ID` (systemd's journal, with the field ID) or `syslog:NAME`, as crun has it.

An engine reads the JSON log of a failed command, and podman takes the whole file for one object. So nothing but the error goes
into a JSON log, unless --debug asks for more. Warnings go into a text log; without a log, to stderr if that is a terminal
(elsewhere stderr is the container's own output, or an engine reads it together with stdout).
"""

import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

JOURNAL, SYSLOG = "/run/systemd/journal/socket", "/dev/log"
KINDS = ("file", "journald", "syslog")
PRIORITY = {"error": 3, "warning": 4, "debug": 7}  # syslog(3)
debugging = False  # whether debug() says anything
told: "Callable[[str], None] | None" = None  # where warnings go instead, in a process that is not the command's own
warned = False  # whether there was a warning, said or not
_warns = True
_file: str | None = None
_json = False


def setup(file: str | None, json: bool, level: str) -> bool:
    """Say where lines go, and which: a value of --log-level. The file is opened when the first one is written: most commands write none.

    False when it is no place that lines can go to.
    """
    global _file, _json, _warns, debugging
    kind, colon, _ = (file or "").partition(":")
    known = not colon or "/" in kind or kind in KINDS
    _file, _json, _warns, debugging = file if known else None, json, level != "error", level in ("debug", "trace")
    return known


def error(text: str) -> None:
    """The one line that says why the command failed: to stderr, and to the log if there is one."""
    to_stderr(text)
    if _file is not None:
        _append(_file, "error", text)


def warning(text: str, loud: bool = False) -> None:
    """Something the user should know, which does not fail the command.

    Without a log it is for people: said to a terminal, and elsewhere only where it is `loud`, since engines read stderr of some commands.
    """
    global warned
    warned = True
    if told:
        told(text)
        return
    if not _warns:
        return
    if _file is None:
        if loud or debugging or posix.isatty(2):
            to_stderr("warning: " + text)
    elif debugging or not _json:
        _append(_file, "warning", text)


def debug(text: str) -> None:
    """A line for --debug alone."""
    if not debugging:
        return
    if _file is None:
        to_stderr("level=debug " + text)  # the words that people look for, who know runc
    else:
        _append(_file, "debug", text)


def stamp(ns: int | None = None) -> str:
    """A time as RFC 3339 with nanoseconds in UTC, as OCI's `created` and the logs have it. `ns`: since the epoch; None is now."""
    seconds, fraction = divmod(time.time_ns() if ns is None else ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09}Z"


def to_stderr(text: str) -> None:
    """One line on stderr; a closed stderr is nobody's concern. Names from an image may hold line ends and terminal controls: escaped."""
    try:
        posix.write(2, f"rundlet: {_printable(text)}\n".encode())
    except OSError:
        pass


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _append(file: str, level: str, text: str) -> None:
    kind, colon, name = file.partition(":")
    if colon and kind in ("journald", "syslog"):
        _send(kind, name, level, _printable(text))
        return
    if colon and kind == "file":
        file = name
    from _json import encode_basestring_ascii as quote  # the words of a path may be no UTF-8: escaped, a reader takes any

    if _json:
        line = f'{{"level":"{level}","msg":{quote(text)},"time":"{stamp()}"}}\n'
    else:
        line = f'time="{stamp()}" level={level} msg={quote(text)}\n'
    try:
        fd = posix.open(file, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC, 0o644)
        try:
            posix.write(fd, line.encode())  # one write: O_APPEND keeps lines of concurrent commands whole
        finally:
            posix.close(fd)
    except OSError as failure:
        to_stderr(f"cannot write to the log {file}: {(failure.strerror or '').lower()}")


def _send(kind: str, name: str, level: str, text: str) -> None:
    """To the journal (systemd.io/JOURNAL_NATIVE_PROTOCOL) or the system log (syslog(3), facility LOG_USER)."""
    from _socket import SOCK_DGRAM, socket

    if kind == "journald":
        message = f"PRIORITY={PRIORITY[level]}\nSYSLOG_IDENTIFIER=rundlet\nID={_printable(name)}\nMESSAGE={text}\n"
    else:
        message = f"<{1 << 3 | PRIORITY[level]}>{name or 'rundlet'}[{posix.getpid()}]: {text}"
    try:
        made = socket(1, SOCK_DGRAM)  # AF_UNIX
        made.sendto(message.encode(), JOURNAL if kind == "journald" else SYSLOG)
        made.close()
    except OSError as failure:
        to_stderr(f"cannot write to the log {kind}:{name}: {(failure.strerror or '').lower()}")
