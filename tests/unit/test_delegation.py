"""Whose a container's cgroup is, and which sub-cgroup an exec asks for: without a kernel."""

from json import dumps
from typing import Any

import pytest

from rundlet.cgroup.enter import choose
from rundlet.cgroup.place import Dir, Place
from rundlet.confine.explain import given_away
from rundlet.errors import BadSpec, Refused, Usage
from rundlet.plan.delegation import Delegation, decide
from rundlet.spec import load

LAYOUTS: dict[str, Any] = {name: {"layout": name, "mounts": {}, "own": {}, "controllers": []} for name in ("v1", "hybrid", "v2", "none")}
MAPS = [{"containerID": 0, "hostID": 5000, "size": 10}, {"containerID": 10, "hostID": 9000, "size": 10}]


def config(
    *, spaces: "tuple[str, ...]" = ("mount", "cgroup", "user"), uid: int = 0, options: "tuple[str, ...]" = ("rw",), kind: str = "cgroup",
    where: str = "/sys/fs/cgroup", annotation: "str | None" = None,
) -> Any:
    asked: "dict[str, Any]" = {
        "ociVersion": "1.0.2", "process": {"args": ["x"], "cwd": "/", "user": {"uid": uid, "gid": 0}}, "root": {"path": "r"},
        "mounts": [{"destination": where, "type": kind, "source": "cgroup", "options": list(options)}],
        "linux": {"namespaces": [{"type": name} for name in spaces]},
    }
    if "user" in spaces:
        asked["linux"] |= {"uidMappings": MAPS, "gidMappings": MAPS}
    if annotation is not None:
        asked["annotations"] = {"run.oci.delegate-cgroup": annotation}
    return load(dumps(asked).encode())[0]


@pytest.mark.parametrize(
    ("given", "layout", "owner"),
    [
        ({}, "v2", 5000), ({"uid": 12}, "v2", 9002), ({"kind": "cgroup2"}, "v2", 5000),
        ({"where": "/sys/fs/cgroup/"}, "v2", 5000), ({}, "v1", None), ({}, "hybrid", None), ({"options": ("ro",)}, "v2", None),
        ({"where": "/cgroup"}, "v2", None), ({"spaces": ("mount", "user")}, "v2", None), ({"kind": "tmpfs"}, "v2", None),
        ({"spaces": ("mount", "cgroup")}, "v2", None), ({"spaces": ("mount", "cgroup"), "uid": 1000}, "v2", 1000),
    ],
)
def test_the_owner(given: "dict[str, Any]", layout: str, owner: "int | None") -> None:
    assert decide(config(**given), LAYOUTS[layout]).owner == owner


def test_the_annotation() -> None:
    assert decide(config(annotation="/a/b/"), LAYOUTS["v2"]) == Delegation(5000, "a/b", (5000, 5000))
    assert decide(config(annotation="", spaces=("mount",)), LAYOUTS["v1"]) == Delegation(None, "", (0, 0))
    for layout in ("v1", "hybrid", "none"):
        with pytest.raises(Refused, match="delegate-cgroup not supported on cgroup v1"):
            decide(config(annotation="a"), LAYOUTS[layout])
    for path in ("..", "a/../b", "a//b", "./a"):
        with pytest.raises(BadSpec, match="must be a path below"):
            decide(config(annotation=path), LAYOUTS["v2"])


def test_explain_tells() -> None:
    facts: "Any" = {"cgroup": LAYOUTS["v2"]}
    assert given_away(config(annotation="a"), facts) == [
        "the container's cgroup: given to user 5000", "its sub-cgroup a: given to user 5000, and where the process is",
    ]
    assert given_away(config(options=("ro",)), facts) == []


CPU = Dir("/v1/cpu,cpuacct/box", "/v1/cpu,cpuacct", 1, ("cpu", "cpuacct"))
MEMORY = Dir("/v1/memory/box", "/v1/memory", 1, ("memory",))
NAMED = Dir("/v1/systemd/box", "/v1/systemd", 1, ("name=systemd",))
UNIFIED = Dir("/v2/box", "/v2", 2, ("pids",))
HERE = Place((CPU, MEMORY, NAMED, UNIFIED))


def paths(*words: str) -> "list[str]":
    return [at.path for at in choose(HERE, words).dirs]


def test_a_sub_cgroup_for_all_or_for_one() -> None:
    assert choose(HERE, ["/"]) == HERE
    assert paths("in") == ["/v1/cpu,cpuacct/box/in", "/v1/memory/box/in", "/v1/systemd/box/in", "/v2/box/in"]
    assert paths("memory:in", "cpu,cpuacct:/un/") == ["/v1/cpu,cpuacct/box/un", "/v1/memory/box/in", "/v1/systemd/box", "/v2/box"]
    assert paths("systemd:in")[2] == paths("name=systemd:in")[2] == "/v1/systemd/box/in"
    assert paths("memory:/") == [at.path for at in HERE.dirs]


@pytest.mark.parametrize(
    ("words", "fault", "text"),
    [
        (["a", "b"], Usage, "invalid --cgroup argument: a"), (["memory:a:b"], Usage, "invalid --cgroup argument"),
        (["memory:a", "memory:b"], Usage, "controller memory specified multiple times"), (["cpu:a", "cpuacct:b"], Usage, "have one path"),
        (["pids:a"], Refused, "unknown controller pids"), (["freezer:a"], Refused, "unknown controller freezer"),
        (["memory:../x"], BadSpec, " is not a sub cgroup path"), ([":a"], Refused, "unknown controller "),
    ],
)
def test_sub_cgroups_that_cannot_be(words: "list[str]", fault: "type[Exception]", text: str) -> None:
    with pytest.raises(fault, match=text):
        choose(HERE, words)
