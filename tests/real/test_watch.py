"""watch over real containers: what happens to them is told, by the event where there is one, and nothing of it stays.

The interval is so long that a test would end before it, except where nothing but the interval can find something.
"""

import json
import os
import selectors
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import PATIENCE, Box, children, eventually, status_of
from tests.real.test_denials import filtered, unreadable

LONG = "3600"
Event = dict[str, Any]


class Watching:
    """A watch that runs, and what it says."""

    def __init__(self, box: Box, *options: str) -> None:
        words = box.words("watch", "--json", "--listen", "127.0.0.1:0", *options)
        self.errors = box.folder / "watch.err"
        with open(self.errors, "wb") as err:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err)
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        self.text = b""
        self.said: list[Event] = []
        self.read = 0  # how many of them wait() has gone past
        self.at = self.wait(lambda event: event["event"] == "watching")["listen"]

    def wait(self, wanted: Callable[[Event], bool]) -> Event:
        """The next event that is wanted, behind the last one that was waited for."""
        end = time.monotonic() + PATIENCE
        while True:
            while self.read < len(self.said):
                self.read += 1
                if wanted(self.said[self.read - 1]):
                    return self.said[self.read - 1]
            assert time.monotonic() < end, self.said
            self._hear(end - time.monotonic())

    def _hear(self, seconds: float) -> None:
        assert self.process.stdout
        if not self.selector.select(seconds):
            return
        piece = self.process.stdout.read()
        assert piece, (self.said, self.errors.read_text())
        *whole, self.text = (self.text + piece).split(b"\n")
        self.said += map(json.loads, whole)

    def status(self, id: str, status: str) -> Event:
        """Waits for a container to be in a status."""
        return self.wait(lambda event: (event["event"], event["container"], event.get("status")) == ("status", id, status))

    def verdict(self, id: str, verdict: str) -> Event:
        """Waits for a verdict on a container."""
        return self.wait(lambda event: (event["event"], event["container"], event.get("verdict")) == ("verdict", id, verdict))

    def gone(self, id: str) -> Event:
        """Waits until a container is gone."""
        return self.wait(lambda event: (event["event"], event["container"]) == ("gone", id))

    def metrics(self) -> dict[str, float]:
        """Every sample."""
        with urllib.request.urlopen(f"http://{self.at}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def verifications(self) -> float:
        """How many there were."""
        return sum(value for name, value in self.metrics().items() if name.startswith("rundlet_verifications_total"))

    def held(self) -> tuple[int, int]:
        """How many descriptors and inotify watches it has."""
        infos = []
        for path in Path(f"/proc/{self.process.pid}/fdinfo").iterdir():
            with suppress(FileNotFoundError):  # one that it had for a moment
                infos.append(path.read_text())
        return len(infos), sum(text.count("inotify wd:") for text in infos)

    def end(self, signo: int = signal.SIGTERM) -> int:
        """Ends it; the exit status."""
        self.process.send_signal(signo)
        return self.process.wait(PATIENCE)


@pytest.fixture
def watching(box: Box) -> Iterator[Callable[..., Watching]]:
    """Starts watch; it must end cleanly, and have complained of nothing."""
    made: list[Watching] = []

    def start(*options: str) -> Watching:
        made.append(Watching(box, *(options or ("--interval", LONG))))
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            assert one.end() == 0
        assert one.errors.read_text() == ""


def counted(watch: Watching, before: float) -> bool:
    """Whether something was verified since."""
    return eventually(lambda: watch.verifications() > before)


def test_the_life_of_a_container(box: Box, watching: Callable[..., Watching]) -> None:
    watch = watching()  # before there is even a root of containers
    box.created()
    assert watch.status(box.id, "created")["verdict"] is None
    assert watch.metrics()['rundlet_containers{status="created"}'] == 1
    box.ok("start", box.id)
    watch.status(box.id, "running")
    assert "capabilities" in watch.verdict(box.id, "holds")["checks"]
    before = watch.verifications()
    assert box.exec("true").status == 0
    assert counted(watch, before)
    box.ok("pause", box.id)
    watch.status(box.id, "paused")
    box.ok("resume", box.id)
    watch.status(box.id, "running")
    box.ended()
    assert watch.status(box.id, "stopped")["verdict"] is None
    box.ok("delete", box.id)
    watch.gone(box.id)
    assert [event["verdict"] for event in watch.said if event["event"] == "verdict"] == ["holds"]
    assert not [name for name in watch.metrics() if box.id in name]


def test_what_was_there_before(box: Box, watching: Callable[..., Watching]) -> None:
    box.started()
    watch = watching()
    watch.status(box.id, "running")
    watch.verdict(box.id, "holds")
    assert watch.metrics()[f'rundlet_container_verified{{container="{box.id}",result="holds"}}'] == 1


def test_a_limit_changed_by_hand(box: Box, watching: Callable[..., Watching]) -> None:
    box.linux["resources"] = {"pids": {"limit": 64}}
    box.started()
    watch = watching()
    watch.verdict(box.id, "holds")
    file = box.limit("pids.max", "pids.max")
    file.write_text("4096")
    found = watch.verdict(box.id, "differs")
    [difference] = found["differences"]
    assert (difference["field"], "64" in difference["wanted"], "4096" in difference["found"]) == ("limit", True, True)
    assert watch.metrics()[f'rundlet_container_drift{{container="{box.id}",field="limit"}}'] == 1
    file.write_text("64")
    watch.verdict(box.id, "holds")
    assert watch.metrics()[f'rundlet_container_drift{{container="{box.id}",field="limit"}}'] == 0
    box.ok("update", "--pids-limit", "32", box.id)  # what rundlet itself is asked for is no drift
    before = watch.verifications()
    assert counted(watch, before - 1)
    assert len([event for event in watch.said if event["event"] == "verdict"]) == 3


@pytest.mark.parametrize("peer", ["rundlet", "crun", "runc"])
def test_a_container_of_any_runtime(boxes: Callable[..., Box], watching: Callable[..., Watching], peer: str) -> None:
    """By its first process and the bundle: a limit by the event, its end, and then there is nothing left to be watched."""
    words = {"rundlet": bundles.words(), "crun": bundles.crun(), "runc": [shutil.which("runc") or ""]}[peer]
    if not words or not words[0]:
        pytest.skip(f"there is no {peer} here")
    box = boxes(words)
    box.linux["resources"] = {"pids": {"limit": 64}, "devices": [{"allow": False, "access": "rwm"}]}
    pid = box.sh("sleep 1000").created()
    assert box.call_apart("start", box.id).status == 0
    name = f"pid {pid}"
    try:
        watch = watching("--interval", LONG, "--pid", str(pid), "--config", str(box.bundle))
        assert "root" not in watch.said[0] and watch.said[0]["container"] == name
        watch.status(name, "running")
        watch.verdict(name, "holds")
        assert watch.metrics()[f'rundlet_container_verified{{container="{name}",result="holds"}}'] == 1
        file = box.limit("pids.max", "pids.max")
        file.write_text("4096")
        [difference] = watch.verdict(name, "differs")["differences"]
        assert (difference["field"], "64" in difference["wanted"], "4096" in difference["found"]) == ("limit", True, True)
        file.write_text("64")
        watch.verdict(name, "holds")
    finally:
        box.call_apart("delete", "--force", box.id)
    watch.gone(name)
    assert watch.process.wait(PATIENCE) == 0


def test_once_of_a_container_of_any_runtime(box: Box) -> None:
    pid = box.started()
    done = box.call_apart("watch", "--once", "--json", "--pid", str(pid), "--config", str(box.bundle))
    [said] = map(json.loads, done.out.splitlines())
    assert (done.status, said["container"], said["verdict"]) == (0, f"pid {pid}", "holds")
    box.process["capabilities"]["bounding"] = []
    box.save()
    done = box.call_apart("watch", "--once", "--pid", str(pid), "--config", str(box.bundle))
    assert (done.status, f"pid {pid}: differs: " in done.out) == (1, True)


@pytest.mark.parametrize(("options", "why"), [
    (["--pid", "1"], "watch takes --pid N with --config FILE, or neither"),
    (["--config", "x"], "watch takes --pid N with --config FILE, or neither"),
    (["--pid", "1", "--config", "/nothing/there"], "cannot read /nothing/there: no such file or directory"),
])  # fmt: skip
def test_what_cannot_be_watched(box: Box, options: list[str], why: str) -> None:
    done = box.call("watch", *options)
    assert (done.status, done.out, why in done.err, done.err.count("\n")) == (2, "", True, 1)


def joined(box: Box, pid: int) -> "subprocess.Popen[bytes]":
    """A process of the host's that joins all namespaces of the container and its cgroup, with all capabilities, as nsenter(1) does it."""
    groups = " ".join(f"{path}/cgroup.procs" for path in map(str, box.cgroups()))
    script = f"for file in {groups}; do echo $$ >$file; done; exec nsenter --target {pid} --all sleep 1000"
    return subprocess.Popen(["sh", "-c", script])


def test_a_process_that_joins_with_more(box: Box, watching: Callable[..., Watching]) -> None:
    pid = box.started()
    watch = watching()
    watch.verdict(box.id, "holds")
    other = joined(box, pid)
    try:
        found = watch.verdict(box.id, "differs")
        assert "capabilities" in {difference["field"] for difference in found["differences"]}
    finally:
        for child in children(other.pid):
            os.kill(child, signal.SIGKILL)
        other.kill()
        other.wait()
    watch.verdict(box.id, "holds")  # its end is an event


def test_what_only_the_interval_finds(box: Box, watching: Callable[..., Watching]) -> None:
    """A mask that is taken away: the kernel tells nobody of it."""
    pid = box.started()
    watch = watching("--interval", "1")
    watch.verdict(box.id, "holds")
    subprocess.run(["nsenter", "--target", str(pid), "--mount", "umount", "/sys/firmware"], check=True)
    assert watch.verdict(box.id, "differs")["differences"][0]["field"] == "masked-path"


def test_an_exec_on_its_way_is_no_drift(box: Box, watching: Callable[..., Watching]) -> None:
    box.started()
    watch = watching("--interval", "100ms")
    watch.verdict(box.id, "holds")
    for _ in range(15):
        assert box.exec("true").status == 0
    before = watch.verifications()
    assert counted(watch, before + 2)
    assert {event["verdict"] for event in watch.said if event["event"] == "verdict"} == {"holds"}


def test_fifty_containers_come_and_go(box: Box, watching: Callable[..., Watching]) -> None:
    watch = watching()
    box.root.mkdir(exist_ok=True)
    one = box.another()
    one.started()
    watch.verdict(one.id, "holds")
    one.ended()
    one.ok("delete", one.id)
    watch.gone(one.id)
    before = watch.held()
    for n in range(50):
        box.id = f"{one.id}-{n}"
        box.linux["cgroupsPath"] = f"/{box.id}"
        pid = box.created()
        if n % 2:
            box.ok("start", box.id)
        if n % 10 == 0:
            watch.status(box.id, "created")
        box.ok("delete", "--force", box.id)
        status_of(pid)
        if n % 10 == 0:
            watch.gone(box.id)
    # it may have had one more for a moment when it was looked at before: of fifty containers none has left anything
    assert eventually(lambda: all(now <= then for now, then in zip(watch.held(), before, strict=True))), (watch.held(), before)
    assert eventually(lambda: not any(value for name, value in watch.metrics().items() if name.startswith("rundlet_containers{")))
    assert not [name for name in watch.metrics() if 'container="' in name and 'container=""' not in name]  # denials may be anybody's
    kinds = [event["container"] for event in watch.said if event["event"] in ("status", "gone")]
    assert sum(event["event"] == "gone" for event in watch.said) == len(set(kinds))


def test_a_root_that_goes_and_comes_again(box: Box, watching: Callable[..., Watching]) -> None:
    watch = watching()
    for _ in range(2):
        box.created()
        watch.status(box.id, "created")
        pid = box.pid
        box.ok("delete", "--force", box.id)
        status_of(pid)
        watch.gone(box.id)
        box.root.rmdir()


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_asked_to(box: Box, watching: Callable[..., Watching], signo: int) -> None:
    box.started()
    watch = watching()
    watch.verdict(box.id, "holds")
    stream = urllib.request.urlopen(f"http://{watch.at}/events")  # a page that stays does not keep it
    assert stream.readline() == b"retry: 2000\n"
    assert watch.end(signo) == 0
    assert stream.read().endswith(b"\n\n")
    assert box.status == "running"


def test_it_ends_when_nobody_listens(box: Box, watching: Callable[..., Watching]) -> None:
    watch = watching()
    assert watch.process.stdout
    watch.process.stdout.close()
    box.created()
    assert watch.process.wait(PATIENCE) == 141


def test_once(box: Box) -> None:
    assert box.ok("watch", "--once").out == ""
    box.linux["resources"] = {"pids": {"limit": 64}}
    box.started()
    assert f"{box.id}: holds: " in box.call_apart("watch", "--once").out
    box.limit("pids.max", "pids.max").write_text("4096")
    done = box.call_apart("watch", "--once", "--json")
    shown = json.loads(done.out)
    assert (done.status, shown["schema"], shown["verdict"], shown["differences"][0]["field"]) == (1, "rundlet.watch/1", "differs", "limit")
    state = box.root / box.id / "state.json"
    text = state.read_text()
    state.write_text("{}")
    done = box.call_apart("watch", "--once")
    assert done.status == 2
    assert "cannot tell: " in done.out
    state.write_text(text)


def test_where_it_cannot_listen(box: Box, watching: Callable[..., Watching]) -> None:
    watch = watching()
    done = box.call("watch", "--listen", watch.at)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"rundlet: cannot listen on {watch.at}: address already in use; choose another address by --listen ADDR:PORT, or --listen none\n"
    done = box.call("watch", "--listen", "web.example:80")
    assert (done.status, done.err.startswith('rundlet: --listen: "web.example" is no IP address;')) == (2, True)


def test_an_address_that_others_reach_is_warned_of(box: Box) -> None:
    words = box.words("watch", "--listen", "0.0.0.0:0")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        assert "page http://0.0.0.0:" in process.stdout.readline()
        process.terminate()
        assert process.stderr.read().startswith("rundlet: warning: everybody who reaches 0.0.0.0:")


def test_without_a_server(box: Box) -> None:
    words = box.words("watch", "--listen", "none")
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert "http" not in process.stdout.readline()
        sockets = [link for fd in Path(f"/proc/{process.pid}/fd").iterdir() if (link := os.readlink(fd)).startswith("socket:")]
        inodes = {link[8:-1] for link in sockets}
        assert not [line for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[9] in inodes]
        process.terminate()


def test_nothing_of_a_process_is_shown(box: Box, watching: Callable[..., Watching]) -> None:
    """No variable of its environment and no word of its command line leaves by the page, the metrics or the lines."""
    box.process["env"].append("PASSWORD=hunter2")
    box.sh("sleep 1000; : swordfish")
    box.linux["resources"] = {"pids": {"limit": 64}}
    box.started()
    watch = watching()
    watch.verdict(box.id, "holds")
    box.limit("pids.max", "pids.max").write_text("4096")
    watch.verdict(box.id, "differs")
    text = json.dumps(watch.said)
    with urllib.request.urlopen(f"http://{watch.at}/metrics") as answer:
        text += answer.read().decode()
    with urllib.request.urlopen(f"http://{watch.at}/events") as stream:
        while "pids" not in (line := stream.readline().decode()):
            text += line
        text += line
    assert box.id in text
    assert "hunter2" not in text and "swordfish" not in text


@pytest.mark.skipif(bool(unreadable()), reason=unreadable())
def test_what_filters_did_is_counted(box: Box, watching: Callable[..., Watching]) -> None:
    filtered(box, "SCMP_ACT_LOG", "umask")
    box.sh("(while :; do umask 1; sleep 1; done) & wait").started()
    watch = watching()
    found = watch.wait(lambda event: event["event"] == "denied" and event["container"] == box.id)
    assert (found["layer"], found["verdict"], found["operation"]) == ("seccomp", "allowed", "umask")
    assert watch.metrics()[f'rundlet_denials_total{{container="{box.id}",layer="seccomp"}}'] >= 1
    box.ended()


def test_it_changes_nothing(box: Box, watching: Callable[..., Watching]) -> None:
    """Not one file of the container's state, its bundle and its cgroups is written."""
    box.started()

    def seen() -> list[tuple[str, int, int]]:
        files = [path for folder in (box.root, box.bundle) for path in folder.rglob("*")]
        return sorted((str(path), path.lstat().st_mtime_ns, path.lstat().st_size) for path in files)

    before = seen()
    watch = watching("--interval", "100ms")
    watch.verdict(box.id, "holds")
    assert counted(watch, watch.verifications() + 3)
    assert seen() == before
