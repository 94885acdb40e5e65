"""The kernel's words as numbers: system calls, flags, structures. Pure data, imported by the plan and by the executor.

Sources: <asm/unistd.h> (x86-64), <asm-generic/unistd.h> (aarch64), <linux/mount.h>, <linux/sched.h>, <linux/prctl.h>,
<linux/capability.h>, <linux/magic.h>, <linux/fcntl.h> of Linux 6.12. A test compares the numbers with the installed headers.
"""

from _struct import pack
from posix import O_DIRECTORY as O_DIRECTORY  # one of the few open(2) flags that differ between machines
from posix import O_NOFOLLOW as O_NOFOLLOW

# name: (x86-64, aarch64)
CALLS = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "openat": (257, 56), "openat2": (437, 437), "dup": (32, 23), "dup3": (292, 24),
    "fcntl": (72, 25), "ioctl": (16, 29), "lseek": (8, 62), "ftruncate": (77, 46), "fchdir": (81, 50), "chdir": (80, 49),
    "getcwd": (79, 17), "mkdirat": (258, 34), "mknodat": (259, 33), "symlinkat": (266, 36), "linkat": (265, 37), "unlinkat": (263, 35),
    "renameat2": (316, 276), "readlinkat": (267, 78), "faccessat2": (439, 439), "fchmodat": (268, 53), "fchownat": (260, 54),
    "fchmod": (91, 52), "fchown": (93, 55), "fstat": (5, 80), "statx": (332, 291), "fstatfs": (138, 44), "mount": (165, 40),
    "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "clone": (56, 220), "clone3": (435, 435), "unshare": (272, 97), "setns": (308, 268), "execve": (59, 221), "execveat": (322, 281),
    "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95), "kill": (62, 129), "tgkill": (234, 131), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178),
    "setsid": (112, 157), "setpgid": (109, 154), "setgroups": (116, 159), "getgroups": (115, 158), "setresuid": (117, 147),
    "setresgid": (119, 149), "setuid": (105, 146), "setgid": (106, 144), "setfsuid": (122, 151), "prctl": (157, 167), "capset": (126, 91),
    "capget": (125, 90), "prlimit64": (302, 261), "setrlimit": (160, 164), "umask": (95, 166), "sethostname": (170, 161),
    "setdomainname": (171, 162), "personality": (135, 92), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122), "sched_getaffinity": (204, 123), "ioprio_set": (251, 30), "set_mempolicy": (238, 237),
    "seccomp": (317, 277), "keyctl": (250, 219), "bpf": (321, 280), "socket": (41, 198), "connect": (42, 203), "accept4": (288, 242),
    "bind": (49, 200), "listen": (50, 201), "sendmsg": (46, 211), "recvmsg": (47, 212), "sendto": (44, 206), "recvfrom": (45, 207),
    "socketpair": (53, 199), "shutdown": (48, 210), "setsockopt": (54, 208), "ppoll": (271, 73), "pipe2": (293, 59),
    "memfd_create": (319, 279), "close_range": (436, 436), "rt_sigprocmask": (14, 135), "rt_sigaction": (13, 134), "signalfd4": (289, 74),
    "lsm_get_self_attr": (459, 459), "lsm_set_self_attr": (460, 460), "lsm_list_modules": (461, 461), "getxattr": (191, 8),
    "fsetxattr": (190, 7), "flock": (73, 32), "splice": (275, 76), "copy_file_range": (326, 285), "sendfile": (40, 71),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "getdents64": (217, 61), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "listmount": (458, 458), "statmount": (457, 457), "utimensat": (280, 88), "flistxattr": (196, 13),
    "fgetxattr": (193, 10), "ptrace": (101, 117), "reboot": (169, 142), "init_module": (175, 105), "geteuid": (107, 175),
    "syslog": (103, 116),
}
MACHINES = {"x86_64": 0, "aarch64": 1}

# errno.h, the same on both machines
ERRNO = {
    "EPERM": 1, "ENOENT": 2, "ESRCH": 3, "EINTR": 4, "EIO": 5, "E2BIG": 7, "ENOEXEC": 8, "EBADF": 9, "ECHILD": 10, "EAGAIN": 11,
    "ENOMEM": 12, "EACCES": 13, "EBUSY": 16, "EEXIST": 17, "EXDEV": 18, "ENODEV": 19, "ENOTDIR": 20, "EISDIR": 21, "EINVAL": 22,
    "EMFILE": 24, "ENOTTY": 25, "ETXTBSY": 26, "ENOSPC": 28, "EROFS": 30, "EPIPE": 32, "ERANGE": 34, "ENAMETOOLONG": 36,
    "ENOSYS": 38, "ENOTEMPTY": 39, "ELOOP": 40, "ENODATA": 61, "EBADMSG": 74, "EOVERFLOW": 75, "EOPNOTSUPP": 95, "ETIMEDOUT": 110,
}
EPERM, ENOENT, ESRCH, EACCES, EBUSY, ENODEV = 1, 2, 3, 13, 16, 19
ENOTDIR, EINVAL, ENOSPC, EROFS, EOPNOTSUPP, ETIMEDOUT = 20, 22, 28, 30, 95, 110

# open(2), openat2(2), *at(2)
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000
AT_EACCESS = 0x200
O_RDONLY, O_WRONLY, O_RDWR = 0, 1, 2
O_CREAT, O_EXCL, O_NOCTTY, O_NONBLOCK = 0o100, 0o200, 0o400, 0o4000
O_CLOEXEC = 0o2000000
O_PATH = 0o10000000
O_HERE = O_PATH | O_CLOEXEC
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
S_IFREG, S_IFCHR, S_IFBLK, S_IFIFO = 0o100000, 0o020000, 0o060000, 0o010000


# clone(2), unshare(2), setns(2)
CLONE_PARENT = 0x8000
NAMESPACES = {
    "user": 0x10000000, "mount": 0x00020000, "pid": 0x20000000, "network": 0x40000000, "ipc": 0x08000000,
    "uts": 0x04000000, "cgroup": 0x02000000, "time": 0x00000080,
}
CLONE_NEWUSER, CLONE_NEWTIME = 0x10000000, 0x80

# mount(2) and the descriptor-based calls
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_REC = 1 << 17, 1 << 18, 1 << 19, 1 << 20, 1 << 14
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE, FSCONFIG_CMD_RECONFIGURE = 0, 1, 6, 7
FSPICK_CLOEXEC, FSPICK_EMPTY_PATH = 1, 8
MOUNT_ATTR = {
    "ro": 0x1, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "noatime": 0x10, "strictatime": 0x20, "nodiratime": 0x80,
    "idmap": 0x100000, "nosymfollow": 0x200000,
}
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_IDMAP = 0x100000

# prctl(2), capabilities(7), seccomp(2)
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME, PR_CAPBSET_DROP = 4, 8, 15, 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
    "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
    "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)
RLIMITS = {
    "RLIMIT_CPU": 0, "RLIMIT_FSIZE": 1, "RLIMIT_DATA": 2, "RLIMIT_STACK": 3, "RLIMIT_CORE": 4, "RLIMIT_RSS": 5, "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7, "RLIMIT_MEMLOCK": 8, "RLIMIT_AS": 9, "RLIMIT_LOCKS": 10, "RLIMIT_SIGPENDING": 11, "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13, "RLIMIT_RTPRIO": 14, "RLIMIT_RTTIME": 15,
}

# sockets, terminals, polling
SOL_SOCKET, SCM_RIGHTS, MSG_NOSIGNAL, MSG_CMSG_CLOEXEC, SOCK_CLOEXEC = 1, 1, 0x4000, 0x40000000, 0o2000000
TIOCSCTTY, TIOCSWINSZ, TIOCSPTLCK, TIOCGPTPEER = 0x540E, 0x5414, 0x40045431, 0x5441
POLLIN = 1
SIGKILL, SIGTERM, SIGCHLD = 9, 15, 17

# statfs(2) f_type, linux/magic.h
PROC_SUPER_MAGIC = pack("q", 0x9FA0)
DEVPTS_SUPER_MAGIC = pack("q", 0x1CD1)
SYSFS_MAGIC = pack("q", 0x62656572)

SIGNALS = {
    name: number
    for number, name in enumerate(
        "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ "
        "VTALRM PROF WINCH IO PWR SYS".split(), 1)
} | {"IOT": 6, "CLD": 17, "POLL": 29, "RTMIN": 34, "RTMAX": 64}


def device(major: int, minor: int) -> int:
    """A device number as mknod(2) takes it (glibc's makedev; include/linux/kdev_t.h new_encode_dev)."""
    return (minor & 0xFF) | (major & 0xFFF) << 8 | (minor & ~0xFF) << 12 | (major & ~0xFFF) << 32


def open_how(flags: int, mode: int = 0, resolve: int = 0) -> bytes:
    """struct open_how of openat2(2)."""
    return pack("QQQ", flags, mode, resolve)


def mount_attr(set_: int = 0, clear: int = 0, propagation: int = 0, userns: int = 0) -> bytes:
    """struct mount_attr of mount_setattr(2); `userns` is a descriptor when the idmap attribute is set."""
    return pack("QQQQ", set_, clear, propagation, userns)
