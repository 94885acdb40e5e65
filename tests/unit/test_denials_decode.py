"""Records of the kernel's log, decoded: those that two kernels wrote, and whatever else a line may hold.

tests/golden/denials/6.1.txt and 6.12.txt are what /dev/kmsg held on Debian's kernels after a program did what the lines with # say.
What is made of them is in decoded.txt; RUNDLET_WRITE_GOLDEN=1 writes it anew, to be read before it is kept.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rundlet.confine.denials import Denial, decode, parse
from rundlet.confine.denials.pattern import escaped, path, quoted
from rundlet.confine.denials.record import lost
from rundlet.confine.denials.rule import FAMILIES, KINDS, MOUNT_FLAGS, RLIMITS
from rundlet.kernel import CAPABILITIES

GOLDEN = Path(__file__).parents[1] / "golden/denials"
KERNELS = ("6.1", "6.12")
PARSER = shutil.which("apparmor_parser")
NEW = bool(PARSER) and int(subprocess.run([str(PARSER), "--version"], capture_output=True, text=True).stdout.split("version ")[1].split(".")[0]) >= 4
# of a kernel that mediates everything: else the parser asks the running one
FEATURES = f"/etc/apparmor.d/abi/{'4.0' if NEW else '3.0'}"
TOO_NEW = () if NEW else ("userns ", "io_uring ", "mqueue ")  # rules that apparmor_parser knows since 4.0


def lines(kernel: str) -> list[str]:
    """What was recorded."""
    return (GOLDEN / f"{kernel}.txt").read_text().splitlines()


def told(line: str) -> list[str]:
    """A line decoded, as decoded.txt has it."""
    found = decode(line)
    if not found:
        return []
    made = [f"  {found.layer} {found.verdict}: {found.label or '-'}: {found.what}", f"    {found.meaning}"]
    made += [f"    + {found.rule}"] if found.rule else []
    return made + [f"    ! {why}" for why in found.widens]


def decoded(kernel: str) -> str:
    """All that was recorded, decoded; numbers of processes are not the same twice."""
    made = []
    for line in lines(kernel):
        made += [line] if line.startswith("#") else told(line)
    return re.sub(r"/proc/\d+(/task/\d+)?", "/proc/N", "\n".join(made) + "\n")


def test_what_is_made_of_real_records() -> None:
    file = GOLDEN / "decoded.txt"
    if os.environ.get("RUNDLET_WRITE_GOLDEN"):
        file.write_text(decoded("6.12"))
    assert decoded("6.12") == file.read_text()


def test_every_record_is_read() -> None:
    for kernel in KERNELS:
        for line in lines(kernel):
            if not line.startswith("#") and 'apparmor="STATUS"' not in line:
                assert decode(line), line


def attempts(kernel: str) -> dict[str, str]:
    """What was tried → what is made of the records about it."""
    parts = re.split(r"^# (.*)\n", decoded(kernel), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_both_kernels_mean_the_same() -> None:
    """Linux 6.2 added the class of what was done; without it the operation tells."""
    old, new = (attempts(kernel) for kernel in KERNELS)
    common = [name for name in old if name in new]
    assert len(common) > 80
    common = [name for name in common if "//null-" not in new[name]]  # the newer one asks the profile about more of what a loader does
    for name in common:
        assert re.sub(r"\d{3}", "N", old[name]) == re.sub(r"\d{3}", "N", new[name]), name


def as_auditd(line: str) -> str:
    """The same record in auditd's file."""
    kind = "SECCOMP" if "type=1326" in line else "AVC"
    return re.sub(r"^.*?type=\d+ audit\(", f"type={kind} msg=audit(", line)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_in_every_log(kernel: str) -> None:
    for line in lines(kernel):
        if line.startswith("#"):
            continue
        record = parse(line)
        assert record
        text = line[line.index("audit: type=") :]
        others = (
            as_auditd(line), "node=host " + as_auditd(line), as_auditd(line) + '\x1dARCH=x86_64 SYSCALL=read AUID="unset" comm="no"', text,
            "[    5.916135] " + text, "Nov 27 13:37:17 host kernel: [    5.916135] " + text,
        )  # fmt: skip
        for other in others:
            again = parse(other)
            assert again, other
            assert (again.kind, again.time, again.serial, again.fields) == (record.kind, record.time, record.serial, record.fields)


# ── what the words say ───────────────────────────────────────────────────────────────────────────────────────────────────────


def apparmor(fields: str, verdict: str = "DENIED") -> Denial:
    """A record with these fields, decoded."""
    found = decode(f'audit: type=1400 audit(1795786637.959:11): apparmor="{verdict}" {fields}')
    assert found
    return found


def seccomp(**fields: object) -> Denial:
    """A record of seccomp's."""
    having = {
        "auid": 4294967295, "uid": 0, "subj": "web", "pid": 7, "comm": '"sh"', "exe": '"/bin/sh"', "sig": 0, "arch": "c000003e", "syscall": 161,
        "compat": 0, "ip": "0x1", "code": "0x7ffc0000",
    } | fields  # fmt: skip
    found = decode("type=1326 audit(1.000:2): " + " ".join(f"{name}={value}" for name, value in having.items()))
    assert found
    return found


def test_where_and_who() -> None:
    found = apparmor('operation="open" profile="web" name="/x" pid=12 comm="sh" requested_mask="r" denied_mask="r" fsuid=5 ouid=0')
    assert (found.time, found.pid, found.comm, found.label, found.layer) == (1795786637.959, 12, "sh", "web", "apparmor")
    assert (found.operation, found.peer, found.container, found.count) == ("open", None, None, 1)


def test_a_policy_namespace_is_part_of_the_label() -> None:
    found = apparmor('operation="open" namespace="root//box" profile="web" name="/x" requested_mask="r" denied_mask="r"')
    assert found.label == ":box:web"


OF_RULES = {
    # the kernel's fields → the rule, and whether it is more than what was denied
    'name="/a" denied_mask="r" fsuid=0 ouid=0': ("owner /a r,", False),
    'name="/a" denied_mask="r" fsuid=1 ouid=0': ("/a r,", False),
    'name="/a" requested_mask="rw" denied_mask="w" fsuid=1 ouid=0': ("/a w,", False),
    'name="/a" denied_mask="wra" fsuid=1 ouid=0': ("/a rw,", False),
    'name="/a" denied_mask="::r" fsuid=1 ouid=0': ("/a r,", False),
    'name="/a" denied_mask="mr" fsuid=1 ouid=0': ("/a rm,", False),
    'name="/proc/sys/kernel/core_pattern" denied_mask="w" fsuid=0 ouid=0': ("owner /proc/sys/kernel/core_pattern w,", True),
    'name="/proc/sys/kernel/core_pattern" denied_mask="r" fsuid=0 ouid=0': ("owner /proc/sys/kernel/core_pattern r,", False),
    'name="/sys/fs/cgroup/x" denied_mask="c" fsuid=1 ouid=0': ("/sys/fs/cgroup/x w,", True),
    'name="/run/docker.sock" denied_mask="wr" fsuid=1 ouid=0': ("/run/docker.sock rw,", True),
    'name="/proc/41/status" denied_mask="r" fsuid=1 ouid=0': ("/proc/[0-9]*/status r,", True),
    'name="/proc/41/task/42/comm" denied_mask="w" fsuid=1 ouid=0': ("/proc/[0-9]*/task/[0-9]*/comm w,", True),
    'name="/tmp/#117" denied_mask="wr" fsuid=0 ouid=0': ('owner "/tmp/#[0-9]*" rw,', True),
    "name=2F6120622A denied_mask=\"r\" fsuid=1 ouid=0": ('"/a b\\*" r,', False),
    "name=2F610A62FF denied_mask=\"r\" fsuid=1 ouid=0": ('"/a\\012b\\377" r,', False),
    'name="relative" denied_mask="r" fsuid=1 ouid=0': (None, False),
    'operation="capable" capability=12  capname="net_admin"': ("capability net_admin,", True),
    'operation="capable" capability=40': ("capability checkpoint_restore,", True),
    'operation="capable" capability=77 capname="???"': (None, False),
    'operation="signal" denied_mask="send" signal=term peer="other"': ("signal (send) set=(term) peer=other,", False),
    'operation="signal" denied_mask="send" signal=unmapped peer="other"': ("signal (send) peer=other,", True),
    'operation="signal" denied_mask="send" signal=term peer="unconfined"': ("signal (send) set=(term) peer=unconfined,", True),
    'operation="signal" denied_mask="receive" signal=rtmin+3 peer="a b"': ('signal (receive) set=(rtmin+3) peer="a b",', False),
    'operation="ptrace" denied_mask="read" peer="web"': ("ptrace (read) peer=web,", False),
    'operation="ptrace" denied_mask="trace" peer="other"': ("ptrace (trace) peer=other,", True),
    'operation="create" family="inet" sock_type="stream" protocol=6 denied_mask="create"': ("network inet stream,", False),
    'operation="create" family="inet" sock_type="raw" protocol=1 denied_mask="create"': ("network inet raw,", True),
    'operation="create" family="unknown(77)" sock_type="raw" protocol=1 denied_mask="create"': (None, False),
    'operation="connect" class="net" family="unix" sock_type="stream" protocol=0 denied_mask="send receive connect" addr=none peer_addr="@/x" '
    'peer="other"': ('unix (send, receive, connect) type=stream peer=(label=other, addr="@/x"),', False),
    'operation="mount" name="/m/" fstype="tmpfs" srcname="none" flags="rw, nosuid"': (
        "mount fstype=tmpfs options=(rw, nosuid) none -> /m/,", True,
    ),
    'operation="mount" name="/m/" flags="ro, remount, bind"': ("remount options=(ro, bind) /m/,", True),
    'operation="umount" name="/m/"': ("umount /m/,", True),
    'operation="pivotroot" name="/n/" srcname="/n/old/"': ("pivot_root oldroot=/n/old/ /n/,", True),
    'operation="change_onexec" name="web" target="web"': ("change_profile -> web,", True),
    'operation="stack_onexec" name="web"': ("change_profile -> &web,", False),
    'operation="stack_onexec" name="w b"': ('change_profile -> "&w b",', False),
    'operation="change_onexec" info="label not found" error=-2 name="web"': (None, False),
    'operation="exec" info="no new privs" error=-1 name="/bin/x" denied_mask="x" target="web"': (None, False),
    'operation="setrlimit" rlimit=nofile value=50': ("set rlimit nofile <= 50,", True),
    'operation="userns_create" class="namespace" requested="userns_create" denied="userns_create"': ("userns create,", True),
    'operation="uring_sqpoll" class="io_uring" requested="sqpoll" denied="sqpoll"': ("io_uring (sqpoll),", True),
    'operation="mqueue_open" class="posix_mqueue" name="/q" requested="read create" denied="read create"': (
        "mqueue (create, read) type=posix /q,", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("fields", OF_RULES)
def test_rule(fields: str) -> None:
    rule, widens = OF_RULES[fields]
    prefix = "" if "operation=" in fields else 'operation="open" '
    found = apparmor(f'{prefix}profile="web" pid=1 comm="sh" {fields}')
    assert (found.rule, bool(found.widens)) == (rule, widens)


KNOWN = {
    'operation="exec" info="no new privs" error=-1 profile="rt" name="/bin/x" denied_mask="x" target="web"': ("no_new_privs is set", "stacked", '"web"'),
    'operation="change_onexec" info="label not found" error=-2 profile="rt" name="web"': ('"web" is not loaded', "apparmor_parser -r"),
    'operation="exec" info="profile transition not found" profile="rt" name="/bin/x" denied_mask="x" target="web"': ('"web", which is not loaded',),
    'operation="signal" profile="web" denied_mask="send" signal=term peer="rt//&web"': ('under the stack "rt//&web"', "peer=rt//&web matches"),
    'operation="signal" profile="web" denied_mask="send" signal=term peer="unconfined//&web"': ("could have been put in place",),
    'operation="signal" profile="web" denied_mask="send" signal=term peer="rt//&second"': ('does not let sh send signal term to rt//&second',),
    'operation="open" profile="rt//null-web" name="/x" denied_mask="r"': ('"web" is not loaded', 'complaining profile "rt" hides'),
    'operation="open" profile="rt//null-/bin/x" name="/x" denied_mask="r"': ("no rule to execute /bin/x", "nothing is enforced"),
    'operation="change_onexec" profile="rt" name="web" target="web"': ("lacks a change_profile rule to change", "change_profile -> &web"),
    'operation="stack_onexec" profile="rt" name="web" target="web"': ("lacks a change_profile rule to stack", "change_profile -> web,"),
    'operation="change_onexec" info="change_profile unprivileged unconfined converted to stacking" profile="unconfined" name="web"': (
        "kernel.apparmor_restrict_unprivileged_unconfined", "web//&unconfined",
    ),
    'operation="capable" profile="unprivileged_userns" capability=21 capname="sys_admin"': ("kernel.apparmor_restrict_unprivileged_userns", "userns,"),
    'operation="userns_create" class="namespace" profile="unconfined" requested="userns_create" denied="userns_create"': ("restrict_unprivileged_userns",),
    'operation="open" info="Failed name lookup - disconnected path" error=-13 profile="web" name="x" denied_mask="r"': ("flags=(attach_disconnected)",),
    'operation="open" info="Failed name lookup - deleted entry" error=-2 profile="web" name="/x" denied_mask="r"': ("flags=(mediate_deleted)",),
    'operation="open" profile="rt" name="/proc/7/attr/exec" denied_mask="w"': ("first of several", "/sys/kernel/security/lsm"),
    'operation="open" profile="rt" name="/proc/7/task/7/attr/apparmor/exec" denied_mask="w"': ("ask for a label", "owner @{PROC}/@{pid}"),
    'operation="exec" info="ptrace prevents transition" profile="rt" name="/bin/x" denied_mask="x" target="web"': ("a tracer", '"web"'),
    'operation="exec" profile="rt" name="/memfd:rundlet" denied_mask="x"': ("in memory", "its installed file"),
    'operation="ptrace" profile="web" comm="rundlet" pid=1 denied_mask="readby" peer="rt"': ("nothing is amiss",),
    'operation="open" profile="web" name="/apparmor/.null" denied_mask="wr"': ("does not permit", "in its place"),
    'operation="mount" info="failed flags match" error=-13 profile="web" name="/m/" flags="rw"': ("for other options",),
}  # fmt: skip


@pytest.mark.parametrize("fields", KNOWN)
def test_known_failures_are_told(fields: str) -> None:
    found = apparmor(fields + ("" if "comm=" in fields else ' pid=1 comm="sh"'), "AUDIT" if "converted" in fields else "DENIED")
    for words in KNOWN[fields]:
        assert words in found.meaning, found.meaning


def test_verdicts() -> None:
    fields = 'operation="open" profile="web" name="/x" pid=1 comm="sh" requested_mask="r" denied_mask="r"'
    verdicts = {word: apparmor(fields, word).verdict for word in ("DENIED", "ALLOWED", "AUDIT", "KILLED")}
    assert verdicts == {"DENIED": "denied", "ALLOWED": "allowed", "AUDIT": "audited", "KILLED": "killed"}
    assert apparmor(fields, "AUDIT").rule is None
    assert not apparmor(fields, "AUDIT").refused
    assert decode('audit: type=1400 audit(1.0:2): apparmor="STATUS" operation="profile_load" profile="unconfined" name="web" pid=1') is None


SECCOMP_VERDICTS = {
    0x80000000: "killed", 0: "killed", 0x30000: "denied", 0x50000: "denied", 0x50001: "denied", 0x7FC00000: "audited", 0x7FF00000: "audited",
    0x7FFC0000: "allowed",
}  # fmt: skip


@pytest.mark.parametrize(("code", "verdict"), SECCOMP_VERDICTS.items())
def test_what_a_filter_did(code: int, verdict: str) -> None:
    found = seccomp(code=hex(code))
    assert found.verdict == verdict
    assert found.rule == (None if verdict == "audited" else '{"names": ["chroot"], "action": "SCMP_ACT_ALLOW"}')


@pytest.mark.parametrize(
    ("arch", "number", "name", "shown"),
    [
        ("c000003e", 161, "chroot", "x86_64"), ("40000003", 61, "chroot", "i386"), ("c00000b7", 51, "chroot", "aarch64"),
        ("c000003e", 0x40000000 + 161, "chroot", "x32"), ("c000003e", 99999, "system call 99999", "x86_64"), ("dead", 1, "system call 1", "0xdead"),
    ],
)  # fmt: skip
def test_calls_have_names_on_every_architecture(arch: str, number: int, name: str, shown: str) -> None:
    found = seccomp(arch=arch, syscall=number, compat=int(arch == "40000003"))
    assert (found.operation, found.what) == (name, f"call {name} ({shown})")
    assert (found.rule is None) == name.startswith("system call")
    assert ("must list among its architectures" in found.meaning) == (shown in ("i386", "x32"))


def test_a_call_that_reaches_far_is_marked() -> None:
    assert seccomp(syscall=165).widens == ("it changes mounts",)
    assert seccomp(syscall=0).widens == ()


@pytest.mark.parametrize("subject", ["rt//&web", "=rt//&web", "rt//&web (enforce)", "=rt//&web (mixed)"])
def test_a_filters_record_has_the_label(subject: str) -> None:
    found = seccomp(subj=subject)
    assert (found.label, found.pid, found.comm) == ("rt//&web", 7, "sh")


def test_a_profiles_name_cannot_pass_for_a_field() -> None:
    """It stands bare in the record; what the kernel prints behind it counts."""
    assert seccomp(subj="a pid=1 code=0x0 (enforce)").pid == 7


BY_PROGRAM = (
    "type={type} audit(1.0:2): pid=7 uid=81 auid=4294967295 ses=4294967295 subj=unconfined msg='apparmor=\"DENIED\" operation=\"{operation}\" "
    'bus="system" path="/org/a" interface="org.a" member="Get" mask="send" name="org.a" pid=9 label="web" peer_pid=5 peer_label="unconfined" '
    "exe=\"/usr/bin/dbus-daemon\" sauid=81 hostname=? addr=? terminal=?'"
)


@pytest.mark.parametrize("type", ["1107", "USER_AVC"])
def test_what_a_program_may_say(type: str) -> None:
    """dbus-daemon alone decides something itself; a container with CAP_AUDIT_WRITE can send such a record too."""
    found = decode(BY_PROGRAM.format(type=type, operation="dbus_method_call"))
    assert found
    assert (found.pid, found.label, found.operation, found.rule) == (9, "web", "dbus_method_call", None)
    assert parse(BY_PROGRAM.format(type=type, operation="open")) is None
    assert parse(BY_PROGRAM.format(type="1101", operation="dbus_method_call")) is None


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("audit: audit_lost=12 audit_rate_limit=0 audit_backlog_limit=64", 12), ("audit: rate limit exceeded", 1),
        ("audit: backlog limit exceeded", 1), ("kauditd_printk_skb: 31 callbacks suppressed", 31), ("audit: type=1400 audit(1.0:2): x", 0),
        ("audit: type=1101 audit(1.0:2): pid=7 uid=0 auid=0 ses=1 msg='audit: audit_lost=12'", 0),
    ],
)  # fmt: skip
def test_lines_that_tell_of_loss(line: str, count: int) -> None:
    assert lost(line) == count


# ── whatever a line may hold ─────────────────────────────────────────────────────────────────────────────────────────────────

TEXT = st.text(max_size=40)
# names as the kernel takes them: no NUL, and any bytes at all
NAMES = st.binary(min_size=1, max_size=30).map(lambda name: b"/" + name.replace(b"\0", b""))


def audited(name: bytes) -> str:
    """As audit_log_untrustedstring() prints it: kernel/audit.c audit_string_contains_control()."""
    if any(byte == 0x22 or byte < 0x21 or byte > 0x7E for byte in name):
        return name.hex().upper()
    return '"' + name.decode() + '"'


@given(st.sampled_from(["audit: type=1400 audit(1.1:1): ", "type=SECCOMP msg=audit(1.1:1): ", "type=AVC msg=audit(1.1:1): apparmor=\"DENIED\" ", ""]), TEXT)
def test_no_line_is_too_much(head: str, text: str) -> None:
    decode(head + text)


FIELDS = st.dictionaries(
    st.sampled_from(
        "operation class info error namespace profile label name pid comm requested_mask denied_mask fsuid ouid target peer signal family sock_type "
        "flags fstype srcname capability capname rlimit value subj arch syscall code sig compat addr peer_addr requested denied".split()
    ),
    TEXT | st.sampled_from("capable signal ptrace mount umount pivotroot change_onexec stack exec open mknod link userns_create".split()), max_size=12,
)  # fmt: skip


@given(FIELDS, st.sampled_from(["1400", "1326"]), st.booleans())
def test_no_field_is_too_much(fields: dict[str, str], kind: str, bare: bool) -> None:
    texts = (f"{name}={value}" if bare else f'{name}="{value}"' for name, value in fields.items())
    decode(f"audit: type={kind} audit(1.1:1): apparmor=\"DENIED\" {' '.join(texts)}")


@given(NAMES)
def test_names_come_back_as_they_were(name: bytes) -> None:
    record = parse(f"type=AVC msg=audit(1.1:1): apparmor=\"DENIED\" name={audited(name)} comm={audited(name)} pid=3")
    assert record
    assert record.get("name").encode("utf-8", "surrogateescape") == name
    assert record.get("comm").encode("utf-8", "surrogateescape") == name
    assert record.pid == 3


def taken(rules: list[str]) -> str:
    """What apparmor_parser says against a profile of these rules; "" when it takes it. No kernel is asked."""
    assert PARSER
    text = "profile p {\n" + "".join(f"  {rule}\n" for rule in rules if not rule.startswith(TOO_NEW)) + "}\n"
    done = subprocess.run([PARSER, "-Q", "-K", "-M", FEATURES], input=text.encode("utf-8", "surrogateescape"), capture_output=True)
    return "" if done.returncode == 0 else done.stderr.decode("utf-8", "replace") + text


needs_parser = pytest.mark.skipif(not PARSER, reason="apparmor_parser is missing")


@needs_parser
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_parser_takes_every_rule_for_what_was_recorded(kernel: str) -> None:
    found = [decode(line) for line in lines(kernel)]
    rules = sorted({denial.rule for denial in found if denial and denial.rule and denial.layer == "apparmor"})
    assert len(rules) > 60
    assert not taken(rules)


@needs_parser
def test_the_parser_takes_every_rule_of_the_table() -> None:
    assert not taken([rule for rule, _ in OF_RULES.values() if rule])


LABELS = NAMES.map(lambda name: name[1:] or b"p") | st.sampled_from([b"web", b"rt//&web", b"unconfined", b":box:web", b"web//hat"])
MASKS = st.text("rwcdalkmx", min_size=1, max_size=4)
RECORDS = st.one_of(
    st.builds(lambda n, m, u: f'operation="open" name={audited(n)} denied_mask="{m}" fsuid=0 ouid={u}', NAMES, MASKS, st.integers(0, 1)),
    st.builds(lambda n, t: f'operation="link" name={audited(n)} denied_mask="l" target={audited(t)}', NAMES, NAMES),
    st.builds(lambda c: f'operation="capable" capability={c}', st.integers(0, len(CAPABILITIES) - 1)),
    st.builds(
        lambda m, s, p: f'operation="signal" denied_mask="{m}" signal={s} peer={audited(p)}',
        st.sampled_from(["send", "receive"]), st.sampled_from("hup term kill exists rtmin+0 rtmin+32 unmapped chld".split()), LABELS,
    ),
    st.builds(
        lambda m, p: f'operation="ptrace" denied_mask="{m}" peer={audited(p)}', st.sampled_from(["trace", "read", "tracedby", "readby"]), LABELS,
    ),
    st.builds(
        lambda f, k: f'operation="create" family="{f}" sock_type="{k}" denied_mask="create"', st.sampled_from(sorted(FAMILIES)), st.sampled_from(sorted(KINDS)),
    ),
    st.builds(
        lambda n, s, t: f'operation="mount" name={audited(n)} fstype={audited(t)} srcname={audited(s)} flags="rw, nosuid"', NAMES, NAMES, NAMES,
    ),
    st.builds(lambda n: f'operation="umount" name={audited(n)}', NAMES),
    st.builds(lambda n, o: f'operation="pivotroot" name={audited(n)} srcname={audited(o)}', NAMES, NAMES),
    st.builds(
        lambda o, n: f'operation="{o}" name={audited(n)} target={audited(n)}', st.sampled_from(["change_profile", "stack_onexec"]), LABELS,
    ),
    st.builds(lambda r, v: f'operation="setrlimit" rlimit={r} value={v}', st.sampled_from(sorted(RLIMITS)), st.integers(0, 1 << 64)),
)  # fmt: skip


@needs_parser
@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=8))
@example(['operation="open" name="/\\" denied_mask="r" fsuid=0 ouid=0', 'operation="open" name="/#" denied_mask="r" fsuid=0 ouid=0'])
def test_the_parser_takes_whatever_rule_is_proposed(records: list[str]) -> None:
    denials = [apparmor(f'profile="p" pid=1 comm="sh" {fields}') for fields in records]
    assert not taken([denial.rule for denial in denials if denial.rule])


@needs_parser
@pytest.mark.parametrize("flag", sorted(MOUNT_FLAGS))
def test_the_parser_knows_the_options_of_mounts(flag: str) -> None:
    source = 'srcname="/s/" ' if flag in ("bind", "rbind", "move") else ""
    flags = flag if flag in ("ro", "rw") else f"rw, {flag}"
    assert not taken([apparmor(f'operation="mount" profile="p" name="/m/" {source}flags="{flags}"').rule or "none"])


@given(NAMES)
def test_nothing_in_a_name_is_a_wildcard(name: bytes) -> None:
    """Undone by the language's own rules for what stands in quotes, apparmor.d(5), a name is what it was."""
    text = name.decode("utf-8", "surrogateescape")
    inside = escaped(text)
    assert not re.search(r'(?<!\\)(\\\\)*[*?\[\]{}^"]', re.sub(r"\\\d{3}", "", inside))
    back = re.sub(r"\\(\d{3}|.)", lambda m: chr(int(m[1], 8)) if m[1].isdigit() and len(m[1]) == 3 else m[1].encode().decode("latin-1"), "".join(
        c if ord(c) < 128 else "".join(f"\\{byte:03o}" for byte in c.encode("utf-8", "surrogateescape")) for c in inside
    ))
    assert back.encode("latin-1") == name
    assert quoted(text) in (text, f'"{inside}"')


def test_numbers_that_are_others_tomorrow() -> None:
    assert path("/proc/12/fd/3") == ("/proc/[0-9]*/fd/3", True)
    assert path("/proc/sys/kernel/x") == ("/proc/sys/kernel/x", False)
    assert path("/srv/12/x") == ("/srv/12/x", False)
