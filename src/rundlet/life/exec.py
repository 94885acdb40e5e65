"""rundlet exec: one more process in a running container, under the same confinement as the first."""

import posix
from posix import O_CLOEXEC, O_DIRECTORY, O_RDONLY

from rundlet import host, kernel, log, spec
from rundlet.cgroup import files as cgroup_files
from rundlet.cgroup import place as cgroup_place
from rundlet.errors import BadSpec, Fault, StepFailed, Usage, WrongState
from rundlet.executor import client
from rundlet.life import deciding, observe, process, sockets, store
from rundlet.plan import order, stages
from rundlet.plan import process as plan_process
from rundlet.plan.label import canonical

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

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
    front: "Foreground | None" = None
    signals: "Signals | None" = None
    try:
        record = container.record
        now = store.settled(container)
        if now == "paused" and not options.ignore_paused:
            raise WrongState("cannot exec in a paused container (use --ignore-paused to override)")
        if now not in ("running", "created", "paused"):
            raise WrongState(f"cannot exec in a {now} container: container not running")
        config = spec.load(container.config())[0]
        if now == "paused":
            container.unlock()  # what will be waited for is another command: resume
        proc = wanted(options, config)
        options.preserve_fds = sockets.passed_on(options.preserve_fds, None)
        if proc["terminal"] and options.detach and not options.console_socket:
            raise Fault("for the terminal of a process that is not in the foreground, use --console-socket")
        if options.console_socket and not proc["terminal"]:
            raise Fault("--console-socket is given, but the process has no terminal; give --tty, or leave it out")
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

        def before() -> None:
            nonlocal signals
            if front:
                front.receive()
            if not options.detach:
                from rundlet.life.foreground import Signals

                signals = Signals()  # until now one that is to end this command ends it: there may be a pause to wait for

        try:
            pid = join(container, record, config, proc, options, console, before)
        except BaseException:
            if front:
                front.restore()
            raise
    finally:
        container.close()
    return _wait(options, pid, signals, front) if signals else 0


def _wait(options: "Options", pid: int, signals: "Signals", front: "Foreground | None") -> int:
    from rundlet.life import foreground

    try:
        status = foreground.wait(pid, signals, front)
    finally:
        if front:
            front.restore()
    if status and options.failed:
        options.failed(pid, status)
    return status


def wanted(options: "Options", config: "Config") -> "Process":
    """The process asked for: --process, or the words of the command line over the container's own process.

    What is not said is as the container has it: capabilities, limits, oom score, labels, CPUs, no_new_privs. A file says for itself how its
    process is scheduled. Raises Usage and BadSpec.
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
            log.warning(warning, loud="/capabilities/" in warning)
        own = config["process"]
        proc["capabilities"] = own["capabilities"] if proc["capabilities"] is None else proc["capabilities"]
        proc["rlimits"] = proc["rlimits"] or own["rlimits"]
        proc["oomScoreAdj"] = own["oomScoreAdj"] if proc["oomScoreAdj"] is None else proc["oomScoreAdj"]
        proc["execCPUAffinity"] = proc["execCPUAffinity"] or own["execCPUAffinity"]
    else:
        if not options.args:
            raise Usage("exec needs a command, or --process FILE")
        proc = {**config["process"]}
        proc["args"] = options.args
        proc["terminal"] = options.tty
        proc["consoleSize"] = None
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
    for entry in options.env:
        if entry.find("=") < 1:
            raise BadSpec("--env", f'must be NAME=VALUE, not "{entry}"')
    proc["env"] = [*proc["env"], *options.env]
    if options.user:
        uid, gid = process.parse_user(options.user)
        proc["user"] = {**proc["user"], "uid": uid, "gid": proc["user"]["gid"] if gid is None else gid}
    if options.additional_gids:
        gids = [process.parse_group(gid) for gid in options.additional_gids]
        proc["user"] = {**proc["user"], "additionalGids": [*proc["user"]["additionalGids"], *gids]}
    if options.cap:
        proc["capabilities"] = _with(proc, options.cap)
    # an exec that says nothing of the label or of no_new_privs is held to what the container is held to
    proc["apparmorProfile"] = options.apparmor or proc["apparmorProfile"] or own["apparmorProfile"]
    proc["selinuxLabel"] = options.process_label or proc["selinuxLabel"] or own["selinuxLabel"]
    proc["noNewPrivileges"] = proc["noNewPrivileges"] or options.no_new_privs or own["noNewPrivileges"]


def _with(proc: "Process", names: "list[str]") -> "Capabilities":
    """The process's capabilities and those of --cap, in the bounding, effective and permitted set, and in the ambient one where they are
    inheritable: as with runc, nothing becomes inheritable that was not. Unknown ones bring a warning."""
    sets = proc["capabilities"] or {"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []}
    for name in names:
        if name not in kernel.CAPABILITIES:
            log.warning(f"--cap: {name} is no capability that is known, left out", loud=True)
    names = [name for name in names if name in kernel.CAPABILITIES]

    def more(have: "list[str]") -> "list[str]":
        return [*have, *(name for name in names if name not in have)]

    return {
        "bounding": more(sets["bounding"]), "effective": more(sets["effective"]), "permitted": more(sets["permitted"]),
        "inheritable": sets["inheritable"],
        "ambient": [*sets["ambient"], *(n for n in names if n in sets["inheritable"] and n not in sets["ambient"])],
    }


def join(
    container: "Container", record: "Record", config: "Config", proc: "Process", options: "Options", console: int = -1,
    before: "Callable[[], None] | None" = None,
) -> int:
    """Starts the process in the container; its pid. Returns once it runs, confined as decided; else raises Fault and nothing runs.

    `console` is the socket for the process's terminal; `before` is called when all is made, and the program about to run.
    """
    facts = host.facts(proc["apparmorProfile"])
    in_user = any(space["type"] == "user" for space in config["linux"]["namespaces"])
    process.grantable(proc, facts, in_user)
    process.attainable(proc["rlimits"], facts)
    namespace = facts["apparmor"]["namespace"]
    if namespace and namespace != record.get("policy", "root") and not options.apparmor:
        from rundlet.life import policy

        policy.same(record, namespace, proc["apparmorProfile"])
    beside = [] if options.apparmor else _beside(record, proc["apparmorProfile"])
    transition = deciding.decide({**config, "process": proc}, facts, beside)
    filter_ = process.seccomp_program(config)
    keyring = record.get("keyring", False)
    agent = process.seccomp_agent(config) if filter_ is not None else None
    choices = stages.Choices(
        record["id"], False, keyring, process.stdio_to_give(proc), process.sets_groups(config, record["pid"]), notify=agent is not None,
    )
    receivers = sockets.receivers(options.pidfd_socket)
    at = cgroup_place.load(record["cgroup"])
    if options.cgroup:
        from rundlet.cgroup import enter

        at = enter.choose(at, options.cgroup)
    plan = order.execute(config, proc, transition, facts["apparmor"]["interface"], filter_, choices)
    if facts["uid"]:
        from rundlet.life import rootless

        rootless.before_exec(record, proc)
    init, held = _hold(record, "mount" in dict(plan.namespaces))
    passed = {"init": init, **({"held": held} if held >= 0 else {}), **({"console": console} if console >= 0 else {})}
    if agent:
        passed["receiver"] = agent.fileno()
    try:
        executor = (options.spawn or client.spawn)(passed, options.preserve_fds)
    finally:
        posix.close(init)
        if agent:
            agent.close()
        if held >= 0:
            posix.close(held)
    try:
        _carry_out(executor, plan, at, container, record, proc, facts, options, receivers, config, before)
    except BaseException as first:
        try:
            if options.ignore_paused:
                _release(at, executor.pid)
            process.end(executor)
        except Fault as second:
            if isinstance(first, Fault):
                first.cleanup.append(str(second))
        raise
    return executor.pid


def _beside(record: "Record", profile: "str | None") -> "list[str]":
    """What the container's label has besides its profile, where that was stacked on the label of the runtime that made it.

    An exec by another runtime has all of it, too: it is not to be less confined, nor a stranger to the container's rules for peers.
    """
    expect = record["expect"]
    if not profile or not expect or expect["action"] != "stack" or expect["profile"] != canonical(profile):
        return []
    return [name for name in expect["label"] if name != expect["profile"]]


def _hold(record: "Record", mount_namespace: bool) -> "tuple[int, int]":
    """The first process by pidfd, and its root directory where there is no mount namespace to find it in."""
    try:
        init = store.pidfd(record["pid"])
        held = -1 if mount_namespace else posix.open(f"/proc/{record['pid']}/root", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    except (ProcessLookupError, FileNotFoundError):
        raise WrongState("container not running") from None
    if not store.alive(record):  # the pid was another process's when it was opened
        raise WrongState("container not running")
    return init, held


def _carry_out(
    executor: "Executor", plan: "stages.Plan", at: "cgroup_place.Place", container: "Container", record: "Record", proc: "Process",
    facts: "host.Facts", options: "Options", receivers: "list[socket]", config: "Config", before: "Callable[[], None] | None",
) -> None:
    outside = executor.pid
    steps = plan.stage("outside")
    try:
        reply = executor.run(steps)
    except StepFailed as failed:
        if failed.call == "setns":
            from rundlet.life import denied

            raise denied.entering(record, failed) from None
        raise process.telling(failed, steps, plan.transition, facts) from None
    process.check_pending(reply, plan.transition)
    executor.becomes(reply.slots["child"])
    process.bury(outside)
    if at.dirs:
        _join_cgroup(at, record, executor.pid, options)
    if "rdt" in record:
        from rundlet.life import rdt

        rdt.join(record["rdt"], executor.pid)
    if proc["oomScoreAdj"] is not None and not facts["uid"]:
        from rundlet.life import procfs

        procfs.write_oom_score(executor.pid, proc["oomScoreAdj"])
    if "user" in dict(plan.namespaces):
        from rundlet.life import procfs

        procfs.raise_limits(executor.pid, proc["rlimits"])
    steps = plan.stage("enter")
    try:
        reply = executor.run(steps)
    except StepFailed as failed:
        raise process.telling(failed, steps, plan.transition, facts) from None
    process.give_home(executor, reply, proc)
    expect: "store.Expect" = {
        "action": plan.transition.action, "profile": plan.transition.profile, "label": list(plan.transition.expected), "nnp": plan.nnp,
        "seccomp": plan.seccomp, "bounding": plan.capabilities,
    }
    if _otherwise(proc, config["process"]) or expect != record["expect"]:
        from rundlet.life import execs

        # the container stands still no more, so whoever has the lock lets it go again
        container.locked(lambda: execs.note(container.fd, record, executor.pid, proc, expect))
    if before:
        before()
    if plan.stage("scheduling"):
        process.take_turns(plan.stage("scheduling"), executor.pid)
    for receiver in receivers:
        sockets.hand_out(receiver, executor.pid, b"setns")
    watch = observe.Watch(executor.pid, expect)
    # before the program runs: whoever is told by it that it runs may look for the file
    if options.pid_file:
        process.write_pid_file(options.pid_file, executor.pid)
    try:
        last = plan.stage("last")[:-1]
        if "receiver" in executor.bind:
            from rundlet.life import agent

            last = agent.telling(last, config, record, executor.pid, "running")
        _go(executor, (*last, plan_process.execute(proc)))
        watch.check()
    except BaseException:
        if options.pid_file:
            posix.unlink(options.pid_file)
        raise
    finally:
        watch.close()


def _otherwise(proc: "Process", own: "Process") -> bool:
    """Whether the process is held to something else than the container's own."""
    return (
        proc["user"] != own["user"] or proc["capabilities"] != own["capabilities"] or proc["rlimits"] != own["rlimits"]
        or proc["oomScoreAdj"] != own["oomScoreAdj"]
    )


def _join_cgroup(at: "cgroup_place.Place", record: "Record", pid: int, options: "Options") -> None:
    try:
        cgroup_files.join(at, pid)
    except StepFailed as failed:
        if "systemd" in record and not options.cgroup and failed.errno in (kernel.ERRNO["EACCES"], kernel.ERRNO["EPERM"]):
            from rundlet.life import systemd

            systemd.attach(record["systemd"], pid)
            return
        if options.cgroup or failed.errno != kernel.ERRNO["EBUSY"]:
            raise
        from rundlet.cgroup import enter

        enter.beside(at, record["pid"], pid, failed)


def _release(at: "cgroup_place.Place", pid: int) -> None:
    """Of a process that waits frozen: sees to it that it can be killed."""
    from rundlet.cgroup import tasks

    try:
        tasks.release(at, pid)
    except StepFailed as failed:
        log.warning(str(failed))  # then it dies when the container is resumed


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
