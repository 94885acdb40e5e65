"""Inside the lab: rundlet as an installed command under each profile that comes with it, through a container's whole way."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.profiles import Tried

COMMAND = Path("/run/lab/bin/rundlet")
POLICY = Path("/run/lab/policy")
USER = 1000
# As a hook it runs under the runtime's label: what it may do there, one line each. What is asked for is never done.
PROBE = """#!/usr/bin/python3 -ISB
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
victim = int(open("/run/lab/victim").read())
def call(name, *words):
    if getattr(libc, name)(*words) < 0:
        raise OSError(ctypes.get_errno(), name)
def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    if text: os.write(fd, text)
acts = {
    "signal the host": lambda: os.kill(victim, 0),
    "trace the host": lambda: call("ptrace", 0x4206, victim, 0, 0),
    "read the host's memory": lambda: os.open("/dev/mem", os.O_RDONLY),
    "reset the host": lambda: write("/proc/sysrq-trigger", b""),
    "write policy": lambda: write("/sys/kernel/security/apparmor/.remove", b""),
    "load a module": lambda: call("syscall", 313, -1, b"", 0),
    "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "a helper for crashes": lambda: write("/proc/sys/kernel/core_pattern", b""),
    "a socket": lambda: socket.socket(socket.AF_INET),
    "a file": lambda: open("/etc/passwd").read(),
    "become unconfined": lambda: write("/proc/thread-self/attr/apparmor/current", b"changeprofile unconfined"),
}
with open(sys.argv[1], "w") as out:
    out.write("label " + open("/proc/thread-self/attr/apparmor/current").read())
    for name, act in acts.items():
        try:
            act()
            said = "ok"
        except OSError as failure:
            said = "ok" if failure.errno in (9, 22) else os.strerror(failure.errno)  # EBADF, EINVAL: it was let as far as that
        out.write(f"{name}: {said}\\n")
"""
SECCOMP = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}
TRIES = (
    "cat /proc/self/attr/apparmor/current; cat /public; cat /container-secret; "
    "(: >/proc/sysrq-trigger) 2>/dev/null && echo sysrq; "
    "while read -r key value; do [ $key = Seccomp: ] && echo seccomp $value; done </proc/self/status; "
    "sleep 9 & kill $! && echo signals; echo done"
)


def cycles(lab: "Tried", words: list[str]) -> None:
    """Under each profile in turn."""
    from tests.lab.profiles import ALL, policy

    COMMAND.parent.mkdir()
    POLICY.mkdir()
    # as `python -m rundlet.install` writes it: the words without the interpreter and its options are the code
    COMMAND.write_text("#!/usr/bin/python3 -ISB\n" + words[-1].replace("; ", "\n") + "\n")
    COMMAND.chmod(0o755)
    Path("/run/lab/probe").write_text(PROBE)
    Path("/run/lab/probe").chmod(0o755)
    victim = subprocess.Popen(["sleep", "100000"])
    Path("/run/lab/victim").write_text(str(victim.pid))
    flags = "flags=(attach_disconnected,mediate_deleted)"
    policy(f"""profile box {flags} {{ {ALL} mount, signal (receive), signal (send) peer=box, deny /container-secret r, }}
profile mates {flags} {{ {ALL} mount, signal (receive), signal (send) peer={{box,mates,mates//&rundlet}}, deny /container-secret r, }}
""")
    cycle(lab, "bare")
    for name, more in (("free", []), ("enforcing", ["--enforce"])):
        wrote = subprocess.run(
            [sys.executable, "-m", "rundlet.install", "--apparmor", str(POLICY), *more, str(COMMAND)], capture_output=True, text=True
        )
        done = subprocess.run(["apparmor_parser", "-r", str(POLICY / "rundlet")], capture_output=True, text=True)
        lab.tell(f"{name}: install", status=wrote.returncode, said=wrote.stdout + wrote.stderr, loading=done.returncode, complaints=done.stderr)
        if more and os.environ.get("PARSER"):  # which is not where the profile has it: what containers bring along is for the machine's own
            subprocess.run(["umount", shutil.which("apparmor_parser") or ""], check=True)
        cycle(lab, name)
    victim.kill()


def cycle(lab: "Tried", name: str) -> None:
    """A container's way, with what there is of confinement, and as a user."""
    lab.words = [str(COMMAND), *lab.words[lab.words.index("--root") :]]
    hook = {"path": "/run/lab/probe", "args": ["probe", f"/run/lab/{name}.hook"]}

    def bundle(which: str, profile: str | None, script: str, **more: Any) -> Path:
        folder = lab.bundle(f"{name}-{which}", profile, more.pop("files", {}), args=["sh", "-c", script], **more.pop("annotations", {}))
        config = json.loads((folder / "config.json").read_text())
        config["process"]["noNewPrivileges"] = more.get("nnp", False)
        config["linux"]["seccomp"] = SECCOMP
        config["hooks"] = {"createRuntime": [hook], "poststop": [{"path": "/bin/true"}]} if more.get("hook") else {}
        if more.get("user"):
            config["linux"]["namespaces"].append({"type": "user"})
            config["linux"] |= {f"{kind}Mappings": [{"containerID": 0, "hostID": 100000, "size": 65536}] for kind in ("uid", "gid")}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def run(which: str, profile: str | None, **more: Any) -> dict[str, Any]:
        return lab.call("run", "--bundle", str(bundle(which, profile, TRIES, **more)), f"{name}-{which}")

    lab.tell(f"{name}: run", **run("run", "box", hook=True), hook=Path(f"/run/lab/{name}.hook").read_text())
    lab.tell(f"{name}: no_new_privs", **run("nnp", "box", nnp=True))
    lab.tell(f"{name}: no_new_privs, profile that knows the stack", **run("mates", "mates", nnp=True))
    lab.tell(f"{name}: user namespace", **run("user", "box", nnp=True, user=True))
    lab.tell(f"{name}: no profile", **run("plain", None, nnp=True))
    lab.tell(f"{name}: unconfined", **run("unconfined", "unconfined"))
    brought = {"files": {"p": "profile brought flags=(attach_disconnected) { file, signal, }\n"}}
    lab.tell(f"{name}: a profile brought along", **run("file", "brought", annotations={"profile_file": "p", "on_delete": "remove"}, **brought))
    way, it = {}, f"{name}-way"
    folder = bundle("way", "mates", "sleep 100000", nnp=True, hook=True)
    for step, words in {
        "create": ["create", "--bundle", str(folder), it], "state": ["state", it], "start": ["start", it],
        "exec": ["exec", it, "sh", "-c", "cat /proc/self/attr/apparmor/current"], "pause": ["pause", it], "resume": ["resume", it],
        "ps": ["ps", "--format", "json", it], "update": ["update", "--pids-limit", "20", it], "events": ["events", "--stats", it],
        "kill": ["kill", it, "KILL"], "delete": ["delete", "--force", it],
    }.items():
        way[step] = lab.call(*words)
    lab.tell(f"{name}: the way", steps=way, left=Path("/run/lab/state", it).exists())
    lab.tell(f"{name}: rootless", **rootless(lab, name))


def rootless(lab: "Tried", name: str) -> dict[str, Any]:
    """A user's container, in a state folder of the user's."""
    home = Path(f"/run/lab/{name}-home")
    home.mkdir()
    folder = lab.bundle(f"{name}-rootless", None, {}, args=["sh", "-c", "cat /proc/self/attr/apparmor/current; echo done"])
    config = json.loads((folder / "config.json").read_text())
    config["linux"]["namespaces"].append({"type": "user"})
    config["linux"] |= {f"{kind}Mappings": [{"containerID": 0, "hostID": USER, "size": 1}] for kind in ("uid", "gid")}
    (folder / "config.json").write_text(json.dumps(config))
    os.chown(home, USER, USER)
    done = subprocess.run(
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", str(COMMAND), "--root", f"{home}/root", "run", "--bundle", str(folder), "u"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home)}, cwd="/",
    )
    return {"status": done.returncode, "out": done.stdout, "err": done.stderr}
