"""update: other limits for a container that is there, all of them or none."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box

V2 = bundles.CGROUPS["layout"] == "v2"
MIB = 1 << 20
MEMORY = ("memory.limit_in_bytes", "memory.max")
RESERVATION = ("memory.soft_limit_in_bytes", "memory.low")
PIDS = ("pids.max", "pids.max")
SHARES = ("cpu.shares", "cpu.weight")
CPUS = ("cpuset.cpus", "cpuset.cpus")


@pytest.fixture
def limited(box: Box) -> Box:
    """A running container with limits."""
    box.linux["resources"] = {
        "memory": {"limit": 32 * MIB, "reservation": 24 * MIB}, "cpu": {"shares": 100, "quota": 500000, "period": 1000000},
        "pids": {"limit": 20},
    }
    box.started()
    return box


def update(box: Box, *words: str, **how: Any) -> None:
    """An update that has to succeed, and to be silent."""
    done = box.call_apart("update", *words, box.id, **how)
    assert (done.status, done.out, done.err) == (0, "", ""), done


def bandwidth(box: Box) -> tuple[int, int]:
    """Quota, -1 for none, and period."""
    if V2:
        quota, period = box.held("", "cpu.max").replace("max", "-1").split()
        return int(quota), int(period)
    return int(box.held("cpu.cfs_quota_us", "")), int(box.held("cpu.cfs_period_us", ""))


def swap(box: Box) -> str:
    """The limit of memory and swap, as v1 counts it."""
    if not V2:
        return box.held("memory.memsw.limit_in_bytes", "")
    alone = box.held("", "memory.swap.max")
    return alone if alone == "max" else str(int(alone) + int(box.held(*MEMORY)))


def unlimited(box: Box) -> str:
    """What the file of memory says when there is no limit."""
    return "max" if V2 else Path(box.limit(*MEMORY).parent.parent, MEMORY[0]).read_text().strip()


def test_limits_one_by_one(limited: Box) -> None:
    update(limited, "--memory", "67108864")
    assert limited.held(*MEMORY) == str(64 * MIB)
    update(limited, "--memory", "50M")
    assert limited.held(*MEMORY) == str(50 * MIB)
    update(limited, "--memory-reservation", "33554432")
    assert limited.held(*RESERVATION) == "33554432"
    update(limited, "--memory-swap=92m")
    assert swap(limited) == str(92 * MIB)
    update(limited, "--memory", "-1")
    assert (limited.held(*MEMORY), swap(limited)) == (unlimited(limited), unlimited(limited))
    update(limited, "--pids-limit", "10")
    assert limited.held(*PIDS) == "10"
    update(limited, "--pids-limit", "-1")
    assert limited.held(*PIDS) == "max"
    update(limited, "--cpuset-cpus", "0", "--cpuset-mems", "0")
    assert (limited.held(*CPUS), limited.held("cpuset.mems", "cpuset.mems")) == ("0", "0")
    update(limited, "--pids-limit", "1")
    assert "fork" in limited.exec("sh", "-c", "ls; :").err
    update(limited, "--pids-limit", "-1")
    assert limited.exec("sh", "-c", "ls >/dev/null; echo $?").out == "0\n"
    update(limited, "--cpu-share", "200")
    assert limited.held(*SHARES) == ("29" if V2 else "200")
    update(limited, "--blkio-weight", "200")
    files = ("io.bfq.weight", "io.weight") if V2 else ("blkio.weight", "blkio.bfq.weight")
    weight = next(file for at in limited.cgroups() for file in (at / name for name in files) if file.exists())
    assert weight.read_text().strip().removeprefix("default ") == ("1920" if weight.name == "io.weight" else "200")
    # each has left the others alone
    assert (limited.held(*RESERVATION), limited.held(*PIDS), bandwidth(limited)) == ("33554432", "max", (500000, 1000000))
    assert "Cpus_allowed_list:\t0\n" in limited.exec("cat", "/proc/self/status").out


def test_memory_and_swap_in_either_order(limited: Box) -> None:
    for memory, both in ((30, 50), (60, 80), (20, 25), (90, 90)):
        update(limited, "--memory", f"{memory}M", "--memory-swap", f"{both}M")
        assert (limited.held(*MEMORY), swap(limited)) == (str(memory * MIB), str(both * MIB))
    update(limited, "--memory", "70M")  # the limit of both stays
    assert (limited.held(*MEMORY), swap(limited)) == (str(70 * MIB), str(90 * MIB))
    done = limited.call_apart("update", "--memory", "91M", limited.id)
    assert done.status == 1 and f"memory and swap, {90 * MIB} bytes, is below that of memory, {91 * MIB}" in done.err
    assert limited.held(*MEMORY) == str(70 * MIB)


def test_quota_and_period_without_each_other(limited: Box) -> None:
    assert bandwidth(limited) == (500000, 1000000)
    for words, expected in (
        (["--cpu-period", "900000"], (500000, 900000)), (["--cpu-quota", "600000"], (600000, 900000)),
        (["--cpu-quota", "-1"], (-1, 900000)), (["--cpu-quota", "3000", "--cpu-period", "10000"], (3000, 10000)),
        (["--cpu-quota", "500000", "--cpu-period", "1000000"], (500000, 1000000)),
        (["--cpu-quota", "-1", "--cpu-period", "100000"], (-1, 100000)),
    ):
        update(limited, *words)
        assert bandwidth(limited) == expected, words


def test_burst_and_idle(limited: Box) -> None:
    update(limited, "--cpu-burst", "20000")
    assert limited.held("cpu.cfs_burst_us", "cpu.max.burst") == "20000"
    update(limited, "--cpu-idle=1")
    assert limited.held("cpu.idle", "cpu.idle") == "1"
    update(limited, "--cpu-idle=0", "--cpu-share", "1024")
    assert limited.held("cpu.idle", "cpu.idle") == "0"
    assert limited.held(*SHARES) == ("100" if V2 else "1024")


def test_shares_outlive_idleness(limited: Box) -> None:
    """The kernel forgets them when a cgroup becomes idle, whether it stays so or not."""
    shares = "17" if V2 else "100"
    assert limited.held(*SHARES) == shares
    done = limited.call_apart("update", "--cpu-idle=1", "--cpuset-cpus", "4000", limited.id)
    assert done.status == 1 and "while cleaning up" not in done.err
    assert (limited.held("cpu.idle", "cpu.idle"), limited.held(*SHARES)) == ("0", shares)
    update(limited, "--cpu-idle=1")
    done = limited.call_apart("update", "--cpu-idle=1", "--cpu-share", "500", "--cpuset-cpus", "4000", limited.id)
    assert done.status == 1 and "while cleaning up" not in done.err, "nothing was to be taken back"
    update(limited, "--cpu-idle=0")
    assert (limited.held("cpu.idle", "cpu.idle"), limited.held(*SHARES)) == ("0", shares)
    update(limited, "--cpu-idle=1", "--cpu-share", "1024")
    update(limited, "--cpu-idle=0")
    assert limited.held(*SHARES) == ("100" if V2 else "1024")


def test_a_file_and_standard_input(limited: Box, tmp_path: Path) -> None:
    asked = {
        "memory": {"limit": 48 * MIB, "reservation": 0, "kernel": 0}, "pids": {"limit": 30}, "blockIO": {"weight": 0},
        "cpu": {"shares": 100, "quota": 400000, "period": 0, "cpus": "0", "mems": ""},
    }
    update(limited, "--resources", "-", input=json.dumps(asked))
    assert (limited.held(*MEMORY), limited.held(*PIDS), limited.held(*CPUS)) == (str(48 * MIB), "30", "0")
    assert bandwidth(limited) == (400000, 1000000)
    assert limited.held(*RESERVATION) == str(24 * MIB)
    (tmp_path / "limits").write_text('{"pids": {"limit": 31}}')
    update(limited, "-r", str(tmp_path / "limits"))
    assert limited.held(*PIDS) == "31"
    update(limited, "--resources", "-", input="null")
    assert limited.held(*PIDS) == "31"
    kept = json.loads((limited.root / limited.id / "config.json").read_text())["linux"]["resources"]
    assert kept["memory"] == {"limit": 48 * MIB, "reservation": 24 * MIB}
    assert (kept["pids"], kept["cpu"]) == ({"limit": 31}, {"shares": 100, "quota": 400000, "period": 1000000, "cpus": "0"})


@pytest.mark.parametrize("what", ["created", "paused"])
def test_a_container_that_does_not_run(box: Box, what: str) -> None:
    if what == "created":
        box.created()
    else:
        box.started()
        box.call_apart("pause", box.id)
    update(box, "--pids-limit", "30", "--memory", "64M")
    assert (box.held(*PIDS), box.held(*MEMORY), box.status) == ("30", str(64 * MIB), what)
    box.call_apart("start" if what == "created" else "resume", box.id)
    assert box.status == "running"


def test_a_stopped_container_has_no_limits(box: Box) -> None:
    box.started()
    box.ended()
    done = box.call_apart("update", "--pids-limit", "30", box.id)
    assert done.status == 1 and "container not running" in done.err


def test_what_is_refused_leaves_all_as_it_was(limited: Box) -> None:
    text = (limited.root / limited.id / "config.json").read_text()
    for words, complaint in (
        (["--memory", "64M", "--pids-limit", "10", "--cpuset-cpus", "4000"], "set the set of cpus to 4000"),
        (["--memory", "64M", "--cpu-period", "1"], "set the cpu "),
        (["--memory", "lots"], "--memory: invalid value for memory"),
        (["--cpu-period", "-1"], "--cpu-period: invalid value for cpu-period"),
        (["--pids-limit", "1k"], "--pids-limit: invalid value for pids-limit"),
        (["--memory", "64M", "--l3-cache-schema", "L3:0=f"], "Intel RDT/CAT: l3 cache schema is not enabled"),
        (["--resources", "/nowhere"], "cannot read /nowhere"),
    ):
        done = limited.call_apart("update", *words, limited.id)
        assert done.status == 1 and complaint in done.err and "while cleaning up" not in done.err, done
        assert (limited.held(*MEMORY), limited.held(*PIDS), bandwidth(limited)) == (str(32 * MIB), "20", (500000, 1000000)), words
    assert (limited.root / limited.id / "config.json").read_text() == text


def test_shares_of_the_cache(limited: Box, tmp_path: Path) -> None:
    """As no machine here has the kernel's resctrl, a folder stands in for the container's group."""
    schemata = tmp_path / "schemata"
    schemata.write_text("    L3:0=ff\n")
    state = limited.root / limited.id / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"rdt": {"group": str(tmp_path), "monitor": "", "made": []}}))
    done = limited.call_apart("update", "--l3-cache-schema", "L3:0=0f", "--pids-limit", "5", "--cpuset-cpus", "4000", limited.id)
    assert done.status == 1 and "set the set of cpus to 4000" in done.err and "while cleaning up" not in done.err
    assert (schemata.read_text(), limited.held(*PIDS)) == ("    L3:0=ff\n", "20")
    update(limited, "--mem-bw-schema", "MB:0=50", "--l3-cache-schema", "L3:0=0f", "--pids-limit", "5")
    assert (schemata.read_text()[:8], limited.held(*PIDS)) == ("MB:0=50\n", "5"), "line by line, and that is the last"
    saved = limited.root / limited.id / "config.json"
    assert json.loads(saved.read_text())["linux"]["intelRdt"] == {"l3CacheSchema": "L3:0=0f", "memBwSchema": "MB:0=50"}
    saved.write_text(json.dumps({**json.loads(saved.read_text()), "linux": {
        **json.loads(saved.read_text())["linux"], "intelRdt": {"closID": "a", "schemata": ["MB:0=40", "L2:0=f"], "memBwSchema": "MB:0=20"},
    }}))
    update(limited, "--mem-bw-schema", "MB:0=60")
    assert json.loads(saved.read_text())["linux"]["intelRdt"] == {"closID": "a", "schemata": ["L2:0=f"], "memBwSchema": "MB:0=60"}
    text = saved.read_text(), schemata.read_text()
    done = limited.call_apart("update", "--mem-bw-schema", "L3:0=1", "--pids-limit", "7", limited.id)
    assert done.status == 1 and "/linux/intelRdt/memBwSchema: must be one line that begins with MB:" in done.err
    assert (saved.read_text(), schemata.read_text()) == text
    schemata.unlink()
    done = limited.call_apart("update", "--mem-bw-schema", "MB:0=10", "--pids-limit", "7", limited.id)
    assert done.status == 1 and "schemata: no such file or directory" in done.err
    assert limited.held(*PIDS) == "5"


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
def test_a_signal_on_the_way_keeps_no_limit_from_being_set(limited: Box) -> None:
    """All of them hold, or none."""
    words = limited.words("update", "--memory", str(64 * MIB), "--pids-limit", "77", limited.id)
    pids = str(limited.limit("pids.max", "pids.max"))
    traced = ["strace", "-qq", "-o", os.devnull, "-P", pids, "-e", "inject=openat:signal=TERM", *words]
    done = subprocess.run(traced, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert (limited.held(*MEMORY), limited.held("pids.max", "pids.max")) == (str(64 * MIB), "77")


def test_check_before_update(limited: Box) -> None:
    for memory, what in (({"limit": 4096}, "memory limit 4096"), ({"limit": 4096, "swap": 8192}, "memory+swap limit 8192")):
        asked = json.dumps({"memory": {**memory, "checkBeforeUpdate": True}})
        done = limited.call_apart("update", "-r", "-", limited.id, input=asked)
        assert done.status == 1 and f"rejecting {what}: the memory in use is " in done.err
        assert limited.held(*MEMORY) == str(32 * MIB)
    update(limited, "-r", "-", input=json.dumps({"memory": {"limit": 40 * MIB, "checkBeforeUpdate": True}}))
    assert limited.held(*MEMORY) == str(40 * MIB)
    done = limited.call_apart("update", "--memory", "4096", limited.id)
    assert done.status == 1 and "rejecting memory limit 4096" in done.err, "it holds from then on"
    assert limited.held(*MEMORY) == str(40 * MIB)


def test_a_file_of_v2_by_name(limited: Box) -> None:
    asked = json.dumps({"unified": {"memory.high": str(16 * MIB), "cgroup.max.depth": "3"}})
    done = limited.call_apart("update", "-r", "-", limited.id, input=asked)
    if V2:
        assert (done.status, limited.held("", "memory.high"), limited.held("", "cgroup.max.depth")) == (0, str(16 * MIB), "3")
    else:
        assert done.status == 1 and "/unified/memory.high" in done.err


def test_kernel_memory_is_ignored(limited: Box, tmp_path: Path) -> None:
    """With a warning in the log; engines read stderr."""
    done = limited.call_apart("--log", str(tmp_path / "log"), "update", "--kernel-memory", "50M", "--kernel-memory-tcp", "50M", limited.id)
    assert (done.status, done.out, done.err) == (0, "", "")
    assert [line.count("is ignored: Linux has no separate limit of kernel memory") for line in (tmp_path / "log").read_text().splitlines()] == [1, 1]


READ = "head -c 1 /tmp/log >/dev/null 2>&1 && echo yes || echo no; head -c 1 /dev/zero >/dev/null && echo zero"


def test_device_rules(box: Box) -> None:
    """/dev/kmsg, 1:11, by a node of the container's own; what every container may use is never denied in between."""
    none = [{"allow": False, "access": "rwm"}]
    kmsg = [*none, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}]
    box.linux["resources"] = {"devices": none}
    for kind in ("bounding", "effective", "permitted"):
        box.process["capabilities"][kind] = ["CAP_MKNOD", "CAP_SYSLOG"]
    unless = "" if V2 else "|| :"  # on v1 a change of the default denies everything for a moment
    box.sh(f"mknod /tmp/log c 1 11; while head -c 1 /dev/zero >/dev/null 2>&1 {unless}; do :; done")
    pid = box.started()
    assert bundles.eventually((box.rootfs / "tmp/log").exists)
    for rules, word in ((none, "no"), (kmsg, "yes"), (none, "no"), ([{"allow": True, "access": "rwm"}], "yes"), (none, "no")):
        update(box, "-r", "-", input=json.dumps({"devices": rules}))
        done = box.exec("sh", "-c", READ)
        assert done.out.split() == [word, "zero"], (rules, done)
    update(box, "--pids-limit", "50")  # leaves them alone
    assert box.exec("sh", "-c", READ).out.split() == ["no", "zero"]
    assert bundles.proc_status(pid)["State"][0] not in "ZX", "on v2 nothing was denied meanwhile"


def test_realtime(limited: Box) -> None:
    """Where the kernel has such limits a new cgroup has no realtime; the outer one, here the root, gives it some."""
    words = ["--cpu-rt-period", "900001", "--cpu-rt-runtime", "60001"]
    found = None if V2 else Path(bundles.CGROUPS["mounts"]["cpu"], limited.id, "cpu.rt_runtime_us")
    if found is None or not found.exists():
        done = limited.call_apart("update", *words, limited.id)
        assert done.status == 1 and "realtime cpu time" in done.err
        return
    update(limited, "--cpu-rt-runtime", "50001")
    assert (found.read_text(), found.with_name("cpu.rt_period_us").read_text()) == ("50001\n", "1000000\n")
    update(limited, *words)
    assert (found.read_text(), found.with_name("cpu.rt_period_us").read_text()) == ("60001\n", "900001\n")
    update(limited, "--cpu-rt-period", "100000", "--cpu-rt-runtime", "1000")
    assert (found.read_text(), found.with_name("cpu.rt_period_us").read_text()) == ("1000\n", "100000\n")


def test_throttled_devices_are_taken_back(limited: Box) -> None:
    """A limit of one device is taken back as well, when a later one is refused."""
    disks = sorted(path.read_text().strip() for path in Path("/sys/block").glob("*/dev"))
    where = dict(zip(("major", "minor"), map(int, (disks or ["8:240"])[0].split(":")), strict=True))

    asked = {"blockIO": {"throttleReadBpsDevice": [{**where, "rate": MIB}]}, "hugepageLimits": [{"pageSize": "3MB", "limit": MIB}]}
    done = limited.call_apart("update", "-r", "-", limited.id, input=json.dumps(asked))
    assert done.status == 1 and ("hugetlb.3MB" in done.err if disks else "8:240" in done.err), done
    assert limited.held("blkio.throttle.read_bps_device", "io.max") == ""
