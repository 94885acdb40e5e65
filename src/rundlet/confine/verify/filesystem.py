"""Which filesystem an open file is on: fstatfs(2)."""

import ctypes

# linux/magic.h; of message queues, memory that the kernel itself does not see, and buffers of devices. A message queue is opened in a mount
# of the IPC namespace's own, wherever that filesystem is mounted besides: mq_open(3)
WITHOUT_PATHS = {0x19800202, 0x5345434D, 0x444D4142}
libc = ctypes.CDLL(None, use_errno=True)


def without_paths(fd: int) -> bool:
    """Whether a regular file is on one of the kernel's own filesystems, where a file leads nowhere."""
    about = (ctypes.c_ulong * 64)()  # struct statfs begins with the type, a word
    return libc.fstatfs(fd, about) == 0 and about[0] & 0xFFFFFFFF in WITHOUT_PATHS
