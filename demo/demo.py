"""make demo: the main job from end to end. One bundle is run on this machine, then on a kernel with AppArmor under a confined runtime."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bundle

HERE = Path(__file__).resolve().parent
RUNDLET = HERE.parent / ".venv/bin/rundlet"


def main() -> int:
    """Runs the demo; 0 when everything was as it should be."""
    with tempfile.TemporaryDirectory(prefix="rundlet-demo-") as folder:
        return first(Path(folder)) or second(Path(folder))


def say(text: str) -> None:
    """A paragraph of the demo's own, apart from what commands print."""
    print("\n" + text.strip() + "\n", flush=True)


def first(folder: Path) -> int:
    """Here: the bundle runs; there may be no AppArmor."""
    say("1. A container, here\n   A userland of busybox, in six new namespaces, with one capability, run with `rundlet run`:")
    script = "echo \"   I am process $$ of $(hostname), with $(grep CapEff /proc/self/status | tr '\\t' ' ')\""
    here = bundle.make(folder / "here", ["sh", "-c", script], None)
    name = f"demo-{folder.name[-6:]}"
    return subprocess.run([RUNDLET, "run", "--bundle", here, name], check=False).returncode


def second(folder: Path) -> int:
    """There: a kernel with AppArmor, the runtime itself confined, no_new_privs set."""
    say(
        "2. The same under AppArmor\n"
        "   This boots a Debian kernel with AppArmor in an emulator over this machine's root (nothing it writes survives)."
    )
    there = bundle.make(folder / "there", ["sleep", "1000"], "demo-container")
    command: list[str | Path] = [RUNDLET, "lab", "--timeout", "300", "--", sys.executable, HERE / "inside.py", there]
    if not (shutil.which("crun") or shutil.which("runc")):
        say("   (Neither crun nor runc is installed: the comparison with them is left out. apt-get install crun runc)")
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
