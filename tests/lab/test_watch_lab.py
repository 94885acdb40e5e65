"""watch where AppArmor is and where systemd is: tests/lab/watch.py on both kernels, each booted once."""

import pytest

from tests.lab.boot import KERNELS
from tests.lab.test_systemd_lab import lacking, patience, run

__all__ = ["patience"]  # the lab has a limit of its own
pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.mark.parametrize("suite", KERNELS)
def test_with_apparmor_and_as_a_service(suite: str) -> None:
    run("tests/lab/watch.py", "--suite", suite)
