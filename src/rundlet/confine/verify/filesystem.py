"""What is known of a file without asking whoever serves its filesystem, who could keep us waiting for ever: statx(2), fstatfs(2)."""

import ctypes
import os
from struct import unpack_from
from typing import NamedTuple

from rundlet.kernel import AT_EMPTY_PATH, EOPNOTSUPP

# linux/magic.h; of message queues, memory that the kernel itself does not see, and buffers of devices. A message queue is opened in a mount
# of the IPC namespace's own, wherever that filesystem is mounted besides: mq_open(3)
WITHOUT_PATHS = {0x19800202, 0x5345434D, 0x444D4142}
DONT_SYNC = 0x4000  # linux/fcntl.h, AT_STATX_DONT_SYNC
BASIC = 0x7FF  # linux/stat.h, STATX_BASIC_STATS
libc = ctypes.CDLL(None, use_errno=True)


class About(NamedTuple):
    """A file, as the kernel has it in memory."""

    mode: int
    inode: int
    node: tuple[int, int]  # major and minor of a device node
    device: int  # of the filesystem


def about(folder: int, name: str = "") -> About:
    """Of what a descriptor stands for, or a name in it: a link of /proc is followed. Raises OSError."""
    found = (ctypes.c_char * 256)()  # struct statx
    if libc.statx(folder, os.fsencode(name), DONT_SYNC | (0 if name else AT_EMPTY_PATH), BASIC, found):
        failed = ctypes.get_errno()
        raise OSError(failed, os.strerror(failed), name or None)
    mode, inode = unpack_from("=H2xQ", found, 28)
    *node, major, minor = unpack_from("=4I", found, 128)
    return About(mode, inode, (node[0], node[1]), os.makedev(major, minor))


def without_paths(fd: int) -> bool:
    """Whether a regular file is on one of the kernel's own filesystems, where a file leads nowhere.

    Which one it is says statfs, and that asks the server of one that has one. Files of those have handles, as a rule; of the kernel's own
    none has: Documentation/filesystems/nfs/exporting.rst.
    """
    if _has_handle(fd):
        return False
    about = (ctypes.c_ulong * 64)()  # struct statfs begins with the type, a word
    return libc.fstatfs(fd, about) == 0 and about[0] & 0xFFFFFFFF in WITHOUT_PATHS


def _has_handle(fd: int) -> bool:
    """name_to_handle_at(2), of which any other answer than that there are none counts."""
    handle = (ctypes.c_uint * 34)(128)  # struct file_handle: the room, then 4 + 128 bytes
    number = ctypes.c_int()
    failed = libc.name_to_handle_at(fd, b"", handle, ctypes.byref(number), AT_EMPTY_PATH)
    return not failed or ctypes.get_errno() != EOPNOTSUPP
