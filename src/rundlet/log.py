"""What rundlet tells: errors to stderr and to the log, warnings and debug lines where they do no harm.

An engine reads the JSON log of a failed command, and podman takes the whole file for one object. So nothing but the error goes
into a JSON log, unless --debug asks for more. Warnings go into a text log; without a log, to stderr if that is a terminal
(elsewhere stderr is the container's own output, or an engine reads it together with stdout).
"""

import posix
import time

debugging = False  # whether debug() says anything
_file: str | None = None
_json = False


def setup(file: str | None, json: bool, debug: bool) -> None:
    """Say where lines go. The file is opened when the first one is written: most commands write none."""
    global _file, _json, debugging
    _file, _json, debugging = file, json, debug


def error(text: str) -> None:
    """The one line that says why the command failed: to stderr, and to the log if there is one."""
    to_stderr(text)
    if _file is not None:
        _append(_file, "error", text)


def warning(text: str) -> None:
    """Something the user should know, which does not fail the command."""
    if _file is None:
        if debugging or posix.isatty(2):
            to_stderr("warning: " + text)
    elif debugging or not _json:
        _append(_file, "warning", text)


def debug(text: str) -> None:
    """A line for --debug alone."""
    if not debugging:
        return
    if _file is None:
        to_stderr("debug: " + text)
    else:
        _append(_file, "debug", text)


def stamp(ns: int | None = None) -> str:
    """A time as RFC 3339 with nanoseconds in UTC, as OCI's `created` and the logs have it. `ns`: since the epoch; None is now."""
    seconds, fraction = divmod(time.time_ns() if ns is None else ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09}Z"


def to_stderr(text: str) -> None:
    """One line on stderr; a closed stderr is nobody's concern. Names from an image may hold line ends and terminal controls: escaped."""
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    try:
        posix.write(2, f"rundlet: {text}\n".encode())
    except OSError:
        pass


def _append(file: str, level: str, text: str) -> None:
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
