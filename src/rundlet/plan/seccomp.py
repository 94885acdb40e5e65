"""The filter of system calls: one step that installs it, and one that hands its listener to the agent. No I/O.

    install the seccomp filter       seccomp(SECCOMP_SET_MODE_FILTER, flags, {length, program}) → Slot("notify")
    hand the listener to the agent   sendmsg(receiver, state of the container + SCM_RIGHTS[notify]) · close(notify)

Every call after the installation passes the filter. That is why a profile may not ask the agent about sendmsg, nor forbid it: the
agent, which does not have the listener yet, could never answer. The process closes its own listener: while it held one, a call that
the agent is to decide would wait for ever once the agent is gone.

Annotations, as crun has them:

    run.oci.seccomp.receiver              the agent's socket, where there is no listenerPath; so does $RUN_OCI_SECCOMP_RECEIVER
    run.oci.seccomp_bpf_data              the program itself in base64, in the place of linux.seccomp's rules
    run.oci.seccomp_fail_unknown_syscall  unless "0": a call that libseccomp does not know is a fault

Sources: seccomp(2), seccomp_unotify(2), linux/seccomp.h, config-linux.md ("Seccomp"), crun(1).
"""

from _struct import pack

from rundlet.errors import BadSpec, Refused
from rundlet.kernel import MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET
from rundlet.plan.step import Call, Data, Ptr, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.spec.types import Config, Seccomp

SECCOMP_SET_MODE_FILTER = 1
BPF_MAXINSNS = 4096  # linux/bpf_common.h; the limit of one filter
NEW_LISTENER = 1 << 3
TSYNC_ESRCH = 1 << 4
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1 << 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 1 << 5,
}
DEFAULT_FLAGS = ("SECCOMP_FILTER_FLAG_SPEC_ALLOW",)  # as the peers: the filter is not there to slow down what runs under it
TSYNC = FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]
WAIT_KILLABLE_RECV = FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
RECEIVER, BPF, STRICT = "run.oci.seccomp.receiver", "run.oci.seccomp_bpf_data", "run.oci.seccomp_fail_unknown_syscall"
PLUGINS = "run.oci.seccomp.plugins"  # libraries that crun loads to answer notifications
LISTENER = "seccomp listener"  # the kind of the step that hands it over
VARIABLE = b"RUN_OCI_SECCOMP_RECEIVER"
PASSING = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")  # the call is made, unless a tracer has other plans


def steps(program: bytes, flags: "Sequence[str] | None", notify: bool = False) -> "tuple[Step, ...]":
    """The steps that install `program`, an array of struct sock_filter, with the flags of linux.seccomp.flags (None: the default).

    With `notify` the kernel makes a listener for SCMP_ACT_NOTIFY, which is handed over, with a text that telling() puts in.
    The caller needs no_new_privs or CAP_SYS_ADMIN. Raises Refused for a program that the kernel takes no more, BadSpec for flags.
    """
    count = len(program) // 8
    if count > BPF_MAXINSNS:
        raise Refused(
            f"the seccomp filter has {count} instructions, and the kernel takes {BPF_MAXINSNS}",
            "name fewer architectures or fewer rules with arguments in linux.seccomp",
        )
    number = 0
    for i, flag in enumerate(DEFAULT_FLAGS if flags is None else flags):
        if flag not in FLAGS:
            raise BadSpec(f"/linux/seccomp/flags/{i}", f"{flag} is not a flag of seccomp(2) that a configuration may give")
        if FLAGS[flag] == WAIT_KILLABLE_RECV and not notify:  # seccomp(2): EINVAL
            raise BadSpec(f"/linux/seccomp/flags/{i}", f"{flag} needs a rule with SCMP_ACT_NOTIFY")  # so there is a listener
        number |= FLAGS[flag]
    if notify:
        # a thread that cannot follow is reported by ESRCH: the result, else its number, is the descriptor
        number |= NEW_LISTENER | (TSYNC_ESRCH if number & TSYNC else 0)
    fprog = Data(pack("=H6x", count), Ptr(program))  # struct sock_fprog
    call = Call("seccomp", SECCOMP_SET_MODE_FILTER, number, fprog, into="notify" if notify else "")
    install = Step(f"install the seccomp filter of {count} instructions", call, kind="seccomp")
    return (install, hand_over(b"{}")) if notify else (install,)


def telling(steps: "tuple[Step, ...]", state: str) -> "tuple[Step, ...]":
    """The steps with what the agent is told, which is known only once there is a process."""
    return tuple(hand_over(state.encode("utf-8", "surrogateescape")) if step.kind == LISTENER else step for step in steps)


def receiver(config: "Config", environment: str) -> str:
    """The path of the agent's socket; "" where no listener is wanted. `environment`: what $RUN_OCI_SECCOMP_RECEIVER says.

    A listenerPath counts when a rule has SCMP_ACT_NOTIFY (config-linux.md), the others with any filter, as crun has it. Raises BadSpec
    and Refused for what cannot be handed over.
    """
    section, annotations = config["linux"]["seccomp"], config["annotations"]
    if section is None and BPF not in annotations:
        return ""
    if PLUGINS in annotations:
        raise Refused(f"/annotations/{PLUGINS} is not supported", f"run an agent, and name its socket in {RECEIVER}")
    path = annotations.get(RECEIVER) or environment
    if section is not None and (BPF in annotations or notifies(section)):
        path = section["listenerPath"] or path
        if not path and BPF not in annotations:
            raise BadSpec("/linux/seccomp/listenerPath", "is required: a rule has SCMP_ACT_NOTIFY")
    if path and path[0] != "/":
        raise Refused(f"the seccomp agent's socket {path} is not an absolute path", "give /linux/seccomp/listenerPath from the root on")
    if path and section is not None and BPF not in annotations and action(section, "sendmsg") not in PASSING:
        raise Refused(
            f"/linux/seccomp: the call sendmsg hands the listener over, and the profile answers it with {action(section, 'sendmsg')}",
            "allow sendmsg",
        )
    return path


def given(annotations: "dict[str, str]") -> bytes:
    """The program that an annotation gives in base64. Raises BadSpec; whether it is a program the kernel says."""
    from binascii import Error, a2b_base64

    where = f"/annotations/{BPF}"
    try:
        program = a2b_base64(annotations[BPF], strict_mode=True)
    except (Error, ValueError):
        raise BadSpec(where, "must be base64") from None
    if not program or len(program) % 8:
        raise BadSpec(where, f"must be instructions of eight bytes each (struct sock_filter), not {len(program)} bytes")
    return program


def notifies(section: "Seccomp") -> bool:
    """True when a rule sends calls to the agent; raises BadSpec for calls that it can never be asked about.

    sendmsg hands the listener over, and by write the process says what went wrong before that.
    """
    asked = False
    for i, rule in enumerate(section["syscalls"]):
        if rule["action"] == "SCMP_ACT_NOTIFY":
            asked = True
            for name in ("write", "sendmsg"):
                if name in rule["names"]:
                    where = f"/linux/seccomp/syscalls/{i}/names/{rule['names'].index(name)}"
                    raise BadSpec(where, f"SCMP_ACT_NOTIFY cannot be used for the {name} syscall")
    return asked


def action(section: "Seccomp", name: str) -> str:
    """What a profile does with a call whatever its arguments are; of rules that look at them, the default is taken to remain."""
    default = section["defaultAction"]
    plain = (rule["action"] for rule in section["syscalls"] if name in rule["names"] and not rule["args"] and rule["action"] != default)
    return next(plain, default)  # the first that says something wins: seccomp/compile.py


def hand_over(state: bytes) -> Step:
    """The step that sends the listener, Slot("notify"), with `state` over a connected socket, Slot("receiver").

    `state` is the container process state as JSON, whose `fds` is ["seccompFd"] (config-linux.md, "The Container Process State").
    """
    rights = Data(pack("=QII", 16 + 4, SOL_SOCKET, SCM_RIGHTS), Slot("notify"), bytes(4))  # struct cmsghdr, padded to 24
    message = Data(  # struct msghdr
        bytes(16), Ptr(Data(Ptr(state), pack("=Q", len(state)))), pack("=Q", 1), Ptr(rights), pack("=Q", 24), bytes(8),
    )
    return Step(
        "hand the seccomp listener to the agent", Call("sendmsg", Slot("receiver"), message, MSG_NOSIGNAL),
        Call("close", Slot("notify"), fine=("EPERM", "EACCES", "ENOSYS")),  # what the profile forbids is done by the exec
        kind=LISTENER, hint="is the agent at listenerPath still there?",
    )


def describe(section: "Seccomp") -> "dict[str, object]":
    """The filter in words and numbers, for explain: every value can be printed as JSON.

    `syscalls` counts the names by action (SCMP_ACT_ERRNO with its errno), `conditional` the rules that look at arguments.
    """
    counts: dict[str, int] = {}
    for rule in section["syscalls"]:
        word = _word(rule["action"], rule["errnoRet"])
        counts[word] = counts.get(word, 0) + len(rule["names"])
    return {
        "default": _word(section["defaultAction"], section["defaultErrnoRet"]),
        "architectures": list(section["architectures"]),
        "flags": list(DEFAULT_FLAGS if section["flags"] is None else section["flags"]),
        "rules": len(section["syscalls"]),
        "conditional": sum(1 for rule in section["syscalls"] if rule["args"]),
        "syscalls": counts,
        "listener": section["listenerPath"],
    }


def _word(action: str, errno: "int | None") -> str:
    return f"{action}({1 if errno is None else errno})" if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else action
