"""The AppArmor profiles that come with rundlet, for the very command that is installed.

    python -m rundlet.install --apparmor DIR [--enforce] [COMMAND]

writes DIR/rundlet; DIR is /etc/apparmor.d as a rule. A profile is attached by the path of the file that is executed, links resolved: for
a script that is the script's own, not its interpreter's (docs/profiles.md has what was measured).
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from rundlet.plan.label import pattern

PACKAGE = Path(__file__).parent
TEXTS = (PACKAGE / "apparmor", PACKAGE.parents[1] / "packaging/apparmor")  # installed, and among the sources
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def version() -> int:
    """The major version of apparmor_parser(8); 0 where there is none."""
    parser = shutil.which("apparmor_parser", path=PATH)
    if not parser:
        return 0
    said = subprocess.run([parser, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version (\d+)", said)
    return int(found[1]) if found else 0


def text(command: Path, enforce: bool, parser: int) -> str:
    """The profile of a command for a parser of this version; without a parser, for the older one, which the newer takes as well."""
    name = "rundlet-enforce" if enforce else "rundlet-unconfined-mode" if parser >= 4 else "rundlet-unconfined-mode.3"
    found = next(folder / name for folder in TEXTS if (folder / name).exists())
    return found.read_text().replace("@RUNDLET@", pattern(os.path.realpath(command)))


def install(words: list[str]) -> None:
    """Writes the profile. Exits with a word where that cannot be done."""
    enforce = "--enforce" in words
    rest = [word for word in words if word not in ("--enforce", "--apparmor")]
    if not 1 <= len(rest) <= 2 or any(word.startswith("-") for word in rest):
        sys.exit("usage: python -m rundlet.install --apparmor DIR [--enforce] [COMMAND]")
    folder = Path(rest[0])
    command = Path(rest[1] if rest[1:] else sysconfig.get_path("scripts") + "/rundlet")
    if not command.exists():
        sys.exit(f"there is no command {command}: name the one that the profile is for")
    if not folder.is_dir():
        sys.exit(f"there is no folder {folder}")
    new = folder / f".rundlet.{os.getpid()}"  # a dot: what loads all profiles of a folder passes it over
    new.write_text(text(command, enforce, version()))
    new.chmod(0o644)
    new.replace(folder / "rundlet")
    sys.stdout.write(f"load it with: apparmor_parser -r {folder / 'rundlet'}\n")
