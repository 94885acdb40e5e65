"""Containers in units of systemd, seen by systemd and by the kernel: run inside `rundlet lab --systemd`, by test_systemd_lab.py.

Only the commands that make a container are told of the cgroup manager; the others have to know.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box, Done

CGROUPS = Path("/sys/fs/cgroup")
SYSTEMD = [*bundles.words(), "--cgroup-manager", "systemd"]
USER = 12345


def systemctl(*words: str) -> str:
    """What systemctl says."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=True).stdout


def show(unit: str, *names: str) -> list[str]:
    """Properties of a unit, in the order of their names in `names`."""
    lines = systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines()
    found = dict(line.split("=", 1) for line in reversed(lines))
    return [found[name] for name in names]


def loaded(unit: str) -> bool:
    """Whether systemd still knows of it."""
    return show(unit, "LoadState") != ["not-found"]


def own(pid: int) -> str:
    """The cgroup of a process."""
    return Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::")


def asked(box: Box, slice: str = "rundlet.slice", prefix: str = "test") -> str:
    """Asks for a scope of systemd; its name."""
    box.linux["cgroupsPath"] = f"{slice}:{prefix}:{box.id}"
    return f"{prefix}-{box.id}.scope"


def create(box: Box, manager: list[str] = SYSTEMD) -> Done:
    """create by the systemd manager."""
    box.save()
    before, box.runtime = box.runtime, manager
    try:
        return box.call("create", "--bundle", str(box.bundle), box.id)
    finally:
        box.runtime = before


def started(box: Box, manager: list[str] = SYSTEMD) -> int:
    """A container that runs in a unit; the pid of its first process."""
    done = create(box, manager)
    assert (done.status, done.err) == (0, ""), done
    pid = box.pid
    box.ok("start", box.id)
    return pid


def refused(box: Box, manager: list[str] = SYSTEMD) -> str:
    """What create says instead of making the container, of which nothing is left."""
    done = create(box, manager)
    assert (done.status, done.out) == (1, ""), done
    assert done.err.startswith("rundlet: ") and done.err.count("\n") == 1, done
    assert not box.left()
    return done.err


def as_user(setting: str = f"XDG_RUNTIME_DIR=/run/user/{USER}") -> list[str]:
    """The words that run a command as a user without privileges."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", "-u", "DBUS_SESSION_BUS_ADDRESS", setting]


@pytest.fixture(scope="module")
def user() -> None:
    """The user is known; nobody else than this guest gets to know."""
    with open("/etc/passwd", "a") as passwd, open("/etc/group", "a") as group:
        passwd.write(f"lab:x:{USER}:{USER}::/run/user/{USER}:/bin/sh\n")
        group.write(f"lab:x:{USER}:\n")


@pytest.fixture
def theirs(user: None, boxes: Callable[..., Box]) -> Box:
    """A container of a user."""
    box = boxes([*as_user(), *bundles.words()])
    for folder in (box.folder, *box.folder.parents):
        folder.chmod(folder.stat().st_mode | 0o111)
    box.root.mkdir()
    os.chown(box.root, USER, USER)
    box.linux["namespaces"].append({"type": "user"})
    box.linux.update({f"{kind}Mappings": [{"containerID": 0, "hostID": USER, "size": 1}] for kind in ("uid", "gid")})
    return box


def gone(unit: str, cgroup: Path) -> None:
    """Of a unit nothing is left, not even that it failed. systemd hears of the end of a process when it hears of it."""
    assert bundles.eventually(lambda: not loaded(unit) and not cgroup.exists())
    assert unit not in systemctl("list-units", "--failed", "--plain", "--no-legend")


class TestUnit:
    """Which unit it is, and its life."""

    def test_life(self, box: Box) -> None:
        unit = asked(box, "rundlet-a.slice")
        done = create(box)
        assert (done.status, done.err) == (0, "")
        scope = f"/rundlet.slice/rundlet-a.slice/{unit}"
        wanted = {
            "ActiveState": "active", "SubState": "running", "Slice": "rundlet-a.slice", "Delegate": "yes", "Transient": "yes",
            "ControlGroup": scope, "Description": f"rundlet container {box.id}", "CollectMode": "inactive-or-failed",
            "MemoryAccounting": "yes", "CPUAccounting": "yes", "IOAccounting": "yes", "TasksAccounting": "yes",
        }
        assert dict(zip(wanted, show(unit, *wanted), strict=True)) == wanted
        assert own(box.pid) == f"{scope}/container"
        box.ok("start", box.id)
        assert box.exec("cat", "/proc/self/cgroup").out == "0::/\n"  # of its cgroup namespace
        (CGROUPS / scope[1:] / "container/inner").mkdir()
        assert box.exec("--cgroup", "inner", "--", "cat", "/proc/self/cgroup").out == "0::/inner\n"
        assert box.status == "running"
        box.ended()
        gone(unit, CGROUPS / scope[1:])
        assert box.status == "stopped"
        box.ok("delete", box.id)
        assert not box.left()

    def test_delete_stops_the_unit(self, box: Box) -> None:
        unit = asked(box)
        started(box)
        box.ok("delete", "--force", box.id)
        assert not loaded(unit)
        assert not (CGROUPS / "rundlet.slice" / unit).exists()
        assert not box.left()

    def test_the_plan_is_kept_for_the_next_one(self, boxes: Callable[..., Box]) -> None:
        runtime = [*bundles.runtime_that_keeps(), "--cgroup-manager", "systemd"]
        self.of_a_kind(boxes(), runtime, False)
        self.of_a_kind(boxes(), runtime, True)

    def of_a_kind(self, box: Box, runtime: list[str], kept: bool) -> None:
        unit = asked(box)
        box.linux["resources"] = {"pids": {"limit": 9}, "devices": [{"allow": False, "access": "rwm"}]}
        box.sh("cat /proc/self/cgroup; mknod /tmp/x b 7 0 2>/dev/null || echo no; sleep 1000")
        done = create(box, runtime)
        assert (done.status, bundles.kept(done)) == (0, kept), done
        box.ok("start", box.id)
        assert own(box.pid) == f"/rundlet.slice/{unit}/container"
        assert (CGROUPS / "rundlet.slice" / unit / "container/pids.max").read_text() == "9\n"
        assert show(unit, "TasksMax") == ["9"]
        assert bundles.eventually(lambda: box.output.read_text() == "0::/\nno\n")
        box.ok("delete", "--force", box.id)
        gone(unit, CGROUPS / "rundlet.slice" / unit)

    def test_in_the_foreground(self, box: Box) -> None:
        unit = asked(box)
        box.runtime = SYSTEMD
        done = box.sh("cat /proc/self/cgroup; exit 3").run()
        assert (done.status, done.out, done.err) == (3, "0::/\n", "")
        gone(unit, CGROUPS / "rundlet.slice" / unit)

    def test_an_end_by_itself_leaves_nothing(self, box: Box) -> None:
        unit = asked(box)
        pid = started(box.sh("exit 5"))
        assert bundles.status_of(pid) == 5
        gone(unit, CGROUPS / "rundlet.slice" / unit)
        box.ok("delete", box.id)

    def test_running_out_of_memory_leaves_nothing(self, box: Box) -> None:
        unit = asked(box)
        box.linux["resources"] = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
        pid = started(box.sh("exec tail /dev/zero"))
        assert bundles.status_of(pid) == 128 + signal.SIGKILL
        gone(unit, CGROUPS / "rundlet.slice" / unit)
        box.ok("delete", box.id)

    def test_without_a_path(self, box: Box) -> None:
        del box.linux["cgroupsPath"]
        unit = f"rundlet-{box.id}.scope"
        pid = started(box)
        assert own(pid) == f"/system.slice/{unit}/container"
        box.ok("delete", "--force", box.id)
        assert not loaded(unit)

    def test_a_name_like_a_file(self, box: Box) -> None:
        """systemd keeps such names from being taken for files of a cgroup."""
        box.linux["cgroupsPath"] = "memory.slice:pids"
        pid = started(box)
        assert own(pid) == "/_memory.slice/_pids.scope/container"
        box.ok("delete", "--force", box.id)
        assert not loaded("pids.scope")

    def test_a_slice(self, box: Box) -> None:
        """A name that ends in .slice is one, inside of the slice that its name says."""
        box.linux["cgroupsPath"] = "rundlet.slice:unused:rundlet-inner.slice"
        box.linux["resources"] = {"memory": {"limit": 64 << 20}}
        pid = started(box)
        assert own(pid) == "/rundlet.slice/rundlet-inner.slice/container"
        assert show("rundlet-inner.slice", "ActiveState", "MemoryMax") == ["active", str(64 << 20)]
        box.ok("delete", "--force", box.id)
        assert not (CGROUPS / "rundlet.slice/rundlet-inner.slice").exists()

    def test_a_unit_that_is_there(self, boxes: Callable[[], Box]) -> None:
        first, second = boxes(), boxes()
        unit = asked(first)
        pid = started(first)
        second.linux["cgroupsPath"] = first.linux["cgroupsPath"]
        text = refused(second)
        assert unit in text and "UnitExists" in text and "cgroupsPath of its own" in text
        assert show(unit, "ActiveState") == ["active"]
        assert own(pid).endswith(f"{unit}/container")

    def test_a_unit_that_failed(self, box: Box) -> None:
        unit = asked(box)
        command = ["systemd-run", "--scope", "--quiet", f"--unit={unit}", "-p", "RuntimeMaxSec=100ms", "sleep", "1000"]
        subprocess.run(command, check=False)
        assert bundles.eventually(lambda: show(unit, "ActiveState") == ["failed"])
        started(box)
        assert show(unit, "ActiveState") == ["active"]

    def test_stopped_by_systemd(self, box: Box) -> None:
        """Whoever stops the unit ends the container."""
        box.config["annotations"] = {"org.systemd.property.TimeoutStopSec": "uint64 1"}
        unit = asked(box)
        pid = started(box)
        systemctl("stop", unit)
        assert bundles.status_of(pid) in (128 + signal.SIGTERM, 128 + signal.SIGKILL)
        assert box.status == "stopped"
        box.ok("delete", box.id)

    def test_pause(self, box: Box) -> None:
        unit = asked(box)
        started(box)
        at = CGROUPS / "rundlet.slice" / unit / "container"
        box.ok("pause", box.id)
        assert box.status == "paused" and "frozen 1" in (at / "cgroup.events").read_text()
        assert show(unit, "ActiveState") == ["active"]
        box.ok("resume", box.id)
        assert box.status == "running" and "frozen 0" in (at / "cgroup.events").read_text()

    def test_a_frozen_cgroup_that_is_there_is_left_alone(self, box: Box) -> None:
        unit = asked(box)
        at = CGROUPS / "rundlet.slice" / unit
        at.mkdir(parents=True)
        (at / "cgroup.freeze").write_text("1")
        for _ in range(2):
            assert f"container's cgroup unexpectedly frozen: `{at}`" in refused(box)
            assert "frozen 1" in (at / "cgroup.events").read_text() and not loaded(unit)
        at.rmdir()
        started(box)

    def test_what_it_has_and_uses(self, box: Box) -> None:
        """ps and events find the container in its unit."""
        asked(box)
        box.linux["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}
        pid = started(box)
        assert json.loads(box.call_apart("ps", "--format", "json", box.id).out) == [pid]
        data = json.loads(box.call_apart("events", "--stats", box.id).out)["data"]
        assert data["pids"] == {"current": 1, "limit": 30}
        assert 0 < data["memory"]["usage"]["usage"] <= data["memory"]["usage"]["max"] <= data["memory"]["usage"]["limit"] == 64 << 20

    def test_failure_leaves_no_unit(self, box: Box) -> None:
        unit = asked(box)
        box.process["args"] = ["/none"]
        done = create(box)
        assert done.status == 127
        assert not box.left()
        assert not loaded(unit)

    def test_killed_while_creating(self, box: Box) -> None:
        """delete --force knows the unit of a container that was never completed."""
        unit = asked(box)
        hook = box.bundle / "hook"
        script = f"echo $$ >{hook}.new; mv {hook}.new {hook}; exec sleep 1000"
        box.config["hooks"] = {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
        box.save()
        with subprocess.Popen(
            [*SYSTEMD, "--root", str(box.root), "create", "--bundle", str(box.bundle), box.id], stdin=subprocess.DEVNULL
        ) as command:
            assert bundles.eventually(hook.exists)
            assert show(unit, "ActiveState") == ["active"]
            command.kill()
        bundles.kill_all([int(hook.read_text())])
        box.ok("delete", "--force", box.id)
        gone(unit, CGROUPS / "rundlet.slice" / unit)

    @pytest.mark.parametrize("private", [True, False])
    def test_mounted(self, box: Box, private: bool) -> None:
        """With a cgroup namespace and without, a mount of cgroup is the container's own."""
        unit = asked(box)
        if not private:
            box.without("cgroup")
        box.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", kind="cgroup")
        box.linux["resources"] = {"pids": {"limit": 17}}
        started(box)
        assert box.exec("cat", "/sys/fs/cgroup/pids.max").out == "17\n"
        assert box.exec("cat", "/proc/self/cgroup").out == ("0::/\n" if private else f"0::/rundlet.slice/{unit}/container\n")

    def test_start_up_without_it(self, box: Box) -> None:
        """Without the flag there is no unit, and slice:prefix:name is a path as any."""
        pid = box.created()
        assert own(pid) == f"/{box.id}"


class TestLimits:
    """What systemd and the kernel know of the limits."""

    def test_properties_and_files(self, box: Box) -> None:
        unit = asked(box)
        box.linux["resources"] = {
            "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 16 << 20},
            "cpu": {"shares": 512, "quota": 25500, "period": 50000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 30}, "blockIO": {"weight": 500}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
            "unified": {"memory.high": str(48 << 20), "memory.oom.group": "1"},
        }
        started(box)
        wanted = {
            "MemoryMax": str(64 << 20), "MemorySwapMax": str(32 << 20), "MemoryLow": str(16 << 20), "MemoryHigh": str(48 << 20),
            "CPUWeight": "20", "CPUQuotaPerSecUSec": "510ms", "CPUQuotaPeriodUSec": "50ms", "AllowedCPUs": "0", "AllowedMemoryNodes": "0",
            "TasksMax": "30", "ControlGroup": f"/rundlet.slice/{unit}",
        }
        held = dict(zip(wanted, show(unit, *wanted), strict=True))
        assert held == {**wanted, "CPUWeight": "59"}
        assert show(unit, "IOWeight") == ["4950"]
        files = {
            "memory.max": str(64 << 20), "memory.swap.max": str(32 << 20), "memory.low": str(16 << 20), "memory.high": str(48 << 20),
            "cpu.weight": "59", "cpu.max": "25500 50000", "cpuset.cpus": "0", "cpuset.mems": "0", "pids.max": "30", "hugetlb.2MB.max": str(4 << 20),
            "hugetlb.2MB.rsvd.max": str(4 << 20),
            "memory.oom.group": "1",
        }
        at = CGROUPS / "rundlet.slice" / unit / "container"
        assert {name: (at / name).read_text().strip() for name in files} == files
        systemctl("daemon-reload")
        assert {name: (at / name).read_text().strip() for name in files} == files
        assert (at.parent / "memory.max").read_text().strip() == str(64 << 20)

    def test_idle(self, box: Box) -> None:
        unit = asked(box)
        box.linux["resources"] = {"cpu": {"idle": 1, "shares": 512}}
        started(box)
        at = CGROUPS / "rundlet.slice" / unit
        assert [(each / "cpu.idle").read_text() for each in (at, at / "container")] == ["1\n", "1\n"]
        box.ok("update", "--cpu-idle", "0", box.id)
        assert [(each / "cpu.idle").read_text() for each in (at, at / "container")] == ["0\n", "0\n"]
        assert [(each / "cpu.weight").read_text() for each in (at, at / "container")] == ["59\n", "59\n"], "the shares of the configuration"
        assert show(unit, "CPUWeight") == ["59"]

    def test_no_more_processes(self, box: Box) -> None:
        """systemd's least is one, and that is the one that there is."""
        unit = asked(box)
        box.linux["resources"] = {"pids": {"limit": 0}}
        started(box)
        assert show(unit, "TasksMax") == ["1"]
        assert (CGROUPS / "rundlet.slice" / unit / "container/pids.max").read_text() == "0\n"

    def test_update(self, box: Box) -> None:
        unit = asked(box)
        box.linux["resources"] = {"memory": {"limit": 32 << 20}, "pids": {"limit": 30}}
        started(box)
        box.ok("update", "--memory", str(64 << 20), "--pids-limit", "40", "--cpu-quota", "20000", "--cpu-period", "100000", box.id)
        assert show(unit, "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec") == [str(64 << 20), "40", "200ms"]
        for at in (CGROUPS / "rundlet.slice" / unit, CGROUPS / "rundlet.slice" / unit / "container"):
            texts = [(at / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")]
            assert texts == [str(64 << 20), "40", "20000 100000"]
        systemctl("daemon-reload")
        assert (CGROUPS / "rundlet.slice" / unit / "memory.max").read_text().strip() == str(64 << 20)

    @pytest.mark.parametrize("subgroup", ["", "container"])
    def test_an_update_that_fails_late(self, box: Box, subgroup: str) -> None:
        """The configuration cannot be written: then systemd, which has the new limits, is given those back that it had."""
        subprocess.run(["modprobe", "brd", "rd_nr=1"], check=True)
        major, minor = map(int, Path("/sys/block/ram0/dev").read_text().split(":"))
        rate = [{"major": major, "minor": minor, "rate": 1 << 20}]
        unit = asked(box)
        deny: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
        box.config["annotations"] = {"run.oci.systemd.subgroup": subgroup}
        box.linux["resources"] = {
            "memory": {"limit": 32 << 20}, "cpu": {"quota": 25501, "period": 50000}, "devices": deny,
            "blockIO": {"throttleReadBpsDevice": rate},
        }
        at = CGROUPS / own(started(box))[1:]
        names = (
            "MemoryMax", "MemoryHigh", "TasksMax", "CPUWeight", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec",
            "IOReadBandwidthMax", "IOWriteBandwidthMax", "IOWeight", "DevicePolicy", "DeviceAllow",
        )
        files = ("memory.max", "memory.high", "pids.max", "cpu.max", "cpu.weight", "io.max")

        def held() -> list[str]:
            systemctl("daemon-reload")
            said = systemctl("show", unit, *(f"--property={name}" for name in names))
            return [said, *(((at.parent if subgroup else at) / name).read_text() for name in files)]

        before, exact = held(), [(at / name).read_text() for name in files]
        assert f"IOReadBandwidthMax=/dev/block/{major}:{minor} {1 << 20}\n" in before[0] and f"MemoryMax={32 << 20}\n" in before[0]
        stands = box.root / box.id / "config.json.new"  # in the place of a file that is to be written
        more = {
            "memory": {"limit": 64 << 20}, "cpu": {"shares": 2000, "quota": 10000, "period": 20000}, "pids": {"limit": 99},
            "unified": {"memory.high": str(48 << 20)}, "devices": [*deny, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}],
            "blockIO": {
                "weight": 300, "throttleWriteBpsDevice": rate, "throttleReadBpsDevice": [{**rate[0], "rate": 2 << 20}],
            },
        }
        stands.mkdir()
        done = box.call("update", "--resources", "-", box.id, input=json.dumps(more))
        stands.rmdir()
        assert done.status == 1 and "cannot write config.json" in done.err and "while cleaning up" not in done.err, done
        assert [(at / name).read_text() for name in files] == exact
        assert held() == before

    def test_network(self, box: Box) -> None:
        """Classes and priorities are v1's alone; a host of v2 may have its hierarchy beside."""
        there = CGROUPS / "net"
        box.linux["resources"] = {"network": {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 5}]}, "pids": {"limit": 77}}
        text = refused(box, bundles.words())
        assert "cannot set the network class: cgroup v2 has none" in text
        there.mkdir()
        subprocess.run(["mount", "-t", "cgroup", "-o", "net_cls,net_prio", "cgroup", str(there)], check=True)
        try:
            pid = started(box, bundles.words())
            at = there / box.id
            assert ((at / "net_cls.classid").read_text(), "lo 5\n" in (at / "net_prio.ifpriomap").read_text()) == (f"{0x100001}\n", True)
            assert f":net_cls,net_prio:/{box.id}\n" in Path(f"/proc/{pid}/cgroup").read_text()
            assert (CGROUPS / box.id / "pids.max").read_text() == "77\n"
            more = json.dumps({"network": {"priorities": [{"name": "lo", "priority": 6}]}, "rdma": {"none": {"hcaHandles": 1}}})
            done = box.call("update", "--resources", "-", box.id, input=more)
            assert done.status == 1 and "RDMA resources of none" in done.err and "while cleaning up" not in done.err, done
            assert "lo 5\n" in (at / "net_prio.ifpriomap").read_text()
            box.ok("delete", "--force", box.id)
            assert (bundles.status_of(pid), at.exists()) == (128 + signal.SIGKILL, False)
        finally:
            subprocess.run(["umount", str(there)], check=True)
            there.rmdir()

    def test_refused_by_systemd(self, box: Box) -> None:
        unit = asked(box)
        box.config["annotations"] = {"org.systemd.property.NoSuchThing": "true"}
        text = refused(box)
        assert f"systemd does not start the unit {unit}: " in text
        assert "NoSuchThing" in text and "look at the annotations org.systemd.property.*" in text
        assert not loaded(unit)


class TestDevices:
    """The device rules, which both enforce."""

    SCRIPT = "for n in 3 5 7; do mknod /tmp/$n c 1 $n && head -c 1 /tmp/$n >/dev/null && echo $n; done 2>/dev/null; echo end"

    def devices(self, box: Box) -> str:
        """Of the devices null, zero and full those that the container can make and read."""
        return box.exec("sh", "-c", self.SCRIPT.replace("/tmp/", f"/tmp/{time.monotonic_ns()}-")).out

    def capable(self, box: Box) -> None:
        """Gives the container what it takes to make devices."""
        box.mount("/tmp", "tmpfs", "dev", kind="tmpfs")
        for names in box.process["capabilities"].values():
            names += ["CAP_MKNOD", "CAP_SYSLOG"]

    def test_as_a_list(self, box: Box) -> None:
        unit = asked(box)
        self.capable(box)
        box.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
        started(box)
        assert show(unit, "DevicePolicy") == ["strict"]
        assert "/dev/char/1:3 rwm" in systemctl("show", unit, "--property=DeviceAllow")
        assert self.devices(box) == "3\n5\n7\nend\n"
        systemctl("daemon-reload")
        assert self.devices(box) == "3\n5\n7\nend\n"

    def test_what_no_list_says(self, box: Box) -> None:
        """An exception to what is allowed is for our own filter alone."""
        unit = asked(box)
        self.capable(box)
        kmsg = {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "r"}
        box.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 1, "access": "rwm"}, kmsg]}
        started(box)
        assert show(unit, "DevicePolicy") == ["auto"]
        script = "echo >/tmp/kmsg && echo written; : </tmp/kmsg && echo opened"
        assert box.exec("sh", "-c", f"mknod /tmp/kmsg c 1 11; {script}").out == "written\n"
        systemctl("daemon-reload")
        assert box.exec("sh", "-c", script).out == "written\n"

    def test_update(self, box: Box) -> None:
        """Rules that change do so for both."""
        unit = asked(box)
        self.capable(box)
        deny: list[dict[str, object]] = [{"allow": False, "access": "rwm"}]
        box.linux["resources"] = {"devices": deny}
        started(box)
        script = "true </tmp/kmsg && echo opened"
        assert box.exec("sh", "-c", f"mknod /tmp/kmsg c 1 11; {script}").out == ""
        kmsg = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
        box.ok("update", "--resources", "-", box.id, input=json.dumps({"devices": [*deny, kmsg]}))
        assert "/dev/char/1:11 rwm" in systemctl("show", unit, "--property=DeviceAllow")
        assert box.exec("sh", "-c", script).out == "opened\n"
        stands = box.root / box.id / "config.json.new"
        stands.mkdir()  # so that the update fails once all is done
        done = box.call("update", "--resources", "-", box.id, input=json.dumps({"devices": deny}))
        stands.rmdir()
        assert done.status == 1 and "cannot write config.json" in done.err and "while cleaning up" not in done.err, done
        assert box.exec("sh", "-c", script).out == "opened\n"
        box.ok("update", "--resources", "-", box.id, input=json.dumps({"devices": [*deny, {**kmsg, "minor": 12}]}))
        assert "/dev/char/1:11 rwm" not in systemctl("show", unit, "--property=DeviceAllow")
        assert box.exec("sh", "-c", script).out == ""


class TestBlockIO:
    """Limits of single devices: systemd knows them, so a reload of its units does not take them away."""

    @pytest.fixture
    def disk(self) -> str:
        """The number of a disk."""
        subprocess.run(["modprobe", "brd", "rd_nr=1"], check=True)
        return Path("/sys/block/ram0/dev").read_text().strip()

    def test_throttled(self, box: Box, disk: str) -> None:
        unit = asked(box)
        where = dict(zip(("major", "minor"), map(int, disk.split(":")), strict=True))
        box.linux["resources"] = {"blockIO": {
            "throttleReadBpsDevice": [{**where, "rate": 1 << 20}], "throttleWriteBpsDevice": [{**where, "rate": 2 << 20}],
            "throttleReadIOPSDevice": [{**where, "rate": 300}], "throttleWriteIOPSDevice": [{**where, "rate": 400}],
        }}
        box.config["annotations"] = {"run.oci.systemd.subgroup": ""}  # the unit's own cgroup, whose files systemd writes
        pid = started(box)
        names = "IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"
        assert show(unit, *names) == [f"/dev/block/{disk} {value}" for value in (1 << 20, 2 << 20, 300, 400)]
        file = CGROUPS / own(pid)[1:] / "io.max"
        wanted = f"{disk} rbps={1 << 20} wbps={2 << 20} riops=300 wiops=400\n"
        assert file.read_text() == wanted
        systemctl("daemon-reload")
        systemctl("set-property", "--runtime", unit, "IOWeight=77")
        assert file.read_text() == wanted
        box.ok("update", "--resources", "-", box.id, input=json.dumps({"blockIO": {"throttleReadBpsDevice": [{**where, "rate": 5 << 20}]}}))
        assert show(unit, *names)[:2] == [f"/dev/block/{disk} {5 << 20}", f"/dev/block/{disk} {2 << 20}"]
        assert file.read_text() == wanted.replace(f"rbps={1 << 20}", f"rbps={5 << 20}")


    def test_weights(self, box: Box, tmp_path: Path) -> None:
        """Of all disks and of one, where a scheduler weighs; systemd has them in the kernel's own measure."""
        for module in ("bfq", "loop"):
            subprocess.run(["modprobe", module], check=True)
        (tmp_path / "disk").write_bytes(bytes(1 << 20))
        loop = subprocess.run(["losetup", "--find", "--show", str(tmp_path / "disk")], check=True, capture_output=True, text=True).stdout.strip()
        try:
            block = Path("/sys/block", Path(loop).name)
            (block / "queue/scheduler").write_text("bfq")
            disk = (block / "dev").read_text().strip()
            major, minor = map(int, disk.split(":"))
            unit = asked(box)
            box.linux["resources"] = {"blockIO": {"weight": 500, "weightDevice": [{"major": major, "minor": minor, "weight": 200}]}}
            file = CGROUPS / own(started(box))[1:] / "io.bfq.weight"
            assert file.read_text() == f"default 500\n{disk} 200\n"
            assert show(unit, "IOWeight", "IODeviceWeight") == ["4950", f"/dev/block/{disk} 1920"]
            box.ok("update", "--blkio-weight", "300", box.id)
            assert file.read_text() == f"default 300\n{disk} 200\n"
            done = box.call("update", "--blkio-weight", "700", "--cpuset-cpus", "4000", box.id)
            assert done.status == 1 and "while cleaning up" not in done.err, done
            assert file.read_text() == f"default 300\n{disk} 200\n"
        finally:
            subprocess.run(["losetup", "--detach", loop], check=True)

    def test_by_the_name_of_the_file(self, box: Box, disk: str) -> None:
        """Of several lines each is written by itself: the kernel takes one a write."""
        asked(box)
        box.linux["resources"] = {"unified": {"io.max": f"{disk} rbps=1048576\n{disk} wiops=444\n"}}
        file = CGROUPS / own(started(box))[1:] / "io.max"
        assert file.read_text() == f"{disk} rbps=1048576 wbps=max riops=max wiops=444\n"
        box.ok("update", "--resources", "-", box.id, input=json.dumps({"unified": {"io.max": f"{disk} rbps=max\n{disk} riops=333\n"}}))
        assert file.read_text() == f"{disk} rbps=max wbps=max riops=333 wiops=444\n"


class TestAnnotations:
    """What annotations change of the unit."""

    def test_properties(self, box: Box) -> None:
        unit = asked(box)
        box.linux["resources"] = {"cpu": {"shares": 512}}
        box.config["annotations"] = {
            "org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.CollectMode": "'inactive'",
            "org.systemd.property.CPUWeight": "uint64 321", "org.systemd.property.SendSIGHUP": "true",
            "org.systemd.property.After": "['dbus.service', 'dbus.socket']", "org.systemd.property.Description": "'a (\\'nice\\') one'",
            "run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup/systemd",
        }
        started(box)
        names = "TimeoutStopUSec", "CollectMode", "CPUWeight", "SendSIGHUP", "Description"
        assert show(unit, *names) == ["7s", "inactive", "321", "yes", "a ('nice') one"]
        assert {"dbus.service", "dbus.socket"} <= set(show(unit, "After")[0].split())

    def test_the_hierarchy_of_v1_for_an_old_systemd(self, box: Box) -> None:
        """run.oci.systemd.force_cgroup_v1: refused until the host has that hierarchy; no controller leaves v2 for it."""
        asked(box)
        box.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", kind="cgroup")
        box.config["annotations"] = {"run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup"}
        box.linux["resources"] = {"pids": {"limit": 77}}
        assert "systemd's hierarchy of cgroup v1 is not mounted on this host; mkdir /sys/fs/cgroup/systemd && mount" in refused(box)
        there = CGROUPS / "systemd"
        there.mkdir()
        subprocess.run(["mount", "-t", "cgroup", "-o", "none,name=systemd,xattr", "cgroup", str(there)], check=True)
        try:
            box.sh("ls /sys/fs/cgroup; grep -c ' /sys/fs/cgroup' /proc/self/mountinfo; head -n 1 /sys/fs/cgroup/systemd/cgroup.procs; sleep 1000")
            box.linux["cgroupsPath"] = f"/{box.id}"
            pid = started(box, bundles.words())
            assert bundles.eventually(lambda: box.output.read_text() == "systemd\n2\n1\n"), box.output.read_text()
            assert (CGROUPS / box.id / "pids.max").read_text() == "77\n"
            box.ok("delete", "--force", box.id)
            assert bundles.status_of(pid) == 128 + signal.SIGKILL
        finally:
            subprocess.run(["umount", str(there)], check=True)
            there.rmdir()

    @pytest.mark.parametrize(("name", "inside"), [("", ""), ("x/y", "/x/y")])
    def test_subgroup(self, box: Box, name: str, inside: str) -> None:
        unit = asked(box)
        box.config["annotations"] = {"run.oci.systemd.subgroup": name}
        box.linux["resources"] = {"memory": {"limit": 64 << 20}}
        pid = started(box)
        assert own(pid) == f"/rundlet.slice/{unit}{inside}"
        assert (CGROUPS / own(pid)[1:] / "memory.max").read_text().strip() == str(64 << 20)
        box.ok("update", "--memory", str(32 << 20), box.id)
        assert (CGROUPS / own(pid)[1:] / "memory.max").read_text().strip() == str(32 << 20)
        box.ok("delete", "--force", box.id)
        assert not loaded(unit)

    def test_an_update_leaves_the_rest_to_the_letter(self, box: Box) -> None:
        """Without a sub-cgroup systemd writes the container's own files, and all of a controller's at once, as far as it knows them."""
        unit = asked(box)
        box.config["annotations"] = {"run.oci.systemd.subgroup": ""}
        box.linux["resources"] = {
            "memory": {"limit": 64 << 20}, "cpu": {"quota": 25501, "period": 50000}, "unified": {"memory.high": "48M", "memory.low": "1M"},
        }
        at = CGROUPS / own(started(box))[1:]
        assert at.name == unit
        box.ok("update", "--cpu-share", "2000", "--memory", str(56 << 20), box.id)
        held = {name: (at / name).read_text().strip() for name in ("cpu.max", "cpu.weight", "memory.max", "memory.high", "memory.low")}
        assert held == {
            "cpu.max": "25501 50000", "cpu.weight": "170", "memory.max": str(56 << 20), "memory.high": str(48 << 20), "memory.low": str(1 << 20),
        }
        assert show(unit, "MemoryHigh", "CPUQuotaPerSecUSec") == [str(48 << 20), "520ms"], "which knows no parts of a per cent"
        systemctl("daemon-reload")
        assert (at / "memory.high").read_text() == f"{48 << 20}\n"

    @pytest.mark.parametrize(("quota", "period", "after"), [
        (25500, 50000, "25500 50000"), (1000, 100000, "1000 100000"), (25501, 50000, "26000 50000"), (33300, 100000, "34000 100000"),
    ])
    def test_a_quota_after_a_reload(self, box: Box, quota: int, period: int, after: str) -> None:
        """Whole per cents are the same to both. Of a part systemd keeps none, CPUQuota= is written down without: it is given the next whole one,
        which is what it writes into its unit's cgroup from then on."""
        asked(box)
        box.config["annotations"] = {"run.oci.systemd.subgroup": ""}
        box.linux["resources"] = {"cpu": {"quota": quota, "period": period}}
        at = CGROUPS / own(started(box))[1:]
        assert (at / "cpu.max").read_text() == f"{quota} {period}\n"
        systemctl("daemon-reload")
        assert (at / "cpu.max").read_text() == f"{after}\n"

    @pytest.mark.parametrize(("key", "value", "says"), [
        ("Slice", "'system.slice'", "cgroupsPath says which"), ("TimeoutStopSec", "'a'", "a number of seconds"), ("X", "1", "not the name"),
        ("CPUWeight", "uint64 -1", "out of range"),
    ])
    def test_refused(self, box: Box, key: str, value: str, says: str) -> None:
        asked(box)
        box.config["annotations"] = {f"org.systemd.property.{key}": value}
        text = refused(box)
        assert text.startswith(f"rundlet: /annotations/org.systemd.property.{key}: ") and says in text


class TestDamaged:
    """What leads to the unit when the record cannot be read."""

    @pytest.mark.parametrize("text", [b"{", None])
    def test_record(self, box: Box, text: bytes | None) -> None:
        unit = asked(box)
        pid = started(box)
        cgroup = CGROUPS / own(pid)[1:]
        record = box.root / box.id / "state.json"
        if text is None:
            record.unlink()
        else:
            record.write_bytes(text)
        assert box.call("state", box.id).status == 1 and loaded(unit)
        done = box.call("delete", "--force", box.id)
        assert (done.status, done.err) == (0, "")
        assert bundles.status_of(pid) == 128 + signal.SIGKILL
        gone(unit, cgroup.parent)


class TestBus:
    """The ways to systemd."""

    def test_without_a_bus(self, box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
        """root reaches systemd itself, and later commands do as well."""
        unit = asked(box)
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/run/none")
        started(box)
        assert json.loads((box.root / box.id / "state.json").read_text())["systemd"]["bus"] == "unix:path=/run/systemd/private"
        monkeypatch.delenv("DBUS_SYSTEM_BUS_ADDRESS")
        box.ok("update", "--pids-limit", "40", box.id)
        assert show(unit, "TasksMax") == ["40"]
        box.ok("delete", "--force", box.id)
        assert not loaded(unit)

    def test_another_pid_namespace(self, box: Box) -> None:
        """A process is known to systemd by its number, which would be another one's there."""
        asked(box)
        text = refused(box, ["unshare", "--pid", "--fork", "--mount-proc", *SYSTEMD])
        assert text.count("it is in another PID namespace") == 2

    def test_an_unprivileged_user(self, theirs: Box) -> None:
        """Without a manager of his own there is none for him; and that of the system does not serve him."""
        asked(theirs)
        text = refused(theirs, [*as_user("XDG_RUNTIME_DIR=/run/none"), *SYSTEMD])
        assert "the user's systemd cannot be reached: nothing at unix:path=/run/none/bus" in text
        assert "set XDG_RUNTIME_DIR" in text
        text = refused(theirs, [*as_user("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/dbus/system_bus_socket"), *SYSTEMD])
        assert "systemd does not start the unit" in text
        assert "AccessDenied" in text or "InteractiveAuthorizationRequired" in text
        assert "polkit" in text


class TestUser:
    """The manager of a user without privileges."""

    SLICE = f"/user.slice/user-{USER}.slice/user@{USER}.service"

    @pytest.fixture
    def managed(self, theirs: Box) -> Iterator[Box]:
        """Of a user who has a manager."""
        systemctl("start", f"user@{USER}")
        yield theirs
        systemctl("stop", f"user@{USER}")

    def show(self, unit: str, *names: str) -> list[str]:
        """As show(), by the user's manager."""
        words = [*as_user(), "systemctl", "--user", "show", unit, *(f"--property={name}" for name in names)]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return [found[name] for name in names]

    def test_life(self, managed: Box) -> None:
        unit = asked(managed)
        managed.linux["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}
        pid = started(managed, [*as_user(), *SYSTEMD])
        at = CGROUPS / own(pid)[1:]
        assert own(pid) == f"{self.SLICE}/rundlet.slice/{unit}/container"
        assert self.show(unit, "ActiveState", "MemoryMax", "TasksMax") == ["active", str(64 << 20), "30"]
        assert (at / "memory.max").read_text().strip() == str(64 << 20)
        assert managed.exec("cat", "/proc/self/cgroup").out == "0::/\n"
        managed.ok("update", "--pids-limit", "40", managed.id)
        assert self.show(unit, "TasksMax") == ["40"]
        assert (at / "pids.max").read_text().strip() == "40"
        managed.ok("delete", "--force", managed.id)
        assert self.show(unit, "LoadState") == ["not-found"]
        assert not at.parent.exists()

    def test_without_a_path(self, managed: Box) -> None:
        del managed.linux["cgroupsPath"]
        pid = started(managed, [*as_user(), *SYSTEMD])
        assert own(pid) == f"{self.SLICE}/user.slice/rundlet-{managed.id}.scope/container"
        managed.ok("delete", "--force", managed.id)

    def test_root_of_a_user_namespace(self, managed: Box) -> None:
        """Who is root there, and nobody outside, has the user's manager as well."""
        unit = asked(managed)
        managed.without("user")
        for kind in ("uid", "gid"):
            del managed.linux[f"{kind}Mappings"]
        inside = [*as_user(), "unshare", "--user", "--map-root-user", "--mount"]
        managed.runtime = [*inside, *bundles.words()]
        pid = started(managed, [*inside, *SYSTEMD])
        assert own(pid) == f"{self.SLICE}/rundlet.slice/{unit}/container"
        managed.ok("delete", "--force", managed.id)
        assert self.show(unit, "LoadState") == ["not-found"]

    def test_a_controller_that_is_not_his(self, managed: Box) -> None:
        unit = asked(managed)
        managed.linux["resources"] = {"cpu": {"cpus": "0"}}
        text = refused(managed, [*as_user(), *SYSTEMD])
        assert "the cpuset controller" in text
        assert self.show(unit, "LoadState") == ["not-found"]
