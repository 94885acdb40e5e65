"""What is decided for a new container before anything is made: its configuration, its label, where it will be, what will be done.

Whatever can be refused is refused here; create.py then carries it out.
"""

import posix

from rundlet import host, log
from rundlet.cgroup import layout as cgroup_layout
from rundlet.cgroup import place as cgroup_place
from rundlet.life import bundle, kept, process, sockets, store
from rundlet.plan import apparmor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence

    from rundlet.executor.template import Template
    from rundlet.host import Facts
    from rundlet.life.hooks import Files
    from rundlet.life.kept import Known
    from rundlet.life.preload import Preload
    from rundlet.life.rdt import Group
    from rundlet.life.systemd import Unit
    from rundlet.options import Options
    from rundlet.plan.delegation import Delegation
    from rundlet.plan.stages import Choices, Plan
    from rundlet.spec.types import Config


def read(options: "Options", text: "bytes | None" = None) -> "tuple[Config, bytes, list[str]]":
    """The configuration of the command line's bundle, its text, and warnings. A user's has a user namespace, unless --rootless=false; and
    one that asks for a new user namespace has maps for it."""
    from rundlet import spec

    text = text or bundle.text(options)
    config, warnings = spec.load(text, True)
    users = next((space for space in config["linux"]["namespaces"] if space["type"] == "user"), None)
    if users is None:
        lacks = posix.geteuid() and options.rootless != "false"
        why = "/linux/namespaces: a user's container needs a user namespace: one is added"
    else:
        lacks = not users["path"] and not (config["linux"]["uidMappings"] and config["linux"]["gidMappings"])
        why = "/linux: a new user namespace needs uidMappings and gidMappings: those of the user who runs this are added"
    if lacks:
        from rundlet.life import rootless

        text = rootless.with_users(text, config)
        config, warnings = spec.load(text, True)
        warnings.append(why)
    return config, text, warnings


def load(options: "Options") -> "tuple[Config, bytes, Known | None]":
    """The configuration of the command line's bundle, its text, and what is known of it; what the specification wants warned about goes
    to the log."""
    text = bundle.text(options)
    known = kept.look(text, options)
    if known and known.config:
        config = known.config
    else:
        config, text, warnings = read(options, text)
        for warning in warnings:
            log.warning(warning, loud="/capabilities/" in warning)  # what the program will lack; runc, too, says it on stderr
        if known:
            known.learn(config)
    options.preserve_fds = sockets.passed_on(options.preserve_fds, config["process"])
    return config, text, known


def decide(config: "Config", facts: "Facts", beside: "Sequence[str]" = ()) -> "apparmor.Transition":
    """The label transition of a configuration on this host; raises Refused. `beside` is what the container's label has besides its profile,
    for an exec that is to have the same."""
    proc = config["process"]
    if proc["selinuxLabel"] or config["linux"]["mountLabel"]:
        from rundlet.plan import selinux

        selinux.refuse(config, facts["lsm"])
    return apparmor.decide(facts, {"profile": proc["apparmorProfile"], "nnp": proc["noNewPrivileges"], "beside": beside})


def lacking(facts: "Facts") -> bool:
    """Whether the runtime lacks the host's privileges: a user's, or root of a user namespace."""
    return facts["uid"] != 0 or facts["user_namespace"]


class Decision:
    """What is decided for one container; `decide` does it."""

    plan: "Plan | kept.Plan"
    stdio: "tuple[int, ...]"
    choices: "Choices"

    def __init__(
        self, options: "Options", config: "Config", text: bytes, path: str, console: int, starts: bool = False,
        known: "Known | None" = None,
    ) -> None:
        self.options = options
        self.config = config
        self.text = text
        self.path = path
        self.console = console
        self.bare = False  # whether the runtime lacks the host's privileges
        self.starts = starts  # at once, by this very command: what only a later one needs to know is not written down
        self.delegation: "Delegation | None" = None
        self.unit: "Unit | None" = None  # where systemd makes the cgroup
        self.notify = False  # whether the container is offered a socket to tell that it is ready
        self.rdt: "Group | None" = None
        self.agent: "socket | None" = None  # a connection to the seccomp agent, where a listener is wanted
        self.joined: "dict[str, int]" = {}  # namespaces that the caller gives as descriptors
        self.files: "Files | None" = None  # where hooks write to, where there are some
        self.preload: "Preload | None" = None  # the profiles that the container brings along
        self.filter: "bytes | None" = None
        self.filtered: "str | None" = None  # its digest
        self.known = known  # of its configuration, where something is kept
        self.texts: "dict[str, str | tuple[str, ...]]" = {}  # of this container, for a plan that was kept
        self.templates: "dict[str, Template]" = {}  # of the programs, by the stage
        self.names: "tuple[list[list[str]], list[tuple[int, str]], dict[str, tuple[int, int]]] | None" = None  # of the last one's steps

    def decide(self) -> None:
        """Everything that can be decided, and so refused, before anything is made. Raises Fault."""
        self.facts = host.facts(self.config["process"]["apparmorProfile"])
        given = self.options.apparmor_file or self.options.apparmor_on_delete or self.options.apparmor_replace
        if given or any(name[:21] == "org.rundlet.apparmor." for name in self.config["annotations"]):
            from rundlet.life import preload

            self.preload = preload.prepare(self.options, self.config, self.path, self.facts)
        process.grantable(self.config["process"], self.facts, any(s["type"] == "user" for s in self.config["linux"]["namespaces"]))
        process.attainable(self.config["process"]["rlimits"], self.facts)
        config, facts = self.config, self.facts
        self.bare = lacking(facts)
        if self.bare:
            from rundlet.life import rootless

            rootless.check(config, facts)
        if any(space["path"] for space in config["linux"]["namespaces"]):
            from rundlet.life import joined

            joined.check(config)
            self.joined = joined.held(config)
        self.transition = transition = decide(config, facts)
        log.debug(f"label: {transition.action} {transition.asked}: {transition.reason}")
        self.bundle = bundle.survey(config, self.path)
        if self.options.no_pivot:
            from rundlet.life import mountinfo

            self.bundle.covers = mountinfo.revealing()
        if posix.environ.get(b"NOTIFY_SOCKET"):
            from rundlet.life import notify

            self.notify = notify.offer(config, self.bundle, f"{store.root(self.options)}/{self.options.id}")
        if config["linux"]["intelRdt"]:
            from rundlet.life import rdt

            self.rdt = rdt.find(config["linux"]["intelRdt"], self.options.id)
        layout = facts["cgroup"]
        if self.options.cgroup_manager == "disabled":
            layout = cgroup_layout.left_out(layout)
        elif self.options.cgroup_manager == "systemd":
            from rundlet.life import systemd

            self.unit = systemd.Unit(config, self.options.id, facts)
        if self.unit:
            self.place = self.unit.place
        else:
            place = (rootless if self.bare else cgroup_place).place
            self.place = place(layout, config["linux"]["cgroupsPath"], self.options.id)
        self.receivers = sockets.receivers(self.options.pidfd_socket, config["annotations"].get("run.oci.pidfd_receiver"))
        if any(config["hooks"].values()):
            from rundlet.life import hooks

            self.files = hooks.Files(config["annotations"])
        self.stdio = process.stdio_to_give(config["process"])
        found = self.known.plan(self) if self.known and not self.bare else None
        if found:
            log.debug(f"the plan of such a container is kept as {self.known and self.known.second}")
            self.plan, self.writes, self.devices, self.names, self.filtered = found
            self.templates = self.plan.templates
            self.texts = kept.values(self)
        else:
            from rundlet.life import planning

            planning.decide(self, layout)
