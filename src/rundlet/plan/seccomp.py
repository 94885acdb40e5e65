"""The filter of system calls: one step that installs it, and one that hands its listener to the agent. No I/O.

    install the seccomp filter       seccomp(SECCOMP_SET_MODE_FILTER, flags, {length, program}) → Slot("notify")
    hand the listener to the agent   sendmsg(receiver, state of the container + SCM_RIGHTS[notify])

Installing is the last thing before execve(2), since every call after it passes the filter. That is why a profile may not ask the agent
about sendmsg: the agent, which does not have the listener yet, could never answer.
Sources: seccomp(2), seccomp_unotify(2), linux/seccomp.h, config-linux.md ("Seccomp").
"""

from _struct import pack

from rundlet.errors import BadSpec, Refused
from rundlet.kernel import MSG_NOSIGNAL, SCM_RIGHTS, SOL_SOCKET
from rundlet.plan.step import Call, Data, Ptr, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.spec.types import Seccomp

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
TSYNC = FLAGS["SECCOMP_FILTER_FLAG_TSYNC"]
WAIT_KILLABLE_RECV = FLAGS["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]


def steps(program: bytes, flags: "Sequence[str]", notify: bool = False) -> "tuple[Step, ...]":
    """The step that installs `program`, an array of struct sock_filter, with the flags of linux.seccomp.flags.

    With `notify` the kernel makes a listener for SCMP_ACT_NOTIFY and its descriptor, closed on exec, is in Slot("notify").
    The caller needs no_new_privs or CAP_SYS_ADMIN. Raises Refused for a program that the kernel takes no more, BadSpec for flags.
    """
    count = len(program) // 8
    if count > BPF_MAXINSNS:
        raise Refused(
            f"the seccomp filter has {count} instructions, and the kernel takes {BPF_MAXINSNS}",
            "name fewer architectures or fewer rules with arguments in linux.seccomp",
        )
    number = 0
    for i, flag in enumerate(flags):
        if flag not in FLAGS:
            raise BadSpec(f"/linux/seccomp/flags/{i}", f"{flag} is not a flag of seccomp(2) that a configuration may give")
        if FLAGS[flag] == WAIT_KILLABLE_RECV and not notify:  # seccomp(2): EINVAL
            raise BadSpec(f"/linux/seccomp/flags/{i}", f"{flag} needs a rule with SCMP_ACT_NOTIFY")
        number |= FLAGS[flag]
    if notify:
        # a thread that cannot follow is reported by ESRCH: the result, else its number, is the descriptor
        number |= NEW_LISTENER | (TSYNC_ESRCH if number & TSYNC else 0)
    fprog = Data(pack("=H6x", count), Ptr(program))  # struct sock_fprog
    call = Call("seccomp", SECCOMP_SET_MODE_FILTER, number, fprog, into="notify" if notify else "")
    return (Step(f"install the seccomp filter of {count} instructions", call, kind="seccomp"),)


def notifies(section: "Seccomp") -> bool:
    """True when a rule sends calls to the agent at listenerPath; raises BadSpec for the call that hands the listener over."""
    asked = False
    for i, rule in enumerate(section["syscalls"]):
        if rule["action"] == "SCMP_ACT_NOTIFY":
            asked = True
            if "sendmsg" in rule["names"]:
                where = f"/linux/seccomp/syscalls/{i}/names/{rule['names'].index('sendmsg')}"
                raise BadSpec(where, "SCMP_ACT_NOTIFY cannot be used for sendmsg, the call that hands the listener over")
    return asked


def hand_over(state: bytes, receiver: "Slot | None" = None, listener: "Slot | None" = None) -> Step:
    """The step that sends the listener, Slot("notify"), with `state` over a connected socket, Slot("receiver").

    `state` is the container process state as JSON, whose `fds` is ["seccompFd"] (config-linux.md, "The Container Process State").
    """
    rights = Data(pack("=QII", 16 + 4, SOL_SOCKET, SCM_RIGHTS), listener or Slot("notify"), bytes(4))  # struct cmsghdr, padded to 24
    message = Data(  # struct msghdr
        bytes(16), Ptr(Data(Ptr(state), pack("=Q", len(state)))), pack("=Q", 1), Ptr(rights), pack("=Q", 24), bytes(8),
    )
    return Step(
        "hand the seccomp listener to the agent", Call("sendmsg", receiver or Slot("receiver"), message, MSG_NOSIGNAL),
        kind="seccomp", hint="the profile must allow sendmsg, and the agent at linux.seccomp.listenerPath must be listening",
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
        "flags": list(section["flags"]),
        "rules": len(section["syscalls"]),
        "conditional": sum(1 for rule in section["syscalls"] if rule["args"]),
        "syscalls": counts,
        "listener": section["listenerPath"],
    }


def _word(action: str, errno: "int | None") -> str:
    return f"{action}({1 if errno is None else errno})" if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else action
