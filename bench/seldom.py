"""Which functions no plain start calls: `python -m rundlet.install` leaves them out of the pieces that a start reads.

    bench/seldom.py          as root; prints what belongs into src/rundlet/seldom.txt. PROFILE=… asks for that AppArmor profile

Hosts differ, with cgroup v1 or v2, with AppArmor or without: only what all of them print belongs there. Nothing depends on the file but
time: a name that is missing costs each start some microseconds, one too many a tenth of a millisecond.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import bundle, config  # type: ignore[attr-defined]  # bench.py in this folder

SOURCES = Path(__file__).parents[1] / "src"
TRACED = """
import io, sys
sys.meta_path[0].identity = b"seldom"  # as if it came from a bundle: what was decided is kept
_, sources, result, *words = sys.argv
called = set()
def note(frame, event, arg):
    if event == "call":
        called.add(f"{frame.f_globals['__name__']}:{frame.f_code.co_name}")
sys.path.append(sources)
sys.setprofile(note)
from rundlet.cli import main
status = main(words)
sys.setprofile(None)
with io.open(result, "a") as file:
    file.write("\\n".join([*called, *(name for name in sys.modules if name.startswith("rundlet"))]) + "\\n")
sys.exit(status)
"""


def functions(module: str) -> list[str]:
    """The functions at the top of a module."""
    file = SOURCES / (module.replace(".", "/") + ".py")
    file = file if file.exists() else file.with_suffix("") / "__init__.py"
    return [f"{module}:{node.name}" for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]


def seen(folder: Path) -> set[str]:
    """The modules and functions that the commands of a container's plain way use, once one of the same kind has been there."""
    place, result = bundle(folder / "bundle", None), folder / "seen"
    for _ in range(2):
        result.unlink(missing_ok=True)
        way(folder, place, result)
    return set(result.read_text().split())


def way(folder: Path, place: Path, result: Path) -> None:
    """Sends containers along it."""
    (place / "config.json").write_text(json.dumps(config()))

    def command(*words: str) -> None:
        argv = [sys.executable, "-ISB", "-c", TRACED, str(SOURCES), str(result), "--root", str(folder / "root"), *words]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    command("run", "--bundle", str(place), "seldom-run")
    sleeping: dict[str, Any] = config()
    sleeping["process"] |= {"args": ["/bin/sleep", "1000"], "apparmorProfile": os.environ.get("PROFILE", "")}
    (place / "config.json").write_text(json.dumps(sleeping))
    shutil.copy(place / "rootfs/bin/true", place / "rootfs/bin/sleep")
    command("create", "--bundle", str(place), "--pid-file", str(folder / "pid"), "seldom")
    command("start", "seldom")
    command("state", "seldom")
    command("exec", "seldom", "/bin/true")
    command("kill", "seldom", "KILL")
    command("delete", "--force", "seldom")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="rundlet-seldom-") as own:
        known = seen(Path(own)) | {"rundlet.cli:run"}
    print("\n".join(name for module in sorted(known) if ":" not in module for name in functions(module) if name not in known))
