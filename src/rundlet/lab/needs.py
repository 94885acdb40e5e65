"""What the lab needs of this machine, and how to get it."""

import os
import shutil

from rundlet.errors import Refused

TO_BOOT = ("qemu-system-x86_64", "busybox")
TO_FETCH = ("apt-get", "apt-cache", "dpkg")
PACKAGES = {  # program → Debian package
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg": "dpkg",
    "zstd": "zstd",
    "lz4": "lz4",
    "dbus-daemon": "dbus",
}


def program(name: str) -> str:
    """The path of the program `name`. Raises Refused with the package to install."""
    found = shutil.which(name)
    if found is None:
        raise Refused(f"the lab needs the program {name}, which is not installed", f"apt-get install {PACKAGES[name]}")
    return found


def missing(names: tuple[str, ...]) -> list[str]:
    """One line for each of the programs `names` that this machine lacks, with the package to install."""
    lines = []
    for name in names:
        try:
            static_busybox() if name == "busybox" else program(name)
        except Refused as refused:
            lines.append(str(refused))
    return lines


def static_busybox() -> str:
    """The path of a statically linked busybox. Raises Refused with the package to install."""
    path = program("busybox")
    with open(path, "rb") as file:
        # A dynamic executable names its loader (PT_INTERP) within its first page.
        if b"/ld-" in file.read(4096):
            raise Refused(f"the lab needs a static busybox, and {path} is linked dynamically", "apt-get install busybox-static")
    return path


def systemd() -> str:
    """The path of systemd, which is in no PATH; there is a dbus-daemon too. Raises Refused with the package to install."""
    program("dbus-daemon")
    for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd"):
        if os.access(path, os.X_OK):
            return path
    raise Refused("the lab needs systemd, which is not installed (it need not run)", "apt-get install systemd")


def check(machine: str, uid: int) -> None:
    """Refuse what no package can cure: `machine` (of uname) other than x86_64, `uid` other than root's. Raises Refused."""
    if machine != "x86_64":
        raise Refused(
            f"the lab boots x86-64 guests over this machine's own root, and this machine is {machine}", "run it on an x86-64 machine"
        )
    if uid != 0:
        raise Refused("the lab needs root: its guest reads this machine's whole root file system as root does", "run it with sudo")


def working_directory() -> str:
    """The working directory, which the guest must have too. Raises Refused where the guest has file systems of its own."""
    path = os.getcwd()
    top = "/" + path.split("/")[1]
    if top in ("/proc", "/sys", "/dev", "/run"):
        raise Refused(f"the working directory {path} is not in the guest, which has a {top} of its own", "change to another directory")
    return path
