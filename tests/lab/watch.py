"""watch on a kernel with AppArmor, by itself and as the service that it ships: run inside `rundlet lab --systemd`, by test_watch_lab.py.

The intervals are so long that nothing but an event can be what was told, except the service's, which is as shipped.
"""

import contextlib
import os
import shlex
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rundlet import install, kernel
from tests import bundles
from tests.bundles import Box, eventually
from tests.lab.systemd import show, systemctl
from tests.real.test_watch import LONG, Watching

UNITS = Path("/run/systemd/system")
HOSTS = Path("/lib/systemd/system")  # of the machine's own units
JOURNALD = ("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket")
CAPABILITIES = {"CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_SYSLOG"}
POLICY = """
profile watched {flags} {{
  file, signal, unix, network, capability, mount, umount, pivot_root, ptrace,
  deny /etc/passwd {denied},
  audit deny /etc/keys {denied},
}}
"""


def load(flags: str = "", denied: str = "rw", how: str = "-r") -> None:
    """Loads the profile, replaces it, or removes it."""
    subprocess.run(["apparmor_parser", how], input=POLICY.format(flags=flags, denied=denied), text=True, check=True)


@contextlib.contextmanager
def running(box: Box) -> Iterator[Box]:
    """A container that runs under the profile."""
    load()
    box.process["apparmorProfile"] = "watched"
    (box.rootfs / "etc/keys").write_text("keys\n")
    box.started()
    yield box
    box.ended()
    box.ok("delete", box.id)


@pytest.fixture
def confined(box: Box) -> Iterator[Box]:
    """It, and then without the profile."""
    with running(box):
        yield box
    subprocess.run(["apparmor_parser", "-R"], input=POLICY.format(flags="", denied="rw"), text=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def watch(confined: Box) -> Iterator[Watching]:
    """watch, which has found that it holds."""
    made = Watching(confined, "--interval", LONG)
    try:
        found = made.verdict(confined.id, "holds")
        assert found["label"] == {"profile": "watched", "mode": "enforce"}
        assert f'rundlet_container_label_info{{container="{confined.id}",mode="enforce",profile="watched"}}' in made.metrics()
        yield made
    finally:
        assert made.end() == 0
    assert made.errors.read_text() == ""


def fields(found: dict[str, Any]) -> set[str]:
    """What differs."""
    return {difference["field"] for difference in found["differences"]}


def drift(watch: Watching, box: Box, field: str) -> float:
    """What the metrics say."""
    return watch.metrics()[f'rundlet_container_drift{{container="{box.id}",field="{field}"}}']


class TestAppArmor:
    """The policy changes under a container that runs."""

    def test_a_profile_that_is_replaced(self, confined: Box, watch: Watching) -> None:
        load(denied="w")
        assert fields(watch.verdict(confined.id, "differs")) == {"apparmor.policy"}
        assert drift(watch, confined, "apparmor.policy") == 1
        load()
        watch.verdict(confined.id, "holds")
        assert drift(watch, confined, "apparmor.policy") == 0

    def test_a_profile_that_only_complains(self, confined: Box, watch: Watching) -> None:
        load(flags="flags=(complain)")
        assert "apparmor.mode" in fields(watch.verdict(confined.id, "differs"))
        assert f'rundlet_container_label_info{{container="{confined.id}",mode="complain",profile="watched"}}' in watch.metrics()
        load()
        watch.verdict(confined.id, "holds")

    def test_a_profile_that_is_removed(self, confined: Box, watch: Watching) -> None:
        load(how="-R")
        found = watch.verdict(confined.id, "differs")
        assert any(field.startswith("apparmor.") for field in fields(found)), found

    def test_a_process_with_another_label(self, confined: Box, watch: Watching) -> None:
        """One that joined the cgroup from outside, unconfined."""
        group = confined.cgroups()[0] / "cgroup.procs"
        with subprocess.Popen(["sleep", "1000"]) as other:
            group.write_text(str(other.pid))
            found = watch.verdict(confined.id, "differs")
            other.kill()
        assert {"apparmor.label", "capabilities", "no-new-privs"} <= fields(found)
        assert drift(watch, confined, "capabilities") >= 1
        assert any(str(other.pid) in difference["where"] for difference in found["differences"] if difference["field"] == "apparmor.label")

    def test_denials_are_counted(self, confined: Box, watch: Watching) -> None:
        for _ in range(3):
            assert confined.exec("cat", "/etc/keys").status == 1
        found = watch.wait(lambda event: event["event"] == "denied" and event["container"] == confined.id)
        assert (found["layer"], found["verdict"], found["what"]) == ("apparmor", "denied", "read /etc/keys")
        name = f'rundlet_denials_total{{container="{confined.id}",layer="apparmor"}}'
        assert eventually(lambda: watch.metrics().get(name) == 3), watch.metrics()
        assert watch.metrics()["rundlet_denials_readable"] == 1


@pytest.fixture(scope="module")
def journal() -> Callable[[], list[str]]:
    """Starts the machine's own journald, which the lab has not; what it has of the service."""
    UNITS.mkdir(parents=True, exist_ok=True)
    for name in JOURNALD:
        (UNITS / name).write_text((HOSTS / name).read_text())
    for name in ("sysinit.target", "basic.target", "shutdown.target", "local-fs.target", "syslog.socket"):
        kind = "[Socket]\nListenDatagram=/run/systemd/journal/syslog\n" if name.endswith(".socket") else ""
        (UNITS / name).write_text(f"[Unit]\nDefaultDependencies=no\n{kind}")
    systemctl("daemon-reload")
    systemctl("start", *JOURNALD[1:])
    systemctl("start", JOURNALD[0])

    def read() -> list[str]:
        words = ["journalctl", "--unit", install.UNIT, "--output", "cat", "--no-pager"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()

    return read


@pytest.fixture
def service(journal: Callable[[], list[str]], tmp_path: Path) -> Iterator[int]:
    """The service as it is shipped, started; its first process. Where its lines go is systemd's default, which the lab has otherwise."""
    command = tmp_path / "rundlet"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(bundles.words())} "$@"\n')
    command.chmod(0o755)
    (UNITS / install.UNIT).write_bytes(install.unit(str(command)))
    dropin = UNITS / f"{install.UNIT}.d/lab.conf"
    dropin.parent.mkdir(exist_ok=True)
    dropin.write_text("[Service]\nStandardOutput=journal\nStandardError=journal\n")
    systemctl("daemon-reload")
    done = subprocess.run(["systemctl", "start", install.UNIT], capture_output=True, text=True)
    assert done.returncode == 0, (done.stderr, journal())
    [pid] = show(install.UNIT, "MainPID")
    yield int(pid)
    systemctl("stop", install.UNIT)
    assert show(install.UNIT, "ActiveState", "Result", "ExecMainStatus") == ["inactive", "success", "0"]


@pytest.fixture
def known(box: Box) -> Iterator[Box]:
    """A container where the service looks for containers."""
    box.root = Path("/run/rundlet")
    box.linux["resources"] = {"pids": {"limit": 64}, "devices": [{"allow": False, "access": "rwm"}]}
    with running(box):
        yield box


def metrics() -> dict[str, float]:
    """Of the service."""
    with urllib.request.urlopen("http://127.0.0.1:9617/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_the_service(known: Box, service: int, journal: Callable[[], list[str]]) -> None:
    """It is confined, looks nevertheless at everything that there is to look at, and sees a container that is made wrong."""
    status = bundles.proc_status(service)
    kept = {name for n, name in enumerate(kernel.CAPABILITIES) if int(status["CapBnd"], 16) >> n & 1}
    assert (kept, status["NoNewPrivs"], status["Seccomp"]) == (CAPABILITIES, "1", "2")
    name = f'rundlet_container_verified{{container="{known.id}",result="holds"}}'
    print("\n".join(journal()))
    assert metrics()[name] == 1  # it is ready once it has looked
    assert metrics()['rundlet_verifications_total{result="unknown"}'] == 0
    fact = f'rundlet_container_drift{{container="{known.id}",field="devices"}}'
    assert metrics()[fact] == 0

    known.limit("pids.max", "pids.max").write_text("4096")
    assert eventually(lambda: metrics()[name] == 0)
    assert metrics()[f'rundlet_container_drift{{container="{known.id}",field="limit"}}'] == 1
    assert eventually(lambda: any(line.endswith(f"{known.id}: differs: limit of pids.max: is 4096, asked for 64") for line in journal())), journal()

    load(flags="flags=(complain)")
    assert eventually(lambda: metrics()[f'rundlet_container_drift{{container="{known.id}",field="apparmor.mode"}}'] >= 1)
    load()
    known.limit("pids.max", "pids.max").write_text("64")
    assert eventually(lambda: metrics()[name] == 1)

    assert known.exec("cat", "/etc/keys").status == 1
    denied = f'rundlet_denials_total{{container="{known.id}",layer="apparmor"}}'
    assert eventually(lambda: metrics().get(denied, 0) >= 1), (metrics(), journal())
    assert eventually(lambda: any(f"{known.id}: apparmor denied read /etc/keys" in line for line in journal())), journal()

    # what it is held to: it may not even write where root may
    for path in ("/etc/x", "/run/rundlet/x", "/var/x", "/dev/shm/x"):
        done = subprocess.run(["nsenter", "--target", str(service), "--mount", "touch", path], capture_output=True, text=True)
        assert "Read-only file system" in done.stderr, (path, done)
    assert os.listdir(known.root) == [known.id]


def test_the_service_starts_before_there_is_a_container(service: int, journal: Callable[[], list[str]]) -> None:
    assert metrics()['rundlet_containers{status="running"}'] == 0
    assert eventually(lambda: any(line.startswith("watching /run/rundlet, ") for line in journal())), journal()
