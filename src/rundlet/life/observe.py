"""What really holds of a process after its exec, read from outside, against what was decided; and the end of one where it does not."""

import posix
from _signal import pidfd_send_signal
from posix import O_CLOEXEC, O_RDONLY

from rundlet import host, kernel, log
from rundlet.errors import Fault, Refused
from rundlet.life import store
from rundlet.plan.apparmor import Transition, by_itself, check, components, parse
from rundlet.plan.label import split_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from rundlet.life.store import Expect, Record

    Seen: TypeAlias = tuple[str | None, str | None, dict[str, str]]  # label and mode, where there are any, and the lines of status


class Before:
    """What was seen of a process before its exec: what tells its user namespace, and where a label is due the profiles of the one it had
    and the state of the policy; None where that is not to be had."""

    __slots__ = ("users", "own", "policy")

    def __init__(self, folder: int, pid: int, expect: "Expect | None") -> None:
        self.users = _users(folder)
        self.own: "tuple[str, ...] | None" = None
        self.policy: "bytes | None" = None
        if expect and expect["action"] != "keep":
            try:
                self.own = components(_label(folder, pid)[0])
            except (OSError, Refused):
                return  # it has ended, or may not be looked at
            self.policy = _policy(expect)


class Watch:
    """A process about to execute a program, held so that another one with its pid cannot be mistaken for it."""

    def __init__(self, pid: int, expect: "Expect | None") -> None:
        self.pid = pid
        self.expect = expect
        try:
            self.folder = posix.open(f"/proc/{pid}", O_RDONLY | O_CLOEXEC)
        except OSError as e:
            why = f"cannot look at the container's process {pid} in /proc: {(e.strerror or '').lower()}"
            raise Refused(why, "if it has not ended, mount /proc without hidepid for who runs this, proc(5)") from None
        self.before = Before(self.folder, pid, expect)

    def close(self) -> None:
        """Lets go."""
        posix.close(self.folder)

    def check(self) -> "Seen | None":
        """Compares the live process with what was decided; raises Refused naming what differs. To be called once the exec has closed
        the close-on-exec descriptors. Returns what was seen, None where the process has ended."""
        return verify(self.folder, self.pid, self.expect, self.before)


def insist(record: "Record", folder: int, before: Before) -> "Seen | None":
    """As verify(), of a container's first process: the container is killed where that does not run as was decided, or cannot be seen."""
    try:
        return verify(folder, record["pid"], record["expect"], before)
    except BaseException as first:  # whatever it is: what was not seen to be confined must not run
        left = destroy(record)
        if isinstance(first, Fault):
            first.cleanup += left
        raise


def verify(folder: int, pid: int, expect: "Expect | None", before: Before) -> "Seen | None":
    """As Watch.check: `folder` is the process's /proc directory.

    A process that has ended and been reaped meanwhile can no longer be asked; what the kernel read back before the exec stands.
    """
    if expect is None:
        return None
    _wait_for_credentials(folder)
    try:
        label = _label(folder, pid) if expect["action"] != "keep" else None
        status = _status(folder)
    except (ProcessLookupError, FileNotFoundError):
        return None
    except OSError as e:
        # engines take the words of EACCES and EPERM for other failures
        why = f"the process is killed, for it cannot be seen how it runs: reading of /proc/{pid}: {host.errno_name(e)}"
        rules = "@{PROC}/@{pid}/attr/{,apparmor/}current r, and @{PROC}/@{pid}/status r,"
        raise Refused(why, f"a profile of the runtime needs the rules: {rules}") from None
    faults = []
    if label is not None:
        transition = Transition(expect["action"], expect["profile"], tuple(expect["label"]), "", 0)  # type: ignore[arg-type]
        fault = check(transition, *label)
        if fault and _by_itself(transition, label[0], before, expect):
            log.debug(f"{fault}: it has changed the label by itself, as the one asked for permits")
        elif fault:
            faults.append(fault)
    # a line that is missing says nothing for the process
    if expect["nnp"] and status.get("NoNewPrivs") != "1":
        faults.append("no_new_privs is not set")
    # 3: its filter has killed it, SECCOMP_MODE_DEAD in kernel/seccomp.c
    if expect["seccomp"] and status.get("Seccomp") not in ("2", "3"):
        faults.append("no seccomp filter is in force")
    more = int(status.get("CapBnd", "f" * 16), 16) & ~expect["bounding"]
    # a program may make a user namespace at once, in which it has all capabilities: those of that namespace
    if more and not _moved(before.users, _users(folder)):
        faults.append(f"the bounding set holds {', '.join(_capabilities(more))} beyond what was asked")
    if faults:
        raise Refused("the process does not run as was decided and is killed: " + "; ".join(faults))
    return (*(label or _any_label(folder)), status)


def _by_itself(transition: Transition, label: str, before: Before, expect: "Expect") -> bool:
    """Whether the process has had the right label, and was faster than we. It read back what its exec was to give it; what is put in
    the place of a profile that is then removed could not be told from its own doing, so no policy may have changed since."""
    if before.own is None or before.policy is None or not by_itself(transition, label, before.own):
        return False
    return before.policy == _policy(expect)


def _policy(expect: "Expect") -> "bytes | None":
    """The number that the kernel counts up with each profile that it loads, replaces or removes, of each policy namespace of a label."""
    from rundlet.life import policy

    return policy.revision({split_namespace(name)[0] for name in expect["label"]})


def _users(folder: int) -> "tuple[bytes, str]":
    """What tells a process's user namespace from another: its map, which everybody may read, and its name where that may be read."""
    try:
        name = posix.readlink("ns/user", dir_fd=folder)
    except OSError:
        name = ""  # ptrace(2), "Ptrace access mode checking": not of a process that is not dumpable, without CAP_SYS_PTRACE
    try:
        return store.read("uid_map", folder), name
    except OSError:
        return b"", name


def _moved(before: "tuple[bytes, str]", after: "tuple[bytes, str]") -> bool:
    return before[0] != after[0] or bool(before[1] and after[1] and before[1] != after[1])


def _wait_for_credentials(folder: int) -> None:
    """An exec closes descriptors a moment before it commits the new credentials, all of it under exec_update_lock; opening
    `maps`, as everybody may try, takes that lock (fs/exec.c begin_new_exec, kernel/fork.c mm_access), whether or not we may read it."""
    try:
        posix.close(posix.open("maps", O_RDONLY | O_CLOEXEC, dir_fd=folder))
    except OSError:
        pass


def _read(name: str, folder: int) -> str:
    """A file of a process's, which has nothing mounted over it: whoever may do so could have the kernel say anything.
    Raises OSError, and Refused."""
    fd = posix.open(name, O_RDONLY | O_CLOEXEC, dir_fd=folder)
    try:
        about = posix.fstat(fd)
        if about.st_dev != posix.fstat(folder).st_dev or about.st_size:  # those of procfs have no size
            why = "the process is killed, for it cannot be seen how it runs"
            raise Refused(f"{why}: something is mounted over /proc or {name} of the process there", "unmount it")
        return store.whole(fd).decode("utf-8", "surrogateescape")
    finally:
        posix.close(fd)


def _label(folder: int, pid: int) -> "tuple[str, str | None]":
    for name in ("attr/apparmor/current", "attr/current"):
        try:
            return parse(_read(name, folder))
        except FileNotFoundError:
            if store.stat(pid) is None:
                raise
    return host.label_of(pid)


def _any_label(folder: int) -> "tuple[str | None, str | None]":
    """The label where nothing was asked, for the record alone."""
    try:
        return parse(_read("attr/apparmor/current", folder))
    except (OSError, Refused):
        return None, None


def _status(folder: int) -> "dict[str, str]":
    return dict(line.partition(":\t")[::2] for line in _read("status", folder).split("\n"))  # a name may hold what else ends a line


def _capabilities(mask: int) -> "list[str]":
    known = kernel.CAPABILITIES
    return [known[n] if n < len(known) else f"capability {n}" for n in range(64) if mask >> n & 1]


def destroy(record: "Record") -> "list[str]":
    """Kills every process of a container; what could not be killed, one line each.

    By the cgroup first: a confined runtime may not be permitted to signal the label of its container, and cgroup.kill asks nobody.
    """
    from rundlet.cgroup import place, tasks

    at = place.load(record["cgroup"])
    faults = []
    try:
        if at.dirs:
            tasks.signal_all(at, kernel.SIGKILL)
    except (Fault, OSError) as e:
        faults.append(f"killing by the cgroup: {e}")
    try:
        pidfd = store.pidfd(record["pid"])
    except ProcessLookupError:
        return []
    try:
        if not store.alive(record):  # it has ended, and the pid may be another's
            return []
        pidfd_send_signal(pidfd, kernel.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError as e:
        return [*faults, f"killing process {record['pid']}: {(e.strerror or '').lower()}"]
    finally:
        posix.close(pidfd)
    return []
