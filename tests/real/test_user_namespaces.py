"""User namespaces that root makes: many maps, users without a root, what is mounted and made in them, time, and how others come in."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box, user_namespace

CLOCKS = ("boottime", "monotonic")


@pytest.fixture
def inner(box: Box) -> Box:
    """A container in a user namespace of 65536 ids."""
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    return box


def test_as_many_maps_as_the_kernel_takes(box: Box) -> None:
    box.linux["namespaces"].append({"type": "user"})
    # short numbers: the kernel takes less than a page of text
    maps = [{"containerID": 2 * n, "hostID": 6000 + 3 * n, "size": 1} for n in range(340)]
    box.linux["uidMappings"] = box.linux["gidMappings"] = maps
    os.chown(box.rootfs, 6000, 6000)
    box.process["user"] = {"uid": 678, "gid": 676, "additionalGids": [674]}
    out = box.says("id -u; id -G; wc -l </proc/self/uid_map")
    assert out.split() == ["678", "676", "674", "340"]


def test_more_text_than_the_kernel_takes(box: Box) -> None:
    box.linux["namespaces"].append({"type": "user"})
    box.linux["uidMappings"] = box.linux["gidMappings"] = [{"containerID": n, "hostID": 1000000000 + n, "size": 1} for n in range(340)]
    done = box.run()
    assert done.status == 1
    assert "/linux/gidMappings: 340 entries make a text of " in done.err and "4096" in done.err
    assert box.left() == []


def test_one_map_too_many(box: Box) -> None:
    box.linux["namespaces"].append({"type": "user"})
    box.linux["uidMappings"] = box.linux["gidMappings"] = [{"containerID": n, "hostID": 500000 + n, "size": 1} for n in range(341)]
    done = box.run()
    assert done.status == 1
    assert "/linux/uidMappings: must not have more than 340 entries" in done.err


def test_without_maps(box: Box) -> None:
    """The user who runs it is in there, and whoever that one has in /etc/subuid and /etc/subgid."""
    box.linux["namespaces"].append({"type": "user"})
    assert box.says("id -u; id -g; head -n 1 /proc/self/uid_map /proc/self/gid_map | grep -o '[0-9].*'").split() == [
        "0", "0", "0", "0", "1", "0", "0", "1",
    ]  # fmt: skip
    other = box.another()
    other.linux["namespaces"].append({"type": "user"})
    other.process["user"] = {"uid": 7, "gid": 8}
    pid = other.sh("sleep 1000").started()
    assert Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
    assert bundles.proc_status(pid)["Uid"].split() == ["0"] * 4


def test_a_user_that_is_not_mapped(inner: Box) -> None:
    inner.process["user"] = {"uid": 70000, "gid": 0}
    done = inner.run()
    assert done.status == 1
    assert "/process/user/uid: 70000 is not mapped by /linux/uidMappings" in done.err


def test_without_a_root(box: Box) -> None:
    """Nobody is 0 in there: all that is made belongs to the process's user."""
    box.linux["namespaces"].append({"type": "user"})
    box.linux["uidMappings"] = [{"containerID": 1000, "hostID": 100000, "size": 1}]
    box.linux["gidMappings"] = [{"containerID": 1000, "hostID": 100000, "size": 1}]
    os.chown(box.rootfs, 100000, 100000)
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.config["hostname"] = "inner"
    assert box.says("id -u; id -g; uname -n; stat -c %u /dev") == "1000\n1000\ninner\n1000\n"


OWNED = "stat -c '%u %g' /dev/mqueue; chmod 700 /dev/mqueue; stat -c %a /dev/mqueue"


def test_message_queues_are_those_of_its_root(inner: Box) -> None:
    """The root of their filesystem is made with the IPC namespace, and by whom: the container's root may change it."""
    inner.mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev", kind="mqueue")
    assert inner.says(OWNED) == "0 0\n700\n"


def test_message_queues_in_a_user_namespace_that_is_joined(box: Box, holder: int) -> None:
    box.mount("/dev/mqueue", "mqueue", kind="mqueue")
    box.linux["namespaces"].append({"type": "user", "path": f"/proc/{holder}/ns/user"})
    os.chown(box.rootfs, 100000, 100000)
    assert box.says(OWNED) == "0 0\n700\n"


def test_message_queues_without_a_root(box: Box) -> None:
    """They are the process's user's then; here the user namespace is made later than elsewhere, for the PID namespace that is joined."""
    box.mount("/dev/mqueue", "mqueue", kind="mqueue")
    box.config["mounts"] = [mount for mount in box.config["mounts"] if mount["type"] != "proc"]  # the PID namespace is the host's
    box.without("pid")
    box.linux["namespaces"] += [{"type": "user"}, {"type": "pid", "path": "/proc/self/ns/pid"}]
    box.linux["uidMappings"] = box.linux["gidMappings"] = [{"containerID": 1000, "hostID": 100000, "size": 1}]
    os.chown(box.rootfs, 100000, 100000)
    box.process["user"] = {"uid": 1000, "gid": 1000}
    assert box.says(OWNED) == "1000 1000\n700\n"


def test_exec_without_a_root(box: Box) -> None:
    test_without_a_root(box)
    box.process["args"] = ["sleep", "1000"]
    box.started()
    assert box.exec("id", "-u").out == "1000\n"
    box.ended()


def test_a_group_of_a_devpts_that_is_not_mapped(box: Box) -> None:
    box.linux["namespaces"].append({"type": "user"})
    box.linux["uidMappings"] = box.linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 5}]
    os.chown(box.rootfs, 100000, 100000)
    box.config["mounts"][2]["options"].append("gid=5")
    done = box.run()
    assert done.status == 1
    assert "mount devpts on /dev/pts" in done.err and "gid=5" in done.err and "invalid argument" in done.err
    assert box.left() == []


def test_given_devices_are_the_hosts_and_fifos_are_made(inner: Box) -> None:
    inner.linux["devices"] = [
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7}, {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 5, "gid": 6},
    ]
    out = inner.says("stat -c '%F %u %g' /dev/pipe; (echo >/dev/full) 2>/dev/null || echo full; stat -c %t:%T /dev/full /dev/null")
    assert out.splitlines() == ["fifo 5 6", "full", "1:7", "1:3"]


def test_devices_that_the_host_has_not(inner: Box) -> None:
    """They are made with the mode and the owner asked for, and are nowhere but in the container."""
    inner.linux["devices"] = [
        {"path": "/dev/made", "type": "c", "major": 1, "minor": 7, "fileMode": 0o157, "uid": 10, "gid": 11},
        {"path": "/dev/sub/block", "type": "b", "major": 1, "minor": 5, "uid": 3},
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7},
    ]
    script = "stat -c '%F %a %u:%g %t:%T' /dev/made /dev/sub/block; echo x 2>&1 > /dev/made; grep -c ' /dev/made ' /proc/self/mountinfo; ls -A /dev/sub"
    inner.sh(f"{script}; sleep 1000")
    pid = inner.started()
    wanted = "character special file 157 10:11 1:7\nblock special file 666 3:0 1:5\nsh: write error: No space left on device\n1\nblock\n"
    assert bundles.eventually(lambda: inner.output.read_text() == wanted), inner.output.read_text()
    found = os.stat(f"/proc/{pid}/root/dev/made")
    assert (found.st_uid, found.st_gid, found.st_rdev, found.st_mode & 0o7777) == (100010, 100011, os.makedev(1, 7), 0o157)
    assert not Path("/dev/made").exists()
    assert "0" not in os.listdir(f"/proc/{pid}/root/dev"), "the tmpfs on which they were made is not in the container"


def test_a_device_whose_owner_is_not_mapped(inner: Box) -> None:
    """It cannot be made: the host's is bound where there is one."""
    inner.linux["devices"] = [{"path": "/dev/fuse-of-nobody", "type": "c", "major": 10, "minor": 229, "uid": 70000}]
    done = inner.sh("true").run()
    assert done.status == 1 and "/dev/fuse-of-nobody" in done.err
    assert inner.left() == []


def test_hooks_where_nobody_is_root(box: Box) -> None:
    """createContainer hooks run as the process's user in there."""
    box.linux["namespaces"].append({"type": "user"})
    box.linux["uidMappings"] = [{"containerID": 1000, "hostID": 100000, "size": 1}]
    box.linux["gidMappings"] = [{"containerID": 1000, "hostID": 100000, "size": 1}]
    os.chown(box.rootfs, 100000, 100000)
    box.process["user"] = {"uid": 1000, "gid": 1000}
    log = box.folder / "log"
    box.config["annotations"] = {"run.oci.hooks.stdout": str(log)}
    script = "cat >/dev/null; readlink /proc/self/ns/user; id -u; grep CapEff /proc/self/status"
    box.config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    pid = box.started()
    space, user, caps = log.read_text().splitlines()
    assert (space, user) == (os.readlink(f"/proc/{pid}/ns/user"), "1000")
    assert int(caps.split()[1], 16) != 0, "what it takes to mount is there"


def test_the_hosts_ptmx_is_not_bound(inner: Box) -> None:
    """Podman's --privileged names every device of the host, this one too; the container's leads to its own devpts."""
    inner.linux["devices"] = [{"type": "c", "path": "/dev/ptmx", "major": 5, "minor": 2}]
    assert inner.says("readlink /dev/ptmx") == "pts/ptmx\n"


def test_all_that_is_asked_of_a_process(inner: Box) -> None:
    inner.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10, 20]}
    inner.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    inner.process["oomScoreAdj"] = 400
    inner.process["noNewPrivileges"] = False
    inner.process["capabilities"] = {kind: ["CAP_NET_ADMIN"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    inner.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    out = inner.says(
        "id -u; id -G; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; grep -E '^Cap(Eff|Amb)|^Seccomp:' /proc/self/status;"
        " mkdir /tmp/x 2>&1; true"
    )
    lines = out.splitlines()
    assert lines[:5] == ["1000", "1000 10 20", "100", "200", "400"]
    assert [line.split()[1] for line in lines[5:8]] == ["0000000000001000", "0000000000001000", "2"]
    assert "not supported" in lines[8].lower()


def test_hooks_in_the_containers_namespaces(inner: Box) -> None:
    with tempfile.NamedTemporaryFile("r") as told:  # where the user of the namespace gets to
        os.chmod(told.name, 0o666)
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat /proc/self/uid_map >{told.name}; id -u >>{told.name}"]}
        inner.config["hooks"] = {"createContainer": [hook]}
        assert inner.says("true") == ""
        assert told.read().split() == ["0", "100000", "65536", "0"]


@pytest.mark.parametrize("kind", CLOCKS)
def test_time_in_a_user_namespace(inner: Box, kind: str) -> None:
    inner.config["ociVersion"] = "1.1.0"
    inner.linux["namespaces"].append({"type": "time"})
    inner.linux["timeOffsets"] = {kind: {"secs": 1337, "nanosecs": 3}}
    pid = inner.started()
    assert os.readlink(f"/proc/{pid}/ns/time") != os.readlink("/proc/self/ns/time")
    assert f"{kind}" in inner.exec("cat", "/proc/self/timens_offsets").out
    assert [line.split() for line in inner.exec("cat", "/proc/1/timens_offsets").out.splitlines() if line.split()[0] == kind] == [[kind, "1337", "3"]]
    inner.ended()


def test_offsets_of_a_time_namespace_that_is_joined(box: Box) -> None:
    box.config["ociVersion"] = "1.1.0"
    box.linux["namespaces"].append({"type": "time", "path": "/proc/self/ns/time"})
    box.linux["timeOffsets"] = {"boottime": {"secs": 1}}
    done = box.run()
    assert done.status == 1
    assert "/linux/timeOffsets" in done.err


@pytest.fixture
def holder() -> Iterator[int]:
    """A process in a user namespace with a network namespace of its own."""
    script = "echo ready; exec sleep 1000"
    child = subprocess.Popen(["unshare", "--user", "--net", "--ipc", "sh", "-c", script], stdout=subprocess.PIPE)
    assert child.stdout and child.stdout.readline() == b"ready\n"
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{child.pid}/{kind}").write_text("0 100000 65536\n")
    yield child.pid
    child.kill()
    child.wait()
    child.stdout.close()


def test_joined_with_what_it_owns(box: Box, holder: int) -> None:
    """The network namespace belongs to the user namespace, so it can be entered only from in there."""
    box.without("network", "ipc")
    box.linux["namespaces"] += [{"type": kind, "path": f"/proc/{holder}/ns/{file}"} for kind, file in (("user", "user"), ("network", "net"), ("ipc", "ipc"))]
    os.chown(box.rootfs, 100000, 100000)
    pid = box.started()
    for file in ("user", "net", "ipc"):
        assert os.readlink(f"/proc/{pid}/ns/{file}") == os.readlink(f"/proc/{holder}/ns/{file}")
    assert os.readlink(f"/proc/{pid}/ns/mnt") not in (os.readlink("/proc/self/ns/mnt"), os.readlink(f"/proc/{holder}/ns/mnt"))
    assert box.exec("id", "-u").out == "0\n"
    box.ended()


@pytest.fixture
def ungrouped() -> Iterator[int]:
    """A process in a user namespace that forbids setgroups(2), as those that users make for themselves do."""
    words = ["unshare", "--user", "--map-root-user", "sh", "-c", "echo ready; exec sleep 100"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"ready\n"
        yield child.pid
        child.kill()


def test_joined_one_that_forbids_groups(box: Box, ungrouped: int) -> None:
    """By its path, and by a file that it is bound on, which is nobody's."""
    assert Path(f"/proc/{ungrouped}/setgroups").read_text() == "deny\n"
    bound = box.folder / "bound"
    bound.touch()
    subprocess.run(["mount", "--bind", f"/proc/{ungrouped}/ns/user", bound], check=True)
    try:
        for path in (f"/proc/{ungrouped}/ns/user", str(bound)):
            box.linux["namespaces"] = [space for space in box.linux["namespaces"] if space["type"] != "user"]
            box.linux["namespaces"].append({"type": "user", "path": path})
            assert box.says("id -u; cat /proc/self/setgroups; readlink /proc/self/ns/user") == f"0\ndeny\n{os.readlink(f'/proc/{ungrouped}/ns/user')}\n"
            box.process["user"]["additionalGids"] = [0]
            done = box.run()
            assert done.status == 1 and "/process/user/additionalGids" in done.err and "setgroups" in done.err
            box.process["user"]["additionalGids"] = []
    finally:
        subprocess.run(["umount", bound], check=True)
    assert box.left() == []


def test_the_runtimes_own_by_path(box: Box) -> None:
    box.linux["namespaces"].append({"type": "user", "path": "/proc/self/ns/user"})
    done = box.run()
    assert done.status == 1
    assert "/linux/namespaces/6/path: is the user namespace that the runtime is in already" in done.err


def test_sysfs_with_the_hosts_network(inner: Box) -> None:
    inner.without("network")
    assert inner.says("ls /sys/class/net; touch /sys/x 2>/dev/null || echo ro").split() == [*sorted(os.listdir("/sys/class/net")), "ro"]


def test_two_containers_of_a_pod(boxes: Callable[..., Box]) -> None:
    """The second joins users and network of the first, and has mounts of its own."""
    first, second = boxes(), boxes()
    user_namespace(first.config)
    for box in (first, second):
        os.chown(box.rootfs, 100000, 100000)
    pid = first.started()
    second.without("network", "pid")
    second.linux["namespaces"] += [{"type": kind, "path": f"/proc/{pid}/ns/{file}"} for kind, file in (("user", "user"), ("network", "net"), ("pid", "pid"))]
    other = second.started()
    assert {file for file in ("user", "net", "pid", "mnt") if os.readlink(f"/proc/{pid}/ns/{file}") == os.readlink(f"/proc/{other}/ns/{file}")} == {
        "user", "net", "pid",
    }
    assert bundles.proc_status(other)["Uid"].split() == ["100000"] * 4
    second.ended()
