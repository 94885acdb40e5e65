"""AppArmor 4's parser, on a machine whose own is older: Debian 13's with the libraries that it needs, beside these and not installed."""

import subprocess
from pathlib import Path

from rundlet.lab import cache
from rundlet.lab.fetch import Apt
from rundlet.lab.progress import Progress

SUITE = "trixie"
PACKAGES = ("apparmor", "libc6", "libstdc++6", "libgcc-s1")
LIBRARIES = "usr/lib/x86_64-linux-gnu"
SCRIPT = """#!/bin/sh
exec {at}/{libraries}/ld-linux-x86-64.so.2 --library-path {at}/{libraries} {at}/usr/sbin/apparmor_parser --base {at}/etc/apparmor.d "$@"
"""


def parser() -> Path:
    """A program that is apparmor_parser(8) of AppArmor 4; fetched once, and kept where the lab keeps its kernels."""
    kept = cache.folder()
    at = kept / "apparmor-4"
    with cache.locked(kept / "apparmor-4.lock"):
        if not at.exists():
            with cache.under_construction(at) as draft:
                state = kept / f"apt-{SUITE}"
                state.mkdir(exist_ok=True)
                apt = Apt(state, SUITE, Progress())
                apt.update(draft)
                apt.download(PACKAGES, draft)
                for package in draft.glob("*.deb"):
                    subprocess.run(["dpkg", "-x", package, draft], check=True)
                    package.unlink()
                (draft / "parser").write_text(SCRIPT.format(at=at, libraries=LIBRARIES))
                (draft / "parser").chmod(0o755)
    return at / "parser"
