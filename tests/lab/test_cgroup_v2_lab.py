"""Control groups as most hosts have them today: the tests of tests/real that depend on the layout, run on a kernel with cgroup v2 alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent.parent
TESTS = ("tests/real/test_cgroup.py", "tests/real/test_limits.py")

pytestmark = [
    pytest.mark.skipif(os.environ.get("RUNDLET_LAB") == "1", reason="this is what boots the lab"),
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("qemu-system-x86_64"), reason="the lab needs root and qemu-system-x86"),
]


@pytest.fixture
def patience() -> None:
    """A boot, and some dozens of containers on an emulated machine, take longer than any other test may."""


def test_on_cgroup_v2() -> None:
    command = [sys.executable, "-m", "rundlet", "lab", "--timeout", "900", "--env", "RUNDLET_LAB=1", "--env", "PYTHONDONTWRITEBYTECODE=1", "--"]
    command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src"})
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout
