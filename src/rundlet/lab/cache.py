"""What the lab keeps on disk: a folder that several labs may use at once.

kernels/RELEASE/      vmlinux, lib/modules/RELEASE, and without, which names what of them was left out; complete as soon as it has its name
suites/SUITE          link to the kernel of a Debian suite
runs/XXXX/            one for each running lab, locked by it; left-overs of killed labs go with the next start
apt-SUITE/            package lists
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFT = ".new-"


def folder() -> Path:
    """The cache's folder, made if need be: $XDG_CACHE_HOME/rundlet, else /var/cache/rundlet for root and ~/.cache/rundlet for others.

    The XDG base directory specification has relative values ignored. Raises OSError.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        base = "/var/cache" if os.geteuid() == 0 else os.path.expanduser("~/.cache")
    path = Path(base, "rundlet")
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    return path


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive flock on the file `path`, which stays behind (removing a lock file races); `waiting` is called if it is taken."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def drop_drafts(kernels: Path) -> None:
    """Remove what killed labs left half made in the folder `kernels`; for the holder of the cache's lock."""
    for draft in kernels.glob(f"{DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def under_construction(target: Path) -> Iterator[Path]:
    """A new folder beside `target` that is renamed to it at the end, or removed when the body raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=target.parent))
    try:
        yield draft
        draft.chmod(0o755)
        if target.exists():  # an incomplete or outdated one
            shutil.rmtree(target)
        draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _sweep(runs: Path) -> None:
    """Remove the folders of labs that were killed: theirs are the ones without a lock."""
    for run in runs.iterdir():
        try:
            fd = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its lab has just ended
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(run, ignore_errors=True)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(fd)


@contextmanager
def run_folder(cache: Path) -> Iterator[Path]:
    """A folder for one run, mode 0700, removed at the end."""
    runs = cache / "runs"
    runs.mkdir(exist_ok=True)
    with locked(cache / "runs.lock"):
        _sweep(runs)
        path = Path(tempfile.mkdtemp(dir=runs))
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)
