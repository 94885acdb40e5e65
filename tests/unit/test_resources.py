"""The texts of the limits, for each layout of cgroups."""

from json import dumps
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.errors import BadSpec, Refused
from rundlet.plan.blockio import io_weight
from rundlet.plan.resources import asks, cpu_weight, notes, version, writes
from rundlet.plan.write import Write
from rundlet.spec import load_resources

if TYPE_CHECKING:
    from rundlet.plan.resources import CgroupFacts
    from rundlet.spec.types import Resources

V1_NAMES = ("cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "net_cls", "net_prio", "rdma")
V2_NAMES = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"]
V1: "CgroupFacts" = {"layout": "v1", "mounts": {name: f"/cg/{name}" for name in V1_NAMES}, "own": {}, "controllers": []}
V2: "CgroupFacts" = {"layout": "v2", "mounts": {"unified": "/cg"}, "own": {"unified": "/"}, "controllers": V2_NAMES}
HYBRID: "CgroupFacts" = {
    "layout": "hybrid", "mounts": {"memory": "/cg/memory", "unified": "/cg/unified"}, "own": {}, "controllers": ["hugetlb", "pids"],
}
NONE: "CgroupFacts" = {"layout": "none", "mounts": {}, "own": {}, "controllers": []}
ALL_DEVICES = [{"allow": True, "access": "rwm"}]


def config(**sections: Any) -> "Resources":
    """The resources as the spec room loads them, with every device allowed so that no device lines stand among the limits."""
    return load_resources(dumps({"devices": ALL_DEVICES, **sections}).encode())[0]


def texts(cgroups: "CgroupFacts", now: "dict[str, str] | None" = None, **sections: Any) -> "list[tuple[str, str]]":
    return [(write.file, write.text) for write in writes(config(**sections), cgroups, now)]


@pytest.mark.parametrize("cgroups", [V1, V2, HYBRID, NONE], ids=lambda facts: facts["layout"])
def test_nothing_asked_is_nothing_written(cgroups: "CgroupFacts") -> None:
    assert writes(config(), cgroups) == ()
    assert asks(config(), cgroups) == ()
    assert notes(config(), cgroups) == ()


TABLE = [
    # what the config says                                            v1                                         v2
    ({"memory": {"limit": 4096}}, [("memory.limit_in_bytes", "4096")], [("memory.max", "4096")]),
    ({"memory": {"limit": -1}}, [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
     [("memory.swap.max", "max"), ("memory.max", "max")]),
    ({"memory": {"limit": 4096, "swap": 8192}}, [("memory.limit_in_bytes", "4096"), ("memory.memsw.limit_in_bytes", "8192")],
     [("memory.swap.max", "4096"), ("memory.max", "4096")]),
    ({"memory": {"limit": 4096, "swap": 4096}}, [("memory.limit_in_bytes", "4096"), ("memory.memsw.limit_in_bytes", "4096")],
     [("memory.swap.max", "0"), ("memory.max", "4096")]),
    ({"memory": {"limit": 4096, "swap": -1}}, [("memory.limit_in_bytes", "4096"), ("memory.memsw.limit_in_bytes", "-1")],
     [("memory.swap.max", "max"), ("memory.max", "4096")]),
    ({"memory": {"limit": -1, "swap": 8192}}, [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "8192")],
     [("memory.swap.max", "8192"), ("memory.max", "max")]),
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
    ({"memory": {"reservation": 4096}}, [("memory.soft_limit_in_bytes", "4096")], [("memory.low", "4096")]),
    ({"memory": {"reservation": -1}}, [("memory.soft_limit_in_bytes", "-1")], [("memory.low", "max")]),
    ({"memory": {"swappiness": 30}}, [("memory.swappiness", "30")], "swappiness: cgroup v2 has none"),
    ({"memory": {"swappiness": 0}}, [("memory.swappiness", "0")], []),
    ({"memory": {"disableOOMKiller": True}}, [("memory.oom_control", "1")], "OOM killer: cgroup v2 has none"),
    ({"memory": {"disableOOMKiller": False}}, [], []),
    ({"memory": {"kernel": 4096}}, [], []),
    ({"memory": {"kernelTCP": 4096}}, [("memory.kmem.tcp.limit_in_bytes", "4096")], "TCP buffers: cgroup v2 has none"),
    ({"memory": {"useHierarchy": True}}, [("memory.use_hierarchy", "1")], []),
    ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    ({"cpu": {"shares": 0}}, [], []),
    ({"cpu": {"quota": 50000}}, [("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 100000")]),
    ({"cpu": {"quota": 50000, "period": 200000}}, [("cpu.cfs_period_us", "200000"), ("cpu.cfs_quota_us", "50000")],
     [("cpu.max", "50000 200000")]),
    ({"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    ({"cpu": {"period": 200000}}, [("cpu.cfs_period_us", "200000")], [("cpu.max", "max 200000")]),
    ({"cpu": {"quota": 50000, "burst": 1000}}, [("cpu.cfs_quota_us", "50000"), ("cpu.cfs_burst_us", "1000")],
     [("cpu.max", "50000 100000"), ("cpu.max.burst", "1000")]),
    ({"cpu": {"shares": 2, "idle": 1}}, [("cpu.shares", "2"), ("cpu.idle", "1")], [("cpu.weight", "1"), ("cpu.idle", "1")]),
    ({"cpu": {"shares": 2, "idle": 0}}, [("cpu.idle", "0"), ("cpu.shares", "2")], [("cpu.idle", "0"), ("cpu.weight", "1")]),
    ({"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 5000}}, [("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "5000")],
     "realtime cpu time: cgroup v2 has none"),
    ({"cpu": {"cpus": "0-1", "mems": "0"}}, [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")], [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")]),
    ({"pids": {"limit": 7}}, [("pids.max", "7")], [("pids.max", "7")]),
    ({"pids": {"limit": 0}}, [("pids.max", "0")], [("pids.max", "0")]),
    ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
    ({"blockIO": {"weight": 500}}, [("blkio.weight", "500")], [("io.bfq.weight", "500")]),
    ({"blockIO": {"leafWeight": 500}}, [("blkio.leaf_weight", "500")], "leaf weight: cgroup v2 has none"),
    ({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}},
     [("blkio.weight_device", "8:0 10")], [("io.bfq.weight", "8:0 10")]),
    ({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]}},
     [("blkio.throttle.read_bps_device", "8:0 1000")], [("io.max", "8:0 rbps=1000")]),
    ({"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]}},
     [("blkio.throttle.write_iops_device", "8:0 0")], [("io.max", "8:0 wiops=max")]),
    ({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]},
     [("hugetlb.2MB.limit_in_bytes", "4194304"), ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")],
     [("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")]),
    ({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}}}, [("rdma.max", "mlx5_1 hca_handle=3 hca_object=4")],
     [("rdma.max", "mlx5_1 hca_handle=3 hca_object=4")]),
    ({"rdma": {"mlx5_1": {"hcaObjects": 4}}}, [("rdma.max", "mlx5_1 hca_object=4")], [("rdma.max", "mlx5_1 hca_object=4")]),
    ({"network": {"classID": 1048577}}, [("net_cls.classid", "1048577")], "network class: cgroup v2 has none"),
    ({"network": {"priorities": [{"name": "eth0", "priority": 5}]}}, [("net_prio.ifpriomap", "eth0 5")],
     "network priority: cgroup v2 has none"),
    ({"unified": {"memory.high": "4096", "cgroup.max.depth": "3"}}, "no cgroup v2", [("memory.high", "4096"), ("cgroup.max.depth", "3")]),
    ({"unified": {"io.max": "8:0 riops=3\n8:16 riops=4\n"}}, "no cgroup v2", [("io.max", "8:0 riops=3"), ("io.max", "8:16 riops=4")]),
    ({"unified": {"cpuset.cpus": ""}}, "no cgroup v2", [("cpuset.cpus", "")]),
]


@pytest.mark.parametrize(("asked", "v1", "v2"), TABLE, ids=lambda value: str(value)[:60] if isinstance(value, dict) else "")
def test_each_limit(asked: "dict[str, Any]", v1: "list[tuple[str, str]] | str", v2: "list[tuple[str, str]] | str") -> None:
    for cgroups, expected in ((V1, v1), (V2, v2)):
        if isinstance(expected, str):
            with pytest.raises(Refused, match=expected):
                texts(cgroups, **asked)
        else:
            assert texts(cgroups, **asked) == expected
    # a host without any cgroups refuses whatever writes something here
    if v1 not in ([], [("memory.swappiness", "0")], [("memory.use_hierarchy", "1")]):
        with pytest.raises(Refused, match="cannot set the|no cgroup v2"):
            texts(NONE, **asked)
    else:
        assert texts(NONE, **asked) == []


def test_hybrid_takes_each_controller_where_it_is() -> None:
    assert [version(HYBRID, name) for name in ("memory", "hugetlb", "pids", "devices", "freezer", "cpu")] == [1, 2, 2, 2, 2, 0]
    asked: dict[str, Any] = {"memory": {"limit": 4096}, "hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "unified": {"pids.max": "3"}}
    assert [file for file, _ in texts(HYBRID, **asked)] == ["memory.limit_in_bytes", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "pids.max"]
    with pytest.raises(Refused, match="cannot set the cpu limit: no cpu controller"):
        texts(HYBRID, cpu={"shares": 5})
    with pytest.raises(Refused, match=r"unified/memory\.high: invalid configuration: the requested cgroup controller `memory` is not available"):
        texts(HYBRID, unified={"memory.high": "1"})


@pytest.mark.parametrize("name", ["cgroup.procs", "cgroup.kill", "cgroup.freeze", "cgroup.type", "cgroup.threads", "memory"])
def test_unified_sets_limits_only(name: str) -> None:
    with pytest.raises((Refused, BadSpec)):
        texts(V2, unified={name: "1"})


def test_devices_are_lines_on_v1_and_nothing_here_on_v2() -> None:
    asked, _ = load_resources(dumps({"devices": [{"allow": False, "access": "rwm"}]}).encode())
    first, *rest = writes(asked, V1)
    assert first == Write("devices", "devices.deny", "a", "device rules")
    assert {write.file for write in rest} == {"devices.allow"}
    assert writes(asked, V2) == ()
    assert writes(asked, V1, {}) == ()  # an update leaves devices alone
    with pytest.raises(Refused, match="cannot set the device rules: no devices controller"):
        writes(asked, NONE)
    assert writes(load_resources(b"{}")[0], NONE) == ()


def test_swap_needs_memory_and_is_not_below_it_on_v2() -> None:
    with pytest.raises(Refused, match="without a memory limit"):
        texts(V2, memory={"swap": 4096})
    with pytest.raises(Refused, match="4096 bytes, is below that of memory, 8192"):
        texts(V2, memory={"limit": 8192, "swap": 4096})
    assert texts(V2, {"memory.max": "4096\n"}, memory={"swap": 6000}) == [("memory.swap.max", "1904")]
    assert texts(V2, {"memory.max": "max\n"}, memory={"swap": 6000}) == [("memory.swap.max", "6000")]


def test_swap_of_all_or_nothing_needs_no_swap_in_the_kernel() -> None:
    for swap, fine in ((4096, ("ENOENT",)), (-1, ("ENOENT",)), (5000, ())):
        assert writes(config(memory={"limit": 4096, "swap": swap}), V2)[0].fine == fine


amount = st.integers(1, 20) | st.just(-1)


@given(amount, amount, amount, amount)
def test_v1_memory_is_never_above_memory_and_swap(old: int, old_both: int, new: int, new_both: int) -> None:
    """A model of the kernel's two counters: whatever they were, neither write of an update is refused."""
    huge = 1 << 63

    def size(value: int) -> int:
        return huge if value < 0 else value

    if size(old) > size(old_both) or size(new) > size(new_both):
        return
    at = {"memory.limit_in_bytes": size(old), "memory.memsw.limit_in_bytes": size(old_both)}
    for file, text in texts(V1, {file: str(value) for file, value in at.items()}, memory={"limit": new, "swap": new_both}):
        at[file] = size(int(text))
        assert at["memory.limit_in_bytes"] <= at["memory.memsw.limit_in_bytes"]
    assert list(at.values()) == [size(new), size(new_both)]


def test_an_update_reads_what_it_depends_on() -> None:
    asked = config(memory={"limit": 4096, "checkBeforeUpdate": True}, cpu={"quota": 5000})
    assert asks(asked, V1) == (("memory", "memory.usage_in_bytes"), ("memory", "memory.memsw.limit_in_bytes"))
    assert asks(asked, V2) == (("memory", "memory.current"), ("memory", "memory.max"), ("cpu", "cpu.max"))
    assert asks(asked, NONE) == ()
    now = {"memory.current": "4097\n", "memory.max": "max\n", "cpu.max": "max 100000\n"}
    with pytest.raises(Refused, match="rejecting memory limit 4096: the memory in use is 4097 bytes"):
        writes(asked, V2, now)
    assert [w.file for w in writes(asked, V2, now | {"memory.current": "4096\n"})] == ["memory.max", "cpu.max"]
    with pytest.raises(Refused, match="the memory in use is 4097 bytes"):
        writes(asked, V1, {"memory.usage_in_bytes": "4097", "memory.memsw.limit_in_bytes": "9223372036854771712"})


def test_a_limit_of_memory_and_swap_is_compared_with_what_is_in_use_too() -> None:
    for memory in ({"limit": 1024, "swap": 2048}, {"swap": 2048}):
        asked = config(memory=memory | {"checkBeforeUpdate": True})
        for cgroups, file in ((V1, "memory.usage_in_bytes"), (V2, "memory.current")):
            assert ("memory", file) in asks(asked, cgroups)
            with pytest.raises(Refused, match=r"rejecting memory\+swap limit 2048: the memory in use is 4097 bytes"):
                writes(asked, cgroups, {file: "4097\n", "memory.max": "1024", "memory.memsw.limit_in_bytes": "9223372036854771712"})


def test_an_update_keeps_the_half_of_cpu_max_that_is_not_given() -> None:
    assert texts(V2, {"cpu.max": "5000 20000\n"}, cpu={"period": 30000}) == [("cpu.max", "5000 30000")]
    assert texts(V2, {"cpu.max": "5000 20000\n"}, cpu={"quota": -1}) == [("cpu.max", "max 20000")]


@given(st.permutations(["cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.cfs_burst_us"]), st.integers(0, 2))
def test_an_update_of_bandwidth_ends_with_what_was_asked(order: "list[str]", dependent: int) -> None:
    """Whichever of the three the kernel takes only after another: each is written, and the last word on each must hold."""
    found = writes(config(cpu={"quota": 5000, "period": 10000, "burst": 10}), V1, {})
    blocked = {order[dependent]: order[(dependent + 1) % 3]}
    taken: "dict[str, str]" = {}
    for write in found:
        if write.file in blocked and blocked[write.file] not in taken:
            assert write.fine == ("EINVAL",)
            continue
        taken[write.file] = write.text
    assert taken == {"cpu.cfs_quota_us": "5000", "cpu.cfs_period_us": "10000", "cpu.cfs_burst_us": "10"}


def test_the_oom_killer_is_given_back_by_an_update() -> None:
    assert texts(V1, {}, memory={"disableOOMKiller": False}) == [("memory.oom_control", "0")]


def test_what_has_no_effect_is_told() -> None:
    asked = config(memory={"kernel": 5, "swappiness": 0, "useHierarchy": False})
    assert [line.split(" ")[0].rpartition("/")[2] for line in notes(asked, V2)] == ["kernel", "swappiness", "useHierarchy"]
    assert [line.split(" ")[0].rpartition("/")[2] for line in notes(asked, V1)] == ["kernel", "useHierarchy"]


def test_weights_fall_back_to_the_other_scheduler() -> None:
    assert writes(config(blockIO={"weight": 10}), V1)[0].otherwise == Write("blkio", "blkio.bfq.weight", "10", "block I/O weight")
    assert writes(config(blockIO={"weight": 1000}), V2)[0].otherwise == Write("io", "io.weight", "default 10000", "block I/O weight")
    device = writes(config(blockIO={"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}), V2)[0].otherwise
    assert device == Write("io", "io.weight", "8:0 1", "block I/O weight of 8:0")


@given(st.integers(0, 1 << 64), st.integers(0, 1 << 64))
def test_weights_keep_order_and_range(one: int, other: int) -> None:
    assert 1 <= cpu_weight(one) <= 10000
    assert (cpu_weight(min(one, other)) <= cpu_weight(max(one, other))) and (io_weight(min(one, other)) <= io_weight(max(one, other)))
    assert (cpu_weight(2), cpu_weight(262144), io_weight(10), io_weight(1000)) == (1, 10000, 1, 10000)
