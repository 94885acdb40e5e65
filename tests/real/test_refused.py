"""What a host may lack: refused by name, before anything is made."""

from pathlib import Path
from typing import Any

import pytest

from tests.bundles import FACTS, Box

RESCTRL = any(line.split(" - ")[1].startswith("resctrl ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
SELINUX = "selinux label is specified in config, but selinux is disabled or not supported"


@pytest.mark.skipif("selinux" in (FACTS["lsm"] or ()), reason="this kernel runs SELinux")
class TestSELinux:
    """Labels of another module than the one that runs."""

    @pytest.mark.parametrize("label", ["system_u:system_r:container_t:s0", "exec unconfined"])
    def test_a_process_label(self, box: Box, label: str) -> None:
        box.process["selinuxLabel"] = label
        done = box.run()
        assert (done.status, f"/process/selinuxLabel: {SELINUX}" in done.err) == (1, True)
        assert box.left() == []

    def test_a_mount_label(self, box: Box) -> None:
        box.linux["mountLabel"] = "system_u:object_r:container_file_t:s0"
        done = box.run()
        assert (done.status, f"/linux/mountLabel: {SELINUX}" in done.err) == (1, True)

    def test_none_is_none(self, box: Box) -> None:
        box.process["selinuxLabel"] = box.linux["mountLabel"] = ""
        assert box.says("echo fine") == "fine\n"

    def test_of_an_exec(self, box: Box) -> None:
        box.started()
        done = box.exec("--process-label", "system_u:system_r:container_t:s0", "--", "true")
        assert (done.status, SELINUX in done.err) == (255, True)


@pytest.mark.skipif(RESCTRL, reason="resctrl is mounted here")
@pytest.mark.parametrize("asked", [{"closID": "group"}, {"l3CacheSchema": "L3:0=f"}, {"enableMonitoring": True}, {"schemata": ["MB:0=50"]}])
def test_resctrl(box: Box, asked: dict[str, Any]) -> None:
    box.linux["intelRdt"] = asked
    done = box.run()
    assert done.status == 1
    assert done.err.startswith("rundlet: /linux/intelRdt: no resctrl filesystem is mounted; ")
    assert box.left() == []
