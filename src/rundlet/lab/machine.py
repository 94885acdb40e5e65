"""The guest as a process: qemu started, its command's output passed on as it comes, its end explained."""

import os
import resource
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, Popen

from rundlet.lab.needs import program
from rundlet.lab.progress import Progress

POLL = 0.02  # seconds between looks at the output; the price is about a per cent of a CPU
BOOT_LIMIT = 300.0  # seconds; a boot takes 5 to 8, or five times that on a loaded machine

LAST_LINES = 15  # of the console, told when the guest died

# Self-tests of ciphers and probing for more serial ports cost a fifth of the CPU time of a boot.
APPEND = "console=ttyS0 quiet panic=-1 apparmor=1 mitigations=off cryptomgr.notests no_timer_check 8250.nr_uarts=1 random.trust_cpu=on"


@dataclass(frozen=True)
class Outcome:
    """How the guest ended: the command's exit `status`, or None and the reason `why` ("timeout" or a sentence)."""

    status: int | None
    why: str = ""


def command_line(kernel: Path, run: Path, memory: int, append: str = "") -> list[str]:
    """The argv of the emulator: `kernel` over this machine's root, files of the run in the folder `run`, `memory` in MiB.

    `append` are more words for the kernel's command line; of parameters given twice the kernel goes by the last.
    """

    def folder(tag: str, path: Path | str, options: str) -> list[str]:
        escaped = str(path).replace(",", ",,")
        return [
            "-fsdev", f"local,id={tag},path={escaped},security_model=none,multidevs=remap{options}",
            "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        ]  # fmt: skip

    words = [program("qemu-system-x86_64"), "-name", "rundlet-lab"]
    # KVM guests hang on machines whose own hypervisor lends it badly, a second vcpu costs more at boot than it brings, and
    # the machine type microvm hangs at random.
    words += ["-accel", "tcg,thread=multi", "-machine", "pc", "-cpu", "max,la57=off", "-smp", "1", "-m", str(memory)]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-monitor", "none"]
    words += ["-serial", f"file:{str(run / 'console').replace(',', ',,')}"]
    words += ["-kernel", str(kernel), "-initrd", str(run / "initramfs"), "-append", f"{APPEND} {append}".rstrip()]
    words += folder("host", "/", ",readonly=on") + folder("share", run / "share", "")
    # Without a lab there is no use for its guest, even if the lab had no chance to end it (SIGKILL).
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", *words] if setpriv else words


class Stream:
    """Passes what is appended to the file `path` on to the file descriptor `fd`."""

    def __init__(self, path: Path, fd: int) -> None:
        self.source = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.fd = fd

    def pump(self) -> None:
        """Write all there is by now. Raises BrokenPipeError when nobody reads it any more."""
        while chunk := os.read(self.source, 1 << 16):
            while chunk:
                chunk = chunk[os.write(self.fd, chunk) :]

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.source)


def last_words(path: Path) -> list[str]:
    """The last lines with text of the file `path`, from a kernel panic on if there was one; empty if there is no such file."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    panic = next((number for number, line in enumerate(lines) if "Kernel panic" in line), len(lines))
    return lines[min(panic, max(len(lines) - LAST_LINES, 0)) :]


def run_guest(kernel: Path, run: Path, timeout: float, memory: int, progress: Progress, append: str = "") -> Outcome:
    """Boot the guest and wait for its command's end, passing its output on to this process' stdout and stderr.

    `run` holds initramfs and share/ (guest.SETUP, command, settings). `timeout` is in seconds from the command's start, 0 for none;
    `memory` in MiB, `append` as in command_line(). The emulator is ended before this returns or raises.
    """
    share = run / "share"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:  # the 9p server holds a descriptor for each file that the guest has open
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.stdout.flush()
    streams = [Stream(share / "stdout", 1), Stream(share / "stderr", 2)]
    try:
        with open(run / "qemu.log", "wb") as log:
            process = Popen(command_line(kernel, run, memory, append), stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            return watch(process, share, streams, timeout, progress)
        finally:
            process.kill()
            process.wait()
            progress.clear()
    finally:
        for stream in streams:
            stream.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def watch(process: "Popen[bytes]", share: Path, streams: list[Stream], timeout: float, progress: Progress) -> Outcome:
    """Pass the output on until there is a status, the guest is dead, or the time is up. Arguments as in run_guest()."""
    started = False
    deadline = time.monotonic() + BOOT_LIMIT
    while True:
        # Order matters: what was written before the guest's end is read after the end was seen.
        ended = process.poll() is not None
        done = (share / "status").exists()
        if not started and (share / "started").exists():
            started = True
            progress.clear()
            deadline = time.monotonic() + timeout if timeout > 0 else float("inf")
        for stream in streams:
            stream.pump()
        if done:
            return Outcome(int((share / "status").read_text()))
        if ended:
            if not started:
                return Outcome(None, "the guest died before it ran the command")
            return Outcome(None, "the guest died while the command ran")
        if time.monotonic() > deadline:
            if started:
                return Outcome(None, "timeout")
            return Outcome(None, f"the guest did not come up within {BOOT_LIMIT:.0f} seconds")
        time.sleep(POLL)
