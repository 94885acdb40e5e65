"""The lab: an AppArmor kernel in an emulated machine over this machine's own root, for checks that this machine's kernel cannot do."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rundlet.errors import Refused
from rundlet.lab import cache, guest, initramfs, machine, modules, needs, systemd
from rundlet.lab import kernel as kernels
from rundlet.lab.progress import PREFIX, Progress

TIMED_OUT = 124  # as timeout(1)
FAILED = 125  # the lab itself failed, as env(1), chroot(1) and docker(1) say it


class Stopped(BaseException):
    """A signal asks the lab to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into Stopped within the body, once; a second one must not cut the cleaning up short."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    # What the caller has ignored (nohup, a shell's background job) stays ignored.
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in asked if signal.getsignal(number) is not signal.SIG_IGN]

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _kernel(file: str | None, suite: str, kept: Path, progress: Progress) -> kernels.Kernel:
    """The user's kernel in `file` if given, else that of `suite`, made ready in the cache `kept`."""
    try:
        return kernels.of_file(file, kept, progress) if file is not None else kernels.of_suite(suite, kept, progress)
    finally:
        progress.clear()


def _fill(folder: Path, chosen: kernels.Kernel, init: str | None, cwd: str, env: dict[str, str], command: list[str]) -> None:
    """Put what the guest reads into the run's `folder`: initramfs and share/; `init` is the systemd to be PID 1, if one is."""
    loaded = modules.in_order(chosen.modules) if chosen.modules else []
    (folder / "initramfs").write_bytes(initramfs.build(Path(needs.static_busybox()), loaded))
    share = folder / "share"
    share.mkdir()
    (share / "setup").write_text(guest.SETUP)
    (share / "run").write_text(guest.RUN)
    (share / "settings").write_text(guest.settings(str(chosen.modules) if chosen.modules else None, init))
    if init:
        systemd.fill(share)
    (share / "command").write_bytes(guest.command_script(command, cwd, env))


def _status(outcome: machine.Outcome, folder: Path, timeout: float, progress: Progress) -> int:
    """The lab's exit status for `outcome`; says on stderr why when the command had none of its own."""
    if outcome.status is not None:
        return outcome.status
    if outcome.why == "timeout":
        progress.note(f"the command did not end within {timeout:g} seconds")
        return TIMED_OUT
    progress.note(outcome.why)
    for line in machine.last_words(folder / "qemu.log"):
        sys.stderr.write(f"  qemu: {line}\n")
    for line in machine.last_words(folder / "console"):
        sys.stderr.write(f"  console: {line}\n")
    return FAILED


def main(
    kernel: str | None, suite: str, timeout: float, env: dict[str, str], command: list[str], memory: int = 2048, append: str = "",
    with_systemd: bool = False,
) -> int:
    """Boot an AppArmor kernel over this machine's root, run `command` as root in the working directory, and return its exit status.

    `kernel` is a vmlinux or bzImage of the user's own, else Debian's kernel of `suite` ("bookworm" or "backports") is fetched once and
    kept. `timeout` is in seconds from the command's start (0: none), `env` is added to a plain environment, `memory` is the guest's in
    MiB, `append` are more words for the kernel's command line; `with_systemd`: this machine's systemd is PID 1.
    The command's stdout and stderr are passed on as they come; its stdin is /dev/null; nothing that it writes survives.
    Returns 124 after a timeout, 125 when the lab itself failed (said on stderr), 128 + N when signal N (SIGINT, SIGTERM, SIGHUP) ended it.
    """
    try:
        with _stoppable():
            needs.check(os.uname().machine, os.geteuid())
            cwd = needs.working_directory()
            if lacking := needs.missing(needs.TO_BOOT if kernel is not None else needs.TO_BOOT + needs.TO_FETCH):
                sys.stderr.writelines(f"{PREFIX}{line}\n" for line in lacking)
                return FAILED
            init = needs.systemd() if with_systemd else None
            kept = cache.folder()
            progress = Progress()
            chosen = _kernel(kernel, suite, kept, progress)
            with cache.run_folder(kept) as folder:
                _fill(folder, chosen, init, cwd, env, command)
                progress.say(f"booting linux {chosen.release}", brief=True)
                outcome = machine.run_guest(chosen.vmlinux, folder, timeout, memory, progress, append)
                return _status(outcome, folder, timeout, progress)
    except Stopped as stopped:
        return 128 + stopped.number
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except (Refused, OSError) as problem:
        sys.stderr.write(f"{PREFIX}{problem}\n")
        return FAILED
