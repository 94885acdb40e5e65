"""What the container's process becomes: its session and terminal, limits, ids, capabilities, and the program it turns into.

Each function gives the steps of one matter; their order, which is the security argument, is in order.py.
"""

from _struct import pack

from rundlet import kernel as k
from rundlet.plan.command import candidates, environment, executes, joins, places
from rundlet.plan.step import Call, Data, Late, Out, Ptr, Scratch, Slot, Step, Texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Capabilities, Process, Rlimit, User

NOT_THERE = ("ENOENT", "ENOTDIR", "EACCES")
UNKNOWN = ("EINVAL",)
CWD = Scratch("cwd", 4096)
EVERY_CPU = b"\xff" * 1024  # 8192 of them, the largest CONFIG_NR_CPUS
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SETPERM = 1, 5  # include/uapi/linux/keyctl.h
KEYRING_PERMISSIONS = 0x3F130000 | 0x00080000  # whoever has it may all; its user view, read, link, and search: include/linux/key.h


def hide() -> Step:
    """Nobody may trace the executor or look into it through /proc, whoever it comes to be: prctl(2), ptrace(2) "access mode"."""
    return Step("let nobody inspect or trace this process", Call("prctl", k.PR_SET_DUMPABLE, 0, 0, 0, 0), kind="hide")


def session() -> Step:
    """A session of its own; the modes of what is made are as asked for."""
    return Step("begin a session", Call("setsid"), Call("umask", 0), kind="session")


def every_cpu() -> Step:
    """On every CPU that the cgroup permits: what the caller of the runtime was pinned to is its own affair. sched_setaffinity(2)"""
    return Step("run on every CPU that the cgroup permits", Call("sched_setaffinity", 0, len(EVERY_CPU), EVERY_CPU), kind="affinity")


def keyring(name: str) -> Step:
    """A session keyring of its own, so that the runtime's keys are not the container's; those who join later find it by its name.

    The kernel gives a named keyring the permissions 0x3f130000; who is to join it, though not its possessor yet, must be permitted to
    search it: keyctl(2), "KEYCTL_JOIN_SESSION_KEYRING" and "KEYCTL_SETPERM".
    """
    name = "_ses." + name
    return Step(
        joins(name),
        Call("keyctl", KEYCTL_JOIN_SESSION_KEYRING, Late("keyring", name), into="keyring", fine=("ENOSYS",), on_fine="end"),
        Call("keyctl", KEYCTL_SETPERM, Slot("keyring"), KEYRING_PERMISSIONS), kind="keyring", hint="--no-new-keyring keeps the caller's",
    )


def terminal(size: "tuple[int, int] | None", devpts: bool, uid: int) -> Step:
    """Opens a terminal of the container's devpts, makes it stdin, stdout, stderr and the controlling one, and sends its master.

    `size` is (rows, columns). `devpts`: the plan itself mounted /dev/pts, and holds that very mount; else the file in the root is opened
    and must be on a devpts. The master goes out through the socket in the slot "console", and `uid` owns the terminal.
    """
    calls = []
    if devpts:
        calls.append(Call("openat", Slot("devpts"), "ptmx", k.O_RDWR | k.O_NOCTTY | k.O_CLOEXEC, 0, into="master"))
    else:
        how = k.open_how(k.O_RDWR | k.O_NOCTTY | k.O_CLOEXEC, 0, k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS)
        statfs = Scratch("statfs", 120)
        calls += [
            Call("openat2", Slot("root"), "dev/ptmx", how, 24, into="master"),
            Call("fstatfs", Slot("master"), statfs),
            Call("check", statfs, k.DEVPTS_SUPER_MAGIC, 8, k.ERRNO["ENOTTY"]),
        ]
    calls += [
        Call("ioctl", Slot("master"), k.TIOCSPTLCK, pack("i", 0)),
        Call("ioctl", Slot("master"), k.TIOCGPTPEER, k.O_RDWR | k.O_NOCTTY | k.O_CLOEXEC, into="terminal"),
        Call("fchown", Slot("terminal"), uid, 0xFFFFFFFF),
    ]
    if size:
        calls.append(Call("ioctl", Slot("master"), k.TIOCSWINSZ, pack("4H", *size, 0, 0)))
    # one message: a descriptor, and the name that engines show; cmsg(3), unix(7)
    name = b"/dev/ptmx"
    rights = Data(pack("QII", 20, k.SOL_SOCKET, k.SCM_RIGHTS), Slot("master"), bytes(4))
    message = Data(bytes(16), Ptr(Data(Ptr(name), pack("Q", len(name)))), pack("Q", 1), Ptr(rights), pack("QQ", 24, 0))
    calls += [
        Call("ioctl", Slot("terminal"), k.TIOCSCTTY, 0),
        *(Call("dup3", Slot("terminal"), fd, 0) for fd in (0, 1, 2)), Call("close", Slot("terminal")),
        Call("sendmsg", Slot("console"), message, k.MSG_NOSIGNAL),
        Call("close", Slot("console")), Call("close", Slot("master")),
    ]
    return Step("open a terminal and hand out its other end", *calls, kind="terminal", hint="mount a devpts on /dev/pts")


def console(target: "tuple[Call, ...]") -> Step:
    """Shows the terminal as /dev/console, for programs that open it by name."""
    return Step(
        "bind the terminal on /dev/console", *target,
        Call("open_tree", 0, "", k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | k.AT_EMPTY_PATH, into="tree", label="there"),
        Call("move_mount", Slot("tree"), "", Slot("at"), "", k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH),
        Call("close", Slot("tree")), Call("close", Slot("at")), kind="terminal",
    )


def owner_of_stdio(uid: int, fds: "tuple[int, ...]") -> Step:
    """Pipes and files given as stdin, stdout and stderr become the user's, so that /dev/stdout can be opened anew."""
    calls = [Call("fchown", fd, uid, 0xFFFFFFFF, fine=("EPERM", "EINVAL", "EROFS")) for fd in fds]
    return Step(f"give stdin, stdout and stderr to the user {uid}", *calls, kind="stdio")


def rlimits(limits: "list[Rlimit]") -> "tuple[Step, ...]":
    """The resource limits; raising a hard one takes CAP_SYS_RESOURCE in the host's user namespace: getrlimit(2)."""
    return tuple(
        Step(
            f"limit {limit['type']} to {amount(limit['soft'])} (hard {amount(limit['hard'])})",
            Call("prlimit64", 0, k.RLIMITS[limit["type"]], pack("QQ", limit["soft"], limit["hard"]), 0), kind="rlimit",
            hint=f"raising the hard limit of {limit['type']} takes CAP_SYS_RESOURCE, which the runtime may lack",
        )
        for limit in limits
    )


def amount(n: int) -> str:
    """A resource limit as it is said."""
    return "unlimited" if n == (1 << 64) - 1 else str(n)


def bits(names: "list[str]") -> int:
    """Capability names as the bits of capset(2)."""
    return sum(1 << k.CAPABILITIES.index(name) for name in names)


def bounding(keep: int) -> Step:
    """Drops every capability but those of `keep` from the bounding set; the kernel says by EINVAL which ones it does not have."""
    calls = [Call("prctl", k.PR_CAPBSET_DROP, n, 0, 0, 0) for n in range(32) if not keep >> n & 1]
    calls += [Call("prctl", k.PR_CAPBSET_DROP, n, 0, 0, 0, fine=UNKNOWN) for n in range(32, 64) if not keep >> n & 1]
    return Step(f"bound the capabilities to {keep:#x}", *calls, kind="bounding")


def ids(user: "User", groups: "tuple[int, ...] | None") -> Step:
    """Becomes the user and its groups, holding on to capabilities until capset decides: setresuid(2), prctl(2) PR_SET_KEEPCAPS."""
    calls = [Call("prctl", k.PR_SET_KEEPCAPS, 1, 0, 0, 0)]
    if groups is not None:
        calls.append(Call("setgroups", len(groups), pack(f"={len(groups)}I", *groups) if groups else 0))
    calls += [Call("setresgid", *[user["gid"]] * 3), Call("setresuid", *[user["uid"]] * 3), Call("prctl", k.PR_SET_KEEPCAPS, 0, 0, 0, 0)]
    named = f" (groups {', '.join(map(str, groups))})" if groups else ""
    return Step(f"become user {user['uid']}, group {user['gid']}{named}", *calls, kind="user")


def capset(sets: "Capabilities") -> "tuple[Step, ...]":
    """Sets the effective, permitted and inheritable capabilities, then the ambient ones, which must be in both of the latter."""
    e, p, i = bits(sets["effective"]), bits(sets["permitted"]), bits(sets["inheritable"])
    low = 0xFFFFFFFF
    head = pack("Ii", k.LINUX_CAPABILITY_VERSION_3, 0)
    data = pack("6I", e & low, p & low, i & low, e >> 32, p >> 32, i >> 32)
    calls = [Call("prctl", k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)]
    calls += [Call("prctl", k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_RAISE, k.CAPABILITIES.index(name), 0, 0) for name in sets["ambient"]]
    return (
        Step(f"set capabilities: effective {e:#x}, permitted {p:#x}, inheritable {i:#x}", Call("capset", head, data), kind="capset"),
        Step(f"set ambient capabilities: {', '.join(sets['ambient']) or 'none'}", *calls, kind="ambient"),
    )


def no_new_privs() -> Step:
    """From here on nothing that is executed gains privilege; cannot be undone: PR_SET_NO_NEW_PRIVS."""
    return Step("set no_new_privs", Call("prctl", k.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), kind="nnp")


def change_directory(path: str) -> Step:
    """Goes to the working directory while still privileged, unless the filesystem wants the user itself (NFS)."""
    return Step(f"go to {path}", Call("chdir", path, into="moved", fine=("EACCES", "EPERM")), kind="directory")


def directory_is_inside(path: str) -> Step:
    """Goes there as the user when it was not possible before, and makes sure that it is inside the root.

    A directory outside the root has no path, and getcwd(2) says so by "(unreachable)": CVE-2024-21626.
    """
    return Step(
        f"see that {path} is inside the root",
        Call("value", Slot("moved"), fine=("EACCES", "EPERM"), on_zero="moved"),
        Call("chdir", path),
        Call("getcwd", CWD, 4096, label="moved"),
        Call("check", CWD, b"/", 1, k.ERRNO["ENOENT"]),
        kind="directory",
    )


def program_exists(process: "Process") -> Step:
    """Finds the program before anything waits for it, so that the error comes from create and not from start."""
    paths = candidates(process)
    how = k.open_how(k.O_HERE, 0, k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS)
    calls = []
    for n, (path, place) in enumerate(zip(paths, places(process), strict=True)):
        last = path == paths[-1]
        calls += [
            Call("openat2", Slot("root"), Late(f"place {n}", place), how, 24, into="program", fine=() if last else (*NOT_THERE, "ELOOP"),
                 on_fine="" if last else f"not {path}"),
            # a directory is none, whatever its mode says: only a directory has a place called "."
            Call("openat2", Slot("program"), ".", how, 24, into="folder", fine=("ENOTDIR",), on_fine=f"file {path}"),
            Call("close", Slot("folder")),
            *([Call("close", Slot("program")), Call("value", 1, on_more=f"not {path}")] if not last else
              [Call("check", b"\0", b"\1", 1, k.ERRNO["EISDIR"])]),
            Call("faccessat2", Slot("program"), "", 1, k.AT_EMPTY_PATH | k.AT_EACCESS, fine=() if last else ("EACCES",), on_zero="found",
                 label=f"file {path}"),
        ]
        if not last:
            calls += [Call("close", Slot("program")), Call("value", 0, label=f"not {path}")]
    calls.append(Call("close", Slot("program"), label="found"))
    return Step(f"find the program {process['args'][0]}", *calls, kind="program")


def execute(process: "Process") -> Step:
    """Becomes the program. Of several places the first that has it counts, as the shell does it: execvp(3)."""
    argv, envp = Texts("argv", tuple(process["args"])), Texts("envp", tuple(environment(process)))
    paths = [Late(f"path {n}", path) for n, path in enumerate(candidates(process))]
    calls = [Call("execve", path, argv, envp, fine=NOT_THERE) for path in paths[:-1]]
    calls.append(Call("execve", paths[-1], argv, envp))
    return Step(executes(process), *calls, kind="exec")


def read_passwd(size: int = 4096) -> Step:
    """Reads `size` bytes of the image's passwd file for the user's home, into the Out "passwd".

    It is a file of the image: what it says is only that user's word.
    """
    how = k.open_how(k.O_RDONLY | k.O_CLOEXEC | k.O_NONBLOCK, 0, k.RESOLVE_IN_ROOT | k.RESOLVE_NO_MAGICLINKS)
    return Step(
        "read /etc/passwd of the image",
        Call("openat2", Slot("root"), "etc/passwd", how, 24, into="passwd", fine=("ENOENT", "ENOTDIR", "ELOOP", "EACCES"), on_fine="end"),
        Call("read", Slot("passwd"), Out("passwd", size), size, fine=("EISDIR", "EIO", "EINVAL", "EAGAIN")),
        Call("close", Slot("passwd")), kind="passwd",
    )
