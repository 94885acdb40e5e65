"""The namespaces of a container: new, joined, the host's, and one of users with ids of its own."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box, user_namespace

FILES = {"pid": "pid", "network": "net", "ipc": "ipc", "uts": "uts", "mount": "mnt", "cgroup": "cgroup", "user": "user", "time": "time"}
SHOW = "cd /proc/self/ns; for n in *; do readlink $n; done"


def spaces(pid: int | str) -> dict[str, str]:
    """The namespaces of a process."""
    return {kind: os.readlink(f"/proc/{pid}/ns/{name}") for kind, name in FILES.items()}


OURS = spaces("self")


def test_new_ones(either: Box) -> None:
    """From outside, and as its programs see them."""
    found = spaces(either.started())
    assert {kind for kind in found if found[kind] != OURS[kind]} == set(bundles.NAMESPACES)
    assert {*either.exec("sh", "-c", SHOW).out.split()} == {*found.values()}
    assert spaces("self") == OURS


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_those_not_asked_for_are_the_hosts(box: Box, kind: str) -> None:
    box.without(kind)
    found = spaces(box.started())
    assert found[kind] == OURS[kind]
    box.ended()


@pytest.fixture
def holder() -> Iterator[int]:
    """A process in new namespaces of every kind but users."""
    child = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--net",
            "--ipc",
            "--uts",
            "--cgroup",
            "--time",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            "echo ready; exec sleep 1000",
        ],
        stdout=subprocess.PIPE,
    )
    assert child.stdout and child.stdout.readline() == b"ready\n"
    yield bundles.children(child.pid)[0]
    child.kill()
    child.wait()
    child.stdout.close()
    assert bundles.eventually(lambda: bundles.reap() == [])


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup", "time"])
def test_joined_by_path(box: Box, holder: int, kind: str) -> None:
    """It alone is the other's; the program sees the same, an exec is in there too, and the holder's are as before."""
    before = spaces(holder)
    box.without(kind)
    box.linux["namespaces"].append({"type": kind, "path": f"/proc/{holder}/ns/{FILES[kind]}"})
    pid = box.started()
    found = spaces(pid)
    assert {other for other in FILES if found[other] == before[other]} == {kind, "user"}
    assert found["mount"] not in (OURS["mount"], before["mount"])
    seen = box.exec("sh", "-c", SHOW).out.split()
    assert found[kind] in seen and before["mount"] not in seen
    box.ended()
    box.ok("delete", box.id)
    assert spaces(holder) == before


def test_a_joined_mount_namespace(box: Box, holder: int) -> None:
    """The root is mounted in there, and the host sees nothing of it."""
    theirs = spaces(holder)["mount"]
    (box.folder / "data").mkdir()
    (box.folder / "data/file").write_text("file")
    box.mount("/data", str(box.folder / "data"), "bind", "ro")
    box.without("mount")
    box.linux["namespaces"].append({"type": "mount", "path": f"/proc/{holder}/ns/mnt"})
    pid = box.started()
    assert spaces(pid)["mount"] == theirs != OURS["mount"]
    assert "/data" in Path(f"/proc/{holder}/mountinfo").read_text()
    assert box.exec("sh", "-c", "cat /data/file; touch /data/x 2>&1").out == "filetouch: /data/x: Read-only file system\n"
    assert str(box.folder) not in Path("/proc/self/mountinfo").read_text()
    box.ended()


def test_all_joined_but_mount(box: Box, holder: int) -> None:
    box.namespaces("mount", **{kind: f"/proc/{holder}/ns/{FILES[kind]}" for kind in ("pid", "network", "ipc", "uts", "cgroup")})
    pid = box.started()
    found, theirs = spaces(pid), spaces(holder)
    assert all(found[kind] == theirs[kind] for kind in ("pid", "network", "ipc", "uts", "cgroup"))
    box.ended()


def test_a_pod(boxes: Callable[..., Box]) -> None:
    """The second container of a pod joins the first one's namespaces."""
    first, second = boxes(), boxes()
    pid = first.started()
    second.without("network", "ipc", "uts")
    second.linux["namespaces"] += [{"type": kind, "path": f"/proc/{pid}/ns/{FILES[kind]}"} for kind in ("network", "ipc", "uts")]
    other = second.started()
    assert {kind for kind in FILES if spaces(pid)[kind] == spaces(other)[kind]} == {"network", "ipc", "uts", "user", "time"}


def test_a_path_that_is_none(box: Box) -> None:
    box.without("network")
    box.linux["namespaces"].append({"type": "network", "path": "/nothere"})
    done = box.run()
    assert done.status == 1
    assert "/linux/namespaces/5/path: /nothere: no such file or directory" in done.err
    assert box.left() == []


@pytest.mark.parametrize(
    ("kind", "path", "why"),
    [
        ("network", "/proc/self/ns/uts", "/proc/self/ns/uts is a uts namespace, not a network namespace"),
        ("pid", "/proc/self/ns/mnt", "/proc/self/ns/mnt is a mount namespace, not a pid namespace"),
        ("ipc", "/etc/passwd", "/etc/passwd is not a namespace"),
        ("uts", "/tmp", "/tmp is not a namespace"),
    ],
)
def test_a_path_of_another_kind(box: Box, kind: str, path: str, why: str) -> None:
    box.without(kind)
    box.linux["namespaces"].append({"type": kind, "path": path})
    done = box.run()
    assert done.status == 1
    assert f"/linux/namespaces/5/path: {why}" in done.err
    assert box.left() == []


def test_a_fifo_keeps_nobody_waiting(box: Box) -> None:
    box.without("ipc")
    os.mkfifo(box.folder / "fifo")
    box.linux["namespaces"].append({"type": "ipc", "path": str(box.folder / "fifo")})
    done = box.run()
    assert done.status == 1
    assert "is not a namespace" in done.err


@pytest.fixture
def bound(holder: int, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Namespaces that a file holds, as `ip netns` has them."""
    paths = {kind: tmp_path / f"ns-{kind}" for kind in ("network", "ipc", "uts")}
    try:
        for kind, path in paths.items():
            path.touch()
            subprocess.run(["mount", "--bind", f"/proc/{holder}/ns/{FILES[kind]}", str(path)], check=True)
        yield {kind: str(path) for kind, path in paths.items()}
    finally:
        for path in paths.values():
            subprocess.run(["umount", str(path)], check=True)


def test_joined_by_a_file_bound_on_them(box: Box, holder: int, bound: dict[str, str]) -> None:
    box.namespaces("pid", "mount", "cgroup", **bound)
    pid = box.started()
    assert all(spaces(pid)[kind] == spaces(holder)[kind] for kind in bound)
    box.ended()


@pytest.mark.parametrize("folder", ["/proc/self/fd", "/dev/fd", "/proc/thread-self/fd"])
def test_joined_by_a_descriptor_of_the_caller(box: Box, holder: int, folder: str) -> None:
    """As a service manager passes them on, with or without --preserve-fds."""
    fds = {kind: os.open(f"/proc/{holder}/ns/{FILES[kind]}", os.O_RDONLY) for kind in ("network", "ipc", "uts")}
    try:
        box.namespaces("pid", "mount", "cgroup", **{kind: f"{folder}/{fd}" for kind, fd in fds.items()})
        box.save()
        done = box.call("create", "--bundle", str(box.bundle), box.id, pass_fds=tuple(fds.values()))
        assert (done.status, done.err) == (0, "")
        box.ok("start", box.id)
        assert all(spaces(box.pid)[kind] == spaces(holder)[kind] for kind in fds)
        assert all(spaces(box.pid)[kind] != OURS[kind] for kind in fds)
        # nor has the container been given them
        assert sorted(int(fd) for fd in os.listdir(f"/proc/{box.pid}/fd")) == [0, 1, 2]
        assert box.exec("readlink", "/proc/self/ns/uts").out.strip() == os.readlink(f"/proc/{holder}/ns/uts")
    finally:
        for fd in fds.values():
            os.close(fd)
    box.ended()


@pytest.mark.parametrize("mount", [False, True])
def test_joined_by_a_pidfd_of_the_caller(box: Box, holder: int, mount: bool) -> None:
    """It stands for the process's namespace of whatever kind is asked for."""
    fd = os.pidfd_open(holder)
    kinds = ("pid", "network", "ipc", "uts", "cgroup", "time", "mount") if mount else ("pid", "network", "ipc", "uts", "cgroup", "time")
    try:
        box.namespaces(*([] if mount else ["mount"]), **dict.fromkeys(kinds, f"/proc/self/fd/{fd}"))
        box.save()
        done = box.call("create", "--bundle", str(box.bundle), box.id, pass_fds=(fd,))
    finally:
        os.close(fd)
    assert (done.status, done.err) == (0, "")
    assert {kind for kind in FILES if spaces(box.pid)[kind] == spaces(holder)[kind]} == {*kinds, "user"}
    box.ended()


def test_a_descriptor_that_is_no_namespace(box: Box) -> None:
    box.without("uts")
    box.linux["namespaces"].append({"type": "uts", "path": "/proc/self/fd/77"})
    done = box.run()
    assert done.status == 1 and "/linux/namespaces/5/path: /proc/self/fd/77: no such file or directory" in done.err
    with open("/proc/self/ns/net") as net:
        box.linux["namespaces"][-1]["path"] = f"/proc/self/fd/{net.fileno()}"
        done = box.run(pass_fds=(net.fileno(),))
    assert done.status == 1 and "is a network namespace, not a uts namespace" in done.err
    with subprocess.Popen(["sleep", "1000"]) as other:
        fd = os.pidfd_open(other.pid)
        other.kill()
    box.linux["namespaces"][-1]["path"] = f"/proc/self/fd/{fd}"
    done = box.run(pass_fds=(fd,))
    os.close(fd)
    assert done.status == 1 and "is what the namespace belongs to still there?" in done.err
    assert box.left() == []


@pytest.mark.parametrize(
    ("kind", "changes", "why"),
    [
        ("mount", {}, "/linux/namespaces/5/path: is the runtime's own mount namespace"),
        ("uts", {"hostname": "x"}, "/linux/namespaces/5/path: is the host's uts namespace, whose name would be changed"),
        ("network", {"sysctl": {"net.ipv4.ip_forward": "1"}}, "not allowed in the host's network namespace"),
        ("ipc", {"sysctl": {"kernel.shmmax": "1"}}, "not allowed in the host's ipc namespace"),
    ],
)
def test_what_would_change_the_host_through_a_path_is_refused(box: Box, kind: str, changes: dict[str, Any], why: str) -> None:
    box.without(kind)
    box.linux["namespaces"].append({"type": kind, "path": f"/proc/self/ns/{FILES[kind]}"})
    box.linux["sysctl"] = changes.get("sysctl", {})
    if "hostname" in changes:
        box.config["hostname"] = changes["hostname"]
    done = box.run()
    assert done.status == 1
    assert why in done.err
    assert box.left() == []


@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_the_hosts_by_path(box: Box, kind: str) -> None:
    """Nothing is asked of them, so they may be joined, as if they were not given."""
    box.without(kind)
    box.linux["namespaces"].append({"type": kind, "path": f"/proc/self/ns/{FILES[kind]}"})
    assert spaces(box.started())[kind] == OURS[kind]
    box.ended()


def test_a_pid_namespace_whose_first_process_has_ended(box: Box, holder: int) -> None:
    fd = os.open(f"/proc/{holder}/ns/pid", os.O_RDONLY)
    os.kill(holder, 9)
    try:
        assert bundles.eventually(lambda: not Path(f"/proc/{holder}").exists())
        box.without("pid")
        box.linux["namespaces"].append({"type": "pid", "path": f"/proc/{os.getpid()}/fd/{fd}"})
        done = box.run()
    finally:
        os.close(fd)
    assert done.status == 1
    assert "cannot allocate memory" in done.err and "its first process has ended" in done.err
    assert box.left() == []


def test_the_end_of_a_shared_pid_namespace(boxes: Callable[..., Box]) -> None:
    """When the first process of a pod's PID namespace ends, the rest ends with it."""
    first, second = boxes(), boxes()
    pid = first.started()
    second.without("pid")
    second.linux["namespaces"].append({"type": "pid", "path": f"/proc/{pid}/ns/pid"})
    other = second.started()
    assert second.exec("cat", "/proc/1/comm").out == "sleep\n"
    first.call_apart("kill", first.id, "KILL")
    assert bundles.status_of(other) == 137
    assert bundles.status_of(pid) == 137
    assert second.status == "stopped"


def test_a_cgroup_namespace_begins_at_the_containers_cgroup(box: Box) -> None:
    lines = [line.split(":", 2) for line in box.says("cat /proc/self/cgroup").splitlines()]
    where = {Path(mount) / box.id for mount in set(bundles.CGROUPS["mounts"].values())}
    assert where and lines and all(path == "/" for _, _, path in lines)


def test_host_and_domain_name(either: Box) -> None:
    """Seen inside, by exec, and from outside in its namespace; the host's own stay."""
    either.config["hostname"] = "näme"
    either.config["ociVersion"] = "1.0.2"
    show = ["sh", "-c", "uname -n; cat /proc/sys/kernel/domainname"]
    names = os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text()
    mine = either.runtime == bundles.words()
    if mine:  # crun has it since 1.7
        either.config["domainname"] = "example.org"
    wanted = f"näme\n{'example.org' if mine else names[1].strip()}\n"
    pid = either.sh(f"{show[2]}; exec sleep 1000").started()
    assert bundles.eventually(lambda: either.output.read_text() == wanted)
    assert either.exec(*show).out == wanted
    assert subprocess.run(["nsenter", "--uts", "-t", str(pid), *show], capture_output=True, text=True, check=True).stdout == wanted
    assert (os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text()) == names


def test_a_domain_name_without_a_uts_namespace_is_refused(box: Box) -> None:
    box.without("uts")
    box.config["domainname"] = "x"
    done = box.run()
    assert (done.status, "/domainname" in done.err, box.left()) == (1, True, [])


def test_a_host_name_without_a_uts_namespace_is_refused(box: Box) -> None:
    box.without("uts")
    box.config["hostname"] = "x"
    done = box.run()
    assert done.status == 1
    assert "/hostname" in done.err


def test_sysctls(either: Box) -> None:
    either.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678", "fs.mqueue.msg_max": "17"}
    files = ("net/ipv4/ip_forward", "kernel/shmmax", "fs/mqueue/msg_max")
    before = [Path("/proc/sys", file).read_text() for file in files]
    show = ["sh", "-c", f"cd /proc/sys; cat {' '.join(files)}"]
    pid = either.sh(f"{show[2]}; exec sleep 1000").started()
    assert bundles.eventually(lambda: either.output.read_text() == "1\n12345678\n17\n")
    seen = subprocess.run(["nsenter", "--net", "--ipc", "-t", str(pid), *show], capture_output=True, text=True, check=True)
    assert seen.stdout == "1\n12345678\n17\n"
    assert [Path("/proc/sys", file).read_text() for file in files] == before


@pytest.mark.parametrize("name", ["net.ipv4.conf.lo.forwarding", "net/ipv4/conf/lo/forwarding"])
def test_both_ways_to_write_a_sysctl(box: Box, name: str) -> None:
    box.linux["sysctl"] = {name: "1"}
    assert box.says("cat /proc/sys/net/ipv4/conf/lo/forwarding") == "1\n"


def test_a_sysctl_of_the_host_is_refused(box: Box) -> None:
    box.linux["sysctl"] = {"vm.swappiness": "1"}
    done = box.run()
    assert done.status == 1
    assert "/linux/sysctl/vm.swappiness" in done.err


def test_a_sysctl_that_the_kernel_lacks(box: Box) -> None:
    box.linux["sysctl"] = {"net.ipv4.nothere": "1"}
    done = box.run()
    assert done.status == 1
    assert "set the sysctl net/ipv4/nothere to 1" in done.err
    assert box.left() == []


def test_a_user_namespace(either: Box) -> None:
    user_namespace(either.config)
    os.chown(either.rootfs, 100000, 100000)
    out = either.says(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; touch /mine; stat -c %u /mine; cat /proc/self/setgroups; grep CapEff /proc/self/status"
    )
    lines = out.split("\n")
    assert lines[:2] == ["0", "0"]
    assert lines[2].split() == lines[3].split() == ["0", "100000", "65536"]
    assert lines[4:6] == ["0", "allow"]
    assert (either.rootfs / "mine").stat().st_uid == 100000


def test_a_user_namespace_owns_the_others(box: Box) -> None:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    box.process["capabilities"] = {kind: ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    box.config["hostname"] = "inner"
    box.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    assert box.says("hostname outer && mount -t tmpfs x /tmp && uname -n; cat /proc/sys/net/ipv4/ip_forward") == "outer\n1\n"


def test_several_extents_and_another_user(box: Box) -> None:
    box.linux["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        box.linux[kind] = [{"containerID": 0, "hostID": 200000, "size": 10}, {"containerID": 1000, "hostID": 300000, "size": 5}]
    os.chown(box.rootfs, 200000, 200000)
    box.process["user"] = {"uid": 1003, "gid": 1004, "additionalGids": [5, 1001]}
    pid = box.started()
    status = bundles.proc_status(pid)
    assert status["Uid"].split() == ["300003"] * 4
    assert status["Gid"].split() == ["300004"] * 4
    assert status["Groups"].split() == ["200005", "300001"]
    box.ended()


def test_mounts_in_a_user_namespace(box: Box) -> None:
    """Sources that the user of the namespace cannot reach are held outside."""
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    private = box.folder / "private"
    (private / "dir").mkdir(parents=True)
    (private / "dir/file").write_text("content")
    private.chmod(0o700)
    box.mount("/data", str(private / "dir"), "bind", "ro", "nosuid")
    box.mount("/dev/shm", "shm", "size=1m", kind="tmpfs")
    assert box.says("cat /data/file; touch /data/x 2>/dev/null || echo ro; touch /dev/shm/x") == "contentro\n"


def test_exec_and_terminals_of_a_user_namespace_belong_to_it(box: Box) -> None:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    pid = box.started()
    assert spaces(pid)["user"] != OURS["user"]
    assert box.exec("sh", "-c", "id -u; cat /proc/self/uid_map").out.split() == ["0", "0", "100000", "65536"]
    box.ended()


@pytest.mark.parametrize("told", [False, True])
def test_a_joined_user_namespace(boxes: Callable[..., Box], told: bool) -> None:
    """Engines may tell the maps of one that is joined: it has them already, and they cannot be written twice."""
    first, second = boxes(), boxes()
    user_namespace(first.config)
    os.chown(first.rootfs, 100000, 100000)
    os.chown(second.rootfs, 100000, 100000)
    pid = first.started()
    if told:
        second.linux.update({kind: first.linux[kind] for kind in ("uidMappings", "gidMappings")})
    second.linux["namespaces"].append({"type": "user", "path": f"/proc/{pid}/ns/user"})
    other = second.started()
    assert spaces(other)["user"] == spaces(pid)["user"]
    assert bundles.proc_status(other)["Uid"].split() == ["100000"] * 4


def test_a_joined_pid_namespace_and_new_users(boxes: Callable[..., Box]) -> None:
    first, second = boxes(), boxes()
    pid = first.started()
    second.without("pid")
    second.linux["namespaces"].append({"type": "pid", "path": f"/proc/{pid}/ns/pid"})
    user_namespace(second.config)
    os.chown(second.rootfs, 100000, 100000)
    second.config["mounts"] = second.config["mounts"][1:]  # a procfs takes the PID namespace's own users
    second.linux["maskedPaths"] = second.linux["readonlyPaths"] = []
    other = second.started()
    assert spaces(other)["pid"] == spaces(pid)["pid"]
    assert spaces(other)["user"] != OURS["user"]
    second.ended()  # the namespace's first process cannot end before every other one was reaped: pid_namespaces(7)


def test_time(box: Box) -> None:
    box.config["ociVersion"] = "1.1.0"
    box.linux["namespaces"].append({"type": "time"})
    box.linux["timeOffsets"] = {"monotonic": {"secs": 864000}, "boottime": {"secs": 864000 * 9, "nanosecs": 5}}
    text = box.says("cat /proc/self/timens_offsets; cat /proc/uptime; cd /proc/self/ns; readlink time; readlink time_for_children")
    lines = text.splitlines()
    assert [line.split() for line in lines[:2]] == [["monotonic", "864000", "0"], ["boottime", "7776000", "5"]]
    assert float(lines[2].split()[0]) > 7776000
    assert lines[3] == lines[4] != OURS["time"]


@pytest.mark.parametrize("clock", ["monotonic", "boottime"])
@pytest.mark.parametrize(("secs", "nanosecs"), [(-5, 0), (-5, 999999999), (0, 1), (4000000000, 0)])
def test_offsets(box: Box, clock: str, secs: int, nanosecs: int) -> None:
    """Told by the kernel, measured by a program, in an exec too; the host's clocks go on."""
    box.config["ociVersion"] = "1.1.0"
    box.linux["namespaces"].append({"type": "time"})
    box.linux["timeOffsets"] = {clock: {"secs": secs, "nanosecs": nanosecs}}
    pid = box.started()
    told = {name: (int(s), int(n)) for name, s, n in map(str.split, Path(f"/proc/{pid}/timens_offsets").read_text().splitlines())}
    assert told == {"monotonic": (0, 0), "boottime": (0, 0), clock: (secs, nanosecs)}
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    up = float(box.exec("cat", "/proc/uptime").out.split()[0])
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    shift = secs + nanosecs / 10**9 if clock == "boottime" else 0
    assert before + shift - 0.02 <= up <= after + shift  # in hundredths
    assert box.exec("readlink", "/proc/self/ns/time").out.strip() == os.readlink(f"/proc/{pid}/ns/time") != OURS["time"]
    box.ended()


@pytest.mark.parametrize("secs", [-(10**9), 10**15])
def test_offsets_that_no_clock_can_have(box: Box, secs: int) -> None:
    box.config["ociVersion"] = "1.1.0"
    box.linux["namespaces"].append({"type": "time"})
    box.linux["timeOffsets"] = {"boottime": {"secs": secs}}
    done = box.run()
    assert done.status == 1
    assert "make a time namespace: write: numerical result out of range; " in done.err and "/linux/timeOffsets" in done.err
    assert box.left() == []


def test_a_time_namespace_without_offsets(box: Box) -> None:
    box.config["ociVersion"] = "1.1.0"
    box.linux["namespaces"].append({"type": "time"})
    assert OURS["time"] not in box.says("readlink /proc/self/ns/time")


def test_no_mount_namespace(box: Box) -> None:
    """A change of the root directory is all there is then."""
    box.without("mount", "pid")
    box.config["mounts"] = []
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    out = box.says("ls /; pwd")
    assert out.split() == [*sorted(["bin", "dev", "etc", "proc", "root", "sys", "tmp"]), "/"]


def test_exec_without_a_mount_namespace(box: Box) -> None:
    box.without("mount", "pid")
    box.config["mounts"] = []
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    box.started()
    assert box.exec("ls", "/").out.split() == sorted(["bin", "dev", "etc", "proc", "root", "sys", "tmp"])
    box.ended()


def test_no_namespaces_at_all(box: Box) -> None:
    box.linux["namespaces"] = []
    box.config["mounts"] = []
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    assert box.sh("echo here").run().out == "here\n"


def test_the_first_process_is_number_one_and_alone(either: Box) -> None:
    out = either.says("echo $$; ls /proc | grep -c '^[0-9]'; awk '{print $4, $6}' /proc/1/stat")
    assert out.splitlines()[0] == "1"
    assert out.splitlines()[2] == "0 1"
