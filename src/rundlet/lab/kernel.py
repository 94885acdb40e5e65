"""Kernels ready to boot: Debian's, fetched and unpacked once, or one that the user names."""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rundlet.errors import Refused
from rundlet.lab import unpack
from rundlet.lab.cache import DRAFT, drop_drafts, locked, under_construction
from rundlet.lab.fetch import SUITES, Apt
from rundlet.lab.needs import program
from rundlet.lab.progress import Progress, wait_for

# Drivers for hardware that the guest has not: two thirds of a kernel package.
UNUSED = (
    *("sound", "drivers/gpu", "drivers/media", "drivers/infiniband/hw", "drivers/staging", "drivers/scsi", "drivers/usb", "drivers/iio"),
    *("drivers/hwmon", "drivers/input", "drivers/ata", "drivers/mtd", "drivers/mmc", "drivers/nvme", "drivers/net/wireless"),
    *("drivers/net/ethernet", "drivers/isdn", "drivers/platform"),
)


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot: its `uname -r`, the ELF image, and its /lib/modules/RELEASE if it has one."""

    release: str
    vmlinux: Path
    modules: Path | None


def _kept(folder: Path) -> Kernel:
    """The kernel that the cache keeps in `folder`, which is named by its release."""
    return Kernel(folder.name, folder / "vmlinux", folder / "lib" / "modules" / folder.name)


def of_suite(suite: str, cache: Path, progress: Progress) -> Kernel:
    """The kernel of `suite`, one of SUITES, fetched and unpacked below `cache` on first use. Raises Refused when that fails."""
    if suite not in SUITES:
        raise Refused(f"the lab knows no suite {suite!r}", f"use one of {', '.join(SUITES)}")
    link = cache / "suites" / suite
    if not is_whole(link):
        with locked(cache / "lock", lambda: progress.say(f"waiting for another lab, which prepares {cache}")):
            if not is_whole(link):  # another lab may just have made it
                _prepare(suite, cache, link, progress)
    return _kept(link.resolve(strict=True))


def is_whole(link: Path) -> bool:
    """Whether a kernel is kept there, less no more of its modules than is left out now."""
    try:
        return (link / "vmlinux").exists() and (link / "without").read_text().split() == [*UNUSED]
    except FileNotFoundError:
        return False


def _prepare(suite: str, cache: Path, link: Path, progress: Progress) -> None:
    """Fetch and unpack the kernel of `suite` and point `link` at it."""
    dpkg = program("dpkg")
    kernels = _made(cache / "kernels")
    drop_drafts(kernels)
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=kernels) as name:
        draft = Path(name)
        package = Apt(_made(cache / f"apt-{suite}"), SUITES[suite], progress).fetch(draft)
        progress.say(f"unpacking {package.name}")
        with open(draft / "log", "wb") as log:
            if wait_for([dpkg, "-x", str(package), "tree"], draft, log):
                raise Refused(f"dpkg cannot unpack {package.name}: {(draft / 'log').read_text(errors='replace').strip()}")
        images = list((draft / "tree" / "boot").glob("vmlinuz-*"))
        if len(images) != 1:
            raise Refused(f"{package.name} has no boot/vmlinuz-RELEASE")
        release = images[0].name.removeprefix("vmlinuz-")
        with under_construction(kernels / release) as kernel:
            progress.say(f"unpacking the kernel {release}")
            unpack.store(images[0], kernel / "vmlinux")
            _take_modules(draft / "tree", kernel, release)
    link.parent.mkdir(exist_ok=True)
    fresh = link.with_name(f".{suite}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("..", "kernels", release))
    fresh.rename(link)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _take_modules(tree: Path, kernel: Path, release: str) -> None:
    """Move the modules worth keeping from the unpacked package `tree` to `kernel` and index them for modprobe."""
    found = next((tree / top / "modules" / release for top in ("lib", "usr/lib") if (tree / top / "modules" / release).is_dir()), None)
    if found is None:
        raise Refused(f"the package of the kernel {release} has no modules in it")
    for part in UNUSED:
        shutil.rmtree(found / "kernel" / part, ignore_errors=True)
    (kernel / "lib" / "modules").mkdir(parents=True)
    found.rename(kernel / "lib" / "modules" / release)
    depmod = [shutil.which("depmod") or "", "-b", str(kernel), release]
    if not depmod[0]:
        depmod = [program("busybox"), *("depmod", "-b", str(kernel), release)]
    with open(kernel / "log", "wb") as log:
        if wait_for(depmod, kernel, log):
            raise Refused(f"depmod fails for the kernel {release}: {(kernel / 'log').read_text(errors='replace').strip()}")
    (kernel / "log").unlink()
    (kernel / "without").write_text("".join(f"{part}\n" for part in UNUSED))


def of_file(name: str, cache: Path, progress: Progress) -> Kernel:
    """The user's own kernel in the file `name`: an ELF vmlinux, or a bzImage, whose payload the cache keeps.

    Its modules are looked for beside it, as in an unpacked package, and at /lib/modules; without any, all is taken to be built in.
    Raises Refused for a file that is no kernel or cannot be read.
    """
    path = Path(name).absolute()
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise Refused(f"cannot read {path}: {(failure.strerror or '').lower()}", "give --kernel a vmlinux or bzImage") from None
    release = unpack.release(content, str(path))
    image = path
    if content[:4] != unpack.ELF:
        image = cache / "kernels" / f"image-{hashlib.blake2b(content, digest_size=16).hexdigest()}" / "vmlinux"
        if not image.exists():
            progress.say(f"unpacking the kernel {release}")
            with locked(cache / "lock"):
                if not image.exists():
                    with under_construction(image.parent) as draft:
                        (draft / "vmlinux").write_bytes(unpack.vmlinux(content, str(path)))
    trees = [base / "lib" / "modules" / release for base in (path.parent, path.parent.parent)]
    trees.append(Path("/lib/modules", release))
    return Kernel(release, image, next((tree for tree in trees if tree.is_dir()), None))
