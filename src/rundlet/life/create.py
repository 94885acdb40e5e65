"""rundlet create: from a bundle to a process that waits, confined as far as it can be, for `start`.

What can be refused is refused before anything is made. Then each thing made leaves behind how it is undone, and a failure undoes
them backwards; what is killed in between leaves a record by which `delete --force` does.
"""

import posix

from rundlet import jsontext, log
from rundlet.cgroup import files as cgroup_files
from rundlet.cgroup import place as cgroup_place
from rundlet.errors import Died, Fault, StepFailed
from rundlet.executor import client
from rundlet.executor.template import Packed
from rundlet.life import bundle, deciding, kept, process, sockets, store
from rundlet.life import record as record_file
from rundlet.plan.command import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rundlet.cgroup.place import Place
    from rundlet.executor.client import Executor
    from rundlet.executor.program import Program
    from rundlet.executor.template import Reply
    from rundlet.life.kept import Known
    from rundlet.life.netdevices import Movers
    from rundlet.life.rdt import Group
    from rundlet.life.store import Container, Record
    from rundlet.life.systemd import Unit
    from rundlet.options import Options
    from rundlet.plan.stages import Plan
    from rundlet.plan.step import Step
    from rundlet.spec.types import Config


def main(options: "Options") -> int:
    """The verb."""
    path = bundle.folder(options)
    config, text, known = deciding.load(options)
    if config["process"]["terminal"] != bool(options.console_socket):
        raise Fault(
            "process.terminal is true: for a container that is not in the foreground, use --console-socket"
            if config["process"]["terminal"] else "--console-socket is given, but process.terminal is false"
        )
    console = sockets.connect(options.console_socket, "console socket") if options.console_socket else None
    new = Creation(options, config, text, path, console.fileno() if console else -1, False, known)
    container = new.build()
    container.close()
    kept.store(new)
    return 0


class Creation(deciding.Decision):
    """One container being made; `build` does it."""

    def __init__(
        self, options: "Options", config: "Config", text: bytes, path: str, console: int, starts: bool = False,
        known: "Known | None" = None,
    ) -> None:
        super().__init__(options, config, text, path, console, starts, known)
        self.movers: "Movers | None" = None  # of network devices, which can bring them back
        self.last: "tuple[Step, ...]" = ()  # of the plan, once it is known what the image says and which hooks there are
        self.undo: "list[Callable[[], object]]" = []
        self.users: "dict[str, int]" = {}  # user namespaces of mounts with mapped ids, as long as they may be wanted
        self.told: "Record | None" = None  # once hooks have been told of the container

    def build(self) -> "Container":
        """Makes the container; returns it locked, its record written. Leaves nothing behind on failure."""
        process.interruptible()
        store.check_id(self.options.id)  # before it is taken for the name of a cgroup
        self.decide()
        process.uninterruptible()  # until each thing made has its undo
        container = store.make(self.options)
        self.undo.append(container.remove)
        try:
            self._make(container)
        except BaseException as first:
            process.uninterruptible()
            if isinstance(first, Died):
                from rundlet.cgroup import oom

                oom.explain(first, self.place, self.config["linux"]["resources"]["memory"]["limit"])
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

    def _make(self, container: "Container") -> None:
        """Carries the plan out, stage by stage, acting from outside between them."""
        record = self._record(container)
        store.put(container.fd, "config.json", self.text)
        if self.notify:
            posix.mkdir("notify", 0o755, dir_fd=container.fd)
            posix.chmod("notify", 0o755, dir_fd=container.fd)
        if self.preload:
            record["apparmor"] = self.preload.record()
        container.write(record)
        if self.preload:
            self.undo.append(self.preload.undo)
            self.preload.load(container, record)
        need = {w.controller for w in self.writes} | ({"devices"} if self.devices else set())
        if self.unit:
            self.undo.append(self.unit.stop)  # it is made around the process
        else:
            made = cgroup_files.create(self.place, need, named=bool(self.config["linux"]["cgroupsPath"]))
            self.undo.append(lambda: cgroup_files.unmake(made))
            self._limit(record, made.place)
        if self.rdt:
            self._group(container, record, self.rdt)
        start = None if self.starts else sockets.listen(container.fd, "start")
        passed = {**({"start": start.fileno()} if start else {}), **({"console": self.console} if self.console >= 0 else {})}
        if self.files and self.config["hooks"]["startContainer"]:
            passed.update(self.files.fds)
        if self.agent:
            passed["receiver"] = self.agent.fileno()
        passed.update(self.joined)
        if self.plan.users:
            from rundlet.life import idmounts

            self.users = idmounts.hold(self.plan.users)
            self.undo.append(lambda: idmounts.let_go(self.users))
            passed.update(self.users)
        executor = (self.options.spawn or client.spawn)(passed, self.options.preserve_fds)
        if isinstance(self.plan, kept.Plan) and not executor.first:
            self.stages()  # the executor does not run from a memfd, and has had its first program
        if self.agent:
            self.agent.close()  # the process has it now; while we held it the agent would not see it end
        self.undo.append(lambda: process.end(executor))
        process.interruptible()
        outside = executor.pid
        if self.devices and not self.unit:
            self._attach(executor, self.place)
        executor.becomes(self._stage(executor, "outside").slots["child"])
        process.bury(outside)
        # only now: what the kernel sets aside for new namespaces is the runtime's to pay, and a limit of one process is met
        if self.unit:
            self._unit(self.unit, container, record, executor.pid, need)
        else:
            cgroup_files.join(self.place, executor.pid, alone=True)
        if self.rdt:
            self._join_group(self.rdt, executor.pid)
        self._outside(executor)
        record["pid"] = executor.pid
        found = store.stat(executor.pid)
        record["start_time"] = found[1] if found else 0
        if not self.starts or any(self.config["hooks"].values()):
            container.write(record)  # else the process is nobody's who could outlive us, until it is let go
        late = bool(self.plan.stage("user namespace"))  # then the network namespace is made inside
        if self.bundle.devices and not late:
            self._devices(executor.pid)
        self._inside(executor)
        if self.users:
            idmounts.let_go(self.users)
        if self.bundle.devices and late:
            self._devices(executor.pid)
        if self.delegation and self.delegation.path and self.place.dirs:
            from rundlet.cgroup import owner

            owner.settle(self.place, self.delegation.path, executor.pid, self.delegation.root)
        self._hooks(record, executor)
        self._last(container, record, executor, self._stage(executor, "enter"))

    def _record(self, container: "Container") -> "Record":
        transition = self.transition
        record: "Record" = {
            "version": store.VERSION, "ociVersion": self.config["ociVersion"], "id": self.options.id, "phase": "creating",
            "pid": 0, "start_time": 0,
            "bundle": self.path, "rootfs": self.bundle.rootfs, "created": log.stamp(), "owner": process.user_name(),
            "annotations": self.config["annotations"], "cgroup": cgroup_place.dump(self.place), "keyring": not self.options.no_new_keyring,
            "expect": {
                "action": transition.action, "profile": transition.profile, "label": list(transition.expected), "nnp": self.plan.nnp,
                "seccomp": self.plan.seccomp, "bounding": self.plan.capabilities,
            },
        }
        namespace = self.facts["apparmor"]["namespace"]
        if transition.action != "keep" and namespace and namespace != "root":
            record["policy"] = namespace
        if self.unit:
            record["cgroup"] = []  # until it is known that no unit of somebody else's has the name
        return record

    def _limit(self, record: "Record", made: "Place") -> None:
        """The container's cgroups are there: its limits are set, and its root is given what is its to manage."""
        self.place = made
        record["cgroup"] = cgroup_place.dump(made)
        cgroup_files.apply(made, self.writes)
        if self.delegation and self.delegation.owner is not None and made.dirs:
            from rundlet.cgroup import owner

            owner.give(made.dirs[-1], self.delegation.owner)

    def _unit(self, unit: "Unit", container: "Container", record: "Record", pid: int, need: "set[str]") -> None:
        """systemd makes the unit around the process; the rest as without it."""
        process.uninterruptible()  # until it is known whether there is a unit of ours
        job = unit.start(pid, self.writes)
        record["systemd"] = unit.made()
        process.interruptible()
        self._limit(record, unit.enter(job, pid, need))
        # beside the record, which may come to harm: nothing else than this name leads to the unit
        made = {"systemd": record["systemd"], "cgroup": record["cgroup"]}
        store.put(container.fd, "unit.json", jsontext.dumps(made).encode())
        if self.devices:
            other = client.spawn()  # the process itself is in namespaces already
            try:
                self._attach(other, self.place)
            finally:
                process.end(other)

    def _stage(self, executor: "Executor", name: str) -> "Reply":
        """Carries out a stage. A failed label step is told in AppArmor's terms."""
        try:
            reply = executor.receive(self._send(executor, name))
        except StepFailed as failed:
            raise process.telling(failed, self.stages().stage(name), self.transition, self.facts) from None
        if name == "outside":
            process.check_pending(reply, self.transition)
        return reply

    def _send(self, executor: "Executor", name: str) -> "Program | Packed":
        """Sends the program of a stage."""
        if isinstance(self.plan, kept.Plan):
            return executor.send(self._packed(executor, name))
        program = executor.send(self._steps(name))
        self.templates[name] = program.template
        return program

    def _packed(self, executor: "Executor", name: str) -> Packed:
        """The program of a stage, of a plan that was kept."""
        first = executor.first

        def whole() -> "Program":
            from rundlet.executor.program import Program, prepare

            self.stages()
            return Program((*(prepare(*first) if first else ()), *self._steps(name)), {}, executor.bind)

        return Packed(self.templates[name], self.texts, whole)

    def stages(self) -> "Plan":
        """The plan with its steps: of one that was kept there are the programs alone."""
        if isinstance(self.plan, kept.Plan):
            from rundlet.life import planning

            self.plan = planning.again(self)
        return self.plan

    def _steps(self, name: str) -> "tuple[Step, ...]":
        """The steps of a stage; the device filter is none of the plan's."""
        if name == "last" and self.last:
            return self.last
        if name != "devices":
            return tuple(step for step in self.stages().stage(name) if step.kind != "wait" or not self.starts)
        from rundlet.plan import devicefilter

        at = cgroup_place.find(self.place, "devices")
        return devicefilter.load_steps(self.devices, at.path, self.facts["kernel"]) if at else ()

    def _inside(self, executor: "Executor") -> None:
        """Carries out what is done inside; in between tmpfs are filled with what the image has, and mounts mapped from outside."""
        if not self.plan.fills:
            self._stage(executor, "inside")
            return
        from rundlet.life import copyup

        steps = tuple(step for stage in self.stages().stages if stage.name == "inside" for step in stage.steps)
        try:
            copyup.run(executor, steps, iter(self.plan.fills), self.users)
        except StepFailed as failed:
            raise process.telling(failed, steps, self.transition, self.facts) from None

    def _attach(self, executor: "Executor", at: "Place") -> None:
        if cgroup_place.find(at, "devices"):
            executor.receive(self._send(executor, "devices"))

    def _outside(self, executor: "Executor") -> None:
        """What the runtime does to the new process from outside: id maps, oom score, limits to be raised."""
        linux, proc, pid = self.config["linux"], self.config["process"], executor.pid
        if self.plan.stage("user namespace"):
            self._stage(executor, "user namespace")
        spaces = dict(self.plan.namespaces)
        if "user" not in spaces and proc["oomScoreAdj"] is None:
            return
        from rundlet.life import procfs

        if "user" in spaces:
            if spaces["user"] is None:  # one that is joined has its maps: those of the configuration tell what they are
                from rundlet.life import idmaps

                idmaps.write(pid, linux, self.facts)
            procfs.raise_limits(pid, proc["rlimits"])
        if proc["oomScoreAdj"] is not None:
            procfs.write_oom_score(pid, proc["oomScoreAdj"])

    def _group(self, container: "Container", record: "Record", group: "Group") -> None:
        """Makes the container's group of resctrl, where it is not there."""
        from rundlet.life import rdt

        asked = self.config["linux"]["intelRdt"]
        assert asked
        record["rdt"] = group
        container.write(record)
        self.undo.append(lambda: rdt.remove(group))
        rdt.make(group, asked)

    def _join_group(self, group: "Group", pid: int) -> None:
        from rundlet.life import rdt

        rdt.join(group, pid)

    def _devices(self, pid: int) -> None:
        """Moves network devices of the host into the container."""
        from rundlet.life import netdevices

        self.movers = movers = netdevices.Movers(self.stages(), self.bundle.devices)
        self.undo.append(movers.back)
        movers.move(pid)

    def _hooks(self, record: "Record", executor: "Executor") -> None:
        """The hooks that run once the root filesystem is populated and before it is entered: config.md, "POSIX-platform Hooks"."""
        asked = self.config["hooks"]
        if not (asked["prestart"] or asked["createRuntime"] or asked["createContainer"]):
            return
        from rundlet.life import hooks
        from rundlet.plan import namespaces

        self.told = record
        assert self.files
        # what each kind is told differs, as the peers and the tests of OCI have it: decisions/0005-hooks.md
        hooks.run(asked["prestart"], "prestart", record, "created", self.files)
        hooks.run(asked["createRuntime"], "createRuntime", record, "creating", self.files)
        kinds = [kind for kind, _ in self.plan.namespaces]
        ids = namespaces.first(self.config["linux"], self.config["process"])
        hooks.run_inside(asked["createContainer"], "createContainer", record, self.place, kinds, ids, self.files)

    def _last(self, container: "Container", record: "Record", executor: "Executor", entered: "Reply") -> None:
        """Sends the last program, and writes down that there is a container, once the process says that it has it."""
        proc = self.config["process"]
        homeless = process.give_home(executor, entered, proc)
        if isinstance(self.plan, kept.Plan):
            self.texts["envp"] = tuple(environment(proc))
        else:
            from rundlet.life import planning

            self.last = planning.last(self, record, executor, homeless)
        known = record_file.decided(record, self.config, self.plan, self.facts, self.text, self.filtered, self.options.preserve_fds)
        if self.starts:
            container.waiting = executor, self._packed(executor, "last") if isinstance(self.plan, kept.Plan) else self._steps("last")
            container.decided = known
        else:
            program = self._send(executor, "last")
            self.names = kept.named(self.names, self) if self.names else process.names_of(program)
            store.put(container.fd, "steps.json", jsontext.dumps(self.names).encode())
            record_file.leave(container, known, executor.sent)
            executor.receive(program)
        process.uninterruptible()
        for receiver in self.receivers:
            sockets.hand_out(receiver, executor.pid, b"standard")
        if self.options.pid_file:
            process.write_pid_file(self.options.pid_file, executor.pid)
            self.undo.append(lambda: posix.unlink(self.options.pid_file or ""))
        record["phase"] = "created"
        if not self.starts:
            container.write(record)
            executor.close()
        if self.movers:
            self.movers.close()
        self.undo.clear()
