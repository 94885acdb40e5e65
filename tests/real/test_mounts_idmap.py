"""Mounts with mapped ids: who owns what is seen in there, and who owns outside what is made in there."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rundlet.life import mountinfo
from tests.bundles import Box, children, eventually, user_namespace
from tests.real.test_rootfs import MOUNTS, flags, shares

MEMORY = tuple(int(part) for part in os.uname().release.split(".")[:2]) >= (6, 3)  # then tmpfs can
FILES = {"foo": (100, 211), "bar": (101, 222), "baz": (102, 233)}


def maps(*entries: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in entries]


def mapped(box: Box, place: str, source: Path | str, uids: list[dict[str, int]], gids: list[dict[str, int]] | None = None, *options: str) -> None:
    box.mount(place, str(source), *(options or ("bind",)))
    box.config["mounts"][-1] |= {"uidMappings": uids, "gidMappings": gids or uids}


def in_user_namespace(box: Box) -> Box:
    user_namespace(box.config)
    os.chown(box.rootfs, 100000, 100000)
    return box


def owners(box: Box, *paths: str) -> list[str]:
    return box.says(f"stat -c %u:%g {' '.join(paths)}").split()


@pytest.fixture
def source(box: Box) -> Iterator[Path]:
    """A directory with files of several owners, one of the root user too, on a filesystem that can map ids."""
    folder = box.folder / "source"
    folder.mkdir()
    if MEMORY:
        subprocess.run(["mount", "-t", "tmpfs", "memory", folder], check=True)
    elif mountinfo.filesystem(str(folder)) not in ("ext4", "xfs", "btrfs"):
        pytest.skip("no filesystem here can map ids")
    folder.chmod(0o777)
    (folder / "root").touch()
    for name, (uid, gid) in FILES.items():
        (folder / name).touch()
        os.chown(folder / name, uid, gid)
    yield folder
    if MEMORY:
        subprocess.run(["umount", folder], check=True)


BASIC = maps((0, 100000, 65536))


def test_with_a_user_namespace(box: Box, source: Path) -> None:
    """What belongs to root outside belongs to root in there, where the mount is mapped; where it is not, to nobody."""
    in_user_namespace(box)
    mapped(box, "/mapped", source, BASIC)
    box.mount("/plain", str(source), "bind")
    assert owners(box, "/mapped/root", "/mapped/foo", "/plain/root") == ["0:0", "100:211", "65534:65534"]


def test_a_source_that_an_earlier_mount_has_made_in_a_user_namespace(box: Box, source: Path) -> None:
    """Mapped from outside in the middle of it all, each time it comes to that, whatever else is done between two mounts."""
    in_user_namespace(box)
    (source / "sub").mkdir()
    (source / "sub/file").touch()
    (box.rootfs / "image").mkdir()
    os.chown(box.rootfs / "image", 100000, 100000)
    (box.rootfs / "image/there").touch()
    box.mount("/plain", str(source), "bind")
    mapped(box, "/mapped", f"{box.rootfs}/plain/sub", BASIC)
    box.mount("/image", "tmpfs", "tmpcopyup", kind="tmpfs")
    box.mount("/again", f"{box.rootfs}/plain", "rbind", "idmap")
    assert owners(box, "/plain/root", "/mapped/file", "/again/foo", "/again/sub/file") == ["65534:65534", "0:0", "100:211", "0:0"]
    assert box.says("ls /image") == "there\n"
    assert [line for line in box.left() if str(source) not in line] == []


def test_one_that_cannot_be_mapped_in_a_user_namespace(box: Box, source: Path) -> None:
    """A mount that is mapped already is not mapped once more: mount_setattr(2)."""
    in_user_namespace(box)
    mapped(box, "/mapped", source, BASIC)
    mapped(box, "/again", f"{box.rootfs}/mapped", BASIC)
    done = box.run()
    assert done.status == 1
    assert f"map the ids of {source} (" in done.err and "mount_setattr: operation not permitted" in done.err
    assert [line for line in box.left() if str(source) not in line] == []


def test_without_one(box: Box, source: Path) -> None:
    mapped(box, "/mapped", source, maps((0, 100000, 65536)))
    box.mount("/plain", str(source), "bind")
    assert owners(box, "/mapped/root", "/mapped/bar", "/plain/root") == ["100000:100000", "100101:100222", "0:0"]


def test_what_is_made_in_there(box: Box, source: Path) -> None:
    in_user_namespace(box)
    mapped(box, "/mapped", source, BASIC)
    assert owners(box, "/mapped/$(touch /mapped/new; echo new)") == ["0:0"]
    made = (source / "new").stat()
    assert (made.st_uid, made.st_gid) == (0, 0)


def test_whoever_is_not_mapped_makes_nothing(box: Box, source: Path) -> None:
    mapped(box, "/mapped", source, BASIC)
    done = box.sh("touch /mapped/new").run()
    assert done.status != 0
    assert "Value too large" in done.err
    assert not (source / "new").exists()


@pytest.mark.parametrize("user", [False, True])
def test_several_maps(box: Box, source: Path, user: bool) -> None:
    """The same directory with different maps, users and groups apart, and maps of several lines."""
    if user:
        in_user_namespace(box)
    mapped(box, "/a", source, maps((100, 100000, 100)), maps((200, 100000, 100)))
    mapped(box, "/b", source, maps((100, 101000, 100)), maps((200, 102000, 100)))
    lines = maps((100, 101000, 1), (101, 102000, 1), (102, 103000, 1)), maps((210, 101100, 10), (220, 102200, 10), (230, 103300, 10))
    mapped(box, "/c", source, *lines)
    mapped(box, "/again", source, maps((100, 100000, 100)), maps((200, 100000, 100)))
    less = 100000 if user else 0
    wanted = [(100000, 100011), (100001, 100022), (100002, 100033), (101000, 102011), (101001, 102022), (101002, 102033)]
    wanted += [(101000, 101101), (102000, 102202), (103000, 103303), (100000, 100011)]
    paths = [f"/{mount}/{name}" for mount in ("a", "b", "c") for name in FILES]
    assert owners(box, *paths, "/again/foo") == [f"{uid - less}:{gid - less}" for uid, gid in wanted]


@pytest.mark.parametrize("word", ["idmap", "ridmap"])
def test_as_the_user_namespace_of_the_container(box: Box, source: Path, word: str) -> None:
    in_user_namespace(box)
    box.mount("/mapped", str(source), "rbind" if word == "ridmap" else "bind", word, "ro", "nosuid")
    out = box.says(f"stat -c %u:%g /mapped/root /mapped/foo; {MOUNTS}")
    assert out.startswith("0:0\n100:211\n")
    assert {"ro", "nosuid"} <= flags(out, "/mapped")
    assert "idmapped" in flags(out, "/mapped")


def test_as_a_user_namespace_that_is_joined(box: Box, source: Path) -> None:
    holder = subprocess.Popen(["unshare", "--user", "sleep", "1000"])
    try:
        assert eventually(lambda: os.readlink(f"/proc/{holder.pid}/ns/user") != os.readlink("/proc/self/ns/user"))
        for kind in ("uid", "gid"):
            Path(f"/proc/{holder.pid}/{kind}_map").write_text("0 200000 65536")
        os.chown(box.rootfs, 200000, 200000)
        box.linux["namespaces"].append({"type": "user", "path": f"/proc/{holder.pid}/ns/user"})
        box.mount("/mapped", str(source), "bind", "idmap")
        assert owners(box, "/mapped/root", "/mapped/foo") == ["0:0", "100:211"]
    finally:
        holder.kill()
        holder.wait()


def test_the_maps_in_one_option(box: Box, source: Path) -> None:
    """crun's way to write it; the second number with @ is one of the container's namespace."""
    in_user_namespace(box)
    box.mount("/a", str(source), "bind", "idmap=uids=0-100000-50#100-100500-3;gids=0-100000-500")
    box.mount("/b", str(source), "bind", "idmap=uids=@0-0-50#@100-500-3;gids=@0-0-500")
    assert owners(box, "/a/root", "/a/bar", "/b/root", "/b/bar") == ["0:0", "501:222"] * 2


def test_the_maps_in_one_option_without_a_user_namespace(box: Box, source: Path) -> None:
    box.mount("/a", str(source), "bind", "ridmap=uids=0-1000-10#100-5000-9;gids=0-1000-500")
    assert owners(box, "/a/root", "/a/baz") == ["1000:1000", "5002:1233"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("idmap=uids=0-1-10", "needs both uids and gids"),
        ("idmap=uids=0-1-10;gids=0-1", "is not three numbers"),
        ("idmap=uids=0-1-10;gids=x-1-1", "is not three numbers"),
        ("idmap=uids=0-1-10;gids=-1-1-1", "is not three numbers"),
        ("idmap=uids=0-1-10;gids=0-1-0", "is no range of ids"),
        ("idmap=uids=0-1-10;gids=4294967290-1-10", "is no range of ids"),
        ("idmap=uids=0-1-10#5-20-10;gids=0-1-10", "overlap"),
        ("idmap=users=0-1-10;gids=0-1-10", "is not understood"),
        ("idmap=uids=0-1-10;gids=0-1-10;gids=0-1-10", "is not understood"),
        ("idmap=uids=@0-0-10;gids=0-1-10", "not mapped by the user namespace"),
        ("idmap", "needs uidMappings and gidMappings here, or a user namespace"),
        ("idmap=", "needs uidMappings and gidMappings here, or a user namespace"),
    ],
)
def test_maps_that_are_none(box: Box, option: str, words: str) -> None:
    box.mount("/a", str(box.bundle), "bind", option)
    done = box.run()
    assert done.status == 1
    assert words in done.err
    assert "/mounts/4/options" in done.err
    assert box.left() == []


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("word", ["shared", "rprivate", "unbindable"])
def test_with_propagation(box: Box, source: Path, user: bool, word: str) -> None:
    if user:
        in_user_namespace(box)
    mapped(box, "/mapped", source, BASIC, BASIC, "bind", word)
    assert shares(box.says(MOUNTS), "/mapped") == word.removeprefix("r")


@pytest.fixture
def nested(source: Path) -> Iterator[Path]:
    """The directory with a mount below it, of a filesystem whose ids can be mapped."""
    (source / "inner").mkdir()
    (source / "other").mkdir()
    (source / "other/file").touch()
    subprocess.run(["mount", "--bind", source / "other", source / "inner"], check=True)
    yield source
    subprocess.run(["umount", source / "inner"], check=True)


@pytest.mark.parametrize(("word", "inner"), [("idmap", "0:0"), ("ridmap", "100000:100000")])
def test_what_is_mounted_below(box: Box, nested: Path, word: str, inner: str) -> None:
    mapped(box, "/mapped", nested, BASIC, BASIC, "rbind", word)
    assert owners(box, "/mapped/root", "/mapped/inner/file") == ["100000:100000", inner]


def test_a_file(box: Box, source: Path) -> None:
    in_user_namespace(box)
    mapped(box, "/file", source / "foo", maps((100, 100007, 1)), maps((211, 100008, 1)))
    assert owners(box, "/file") == ["7:8"]


def test_a_filesystem_that_cannot_is_named(box: Box) -> None:
    mapped(box, "/mapped", "/proc/self", BASIC)
    done = box.run()
    assert done.status == 1
    assert "map the ids of /proc/self (proc): mount_setattr: invalid argument" in done.err
    assert box.left() == []


def test_only_binds(box: Box) -> None:
    box.mount("/a", "tmpfs", kind="tmpfs")
    box.config["mounts"][-1] |= {"uidMappings": BASIC, "gidMappings": BASIC}
    done = box.run()
    assert done.status == 1
    assert "/mounts/4/uidMappings: only a bind mount can have mapped ids" in done.err


@pytest.mark.parametrize("key", ["uidMappings", "gidMappings"])
def test_both_or_none(box: Box, source: Path, key: str) -> None:
    mapped(box, "/a", source, BASIC)
    del box.config["mounts"][-1][key]
    done = box.run()
    assert done.status == 1
    assert f"/mounts/4/{key}: is required" in done.err


def test_nobody_is_left(box: Box, source: Path) -> None:
    """The processes that made the namespaces of ids are gone while the container runs, and hold nothing in it."""
    mapped(box, "/a", source, BASIC)
    mapped(box, "/b", source, maps((0, 5, 3)))
    pid = box.started()
    assert children() == [pid]
    fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert not [name for name in fds if name.startswith("user:")]
    box.ended()


def test_on_the_filesystem_of_the_bundle(box: Box) -> None:
    kind = mountinfo.filesystem(str(box.folder))
    (box.folder / "dir").mkdir()
    (box.folder / "dir/file").touch()
    mapped(box, "/mapped", box.folder / "dir", BASIC)
    if kind in ("ext4", "xfs", "btrfs") or (kind == "tmpfs" and MEMORY):
        assert owners(box, "/mapped/file") == ["100000:100000"]
    else:
        assert f"map the ids of {box.folder}/dir ({kind}): mount_setattr: invalid argument" in box.run().err


def test_added_to_a_container_that_runs(box: Box, source: Path) -> None:
    pid = box.started()
    (box.folder / "mounts.json").write_text(json.dumps([
        {"destination": "/a", "type": "bind", "source": str(source), "options": ["bind"], "uidMappings": BASIC, "gidMappings": BASIC},
        {"destination": "/b", "type": "bind", "source": str(source), "options": ["bind", "idmap=uids=0-7-1;gids=0-8-1"]},
    ]))
    box.call_apart("mounts", "add", box.id, str(box.folder / "mounts.json"))
    assert box.exec("stat", "-c", "%u:%g", "/a/foo", "/b/root").out == "100100:100211\n7:8\n"
    assert children() == [pid]
    box.ended()


def test_explained(box: Box, source: Path) -> None:
    """The plan shows who makes the maps, and what gets them."""
    mapped(box, "/a", source, BASIC)
    box.save()
    text = box.call("explain", "--steps", str(box.bundle)).out
    assert "── mapped ids ─" in text
    assert "make a user namespace for the mapped users 0 100000 65536 and groups 0 100000 65536" in text
    assert f"map the ids of {source} (" in text
    assert "<users0>" in text
