"""Inside the lab: tries what cases.py lists and writes one line of JSON each, of what was seen and without judgement.

    python3 -m tests.lab.guest WORDS…      the words that run rundlet
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rundlet import host
from tests.lab import moved
from tests.lab.cases import (
    ATTACHED,
    DEEDS,
    EVERYTHING,
    GUARDED,
    HOMES,
    MUTE,
    OFF,
    REAL,
    REMOVABLE,
    TABLE,
    TRAPS,
    Attempt,
    Own,
    of_case,
    own,
)
from tests.lab.task import Library, become, oracle
from tests.rulebook import BOX_POLICY, NAMESPACE

AREA = Path("/run/lab")
ROOTFS = AREA / "rootfs"
BUSYBOX = str(ROOTFS / "bin/busybox")
PATIENCE = 60  # seconds for a container to say something, or to end
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
]
# The shell is the process itself: it reads its own label.
PROBE = r"""
{ read -r label </proc/self/attr/apparmor/current; } 2>/dev/null; echo "label $label"
while read -r key value; do [ "$key" = NoNewPrivs: ] && echo "nnp $value"; done </proc/self/status
for file in public runtime-secret container-secret; do { read -r text </$file; } 2>/dev/null && echo "reads $file"; done
sleep 1000 </dev/null >/dev/null 2>&1 & kill -TERM $! 2>/dev/null && echo "signals itself"
echo ready
read -r end
exit 7
"""


def process(attempt: Attempt) -> dict[str, Any]:
    """The process object of the configuration."""
    found: dict[str, Any] = {
        "user": {"uid": 0, "gid": 0}, "args": ["sh", "-c", PROBE], "env": ["PATH=/bin", "HOME=/"], "cwd": "/",
        "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}, "noNewPrivileges": attempt.nnp,
    }
    if attempt.profile is not None:
        found["apparmorProfile"] = attempt.profile
    return found


def config(attempt: Attempt) -> dict[str, Any]:
    """A small container: what AppArmor does not see need not be there."""
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in ("mount", "ipc", "uts", *(() if attempt.shares else ("pid",)))]}
    if attempt.user:
        linux["namespaces"].append({"type": "user"})
        linux |= {f"{kind}Mappings": [{"containerID": 0, "hostID": 100000, "size": 65536}] for kind in ("uid", "gid")}
    return {
        "ociVersion": "1.2.0", "process": process(attempt), "root": {"path": str(ROOTFS)}, "linux": linux,
        "mounts": MOUNTS,
    }


class Lab:
    """The machine, its policy loaded, and the command."""

    def __init__(self, words: list[str]) -> None:
        self.words = [*words, "--root", str(AREA / "state")]
        self.ids = {home.name: f"home{n}" for n, home in enumerate(HOMES)}
        self.count = 0
        self.held: list[subprocess.Popen[bytes]] = []

    def furnish(self) -> None:
        """Makes the root filesystem of all containers."""
        for name in ("bin", "dev", "proc"):
            (ROOTFS / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "", BUSYBOX)
        for name in ("sh", "sleep", "cat"):
            (ROOTFS / "bin" / name).symlink_to("busybox")
        for name in ("public", "runtime-secret", "container-secret"):
            (ROOTFS / name).write_text("text\n")
        (AREA / "no").write_text("no\n")

    def attempt(self, attempt: Attempt) -> dict[str, Any]:
        """Tries; what was seen."""
        if not attempt.sysctl:
            return self._attempt(attempt)
        switch = Path("/proc/sys", attempt.sysctl)
        if not switch.exists():
            return {"lacking": attempt.sysctl}
        switch.write_text("1\n")
        try:
            return self._attempt(attempt)
        finally:
            switch.write_text("0\n")

    def _attempt(self, attempt: Attempt) -> dict[str, Any]:
        self.count += 1
        name = self.ids.get(attempt.name, f"c{self.count}") if attempt.verb == "stay" else f"c{self.count}"
        bundle = AREA / "bundles" / name
        bundle.mkdir(parents=True)
        into = self.ids[attempt.into]
        words = {
            "run": ["run", "--pid-file", f"{bundle}/pid", "--bundle", str(bundle), name],
            "stay": ["run", "--detach", "--pid-file", f"{bundle}/pid", "--bundle", str(bundle), name],
            "create": ["create", "--pid-file", f"{bundle}/pid", "--bundle", str(bundle), name],
            "exec": ["exec", "--pid-file", f"{bundle}/pid", "--process", f"{bundle}/process.json", into],
            "exec as it is": ["exec", "--pid-file", f"{bundle}/pid", into, "sh", "-c", PROBE],
        }[attempt.verb]
        (bundle / "config.json").write_text(json.dumps(config(attempt)))
        (bundle / "process.json").write_text(json.dumps(process(attempt)))
        with open(bundle / "err", "wb") as errors:
            child = subprocess.Popen(
                [*self.words, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                preexec_fn=become(attempt.own),
            )
            found = self._watch(attempt, child, bundle, name)
        found["err"] = (bundle / "err").read_text()
        return found

    def _watch(self, attempt: Attempt, child: "subprocess.Popen[bytes]", bundle: Path, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        assert child.stdin and child.stdout
        if attempt.verb in ("create", "stay"):
            found["status"] = child.wait()
        if attempt.verb == "create" and not found["status"]:
            if attempt.removed:
                load(REMOVABLE, "-R")
            with open(bundle / "err", "ab") as errors:
                start = subprocess.run(
                    [*self.words, "start", name], stderr=errors,
                    preexec_fn=become(attempt.own),
                )
            found["status"], found["at"] = start.returncode, "start"
            if attempt.removed:
                load(REMOVABLE)
        said = listen(child.stdout.fileno())
        found["said"] = said
        if said[-1:] == ["ready"]:
            pid = (bundle / "pid").read_text()
            for file in ("attr/apparmor/current", "attr/current"):
                found[file] = label_at(Path("/proc", pid, file))
        if attempt.verb == "stay":
            self.held.append(child)  # its stdin stays open, and so it stays
            return found
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        status = child.wait()
        found.setdefault("status", status)
        found["runs on"] = self._runs(bundle)
        found["left"] = (AREA / "state" / name).exists()
        return found

    def deed(self, words: list[str]) -> dict[str, Any]:
        """What a runtime that may not signal its container can do to one; whether that runs on, and whether its folder is left."""
        name = f"deed{len(self.held)}"
        found = self._attempt(Attempt(name, "stay", MUTE, "shut"))
        assert found["said"][-1:] == ["ready"], found
        container, bundle = f"c{self.count}", AREA / "bundles" / f"c{self.count}"
        done = self.call([word.format(id=container) for word in words], MUTE)
        done["runs on"] = self._runs(bundle, 2 if done["status"] else PATIENCE)
        done["left"] = (AREA / "state" / container).exists()
        self.call(["delete", "--force", container], Own())
        return done

    def call(self, words: list[str], own: Own) -> dict[str, Any]:
        """One command of the runtime; how it ended, and what it said."""
        done = subprocess.run([*self.words, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, preexec_fn=become(own))
        return {"status": done.returncode, "err": done.stderr}

    def program(self, own: Own) -> dict[str, Any]:
        """A program of Python that uses the library; what it saw."""
        bundle = AREA / "bundles/program"
        bundle.mkdir(parents=True)
        asked = config(Attempt("program", "run", own, "sealed", True))
        asked["process"]["args"] = ["sleep", "1000"]
        (bundle / "config.json").write_text(json.dumps(asked))
        words = [sys.executable, "-B", "-m", "tests.lab.program", str(bundle), str(AREA / "program")]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, preexec_fn=become(own))
        return {"status": done.returncode, "err": done.stderr, "saw": json.loads(done.stdout or "null")}

    def _runs(self, bundle: Path, patience: float = PATIENCE) -> bool:
        """Whether a process that was told to us runs on; one that was killed may take its time to end."""
        end = time.monotonic() + patience
        try:
            pid = (bundle / "pid").read_text()
            while time.monotonic() < end:
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                    return False
                time.sleep(0.1)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True


class Tell:
    """Says what was found, a line of JSON for each, and how long that took."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, name: str, found: Mapping[str, Any], **more: Any) -> None:
        now = time.monotonic()
        print(json.dumps({"name": name, "seconds": round(now - self.began, 2), **found, **more}), flush=True)
        self.began = now


def until(true: Callable[[], object]) -> bool:
    """Whether something comes to be."""
    end = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def label_at(path: Path) -> str | None:
    """What an attribute file says; None where there is none, or no module that it belongs to."""
    try:
        return path.read_text().rstrip("\n")
    except OSError:
        return None


def load(policy: str, *options: str) -> None:
    """apparmor_parser(8): loads, or with -R removes."""
    subprocess.run(["apparmor_parser", *(options if "-R" in options else ["-r", *options])], input=policy, text=True, check=True)


def listen(fd: int) -> list[str]:
    """The lines that a process says up to "ready", or up to its end; "silence" stands for the rest when it says nothing more."""
    text = b""
    while not text.endswith(b"ready\n"):
        if not select.select([fd], [], [], PATIENCE)[0]:
            return [*text.decode().splitlines(), "silence"]
        piece = os.read(fd, 4096)
        if not piece:
            break
        text += piece
    return text.decode().splitlines()


def main(words: list[str]) -> None:
    """Everything, in the order of the lists."""
    tell = Tell()
    lab, library = Lab(words), Library()
    lab.furnish()
    on = Path("/sys/module/apparmor/parameters/enabled").read_text() == "Y\n"
    tell("machine", {"kernel": os.uname().release, "on": on, "enabled": library.enabled(), "facts": host.facts("web")["apparmor"]})
    if not on:
        for attempt in [HOMES[0], *OFF]:
            tell(attempt.name, lab.attempt(attempt))
        return
    load(EVERYTHING)
    (Path("/sys/kernel/security/apparmor/policy/namespaces") / NAMESPACE).mkdir()
    load(BOX_POLICY, "-n", NAMESPACE)
    tell("policy", {"profiles": Path("/sys/kernel/security/apparmor/profiles").read_text().splitlines()})
    for case in REAL:
        tell(f"{case.row} {case.name}: oracle", oracle(library, own(case), case.profile, case.config, BUSYBOX))
    for attempt in [*HOMES, *(of_case(case, verb) for case, verb in TABLE), *TRAPS]:
        tell(attempt.name, lab.attempt(attempt))
    load(moved.POLICY)
    for moving in moved.MOVING:
        tell(f"moved: {moving.name}", moved.look(moving, BUSYBOX, load))
    for name, words in DEEDS.items():
        tell(f"deed: {name}", lab.deed(words))
    tell("in a program", lab.program(GUARDED))
    tell("not attached", lab.attempt(Attempt("not attached", "run", ATTACHED)))


if __name__ == "__main__":
    main(sys.argv[1:])
