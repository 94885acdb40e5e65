"""The bundle as it lies on disk: the configuration's text, and what the plan must know of files before anything is made.

Looking is not trusting: where the plan's steps open these places, they open them anew, inside the root.
"""

import posix
from posix import O_CLOEXEC, O_RDONLY

from rundlet.errors import BadSpec, Fault
from rundlet.life.store import PIECE, absolute
from rundlet.plan.mounts import is_bind
from rundlet.plan.order import Bundle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options
    from rundlet.spec.types import Config

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
        raise Fault(f"cannot read {path}: {(e.strerror or '').lower()}; is {folder(options)} a bundle?") from None
    try:
        parts = []
        while part := posix.read(fd, PIECE):
            parts.append(part)
        return b"".join(parts)
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
    sources = {}
    targets = {}
    for i, mount in enumerate(config["mounts"]):
        if is_bind(mount) and "remount" not in mount["options"]:
            if not mount["source"]:
                raise BadSpec(f"/mounts/{i}/source", "missing: a bind mount needs one")
            source = mount["source"] if mount["source"][:1] == "/" else f"{path}/{mount['source']}"
            try:
                sources[i] = source, posix.stat(source).st_mode & 0o170000 == 0o040000
            except OSError as e:
                raise BadSpec(f"/mounts/{i}/source", f"{source}: {(e.strerror or '').lower()}") from None
        resolved = resolve(rootfs, mount["destination"])
        if resolved != mount["destination"]:
            targets[mount["destination"]] = resolved
    return Bundle(rootfs, sources, targets)


def resolve(rootfs: str, path: str) -> str:
    """Where `path` leads inside the root when the symlinks of the image are followed as if the root were /.

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
