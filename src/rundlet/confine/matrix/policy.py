"""AppArmor profiles for the matrix: one for containers, three that confine the runtime; loaded for as long as it takes.

That of containers is like the one that Docker generates (moby profiles/apparmor/template.go): it takes signals from itself, by its own
name, and from what is unconfined. Since runtimes are confined here, it lets two of their profiles in, as an administrator would who
confines one (setns(2) by a pidfd asks ptrace's readby). What it denies is audited, so that the kernel's log names it.
"""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from rundlet.errors import Refused
from rundlet.plan.label import pattern

CONTAINER = "rundlet-matrix-container"
PROFILES = Path("/sys/kernel/security/apparmor/profiles")
REMOVE = Path("/sys/kernel/security/apparmor/.remove")
FLAGS = "attach_disconnected,mediate_deleted"
RUNTIME = "file, capability, network, unix, signal, ptrace, mount, umount, remount, pivot_root, change_profile -> unconfined,"
CONTAINERS = f"""
profile {CONTAINER} flags=({FLAGS}) {{
  file, capability, network, unix, umount,
  signal (receive) peer={{unconfined,rundlet-matrix-enforce,rundlet-matrix-complain}},
  signal (send, receive) peer={CONTAINER},
  ptrace (trace, read, tracedby, readby) peer={CONTAINER},
  ptrace (readby, tracedby) peer={{rundlet-matrix-enforce,rundlet-matrix-complain}},
  audit deny /proc/sys/** w,
  audit deny /proc/sysrq-trigger rw,
  audit deny /proc/kcore rw,
}}
"""


def text(given: str) -> str:
    """The profiles, where containers are to run under the one that is `given`: a confined runtime may change to it, and stack it."""
    changes = " ".join(f"change_profile -> {pattern(name, before)}," for name in sorted({CONTAINER, given}) for before in ("", "&"))
    rules = f"{RUNTIME} {changes}"
    modes = (("enforce", "", rules), ("complain", ",complain", rules), ("unconfined-mode", ",unconfined", ""))
    return CONTAINERS + "".join(f"profile rundlet-matrix-{mode} flags=({FLAGS}{flag}) {{ {body} }}\n" for mode, flag, body in modes)


@contextlib.contextmanager
def loaded(files: Sequence[str], given: str) -> Iterator[None]:
    """Within the body the profiles of text() are loaded, and those in `files`; what was not loaded before is removed afterwards.

    Raises Refused when one cannot be loaded.
    """
    with _alone():
        before = names()
        try:
            _load(text(given), "the profiles of the matrix")
            for file in files:
                try:
                    _load(Path(file).read_text(), file)
                except OSError as failure:
                    raise Refused(f"cannot read {file}: {(failure.strerror or '').lower()}", "name another file in --config") from None
            yield
        finally:
            for name in sorted(names() - before):
                with contextlib.suppress(FileNotFoundError):  # a child profile goes with its parent
                    REMOVE.write_text(name)


def names() -> set[str]:
    """Of the profiles that are loaded."""
    return {line.rpartition(" (")[0] for line in PROFILES.read_text().splitlines()}


def _load(text: str, what: str) -> None:
    try:
        done = subprocess.run(["apparmor_parser", "--replace", "--skip-cache"], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Refused("apparmor_parser is missing", "apt-get install apparmor") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise Refused(f"apparmor_parser cannot load {what}: {said[-1]}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """The names are fixed, so one at a time: by a lock on the folder, which leaves no file behind."""
    try:
        fd = os.open(PROFILES.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as failure:
        raise Refused(f"cannot load profiles by {PROFILES.parent}: {(failure.strerror or '').lower()}", "mount securityfs") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
