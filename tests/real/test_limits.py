"""What a container may use: limits as the kernel holds them, and devices as the container meets them, on cgroup v1 and on v2."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box

V2 = bundles.CGROUPS["layout"] == "v2"
RXE = any(Path("/lib/modules", os.uname().release).rglob("rdma_rxe.ko*"))


MIB = 1 << 20
LIMITS = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 48 * MIB},
    "cpu": {"shares": 512, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0"}, "pids": {"limit": 33},
}
HELD = {
    "memory.max": str(64 * MIB), "memory.swap.max": str(32 * MIB), "memory.low": str(48 * MIB), "cpu.weight": "59", "cpu.max": "50000 200000",
    "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "33",
} if V2 else {
    "memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": str(96 * MIB), "memory.soft_limit_in_bytes": str(48 * MIB),
    "cpu.shares": "512", "cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "200000", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "33",
}


def refused(box: Box, *words: str) -> None:
    """A container that cannot be, and of which nothing is left."""
    done = box.create()
    assert (done.status, done.err.count("\n")) == (1, 1), done
    assert all(word in done.err for word in words), done.err
    assert box.left() == []


def test_memory_cpu_and_pids(box: Box) -> None:
    """As the host has them, and as the container sees them."""
    box.linux["resources"] = LIMITS
    box.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro", kind="cgroup")
    box.started()
    assert {file: box.held(file, file) for file in HELD} == HELD
    inside = [f"/sys/fs/cgroup/{'' if V2 else file.partition('.')[0]}/{file}" for file in HELD]
    assert box.exec("cat", *inside).out.splitlines() == list(HELD.values())
    assert box.exec("grep", "_allowed_list:", "/proc/self/status").out.split() == ["Cpus_allowed_list:", "0", "Mems_allowed_list:", "0"]


@pytest.mark.parametrize(
    ("memory", "v1", "v2"),
    [  # the file of v1 counts both, that of v2 swap alone
        ({"limit": 64 * MIB, "swap": 64 * MIB}, str(64 * MIB), "0"), ({"limit": 64 * MIB, "swap": -1}, "", "max"), ({"limit": 64 * MIB}, "", "max"),
        ({"limit": -1}, "", "max"), ({"limit": -1, "swap": -1}, "", "max"), ({"limit": 64 * MIB, "swap": 0}, "", "max"),
        ({"limit": -1, "swap": 96 * MIB}, None, str(96 * MIB)),
    ],
)
def test_swap(box: Box, memory: dict[str, int], v1: str | None, v2: str) -> None:
    box.linux["resources"] = {"memory": memory}
    if not V2 and v1 is None:
        refused(box, "set the limit of memory and swap to ", "invalid argument")  # v1 has none of both below that of memory
        return
    box.created()
    if V2:
        assert box.held("", "memory.swap.max") == v2
    else:
        held = box.held("memory.memsw.limit_in_bytes", "")
        assert held == v1 or (not v1 and int(held) > 1 << 60)


def test_swap_below_memory(box: Box) -> None:
    box.linux["resources"] = {"memory": {"limit": 64 * MIB, "swap": 32 * MIB}}
    refused(box, f"the limit of memory and swap, {32 * MIB} bytes, is below that of memory, {64 * MIB}")


@pytest.mark.parametrize(
    ("resources", "file", "text", "what"),
    [
        ({"memory": {"swappiness": 30}}, "memory.swappiness", "30", "swappiness"),
        ({"memory": {"disableOOMKiller": True, "limit": 64 * MIB}}, "memory.oom_control", "oom_kill_disable 1", "switch for the OOM killer"),
        ({"memory": {"kernelTCP": 8 * MIB}}, "memory.kmem.tcp.limit_in_bytes", str(8 * MIB), "limit of TCP buffers"),
        ({"memory": {"useHierarchy": True}}, "memory.use_hierarchy", "1", ""),
        ({"cpu": {"realtimePeriod": 900000, "realtimeRuntime": 1000}}, "cpu.rt_runtime_us", "1000", "realtime cpu time"),
        ({"cpu": {"realtimePeriod": 900000, "realtimeRuntime": 1000}}, "cpu.rt_period_us", "900000", "realtime cpu time"),
        ({"blockIO": {"leafWeight": 300}}, "blkio.leaf_weight", "300", "block I/O leaf weight"),
    ],
)
def test_what_v2_has_not(box: Box, resources: dict[str, object], file: str, text: str, what: str) -> None:
    """v1 has it, as far as its kernel was built with it."""
    box.linux["resources"] = resources
    if V2 and what:
        refused(box, f"cannot set the {what}: cgroup v2 has none")
    elif V2:
        box.created()
    elif not (Path(bundles.CGROUPS["mounts"][file.partition(".")[0]]) / file).exists():
        refused(box, "this kernel has no `", file)
    else:
        box.created()
        assert text in box.held(file, "").splitlines()


def test_more_memory_than_the_limit_is_not_to_be_had(box: Box) -> None:
    box.linux["resources"] = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    box.sh("tail /dev/zero; echo $?")
    done = box.run()
    assert done.status in (0, 137) and done.out in ("", "137\n"), "the program is killed, or the shell that waits for it with it"


def test_a_memory_limit_below_what_the_runtime_itself_takes(box: Box) -> None:
    """The first process is in its cgroup before it is the program, so the kernel kills it there."""
    box.linux["resources"] = {"memory": {"limit": 4096}}
    done = box.create()
    assert done.status == 1
    assert "the executor was killed, its cgroup is out of memory; the container's limit, 4096 bytes, may be too low" in done.err
    assert box.left() == []


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
        refused(box, "/linux/resources/unified/memory.min")
        return
    box.started()
    for file, text in box.linux["resources"]["unified"].items():
        assert box.held("", file) == text


def test_files_of_v2_beside_v1(box: Box) -> None:
    """On a hybrid those of the controllers that v2 has are to be had."""
    if bundles.CGROUPS["layout"] != "hybrid" or "hugetlb" not in bundles.CGROUPS["controllers"]:
        return
    box.linux["resources"] = {"unified": {"hugetlb.2MB.max": str(8 * MIB), "cgroup.max.depth": "5"}, "pids": {"limit": 9}}
    box.created()
    at = Path(bundles.CGROUPS["mounts"]["unified"], box.id)
    assert [(at / name).read_text().strip() for name in ("hugetlb.2MB.max", "cgroup.max.depth")] == [str(8 * MIB), "5"]
    assert box.held("pids.max", "pids.max") == "9"


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


@pytest.mark.parametrize("below", ["", "/one/two"])
@pytest.mark.parametrize(
    ("resources", "word"),
    [
        ({"cpu": {"period": 100}}, "invalid argument"), ({"cpu": {"cpus": "4000"}}, "set the set of cpus to 4000"),
        ({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}, "this kernel has no `"),
    ],
)
def test_limits_that_cannot_be(box: Box, below: str, resources: dict[str, object], word: str) -> None:
    """The cgroups that were made on the way go again, outer ones too."""
    box.linux["cgroupsPath"] += below
    box.linux["resources"] = {"memory": {"limit": 32 << 20}, **resources}
    refused(box, word)
    assert not any(Path(mount, box.id).exists() for mount in bundles.CGROUPS["mounts"].values())


def test_a_set_of_cpus_below_new_cgroups(box: Box) -> None:
    box.linux["cgroupsPath"] = f"/{box.id}/one/two"
    box.linux["resources"] = {"cpu": {"cpus": "0", "mems": "0"}}
    box.sh("grep Cpus_allowed_list /proc/self/status")
    done = box.run()
    assert done.out.split() == ["Cpus_allowed_list:", "0"], done
    for mount in set(bundles.CGROUPS["mounts"].values()):
        Path(mount, box.id, "one").rmdir()
        Path(mount, box.id).rmdir()


@pytest.mark.parametrize(("shares", "weight"), [(2, "1"), (1024, "100"), (262144, "10000")])
def test_shares(box: Box, shares: int, weight: str) -> None:
    """The least, the default and the most of the one are those of the other."""
    box.linux["resources"] = {"cpu": {"shares": shares}}
    box.created()
    assert box.held("cpu.shares", "cpu.weight") == (weight if V2 else str(shares))


def test_weights_and_burst_and_idle(box: Box) -> None:
    box.linux["resources"] = {"cpu": {"quota": 50000, "burst": 20000}}
    box.created()
    assert box.held("cpu.cfs_burst_us", "cpu.max.burst") == "20000"
    other = box.another()
    other.linux["resources"] = {"cpu": {"idle": 1, "shares": 300}, "blockIO": {"weight": 750}}
    other.created()
    assert other.held("cpu.idle", "cpu.idle") == "1"
    files = ("io.bfq.weight", "io.weight") if V2 else ("blkio.weight", "blkio.bfq.weight")
    weight, text = next((file, file.read_text()) for at in other.cgroups() for file in (at / name for name in files) if file.exists())
    assert text.strip().removeprefix("default ") == ("7475" if weight.name == "io.weight" else "750")


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
        "blockIO": {
            "throttleReadBpsDevice": [{**where, "rate": 1 << 20}], "throttleWriteBpsDevice": [{**where, "rate": 2 << 20}],
            "throttleReadIOPSDevice": [{**where, "rate": 300}], "throttleWriteIOPSDevice": [{**where, "rate": 100}],
        },
    }
    if not disks:
        refused(box, "of 8:240 to 8:240 rbps=1048576")
        return
    box.created()
    if V2:
        assert box.held("", "io.max") == f"{major}:{minor} rbps=1048576 wbps=2097152 riops=300 wiops=100"
    else:
        for file, rate in (("read_bps", 1 << 20), ("write_bps", 2 << 20), ("read_iops", 300), ("write_iops", 100)):
            assert box.held(f"blkio.throttle.{file}_device", "") == f"{major}:{minor} {rate}"


def test_the_weight_of_a_disk_that_has_none(box: Box) -> None:
    """It takes a scheduler that weighs; without, the kernel refuses, and that is told."""
    box.linux["resources"] = {"blockIO": {"weightDevice": [{"major": 8, "minor": 240, "weight": 200}]}}
    refused(box, "set the block I/O weight of 8:240 to 8:240 ")


@pytest.fixture
def rdma() -> Iterator[str]:
    """A device of RDMA, made of the loopback by the kernel's RDMA over Ethernet in software."""
    subprocess.run(["modprobe", "rdma_rxe"], check=True)
    subprocess.run(["rdma", "link", "add", "rundlet0", "type", "rxe", "netdev", "lo"], check=True)
    yield "rundlet0"
    subprocess.run(["rdma", "link", "delete", "rundlet0"], check=True)


@pytest.mark.skipif(not RXE, reason="this kernel has no module rdma_rxe, to make a device of RDMA of")
def test_rdma(box: Box, rdma: str) -> None:
    box.linux["resources"] = {"rdma": {rdma: {"hcaHandles": 2}}}
    box.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro", kind="cgroup")
    box.started()
    held = f"{rdma} hca_handle=2 hca_object=max"
    assert box.held("rdma.max", "rdma.max") == held
    assert box.exec("cat", f"/sys/fs/cgroup/{'' if V2 else 'rdma/'}rdma.max").out.strip() == held
    asked = box.folder / "asked.json"
    asked.write_text(json.dumps({"rdma": {rdma: {"hcaHandles": 5, "hcaObjects": 7}, "none": {"hcaObjects": 1}}}))
    done = box.call_apart("update", "--resources", str(asked), box.id)
    assert done.status == 1 and "set the limit of RDMA resources of none" in done.err, done
    assert box.held("rdma.max", "rdma.max") == held, "what went through is taken back"
    asked.write_text(json.dumps({"rdma": {rdma: {"hcaObjects": 7}}}))
    box.ok("update", "--resources", str(asked), box.id)
    assert box.held("rdma.max", "rdma.max") == f"{rdma} hca_handle=2 hca_object=7"
