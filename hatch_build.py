"""The wheel's build: compiles the executor, and prints man page and completions from the table of options.

A wheel holds a program, yet no extension module: it fits every CPython from 3.11 on, on one architecture of Linux.
"""

import os
import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.dont_write_bytecode = True


def commit(root: str) -> str:
    """The commit that is built, "-dirty" behind it where the files differ from it; "" outside of a work tree of our own, or without git."""
    if not os.path.exists(os.path.join(root, ".git")):
        return ""
    words = ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class Hook(BuildHookInterface):  # type: ignore[type-arg]  # its parameter is hatchling's own
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is put together. `version` is "editable" for `pip install -e`."""
        sys.path.insert(0, os.path.join(self.root, "src"))
        from rundlet import cliref
        from rundlet.executor import compile as compiler

        out = os.path.join(self.directory, "native", compiler.architecture())
        executor = os.path.join(self.root, "src/rundlet/executor/executor")
        if version != "editable":
            executor = os.path.join(out, "executor")
            build_data["force_include"][executor] = "rundlet/executor/executor"
        compiler.build(executor)
        for name in ("rundlet", "rundlet-python"):
            build_data["shared_scripts"][os.path.join(self.root, "bin", name)] = name
        for place, text in cliref.files().items():
            path = os.path.join(out, place)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            build_data["shared_data"][path] = place
        if named := commit(self.root):
            path = os.path.join(out, "COMMIT")
            with open(path, "w", encoding="ascii") as file:
                file.write(named)
            build_data["force_include"][path] = "rundlet/COMMIT"
        build_data["tag"] = f"py3-none-linux_{compiler.architecture()}"
        build_data["pure_python"] = True  # site-packages, not the folder for extension modules
