"""Runs one Case under one runtime: the bundle is written, the container started, every probe tried, and nothing is left."""

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rundlet import kernel as k
from rundlet.confine.denials.source import AuditSystem
from rundlet.confine.matrix.probes import TARGET, Command, Probe
from rundlet.confine.matrix.record import Mark, Said, said
from rundlet.confine.matrix.settings import ROOTLESS, Case
from rundlet.confine.matrix.talk import Lost, Outcome, Talk
from rundlet.executor.client import BINARY

HELPER = ".rundlet-matrix"  # the folder of the probes' files, on the container's first tmpfs
NOBODY = 65534
GRACE = 20.0  # seconds for a runtime to notice the container's end
CONFINEMENTS = {mode: f"rundlet-matrix-{mode}" for mode in ("unconfined-mode", "complain", "enforce")}  # names of profiles: policy.py
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Runtime:
    """One of those compared: the words that run it, and what its --version says first."""

    name: str
    words: tuple[str, ...]
    version: str


@dataclass
class Ran:
    """What came of a Case: outcomes by probe, and the facts; or why it `refused`."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    command: str = ""
    said: dict[str, Said] = field(default_factory=dict)  # by the kernel's log


class Runner:
    """Runs cases in folders of its own below `area`. `patience` is in seconds for each answer of a container; `logs`: the kernel's too."""

    def __init__(self, area: Path, patience: float, logs: bool) -> None:
        self.area = area
        self.patience = patience
        self.logs = logs
        self.count = 0

    def run(self, case: Case, runtime: Runtime, probes: Sequence[Probe | Command]) -> Ran:
        """Tries all probes in one container, and in a process that the runtime's exec brings in."""
        self.count += 1
        folder = self.area / f"run{self.count}"
        folder.mkdir(mode=0o755)
        heard = AuditSystem()
        if self.logs:
            heard.open(time.time())  # the kernel's log alone may drop what comes fast
        try:
            container = Container(folder, case, runtime, self.patience)
            ran = container.tried(probes)
            if self.logs and not ran.refused:
                denied = {name for name, outcome in ran.outcomes.items() if outcome.is_ == "denied"}
                ran.said = said({name: mark for name, mark in container.marks.items() if name in denied}, ran.facts.get("label"), heard)
            return ran
        finally:
            heard.close()
            shutil.rmtree(folder)


class Container:
    """One container; `folder` is where its bundle and its files are."""

    def __init__(self, folder: Path, case: Case, runtime: Runtime, patience: float) -> None:
        self.folder = folder
        self.case = case
        self.runtime = runtime
        self.patience = patience
        self.id = f"rundlet-matrix-{os.getpid()}-{folder.name}"
        self.config = case.read()
        self.user = os.geteuid() or ROOTLESS
        self.marks: dict[str, Mark] = {}
        self.at = furnish(folder / "helper", self.config, case.dac)
        self.search = next((word[5:] for word in self.config["process"].get("env", []) if word.startswith("PATH=")), PATH)
        self._write()

    def _write(self) -> None:
        process = self.config["process"]
        process["args"] = [f"{self.at}/executor", "0"]
        process["cwd"] = "/"
        (self.folder / "config.json").write_text(dumps(self.config))
        for name in ("state", "run"):
            (self.folder / name).mkdir(mode=0o700)
            if self.case.rootless and not os.geteuid():
                os.chown(self.folder / name, self.user, self.user)

    def words(self, *args: str, plain: bool = False) -> list[str]:
        """The command line of the runtime; `plain`: not confined, to clean up with."""
        before: list[str] = []
        if not plain and self.case.confinement in CONFINEMENTS:
            before += ["aa-exec", "-p", CONFINEMENTS[self.case.confinement], "--"]
        changes = ["--no-new-privs"] if self.case.inherited and not plain else []
        options = ["--root", str(self.folder / "state")]
        if self.case.rootless:
            if not os.geteuid():
                changes += [f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups", "--inh-caps=-all"]
            if self.runtime.name.startswith(("rundlet", "crun")):
                options.append("--cgroup-manager=disabled")  # runc has no such option, and goes without by itself
        before += ["setpriv", *changes, "--"] if changes else []
        return [*before, *self.runtime.words, *options, *args]

    def _start(self, words: list[str], errors: Path) -> "subprocess.Popen[bytes]":
        env = {**os.environ, "XDG_RUNTIME_DIR": str(self.folder / "run")} if self.case.rootless else None
        with open(errors, "wb") as err:
            return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, env=env, cwd="/")

    def tried(self, probes: Sequence[Probe | Command]) -> Ran:
        """Starts it, tries, and takes it away."""
        words = self.words("run", "--bundle", str(self.folder), self.id)
        ran = Ran(command=" ".join(words))
        if os.geteuid():
            left_out = [probe for probe in probes if isinstance(probe, Probe) and probe.root]
            ran.outcomes |= {probe.name: Outcome("absent", "", "it takes root to make its files") for probe in left_out}
            probes = [probe for probe in probes if probe not in left_out]
        process = self._start(words, self.folder / "errors")
        try:
            with ended(process):
                talk = talk_with(process, self.patience)
                self._try(process, talk, probes, ran)
                if talk.lost and not ran.refused:
                    process.kill()  # it waits for what does not end
        finally:
            if process.returncode or ran.refused or (self.folder / "state" / self.id).exists():
                subprocess.run(self.words("delete", "--force", self.id, plain=True), capture_output=True, check=False)
        return ran

    def _try(self, process: "subprocess.Popen[bytes]", talk: Talk, probes: Sequence[Probe | Command], ran: Ran) -> None:
        try:
            ran.facts = talk.facts()
        except Lost as lost:
            process.stdin and process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.patience)
            ran.refused = last_words(self.folder / "errors") or f"{lost}, without a word (status {process.returncode})"
            return
        mine = [probe for probe in probes if isinstance(probe, Command) or probe.where == "init"]
        self._each(mine, talk, ran)
        others = [probe for probe in probes if not isinstance(probe, Command) and probe.where != "init"]
        if others:
            self._brought_in(others, talk, ran)

    def _each(self, probes: Sequence[Probe | Command], talk: Talk, ran: Ran, peer: int = 0) -> None:
        for probe in probes:
            comm, begin = f"{self.folder.name}-{len(self.marks)}", time.time()
            try:
                ran.outcomes[probe.name] = talk.probe(probe, self.at, self.search, peer, comm)
            except Lost as lost:
                ran.outcomes[probe.name] = Outcome("unknown", "", str(lost))
            self.marks[probe.name] = Mark("" if isinstance(probe, Command) else comm, begin, time.time())

    def _brought_in(self, probes: Sequence[Probe], talk: Talk, ran: Ran) -> None:
        """The probes about a process that the runtime's exec brings in. The signal, which ends it, is the last."""
        words = self.words("exec", self.id, f"{self.at}/executor", "0")
        process = self._start(words, self.folder / "exec-errors")
        with ended(process):
            inner = talk_with(process, self.patience)
            try:
                facts = inner.facts()
            except Lost:
                process.stdin and process.stdin.close()
                process.wait()
                why = last_words(self.folder / "exec-errors") or f"status {process.returncode}"
                ran.outcomes |= {probe.name: Outcome("refused", "", f"exec: {why}") for probe in probes}
                ran.facts["exec label"] = ""
                return
            ran.facts["exec label"] = facts["label"]
            self._each([probe for probe in probes if probe.where == "exec"], inner, ran)
            self._each([probe for probe in probes if probe.where == "peer"], talk, ran, facts["pid"])


@contextlib.contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Ends a runtime's command afterwards: the end of the input is that of the executor, and so of the container.

    One that waits for a program that does not end sees no end of its input; nor is there time when we are being ended.
    """
    grace = 0.0
    try:
        yield
        grace = GRACE
    finally:
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def talk_with(process: "subprocess.Popen[bytes]", patience: float) -> Talk:
    """Through the pipes of a runtime's command."""
    assert process.stdin and process.stdout
    return Talk(process.stdin.fileno(), process.stdout.fileno(), patience)


def last_words(path: Path) -> str:
    """What a runtime said at last, on one line."""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


# ── the files of the probes ──────────────────────────────────────────────────────────────────────────────────────────────────


def outside(mappings: Sequence[dict[str, int]], id_: int) -> int:
    """The id on the host of one in the container; without a mapping, an id that the container has not."""
    if not mappings:
        return id_
    for one in mappings:
        if one["containerID"] <= id_ < one["containerID"] + one["size"]:
            return one["hostID"] + id_ - one["containerID"]
    return NOBODY


def furnish(folder: Path, config: dict[str, Any], dac: bool) -> str:
    """Makes the probes' files and binds their folder into the container; its path there. `dac`: nobody is kept from any of them.

    Raises OSError where we may not make one of them.
    """
    linux, user = config["linux"], config["process"].get("user", {})
    uids, gids = linux.get("uidMappings", []), linux.get("gidMappings", [])
    owner, group = outside(uids, user.get("uid", 0)), outside(gids, user.get("gid", 0))
    root, other = outside(uids, 0), outside(uids, TARGET)
    folder.mkdir(mode=0o755)
    for name in ("mnt", "own"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    for name in ("executor", "set-uid", "capable"):
        shutil.copyfile(BINARY, folder / name)
        (folder / name).chmod(0o755)
    for name in ("owned", "private"):
        (folder / name).write_text("text\n")
    (folder / "private").chmod(0o666 if dac else 0o600)
    if not os.geteuid():
        os.mknod(folder / "device", k.S_IFCHR | 0o666, os.makedev(120, 0))
        (folder / "device").chmod(0o666)
        for name, whose in (("owned", owner), ("own", owner), ("private", other), ("set-uid", other)):
            os.chown(folder / name, whose, group)
        (folder / "set-uid").chmod(0o4755)
        os.setxattr(folder / "capable", "security.capability", file_capability(root))
    place = next(
        (mount["destination"] for mount in config.get("mounts", []) if mount.get("type") == "tmpfs" and mount["destination"] != "/"), None
    )
    if place is None:
        raise OSError("the bundle has no tmpfs to hold the probes' files")
    at = f"{place.rstrip('/')}/{HELPER}"
    flags = os.statvfs(folder).f_flag
    clear = [word for word, bit in (("suid", os.ST_NOSUID), ("dev", os.ST_NODEV), ("exec", os.ST_NOEXEC)) if flags & bit]
    config["mounts"].append({"destination": at, "type": "bind", "source": str(folder), "options": ["bind", "rw", *clear]})
    return at


def file_capability(root: int) -> bytes:
    """The value of security.capability: cap_net_bind_service=ep, for the user namespace whose root is that user. linux/capability.h."""
    mask = 1 << 10
    if root:
        return struct.pack("<IIIIII", 0x03000001, mask, 0, 0, 0, root)
    return struct.pack("<IIIII", 0x02000001, mask, 0, 0, 0)


def dumps(config: Any) -> str:
    """As the runtimes read it."""
    import json

    return json.dumps(config)


def workspace() -> Path:
    """A folder for everything that is made, which users can pass through."""
    area = Path(tempfile.mkdtemp(prefix="rundlet-matrix-"))
    area.chmod(0o755)
    return area
