"""The logs that records are read from, whose the records are, and what is told of them. Files are real ones; processes are ours or have ended.

tests/golden/denials/journal.jsonl is what journalctl printed on Debian's 6.1 after two denials and a line that a program wrote to /dev/kmsg.
"""

import json
import os
import re
import select
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rundlet.confine.denials import decode, lately, reading, since, source
from rundlet.confine.denials.audit import Status, status
from rundlet.confine.denials.containers import Container, cgroups_of, whose
from rundlet.confine.denials.denial import Denial
from rundlet.confine.denials.reading import Reader, Unreadable, belongs, blind, counted
from rundlet.errors import Usage
from rundlet.executor.client import PIDS
from rundlet.life import kernellog
from tests.bundles import PATIENCE, eventually

GOLDEN = Path(__file__).parents[1] / "golden/denials"
NOBODY = 1 << 30  # a pid that no process has
AVC = (
    'type=AVC msg=audit({time:.3f}:{serial}): apparmor="DENIED" operation="open" profile="{profile}" name="{name}" pid={pid} comm="sh" '
    'requested_mask="r" denied_mask="r" fsuid=0 ouid=0\n'
)


def line(name: str = "/x", when: float = 1000.0, serial: int = 1, profile: str = "web", pid: int = NOBODY) -> str:
    """A line of auditd's file."""
    return AVC.format(time=when, serial=serial, profile=profile, name=name, pid=pid)


def denial(**more: object) -> Denial:
    """The same decoded."""
    found = decode(line(**more))  # type: ignore[arg-type]
    assert found
    return found


# ── times ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("text", "ago"), [("10m", 600), ("2h", 7200), ("1h30m", 5400), ("0s", 0), ("1.5s", 1.5), ("3d", 259200), ("1w", 604800)])
def test_time_ago(text: str, ago: float) -> None:
    assert since.parse(text, 1e9) == 1e9 - ago


def test_time_by_the_calendar() -> None:
    assert since.parse("2026-11-27T13:30:00Z") == 1795786200
    assert since.parse("2026-11-27T13:30:00+01:00") == 1795782600
    assert since.parse("2026-11-27") == time.mktime((2026, 11, 27, 0, 0, 0, 0, 0, -1))


def test_time_of_the_boot() -> None:
    before = time.time()
    boot = before - float(Path("/proc/uptime").read_text().split()[0])
    assert since.parse("boot") == pytest.approx(boot, abs=1 + time.time() - before)


@pytest.mark.parametrize("text", ["", "yesterday", "10", "10 m", "m", "2026-13-01", "-5m", "99999999999999999999w0"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(Usage, match="is no time"):
        since.parse(text)


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def names(log: source.Log, begin: float = 0.0) -> list[str]:
    """The files in the records that have come."""
    return [record.get("name") for record in log.records(begin)]


def test_auditds_file_and_the_rotated_ones(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    for number, name in ((3, "/long-ago"), (2, "/oldest"), (1, "/older")):
        (tmp_path / f"audit.log.{number}").write_text(line(name))
        os.utime(tmp_path / f"audit.log.{number}", (900 - 100 * number, 900 - 100 * number))
    file.write_text(line("/newest"))
    log = source.AuditFile(str(file))
    log.open(650.0)  # what ended at 600 is of no interest
    assert log.readable
    assert names(log) == ["/oldest", "/older", "/newest"]
    assert names(log) == []
    with open(file, "a") as more:
        more.write(line("/more") + line("/half")[:40])
    assert names(log) == ["/more"]
    with open(file, "a") as more:
        more.write(line("/half")[40:])
    assert names(log) == ["/half"]
    file.rename(tmp_path / "audit.log.0")
    file.write_text(line("/after"))
    assert names(log) == ["/after"]


def test_what_was_written_before_a_rotation_is_read_after_it(tmp_path: Path) -> None:
    """auditd renames its file, and every one that it renamed before, without a word to who reads it."""
    file = tmp_path / "audit.log"

    def rotate() -> None:
        for number in (2, 1):
            if (tmp_path / f"audit.log.{number}").exists():
                (tmp_path / f"audit.log.{number}").rename(tmp_path / f"audit.log.{number + 1}")
        file.rename(tmp_path / "audit.log.1")

    file.write_text(line("/one"))
    log = source.AuditFile(str(file))
    log.open(0.0)
    assert names(log) == ["/one"]
    with open(file, "a") as more:
        more.write(line("/two"))
    rotate()
    file.write_text(line("/three"))
    assert names(log) == ["/two", "/three"]
    for last in ("/four", "/five", "/six"):
        with open(file, "a") as more:
            more.write(line(last))
        if last != "/six":
            rotate()
    assert names(log) == ["/four", "/five", "/six"]
    assert (names(log), log.lost) == ([], 0)
    with open(file, "a") as more:
        more.write(line("/seven"))
    (tmp_path / "new").write_text(line("/eight"))
    (tmp_path / "new").replace(file)
    assert (names(log), log.lost) == (["/eight"], 1), "what is deleted is told of"


def test_auditds_file_that_is_not_there(tmp_path: Path) -> None:
    log = source.AuditFile(str(tmp_path / "none"))
    log.open(0)
    assert (log.readable, log.said) == (False, "there is none")


def test_records_before_the_time_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(line("/early", 999.0) + line("/late", 1001.0))
    log = source.AuditFile(str(tmp_path / "log"))
    log.open(1000)
    assert names(log, 1000.0) == ["/late"]


def test_entries_of_the_journal() -> None:
    found = [source.entry(entry) for entry in (GOLDEN / "journal.jsonl").read_bytes().splitlines()]
    told = [decode(text) for text in found if decode(text)]
    # by way of the audit system and of the kernel's log, and the one that a program wrote is not there
    assert [(one.layer, one.label) for one in told if one] == [("apparmor", "web")] * 2 + [("seccomp", "unconfined")] * 2
    for one, other in (told[:2], told[2:]):
        assert one and other
        assert (one.time, one.what, one.rule, one.meaning) == (other.time, other.what, other.rule, other.meaning)


@pytest.mark.parametrize(
    "entry", [b"", b"{", b"[]", b"1", b"{}", b'{"MESSAGE": 1, "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0"}', b'{"MESSAGE": "x", "_TRANSPORT": "audit"}'],
)  # fmt: skip
def test_entries_that_are_none(entry: bytes) -> None:
    assert source.entry(entry) == ""


def test_an_entry_that_is_no_text() -> None:
    entry = {"MESSAGE": list(b"audit: \xff"), "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0"}
    assert source.entry(json.dumps(entry).encode()) == "audit: \udcff"


@pytest.mark.skipif(not os.access("/dev/kmsg", os.R_OK | os.W_OK), reason="/dev/kmsg is not to be read and written here")
def test_what_a_program_writes_is_not_the_kernels() -> None:
    log = source.KernelLog()
    log.open(0)
    assert log.readable, log.said
    list(log.lines())
    mark = f"rundlet-test-{os.urandom(4).hex()}"
    Path("/dev/kmsg").write_text(f'audit: type=1400 audit(1.0:1): apparmor="DENIED" name="/{mark}" pid=1\n')
    assert not any(mark in text for text in log.lines())
    raw = source.KernelLog()
    raw.open(0)
    assert any(mark.encode() in entry for entry in iter(lambda: _entry(raw.fd), b""))  # it is there, for who looks
    log.close()
    raw.close()


# what overlayfs says of an option that any user may give it, in a user namespace
REPEATED = (
    'overlayfs: failed to resolve \'type=1400 audit(1000.797:11): apparmor="DENIED" operation="open" profile="web" name="/etc/x" pid=1 comm="cat" '
    "requested_mask=\"r\" denied_mask=\"r\" fsuid=0 ouid=0': -2"
)


def test_what_the_kernel_repeats_is_not_the_audit_systems() -> None:
    """A mount's options, say, in which a process may have written what it likes, line ends too."""
    made = f'audit: type=1400 audit(1000.797:12): apparmor="DENIED" operation="open" name="/y" pid={NOBODY}'
    texts = [REPEATED, REPEATED.replace("type", "\\x0aaudit: type"), made]
    log = source.KernelLog()
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # an entry each time it is read, as of /dev/kmsg
    with near, far:
        near.setblocking(False)
        log.fd = near.fileno()
        for turn in range(2):
            for number, text in enumerate(texts):
                far.send(f"4,{number},{number},-;{text}\n".encode())
            if turn:
                assert kernellog._ours(near.fileno(), 0.0, range(NOBODY + 1)) == [made]
            else:
                assert list(log.lines()) == [made]
    for text in (REPEATED, REPEATED.replace("type", "\naudit: type")):
        assert source.entry(json.dumps({"MESSAGE": text, "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0"}).encode()) == ""


def test_what_comes_of_others_does_not_end_the_waiting() -> None:
    made, other = (f'audit: type=1400 audit(1.0:{number}): apparmor="DENIED" operation="open" name="/y" pid={pid}' for number, pid in ((1, NOBODY), (2, NOBODY + 1)))
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def speak() -> None:
        far.send(f"4,1,1,-;{other}\n".encode())
        assert eventually(lambda: not select.select([near], [], [], 0)[0])
        far.send(f"4,2,2,-;{made}\n".encode())

    with near, far:
        near.setblocking(False)
        speaker = threading.Thread(target=speak)
        speaker.start()
        assert kernellog._awaited(near.fileno(), 0.0, range(NOBODY, NOBODY + 1), PATIENCE * 1000) == [made]
        speaker.join()
        assert kernellog._awaited(near.fileno(), 0.0, range(NOBODY, NOBODY + 1), 1) == []


def test_what_auditd_has_not_written_yet_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "audit.log"
    file.touch()
    monkeypatch.setattr(kernellog, "audit_file", lambda: str(file))
    assert kernellog._awaited(-1, 0.0, range(NOBODY, NOBODY + 1), 1) == []
    writer = threading.Timer(0.01, lambda: file.write_text(line()))
    writer.start()
    assert kernellog._awaited(-1, 0.0, range(NOBODY, NOBODY + 1), PATIENCE * 1000) == [line().rstrip("\n")]
    writer.join()


def _entry(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            return b""
        except BrokenPipeError:
            pass  # the oldest have just been overwritten: the next read is of those that are left


def test_the_audit_system_says_how_it_is() -> None:
    found = status()
    assert found.there is not False or not Path("/proc/self/loginuid").exists() or "audit=0" in Path("/proc/cmdline").read_text()
    assert (found.taker is None) == (found.lost is None)


class Said(source.Log):
    """A log of which it is known what came of opening it."""

    def __init__(self, name: str, readable: bool, said: str) -> None:
        super().__init__()
        self.name, self.readable, self.said = name, readable, said

    def open(self, since: float) -> None:
        pass


KMSG, NO_KMSG = Said(source.KMSG, True, "read"), Said(source.KMSG, False, "operation not permitted")


def auditd(readable: bool) -> source.Log:
    """Its file."""
    log = source.AuditFile("/file")
    log.readable, log.said = readable, "read" if readable else "permission denied"
    return log


def journal(hears: bool) -> source.Log:
    """One that can be read."""
    log = source.Journal()
    log.readable, log.said, log.hears = True, "read", hears
    return log


def heard(since: float) -> source.Log:
    """The audit system, listened to since then."""
    log = source.AuditSystem()
    log.readable, log.said, log.from_ = True, "read", since
    return log


@pytest.mark.parametrize(
    ("now", "logs", "why"),
    [
        (Status(True, 0, 0), [KMSG, auditd(False)], ""),
        (Status(None), [KMSG], ""),
        (Status(False), [KMSG, auditd(True)], "the kernel writes no records: it has no audit system, or was booted with audit=0; /dev/kmsg: read"),
        (Status(True, 0, 0), [NO_KMSG, auditd(False)], "no log can be read; /dev/kmsg: operation not permitted; /file: permission denied"),
        (Status(True, 7, 0), [KMSG, auditd(False)], "the kernel gives its records to auditd (7)"),
        (Status(True, 7, 0), [KMSG, auditd(False), journal(False)], "the kernel gives its records to auditd (7)"),
        (Status(True, 7, 0), [KMSG, auditd(False), journal(True)], ""),
        (Status(True, 7, 0), [NO_KMSG, auditd(True)], ""),
        (Status(True, 7, 0), [NO_KMSG, auditd(False), heard(999.0)], ""),
        (Status(True, 7, 0), [NO_KMSG, auditd(False), heard(1002.0)], "the kernel gives its records to auditd (7)"),
    ],
)  # fmt: skip
def test_when_nothing_can_be_told(now: Status, logs: list[source.Log], why: str) -> None:
    found = blind(now, logs, 1000.0)
    assert found.startswith(why) and bool(found) == bool(why)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def reader(tmp_path: Path, *texts: str, lost: int = 0) -> Reader:
    """Of files with these texts."""
    logs: list[source.Log] = []
    for number, text in enumerate(texts):
        (tmp_path / f"log-{number}").write_text(text)
        logs.append(source.AuditFile(str(tmp_path / f"log-{number}")))
    made = Reader(0.0, logs=logs, audit=Status(True, 0, lost))
    made.open()
    return made


def test_the_same_record_in_two_logs_is_one(tmp_path: Path) -> None:
    both = line("/a", 1.0, 1) + line("/b", 2.0, 2)
    found = reader(tmp_path, both, line("/c", 1.5, 3) + both).fresh()
    assert [one.what for one in found] == ["read /a", "read /c", "read /b"]


def test_who_follows_the_logs_remembers_what_is_new_alone(tmp_path: Path) -> None:
    both = "".join(line(f"/{n}", float(n), n) for n in range(1, reading.KEPT + 2))
    made = reader(tmp_path, both, both)
    made.follow = True
    assert len(made.fresh()) == reading.KEPT + 1
    assert made.seen == set()  # of 1970
    now = time.time()
    for number in (0, 1):
        with open(tmp_path / f"log-{number}", "a") as file:
            file.write(line("/new", now, 9999))
    assert [one.what for one in made.fresh()] == ["read /new"]
    assert len(made.seen) == 1


def test_records_of_one_system_call_share_a_number_and_are_two(tmp_path: Path) -> None:
    signal = 'type=AVC msg=audit(1.0:5): apparmor="DENIED" operation="signal" profile="web" pid=9 comm="sh" denied_mask="{}" signal=term peer="web"\n'
    found = reader(tmp_path, signal.format("send") + signal.format("receive")).fresh()
    assert len(found) == 2


def test_no_log_at_all(tmp_path: Path) -> None:
    made = Reader(0.0, logs=[source.AuditFile(str(tmp_path / "none"))], audit=Status(True, 0, 0))
    with pytest.raises(Unreadable, match="no log can be read; .*/none: there is none") as caught:
        made.open()
    assert caught.value.status == 2


def test_lost_records_are_told(tmp_path: Path) -> None:
    made = reader(tmp_path, "kauditd_printk_skb: 31 callbacks suppressed\n" + line(), lost=7)
    made.fresh()
    notes = made.notes()
    assert any(note.startswith("31 or more records are missing") for note in notes)
    assert "the audit system has lost 7 records since boot" in notes


def test_repetitions_are_counted() -> None:
    found = counted([denial(when=1.0), denial(name="/y", when=2.0), denial(when=3.0, pid=NOBODY + 1), denial(when=4.0, profile="other")])
    assert [(one.what, one.label, one.count, one.time) for one in found] == [("read /y", "web", 1, 2.0), ("read /x", "web", 2, 3.0), ("read /x", "other", 1, 4.0)]


# ── whose ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def container(name: str, profile: str = "web", label: tuple[str, ...] = ("web",), created: float = 500.0, pid: int = 0, *cgroups: str) -> Container:
    """One that is known of."""
    return Container(name, created, pid, cgroups, frozenset(label), profile)


ONE, TWO, FREE = container("one"), container("two"), container("free", "", ())
STACKED = container("stacked", "web", ("rt", "web"))


@pytest.mark.parametrize(
    ("profile", "known", "owner", "maybe"),
    [
        ("web", [ONE, FREE], "one", ()), ("web", [ONE, TWO], None, ("one", "two")), ("web//hat", [ONE], "one", ()),
        ("web//null-/bin/x", [ONE], "one", ()), ("website", [ONE], None, ()), ("other", [ONE], None, ()), ("unconfined", [FREE, ONE], None, ()),
        ("web", [container("later", created=2000.0)], None, ()), ("rt", [STACKED], None, ("stacked",)), ("web", [STACKED], "stacked", ()),
        (":box:web", [container("inner", ":box://web", (":box:web",))], "inner", ()), ("web", [container("inner", ":box:web", (":box:web",))], None, ()),
    ],
)  # fmt: skip
def test_by_the_label(profile: str, known: list[Container], owner: str | None, maybe: tuple[str, ...]) -> None:
    found = whose(replace(denial(), label=profile), known)
    assert (found.container, found.maybe) == (owner, maybe)
    assert belongs(found, "one") == (owner == "one" or "one" in maybe)


def test_by_the_first_process() -> None:
    assert whose(denial(pid=NOBODY), [ONE, container("two", pid=NOBODY)]).container == "two"


def test_by_the_cgroup() -> None:
    """Ours are nested: the innermost that is a container's counts."""
    paths = cgroups_of(os.getpid(), time.time())
    assert paths == [text.split(":", 2)[2] for text in Path("/proc/self/cgroup").read_text().splitlines()]
    here = denial(when=time.time(), pid=os.getpid())
    inner = container("inner", "other", ("other",), 0.0, 0, paths[-1])
    assert whose(here, [ONE, inner]).container == "inner"
    assert whose(replace(here, time=1.0), [container("one", created=0.0), inner]).container == "one"  # the pid was another process's then
    # it lives, and not in the cgroup of the one whose profile it has
    other = whose(here, [container("without", created=0.0), container("apart", "web", ("web",), 0.0, 0, "/elsewhere")])
    assert (other.container, other.maybe) == ("without", ()), "which has none, so it may be"
    assert whose(here, [container("apart", "web", ("web",), 0.0, 0, "/elsewhere")]).maybe == ()
    assert whose(here, [container("beside", "other", ("other",), 0.0, 0, paths[-1] + "/below")]).container is None


def test_what_is_done_to_a_process_is_told_of_its_own_container() -> None:
    """The record's process is the one that sent the signal."""
    received = replace(denial(when=time.time(), pid=os.getpid()), what="receive signal term from other", label="web")
    sender = container("sender", "other", ("other",), 0.0, os.getpid())
    assert whose(received, [sender, container("receiver", created=0.0)]).container == "receiver"


def test_a_rule_of_the_runtimes_is_marked() -> None:
    found = whose(replace(denial(pid=NOBODY), label="rt"), [replace(STACKED, pid=NOBODY)])
    assert found.container == "stacked"
    assert found.widens == ('it is a rule of the profile "rt", which is the runtime\'s: it holds for every container',)
    assert whose(denial(pid=NOBODY), [replace(STACKED, pid=NOBODY)]).widens == ()


def test_a_filters_record_by_the_whole_label() -> None:
    killed = replace(denial(), layer="seccomp", label="rt//&web")
    assert whose(killed, [ONE, STACKED]).container == "stacked"
    assert whose(replace(killed, label="unconfined"), [FREE, container("u", "unconfined", ("unconfined",))]).container is None


# ── the two lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────

# by which engines know failures: podman's getOCIRuntimeError, docker's setExitCodeFromError, containerd's checkKillError
ENGINES = re.compile(
    r"permission denied|operation not permitted|executable file not found|no such file|open executable|`/proc|is a directory|not a directory"
    r"|cannot find the file|container not running|no such process|does not exist|process already finished|invalid process", re.I,
)  # fmt: skip


def test_two_lines_at_most_and_none_that_engines_take_for_something_else() -> None:
    lines = [text for kernel in ("6.1", "6.12") for text in (GOLDEN / f"{kernel}.txt").read_text().splitlines() if not text.startswith("#")]
    said = 0
    for number in range(len(lines)):
        told = lately.two(lately.of(lines[number : number + 3]))
        assert len(told) <= 2
        said += bool(told)
        for text in told:
            assert text.startswith(("apparmor: ", "seccomp: ")) and "\n" not in text
            assert not ENGINES.search(text), text
    assert said > 100


def test_what_no_rule_would_permit_is_the_cause() -> None:
    cause = 'type=AVC msg=audit(1.0:2): apparmor="DENIED" operation="exec" info="no new privs" profile="rt" name="/x" pid=1 comm="sh" denied_mask="x" target="web"'
    first, second = lately.two(lately.of([line("/a"), cause, line("/b")]))
    assert first.startswith("apparmor: no_new_privs is set") and second == 'apparmor: "web" does not let sh read /b'
    assert lately.two(lately.of([line("/a"), line("/b")])) == [
        'apparmor: "web" does not let sh read /b', 'apparmor: to permit it, in the profile "web": owner /b r,',
    ]  # fmt: skip


def test_what_is_executed_by_its_descriptor_is_called_by_the_name_of_its_program() -> None:
    told = lately.two(lately.of_command([line("/a").replace('comm="sh"', 'comm="7"')]))
    assert told[0] == 'apparmor: "web" does not let rundlet read /a'
    assert lately.of_command([line("/a")]) == lately.of([line("/a")])


def test_what_did_no_harm_is_not_told() -> None:
    assert lately.two(lately.of(["nothing", line().replace("DENIED", "ALLOWED"), line("/memfd:rundlet")])) == []


def test_records_of_our_processes_alone() -> None:
    PIDS.append(NOBODY)
    try:
        ours = line(when=100.5)
        assert kernellog.concerns(ours.encode(), 100.0)
        assert not kernellog.concerns(ours.encode(), 101.0)
        assert not kernellog.concerns(line(when=100.5, pid=NOBODY + 1).encode(), 100.0)
        assert not kernellog.concerns(f"type=1400 audit(100.5:1): pid={NOBODY + 1} comm={NOBODY}".encode(), 100.0)
        assert kernellog.concerns(line(when=100.5, pid=NOBODY + 1).encode(), 100.0, range(NOBODY, NOBODY + 2))
        assert not kernellog.concerns(b"anything else", 0.0)
        assert not kernellog.concerns(f"audit(when:1): pid={NOBODY}".encode(), 0.0)
    finally:
        PIDS.remove(NOBODY)


def test_a_line_of_the_kernels_log_is_what_the_kernel_printed() -> None:
    assert kernellog._text(rb'name="/a\x5cb" x\x0ay') == 'name="/a\\b" x\ny'
