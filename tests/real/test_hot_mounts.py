"""mounts add, mounts remove: what a running container gets to see, and what it can do about it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests import bundles
from tests.bundles import Box, Done, children, eventually, user_namespace
from tests.real.test_rootfs import flags, mountinfo
from tests.real.test_verify import MS_RDONLY, inside


def bind(destination: str, source: Path | str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["bind", *options]}


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def change(box: Box, verb: str, *mounts: Any) -> Done:
    (box.folder / "mounts.json").write_text(json.dumps(mounts))
    return box.call_apart("mounts", verb, box.id, str(box.folder / "mounts.json"))


def done(box: Box, verb: str, *mounts: Any) -> None:
    got = change(box, verb, *mounts)
    assert (got.status, got.out, got.err) == (0, "", ""), got


def seen(pid: int) -> str:
    return Path(f"/proc/{pid}/mountinfo").read_text()


@pytest.fixture
def running(box: Box) -> Box:
    box.process["capabilities"] = {}
    (box.folder / "dir").mkdir()
    (box.folder / "dir/file").write_text("file")
    return box


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("no_pivot", [False, True])
def test_added_and_removed(running: Box, user: bool, no_pivot: bool) -> None:
    box = running
    if user:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    box.config["mounts"].append(tmpfs("/foo", "mode=755"))
    pid = box.started(*(["--no-pivot"] if no_pivot else []))
    before = seen(pid)
    mounts = [bind("/foo/bar", box.folder / "dir", "ro", "nosuid"), tmpfs("/foo/new", "noexec", "size=64k"), bind("/foo/one", box.folder / "dir/file")]
    done(box, "add", *mounts)
    assert box.exec("cat", "/foo/bar/file", "/foo/one").out == "filefile"
    assert {"ro", "nosuid"} <= flags(seen(pid), "/foo/bar")
    assert {"noexec", "rw"} <= flags(seen(pid), "/foo/new")
    assert box.exec("sh", "-c", "stat -c %u:%g /foo/new; touch /foo/new/x; touch /foo/bar/x 2>&1").out.startswith("0:0\n")
    assert children() == [pid]
    assert "/foo/bar" not in mountinfo(Path("/proc/self/mountinfo").read_text())
    done(box, "remove", *mounts)
    assert mountinfo(seen(pid)).keys() == mountinfo(before).keys()
    assert box.exec("ls", "/foo/bar").out == ""
    box.ended()


@pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace")
@pytest.mark.parametrize("verb", ["add", "remove"])
def test_a_signal_on_the_way_leaves_no_half(running: Box, verb: str) -> None:
    """Sent with the last but one program: all of the mounts are there then, or none."""
    box = running
    pid = box.started()
    mounts = [tmpfs("/one"), tmpfs("/two")]
    (box.folder / "mounts.json").write_text(json.dumps(mounts))
    if verb == "remove":
        done(box, "add", *mounts)
    words = box.words("mounts", verb, box.id, str(box.folder / "mounts.json"))
    when = "inject=sendto:signal=TERM:when=" + ("3" if verb == "add" else "4")
    traced = subprocess.run(["strace", "-qq", "-o", os.devnull, "-e", when, *words], capture_output=True, text=True, check=False)
    assert (traced.returncode, traced.stderr) == (0, ""), traced
    assert {"/one", "/two"} & mountinfo(seen(pid)).keys() == ({"/one", "/two"} if verb == "add" else set())
    box.ended()


def test_options_are_those_of_create(running: Box) -> None:
    """Recursive attributes, tmpcopyup, copied links."""
    box = running
    (box.rootfs / "data").mkdir()
    (box.rootfs / "data/image").write_text("image")
    (box.folder / "link").symlink_to("there")
    pid = box.started()
    done(
        box, "add", bind("/a", box.folder / "dir", "rro"), tmpfs("/data", "tmpcopyup", "ro"),
        bind("/link", box.folder / "link", "copy-symlink"), {"destination": "/mq", "type": "mqueue", "source": "mqueue"},
    )
    assert box.exec("cat", "/data/image").out == "image"
    assert box.exec("readlink", "/link").out == "there\n"
    assert {"ro"} <= flags(seen(pid), "/a") & flags(seen(pid), "/data")
    assert mountinfo(seen(pid))["/mq"][-3] == "mqueue"
    box.ended()


def test_sources_relative_to_the_bundle(running: Box) -> None:
    box = running
    (box.bundle / "here").write_text("here")
    box.started()
    done(box, "add", bind("/there", "here"))
    assert box.exec("cat", "/there").out == "here"
    box.ended()


def test_before_the_start(running: Box) -> None:
    box = running
    box.process["args"] = ["cat", "/new/file"]
    pid = box.created()
    done(box, "add", bind("/new", box.folder / "dir"))
    box.call_apart("start", box.id)
    bundles.status_of(pid)
    assert box.output.read_text() == "file"


def test_all_or_none(running: Box) -> None:
    """When one cannot be made, those before it are taken away again."""
    box = running
    pid = box.started()
    before = seen(pid)
    got = change(box, "add", bind("/a", box.folder / "dir"), tmpfs("/b"), tmpfs("/etc/passwd/x"))
    assert got.status == 1
    assert "/etc/passwd/x" in got.err
    assert "not a directory" in got.err
    assert seen(pid) == before
    got = change(box, "add", bind("/a", box.folder / "dir"), bind("/b", "/nothere"))
    assert got.err == "rundlet: /mounts/1/source: /nothere: no such file or directory\n"
    assert seen(pid) == before
    assert children() == [pid]
    box.ended()


def test_removing_what_is_not_there(running: Box) -> None:
    box = running
    pid = box.started()
    done(box, "add", tmpfs("/a"))
    before = seen(pid)
    for path in ("/tmp", "/nothere", "/etc/passwd"):
        got = change(box, "remove", tmpfs("/a"), tmpfs(path))
        assert (got.status, f"{path} is not mounted; nothing was unmounted" in got.err) == (1, True), got
    assert "the root filesystem cannot be unmounted" in change(box, "remove", tmpfs("/")).err
    assert seen(pid) == before
    box.ended()


def test_nested_ones_go_in_the_other_direction(running: Box) -> None:
    box = running
    pid = box.started()
    before = seen(pid)
    mounts = [tmpfs("/a", "mode=755"), tmpfs("/a/b", "mode=755"), bind("/a/b/c", box.folder / "dir")]
    done(box, "add", *mounts)
    assert box.exec("cat", "/a/b/c/file").out == "file"
    done(box, "remove", *mounts)
    assert seen(pid) == before
    box.ended()


def test_what_is_in_use_goes_when_it_is_let_go(running: Box) -> None:
    box = running
    box.sh("while [ ! -e /a/file ]; do :; done; cd /a; echo in; while [ -e /a/file ]; do :; done; cat file; exec sleep 1000")
    pid = box.started()
    done(box, "add", bind("/a", box.folder / "dir"))
    assert eventually(lambda: "in" in box.output.read_text())
    done(box, "remove", bind("/a", box.folder / "dir"))
    assert eventually(lambda: "file" in box.output.read_text())
    assert "/a" not in mountinfo(seen(pid))
    box.ended()


def test_links_of_the_container_lead_nowhere_outside(running: Box) -> None:
    """It runs, and may put links wherever it likes."""
    box = running
    outside = box.folder / "outside"
    outside.mkdir()
    (box.rootfs / "links").mkdir()
    box.sh(f"cd /links; ln -s {outside} abs; ln -s ../../../../../..{outside} up; ln -s {outside}/new file; echo ready; exec sleep 1000")
    box.process["capabilities"] = {kind: ["CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")}
    pid = box.started()
    assert eventually(lambda: "ready" in box.output.read_text())
    mounts = [bind("/links/abs", box.folder / "dir"), bind("/links/up/deep", box.folder / "dir"), bind("/links/file", box.folder / "dir/file")]
    before = seen(pid)
    done(box, "add", *mounts)
    assert os.listdir(outside) == []
    assert str(outside) not in Path("/proc/self/mountinfo").read_text()
    assert {str(outside), f"{outside}/deep", f"{outside}/new"} <= mountinfo(seen(pid)).keys()  # inside the container's root
    done(box, "remove", *mounts)
    assert seen(pid) == before
    box.ended()


def test_a_container_that_changes_paths_meanwhile(running: Box) -> None:
    box = running
    outside = box.folder / "outside"
    outside.mkdir()
    (box.rootfs / "links").mkdir()
    box.process["capabilities"] = {kind: ["CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")}
    box.sh(f"cd /links; while :; do mkdir -p a/b; rm -r a; ln -s {outside} a; rm a; ln -s ../../../../..{outside} a; rm a; done 2>/dev/null")
    pid = box.started()
    for _ in range(12):
        got = change(box, "add", bind("/links/a/b/c", box.folder / "dir"))
        if got.status == 0:
            change(box, "remove", bind("/links/a/b/c", box.folder / "dir"))
        assert os.listdir(outside) == []
        assert str(outside) not in Path("/proc/self/mountinfo").read_text()
    assert children() == [pid]
    box.ended()


def test_a_paused_container(running: Box) -> None:
    box = running
    pid = box.started()
    box.ok("pause", box.id)
    done(box, "add", tmpfs("/a"))
    assert "/a" in mountinfo(seen(pid))
    box.call("resume", box.id)
    box.ended()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "mounts file: must be a list of mounts, not an object"),
        ("[{}]", "/mounts/0/destination: is required"),
        ("[", "mounts file"),
        ('[{"destination": "/x", "type": "nosuchfs"}]', "mount nosuchfs on /x"),
        ('[{"destination": "/x", "type": "bind", "source": "/tmp", "options": ["idmap"]}]', "idmap needs uidMappings"),
    ],
)
def test_files_that_are_none(running: Box, text: str, words: str) -> None:
    box = running
    box.started()
    (box.folder / "mounts.json").write_text(text)
    got = box.call_apart("mounts", "add", box.id, str(box.folder / "mounts.json"))
    assert got.status == 1
    assert words in got.err
    box.ended()


def test_calls_that_are_none(running: Box) -> None:
    box = running
    assert "mounts takes add or remove" in box.call("mounts", "change", box.id, "x").err
    assert "does not exist" in box.call("mounts", "add", "nobody", "/dev/null").err
    assert "requires an argument: FILE" in box.call("mounts", "add", box.id).err
    assert "ACTION ID FILE" in box.call("mounts", "--help").out
    pid = box.started()
    assert "cannot read /nothere: no such file or directory" in box.call_apart("mounts", "add", box.id, "/nothere").err
    box.call("kill", box.id, "KILL")
    bundles.status_of(pid)
    assert "container not running" in change(box, "add", tmpfs("/a")).err


def test_without_a_mount_namespace(running: Box) -> None:
    box = running
    box.without("mount")
    box.config["mounts"] = []
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    box.started()
    assert "the container has no mount namespace" in change(box, "add", tmpfs("/a")).err
    box.ended()


def test_the_file_may_be_a_pipe(running: Box) -> None:
    box = running
    pid = box.started()
    words = box.words("mounts", "add", box.id, "/dev/stdin")
    got = subprocess.run(words, input=json.dumps([tmpfs("/a")]), capture_output=True, text=True, check=False)
    assert (got.returncode, got.stderr) == (0, "")
    assert "/a" in mountinfo(seen(pid))
    box.ended()


def verified(box: Box) -> list[tuple[str, str, str]]:
    """What verify finds to differ."""
    [one] = json.loads(box.call_apart("verify", "--json", box.id).out)["containers"]
    assert one["unknown"] == [], one
    return [(each["fact"], each["subject"], each["holds"]) for each in one["differences"]]


def asked(box: Box) -> list[str]:
    """The mounts of the container's configuration, less those of the bundle's."""
    config = json.loads((box.root / box.id / "config.json").read_text())
    first = {mount["destination"] for mount in box.config["mounts"]}
    return [mount["destination"] for mount in config["mounts"] if mount["destination"] not in first]


def test_what_is_asked_for_follows(running: Box) -> None:
    """verify compares with what was asked for last."""
    box = running
    (box.rootfs / "link").symlink_to("/foo")
    box.config["mounts"] += [tmpfs("/foo/under"), tmpfs("/foo", "mode=755"), tmpfs("/foo/bar"), tmpfs("/mnt")]
    pid = box.started()
    assert verified(box) == []
    done(box, "add", bind("/link/new", box.folder / "dir", "ro"), tmpfs("/foo/new/../on", "noexec"))
    assert (verified(box), asked(box)) == ([], ["/foo/new", "/foo/on"])
    inside(pid, "remount", "/foo/new")
    inside(pid, "umount", "/foo/on")
    assert verified(box) == [("mount", "/foo/new", "without ro"), ("mount", "/foo/on", "nothing is mounted there")]
    inside(pid, "remount", "/foo/new", MS_RDONLY)
    done(box, "remove", bind("/foo/new", box.folder / "dir"))
    assert (verified(box), asked(box)) == ([("mount", "/foo/on", "nothing is mounted there")], ["/foo/on"])
    # one of create's, with what is on it; what it had covered is seen again
    done(box, "remove", tmpfs("/link"))
    assert (verified(box), asked(box)) == ([], [])
    config = json.loads((box.root / box.id / "config.json").read_text())
    assert [mount["destination"] for mount in config["mounts"]][-2:] == ["/foo/under", "/mnt"]
    inside(pid, "umount", "/foo/under")
    assert verified(box) == [("mount", "/foo/under", "nothing is mounted there")]


def test_what_is_asked_for_stays_where_nothing_was_done(running: Box) -> None:
    box = running
    box.started()
    before = (box.root / box.id / "config.json").read_text()
    assert change(box, "add", tmpfs("/foo"), tmpfs("/foo", "nonsense=1")).status == 1
    assert change(box, "remove", tmpfs("/dev/pts"), tmpfs("/nowhere")).status == 1
    assert ((box.root / box.id / "config.json").read_text(), verified(box)) == (before, [])
    # the folder takes no file, so neither is a mount made that verify would not know of, nor one taken away that it would miss
    (box.root / box.id / "config.json.new").mkdir()
    mounted = seen(box.pid)
    for verb, one in (("add", tmpfs("/foo")), ("remove", tmpfs("/dev/pts"))):
        got = change(box, verb, one)
        assert (got.status, "cannot write config.json in the container's folder: is a directory" in got.err) == (1, True), got
    (box.root / box.id / "config.json.new").rmdir()
    assert (seen(box.pid), verified(box)) == (mounted, [])


def test_what_is_asked_for_is_what_is_left_when_half_is_done(running: Box) -> None:
    box = running
    box.started()
    done(box, "add", tmpfs("/foo"), tmpfs("/mnt"), tmpfs("/mnt/in"))
    got = change(box, "remove", tmpfs("/foo"), tmpfs("/mnt/in"), tmpfs("/mnt"))  # the last one takes the one before along
    assert (got.status, "/mnt/in" in got.err) == (1, True), got
    assert (asked(box), verified(box)) == (["/foo"], [])
