"""The one table of the configuration: every key, its default, its kind.

A row is (key, default, kind, more):

    default   ... the key is required; None nothing; () a fresh empty list, map, or object of defaults; else the value itself
    kind      "string" · "path" an absolute path · "word" one of the tuple `more` · "bool" · "int" in the range `more`
              "list" and "map" (of strings to values): `more` is the (kind, more) of the items · "object": `more` is its rows

An empty string counts as absent (Go engines write both), an item of a list does not. `resolve` in __init__.py interprets the rows,
`types.py` writes the result down for type checkers, `validate.py` holds what rows cannot say. Sources: config.md, config-linux.md and the
schemas of the OCI runtime-spec 1.3.0; a range narrower than the schema's is the kernel's own, beside the name of its source.
"""

U16 = (0, 65535)
U32 = (0, 4294967295)
U64 = (0, 18446744073709551615)
I64 = (-9223372036854775808, 9223372036854775807)
MAJOR = (0, 4095)  # include/linux/kdev_t.h: 12 bits
MINOR = (0, 1048575)  # and 20

STRINGS = ("string", None)
PATHS = ("path", None)
IDS = ("int", U32)

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
    "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
    "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""include/uapi/linux/capability.h, in the order of their numbers."""

NAMESPACES = ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")

RLIMITS = (
    "RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_LOCKS", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE", "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS", "RLIMIT_RTPRIO", "RLIMIT_RTTIME", "RLIMIT_SIGPENDING", "RLIMIT_STACK",
)  # fmt: skip

POLICIES = ("SCHED_OTHER", "SCHED_FIFO", "SCHED_RR", "SCHED_BATCH", "SCHED_ISO", "SCHED_IDLE", "SCHED_DEADLINE")
SCHEDULER_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX",
)  # fmt: skip
IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")

PROPAGATIONS = ("shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable")

ACTIONS = (
    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
)  # fmt: skip
ARCHITECTURES = (
    "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64", "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390", "SCMP_ARCH_S390X", "SCMP_ARCH_SH", "SCMP_ARCH_SHEB",
)  # fmt: skip
OPERATORS = ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GE", "SCMP_CMP_GT")
FILTER_FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)  # fmt: skip

MEMORY_MODES = (
    "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_LOCAL",
)  # fmt: skip
MEMORY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")

ID_MAPPING = (
    ("containerID", ..., "int", U32),
    ("hostID", ..., "int", U32),
    ("size", ..., "int", (1, 4294967295)),  # the kernel refuses an empty extent
)
ID_MAPPINGS = ("object", ID_MAPPING)

# ── process ──

CONSOLE_SIZE = (
    ("height", ..., "int", U16),  # struct winsize
    ("width", ..., "int", U16),
)
USER = (
    ("uid", 0, "int", U32),
    ("gid", 0, "int", U32),
    ("umask", None, "int", (0, 0o777)),  # umask(2) silently drops other bits
    ("additionalGids", (), "list", IDS),
)
CAPABILITY_SETS = (
    ("bounding", (), "list", STRINGS),
    ("effective", (), "list", STRINGS),
    ("inheritable", (), "list", STRINGS),
    ("permitted", (), "list", STRINGS),
    ("ambient", (), "list", STRINGS),
)
RLIMIT = (
    ("type", ..., "word", RLIMITS),
    ("soft", ..., "int", U64),
    ("hard", ..., "int", U64),
)
SCHEDULER = (
    ("policy", ..., "word", POLICIES),
    ("nice", 0, "int", (-20, 19)),  # sched(7)
    ("priority", 0, "int", (0, 99)),  # sched(7)
    ("flags", (), "list", ("word", SCHEDULER_FLAGS)),
    ("runtime", 0, "int", U64),
    ("deadline", 0, "int", U64),
    ("period", 0, "int", U64),
)
IO_PRIORITY = (
    ("class", ..., "word", IO_CLASSES),
    ("priority", 0, "int", (0, 7)),  # ioprio_set(2)
)
CPU_AFFINITY = (
    ("initial", None, "string", None),
    ("final", None, "string", None),
)
PROCESS = (
    ("terminal", False, "bool", None),
    ("consoleSize", None, "object", CONSOLE_SIZE),
    ("user", (), "object", USER),
    ("args", ..., "list", STRINGS),
    ("env", (), "list", STRINGS),
    ("cwd", ..., "path", None),
    ("capabilities", None, "object", CAPABILITY_SETS),
    ("rlimits", (), "list", ("object", RLIMIT)),
    ("noNewPrivileges", False, "bool", None),
    ("apparmorProfile", None, "string", None),
    ("selinuxLabel", None, "string", None),
    ("oomScoreAdj", None, "int", (-1000, 1000)),  # proc_pid_oom_score_adj(5)
    ("scheduler", None, "object", SCHEDULER),
    ("ioPriority", None, "object", IO_PRIORITY),
    ("execCPUAffinity", None, "object", CPU_AFFINITY),
)

# ── root, mounts, hooks ──

ROOT = (
    ("path", ..., "string", None),
    ("readonly", False, "bool", None),
)
MOUNT = (
    ("destination", ..., "string", None),
    ("type", None, "string", None),
    ("source", None, "string", None),
    ("options", (), "list", STRINGS),
    ("uidMappings", (), "list", ID_MAPPINGS),
    ("gidMappings", (), "list", ID_MAPPINGS),
)
HOOK = (
    ("path", ..., "path", None),
    ("args", (), "list", STRINGS),
    ("env", None, "list", STRINGS),
    ("timeout", None, "int", (1, I64[1])),
)
HOOK_LIST = ("object", HOOK)
HOOKS = (
    ("prestart", (), "list", HOOK_LIST),
    ("createRuntime", (), "list", HOOK_LIST),
    ("createContainer", (), "list", HOOK_LIST),
    ("startContainer", (), "list", HOOK_LIST),
    ("poststart", (), "list", HOOK_LIST),
    ("poststop", (), "list", HOOK_LIST),
)

# ── linux ──

NAMESPACE = (
    ("type", ..., "word", NAMESPACES),
    ("path", None, "path", None),
)
TIME_OFFSET = (
    ("secs", 0, "int", I64),
    ("nanosecs", 0, "int", (0, 999999999)),  # kernel/time/namespace.c
)
DEVICE = (
    ("type", ..., "word", ("c", "b", "u", "p")),
    ("path", ..., "path", None),
    ("major", None, "int", I64),
    ("minor", None, "int", I64),
    ("fileMode", 0o666, "int", U32),
    ("uid", 0, "int", U32),
    ("gid", 0, "int", U32),
)
NET_DEVICE = (("name", None, "string", None),)
DEVICE_RULE = (
    ("allow", ..., "bool", None),
    ("type", "a", "word", ("a", "b", "c")),
    ("major", None, "int", (-1, 4294967295)),  # -1 is "every", as an absent one
    ("minor", None, "int", (-1, 4294967295)),
    ("access", "rwm", "string", None),
)
MEMORY = (
    ("limit", None, "int", I64),
    ("reservation", None, "int", I64),
    ("swap", None, "int", I64),
    ("kernel", None, "int", I64),
    ("kernelTCP", None, "int", I64),
    ("swappiness", None, "int", (0, 100)),
    ("disableOOMKiller", None, "bool", None),
    ("useHierarchy", None, "bool", None),
    ("checkBeforeUpdate", False, "bool", None),
)
CPU = (
    ("shares", None, "int", U64),
    ("quota", None, "int", I64),
    ("burst", None, "int", U64),
    ("period", None, "int", U64),
    ("realtimeRuntime", None, "int", I64),
    ("realtimePeriod", None, "int", U64),
    ("cpus", None, "string", None),
    ("mems", None, "string", None),
    ("idle", None, "int", I64),
)
PIDS = (("limit", None, "int", I64),)
WEIGHT_DEVICE = (
    ("major", ..., "int", MAJOR),
    ("minor", ..., "int", MINOR),
    ("weight", None, "int", U16),
    ("leafWeight", None, "int", U16),
)
THROTTLE_DEVICE = (
    ("major", ..., "int", MAJOR),
    ("minor", ..., "int", MINOR),
    ("rate", 0, "int", U64),
)
THROTTLES = ("object", THROTTLE_DEVICE)
BLOCK_IO = (
    ("weight", None, "int", U16),
    ("leafWeight", None, "int", U16),
    ("weightDevice", (), "list", ("object", WEIGHT_DEVICE)),
    ("throttleReadBpsDevice", (), "list", THROTTLES),
    ("throttleWriteBpsDevice", (), "list", THROTTLES),
    ("throttleReadIOPSDevice", (), "list", THROTTLES),
    ("throttleWriteIOPSDevice", (), "list", THROTTLES),
)
HUGEPAGE_LIMIT = (
    ("pageSize", ..., "string", None),
    ("limit", ..., "int", U64),
)
INTERFACE_PRIORITY = (
    ("name", ..., "string", None),
    ("priority", ..., "int", U32),
)
NETWORK = (
    ("classID", None, "int", U32),
    ("priorities", (), "list", ("object", INTERFACE_PRIORITY)),
)
RDMA = (
    ("hcaHandles", None, "int", U32),
    ("hcaObjects", None, "int", U32),
)
RESOURCES = (
    ("unified", (), "map", STRINGS),
    ("devices", (), "list", ("object", DEVICE_RULE)),
    ("memory", (), "object", MEMORY),
    ("cpu", (), "object", CPU),
    ("pids", (), "object", PIDS),
    ("blockIO", (), "object", BLOCK_IO),
    ("hugepageLimits", (), "list", ("object", HUGEPAGE_LIMIT)),
    ("network", (), "object", NETWORK),
    ("rdma", (), "map", ("object", RDMA)),
)
SECCOMP_ARG = (
    ("index", ..., "int", (0, 5)),  # a system call has six arguments
    ("value", ..., "int", U64),
    ("valueTwo", 0, "int", U64),
    ("op", ..., "word", OPERATORS),
)
SECCOMP_SYSCALL = (
    ("names", ..., "list", STRINGS),
    ("action", ..., "word", ACTIONS),
    ("errnoRet", None, "int", U16),  # SECCOMP_RET_DATA: 16 bits, more would be cut off silently
    ("args", (), "list", ("object", SECCOMP_ARG)),
)
SECCOMP = (
    ("defaultAction", ..., "word", ACTIONS),
    ("defaultErrnoRet", None, "int", U16),
    ("architectures", (), "list", ("word", ARCHITECTURES)),
    ("flags", None, "list", ("word", FILTER_FLAGS)),  # none at all is not an empty list: SPEC_ALLOW
    ("listenerPath", None, "string", None),
    ("listenerMetadata", None, "string", None),
    ("syscalls", (), "list", ("object", SECCOMP_SYSCALL)),
)
INTEL_RDT = (
    ("closID", None, "string", None),
    ("schemata", (), "list", STRINGS),
    ("l3CacheSchema", None, "string", None),
    ("memBwSchema", None, "string", None),
    ("enableMonitoring", False, "bool", None),
)
MEMORY_POLICY = (
    ("mode", ..., "word", MEMORY_MODES),
    ("nodes", None, "string", None),
    ("flags", (), "list", ("word", MEMORY_FLAGS)),
)
PERSONALITY = (
    ("domain", ..., "word", ("LINUX", "LINUX32")),
    ("flags", (), "list", STRINGS),
)
LINUX = (
    ("namespaces", (), "list", ("object", NAMESPACE)),
    ("uidMappings", (), "list", ID_MAPPINGS),
    ("gidMappings", (), "list", ID_MAPPINGS),
    ("timeOffsets", (), "map", ("object", TIME_OFFSET)),
    ("devices", (), "list", ("object", DEVICE)),
    ("netDevices", (), "map", ("object", NET_DEVICE)),
    ("cgroupsPath", None, "string", None),
    ("resources", (), "object", RESOURCES),
    ("rootfsPropagation", None, "word", PROPAGATIONS),
    ("seccomp", None, "object", SECCOMP),
    ("sysctl", (), "map", STRINGS),
    ("maskedPaths", (), "list", PATHS),
    ("readonlyPaths", (), "list", PATHS),
    ("mountLabel", None, "string", None),
    ("intelRdt", None, "object", INTEL_RDT),
    ("memoryPolicy", None, "object", MEMORY_POLICY),
    ("personality", None, "object", PERSONALITY),
)
CONFIG = (
    ("ociVersion", ..., "string", None),
    ("process", ..., "object", PROCESS),
    ("root", ..., "object", ROOT),
    ("mounts", (), "list", ("object", MOUNT)),
    ("hostname", None, "string", None),
    ("domainname", None, "string", None),
    ("hooks", (), "object", HOOKS),
    ("annotations", (), "map", STRINGS),
    ("linux", (), "object", LINUX),
)
