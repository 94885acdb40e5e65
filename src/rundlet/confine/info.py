"""rundlet info: what this runtime can do on this machine, in a page for people; `features` and `host` have the whole of it as JSON."""

import os
import sys
from textwrap import fill
from typing import Any

from rundlet import OCI_VERSION, __version__, host
from rundlet.life.features import features
from rundlet.options import Options

INDENT = 20


def main(options: Options) -> int:
    """The verb."""
    sys.stdout.write(text(host.facts(), features()))
    return 0


def text(facts: Any, able: Any) -> str:
    """The page, of the facts and the features document."""
    linux = able["linux"]
    cgroup, apparmor = facts["cgroup"], facts["apparmor"]
    controllers = {*cgroup["mounts"], *cgroup.get("controllers", ())} - {"unified", "systemd"}
    rows = {
        "version": __version__,
        "specification": f"{able['ociVersionMin']} to {OCI_VERSION}",
        "kernel": facts["kernel"],
        "architecture": facts["arch"],
        "operating system": _system(),
        "processors": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 20} MiB",
        "cgroups": cgroup["layout"],
        "controllers": ", ".join(sorted(controllers)) or "none",
        "namespaces": ", ".join(linux["namespaces"]),
        "seccomp": _yes(linux["seccomp"]),
        "AppArmor": apparmor["state"],
        "SELinux": "unknown" if facts["lsm"] is None else "on" if "selinux" in facts["lsm"] else "absent",
        "capabilities": ", ".join(name.removeprefix("CAP_").lower() for name in linux["capabilities"]),
    }
    indent = " " * INDENT
    return "".join(fill(f"{name:{INDENT}}{value}", 100, subsequent_indent=indent) + "\n" for name, value in rows.items())


def _yes(block: Any) -> str:
    return "yes" if block["enabled"] else "no"


def _system() -> str:
    """The name that os-release(5) gives."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            named = dict(line.rstrip("\n").partition("=")[::2] for line in file)
    except OSError:
        return "unknown"
    return named.get("PRETTY_NAME", named.get("NAME", "unknown")).strip("\"'")
