"""Inside the lab: containers as they were asked for, and made wrong on purpose, and what verify says of each. One line of JSON each.

    python3 -m tests.lab.verify_guest WORDS…      the words that run rundlet
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.lab.guest import AREA, MOUNTS, ROOTFS, Tell, load, until

KINDS = ("pid", "mount", "ipc", "uts", "network", "cgroup")
FILTER = "BgAAAAAA/38="  # one instruction, which allows everything: BPF_RET | BPF_K, SECCOMP_RET_ALLOW
ALL = "file, capability, network, signal, ptrace, unix, mount, remount, umount, pivot_root,"
KILL, SYS_ADMIN = 5, 21
INNER = "file, capability, network, signal, ptrace, unix,"


def policy(more: str = "", flags: str = "") -> str:
    """The profile of the containers, with a hat and a child."""
    return (
        f"profile site flags=(attach_disconnected{flags}) {{ {INNER} change_profile -> site//^hat, /bin/inner/sleep cx -> child, {more}\n"
        f"  ^hat {{ {INNER} }}\n  profile child {{ {INNER} }}\n}}\n"
    )


OTHERS = f"""
profile outer flags=(attach_disconnected) {{ {ALL} change_profile -> &site, change_profile -> site, }}
profile elsewhere flags=(attach_disconnected) {{ {INNER} }}
"""


def config(**process: Any) -> dict[str, Any]:
    """A container under the profile, with a filter."""
    caps = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["sleep", "1000"], "env": ["PATH=/bin"], "cwd": "/", "capabilities": caps, "noNewPrivileges": True,
            "apparmorProfile": "site", "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}], **process,
        },
        "root": {"path": str(ROOTFS)},
        "annotations": {"run.oci.seccomp_bpf_data": FILTER},
        "linux": {
            "namespaces": [{"type": kind} for kind in KINDS],
            "maskedPaths": ["/proc/kcore", "/proc/keys"], "readonlyPaths": ["/proc/sys"],
            "resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 32}, "devices": [{"allow": False, "access": "rwm"}]},
        },
        "mounts": MOUNTS,
    }


class Lab:
    """The machine, and the command."""

    def __init__(self, words: list[str]) -> None:
        self.words = [*words, "--root", str(AREA / "state")]

    def furnish(self) -> None:
        """The root filesystem of all containers, and the policy."""
        for name in ("bin/inner", "dev", "proc", "sys"):
            (ROOTFS / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", ROOTFS / "bin/busybox")
        shutil.copy(ROOTFS / "bin/busybox", ROOTFS / "bin/inner/sleep")
        for name in ("sh", "sleep", "cat"):
            (ROOTFS / "bin" / name).symlink_to("busybox")
        load(policy() + OTHERS)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """A command of ours, which must succeed."""
        return subprocess.run([*self.words, *words], check=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def says(self, *words: str) -> dict[str, Any]:
        """What a command of ours prints as JSON, with its status."""
        done = subprocess.run([*self.words, *words], text=True, capture_output=True)
        return {"status": done.returncode, "err": done.stderr, "said": json.loads(done.stdout) if done.stdout else None}

    def verify(self, *words: str) -> dict[str, Any]:
        """verify --json."""
        return self.says("verify", "--json", *words)

    @contextlib.contextmanager
    def container(self, name: str, asked: dict[str, Any], *runtime: str, start: bool = True) -> Iterator[tuple[Path, int]]:
        """One that runs, of ours or of another runtime; its bundle and first process."""
        bundle = AREA / "bundles" / name
        bundle.mkdir(parents=True)
        if runtime and Path(runtime[-1]).name in ("crun", "runc"):
            asked = {**asked, "annotations": {}}
            asked["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]}
            words = [*runtime, "--root", str(AREA / Path(runtime[-1]).name)]
        else:
            words = [*runtime, *self.words]
        (bundle / "config.json").write_text(json.dumps(asked))
        with open(bundle / "said", "wb") as said:
            subprocess.run([*words, "create", "--pid-file", f"{bundle}/pid", "--bundle", str(bundle), name], check=True, stdin=subprocess.DEVNULL, stdout=said)
        if start:
            subprocess.run([*words, "start", name], check=True)
        pid = int((bundle / "pid").read_text())
        try:
            if start:
                assert until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("busybox"))
            yield bundle, pid
        finally:
            subprocess.run([*words, "delete", "--force", name], check=True)


def label(pid: int) -> str:
    """Of a process."""
    return Path(f"/proc/{pid}/attr/apparmor/current").read_text().rstrip("\n")


@contextlib.contextmanager
def intruder(pid: int, name: str, *before: str) -> Iterator[int]:
    """A process that nsenter(1) puts into the container's namespaces and cgroup, under `before` (aa-exec)."""
    words = [*before, "nsenter", "--target", str(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "/bin/sleep", "1000"]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        assert until(lambda: bool(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text()))
        entered = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text())
        assert until(lambda: b"sleep" in Path(f"/proc/{entered}/cmdline").read_bytes()[:12])
        for at in Path("/sys/fs/cgroup").rglob(f"{name}/cgroup.procs"):
            at.write_text(str(entered))
        yield entered
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(entered, 9)
        child.wait()


# a process that is all that the container's own one is, joined to it by hand, with these capabilities
TWIN = """
import ctypes, os, resource, sys
pid, group, capabilities = sys.argv[1], sys.argv[2], [int(word) for word in sys.argv[3:]]
libc = ctypes.CDLL(None, use_errno=True)

def sure(answer, what):
    if answer:
        raise OSError(ctypes.get_errno(), what)

procs = os.open(group + "/cgroup.procs", os.O_WRONLY)
for fd in [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("cgroup", "uts", "ipc", "net", "pid", "mnt")]:
    sure(libc.setns(fd, 0), "setns")
if child := os.fork():
    print(child, flush=True)
    os.waitpid(child, 0)
    sys.exit()
os.write(procs, b"0")  # the writer
os.chdir("/")
os.setgroups([])
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 24, 38, 22
for number in range(41):
    if number not in capabilities:
        sure(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "drop")
with open("/proc/self/attr/apparmor/exec", "w") as attribute:
    attribute.write("exec site")
sure(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
allow = (ctypes.c_uint64 * 1)(0x7FFF000000000006)

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

sure(libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(Program(1, ctypes.addressof(allow))), 0, 0), "seccomp")
os.execv("/bin/sleep", ["sleep", "1000"])
"""


@contextlib.contextmanager
def twin(pid: int, name: str, *capabilities: int) -> Iterator[None]:
    """One more process of the container, by hand."""
    words = [sys.executable, "-ISc", TWIN, str(pid), f"/sys/fs/cgroup/{name}", *map(str, capabilities)]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        entered = int(child.stdout.readline())
        try:  # its number in the container's namespace: that of the host is the only child's
            entered = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text())
            until(lambda: b"sleep" in Path(f"/proc/{entered}/cmdline").read_bytes()[:12])
            yield
        finally:
            os.kill(entered, 9)


def ours(lab: Lab, tell: Callable[..., None]) -> None:
    """Containers of rundlet."""
    with lab.container("right", config()) as (_, pid):
        tell("right", lab.verify("right"), label=label(pid), record=lab.says("record", "--json", "right")["said"])
        with intruder(pid, "right") as entered:
            tell("intruder", lab.verify("right"), label=label(entered))
        with intruder(pid, "right", "aa-exec", "-p", "elsewhere", "--") as entered:
            tell("intruder under another profile", lab.verify("right"), label=label(entered))
        with twin(pid, "right", KILL):
            tell("a twin", lab.verify("right"))
        with twin(pid, "right", KILL, SYS_ADMIN):
            tell("a twin with a capability more", lab.verify("right"))
        subprocess.run(["nsenter", "--target", str(pid), "--mount", "/bin/busybox", "umount", "/proc/keys"], check=True)
        tell("mask unmounted", lab.verify("right"))
        subprocess.run(["nsenter", "--target", str(pid), "--mount", "/bin/busybox", "mount", "-o", "bind", "/dev/null", "/proc/keys"], check=True)
        lab.run("exec", "--apparmor", "elsewhere", "--cap", "CAP_CHOWN", "--detach", "right", "sleep", "1000")
        tell("an exec under another profile", lab.verify("right"))
        subprocess.run(["prlimit", "--pid", str(pid), "--nofile=100:200"], check=True)
        (Path("/sys/fs/cgroup/right") / "memory.max").write_text("max")
        tell("limits raised by hand", lab.verify("right"))
    with lab.container("changed", config()) as (_, pid):
        load(policy("deny /secret r,"))
        tell("profile replaced", lab.verify("changed"), label=label(pid))
        load(policy())
        tell("profile as it was", lab.verify("changed"), label=label(pid))
        load(policy(flags=",complain"))
        tell("profile complains", lab.verify("changed"), label=label(pid))
        load(policy(), "-R")
        tell("profile unloaded", lab.verify("changed"), label=label(pid))
        load(policy())
        tell("profile loaded anew", lab.verify("changed"), label=label(pid))
    hat = 'echo "changehat 0000000000000001^hat" >/proc/self/attr/apparmor/current; read -r end </fifo'
    os.mkfifo(ROOTFS / "fifo")
    with lab.container("hat", config(args=["sh", "-c", hat], noNewPrivileges=False)) as (_, pid):
        assert until(lambda: "//hat" in label(pid))
        tell("hat", lab.verify("hat"), label=label(pid))
    with lab.container("child", config(args=["sh", "-c", "/bin/inner/sleep 1000; :"], noNewPrivileges=False)) as (_, pid):
        children = Path(f"/proc/{pid}/task/{pid}/children")
        assert until(lambda: bool(children.read_text()) and "//child" in label(int(children.read_text())))
        tell("child", lab.verify("child"), label=label(int(children.read_text())))
    with lab.container("stacked", config(), "aa-exec", "-p", "outer", "--") as (_, pid):
        tell("stacked", lab.verify("stacked"), label=label(pid))
        lab.run("exec", "--detach", "stacked", "sleep", "1000")
        tell("exec by another runtime label", lab.verify("stacked"))
    with lab.container("early", config(), start=False):
        tell("created", lab.verify("early"), record=lab.says("record", "--json", "early")["said"])
    load(policy(), "--namespace", "vault")
    with lab.container("apart", config(apparmorProfile=":vault:site")) as (_, pid):
        tell("in a policy namespace", lab.verify("apart"), label=label(pid), record=lab.says("record", "--json", "apart")["said"])
        with intruder(pid, "apart", "aa-exec", "-p", "site", "--") as entered:
            tell("the profile of that name outside of it", lab.verify("apart"), label=label(entered))
    with lab.container("free", config(apparmorProfile=None)) as (_, pid):
        tell("no profile asked", lab.verify("free"), label=label(pid))


def peers(lab: Lab, tell: Callable[..., None]) -> None:
    """Containers of crun and runc."""
    for name in ("crun", "runc"):
        found = shutil.which(name)
        assert found
        with lab.container(f"by-{name}", config(), found) as (bundle, pid):
            asked = ("--pid", str(pid), "--config", str(bundle))
            tell(f"{name}: right", lab.verify(*asked), label=label(pid))
            with intruder(pid, f"by-{name}"):
                tell(f"{name}: intruder", lab.verify(*asked))
            more = [found, "--root", str(AREA / name), "exec", "--detach", "--cap", "CAP_SYS_ADMIN", f"by-{name}", "sleep", "1000"]
            subprocess.run(more, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            until(lambda: len(Path(f"/sys/fs/cgroup/by-{name}/cgroup.procs").read_text().split()) == 2)
            tell(f"{name}: an exec with a capability more", lab.verify(*asked))
            for one in Path(f"/sys/fs/cgroup/by-{name}/cgroup.procs").read_text().split():
                if int(one) != pid:
                    os.kill(int(one), 9)
            subprocess.run(["nsenter", "--target", str(pid), "--mount", "/bin/busybox", "umount", "/proc/keys"], check=True)
            (Path(f"/sys/fs/cgroup/by-{name}") / "pids.max").write_text("max")
            tell(f"{name}: mask unmounted and limit raised", lab.verify(*asked))
            (Path(f"/sys/fs/cgroup/by-{name}") / "pids.max").write_text("32")
            subprocess.run(["nsenter", "--target", str(pid), "--mount", "/bin/busybox", "mount", "-o", "bind", "/dev/null", "/proc/keys"], check=True)
            load(policy(flags=",complain"))
            tell(f"{name}: profile complains", lab.verify(*asked), label=label(pid))
            load(policy(), "-R")
            tell(f"{name}: profile unloaded", lab.verify(*asked), label=label(pid))
            load(policy())
        wide = config()
        wide["linux"]["resources"]["devices"].append({"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"})
        with lab.container(f"wide-{name}", wide, found) as (bundle, pid):
            asked = ("--pid", str(pid), "--config", str(bundle))
            tell(f"{name}: a device is allowed", lab.verify(*asked))
            (bundle / "narrow.json").write_text(json.dumps({**json.loads((bundle / "config.json").read_text()), "linux": {
                **json.loads((bundle / "config.json").read_text())["linux"], "resources": config()["linux"]["resources"],
            }}))
            tell(f"{name}: a device beyond", lab.verify("--pid", str(pid), "--config", str(bundle / "narrow.json")))


def main(words: list[str]) -> None:
    """Everything."""
    tell = Tell()

    lab = Lab(words)
    lab.furnish()
    tell("machine", {"kernel": os.uname().release})
    ours(lab, tell)
    peers(lab, tell)


if __name__ == "__main__":
    main(sys.argv[1:])
