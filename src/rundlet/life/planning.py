"""What is to be done for a new container, where nothing is kept of it (kept.py): the limits of its cgroup, the device filter, the plan."""

from rundlet import log, spec
from rundlet.life import process, record
from rundlet.plan import devicefilter, order, resources, stages
from rundlet.plan.asking import still
from rundlet.plan.process import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.executor.client import Executor
    from rundlet.life.create import Creation
    from rundlet.life.deciding import Decision
    from rundlet.life.store import Record
    from rundlet.plan.resources import CgroupFacts
    from rundlet.plan.stages import Plan
    from rundlet.plan.step import Step


def decide(new: "Decision", layout: "CgroupFacts") -> None:
    """Decides everything that depends on what has been found, and refuses what cannot be done. Raises BadSpec and Refused."""
    if new.known and new.known.config:
        _check(new)  # what is kept of a configuration has no rules of a filter
    config, facts = new.config, new.facts
    limits = config["linux"]["resources"]
    new.writes = resources.writes(limits, layout) if new.place.dirs else ()
    if new.bare and not new.unit:
        from rundlet.life import rootless

        new.writes = rootless.limits(limits, layout, new.place, facts)
    for note in resources.notes(limits, layout):
        log.warning(note)
    if new.options.cgroup_manager == "disabled" and (note := resources.lost(limits)):
        log.warning(note)
    if any(m["type"] in ("cgroup", "cgroup2") for m in config["mounts"]) or "run.oci.delegate-cgroup" in config["annotations"]:
        from rundlet.plan import delegation
        from rundlet.plan.mounts import cgroup

        new.delegation = delegation.decide(config, layout)
        if without := cgroup.idle(config):
            log.warning(without)
    new.devices = b""
    if new.place.dirs and resources.version(layout, "devices") == 2 and not new.bare:
        new.devices = devicefilter.program(devicefilter.rules(limits["devices"]))
    new.filter = process.seccomp_program(config)
    if new.filter is not None:
        new.filtered = record.digest((new.filter,))
        new.agent = process.seccomp_agent(config)
    new.plan = plan(new)


def plan(new: "Decision") -> "Plan":
    """The plan itself."""
    config, facts = new.config, new.facts
    denied = False
    hierarchies = [(d.path, d.version, list(d.controllers)) for d in new.place.dirs]
    if new.bare or new.options.cgroup_manager == "disabled":
        from rundlet.life import rootless

        denied = new.bare and rootless.groups_denied(config, facts)
        hierarchies = rootless.shown(facts["cgroup"], new.place)
    if any(space["type"] == "user" and space["path"] is not None for space in config["linux"]["namespaces"]):
        from rundlet.life import joined

        denied = joined.groups_denied(config) or denied
    new.choices = stages.Choices(
        new.options.id, new.options.no_pivot, not new.options.no_new_keyring, new.stdio, process.sets_groups(config) and not denied,
        notify=new.agent is not None, said=new.files.slots if new.files else ("", ""),
        privileged="CAP_SYS_ADMIN" in facts["caps"]["effective"], nodes=not facts["user_namespace"], unit=new.unit is not None,
    )
    return order.create(config, new.transition, facts["apparmor"]["interface"], new.bundle, hierarchies, new.filter, new.choices)


def again(new: "Decision") -> "Plan":
    """The plan of a container that was started by one that was kept, for who has to know its steps."""
    _check(new)
    new.filter = process.seccomp_program(new.config)
    return plan(new)


def _check(new: "Decision") -> None:
    """Reads and checks the whole configuration of a container that began with what was kept of it."""
    config, _ = spec.load(new.text)
    process.grantable(config["process"], new.facts, any(space["type"] == "user" for space in config["linux"]["namespaces"]))
    config["process"]["env"] = new.config["process"]["env"]  # with the home that the image has given
    new.config = config


def last(new: "Creation", about: "Record", executor: "Executor", homeless: bool) -> "tuple[Step, ...]":
    """The last stage, once it is known what the image says of the user's home (`homeless`), and what hooks and an agent are to be told."""
    steps, config = new.stages().stage("last"), new.config
    if homeless:
        steps = (*steps[:-1], execute(config["process"]))
    if config["hooks"]["startContainer"]:
        from rundlet.life import hooks

        choices = new.choices.told(hooks.inner_state(about, "created"))
        steps = order.last(config, new.filter, choices, still(new.transition, new.facts["apparmor"]["interface"]))
    if new.plan.stage("scheduling"):
        process.take_turns(new.stages().stage("scheduling"), executor.pid)
    if new.agent:
        from rundlet.life import agent

        steps = agent.telling(steps, config, about, executor.pid, "creating")
    return tuple(step for step in steps if step.kind != "wait") if new.starts else steps
