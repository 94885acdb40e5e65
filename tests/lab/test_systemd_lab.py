"""The systemd cgroup manager: tests/lab/systemd.py on a machine whose first process is systemd."""

import os
import subprocess
import sys

import pytest

from rundlet.errors import Refused
from rundlet.lab import needs
from tests.lab import boot

TIME = 3600  # seconds; it takes three minutes on two slow cores
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp=/rundlet-tests"]
INSIDE = {"RUNDLET_LAB": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def lacking() -> str:
    """What this machine lacks; "" where nothing is."""
    if os.environ.get("RUNDLET_LAB") == "1":
        return "a lab in the lab would be a hundred times slower"
    try:
        needs.systemd()
    except Refused as refused:
        return str(refused)
    return boot.lacking()


pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture(autouse=True)
def patience() -> None:
    """A boot, and some dozens of containers on an emulated machine, take longer than any other test may; the lab has a limit of its own."""


def run(tests: str, *options: str) -> None:
    """Runs the tests of a file in a lab; all of them must pass."""
    lab = [sys.executable, "-m", "rundlet", "lab", "--systemd", "--timeout", str(TIME), *options]
    lab += [word for name, value in INSIDE.items() for word in ("--env", f"{name}={value}")]
    done = subprocess.run(
        [*boot.SLOT, *lab, "--", *PYTEST, tests], cwd=boot.TESTS.parent, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"}
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]


def test_in_units_of_systemd() -> None:
    run("tests/lab/systemd.py")


def test_beside_cgroup_v1() -> None:
    run("tests/lab/systemd_v1.py", "--append", "systemd.unified_cgroup_hierarchy=0")
