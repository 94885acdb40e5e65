"""rundlet update: other limits for a container, all of them or none."""

import posix

from rundlet import host, jsontext, log, spec
from rundlet.cgroup import files, layout, place
from rundlet.cgroup.change import Change, restore
from rundlet.errors import BadSpec, Fault, Refused, WrongState
from rundlet.life import process, store
from rundlet.plan import devicefilter, resources, update
from rundlet.plan.write import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rundlet.life import systemd
    from rundlet.life.store import Container
    from rundlet.options import Options
    from rundlet.plan.devicefilter import Rule
    from rundlet.spec.types import Resources


def main(options: "Options") -> int:
    """The verb."""
    asked = wanted(options)
    given = {"l3CacheSchema": options.l3_cache_schema, "memBwSchema": options.mem_bw_schema}
    schemas = {key: text for key, text in given.items() if text}
    container = store.find(options)
    process.uninterruptible()
    try:
        if schemas and "rdt" not in container.record:
            kind = "CAT: l3 cache" if options.l3_cache_schema else "MBA: memory bandwidth"
            raise Refused(f"Intel RDT/{kind} schema is not enabled", "make the container with /linux/intelRdt")
        if schemas:
            _with_schemas(container, asked, schemas)
        else:
            apply(container, asked)
    finally:
        container.close()
    return 0


def _with_schemas(container: "Container", asked: "dict[str, Any]", schemas: "dict[str, str]") -> None:
    """Limits and shares of the cache and the memory's bandwidth: all of them or none."""
    from rundlet.life import rdt

    config: "Any" = jsontext.loads(container.config(), "config.json")
    _share(config, schemas)
    spec.load(jsontext.dumps(config).encode())  # later commands go by it
    path = container.record["rdt"]["group"]
    old = rdt.change(path, "\n".join(schemas.values()))
    try:
        apply(container, asked, schemas)
    except Fault as fault:
        rdt.take_back(path, old, fault)
        raise


def _share(config: "Any", schemas: "dict[str, str]") -> None:
    """Writes shares into a configuration; in the place of lines that say something else of the same."""
    rdt = config["linux"].setdefault("intelRdt", {})
    rdt.update(schemas)
    shared = {line.partition(":")[0].strip() for text in schemas.values() for line in text.splitlines()}
    if rdt.get("schemata"):
        rdt["schemata"] = [line for line in rdt["schemata"] if line.partition(":")[0].strip() not in shared]


def wanted(options: "Options") -> "dict[str, Any]":
    """The resources asked for, as JSON has them: --resources, or what the other options say. Raises BadSpec and Fault."""
    given = {name: getattr(options, name) for name in update.OPTIONS if getattr(options, name) is not None}
    for name in ("kernel_memory", "kernel_memory_tcp"):
        if getattr(options, name) is not None:
            log.warning(f"--{name.replace('_', '-')} is ignored: Linux has no separate limit of kernel memory since 5.16")
    if options.resources is None:
        return update.from_options(given)
    if given:
        log.warning(f"--resources is given, so {', '.join('--' + name.replace('_', '-') for name in given)} has no effect")
    try:
        text = _stdin() if options.resources == "-" else store.read(options.resources)
    except OSError as e:
        raise Fault(f"cannot read {options.resources}: {(e.strerror or '').lower()}") from None
    value = jsontext.loads(text, "resources file")
    if value is None:  # what Go writes for a pointer to no resources
        return {}
    if type(value) is not dict:
        raise BadSpec("resources file", f"must be an object, not {jsontext.show(value)}")
    return value


def _stdin() -> bytes:
    parts = []
    while part := posix.read(0, 1 << 16):
        parts.append(part)
    return b"".join(parts)


def apply(container: "Container", asked: "dict[str, Any]", schemas: "dict[str, str] | None" = None) -> None:
    """Gives a locked container the limits `asked`, /linux/resources as JSON has it, and writes them into its configuration; so too the
    `schemas` that its group of resctrl has been given.

    Raises WrongState when it has ended, BadSpec and Refused for limits that cannot be, StepFailed with all as it was, or with what is not.
    """
    record = container.record
    now = store.settled(container)
    if now not in ("created", "running", "paused"):
        raise WrongState(f"cannot update a container that is {now}: container not running")
    at = place.load(record["cgroup"])
    if not at.dirs:
        raise Refused(
            "cannot update a container that was made without cgroups",
            "make it with --cgroup-manager=cgroupfs; a user needs a cgroup that is delegated",
        )
    config: "Any" = jsontext.loads(container.config(), "config.json")
    linux = config.setdefault("linux", {})
    had = linux.get("resources") or {}
    new = _check(asked)
    linux["resources"] = update.merge(had, asked)
    whole = _check(linux["resources"])
    if schemas:
        _share(config, schemas)
    facts = layout.read()
    new = update.complete(new, whole)
    for note in resources.notes(new, facts):
        log.warning(note)
    before = {file: files.read_text(at, controller, file) or "" for controller, file in resources.asks(new, facts)}
    writes = resources.writes(new, facts, before)
    rules = devicefilter.rules(new["devices"]) if asked.get("devices") and asked["devices"] != had.get("devices") else None
    lines = _device_lines(at, rules) if rules and resources.version(facts, "devices") == 1 else ()
    change = Change(at)
    change.write((*writes, *lines))
    unit: "systemd.Limits | None" = None
    held: "dict[str, str]" = {}
    filtered = False
    try:
        if "systemd" in record:
            from rundlet.life import systemd
            from rundlet.plan.systemd import FILES

            held = change.held(FILES)
            unit = systemd.Limits(record["systemd"], (*writes, *_bandwidth(at, writes)), rules)
            unit.change()
            restore(held)  # systemd has written all that it knows of the unit, in its own words
        if rules and resources.version(facts, "devices") == 2 and not (posix.geteuid() or host.user_namespace()):
            _replace_filter(at, rules)
            filtered = True
        store.put(container.fd, "config.json", jsontext.dumps(config).encode())
    except (Fault, OSError) as e:
        fault = e if isinstance(e, Fault) else Fault(f"cannot write the container's configuration: {(e.strerror or '').lower()}")
        if filtered:
            _or_told(lambda: _replace_filter(at, devicefilter.rules(_check(had)["devices"])), fault)
        if unit:
            unit.take_back(fault)
            _or_told(lambda: restore(held), fault)
        change.take_back(fault)
        raise fault from None
    finally:
        if unit:
            unit.close()


def _or_told(undo: "Callable[[], None]", fault: Fault) -> None:
    """Undoes something; that it does not succeed is said in the fault."""
    try:
        undo()
    except Fault as second:
        fault.cleanup.append(str(second))


def _bandwidth(at: "place.Place", writes: "tuple[Write, ...]") -> "tuple[Write, ...]":
    """Quota and period as they are, where one of them is written: on v1 they are two files, to systemd one limit."""
    if not any(item.file in ("cpu.cfs_period_us", "cpu.cfs_quota_us") for item in writes):
        return ()
    texts = {name: files.read_text(at, "cpu", name) or "" for name in ("cpu.cfs_period_us", "cpu.cfs_quota_us")}
    return tuple(Write("cpu", name, text.strip(), "cpu quota") for name, text in texts.items())


def _check(raw: "dict[str, Any]") -> "Resources":
    checked, warnings = spec.load_resources(jsontext.dumps(raw).encode())
    for warning in warnings:
        log.warning(warning)
    return checked


def _device_lines(at: "place.Place", rules: "tuple[Rule, ...]") -> "tuple[Write, ...]":
    from rundlet.plan import devicechange

    listed = files.read_text(at, "devices", "devices.list") or ""
    return tuple(Write("devices", file, text, "device rules") for file, text in devicechange.v1(listed, rules))


def _replace_filter(at: "place.Place", rules: "tuple[Rule, ...]") -> None:
    """On v2 the rules are a program, and the kernel puts one in the place of another in one step.

    Not for a runtime without the host's privileges: create has loaded none either.
    """
    from rundlet.executor import client
    from rundlet.plan import devicechange

    there = place.find(at, "devices")
    if there is None:
        return
    program = devicefilter.program(rules)
    executor = client.spawn()
    try:
        ids = devicechange.ids(executor.run(devicechange.query(there.path)).outs["programs"])
        infos = executor.run(devicechange.about(ids)).outs if ids else {}
        ours = [n for n in range(len(ids)) if devicechange.ours(infos[f"info {n}"])]
        executor.run(devicechange.steps(program, there.path, ours[-1] if ours else None, posix.uname().release))
    finally:
        executor.close()
        posix.waitpid(executor.pid, 0)
