"""The lab, driven from outside: what it boots, passes on, forbids and leaves behind.

A boot costs seconds, so one guest answers many questions (`answers`), and three others run at the same time (`three`).
"""

import contextlib
import fcntl
import json
import lzma
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rundlet.errors import Refused
from rundlet.lab import cache, fetch, guest, initramfs, kernel, machine, modules, needs, progress, unpack

SOURCE = Path(__file__).resolve().parents[2] / "src"
LACKING = "the lab needs root" if os.geteuid() else "; ".join(needs.missing(needs.TO_BOOT + needs.TO_FETCH))
TIME = 800  # seconds for a lab, which takes ten of them on an idle machine
boots = pytest.mark.skipif(bool(LACKING), reason=LACKING)

INSIDE = r"""
cat %(marker)s/seen >"$OUT/seen"
cp /sys/kernel/security/lsm /sys/module/apparmor/parameters/enabled "$OUT"
cp /sys/fs/cgroup/cgroup.controllers "$OUT/controllers"
mkdir /sys/fs/cgroup/made && cp /sys/fs/cgroup/made/cgroup.controllers "$OUT/handed-on"
cp /proc/self/cgroup /proc/self/mountinfo "$OUT"
env >"$OUT/env"; pwd >"$OUT/cwd"; id -u >"$OUT/uid"; hostname >"$OUT/hostname"; uname -r >"$OUT/release"
cat /sys/class/net/lo/flags >"$OUT/lo"
dmesg >"$OUT/dmesg"
ls -l /dev/fd /dev/stdin /dev/stdout /dev/stderr >"$OUT/links"
readlink /proc/self/fd/0 >"$OUT/stdin"
printf 'profile lab-confined { file, deny %(marker)s/seen r, }' | apparmor_parser -a 2>"$OUT/parser"
aa-exec -p lab-confined -- cat /proc/self/attr/current >"$OUT/label"
aa-exec -p lab-confined -- cat %(marker)s/seen 2>"$OUT/denied" >&2
aa-exec -p lab-confined -- sh -c 'echo confined to stdout'
{ modprobe veth && ip link add lab0 type veth peer name lab1 && ls /sys/class/net; } >"$OUT/links-made" 2>&1
mkdir %(marker)s/new && echo lost >%(marker)s/new/file && rm %(marker)s/seen && cp %(marker)s/new/file "$OUT/written"
mv %(marker)s/kept %(marker)s/renamed && ls %(marker)s >"$OUT/listing"
(sh -c 'sleep 0.1 & echo $!' >/tmp/orphan); while [ -e "/proc/$(cat /tmp/orphan)" ]; do sleep 0.1; done; echo buried >"$OUT/orphan"
ulimit -Hn >"$OUT/files"
arrived() { until [ "$(stat -c %s "/run/rundlet-lab/share/$1")" -ge "$2" ]; do sleep 0.1; done; }
cd /; tar cf - -C "$OUT" . | base64 -w0 >/tmp/packed; cat /tmp/packed >&3; arrived stderr "$(stat -c %s /tmp/packed)"
"""


def lab(*words: str) -> list[str]:
    """The command line of the lab."""
    return [sys.executable, "-m", "rundlet", "lab", *words]


def environment(**more: str) -> dict[str, str]:
    """The caller's environment for the lab, found by its source."""
    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}


def run_lab(*words: str, cwd: Path | None = None, **env: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the lab to its end."""
    return subprocess.run(
        lab(*words), capture_output=True, check=False, cwd=cwd, env=environment(**env), timeout=TIME, stdin=subprocess.DEVNULL
    )


def runs() -> set[str]:
    """The folders of running labs."""
    return set(os.listdir(cache.folder() / "runs")) if (cache.folder() / "runs").exists() else set()


def held(folder: Path) -> bool:
    """Whether a lab runs in the folder: one that other tests have started meanwhile."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return True  # it has just ended
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def emulators(of: int) -> list[int]:
    """Process ids of the emulators that the process `of` started."""
    return [int(word) for word in Path(f"/proc/{of}/task/{of}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether the process no longer runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@dataclass
class Answers:
    """What one guest said."""

    done: "subprocess.CompletedProcess[bytes]"
    folder: Path
    files: Path
    before: set[str]

    def __getitem__(self, name: str) -> str:
        return (self.files / name).read_text()


@pytest.fixture(scope="module")
def kernels() -> None:
    """The kernels are there: what the lab says while it fetches one is no part of what is tested."""
    for suite in fetch.SUITES:
        kernel.of_suite(suite, cache.folder(), progress.Progress())


@pytest.fixture(scope="module")
def answers(kernels: None, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """One guest of the newer kernel, asked everything at once."""
    folder = tmp_path_factory.mktemp("lab")
    files = tmp_path_factory.mktemp("answers")
    (folder / "seen").write_text("the host's\n")
    (folder / "kept").mkdir()
    script = "OUT=$(mktemp -d)\n" + INSIDE.replace("%(marker)s", str(folder))
    # stdout: the script's own lines and 300 kB of every byte; stderr: the answers. All has arrived when it ends: what it leaves behind
    # gets two seconds, which are not for the pipes to run empty.
    script = f"exec 3>&2 2>/dev/null\n{script}\necho; echo '%b'; head -c 300000 /dev/zero | tr '\\0' '\\377'; arrived stdout 300000\nsleep 60 >&1 & exit 7"
    before = runs()
    done = run_lab(
        "--suite", "backports", "--timeout", str(TIME), "--env", "A=x y=z'", "--", "bash", "-c", script, "name", "\udcff", cwd=folder
    )
    assert done.returncode == 7, done.stderr[-2000:]
    subprocess.run(["sh", "-c", 'base64 -d | tar xf - -C "$1"', "sh", str(files)], input=done.stderr, check=True)
    return Answers(done, folder, files, before)


@boots
class TestGuest:
    """One boot of the newer kernel."""

    def test_status_and_streams(self, answers: Answers) -> None:
        """The status is the command's own, the streams are apart and whole, and a process left behind does not hold them up."""
        assert answers.done.returncode == 7
        assert answers.done.stdout == b"confined to stdout\n\n%b\n" + b"\xff" * 300000

    def test_kernel(self, answers: Answers) -> None:
        """AppArmor is on, and the kernel log is readable."""
        assert "apparmor" in answers["lsm"].split(",")
        assert answers["enabled"] == "Y\n"
        assert answers["release"].startswith("6.12.")
        assert "AppArmor" in answers["dmesg"]

    def test_apparmor(self, answers: Answers) -> None:
        """Policy loads, confines, denies, and leaves a confined command its output."""
        assert answers["parser"] == ""
        assert answers["label"] == "lab-confined (enforce)\n"
        assert "Permission denied" in answers["denied"]

    def test_cgroup(self, answers: Answers) -> None:
        """cgroup v2 alone, the command in a child, every controller handed on to a cgroup made at the top."""
        assert answers["cgroup"] == "0::/lab\n"
        assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(answers["controllers"].split())
        assert answers["handed-on"] == answers["controllers"]
        (line,) = [line for line in answers["mountinfo"].splitlines() if " - cgroup2 " in line]
        assert line.split()[4] == "/sys/fs/cgroup"
        assert {"nsdelegate", "memory_recursiveprot"} <= set(line.split()[-1].split(","))

    def test_mounts(self, answers: Answers) -> None:
        """The file systems a runtime looks for are there."""
        kinds = {line.split()[4]: line.partition(" - ")[2].split()[0] for line in answers["mountinfo"].splitlines()}
        wanted = {
            "/": "overlay", "/proc": "proc", "/sys": "sysfs", "/dev": "devtmpfs",
            "/dev/pts": "devpts", "/dev/shm": "tmpfs", "/run": "tmpfs",
            "/dev/mqueue": "mqueue", "/sys/kernel/security": "securityfs", "/sys/fs/bpf": "bpf", "/sys/fs/cgroup": "cgroup2",
        }  # fmt: skip
        assert {where: kinds.get(where) for where in wanted} == wanted
        assert answers["links"].count(" -> /proc/self/fd") == 4

    def test_command(self, answers: Answers) -> None:
        """Root, the caller's directory, a plain environment with what was added, no input."""
        assert answers["cwd"] == f"{answers.folder}\n"
        assert answers["uid"] == "0\n"
        assert answers["stdin"] == "/dev/null\n"
        assert answers["hostname"] == "rundlet-lab\n"
        assert int(answers["files"]) == 524288
        assert int(answers["lo"], 16) & 1  # IFF_UP
        variables = dict(line.split("=", 1) for line in answers["env"].splitlines())
        assert variables.pop("OUT", None) is None
        assert {key: value for key, value in variables.items() if key not in ("_", "SHLVL")} == {
            **guest.BASE_ENV,
            "A": "x y=z'",
            "PWD": str(answers.folder),
        }

    def test_files(self, answers: Answers) -> None:
        """The host's files are seen and may be changed, and none of it survives."""
        assert answers["seen"] == "the host's\n"
        assert answers["written"] == "lost\n"
        assert answers["listing"] == "new\nrenamed\n"
        assert sorted(path.name for path in answers.folder.iterdir()) == ["kept", "seen"]

    def test_modules(self, answers: Answers) -> None:
        """Further modules of the kernel load by modprobe."""
        assert answers["links-made"].split() == ["lab0", "lab1", "lo"]

    def test_modules_that_another_program_has_indexed(self, kernels: None, tmp_path: Path) -> None:
        """busybox's depmod writes no .bin files, which kmod's modprobe reads; the machine may have got kmod since."""
        kept = (cache.folder() / "suites/bookworm").resolve(strict=True)
        shutil.copytree(kept, tmp_path / "kernel")
        for file in (tmp_path / "kernel/lib/modules").glob("*/modules.*.bin"):
            file.unlink()
        done = run_lab("--kernel", str(tmp_path / "kernel/vmlinux"), "--", "sh", "-c", "modprobe veth && cat /sys/module/veth/initstate")
        shutil.rmtree(tmp_path / "kernel")
        assert (done.returncode, done.stdout) == (0, b"live\n"), done.stderr

    def test_orphans_are_reaped(self, answers: Answers) -> None:
        """The guest's first process buries the orphans, as a runtime expects it to."""
        assert answers["orphan"] == "buried\n"

    def test_nothing_is_left(self, answers: Answers) -> None:
        """The run's folder is gone."""
        with cache.locked(cache.folder() / "runs.lock"):  # where a lab makes a folder and locks it
            assert [name for name in runs() - answers.before if not held(cache.folder() / "runs" / name)] == []


@dataclass
class Running:
    """A lab that runs in the background."""

    process: "subprocess.Popen[bytes]"

    def finish(self) -> tuple[int, bytes, bytes]:
        """Its status, stdout and stderr."""
        out, err = self.process.communicate(timeout=TIME)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def three(kernels: None) -> Iterator[dict[str, Running]]:
    """Three guests at the same time: one too slow, one that panics, one to be interrupted."""
    # it panics when what it said has left the guest
    panic = "uname -r; until grep -q . /run/rundlet-lab/share/stdout; do sleep 0.1; done; echo c >/proc/sysrq-trigger; sleep 1000"
    words = {
        "slow": ("--suite", "bookworm", "--timeout", "0.5", "--", "sleep", "1000"),
        "panic": ("--suite", "bookworm", "--", "sh", "-c", panic),
        "interrupted": ("--", "sh", "-c", "while :; do echo tick; echo tock >&2; sleep 0.5; done"),
    }
    started = {
        name: Running(subprocess.Popen(lab(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()))
        for name, argv in words.items()
    }
    yield started
    for running in started.values():
        running.process.kill()
        running.process.wait()


@boots
class TestEnds:
    """The ways in which a guest ends without its command's status."""

    def test_interrupt(self, three: dict[str, Running]) -> None:
        """Output comes as it is written: that of a command without an end is read. Ctrl-C ends the emulator and takes the folder along."""
        process = three["interrupted"].process
        assert process.stdout is not None and process.stderr is not None
        assert [process.stdout.readline() for _ in range(3)] == [b"tick\n"] * 3
        assert [process.stderr.readline() for _ in range(3)] == [b"tock\n"] * 3
        (emulator,) = emulators(process.pid)
        process.send_signal(signal.SIGINT)
        status, _, _ = three["interrupted"].finish()
        assert status == 128 + signal.SIGINT
        assert gone(emulator)

    def test_timeout(self, three: dict[str, Running]) -> None:
        """A command that takes too long is ended, whatever it would still do."""
        assert three["slow"].finish() == (124, b"", b"rundlet lab: the command did not end within 0.5 seconds\n")

    def test_panic(self, three: dict[str, Running]) -> None:
        """A guest that dies is told from a command that fails, with the kernel's last words."""
        status, out, err = three["panic"].finish()
        assert status == 125
        assert out.startswith(b"6.1.")
        assert err.startswith(b"rundlet lab: the guest died while the command ran\n")
        assert b"Kernel panic - not syncing: sysrq triggered crash" in err


class TestRefusals:
    """What the lab needs, said in a line each, with nothing booted."""

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
    def test_root(self) -> None:
        """Others than root are told why not."""
        code = "import os; os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        code += "from rundlet.lab import main\nraise SystemExit(main(None, 'bookworm', 0, {}, ['true']))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment(), cwd="/")
        assert (done.returncode, done.stdout) == (125, b"")
        assert done.stderr.startswith(b"rundlet lab: the lab needs root")

    def test_machine(self) -> None:
        """Another architecture is named."""
        with pytest.raises(Refused, match="this machine is aarch64"):
            needs.check("aarch64", 0)

    @pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root before it needs programs")
    def test_programs(self, tmp_path: Path) -> None:
        """Each missing program is named with its package."""
        done = run_lab("--", "true", PATH=str(tmp_path))
        assert done.returncode == 125
        lines = done.stderr.decode().splitlines()
        assert [line.rpartition("apt-get install ")[2] for line in lines] == ["qemu-system-x86", "busybox-static", "apt", "apt", "dpkg"]
        assert all(line.startswith("rundlet lab: the lab needs the program ") for line in lines)

    def test_systemd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """--systemd needs a message bus as well."""
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(Refused, match="the lab needs the program dbus-daemon, which is not installed; apt-get install dbus"):
            needs.systemd()

    @boots
    def test_directory(self) -> None:
        """A working directory that the guest has not is refused before the boot."""
        done = run_lab("--", "true", cwd=Path("/proc/self"))
        assert done.returncode == 125
        assert b"is not in the guest, which has a /proc of its own" in done.stderr

    @boots
    def test_kernel_file(self, tmp_path: Path) -> None:
        """A file that is no kernel, or none at all."""
        (tmp_path / "text").write_text("no kernel")
        done = run_lab("--kernel", str(tmp_path / "text"), "--", "true")
        assert (done.returncode, done.stderr.decode()) == (
            125,
            f"rundlet lab: {tmp_path}/text does not look like a linux kernel: no version in it\n",
        )
        done = run_lab("--kernel", str(tmp_path / "none"), "--", "true")
        assert (done.returncode, done.stderr.decode()) == (
            125,
            f"rundlet lab: cannot read {tmp_path}/none: no such file or directory; give --kernel a vmlinux or bzImage\n",
        )

    @boots
    def test_interrupted_preparation(self, tmp_path: Path) -> None:
        """SIGTERM while a kernel is fetched ends it, and no draft stays in the cache."""
        process = subprocess.Popen(
            lab("--", "true"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(XDG_CACHE_HOME=str(tmp_path)), cwd="/"
        )
        assert process.stderr is not None
        first = process.stderr.readline()
        process.terminate()
        out, _ = process.communicate(timeout=TIME)
        assert first == b"rundlet lab: reading the package lists of bookworm\n"
        assert (process.returncode, out) == (128 + signal.SIGTERM, b"")
        assert list((tmp_path / "rundlet" / "kernels").iterdir()) == []


class TestParts:
    """The pure parts."""

    def test_a_kernel_that_is_kept_with_other_modules_is_fetched_anew(self, tmp_path: Path) -> None:
        assert not kernel.is_whole(tmp_path)
        (tmp_path / "vmlinux").touch()
        assert not kernel.is_whole(tmp_path)
        (tmp_path / "without").write_text("\n".join(kernel.UNUSED))
        assert kernel.is_whole(tmp_path)
        (tmp_path / "without").write_text("\n".join(kernel.UNUSED[1:]))
        assert not kernel.is_whole(tmp_path)

    def test_sources_are_the_machines(self) -> None:
        """A machine with the suite keeps its mirrors; another lends its first Debian mirror."""
        targets = "http://mirror/debian/ bookworm Debian\nhttp://sec/debian-security/ bookworm-security Debian\nhttp://x/ cloud Google\n"
        assert fetch.sources(targets, "bookworm", None) == [
            "deb [arch=amd64] http://mirror/debian/ bookworm main",
            "deb [arch=amd64] http://sec/debian-security/ bookworm-security main",
        ]
        assert fetch.sources(targets, "bookworm-backports", Path("/k.gpg")) == [
            "deb [arch=amd64 signed-by=/k.gpg] http://mirror/debian/ bookworm-backports main"
        ]
        with pytest.raises(Refused, match="no source of Debian packages"):
            fetch.sources("http://archive/ubuntu/ noble Ubuntu\n", "bookworm", None)

    def test_dependency(self) -> None:
        """The meta package names the kernel's."""
        assert fetch.dependency("Package: m\nDepends: a, linux-image-6.1.0-9-amd64 (= 6.1.2-1)\n") == "linux-image-6.1.0-9-amd64"
        with pytest.raises(Refused, match="apt does not know"):
            fetch.dependency("")

    def test_requirements(self) -> None:
        """Hard and soft dependencies come first, what is wanted after does not."""
        info = [("depends", "a-b,c"), ("depends", ""), ("softdep", "pre: d e post: f"), ("license", "GPL")]
        assert modules.requirements(info) == ["a_b", "c", "d", "e"]

    def test_modules_in_order(self, tmp_path: Path) -> None:
        """Depth first, each once, compressed ones too, built-in ones left out; a cycle ends; a missing one is refused."""
        (tmp_path / "kernel").mkdir()
        (tmp_path / "modules.builtin").write_text("kernel/net/there.ko\n")
        top, base = module(b"depends=base,there\0softdep=pre: side\0"), module(b"depends=top\0")
        (tmp_path / "kernel" / "top.ko").write_bytes(top)
        (tmp_path / "kernel" / "base.ko.xz").write_bytes(lzma.compress(base))
        (tmp_path / "kernel" / "side.ko").write_bytes(module(b"license=GPL\0depends=\0"))
        ordered = modules.in_order(tmp_path, ("there", "top"))
        assert [name for name, _ in ordered] == ["base", "side", "top"]
        assert dict(ordered)["base"] == base
        with pytest.raises(Refused, match="has no module overlay"):
            modules.in_order(tmp_path, ("overlay",))

    def test_modinfo_of_other_files(self) -> None:
        """Only 64-bit ELF modules are read."""
        with pytest.raises(ValueError, match="ELF"):
            modules.modinfo(b"#!/bin/sh\n")

    @pytest.mark.skipif(shutil.which("cpio") is None and shutil.which("busybox") is None, reason="no program reads cpio here")
    def test_cpio(self, tmp_path: Path) -> None:
        """Another program reads the archive: files, links, modes, contents of any length."""
        none = (0, 0)
        archive = initramfs.cpio([
            ("d", stat.S_IFDIR | 0o755, b"", none), ("d/abc", stat.S_IFREG | 0o640, b"12345", none),
            ("d/e", stat.S_IFREG | 0o700, b"", none), ("link", stat.S_IFLNK | 0o777, b"d/abc", none),
        ])  # fmt: skip
        program = ["cpio"] if shutil.which("cpio") else ["busybox", "cpio"]
        subprocess.run([*program, "-i", "-d"], input=archive, cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / "d" / "abc").read_bytes() == b"12345"
        assert stat.S_IMODE((tmp_path / "d" / "abc").stat().st_mode) == 0o640
        assert os.readlink(tmp_path / "link") == "d/abc"
        assert (tmp_path / "d" / "e").stat().st_size == 0

    @pytest.mark.parametrize("compression", ["xz", "gzip", "zstd", "lz4", "none"])
    def test_vmlinux(self, compression: str) -> None:
        """The payload of a bzImage comes out whole, whatever it is compressed with."""
        if compression in ("zstd", "lz4") and shutil.which(compression) is None:
            pytest.skip(f"no program {compression} here")
        elf = b"\x7fELF" + os.urandom(3000)
        pack = {"xz": ["xz", "-c"], "gzip": ["gzip", "-c"], "zstd": ["zstd", "-c", "-q"], "lz4": ["lz4", "-l", "-c", "-q"], "none": ["cat"]}
        packed = subprocess.run(pack[compression], input=elf, stdout=subprocess.PIPE, check=True).stdout
        if compression != "none":
            packed += struct.pack("<I", len(elf))
        head = bytearray(0x400)
        head[0x1F1], head[0x202:0x206] = 1, b"HdrS"
        struct.pack_into("<II", head, 0x248, 16, len(packed))
        struct.pack_into("<H", head, 0x20E, 0x100)
        head[0x300:0x312] = b"6.1.0-9-test (x) #"
        image = bytes(head) + bytes(16) + packed
        assert unpack.vmlinux(image, "image") == elf
        assert unpack.release(image, "image") == "6.1.0-9-test"

    def test_command_script(self, tmp_path: Path) -> None:
        """Arguments and values reach the command byte by byte."""
        words = [
            sys.executable,
            "-c",
            "import sys, os, json; print(json.dumps([sys.argv[1:], os.environ['V'], os.getcwd()]))",
            "a 'b\n$c",
            "",
            "\udcff",
        ]
        script = guest.command_script(words, str(tmp_path), {"V": '"\\'})
        done = subprocess.run(["sh"], input=script, capture_output=True, check=True)
        assert json.loads(done.stdout) == [words[3:], '"\\', str(tmp_path)]

    @pytest.mark.parametrize(("status", "outcome"), [(None, machine.Outcome(None, "timeout")), ("7", machine.Outcome(7))])
    def test_what_was_written_is_passed_on(self, tmp_path: Path, status: str | None, outcome: machine.Outcome) -> None:
        """Whether the time is up or the command has ended, its output comes first."""
        passed = tmp_path / "passed"
        for name, text in {"started": "", "stdout": "said before\n", **({"status": status} if status else {})}.items():
            (tmp_path / name).write_text(text)
        with open(passed, "wb") as out, subprocess.Popen(["sleep", "1000"]) as emulator:
            streams = [machine.Stream(tmp_path / "stdout", out.fileno())]
            try:
                assert machine.watch(emulator, tmp_path, streams, 0.01, progress.Progress()) == outcome
            finally:
                streams[0].close()
                emulator.kill()
        assert passed.read_text() == "said before\n"

    def test_left_overs_are_swept(self, tmp_path: Path) -> None:
        """The folder of a killed lab goes with the next one's start; a running one's stays."""
        with cache.run_folder(tmp_path) as running:
            (tmp_path / "runs" / "dead").mkdir()
            with cache.run_folder(tmp_path) as another:
                assert {path.name for path in (tmp_path / "runs").iterdir()} == {running.name, another.name}
        assert list((tmp_path / "runs").iterdir()) == []

    def test_draft_appears_whole_or_not_at_all(self, tmp_path: Path) -> None:
        """A folder under construction has its name at the end only."""
        with cache.under_construction(tmp_path / "made") as draft:
            (draft / "file").touch()
            assert not (tmp_path / "made").exists()
        assert (tmp_path / "made" / "file").exists()
        with contextlib.suppress(ZeroDivisionError), cache.under_construction(tmp_path / "other"):
            raise ZeroDivisionError
        assert [path.name for path in tmp_path.iterdir()] == ["made"]

    @pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="no qemu-system-x86_64 here")
    def test_commas_are_escaped(self) -> None:
        """A comma in a path does not end the emulator's option."""
        words = machine.command_line(Path("/k"), Path("/a,b"), 512)
        assert "local,id=share,path=/a,,b/share,security_model=none,multidevs=remap" in words


def module(info: bytes) -> bytes:
    """A minimal ELF file with `info` as its .modinfo."""
    names = b"\0.modinfo\0.shstrtab\0"
    head = 64
    table = head + len(info) + len(names)
    ident = b"\x7fELF\x02\x01" + bytes(10)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    entry = "<IIQQQQIIQQ"
    sections = struct.pack(entry, *[0] * 10)
    sections += struct.pack(entry, 1, 1, 0, 0, head, len(info), 0, 0, 1, 0)
    sections += struct.pack(entry, 10, 3, 0, 0, head + len(info), len(names), 0, 0, 1, 0)
    return header + info + names + sections
