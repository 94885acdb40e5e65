"""What the runtime does to and for a container's processes from outside, for create and for exec alike."""

import posix
from _signal import (
    SIG_BLOCK,
    SIG_IGN,
    SIG_UNBLOCK,
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
from rundlet.plan.command import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from rundlet.executor.client import Executor
    from rundlet.executor.program import Program
    from rundlet.executor.template import Packed, Reply
    from rundlet.host import Facts
    from rundlet.plan.step import Step
    from rundlet.spec.types import Config, Process, Rlimit

    Tell = Callable[[str], object]

LONG_PASSWD = 32768  # so much of an image's passwd file is read

ENDING = (SIGTERM, SIGINT, SIGHUP)


def interruptible() -> None:
    """SIGTERM and SIGHUP end a command as Ctrl-C does: by an exception, so that what was made is undone. A hangup that the caller
    ignores (nohup) stays ignored.
    """
    signal(SIGTERM, default_int_handler)
    if getsignal(SIGHUP) != SIG_IGN:
        signal(SIGHUP, default_int_handler)
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


def bury(pid: int) -> None:
    """Waits for an executor that has done its part. One that another process started is that process's to wait for."""
    try:
        posix.waitpid(pid, 0)
    except ChildProcessError:
        pass


def seccomp_program(config: "Config", tell: "Tell | None" = None) -> "bytes | None":
    """The compiled filter of the configuration, from the cache where it is known; None when none is asked for.

    `tell` takes the warnings, which are the log's otherwise; for them it is compiled anew, since a filter that was kept has none to tell.
    """
    section, annotations = config["linux"]["seccomp"], config["annotations"]
    if "run.oci.seccomp_bpf_data" in annotations:  # plan/seccomp.py names it, which is not imported without a filter
        from rundlet.plan import seccomp

        return seccomp.given(annotations)
    if section is None:
        return None
    from rundlet import keep
    from rundlet.seccomp import cache

    warnings: "list[str]" = []
    strict = annotations.get("run.oci.seccomp_fail_unknown_syscall", "0") != "0"
    program = cache.program(section, "" if tell else keep.home() + "/seccomp", warnings, strict)
    for warning in warnings:
        (tell or log.warning)(warning)
    return program


def seccomp_agent(config: "Config") -> "socket | None":
    """A connection to the agent that the filter's listener is for; None where none is wanted. Raises Fault when nobody listens."""
    section, annotations = config["linux"]["seccomp"], config["annotations"]
    if not (
        (section and any(rule["action"] == "SCMP_ACT_NOTIFY" for rule in section["syscalls"]))
        or b"RUN_OCI_SECCOMP_RECEIVER" in posix.environ or any(name[:15] == "run.oci.seccomp" for name in annotations)
    ):
        return None  # without loading a module for the answer
    from rundlet.life import agent

    return agent.connect(config)


def grantable(proc: "Process", facts: "Facts", user_namespace: bool, tell: "Tell | None" = None) -> None:
    """Leaves out capabilities that the runtime does not have to give, with a warning each to `tell` or the log (config.md, "capabilities").

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
            (tell or log.warning)(f"/process/capabilities/{kind}: the runtime does not have {', '.join(missing)} to give")
            sets[kind] = [name for name in names if name in have]


def attainable(limits: "list[Rlimit]", facts: "Facts") -> None:
    """Raises Refused for a hard limit above the runtime's own where the runtime may not raise it.

    That takes CAP_SYS_RESOURCE of the host: what a user namespace gives does not count, getrlimit(2).
    """
    if not limits or ("CAP_SYS_RESOURCE" in facts["caps"]["effective"] and not facts["user_namespace"]):
        return
    for index, most in higher(limits, "self"):
        from rundlet.plan.process import amount

        raise Refused(
            f"/process/rlimits/{index}/hard: raising {limits[index]['type']} from the runtime's own {most} to "
            f"{amount(limits[index]['hard'])}: operation not permitted without CAP_SYS_RESOURCE",
            "ask for no more, or raise the limit of whatever starts the runtime",
        )


def higher(limits: "list[Rlimit]", pid: "int | str") -> "list[tuple[int, int]]":
    """Which hard limits are above those that a process has, by their index, each with the one that it has."""
    # a line for each, in the order of their numbers, below one that says which column is which: proc_pid_limits() in fs/proc/base.c
    own = [line[47:67].strip() for line in store.read(f"/proc/{pid}/limits").decode().splitlines()[1:]]
    each = ((index, limit["hard"], own[kernel.RLIMITS[limit["type"]]]) for index, limit in enumerate(limits))
    return [(index, int(most)) for index, hard, most in each if most != "unlimited" and hard > int(most)]


def sets_groups(config: "Config", pid: int = 0) -> bool:
    """Whether the process's groups are set, or the caller's are kept: run.oci.keep_original_groups, for groups that no id map holds.

    Nor are they set where the user namespace of process `pid` of the container forbids it: proc_pid_setgroups(5).
    """
    if config["annotations"].get("run.oci.keep_original_groups", "0") != "0":
        return False
    try:
        return not pid or store.read(f"/proc/{pid}/setgroups").strip() != b"deny"
    except OSError:
        return True  # it has ended, which others tell better


def take_turns(steps: "tuple[Step, ...]", pid: int) -> None:
    """Carries out, as a process of the host, what a user namespace keeps process `pid` from asking for itself."""
    from rundlet.executor import client

    helper = client.spawn()
    helper.bind["process"] = pid
    try:
        helper.run(steps)
    finally:
        end(helper)


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
    if kind == "clone" or facts["uid"] or facts["user_namespace"]:
        from rundlet.life import rootless

        return rootless.told(failed, kind, facts)
    return failed


def not_executable(failed: StepFailed, name: str = "") -> Fault:
    """A program that cannot be executed, in the words that engines look for, with the exit status that shells use.

    Without a `name` it had been found before: if the kernel then says that there is no such file, it means the interpreter. execve(2)
    """
    found = not name
    name = name or failed.step.partition("execute ")[2].partition(" ")[0]
    if failed.errno in (kernel.ERRNO["ENOENT"], kernel.ERRNO["ENOTDIR"]):
        words = "executable file not found in $PATH" if "/" not in name else "no such file or directory"
        if found:  # runc's form of it, too, has no colon and no quotation marks
            fault = Fault(f"exec {name}: no such file or directory: is the interpreter or loader that it names missing?")
        else:
            fault = Fault(f'exec: "{name}": {words}')
        fault.status = 127
    else:
        why = posix.strerror(failed.errno)
        if failed.errno == kernel.ERRNO["EISDIR"]:
            why = "permission denied: is a directory"  # Podman knows the first words, Docker the others
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
            f'asked AppArmor for "{transition.asked}", and the kernel would give "{text.strip()}"',
            "nothing was started; look at the kernel log",
        )


def give_home(executor: "Executor", reply: "Reply", proc: "Process") -> bool:
    """Puts the user's home into the environment where the plan has looked for it in the image, in this reply; false where it has not."""
    text = reply.outs.get("passwd")
    if text is None:
        return False
    if text[-1:] != b"\0":  # there may be more of it
        from rundlet.plan.process import read_passwd

        text = executor.run([read_passwd(LONG_PASSWD)]).outs["passwd"]
    proc["env"].append("HOME=" + home(text.rstrip(b"\0"), proc["user"]["uid"]))
    return True


def names_of(program: "Program | Packed") -> "tuple[list[list[str]], list[tuple[int, str]], dict[str, tuple[int, int]]]":
    """Of a program, for a later command to tell what failed: steps (what, kind, hint), calls (index of the step, name), and where in
    a reply the returned buffers are (offset, size)."""
    program = program.whole()
    whats: "list[list[str]]" = []
    index: "dict[int, int]" = {}
    ops: "list[tuple[int, str]]" = []
    for step, call in program.where:
        if id(step) not in index:
            index[id(step)] = len(whats)
            whats.append([step.what, step.kind, step.hint])
        ops.append((index[id(step)], call.name))
    return whats, ops, program.outs


def write_pid_file(path: str, pid: int) -> None:
    """Writes the pid as engines read it: no newline, and never half. Raises Fault, and leaves nothing then."""
    new = f"{path}.{posix.getpid()}.new"
    made = False
    try:
        fd = posix.open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        made = True
        try:
            posix.write(fd, str(pid).encode())
        finally:
            posix.close(fd)
        posix.rename(new, path)
    except OSError as e:
        if made:
            posix.unlink(new)
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


def parse_user(text: str) -> "tuple[int, int | None]":
    """UID or UID:GID in numbers; None for a group that is not given. Raises BadSpec."""
    uid, colon, gid = text.partition(":")
    if not _is_id(uid) or (colon and not _is_id(gid)):
        raise BadSpec("--user", f'must be UID or UID:GID in numbers, not "{text}"')
    return int(uid), int(gid) if colon else None


def parse_group(text: str) -> int:
    """GID in numbers. Raises BadSpec."""
    if not _is_id(text):
        raise BadSpec("--additional-gids", f'must be a GID in numbers, not "{text}"')
    return int(text)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= 0xFFFFFFFE
