"""Containers in units of systemd where it has cgroup v1 and v2 side by side: run inside `rundlet lab --systemd`, by test_systemd_lab.py."""

from pathlib import Path

from tests import bundles
from tests.bundles import Box
from tests.lab.systemd import asked, loaded, show, started, systemctl

CGROUPS = Path("/sys/fs/cgroup")


def test_life(box: Box) -> None:
    """Of all hierarchies, those that systemd knows and those that it does not; limits are in both."""
    assert bundles.CGROUPS["layout"] == "hybrid"
    unit = asked(box)
    box.linux["resources"] = {
        "memory": {"limit": 64 << 20}, "cpu": {"shares": 512, "quota": 25000, "period": 50000, "cpus": "0"}, "pids": {"limit": 30},
        "devices": [{"allow": False, "access": "rwm"}],
    }
    pid = started(box)
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert {line.split(":", 2)[2] for line in lines} == {f"/rundlet.slice/{unit}"}
    names = "MemoryLimit", "CPUShares", "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec", "TasksMax", "DevicePolicy"
    assert show(unit, *names) == [str(64 << 20), "512", "500ms", "50ms", "30", "strict"]

    def held() -> list[str]:
        files = ("memory/{}/memory.limit_in_bytes", "cpu,cpuacct/{}/cpu.shares", "cpuset/{}/cpuset.cpus", "pids/{}/pids.max")
        return [(CGROUPS / file.format(f"rundlet.slice/{unit}")).read_text().strip() for file in files]

    assert held() == [str(64 << 20), "512", "0", "30"]
    allowed = (CGROUPS / f"devices/rundlet.slice/{unit}/devices.list").read_text()
    assert "c 1:3 rwm" in allowed and "a *:* rwm" not in allowed
    systemctl("daemon-reload")
    assert (CGROUPS / f"devices/rundlet.slice/{unit}/devices.list").read_text() == allowed
    box.ok("update", "--memory", str(32 << 20), "--pids-limit", "40", box.id)
    assert show(unit, "MemoryLimit", "TasksMax") == [str(32 << 20), "40"]
    assert held() == [str(32 << 20), "512", "0", "40"]
    # quota and period are two files, and one limit to systemd, which knows it by the per cent
    at = CGROUPS / f"cpu,cpuacct/rundlet.slice/{unit}"
    for words, quota, period, told in (
        (["--cpu-quota", "30000"], "30000", "50000", ["600ms", "50ms"]), (["--cpu-period", "60000"], "30000", "60000", ["500ms", "60ms"]),
        (["--cpu-quota", "30001"], "30001", "60000", ["510ms", "60ms"]), (["--cpu-share", "300"], "30001", "60000", ["510ms", "60ms"]),
    ):
        box.ok("update", *words, box.id)
        assert [(at / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period")] == [quota, period], words
        assert show(unit, "CPUQuotaPerSecUSec", "CPUQuotaPeriodUSec") == told, words
    assert (held()[1], show(unit, "CPUShares")) == ("300", ["300"])
    box.ok("pause", box.id)
    assert (CGROUPS / f"freezer/rundlet.slice/{unit}/freezer.state").read_text() == "FROZEN\n"
    box.ok("resume", box.id)
    assert box.exec("true").status == 0
    box.ok("delete", "--force", box.id)
    assert not loaded(unit)
    assert not list(CGROUPS.glob(f"*/rundlet.slice/{unit}"))
