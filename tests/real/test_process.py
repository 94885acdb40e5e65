"""What a container's process is: its user, capabilities, limits, directory, environment, descriptors, and its filter."""

import copy
import ctypes
import json
import os
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rundlet.errors import Refused
from rundlet.life import observe
from tests import bundles
from tests.bundles import CAPABLE, Box, proc_status, user_namespace

KINDS = ("inheritable", "permitted", "effective", "bounding", "ambient")
SHORT = {"inheritable": "CapInh", "permitted": "CapPrm", "effective": "CapEff", "bounding": "CapBnd", "ambient": "CapAmb"}
BIT = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_NET_BIND_SERVICE": 10, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}


def sets(pid: int | str) -> dict[str, set[str]]:
    """The five sets of a process, as far as their members have names here; others show as numbers."""
    status = proc_status(pid)
    names = {number: name for name, number in BIT.items()}
    return {kind: {names.get(n, str(n)) for n in range(64) if int(status[SHORT[kind]], 16) >> n & 1} for kind in KINDS}


def test_user_and_groups(either: Box) -> None:
    either.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7, 8]}
    pid = either.sh("id -u; id -g; id -G; touch /tmp/mine; exec sleep 1000").started()
    assert bundles.eventually(lambda: either.output.read_text() == "1000\n1001\n1001 7 8\n")
    assert bundles.eventually((either.rootfs / "tmp/mine").exists)
    made = (either.rootfs / "tmp/mine").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1001)
    status = proc_status(pid)
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert status["Groups"].split() == ["7", "8"]


@pytest.mark.parametrize(("value", "kept"), [("1", True), ("0", False)])
def test_groups_of_the_caller_are_kept_on_demand(box: Box, value: str, kept: bool) -> None:
    """For a share of files with a group that no id map of a user holds."""
    box.config["annotations"] = {"run.oci.keep_original_groups": value}
    box.save()
    assert box.call("run", "--detach", "--bundle", str(box.bundle), box.id, extra_groups=[4, 24]).status == 0
    assert proc_status(box.pid)["Groups"].split() == (["4", "24"] if kept else [])
    done = box.call("exec", box.id, "grep", "Groups", "/proc/self/status", extra_groups=[4, 27])
    assert done.out.split()[1:] == (["4", "27"] if kept else [])


def keyring(text: str, name: str) -> list[str]:
    """The serial numbers of keyrings of this name, of what /proc/keys says."""
    return [line.split()[0] for line in text.splitlines() if f"_ses.{name}" in line]


ADD_KEY, KEYCTL = {"x86_64": (248, 250)}.get(os.uname().machine, (217, 219))  # asm/unistd_64.h, asm-generic/unistd.h


def with_a_key() -> None:
    """Gives the caller a session keyring with a key that nobody sees but who has it: keyctl(2), keyrings(7)."""
    call = ctypes.CDLL(None).syscall
    assert call(KEYCTL, 1, None) > 0  # KEYCTL_JOIN_SESSION_KEYRING
    key = call(ADD_KEY, b"user", b"key-of-the-caller", b"x", 1, -3)  # KEY_SPEC_SESSION_KEYRING
    assert key > 0 and call(KEYCTL, 5, key, 0x3F000000) == 0  # KEYCTL_SETPERM


@pytest.mark.skipif(not Path("/proc/keys").exists(), reason="a kernel without keys")
@pytest.mark.parametrize("users", [False, True])
def test_a_session_keyring_for_the_container(box: Box, users: bool) -> None:
    """Of its own, the same one for exec, and not the caller's."""
    box.linux["maskedPaths"] = []
    if users:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    assert box.sh("cat /proc/keys; while :; do sleep 1; done").create(preexec_fn=with_a_key).status == 0
    assert box.call_apart("start", box.id).status == 0
    assert bundles.eventually(lambda: len(keyring(box.output.read_text(), box.id)) == 1)
    first = keyring(box.output.read_text(), box.id)
    done = box.exec("cat", "/proc/keys", preexec_fn=with_a_key)
    assert keyring(done.out, box.id) == first
    assert "key-of-the-caller" not in box.output.read_text() + done.out


@pytest.mark.skipif(not Path("/proc/keys").exists(), reason="a kernel without keys")
def test_the_callers_keyring_on_demand(box: Box) -> None:
    """For exec, too. Without the option neither has what is in it."""
    for options, times in (([], 0), (["--no-new-keyring"], 1)):
        one = box.another()
        one.linux["maskedPaths"] = []
        one.sh("cat /proc/keys; echo end; exec sleep 1000").save()
        done = one.call("run", "--detach", *options, "--bundle", str(one.bundle), one.id, preexec_fn=with_a_key)
        assert (done.status, done.err) == (0, "")
        assert bundles.eventually(lambda: one.output.read_text().endswith("end\n"))
        text = one.output.read_text()
        assert (text.count("key-of-the-caller"), len(keyring(text, one.id))) == (times, 1 - times)
        text = one.exec("cat", "/proc/keys", preexec_fn=with_a_key).out
        assert (text.count("key-of-the-caller"), len(keyring(text, one.id))) == (times, 1 - times)


def test_as_many_groups_as_there_may_be(box: Box) -> None:
    """NGROUPS_MAX of them: what the kernel then says of the process, and what is written down of it, is longer than usual."""
    box.process["user"]["additionalGids"] = [*range(100000, 100000 + 65536)]
    pid = box.started()
    assert len(bundles.proc_status(pid)["Groups"].split()) == 65536
    assert box.exec("sh", "-c", "id -G | wc -w").out == "65537\n"
    document = json.loads(box.ok("record", "--json", box.id).out)
    assert document["observed"]["noNewPrivileges"] is True
    assert len(document["asked"]["user"]["additionalGids"]) == 65536
    box.ok("delete", "--force", box.id)


def test_no_groups_are_left_over(box: Box) -> None:
    box.save()
    pid_file = box.folder / "pid"
    done = box.call("run", "--detach", "--pid-file", str(pid_file), "--bundle", str(box.bundle), box.id, extra_groups=[4, 24, 27])
    assert done.status == 0
    assert proc_status(int(pid_file.read_text()))["Groups"] == ""


@pytest.mark.parametrize("uid", [0, 1000])
def test_five_sets(either: Box, uid: int) -> None:
    either.process["user"]["uid"] = uid
    wanted = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"],
        "permitted": ["CAP_KILL", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"],
        "effective": ["CAP_KILL", "CAP_NET_BIND_SERVICE"],
        "inheritable": ["CAP_NET_RAW", "CAP_NET_BIND_SERVICE"],
        "ambient": ["CAP_NET_BIND_SERVICE"],
    }
    either.process["capabilities"] = wanted
    found = sets(either.started())
    assert found["bounding"] == set(wanted["bounding"])
    assert found["inheritable"] == set(wanted["inheritable"])
    if uid:  # across the exec a user keeps the ambient ones alone: capabilities(7)
        assert found["permitted"] == found["effective"] == found["ambient"] == {"CAP_NET_BIND_SERVICE"}
    else:  # and root, under no_new_privs, what is permitted already
        assert found["permitted"] == set(wanted["permitted"])


def test_what_capabilities_permit(either: Box) -> None:
    """A user's by the ambient set, root's by the others; what is not there is not permitted."""
    own = ["CAP_CHOWN"]
    script = "touch /tmp/x; chown 77 /tmp/x && echo chown; mknod /tmp/y c 1 3 || echo no mknod; grep Cap /proc/self/status"
    for uid in (1000, 0):
        either.process["user"]["uid"] = uid
        either.process["capabilities"] = dict.fromkeys(KINDS, own)
        done = either.sh(script).run()
        shown = [line.split()[1] for line in done.out.splitlines()[-5:]]
        assert (done.out.splitlines()[:2], shown) == (["chown", "no mknod"], ["0" * 15 + "1"] * 5), done
        assert (either.rootfs / "tmp/x").stat().st_uid == 77
        (either.rootfs / "tmp/x").unlink()
    either.process["capabilities"] = {}
    assert "Operation not permitted" in either.sh("touch /tmp/x; chown 77 /tmp/x").run().err


def test_no_capabilities(either: Box) -> None:
    either.process["capabilities"] = {}
    assert set().union(*sets(either.started()).values()) == set()


def test_capabilities_left_out_of_the_configuration_are_none(box: Box) -> None:
    del box.process["capabilities"]
    assert set().union(*sets(box.started()).values()) == set()


@pytest.mark.elsewhere
@pytest.mark.skipif("CAP_SYS_RESOURCE" in CAPABLE, reason="nothing is lacking here")
def test_a_capability_that_nobody_has_to_give(box: Box) -> None:
    box.process["capabilities"] = {kind: ["CAP_SYS_RESOURCE", "CAP_KILL"] for kind in ("bounding", "permitted", "effective")}
    log = box.folder / "log"
    box.save()
    done = box.call("--log", str(log), "run", "--detach", "--bundle", str(box.bundle), box.id)
    assert done.status == 0
    assert sets(box.pid)["bounding"] == {"CAP_KILL"}
    assert "the runtime does not have CAP_SYS_RESOURCE to give" in log.read_text()


@pytest.mark.parametrize("value", [True, False])
def test_no_new_privs(either: Box, value: bool) -> None:
    either.process["noNewPrivileges"] = value
    assert proc_status(either.started())["NoNewPrivs"] == str(int(value))


@pytest.mark.parametrize("value", [True, False])
def test_no_new_privs_keep_files_from_giving_capabilities(either: Box, value: bool) -> None:
    """What a program's file would give to a user, it gives without them alone."""
    shutil.copy(either.busybox, either.rootfs / "bin/busybox-gives")
    # struct vfs_cap_data, revision 2, effective, CAP_KILL: include/uapi/linux/capability.h
    os.setxattr(either.rootfs / "bin/busybox-gives", "security.capability", struct.pack("<5I", 0x02000001, 1 << 5, 0, 0, 0))
    either.process["user"] = {"uid": 1000, "gid": 1000}
    either.process["noNewPrivileges"] = value
    assert int(either.says("busybox-gives grep CapEff /proc/self/status").split()[1], 16) == (0 if value else 1 << 5)


def test_limits(either: Box) -> None:
    either.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 1 << 40, "hard": (1 << 64) - 1},
    ]
    pid = either.sh("ulimit -S -n; ulimit -H -n; ulimit -c; exec sleep 1000").started()
    assert bundles.eventually(lambda: either.output.read_text() == "100\n200\n0\n")
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (100, 200)
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (1 << 40, -1)


HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]


@pytest.mark.parametrize("users", [False, True])
def test_a_limit_above_our_own(box: Box, users: bool) -> None:
    box.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": HARD + 1}]
    if users:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    done = box.run("--detach")
    if "CAP_SYS_RESOURCE" in CAPABLE:
        assert resource.prlimit(box.pid, resource.RLIMIT_NOFILE) == (100, HARD + 1)
    else:
        assert done.status == 1
        assert "RLIMIT_NOFILE" in done.err
        assert "CAP_SYS_RESOURCE" in done.err
        assert box.left() == []


@pytest.mark.parametrize("users", [False, True])
def test_a_limit_that_cannot_be_raised_is_refused_by_create(box: Box, users: bool) -> None:
    """And by exec; with the words by which Podman tells that something is not permitted."""
    box.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    if users:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    box.started()
    other = box.another()
    other.config = copy.deepcopy(box.config)
    other.linux["cgroupsPath"] = f"/{other.id}"
    other.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NOFILE", "soft": 100, "hard": HARD + 1}]
    weak = ["setpriv", "--bounding-set=-sys_resource", *other.runtime]
    box.runtime, other.runtime = weak, weak
    words = f"/process/rlimits/1/hard: raising RLIMIT_NOFILE from the runtime's own {HARD} to {HARD + 1}: operation not permitted without"
    done = other.create()
    assert done.status == 1 and words in done.err
    assert other.left() == []
    (box.folder / "process.json").write_text(json.dumps({**other.process, "args": ["true"]}))
    done = box.call_apart("exec", "--process", str(box.folder / "process.json"), box.id)
    assert done.status == 255 and words in done.err


@pytest.mark.parametrize("users", [False, True])
def test_limits_of_a_user_namespace(box: Box, users: bool) -> None:
    """Lowering, raising the soft one up to the hard one: nobody lacks the right to."""
    box.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": HARD - 1, "hard": HARD},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 21},
    ]
    if users:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    pid = box.started()
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (HARD - 1, HARD)
    assert resource.prlimit(pid, resource.RLIMIT_STACK) == (1 << 20, 1 << 21)


def test_oom_score(either: Box) -> None:
    either.process["oomScoreAdj"] = 500
    pid = either.sh("cat /proc/self/oom_score_adj; exec sleep 1000").started()
    assert bundles.eventually(lambda: either.output.read_text() == "500\n")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"


def test_oom_score_in_a_user_namespace(box: Box) -> None:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    box.process["oomScoreAdj"] = 300
    assert Path(f"/proc/{box.started()}/oom_score_adj").read_text() == "300\n"


def test_an_oom_score_below_our_own(box: Box) -> None:
    box.process["oomScoreAdj"] = -998
    done = box.run("--detach")
    if "CAP_SYS_RESOURCE" in CAPABLE:
        assert Path(f"/proc/{box.pid}/oom_score_adj").read_text() == "-998\n"
    else:
        assert done.status == 1
        assert "set oom_score_adj to -998" in done.err
        assert "CAP_SYS_RESOURCE" in done.err
        assert box.left() == []


@pytest.mark.parametrize(("umask", "wanted"), [(0o27, "0027"), (None, "0022"), (0, "0000")])
def test_umask(either: Box, umask: int | None, wanted: str) -> None:
    if umask is not None:
        either.process["user"]["umask"] = umask
    pid = either.sh("umask; touch /tmp/new; exec sleep 1000").started()
    assert bundles.eventually((either.rootfs / "tmp/new").exists)
    assert either.output.read_text() == f"{wanted}\n"
    assert proc_status(pid)["Umask"] == wanted
    assert (either.rootfs / "tmp/new").stat().st_mode & 0o777 == 0o666 & ~int(wanted, 8)


def test_the_environment_is_exact(either: Box) -> None:
    either.process["env"] = ["PATH=/bin", "A=1", "B=two words", "EMPTY=", "HOME=/h"]
    pid = either.started()
    assert Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") == [b"PATH=/bin", b"A=1", b"B=two words", b"EMPTY=", b"HOME=/h", b""]
    assert either.exec("env").out.splitlines() == either.process["env"]


def test_arguments_are_exact(either: Box) -> None:
    """Empty ones, those of several lines, those that look like options; the name of the program as it was given."""
    words = ["sh", "-c", 'echo "$0:$#:$*"; exec sleep 1000', "-x", "", "two\nlines", "ä", "--"]
    either.process["args"] = words
    pid = either.created()
    either.call_apart("start", either.id)
    assert bundles.eventually(lambda: either.output.read_text() == "-x:4: two\nlines ä --\n")
    either.ended()
    either.ok("delete", either.id)
    either.process["args"] = ["sleep", "1000"]
    pid = either.started()
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\0"


def test_each_variable_once(box: Box) -> None:
    """The last one counts."""
    box.process["env"] = ["PATH=/nothere", "ONE=two", "HOME=/override", "PATH=/bin", "ONE=three", "LINES=a\nb", "NOTHING"]
    pid = box.started()
    assert Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") == [
        b"PATH=/bin", b"ONE=three", b"HOME=/override", b"LINES=a\nb", b"NOTHING", b"",
    ]


@pytest.mark.parametrize("env", [["HOME="], ["HOME=/override", "HOME="]])
def test_an_empty_home_is_none(box: Box, env: list[str]) -> None:
    box.process["env"] += env
    assert box.says("echo $HOME; env | grep -c HOME") == "/root\n1\n"


@pytest.mark.parametrize(("uid", "home"), [(0, "/root"), (1000, "/home/user"), (77, "/")])
def test_home_comes_from_the_images_passwd(box: Box, uid: int, home: str) -> None:
    box.process["user"]["uid"] = uid
    assert box.says("echo $HOME") == f"{home}\n"


@pytest.mark.parametrize("kind", ["absent", "fifo", "directory", "link", "garbage"])
def test_a_passwd_that_is_none(box: Box, kind: str) -> None:
    passwd = box.rootfs / "etc/passwd"
    passwd.unlink()
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "directory":
        passwd.mkdir()
    elif kind == "link":
        passwd.symlink_to("/proc/1/mem")
    elif kind == "garbage":
        passwd.write_bytes(b"root:x:0:0:root:/evil\0\nroot\n:::::\n" + bytes(range(256)))
    assert box.says("echo $HOME") == "/\n"


def test_the_working_directory(either: Box) -> None:
    either.process["cwd"] = "/etc"
    assert either.says("pwd; cat passwd | wc -l") == "/etc\n2\n"
    either.process["args"] = ["sleep", "1000"]
    assert os.path.samefile(f"/proc/{either.started()}/cwd", either.rootfs / "etc")


@pytest.mark.parametrize("number", range(3, 12))
def test_a_working_directory_outside_the_root_is_refused(box: Box, number: int) -> None:
    """CVE-2024-21626: by way of a descriptor that the runtime had open."""
    box.process["cwd"] = f"/proc/self/fd/{number}"
    box.process["args"] = ["true"]
    done = box.run()
    assert done.status == 1
    assert "/proc/self/fd" in done.err
    assert box.left() == []


def test_a_working_directory_that_is_a_link_outside(box: Box) -> None:
    (box.rootfs / "out").symlink_to("/proc/self/fd/5")
    box.process["cwd"] = "/out"
    done = box.sh("ls").run()
    assert done.status == 1
    assert box.left() == []


def test_a_working_directory_that_is_a_file(box: Box) -> None:
    box.process["cwd"] = "/etc/passwd"
    done = box.run()
    assert done.status == 1
    assert "/etc/passwd" in done.err
    assert "not a directory" in done.err


def test_a_working_directory_for_the_user_alone(box: Box) -> None:
    """One that only the user may enter, and one that only root may."""
    for name, uid in (("users", 1000), ("roots", 0)):
        (box.rootfs / name).mkdir(0o700)
        os.chown(box.rootfs / name, uid, uid)
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.process["cwd"] = "/users"
    assert box.says("pwd") == "/users\n"


def test_nothing_is_leaked(either: Box) -> None:
    read, write = os.pipe()
    held = os.open("/etc", os.O_RDONLY)
    either.save()
    pid_file = either.folder / "pid"
    done = either.call(
        "run", "--detach", "--pid-file", str(pid_file), "--bundle", str(either.bundle), either.id, pass_fds=(read, write, held)
    )
    for fd in (read, write, held):
        os.close(fd)
    assert done.status == 0
    pid = int(pid_file.read_text())
    either.executed(pid)
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]


@pytest.mark.parametrize("count", [1, 3])
def test_preserved_descriptors(box: Box, count: int) -> None:
    """Three to five as they are; the next one stays out."""
    box.process["args"] = ["sleep", "1000"]
    box.save()
    files = []
    for n in range(4):
        (box.folder / f"f{n}").write_text(str(n))
        files.append(os.open(box.folder / f"f{n}", os.O_RDONLY))
    pid_file = box.folder / "pid"
    words = box.words("run", "--detach", "--preserve-fds", str(count), "--pid-file", str(pid_file), "--bundle", str(box.bundle), box.id)
    script = "import os, sys; [os.dup2(int(fd), 60 + n) for n, fd in enumerate(sys.argv[1:5])]; [os.dup2(60 + n, 3 + n) for n in range(4)]; os.execvp(sys.argv[5], sys.argv[5:])"
    subprocess.run(
        [sys.executable, "-c", script, *map(str, files), *words],
        pass_fds=files,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pid = int(pid_file.read_text())
    found = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert {fd: path for fd, path in found.items() if fd > 2} == {3 + n: str(box.folder / f"f{n}") for n in range(count)}
    for fd in files:
        os.close(fd)


def test_stdio_belongs_to_the_user(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    read, write = os.pipe()
    done = box.sh("echo again > /dev/stdout").run(stdout=write)
    os.close(write)
    assert (done.status, done.err) == (0, "")
    assert os.read(read, 99) == b"again\n"
    assert os.fstat(read).st_uid == 1000
    os.close(read)


def test_devices_of_the_host_are_not_given_away(box: Box) -> None:
    box.process["user"] = {"uid": 1000, "gid": 1000}
    before = os.stat("/dev/null")
    null = os.open("/dev/null", os.O_RDWR)
    box.sh("true").run(stdin=null, stdout=null)
    os.close(null)
    after = os.stat("/dev/null")
    assert (before.st_uid, before.st_mode) == (after.st_uid, after.st_mode)
    assert stat.S_ISCHR(after.st_mode)


def test_nobody_may_look_into_the_waiting_process(box: Box) -> None:
    pid = box.created()
    assert "rundlet" in os.readlink(f"/proc/{pid}/exe")
    status = os.stat(f"/proc/{pid}/exe", follow_symlinks=False)
    assert status.st_uid == 0


def filtered(action: str, *names: str, **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": list(names), "action": action, **more}]}


@pytest.mark.parametrize("nnp", [True, False])
def test_a_filter_that_refuses(either: Box, nnp: bool) -> None:
    either.process["noNewPrivileges"] = nnp
    either.linux["seccomp"] = filtered("SCMP_ACT_ERRNO", "mkdir", "mkdirat")
    done = either.sh("mkdir /x; grep ^Seccomp: /proc/self/status").run()
    assert done.out.split() == ["Seccomp:", "2"]
    assert "Operation not permitted" in done.err
    assert not (either.rootfs / "x").exists()


def test_a_filter_that_refuses_with_another_errno(either: Box) -> None:
    either.linux["seccomp"] = filtered("SCMP_ACT_ERRNO", "mkdir", "mkdirat", errnoRet=38)
    assert "not implemented" in either.sh("mkdir /x").run().err


def test_a_filter_that_kills(either: Box) -> None:
    either.linux["seccomp"] = filtered("SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")
    assert either.sh("mkdir /x; echo $?; exit 0").run().out == "159\n"


def test_without_a_filter_there_is_none(box: Box) -> None:
    assert proc_status(box.started())["Seccomp"] == proc_status("self")["Seccomp"]


def test_a_filter_under_which_only_the_program_runs(box: Box) -> None:
    """Nothing of the runtime itself is done behind the filter but the exec."""
    box.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "syscalls": [
            {
                "names": [
                    "execve",
                    "exit_group",
                    "brk",
                    "arch_prctl",
                    "prctl",
                    "set_tid_address",
                    "set_robust_list",
                    "rseq",
                    "prlimit64",
                    "readlinkat",
                    "readlink",
                    "getrandom",
                    "mprotect",
                    "mmap",
                    "munmap",
                    "getuid",
                    "uname",
                    "fstat",
                    "newfstatat",
                    "write",
                    "getpid",
                    "setuid",
                    "setgid",
                    "getgid",
                ],
                "action": "SCMP_ACT_ALLOW",
            }
        ],
    }
    box.process["args"] = ["true"]
    assert box.run().status == 0


def test_signals_are_as_they_should_be(box: Box) -> None:
    """Nothing is ignored or blocked, whatever the caller ignores or blocks."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        status = proc_status(box.started())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGPIPE, before)
    assert {int(status[key], 16) for key in ("SigBlk", "SigIgn")} == {0}


def test_the_session(either: Box) -> None:
    pid = either.started()
    assert os.getsid(pid) == pid


def test_many_arguments(box: Box) -> None:
    box.process["args"] = ["sh", "-c", "echo $#", "sh", *["x" * 1000] * 1000]
    box.process["env"] += [f"V{n}={'y' * 100}" for n in range(1000)]
    assert box.run().out == "1000\n"


@pytest.mark.skipif(bundles.CGROUPS["layout"] == "none", reason="no cgroups here")
def test_the_process_is_in_its_cgroups(either: Box) -> None:
    pid = either.started()
    text = Path(f"/proc/{pid}/cgroup").read_text()
    expected = 1 if either.runtime != bundles.words() or bundles.CGROUPS["layout"] == "v2" else len(text.splitlines())
    assert text.count(either.id) >= expected


NAMES = ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "TSTP", "WINCH", "IO", "PWR", "XCPU", "VTALRM")
NUMBERS = (35, 50, 64)  # of real time


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_every_signal_is_passed_on(box: Box, verb: str) -> None:
    """Each that can be caught, and the status is the program's own in the end."""
    words = [*NAMES, *map(str, NUMBERS)]
    script = "".join(f"trap 'echo got {word}' {word}; " for word in words) + "echo ready; while [ ! -e /tmp/end ]; do sleep 0.01; done; exit 33"
    if verb == "run":
        box.sh(script).save()
        command = box.words("run", "--bundle", str(box.bundle), box.id)
    else:
        box.started()
        command = box.words("exec", box.id, "sh", "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdout.readline() == "ready\n"
        for number, word in zip([*(signal.Signals["SIG" + name].value for name in NAMES), *NUMBERS], words, strict=True):
            child.send_signal(number)
            assert child.stdout.readline() == f"got {word}\n"
        (box.rootfs / "tmp/end").touch()
        assert child.wait(bundles.PATIENCE) == 33
        assert child.stderr and child.stderr.read() == ""


@pytest.mark.parametrize("adopts", [True, False])
def test_orphans_of_a_container_in_the_foreground(box: Box, adopts: bool) -> None:
    """Without a PID namespace they fall to the runtime, which reaps them, or else to who adopts them outside: to us."""
    box.without("pid")
    box.config["mounts"] = [mount for mount in box.config["mounts"] if mount["type"] != "proc"]
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    box.sh("sh -c 'sleep 1000 & echo $!'; read end").save()
    command = box.words("run", *([] if adopts else ["--no-subreaper"]), "--bundle", str(box.bundle), box.id)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        orphan = int(child.stdout.readline())
        parent = child.pid if adopts else os.getpid()
        assert bundles.eventually(lambda: bundles.proc_status(orphan)["PPid"] == str(parent))
        os.kill(orphan, signal.SIGKILL)
        if not adopts:
            assert bundles.status_of(orphan) == 128 + signal.SIGKILL
        assert bundles.eventually(lambda: not Path(f"/proc/{orphan}").exists())
        child.stdin.close()
        assert child.wait() == 1  # what read says at the end of its input


@pytest.mark.parametrize("number", [1, 9, 15, 40])
def test_the_status_of_a_program_that_a_signal_ends(box: Box, number: int) -> None:
    box.started()
    assert box.exec("sh", "-c", f"kill -{number} $$; sleep 1000").status == 128 + number


def test_an_oom_score_that_a_process_file_leaves_out(box: Box) -> None:
    box.process["oomScoreAdj"] = 600
    box.started()
    file = box.folder / "process.json"
    file.write_text('{"args": ["/bin/cat", "/proc/self/oom_score_adj"], "cwd": "/"}')
    assert box.exec("--process", str(file), "--").out == "600\n"
    file.write_text('{"args": ["/bin/cat", "/proc/self/oom_score_adj"], "cwd": "/", "oomScoreAdj": 700}')
    assert box.exec("--process", str(file), "--").out == "700\n"


@pytest.mark.parametrize("leaves", [False, True])
def test_capabilities_of_a_user_namespace_of_its_own_are_no_fault(leaves: bool) -> None:
    """What is looked at after the exec may have moved on: in a user namespace that the program makes, its bounding set is full."""
    asked: Any = {"action": "keep", "profile": "", "label": [], "nnp": False, "seccomp": False, "bounding": 0}
    script = f"read go; exec {'unshare --user' if leaves else ''} sleep 1000"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as child:
        watch = observe.Watch(child.pid, asked)
        try:
            assert child.stdin
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert bundles.eventually(lambda: Path(f"/proc/{child.pid}/cmdline").read_bytes() == b"sleep\x001000\x00")
            if leaves:
                watch.check()
            else:
                with pytest.raises(Refused, match="the bounding set holds"):
                    watch.check()
        finally:
            watch.close()
            child.kill()


def test_what_is_mounted_over_a_file_of_the_process_is_not_believed(tmp_path: Path) -> None:
    """Whoever may do that in the runtime's mount namespace could have the kernel say anything."""
    asked: Any = {"action": "keep", "profile": "", "label": [], "nnp": True, "seccomp": False, "bounding": 0}
    lie = tmp_path / "lie"
    lie.write_text("NoNewPrivs:\t1\nCapBnd:\t0\n")
    with subprocess.Popen(["sleep", "1000"]) as child:
        subprocess.run(["mount", "--bind", lie, f"/proc/{child.pid}/status"], check=True)
        watch = observe.Watch(child.pid, asked)
        try:
            with pytest.raises(Refused, match="something is mounted over /proc or status of the process there"):
                watch.check()
        finally:
            watch.close()
            subprocess.run(["umount", f"/proc/{child.pid}/status"], check=True)
            child.kill()


def test_ambient_capabilities_that_cannot_be_raised_are_told(box: Box) -> None:
    """Loudly, since the program will lack them; and the others are there."""
    sets = {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in ("bounding", "effective", "permitted", "ambient")}
    box.process["capabilities"] = {**sets, "inheritable": ["CAP_KILL"]}
    done = box.sh("grep CapAmb /proc/self/status").run()
    assert (done.status, int(done.out.split()[1], 16)) == (0, 1 << 5)
    assert "warning: /process/capabilities/ambient: can't raise ambient capability CAP_CHOWN: " in done.err


def test_null_that_is_opened_for_reading_alone_can_be_written_to(box: Box) -> None:
    """containerd opens it so for `ctr run --null-io`, for all three; other files stay as they were given."""
    script = "echo one && echo two >&2 && : >/dev/stderr"
    box.sh(script)
    with open(os.devnull) as null:
        assert box.run(stdin=null.fileno(), stdout=null, stderr=null).status == 0
        box.sh("sleep 1000")
        box.started()
        assert box.call("exec", box.id, "sh", "-c", script, stdin=null.fileno(), stdout=null, stderr=null).status == 0
        with open("/etc/passwd") as file:
            assert box.call("exec", box.id, "sh", "-c", "echo one", stdin=null.fileno(), stdout=file, stderr=null).status == 1
