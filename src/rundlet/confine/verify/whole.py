"""What holds of a container as a whole beside what was asked: namespaces, id maps, root, mounts, masked and read-only paths. Pure."""

import stat
from collections import Counter
from typing import TYPE_CHECKING

from rundlet.confine.verify.inside import FLAGS
from rundlet.kernel import MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE
from rundlet.plan.bundle import is_bind
from rundlet.plan.mounts.options import ATTRIBUTES, Options
from rundlet.plan.rootfs import propagation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rundlet.confine.verify.compare import Findings
    from rundlet.confine.verify.inside import Place, View
    from rundlet.spec.types import Config, IDMapping
    from rundlet.spec.types import Mount as Asked

NULL = (1, 3)
ST_RDONLY = FLAGS["ro"]
CONTAINER = "container"
OF_THE_KERNEL = ("proc", "sysfs", "cgroup", "cgroup2")  # which may be the host's, with what is mounted there
NOTIFY = "/notify"  # the folder of the socket that runtimes offer for NOTIFY_SOCKET
SELDOM = ("user", "time")  # most containers have the host's


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
    if own := [kind for kind in hosts(container, host) if kind not in asked and kind not in SELDOM]:
        found.note(f"in namespaces of the host, as none of its own was asked for: {', '.join(own)}")


def hosts(container: "Mapping[str, str]", host: "Mapping[str, str]") -> tuple[str, ...]:
    """The kinds of which a container has the host's namespace."""
    return tuple(kind for kind, live in container.items() if live == host.get(kind))


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
    asked = [mount for mount in config["mounts"] if "copy-symlink" not in mount["options"]]  # of those that have it, links were made
    ways = [view.ways.get(mount["destination"], mount["destination"]).rstrip("/") + "/" for mount in asked]
    made = ["remount" not in mount["options"] for mount in asked]
    masked_ = tuple(path + "/" for path in _masks(config, view))
    for number, mount in enumerate(asked):
        later = range(number + 1, len(asked))
        if any(made[n] and ways[number].startswith(ways[n]) for n in later) or ways[number].startswith(masked_):
            continue  # one that is mounted over, or over what is around it, is not to be seen
        if not made[number] and ways[number] in ways[:number]:
            continue  # told with what it changes
        changes = [asked[n] for n in later if not made[n] and ways[n] == ways[number]]
        elsewhere = (*(ways[n] for n in later if made[n]), *masked_)
        _mount(_Wanted(mount, changes, elsewhere), view, found)
    base = config["linux"]["rootfsPropagation"]
    words = {way: word for way, mount in zip(ways, asked, strict=True) if (word := Options(mount["options"]).propagation)}
    if base:
        words["/"] = propagation(base)
    for one in view.mounts.values():
        point = one.point.rstrip("/") + "/"
        kind = words.get(max((way for way in words if point.startswith(way)), key=len, default="/"))
        if one.shared in peers and kind != MS_SHARED:
            found.differs("propagation", one.point, "not shared with the host", f"in peer group {one.shared} with a mount of the host")
        elif point in words and kind == MS_PRIVATE and (one.shared or one.master) and view.at(one.point) is one:
            holds = f"in peer group {one.shared}" if one.shared else f"a slave of peer group {one.master}"
            found.differs("propagation", one.point, "private", holds)
        elif point in words and kind == MS_UNBINDABLE and not one.unbindable and view.at(one.point) is one:
            found.differs("propagation", one.point, "unbindable", "not so", "it can be bound elsewhere, and be shared with that place")


def unasked(config: "Config", view: "View", along: "Iterable[str]", found: "Findings") -> None:
    """Mounts that nothing asks for, in a container whose processes cannot mount. `along`: where the host has mounts below the root
    filesystem, which come with it."""
    linux = config["linux"]
    if propagation(linux["rootfsPropagation"]) in (MS_SHARED, MS_SLAVE):
        return  # what is mounted on the host may appear
    asked: Counter[str] = Counter()
    around = ["/dev/", *(path + "/" for path in along)]  # below these there may be any: runtimes bind devices and the console
    for mount in config["mounts"]:
        options, way = Options(mount["options"]), view.ways.get(mount["destination"], mount["destination"]).rstrip("/") + "/"
        asked[way] += not options.remount
        if options.recursive or options.propagation in (MS_SHARED, MS_SLAVE) or mount["type"] in OF_THE_KERNEL:
            around.append(way)
    asked.update(path + "/" for path in _masks(config, view))
    asked.update(place.path + "/" for path in linux["readonlyPaths"] if (place := view.places.get(path)))
    asked.update(device["path"] + "/" for device in linux["devices"])
    hooked = any(config["hooks"].values())
    for one in view.mounts.values():
        point = one.point + "/"
        stacked = sum(other.point == one.point for other in view.mounts.values())
        known = stacked <= asked[point] or point.startswith(("//", *around)) or one.root.endswith(NOTIFY)
        if known or view.at(one.point) is not one:
            continue
        words = f"{one.type} from {one.source}" + (f", of that {one.root}" if one.root != "/" else "")
        if hooked:
            found.note(f"mounted at {one.point}, perhaps by a hook: {words}")
        else:
            because = "what it shows was not asked for, and no process of the container can have mounted it"
            found.differs("mount", one.point, "no mount" if not asked[point] else "no other mount on the one asked for", words, because)


class _Wanted:
    """A mount as it is to be once those after it with the word remount have changed it. Below `elsewhere` something else is asked for."""

    def __init__(self, mount: "Asked", changes: "list[Asked]", elsewhere: "tuple[str, ...]") -> None:
        self.mount, self.elsewhere = mount, elsewhere
        self.where = mount["destination"]
        self.words = ", then ".join(f"{one['type'] or 'bind'} ({','.join(one['options'])})" for one in (mount, *changes))
        self.flags = self.deep = 0  # attributes of the mount, and of all below it
        for options in (Options(one["options"]) for one in (mount, *changes)):
            self.flags = self.flags & ~(options.clear | options.deep_clear) | options.set | options.deep_set
            self.deep = self.deep & ~options.deep_clear | options.deep_set

    @property
    def type(self) -> str:
        """Empty where it may be any: of a bind mount, and of what was there before."""
        return "" if is_bind(self.mount) or "remount" in self.mount["options"] else self.mount["type"] or ""


def _mount(wanted: _Wanted, view: "View", found: "Findings") -> None:
    where = wanted.where
    if where in view.unread:
        there = view.at(where)
        if there is None or there.point != where.rstrip("/"):
            found.cannot_tell("mount", where, view.unread[where])
        else:
            _restrictions(wanted, where, wanted.flags, there.flags, found)
        return
    place = view.places.get(where)
    if place is None or not place.begins:
        found.differs("mount", where, wanted.words, "nothing is mounted there")
        return
    live = view.mounts.get(place.mount)
    if live and wanted.type and not _same_type(wanted.type, live.type):
        found.differs("mount", where, wanted.words, f"{live.type} from {live.source}")
        return
    if live and live.type == "tmpfs" and wanted.type == "cgroup":
        # cgroup v1: a directory of directories, one for each hierarchy; runc leaves the outer one, in which there is nothing, writable
        for inner in view.below(place.path):
            if inner.type in ("cgroup", "cgroup2") and not (inner.point + "/").startswith(wanted.elsewhere):
                _restrictions(wanted, inner.point, wanted.flags, inner.flags, found)
        return
    _restrictions(wanted, where, wanted.flags, place.flags, found)
    for inner in view.below(place.path) if wanted.deep else ():
        if not (inner.point + "/").startswith(wanted.elsewhere):
            _restrictions(wanted, inner.point, wanted.deep, inner.flags, found)


def _same_type(asked: str, live: str) -> bool:
    """`cgroup` is whatever the host has: docs/mounts.md; a bind of it where there is no cgroup namespace."""
    return asked == live or (asked in ("cgroup", "cgroup2") and live in ("cgroup", "cgroup2", "tmpfs"))


def _restrictions(wanted: _Wanted, where: str, asked: int, live: int, found: "Findings") -> None:
    missing = [word for word, flag in FLAGS.items() if asked & ATTRIBUTES[word][0] and not live & flag]
    if missing:
        found.differs("mount", where, wanted.words, f"without {', '.join(missing)}")


def _masks(config: "Config", view: "View") -> set[str]:
    """The resolved paths of what is masked."""
    return {place.path for path in config["linux"]["maskedPaths"] if (place := view.places.get(path))}


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
    masks = _masks(config, view)
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
            if not mount.flags & ST_RDONLY and mount.point not in masks:
                found.differs("read-only-path", mount.point, f"read-only, as all below {path}", "writable")
