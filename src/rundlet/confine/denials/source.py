"""Where records are found: the audit system itself, the kernel's log, auditd's file, systemd's journal. Each says what became of the
attempt to read it.

A kernel hands its records to auditd where one runs, and to its own log (a ring, which forgets) where none does, of many at once only the
first; journald keeps the kernel's log, and listens to the audit system beside auditd. So one log alone may be empty, and another one not:
all are read that can be, and the same record in two of them is one. Who listens to the audit system itself hears every record from then on.
"""

import errno
import json
import math
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rundlet.confine.denials.audit import HEADER, NETLINK_AUDIT
from rundlet.confine.denials.record import Record, lost, parse
from rundlet.life.kernellog import audit_file

KMSG = "/dev/kmsg"
JOURNALD = "/run/systemd/journal/stdout"
JOURNALS = ("/run/log/journal", "/var/log/journal")
ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
# how the audit system's lines of the kernel's log begin: kernel/audit.c; lib/ratelimit.c. Others may repeat what a process made up, as the
# options of a mount, which a user namespace is enough for
AUDIT = ("audit: ", "kauditd_")
LARGEST = 1 << 16  # of a record in /dev/kmsg: CONSOLE_EXT_LOG_MAX is 8 KiB, and larger in the future
NUMBERS = 1000  # of rotated files: num_logs of auditd.conf(5) is at most 999
ALMOST = 1.0  # seconds by which the clocks of log and record may differ
READLOG = 1  # AUDIT_NLGRP_READLOG as a mask of groups: linux/audit.h
SO_RCVBUFFORCE = 33
ROOM = 8 << 20  # bytes for records that have not been read yet: tens of thousands


class Log:
    """One log. `readable` and `said` tell what came of opening it, `lost` how many records it says are missing."""

    name = ""

    def __init__(self) -> None:
        self.readable = False
        self.said = ""
        self.lost = 0
        self.from_: float | None = None  # since when it has everything; None: not known
        self.at_time: float | None = None  # when the line was written that is being read; None: not known

    def open(self, since: float) -> None:
        """Begins at `since`, seconds since the epoch."""
        raise NotImplementedError

    def lines(self) -> Iterator[str]:
        """What has come since it was last asked."""
        raise NotImplementedError

    def beside_auditd(self, since: float) -> bool:
        """Whether it has from `since` on what the kernel gives to auditd."""
        return False

    def fileno(self) -> int:
        """What can be waited on for more; -1 where nothing can, and it has to be asked now and then."""
        return -1

    def close(self) -> None:
        """Lets go of it."""

    def records(self, since: float, until: float = math.inf) -> Iterator[Record]:
        """The records that have come, from `since` to `until`; after that they are heard of the audit system itself."""
        for line in self.lines():
            found = parse(line)
            if found:
                if since <= found.time <= until:
                    yield found
            elif self.at_time is None or self.at_time >= since - ALMOST:
                self.lost += lost(line, heard=until < (math.inf if self.at_time is None else self.at_time))


class AuditSystem(Log):
    """The kernel's audit system, heard from when it is opened on, beside auditd and whether or not one runs: kauditd_send_multicast_skb()
    in kernel/audit.c. `speaks` once it has: in another network namespace than the first there is nothing to be heard."""

    name = "audit system"

    def __init__(self) -> None:
        super().__init__()
        self.socket: socket.socket | None = None
        self.speaks = False

    def open(self, since: float) -> None:
        try:
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_AUDIT)
            try:
                self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
            except PermissionError:  # without CAP_NET_ADMIN
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
            self.socket.bind((0, READLOG))
        except OSError as e:
            self.said = (e.strerror or "").lower() + (": it takes CAP_AUDIT_READ" if isinstance(e, PermissionError) else "")
            self.close()
            return
        self.readable, self.said, self.from_ = True, "read", time.time()

    def lines(self) -> Iterator[str]:
        while self.socket:
            try:
                message, sender = self.socket.recvfrom(LARGEST)
            except BlockingIOError:
                return
            except OSError as e:
                if e.errno != errno.ENOBUFS:
                    raise
                self.lost += 1  # there was no room for one or more
                continue
            if sender[0] == 0 and len(message) >= HEADER.size:  # of the kernel
                length, kind, _, _, _ = HEADER.unpack_from(message)
                self.speaks = True
                yield f"type={kind} msg={message[HEADER.size : length].decode('utf-8', 'surrogateescape')}"  # as auditd writes it

    def beside_auditd(self, since: float) -> bool:
        return self.from_ is not None and self.from_ <= since + ALMOST

    def fileno(self) -> int:
        return self.socket.fileno() if self.socket else -1

    def close(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None


class KernelLog(Log):
    """/dev/kmsg: Documentation/ABI/testing/dev-kmsg."""

    name = KMSG

    def __init__(self) -> None:
        super().__init__()
        self.fd = -1

    def open(self, since: float) -> None:
        try:
            self.fd = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.read(self.fd, LARGEST)  # what may be read is said by the first read too
            os.lseek(self.fd, 0, os.SEEK_SET)
        except BlockingIOError:
            pass  # nothing is in it
        except OSError as e:
            self.said = f"{(e.strerror or '').lower()}" + (_restricted() if isinstance(e, PermissionError) else "")
            return
        self.readable, self.said = True, "read"

    def lines(self) -> Iterator[str]:
        while True:
            try:
                entry = os.read(self.fd, LARGEST)
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.lost += 1  # overwritten before they were read; the next read goes on behind the gap
                continue
            prefix, _, text = entry.partition(b";")
            fields = prefix.split(b",")
            if len(fields) > 2:
                self.at_time = time.time() - time.monotonic() + int(fields[2]) / 1e6
                if self.from_ is None:  # the first one that is left: what was before it is overwritten, unless it is the very first
                    self.from_ = 0.0 if fields[1] == b"0" else self.at_time
            if fields[0].isdigit() and int(fields[0]) >> 3:
                continue  # from a program: whoever may write here cannot pass for the kernel
            line = ESCAPE.sub(lambda m: bytes.fromhex(m[1].decode()), text.partition(b"\n")[0]).decode("utf-8", "surrogateescape")
            if line.startswith(AUDIT):
                yield line

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def _restricted() -> str:
    try:
        if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() != "0":
            return ": kernel.dmesg_restrict is 1, so it takes CAP_SYSLOG; ask as root"
    except OSError:
        pass
    return ""


class AuditFile(Log):
    """The file of auditd(8), with the older ones beside it: audit.log.1, audit.log.2, …"""

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.name = path or audit_file()
        self.at = 0
        self.inode = -1
        self.since = 0.0

    def open(self, since: float) -> None:
        self.since = since
        try:
            with open(self.name, "rb"):
                pass
        except FileNotFoundError:
            self.said = "there is none"
            return
        except OSError as e:
            self.said = f"{(e.strerror or '').lower()}; ask as root"
            return
        self.readable, self.said = True, "read"

    def lines(self) -> Iterator[str]:
        if self.inode < 0:
            yield from self._older()
        try:
            with open(self.name, "rb") as file:
                held = os.fstat(file.fileno())
                if held.st_ino != self.inode or held.st_size < self.at:
                    if self.inode >= 0:
                        yield from self._rotated()
                    self.inode, self.at = held.st_ino, 0
                yield from self._on(file)
        except OSError:
            return  # between two of them

    def beside_auditd(self, since: float) -> bool:
        return True

    def _on(self, file: BinaryIO) -> Iterator[str]:
        """What stands in a file behind what was read of it."""
        file.seek(self.at)
        for line in file:
            if not line.endswith(b"\n"):
                break  # half of one
            self.at += len(line)
            yield line.decode("utf-8", "surrogateescape").rstrip("\n")

    def _rotated(self) -> Iterator[str]:
        """What was written before the file got another name, and into those that were whole files since then."""
        for number in range(1, NUMBERS):
            try:
                with open(f"{self.name}.{number}", "rb") as file:
                    if os.fstat(file.fileno()).st_ino != self.inode:
                        continue
                    yield from self._on(file)
            except OSError:
                self.lost += 1  # it is gone, with what it may have held
                return
            for later in reversed(range(1, number)):
                yield from self._whole(f"{self.name}.{later}")
            return

    def _older(self) -> Iterator[str]:
        """The rotated ones, oldest first, that were still written to after `since`."""
        found = []
        for number in range(1, NUMBERS):
            path = Path(f"{self.name}.{number}")
            try:
                if path.stat().st_mtime < self.since:
                    break
                found.append(path)
            except OSError:
                break
        for path in reversed(found):
            yield from self._whole(path)

    def _whole(self, path: str | Path) -> Iterator[str]:
        try:
            with open(path, "rb") as file:
                for line in file:
                    yield line.decode("utf-8", "surrogateescape").rstrip("\n")
        except OSError:
            self.lost += 1


class Journal(Log):
    """systemd's journal, read by journalctl(1): what the kernel logged, and what journald heard of the audit system."""

    name = "journal"

    def __init__(self, follow: bool = False) -> None:
        super().__init__()
        self.follow = follow
        self.hears = False  # whether it has records of the audit system itself, and goes on to
        self.child: subprocess.Popen[bytes] | None = None
        self.rest = b""

    def open(self, since: float) -> None:
        program = shutil.which("journalctl")
        if not program or not any(os.path.isdir(path) and os.listdir(path) for path in JOURNALS if os.access(path, os.R_OK)):
            self.said = "there is none" if program else "there is no journalctl"
            return
        fields = "MESSAGE,_TRANSPORT,SYSLOG_FACILITY,_AUDIT_TYPE,_AUDIT_ID,_SOURCE_REALTIME_TIMESTAMP"
        words = [program, "--output=json", f"--output-fields={fields}", "--no-pager", "--quiet", f"--since=@{since - ALMOST:.6f}"]
        words += ["--follow", "--no-tail"] if self.follow else []
        self.child = subprocess.Popen(
            [*words, "_TRANSPORT=kernel", "+", "_TRANSPORT=audit"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not self.follow else subprocess.DEVNULL,
        )
        if self.follow:
            assert self.child.stdout
            os.set_blocking(self.child.stdout.fileno(), False)
            self.hears = runs()
            self.readable, self.said = True, "read"
            return
        out, errors = self.child.communicate()
        self.rest = out
        if self.child.returncode:
            self.said = " ".join(errors.decode("utf-8", "replace").split()) or f"journalctl ended with status {self.child.returncode}"
            return
        self.hears = b'"_TRANSPORT":"audit"' in out and runs()
        self.readable, self.said = True, "read" if runs() else "read, but no journald runs"

    def lines(self) -> Iterator[str]:
        if self.follow and self.child and self.child.stdout:
            try:
                while piece := os.read(self.child.stdout.fileno(), LARGEST):
                    self.rest += piece
            except BlockingIOError:
                pass
        *whole, self.rest = self.rest.split(b"\n")
        for line in whole:
            text = entry(line)
            if text:
                yield text

    def beside_auditd(self, since: float) -> bool:
        return self.hears

    def fileno(self) -> int:
        return self.child.stdout.fileno() if self.follow and self.child and self.child.stdout else -1

    def close(self) -> None:
        if self.child and self.child.poll() is None:
            self.child.terminate()
            self.child.wait()


def runs() -> bool:
    """Whether journald listens, or systemd does for it."""
    try:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(JOURNALD)
    except OSError:
        return False
    return True


def entry(line: bytes) -> str:
    """An entry of the journal, as journalctl prints it in JSON, as the line that the audit system wrote; "" for all else."""
    try:
        found = json.loads(line)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    message = found.get("MESSAGE")
    if isinstance(message, list):  # bytes that are no text: systemd.journal-fields(7)
        message = bytes(byte for byte in message if isinstance(byte, int) and 0 <= byte < 256).decode("utf-8", "surrogateescape")
    if not isinstance(message, str):
        return ""
    if found.get("_TRANSPORT") == "kernel":
        return message if found.get("SYSLOG_FACILITY") == "0" and message.startswith(AUDIT) else ""
    if found.get("_TRANSPORT") != "audit" or not str(found.get("_SOURCE_REALTIME_TIMESTAMP")).isdigit():
        return ""
    when = int(found["_SOURCE_REALTIME_TIMESTAMP"])
    body = message.partition(" ")[2]  # the first word is the type's name
    return f"type={found.get('_AUDIT_TYPE')} msg=audit({when // 1_000_000}.{when // 1000 % 1000:03}:{found.get('_AUDIT_ID')}): {body}"


def all_logs(follow: bool = False) -> list[Log]:
    """Every log that there may be here. `follow`: what will be is wanted too."""
    return [*([AuditSystem()] if follow else []), KernelLog(), AuditFile(), Journal(follow)]
