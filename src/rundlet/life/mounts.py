"""rundlet mounts add, rundlet mounts remove: mounts for a container that runs, by a list in a file. All of them, or none.

The container's configuration follows: what verify compares with is what was asked for last.
"""

import posix

from rundlet import host, jsontext, log, spec
from rundlet.cgroup import place as cgroup_place
from rundlet.errors import BadSpec, Fault, Refused, Usage, WrongState
from rundlet.executor import client
from rundlet.life import bundle, copyup, idmounts, process, store
from rundlet.plan import rootfs
from rundlet.plan.bundle import Bundle
from rundlet.plan.mounts import hot
from rundlet.plan.mounts.calls import is_root
from rundlet.plan.mounts.mounting import Mounting
from rundlet.spec.mounts import load_mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
    process.uninterruptible()
    try:
        config, listed = _config(container, path)
        if verb == "add":
            add(container, config, listed)
        else:
            remove(container, config)
    finally:
        container.close()
    return 0


def _config(container: "Container", path: str) -> "tuple[Config, list[dict[str, Any]]]":
    """The container's configuration with the mounts of the file in the place of its own, and those as the file has them."""
    now = store.settled(container)
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
    return config, jsontext.loads(text, path)  # type: ignore[return-value]


def add(container: "Container", config: "Config", listed: "list[dict[str, Any]]") -> None:
    """Makes the mounts of `config`, which are `listed` as JSON has them. Raises Fault, and then none of them is there."""
    record = container.record
    facts = host.facts()
    privileged = "CAP_SYS_ADMIN" in facts["caps"]["effective"]
    found = Bundle(f"/proc/{record['pid']}/root", {}, {})
    bundle.look(found, config, record["bundle"])
    hierarchies = [(d.path, d.version, list(d.controllers)) for d in cgroup_place.load(record["cgroup"]).dirs]
    spaces = {space["type"] for space in config["linux"]["namespaces"]}
    if not privileged and "user" not in spaces:
        raise Refused("mounting in a container without a user namespace takes CAP_SYS_ADMIN, which the runtime lacks", "run as root")
    mounting = Mounting(
        rootfs.propagation(config["linux"]["rootfsPropagation"]), hierarchies, "joined" if "cgroup" in spaces else "", False,
        "user" in spaces or facts["user_namespace"], privileged,
    )
    each = hot.add(mounting, config, found)
    held = idmounts.hold(tuple(mounting.users))
    try:
        executor = _enter(config, record, mounting.sources, held, privileged)
    except BaseException:
        idmounts.let_go(held)
        raise
    fills = iter(mounting.fills)
    made: "list[str]" = []
    try:
        for i, steps in enumerate(each):
            copyup.run(executor, steps, fills, held)
            made.append(found.targets.get(i, config["mounts"][i]["destination"]))
        _keep(container, [*_kept(container), *({**one, "destination": at} for one, at in zip(listed, made, strict=True))])
    except BaseException as first:
        for path in reversed(made):
            try:
                executor.run([hot.remove(path)])
            except Fault as second:
                if isinstance(first, Fault):
                    first.cleanup.append(str(second))
        raise
    finally:
        process.end(executor)
        idmounts.let_go(held)


def _kept(container: "Container") -> "list[dict[str, Any]]":
    """The mounts of the container's configuration, as JSON has them."""
    config: "Any" = jsontext.loads(container.config(), "config.json")
    return config.get("mounts") or []


def _keep(container: "Container", asked: "list[dict[str, Any]]") -> None:
    """Writes the container's configuration with these mounts. Raises Fault."""
    config: "Any" = jsontext.loads(container.config(), "config.json")
    config["mounts"] = asked
    store.put(container.fd, "config.json", jsontext.dumps(config).encode())


def _place(root: str, path: str, options: "list[str]") -> str:
    return bundle.resolve(root, path, "dest-nofollow" not in options)


def _places(root: str, asked: "list[dict[str, Any]]") -> "list[tuple[str, dict[str, Any]]]":
    """Mounts of the configuration, each with its place. Links of the container that go round in circles keep nobody from unmounting."""
    found = []
    for one in asked:
        try:
            at = _place(root, one["destination"], one.get("options") or [])
        except BadSpec:
            at = one["destination"]
        found.append((at, one))
    return found


def remove(container: "Container", config: "Config") -> None:
    """Takes the mounts of `config` away, the last one first. Raises Fault, before any is, when one of them is none."""
    record = container.record
    root = f"/proc/{record['pid']}/root"
    paths = [_place(root, mount["destination"], mount["options"]) for mount in config["mounts"]]
    for i, path in enumerate(paths):
        if is_root(path):
            raise BadSpec(f"/mounts/{i}/destination", "the root filesystem cannot be unmounted")
    executor = _enter(config, record, [])
    try:
        outs = executor.run([hot.look(paths)]).outs
        for i, path in enumerate(paths):
            if not int.from_bytes(outs[f"about {i}"][8:16], "little") & hot.MOUNT_ROOT:
                raise Refused(f"/mounts/{i}/destination: {path} is not mounted", "nothing was unmounted")
        left = [_places(root, _kept(container))]  # after each step
        for path in reversed(paths):
            left.append(hot.without(left[-1], path))
        _keep(container, [one for _, one in left[-1]])
        gone = 0
        try:
            for path in reversed(paths):
                executor.run([hot.remove(path)])
                gone += 1
        except Fault as first:
            try:
                _keep(container, [one for _, one in left[gone]])
            except Fault as second:
                first.cleanup.append(str(second))
            raise
    finally:
        process.end(executor)


def _enter(
    config: "Config", record: "Record", sources: "list[Step]", held: "dict[str, int] | None" = None, privileged: bool = True,
) -> "Executor":
    """A process in the container's namespaces that holds the `sources`."""
    try:
        init = store.pidfd(record["pid"])
    except ProcessLookupError:
        raise WrongState("container not running") from None
    try:
        if not store.alive(record):  # the pid was another process's when it was opened
            raise WrongState("container not running")
        executor = client.spawn({"init": init, **(held or {})})
    finally:
        posix.close(init)
    outside, inside = hot.enter(config, sources, process.sets_groups(config, record["pid"]), privileged)
    first = executor.pid
    try:
        executor.pid = executor.run(outside.steps).slots["child"]
        posix.waitpid(first, 0)
        executor.run(inside.steps)
    except BaseException:
        process.end(executor)
        raise
    return executor
