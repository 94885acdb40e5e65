"""The bundle as it lies on disk: the configuration's text, and what the plan must know of files before anything is made.

Looking is not trusting: where the plan's steps open these places, they open them anew, inside the root.
"""

import posix
from posix import O_CLOEXEC, O_RDONLY

from rundlet.errors import BadSpec, Fault
from rundlet.kernel import ENOENT, ENOTDIR
from rundlet.life.store import absolute, whole
from rundlet.plan.bundle import ORDINARY, Bundle, is_bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options
    from rundlet.plan.netdevices import Device
    from rundlet.spec.types import Config, Mount

LINKS = 40  # as many as the kernel follows: path_resolution(7)


def folder(options: "Options") -> str:
    """The bundle's absolute path."""
    return absolute(options.bundle)


def text(options: "Options") -> bytes:
    """The text of config.json, or of the file that --config names."""
    path = absolute(options.config) if options.config else folder(options) + "/config.json"
    try:
        fd = posix.open(path, O_RDONLY | O_CLOEXEC)
    except OSError as e:
        hint = f"; is {folder(options)} a bundle?" if e.errno in (ENOENT, ENOTDIR) and not options.config else ""
        raise Fault(f"cannot read {path}: {(e.strerror or '').lower()}{hint}") from None
    try:
        return whole(fd)
    except OSError as e:
        raise Fault(f"cannot read {path}: {(e.strerror or '').lower()}") from None
    finally:
        posix.close(fd)


def survey(config: "Config", path: str) -> Bundle:
    """Looks at the root filesystem and at the sources of bind mounts. Raises BadSpec naming what is missing."""
    root = config["root"]["path"]
    rootfs = absolute(root if root[:1] == "/" else f"{path}/{root}")
    try:
        if posix.stat(rootfs).st_mode & 0o170000 != 0o040000:
            raise BadSpec("/root/path", f"{rootfs} is not a directory")
    except OSError as e:
        raise BadSpec("/root/path", f"{rootfs}: {(e.strerror or '').lower()}") from None
    found = Bundle(rootfs, {}, {}, _devices(config))
    look(found, config, path)
    found.dev = resolve(rootfs, "/dev")
    return found


def look(found: Bundle, config: "Config", path: str) -> None:
    """Looks at what the mounts of a configuration name, on the host and in the root filesystem, and adds it to the bundle `found`."""
    for i, mount in enumerate(config["mounts"]):
        options = mount["options"]
        if is_bind(mount) and "remount" not in options:
            _source(found, config, i, path)
        follow = mount["type"] not in ORDINARY and "dest-nofollow" not in options and i not in found.links
        # a destination that begins with the path of the root is meant to be in the root: as with runc
        resolved = resolve(found.rootfs, inner(found.rootfs, mount["destination"]), follow)
        if mount["type"] in ORDINARY and resolved != "/":
            _ordinary(found.rootfs + resolved, mount, i)
        if resolved != mount["destination"]:
            found.targets[i] = resolved
        if mount["type"] == "tmpfs" and not any(word[:5] == "mode=" for word in options):
            mode = _mode(found, config, i, resolved)
            if mode is not None:
                found.modes[i] = mode


def inner(rootfs: str, path: str) -> str:
    """What a path of the host that leads into the root filesystem is in there; another as it is."""
    return path[len(rootfs) :] if path.startswith(rootfs + "/") else path


def _source(found: Bundle, config: "Config", i: int, path: str) -> None:
    """Looks at the source of a bind mount. One in the root filesystem, where an earlier mount covers it, is what is mounted there."""
    mount = config["mounts"][i]
    options = mount["options"]
    if not mount["source"]:
        raise BadSpec(f"/mounts/{i}/source", "missing: a bind mount needs one")
    source = mount["source"] if mount["source"][:1] == "/" else f"{path}/{mount['source']}"
    alone = "copy-symlink" in options or "src-nofollow" in options
    within = inner(found.rootfs, source)
    if within != source and not alone:
        place, covered = _place(found, config, i, within)
        if covered:
            found.inside[i] = within
            if place is None:
                found.sources[i] = source, True  # in a new filesystem there will be what other mounts need, a directory
                return
            source = place
    try:
        mode = (posix.lstat if alone else posix.stat)(source).st_mode & 0o170000
        if "copy-symlink" in options:
            if "src-nofollow" in options or "dest-nofollow" in options:
                raise BadSpec(f"/mounts/{i}/options", "`copy-symlink` is mutually exclusive with `src-nofollow` and `dest-nofollow`")
            if mode == 0o120000:
                found.links[i] = posix.readlink(source)
    except OSError as e:
        raise BadSpec(f"/mounts/{i}/source", f"{source}: {(e.strerror or '').lower()}") from None
    found.sources[i] = source, mode == 0o040000
    if mount["uidMappings"] or any(word[:5] == "idmap" or word[:6] == "ridmap" for word in options):
        from rundlet.life import mountinfo

        found.filesystems[i] = mountinfo.filesystem(source)


def _ordinary(place: str, mount: "Mount", i: int) -> None:
    """Refuses a proc or sysfs where the image has a link or a file: what relies on /proc being one would be led astray."""
    try:
        if posix.lstat(place).st_mode & 0o170000 != 0o040000:
            raise BadSpec(f"/mounts/{i}/destination", f'filesystem "{mount["type"]}" must be mounted on ordinary directory')
    except OSError:
        pass  # it will be made


def _mode(found: Bundle, config: "Config", i: int, path: str) -> "int | None":
    """The mode of the directory that a tmpfs is to cover, as it will be there then: the image's, or that of an earlier mount."""
    place = _place(found, config, i, path)[0]
    try:
        return None if place is None else posix.stat(place).st_mode & 0o7777
    except OSError:
        return None


def _place(found: Bundle, config: "Config", i: int, path: str) -> "tuple[str | None, bool]":
    """Where on the host is what the container has at `path` once the mounts before `i` are made, and whether one of them covers it. None
    for the host's part where that is in a new filesystem, with nothing in it."""
    place: "str | None" = found.rootfs + path
    covered = False
    for j in range(i):
        over = found.targets.get(j, config["mounts"][j]["destination"]).rstrip("/")
        if (path + "/").startswith(over + "/"):
            covered = True
            place = None if j not in found.sources or j in found.links else found.sources[j][0] + path[len(over) :]
    return place, covered


def _devices(config: "Config") -> "tuple[tuple[Device, str], ...]":
    if not config["linux"]["netDevices"]:
        return ()
    from rundlet.life import netdevices

    return netdevices.look(config)


def resolve(rootfs: str, path: str, follow: bool = True) -> str:
    """Where `path` leads inside the root when the symlinks of the image are followed as if the root were /; without `follow` all but
    the last part, which is then the place itself.

    Dangling links count: an image's /etc/resolv.conf may point to a file that is only there once it is mounted.
    """
    left = [part for part in path.split("/") if part not in ("", ".")]
    done: "list[str]" = []
    links = 0
    while left:
        part = left.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        if not left and not follow:
            done.append(part)
            break
        try:
            to = posix.readlink("/".join([rootfs, *done, part]))
        except OSError:
            done.append(part)  # no link, or nothing there
            continue
        links += 1
        if links > LINKS:
            raise BadSpec("/mounts", f"too many symbolic links on the way to {path}")
        if to[:1] == "/":
            done = []
        left = [part for part in to.split("/") if part not in ("", ".")] + left
    return "/" + "/".join(done)
