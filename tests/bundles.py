"""Bundles with a userland of busybox, the commands run on them, and the facts about this host that tests depend on."""

import copy
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from rundlet import host
from rundlet.cgroup import layout

ROOT = Path(__file__).parent.parent
APPLETS = (
    "sh awk cat chmod chroot chown cut date dd df echo env expr false find grep head hostname id ionice kill ln ls mkdir mkfifo mknod mount mv nice nproc od ps "
    "pwd readlink realpath rm sed seq setsid sleep sort stat stty sync tail taskset tee test timeout touch tr true tty ulimit umount uname unshare "
    "wc xargs zcat"
).split()
NAMESPACES = ("pid", "network", "ipc", "uts", "mount", "cgroup")
NUMBERS = count()
RUN = f"rundlet-test-{os.urandom(3).hex()}"  # no other run's names, whatever one that was killed has left behind
PATIENCE = 120  # seconds for what takes milliseconds on an idle machine: only what never comes is waited for as long
QUIET = ["nosuid", "noexec", "nodev"]


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

CGROUPS = layout.read()
FACTS = host.facts()
CAPABLE = set(FACTS["caps"]["bounding"])


@cache
def crun() -> list[str]:
    """The words that run crun; none where it is not installed. It refuses a hybrid of cgroup v1 and v2, so there the latter is hidden."""
    found = shutil.which("crun")
    if not found:
        return []
    if CGROUPS["layout"] != "hybrid":
        return [found]
    hide = f'umount {CGROUPS["mounts"]["unified"]} && exec {found} "$@"'
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", hide, "crun"]


def stale(built: Path) -> bool:
    """Whether something of the sources is younger than what was built of them."""
    made = built.stat().st_mtime
    return any(path.stat().st_mtime > made for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix in (".py", ".c"))


@cache
def words() -> list[str]:
    """The words that run rundlet: $RUNDLET, the built command where it is current, else the sources by this very interpreter."""
    if given := os.environ.get("RUNDLET"):
        return [given]
    command, built = ROOT / ".venv/bin/rundlet", ROOT / ".venv/built"
    if command.exists() and built.exists() and not stale(built):
        return [str(command)]
    libraries = next((path for path in sys.path if path.endswith("site-packages")), "")
    bootstrap = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}]; sys.path.append({libraries!r}); from rundlet.cli import run; run()"
    return [os.path.realpath(sys.executable), "-ISB", "-c", bootstrap]


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


def adopt_orphans() -> None:
    """What loses its parent becomes ours, as it becomes an engine's: prctl(2), PR_SET_CHILD_SUBREAPER."""
    if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def children(pid: int = 0) -> list[int]:
    """The children of a process, of this one by default; zombies too."""
    found: list[int] = []
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def eventually(true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether something comes to be; how long that takes is nobody's business."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def status_of(pid: int) -> int:
    """Waits for a child to end; its exit status, or 128 + the signal that ended it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def proc_status(pid: int | str) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def is_busybox(pid: int) -> bool:
    """Whether a process runs a program of userland(), or ran one and has ended."""
    try:
        return os.readlink(f"/proc/{pid}/exe").endswith("/busybox")
    except FileNotFoundError:
        return True


@dataclass
class Box:
    """One container to be: its bundle, its id, and the commands on it."""

    folder: Path
    runtime: list[str]
    busybox: Path
    id: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id = self.id or f"{RUN}-{next(NUMBERS)}"
        self.root = self.folder / "root"
        self.bundle = self.folder / self.id
        self.rootfs = self.bundle / "rootfs"
        self.output = self.folder / f"{self.id}.out"
        userland(self.rootfs, self.busybox)
        self.config = plain(f"/{self.id}")

    @property
    def process(self) -> dict[str, Any]:
        """Of the configuration."""
        return self.config["process"]  # type: ignore[no-any-return]

    @property
    def linux(self) -> dict[str, Any]:
        """Of the configuration."""
        return self.config["linux"]  # type: ignore[no-any-return]

    def another(self, **more: Any) -> "Box":
        """One more container, in the same root of containers."""
        return Box(self.folder, self.runtime, self.busybox, **more)

    def sh(self, script: str) -> "Box":
        """Makes the process a shell with this script."""
        self.process["args"] = ["sh", "-c", script]
        return self

    def namespaces(self, *kinds: str, **paths: str) -> None:
        """Asks for new namespaces of these kinds, and to join those by path."""
        self.linux["namespaces"] = [{"type": kind} for kind in kinds] + [{"type": kind, "path": path} for kind, path in paths.items()]

    def without(self, *kinds: str) -> None:
        """Takes namespaces off the list."""
        self.linux["namespaces"] = [space for space in self.linux["namespaces"] if space["type"] not in kinds]

    def mount(self, destination: str, source: str, *options: str, kind: str = "") -> None:
        """Adds a mount; a bind where no type is given."""
        self.config["mounts"].append({"destination": destination, "type": kind or "bind", "source": source, "options": list(options)})

    def save(self) -> None:
        """Writes config.json."""
        (self.bundle / "config.json").write_text(json.dumps(self.config, indent=1))

    def words(self, *args: str) -> list[str]:
        """The command line of a command, on this box's root of containers."""
        return [*self.runtime, "--root", str(self.root), *args]

    def call(self, *args: str, input: str | None = None, stdin: int | None = None, **how: Any) -> Done:
        """Runs a command. Its output goes through files, so that a container it leaves behind keeps nobody waiting."""
        with tempfile.TemporaryFile("w+") as fed, open(self.output, "w+") as out, tempfile.TemporaryFile("w+") as err:
            if input is not None:
                fed.write(input)
                fed.seek(0)
            how.setdefault("stdout", out)
            how.setdefault("stderr", err)
            child = subprocess.Popen(self.words(*args), stdin=fed if stdin is None else stdin, **how)
            try:
                child.wait()
            except BaseException:  # conftest.too_long
                child.kill()
                child.wait()
                raise
            out.seek(0)
            err.seek(0)
            status = child.returncode if child.returncode >= 0 else 128 - child.returncode
            return Done(status, out.read(), err.read())

    def ok(self, *args: str, **how: Any) -> Done:
        """Runs a command that has to succeed, and to be silent on stderr."""
        done = self.call(*args, **how)
        assert (done.status, done.err) == (0, ""), (args, done)
        return done

    def run(self, *options: str, **how: Any) -> Done:
        """Runs the container in the foreground."""
        self.save()
        return self.call("run", *options, "--bundle", str(self.bundle), self.id, **how)

    def says(self, script: str, **how: Any) -> str:
        """What a shell script in the container prints; the container must succeed."""
        done = self.sh(script).run(**how)
        assert (done.status, done.err) == (0, ""), done
        return done.out

    def create(self, *options: str, **how: Any) -> Done:
        """Creates the container; what its process will print is in `output`."""
        self.save()
        return self.call("create", *options, "--bundle", str(self.bundle), self.id, **how)

    def created(self, *options: str) -> int:
        """Creates the container; the pid of its first process, which is our child."""
        done = self.create(*options)
        assert (done.status, done.err) == (0, ""), done
        return self.pid

    def started(self, *options: str) -> int:
        """Creates and starts the container; the pid of its first process."""
        pid = self.created(*options)
        said = self.output.read_text()
        done = self.call_apart("start", self.id)
        assert (done.status, done.err, said) == (0, "", ""), done
        self.executed(pid)
        return pid

    def executed(self, pid: int) -> None:
        """After a start: ours returns when the process has become the program, a peer's perhaps before, and has to be waited for."""
        assert self.runtime == words() or eventually(lambda: is_busybox(pid)), pid

    def call_apart(self, *args: str, **how: Any) -> Done:
        """As call, while the container's own output goes on into `output`."""
        mine, self.output = self.output, self.folder / f"{self.id}.call"
        try:
            return self.call(*args, **how)
        finally:
            self.output = mine

    def exec(self, *args: str, **how: Any) -> Done:
        """exec with these options and words behind the id; options come before "--"."""
        at = args.index("--") if "--" in args else 0
        rest = args[at + 1 :] if "--" in args else args
        return self.call_apart("exec", *args[:at], self.id, *rest, **how)

    @property
    def state(self) -> dict[str, Any]:
        """What the command `state` prints."""
        return json.loads(self.call_apart("state", self.id).out)  # type: ignore[no-any-return]

    @property
    def status(self) -> str:
        """The status, from the command `state`."""
        return str(self.state["status"])

    @property
    def pid(self) -> int:
        """The first process, from the command `state`."""
        return int(self.state["pid"])

    def ended(self) -> int:
        """Kills the container's first process, our child, and reaps it."""
        pid = self.pid
        self.call_apart("kill", self.id, "KILL")
        return status_of(pid)

    def cgroups(self) -> list[Path]:
        """The container's cgroups that are there."""
        path = str(self.linux.get("cgroupsPath") or self.id).strip("/")
        return [at for at in (Path(mount, path) for mount in dict.fromkeys(CGROUPS["mounts"].values())) if at.exists()]

    def limit(self, v1: str, v2: str) -> Path:
        """The file of a limit in the container's cgroup, by its name on cgroup v1 and on v2."""
        wanted = v2 if CGROUPS["layout"] == "v2" else v1
        found = [cgroup / wanted for cgroup in self.cgroups() if (cgroup / wanted).exists()]
        assert len(found) == 1, (self.cgroups(), wanted)
        return found[0]

    def held(self, v1: str, v2: str) -> str:
        """What that file says."""
        return self.limit(v1, v2).read_text().strip()

    def left(self) -> list[str]:
        """What is there of the container anywhere; nothing is as it should be."""
        found = [str(path) for path in self.cgroups()]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.folder) in line]
        if (self.root / self.id).exists():
            found.append(str(self.root / self.id))
        return found


def userland(rootfs: Path, busybox: Path) -> None:
    """A root filesystem: busybox under many names, the directories that images have, and a passwd file."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
        (rootfs / name).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    os.link(busybox, rootfs / "bin/busybox")
    for applet in APPLETS:
        os.symlink("busybox", rootfs / "bin" / applet)
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n")


PLAIN: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["sleep", "1000"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {kind: ["CAP_KILL", "CAP_NET_BIND_SERVICE"] for kind in ("bounding", "effective", "permitted")},
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": QUIET},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*QUIET, "ro"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in NAMESPACES],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "readonlyPaths": ["/proc/sys", "/proc/bus"],
    },
}


def plain(cgroup: str) -> dict[str, Any]:
    """A configuration such as engines write, for the cgroup given."""
    config = copy.deepcopy(PLAIN)
    config["linux"]["cgroupsPath"] = cgroup
    return config


def user_namespace(config: dict[str, Any], base: int = 100000) -> None:
    """Adds a user namespace to a configuration: the ids from 0 on are those from `base` on outside."""
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": base, "size": 65536}]


def runtime_that_keeps() -> list[str]:
    """The command line of a runtime that keeps plans, takes nothing from others, and says what it does: as if it were started from a bundle
    of its own."""
    libraries = next((path for path in sys.path if path.endswith("site-packages")), "")
    code = f"import sys; sys.meta_path[0].identity = {os.urandom(16)!r}; sys.path[:0] = [{str(ROOT / 'src')!r}]; sys.path.append({libraries!r})"
    return [os.path.realpath(sys.executable), "-ISB", "-c", f"{code}; from rundlet.cli import run; run()", "--debug"]


def kept(done: Done) -> bool:
    """Whether a container was started by a plan that was kept."""
    return "level=debug the plan of such a container is kept as " in done.err


def reap() -> list[int]:
    """Reaps every child that has ended; those that have not."""
    while True:
        try:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                return children()
        except ChildProcessError:
            return []


def kill_all(pids: Sequence[int]) -> None:
    """Ends processes that a failed test left behind."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
