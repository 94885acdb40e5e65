"""The built-in probes: system calls as data, each harmless where it is allowed, with the reason why.

The container's first process is the executor (docs/executor.md), fed through its standard input. It forks once for each probe; the
child makes the calls and answers how far it came and with which errno (talk.py). So a probe works in any root filesystem, and what it
does to itself ends with its process. Every container has PID, network, IPC, UTS and mount namespaces of its own (settings.base).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import pack, unpack_from

from rundlet import kernel as k
from rundlet.executor.template import Reply
from rundlet.plan.step import Call, Data, Out, Ptr, Slot, Step

CHILD = 17  # SIGCHLD, in clone(2)'s flags
F_DUPFD_CLOEXEC = 1030  # linux/fcntl.h
TARGET = 1  # the uid in the container that files are given to and that set-uid leads to
NAMESPACE_USER = k.NAMESPACES["user"]
NAMESPACE_MOUNT = k.NAMESPACES["mount"]
O_TMPFILE = 0o20000000 | k.O_DIRECTORY
PTRACE_SEIZE = 0x4206
SIGTERM = 15
BPF_PROG_LOAD, BPF_PROG_TYPE_SOCKET_FILTER = 5, 1
KEYCTL_JOIN_SESSION_KEYRING = 1
SYSLOG_ACTION_READ_ALL = 3
CAP_NET_BIND_SERVICE = 10
PROBED = "probe"  # the step that counts; the others prepare it


@dataclass(frozen=True)
class Probe:
    """One thing that a process may try.

    `steps(at)` are the calls, `at` being the helper folder's path in the container; `passed` are errnos of the step PROBED that come after
    every permission check: they mean allowed. `after` are calls of the program that the last step executes, and `gained` judges their
    reply. Where it concerns a process that the runtime's exec brought in, the slot "peer" is that one's PID.
    """

    name: str
    what: str
    harmless: str
    steps: Callable[[str], tuple[Step, ...]]
    passed: tuple[str, ...] = ()
    after: tuple[Call, ...] = ()
    gained: Callable[[Reply], bool] | None = None
    where: str = "init"  # "init": the first process; "exec": the one brought in; "peer": the first process, at the one brought in
    sibling: bool = False  # whether the first process has another child, in the slot "target": a parent may do more (Yama's ptrace_scope)
    root: bool = False  # whether it takes root to make the files that it needs


def _do(*calls: Call) -> Step:
    return Step(PROBED, *calls)


def _open(path: str, flags: int, into: str = "file") -> Call:
    return Call("openat", k.AT_FDCWD, path, flags | k.O_CLOEXEC, 0, into=into)


# a process that is there to be signalled or traced; it ends with its PID namespace at the latest
FORK_TARGET = Step(
    "fork a process",
    Call("clone", CHILD, 0, 0, 0, 0, into="target", on_more="mine"),
    Call("nanosleep", Data(pack("qq", 600, 0)), 0),
    Call("exit_group", 0),
    Call("value", 0, label="mine"),
)
def _execute(path: str) -> Call:
    """Executes a copy of the executor that goes on with the programs of standard input."""
    return Call("execve", path, Data(Ptr("probe"), Ptr("0"), bytes(8)), Data(bytes(8)))


FILTER = pack("<BBhi", 0xB7, 0, 0, 0) + pack("<BBhi", 0x95, 0, 0, 0)  # r0 = 0; exit: linux/bpf.h
CAPABILITY_HEAD = pack("II", k.LINUX_CAPABILITY_VERSION_3, 0)


def _gained_capability(reply: Reply) -> bool:
    return bool(unpack_from("I", reply.outs["sets"])[0] >> CAP_NET_BIND_SERVICE & 1)


PROBES: tuple[Probe, ...] = (
    Probe(
        "set-uid exec", "execute a file that is set-uid to another user, and become that user",
        "the file is a copy of the executor, which tells its user and ends",
        lambda at: (_do(_execute(f"{at}/set-uid")),),
        after=(Call("geteuid", into="euid"),), gained=lambda reply: reply.slots["euid"] == TARGET, root=True,
    ),
    Probe(
        "file capability", "as another user, execute a file with cap_net_bind_service, and have that capability",
        "the file is a copy of the executor, which tells its capabilities and ends",
        lambda at: (Step("become another user", Call("setresuid", TARGET, TARGET, TARGET)), _do(_execute(f"{at}/capable"))),
        after=(Call("capget", CAPABILITY_HEAD, Out("sets", 24)),), gained=_gained_capability, root=True,
    ),
    Probe(
        "set user id", "become another user", "only the probe's process changes",
        lambda at: (_do(Call("setresuid", TARGET, TARGET, TARGET)),),
    ),
    Probe(
        "mount", "mount a tmpfs of one page", "it is in the container's mount namespace, on a folder of the probe's, and goes with it",
        lambda at: (_do(Call("mount", "none", f"{at}/mnt", "tmpfs", 0, "size=4k")),),
    ),
    Probe(
        "unshare mount", "make a mount namespace", "only the probe's process is in it",
        lambda at: (_do(Call("unshare", NAMESPACE_MOUNT)),),
    ),
    Probe(
        "unshare user", "make a user namespace", "only the probe's process is in it",
        lambda at: (_do(Call("unshare", NAMESPACE_USER)),),
    ),
    Probe(
        "chroot", "change the root to a folder", "only the probe's process changes",
        lambda at: (_do(Call("chroot", at)),),
    ),
    Probe(
        "ptrace a sibling", "trace another process of the container", "the other one is the probe's own, and is let go at the tracer's end",
        lambda at: (_do(Call("ptrace", PTRACE_SEIZE, Slot("target"), 0, 0)),), sibling=True,
    ),
    Probe(
        "signal a sibling", "send SIGTERM to another process of the container", "the other one is the probe's own",
        lambda at: (_do(Call("kill", Slot("target"), SIGTERM)),), sibling=True,
    ),
    Probe(
        "raw socket", "open a raw socket", "nothing is sent, and the network namespace is the container's own",
        lambda at: (_do(Call("socket", 2, 3, 1)),),  # AF_INET, SOCK_RAW, IPPROTO_ICMP
    ),
    Probe(
        "low port", "bind to port 1", "the network namespace is the container's own",
        lambda at: (
            Step("open a socket", Call("socket", 2, 1, 0, into="socket")),
            _do(Call("bind", Slot("socket"), pack("=HHI8x", 2, 1 << 8, 0), 16)),
        ),
    ),
    Probe(
        "bpf", "load a BPF program", "the program, a socket filter that drops all, is attached to nothing and goes with its descriptor",
        lambda at: (
            _do(Call(
                "bpf", BPF_PROG_LOAD,
                Data(pack("II", BPF_PROG_TYPE_SOCKET_FILTER, 2), Ptr(FILTER), Ptr("GPL"), bytes(48)), 72,
            )),
        ),
    ),
    Probe(
        "keyctl", "join a session keyring", "the keyring is new, has no name, and goes with the probe's process",
        lambda at: (_do(Call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)),),
    ),
    Probe(
        "write /proc/sys", "write 0 to net.ipv4.ip_forward", "it is that of the container's own network namespace",
        lambda at: (
            _do(_open("/proc/sys/net/ipv4/ip_forward", k.O_WRONLY), Call("write", Slot("file"), b"0\n", 2)),
        ),
    ),
    Probe(
        "sysrq", "open /proc/sysrq-trigger for writing", "nothing is written",
        lambda at: (_do(_open("/proc/sysrq-trigger", k.O_WRONLY)),),
    ),
    Probe(
        "masked path", "read /proc/keys, which engines mask", "it is read, by the container's user, and thrown away",
        lambda at: (
            _do(
                _open("/proc/keys", k.O_RDONLY), Call("fstatfs", Slot("file"), Out("fs", 120)),
                # a mask is /dev/null or an empty tmpfs in place of the procfs
                Call("check", Out("fs", 120), k.PROC_SUPER_MAGIC, 8, k.ERRNO["ENODATA"]),
            ),
        ),
    ),
    Probe(
        "kernel log", "read the kernel's log", "64 bytes are read, and thrown away",
        lambda at: (_do(Call("syslog", SYSLOG_ACTION_READ_ALL, Out("log", 64), 64)),),
    ),
    Probe(
        "open a device", "open a device node of major number 120",
        "no driver has that number (admin-guide/devices.rst: local use): allowed is ENXIO",
        lambda at: (_do(_open(f"{at}/device", k.O_RDWR | k.O_NONBLOCK)),), passed=("ENXIO", "ENODEV"), root=True,
    ),
    Probe(
        "mknod", "make a device node", "it is another /dev/null, in a folder of the probe's",
        lambda at: (_do(Call("mknodat", k.AT_FDCWD, f"{at}/own/node", k.S_IFCHR | 0o600, k.device(1, 3))),),
    ),
    Probe(
        "chown", "give a file away", "the file is the probe's",
        lambda at: (_do(Call("fchownat", k.AT_FDCWD, f"{at}/owned", TARGET, TARGET, 0)),),
    ),
    Probe(
        "read another's file", "read a file of another user, mode 0600", "the file is the probe's",
        lambda at: (_do(_open(f"{at}/private", k.O_RDONLY)),), root=True,
    ),
    Probe(
        "write to the root", "make a file in the root filesystem", "the file has no name and goes with its descriptor (O_TMPFILE, open(2))",
        lambda at: (_do(Call("openat", k.AT_FDCWD, "/", O_TMPFILE | k.O_RDWR | k.O_CLOEXEC, 0o600)),), passed=("EOPNOTSUPP",),
    ),
    Probe(
        "open by handle", "open a file by its handle, whatever the path", "the handle is of no file: allowed is ESTALE",
        lambda at: (
            Step("open the folder", _open(at, k.O_RDONLY | k.O_DIRECTORY, "folder")),
            _do(Call("open_by_handle_at", Slot("folder"), pack("Ii8x", 8, 1), k.O_RDONLY)),
        ),
        passed=("ESTALE", "EOPNOTSUPP"),
    ),
    Probe(
        "load a module", "load a kernel module", "the image is eight zero bytes: allowed is ENOEXEC",
        lambda at: (_do(Call("init_module", bytes(8), 8, "")),), passed=("ENOEXEC",),
    ),
    Probe(
        "reboot", "call reboot(2)", "the magic numbers are wrong, and are looked at after the capability: allowed is EINVAL",
        lambda at: (_do(Call("reboot", 0, 0, 0, 0)),), passed=("EINVAL",),
    ),
    Probe(
        "signal within exec", "in a process brought in by exec, send SIGTERM to a child of it", "the child is the probe's own",
        lambda at: (FORK_TARGET, _do(Call("kill", Slot("target"), SIGTERM))), where="exec",
    ),
    Probe(
        "ptrace an exec'd peer", "trace a process brought in by exec", "it is the probe's own, and is let go at the tracer's end",
        lambda at: (_do(Call("ptrace", PTRACE_SEIZE, Slot("peer"), 0, 0)),), where="peer",
    ),
    Probe(
        "signal an exec'd peer", "send SIGTERM to a process brought in by exec", "it is the probe's own",
        lambda at: (_do(Call("kill", Slot("peer"), SIGTERM)),), where="peer",
    ),
)
BY_NAME: Mapping[str, Probe] = {probe.name: probe for probe in PROBES}


@dataclass(frozen=True)
class Command:
    """A probe that is a program of the container: allowed when it ends with the status `expected`."""

    name: str
    args: tuple[str, ...]
    expected: int = 0

    @property
    def what(self) -> str:
        """As a probe has it."""
        return f"run {' '.join(self.args)}, to end with status {self.expected}"

    harmless = "that is for whoever asks for it to say"


def command_steps(args: tuple[str, ...], path: str) -> tuple[Step, ...]:
    """Executes a program as execvp(3) would, its output going to standard error, which no answer takes."""
    words = Data(*[Ptr(word) for word in args], bytes(8))
    env = Data(Ptr(f"PATH={path}"), Ptr("HOME=/"), bytes(8))
    places = [args[0]] if "/" in args[0] else [f"{folder}/{args[0]}" for folder in path.split(":")]
    tries = [Call("execve", place, words, env, fine=("ENOENT", "ENOTDIR")) for place in places[:-1]]
    return (
        Step(
            "give it other standard streams",
            Call("fcntl", 1, F_DUPFD_CLOEXEC, 3, into="answers"),
            Call("redirect", Slot("answers")),
            Call("openat", k.AT_FDCWD, "/dev/null", k.O_RDONLY | k.O_CLOEXEC, 0, into="null"),
            Call("dup3", Slot("null"), 0, 0),
            Call("dup3", 2, 1, 0),
        ),
        Step(PROBED, *tries, Call("execve", places[-1], words, env)),
    )
