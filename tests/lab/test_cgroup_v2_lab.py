"""tests/real as most hosts would have it: cgroup v2 alone, AppArmor on, and all capabilities there. Half of it on an old kernel, half on a new one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.lab import boot

HOME = boot.TESTS.parent
LEFT_OUT = (
    "test_executor.py",  # the executor by itself, on two machines: it wants compilers, and of the kernel only what it always had
    "test_errors.py", "test_explain.py",  # nothing is made
)
PINNED = {
    "test_executor_spawn.py": "backports",  # it forbids the execution of memfds: Linux 6.3
    "test_mounts_idmap.py": "backports",  # a tmpfs that maps ids: Linux 6.3
}
TIME = 2400  # seconds; it takes five minutes on two slow cores
PLACE = "/rundlet-tests"  # a filesystem as tests want it: devices in it work, an overlay may lie on it, and ids can be mapped
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={PLACE}/run", "--durations=15", "-m", "not elsewhere"]
COMMAND = ["sh", "-ec", f'mkdir {PLACE}; mount -t tmpfs tests {PLACE}; exec "$@"', "sh", *PYTEST]
# hypothesis and xdist, which nothing of this uses, would take seconds to import
INSIDE = {"RUNDLET_LAB": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

LACKING = "a lab in the lab would be a hundred times slower" if os.environ.get("RUNDLET_LAB") == "1" else boot.lacking()
pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING)


def halves() -> dict[str, list[str]]:
    """The files for each kernel: so many that they take about the same time."""
    found: dict[str, list[str]] = {suite: [] for suite in boot.KERNELS}
    sizes = dict.fromkeys(found, 0)
    files = [file for file in (HOME / "tests/real").glob("test_*.py") if file.name not in LEFT_OUT]
    for file in sorted(files, key=lambda file: (file.name not in PINNED, -file.stat().st_size)):
        suite = PINNED.get(file.name) or min(sizes, key=lambda suite: sizes[suite])
        found[suite].append(str(file.relative_to(HOME)))
        sizes[suite] += file.stat().st_size
    return found


@pytest.fixture(autouse=True)
def patience() -> None:
    """A boot, and hundreds of containers on an emulated machine, take longer than any other test may; the lab has a limit of its own."""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[int, str]]]:
    """How the tests on a kernel ended, and what pytest said. All labs are started at once."""
    folder = tmp_path_factory.mktemp("labs")
    running: dict[str, subprocess.Popen[bytes]] = {}
    for suite, files in halves().items():
        lab = [sys.executable, "-m", "rundlet", "lab", "--suite", suite, "--timeout", str(TIME)]
        lab += [word for name, value in INSIDE.items() for word in ("--env", f"{name}={value}")]
        with open(folder / suite, "wb") as out:
            running[suite] = subprocess.Popen(
                [*boot.SLOT, *lab, "--", *COMMAND, *files], cwd=HOME, env={**os.environ, "PYTHONPATH": "src"}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )
    yield cache(lambda suite: (running[suite].wait(), (folder / suite).read_text()))
    for process in running.values():
        process.terminate()
        process.wait()


@pytest.mark.parametrize("suite", boot.KERNELS)
def test_on_cgroup_v2(labs: Callable[[str], tuple[int, str]], suite: str) -> None:
    status, said = labs(suite)
    assert status == 0, said[-20000:]


def test_files_that_are_left_out_or_pinned_are_there() -> None:
    assert {*LEFT_OUT, *PINNED} <= {file.name for file in (HOME / "tests/real").iterdir()}
