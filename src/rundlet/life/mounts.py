"""rundlet mounts add, rundlet mounts remove: mounts for a container that runs, by a list in a file. All of them, or none."""

import posix

from rundlet import host, log, spec
from rundlet.cgroup import place as cgroup_place
from rundlet.errors import BadSpec, Fault, Refused, Usage, WrongState
from rundlet.executor import client
from rundlet.life import bundle, copyup, idmounts, process, store
from rundlet.plan import hotmounts, mounts, rootfs
from rundlet.plan.bundle import Bundle
from rundlet.spec.mounts import load_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.executor.client import Executor
    from rundlet.life.store import Container, Record
    from rundlet.options import Options
    from rundlet.plan.step import Step
    from rundlet.spec.types import Config


def main(options: "Options") -> int:
    """The verb."""
    verb, options.id, path = options.args
    if verb not in ("add", "remove"):
        raise Usage(f"mounts takes add or remove, not {verb!r}; see rundlet mounts --help")
    container = store.find(options)
    try:
        config, record = _config(container, path)
        if verb == "add":
            add(config, record)
        else:
            remove(config, record)
    finally:
        container.close()
    return 0


def _config(container: "Container", path: str) -> "tuple[Config, Record]":
    """The container's configuration with the mounts of the file in the place of its own."""
    record = container.record
    now = store.status(record)
    if now not in ("created", "running", "paused"):
        raise WrongState(f"cannot change the mounts of a container that is {now}: container not running")
    config = spec.load(container.config())[0]
    if not any(space["type"] == "mount" for space in config["linux"]["namespaces"]):
        raise Refused("the container has no mount namespace, so its mounts are the host's", "mount on the host")
    try:
        text = store.read(path)
    except OSError as e:
        raise Fault(f"cannot read {path}: {(e.strerror or '').lower()}") from None
    config["mounts"], warnings = load_mounts(text, config["linux"])
    for warning in warnings:
        log.warning(warning)
    return config, record


def add(config: "Config", record: "Record") -> None:
    """Makes the mounts of `config` in the container of `record`. Raises Fault, and then none of them is there."""
    facts = host.facts()
    privileged = "CAP_SYS_ADMIN" in facts["caps"]["effective"]
    found = Bundle(f"/proc/{record['pid']}/root", {}, {})
    bundle.look(found, config, record["bundle"])
    hierarchies = [(d.path, d.version, list(d.controllers)) for d in cgroup_place.load(record["cgroup"]).dirs]
    spaces = {space["type"] for space in config["linux"]["namespaces"]}
    if not privileged and "user" not in spaces:
        raise Refused("mounting in a container without a user namespace takes CAP_SYS_ADMIN, which the runtime lacks", "run as root")
    mounting = mounts.Mounting(
        rootfs.propagation(config["linux"]["rootfsPropagation"]), hierarchies, "joined" if "cgroup" in spaces else "", False,
        "user" in spaces or facts["user_namespace"], privileged,
    )
    each = hotmounts.add(mounting, config, found)
    held = idmounts.hold(tuple(mounting.users))
    try:
        executor = _enter(config, record, mounting.sources, held, privileged)
    finally:
        idmounts.let_go(held)
    fills = iter(mounting.fills)
    made: "list[str]" = []
    try:
        for i, steps in enumerate(each):
            copyup.run(executor, steps, fills)
            made.append(found.targets.get(i, config["mounts"][i]["destination"]))
    except BaseException as first:
        for path in reversed(made):
            try:
                executor.run([hotmounts.remove(path)])
            except Fault as second:
                if isinstance(first, Fault):
                    first.cleanup.append(str(second))
        raise
    finally:
        process.end(executor)


def remove(config: "Config", record: "Record") -> None:
    """Takes the mounts of `config` away, the last one first. Raises Fault, before any is, when one of them is none."""
    root = f"/proc/{record['pid']}/root"
    paths = [bundle.resolve(root, mount["destination"], "dest-nofollow" not in mount["options"]) for mount in config["mounts"]]
    for i, path in enumerate(paths):
        if mounts.is_root(path):
            raise BadSpec(f"/mounts/{i}/destination", "the root filesystem cannot be unmounted")
    executor = _enter(config, record, [])
    try:
        outs = executor.run([hotmounts.look(paths)]).outs
        for i, path in enumerate(paths):
            if not int.from_bytes(outs[f"about {i}"][8:16], "little") & hotmounts.MOUNT_ROOT:
                raise Refused(f"/mounts/{i}/destination: {path} is not mounted", "nothing was unmounted")
        for path in reversed(paths):
            executor.run([hotmounts.remove(path)])
    finally:
        process.end(executor)


def _enter(
    config: "Config", record: "Record", sources: "list[Step]", held: "dict[str, int] | None" = None, privileged: bool = True,
) -> "Executor":
    """A process in the container's namespaces that holds the `sources`."""
    try:
        init = posix.pidfd_open(record["pid"])
    except ProcessLookupError:
        raise WrongState("container not running") from None
    try:
        if not store.alive(record):  # the pid was another process's when it was opened
            raise WrongState("container not running")
        executor = client.spawn({"init": init, **(held or {})})
    finally:
        posix.close(init)
    outside, inside = hotmounts.enter(config, sources, process.sets_groups(config, record["pid"]), privileged)
    first = executor.pid
    try:
        executor.pid = executor.run(outside.steps).slots["child"]
        posix.waitpid(first, 0)
        executor.run(inside.steps)
    except BaseException:
        process.end(executor)
        raise
    return executor
