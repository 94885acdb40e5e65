"""rundlet create: from a bundle to a process that waits, confined as far as it can be, for `start`.

What can be refused is refused before anything is made. Then each thing made leaves behind how it is undone, and a failure undoes
them backwards; what is killed in between leaves a record by which `delete --force` does.
"""

import posix

from rundlet import host, jsontext, log, spec
from rundlet.cgroup import files as cgroup_files
from rundlet.cgroup import place as cgroup_place
from rundlet.errors import Fault, Refused, StepFailed
from rundlet.executor import client
from rundlet.life import bundle, process, sockets, store
from rundlet.plan import apparmor, devicefilter, order, resources, unsupported
from rundlet.plan import process as plan_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rundlet.cgroup.place import Place
    from rundlet.executor.client import Executor
    from rundlet.executor.program import Reply
    from rundlet.host import Facts
    from rundlet.life.store import Container, Record
    from rundlet.options import Options
    from rundlet.plan.order import Plan
    from rundlet.plan.resources import Write
    from rundlet.spec.types import Config


def main(options: "Options") -> int:
    """The verb."""
    path = bundle.folder(options)
    config, text = load(options)
    if config["process"]["terminal"] != bool(options.console_socket):
        raise Fault(
            "process.terminal is true, and a terminal of a container that is not in the foreground needs --console-socket"
            if config["process"]["terminal"] else "--console-socket is given, but process.terminal is false"
        )
    console = sockets.connect(options.console_socket, "console socket") if options.console_socket else None
    new = Creation(options, config, text, path, console.fileno() if console else -1)
    container = new.build()
    container.close()
    return 0


def load(options: "Options") -> "tuple[Config, bytes]":
    """The configuration of the command line's bundle, and its text; what the specification wants warned about goes to the log."""
    text = bundle.text(options)
    config, warnings = spec.load(text)
    for warning in warnings:
        log.warning(warning)
    return config, text


def decide(config: "Config", facts: "Facts") -> "apparmor.Transition":
    """The label transition of a configuration on this host; raises Refused."""
    proc = config["process"]
    unsupported.refuse(config)
    return apparmor.decide(facts, {"profile": proc["apparmorProfile"], "nnp": proc["noNewPrivileges"]})


class Creation:
    """One container being made; `build` does it."""

    def __init__(self, options: "Options", config: "Config", text: bytes, path: str, console: int, starts: bool = False) -> None:
        self.options = options
        self.config = config
        self.text = text
        self.path = path
        self.console = console
        self.starts = starts  # at once, by this very command: what only a later one needs to know is not written down
        self.undo: "list[Callable[[], object]]" = []
        self.told: "Record | None" = None  # once hooks have been told of the container

    def build(self) -> "Container":
        """Makes the container; returns it locked, its record written. Leaves nothing behind on failure."""
        process.interruptible()
        self.facts = host.facts(self.config["process"]["apparmorProfile"])
        process.grantable(self.config["process"], self.facts, any(s["type"] == "user" for s in self.config["linux"]["namespaces"]))
        self.plan, self.place, self.writes, self.devices = self._decide()
        process.uninterruptible()  # until each thing made has its undo
        container = store.make(self.options)
        self.undo.append(container.remove)
        try:
            self._make(container)
        except BaseException as first:
            process.uninterruptible()
            for action in reversed(self.undo):
                try:
                    action()
                except (Fault, OSError) as second:
                    if isinstance(first, Fault):
                        first.cleanup.append(str(second))
            if self.told:
                from rundlet.life import hooks

                hooks.stopped(self.config["hooks"]["poststop"], self.told)
            container.close()
            raise
        return container

    def _decide(self) -> "tuple[Plan, Place, tuple[Write, ...], bytes]":
        """Everything that can be decided, and so refused, before anything is made."""
        config, facts = self.config, self.facts
        transition = decide(config, facts)
        self.bundle = bundle.survey(config, self.path)
        layout = facts["cgroup"]
        if self.options.cgroup_manager == "disabled":
            layout = {**layout, "layout": "none", "mounts": {}, "own": {}}
        elif self.options.cgroup_manager == "systemd":
            raise Refused("the systemd cgroup manager is not supported", "leave out --systemd-cgroup: cgroups are made by files")
        at = cgroup_place.place(layout, config["linux"]["cgroupsPath"], self.options.id)
        limits = config["linux"]["resources"]
        writes = resources.writes(limits, layout) if at.dirs else ()
        for note in resources.notes(limits, layout):
            log.warning(note)
        devices = b""
        if at.dirs and resources.version(layout, "devices") == 2:
            devices = devicefilter.program(devicefilter.rules(limits["devices"]))
        self.filter = process.seccomp_program(config)
        self.choices = order.Choices(
            self.options.id, self.options.no_pivot, not self.options.no_new_keyring, process.stdio_to_give(config["process"]),
        )
        hierarchies = [(d.path, d.version, list(d.controllers)) for d in at.dirs]
        plan = order.create(config, transition, facts["apparmor"]["interface"], self.bundle, hierarchies, self.filter, self.choices)
        return plan, at, writes, devices

    def _make(self, container: "Container") -> None:
        """Carries the plan out, stage by stage, acting from outside between them."""
        record = self._record(container)
        store.put(container.fd, "config.json", self.text)
        container.write(record)
        made = cgroup_files.create(self.place, {w.controller for w in self.writes} | ({"devices"} if self.devices else set()))
        self.undo.append(lambda: cgroup_files.unmake(made))
        record["cgroup"] = cgroup_place.dump(made.place)
        cgroup_files.apply(made.place, self.writes)
        start = None if self.starts else sockets.listen(container.fd, "start")
        passed = {**({"start": start.fileno()} if start else {}), **({"console": self.console} if self.console >= 0 else {})}
        executor = client.spawn(passed, self.options.preserve_fds)
        self.undo.append(lambda: process.end(executor))
        process.interruptible()
        outside = executor.pid
        if self.devices:
            self._attach(executor, made.place)
        executor.pid = self._stage(executor, "outside").slots["child"]
        posix.waitpid(outside, 0)
        # only now: what the kernel sets aside for new namespaces is the runtime's to pay, and a limit of one process is met
        cgroup_files.join(made.place, executor.pid, alone=True)
        self._outside(executor)
        record["pid"] = executor.pid
        found = store.stat(executor.pid)
        record["start_time"] = found[1] if found else 0
        if not self.starts or any(self.config["hooks"].values()):
            container.write(record)  # else the process is nobody's who could outlive us, until it is let go
        self._stage(executor, "inside")
        self._hooks(record, executor)
        self._last(container, record, executor, self._stage(executor, "enter"))

    def _record(self, container: "Container") -> "Record":
        transition = self.plan.transition
        return {
            "version": store.VERSION, "ociVersion": self.config["ociVersion"], "id": self.options.id, "phase": "creating",
            "pid": 0, "start_time": 0,
            "bundle": self.path, "rootfs": self.bundle.rootfs, "created": log.stamp(), "owner": process.user_name(),
            "annotations": self.config["annotations"], "cgroup": cgroup_place.dump(self.place),
            "expect": {
                "action": transition.action, "profile": transition.profile, "label": list(transition.expected), "nnp": self.plan.nnp,
                "seccomp": self.plan.seccomp, "bounding": self.plan.capabilities,
            },
        }

    def _stage(self, executor: "Executor", name: str) -> "Reply":
        """Carries out a stage. A failed label step is told in AppArmor's terms."""
        steps = self.plan.stage(name)
        try:
            reply = executor.run(steps)
        except StepFailed as failed:
            raise process.telling(failed, steps, self.plan.transition, self.facts) from None
        if name == "outside":
            process.check_pending(reply, self.plan.transition)
        return reply

    def _attach(self, executor: "Executor", at: "Place") -> None:
        there = cgroup_place.find(at, "devices")
        if there:
            executor.run(devicefilter.load_steps(self.devices, there.path, self.facts["kernel"]))

    def _outside(self, executor: "Executor") -> None:
        """What the runtime does to the new process from outside: id maps, oom score, limits to be raised."""
        linux, proc, pid = self.config["linux"], self.config["process"], executor.pid
        if self.plan.stage("user namespace"):
            self._stage(executor, "user namespace")
        if linux["uidMappings"]:
            process.write_maps(pid, linux["uidMappings"], linux["gidMappings"])
            process.raise_limits(pid, proc["rlimits"])
        if proc["oomScoreAdj"] is not None:
            process.write_oom_score(pid, proc["oomScoreAdj"])

    def _hooks(self, record: "Record", executor: "Executor") -> None:
        """The hooks that run once the root filesystem is populated and before it is entered: config.md, "POSIX-platform Hooks"."""
        asked = self.config["hooks"]
        if not (asked["prestart"] or asked["createRuntime"] or asked["createContainer"]):
            return
        from rundlet.life import hooks

        self.told = record
        state = jsontext.dumps(store.state(record, "creating"))
        hooks.run(asked["prestart"], "prestart", state)
        hooks.run(asked["createRuntime"], "createRuntime", state)
        hooks.run_inside(asked["createContainer"], "createContainer", state, executor.pid, [kind for kind, _ in self.plan.namespaces])

    def _last(self, container: "Container", record: "Record", executor: "Executor", entered: "Reply") -> None:
        """Sends the last program, and writes down that there is a container, once the process says that it has it."""
        proc, choices = self.config["process"], self.choices
        last = self.plan.stage("last")
        if process.give_home(executor, entered, proc):
            last = (*last[:-1], plan_process.execute(proc))
        if self.config["hooks"]["startContainer"]:
            state = jsontext.dumps(store.state(record, "created"))
            choices = order.Choices(choices.id, choices.no_pivot, choices.new_keyring, choices.stdio, choices.set_groups, state)
            last = order.last(self.config, self.filter, choices, apparmor.still(self.plan.transition, self.facts["apparmor"]["interface"]))
        if self.starts:
            container.waiting = executor, tuple(step for step in last if step.kind != "wait")
        else:
            program = executor.send(last)
            store.put(container.fd, "steps.json", jsontext.dumps(process.names_of(program)).encode("utf-8", "surrogateescape"))
            executor.receive(program)
        process.uninterruptible()
        if self.options.pid_file:
            process.write_pid_file(self.options.pid_file, executor.pid)
            self.undo.append(lambda: posix.unlink(self.options.pid_file or ""))
        record["phase"] = "created"
        if not self.starts:
            container.write(record)
            executor.close()
        self.undo.clear()
