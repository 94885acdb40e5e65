"""What the runtime does to and for a container's processes from outside, for create and for exec alike."""

import posix
from _signal import (
    SIG_BLOCK,
    SIG_DFL,
    SIG_IGN,
    SIG_UNBLOCK,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGTERM,
    default_int_handler,
    getsignal,
    pthread_sigmask,
    signal,
)
from posix import O_CLOEXEC, O_CREAT, O_TRUNC, O_WRONLY

from rundlet import kernel, log
from rundlet.errors import BadSpec, Fault, Refused, StepFailed
from rundlet.life import store
from rundlet.plan import apparmor
from rundlet.plan import process as plan_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.executor.client import Executor
    from rundlet.executor.program import Program, Reply
    from rundlet.host import Facts
    from rundlet.plan.step import Step
    from rundlet.spec.types import Config, IDMapping, Process, Rlimit

LONG_PASSWD = 32768  # so much of an image's passwd file is read

ENDING = (SIGTERM, SIGINT, SIGHUP)


def interruptible() -> None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: by an exception, so that what was made is undone. A hangup that the caller
    ignores (nohup) stays ignored.

    Nor are children lost to a caller that ignores SIGCHLD: sigaction(2), "SA_NOCLDWAIT".
    """
    signal(SIGTERM, default_int_handler)
    if getsignal(SIGHUP) != SIG_IGN:
        signal(SIGHUP, default_int_handler)
    signal(SIGCHLD, SIG_DFL)
    pthread_sigmask(SIG_UNBLOCK, ENDING)


def uninterruptible() -> None:
    """From here on a command is brought to its end, since half of it would be neither done nor undone; that takes milliseconds.

    A signal that came before is obeyed here, as the exception that it is.
    """
    pthread_sigmask(SIG_BLOCK, ENDING)


def end(executor: "Executor") -> None:
    """Kills an executor, or what it became, and waits for it: it is our own child, so its pid is nobody else's.

    Raises Fault when it may not be killed: a confined runtime needs a rule to signal the label of its container.
    """
    executor.close()
    try:
        posix.kill(executor.pid, kernel.SIGKILL)
        posix.waitpid(executor.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
    except PermissionError as e:
        raise Fault(f"process {executor.pid} cannot be killed: {(e.strerror or '').lower()}; kill it by hand") from None


def seccomp_program(config: "Config") -> "bytes | None":
    """The compiled filter of the configuration, from the cache where it is known; None when none is asked for."""
    section = config["linux"]["seccomp"]
    if section is None:
        return None
    from rundlet.seccomp import cache

    warnings: "list[str]" = []
    program = cache.program(section, _cache_folder(), warnings)
    for warning in warnings:
        log.warning(warning)
    return program


def _cache_folder() -> str:
    if posix.geteuid() == 0:
        folder = "/var/cache/rundlet"
    else:
        home = posix.environ.get(b"HOME", b"/nonexistent").decode("utf-8", "surrogateescape")
        folder = posix.environ.get(b"XDG_CACHE_HOME", b"").decode("utf-8", "surrogateescape") or home + "/.cache"
        folder += "/rundlet"
    try:
        posix.mkdir(folder, 0o755)
    except OSError:
        pass  # there already, or no place for a cache: it is only a cache
    return folder + "/seccomp"


def grantable(proc: "Process", facts: "Facts", user_namespace: bool) -> None:
    """Leaves out capabilities that the runtime does not have to give, each with a warning (config.md, "capabilities").

    In a new user namespace the process has them all.
    """
    sets = proc["capabilities"]
    if sets is None or user_namespace:
        return
    have = set(facts["caps"]["bounding"])
    for kind in ("bounding", "effective", "permitted", "inheritable", "ambient"):
        names: "list[str]" = sets[kind]
        missing = [name for name in names if name not in have]
        if missing:
            log.warning(f"/process/capabilities/{kind}: the runtime does not have {', '.join(missing)} to give")
            sets[kind] = [name for name in names if name in have]


def stdio_to_give(proc: "Process") -> "tuple[int, ...]":
    """Of stdin, stdout and stderr those to give to a user that is not root: pipes, files and sockets, never a device of the host."""
    if proc["user"]["uid"] == 0 or proc["terminal"]:
        return ()
    fds = []
    for fd in (0, 1, 2):
        try:
            if posix.fstat(fd).st_mode & 0o170000 in (0o010000, 0o100000, 0o140000):
                fds.append(fd)
        except OSError:
            pass  # closed: nothing to give
    return tuple(fds)


def telling(failed: StepFailed, steps: "tuple[Step, ...]", transition: "apparmor.Transition", facts: "Facts") -> Fault:
    """The fault in its own terms where the step knows better than the errno: labels, and programs that are not there."""
    step = next((step for step in steps if step.what == failed.step), None)
    kind = step.kind if step else ""
    if kind == "label":
        return Refused(apparmor.write_failed(transition, facts, failed.errno, failed.call))
    if kind in ("program", "exec"):
        return not_executable(failed, step.what.rpartition(" ")[2] if kind == "program" and step else "")
    return failed


def not_executable(failed: StepFailed, name: str = "") -> Fault:
    """A program that cannot be executed, in the words that engines look for, with the exit status that shells use."""
    name = name or failed.step.partition("execute ")[2].partition(" ")[0]
    if failed.errno in (kernel.ERRNO["ENOENT"], kernel.ERRNO["ENOTDIR"]):
        words = "executable file not found in $PATH" if "/" not in name else "no such file or directory"
        fault = Fault(f'exec: "{name}": {words}')
        fault.status = 127
    else:
        why = posix.strerror(failed.errno)
        fault = Fault(f'exec: "{name}": {why[:1].lower()}{why[1:]}')
        fault.status = 126
    return fault


def check_pending(reply: "Reply", transition: "apparmor.Transition") -> None:
    """What the kernel read back of the label asked for must be just that; raises Refused."""
    if transition.action == "keep":
        return
    text = apparmor.pending_text(reply.outs) or ""
    if not apparmor.pending_ok(transition, text):
        raise Refused(
            f'asked AppArmor for "{transition.profile}", and the kernel would give "{text.strip()}"',
            "nothing was started; look at the kernel log",
        )


def write_maps(pid: int, uids: "list[IDMapping]", gids: "list[IDMapping]") -> None:
    """Writes the id maps of a new user namespace: user_namespaces(7)."""
    for name, maps in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in maps)
        _write(f"/proc/{pid}/{name}", text, f"write the {name.replace('_', ' ')} {'; '.join(text.splitlines())}")


def write_oom_score(pid: int, score: int) -> None:
    """Sets oom_score_adj; one that holds already is not written, since the kernel refuses even that to some: proc(5)."""
    path = f"/proc/{pid}/oom_score_adj"
    if int(store.read(path)) != score:
        _write(path, str(score), f"set oom_score_adj to {score}", "lowering it takes CAP_SYS_RESOURCE; raise /process/oomScoreAdj")


def raise_limits(pid: int, limits: "list[Rlimit]") -> None:
    """Raises hard limits where the process, in its user namespace, is not allowed to: prlimit(2)."""
    if not limits:
        return
    import resource

    for limit in limits:
        number = kernel.RLIMITS[limit["type"]]
        soft, hard = resource.prlimit(pid, number)
        new = -1 if limit["hard"] >= 1 << 63 else limit["hard"]
        if hard != -1 and (new == -1 or new > hard):
            try:
                resource.prlimit(pid, number, (soft, new))
            except (OSError, ValueError) as e:
                raise Fault(f"limit {limit['type']}: raising the hard limit to {new}: {e}; it takes CAP_SYS_RESOURCE") from None


def _write(path: str, text: str, what: str, hint: str = "") -> None:
    fd = posix.open(path, O_WRONLY | O_CLOEXEC)
    try:
        posix.write(fd, text.encode())
    except OSError as e:
        why = (e.strerror or "").lower()
        raise StepFailed(what, "write", e.errno or 0, f"{what}: write to {path}: {why}", (hint,) if hint else ()) from None
    finally:
        posix.close(fd)


def give_home(executor: "Executor", reply: "Reply", proc: "Process") -> bool:
    """Puts the user's home into the environment where the plan has looked for it in the image, in this reply; false where it has not."""
    text = reply.outs.get("passwd")
    if text is None:
        return False
    if text[-1:] != b"\0":  # there may be more of it
        text = executor.run([plan_process.read_passwd(LONG_PASSWD)]).outs["passwd"]
    proc["env"].append("HOME=" + plan_process.home(text.rstrip(b"\0"), proc["user"]["uid"]))
    return True


def names_of(program: "Program") -> "tuple[list[list[str]], list[tuple[int, str]]]":
    """Steps (what, kind, hint) and calls (index of the step, name) of a program, for a later command to name the one that failed."""
    whats: "list[list[str]]" = []
    index: "dict[int, int]" = {}
    ops: "list[tuple[int, str]]" = []
    for step, call in program.where:
        if id(step) not in index:
            index[id(step)] = len(whats)
            whats.append([step.what, step.kind, step.hint])
        ops.append((index[id(step)], call.name))
    return whats, ops


def write_pid_file(path: str, pid: int) -> None:
    """Writes the pid as engines read it: no newline, and never half."""
    new = f"{path}.{posix.getpid()}.new"
    try:
        fd = posix.open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        posix.write(fd, str(pid).encode())
        posix.close(fd)
        posix.rename(new, path)
    except OSError as e:
        raise Fault(f"cannot write the pid file {path}: {(e.strerror or '').lower()}") from None


def user_name() -> str:
    """The name of who runs the command, as its passwd file has it; the number where it has none."""
    uid = posix.geteuid()
    if uid == 0:
        return "root"
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def parse_user(text: str) -> "tuple[int, int]":
    """UID or UID:GID in numbers; the group is 0 when it is not given. Raises BadSpec."""
    uid, colon, gid = text.partition(":")
    if not uid.isdigit() or (colon and not gid.isdigit()) or int(uid) > 0xFFFFFFFE or int(gid or 0) > 0xFFFFFFFE:
        raise BadSpec("--user", f'must be UID or UID:GID in numbers, not "{text}"')
    return int(uid), int(gid or 0)
