"""The order: what happens to a container's first process and to each that joins it, stage by stage, on one screen.

create()   outside     the host's side: label asked for, what is on the host taken hold of, namespaces joined, the process cloned
           inside      the new process: its namespaces furnished, the root filesystem populated
           enter       the root entered, sealed, and the program looked for
           last        wait for start, then confine() and become the program
execute()  outside · last: the same two ends, around joining the container instead of making it

Between two stages the runtime acts from outside: id maps, cgroup, oom score, hooks. Nothing in here does anything.

confine() is the security argument. From its top to its bottom privilege only shrinks:
  label, once more  is what will be given at the exec still what was asked for? Somebody may have removed the profile meanwhile
  limits            raising one takes CAP_SYS_RESOURCE; for a user namespace hard ones were raised from outside
  seccomp (a)       without no_new_privs, installing a filter takes CAP_SYS_ADMIN
  bounding set      dropping takes CAP_SETPCAP
  user and groups   take CAP_SETUID and CAP_SETGID; the capabilities are kept for one more step
  capabilities      from here on they are the container's
  no_new_privs      after the label was asked for (the label step stands in `outside`), before the filter that relies on it
  seccomp (b)       with no_new_privs, last: nothing but execve has to pass the filter
"""

from rundlet import kernel as k
from rundlet.errors import Refused
from rundlet.plan import mounts, namespaces, process, rootfs
from rundlet.plan.apparmor import proc_steps, still
from rundlet.plan.apparmor import steps as label_steps
from rundlet.plan.step import Call, Slot, Step, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from rundlet.plan import cgroupfs
    from rundlet.plan.apparmor import Transition
    from rundlet.spec.types import Capabilities, Config, Process

    Interface: TypeAlias = Literal["lsm", "scoped", "legacy"]


class Stage(Value):
    """Steps that one process carries out without a word in between."""

    __slots__ = ("name", "steps")

    def __init__(self, name: str, steps: "tuple[Step, ...]") -> None:
        self.name = name
        self.steps = steps


class Plan(Value):
    """What will be done for one container: the stages in order, and what must hold after the exec."""

    __slots__ = ("stages", "transition", "namespaces", "capabilities", "nnp", "seccomp")

    def __init__(
        self, stages: "tuple[Stage, ...]", transition: "Transition", spaces: "dict[str, str | None]", capabilities: int,
        nnp: bool, seccomp: bool,
    ) -> None:
        self.stages = stages
        self.transition = transition
        self.namespaces = tuple(sorted(spaces.items()))
        self.capabilities = capabilities  # the bounding set, as bits
        self.nnp = nnp
        self.seccomp = seccomp

    def stage(self, name: str) -> "tuple[Step, ...]":
        """The steps of one stage."""
        return next(stage.steps for stage in self.stages if stage.name == name)


class Choices(Value):
    """What the command line decides and the configuration does not know."""

    __slots__ = ("id", "no_pivot", "new_keyring", "stdio", "set_groups", "state")

    def __init__(
        self, id: str, no_pivot: bool = False, new_keyring: bool = True, stdio: "tuple[int, ...]" = (), set_groups: bool = True,
        state: str = "",
    ) -> None:
        self.id = id
        self.no_pivot = no_pivot
        self.new_keyring = new_keyring
        self.stdio = stdio  # of 0, 1, 2 those that are pipes or files of the caller's
        self.set_groups = set_groups  # false where the user namespace forbids setgroups(2)
        self.state = state  # what startContainer hooks read; known once the process is there


def create(
    config: "Config", transition: "Transition", interface: "Interface", bundle: "Bundle", cgroups: "list[cgroupfs.Hierarchy]",
    filter_: "bytes | None", choices: Choices,
) -> Plan:
    """The plan of a new container. Raises Refused and BadSpec for what cannot be planned. Pure: the same values give the same plan."""
    spaces = namespaces.wanted(config["linux"]["namespaces"])
    new = [kind for kind, path in spaces.items() if path is None]
    joined = {kind: path for kind, path in spaces.items() if path is not None}
    proc = config["process"]
    # the user namespace of a process cannot be made in the very call that puts it into a PID namespace it was sent to: clone(2), EINVAL
    late_user = "user" in new and "pid" in joined
    at_clone = [] if late_user else [kind for kind in new if kind not in ("time", "cgroup")]
    sources, placed = _mounts(config, bundle, cgroups, "cgroup" in spaces)
    in_user = "user" in spaces
    outside = [
        process.hide(),
        *proc_steps(),
        *label_steps(transition, interface),
        *sources,
        rootfs.hold(bundle.rootfs, rootfs.propagation(config["linux"]["rootfsPropagation"]), "mount" in spaces),
        *([namespaces.new_time(config["linux"]["timeOffsets"])] if "time" in new else []),
        *namespaces.join(joined),
        namespaces.clone(at_clone),
    ]
    # a user namespace first of all, since the others are to belong to it; its maps are written before the next stage
    split = [namespaces.unshare(["user"])] if late_user else []
    # the root of a cgroup namespace is the cgroup of whoever makes it, and the process is in its own only now: cgroup_namespaces(7)
    late = [kind for kind in new if kind not in ("user", "time") and (late_user or kind == "cgroup")]
    inside = [
        *([namespaces.unshare(late)] if late else []),
        *(rootfs.take(bundle.rootfs) if "mount" in spaces else ()),
        *([namespaces.become_root()] if in_user else []),
        process.session(),
        *namespaces.names(config["hostname"], config["domainname"]),
        *(namespaces.sysctl(name, value) for name, value in config["linux"]["sysctl"].items()),
    ]
    enter: "list[Step]" = []
    if "mount" in spaces:
        inside += _populate(config, placed, in_user)
        if proc["terminal"]:
            enter += _terminal(config)
        enter += [rootfs.working_directory(proc["cwd"]), *_seal(config), rootfs.enter(not choices.no_pivot)]
        if config["linux"]["rootfsPropagation"]:
            enter.append(rootfs.shared_root(rootfs.propagation(config["linux"]["rootfsPropagation"])))
    else:
        enter += [*rootfs.confine_to_directory(bundle.rootfs), rootfs.working_directory(proc["cwd"])]
        if proc["terminal"]:
            enter += [process.terminal(_size(proc), False, proc["user"]["uid"])]
    enter += [process.program_exists(proc), *([] if process.has_home(proc) else [process.read_passwd()])]
    stages = (
        Stage("outside", tuple(outside)), Stage("user namespace", tuple(split)), Stage("inside", tuple(inside)),
        Stage("enter", tuple(enter)), Stage("last", last(config, filter_, choices, still(transition, interface))),
    )
    return Plan(stages, transition, spaces, _bounding(proc), proc["noNewPrivileges"], filter_ is not None)


def last(config: "Config", filter_: "bytes | None", choices: Choices, label: "tuple[Step, ...]") -> "tuple[Step, ...]":
    """The last stage: wait for start, run the hooks that are to run then, and become the program. `label`: as for confine()."""
    wait = Step(
        "wait for start", Call("reply"), Call("accept4", Slot("start"), 0, 0, k.SOCK_CLOEXEC, into="starter"), Call("close", Slot("start")),
        Call("redirect", Slot("starter")), kind="wait",
    )
    started: "tuple[Step, ...]" = ()
    if config["hooks"]["startContainer"]:
        from rundlet.plan import hooks

        started = tuple(
            step for n, hook in enumerate(config["hooks"]["startContainer"])
            for step in hooks.run(hook, f"startContainer hook #{n}", choices.state)
        )
    return (wait, *started, *confine(config["process"], filter_, _flags(config), choices, label))


def execute(
    config: "Config", proc: "Process", transition: "Transition", interface: "Interface", filter_: "bytes | None", choices: Choices,
) -> Plan:
    """The plan of one more process in a running container: the container's confinement around another program."""
    spaces = namespaces.wanted(config["linux"]["namespaces"])
    kinds = [kind for kind in k.NAMESPACES if kind in spaces]
    outside = [
        process.hide(),
        *proc_steps(),
        *label_steps(transition, interface),
        *([namespaces.join_container(kinds)] if kinds else []),
        namespaces.clone([]),
    ]
    in_user = "user" in spaces
    enter = [
        *([namespaces.become_root()] if in_user else []),
        *([] if "mount" in spaces else [rootfs.enter_held()]),
        Step("open the root", Call("openat", k.AT_FDCWD, "/", k.O_HERE | k.O_DIRECTORY, 0, into="root"), kind="root"),
        process.session(),
        *([process.terminal(_size(proc), False, proc["user"]["uid"])] if proc["terminal"] else []),
        process.program_exists(proc),
        *([] if process.has_home(proc) else [process.read_passwd()]),
    ]
    ending = confine(proc, filter_, _flags(config), choices, still(transition, interface))
    stages = (Stage("outside", tuple(outside)), Stage("enter", tuple(enter)), Stage("last", ending))
    return Plan(stages, transition, spaces, _bounding(proc), proc["noNewPrivileges"], filter_ is not None)


def confine(
    proc: "Process", filter_: "bytes | None", flags: "tuple[str, ...]", choices: Choices, label: "tuple[Step, ...]",
) -> "tuple[Step, ...]":
    """From a privileged process inside the container to the confined program. `label` sees that the label is still the one asked for."""
    user, nnp = proc["user"], proc["noNewPrivileges"]
    sets = proc["capabilities"] or NO_CAPABILITIES
    groups = tuple(user["additionalGids"]) if choices.set_groups else None
    install: "tuple[Step, ...]" = ()
    if filter_ is not None:
        from rundlet.plan.seccomp import steps as seccomp_steps

        install = seccomp_steps(filter_, flags)
    return (
        *label,
        *([process.keyring(choices.id)] if choices.new_keyring else []),
        *([process.owner_of_stdio(user["uid"], choices.stdio)] if choices.stdio else []),
        *process.rlimits(proc["rlimits"]),
        process.change_directory(proc["cwd"]),
        *(() if nnp else install),
        process.bounding(process.bits(sets["bounding"])),
        process.ids(user, groups),
        process.directory_is_inside(proc["cwd"]),
        *process.capset(sets),
        Step("set the file mode mask", Call("umask", 0o022 if user["umask"] is None else user["umask"]), kind="umask"),
        *([process.no_new_privs(), *install] if nnp else []),
        process.execute(proc),
    )


NO_CAPABILITIES: "Capabilities" = {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []}


class Bundle(Value):
    """What the plan needs to know of the bundle and the host's files, looked up beforehand.

    `rootfs` is absolute and real; `sources` maps each bind mount's index to (absolute path, is a directory); `targets` gives the
    destinations that symlinks of the image lead elsewhere, resolved inside the root.
    """

    __slots__ = ("rootfs", "sources", "targets")

    def __init__(self, rootfs: str, sources: "dict[int, tuple[str, bool]]", targets: "dict[str, str]") -> None:
        self.rootfs = rootfs
        self.sources = sources
        self.targets = targets

    def fields(self) -> "tuple[object, ...]":
        """Hashable, as every value is."""
        return (self.rootfs, tuple(self.sources.items()), tuple(self.targets.items()))


def _bounding(proc: "Process") -> int:
    return process.bits((proc["capabilities"] or NO_CAPABILITIES)["bounding"])


def _flags(config: "Config") -> "tuple[str, ...]":
    section = config["linux"]["seccomp"]
    return tuple(section["flags"]) if section else ()


def _size(proc: "Process") -> "tuple[int, int] | None":
    size = proc["consoleSize"]
    return (size["height"], size["width"]) if size else None


def _mounts(
    config: "Config", bundle: "Bundle", cgroups: "list[cgroupfs.Hierarchy]", cgroup_namespace: bool,
) -> "tuple[list[Step], list[Step]]":
    """The steps that take hold of what is on the host, and those that mount it, in the order of the configuration."""
    base = rootfs.propagation(config["linux"]["rootfsPropagation"])
    spaces = namespaces.wanted(config["linux"]["namespaces"])
    if "mount" not in spaces:
        if config["mounts"]:
            raise Refused("/mounts: mounts without a mount namespace would be the host's", "add a mount namespace, or remove the mounts")
        return [], []
    sources: "list[Step]" = []
    placed: "list[Step]" = []
    for i, mount in enumerate(config["mounts"]):
        options = mounts.Options(mount["options"], f"/mounts/{i}")
        mounts.refuse_foreign(mount, i)
        path = bundle.targets.get(mount["destination"], mount["destination"])
        if mount["type"] in ("cgroup", "cgroup2") and not options.bind:
            from rundlet.plan import cgroupfs

            sources += cgroupfs.sources(i, cgroups, cgroup_namespace)
            placed += cgroupfs.mount(i, mount, options, cgroups, cgroup_namespace)
        elif mounts.is_bind(mount) and not options.remount:
            source, directory = bundle.sources[i]
            sources.append(mounts.source(i, mount, options, source, base))
            placed.append(mounts.bind(i, mount, directory, path))
        else:
            placed.append(mounts.filesystem(i, mount, options, path))
    if "user" in spaces and not _own_dev(config):
        sources += rootfs.bound_device_sources(config["linux"]["devices"])
    return sources, placed


def _own_dev(config: "Config") -> bool:
    """Whether /dev is a directory of the host, bound: then nothing is made in it."""
    return any(m["destination"].rstrip("/") == "/dev" and mounts.is_bind(m) for m in config["mounts"])


def _populate(config: "Config", placed: "list[Step]", in_user: bool) -> "list[Step]":
    """What is mounted and made in the root filesystem, while the host's root is still the root."""
    linux = config["linux"]
    steps = list(placed)
    if not _own_dev(config):
        if in_user:
            steps += rootfs.bound_devices(linux["devices"])
        else:
            steps += rootfs.default_devices({device["path"] for device in linux["devices"]})
        steps += [rootfs.device(device) for device in linux["devices"] if not in_user or device["type"] == "p"]
        steps.append(rootfs.links())
    return steps


def _seal(config: "Config") -> "list[Step]":
    """What is hidden and read-only, after everything that had to be made was made."""
    linux = config["linux"]
    steps = []
    if config["root"]["readonly"]:
        steps.append(rootfs.read_only_root())
    steps += [rootfs.read_only(path) for path in linux["readonlyPaths"]]
    steps += rootfs.masks(linux["maskedPaths"])
    return steps


def _terminal(config: "Config") -> "list[Step]":
    devpts = any(m["type"] == "devpts" and m["destination"].strip("/") == "dev/pts" for m in config["mounts"])
    proc = config["process"]
    return [process.terminal(_size(proc), devpts, proc["user"]["uid"]), process.console(mounts.target("/dev/console", False))]
