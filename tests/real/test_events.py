"""events: what a container uses, and that it ran out of memory."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rundlet.errors import Usage
from rundlet.life.events import seconds
from tests import bundles
from tests.bundles import Box

V2 = bundles.CGROUPS["layout"] == "v2"
MIB = 1 << 20


def follow(box: Box, *options: str) -> "subprocess.Popen[str]":
    """Starts `events`."""
    return subprocess.Popen(box.words("events", *options, box.id), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def usage(box: Box) -> dict[str, Any]:
    """The data of `events --stats`."""
    done = box.call_apart("events", "--stats", box.id)
    assert (done.status, done.err) == (0, "") and done.out.count("\n") == 1, done
    assert done.out.startswith(f'{{"type":"stats","id":"{box.id}","data":{{')
    return json.loads(done.out)["data"]  # type: ignore[no-any-return]


def test_what_is_used(box: Box) -> None:
    box.linux["resources"] = {"memory": {"limit": 64 * MIB}, "pids": {"limit": 20}}
    box.sh("n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; sleep 1000 & exec sleep 1000").started()
    assert bundles.eventually(lambda: usage(box)["pids"]["current"] == 2)
    data = usage(box)
    assert data["pids"] == {"current": 2, "limit": 20}
    cpu = data["cpu"]["usage"]
    assert 0 < cpu["total"] < 600 * 10**9 and cpu["kernel"] + cpu["user"] > 0
    memory = data["memory"]
    assert memory["usage"]["limit"] == 64 * MIB
    assert 0 < memory["usage"]["usage"] <= 64 * MIB
    assert memory["usage"]["usage"] <= memory["usage"]["max"] <= 64 * MIB, "the peak"
    assert memory["usage"]["failcnt"] == 0
    assert {"limit", "failcnt"} <= memory["swap"].keys() & memory["kernel"].keys() & memory["kernelTCP"].keys()
    assert memory["raw"]["pgfault"] > 0
    assert 0 in data["cpuset"]["mems"] and data["cpuset"]["cpus"]
    assert data["hugetlb"].keys() == {size.replace("kB", "KB") for size in data["hugetlb"]}
    assert data["intel_rdt"] == {}
    links = {link["Name"]: link for link in data["network_interfaces"]}  # some kernels have tunnels in every namespace
    assert links["lo"]["RxBytes"] == 0
    if not V2:
        assert sum(cpu["percpu"]) <= usage(box)["cpu"]["usage"]["total"]


def test_of_a_group_of_resctrl(box: Box, tmp_path: Path) -> None:
    """As no machine here has the kernel's, a folder stands in for the container's group."""
    (tmp_path / "info/L3").mkdir(parents=True)
    (tmp_path / "info/L3/num_closids").write_text("16\n")
    (tmp_path / "group").mkdir()
    for folder, mask in ((tmp_path, "ff"), (tmp_path / "group", "0f")):
        (folder / "schemata").write_text(f"    L3:0={mask}\n")
    box.created()
    state = box.root / box.id / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"rdt": {"group": f"{tmp_path}/group", "monitor": "", "made": []}}))
    assert usage(box)["intel_rdt"] == {"l3_cache_info": {"num_closids": 16}, "l3_cache_schema_root": "L3:0=ff", "l3_cache_schema": "L3:0=0f"}


def test_of_a_container_in_the_hosts_network(box: Box) -> None:
    box.without("network")
    box.config["mounts"] = [mount for mount in box.config["mounts"] if mount["type"] != "sysfs"]
    box.linux["maskedPaths"] = []
    box.created()
    data = usage(box)
    assert data["network_interfaces"] is None
    assert "limit" not in data["pids"], "there is none"
    assert data["memory"]["usage"]["limit"] > 1 << 60


def test_again_and_again_until_it_ends(box: Box) -> None:
    pid = box.started()
    with follow(box, "--interval", "20ms") as child:
        assert child.stdout
        lines = [json.loads(child.stdout.readline()) for _ in range(3)]
        assert {(line["type"], line["id"]) for line in lines} == {("stats", box.id)}
        assert box.ended() == 137
        assert all(json.loads(line)["type"] == "stats" for line in child.stdout.read().splitlines())
    assert child.returncode == 0 and pid


def test_running_out_of_memory(box: Box) -> None:
    box.linux["resources"] = {"memory": {"limit": 24 * MIB, "swap": 24 * MIB}}
    box.sh("trap : TERM; sleep 1000 & wait; tail /dev/zero; exec sleep 1000")
    pid = box.started()
    with follow(box, "--interval", "1h") as child:
        assert child.stdout
        # it says nothing until something happens: on v1 the registration is in no file, on v2 there is none
        assert bundles.eventually(lambda: watches(child.pid))
        box.call_apart("kill", box.id, "TERM")
        assert child.stdout.readline() == f'{{"type":"oom","id":"{box.id}"}}\n'
        box.call_apart("kill", box.id, "KILL")
        assert bundles.status_of(pid) == 137
        child.stdout.read()
    assert child.returncode == 0


def watches(pid: int) -> bool:
    """Whether a process has come to hold the descriptors that it waits for: the last is the pidfd of the container."""
    try:
        return any("pidfd" in os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return False  # one that was closed meanwhile


def test_an_interval_longer_than_can_be_waited_for_at_once(box: Box) -> None:
    pid = box.started()
    with follow(box, "--interval", "100000h") as child:
        assert bundles.eventually(lambda: watches(child.pid))
        os.kill(pid, signal.SIGKILL)
        assert child.wait() == 0


def test_a_container_that_has_ended(box: Box) -> None:
    box.started()
    box.ended()
    for words in ([], ["--stats"]):
        done = box.call_apart("events", *words, box.id)
        assert done.status == 1 and f"container with id {box.id} is not running" in done.err


@pytest.mark.parametrize(
    ("text", "expected"), [("5s", 5), ("100ms", 0.1), ("1m30s", 90), ("1.5h", 5400), ("250us", 0.00025), ("0.5s", 0.5), ("1h1m1s", 3661)]
)
def test_durations_as_go_writes_them(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "0", "0s", "5", "s", "-1s", "1 s", "1.2.3s", ".s", "five"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(Usage):
        seconds(text)
