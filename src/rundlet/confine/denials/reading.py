"""Denials from all logs that can be read here, each once, with the container they belong to."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from rundlet.confine.denials import source
from rundlet.confine.denials.audit import Status, status
from rundlet.confine.denials.containers import Container, known, whose
from rundlet.confine.denials.decode import of
from rundlet.confine.denials.denial import Denial
from rundlet.confine.denials.record import Record
from rundlet.confine.denials.since import boot
from rundlet.errors import Fault
from rundlet.host import attributes_of_another

PATIENCE = 1.0  # seconds after which logs that nothing can wait on are asked again
KEPT = 4096  # records that are remembered by who follows the logs, so that what two logs have is told once
LATE = 60.0  # seconds by which one log may be behind another


class Unreadable(Fault):
    """No log can be read that would have the records: what was tried, and what each said."""

    status = 2


@dataclass
class Reader:
    """Reads the logs from `since` on, seconds since the epoch; `top` is the folder of the containers, None for none; `others` are those
    of other runtimes."""

    since: float
    top: str | None = None
    follow: bool = False
    logs: list[source.Log] = field(default_factory=list)
    audit: Status = field(default_factory=status)
    seen: set[tuple[object, ...]] = field(default_factory=set)
    others: tuple[Container, ...] = ()
    hidden: str = ""  # why the containers are not known

    def open(self) -> None:
        """Opens every log. Raises Unreadable where what they have would tell nothing."""
        self.logs = self.logs or source.all_logs(self.follow)
        for log in self.logs:
            if not log.readable:
                log.open(self.since)
        why = blind(self.audit, self.logs, self.since)
        if why:
            self.close()
            raise Unreadable(why)

    def close(self) -> None:
        """Lets go of them."""
        for log in self.logs:
            log.close()

    def fresh(self) -> list[Denial]:
        """What has come since it was last asked, in order of time."""
        records: list[Record] = []
        until = math.inf
        for log in self.logs:
            if log.readable:
                records += [record for record in log.records(self.since, until) if self._new(record)]
            if isinstance(log, source.AuditSystem) and log.speaks and log.from_:
                until = log.from_ + source.ALMOST  # whatever it has, it has whole: the kernel's log has a record's first thousand bytes
        if self.follow and len(self.seen) > KEPT:
            old = time.time() - LATE
            self.seen = {key for key in self.seen if isinstance(key[1], float) and key[1] > old}
        if not records:
            return []
        taken = {one.pid for one in self.others}
        try:
            ours = known(self.top) if self.top else []
        except OSError as e:
            ours, self.hidden = [], f"{self.top}: {(e.strerror or '').lower()}"
        containers = [*self.others, *(one for one in ours if one.pid not in taken)]
        found = (of(record) for record in sorted(records, key=lambda record: (record.time, record.serial)))
        return [whose(denial, containers) for denial in found if denial]

    def _new(self, record: Record) -> bool:
        """Whether no other log had it. Several records of one system call may share the number of the event."""
        key = record.kind, record.time, record.serial, tuple(record.fields.items())
        if key in self.seen:
            return False
        self.seen.add(key)
        return True

    def wait(self, seconds: float = PATIENCE) -> None:
        """Returns when a log may have more."""
        import select

        waited = [log for log in self.logs if log.readable and log.fileno() >= 0]
        asked = any(log.readable and log.fileno() < 0 for log in self.logs)
        poll = select.poll()
        for log in waited:
            poll.register(log.fileno(), select.POLLIN)
        if not waited and not asked:
            time.sleep(seconds)
        for fd, event in poll.poll(seconds * 1000 if asked else None):
            if event & select.POLLHUP:  # journalctl has ended
                for log in waited:
                    if log.fileno() == fd:
                        log.readable, log.said = False, "it ended"

    @property
    def missing(self) -> int:
        """How many records there were, at least, that no log has."""
        return sum(log.lost for log in self.logs)

    def notes(self) -> list[str]:
        """What keeps the answer from being whole, a sentence each."""
        made = []
        if self.missing:
            made.append(
                f"{self.missing} or more records are missing: fewer were printed than there were (kernel.printk_ratelimit, auditctl -r)"
            )
        if self.audit.lost:
            made.append(f"the audit system has lost {self.audit.lost} records since boot")
        if self.hidden:
            made.append(f"which containers there are cannot be told, and so not whose a denial is: {self.hidden}; ask as root")
        order = attributes_of_another()
        if order:
            made.append(
                f"the security modules are {order}: one before apparmor takes what is written to /proc/PID/attr/exec, so a runtime that "
                "asks for a label there fails and leaves no record; /proc/PID/attr/apparmor/exec is apparmor's own"
            )
        ring = next((log for log in self.logs if log.name == source.KMSG and log.readable), None)
        others = any(log.readable and (log.from_ or 0.0) <= self.since for log in self.logs if log is not ring)
        if ring and ring.from_ and ring.from_ > max(self.since, boot()) and not others:
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ring.from_))
            made.append(f"the kernel's log goes back to {when} alone, and nothing else keeps records here: auditd or journald would")
        return made


def blind(now: Status, logs: list[source.Log], since: float) -> str:
    """Why nothing can be told from these logs about the time from `since` on; "" where it can."""
    tried = "; ".join(f"{log.name}: {log.said}" for log in logs)
    if now.there is False:
        return f"the kernel writes no records: it has no audit system, or was booted with audit=0; {tried}"
    if not any(log.readable for log in logs):
        return f"no log can be read; {tried}"
    if now.taker and not any(log.readable and log.beside_auditd(since) for log in logs):
        return f"the kernel gives its records to auditd ({now.taker}), and neither its file nor a journal with them can be read; {tried}"
    return ""


def read(
    since: float | None = None, top: str | None = "/run/rundlet", container: str | None = None, others: tuple[Container, ...] = (),
    heard: source.AuditSystem | None = None,
) -> Iterator[Denial]:
    """Denials from `since` (seconds since the epoch; None is the boot) to now, oldest first, each as often as it happened.

    `top` is the folder of the containers that they are told to be of, `others` are further ones, `container` the id of the one that is
    wanted, `heard` what has been listened to since before they began, if anything. Raises Unreadable.
    """
    logs = [*([heard] if heard else []), *source.all_logs()]
    reader = Reader(boot() if since is None else since, top, logs=logs, others=others)
    reader.open()
    try:
        for denial in reader.fresh():
            if container is None or belongs(denial, container):
                yield denial
    finally:
        reader.close()


def belongs(denial: Denial, container: str) -> bool:
    """Whether it is the container's, or may be."""
    return denial.container == container or container in denial.maybe


def counted(denials: list[Denial]) -> list[Denial]:
    """The same with what is repeated as one, at the time of the last."""
    found: dict[tuple[object, ...], Denial] = {}
    for denial in denials:
        before = found.pop(denial.same, None)
        found[denial.same] = replace(denial, count=denial.count + (before.count if before else 0))
    return list(found.values())
