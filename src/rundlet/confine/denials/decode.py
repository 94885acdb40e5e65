"""From a record to what it means. Pure."""

from rundlet.confine.denials import meaning, rule, syscalls
from rundlet.confine.denials.denial import Denial
from rundlet.confine.denials.record import Record, parse

VERDICTS = {"DENIED": "denied", "KILLED": "killed", "ALLOWED": "allowed", "AUDIT": "audited"}  # security/apparmor/audit.c aa_audit_type


def decode(line: str) -> Denial | None:
    """What a line of any log tells of a denial; None where it tells of none, as of policy that was loaded. Raises nothing."""
    record = parse(line)
    return of(record) if record else None


def of(record: Record) -> Denial | None:
    """The same of a record."""
    return _seccomp(record) if record.kind == "seccomp" else _apparmor(record)


def _apparmor(record: Record) -> Denial | None:
    verdict = VERDICTS.get(record.get("apparmor"))
    if not verdict:
        return None
    if record.get("info") == meaning.CONVERTED:
        verdict = "denied"  # to the kernel it is a note, but what was asked for is not what was done
    proposal = rule.propose(record)
    return Denial(
        time=record.time, layer="apparmor", verdict=verdict, pid=record.pid, comm=record.get("comm"), label=meaning.label_of(record),
        operation=record.get("operation"), what=meaning.deed(record), peer=record.get("peer") or None, container=None,
        meaning=meaning.explain(record, verdict), rule=proposal.rule if verdict != "audited" else None,
        widens=proposal.widens if verdict != "audited" else (), raw=record.raw,
    )


def _seccomp(record: Record) -> Denial:
    entry, widens = syscalls.rule(record)
    return Denial(
        time=record.time, layer="seccomp", verdict=syscalls.verdict(record)[0], pid=record.pid, comm=record.get("comm"),
        label=_label(record.get("subj")), operation=syscalls.call(record),
        what=f"call {syscalls.call(record)} ({syscalls.architecture(record)[1]})", peer=None, container=None,
        meaning=syscalls.explain(record), rule=entry, widens=widens, raw=record.raw,
    )


def _label(subject: str) -> str:
    """A label as the audit system prints it: older kernels mark it with = and add its mode."""
    label = subject.removeprefix("=")
    head, blank, mode = label.rpartition(" (")
    return head if blank and mode in ("enforce)", "complain)", "unconfined)", "mixed)", "kill)", "prompt)", "user)") else label
