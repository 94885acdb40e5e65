"""What a container may use: limits as the kernel holds them, and devices as the container meets them, on cgroup v1 and on v2."""

from pathlib import Path

import pytest

from tests.bundles import Box

V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()


def held(box: Box, v1: str, v2: str) -> str:
    """The text of a limit's file in the container's cgroup."""
    wanted = v2 if V2 else v1
    found = [cgroup / wanted for cgroup in box.cgroups() if (cgroup / wanted).exists()]
    assert len(found) == 1, (box.cgroups(), wanted)
    return found[0].read_text().strip()


def test_memory_cpu_and_pids(box: Box) -> None:
    box.linux["resources"] = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20}, "cpu": {"shares": 512, "quota": 50000, "period": 100000}, "pids": {"limit": 33},
    }
    box.sh("sleep 1000")
    box.started()
    assert held(box, "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert held(box, "pids.max", "pids.max") == "33"
    if V2:
        assert held(box, "", "cpu.max") == "50000 100000"
        assert held(box, "", "memory.swap.max") == "0"
    else:
        assert held(box, "cpu.cfs_quota_us", "") == "50000"
        assert held(box, "cpu.shares", "") == "512"


def test_more_memory_than_the_limit_is_not_to_be_had(box: Box) -> None:
    box.linux["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    box.sh("tail /dev/zero; echo $?")
    done = box.run()
    assert done.status in (0, 137) and done.out in ("", "137\n"), "the program is killed, or the shell that waits for it with it"


def test_more_processes_than_the_limit_are_not_to_be_had(box: Box) -> None:
    box.linux["resources"] = {"pids": {"limit": 3}}
    box.sh("for n in 1 2 3 4 5; do sleep 1000 & done; echo made")
    done = box.run()
    assert done.status != 0 and "fork" in done.err


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ([{"allow": False, "access": "rwm"}], "Operation not permitted"),
        ([{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}], "read"),
        ([{"allow": True, "access": "rwm"}], "read"),
        ([{"allow": True, "access": "rwm"}, {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rw"}], "Operation not permitted"),
    ],
)
def test_devices(box: Box, rules: list[dict[str, object]], word: str) -> None:
    """/dev/kmsg, 1:11, by a node of the container's own: making it is allowed to all, opening it is not."""
    box.linux["resources"] = {"devices": rules}
    for kind in ("bounding", "effective", "permitted"):
        box.process["capabilities"][kind] = ["CAP_MKNOD", "CAP_SYSLOG"]
    box.sh("mknod /tmp/log c 1 11 && head -c 1 /tmp/log >/dev/null && echo read; head -c 1 /dev/zero | od -An -tx1; true")
    done = box.run()
    assert word in done.out + done.err, done
    assert "00" in done.out, "the devices that every container has are there whatever the rules say"


def test_exec_is_held_to_the_same_limits(box: Box) -> None:
    box.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}], "pids": {"limit": 20}}
    for kind in ("bounding", "effective", "permitted"):
        box.process["capabilities"][kind] = ["CAP_MKNOD"]
    box.sh("sleep 1000")
    box.started()
    done = box.exec("sh", "-c", "mknod /tmp/log c 1 11; head -c 1 /tmp/log")
    assert done.status != 0 and "Operation not permitted" in done.err


def test_half_a_megabyte_is_enough_to_wait_in(box: Box) -> None:
    box.linux["resources"] = {"memory": {"limit": 512 << 10}}
    box.sh("true")
    pid = box.created()
    assert pid and box.status == "created"
