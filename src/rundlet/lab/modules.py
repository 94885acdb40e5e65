"""Which modules the guest needs before it has a root, in loading order, read from the modules themselves (no depmod).

Each module carries NUL-separated `key=value` pairs in its section .modinfo; `depends=` and `softdep=pre:` name what must be
loaded first (include/linux/module.h, scripts/mod/modpost.c).
"""

import gzip
import lzma
import os
import struct
from pathlib import Path

from rundlet.errors import Refused
from rundlet.lab.unpack import zstd

NEEDED = ("virtio_pci", "9pnet_virtio", "9p", "overlay")


def modinfo(elf: bytes) -> list[tuple[str, str]]:
    """The (key, value) pairs of a 64-bit little-endian module's .modinfo; a key may repeat. Raises ValueError for another file."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    size, count, names = struct.unpack_from("<HHH", elf, 0x3A)

    def section(index: int) -> tuple[int, bytes]:
        name, offset, length = struct.unpack_from("<I20xQQ", elf, table + index * size)
        return name, elf[offset : offset + length]

    strings = section(names)[1]
    for index in range(count):
        name, content = section(index)
        if strings[name : strings.index(b"\0", name)] == b".modinfo":
            pairs = (item.decode(errors="replace").partition("=") for item in content.split(b"\0") if b"=" in item)
            return [(key, value) for key, _, value in pairs]
    return []


def requirements(info: list[tuple[str, str]]) -> list[str]:
    """Names of the modules to load before the one `info` describes."""
    first: list[str] = []
    for key, value in info:
        if key == "depends":
            first += [name for name in value.split(",") if name]
        elif key == "softdep":
            words = value.split()
            wanted = False
            for word in words:
                if word.endswith(":"):
                    wanted = word == "pre:"
                elif wanted:
                    first.append(word)
    return [name.replace("-", "_") for name in first]


def read(path: Path) -> bytes:
    """The ELF content of a module file, decompressed by its suffix. Raises Refused for an unknown compression."""
    content = path.read_bytes()
    match path.suffix:
        case ".ko":
            return content
        case ".xz":
            return lzma.decompress(content)
        case ".gz":
            return gzip.decompress(content)
        case ".zst":
            return zstd(content)
    raise Refused(f"{path}: unknown compression of a kernel module")


def find(tree: Path) -> dict[str, Path]:
    """Every module file under `tree` (a /lib/modules/RELEASE) by its name, dashes as underscores."""
    found: dict[str, Path] = {}
    for folder, _, files in os.walk(tree / "kernel"):
        for file in files:
            name, dot, _ = file.partition(".ko")
            if dot:
                found[name.replace("-", "_")] = Path(folder, file)
    return found


def built_in(tree: Path) -> set[str]:
    """Names of the modules linked into the kernel itself, from modules.builtin."""
    try:
        lines = (tree / "modules.builtin").read_text().splitlines()
    except FileNotFoundError:
        return set()
    return {Path(line).name.partition(".ko")[0].replace("-", "_") for line in lines}


def in_order(tree: Path, wanted: tuple[str, ...] = NEEDED) -> list[tuple[str, bytes]]:
    """(name, ELF) of `wanted` and all they require, depth first, as insmod must see them; built-in ones are left out.

    Raises Refused when the kernel has a wanted one in neither form; requirements that do not exist are passed over, as
    modprobe does with soft ones.
    """
    files, inside = find(tree), built_in(tree)
    ordered: dict[str, bytes] = {}
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in visiting or name in inside or name not in files:
            return
        visiting.add(name)
        content = read(files[name])
        for required in requirements(modinfo(content)):
            visit(required)
        ordered[name] = content

    for name in wanted:
        if name not in files and name not in inside:
            raise Refused(
                f"the kernel of {tree} has no module {name}, which the lab needs for its root file system",
                "use a kernel with virtio, 9p and overlay, such as Debian's linux-image-amd64 (not the cloud flavour)",
            )
        visit(name)
    return list(ordered.items())
