"""What a container may use: limits as the kernel holds them, and devices as the container meets them, on cgroup v1 and on v2."""

from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box

V2 = bundles.CGROUPS["layout"] == "v2"


def test_memory_cpu_and_pids(box: Box) -> None:
    box.linux["resources"] = {
        "memory": {"limit": 64 << 20, "swap": 64 << 20}, "cpu": {"shares": 512, "quota": 50000, "period": 100000}, "pids": {"limit": 33},
    }
    box.sh("sleep 1000")
    box.started()
    assert box.held("memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert box.held("pids.max", "pids.max") == "33"
    if V2:
        assert box.held("", "cpu.max") == "50000 100000"
        assert box.held("", "memory.swap.max") == "0"
    else:
        assert box.held("cpu.cfs_quota_us", "") == "50000"
        assert box.held("cpu.shares", "") == "512"


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


def test_files_of_v2_by_name(box: Box) -> None:
    """They are written last, and so override what was said otherwise; on v1 they are refused."""
    box.linux["resources"] = {
        "memory": {"limit": 32 << 20}, "cpu": {"shares": 3333, "quota": 40000, "period": 100000},
        "unified": {
            "memory.min": "131072", "memory.low": "524288", "memory.high": "5242880", "memory.max": "10485760", "pids.max": "42",
            "cpu.max": "5000 50000", "cpu.weight": "42",
        },
    }
    if not V2:
        done = box.create()
        assert done.status == 1 and "/linux/resources/unified/memory.min" in done.err and box.left() == []
        return
    box.started()
    for file, text in box.linux["resources"]["unified"].items():
        assert box.held("", file) == text


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("foo.bar", "the requested cgroup controller `foo` is not available"),
        ("NOT-A-VALID-KEY", "the specified key has not the form CONTROLLER.VALUE `NOT-A-VALID-KEY`"),
        ("cgroup.doesntexist", "this kernel has no `"), ("cgroup.procs", "not the name of a cgroup file that sets a limit"),
    ],
)
def test_files_of_v2_that_are_none(box: Box, key: str, complaint: str) -> None:
    box.linux["resources"] = {"unified": {key: "1"}}
    done = box.create()
    assert done.status == 1 and f"{complaint}" in done.err and box.left() == []


def test_a_limit_of_processes_that_is_none(box: Box) -> None:
    box.linux["resources"] = {"pids": {"limit": -1}}
    box.created()
    assert box.held("pids.max", "pids.max") == "max"


def test_a_limit_of_no_processes_is_one(box: Box) -> None:
    """runtime-spec 1.3: -1 alone is no limit. The container's first process does not count as a fork."""
    box.linux["resources"] = {"pids": {"limit": 0}}
    done = box.sh("echo here; true & wait").run()
    assert done.out == "here\n" and "fork" in done.err


def test_cpu_limits_that_cannot_be(box: Box) -> None:
    box.linux["resources"] = {"memory": {"limit": 32 << 20}, "cpu": {"period": 100}}
    done = box.create()
    assert done.status == 1 and "invalid argument" in done.err and box.left() == []


def test_a_set_of_cpus_below_new_cgroups(box: Box) -> None:
    box.linux["cgroupsPath"] = f"/{box.id}/one/two"
    box.linux["resources"] = {"cpu": {"cpus": "0", "mems": "0"}}
    box.sh("grep Cpus_allowed_list /proc/self/status")
    done = box.run()
    assert done.out.split() == ["Cpus_allowed_list:", "0"], done
    for mount in set(bundles.CGROUPS["mounts"].values()):
        Path(mount, box.id, "one").rmdir()
        Path(mount, box.id).rmdir()


def test_weights_and_burst_and_idle(box: Box) -> None:
    box.linux["resources"] = {"cpu": {"shares": 1024, "quota": 50000, "burst": 20000}}
    box.created()
    assert box.held("cpu.shares", "cpu.weight") == ("100" if V2 else "1024"), "the default of the one is that of the other"
    assert box.held("cpu.cfs_burst_us", "cpu.max.burst") == "20000"
    other = box.another()
    other.linux["resources"] = {"cpu": {"idle": 1}, **({"blockIO": {"weight": 750}} if V2 else {})}
    other.created()
    assert other.held("cpu.idle", "cpu.idle") == "1"
    if V2:
        held = {file: (other.cgroups()[0] / file).read_text() for file in ("io.bfq.weight", "io.weight") if (other.cgroups()[0] / file).exists()}
        assert held.get("io.bfq.weight", "").startswith("default 750") or held["io.weight"] == "default 7475\n"


def test_huge_pages(box: Box) -> None:
    box.linux["resources"] = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}
    box.created()
    files = [at / name for at in box.cgroups() for name in ("hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes") if (at / name).exists()]
    assert [file.read_text() for file in files] == [f"{4 << 20}\n"]
    reserved = Path(str(files[0]).replace("2MB.", "2MB.rsvd."))
    assert reserved.read_text() == f"{4 << 20}\n"


def test_throttled_devices(box: Box) -> None:
    """Of a disk that this machine has; one that it has not is refused by the kernel."""
    disks = sorted(path.read_text().strip() for path in Path("/sys/block").glob("*/dev"))
    major, minor = map(int, (disks or ["8:240"])[0].split(":"))
    where = {"major": major, "minor": minor}
    box.linux["resources"] = {
        "blockIO": {"throttleReadBpsDevice": [{**where, "rate": 1 << 20}], "throttleWriteIOPSDevice": [{**where, "rate": 100}]},
    }
    if not disks:
        done = box.create()
        assert done.status == 1 and "of 8:240 to 8:240 rbps=1048576" in done.err and box.left() == []
        return
    box.created()
    if V2:
        assert box.held("", "io.max") == f"{major}:{minor} rbps=1048576 wbps=max riops=max wiops=100"
    else:
        assert box.held("blkio.throttle.read_bps_device", "") == f"{major}:{minor} 1048576"
        assert box.held("blkio.throttle.write_iops_device", "") == f"{major}:{minor} 100"
