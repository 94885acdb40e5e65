"""Boots the lab over a snapshot of the sources, with the byte code that a start inside would have no time to make."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import rundlet
from rundlet.lab import needs

TESTS = Path(__file__).resolve().parents[1]
PACKAGE = Path(rundlet.__file__).resolve().parent
SLOT = [sys.executable, "-ISB", str(TESTS / "lab/slot.py")]  # the words before a command that boots a lab: two at a time
PYTHON = "/usr/bin/python3"  # Debian's, which python3-libapparmor is for
KERNELS = {"bookworm": "6.1.", "backports": "6.12."}  # Debian's suite, and what its kernel calls itself
Results = dict[str, dict[str, Any]]  # what a guest saw, by the attempt's name
TIME = 3000  # seconds; it takes four minutes on two slow cores


@cache
def lacking() -> str:
    """What this machine lacks for the lab and for what is done in it; "" where nothing is."""
    if os.geteuid():
        return "the lab needs root"
    missing = list(needs.missing(needs.TO_BOOT + needs.TO_FETCH))
    missing += [f"{name} is missing" for name in ("apparmor_parser", "busybox") if not shutil.which(name)]
    if subprocess.run([PYTHON, "-c", "import LibAppArmor"], capture_output=True).returncode:
        missing.append("python3-libapparmor is missing")
    return "; ".join(missing)


def snapshot(folder: Path) -> Path:
    """The package and these tests in `folder`, compiled: what changes meanwhile does not change a guest's files under it."""
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, folder / "rundlet", ignore=leave)
    shutil.copytree(TESTS / "lab", folder / "tests/lab", ignore=leave)
    shutil.copy(TESTS / "rulebook.py", folder / "tests")
    compiling = [PYTHON, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(folder)]
    subprocess.run(compiling, check=True, env={k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"})
    return folder


def rundlet_words(code: Path, libraries: str = "") -> list[str]:
    """The words that run the snapshot's rundlet, as the installed command would start; `libraries` is where those are that it needs."""
    path = f"sys.path.insert(0, {str(code)!r})" + (f"; sys.path.append({libraries!r})" if libraries else "")
    return [PYTHON, "-ISB", "-c", f"import sys; {path}; from rundlet.cli import run; run()"]


def besides(err: str) -> str:
    """What a command has said besides the lines, two at the most, about what the kernel denied meanwhile."""
    lines = err.splitlines(keepends=True)
    told = [line for line in lines if line.startswith("rundlet: apparmor: ")]
    assert len(told) <= 2, err
    return "".join(line for line in lines if line not in told)


class Guest:
    """A booting or running lab; its lines of JSON are read once it has ended."""

    def __init__(self, code: Path, output: Path, suite: str, *options: str, module: str = "guest", words: Sequence[str] = ()) -> None:
        """Boots `suite`, with further options of the lab, and runs a module of tests/lab on these words, else those of rundlet."""
        self.output = output
        lab = [sys.executable, "-m", "rundlet", "lab", "--suite", suite, "--timeout", str(TIME), *options, "--env", f"PYTHONPATH={code}"]
        command = [PYTHON, "-B", "-m", f"tests.lab.{module}", *(words or rundlet_words(code))]
        with open(output, "wb") as out, open(f"{output}.err", "wb") as err:
            self.process = subprocess.Popen(
                [*SLOT, *lab, "--", *command], stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd="/",
                env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
            )

    def results(self) -> Results:
        """What the guest said, by name; raises AssertionError when it failed."""
        status = self.process.wait()
        complaints = Path(f"{self.output}.err").read_text()
        assert status == 0, complaints
        lines = [json.loads(line) for line in self.output.read_text().splitlines()]
        return {line["name"]: line for line in lines}

    def end(self) -> None:
        """Ends a lab that nobody waits for any more."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
