"""Cgroups without a kernel: reading the layout, choosing the place."""

from json import dumps as to_json
from json import loads as from_json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.cgroup.layout import parse
from rundlet.cgroup.place import chief, dump, find, load, place, sub
from rundlet.errors import BadSpec

if TYPE_CHECKING:
    from rundlet.plan.resources import CgroupFacts

V1_MOUNTS = """\
20 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 master:3 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/systemd/agent,name=systemd
"""
UNIFIED = "35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1_OWN = "3:cpu,cpuacct:/user/1\n2:memory:/\n1:name=systemd:/user\n"


def facts(mountinfo: str, own: str, hidden: "tuple[str, ...]" = (), controllers: "list[str] | None" = None) -> "CgroupFacts":
    return parse(mountinfo, own, lambda point, device: point not in hidden, lambda point: controllers or [])


def test_v1() -> None:
    found = facts(V1_MOUNTS, V1_OWN)
    assert found == {
        "layout": "v1",
        "mounts": {
            "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory",
            "name=systemd": "/sys/fs/cgroup/systemd",
        },
        "own": {"cpu": "/user/1", "cpuacct": "/user/1", "memory": "/", "name=systemd": "/user"},
        "controllers": [],
    }


def test_hybrid_and_v2() -> None:
    found = facts(V1_MOUNTS + UNIFIED, V1_OWN + "0::/user\n", controllers=["hugetlb"])
    assert found["layout"] == "hybrid"
    assert found["mounts"]["unified"] == "/sys/fs/cgroup/unified"
    assert found["controllers"] == ["hugetlb"]
    found = facts("30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/init.scope\n", controllers=["memory", "pids"])
    assert found == {
        "layout": "v2", "mounts": {"unified": "/sys/fs/cgroup"}, "own": {"unified": "/init.scope"}, "controllers": ["memory", "pids"],
    }


def test_none() -> None:
    assert facts("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n", "0::/\n") == {"layout": "none", "mounts": {}, "own": {}, "controllers": []}


def test_a_mount_under_another_is_not_there() -> None:
    found = facts(V1_MOUNTS + UNIFIED, V1_OWN + "0::/user\n", hidden=("/sys/fs/cgroup/unified",))
    assert found["layout"] == "v1"
    assert "unified" not in found["own"]


def test_inside_a_container() -> None:
    """A part of the hierarchy is mounted, and /proc/self/cgroup counts from the root: docker without a cgroup namespace."""
    line = "30 23 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert facts(line, "2:memory:/docker/abc/inner\n")["own"] == {"memory": "/inner"}
    assert facts(line, "2:memory:/docker/abc\n")["own"] == {"memory": "/"}
    assert facts(line, "2:memory:/docker/abcd\n")["own"] == {}
    assert facts(line, "2:memory:/elsewhere\n")["own"] == {}
    # outside of the root of its cgroup namespace
    assert facts("30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/../other\n")["own"] == {}


def test_a_mount_point_with_a_space() -> None:
    assert facts("30 23 0:27 / /my\\040cgroups\\134 rw - cgroup2 none rw\n", "")["mounts"] == {"unified": "/my cgroups\\"}


HYBRID = facts(V1_MOUNTS + UNIFIED, V1_OWN, controllers=["pids"])
V1 = facts(V1_MOUNTS, V1_OWN)


def test_one_directory_in_each_hierarchy() -> None:
    found = place(HYBRID, None, "box")
    assert [(at.path, at.version, at.controllers) for at in found.dirs] == [
        ("/sys/fs/cgroup/cpu,cpuacct/box", 1, ("cpu", "cpuacct")),
        ("/sys/fs/cgroup/memory/box", 1, ("memory",)),
        ("/sys/fs/cgroup/systemd/box", 1, ("name=systemd",)),
        ("/sys/fs/cgroup/unified/box", 2, ("pids",)),
    ]
    assert [at and at.path for at in (find(found, "cpuacct"), find(found, "pids"), find(found, "devices"), find(found, "io"))] == [
        "/sys/fs/cgroup/cpu,cpuacct/box", "/sys/fs/cgroup/unified/box", "/sys/fs/cgroup/unified/box", None,
    ]
    assert chief(found) == found.dirs[-1]
    assert chief(place({"layout": "none", "mounts": {}, "own": {}, "controllers": []}, None, "box")) is None
    assert find(place(V1, None, "box"), "devices") is None


@pytest.mark.parametrize(
    ("path", "below"),
    [("/a/b", "a/b"), ("a/b", "a/b"), ("//a/./b//", "a/b"), (None, "box"), ("/a..b", "a..b"), ("system.slice:x:y", "system.slice:x:y")],
)
def test_a_path_is_taken_from_the_mount_point(path: "str | None", below: str) -> None:
    assert place(V1, path, "box").dirs[1].path == f"/sys/fs/cgroup/memory/{below}"


@pytest.mark.parametrize("path", ["/../a", "a/../../b", "..", "/", ".", "//", "/a\n"])
def test_a_path_does_not_leave_the_hierarchy(path: str) -> None:
    with pytest.raises(BadSpec, match="/linux/cgroupsPath"):
        place(V1, path, "box")


@given(st.text("./ab", min_size=1))
def test_whatever_the_path_the_place_is_below_the_mount(path: str) -> None:
    try:
        found = place(V1, path, "box")
    except BadSpec:
        return
    for at in found.dirs:
        assert at.path.startswith(at.mount + "/")
        assert not {"", ".", ".."} & set(at.path[len(at.mount) + 1 :].split("/"))


def test_a_place_survives_the_state_file() -> None:
    found = place(HYBRID, "/a/b", "box")
    assert load(dump(found)) == found
    assert load(from_json(to_json(dump(found)))) == found
    assert not [at for at in load(from_json(to_json(dump(found)))).dirs if type(at.controllers) is not tuple]


def test_a_sub_cgroup() -> None:
    found = place(V1, None, "box")
    assert sub(found, "/") == found
    assert sub(found, "in/ner").dirs[1].path == "/sys/fs/cgroup/memory/box/in/ner"
    with pytest.raises(BadSpec, match="--cgroup"):
        sub(found, "../other")

