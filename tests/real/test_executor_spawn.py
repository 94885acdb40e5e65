"""spawn(): what an executor is started from, and what it has when it starts. Each is looked at through /proc from outside."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.executor.builds import NATIVE, ROOT, build

CAP_SYS_ADMIN = 1 << 21

# runs in a process of its own, so that descriptors, signals and namespaces are what the test says they are
PROLOGUE = """
import errno, fcntl, json, os, signal, sys
from rundlet.executor import client
from rundlet.errors import Fault, StepFailed
client.BINARY = sys.argv[1]

def attempt(action, *args):
    try:
        return action(*args)
    except OSError as e:
        return errno.errorcode[e.errno]

def descriptors(pid):
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if not os.path.lexists(f"/proc/{pid}/fd/{fd}"):
            continue  # it was the descriptor of the listing itself
        with open(f"/proc/{pid}/fdinfo/{fd}") as info:
            flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags"))
        found[int(fd)] = [os.readlink(f"/proc/{pid}/fd/{fd}"), bool(flags & os.O_CLOEXEC)]
    return found

def tell(**facts):
    print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := NATIVE.missing():
        pytest.skip(missing)
    return build(NATIVE, tmp_path_factory.mktemp("native") / "executor")


def probe(binary: Path, script: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """Runs a script behind PROLOGUE; what it told."""
    words = [*before, sys.executable, "-c", PROLOGUE + script, str(binary)]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_it_runs_from_a_sealed_memfd_that_nobody_can_write(binary: Path) -> None:
    told = probe(binary, """
x = client.spawn()
x.run([])  # vfork lets us go before the kernel shows the new program: exec_mmap() in fs/exec.c
exe = f"/proc/{x.pid}/exe"
running = attempt(os.open, exe, os.O_WRONLY)
held = os.open(exe, os.O_RDONLY)
x.close()
os.waitpid(x.pid, 0)
again = os.open(f"/proc/self/fd/{held}", os.O_RDWR)
tell(name=os.readlink(f"/proc/self/fd/{held}"), running=running, seals=fcntl.fcntl(held, fcntl.F_GET_SEALS),
     same=os.read(held, 1 << 20).hex(), write=attempt(os.write, again, b"x"),
     pwrite=attempt(os.pwrite, again, b"x", 1 << 20), cut=attempt(os.ftruncate, again, 0),
     grow=attempt(os.ftruncate, again, 1 << 20), more=attempt(fcntl.fcntl, again, fcntl.F_ADD_SEALS, 1))
""")
    assert told["name"] == "/memfd:rundlet (deleted)"
    assert told["running"] in ("ETXTBSY", "EPERM")
    assert told["seals"] & 0xF == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    assert {told[name] for name in ("write", "pwrite", "cut", "grow", "more")} == {"EPERM"}
    assert bytes.fromhex(told["same"]) == binary.read_bytes()


NO_MEMFD = ("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", 'echo 2 > /proc/sys/vm/memfd_noexec && exec "$@"', "sh")


def no_memfd_missing() -> str:
    """Why executing memfds cannot be forbidden in a PID namespace of our own, or nothing."""
    if not Path("/proc/sys/vm/memfd_noexec").exists():
        return "this kernel has no vm.memfd_noexec (Linux 6.3)"
    if not shutil.which("unshare"):
        return "no unshare here"
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return "" if effective & CAP_SYS_ADMIN and os.geteuid() == 0 else "making a PID namespace takes root with CAP_SYS_ADMIN"


@pytest.fixture
def no_memfd() -> tuple[str, ...]:
    if missing := no_memfd_missing():
        pytest.skip(missing)
    return NO_MEMFD


def test_where_memfds_may_not_be_executed_it_runs_through_a_read_only_mount(binary: Path, no_memfd: tuple[str, ...]) -> None:
    told = probe(binary, """
x = client.spawn(keep=0)
fds = descriptors(x.pid)
exe = f"/proc/{x.pid}/exe"
running = attempt(os.open, exe, os.O_WRONLY)
held = os.open(exe, os.O_RDONLY)
with open(f"/proc/{x.pid}/environ", "rb") as environ, open(f"/proc/{x.pid}/cmdline", "rb") as cmdline:
    facts = dict(environ=environ.read().hex(), words=cmdline.read().decode().split("\\0"))
x.close()
os.waitpid(x.pid, 0)
tell(running=running, held=attempt(os.open, f"/proc/self/fd/{held}", os.O_RDWR), chmod=attempt(os.fchmod, held, 0o777),
     same=os.fstat(held).st_ino == os.stat(client.BINARY).st_ino, readonly=os.fstatvfs(held).f_flag & os.ST_RDONLY,
     fds=fds, control=x.bind["control"], memfd=attempt(os.memfd_create, "x", 0x10), **facts)
""", no_memfd)
    assert told["memfd"] == "EACCES", "the kernel did not forbid what this test is about"
    assert told["same"]
    assert told["readonly"]
    assert told["running"] in ("ETXTBSY", "EROFS")
    assert told["held"] == told["chmod"] == "EROFS"
    assert sorted(map(int, told["fds"])) == [0, 1, 2, told["control"]]
    assert (told["environ"], told["words"]) == ("", ["rundlet", str(told["control"]), ""])


def test_where_the_read_only_mount_is_refused_too_the_fault_says_so(binary: Path, no_memfd: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own folders are root's alone
        os.chmod(folder, 0o755)
        told = probe(Path(shutil.copy(binary, folder)), """
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    client.spawn()
except StepFailed as failed:
    tell(step=failed.step, call=failed.call, errno=failed.errno)
""", no_memfd)
    assert told == {"step": "execute the executor through a read-only mount", "call": "open_tree", "errno": 1}


def test_without_a_binary_the_fault_says_what_to_do(tmp_path: Path) -> None:
    told = probe(tmp_path / "executor", """
try:
    client.spawn()
except Fault as fault:
    tell(text=str(fault))
""")
    why = f"cannot open the executor {tmp_path}/executor: no such file or directory"
    assert told["text"] == f"{why}; run `make build`, or reinstall rundlet"


def test_it_has_its_socket_and_nothing_else_and_all_of_it_closes_on_exec(binary: Path) -> None:
    told = probe(binary, """
leaked = [os.dup(0) for _ in range(5)]
reading, writing = os.pipe()
far = fcntl.fcntl(writing, fcntl.F_DUPFD, 700)
for fd in [*leaked, far]:
    os.set_inheritable(fd, True)
mine = descriptors("self")
x = client.spawn({"reading": reading, "far": far})
x.run([])
tell(fds=descriptors(x.pid), bind=x.bind, pipe=os.readlink(f"/proc/self/fd/{reading}"),
     more=sorted(set(descriptors("self")) - set(mine)), ours=x.control.fileno(), inheritable=os.get_inheritable(x.control.fileno()))
""")
    fds = {int(fd): what for fd, what in told["fds"].items()}
    bind = told["bind"]
    assert sorted(bind) == ["control", "far", "reading"]
    assert sorted(fds) == sorted([0, 1, 2, *bind.values()])
    assert all(closes == (fd > 2) for fd, (_, closes) in fds.items())
    assert fds[bind["reading"]][0] == fds[bind["far"]][0] == told["pipe"]
    assert fds[bind["control"]][0].startswith("socket:")
    assert told["more"] == [told["ours"]], "the caller has one descriptor more, the socket"
    assert told["inheritable"] is False


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_descriptors_to_keep_stay_what_they_are(binary: Path, keep: int) -> None:
    told = probe(binary, f"""
pipes = [os.pipe() for _ in range(6)]
ends = [fcntl.fcntl(pipe[1], fcntl.F_DUPFD, 100) for pipe in pipes]
os.closerange(3, 100)
for i, end in enumerate(ends[:4]):
    os.dup2(end, 3 + i)
names = [os.readlink(f"/proc/self/fd/{{3 + i}}") for i in range(4)]
x = client.spawn({{"pipe": ends[5]}}, keep={keep})
x.run([])
tell(fds=descriptors(x.pid), names=names, bind=x.bind)
""")
    fds = {int(fd): what for fd, what in told["fds"].items()}
    for i in range(keep):
        assert fds[3 + i] == [told["names"][i], False]
    assert sorted(fds) == sorted([*range(3 + keep), *told["bind"].values()])
    assert min(told["bind"].values()) >= 3 + keep


def test_it_starts_with_no_signal_blocked_or_ignored_and_no_environment(binary: Path) -> None:
    told = probe(binary, """
os.environ["LD_PRELOAD_NOT"] = "x"
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
for n in set(range(1, 65)) - {9, 19, 32, 33}:
    signal.signal(n, signal.SIG_IGN)
x = client.spawn()
x.run([])
with open(f"/proc/{x.pid}/status") as status, open(f"/proc/{x.pid}/environ", "rb") as environ, open("/proc/self/status") as mine:
    tell(status=status.read(), environ=environ.read().hex(), mine=mine.read())
""")

    def masks(status: str) -> dict[str, int]:
        words = [line.split() for line in status.splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt", "SigPnd"))]
        return {word[0]: int(word[1], 16) for word in words}

    before = masks(told["mine"])
    assert before["SigIgn:"]
    assert before["SigBlk:"], "the test did not set what should be reset"
    assert set(masks(told["status"]).values()) == {0}
    assert told["environ"] == ""


def test_one_that_waits_weighs_next_to_nothing(binary: Path) -> None:
    told = probe(binary, """
x = client.spawn()
x.run([])
with open(f"/proc/{x.pid}/status") as status, open(f"/proc/{x.pid}/smaps_rollup") as rollup:
    lines = [line.split() for line in [*status, *rollup]]
tell(**{line[0][:-1]: int(line[1]) for line in lines if line[-1] == "kB"})
""")
    assert told["VmHWM"] < 1024
    assert 0 < told["Pss"] < 256
    assert told["Private_Dirty"] < 128


def test_it_ends_with_its_client_and_says_so_to_it(binary: Path) -> None:
    told = probe(binary, """
from rundlet.plan.step import Call, Step
x = client.spawn()
x.run([Step("look", Call("getpid", into="pid"))])
os.kill(x.pid, 9)
os.waitpid(x.pid, 0)
faults = []
for _ in range(2):
    try:
        x.run([Step("look", Call("getpid", into="pid"))])
    except Fault as fault:
        faults.append(str(fault))
y = client.spawn()
same = y.run([Step("look", Call("getpid", into="pid"))]).slots["pid"] == y.pid
y.close()
tell(faults=faults, same=same, status=os.waitpid(y.pid, 0)[1])
""")
    assert set(told["faults"]) <= {"the executor has died", "the executor ended without an answer; the kernel log may say why"}
    assert (len(told["faults"]), told["same"], told["status"]) == (2, True, 0)


def test_threads_may_start_executors_at_once(binary: Path) -> None:
    told = probe(binary, """
import threading
from rundlet.plan.step import Call, Step
pids, faults = [], []
def one():
    try:
        for _ in range(5):
            x = client.spawn()
            x.run([])
            found = len(os.listdir(f"/proc/{x.pid}/fd"))
            pids.append((x.run([Step("look", Call("getpid", into="pid"))]).slots["pid"] == x.pid, found))
            x.close()
            os.waitpid(x.pid, 0)
    except Exception as fault:
        faults.append(repr(fault))
threads = [threading.Thread(target=one) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
tell(pids=pids, faults=faults)
""")
    assert told["faults"] == []
    assert told["pids"] == [[True, 4]] * 20
