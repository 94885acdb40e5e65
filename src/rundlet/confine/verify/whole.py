"""What holds of a container as a whole beside what was asked: namespaces, id maps, root, mounts, masked and read-only paths. Pure."""

import stat
from typing import TYPE_CHECKING

from rundlet.confine.verify.inside import ST_NODEV, ST_NOEXEC, ST_NOSUID, ST_RDONLY
from rundlet.kernel import MS_SHARED
from rundlet.plan.bundle import is_bind
from rundlet.plan.mounts import Options
from rundlet.plan.rootfs import propagation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rundlet.confine.verify.compare import Findings
    from rundlet.confine.verify.inside import Mount, Place, View
    from rundlet.spec.types import Config, IDMapping
    from rundlet.spec.types import Mount as Asked

NULL = (1, 3)
FLAGS = {"ro": ST_RDONLY, "nosuid": ST_NOSUID, "nodev": ST_NODEV, "noexec": ST_NOEXEC}
ATTRIBUTES = {"ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8}  # mount_setattr(2), as plan/mounts.py sorts options
CONTAINER = "container"


def namespaces(
    config: "Config", container: "Mapping[str, str]", host: "Mapping[str, str]", joined: "Mapping[str, str]", found: "Findings",
) -> None:
    """The first process's namespaces. `joined`: kind → the namespace that a path of the configuration leads to, where it leads to one."""
    for space in config["linux"]["namespaces"]:
        kind, path = space["type"], space["path"]
        live = container.get(kind)
        if live is None:
            found.cannot_tell("namespace", CONTAINER, f"the {kind} namespace of the first process cannot be read")
        elif path is None:
            if live == host.get(kind):
                found.differs("namespace", CONTAINER, f"a {kind} namespace of its own", "the host's")
        elif kind not in joined:
            found.cannot_tell("namespace", CONTAINER, f"{path}, which the {kind} namespace is to be, is not there any more")
        elif joined[kind] != live:
            holds = f"the host's ({live})" if live == host.get(kind) else live
            found.differs("namespace", CONTAINER, f"the {kind} namespace {path} ({joined[kind]})", holds)
    asked: set[str] = {space["type"] for space in config["linux"]["namespaces"]}
    for other, live in container.items():
        if other not in asked and other in host and live != host[other]:
            found.note(f"narrower: a {other} namespace that is not the host's")


def id_map(kind: str, asked: "list[IDMapping]", text: str, found: "Findings") -> None:
    """The text of uid_map or gid_map: lines of the first id inside, the first outside, and how many: user_namespaces(7)."""
    live: list[tuple[int, ...]] = sorted(tuple(map(int, line.split())) for line in text.splitlines())
    want: list[tuple[int, ...]] = sorted((one["containerID"], one["hostID"], one["size"]) for one in asked)
    if live != want:
        found.differs("id-map", CONTAINER, f"{kind} {_lines(want)}", f"{kind} {_lines(live)}")


def _lines(rows: "list[tuple[int, ...]]") -> str:
    return ", ".join(" ".join(map(str, row)) for row in rows) or "none"


def root(config: "Config", view: "View", rootfs: "tuple[int, int] | None", host: "tuple[int, int]", found: "Findings") -> None:
    """The root filesystem, by device and inode of its directory; `rootfs` None where it is not there on the host any more."""
    covered = any(mount["destination"].strip("/") in ("", ".") for mount in config["mounts"])
    if view.root == host:
        found.differs("root", CONTAINER, config["root"]["path"], "the root of the host")
    elif rootfs and view.root != rootfs and not covered:
        found.differs("root", CONTAINER, config["root"]["path"], "another directory")
    place = view.places.get("/")
    if config["root"]["readonly"] and not covered and place and not place.flags & ST_RDONLY:
        found.differs("root", "/", "read-only", "writable", "the container may change the image that others may be using")


def mounts(config: "Config", view: "View", peers: "Collection[int]", found: "Findings") -> None:
    """Each mount of the configuration, as seen from inside, and the propagation of all. `peers`: the peer groups of the host's mounts."""
    for number, mount in enumerate(config["mounts"]):
        path = mount["destination"].rstrip("/") + "/"
        # one that is mounted over, or over what is around it, is not to be seen
        if not any(path.startswith(other["destination"].rstrip("/") + "/") for other in config["mounts"][number + 1 :]):
            _mount(mount, view, found)
    base = propagation(config["linux"]["rootfsPropagation"])
    shared = {mount["destination"].rstrip("/") or "/" for mount in config["mounts"] if _shares(mount)}
    for one in view.mounts.values():
        if one.shared in peers and base != MS_SHARED and not any(one.point == path or one.point.startswith(path + "/") for path in shared):
            found.differs("propagation", one.point, "not shared with the host", f"in peer group {one.shared} with a mount of the host")


def _shares(mount: "Asked") -> bool:
    return any(word in ("shared", "rshared") for word in mount["options"])


def _mount(mount: "Asked", view: "View", found: "Findings") -> None:
    where = mount["destination"]
    if "copy-symlink" in mount["options"] or "remount" in mount["options"]:
        return  # a link was made, or what another asked for was changed
    wanted = f"{mount['type'] or 'bind'} ({','.join(mount['options'])})"
    if where in view.unread:
        there = view.at(where)
        if there is None or there.point != where.rstrip("/"):
            found.cannot_tell("mount", where, view.unread[where])
        else:
            _restrictions(mount, where, _flags(there), wanted, found)
        return
    place = view.places.get(where)
    if place is None or not place.begins:
        found.differs("mount", where, wanted, "nothing is mounted there")
        return
    live = view.mounts.get(place.mount)
    if live and not is_bind(mount) and not _same_type(mount["type"] or "", live.type):
        found.differs("mount", where, wanted, f"{live.type} from {live.source}")
        return
    if live and live.type == "tmpfs" and mount["type"] == "cgroup" and not is_bind(mount):
        # cgroup v1: a directory of directories, one for each hierarchy; runc leaves the outer one, in which there is nothing, writable
        for inner in view.below(place.path):
            if inner.type in ("cgroup", "cgroup2"):
                _restrictions(mount, inner.point, _flags(inner), wanted, found)
        return
    _restrictions(mount, where, place.flags, wanted, found)


def _same_type(asked: str, live: str) -> bool:
    """`cgroup` is whatever the host has: docs/mounts.md; a bind of it where there is no cgroup namespace."""
    return asked == live or (asked in ("cgroup", "cgroup2") and live in ("cgroup", "cgroup2", "tmpfs"))


def _flags(mount: "Mount") -> int:
    words = mount.options | (mount.super_options & {"ro"})
    return sum(flag for word, flag in FLAGS.items() if word in words)


def _restrictions(mount: "Asked", where: str, flags: int, wanted: str, found: "Findings") -> None:
    options = Options(mount["options"])
    asked = options.set | options.deep_set
    missing = [word for word, flag in FLAGS.items() if asked & ATTRIBUTES[word] and not flags & flag]
    if missing:
        found.differs("mount", where, wanted, f"without {', '.join(missing)}")


def masked(config: "Config", view: "View", found: "Findings") -> None:
    """Masked paths: files show /dev/null, directories are empty and read-only."""
    for path in config["linux"]["maskedPaths"]:
        if path in view.unread:
            found.cannot_tell("masked-path", path, view.unread[path])
            continue
        place = view.places.get(path)
        if place is None:
            continue  # nothing is there to be masked
        holds = _unmasked(place)
        if not holds and place.empty is None and stat.S_ISDIR(place.mode):
            found.cannot_tell("masked-path", path, "the directory that is mounted there cannot be listed")
        elif holds:
            found.differs("masked-path", path, "masked", holds)


def _unmasked(place: "Place") -> str:
    """How a path is not masked, in words; "" where it is."""
    if stat.S_ISDIR(place.mode):
        if place.empty is False:
            return "a directory that is not empty"
        if not place.begins:
            return "not covered by a mount"
        return "" if place.flags & ST_RDONLY else "an empty directory that can be written"
    if stat.S_ISCHR(place.mode) and place.device == NULL:
        return ""
    return "the file itself" if not place.begins else "covered by something that is not /dev/null"


def read_only(config: "Config", view: "View", found: "Findings") -> None:
    """Read-only paths, and every mount that can be seen below them."""
    masks = {place.path for path in config["linux"]["maskedPaths"] if (place := view.places.get(path))}
    for path in config["linux"]["readonlyPaths"]:
        if path in view.unread:
            found.cannot_tell("read-only-path", path, view.unread[path])
            continue
        place = view.places.get(path)
        if place is None:
            continue
        if not place.flags & ST_RDONLY:
            found.differs("read-only-path", path, "read-only", "writable")
        for mount in view.below(place.path):
            if not _flags(mount) & ST_RDONLY and mount.point not in masks:
                found.differs("read-only-path", mount.point, f"read-only, as all below {path}", "writable")
