"""Which cgroup hierarchies this host has, and where this process is in them. Facts, no judgement."""

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.plan.resources import CgroupFacts


def read(pid: "int | str" = "self") -> "CgroupFacts":
    """The hierarchies that can be reached, and where this process, or the one given, is in them: section "cgroup" of the host facts.

    "v2" is a unified hierarchy alone, "v1" some of cgroup v1 alone, "hybrid" both. A controller mounted together with others
    (cpu,cpuacct) has an entry of its own; a named v1 hierarchy is called as the kernel does, "name=systemd". mounts[x] + own[x] is the
    directory of this process's cgroup in x. Sources: proc_pid_mountinfo(5), cgroups(7) on /proc/PID/cgroup.
    """
    return parse(_text("/proc/self/mountinfo"), _text(f"/proc/{pid}/cgroup"), _reaches, _controllers)


def left_out(found: "CgroupFacts") -> "CgroupFacts":
    """The same for a container that is to have no cgroup: as if the host had no hierarchy."""
    return {**found, "layout": "none", "mounts": {}, "own": {}}


def parse(mountinfo: str, own: str, reaches: "Reaches", controllers: "Controllers") -> "CgroupFacts":
    """The facts from the texts of the two files of proc.

    `reaches(mount point, "major:minor")` says whether a path leads to that mount, rather than to one on top of it; `controllers(mount
    point)` lists those of a unified hierarchy.
    """
    mounts: "dict[str, str]" = {}
    roots: "dict[str, str]" = {}
    for line in mountinfo.splitlines():
        if " - cgroup" not in line:
            continue
        before, _, after = line.partition(" - ")
        kind = after.split(" ", 1)[0]
        if kind != "cgroup" and kind != "cgroup2":
            continue
        _, _, device, root, point = before.split(" ")[:5]
        keys = ["unified"] if kind == "cgroup2" else _keys_v1(after.split(" ")[-1])
        point = _plain(point)
        if any(key not in mounts for key in keys) and reaches(point, device):
            for key in keys:
                mounts.setdefault(key, point)
                roots.setdefault(key, _plain(root).rstrip("/"))
    where: "dict[str, str]" = {}
    for line in own.splitlines():
        number, names, path = line.split(":", 2)
        for key in ["unified"] if number == "0" else names.split(","):
            # a container sees a part of the hierarchy mounted; a cgroup namespace prints what is outside as /..
            if key in mounts and not path.startswith("/..") and (path + "/").startswith(roots[key] + "/"):
                where[key] = path[len(roots[key]) :] or "/"
    unified = "unified" in mounts
    return {
        "layout": "none" if not mounts else "v1" if not unified else "v2" if len(mounts) == 1 else "hybrid",
        "mounts": mounts,
        "own": where,
        "controllers": controllers(mounts["unified"]) if unified else [],
    }


def _keys_v1(options: str) -> "list[str]":
    """The controllers, or the name, of a v1 hierarchy from its superblock options; the others are flags."""
    flags = ("rw", "ro", "xattr", "noprefix", "clone_children", "none", "favordynmods", "nofavordynmods", "cpuset_v2_mode", "seclabel")
    return [word for word in options.split(",") if word not in flags and not word.startswith("release_agent=")]


def _plain(path: str) -> str:
    """A path of mountinfo with its octal escapes (space, tab, newline, backslash) undone."""
    first, *rest = path.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def _reaches(point: str, device: str) -> bool:
    try:
        number = posix.stat(point).st_dev
    except OSError:
        return False
    return f"{number >> 8 & 0xFFF}:{number & 0xFF | number >> 12 & 0xFFF00}" == device


def _controllers(point: str) -> "list[str]":
    return _text(f"{point}/cgroup.controllers").split()


def _text(path: str) -> str:
    """A whole file of proc or cgroupfs, empty when it is not there."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    parts = []
    try:
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
    finally:
        posix.close(fd)
    return b"".join(parts).decode("utf-8", "surrogateescape")


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Reaches: TypeAlias = Callable[[str, str], bool]
    Controllers: TypeAlias = Callable[[str], list[str]]
