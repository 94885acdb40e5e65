"""A line of the kernel's audit log as a record: what stands in it, decoded, and no judgement. Pure.

    audit: type=1400 audit(1795786814.797:11): apparmor="DENIED" operation="open" …     the kernel log
    type=AVC msg=audit(1795786814.797:11): apparmor="DENIED" operation="open" …         auditd's file
    type=1326 audit(1795786820.045:42): … sig=31 arch=c000003e syscall=161 … code=0x80000000

Values that a process has a say in (names, comm) are quoted, or hexadecimal where they hold blanks, quotes, controls or anything beyond
ASCII: audit_log_untrustedstring() in kernel/audit.c. So nothing that a container chooses can look like another field.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

APPARMOR = {"1400", "AVC", "1501", "1502", "1503", "1504", "1505", "1506", "1507"}  # linux/audit.h; 150x of old
# by dbus-daemon, of its bus; whoever has CAP_AUDIT_WRITE, as many containers do, can send one: of nothing else it is believed
BY_PROGRAMS = {"1107", "USER_AVC"}
SECCOMP = {"1326", "SECCOMP"}
HEAD = re.compile(r"\btype=(\w+) (?:msg=)?audit\((\d+)\.(\d+):(\d+)\): *")
FIELD = re.compile(r'(\w+)=(?:"([^"]*)"|(.*?))(?=\s+\w+=|\s*$)', re.DOTALL)
HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
# those that the kernel prints by audit_log_untrustedstring() or aa_label_xaudit()
UNTRUSTED = {
    "name", "comm", "profile", "label", "peer", "target", "exe", "srcname", "namespace", "fstype", "options", "trans", "ns", "addr",
    "peer_addr", "peer_profile", "peer_label", "path",
}  # fmt: skip
# at the beginning of a line: elsewhere a program may have written it
LOST = re.compile(r"audit: audit_lost=(\d+)|audit: (?:rate limit exceeded|backlog limit exceeded)")
NOT_PRINTED = re.compile(r"kauditd_\w+: (\d+) callbacks suppressed|audit: kauditd hold queue overflow")
ENRICHED = "\x1d"  # what auditd adds for people stands behind it: auditd.conf(5), log_format


@dataclass(frozen=True)
class Record:
    """One record. `kind` is "apparmor" or "seccomp"; `time` is in seconds since the epoch, `serial` the kernel's number of the event."""

    kind: str
    time: float
    serial: int
    fields: Mapping[str, str]
    raw: str

    def get(self, name: str) -> str:
        """A field, "" where the record has none."""
        return self.fields.get(name, "")

    def number(self, name: str, base: int = 10) -> int:
        """A field as a whole number, 0 where the record has none or it is no number."""
        try:
            return int(self.get(name), base)
        except ValueError:
            return 0

    @property
    def pid(self) -> int:
        """The process, 0 where the record does not tell."""
        return self.number("pid")


def parse(line: str) -> Record | None:
    """The record in a line of any log; None where it holds none of AppArmor's or seccomp's. Raises nothing."""
    head = HEAD.search(line)
    if not head:
        return None
    body = line[head.end() :].partition(ENRICHED)[0].strip()
    if head[1] in SECCOMP:
        kind = "seccomp"
    elif head[1] in APPARMOR | BY_PROGRAMS and 'apparmor="' in body:
        kind = "apparmor"
        if head[1] in BY_PROGRAMS:  # the record stands in msg='…'
            body = body[body.index('apparmor="') :].partition("'")[0].rstrip()
    else:
        return None
    fields = _fields(body)
    if head[1] in BY_PROGRAMS and not fields.get("operation", "").startswith("dbus_"):
        return None
    return Record(kind, float(f"{head[2]}.{head[3]}"), int(head[4]), fields, line.strip())


def _fields(body: str) -> dict[str, str]:
    found = {}
    for name, quoted, bare in FIELD.findall(body):
        # the last one counts: a label stands bare in seccomp's records, before those that matter
        found[name] = _unhex(bare) if bare and name in UNTRUSTED else quoted or bare
    return found


def _unhex(text: str) -> str:
    return bytes.fromhex(text).decode("utf-8", "surrogateescape") if HEX.fullmatch(text) else "" if text == "(null)" else text


def lost(line: str, heard: bool = False) -> int:
    """How many records the line says were lost at least; 0 for any other line. Sources: kernel/audit.c, lib/ratelimit.c.

    `heard`: the audit system itself was listened to, so what was only not printed is not lost.
    """
    found = LOST.match(line) or (None if heard else NOT_PRINTED.match(line))
    return int(found[1] or 1) if found else 0
