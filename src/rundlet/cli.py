"""From the words of the command line to an exit status.

Each verb is a module with

    def main(options: "Options") -> int: ...

which returns the exit status and raises Fault for whatever the user must be told. Only that module is imported. What remains
is here: where errors go, and which status they become.
"""

import posix
import sys
from _signal import SIG_DFL, SIGCHLD, signal

from rundlet import log
from rundlet.errors import BadSpec, Fault, Usage, WrongState
from rundlet.options import VERBS, Options, parse

INTERRUPTED = 130  # 128 + SIGINT, as a shell says it
NO_READER = 141  # 128 + SIGPIPE
KILLED_BY_FILTER = 159  # 128 + SIGSYS
# commands whose status 1 says something else than that they failed. exec: every status but 255 is its command's own, as with the peers
FAILED = {"exec": 255, "verify": 2, "denials": 2, "watch": 2, "matrix": 2, "profile": 2, "lab": 125}
STARTING = ("create", "run", "start", "exec")


def run() -> None:
    """The program: never returns. Leaves without tearing the interpreter down, which costs a tenth of a start."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _open_standard()
    signal(SIGCHLD, SIG_DFL)  # a caller that ignores it would have our children lost to us: sigaction(2), "SA_NOCLDWAIT"
    options = Options()
    status = main(sys.argv[1:], options)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = NO_READER
    except OSError as failure:
        log.error(f"cannot write the output: {(failure.strerror or '').lower()}")
        status = status or FAILED.get(options.verb, 1)
    posix._exit(status)


def _open_standard() -> None:
    """Sees to it that descriptors 0, 1 and 2 are open, so that nothing which is opened later is taken for one of them."""
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError:
            posix.set_inheritable(posix.open("/dev/null", posix.O_RDWR), True)  # the lowest number that is free is this one
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115  # open for as long as we are
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False, encoding="utf-8")  # noqa: SIM115


def main(argv: list[str], options: "Options | None" = None) -> int:
    """Do what `argv` (without the program's name) asks, which `options` tell afterwards; the exit status. Raises nothing."""
    options = options or Options()
    try:
        try:
            parse(argv, options)
        finally:
            known = log.setup(options.log, options.log_format == "json", "debug" if options.debug else options.log_level)
        if not known:
            raise Usage(f"option --log takes a file, or file:PATH, journald:ID or syslog:NAME, not {options.log!r}")
        if options.version or options.help:
            return _about(options)
        log.debug(f"{options.verb} {options.id}")
        module = VERBS[options.verb][0]
        if module[:13] != "rundlet.life.":
            _take_time()
        __import__(module)
        options.failed = lambda pid, status: _tell_of_program(options, pid, status)
        status: int = sys.modules[module].main(options)
        return status
    except Fault as fault:
        log.error(str(fault))
        for line in denied(options.verb, fault):
            log.to_stderr(line)
        return FAILED.get(options.verb, fault.status)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return NO_READER
    except Exception as bug:
        log.error(f"internal error: {type(bug).__name__}: {bug} (at {_place(bug)})")
        if log.debugging:
            sys.excepthook(type(bug), bug, bug.__traceback__)
        return FAILED.get(options.verb, 1)


def denied(verb: str, fault: Fault) -> list[str]:
    """At most two more lines about a command that failed, where the kernel has denied something to the processes that it started.

    For stderr alone: in the log the error is all that engines expect. And if that fails, the error has been told already.
    """
    if verb not in STARTING or isinstance(fault, BadSpec | Usage | WrongState):
        return []
    try:
        from rundlet.life import kernellog

        lines = kernellog.lately("the executor" in fault.message)
        if lines:
            from rundlet.confine.denials import lately

            return lately.two(lately.of_command(lines))
    except (Exception, KeyboardInterrupt):
        pass
    return []


def _tell_of_program(options: Options, pid: int, status: int) -> None:
    """At most two lines about a container's program that failed, as denied() has them about a command: of the container for certain."""
    try:
        from rundlet.life import kernellog

        # what it started, which has ended too, was numbered after it, unless the numbers began anew
        lines = kernellog.lately(status == KILLED_BY_FILTER, range(pid, 1 << 31), kernellog.SHORTLY)
        if lines:
            from rundlet.confine.denials import lately

            for line in lately.two(lately.of_container(lines, options, pid)):
                log.to_stderr(line)
    except (Exception, KeyboardInterrupt):
        pass


def _take_time() -> None:
    """For a command that may run for long: collects garbage, which the start has switched off."""
    import gc

    gc.enable()


def _about(options: Options) -> int:
    if options.version:
        from rundlet import OCI_VERSION, __version__, commit

        text = f"rundlet version {__version__}\ncommit: {commit()}\nspec: {OCI_VERSION}\n"
    else:
        from rundlet.cliref import help_text

        text = help_text(options.verb)
    sys.stdout.write(text)
    return 0


def _place(bug: BaseException) -> str:
    """The innermost line of the traceback: file:line."""
    trace = bug.__traceback__
    if trace is None:
        return "unknown place"
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    return f"{file[file.rfind('/rundlet/') + 1:]}:{trace.tb_lineno}"
