"""Inside the lab: has things denied in containers, asks rundlet what was denied, and does as it says. One line of JSON for each.

    python3 -m tests.lab.denials HELPER SITE WORDS…      trial.c built, where pyseccomp and rich are, the words that run rundlet
"""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rundlet.confine.denials import source
from rundlet.confine.denials.reading import Reader
from tests.lab.denial_kinds import BASE, BOX, FLAGS, KINDS, NASTY, PEER, RUNTIME, Kind
from tests.lab.guest import AREA, MOUNTS, ROOTFS, Tell, load, until

TIME = 300  # seconds for a command
TRIES = 8  # of one kind, a rule or two each
CAPABILITIES = [
    "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_MKNOD", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID", "CAP_SYS_PTRACE", "CAP_KILL",
    "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
]  # fmt: skip
NAMESPACES = ("pid", "mount", "ipc", "uts", "network")
STATE = str(AREA / "state")
AUDIT_CONF, AUDIT_LOG = Path("/etc/audit/auditd.conf"), Path("/var/log/audit/elsewhere.log")
MARK = "box-mark"  # a profile that permits nothing
ATTEMPT = "audit: type=1400 audit({:.3f}:9999): apparmor=\"DENIED\" operation=\"open\" profile=\"box\" name=\"/forged\" pid=1 comm=\"x\" denied_mask=\"r\"\n"


def policy(rules: list[str] | tuple[str, ...] = (), peers: list[str] | tuple[str, ...] = (), base: str = "") -> str:
    """The profiles, with what was added to them."""
    return (
        f"profile {BOX} {FLAGS} {{ {BASE} {base}\n{''.join(f'  {rule}{chr(10)}' for rule in rules)}}}\n"
        f"profile {PEER} {FLAGS} {{ /trial mrix, signal (receive) peer=unconfined,\n{''.join(f'  {rule}{chr(10)}' for rule in peers)}}}\n"
    )


RUNTIMES = f"""
profile {RUNTIME} flags=(attach_disconnected) {{ file, capability, signal, ptrace, network, mount, remount, umount, pivot_root,
  change_profile -> {{{BOX},&{BOX}}}, deny /srv/runtime-secret r, audit deny /srv/runtime-audited r, }}
profile box-mute flags=(attach_disconnected) {{ file, capability, signal, ptrace, network, mount, remount, umount, pivot_root, }}
profile box-own {FLAGS} {{ {BASE} }}
profile box-path flags=(attach_disconnected) {{ file, capability, signal, ptrace, network, mount, remount, umount, pivot_root,
  change_profile /trial -> {PEER}, change_profile /elsewhere -> {BOX}, }}
profile {MARK} {{ }}
"""


class Lab:
    """The containers, and rundlet."""

    def __init__(self, helper: str, words: list[str]) -> None:
        self.words = [*words, "--root", STATE]
        self.helper = helper

    def furnish(self) -> None:
        """The root filesystem."""
        for name in ("dev", "proc", "srv", "mnt"):
            (ROOTFS / name).mkdir(parents=True)
        for name in ("trial", "srv/program"):
            (ROOTFS / name).write_bytes(Path(self.helper).read_bytes())
            (ROOTFS / name).chmod(0o755)
        for name in ("f", "g", "old", "removed", "of-five", "runtime-secret", "runtime-audited", 'hixxé x\\"b', NASTY.removeprefix("/srv/")):
            (ROOTFS / "srv" / name).write_text("x" * 5000)
        (ROOTFS / "srv/of-five").chmod(0o600)
        os.chown(ROOTFS / "srv/of-five", 5, 5)
        (ROOTFS / "srv").chmod(0o777)

    def bundle(self, name: str, profile: str | None, *args: str, nnp: bool = False, seccomp: dict[str, Any] | None = None) -> Path:
        """A bundle for a container of that name."""
        sets = dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES)
        process: dict[str, Any] = {
            "user": {"uid": 0, "gid": 0}, "args": ["/trial", *args], "env": ["PATH=/"], "cwd": "/", "capabilities": sets, "noNewPrivileges": nnp,
        }
        if profile:
            process["apparmorProfile"] = profile
        linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in NAMESPACES]}
        if seccomp:
            linux["seccomp"] = seccomp
        config = {
            "ociVersion": "1.0.2", "process": process, "root": {"path": str(ROOTFS)}, "linux": linux,
            "mounts": MOUNTS,
        }
        folder = AREA / "bundles" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def call(self, *args: str, confined: str = "", **how: Any) -> "subprocess.CompletedProcess[str]":
        """A command of rundlet's, by a runtime under that profile. Its output goes to files, which a container may go on holding."""
        under = ["aa-exec", "-p", confined, "--"] if confined else []
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run([*under, *self.words, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err, text=True, timeout=TIME, **how)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())

    def again(self, act: "Callable[[], subprocess.CompletedProcess[str]]") -> "subprocess.CompletedProcess[str]":
        """A command that fails for a denial and says so: it waits for the record for a moment only, so it is done again until it has come."""
        tried = [act()]

        def said() -> bool:
            if "rundlet: apparmor: " not in tried[-1].stderr:
                tried.append(act())
            return "rundlet: apparmor: " in tried[-1].stderr

        until(said)
        return tried[-1]

    def run(self, name: str, profile: str | None, *args: str, confined: str = "", **more: Any) -> dict[str, Any]:
        """A container in the foreground that is kept when it has ended."""
        folder = self.bundle(name, profile, *args, **more)
        done = self.call("run", "--keep", "--bundle", str(folder), name, confined=confined)
        return {"status": done.returncode, "out": done.stdout, "err": done.stderr}

    def stay(self, name: str, profile: str | None, *args: str, confined: str = "", **more: Any) -> int:
        """A container in the background; its process's pid."""
        folder = self.bundle(name, profile, *args, **more)
        with open(folder / "out", "wb") as out:
            subprocess.run(
                [*(["aa-exec", "-p", confined, "--"] if confined else []), *self.words, "run", "--detach", "--pid-file", f"{folder}/pid", "--bundle",
                 str(folder), name], stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True,
            )  # fmt: skip
        until(lambda: b"\n" in (folder / "out").read_bytes())
        return int((folder / "pid").read_text())

    def denials(self, since: float, *labels: str, verdicts: tuple[str, ...] = ("denied",), more: Any = None) -> list[Any]:
        """What was denied since then by these profiles, all of it: records arrive some time later, and in their order, so that those of what
        was done before are there once the one is that is asked for here."""
        from rundlet.confine import denials

        found: list[Any] = []
        marked = time.time() - 0.005

        def arrived() -> bool:
            found[:] = denials.read(since, STATE)
            return any(one.label == MARK and one.time >= marked for one in found)

        subprocess.run(["aa-exec", "-p", MARK, "--", "/bin/true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert until(arrived)
        return [
            one for one in found
            if one.label != MARK and (not labels or one.label in labels) and one.verdict in verdicts and (more is None or more(one))
        ]

    def peer(self) -> int:
        """A process of the container under another profile; its pid in there."""
        file = AREA / f"peer{len(list(AREA.glob('peer*')))}"
        with open(f"{file}.out", "wb") as out:
            subprocess.run(
                [*self.words, "exec", "--detach", "--apparmor", PEER, "--pid-file", str(file), "kinds", "/trial", "pause"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=True,
            )  # fmt: skip
        return inner_pid(int(file.read_text()))

    def loop(self, kind: Kind) -> dict[str, Any]:
        """Tries, adds the rules that are proposed, and tries again, until it succeeds."""
        rules: list[str] = []
        peers: list[str] = []
        tried = []
        peer = 0
        load(policy(base=kind.base))
        for _ in range(TRIES):
            if "{peer}" in kind.words:
                peer = self.peer()  # anew: on 6.12 one that sleeps is held, by ptrace, to what the policy was before
            since = time.time() - 0.005  # the clock of the audit system is a coarse one
            done = self.call("exec", "kinds", "/trial", *(word.replace("{peer}", str(peer)) for word in kind.words))
            said = {"status": done.returncode, "out": done.stdout, "err": done.stderr, "denials": []}
            tried.append(said)
            if not done.returncode:
                break
            found = self.denials(since, BOX, PEER)
            said["denials"] = [asdict(one) for one in found]
            new = [one.rule for one in found if one.rule and one.label == BOX and one.rule not in rules]
            others = [one.rule for one in found if one.rule and one.label == PEER and one.rule not in peers]
            rules += dict.fromkeys(new)
            peers += dict.fromkeys(others)
            if not new and not others:
                break
            load(policy(rules, peers, kind.base))
        shown: dict[str, Any] = {"tried": tried, "rules": rules, "peers": peers}
        if kind.still:
            shown["still"] = self.call("exec", "kinds", "/trial", *(word.replace("{peer}", str(peer)) for word in kind.still)).stdout
        return shown


def inner_pid(pid: int) -> int:
    """A process's pid in its own namespace."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:"))
    return int(line.split()[-1])


def opened(pid: int, path: str) -> bool:
    """Whether a process has a file open."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") == path:
                return True
        except FileNotFoundError:  # closed meanwhile
            continue
    return False


@contextlib.contextmanager
def journald() -> Iterator[None]:
    """journald runs; its files stay, but who reads them afterwards does not hear what happens from then on."""
    daemon = subprocess.Popen(["/lib/systemd/systemd-journald"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert until(lambda: os.path.exists("/run/systemd/journal/socket"))
    yield
    daemon.terminate()
    daemon.wait()


@contextlib.contextmanager
def auditd() -> Iterator[int]:
    """auditd runs; its pid."""
    AUDIT_LOG.parent.mkdir(parents=True, exist_ok=True)
    settings = [line for line in AUDIT_CONF.read_text().splitlines() if not line.startswith("log_file")]
    AUDIT_CONF.write_text("\n".join([*settings, f"log_file = {AUDIT_LOG}", ""]))
    subprocess.run(["/usr/sbin/auditd"], check=True)
    assert until(lambda: os.path.exists("/run/auditd.pid"))
    pid = int(Path("/run/auditd.pid").read_text())
    yield pid
    os.kill(pid, signal.SIGTERM)
    assert until(lambda: not os.path.exists(f"/proc/{pid}"))


def filter_of(action: str, *names: str, allowed: tuple[str, ...] = ()) -> dict[str, Any]:
    """A filter that does this to these calls."""
    rules = [{"names": list(names), "action": action}] if names else []
    return {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{**rule, "names": [name for name in rule["names"] if name not in allowed]} for rule in rules if set(names) - set(allowed)],
    }


class Scenes(Lab):
    """What is not a kind: each method is one line."""

    def by_cgroup(self) -> dict[str, Any]:
        """Two containers under one profile: the cgroup tells them apart while the process lives, and nothing does afterwards."""
        load(policy())
        since = time.time() - 0.005
        self.stay("one", BOX, "hold", "read", "/srv/f")
        self.stay("two", BOX, "hold", "read", "/srv/g")
        alive = self.denials(since, BOX)
        since = time.time() - 0.005
        self.call("exec", "two", "/trial", "write", "/srv/g")
        dead = self.denials(since, BOX)
        for name in ("one", "two"):
            self.call("delete", "--force", name)
        return {"alive": [asdict(one) for one in alive], "dead": [asdict(one) for one in dead]}

    def others(self) -> dict[str, Any]:
        """Containers of other runtimes under one profile, by the first process and the configuration of each."""
        load(policy())
        found: dict[str, Any] = {}
        pids = {}
        for name, file in (("crun", "/srv/f"), ("runc", "/srv/g")):
            folder = self.bundle(name, BOX, "hold", "read", file)
            with open(folder / "out", "wb") as out:
                words = [name, "--root", str(AREA / name), "run", "--detach", "--pid-file", f"{folder}/pid", "--bundle", str(folder), name]
                status = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode
            assert status == 0, (folder / "out").read_text()
            assert until(lambda folder=folder: b"\n" in (folder / "out").read_bytes())  # type: ignore[misc]
            pids[name] = (folder / "pid").read_text()
        self.denials(0.0)  # so what was denied to them has arrived
        for name, pid in pids.items():
            done = self.call("denials", "--pid", pid, "--config", str(AREA / "bundles" / name), "--json")
            found[name] = {"status": done.returncode, "err": done.stderr, "pid": pid, "denials": json.loads(done.stdout)["denials"]}
        for name in pids:
            subprocess.run([name, "--root", str(AREA / name), "delete", "--force", name], check=True)
        return found

    def stacked(self) -> dict[str, Any]:
        """A confined runtime and no_new_privs: the container cannot signal itself until its rules name the stack."""
        rules: list[str] = []
        tried = []
        for n in range(3):
            load(policy([*rules, "signal peer=box,"]))
            since = time.time() - 0.005
            done = self.run(f"stacked{n}", BOX, "child", "15", confined=RUNTIME, nnp=True)
            found = self.denials(since, BOX) if done["status"] else []
            self.call("delete", "--force", f"stacked{n}")
            tried.append({**done, "denials": [asdict(one) for one in found]})
            if not done["status"]:
                break
            rules += [one.rule for one in found]
        return {"tried": tried, "rules": rules}

    def of_the_runtime(self) -> dict[str, Any]:
        """Under a stack the runtime's profile says no."""
        load(policy(["/srv/* r,"]))
        since = time.time() - 0.005
        done = self.run("runtimes", BOX, "read", "/srv/runtime-audited", confined=RUNTIME, nnp=True)
        found = self.denials(since, RUNTIME)
        self.call("delete", "--force", "runtimes")
        return {**done, "denials": [asdict(one) for one in found]}

    def fails(self) -> dict[str, Any]:
        """Commands that fail, and what they say: with no log, with a JSON log, with a text log; and one that has nothing to add."""
        load(policy())
        found: dict[str, Any] = {}
        folder = self.bundle("fails", BOX, "read", "/trial")
        log = AREA / "log"

        def told(name: str, *args: str, confined: str = "", before: Callable[[], None] = lambda: None, adds: bool = True) -> None:
            def once() -> "subprocess.CompletedProcess[str]":
                before()
                log.unlink(missing_ok=True)
                return self.call(*args, confined=confined)

            done = self.again(once) if adds else once()
            found[name] = {"status": done.returncode, "out": done.stdout, "err": done.stderr, "log": log.read_text() if log.exists() else ""}

        def created() -> None:
            self.call("delete", "--force", "fails")
            told("create", "create", "--bundle", str(folder), "fails", confined="box-path", adds=False)

        told("run", "run", "--bundle", str(folder), "fails", confined="box-mute")
        told("json", "--log", str(log), "--log-format", "json", "create", "--bundle", str(folder), "fails", confined="box-mute")
        told("text", "--log", str(log), "create", "--bundle", str(folder), "fails", confined="box-mute")
        told("exec", "exec", "--apparmor", BOX, "kinds", "/trial", "read", "/trial", confined="box-path")
        told("start", "--log", str(log), "--log-format", "json", "start", "fails", confined="box-path", before=created)
        self.call("delete", "--force", "fails")
        self.bundle("fails", None, "read", "/trial")
        config = json.loads((folder / "config.json").read_text())
        config["process"]["args"] = ["/not-there"]
        (folder / "config.json").write_text(json.dumps(config))
        told("nothing", "run", "--bundle", str(folder), "fails", adds=False)
        for name, words in (("program", ("read", "/srv/f")), ("program's child", ("forked", "read", "/srv/f"))):
            bundle = self.bundle("fails", "box-own", *words)
            told(name, "run", "--bundle", str(bundle), "fails")
            told(f"{name} by exec", "exec", "kinds", "/trial", *words)
        return found

    def learning(self) -> dict[str, Any]:
        """Complaining profiles, for which the kernel invents others."""
        load(f"profile box-learns flags=(attach_disconnected,mediate_deleted,complain) {{ {BASE} change_profile, }}\n")
        found: dict[str, Any] = {}
        for name, words in (("exec", ("forked", "exec", "/srv/program", "read", "/srv/f")), ("change", ("forked", "onexec", "exec nope", "/trial", "read", "/srv/f"))):
            since = time.time() - 0.005
            done = self.run(f"learns-{name}", "box-learns", *words)
            denials = self.denials(since, verdicts=("allowed",), more=lambda one: "//null-" in one.label)
            self.call("delete", "--force", f"learns-{name}")  # else the next one would not be the only one under its profile
            found[name] = {**done, "denials": [asdict(one) for one in denials]}
        return found

    def converted(self) -> dict[str, Any]:
        """What an unconfined user's process gets that changes to a profile, where the kernel restricts that; else what it lacks."""
        switch = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_unconfined")
        if not switch.exists():
            return {"lacking": str(switch)}
        load(policy())
        switch.write_text("1")
        since = time.time() - 0.005
        done = self.run("converted", None, "forked", "as", "5", "onexec", f"exec {BOX}", "/trial", "read", "/trial")
        found = self.denials(since, "unconfined", more=lambda one: "unprivileged" in one.raw)
        switch.write_text("0")
        return {**done, "denials": [asdict(one) for one in found]}

    def filters(self) -> dict[str, Any]:
        """A filter that logs, and one that kills; and then with what is proposed."""
        found: dict[str, Any] = {}
        for name, action, verdict in (
            ("log", "SCMP_ACT_LOG", "allowed"), ("kill", "SCMP_ACT_KILL_PROCESS", "killed"), ("errno", "SCMP_ACT_ERRNO", "denied"),
        ):
            since = time.time() - 0.005
            done = self.run(f"filter-{name}", None, "chroot", seccomp=filter_of(action, "chroot", "mknodat"))
            denials = self.denials(since, verdicts=(verdict,), more=lambda one: one.layer == "seccomp")
            rule = json.loads(denials[-1].rule) if denials else {"names": []}
            since = time.time() - 0.005
            again = self.run(f"filter-{name}-again", None, "chroot", seccomp=filter_of(action, "chroot", "mknodat", allowed=tuple(rule["names"])))
            self.run(f"filter-{name}-end", None, "mknod", "/srv/end", seccomp=filter_of(action, "mknodat"))
            more = self.denials(since, verdicts=(verdict,), more=lambda one: one.layer == "seccomp")
            found[name] = {"first": done, "denials": [asdict(one) for one in denials], "again": again, "more": [one.operation for one in more]}
        return found

    def command(self) -> dict[str, Any]:
        """rundlet denials itself, for one container and for all; who may not read; and a line that only looks like the kernel's."""
        load(policy())
        since = time.time() - 0.005
        self.call("exec", "kinds", "/trial", "read", "/srv/f")
        self.call("exec", "kinds", "/trial", "read", "/srv/f")
        self.denials(since, BOX)  # so they have arrived
        Path("/dev/kmsg").write_text(ATTEMPT.format(time.time()))
        found: dict[str, Any] = {}

        def told(name: str, *args: str, **how: Any) -> None:
            done = self.call("denials", *args, **how)
            found[name] = {"status": done.returncode, "out": done.stdout, "err": done.stderr}

        at = f"{int(since * 1000) / 1000:.3f}"
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(float(at))) + f".{at[-3:]}+00:00"
        told("text", "kinds", "--since", when)
        told("json", "kinds", "--json", "--since", when)
        told("none", "kinds", "--since", "0s")
        told("unknown", "nobody")
        Path("/proc/sys/kernel/dmesg_restrict").write_text("1")
        told("restricted", "--json", user=65534, group=65534, extra_groups=[])
        Path("/proc/sys/kernel/dmesg_restrict").write_text("0")
        return found

    @contextlib.contextmanager
    def following(self) -> Iterator["subprocess.Popen[bytes]"]:
        """`denials --follow`, from when it has its logs open: it reads from when it was asked on, so nothing later is missed."""
        child = subprocess.Popen(
            [*self.words, "denials", "kinds", "--follow", "--json", "--since", "0s"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert until(lambda: opened(child.pid, "/dev/kmsg"))
        yield child
        if child.poll() is None:
            child.kill()
        child.communicate()

    def follow(self) -> dict[str, Any]:
        """--follow: what happens while it runs, once, and how often, and its end."""
        load(policy())
        with self.following() as child:
            assert child.stdout
            for _ in range(12):
                self.call("exec", "kinds", "/trial", "read", "/srv/f")
            lines = [child.stdout.readline().decode(), child.stdout.readline().decode()]
            child.send_signal(signal.SIGINT)
            rest, errors = child.communicate()
            return {"lines": lines, "rest": rest.decode().splitlines(), "err": errors.decode(), "status": child.returncode}

    def seen_by(self, *logs: source.Log, since: float) -> list[Any]:
        """What these logs have of the containers' profile."""
        reader = Reader(since, STATE, logs=list(logs))
        reader.open()
        try:
            return [asdict(one) for one in reader.fresh() if one.label == BOX]
        finally:
            reader.close()

    def followed_by(self, log: source.Log, since: float) -> list[Any]:
        """The same, of a log that is followed until it has something."""
        reader = Reader(since, STATE, follow=True, logs=[log])
        reader.open()
        found: list[Any] = []

        def some() -> list[Any]:
            found.extend(asdict(one) for one in reader.fresh() if one.label == BOX)
            return found

        try:
            until(some)
            return found
        finally:
            reader.close()

    def journal(self) -> dict[str, Any]:
        """With journald: it has the same records, by way of the audit system and of the kernel's log, and each is told once."""
        load(policy())
        with journald():
            since = time.time() - 0.005
            self.call("exec", "kinds", "/trial", "read", "/srv/f")
            until(lambda: bool(self.seen_by(source.Journal(), since=since)))
            return {"journal": self.seen_by(source.Journal(), since=since), "everywhere": self.seen_by(*source.all_logs(), since=since)}

    def journal_alone(self) -> dict[str, Any]:
        """With auditd and without its file: neither that nor the kernel's log has records, but journald hears the audit system beside auditd, as
        does who follows."""
        load(policy())
        with journald(), auditd():
            AUDIT_LOG.rename(AUDIT_LOG.with_suffix(".hidden"))
            since = time.time() - 0.005
            with self.following() as child:
                assert child.stdout
                self.call("exec", "kinds", "/trial", "read", "/srv/f")
                line = child.stdout.readline().decode()
            kernels = self.seen_by(source.KernelLog(), source.Journal(), since=since)
            followed = self.followed_by(source.Journal(True), since)
            done = self.call("denials", "kinds", "--json", "--since", "1h")
            AUDIT_LOG.with_suffix(".hidden").rename(AUDIT_LOG)
            command = {"status": done.returncode, "out": done.stdout, "err": done.stderr}
            return {"line": line, "denials": kernels, "followed": followed, "command": command}

    def auditd(self) -> dict[str, Any]:
        """With auditd: the kernel's log has nothing any more, its file has it, also when it is rotated; and without its file nothing can be told."""
        load(policy())
        with auditd() as pid:
            since = time.time() - 0.005
            self.call("exec", "kinds", "/trial", "child", "15")
            found = self.denials(since, BOX)
            folder = self.bundle("fails", BOX, "read", "/trial")
            failed = self.again(lambda: self.call("run", "--bundle", str(folder), "fails", confined="box-mute"))
            program = self.again(lambda: self.call("exec", "kinds", "/trial", "read", "/srv/f"))
            command = self.call("denials", "--json", "--since", "1h")
            with self.following() as child:
                assert child.stdout
                self.call("exec", "kinds", "/trial", "read", "/srv/f")
                lines = [child.stdout.readline().decode()]
                inode = AUDIT_LOG.stat().st_ino
                self.call("exec", "kinds", "/trial", "read", "/srv/g")
                os.kill(pid, signal.SIGUSR1)  # rotate: auditd(8)
                until(lambda: AUDIT_LOG.exists() and AUDIT_LOG.stat().st_ino != inode)
                self.call("exec", "kinds", "/trial", "write", "/srv/g")
                lines += [child.stdout.readline().decode() for _ in range(2)]
            rotated = self.call("denials", "kinds", "--json", "--since", "1h")
            AUDIT_LOG.rename(AUDIT_LOG.with_suffix(".hidden"))
            blind = self.call("denials")
        return {
            "denials": [asdict(one) for one in found], "failed": {"status": failed.returncode, "err": failed.stderr}, "program": program.stderr,
            "command": {"status": command.returncode, "out": command.stdout}, "blind": {"status": blind.returncode, "out": blind.stdout, "err": blind.stderr},
            "lines": lines, "rotated": json.loads(rotated.stdout)["denials"],
        }

    def order(self) -> dict[str, Any]:
        """Another security module before AppArmor, which takes what is written to the files that were AppArmor's."""
        load(policy(["/srv/* r,"]))
        try:
            Path("/proc/thread-self/attr/exec").write_text(f"exec {BOX}")
            error = ""
        except OSError as failure:
            error = errno.errorcode[failure.errno or 0]
        done = self.run("ordered", BOX, "read", "/srv/f")
        command = self.call("denials", "--since", "1h")
        return {"error": error, "run": done, "status": command.returncode, "out": command.stdout, "err": command.stderr}


def main(helper: str, site: str, words: list[str]) -> None:
    """Everything, in the order of the lists."""
    tell = Tell()
    sys.path.append(site)
    lab = Scenes(helper, words)
    if Path("/sys/module/apparmor/parameters/enabled").read_text() == "Y\n" and "audit=0" in Path("/proc/cmdline").read_text().split():
        done = lab.call("denials")
        tell("mute", {"status": done.returncode, "out": done.stdout, "err": done.stderr})
        return
    lab.furnish()
    if "bpf,apparmor" in Path("/sys/kernel/security/lsm").read_text():
        tell("order", lab.order())
        return
    load(policy() + RUNTIMES)
    lab.stay("kinds", BOX, "pause")
    for kind in KINDS:
        tell(kind.name, lab.loop(kind))
    scenes = (
        lab.others, lab.by_cgroup, lab.stacked, lab.of_the_runtime, lab.fails, lab.learning, lab.converted, lab.filters, lab.command, lab.follow, lab.journal,
        lab.journal_alone, lab.auditd,
    )
    for scene in scenes:
        tell(scene.__name__, scene())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
