"""A bzImage's payload: the ELF vmlinux that qemu boots directly.

Decompressing inside an emulated guest costs 8–15 s a boot, here it is done once. Header fields: Documentation/arch/x86/boot.rst.
"""

import lzma
import re
import struct
import zlib
from pathlib import Path
from subprocess import run

from rundlet.errors import Refused
from rundlet.lab.needs import program

ELF = b"\x7fELF"


def zstd(content: bytes) -> bytes:
    """`content` decompressed by the zstd program. Raises Refused when there is none or it fails."""
    done = run([program("zstd"), "-d", "-q", "-c"], input=content, capture_output=True, check=False)
    if done.returncode:
        raise Refused(f"zstd cannot decompress: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def lz4(content: bytes) -> bytes:
    """`content` (the kernel uses the legacy frame) decompressed by the lz4 program. Raises Refused when there is none or it fails."""
    done = run([program("lz4"), "-d", "-q", "-c"], input=content, capture_output=True, check=False)
    if done.returncode:
        raise Refused(f"lz4 cannot decompress: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def vmlinux(image: bytes, name: str) -> bytes:
    """The ELF kernel inside the bzImage `image`; an ELF file is returned as it is.

    `name` is used in messages. Raises Refused for a file of another kind or an unknown compression.
    """
    if image[:4] == ELF:
        return image
    if image[0x202:0x206] != b"HdrS":
        raise Refused(f"{name} is neither an ELF vmlinux nor an x86 bzImage")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = image[start : start + length]
    # Four bytes behind the compressed data hold its unpacked size; the streaming decompressors stop before them.
    if payload.startswith(b"\xfd7zXZ\0"):
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd"):
        unpacked = zstd(payload[:-4])
    elif payload.startswith(b"\x02\x21\x4c\x18"):
        unpacked = lz4(payload[:-4])
    elif payload.startswith(b"\x1f\x8b"):
        unpacked = zlib.decompressobj(31).decompress(payload)
    elif payload.startswith(b"\x5d\0\0"):
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(payload)
    elif payload.startswith(ELF):
        unpacked = payload
    else:
        raise Refused(f"the payload of {name} is compressed in an unknown way (it starts with {payload[:4].hex()})")
    if not unpacked.startswith(ELF):
        raise Refused(f"the payload of {name} is no ELF file")
    return unpacked


def release(image: bytes, name: str) -> str:
    """The kernel's release (`uname -r`), read from a bzImage's header or an ELF vmlinux' banner. Raises Refused if it has none."""
    if image[:4] != ELF and image[0x202:0x206] == b"HdrS":
        (pointer,) = struct.unpack_from("<H", image, 0x20E)
        version = image[pointer + 512 : pointer + 512 + 256].partition(b"\0")[0].split()
        if version:
            return version[0].decode(errors="replace")
    banner = re.search(rb"Linux version (\S+) \(", image)
    if banner is None:
        raise Refused(f"{name} does not look like a linux kernel: no version in it")
    return banner[1].decode(errors="replace")


def store(image: Path, target: Path) -> str:
    """Write the ELF kernel inside the file `image` to `target` and return the kernel's release. Raises Refused as above."""
    content = image.read_bytes()
    target.write_bytes(vmlinux(content, str(image)))
    return release(content, str(image))
