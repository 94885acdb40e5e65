"""What is seen from inside a container: paths looked up in its root, as its own processes would find them.

Nothing of the image leads out: each part of a path is opened by itself in the directory before it, and links are followed as if the
root were /. A FUSE filesystem is not entered, since whoever serves it could keep us waiting; nor is one of which nobody says what it is.
"""

import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from rundlet.confine.verify import filesystem
from rundlet.confine.verify.observe import FOLDER, LOOK, mount_of
from rundlet.life.bundle import LINKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set

HERE = LOOK | os.O_NOFOLLOW
FUSE = ("fuse", "fuseblk")
FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024, "nodiratime": 2048, "nosymfollow": 8192}  # statfs(2)


@dataclass
class Mount:
    """A line of mountinfo."""

    id: int
    parent: int  # the mount that it is on
    device: int  # of the filesystem
    point: str
    root: str  # the part of the filesystem that is shown
    options: frozenset[str]  # the mount's own
    shared: int  # peer group, 0 for none
    master: int
    unbindable: bool
    type: str
    source: str
    super_options: frozenset[str]

    @property
    def flags(self) -> int:
        """As statfs(2) would say them."""
        words = self.options | (self.super_options & {"ro"})
        return sum(flag for word, flag in FLAGS.items() if word in words)

    @property
    def served(self) -> bool:
        """Whether a process somewhere answers for it."""
        return self.type.partition(".")[0] in FUSE


@dataclass
class Place:
    """What is found at a path: the mount it is on, that mount's restrictions, and whether it is itself where a mount begins."""

    path: str  # resolved
    mount: int
    flags: int  # of statfs(2): the mount's and the filesystem's together
    mode: int
    device: tuple[int, int]  # of a device node
    begins: bool
    empty: bool | None = None  # of a directory where that was asked; None where it could not be told


@dataclass
class View:
    """A mount namespace as seen from the root of one process."""

    mounts: dict[int, Mount] = field(default_factory=dict)
    places: dict[str, Place | None] = field(default_factory=dict)  # as asked for; None: nothing is there
    ways: dict[str, str] = field(default_factory=dict)  # as asked for → resolved, where nothing is there as far as there is something
    unread: dict[str, str] = field(default_factory=dict)  # path → why it could not be looked at
    root: tuple[int, int] = (0, 0)  # device and inode
    base: int = 0  # the mount that the root is on

    @cached_property
    def _on(self) -> dict[int, list[Mount]]:
        """Mount id → those that are on it."""
        found: dict[int, list[Mount]] = {}
        for mount in self.mounts.values():
            found.setdefault(mount.parent, []).append(mount)
        return found

    def at(self, path: str) -> Mount | None:
        """The mount that a resolved path leads to, as the kernel finds it: the first one on the way covers those deeper on the same mount.
        None where that is what the root is on, and it is not listed."""
        now, way = self.base, path.rstrip("/") + "/"
        while over := [one for one in self._on.get(now, ()) if one.point != "/" and way.startswith(one.point + "/")]:
            now = min(over, key=lambda one: len(one.point)).id
        return self.mounts.get(now)

    def below(self, path: str) -> list[Mount]:
        """The mounts below a resolved path that can be seen: none that another one covers."""
        start = path.rstrip("/") + "/"
        return [one for one in self.mounts.values() if one.point.startswith(start) and one.point != "/" and self.at(one.point) is one]


def view(
    folder: int, lines: "Mapping[int, Sequence[str]]", host: "Mapping[int, Mount]", paths: "Iterable[str]", listed: "Iterable[str]",
) -> View:
    """Looks up the `paths` in the root of the process whose /proc directory is `folder`; of those in `listed` whether they are empty.

    `lines` are the lines of mountinfo, split, of its mount namespace; `host` are the mounts of ours, by number.
    """
    found = View({number: parse(words) for number, words in lines.items()})
    root = os.open("root", LOOK | os.O_DIRECTORY, dir_fd=folder)
    try:
        about = filesystem.about(root)
        found.root, found.base = (about.device, about.inode), mount_of(root)
        safe = _safe(found.mounts)
        if found.base not in found.mounts:
            every = (*found.mounts.values(), *host.values())
            if any(mount.device == about.device and not mount.served for mount in every):
                safe.add(found.base)
        deep = {number for number in safe if number == found.base or found.mounts[number].type != "overlay"}
        want = {**dict.fromkeys(paths, False), **dict.fromkeys(listed, True)}
        for path, contents in want.items():
            try:
                found.places[path], found.ways[path] = _look(root, path, contents, found, safe, deep)
            except _Served as served:
                found.unread[path] = f"{served} is on a FUSE filesystem, in an overlay, or mounted nowhere: a server could keep us waiting"
            except OSError as e:
                found.unread[path] = (e.strerror or "").lower()
    finally:
        os.close(root)
    return found


class _Served(Exception):
    """The way leads into a filesystem whose server could keep us waiting."""


def _safe(mounts: "Mapping[int, Mount]") -> set[int]:
    """The numbers of those whose filesystem nobody serves."""
    return {number for number, mount in mounts.items() if not mount.served}


def identity(path: str, host: "Mapping[int, Mount]") -> tuple[int, int] | None:
    """Device and inode of a directory of the host; None where it is not there, or could keep us waiting. `host` as for view()."""
    root = os.open("/", LOOK | os.O_DIRECTORY)
    try:
        # our own root may be listed nowhere, after a chroot
        safe = {mount_of(root), *_safe(host)}
        fd = _walk(root, path, safe, safe)[0]
    except (_Served, OSError):
        return None
    finally:
        os.close(root)
    if fd < 0:
        return None
    try:
        about = filesystem.about(fd)
        return about.device, about.inode
    finally:
        os.close(fd)


def _look(root: int, path: str, contents: bool, view: View, safe: "Set[int]", deep: "Set[int]") -> tuple[Place | None, str]:
    """What is there, and the resolved path."""
    fd, resolved, outer = _walk(root, path, safe, deep)
    if fd < 0:
        return None, resolved
    try:
        about = filesystem.about(fd)
        mount = mount_of(fd)
        begins = resolved == "/" or mount != outer
        listed = view.mounts.get(mount)
        flags = listed.flags if listed else os.fstatvfs(fd).f_flag
        found = Place(resolved, mount, flags, about.mode, about.node, begins)
        if contents and stat.S_ISDIR(about.mode) and mount in deep:
            found.empty = _is_empty(fd)
        return found, resolved
    finally:
        os.close(fd)


def _is_empty(fd: int) -> bool | None:
    try:
        again = os.open(".", FOLDER, dir_fd=fd)
    except OSError:
        return None
    try:
        return not os.listdir(again)
    finally:
        os.close(again)


def _walk(root: int, path: str, safe: "Set[int]", deep: "Set[int]") -> tuple[int, str, int]:
    """(descriptor, resolved path, mount of the directory it is in); -1 where nothing is there. A link that is mounted is what is there.

    `safe` are the mounts of which something may be looked at, `deep` those that may be entered: an overlay may be made of what somebody
    serves. Where another one begins can be opened, but not asked for anything. Raises _Served, OSError.
    """
    if mount_of(root) not in safe:
        raise _Served("/")
    left = [part for part in path.split("/") if part not in ("", ".")][::-1]
    held = [os.dup(root)]  # a descriptor for each part that was entered: `..` means the one before, never what the kernel makes of it
    done: list[str] = []
    links = 0
    try:
        while left:
            part = left.pop()
            if part == "..":
                if len(held) > 1:
                    os.close(held.pop())
                    done.pop()
                continue
            here = "/".join(["", *done, part])
            if mount_of(held[-1]) not in deep:
                raise _Served(here)
            try:
                fd = os.open(part, HERE, dir_fd=held[-1])
            except (FileNotFoundError, NotADirectoryError):
                return -1, "/".join([here, *reversed(left)]), 0
            if mount_of(fd) not in safe:
                os.close(fd)
                raise _Served(here)
            try:
                link = os.readlink("", dir_fd=fd)
            except OSError:  # no link
                link = None
            if link is None or (not left and mount_of(fd) != mount_of(held[-1])):
                held.append(fd)
                done.append(part)
                continue
            os.close(fd)
            links += 1
            if links > LINKS:
                return -1, here, 0
            if link[:1] == "/":
                while len(held) > 1:
                    os.close(held.pop())
                done.clear()
            left += [part for part in link.split("/") if part not in ("", ".")][::-1]
        outer = mount_of(held[-2]) if len(held) > 1 else -1
        return held.pop(), "/" + "/".join(done), outer
    finally:
        for fd in held:
            os.close(fd)


def parse(words: "Sequence[str]") -> Mount:
    """A line of mountinfo, split at blanks: proc_pid_mountinfo(5)."""
    end = words.index("-", 6)
    tags = dict(word.partition(":")[::2] for word in words[6:end])
    return Mount(
        int(words[0]), int(words[1]), os.makedev(*map(int, words[2].split(":"))), _plain(words[4]), _plain(words[3]),
        frozenset(words[5].split(",")), int(tags.get("shared", "0")),
        int(tags.get("master", "0")), "unbindable" in tags, words[end + 1], _plain(words[end + 2]), frozenset(words[end + 3].split(",")),
    )


def _plain(path: str) -> str:
    """A path with its octal escapes undone."""
    if "\\" not in path:
        return path
    first, *rest = path.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
