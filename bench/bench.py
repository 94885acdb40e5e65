"""What a container costs: `run` of /bin/true under rundlet, crun and runc, the same bundle, run by run in turn.

    make bench                      or: bench/bench.py [--rounds N] [--config FILE] [--runtime NAME=PATH ...]

CPU is user and system time of the whole process tree (this program adopts orphans); wall is until the last of it has ended. Shown
are the mean of the best quarter, which says what the program costs on a quiet machine, and the median, which says what it cost here.
As root; in a mount namespace of its own, in which a hybrid machine's /sys/fs/cgroup/unified is unmounted: crun refuses to run otherwise.
What the runtimes know of their containers lies on a tmpfs, as in /run, where engines have it.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(sys.prefix) / "bin/rundlet"
CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH, PR_SET_CHILD_SUBREAPER = 0x20000, 0x4000, 1 << 18, 2, 36
HYBRID = "/sys/fs/cgroup/unified"
WARM_UP = 3  # rounds that are not counted

Sample = tuple[float, float]  # CPU and wall, in milliseconds


def config() -> dict[str, object]:
    """What `crun spec` writes, in essence: six namespaces, the usual mounts, masked paths, three capabilities, no_new_privs."""
    capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
    plain = ["nosuid", "noexec", "nodev"]

    def mount(destination: str, kind: str, *options: str) -> dict[str, object]:
        return {"destination": destination, "type": kind, "source": kind, "options": list(options)}

    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            mount("/proc", "proc"),
            mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            mount("/dev/shm", "tmpfs", *plain, "mode=1777", "size=65536k"),
            mount("/dev/mqueue", "mqueue", *plain),
            mount("/sys", "sysfs", *plain, "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def bundle(folder: Path, own_config: str | None) -> Path:
    """A root of one static program, and the configuration."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise SystemExit("bench: there is no busybox; install busybox-static")
    for name in ("bin", "proc", "dev", "sys"):
        (folder / "rootfs" / name).mkdir(parents=True)
    shutil.copy(busybox, folder / "rootfs/bin/true")
    text = Path(own_config).read_text() if own_config else json.dumps(config())
    (folder / "config.json").write_text(text)
    return folder


LIBC = ctypes.CDLL(None, use_errno=True)


def must(result: int, what: str) -> None:
    if result != 0:
        raise SystemExit(f"bench: {what}: {os.strerror(ctypes.get_errno())}")


def own_mounts() -> None:
    """Enter a mount namespace in which no cgroup2 hangs below cgroup v1, and adopt what the runtimes leave behind."""
    must(LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "cannot become a subreaper")
    must(LIBC.unshare(CLONE_NEWNS), "cannot make a mount namespace")
    must(LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "cannot make mounts private")
    if os.path.ismount(HYBRID):
        must(LIBC.umount2(HYBRID.encode(), MNT_DETACH), f"cannot unmount {HYBRID}")


@contextmanager
def state() -> Iterator[str]:
    """A folder on a tmpfs for what the runtimes write down of their containers."""
    with tempfile.TemporaryDirectory(prefix="rundlet-bench-run-") as folder:
        must(LIBC.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, None), "cannot mount a tmpfs")
        try:
            yield folder
        finally:
            LIBC.umount2(folder.encode(), MNT_DETACH)


def sample(command: list[str]) -> Sample:
    """Run once. Raises CalledProcessError."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    null = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=null)
    _, status = os.waitpid(pid, 0)
    try:
        while True:  # orphans
            os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3, wall * 1e3


def best_quarter(values: list[float]) -> float:
    return statistics.mean(sorted(values)[: max(1, len(values) // 4)])


def table(samples: dict[str, list[Sample]]) -> Table:
    shown = Table(title=f"run of /bin/true, {platform.machine()}, Linux {platform.release()}, milliseconds")
    shown.add_column("runtime")
    for heading in ("CPU, best quarter", "CPU, median", "wall, best quarter", "wall, median", *(f"CPU / {name}'s" for name in PEERS)):
        shown.add_column(heading, justify="right")
    cost = {name: best_quarter([cpu for cpu, _ in pairs]) for name, pairs in samples.items()}
    for name, pairs in samples.items():
        columns = [list(column) for column in zip(*pairs, strict=True)]
        numbers = [f"{measure(column):.2f}" for column in columns for measure in (best_quarter, statistics.median)]
        shown.add_row(name, *numbers, *(f"{cost[name] / cost[peer]:.2f}" if peer in cost else "–" for peer in PEERS))
    return shown


PEERS = ("crun", "runc")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare what a container costs.")
    parser.add_argument("--rounds", type=int, default=60, help="runs of each (default: 60)")
    parser.add_argument("--config", metavar="FILE", help="another config.json; its root is `rootfs`, which holds /bin/true")
    parser.add_argument("--runtime", action="append", default=[], metavar="NAME=PATH", help="a further runtime, or another path for one")
    given = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench: run as root")
    runtimes = {"rundlet": str(HERE)} | {name: path for name in PEERS if (path := shutil.which(name))}
    runtimes |= dict(one.split("=", 1) for one in given.runtime)
    missing = [name for name in PEERS if name not in runtimes]
    if missing:
        raise SystemExit(f"bench: install {' and '.join(missing)} to compare with")
    own_mounts()
    samples: dict[str, list[Sample]] = {name: [] for name in runtimes}
    with state() as roots, tempfile.TemporaryDirectory(prefix="rundlet-bench-") as folder:
        place = bundle(Path(folder) / "bundle", given.config)
        for number in range(-WARM_UP, given.rounds):
            for name, path in runtimes.items():
                taken = sample([path, "--root", f"{roots}/{name}", "run", "--bundle", str(place), f"bench-{os.getpid()}-{name}"])
                if number >= 0:
                    samples[name].append(taken)
    Console(width=None if sys.stdout.isatty() else 140).print(table(samples))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failure:
        sys.exit(f"bench: {failure}")
