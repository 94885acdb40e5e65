"""The namespaces of a container: those joined by path, those made new, and the process that is the first one in them."""

from _struct import pack

from rundlet import kernel as k
from rundlet.plan.step import Call, Data, Late, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import IDMapping, Linux, Namespace, Process, TimeOffset

CLOCK = "the kernel must have time namespaces (5.6), and with /linux/timeOffsets no clock may stand below zero or past 146 years"
CLOCKS = {"monotonic": 1, "boottime": 7}  # clock_gettime(2)


def wanted(namespaces: "list[Namespace]") -> "dict[str, str | None]":
    """Type → path to join, or None for a new one."""
    return {space["type"]: space["path"] for space in namespaces}


def descriptor(path: str) -> int:
    """The number of the runtime's own descriptor that a path names; -1 where it names none. Nobody else has it by that path."""
    for folder in ("/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"):
        if path.startswith(folder) and path[len(folder) :].isdigit() and path.isascii():
            return int(path[len(folder) :])
    return -1


def join(paths: "dict[str, str]") -> "tuple[Step, ...]":
    """Joins namespaces by path; mount last, since paths are looked up in it.

    Joining a namespace takes privilege over the user namespace that owns it: the host's first, then, once the user namespace is joined,
    those that belong to that one: setns(2). A path that names a descriptor of the runtime is not opened: it was passed on as the slot.
    """
    if not paths:
        return ()
    order = [kind for kind in ("network", "ipc", "uts", "pid", "cgroup", "time", "mount") if kind in paths]
    steps = [
        Step(
            f"open the {kind} namespace {paths[kind]}",
            Call("openat", k.AT_FDCWD, Late(f"namespace {kind}", paths[kind]), k.O_RDONLY | k.O_CLOEXEC, 0, into=f"ns:{kind}"),
            kind="namespace",
        )
        for kind in [*order, *(["user"] if "user" in paths else [])] if descriptor(paths[kind]) < 0
    ]
    later = ("EPERM",) if "user" in paths else ()
    for kind in order:
        steps.append(Step(
            f"join the {kind} namespace",
            Call("setns", Slot(f"ns:{kind}"), k.NAMESPACES[kind], into=f"joined:{kind}", fine=later), kind="namespace",
        ))
    if "user" in paths:
        steps.append(Step("join the user namespace", Call("setns", Slot("ns:user"), k.CLONE_NEWUSER), kind="namespace"))
        for kind in order:
            steps.append(Step(
                f"join the {kind} namespace that the user namespace owns",
                Call("value", Slot(f"joined:{kind}"), fine=("EPERM",), on_zero="end"),
                Call("setns", Slot(f"ns:{kind}"), k.NAMESPACES[kind]), kind="namespace",
            ))
    return tuple(steps)


def new_time(offsets: "dict[str, TimeOffset]", enter: bool = False) -> Step:
    """A new time namespace for the children, and its offsets, which can be set until the first process is in it.

    `enter`: and the process goes into it itself: time_namespaces(7).
    """
    calls = [Call("unshare", k.CLONE_NEWTIME)]
    if offsets:
        text = "".join(f"{clock} {o['secs']} {o['nanosecs']}\n" for clock, o in offsets.items())
        calls += [
            Call("openat", Slot("proc"), "self/timens_offsets", k.O_WRONLY | k.O_CLOEXEC, 0, into="offsets"),
            Call("write", Slot("offsets"), text, len(text.encode())),
            Call("close", Slot("offsets")),
        ]
    if enter:
        calls += [
            Call("openat", Slot("proc"), "self/ns/time_for_children", k.O_RDONLY | k.O_CLOEXEC, 0, into="time"),
            Call("setns", Slot("time"), k.CLONE_NEWTIME),
            Call("close", Slot("time")),
        ]
    return Step("make a time namespace", *calls, kind="namespace", hint=CLOCK)


def clone(kinds: "list[str]", shown: bool = False) -> Step:
    """The first process of the container, in new namespaces of these kinds; a child of the runtime, not of the executor that made it.

    The executor answers with the process's number and is gone; the new process waits for the next program.

    `shown`: the process does not hide, since the files of one that does belong to root, and the id maps could not be written by a user:
    proc(5). It is for a process in a user namespace just made, where nobody else is. So whoever may look into it, or into the executor
    that ends with this step, has the very ids of the runtime and could look into the runtime itself; no container can. It hides again
    before it enters the root filesystem.
    """
    flags = k.CLONE_PARENT | sum(k.NAMESPACES[kind] for kind in kinds)
    # exit_signal must be zero with CLONE_PARENT: the child's is the executor's, SIGCHLD. clone(2)
    args = Data(pack("11Q", flags, *[0] * 10))
    named = f"in new namespaces ({', '.join(kinds)})" if kinds else "in the namespaces at hand"
    return Step(
        f"make the container's first process {named}",
        *([Call("prctl", k.PR_SET_DUMPABLE, 1, 0, 0, 0)] if shown else []),  # inherited: it must hold when the runtime looks
        Call("clone3", args, 88, into="child", on_zero="child"),
        Call("reply"),
        Call("exit_group", 0),
        Call("next", label="child"),
        kind="clone",
        hint="the kernel's limits are in /proc/sys/user/max_*_namespaces and in the pids controller",
    )


def unshare(kinds: "list[str]") -> Step:
    """New namespaces for this very process."""
    return Step(f"unshare {', '.join(kinds)}", Call("unshare", sum(k.NAMESPACES[kind] for kind in kinds)), kind="namespace")


def become_root(ids: "tuple[int, int]" = (0, 0), shown: bool = False, set_groups: bool = True) -> Step:
    """In a user namespace: its user 0, before anything is made that should be its own; the `ids` of another where it has no 0.

    setgroups first, while it may. No capability is lost by that: who was not root does not cease to be, and in there the host's root is
    none: capabilities(7). `shown`: as for clone(). `set_groups`: false where the caller's groups are to be kept.
    """
    uid, gid = ids
    # changing ids changes whether the process is dumpable, too: prctl(2)
    return Step(
        "become root of the user namespace" if ids == (0, 0) else f"become user {uid}, group {gid} of the user namespace",
        *([Call("setgroups", 0, 0, fine=("EPERM",))] if set_groups else []),
        Call("setresgid", gid, gid, gid), Call("setresuid", uid, uid, uid),
        Call("prctl", k.PR_SET_DUMPABLE, int(shown), 0, 0, 0),
        kind="userns",
    )


def first(linux: "Linux", proc: "Process") -> "tuple[int, int]":
    """Whom to become in the user namespace before anything is made in it: user and group 0, or the process's where those are not mapped."""

    def mapped(maps: "list[IDMapping]") -> bool:
        return not maps or any(entry["containerID"] == 0 for entry in maps)

    return 0 if mapped(linux["uidMappings"]) else proc["user"]["uid"], 0 if mapped(linux["gidMappings"]) else proc["user"]["gid"]


def join_container(kinds: "list[str]") -> Step:
    """Joins a running container's namespaces all at once, through the pidfd in slot "init": setns(2), Linux 5.8."""
    return Step(
        f"join the container's namespaces ({', '.join(kinds)})",
        Call("setns", Slot("init"), sum(k.NAMESPACES[kind] for kind in kinds)), kind="namespace",
    )


def loopback() -> Step:
    """Brings up the loopback device of a new network namespace: netdevice(7). Any socket will do for that, so it needs no IPv4."""
    up = pack("16sH22x", b"lo", 0x41)  # struct ifreq; IFF_UP, IFF_RUNNING
    return Step(
        "bring up the loopback device",
        Call("socket", 1, 2 | k.SOCK_CLOEXEC, 0, into="socket"),  # AF_UNIX, SOCK_DGRAM
        Call("ioctl", Slot("socket"), 0x8914, up),  # SIOCSIFFLAGS
        Call("close", Slot("socket")), kind="namespace", hint="it takes CAP_NET_ADMIN",
    )


def sysctl(name: str, value: str) -> Step:
    """Sets a sysctl of the container's namespaces through the host's procfs: which namespace counts is the writer's."""
    text = value.encode("utf-8", "surrogateescape")
    return Step(
        f"set the sysctl {name} to {value}",
        Call("openat", Slot("proc"), "sys/" + name, k.O_WRONLY | k.O_CLOEXEC, 0, into="sysctl"),
        Call("write", Slot("sysctl"), text, len(text)),
        Call("close", Slot("sysctl")),
        kind="sysctl", hint=f"does this kernel have /proc/sys/{name}, and does it take that value in a namespace?",
    )


def names(hostname: "str | None", domainname: "str | None") -> "tuple[Step, ...]":
    """The host name and the NIS domain name of the UTS namespace."""
    steps = []
    if hostname is not None:
        text = Late("hostname", hostname)
        steps.append(Step(f"set the host name to {hostname}", Call("sethostname", text, len(hostname.encode())), kind="uts"))
    if domainname is not None:
        steps.append(Step(f"set the domain name to {domainname}", Call("setdomainname", domainname, len(domainname.encode())), kind="uts"))
    return tuple(steps)
