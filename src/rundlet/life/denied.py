"""Signals that a security module may stand in the way of, and what a confined runtime is told: which rule is missing in which profile."""

from errno import EACCES, EPERM
from posix import strerror

from rundlet import host, kernel
from rundlet.cgroup import tasks
from rundlet.cgroup.place import chief
from rundlet.errors import Fault, Refused, StepFailed
from rundlet.plan.label import components, pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.cgroup.place import Place
    from rundlet.life.store import Container, Record

KERNEL_NAMES = {number: name for name, number in kernel.SIGNALS.items()}


def signal_all(record: "Record", at: "Place", number: int) -> None:
    """Signals every process in the container's cgroups. Raises Refused where one may not be signalled, StepFailed for what else fails."""
    try:
        tasks.signal_all(at, number)
    except StepFailed as failed:
        if failed.call != "kill":
            raise
        raise signal(record, number, failed.errno) from None


def kill(container: "Container", at: "Place") -> bool:
    """Kills by the cgroup, which asks no security module, a container whose first process may not be signalled; false where that
    would be more than was asked for: only in a PID namespace the end of the first process is the end of all, pid_namespaces(7)."""
    from rundlet import spec

    there = chief(at)
    spaces = spec.load(container.config())[0]["linux"]["namespaces"]
    if there is None or there.version != 2 or not any(space["type"] == "pid" and space["path"] is None for space in spaces):
        return False
    tasks.signal_all(at, kernel.SIGKILL)
    return True


def signal(record: "Record", number: int, error: int) -> Refused:
    """Why signal `number` did not reach the container's processes: `error` is the errno of the kernel's answer.

    AppArmor answers EACCES (security/apparmor/ipc.c, aa_may_signal()), and both ends need a rule; everything else is kill(2)'s EPERM.
    """
    name = KERNEL_NAMES.get(number, str(number))
    why = f"cannot send SIG{name} to the container, process {record['pid']}: {strerror(error).lower()}"
    if error != EACCES:
        return Refused(why, "it takes CAP_KILL in the process's user namespace, or the process's own user")
    what = f"set=({name.lower()}) " if name in kernel.SIGNALS else ""
    return Refused(why, _rules(record, f"signal (send) {what}", f"signal (receive) {what}") or "a security module forbids it")


def entering(record: "Record", failed: StepFailed) -> Fault:
    """Why the runtime may not join the container's namespaces: for those of a process setns(2) asks for what reading by ptrace(2) does."""
    if failed.errno not in (EACCES, EPERM):
        return failed
    return Refused(failed.message, _rules(record, "ptrace (read) ", "ptrace (readby) ") or "it takes CAP_SYS_ADMIN and CAP_SYS_PTRACE")


def _rules(record: "Record", ours: str, theirs: str) -> str:
    """A rule for the runtime's profile and one for the container's, or for each profile of a stack; "" where nothing is confined."""
    try:
        own, live = host.label_of(0)[0], host.label_of(record["pid"])[0]
    except Refused:
        return ""
    said = []
    for whose, label, rule, peer in (("runtime", own, ours, live), ("container", live, theirs, own)):
        names = [f'"{name}"' for name in components(label) if name != "unconfined"]
        if names:
            said.append(f"the {whose}'s profile {' and '.join(names)} needs the rule: {rule}peer={pattern(peer)},")
    return " and ".join(said)
