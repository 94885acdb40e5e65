"""Images and neighbours that mean harm: what they put in the way of a mount, and what comes of it. The numbers are those of
vulnerabilities that other runtimes have had."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles import Box, eventually, proc_status, reap
from tests.real.test_rootfs import MOUNTS, flags, mountinfo


@pytest.fixture
def outside(box: Box) -> Iterator[Path]:
    """A directory of the host in which nothing may be made, and on which nothing may be mounted."""
    folder = box.folder / "outside"
    (folder / "dir").mkdir(parents=True)
    (folder / "file").write_text("mine")
    yield folder
    assert sorted(os.listdir(folder)) == ["dir", "file"]
    assert os.listdir(folder / "dir") == []
    assert (folder / "file").read_text() == "mine"
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()


def stop(neighbour: "subprocess.Popen[bytes]") -> None:
    """Ends a process and those it has started."""
    os.killpg(neighbour.pid, signal.SIGKILL)
    neighbour.wait()
    assert eventually(lambda: not reap())


def replaced(path: Path, to: Path | str) -> None:
    """Puts a link in the place of an empty directory or a file of the image."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.symlink_to(to)


@pytest.mark.parametrize(("place", "kind"), [("proc", "proc"), ("sys", "sysfs")])
@pytest.mark.parametrize("to", ["OUTSIDE/dir", "/etc", "nowhere"])
def test_proc_and_sysfs_where_the_image_has_a_link(box: Box, outside: Path, place: str, kind: str, to: str) -> None:
    """CVE-2023-27561, CVE-2019-19921: what relies on /proc being one must not be led to another place."""
    replaced(box.rootfs / place, to.replace("OUTSIDE", str(outside)))
    done = box.run()
    assert done.status == 1
    assert f'filesystem "{kind}" must be mounted on ordinary directory' in done.err
    assert box.left() == []


def test_proc_where_the_image_has_a_file(box: Box) -> None:
    (box.rootfs / "proc").rmdir()
    (box.rootfs / "proc").touch()
    assert 'filesystem "proc" must be mounted on ordinary directory' in box.run().err


def test_a_volume_in_the_place_of_proc(box: Box) -> None:
    """CVE-2019-16884: what is asked of the kernel does not go through the container's /proc, so a false one learns and changes nothing."""
    false = box.folder / "false"
    for name in ("self/attr/apparmor", "thread-self/attr/apparmor", "self/fd", "sys/kernel", "sys/net/ipv4"):
        (false / name).mkdir(parents=True)
    for name in ("self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/apparmor/exec", "thread-self/attr/exec", "self/oom_score_adj"):
        (false / name).touch()
    (false / "sys/net/ipv4/ip_forward").write_text("false")
    box.mount("/proc", str(false), "bind")
    box.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    pid = box.started()
    status = proc_status(pid)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    read = subprocess.run(["nsenter", "--net", "--target", str(pid), "cat", "/proc/sys/net/ipv4/ip_forward"], capture_output=True, text=True, check=True)
    assert read.stdout == "1\n"
    assert {path.read_text() for path in false.rglob("*") if path.is_file()} == {"", "false"}
    box.ended()


@pytest.mark.parametrize("link", ["abs", "up", "chain", "many"])
def test_links_on_the_way(box: Box, outside: Path, link: str) -> None:
    """CVE-2021-30465: absolute, relative, through others; what they name is looked for inside the root, and made there."""
    (box.rootfs / "abs").symlink_to(outside)
    (box.rootfs / "up").symlink_to("../../../../../../../.." + str(outside))
    (box.rootfs / "chain").symlink_to("abs")
    for n in range(20):
        (box.rootfs / f"many{n}").symlink_to(f"many{n + 1}")
    (box.rootfs / "many20").symlink_to(f"..{outside}")
    (box.rootfs / "many").symlink_to("many0")
    (box.folder / "source").mkdir()
    (box.folder / "source.txt").write_text("source")
    places = ["", "/dir", "/new/deeper"]
    for place in places:
        box.mount(f"/{link}{place}", "tmpfs", kind="tmpfs")
        box.mount(f"/{link}{place}", str(box.folder / "source"), "bind")
    files = ["/file", "/new/file"]
    for place in files:
        box.mount(f"/{link}{place}", str(box.folder / "source.txt"), "bind")
    text = box.says(f"cat /{link}/file /{link}/new/file; echo; {MOUNTS}")
    assert text.startswith("sourcesource\n")
    assert {f"{outside}{place}" for place in places + files} <= mountinfo(text).keys()
    assert sorted(os.listdir(box.folder / "source")) == ["dir", "file", "new"]


def test_links_in_a_circle(box: Box) -> None:
    (box.rootfs / "a").symlink_to("b")
    (box.rootfs / "b").symlink_to("/a")
    box.mount("/a/x", "tmpfs", kind="tmpfs")
    assert "too many symbolic links on the way to /a/x" in box.run().err
    box.config["mounts"][-1]["destination"] = "/dev/a/x"  # found only when the first mount is there
    (box.folder / "dev").mkdir()
    (box.folder / "dev/a").symlink_to("a")
    box.config["mounts"][1] = {"destination": "/dev", "type": "bind", "source": str(box.folder / "dev"), "options": ["bind"]}
    del box.config["mounts"][2]
    done = box.run()
    assert done.status == 1
    assert "too many levels of symbolic links" in done.err
    assert box.left() == []


@pytest.mark.parametrize("place", ["/proc/self/cwd/x", "/proc/self/root/x", "/proc/1/fd/3", "/proc/self/exe"])
def test_magic_links_are_no_way(box: Box, outside: Path, place: str) -> None:
    """They lead where no path leads: openat2(2), RESOLVE_NO_MAGICLINKS."""
    box.mount(place, str(outside / "file"), "bind")
    done = box.run()
    assert done.status == 1
    assert "too many levels of symbolic links" in done.err or "no such file" in done.err
    assert box.left() == []


def test_links_on_a_volume(box: Box, outside: Path) -> None:
    """Not of the image but of an earlier mount, so they are there only once it is mounted."""
    volume = box.folder / "volume"
    volume.mkdir()
    (volume / "abs").symlink_to(outside)
    (volume / "up").symlink_to("../../../../../../../.." + str(outside))
    (volume / "new").symlink_to(f"{outside}/new")
    box.mount("/volume", str(volume), "bind")
    box.mount("/volume/abs/dir", "tmpfs", kind="tmpfs")
    box.mount("/volume/up/file", str(outside / "file"), "bind")
    done = box.sh(MOUNTS).run()
    if done.status == 0:
        assert {f"{outside}/dir", f"{outside}/file"} <= mountinfo(done.out).keys()
    assert box.left() == []


def test_a_neighbour_that_changes_paths_meanwhile(box: Box, outside: Path) -> None:
    """CVE-2021-30465 as it was found: another container exchanges folders of a shared volume for links, again and again."""
    volume = box.folder / "volume"
    (volume / "a/b").mkdir(parents=True)
    script = f"while :; do mv a/b c; ln -s {outside} a/b; rm a/b; mv c a/b; mv a d; ln -s ../../../../..{outside} a; rm a; mv d a; done"
    neighbour = subprocess.Popen(["sh", "-c", script], cwd=volume, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        box.mount("/volume", str(volume), "bind")
        for n in range(3):
            box.mount(f"/volume/a/b/dir{n}", "tmpfs", "size=4k", kind="tmpfs")
            box.mount(f"/volume/a/b/new/file{n}", str(outside / "file"), "bind", "ro")
        box.linux["maskedPaths"] = ["/volume/a/b/dir0"]
        for _ in range(15):
            box.sh("true").run()
            assert sorted(os.listdir(outside)) == ["dir", "file"]
            assert box.left() == []
    finally:
        stop(neighbour)


def test_renames_elsewhere_on_the_host(box: Box) -> None:
    """With ".." in a path, each of them can make openat2(2) say EAGAIN: a busy host is no reason for a container to fail."""
    (box.rootfs / "up").symlink_to("/".join([".."] * 50))
    (box.rootfs / "etc/secret").write_text("secret")
    box.linux["maskedPaths"] = ["/up/etc/secret"]
    box.linux["readonlyPaths"] = ["/up/tmp"] * 20
    (box.folder / "a").touch()
    script = "import os\nwhile True: os.rename('a', 'b'); os.rename('b', 'a')"
    busy = subprocess.Popen([sys.executable, "-c", script], cwd=box.folder, start_new_session=True)
    try:
        for _ in range(5):
            assert box.says("cat /etc/secret; touch /tmp/x 2>&1; true").endswith("Read-only file system\n")
    finally:
        stop(busy)


def test_masks_are_made_of_the_hosts_null(box: Box) -> None:
    """CVE-2025-31133: an image whose /dev/null is a link to what would then be bound, writable, over every masked path."""
    box.config["mounts"] = [m for m in box.config["mounts"] if not m["destination"].startswith("/dev")]
    (box.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    (box.rootfs / "secret").write_text("secret")
    done = box.run()
    assert done.status == 1 and "make /dev/null (c 1:3): something else is there already" in done.err
    assert box.left() == []
    (box.rootfs / "dev/null").rename(box.folder / "null")
    box.mount("/dev", str(box.folder), "bind")
    box.linux["maskedPaths"] = ["/secret", "/proc/keys", "/dev/null"]
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    out = box.says(f"stat -c '%F %t:%T' /secret /proc/keys; {MOUNTS}")
    assert out.startswith("character special file 1:3\n" * 2)
    assert not [fields for fields in mountinfo(out).values() if "core_pattern" in fields[3]]
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_masks_behind_links_stay_inside(box: Box, outside: Path) -> None:
    (box.rootfs / "link").symlink_to(outside / "file")
    (box.rootfs / "folder").symlink_to("../../../.." + str(outside))
    box.linux["maskedPaths"] = ["/link", "/folder", "/folder/file"]
    box.linux["readonlyPaths"] = ["/folder/dir", "/link"]
    box.says("true")


def test_a_console_where_the_image_has_a_link(box: Box) -> None:
    """CVE-2025-52565: the terminal covers the link itself, not what it names."""
    box.config["mounts"] = [m for m in box.config["mounts"] if m["destination"] != "/dev"]
    (box.rootfs / "dev/pts").mkdir()
    (box.rootfs / "target").write_text("target")
    (box.rootfs / "dev/console").symlink_to("/target")
    box.process["terminal"] = True
    done = box.sh(f"stat -c %F /dev/console; cat /target; echo; {MOUNTS}").run()
    out = done.out.replace("\r", "")
    assert out.startswith("character special file\ntarget\n")
    assert "/target" not in mountinfo(out)


def test_dev_where_the_image_has_a_link(box: Box, outside: Path) -> None:
    replaced(box.rootfs / "dev", outside)
    out = box.says(f"echo x > /dev/null; ls -l /dev/full; {MOUNTS}")
    assert str(outside) in mountinfo(out)


def test_flags_hold_wherever_the_mount_lands(box: Box, outside: Path) -> None:
    (box.rootfs / "link").symlink_to(outside / "dir")
    box.mount("/link", str(box.folder / "outside/dir"), "bind", "ro", "nosuid", "nodev", "noexec")
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags(box.says(MOUNTS), str(outside / "dir"))
