"""--systemd-cgroup where no systemd answers: said before anything is made."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box

pytestmark = pytest.mark.skipif(os.path.exists("/run/systemd/private"), reason="systemd runs here")


def refused(box: Box, *options: str) -> str:
    """What create says instead of making a container."""
    box.runtime = [*bundles.words(), *options]
    done = box.create()
    box.runtime = bundles.words()
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("rundlet: ") and done.err.count("\n") == 1
    assert not box.left() and not box.root.exists()
    return done.err


@pytest.mark.parametrize("options", [["--systemd-cgroup"], ["--cgroup-manager=systemd"]])
def test_no_bus(box: Box, monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={box.folder}/none")
    box.linux["cgroupsPath"] = "a.slice:b:c"
    text = refused(box, *options)
    assert f"the system's systemd cannot be reached: nothing at unix:path={box.folder}/none; nothing at unix:path=/run/systemd/private" in text
    assert "leave out --systemd-cgroup" in text
    assert "no such file" not in text  # which engines take for a missing program


@pytest.mark.parametrize("address", ["tcp:host=localhost,port=1", "unix", "unix:tmpdir=/tmp", ""])
def test_no_address(box: Box, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    del box.linux["cgroupsPath"]
    assert "the system's systemd cannot be reached" in refused(box, "--systemd-cgroup")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """The address of a message bus."""
    if not shutil.which("dbus-daemon"):
        pytest.skip("no dbus-daemon here")
    address = f"unix:path={tmp_path}/bus"
    command = ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}", "--print-address=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as daemon:
        assert daemon.stdout and daemon.stdout.readline()
        yield address
        daemon.kill()


def test_a_bus_without_systemd(box: Box, bus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus)
    del box.linux["cgroupsPath"]
    text = refused(box, "--systemd-cgroup")
    assert f"there is no systemd at {bus}: " in text and "(org.freedesktop.DBus.Error." in text


@pytest.mark.parametrize(("path", "where"), [("/a/b", "/linux/cgroupsPath"), ("a:b:c", "/linux/cgroupsPath")])
def test_a_path_for_files(box: Box, path: str, where: str) -> None:
    box.linux["cgroupsPath"] = path
    assert f"{where}: " in refused(box, "--systemd-cgroup")
