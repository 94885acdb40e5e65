"""Fixtures for containers that are real: made by the command as users have it, and gone without a trace after each test."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import Box

LAB = os.environ.get("RUNDLET_LAB") == "1"
LIMIT = 900  # seconds for a test: the slowest takes one of them on an idle machine
# who runs the tests in the background ignores it, and what they start would, too
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In the lab everything is there that tests need: a skip is a failure."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if LAB and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report  # type: ignore[return-value]


def too_long(signo: int, frame: object) -> None:
    """What waits for something that does not come is interrupted, so that the other tests have their turn."""
    raise TimeoutError(f"the test took more than {LIMIT // 60} minutes")


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """No test may hang."""
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A busybox of our own to link to: bundles are on the same filesystem."""
    found = shutil.which("busybox")
    if os.geteuid() != 0:
        pytest.skip("containers of root are made by root")
    if not found:
        pytest.skip("no busybox here")
    bundles.adopt_orphans()
    return Path(shutil.copy(found, tmp_path_factory.mktemp("busybox") / "busybox"))


@pytest.fixture
def boxes(busybox: Path, tmp_path: Path) -> Iterator[Callable[..., Box]]:
    """Makes containers to be, in one root of containers. Afterwards nothing of them may be left anywhere, nor any process."""
    made: list[Box] = []
    tmp_path.chmod(0o755)
    bundles.reap()  # what a test without containers left to its worker

    def make(runtime: list[str] | None = None) -> Box:
        made.append(Box(tmp_path, runtime or bundles.words(), busybox))
        return made[-1]

    yield make
    root = tmp_path / "root"
    complaints = []
    names = os.listdir(root) if root.exists() else []
    for name in names:
        made[0].call("kill", "--all", name, "KILL")
    # the first process of a PID namespace ends once all others were reaped, and those that lost their parents are ours to reap;
    # what was killed, by a test too, may take its time to end
    bundles.eventually(lambda: not bundles.reap())
    for name in names:
        done = made[0].call("delete", "--force", name)
        complaints += [done.err] if done.status else []
    running = bundles.reap()
    bundles.kill_all(running)
    left = [str(path) for path in root.iterdir()] if root.exists() else []
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
    for mount in set(bundles.CGROUPS["mounts"].values()):
        left += [f"{mount}/{box.id}" for box in made if os.path.exists(f"{mount}/{box.id}")]
    assert not (left or running or complaints), (left, running, complaints)


@pytest.fixture
def box(boxes: Callable[..., Box]) -> Box:
    """A container to be."""
    return boxes()


@pytest.fixture(params=["rundlet"] if LAB else ["rundlet", "crun"])
def either(request: pytest.FixtureRequest, boxes: Callable[..., Box]) -> Box:
    """A container to be, of this runtime and of the peer that its behaviour is held against."""
    if request.param == "crun":
        if not bundles.crun():
            pytest.skip("no crun here")
        return boxes(bundles.crun())
    return boxes()
