"""rundlet exec: one more process in a running container, under the same confinement as the first."""

import posix
from posix import O_CLOEXEC, O_DIRECTORY, O_RDONLY

from rundlet import host, kernel, log, spec
from rundlet.cgroup import files as cgroup_files
from rundlet.cgroup import place as cgroup_place
from rundlet.errors import BadSpec, Fault, Refused, StepFailed, Usage, WrongState
from rundlet.executor import client
from rundlet.life import create, observe, process, sockets, store
from rundlet.plan import order
from rundlet.plan import process as plan_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.executor.client import Executor
    from rundlet.life.console import Foreground
    from rundlet.life.foreground import Signals
    from rundlet.life.store import Container, Record
    from rundlet.options import Options
    from rundlet.plan.step import Step
    from rundlet.spec.types import Capabilities, Config, Process


def main(options: "Options") -> int:
    """The verb; the status is the command's own, 128 + the signal that ended it, or 0 when detached."""
    process.interruptible()
    container = store.find(options)
    front = signals = None
    try:
        record = container.record
        now = store.status(record)
        if now == "paused" and not options.ignore_paused:
            raise WrongState("cannot exec in a container that is paused; resume it first, or give --ignore-paused")
        if now not in ("running", "created", "paused"):
            raise WrongState(f"cannot exec in a container that is {now}: container not running")
        config = spec.load(container.config())[0]
        proc = wanted(options, config)
        if proc["terminal"] and options.detach and not options.console_socket:
            raise Fault("a terminal of a process that is not in the foreground needs --console-socket")
        held = None
        console = -1
        if proc["terminal"] and options.console_socket:
            held = sockets.connect(options.console_socket, "console socket")
            console = held.fileno()
        elif proc["terminal"]:
            from rundlet.life.console import Foreground

            front = Foreground()
            console = front.socket
            proc["consoleSize"] = proc["consoleSize"] or front.size()
        if not options.detach:
            from rundlet.life.foreground import Signals

            signals = Signals()
        pid = join(container, record, config, proc, options, console)
    finally:
        container.close()
    return _wait(pid, signals, front) if signals else 0


def _wait(pid: int, signals: "Signals", front: "Foreground | None") -> int:
    from rundlet.life import foreground

    try:
        if front:
            front.receive()
        return foreground.wait(pid, signals, front)
    finally:
        if front:
            front.restore()


def wanted(options: "Options", config: "Config") -> "Process":
    """The process asked for: --process, or the words of the command line over the container's own process.

    What is not said is as the container has it: capabilities, limits, label, no_new_privs. Raises Usage and BadSpec.
    """
    if options.process:
        if options.args:
            raise Usage("exec takes either --process FILE or a command")
        try:
            text = store.read(options.process)
        except OSError as e:
            raise Fault(f"cannot read {options.process}: {(e.strerror or '').lower()}") from None
        proc, warnings = spec.load_process(text)
        for warning in warnings:
            log.warning(warning)
    else:
        if not options.args:
            raise Usage("exec needs a command, or --process FILE")
        proc = {**config["process"]}
        proc["args"] = options.args
        proc["terminal"] = options.tty
        proc["consoleSize"] = None
        proc["env"] = [*proc["env"], *options.env]
    _options(options, config, proc)
    return proc


def _options(options: "Options", config: "Config", proc: "Process") -> None:
    own = config["process"]
    if options.tty:
        proc["terminal"] = True
    if options.cwd:
        if options.cwd[:1] != "/":
            raise BadSpec("--cwd", f'must be an absolute path, not "{options.cwd}"')
        proc["cwd"] = options.cwd
    if options.user:
        uid, gid = process.parse_user(options.user)
        proc["user"] = {**proc["user"], "uid": uid, "gid": gid}
    if options.additional_gids:
        gids = [process.parse_user(gid)[0] for gid in options.additional_gids]
        proc["user"] = {**proc["user"], "additionalGids": [*proc["user"]["additionalGids"], *gids]}
    if options.cap:
        proc["capabilities"] = _with(proc, options.cap)
    # an exec that says nothing of the label or of no_new_privs is held to what the container is held to
    proc["apparmorProfile"] = options.apparmor or proc["apparmorProfile"] or own["apparmorProfile"]
    if options.process_label:
        raise Refused("--process-label: SELinux labels are not supported", "leave it out, or use --apparmor")
    proc["noNewPrivileges"] = proc["noNewPrivileges"] or options.no_new_privs or own["noNewPrivileges"]


def _with(proc: "Process", names: "list[str]") -> "Capabilities":
    """The process's capabilities and those of --cap, in every set but the ambient one. Raises BadSpec for an unknown name."""
    sets = proc["capabilities"] or {"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []}
    for name in names:
        if name not in kernel.CAPABILITIES:
            raise BadSpec("--cap", f"{name} is no capability")

    def more(have: "list[str]") -> "list[str]":
        return [*have, *(name for name in names if name not in have)]

    return {
        "bounding": more(sets["bounding"]), "effective": more(sets["effective"]), "permitted": more(sets["permitted"]),
        "inheritable": sets["inheritable"], "ambient": sets["ambient"],
    }


def join(container: "Container", record: "Record", config: "Config", proc: "Process", options: "Options", console: int) -> int:
    """Starts the process in the container; its pid. Returns once it runs, confined as decided; else raises Fault and nothing runs."""
    facts = host.facts(proc["apparmorProfile"])
    in_user = any(space["type"] == "user" for space in config["linux"]["namespaces"])
    process.grantable(proc, facts, in_user)
    transition = create.decide({**config, "process": proc}, facts)
    filter_ = process.seccomp_program(config)
    choices = order.Choices("", False, False, process.stdio_to_give(proc))
    at = cgroup_place.load(record["cgroup"])
    if options.cgroup:
        at = cgroup_place.sub(at, options.cgroup)
    plan = order.execute(config, proc, transition, facts["apparmor"]["interface"], filter_, choices)
    init, held = _hold(record, "mount" in dict(plan.namespaces))
    passed = {"init": init, **({"held": held} if held >= 0 else {}), **({"console": console} if console >= 0 else {})}
    try:
        executor = client.spawn(passed, options.preserve_fds)
    finally:
        posix.close(init)
        if held >= 0:
            posix.close(held)
    try:
        _carry_out(executor, plan, at, proc, facts, options)
    except BaseException as first:
        try:
            process.end(executor)
        except Fault as second:
            if isinstance(first, Fault):
                first.cleanup.append(str(second))
        raise
    return executor.pid


def _hold(record: "Record", mount_namespace: bool) -> "tuple[int, int]":
    """The first process by pidfd, and its root directory where there is no mount namespace to find it in."""
    try:
        init = posix.pidfd_open(record["pid"])
        held = -1 if mount_namespace else posix.open(f"/proc/{record['pid']}/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    except (ProcessLookupError, FileNotFoundError):
        raise WrongState("container not running") from None
    if not store.alive(record):  # the pid was another process's when it was opened
        raise WrongState("container not running")
    return init, held


def _carry_out(
    executor: "Executor", plan: "order.Plan", at: "cgroup_place.Place", proc: "Process", facts: "host.Facts", options: "Options",
) -> None:
    outside = executor.pid
    steps = plan.stage("outside")
    try:
        reply = executor.run(steps)
    except StepFailed as failed:
        raise process.telling(failed, steps, plan.transition, facts) from None
    process.check_pending(reply, plan.transition)
    executor.pid = reply.slots["child"]
    posix.waitpid(outside, 0)
    if at.dirs:
        cgroup_files.join(at, executor.pid)
    if proc["oomScoreAdj"] is not None:
        process.write_oom_score(executor.pid, proc["oomScoreAdj"])
    if "user" in dict(plan.namespaces):
        process.raise_limits(executor.pid, proc["rlimits"])
    steps = plan.stage("enter")
    try:
        reply = executor.run(steps)
    except StepFailed as failed:
        raise process.telling(failed, steps, plan.transition, facts) from None
    process.give_home(executor, reply, proc)
    watch = observe.Watch(executor.pid)
    # before the program runs: whoever is told by it that it runs may look for the file
    if options.pid_file:
        process.write_pid_file(options.pid_file, executor.pid)
    try:
        _go(executor, (*plan.stage("last")[:-1], plan_process.execute(proc)))
        watch.check({
            "action": plan.transition.action, "profile": plan.transition.profile, "label": list(plan.transition.expected), "nnp": plan.nnp,
            "seccomp": plan.seccomp, "bounding": plan.capabilities,
        })
    except BaseException:
        if options.pid_file:
            posix.unlink(options.pid_file)
        raise
    finally:
        watch.close()


def _go(executor: "Executor", steps: "tuple[Step, ...]") -> None:
    """Sends the last program; the control socket closes on exec without a word, else the reply says which step failed."""
    program = executor.send(steps)
    control = executor.control
    if control.recv(1, 2):  # MSG_PEEK: there is an answer, so it failed
        try:
            executor.receive(program)
        except StepFailed as failed:
            raise process.not_executable(failed) if failed.step.startswith("execute ") else failed from None
        raise Fault("the executor answered, though it should have become the program")
