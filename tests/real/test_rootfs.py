"""The container's root as its processes see it: what is mounted, hidden, read-only, and never outside."""

import os
import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bundles
from tests.bundles import CGROUPS, QUIET, Box, user_namespace

MOUNTS = "cat /proc/self/mountinfo"


def mountinfo(text: str) -> dict[str, list[str]]:
    """Mount point → the fields of its topmost mount."""
    return {fields[4]: fields for fields in map(str.split, text.splitlines()) if "-" in fields[6:]}


def flags(text: str, path: str) -> set[str]:
    return set(mountinfo(text)[path][5].split(","))


def shares(text: str, path: str) -> str:
    """How a mount propagates, in the words of mount(8)."""
    fields = mountinfo(text)[path]
    optional = " ".join(fields[6 : fields.index("-")])
    kinds = [word for word, sign in (("shared", "shared:"), ("slave", "master:"), ("unbindable", "unbindable")) if sign in optional]
    return " ".join(kinds) or "private"


def test_the_usual_view(either: Box) -> None:
    text = either.says(MOUNTS)
    mounts = mountinfo(text)
    assert {"/", "/proc", "/dev", "/dev/pts", "/sys"} <= mounts.keys()
    for path in ("/proc", "/sys"):
        assert {"nosuid", "nodev", "noexec"} <= flags(text, path)
    assert "ro" in flags(text, "/sys")
    assert {path: shares(text, path) for path in ("/", "/proc", "/dev")} == dict.fromkeys(("/", "/proc", "/dev"), "private")
    assert str(either.folder) not in " ".join(mounts)


def test_nothing_of_the_host_is_left(box: Box) -> None:
    text = box.says(MOUNTS)
    known = ("/", "/proc", "/dev", "/dev/pts", "/sys")
    for path in mountinfo(text):
        assert path in known or any(path.startswith(masked) for masked in ("/proc/", "/sys/firmware")), path


def test_read_only_root(either: Box) -> None:
    either.config["root"]["readonly"] = True
    assert either.says("touch /x 2>/dev/null && echo written; touch /dev/x && echo dev; echo end") == "dev\nend\n"


def test_writable_root(box: Box) -> None:
    box.says("echo here > /file")
    assert (box.rootfs / "file").read_text() == "here\n"


def test_masked_paths(either: Box) -> None:
    (either.rootfs / "etc/secret").write_text("secret")
    (either.rootfs / "etc/secrets").mkdir()
    (either.rootfs / "etc/secrets/one").write_text("secret")
    (either.rootfs / "etc/more").mkdir()
    (either.rootfs / "etc/more/one").write_text("secret")
    either.linux["maskedPaths"] = ["/etc/secret", "/etc/secrets", "/etc/more", "/nothere", "/proc/keys"]
    either.process["capabilities"] = {}
    out = either.says(
        "wc -c < /etc/secret; ls -A /etc/secrets /etc/more | grep one; touch /etc/secrets/x 2>&1; echo x > /etc/secret 2>&1; echo end"
    )
    assert "one\n" not in out
    assert out.startswith("0\n")
    assert out.endswith("end\n")
    assert "Read-only" in out
    assert (either.rootfs / "etc/secret").read_text() == "secret"
    assert not (either.rootfs / "nothere").exists()


def hosts_null() -> tuple[int, int, int]:
    found = os.stat("/dev/null")
    return found.st_mode, found.st_uid, found.st_gid


TOUCH = "for d in DEVICES; do chmod 0 $d; chown 1:1 $d; touch -d 2001-01-01 $d; done 2>/dev/null; echo x > /dev/null && head -c 1 /dev/zero | wc -c"


@pytest.mark.parametrize("caps", [[], ["CAP_FOWNER", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]])
def test_nobody_changes_the_hosts_null_through_a_mask(either: Box, caps: list[str]) -> None:
    """Whoever is root in there without a user namespace owns it."""
    (either.rootfs / "etc/secret").write_text("secret")
    either.linux["maskedPaths"] = ["/etc/secret", "/proc/keys", "/proc/timer_list"]
    either.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), caps)
    before = hosts_null()
    try:
        assert either.says(TOUCH.replace("DEVICES", " ".join(either.linux["maskedPaths"]))) == "1\n"
        assert hosts_null() == before
    finally:
        os.chmod("/dev/null", 0o666)
        os.chown("/dev/null", 0, 0)


def test_nobody_changes_the_hosts_devices_through_those_bound(box: Box) -> None:
    """As the host's root in a user namespace in which that one is mapped."""
    box.linux["namespaces"].append({"type": "user"})
    box.linux["uidMappings"] = box.linux["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    box.process["capabilities"] = {key: ["CAP_FOWNER", "CAP_CHOWN", "CAP_DAC_OVERRIDE"] for key in ("bounding", "effective", "permitted")}
    before = hosts_null()
    try:
        assert box.says(TOUCH.replace("DEVICES", "/dev/null /dev/zero /dev/full")) == "1\n"
        assert hosts_null() == before
        assert [os.stat(f"/dev/{name}").st_mode & 0o7777 for name in ("zero", "full")] == [0o666, 0o666]
    finally:
        for name in ("null", "zero", "full"):
            os.chmod(f"/dev/{name}", 0o666)
            os.chown(f"/dev/{name}", 0, 0)


@pytest.mark.parametrize("path", ["/", "//", "/.", "/..", "/etc/..", "/etc/./../"])
@pytest.mark.parametrize(("key", "why"), [("maskedPaths", "hidden"), ("readonlyPaths", "made read-only here: /root/readonly does that")])
def test_the_root_as_such_a_path(box: Box, key: str, why: str, path: str) -> None:
    """It would be covered, and that not seen by the container, which is in there: nothing would come of it, and nobody be told."""
    box.linux[key] = ["/nothere", path]
    done = box.run()
    assert (done.status, done.err) == (1, f"rundlet: /linux/{key}/1: the root itself cannot be {why}\n")
    assert box.left() == []


@pytest.mark.parametrize("path", ["/etc/passwd", "//etc//passwd", "/etc/passwd/", "/etc/./passwd/.", "/nothere/../etc/passwd", "/bin/../etc/passwd"])
def test_ways_to_write_such_a_path(box: Box, path: str) -> None:
    there = not path.startswith("/nothere")  # as the kernel has it, there is no way through what is not there
    box.linux["readonlyPaths"] = [path]
    assert box.says("(echo >> /etc/passwd) 2>/dev/null || echo ro") == ("ro\n" if there else "")
    box.linux["readonlyPaths"], box.linux["maskedPaths"] = [], [path]
    assert (box.says("cat /etc/passwd") == "") == there


def test_a_mask_of_what_is_not_there(box: Box) -> None:
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = ["/nothere", "/etc/passwd/nothere"]
    box.says("true")


def test_masks_of_mounts_and_behind_links(box: Box) -> None:
    (box.folder / "data").mkdir()
    (box.folder / "data/secret").write_text("secret")
    (box.rootfs / "link").symlink_to("/data/secret")
    box.mount("/data", str(box.folder / "data"), "bind")
    box.linux["maskedPaths"] = ["/link"]
    assert box.says("cat /data/secret; echo end") == "end\n"


def test_read_only_paths(either: Box) -> None:
    (either.rootfs / "etc/file").write_text("old")
    (either.rootfs / "etc/dir/inner").mkdir(parents=True)
    either.linux["readonlyPaths"] = ["/etc/file", "/etc/dir", "/nothere", "/proc/sys"]
    either.process["capabilities"] = {}
    out = either.says(
        "(echo new > /etc/file) 2>/dev/null; touch /etc/dir/inner/x 2>/dev/null; (echo x > /proc/sys/kernel/hostname) 2>/dev/null;"
        " cat /etc/file; ls /etc/dir/inner; touch /etc/other && echo other"
    )
    assert out == "oldother\n"


def test_read_only_paths_keep_the_flags_of_their_mounts(box: Box) -> None:
    box.linux["readonlyPaths"] = ["/proc/sys"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags(box.says(MOUNTS), "/proc/sys")


def test_bind_of_a_directory_and_a_file(either: Box) -> None:
    (either.folder / "dir").mkdir()
    (either.folder / "dir/file").write_text("inside")
    (either.folder / "single").write_text("single")
    either.mount("/data/deep", str(either.folder / "dir"), "bind", "ro")
    either.mount("/data/file", str(either.folder / "single"), "bind")
    out = either.says("cat /data/deep/file /data/file; touch /data/deep/x 2>/dev/null || echo ro; echo new > /data/file")
    assert out == "insidesinglero\n"
    assert (either.folder / "single").read_text() == "new\n"
    assert (either.rootfs / "data/file").is_file()


def test_a_source_relative_to_the_bundle(box: Box) -> None:
    (box.bundle / "here").write_text("here")
    box.mount("/there", "here", "bind")
    assert box.says("cat /there") == "here"


@pytest.fixture
def nested(box: Box) -> Iterator[Path]:
    """A directory of the host with a mount below it."""
    outer = box.folder / "outer"
    (outer / "inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "inner", outer / "inner"], check=True)
    (outer / "inner/file").write_text("deep")
    yield outer
    subprocess.run(["umount", "-l", outer / "inner"], check=True)


def test_bind_takes_one_mount_and_rbind_all(box: Box, nested: Path) -> None:
    box.mount("/flat", str(nested), "bind")
    box.mount("/deep", str(nested), "rbind")
    box.mount("/ro", str(nested), "rbind", "ro")
    box.mount("/rro", str(nested), "rbind", "rro", "rnosuid")
    text = box.says(
        f"ls /flat/inner; ls /deep/inner; touch /ro/inner/x && echo written; touch /rro/inner/y 2>/dev/null || echo no; echo; {MOUNTS}"
    )
    seen, _, text = text.partition("\n\n")
    assert seen == "file\nwritten\nno"
    assert "ro" in flags(text, "/ro")
    assert "rw" in flags(text, "/ro/inner")
    assert {"ro", "nosuid"} <= flags(text, "/rro/inner")


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("relatime", "relatime"),
        ("nodiratime", "nodiratime"),
        ("nosymfollow", "nosymfollow"),
    ],
)
def test_flags_of_binds_and_filesystems(box: Box, option: str, wanted: str) -> None:
    (box.folder / "dir").mkdir()
    box.mount("/bound", str(box.folder / "dir"), "bind", option)
    box.mount("/fs", "tmpfs", option, kind="tmpfs")
    text = box.says(MOUNTS)
    assert wanted in flags(text, "/bound")
    assert wanted in flags(text, "/fs")


def test_strictatime_and_later_options_win(box: Box) -> None:
    box.mount("/a", "tmpfs", "strictatime", kind="tmpfs")
    box.mount("/b", "tmpfs", "ro", "rw", "noexec", "exec", kind="tmpfs")
    text = box.says(MOUNTS)
    assert not {"relatime", "noatime"} & flags(text, "/a")
    assert flags(text, "/b") & {"ro", "noexec"} == set()


def test_remount_changes_flags(box: Box) -> None:
    (box.folder / "dir").mkdir()
    box.mount("/data", str(box.folder / "dir"), "bind", "nosuid")
    box.mount("/data", "", "remount", "bind", "ro")
    assert {"ro", "nosuid"} <= flags(box.says(MOUNTS), "/data")


def test_filesystem_options(either: Box) -> None:
    either.mount("/small", "tmpfs", "nosuid", "size=64k", "mode=1750", "uid=5", "gid=6", "nr_inodes=9", kind="tmpfs")
    assert (
        either.says("stat -c '%a %u %g' /small; df -k /small | tail -n 1 | awk '{print $2}'; df -i /small | tail -n 1 | awk '{print $2}'")
        == "1750 5 6\n64\n9\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["size=huge"], "Bad value for 'size'"),
        (["nonsense=1"], "Unknown parameter 'nonsense'"),
        (["nonsense"], "Unknown parameter 'nonsense'"),
    ],
)
def test_a_bad_option_is_told_in_the_filesystems_words(box: Box, options: list[str], words: str) -> None:
    box.mount("/small", "tmpfs", *options, kind="tmpfs")
    done = box.run()
    assert done.status == 1
    assert words in done.err
    assert "/small" in done.err
    assert box.left() == []


def test_other_filesystems(box: Box) -> None:
    box.mount("/dev/shm", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k", kind="tmpfs")
    box.mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev", kind="mqueue")
    mounts = mountinfo(box.says(MOUNTS))
    kinds = {path: fields[fields.index("-") + 1] for path, fields in mounts.items()}
    assert kinds["/dev/shm"] == "tmpfs"
    assert kinds["/dev/mqueue"] == "mqueue"


def test_a_filesystem_that_is_none(box: Box) -> None:
    box.mount("/x", "x", kind="nosuchfs")
    done = box.run()
    assert done.status == 1
    assert "mount nosuchfs on /x" in done.err
    assert box.left() == []


@pytest.mark.parametrize("word", ["private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable"])
def test_propagation_of_a_mount(box: Box, nested: Path, word: str) -> None:
    box.mount("/data", str(nested), "rbind", word)
    text = box.says(MOUNTS)
    plain = word.removeprefix("r")
    wanted = {"private": "private", "shared": "shared", "slave": "private", "unbindable": "unbindable"}[plain]
    got = shares(text, "/data")
    assert got == wanted or (plain == "slave" and got == "slave")
    if word != plain:
        assert shares(text, "/data/inner") == got


@pytest.fixture
def shared(box: Box) -> Iterator[Path]:
    """A shared mount of the host."""
    place = box.folder / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    (place / "in").mkdir()
    yield place
    subprocess.run(["umount", "-lR", place], check=True)


@pytest.mark.parametrize(
    ("word", "root", "wanted"), [("rslave", "rslave", True), ("rprivate", "rslave", False), ("rshared", "rshared", True)]
)
def test_mounts_of_the_host_come_in_as_asked(box: Box, shared: Path, word: str, root: str, wanted: bool) -> None:
    box.linux["rootfsPropagation"] = root
    box.mount("/data", str(shared), "rbind", word)
    pid = box.started()
    subprocess.run(["mount", "-t", "tmpfs", "late", shared / "in"], check=True)
    text = Path(f"/proc/{pid}/mountinfo").read_text()
    assert ("/data/in" in mountinfo(text)) == wanted
    subprocess.run(["umount", shared / "in"], check=True)
    box.ended()


def test_mounts_of_the_container_go_out_only_when_shared(box: Box, shared: Path) -> None:
    box.linux["rootfsPropagation"] = "rshared"
    box.process["capabilities"] = {kind: ["CAP_SYS_ADMIN"] for kind in ("bounding", "effective", "permitted")}
    box.mount("/data", str(shared), "rbind", "rshared")
    box.mount("/own", str(shared), "rbind", "rslave")
    box.says("mkdir /own/in/a /own/in/b; mount -t tmpfs a /own/in/a; mount -t tmpfs b /data/in/b")
    assert not os.path.ismount(shared / "in/a")
    assert os.path.ismount(shared / "in/b")


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("private", "private"), ("shared", "shared"), ("rshared", "shared"), ("rprivate", "private"), ("unbindable", "unbindable")],
)
def test_propagation_of_the_root(box: Box, word: str, wanted: str) -> None:
    box.linux["rootfsPropagation"] = word
    assert shares(box.says(MOUNTS), "/") == wanted


def test_propagation_of_the_root_as_slave(box: Box, shared: Path) -> None:
    """On a shared mount of the host the root becomes its slave."""
    subprocess.run(["cp", "-a", box.rootfs, shared / "rootfs"], check=True)
    box.config["root"]["path"] = str(shared / "rootfs")
    box.linux["rootfsPropagation"] = "slave"
    assert shares(box.says(MOUNTS), "/") == "slave"


@pytest.mark.parametrize("place", ["/link", "/link/deep", "/up", "/file"])
def test_links_of_the_image_lead_nowhere_outside(box: Box, place: str) -> None:
    outside = box.folder / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    (box.rootfs / "link").symlink_to(outside)
    (box.rootfs / "up").symlink_to("../../outside")
    (box.rootfs / "file").symlink_to(outside / "file")
    (box.folder / "src").mkdir()
    (box.folder / "src/mark").write_text("mark")
    box.mount(place, str(box.folder / "src"), "bind")
    box.says(f"cat {place}/mark > /dev/null")
    assert sorted(os.listdir(outside)) == ["file"]
    assert (outside / "file").read_text() == "mine"


def test_a_dangling_link_as_a_files_place(either: Box) -> None:
    """As /etc/resolv.conf of images that have systemd."""
    (either.rootfs / "etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
    (either.folder / "resolv").write_text("nameserver")
    either.mount("/etc/resolv.conf", str(either.folder / "resolv"), "bind")
    assert either.says("cat /etc/resolv.conf") == "nameserver"


@pytest.mark.parametrize(("source", "destination"), [("/etc", "/etc/passwd"), ("/etc/hostname", "/etc")])
def test_a_directory_on_a_file_and_a_file_on_a_directory(box: Box, source: str, destination: str) -> None:
    """In the words that Docker has advice for."""
    box.mount(destination, source, "bind")
    done = box.run()
    assert done.status == 1
    assert f"bind {source} on {destination} (bind): move_mount: invalid argument; " in done.err
    assert "not a directory" in done.err
    assert box.left() == []


def test_a_directory_behind_a_file(box: Box) -> None:
    box.mount("/etc/passwd/x", "tmpfs", kind="tmpfs")
    done = box.run()
    assert done.status == 1
    assert "not a directory" in done.err
    assert box.left() == []


def test_a_missing_source_is_named(box: Box) -> None:
    box.mount("/x", "/nothere", "bind")
    done = box.run()
    assert done.status == 1
    assert done.err == "rundlet: /mounts/4/source: /nothere: no such file or directory\n"
    assert box.left() == []


def test_a_missing_root_is_named(box: Box) -> None:
    box.config["root"]["path"] = "nothere"
    done = box.run()
    assert (done.status, done.err) == (1, f"rundlet: /root/path: {box.bundle}/nothere: no such file or directory\n")


def test_relative_destinations(box: Box) -> None:
    box.mount("data", "tmpfs", kind="tmpfs")
    assert "/data" in mountinfo(box.says(MOUNTS))


DEFAULTS = {"null": "1:3", "zero": "1:5", "full": "1:7", "random": "1:8", "urandom": "1:9", "tty": "5:0"}


def test_default_devices_and_links(either: Box) -> None:
    out = either.says(
        "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %F %t:%T %a' $d; done; for l in fd stdin stdout stderr ptmx; do readlink $l; done"
    )
    lines = out.splitlines()
    assert lines[:6] == [f"{name} character special file {number} 666" for name, number in DEFAULTS.items()]
    assert lines[6:10] == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    assert lines[10].removeprefix("/dev/") == "pts/ptmx"


def test_devices(either: Box) -> None:
    either.linux["devices"] = [
        {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"type": "b", "path": "/dev/sub/disk", "major": 7, "minor": 9, "fileMode": 0o600},
        {"type": "p", "path": "/tmp/fifo", "fileMode": 0o622},
        {"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "fileMode": 0o600},
    ]
    out = either.says("for d in /dev/fuse /dev/sub/disk /tmp/fifo /dev/null; do stat -c '%n %F %t:%T %a %u:%g' $d; done")
    assert out.splitlines() == [
        "/dev/fuse character special file a:e5 640 3:4",
        "/dev/sub/disk block special file 7:9 600 0:0",
        "/tmp/fifo fifo 0:0 622 0:0",
        "/dev/null character special file 1:3 600 0:0",
    ]


def test_devices_in_a_user_namespace(either: Box) -> None:
    user_namespace(either.config)
    os.chown(either.rootfs, 100000, 100000)
    either.linux["devices"] = [{"type": "p", "path": "/dev/fifo", "fileMode": 0o622}]
    either.says("echo x > /dev/null; head -c 4 /dev/zero | od; stat -c '%F' /dev/fifo")


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("place", ["/dev", "/dev/", "//dev", "/dev/.", "/nothere/../dev", "/link", "/linked"])
def test_dev_of_the_host_stays_as_it_is(box: Box, place: str, user: bool) -> None:
    """By whatever name: no device is made in it, and none of its own is replaced."""
    if user:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    dev = box.folder / "dev"
    dev.mkdir()
    (dev / "ptmx").write_text("mine")
    box.config["mounts"] = [m for m in box.config["mounts"] if not m["destination"].startswith("/dev")]
    (box.rootfs / "link").symlink_to("dev")
    if place == "/linked":
        (box.rootfs / "dev").rmdir()
        (box.rootfs / "dev").symlink_to("linked")
    box.linux["devices"] = [{"type": "p", "path": "/dev/fifo"}]
    box.mount(place, str(dev), "rbind")
    assert box.says("ls /dev; cat /dev/ptmx") == "ptmx\nmine"
    assert os.listdir(dev) == ["ptmx"]


@pytest.mark.parametrize("what", ["file", "link", "another", "folder", "block", "fifo"])
@pytest.mark.parametrize("given", [False, True])
def test_something_else_in_the_place_of_a_device(box: Box, what: str, given: bool) -> None:
    """config-linux.md: "does not match the requested device, the runtime MUST generate an error". What is there stays as it is."""
    box.config["mounts"] = [m for m in box.config["mounts"] if not m["destination"].startswith("/dev")]
    place = box.rootfs / "dev/zero"
    if what == "file":
        place.write_text("mine")
    elif what == "link":
        place.symlink_to("/etc/passwd")
    elif what == "folder":
        place.mkdir()
    else:
        kind, minor = {"another": (stat.S_IFCHR, 9), "block": (stat.S_IFBLK, 5), "fifo": (stat.S_IFIFO, 0)}[what]
        os.mknod(place, kind | 0o644, os.makedev(1, minor))
    if given:
        box.linux["devices"] = [{"type": "c", "path": "/dev/zero", "major": 1, "minor": 5, "uid": 7, "gid": 8}]
    before = place.lstat()
    done = box.run()
    assert (done.status, done.err) == (
        1, "rundlet: make /dev/zero (c 1:5): something else is there already, in the image or by a mount: remove that, or mount a tmpfs on /dev\n",
    )
    after = place.lstat()
    assert (after.st_mode, after.st_uid, after.st_gid, after.st_ctime_ns) == (before.st_mode, before.st_uid, before.st_gid, before.st_ctime_ns)
    assert box.left() == []


@pytest.mark.parametrize("mode", [0o600, 0o206])
@pytest.mark.parametrize("given", [False, True])
def test_a_device_that_the_image_has(box: Box, mode: int, given: bool) -> None:
    box.config["mounts"] = [m for m in box.config["mounts"] if not m["destination"].startswith("/dev")]
    os.mknod(box.rootfs / "dev/zero", stat.S_IFCHR, os.makedev(1, 5))
    (box.rootfs / "dev/zero").chmod(mode)
    if given:
        box.linux["devices"] = [{"type": "c", "path": "/dev/zero", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8}]
    assert box.says("stat -c '%F %a %u:%g %t:%T' /dev/zero") == f"character special file {mode:o} 0:0 1:5\n"


def test_a_device_that_is_bound_and_given(either: Box) -> None:
    """The host's own is shown, and keeps its owner and mode."""
    node = either.folder / "node"
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    os.chown(node, 5, 6)
    either.mount("/dev/node", str(node), "bind")
    either.linux["devices"] = [{"type": "c", "path": "/dev/node", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 7, "gid": 8}]
    assert either.says("stat -c '%a %u:%g %t:%T' /dev/node") == "600 5:6 1:5\n"
    found = node.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (5, 6, 0o600)


def test_a_root_without_dev(box: Box) -> None:
    box.config["mounts"] = box.config["mounts"][:1]
    (box.rootfs / "dev").rmdir()
    assert box.says("echo x > /dev/null; ls /dev | wc -l") == "11\n"


def test_no_pivot(box: Box) -> None:
    done = box.sh("ls / | head -n 3; cat /proc/self/mountinfo").run("--no-pivot")
    assert done.status == 0
    assert done.out.startswith("bin\ndev\netc\n")


@pytest.mark.skipif(CGROUPS["layout"] == "none", reason="no cgroups here")
@pytest.mark.parametrize("namespaced", [True, False])
@pytest.mark.parametrize("flag", ["ro", "rw"])
def test_the_cgroup_mount(box: Box, namespaced: bool, flag: str) -> None:
    if not namespaced:
        box.without("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup", *QUIET, "relatime", flag, kind="cgroup")
    box.process["capabilities"] = {kind: ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"] for kind in ("bounding", "effective", "permitted")}
    script = (
        "cd /sys/fs/cgroup; for d in . *; do [ -L $d ] || [ ! -f $d/cgroup.procs ] || echo $d $(grep -cx 1 $d/cgroup.procs); done;"
        " for d in . *; do if [ -f $d/cgroup.procs ] && mkdir $d/mine 2>/dev/null; then echo made; rmdir $d/mine; fi; done; echo end; cat /proc/self/mountinfo"
    )
    seen, _, text = box.says(script).partition("end\n")
    found = re.findall(r"^(\S+) 1$", seen, re.M)
    if CGROUPS["layout"] == "v2":
        assert found == ["."]
    else:
        hosts = {m.rpartition("/")[2] for m in CGROUPS["mounts"].values()}
        assert set(found) == hosts
    assert ("made" in seen) == (flag == "rw")
    assert {"nosuid", "nodev", "noexec", flag} <= flags(text, "/sys/fs/cgroup")


@pytest.mark.skipif(CGROUPS["layout"] == "none", reason="no cgroups here")
@pytest.mark.parametrize("namespaced", [True, False])
def test_the_cgroup_mount_without_a_cgroup(box: Box, namespaced: bool) -> None:
    """With the manager that makes none, which is what Podman's --cgroups=disabled comes to, the caller's is shown: the process stays in it."""
    if not namespaced:
        box.without("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup", *QUIET, "ro", kind="cgroup")
    box.runtime = [*box.runtime, "--cgroup-manager", "disabled"]
    files = box.says("cd /sys/fs/cgroup; for d in . *; do [ -L $d ] || [ ! -f $d/cgroup.procs ] || echo $d $(grep -cx 1 $d/cgroup.procs); done")
    assert files.count(" 1\n") == files.count("\n") == len(set(CGROUPS["mounts"].values()))
    assert box.cgroups() == []


def test_the_working_directory_is_made(either: Box) -> None:
    either.process["cwd"] = "/new/place"
    assert either.says("pwd") == "/new/place\n"


def test_mounts_without_a_mount_namespace_are_refused(box: Box) -> None:
    box.without("mount")
    box.linux["maskedPaths"] = box.linux["readonlyPaths"] = []
    done = box.run()
    assert done.status == 1
    assert "mounts without a mount namespace would be the host's" in done.err
    assert box.left() == []


def test_long_lists_of_mounts(box: Box) -> None:
    for n in range(200):
        (box.bundle / f"f{n}").write_text(str(n))
        box.mount(f"/data/f{n}", f"f{n}", "bind", "ro")
    assert box.says("cat /data/f0 /data/f199") == "0199"


def test_the_host_never_sees_the_mounts(box: Box, shared: Path) -> None:
    """Even where the bundle is on a shared mount."""
    subprocess.run(["cp", "-a", box.rootfs, shared / "rootfs"], check=True)
    box.config["root"]["path"] = str(shared / "rootfs")
    box.created()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert [line.split()[4] for line in mounts if str(box.folder) in line] == [str(shared)]
    box.ok("delete", "--force", box.id)
    bundles.reap()


def test_a_device_whose_path_ends_in_a_slash(box: Box) -> None:
    box.linux["devices"] = [{"path": "/odd/node/", "type": "b", "major": 10, "minor": 229, "fileMode": 0o600}]
    assert box.says("stat -c '%F %a %t:%T' /odd/node") == "block special file 600 a:e5\n"
