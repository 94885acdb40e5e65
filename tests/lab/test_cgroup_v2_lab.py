"""tests/real as most hosts would have it: cgroup v2 alone, AppArmor on, and all capabilities there. Half of it on an old kernel, half on a new one."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.lab import boot

HOME = boot.TESTS.parent
LEFT_OUT = {
    "executor",  # by itself, on two machines: it wants compilers, and of the kernel only what it always had
    "errors", "explain",  # nothing is made
    "api_docs", "api_hundred",  # of the kernel they want what the other tests of the library want
    "matrix", "profile",  # about a machine without AppArmor; test_matrix_lab.py and test_profile_lab.py are for one that has it
    "watch", "matrix_page", "watch_page", "watch_in_browser",  # test_watch_lab.py is the same in here; and a browser
}
# On Linux 6.1 those that take one half of the time. The others, new ones too, are on 6.12: some of them need what 6.3 has, memfds that
# nobody executes and a tmpfs that maps ids.
OLD = {
    "apparmor_absent", "cgroup_paths", "events", "filters", "hot_mounts", "lifecycle", "mounts", "mounts_copyup", "notify_socket", "process", "ps",
    "rootfs", "seccomp_notify", "terminal", "user_namespaces",
}
TIME = 4800  # seconds; it takes twenty minutes on two slow cores
PLACE = "/rundlet-tests"  # a filesystem as tests want it: devices in it work, an overlay may lie on it, and ids can be mapped
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={PLACE}/run", "--durations=15", "-m", "not elsewhere"]
COMMAND = ["sh", "-ec", f'mkdir {PLACE}; mount -t tmpfs tests {PLACE}; exec "$@"', "sh", *PYTEST]
# hypothesis and xdist, which nothing of this uses, would take seconds to import
INSIDE = {"RUNDLET_LAB": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

LACKING = "a lab in the lab would be a hundred times slower" if os.environ.get("RUNDLET_LAB") == "1" else boot.lacking()
pytestmark = pytest.mark.skipif(bool(LACKING), reason=LACKING)


def files() -> dict[str, list[str]]:
    """Those for each kernel."""
    names = {file.stem.removeprefix("test_") for file in (HOME / "tests/real").glob("test_*.py")}
    assert names > LEFT_OUT | OLD
    return {suite: [f"tests/real/test_{name}.py" for name in sorted(some)] for suite, some in (("bookworm", OLD), ("backports", names - LEFT_OUT - OLD))}


@pytest.fixture(autouse=True)
def patience() -> None:
    """A boot, and hundreds of containers on an emulated machine, take longer than any other test may; the lab has a limit of its own."""


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[int, str]]]:
    """How the tests on a kernel ended, and what pytest said. All labs are started at once."""
    folder = tmp_path_factory.mktemp("labs")
    running: dict[str, subprocess.Popen[bytes]] = {}
    for suite, names in files().items():
        lab = [sys.executable, "-m", "rundlet", "lab", "--suite", suite, "--timeout", str(TIME)]
        lab += [word for name, value in INSIDE.items() for word in ("--env", f"{name}={value}")]
        with open(folder / suite, "wb") as out:
            running[suite] = subprocess.Popen(
                [*boot.SLOT, *lab, "--", *COMMAND, *names], cwd=HOME, env={**os.environ, "PYTHONPATH": "src"}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )
    yield cache(lambda suite: (running[suite].wait(), (folder / suite).read_text()))
    for process in running.values():
        process.terminate()
        process.wait()


@pytest.mark.parametrize("suite", boot.KERNELS)
def test_on_cgroup_v2(labs: Callable[[str], tuple[int, str]], suite: str) -> None:
    status, said = labs(suite)
    assert status == 0, said[-20000:]
