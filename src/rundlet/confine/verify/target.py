"""Where a container's configuration, first process and cgroup are found: rundlet's own by its state, another runtime's by /proc."""

import os
from typing import TYPE_CHECKING

from rundlet import spec
from rundlet.cgroup import place as cgroup_place
from rundlet.cgroup.place import Dir, Place
from rundlet.confine.verify import observe
from rundlet.confine.verify.model import Target
from rundlet.errors import Fault, WrongState
from rundlet.life import store

if TYPE_CHECKING:
    from rundlet.plan.resources import CgroupFacts
    from rundlet.spec.types import Config


def of_container(root: str, id: str) -> Target:
    """Target.of_container."""
    container = store.find_in(root, store.check_id(id), lock=False)
    try:
        if container.damaged:
            raise Fault(f"{container.folder}/state.json is damaged, so what was asked of the container {id} cannot be told")
        record = container.record
        try:
            config = spec.load(container.config())[0]
        except OSError as e:
            if not container.exists():
                raise WrongState(f"container {id} does not exist") from None
            raise Fault(f"cannot read the configuration of container {id}: {(e.strerror or '').lower()}") from None
        path = f"{record['bundle']}/config.json"
        return Target(record["id"], record["pid"], config, record["start_time"], record["rootfs"], path, container.folder, record)
    finally:
        container.close()


def of_pid(pid: int, config: str) -> Target:
    """Target.of_pid."""
    path = store.absolute(config)
    if os.path.isdir(path):
        path += "/config.json"
    try:
        text = store.read(path)
    except OSError as e:
        raise Fault(f"cannot read {path}: {(e.strerror or '').lower()}; give --config the bundle or its config.json") from None
    asked = spec.load(text)[0]
    found = store.stat(pid)
    if found is None or found[0] in "ZX":
        raise WrongState(f"there is no process {pid}")
    root = asked["root"]["path"]
    rootfs = root if root[:1] == "/" else f"{path.rpartition('/')[0]}/{root}"
    lasting = "" if path.startswith(("/proc/", "/dev/")) else path  # as of a descriptor
    return Target(f"pid {pid}", pid, asked, found[1], store.absolute(rootfs), lasting)


def place(target: Target, facts: "CgroupFacts") -> Place:
    """The container's cgroups; none where it has none of its own."""
    if target.record is not None:
        return cgroup_place.load(target.record["cgroup"])
    theirs = _paths(target.pid)
    ours = (_paths(os.getpid()), _paths(1), _paths(_parent(target.pid)))
    dirs = []
    for mount in dict.fromkeys(facts["mounts"].values()):
        keys = tuple(key for key, point in facts["mounts"].items() if point == mount)
        path = _own(theirs.get(keys[0], "/"), target.config)
        if path == "/" or any(_within(other.get(keys[0], "/"), path) for other in ours):
            continue  # what is in it besides is none of the container's
        unified = keys == ("unified",)
        dirs.append(Dir(mount + path, mount, 2 if unified else 1, tuple(facts["controllers"]) if unified else keys))
    return Place(tuple(sorted(dirs, key=lambda one: one.version)))


def _own(path: str, config: "Config") -> str:
    """The container's cgroup, of which its process may be in a sub-cgroup: where the configuration names it, up to there."""
    named = config["linux"]["cgroupsPath"]
    if named and ":" not in named:
        parts, wanted = path.split("/"), [part for part in named.split("/") if part]
        for end in range(len(parts), 0, -1):
            if parts[max(0, end - len(wanted)) : end] == wanted:
                return "/".join(parts[:end])
    if named and named.count(":") == 2:
        _, prefix, name = named.split(":")
        unit = name if name.endswith(".slice") else f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        before, found, _ = path.partition(f"/{unit}")
        return before + found if found else path
    return path


def _within(path: str, other: str) -> bool:
    return (path + "/").startswith(other.rstrip("/") + "/")


def _paths(pid: int) -> dict[str, str]:
    try:
        folder = observe.hold(pid)
    except observe.Gone:
        return {}
    try:
        return observe.cgroups(folder)
    except OSError:
        return {}
    finally:
        os.close(folder)


def _parent(pid: int) -> int:
    try:
        folder = observe.hold(pid)
    except observe.Gone:
        return 0
    try:
        return observe.stat(folder)[1]
    except OSError:
        return 0
    finally:
        os.close(folder)
