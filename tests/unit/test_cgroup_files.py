"""What the files of a cgroup say and take, from folders that look like cgroups: numbers of `events`, and writes that are taken back."""

from pathlib import Path
from typing import Any

import pytest

from rundlet.cgroup.change import reverse
from rundlet.cgroup.place import Dir, Place
from rundlet.cgroup.stats import NO_LIMIT, collect, interfaces

V2 = {
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 5\n",
    "cpu.pressure": "some avg10=0.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "cpuset.cpus.effective": "0-2,7\n", "cpuset.mems.effective": "0\n",
    "memory.stat": "anon 100\nfile 50\n", "memory.current": "160\n", "memory.max": "1000\n", "memory.peak": "900\n",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n",
    "memory.swap.current": "40\n", "memory.swap.max": "500\n", "memory.swap.events": "high 0\nmax 1\nfail 0\n",
    "pids.current": "2\n", "pids.max": "max\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1\n",
    "hugetlb.2MB.current": "0\n", "hugetlb.2MB.rsvd.current": "4096\n", "hugetlb.2MB.events": "max 6\n", "hugetlb.1GB.current": "0\n",
    "hugetlb.2MB.max": "max\n",
}  # fmt: skip
V1 = {
    "cpu.stat": "nr_periods 4\nnr_throttled 2\nthrottled_time 5000\n", "cpuacct.usage": "30\n", "cpuacct.usage_percpu": "10 20 \n",
    "cpuacct.stat": "user 3\nsystem 1\n", "cpuacct.usage_all": "cpu user system\n0 6 4\n1 12 8\n",
    "cpuset.cpus": "1\n", "cpuset.mems": "0-1\n", "cpuset.sched_load_balance": "1\n", "cpuset.sched_relax_domain_level": "-1\n",
    "memory.stat": "cache 50\nrss 100\n", "memory.usage_in_bytes": "160\n", "memory.limit_in_bytes": "1000\n",
    "memory.max_usage_in_bytes": "900\n", "memory.failcnt": "3\n", "memory.memsw.limit_in_bytes": "1500\n",
    "memory.memsw.usage_in_bytes": "200\n", "pids.current": "2\n", "pids.max": "7\n",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n", "blkio.sectors_recursive": "8:0 9\n",
    "hugetlb.2MB.usage_in_bytes": "1\n", "hugetlb.2MB.max_usage_in_bytes": "2\n", "hugetlb.2MB.failcnt": "3\n",
}  # fmt: skip
V1_NAMES = ("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb")
V2_NAMES = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")


def place(folder: Path, version: int, files: dict[str, str]) -> Place:
    """A folder with these files as the cgroup of every controller."""
    for name, text in files.items():
        (folder / name).write_text(text)
    return Place((Dir(str(folder), "/", version, V1_NAMES if version == 1 else V2_NAMES),))


def test_numbers_of_v2(tmp_path: Path) -> None:
    found: Any = collect(place(tmp_path, 2, V2))
    assert found["cpu"]["usage"] == {"total": 30000, "kernel": 10000, "user": 20000}
    assert found["cpu"]["throttling"] == {"periods": 4, "throttledPeriods": 2, "throttledTime": 5000}
    assert found["cpu"]["psi"]["some"] == {"avg10": 0.5, "avg60": 0.0, "avg300": 0.0, "total": 77}
    assert (found["cpuset"]["cpus"], found["cpuset"]["mems"]) == ([0, 1, 2, 7], [0])
    assert found["memory"] == {
        "cache": 50, "usage": {"limit": 1000, "usage": 160, "max": 900, "failcnt": 3}, "swap": {"limit": 1500, "usage": 200, "failcnt": 1},
        "kernel": {"limit": 0, "failcnt": 0}, "kernelTCP": {"limit": 0, "failcnt": 0}, "raw": {"anon": 100, "file": 50},
    }
    assert found["pids"] == {"current": 2}
    assert found["blkio"] == {
        "ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write", "value": 2}, {"major": 8, "op": "Discard"},
        ],
        "ioServicedRecursive": [
            {"major": 8, "op": "Read", "value": 3}, {"major": 8, "op": "Write", "value": 4}, {"major": 8, "op": "Discard"},
        ],
    }
    assert found["hugetlb"] == {"2MB": {"usage": 4096, "failcnt": 6}, "1GB": {"failcnt": 0}}


def test_numbers_of_v1(tmp_path: Path) -> None:
    found: Any = collect(place(tmp_path, 1, V1))
    usage = found["cpu"]["usage"]
    assert (usage["total"], usage["percpu"], usage["percpu_kernel"], usage["percpu_user"]) == (30, [10, 20], [4, 8], [6, 12])
    assert usage["user"] == 3 * usage["kernel"] > 0
    assert found["cpu"]["throttling"]["throttledTime"] == 5000
    assert (found["cpuset"]["cpus"], found["cpuset"]["mems"], found["cpuset"]["sched_relax_domain_level"]) == ([1], [0, 1], -1)
    assert found["memory"]["usage"] == {"limit": 1000, "usage": 160, "max": 900, "failcnt": 3}
    assert found["memory"]["swap"] == {"limit": 1500, "usage": 200, "failcnt": 0}
    assert found["memory"]["cache"] == 50
    assert found["pids"] == {"current": 2, "limit": 7}
    assert found["blkio"]["ioServiceBytesRecursive"][0] == {"major": 8, "op": "Read", "value": 1}
    assert found["blkio"]["sectorsRecursive"] == [{"major": 8, "value": 9}]
    assert found["hugetlb"] == {"2MB": {"usage": 1, "max": 2, "failcnt": 3}}


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_is_gone(tmp_path: Path, version: int) -> None:
    found: Any = collect(Place((Dir(str(tmp_path / "gone"), "/", version, V1_NAMES if version == 1 else V2_NAMES),)))
    assert found["cpu"]["usage"] == {"kernel": 0, "user": 0}
    assert found["memory"]["usage"] == {"limit": 0, "failcnt": 0}
    assert collect(Place(()))["memory"] == {}


def test_no_limit(tmp_path: Path) -> None:
    files = V2 | {"memory.max": "max\n", "memory.swap.max": "5\n"}
    found: Any = collect(place(tmp_path, 2, files))
    assert (found["memory"]["usage"]["limit"], found["memory"]["swap"]["limit"]) == (NO_LIMIT, NO_LIMIT)


def test_network_interfaces() -> None:
    text = "Inter-|   Receive\n face |bytes\n  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
    assert interfaces(text) == [{
        "Name": "eth0", "RxBytes": 1, "RxPackets": 2, "RxErrors": 3, "RxDropped": 4, "TxBytes": 9, "TxPackets": 10, "TxErrors": 11,
        "TxDropped": 12,
    }]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "written", "before", "back"),
    [
        ("memory.max", "5", "max\n", "max\n"), ("cpuset.cpus", "0", "\n", "\n"), ("cpuset.cpus", "0", "", "\n"),
        ("cpu.max", "max 9", "1 2\n", "1 2\n"), ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\n", "0"),
        ("io.max", "8:0 rbps=1", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "8:0 rbps=1", "7:0 rbps=2\n8:0 rbps=3 wbps=max\n", "8:0 rbps=3 wbps=max"), ("io.weight", "8:0 5", "default 100\n", "8:0 default"),
        ("io.weight", "default 5", "default 100\n8:0 7\n", "default 100"), ("blkio.throttle.read_bps_device", "8:0 5", "", "8:0 0"),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:0 9\n", "8:0 9"), ("io.bfq.weight", "5", "default 100\n8:0 7\n", "default 100"),
        ("rdma.max", "mlx hca_handle=1", "b c=1\nmlx hca_handle=2 hca_object=max\n", "mlx hca_handle=2 hca_object=max"),
        ("rdma.max", "mlx hca_handle=1", "", "mlx hca_handle=max hca_object=max"),
        ("net_prio.ifpriomap", "eth0 3", "lo 0\neth0 5\n", "eth0 5"), ("cpu.stat", "3", "a 1\nb 2\n", None),
    ],
)
def test_what_takes_a_write_back(file: str, written: str, before: str, back: str | None) -> None:
    assert reverse(f"/cg/{file}", written, before) == (f"/cg/{file}", written, back)


def test_what_takes_device_lines_back() -> None:
    assert reverse("/cg/devices.allow", "c 1:3 r", "") == ("/cg/devices.deny", "c 1:3 r", "c 1:3 r")
    assert reverse("/cg/devices.deny", "c 1:3 r", "") == ("/cg/devices.allow", "c 1:3 r", "c 1:3 r")
    assert reverse("/cg/devices.deny", "a", "")[2] is None
