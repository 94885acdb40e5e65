"""What runs in the process that api/work.py starts: one command, on behalf of a program that is not to be disturbed by it.

Commands have their process to themselves: signals undo them, they lock and wait, they set the mask of modes and wait for children. So
each runs in one of its own, and what comes of it is written down, not printed.

    descriptors   0, 1, 2 …    the container's, as the command's own would be
                  count        the request, a JSON text in a memfd
                  count + 1    where the report goes: {"pid"} once there is a process, then {"status", "fault", "warnings", …},
                               each a line of JSON
                  count + 2    the socket of the executor that becomes the process (executor/given.py), or nothing
                  count + 3 …  texts that options name as /proc/self/fd/N
"""

import posix
import sys
from _signal import SIG_DFL, SIGCHLD, signal
from _socket import socket

from rundlet import jsontext, log
from rundlet.cli import denied
from rundlet.errors import Fault
from rundlet.executor import given
from rundlet.life import process, store
from rundlet.options import VERBS, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rundlet.executor.client import Executor

# of the caller's surroundings, not of the container's: sd_listen_fds(3), sd_notify(3)
CALLERS = (b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES", b"NOTIFY_SOCKET", b"RUN_OCI_SECCOMP_RECEIVER")
UNDONE = ("create", "run", "exec", "start")  # when they are called off; others are waited for


def run() -> None:
    """The program: never returns. Its argument is `count`."""
    count = fd = int(sys.argv[1])
    try:
        while True:
            posix.set_inheritable(fd, False)
            fd += 1
    except OSError:
        pass  # that was the last one
    signal(SIGCHLD, SIG_DFL)  # as in cli.py
    for name in CALLERS:
        posix.environ.pop(name, None)
    report = {"bug": "it did not come to an end"}
    try:
        report = carry_out(jsontext.loads(store.read(f"/proc/self/fd/{count}"), "request"), count)  # type: ignore[arg-type]
    finally:
        tell(count + 1, report)
        posix._exit(0)


def tell(fd: int, report: "dict[str, Any]") -> None:
    """Writes a line of JSON."""
    text = jsontext.dumps(report).encode() + b"\n"
    while text:
        text = text[posix.write(fd, text) :]


def carry_out(request: "dict[str, Any]", count: int) -> "dict[str, Any]":
    """Does what is requested; the report."""
    warnings: "list[str]" = []
    log.told = warnings.append
    sys.path += request["folders"]
    options = Options()
    options.__dict__.update(request["options"])
    if request["executor"]:
        it = given.Given(request["executor"], count, request["sealed"])
        control = socket(fileno=count + 2)

        def spawn(passed: "dict[str, int]", keep: int) -> "Executor":
            executor = given.take(it, control, passed)
            # at once: it leaves the executor's group only when it is sent more
            executor.told = lambda pid: tell(count + 1, {"pid": pid})
            return executor

        options.spawn = spawn
    report: "dict[str, Any]" = {"warnings": warnings}
    try:
        module = request["module"] or VERBS[options.verb][0]
        __import__(module)
        if options.verb in UNDONE:
            process.interruptible()
        else:
            process.uninterruptible()  # it does not take long, and half of it would be neither done nor undone
        report["status"] = sys.modules[module].main(options)
        report["answer"] = options.answer
        process.uninterruptible()
    except Fault as fault:
        report["fault"] = written(fault)
        report["denied"] = denied(options.verb, fault)
    except KeyboardInterrupt:
        report["interrupted"] = True
    except Exception as bug:
        from traceback import format_exc

        report["bug"] = f"{type(bug).__name__}: {bug}"
        report["trace"] = format_exc()
    try:
        process.uninterruptible()
    except KeyboardInterrupt:
        report["interrupted"] = True
    return report


def written(fault: Fault) -> "dict[str, Any]":
    """A fault as JSON: its kind, and what it knows."""
    known = {name: value for name, value in vars(fault).items() if name != "outs"}
    return {"kind": type(fault).__name__, "status": fault.status, "known": known}
