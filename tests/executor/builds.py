"""Builds the executor as the wheel does, and its hosted variants; says which tools are there. The flags stand in executor/compile.py."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src/rundlet/executor/executor.c"
HARNESS = Path(__file__).parent / "harness.c"


@dataclass(frozen=True)
class Target:
    """A machine the executor is built for: its compiler, what runs its programs here, its column in kernel.CALLS."""

    name: str
    compiler: str
    runner: str
    machine: int

    def missing(self) -> str:
        """The first tool that is not there, or nothing."""
        for tool in (self.compiler, self.runner):
            if tool and not shutil.which(tool):
                return f"no {tool} here"
        return ""


HERE = os.uname().machine
TARGETS = [
    Target("x86_64", "cc", "", 0) if HERE == "x86_64" else Target("x86_64", "x86_64-linux-gnu-gcc", "qemu-x86_64-static", 0),
    Target("aarch64", "cc", "", 1) if HERE == "aarch64" else Target("aarch64", "aarch64-linux-gnu-gcc", "qemu-aarch64-static", 1),
]
NATIVE = next(target for target in TARGETS if target.name == HERE)


def build(target: Target, output: Path, options: str = "") -> Path:
    """Compiles the executor as the wheel has it."""
    compiler = os.environ.get("CC", "cc") if target is NATIVE else target.compiler
    env = os.environ | {"CC": f"{compiler} {options}".strip()}
    subprocess.run([sys.executable, "-B", SOURCE.with_name("compile.py"), output], check=True, env=env)
    return output


@cache
def sanitizing() -> tuple[str, ...]:
    """The compilers that can build a program with both sanitizers, found by building one."""
    probe = "int main(void){return 0;}"
    return tuple(name for name in ("gcc", "clang") if shutil.which(name) and _compiles(name, "-fsanitize=address,undefined", probe))


@cache
def fuzzing() -> bool:
    """Whether clang and libFuzzer are there."""
    probe = "#include <stddef.h>\n#include <stdint.h>\nint LLVMFuzzerTestOneInput(const uint8_t *b, size_t n){return b && n > 1 ? 0 : 0;}"
    return bool(shutil.which("clang")) and _compiles("clang", "-fsanitize=fuzzer,address,undefined", probe)


def _compiles(compiler: str, options: str, source: str) -> bool:
    done = subprocess.run([compiler, options, "-x", "c", "-", "-o", "/dev/null"], input=source, text=True, capture_output=True, check=False)
    return done.returncode == 0


def hosted(compiler: str, output: Path, source: Path = SOURCE, fuzzer: bool = False) -> Path:
    """Compiles the harness around `source`: for a file of inputs, or with libFuzzer."""
    words: list[str | Path] = [
        compiler, "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-fno-sanitize-recover=all",
        *(["-fsanitize=fuzzer,address,undefined"] if fuzzer else ["-fsanitize=address,undefined", "-DBATCH"]),
        f'-DEXECUTOR="{source}"', HARNESS, "-o", output,
    ]
    subprocess.run(words, check=True)
    return output
