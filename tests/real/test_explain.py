"""explain: prints the plan of a bundle for this host or another, makes nothing, and agrees with what create then does."""

import json
from pathlib import Path
from typing import Any

import pytest

from rundlet import host
from tests.bundles import Box

CONFINED: dict[str, Any] = {
    "kernel": "6.12.95+deb12-amd64", "arch": "x86_64", "uid": 0, "gid": 0, "nnp": False, "seccomp": 0, "lsm": ["apparmor"],
    "caps": {"effective": ["CAP_SYS_ADMIN", "CAP_KILL"], "bounding": ["CAP_SYS_ADMIN", "CAP_KILL"]},
    "apparmor": {
        "state": "on", "label": "rt", "mode": "enforce", "components": [{"name": "rt", "mode": "enforce"}], "namespace": "root",
        "stack": True, "post_nnp_subset": True, "loaded": ["rt", "web"], "interface": "lsm", "restrict_unconfined": False,
        "restrict_userns": None,
    },
    "cgroup": {"layout": "v2", "mounts": {"unified": "/sys/fs/cgroup"}, "own": {"unified": "/"}, "controllers": ["memory", "pids", "cpu"]},
}


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.json"
    path.write_text(json.dumps(CONFINED))
    return path


def explained(box: Box, *options: str) -> dict[str, Any]:
    box.save()
    done = box.call("explain", "--json", *options, str(box.bundle))
    document: dict[str, Any] = json.loads(done.out)
    assert done.status == (1 if document["refused"] else 0)
    return document


def test_the_label_on_another_host_and_why(box: Box, facts: Path) -> None:
    box.process["apparmorProfile"] = "web"
    box.process["noNewPrivileges"] = True
    label = explained(box, "--assume", str(facts))["label"]
    assert (label["from"], label["to"], label["action"], label["row"]) == ("rt", "rt//&web", "stack", 6)
    assert "no_new_privs" in label["reason"] and "rt" in label["reason"]
    box.process["noNewPrivileges"] = False
    label = explained(box, "--assume", str(facts))["label"]
    assert (label["to"], label["action"], label["row"]) == ("web", "exec", 5)


def test_a_refusal_is_the_first_line_and_the_status(box: Box, facts: Path) -> None:
    box.process["apparmorProfile"] = "elsewhere"
    box.save()
    done = box.call("explain", "--assume", str(facts), str(box.bundle))
    assert done.status == 1
    assert done.out.startswith("refused") and '"elsewhere"' in done.out and "apparmor_parser" in done.out
    assert explained(box, "--assume", str(facts))["label"]["action"] == "refuse"


def test_steps_are_the_plan_and_the_label_comes_before_the_clone(box: Box, facts: Path) -> None:
    box.process["apparmorProfile"] = "web"
    stages = explained(box, "--steps", "--assume", str(facts))["steps"]
    assert [stage["stage"] for stage in stages] == ["outside", "inside", "enter", "last"]
    whats = [step["what"] for step in stages[0]["steps"]]
    assert whats[-1].startswith("make the container's first process")
    label = next(step for step in stages[0]["steps"] if "web" in step["what"])
    assert any(call.startswith("lsm_set_self_attr(") for call in label["calls"])
    assert stages[-1]["steps"][-1]["what"].startswith("execute ")


def test_the_rest_of_the_document(box: Box, facts: Path) -> None:
    box.process["capabilities"] = {kind: ["CAP_KILL", "CAP_SYS_TIME"] for kind in ("bounding", "effective", "permitted")}
    box.linux["resources"] = {"memory": {"limit": 1 << 26}, "pids": {"limit": 7}}
    box.linux["maskedPaths"] = ["/proc/kcore"]
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}]}
    shown = explained(box, "--assume", str(facts))
    assert shown["version"] == 1 and shown["refused"] is None
    assert shown["capabilities"]["bounding"] == ["CAP_KILL"], "what that host cannot give is left out"
    assert shown["seccomp"]["default"] == "SCMP_ACT_ERRNO(1)" and shown["seccomp"]["rules"] == 1
    assert any("memory" in limit for limit in shown["cgroup"]) and any("7" in limit for limit in shown["cgroup"])
    assert shown["maskedPaths"] == ["/proc/kcore"]
    assert shown["namespaces"]["pid"] == "new"


def test_nothing_is_made(box: Box) -> None:
    box.save()
    before = sorted(path for path in box.bundle.rglob("*") if not path.is_symlink())
    text = box.ok("explain", "--steps", str(box.bundle)).out
    assert "── last" in text
    assert sorted(path for path in box.bundle.rglob("*") if not path.is_symlink()) == before
    assert box.left() == []
    assert box.ok("list", "--quiet").out == ""


def test_facts_of_this_host_can_be_assumed(box: Box, tmp_path: Path) -> None:
    here = json.loads(box.ok("host", "--json").out)
    assert here == json.loads(json.dumps(host.facts(everything=True)))
    path = tmp_path / "here.json"
    path.write_text(json.dumps(here))
    assert explained(box, "--steps") == explained(box, "--steps", "--assume", str(path))


@pytest.mark.parametrize(("broken", "place"), [({"nnp": "no"}, "/nnp"), ({"apparmor": {}}, "/apparmor/state"), ({"cgroup": None}, "/cgroup")])
def test_facts_that_are_none_are_refused_with_their_place(box: Box, facts: Path, broken: dict[str, Any], place: str) -> None:
    facts.write_text(json.dumps(CONFINED | broken))
    box.save()
    done = box.call("explain", "--assume", str(facts), str(box.bundle))
    assert done.status == 1 and place in done.err and len(done.err.splitlines()) == 1


def test_the_unit_of_systemd(box: Box) -> None:
    box.linux["cgroupsPath"] = "a-b.slice:p:n"
    box.linux["resources"] = {"pids": {"limit": 7}, "devices": [{"allow": False, "access": "rwm"}]}
    box.config["annotations"] = {"org.systemd.property.TimeoutStopSec": "7"}
    box.save()
    box.runtime = [*box.runtime, "--systemd-cgroup"]
    shown = explained(box)["cgroup"]
    assert shown[-4:] == ["by systemd: p-n.scope in a-b.slice", "its TasksMax: 7", "its DevicePolicy: strict", "its TimeoutStopUSec: 7000000"]


def test_all_warnings_of_create_are_told_each_time(box: Box) -> None:
    """Also those about a filter that was compiled and kept before, which create does not tell again."""
    missing = next(name for name in ("CAP_SYS_BOOT", "CAP_SYS_TIME") if name in host.facts()["caps"]["bounding"])
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirr"], "action": "SCMP_ACT_ERRNO"}]}
    box.linux.setdefault("resources", {})["memory"] = {"kernel": 1 << 24}
    box.process["capabilities"] = {"bounding": [missing]}
    box.config["annotations"] = {"run.oci.systemd.force_cgroup_v1": "/nowhere"}
    assert box.says("echo run") == "run\n"
    facts = json.loads(box.ok("host", "--json").out)
    facts["caps"]["bounding"].remove(missing)
    path = box.bundle / "facts.json"
    path.write_text(json.dumps(facts))
    for _ in range(2):
        warnings = explained(box, "--assume", str(path))["warnings"]
        about = ["/process/capabilities/bounding: the runtime does not have", "/linux/resources/memory/kernel is ignored", "/annotations/run.oci"]
        about += ["/linux/seccomp/syscalls/0/names/0: libseccomp"]
        assert [warning for warning in warnings if not warning.startswith(tuple(about))] == []
        assert len(warnings) == len(about)


def test_info_is_a_page_of_what_features_say(box: Box) -> None:
    features = json.loads(box.ok("features").out)
    rows = dict(line.split(maxsplit=1) for line in box.ok("info").out.splitlines() if line[:1] != " ")
    assert rows["kernel"] == host.facts()["kernel"]
    assert set(rows["namespaces"].split(", ")) == set(features["linux"]["namespaces"])
    assert rows["seccomp"] == ("yes" if features["linux"]["seccomp"]["enabled"] else "no")
    assert rows["cgroups"] == host.facts()["cgroup"]["layout"]
    lsm = host.facts()["lsm"]
    assert rows["SELinux"] == ("unknown" if lsm is None else "on" if "selinux" in lsm else "absent")
