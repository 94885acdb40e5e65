"""What the options of mounts do, seen from inside: in mountinfo, and by trying."""

import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from rundlet.plan.mounts.options import words as known
from tests import bundles
from tests.bundles import CAPABLE, CGROUPS, FACTS, QUIET, Box, user_namespace
from tests.real.test_rootfs import MOUNTS, flags, mountinfo, shares

ADMIN = ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_MKNOD"]


def superblock(text: str, path: str) -> set[str]:
    """The options of the filesystem that is mounted at a path."""
    return set(mountinfo(text)[path][-1].split(","))


def trusted(box: Box) -> Box:
    """Gives the container what it takes to look around."""
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), ADMIN)
    return box


def in_user_namespace(box: Box) -> Box:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    return box


@pytest.fixture
def tree(box: Box) -> Iterator[Path]:
    """A directory of the host with a mount below it, and one below that."""
    outer = box.folder / "tree"
    (outer / "a").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "a", outer / "a"], check=True)
    (outer / "a/b").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "b", outer / "a/b"], check=True)
    yield outer
    subprocess.run(["umount", "-lR", outer / "a"], check=True)


# ── flags ──


RECURSIVE = {
    "rro": "ro", "rnosuid": "nosuid", "rnodev": "nodev", "rnoexec": "noexec", "rnoatime": "noatime", "rnodiratime": "nodiratime",
    "rnosymfollow": "nosymfollow", "rrelatime": "relatime",
}
OPPOSITE = {
    "rrw": "ro", "rsuid": "nosuid", "rdev": "nodev", "rexec": "noexec", "ratime": "noatime", "rdiratime": "nodiratime", "rsymfollow": "nosymfollow",
    "rstrictatime": "relatime",
}


@pytest.mark.parametrize("user", [False, True])
def test_recursive_attributes_reach_all_below(box: Box, tree: Path, user: bool) -> None:
    if user:
        in_user_namespace(box)
    for word in RECURSIVE:
        box.mount(f"/bound-{word}", str(tree), "rbind", word)
        box.mount(f"/new-{word}", "tmpfs", word, kind="tmpfs")
    text = box.says(MOUNTS)
    for word, seen in RECURSIVE.items():
        for path in (f"/bound-{word}", f"/bound-{word}/a", f"/bound-{word}/a/b", f"/new-{word}"):
            assert seen in flags(text, path), path


def test_recursive_attributes_are_taken_from_all_below(box: Box, tree: Path) -> None:
    given = "ro,nosuid,nodev,noexec,nodiratime,nosymfollow"
    for more in ("relatime", "noatime"):
        for point in (tree / "a", tree / "a/b"):
            subprocess.run(["mount", "-o", f"remount,bind,{given},{more}", point], check=True)
        box.config["mounts"] = box.config["mounts"][:4]
        words = {word: gone for word, gone in OPPOSITE.items() if word != ("ratime" if more == "relatime" else "rstrictatime")}
        for word in words:
            box.mount(f"/{word}", str(tree), "rbind", word)
        text = box.says(MOUNTS)
        for word, gone in words.items():
            for path in (f"/{word}/a", f"/{word}/a/b"):
                assert gone not in flags(text, path), path
                assert {*given.split(","), more} - {gone} <= flags(text, path), "another went, too"
    assert {*given.split(",")} <= flags(Path("/proc/self/mountinfo").read_text(), str(tree / "a")), "the host's changed"


SINGLE = {
    "rw": "ro", "suid": "nosuid", "dev": "nodev", "exec": "noexec", "atime": "noatime", "diratime": "nodiratime", "symfollow": "nosymfollow",
    "relatime": "noatime", "strictatime": "noatime", "norelatime": "noatime", "nostrictatime": "noatime",
}


def test_attributes_are_taken_from_a_bind(box: Box, tree: Path) -> None:
    """Each word takes away what it names and nothing else, in the container alone; without a word all are kept."""
    given = {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow"}
    subprocess.run(["mount", "-o", f"remount,bind,{','.join(given)}", tree / "a"], check=True)
    for word in ("none", *SINGLE):
        box.mount(f"/data/{word}", str(tree / "a"), "rbind", *([] if word == "none" else [word]))
    text = box.says(MOUNTS)
    assert given <= flags(text, "/data/none")
    for word, gone in SINGLE.items():
        assert flags(text, f"/data/{word}") & given == given - {gone}, word
        assert ("relatime" in flags(text, f"/data/{word}")) == (word in ("atime", "relatime", "nostrictatime")), word
        assert not given & flags(text, f"/data/{word}/b"), "of what is mounted below nothing changes"
    assert given <= flags(Path("/proc/self/mountinfo").read_text(), str(tree / "a")), "the host's changed"


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
@pytest.mark.parametrize("recursive", [False, True])
def test_attributes_at_work(box: Box, kind: str, recursive: bool) -> None:
    """Not only told by mountinfo: tried by a program that may do everything else."""
    content = box.rootfs / "data" if kind == "tmpfs" else box.folder / "data"
    content.mkdir()
    shutil.copy(box.busybox, content / "true")
    (content / "link").symlink_to("true")
    os.mknod(content / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    for word in ("ro", "nodev", "noexec", "nosymfollow", "defaults"):
        place = f"/data-{word}"
        if kind == "tmpfs":
            shutil.copytree(content, box.rootfs / place[1:], symlinks=True, copy_function=lambda *_: None, ignore=lambda *_: ["zero", "true"])
            shutil.copy(content / "true", box.rootfs / place[1:])
            os.mknod(box.rootfs / place[1:] / "zero", 0o666 | 0o020000, os.makedev(1, 5))
        options = ["r" + word if recursive and word != "defaults" else word, "rbind" if kind == "bind" else "tmpcopyup"]
        box.mount(place, str(content) if kind == "bind" else "tmpfs", *options, kind=kind)
    script = (
        "cd /data-$w; touch new 2>/dev/null && echo -n ' write'; head -c 1 zero >/dev/null 2>&1 && echo -n ' device';"
        " ./true 2>/dev/null && echo -n ' run'; cat link >/dev/null 2>&1 && echo -n ' follow'"
    )
    found = trusted(box).says(f"for w in ro nodev noexec nosymfollow defaults; do echo -n $w; {script}; echo; done").splitlines()
    may = ["write", "device", "run", "follow"]
    lacks = {"ro": "write", "nodev": "device", "noexec": "run", "nosymfollow": "follow", "defaults": ""}
    assert found == [" ".join([word, *(one for one in may if one != lack)]) for word, lack in lacks.items()]


def test_a_bind_that_is_not_recursive_takes_recursive_attributes(box: Box) -> None:
    (box.folder / "dir").mkdir()
    box.mount("/data", str(box.folder / "dir"), "bind", "rro", "nosuid")
    assert {"ro", "nosuid"} <= flags(box.says(MOUNTS), "/data")


def test_flags_of_the_filesystem(box: Box) -> None:
    """Mandatory locks are gone since Linux 5.15; the word is still taken."""
    for word in ("sync", "dirsync", "lazytime", "mand"):
        box.mount(f"/{word}", "tmpfs", word, kind="tmpfs")
    text = box.says(MOUNTS)
    assert all(word in superblock(text, f"/{word}") for word in ("sync", "dirsync", "lazytime"))


def test_the_later_flag_holds(box: Box) -> None:
    for word, other in (("sync", "async"), ("lazytime", "nolazytime"), ("mand", "nomand")):
        box.mount(f"/{word}", "tmpfs", word, other, kind="tmpfs")
        box.mount(f"/{other}", "tmpfs", other, word, kind="tmpfs")
    text = box.says(MOUNTS)
    assert not [word for word in ("sync", "lazytime", "mand") if word in superblock(text, f"/{word}")]
    assert "sync" in superblock(text, "/async")


def test_every_word_that_features_lists_is_taken(box: Box) -> None:
    (box.folder / "dir").mkdir()
    elsewhere = ("remount", "idmap", "ridmap", "copy-symlink", "tmpcopyup", "dest-nofollow", "src-nofollow")
    words = [word for word in known() if word not in elsewhere]
    for word in words:
        box.mount(f"/bound-{word}", str(box.folder / "dir"), "bind", word)
        if word not in ("bind", "rbind"):
            box.mount(f"/new-{word}", "tmpfs", word, "size=4k", kind="tmpfs")
    found = mountinfo(box.says(MOUNTS)).keys()
    assert {f"/bound-{word}" for word in words} <= found
    assert len([path for path in found if path.startswith("/new-")]) == len(words) - 2


def test_a_remount_tells_the_filesystem(box: Box) -> None:
    box.mount("/fs", "tmpfs", "size=64k", kind="tmpfs")
    box.mount("/fs", "tmpfs", "remount", "size=128k", "noexec", kind="tmpfs")
    text = box.says(MOUNTS)
    assert "size=128k" in superblock(text, "/fs")
    assert "noexec" in flags(text, "/fs")


def test_propagation_of_a_new_filesystem(box: Box) -> None:
    words = ("shared", "slave", "private", "unbindable", "rshared", "rprivate")
    for word in words:
        box.mount(f"/{word}", "tmpfs", word, kind="tmpfs")
    text = box.says(MOUNTS)
    assert {word: shares(text, f"/{word}") for word in words} == {
        "shared": "shared", "slave": "private", "private": "private", "unbindable": "unbindable", "rshared": "shared", "rprivate": "private",
    }


@pytest.mark.parametrize("words", [["slave", "shared"], ["rprivate", "rshared"], ["shared", "unbindable"], ["private", "rslave"]])
@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_several_ways_to_propagate_are_refused(either: Box, kind: str, words: list[str]) -> None:
    """What would come of them depends on their order, and the last one alone may let more through than was meant."""
    either.mount("/data", str(either.folder) if kind == "bind" else "tmpfs", *(["bind"] if kind == "bind" else []), *words, kind=kind)
    done = either.run()
    assert done.status == 1
    if either.runtime == bundles.words():
        assert done.err == "rundlet: /mounts/4/options: a mount has one kind of propagation: shared, slave, private or unbindable\n"
    assert either.left() == []


@pytest.mark.parametrize("words", [["bind", "nosiud"], ["nosuid", "rbind", "mode=700"], ["remount", "bind", "nosiud"]])
def test_options_of_a_bind_that_nothing_understands_are_refused(box: Box, words: list[str]) -> None:
    """A filesystem would say that it does not know them; here nothing would be said, and nothing done."""
    box.config["mounts"].append({"destination": "/etc", "type": "none", "source": "/etc", "options": words})
    done = box.sh("true").run()
    number = len(box.config["mounts"]) - 1
    word = next(word for word in words if word in ("nosiud", "mode=700"))
    assert done.status == 1
    assert done.err == f'rundlet: /mounts/{number}/options: "{word}" is not known, and a bind mount has no filesystem to be told of it\n'
    assert box.left() == []


def test_what_says_something_of_a_filesystem_alone_means_nothing_for_a_bind(box: Box) -> None:
    box.config["mounts"].append({"destination": "/etc", "source": "/etc", "options": ["rbind", "sync", "lazytime", "defaults", "iversion", "z", "Z"]})
    assert box.says("echo run") == "run\n"


def test_one_way_to_propagate_said_twice(box: Box) -> None:
    box.mount("/data", "tmpfs", "shared", "rshared", "shared", kind="tmpfs")
    assert shares(box.says(MOUNTS), "/data") == "shared"


# ── tmpfs ──


def test_a_tmpfs_has_the_mode_of_what_it_covers(box: Box) -> None:
    (box.rootfs / "data").mkdir()
    (box.rootfs / "data").chmod(0o1712)
    box.mount("/data", "tmpfs", "ro", kind="tmpfs")
    box.mount("/given", "tmpfs", "mode=700", kind="tmpfs")
    assert box.says("stat -c %a /data /given") == "1712\n700\n"


def test_a_tmpfs_over_an_earlier_mount_has_the_mode_seen_there(box: Box) -> None:
    (box.folder / "dir/sub").mkdir(parents=True)
    (box.folder / "dir/sub").chmod(0o710)
    (box.rootfs / "data/sub").mkdir(parents=True)
    box.mount("/data", str(box.folder / "dir"), "bind")
    box.mount("/data/sub", "tmpfs", kind="tmpfs")
    box.mount("/fs", "tmpfs", "mode=755", kind="tmpfs")
    box.mount("/fs/deep/er", "tmpfs", kind="tmpfs")
    assert box.says("stat -c %a /data/sub /fs/deep/er") == "710\n1777\n"


@pytest.mark.parametrize("user", [False, True])
def test_what_is_read_only_is_so_last(box: Box, user: bool) -> None:
    """A read-only tmpfs can be mounted in, and a read-only /dev has its devices; then nothing more can be made there."""
    if user:
        in_user_namespace(box)
    dev = next(m for m in box.config["mounts"] if m["destination"] == "/dev")
    dev["options"].append("ro")
    box.mount("/fs", "tmpfs", "ro", "mode=755", kind="tmpfs")
    box.mount("/fs/in/it", "tmpfs", "rro", kind="tmpfs")
    out = trusted(box).says(
        f"for d in /dev /fs /fs/in /fs/in/it; do touch $d/x 2>&1; done; echo hello > /dev/null && ls /dev/pts/ptmx; echo; {MOUNTS}"
    )
    tried, _, text = out.partition("\n\n")
    assert tried.count("Read-only file system") == 4
    assert tried.endswith("/dev/pts/ptmx")
    assert {"ro"} <= flags(text, "/dev") & flags(text, "/fs") & flags(text, "/fs/in/it")


# ── places ──


def test_binds_of_what_is_no_directory(box: Box) -> None:
    os.mkfifo(box.folder / "fifo")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(box.folder / "socket"))
    os.mknod(box.folder / "null", 0o666 | 0o020000, os.makedev(1, 3))
    for name in ("fifo", "socket", "null"):
        for words in (["bind"], ["bind", "ro"], ["rbind", "rro"]):
            box.mount(f"/data/{name}-{words[-1]}", str(box.folder / name), *words)
    out = box.says("for n in fifo socket null; do for w in bind ro rro; do stat -c %F /data/$n-$w; done; done")
    server.close()
    assert out.splitlines() == ["fifo"] * 3 + ["socket"] * 3 + ["character special file"] * 3


def test_odd_ways_to_write_a_place(box: Box) -> None:
    for n, place in enumerate(("//N///deep/", "/N/./deep", "N/deep", "/N/x/../deep", "/../N/deep")):
        box.mount(place.replace("N", f"data{n}"), "tmpfs", kind="tmpfs")
    assert {f"/data{n}/deep" for n in range(5)} <= mountinfo(box.says(MOUNTS)).keys()


def test_a_relative_place_brings_a_warning(box: Box) -> None:
    box.mount("data", "tmpfs", kind="tmpfs")
    box.sh("true").save()
    box.ok("--log", str(box.folder / "log"), "run", "--bundle", str(box.bundle), box.id)
    assert "/mounts/4/destination" in (box.folder / "log").read_text()


def test_mounts_over_mounts_in_order(either: Box) -> None:
    for name in ("one", "two"):
        (either.folder / name).mkdir()
        (either.folder / name / name).touch()
        (either.folder / f"{name}.txt").write_text(name)
    either.mount("/data", str(either.folder / "one"), "bind")
    either.mount("/data", str(either.folder / "two"), "bind")
    either.mount("/file", str(either.folder / "one.txt"), "bind")
    either.mount("/file", str(either.folder / "two.txt"), "bind", "ro")
    assert either.says("ls /data; cat /file") == "two\ntwo"


def test_nested_mounts(either: Box) -> None:
    (either.folder / "dir").mkdir()
    (either.folder / "file").write_text("file")
    either.mount("/a", "tmpfs", "mode=755", kind="tmpfs")
    either.mount("/a/b/c", str(either.folder / "dir"), "bind")
    either.mount("/a/b/c/d", "tmpfs", kind="tmpfs")
    either.mount("/a/b/c/d/file", str(either.folder / "file"), "bind")
    assert either.says("cat /a/b/c/d/file") == "file"
    assert os.listdir(either.folder / "dir") == ["d"]


@pytest.mark.parametrize("no_pivot", [False, True])
@pytest.mark.parametrize("recursive", ["bind", "rbind"])
def test_a_bind_on_the_root(box: Box, recursive: str, no_pivot: bool) -> None:
    """What is mounted afterwards is mounted in the new root, and nothing of the old one is left."""
    shutil.copytree(box.rootfs, box.folder / "other", symlinks=True)
    (box.folder / "other/mark").touch()
    (box.rootfs / "old").touch()
    box.config["mounts"].insert(0, {"destination": "/", "type": "bind", "source": str(box.folder / "other"), "options": [recursive]})
    box.config["root"]["readonly"] = True
    done = trusted(box).sh(f"ls -d /mark /old /proc/self; touch /x; echo; {MOUNTS}").run(*(["--no-pivot"] if no_pivot else []))
    seen, _, text = done.out.partition("\n\n")
    assert seen.split() == ["/mark", "/proc/self"]
    assert "Read-only file system" in done.err
    assert "ro" in flags(text, "/")
    assert not (box.folder / "other/x").exists()
    assert not (box.rootfs / "x").exists()


def test_a_tmpfs_on_the_root_filled_with_the_image(box: Box) -> None:
    box.config["mounts"].insert(0, {"destination": "/", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]})
    text = box.says(f"touch /new; stat -c %a /tmp; readlink /bin/ls; {MOUNTS}")
    assert text.startswith("1777\nbusybox\n")
    assert mountinfo(text)["/"][-3] == "tmpfs"
    assert not (box.rootfs / "new").exists()


@pytest.mark.parametrize("user", [False, True])
def test_overlay(box: Box, user: bool) -> None:
    if not supports("overlay"):
        pytest.skip("this kernel has no overlay")
    # where every user gets to; in memory: an overlay cannot be the upper layer of another
    layers = Path(tempfile.mkdtemp(prefix="rundlet-layers-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "layers", layers], check=True)
    try:
        for name in ("lower", "upper", "work"):
            (layers / name).mkdir()
        (layers / "lower/file").write_text("lower")
        if user:
            in_user_namespace(box)
            for path in layers.rglob("*"):
                os.chown(path, 100000, 100000)
        box.mount("/data", "overlay", *(f"{key}dir={layers / key}" for key in ("lower", "upper", "work")), "nodev", kind="overlay")
        out = box.says(f"cat /data/file; echo new > /data/file; {MOUNTS}")
        assert out.startswith("lower")
        assert "nodev" in flags(out, "/data")
        assert (layers / "lower/file").read_text() == "lower"
        assert (layers / "upper/file").read_text() == "new\n"
        assert (layers / "upper/file").stat().st_uid == (100000 if user else 0)
        assert [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(layers) in line] == [str(layers)]
    finally:
        subprocess.run(["umount", layers], check=True)
        layers.rmdir()


def test_options_longer_than_fsconfig_takes(box: Box) -> None:
    """mount(2) takes a page of options, fsconfig(2) 255 bytes of each."""
    if not supports("overlay"):
        pytest.skip("this kernel has no overlay")
    lower = []
    for n in range(6):
        folder = box.folder / f"{'x' * 60}{n}"
        folder.mkdir()
        (folder / f"file{n}").touch()
        lower.append(str(folder))
    words = [f"lowerdir={':'.join(lower)}", "nosuid", "noatime", "ro"]
    assert len(words[0]) > 256
    box.mount("/data/overlay", "overlay", *words, kind="overlay")
    out = box.says(f"ls /data/overlay; {MOUNTS}")
    assert out.startswith("".join(f"file{n}\n" for n in range(6)))
    assert {"nosuid", "noatime", "ro"} <= flags(out, "/data/overlay")
    box.config["mounts"][-1]["options"] = [f"lowerdir={'/x' * 3000}"]
    assert "options are too long" in box.run().err
    assert box.left() == []


def supports(kind: str) -> bool:
    return bool(re.search(rf"\b{kind}$", Path("/proc/filesystems").read_text(), re.M))


# ── links ──


def test_a_link_that_is_copied(box: Box) -> None:
    (box.folder / "link").symlink_to("leads/nowhere")
    (box.folder / "file").write_text("file")
    (box.rootfs / "same").symlink_to("leads/nowhere")
    box.mount("/a/sym/link", str(box.folder / "link"), "rbind", "copy-symlink")
    box.mount("/same", str(box.folder / "link"), "bind", "copy-symlink")
    box.mount("/file", str(box.folder / "file"), "bind", "copy-symlink")
    out = box.says(f"readlink /a/sym/link; readlink /same; cat /file; echo; {MOUNTS}")
    assert out.startswith("leads/nowhere\nleads/nowhere\nfile\n")
    assert not {"/a/sym/link", "/same"} & mountinfo(out).keys()


def test_a_link_that_is_copied_over_another_is_refused(box: Box) -> None:
    (box.folder / "link").symlink_to("here")
    (box.rootfs / "link").symlink_to("there")
    box.mount("/link", str(box.folder / "link"), "bind", "copy-symlink")
    done = box.run()
    assert done.status == 1
    assert "/link is there already, and is not the same link" in done.err
    assert os.readlink(box.rootfs / "link") == "there"


def test_links_are_copied_or_not_followed(box: Box) -> None:
    (box.folder / "link").symlink_to("here")
    for other in ("src-nofollow", "dest-nofollow"):
        box.config["mounts"] = box.config["mounts"][:4]
        box.mount("/link", str(box.folder / "link"), "bind", "copy-symlink", other)
        assert "mutually exclusive" in box.run().err


@pytest.mark.parametrize("user", [False, True])
def test_links_that_are_not_followed(box: Box, user: bool) -> None:
    """Bound themselves (src-nofollow), and covered themselves (dest-nofollow)."""
    if user:
        in_user_namespace(box)
    (box.folder / "file").write_text("file")
    (box.folder / "link").symlink_to(box.folder / "file")
    for name in ("a", "b", "c"):
        (box.rootfs / name).symlink_to("nowhere")
    box.mount("/a", str(box.folder / "link"), "bind", "src-nofollow", "dest-nofollow")
    box.mount("/b", str(box.folder / "link"), "bind", "dest-nofollow")
    box.mount("/c", str(box.folder / "file"), "bind", "src-nofollow", "dest-nofollow")
    assert box.says("readlink /a; cat /b /c") == f"{box.folder}/file\nfilefile"
    assert not (box.rootfs / "nowhere").exists()


@pytest.mark.parametrize("place", ["/proc/self", "/dev/pts/ptmx", "/sys/class"])
def test_what_proc_sysfs_and_devpts_have_is_not_covered_link_by_link(box: Box, place: str) -> None:
    (box.folder / "link").symlink_to("anything")
    (box.folder / "file").touch()
    box.mount(place, str(box.folder / "file"), "bind", "dest-nofollow")
    done = box.run()
    assert done.status == 1
    assert f"override of the mount destination {place} is not allowed" in done.err or "not a directory" in done.err.lower()
    assert box.left() == []


# ── the root ──


@pytest.mark.parametrize("path", ["rootfs", "./rootfs/", ".", "link", "deep/link"])
def test_ways_to_name_the_root(box: Box, path: str) -> None:
    (box.rootfs / "mark").touch()
    (box.bundle / "link").symlink_to("rootfs")
    (box.bundle / "deep").symlink_to(".")
    if path == ".":
        for name in os.listdir(box.rootfs):
            (box.rootfs / name).rename(box.bundle / name)
    box.config["root"]["path"] = path
    assert box.says("ls -d /mark") == "/mark\n"


def test_the_hosts_own_root_as_the_root(box: Box) -> None:
    box.config["root"] = {"path": "/", "readonly": True}
    box.config["process"]["args"] = [str(box.rootfs / "bin/busybox"), "cat", "/proc/self/mountinfo"]
    box.config["linux"]["maskedPaths"] = []
    done = box.run()
    assert (done.status, done.err) == (0, "")
    assert "ro" in flags(done.out, "/")
    assert str(box.folder) not in " ".join(fields[4] for fields in map(str.split, done.out.splitlines()))


def test_a_root_that_is_a_shared_mount_stays_private(box: Box) -> None:
    place = box.folder / "mounted"
    place.mkdir()
    subprocess.run(["mount", "--bind", box.rootfs, place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    try:
        box.config["root"]["path"] = str(place)
        text = trusted(box).says(f"mkdir /in; mount -t tmpfs x /in; {MOUNTS}")
        assert shares(text, "/") == "private"
        assert not os.path.ismount(place / "in")
    finally:
        subprocess.run(["umount", place], check=True)


def test_no_pivot_leaves_no_proc_of_the_host_within_reach(box: Box) -> None:
    """One of which nothing is covered permits every user namespace a proc without masks."""
    everything = [*ADMIN, "CAP_SETFCAP"]
    box.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), everything)
    box.linux["maskedPaths"] = ["/proc/sysrq-trigger"]
    box.process["noNewPrivileges"] = False
    script = "unshare -mrpf sh -c 'mount -t proc none /proc && echo mounted'; true"
    for options in ([], ["--no-pivot"]):
        done = box.sh(script).run(*options)
        assert "mounted" not in done.out, options
        assert "ermission denied" in done.err or "not permitted" in done.err, options


@pytest.mark.parametrize("word", ["private", "rslave", "shared", "unbindable"])
def test_no_pivot_with_propagation(box: Box, word: str) -> None:
    box.linux["rootfsPropagation"] = word
    done = box.sh(MOUNTS).run("--no-pivot")
    assert (done.status, done.err) == (0, "")
    got = shares(done.out, "/")
    assert got == word or (word == "rslave" and got in ("private", "slave")), "a slave only where the host shares the root"


# ── many ──


@pytest.mark.parametrize("user", [False, True])
def test_hundreds_of_mounts(box: Box, user: bool) -> None:
    if user:
        in_user_namespace(box)
    (box.folder / "file").write_text("file")
    (box.folder / "dir").mkdir()
    for n in range(150):
        box.mount(f"/data/{n % 7}/file{n}", str(box.folder / "file"), "bind", "ro", "nosuid")
    for n in range(50):
        box.mount(f"/data/dir{n}", str(box.folder / "dir"), "rbind", "rnodev")
    for n in range(20):
        box.mount(f"/data/fs{n}", "tmpfs", "ro", "size=4k", kind="tmpfs")
    text = box.says(f"cat /data/2/file149; {MOUNTS}")
    assert text.startswith("file")
    assert len([path for path in mountinfo(text) if path.startswith("/data/")]) == 220
    assert "ro" in flags(text, "/data/fs19")


def test_places_that_are_made_take_no_descriptors(box: Box) -> None:
    """Each has several new directories above it; the caller may have a few files open."""
    for n in range(100):
        box.mount(f"/data/{n}/a/b/c", "tmpfs", "size=4k", kind="tmpfs")
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (60, 60))
    done = box.sh("grep -c ' /data/[0-9]*/a/b/c ' /proc/self/mountinfo").run(preexec_fn=few)
    assert (done.out, done.err) == ("100\n", "")


# ── devices ──


def test_devices_that_every_container_has_given_once_more(box: Box) -> None:
    box.linux["devices"] = [
        {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
    ]
    out = box.says("stat -c '%F %t:%T %a' /dev/tty; stat -L -c '%F %t:%T %a' /dev/ptmx")
    assert out.splitlines() == ["character special file 5:0 666", "character special file 5:2 666"]


# ── masks ──


def test_masked_directories_are_one_empty_read_only_tmpfs(box: Box) -> None:
    for name in ("one", "two", "three"):
        (box.rootfs / name / "inner").mkdir(parents=True)
    box.linux["maskedPaths"] = ["/one", "/two", "/three"]
    box.config["root"]["readonly"] = True
    out = trusted(box).says(f"ls -A /one /two /three; stat -c %d /one /two /three; touch /one/x 2>&1; rmdir /two 2>&1; {MOUNTS}")
    numbers = re.findall(r"^\d+$", out, re.M)
    assert len(numbers) == 3
    assert len(set(numbers)) == 1
    assert "inner" not in out
    for path in ("/one", "/two", "/three"):
        assert "ro" in flags(out, path)


def test_masks_cannot_be_taken_off_without_privilege(box: Box) -> None:
    (box.rootfs / "secret").write_text("secret")
    box.linux["maskedPaths"] = ["/secret"]
    done = box.sh("umount /secret; rm -f /secret; cat /secret; mount --bind / /tmp; cat /tmp/secret").run()
    assert "secret\n" not in done.out
    assert done.out == ""


# ── sysfs and proc ──


@pytest.mark.parametrize("user", [False, True])
def test_proc_and_sysfs_are_of_the_containers_namespaces(box: Box, user: bool) -> None:
    """New ones, with what they were told: not the host's, nor changes to the host's."""
    if user:
        in_user_namespace(box)
    hosts = {kind: Path("/proc/self/mountinfo").read_text().count(f" - {kind} ") for kind in ("proc", "sysfs")}
    for mount in box.config["mounts"]:
        if mount["type"] == "proc":
            mount["options"] = [*QUIET, "hidepid=invisible", "gid=7"]
    text = box.says(f"ls -d /proc/[0-9]*; ls /sys/class/net; touch /sys/x 2>/dev/null || echo ro; {MOUNTS}")
    found, _, text = text.partition("ro\n")
    assert found.split()[0] == "/proc/1" and found.split()[-1] == "lo" and len(found.split()) <= 3
    assert {"hidepid=invisible", f"gid={100007 if user else 7}"} <= superblock(text, "/proc")
    assert {"nosuid", "nodev", "noexec"} <= flags(text, "/proc") & flags(text, "/sys")
    ours = mountinfo(Path("/proc/self/mountinfo").read_text())
    assert {mountinfo(text)[path][2] for path in ("/proc", "/sys")} & {fields[2] for fields in ours.values()} == set()
    assert "hidepid" not in " ".join(ours["/proc"])
    assert hosts == {kind: Path("/proc/self/mountinfo").read_text().count(f" - {kind} ") for kind in hosts}


@pytest.mark.skipif("CAP_SYS_ADMIN" not in CAPABLE, reason="covering the host's /sys takes CAP_SYS_ADMIN")
def test_a_covered_sysfs_of_the_host_is_shown_as_it_is(box: Box) -> None:
    """As a runtime in a container finds it: the kernel then refuses a user namespace a new one (mount_too_revealing)."""
    in_user_namespace(box)
    box.sh(MOUNTS).save()
    script = 'mount -t tmpfs cover /sys/kernel && exec "$@"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *box.words("run", "--bundle", str(box.bundle), box.id)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags(done.stdout, "/sys")
    assert mountinfo(done.stdout)["/sys/kernel"][-2] == "cover"
    assert {"ro", "nosuid", "nodev", "noexec"} <= flags(done.stdout, "/sys/kernel")


@pytest.mark.skipif("CAP_SYS_ADMIN" not in CAPABLE, reason="covering the host's /proc takes CAP_SYS_ADMIN")
def test_a_proc_that_the_kernel_refuses_is_told_why(box: Box) -> None:
    in_user_namespace(box)
    box.save()
    script = 'mount -t tmpfs cover /proc/sys && exec "$@"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *box.words("run", "--bundle", str(box.bundle), box.id)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "mount proc on /proc" in done.stderr
    assert "mount_too_revealing" in done.stderr
    assert box.left() == []


# ── SELinux ──


def test_a_label_of_mounts_takes_selinux(box: Box) -> None:
    if "selinux" in (FACTS["lsm"] or ()):
        pytest.skip("this kernel runs SELinux")
    box.linux["mountLabel"] = "system_u:object_r:container_file_t:s0:c1,c2"
    done = box.run()
    assert done.status == 1
    assert "/linux/mountLabel: selinux label is specified in config, but selinux is disabled or not supported" in done.err
    assert box.left() == []


# ── cgroups ──


@pytest.mark.skipif(CGROUPS["layout"] == "none", reason="no cgroups here")
@pytest.mark.parametrize("namespaced", [True, False])
@pytest.mark.parametrize("flag", ["ro", "rw"])
def test_cgroups_in_a_user_namespace(box: Box, namespaced: bool, flag: str) -> None:
    in_user_namespace(box)
    if not namespaced:
        box.without("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup", *QUIET, "relatime", flag, kind="cgroup")
    text = box.says(f"cd /sys/fs/cgroup; for d in . *; do [ -L $d ] || [ ! -f $d/cgroup.procs ] || echo $d $(grep -cx 1 $d/cgroup.procs); done; {MOUNTS}")
    found = re.findall(r"^(\S+) 1$", text, re.M)
    hosts = {m.rpartition("/")[2] for m in CGROUPS["mounts"].values()}
    assert set(found) == ({"."} if CGROUPS["layout"] == "v2" else hosts)
    for path in mountinfo(text):
        if path.startswith("/sys/fs/cgroup"):
            assert {"nosuid", "nodev", "noexec", flag} <= flags(text, path)


@pytest.mark.skipif(CGROUPS["layout"] == "none", reason="no cgroups here")
def test_cgroups_of_a_namespace_that_belongs_to_another(box: Box) -> None:
    """A user namespace may mount no cgroup in a cgroup namespace that it does not own: the container's directories are shown."""
    holder = subprocess.Popen(["unshare", "--cgroup", "sleep", "1000"])
    try:
        bundles.eventually(lambda: os.readlink(f"/proc/{holder.pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup"))
        in_user_namespace(box)
        box.without("cgroup")
        box.linux["namespaces"].append({"type": "cgroup", "path": f"/proc/{holder.pid}/ns/cgroup"})
        box.mount("/sys/fs/cgroup", "cgroup", *QUIET, "ro", kind="cgroup")
        out = box.says("cd /sys/fs/cgroup; for d in . *; do [ -L $d ] || [ ! -f $d/cgroup.procs ] || echo $d $(grep -cx 1 $d/cgroup.procs); done")
        assert re.findall(r"^\S+ 1$", out, re.M)
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("user", [False, True])
def test_a_source_that_only_the_host_gets_to(box: Box, user: bool) -> None:
    """What is bound is taken hold of outside, where the way to it is open."""
    if user:
        in_user_namespace(box)
    closed = box.folder / "closed"
    (closed / "m").mkdir(parents=True)
    (closed / "m/file").write_text("hello")
    (closed / "m").chmod(0o755)
    (closed / "link").symlink_to("m")
    closed.chmod(0)
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.mount("/a", str(closed / "m"), "bind", "ro")
    box.mount("/b", str(closed / "link"), "rbind", "rro")
    assert box.says("cat /a/file /b/file") == "hellohello"


@pytest.mark.elsewhere
@pytest.mark.skipif(not shutil.which("mkfs.ext4") or not os.path.exists("/dev/loop-control"), reason="no mkfs.ext4, or no loop devices here")
@pytest.mark.parametrize("flag", ["ro", "rw"])
def test_a_filesystem_of_a_device(box: Box, flag: str) -> None:
    """A device that is read-only itself can only be mounted so."""
    image = box.folder / "image"
    image.write_bytes(bytes(4 << 20))
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    device = subprocess.run(["losetup", "--find", "--show", "--read-only", image], check=True, capture_output=True, text=True).stdout.strip()
    try:
        box.linux["resources"] = {"devices": [{"allow": True, "type": "b", "access": "rw"}]}
        box.mount("/data", device, flag, "nodev", kind="ext4")
        done = box.sh(f"ls -d /data/lost+found; {MOUNTS}").run()
        if flag == "ro":
            assert {"ro", "nodev"} <= flags(done.out, "/data")
            assert "ro" in superblock(done.out, "/data")
        else:
            assert done.status == 1
            assert "mount ext4 on /data" in done.err
            assert box.left() == []
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.elsewhere
@pytest.mark.skipif("name=systemd" not in bundles.CGROUPS["mounts"], reason="systemd's hierarchy of cgroup v1 is not mounted here")
@pytest.mark.parametrize("namespace", [True, False])
def test_systemds_hierarchy_of_v1_alone(box: Box, namespace: bool) -> None:
    """crun's annotation, for a container with a systemd that does not know cgroup v2."""
    if not namespace:
        box.without("cgroup")
    box.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "ro", kind="cgroup")
    box.config["annotations"] = {"run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup"}
    out = box.says("ls /sys/fs/cgroup; head -n 1 /sys/fs/cgroup/systemd/cgroup.procs; grep ' /sys/fs/cgroup' /proc/self/mountinfo")
    names, first, *rest = out.splitlines()
    assert (names, first) == ("systemd", "1")
    mounts = {line.split()[4]: line for line in rest if line.count(" - ")}
    assert sorted(mounts) == ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd"]
    assert " - cgroup " in mounts["/sys/fs/cgroup/systemd"] and "name=systemd" in mounts["/sys/fs/cgroup/systemd"]
    assert mounts["/sys/fs/cgroup"].split()[5].startswith("ro,")


@pytest.mark.parametrize("user", [False, True])
def test_a_source_that_an_earlier_mount_has_made(box: Box, user: bool) -> None:
    """The root filesystem's path on the host leads to what is mounted in there by then, and means the root as a destination, too."""
    (box.folder / "dir/sub").mkdir(parents=True)
    (box.folder / "dir/sub/file").write_text("file")
    if user:
        user_namespace(box.config)
        os.chown(box.rootfs, 100000, 100000)
    box.mount("/mnt", str(box.folder / "dir"), "rbind")
    box.mount("/again", f"{box.rootfs}/mnt/sub", "rbind", "ro")
    box.mount(f"{box.rootfs}/one", f"{box.rootfs}/mnt/sub/file", "bind")
    box.mount("/new", "tmpfs", kind="tmpfs")
    box.mount("/shown", f"{box.rootfs}/new", "bind")
    script = "cat /again/file /one; touch /again/x 2>&1; echo new > /new/file; cat /shown/file; grep -c ' /shown ' /proc/self/mountinfo; ls -d /tmp*"
    assert box.says(script) == "filefiletouch: /again/x: Read-only file system\nnew\n1\n/tmp\n"
    assert sorted(path.name for path in box.rootfs.iterdir() if path.name in ("mnt", "again", "one", "new", "shown")) == [
        "again", "mnt", "new", "one", "shown",
    ]  # fmt: skip
    assert not list((box.rootfs / "again").iterdir())


def test_a_source_in_the_root_that_nothing_covers_is_the_hosts(box: Box) -> None:
    (box.rootfs / "data").mkdir()
    (box.rootfs / "data/file").write_text("file")
    box.mount("/data/again", f"{box.rootfs}/data", "bind")
    assert box.says("cat /data/again/file; ls /data/again") == "fileagain\nfile\n"
    box.mount("/x", f"{box.rootfs}/nothing", "bind")
    done = box.run()
    assert done.status == 1 and "/source: " in done.err and "no such file or directory" in done.err
