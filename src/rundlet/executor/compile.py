"""Compiles the one C file. The only place that knows the compiler and its flags: the wheel build and the tests use it; not installed.

    python src/rundlet/executor/compile.py OUTPUT

$CC may name any C compiler with its options, a cross compiler too (CC=aarch64-linux-gnu-gcc, CC="clang --target=aarch64-linux-gnu").
"""

import os
import shlex
import subprocess
import sys

# No libc and no start files: what is written is what runs. Code is not padded to pages of its own, which keeps a file at a few KB.
FLAGS = (
    "-std=gnu11 -Os -Wall -Wextra -Werror -static -nostdlib -ffreestanding -fno-stack-protector -fno-pie -fno-builtin "
    "-fno-asynchronous-unwind-tables -fomit-frame-pointer -ffunction-sections "
    "-Wl,--gc-sections,--build-id=none,-z,noexecstack,-z,norelro,-z,noseparate-code -s"
)
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "executor.c")
ARCHITECTURES = ("x86_64", "aarch64")


def compiler() -> list[str]:
    """The words that call the C compiler."""
    return shlex.split(os.environ.get("CC") or "cc")


def architecture() -> str:
    """What the compiler compiles for: x86_64 or aarch64. Raises SystemExit for another, or where there is no compiler."""
    try:
        machine = subprocess.run([*compiler(), "-dumpmachine"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as failure:
        raise SystemExit(f"a C compiler is needed to build rundlet (set CC, or install gcc): {failure}") from failure
    name = machine.partition("-")[0].replace("amd64", "x86_64").replace("arm64", "aarch64")
    if name not in ARCHITECTURES:
        raise SystemExit(f"rundlet is for {' and '.join(ARCHITECTURES)}; {shlex.join(compiler())} compiles for {machine}")
    return name


def build(output: str) -> None:
    """Compile executor.c to a static program, mode 755. Raises SystemExit; the compiler has then said why."""
    os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
    temporary = f"{output}.{os.getpid()}"
    done = subprocess.run([*compiler(), *shlex.split(FLAGS), SOURCE, "-o", temporary], check=False)
    if done.returncode != 0:
        raise SystemExit(f"cannot compile {SOURCE}")
    os.chmod(temporary, 0o755)
    os.replace(temporary, output)


if __name__ == "__main__":
    build(*sys.argv[1:])
