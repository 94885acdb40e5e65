"""An uncompressed initramfs in the kernel's newc format (Documentation/driver-api/early-userspace/buffer-format.rst)."""

import stat
from collections.abc import Iterable
from pathlib import Path

from rundlet.lab.guest import APPLETS, INIT


def cpio(entries: Iterable[tuple[str, int, bytes, tuple[int, int]]]) -> bytes:
    """Pack entries (path, mode, content or link target, device numbers) into a newc archive owned by root, with its trailer."""
    out = bytearray()
    for number, (path, mode, content, (major, minor)) in enumerate([*entries, ("TRAILER!!!", 0, b"", (0, 0))], start=1):
        name = path.encode() + b"\0"
        # inode, mode, uid, gid, nlink, mtime, size, device, special device, length of the name, checksum
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out += bytes(-len(out) % 4)
        out += content
        out += bytes(-len(out) % 4)
    return bytes(out)


def build(busybox: Path, modules: list[tuple[str, bytes]]) -> bytes:
    """The lab's initramfs: `busybox` (static) with its links, /init, the console and `modules` (name, ELF) in loading order."""
    none = (0, 0)
    entries = [(folder, stat.S_IFDIR | 0o755, b"", none) for folder in ("bin", "dev", "modules")]
    entries.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))  # the kernel opens it for /init before devtmpfs is there
    entries.append(("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes(), none))
    entries += [(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox", none) for applet in APPLETS]
    entries.append(("init", stat.S_IFREG | 0o755, INIT.encode(), none))
    entries.append(("modules/order", stat.S_IFREG | 0o644, "".join(f"{name}.ko\n" for name, _ in modules).encode(), none))
    entries += [(f"modules/{name}.ko", stat.S_IFREG | 0o644, content, none) for name, content in modules]
    return cpio(entries)
