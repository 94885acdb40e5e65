"""The shape of a loaded configuration: plain dicts, nested and named as in the OCI runtime-spec (1.0 to 1.3).

`spec.load` returns a `Config`, `spec.load_process` a `Process`, `spec.load_resources` a `Resources`. Rules that hold for all of them:

* Every key written below is always present. A key that is absent, or `null`, in the JSON has the default named here.
* An optional string is `None` when it is absent, `null` or empty (Go engines write any of the three); it is never "".
* A list or map that is absent is an empty one, freshly made: a caller may change what `load` returned.
* `None` for an object means that it was not asked for. Objects not marked `| None` are present with their own defaults.
* No string holds NUL or a lone surrogate (values of annotations may hold NUL), so each can be encoded as UTF-8 and given to the kernel.
* Keys that the specification does not know are dropped.

This module is for type checkers and tests: on the start-up path it is imported under TYPE_CHECKING only, since `typing` costs 10 ms.
"""

from typing import Literal, TypedDict


class IDMapping(TypedDict):
    """A line of a user namespace's map. Maps do not overlap and do not run past 2**32 - 1."""

    containerID: int
    hostID: int
    size: int  # at least 1


# ── process ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


class ConsoleSize(TypedDict):
    """Character cells; 0 to 65535 (struct winsize)."""

    height: int
    width: int


class User(TypedDict):
    """Ids as seen inside the container. `username` is for Windows and dropped."""

    uid: int  # 0
    gid: int  # 0
    umask: int | None  # None: leave the default of the runtime (0o022); 0 to 0o777
    additionalGids: list[int]


class Capabilities(TypedDict):
    """Names such as "CAP_CHOWN", each known to the kernel interface (capability.h up to CAP_CHECKPOINT_RESTORE), no duplicates.

    Unknown names were dropped with a warning, and so were ambient ones that are not both permitted and inheritable.
    """

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """A resource limit; 2**64 - 1 is RLIM_INFINITY. soft <= hard, each type at most once."""

    type: str  # RLIMIT_AS … RLIMIT_STACK
    soft: int
    hard: int


class Scheduler(TypedDict):
    """sched_setattr(2). Times are nanoseconds, and all 0 unless the policy is SCHED_DEADLINE."""

    policy: str  # SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_ISO, SCHED_IDLE, SCHED_DEADLINE
    nice: int  # 0; -20 to 19
    priority: int  # 0; 1 to 99 for SCHED_FIFO and SCHED_RR, else 0
    flags: list[str]  # SCHED_FLAG_…
    runtime: int  # 0
    deadline: int  # 0
    period: int  # 0


# "class" cannot be the name of an attribute, hence the functional form.
IOPriority = TypedDict("IOPriority", {"class": Literal["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"], "priority": int})


class ExecCPUAffinity(TypedDict):
    """CPU lists such as "0-3,8", checked for syntax."""

    initial: str | None
    final: str | None


class Process(TypedDict):
    """The container's process, or the one that exec adds."""

    terminal: bool  # False
    consoleSize: ConsoleSize | None  # None also when terminal is false
    user: User
    args: list[str]  # at least one, the first not empty
    env: list[str]  # as given; an entry without "=" brought a warning
    cwd: str  # absolute
    capabilities: Capabilities | None  # None: the section is absent; the plan treats that as five empty sets, as runc does
    rlimits: list[Rlimit]
    noNewPrivileges: bool  # False
    apparmorProfile: str | None  # None: no profile asked for
    selinuxLabel: str | None
    oomScoreAdj: int | None  # None: do not touch; -1000 to 1000
    scheduler: Scheduler | None
    ioPriority: IOPriority | None
    execCPUAffinity: ExecCPUAffinity | None


# ── root, mounts, hooks ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Root(TypedDict):
    """The root filesystem; a relative path is relative to the bundle. Whether it exists is checked where it is opened."""

    path: str
    readonly: bool  # False


class Mount(TypedDict):
    """A mount, in order. The two mappings are both empty or both given."""

    destination: str  # absolute: a relative one was prefixed with "/" and brought a warning
    type: str | None
    source: str | None
    options: list[str]  # as given; their meaning is the plan's
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Hook(TypedDict):
    """A program to run at a barrier of the life cycle."""

    path: str  # absolute
    args: list[str]  # argv; [path] when absent or empty
    env: list[str] | None  # None: absent
    timeout: int | None  # seconds, at least 1; None: wait for ever


class Hooks(TypedDict):
    """The six barriers, each a list in order."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


# ── linux ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

NamespaceType = Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]


class Namespace(TypedDict):
    """A namespace to be in; each type at most once."""

    type: NamespaceType
    path: str | None  # None: a new one; else absolute, the one to join


class TimeOffset(TypedDict):
    """An offset of a clock in a new time namespace."""

    secs: int  # 0; int64
    nanosecs: int  # 0; below 1,000,000,000


class Device(TypedDict):
    """A device node or fifo to make."""

    type: Literal["c", "b", "p"]  # "u" was turned into "c", which is what mknod(2) knows
    path: str  # absolute
    major: int  # 0 for "p"
    minor: int  # 0 for "p"
    fileMode: int  # 0o666; permission bits only (0 to 0o7777)
    uid: int  # 0
    gid: int  # 0


class NetDevice(TypedDict):
    """A network device of the runtime's namespace to move; the key of the map is its name there."""

    name: str  # the name inside; the same name when absent


class MemoryPolicy(TypedDict):
    """set_mempolicy(2)."""

    mode: str  # MPOL_…
    nodes: str | None  # a list such as "0-3,7", checked for syntax
    flags: list[str]  # MPOL_F_…


class Personality(TypedDict):
    """personality(2). No flag is defined yet: those given brought a warning and were dropped."""

    domain: Literal["LINUX", "LINUX32"]
    flags: list[str]


class IntelRdt(TypedDict):
    """resctrl. Strings are whole lines for `schemata`."""

    closID: str | None  # no "/", not "." or ".."
    schemata: list[str]
    l3CacheSchema: str | None
    memBwSchema: str | None
    enableMonitoring: bool  # False


class SeccompArg(TypedDict):
    """A comparison of a system call's argument; all uint64."""

    index: int  # 0 to 5
    value: int
    valueTwo: int  # 0
    op: str  # SCMP_CMP_…


class SeccompSyscall(TypedDict):
    """A rule. Names may be unknown to libseccomp: the compiler decides what to do."""

    names: list[str]  # at least one
    action: str  # SCMP_ACT_…
    errnoRet: int | None  # only with SCMP_ACT_ERRNO and SCMP_ACT_TRACE; None: EPERM
    args: list[SeccompArg]


class Seccomp(TypedDict):
    """A filter."""

    defaultAction: str  # never SCMP_ACT_NOTIFY
    defaultErrnoRet: int | None
    architectures: list[str]  # SCMP_ARCH_…; empty: the native one
    flags: list[str] | None  # SECCOMP_FILTER_FLAG_…; None where the key is absent, which means those of plan/seccomp.py
    listenerPath: str | None  # may be given otherwise where a rule's action is SCMP_ACT_NOTIFY: plan/seccomp.py
    listenerMetadata: str | None
    syscalls: list[SeccompSyscall]


class DeviceRule(TypedDict):
    """A rule of the device controller, in order: the last that matches holds."""

    allow: bool
    type: Literal["a", "b", "c"]  # "a" (all) when absent
    major: int | None  # None: every (absent or -1)
    minor: int | None
    access: str  # of "rwm", in that order, no duplicates; "rwm" when absent


class Memory(TypedDict):
    """Bytes; -1 is unlimited."""

    limit: int | None
    reservation: int | None
    swap: int | None  # memory plus swap
    kernel: int | None  # deprecated
    kernelTCP: int | None
    swappiness: int | None  # 0 to 100
    disableOOMKiller: bool | None
    useHierarchy: bool | None
    checkBeforeUpdate: bool  # False


class CPU(TypedDict):
    """Times are microseconds."""

    shares: int | None
    quota: int | None  # -1 is unlimited
    burst: int | None
    period: int | None
    realtimeRuntime: int | None
    realtimePeriod: int | None
    cpus: str | None  # a list such as "0-3,7": the kernel judges it
    mems: str | None  # likewise
    idle: int | None


class Pids(TypedDict):
    """Number of tasks; what 0 and below mean is the cgroup room's."""

    limit: int | None


class WeightDevice(TypedDict):
    """Weight of one block device; at least one of the two weights is given."""

    major: int
    minor: int
    weight: int | None
    leafWeight: int | None


class ThrottleDevice(TypedDict):
    """Bytes or operations a second of one block device; 0 means no limit."""

    major: int
    minor: int
    rate: int  # 0


class BlockIO(TypedDict):
    """Block I/O."""

    weight: int | None  # uint16
    leafWeight: int | None
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    """Bytes of one page size; each size at most once."""

    pageSize: str  # such as "2MB", "64KB", "1GB"
    limit: int


class InterfacePriority(TypedDict):
    """net_prio of cgroup v1."""

    name: str
    priority: int


class Network(TypedDict):
    """net_cls and net_prio of cgroup v1."""

    classID: int | None
    priorities: list[InterfacePriority]


class Rdma(TypedDict):
    """At least one of the two is given."""

    hcaHandles: int | None
    hcaObjects: int | None


class Resources(TypedDict):
    """cgroup limits. None always means: do not touch."""

    unified: dict[str, str]  # cgroup v2 file name (one path component) -> text to write
    devices: list[DeviceRule]
    memory: Memory
    cpu: CPU
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: Network
    rdma: dict[str, Rdma]  # device name -> limits


class Linux(TypedDict):
    """The Linux section; present with its defaults when absent."""

    namespaces: list[Namespace]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    timeOffsets: dict[str, TimeOffset]  # "boottime", "monotonic": those given
    devices: list[Device]
    netDevices: dict[str, NetDevice]
    cgroupsPath: str | None  # a path, or slice:prefix:name for the systemd manager
    resources: Resources
    rootfsPropagation: str | None  # shared, slave, private, unbindable or the recursive forms rshared, rslave, rprivate, runbindable
    seccomp: Seccomp | None
    sysctl: dict[str, str]  # keys are paths below /proc/sys, such as "net/ipv4/ip_forward", whichever form was given
    maskedPaths: list[str]  # absolute
    readonlyPaths: list[str]  # absolute
    mountLabel: str | None
    intelRdt: IntelRdt | None
    memoryPolicy: MemoryPolicy | None
    personality: Personality | None


class Config(TypedDict):
    """A whole config.json."""

    ociVersion: str
    process: Process
    root: Root
    mounts: list[Mount]
    hostname: str | None  # given only together with a uts namespace
    domainname: str | None
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux
