"""tmpcopyup: a tmpfs that begins with what the image has in its place, and never with anything else."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from tests.bundles import Box, user_namespace
from tests.real.test_mounts_hostile import stop
from tests.real.test_rootfs import MOUNTS, flags, mountinfo

LOOK = "cd /data && find . | sort | while read -r p; do stat -c '%n %F %a %u:%g %s %Y' $p; done"


def fill(folder: Path, base: int = 0) -> None:
    """All that a directory of an image may hold."""
    (folder / "dir/deeper").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "file").write_text("content")
    (folder / "dir/deeper/big").write_bytes(os.urandom(1 << 20) + b"end")
    (folder / "none").touch()
    (folder / "odd name\ttab").touch()
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "dangling").symlink_to(("x" * 199 + "/") * 5)
    os.mkfifo(folder / "fifo")
    for path in folder.rglob("*"):
        os.chown(path, base + 7, base + 8, follow_symlinks=False)
    (folder / "dir").chmod(0o1777)
    (folder / "file").chmod(0o4711)
    (folder / "none").chmod(0)
    for path in folder.rglob("*"):
        os.utime(path, (1000, 2000), follow_symlinks=False)
    folder.chmod(0o2751)
    os.chown(folder, base + 3, base + 4)
    os.utime(folder, (1000, 3000))


def looks(folder: Path, base: int = 0) -> list[str]:
    """As LOOK prints it, of the image, from outside."""
    kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "regular file", stat.S_IFLNK: "symbolic link", stat.S_IFIFO: "fifo"}
    lines = []
    for path in [folder, *folder.rglob("*")]:
        s = path.lstat()
        kind = kinds[stat.S_IFMT(s.st_mode)] if not stat.S_ISREG(s.st_mode) or s.st_size else "regular empty file"
        size = "" if stat.S_ISDIR(s.st_mode) else s.st_size
        name = "./" + str(path.relative_to(folder)) if path != folder else "."
        lines.append(f"{name} {kind} {stat.S_IMODE(s.st_mode):o} {s.st_uid - base}:{s.st_gid - base} {size} {int(s.st_mtime)}")
    return sorted(lines)


def without_sizes_of_folders(text: str) -> list[str]:
    """A folder's size is its filesystem's."""
    lines = []
    for line in text.splitlines():
        head, size, time = line.rsplit(" ", 2)
        lines.append(f"{head} {'' if ' directory ' in head else size} {time}")
    return sorted(lines)


@pytest.mark.parametrize("user", [False, True])
def test_everything_is_there(box: Box, user: bool) -> None:
    base = 100000 if user else 0
    (box.rootfs / "data").mkdir()
    fill(box.rootfs / "data", base)
    os.rename(box.rootfs / "data/odd name\ttab", box.rootfs / "data/odd")  # the shell's read would not take it whole
    os.utime(box.rootfs / "data", (1000, 3000))
    before = looks(box.rootfs / "data", base)
    if user:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    box.process["capabilities"] = {kind: ["CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")}
    box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    assert without_sizes_of_folders(box.says(LOOK)) == before
    out = box.says("cd /data; cat file; readlink link; readlink dangling | wc -c; tail -c 3 dir/deeper/big; cksum dir/deeper/big 2>/dev/null; echo x > dir/new")
    assert out.startswith("content/etc/passwd\n1001\nend")
    assert looks(box.rootfs / "data", base) == before, "the image itself was changed"


def test_contents_are_the_same(box: Box) -> None:
    (box.rootfs / "data").mkdir()
    content = os.urandom(3 << 20)
    (box.rootfs / "data/big").write_bytes(content)
    box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    pid = box.started()
    assert Path(f"/proc/{pid}/root/data/big").read_bytes() == content
    box.ended()


def test_many_entries_and_names_that_are_odd(box: Box) -> None:
    folder = box.rootfs / "data"
    folder.mkdir()
    names = [f"file-{n}-{'x' * 200}" for n in range(300)] + ["odd name\ttab\nline", "\udcff\udc80", "-rf", "ä"]
    for name in names:
        (folder / name).write_text(name[:7], errors="surrogateescape")
    box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    pid = box.started()
    assert sorted(os.listdir(f"/proc/{pid}/root/data")) == sorted(names)
    assert {(Path(f"/proc/{pid}/root/data") / name).read_text(errors="surrogateescape") for name in names} == {name[:7] for name in names}
    box.ended()


def test_extended_attributes(box: Box) -> None:
    folder = box.rootfs / "data"
    folder.mkdir()
    (folder / "program").write_text("x")
    (folder / "sub").mkdir()
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(folder / "program", "security.capability", capability)
    os.setxattr(folder / "sub", "trusted.mark", b"mark")
    box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    pid = box.started()
    inside = f"/proc/{pid}/root/data"
    assert os.getxattr(f"{inside}/program", "security.capability") == capability
    assert os.getxattr(f"{inside}/sub", "trusted.mark") == b"mark"
    box.ended()


def test_links_are_copied_never_followed(box: Box) -> None:
    """The image's links lead wherever they like; what is copied is the link."""
    (box.folder / "outside").mkdir()
    (box.folder / "outside/secret").write_text("secret")
    folder = box.rootfs / "data"
    folder.mkdir()
    (folder / "out").symlink_to(box.folder / "outside")
    (folder / "up").symlink_to("../../../../../../outside")
    (folder / "loop").symlink_to("loop")
    (folder / "self").symlink_to(".")
    (folder / "proc").symlink_to("/proc/self/root")
    box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    pid = box.started()
    inside = f"/proc/{pid}/root/data"
    assert {name: os.readlink(f"{inside}/{name}") for name in os.listdir(inside)} == {
        "out": str(box.folder / "outside"), "up": "../../../../../../outside", "loop": "loop", "self": ".", "proc": "/proc/self/root",
    }
    box.ended()


def test_the_place_itself_may_be_a_link(box: Box) -> None:
    (box.rootfs / "real").mkdir()
    (box.rootfs / "real/file").write_text("file")
    (box.rootfs / "data").symlink_to("/real")
    box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    out = box.says(f"cat /real/file; echo; {MOUNTS}")
    assert out.startswith("file\n")
    assert "/real" in mountinfo(out)


def test_a_place_that_is_not_there(either: Box) -> None:
    either.mount("/data/new", "tmpfs", "tmpcopyup", "mode=700", kind="tmpfs")
    assert either.says("ls -A /data/new; stat -c %a /data/new") == "700\n"


def test_what_is_mounted_below_stays_out(box: Box) -> None:
    """And is hidden, as by every mount; what the image has is copied around it."""
    (box.folder / "host").mkdir()
    (box.folder / "host/secret").write_text("secret")
    (box.folder / "file").write_text("secret")
    (box.rootfs / "data/in").mkdir(parents=True)
    (box.rootfs / "data/in/image").write_text("image")
    (box.rootfs / "data/at").write_text("image")
    box.mount("/data/in", str(box.folder / "host"), "bind")
    box.mount("/data/at", str(box.folder / "file"), "bind")
    box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
    assert box.says("find /data | sort; stat -c %F /data/at; cat /data/at") == "/data\n/data/at\n/data/in\nregular empty file\n"


def test_with_flags_and_mounts_in_it(box: Box) -> None:
    """A read-only one is filled all the same, and what is mounted in it later finds what was copied."""
    (box.rootfs / "data/sub").mkdir(parents=True)
    (box.rootfs / "data/sub/file").write_text("file")
    (box.folder / "other").write_text("other")
    box.mount("/data", "tmpfs", "tmpcopyup", "ro", "nosuid", "noexec", "size=1m", kind="tmpfs")
    box.mount("/data/sub/file", str(box.folder / "other"), "bind")
    box.mount("/tmp/x", "tmpfs", "tmpcopyup", kind="tmpfs")
    out = box.says(f"cat /data/sub/file; echo; touch /data/sub/x 2>&1; {MOUNTS}")
    assert out.startswith("other\n")
    assert "Read-only file system" in out
    assert {"ro", "nosuid", "noexec"} <= flags(out, "/data")


def test_owner_and_mode_that_are_given(box: Box) -> None:
    (box.rootfs / "data").mkdir(mode=0o711)
    os.chown(box.rootfs / "data", 5, 6)
    box.mount("/data", "tmpfs", "tmpcopyup", "mode=0750", "uid=1", "gid=2", kind="tmpfs")
    assert box.says("stat -c '%a %u:%g' /data") == "750 1:2\n"


def test_too_little_room_is_told_and_leaves_nothing(box: Box) -> None:
    (box.rootfs / "data").mkdir()
    (box.rootfs / "data/big").write_bytes(bytes(range(256)) * 1024)
    box.mount("/data", "tmpfs", "tmpcopyup", "size=64k", kind="tmpfs")
    done = box.run()
    assert done.status == 1
    assert "tmpcopyup of /data: copy /big into the tmpfs" in done.err
    assert box.left() == []


def test_only_for_a_tmpfs(either: Box) -> None:
    (either.folder / "dir").mkdir()
    either.mount("/data", str(either.folder / "dir"), "bind", "tmpcopyup")
    done = either.run()
    assert done.status == 1
    assert "tmpcopyup can be used only with tmpfs" in done.err


def test_an_image_that_changes_meanwhile(box: Box) -> None:
    """Another container may write to the same image: files become links and folders again and again. Whatever comes of it, nothing
    but what is in the image is ever read, and what does not fit is a fault."""
    (box.folder / "outside").mkdir()
    (box.folder / "outside/secret").write_text("secret")
    folder = box.rootfs / "data"
    (folder / "sub").mkdir(parents=True)
    for n in range(40):
        (folder / f"file{n}").write_text("image")
    script = (
        "while :; do for n in 1 5 9 20 33; do rm -rf file$n; ln -s OUT/secret file$n; rm file$n; mkdir file$n; rmdir file$n; echo -n image > file$n; done;"
        " rm -rf sub; ln -s OUT sub; rm sub; mkdir sub; done"
    ).replace("OUT", str(box.folder / "outside"))
    changing = subprocess.Popen(["sh", "-c", script], cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        box.mount("/data", "tmpfs", "tmpcopyup", kind="tmpfs")
        for _ in range(8):
            done = box.sh("cat /data/file*; ls /data/sub").run()
            assert "secret" not in done.out
            assert box.left() == []
    finally:
        stop(changing)
