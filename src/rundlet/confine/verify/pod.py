"""Containers that share a PID namespace, as those of a pod do: whose are the processes in it?"""

import os
from typing import TYPE_CHECKING, Any

from rundlet import jsontext
from rundlet.cgroup import place, tasks
from rundlet.errors import Fault, WrongState
from rundlet.life import store

if TYPE_CHECKING:
    from collections.abc import Collection

    from rundlet.spec.types import Config


def joins(config: "Config | dict[str, Any]") -> bool:
    """Whether a configuration asks for a PID namespace that is there already."""
    spaces = (config.get("linux") or {}).get("namespaces") or []
    return any(space["type"] == "pid" and space.get("path") for space in spaces)


def lodgers(folder: str, strangers: "Collection[int]") -> "dict[str, set[int]]":
    """Which of the processes in the PID namespace of the container in `folder` are those of other containers in the same root, which have
    joined it: id → processes."""
    top, own = os.path.split(folder)
    found = {}
    for name in store.names(top) if strangers else ():
        if name != own and (theirs := _of(top, name).intersection(strangers)):
            found[name] = theirs
    return found


def _of(top: str, name: str) -> "set[int]":
    """The processes of a container that joins a PID namespace; none of another."""
    try:
        container = store.find_in(top, name, lock=False)
    except WrongState:
        return set()
    container.close()
    try:
        config: Any = jsontext.loads(container.config(), name) if container.complete else {}
    except (Fault, OSError):
        return set()
    return {container.record["pid"], *tasks.pids(place.load(container.record["cgroup"]))} if joins(config) else set()
