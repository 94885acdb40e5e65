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
  scheduling        more than everybody has takes CAP_SYS_NICE; for a user namespace it was done from outside
  seccomp (a)       without no_new_privs, installing a filter takes CAP_SYS_ADMIN
  bounding set      dropping takes CAP_SETPCAP
  user and groups   take CAP_SETUID and CAP_SETGID; the capabilities are kept for one more step
  capabilities      from here on they are the container's
  no_new_privs      after the label was asked for (the label step stands in `outside`), before the filter that relies on it
  seccomp (b)       with no_new_privs, last: nothing but execve has to pass the filter
  hooks             startContainer hooks are programs of the container, so they run as confined as its own
"""

from _struct import pack

from rundlet import kernel as k
from rundlet.plan import namespaces, process, rootfs
from rundlet.plan.asking import proc_steps, still
from rundlet.plan.asking import steps as label_steps
from rundlet.plan.bundle import Bundle
from rundlet.plan.command import has_home
from rundlet.plan.mounts.calls import target
from rundlet.plan.stages import Choices, Plan, Stage
from rundlet.plan.step import Call, Data, Scratch, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    from rundlet.plan.apparmor import Transition
    from rundlet.plan.mounts.mounting import Hierarchy
    from rundlet.spec.types import Capabilities, Config, Process

    Interface: TypeAlias = Literal["lsm", "scoped", "legacy"]


ENDING = pack("Q", 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14)  # SIGHUP, SIGINT, SIGQUIT, SIGTERM as a sigset_t


def create(
    config: "Config", transition: "Transition", interface: "Interface", bundle: "Bundle", cgroups: "list[Hierarchy]",
    filter_: "bytes | None", choices: Choices,
) -> Plan:
    """The plan of a new container. Raises Refused and BadSpec for what cannot be planned. Pure: the same values give the same plan."""
    from rundlet.plan import filesystem  # not read for exec

    spaces = namespaces.wanted(config["linux"]["namespaces"])
    new = [kind for kind, path in spaces.items() if path is None]
    joined = {kind: path for kind, path in spaces.items() if path is not None}
    proc = config["process"]
    # the user namespace of a process cannot be made in the very call that puts it into a PID namespace it was sent to: clone(2), EINVAL
    late_user = "user" in new and "pid" in joined
    in_user = "user" in spaces
    # the root of its message queues belongs to whoever makes an IPC namespace, which shall be a user of the user namespace: ipc/mqueue.c
    own = [kind for kind in new if kind == "ipc" and in_user]
    at_clone = [] if late_user else [kind for kind in new if kind not in ("time", "cgroup", *own)]
    nodes = choices.nodes and not in_user
    mounting = filesystem.mounts(config, bundle, cgroups, choices, nodes)
    held = [
        *mounting.sources,
        rootfs.hold(bundle.rootfs, rootfs.propagation(config["linux"]["rootfsPropagation"]), "mount" in spaces),
    ]
    time = config["linux"]["timeOffsets"]
    # a user's process is seen until its maps are written; one that joins a user namespace is never seen by those that are in there
    shown = not choices.privileged and "user" in at_clone
    first = namespaces.first(config["linux"], proc)
    outside = [
        process.hide(),
        *proc_steps(),
        *label_steps(transition, interface),
        *_selinux(proc),
        *(held if choices.privileged else []),
        *([namespaces.new_time(time)] if "time" in new and choices.privileged else []),
        *namespaces.join(joined),
        namespaces.clone(at_clone, shown),
    ]
    # a user namespace first of all, since the others are to belong to it; its maps are written before the next stage
    split = [namespaces.unshare(["user"])] if late_user else []
    # the root of a cgroup namespace is the cgroup of whoever makes it, and the process is in its own only now: cgroup_namespaces(7)
    late = [kind for kind in new if kind not in ("user", "time", *own) and (late_user or kind == "cgroup")]
    inside = [
        *([namespaces.unshare(late)] if late else []),
        process.every_cpu(),
        # a user takes hold of the host's files in here, where that is permitted, while it still is that user
        *([] if choices.privileged else held),
        *mounting.late,
        *([namespaces.new_time(time, True)] if "time" in new and not choices.privileged else []),
        *(rootfs.take(bundle.rootfs) if "mount" in spaces else ()),
        *([namespaces.become_root(first, shown, choices.set_groups)] if in_user else []),
        *([namespaces.unshare(own)] if own else []),
        process.session(),
        *([namespaces.loopback()] if "network" in new else []),
        *namespaces.names(config["hostname"], config["domainname"]),
        *(namespaces.sysctl(name, value) for name, value in config["linux"]["sysctl"].items()),
    ]
    enter: "list[Step]" = [process.hide()] if shown else []
    if "mount" in spaces:
        inside += filesystem.populate(config, bundle, mounting.placed, nodes)
        if proc["terminal"]:
            enter += _terminal(config)
        enter += [rootfs.working_directory(proc["cwd"]), *mounting.sealed, *filesystem.seal(config)]
        enter += rootfs.enter(bundle.covers if choices.no_pivot else None)
        if config["linux"]["rootfsPropagation"]:
            enter.append(rootfs.shared_root(rootfs.propagation(config["linux"]["rootfsPropagation"])))
    else:
        enter += [*rootfs.confine_to_directory(bundle.rootfs), rootfs.working_directory(proc["cwd"])]
        if proc["terminal"]:
            enter += [process.terminal(_size(proc), False, proc["user"]["uid"])]
    enter += [process.program_exists(proc), *([] if has_home(proc) else [process.read_passwd()])]
    again = still(transition, interface)
    given = [*(f"ns:{kind}" for kind in joined), *(users.slot for users in mounting.users)]
    enter.append(rootfs.let_go((*inside, *enter), given, not again))
    stages = (
        *filesystem.users(mounting), Stage("outside", tuple(outside)), Stage("user namespace", tuple(split)), *_devices(bundle),
        *filesystem.inside(inside, mounting.fills), Stage("enter", tuple(enter)), *_turns(proc, in_user),
        Stage("last", last(config, filter_, choices, again)),
    )
    return Plan(
        stages, transition, spaces, _bounding(proc), proc["noNewPrivileges"], filter_ is not None, tuple(mounting.users),
        tuple(mounting.fills),
    )


def last(config: "Config", filter_: "bytes | None", choices: Choices, label: "tuple[Step, ...]") -> "tuple[Step, ...]":
    """The last stage: wait for start, run the hooks that are to run then, and become the program. `label`: as for confine()."""
    # the first process of a PID namespace is deaf to signals that it does not handle, unless it blocks them: pid_namespaces(7)
    wait = Step(
        "wait for start", Call("reply"),
        Call("rt_sigprocmask", 0, ENDING, 0, 8),
        Call("signalfd4", -1, ENDING, 8, 0x80800, into="signals"),  # SFD_CLOEXEC, SFD_NONBLOCK
        Call("ppoll", Data(Slot("start"), pack("hh", k.POLLIN, 0), Slot("signals"), pack("hh", k.POLLIN, 0)), 2, 0, 0, 8),
        Call("read", Slot("signals"), Scratch("signal", 128), 128, fine=("EAGAIN",), on_fine="start"), Call("exit_group", 143),
        Call("accept4", Slot("start"), 0, 0, k.SOCK_CLOEXEC, into="starter", label="start"), Call("close", Slot("start")),
        Call("close", Slot("signals")), Call("rt_sigprocmask", 1, ENDING, 0, 8),
        Call("redirect", Slot("starter")), kind="wait",
    )
    started: "tuple[Step, ...]" = ()
    if config["hooks"]["startContainer"]:
        from rundlet.plan import hooks

        started = tuple(
            step for n, hook in enumerate(config["hooks"]["startContainer"])
            for step in hooks.run(hook, f"startContainer hook #{n}", choices.state, config["process"]["env"], choices.said)
        )
    proc = config["process"]
    return (wait, *confine(proc, filter_, flags(config), choices, label, started, _scheduling(config, proc)))


def execute(
    config: "Config", proc: "Process", transition: "Transition", interface: "Interface", filter_: "bytes | None", choices: Choices,
) -> Plan:
    """The plan of one more process in a running container: the container's confinement around another program."""
    spaces = namespaces.wanted(config["linux"]["namespaces"])
    kinds = [kind for kind in k.NAMESPACES if kind in spaces]
    cpus = proc["execCPUAffinity"]
    first, final = (cpus["initial"], cpus["final"]) if cpus else (None, None)
    if first or final:
        from rundlet.plan.scheduling import affinity
    outside = [
        process.hide(),
        *proc_steps(),
        *label_steps(transition, interface),
        *_selinux(proc),
        *([affinity(first, "initial")] if first else []),
        *([namespaces.join_container(kinds)] if kinds else []),
        namespaces.clone([]),
    ]
    in_user = "user" in spaces
    enter = [
        affinity(final, "final") if final else process.every_cpu(),
        *([namespaces.become_root(namespaces.first(config["linux"], config["process"]), False, choices.set_groups)] if in_user else []),
        *([] if "mount" in spaces else [rootfs.enter_held()]),
        Step("open the root", Call("openat", k.AT_FDCWD, "/", k.O_HERE | k.O_DIRECTORY, 0, into="root"), kind="root"),
        process.session(),
        *([process.terminal(_size(proc), False, proc["user"]["uid"])] if proc["terminal"] else []),
        process.program_exists(proc),
        *([] if has_home(proc) else [process.read_passwd()]),
    ]
    ending = confine(proc, filter_, flags(config), choices, still(transition, interface), (), _scheduling(config, proc))
    stages = (Stage("outside", tuple(outside)), Stage("enter", tuple(enter)), *_turns(proc, in_user), Stage("last", ending))
    return Plan(stages, transition, spaces, _bounding(proc), proc["noNewPrivileges"], filter_ is not None)


def confine(
    proc: "Process", filter_: "bytes | None", flags: "tuple[str, ...] | None", choices: Choices, label: "tuple[Step, ...]",
    started: "tuple[Step, ...]" = (), scheduling: "tuple[Step, ...]" = (),
) -> "tuple[Step, ...]":
    """From a privileged process inside the container to the confined program.

    `label` sees that the label is still the one asked for, `started` runs the startContainer hooks, `scheduling` is _scheduling()'s.
    """
    user, nnp = proc["user"], proc["noNewPrivileges"]
    sets = proc["capabilities"] or NO_CAPABILITIES
    groups = tuple(user["additionalGids"]) if choices.set_groups else None
    install: "tuple[Step, ...]" = ()
    if filter_ is not None:
        from rundlet.plan.seccomp import steps as seccomp_steps

        install = seccomp_steps(filter_, flags, choices.notify)
    return (
        *label,
        *([process.keyring(choices.id)] if choices.new_keyring else []),
        *([process.owner_of_stdio(user["uid"], choices.stdio)] if choices.stdio else []),
        *process.rlimits(proc["rlimits"]),
        *scheduling,
        process.change_directory(proc["cwd"]),
        *(() if nnp else install),
        process.bounding(process.bits(sets["bounding"])),
        process.ids(user, groups),
        process.directory_is_inside(proc["cwd"]),
        *process.capset(sets),
        Step("set the file mode mask", Call("umask", 0o022 if user["umask"] is None else user["umask"]), kind="umask"),
        *([process.no_new_privs(), *install] if nnp else []),
        *started,
        process.execute(proc),
    )


def _scheduling(config: "Config", proc: "Process") -> "tuple[Step, ...]":
    """What the process itself does about how it is scheduled, where its memory comes from, and its personality."""
    linux = config["linux"]
    if not (proc["scheduler"] or proc["ioPriority"] or linux["memoryPolicy"] or linux["personality"]):
        return ()
    from rundlet.plan import scheduling

    in_user = any(space["type"] == "user" for space in linux["namespaces"])
    return (*(() if in_user else scheduling.turns(proc)), *scheduling.memory_and_personality(linux))


def _selinux(proc: "Process") -> "tuple[Step, ...]":
    """The SELinux label, where one is asked for."""
    if not proc["selinuxLabel"]:
        return ()
    from rundlet.plan import selinux

    return (selinux.step(proc["selinuxLabel"]),)


def _turns(proc: "Process", in_user: bool) -> "tuple[Stage, ...]":
    """What is done from outside about how a process of a user namespace is scheduled; the slot "process" is its number."""
    if not in_user or not (proc["scheduler"] or proc["ioPriority"]):
        return ()
    from rundlet.plan import scheduling

    return (Stage("scheduling", scheduling.turns(proc, Slot("process"))),)


def _devices(bundle: "Bundle") -> "tuple[Stage, ...]":
    """What a helper of the host's does to give the container its network devices."""
    if not bundle.devices:
        return ()
    from rundlet.plan import netdevices

    return (Stage("network devices", netdevices.move(bundle.devices)),)


NO_CAPABILITIES: "Capabilities" = {"bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": []}


def _bounding(proc: "Process") -> int:
    return process.bits((proc["capabilities"] or NO_CAPABILITIES)["bounding"])


def flags(config: "Config") -> "tuple[str, ...] | None":
    """The flags for the seccomp filter; None where the configuration is silent."""
    section = config["linux"]["seccomp"]
    return tuple(section["flags"]) if section and section["flags"] is not None else None


def _size(proc: "Process") -> "tuple[int, int] | None":
    size = proc["consoleSize"]
    return (size["height"], size["width"]) if size else None


def _terminal(config: "Config") -> "list[Step]":
    devpts = any(m["type"] == "devpts" and m["destination"].strip("/") == "dev/pts" for m in config["mounts"])
    proc = config["process"]
    return [process.terminal(_size(proc), devpts, proc["user"]["uid"]), process.console(target("/dev/console", False, follow=False))]
