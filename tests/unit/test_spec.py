"""Loading: defaults, what is ignored, what is refused as a whole, what is on the start-up path."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rundlet.errors import BadSpec
from rundlet.spec import load, load_process, load_resources

MINIMAL: dict[str, Any] = {"ociVersion": "1.0.2", "process": {"args": ["sh"], "cwd": "/"}, "root": {"path": "rootfs"}}

NO_RESOURCES: Any = {
    "unified": {},
    "devices": [],
    "memory": {
        "limit": None,
        "reservation": None,
        "swap": None,
        "kernel": None,
        "kernelTCP": None,
        "swappiness": None,
        "disableOOMKiller": None,
        "useHierarchy": None,
        "checkBeforeUpdate": False,
    },
    "cpu": dict.fromkeys(["shares", "quota", "burst", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems", "idle"]),
    "pids": {"limit": None},
    "blockIO": {
        "weight": None,
        "leafWeight": None,
        "weightDevice": [],
        "throttleReadBpsDevice": [],
        "throttleWriteBpsDevice": [],
        "throttleReadIOPSDevice": [],
        "throttleWriteIOPSDevice": [],
    },
    "hugepageLimits": [],
    "network": {"classID": None, "priorities": []},
    "rdma": {},
}
RESOLVED: Any = {
    "ociVersion": "1.0.2",
    "process": {
        "terminal": False,
        "consoleSize": None,
        "user": {"uid": 0, "gid": 0, "umask": None, "additionalGids": []},
        "args": ["sh"],
        "env": [],
        "cwd": "/",
        "capabilities": None,
        "rlimits": [],
        "noNewPrivileges": False,
        "apparmorProfile": None,
        "selinuxLabel": None,
        "oomScoreAdj": None,
        "scheduler": None,
        "ioPriority": None,
        "execCPUAffinity": None,
    },
    "root": {"path": "rootfs", "readonly": False},
    "mounts": [],
    "hostname": None,
    "domainname": None,
    "hooks": {"prestart": [], "createRuntime": [], "createContainer": [], "startContainer": [], "poststart": [], "poststop": []},
    "annotations": {},
    "linux": {
        "namespaces": [],
        "uidMappings": [],
        "gidMappings": [],
        "timeOffsets": {},
        "devices": [],
        "netDevices": {},
        "cgroupsPath": None,
        "resources": NO_RESOURCES,
        "rootfsPropagation": None,
        "seccomp": None,
        "sysctl": {},
        "maskedPaths": [],
        "readonlyPaths": [],
        "mountLabel": None,
        "intelRdt": None,
        "memoryPolicy": None,
        "personality": None,
    },
}


def text(value: object) -> bytes:
    return json.dumps(value).encode()


def test_defaults_are_resolved() -> None:
    assert load(text(MINIMAL)) == (RESOLVED, [])
    assert load_process(text(MINIMAL["process"])) == (RESOLVED["process"], [])
    assert load_resources(b"{}") == (NO_RESOURCES, [])


def test_null_and_empty_mean_absent() -> None:
    """Go engines write null for a nil map, list or pointer, and "" for a string that is not set."""
    config = {
        **MINIMAL,
        "process": {
            **MINIMAL["process"],
            "env": None,
            "user": None,
            "capabilities": None,
            "rlimits": None,
            "apparmorProfile": "",
            "selinuxLabel": None,
            "scheduler": None,
            "oomScoreAdj": None,
        },
        "hostname": "",
        "mounts": None,
        "hooks": {"prestart": None},
        "annotations": None,
        "linux": {
            "namespaces": None,
            "resources": {"memory": None, "devices": None, "cpu": {"cpus": ""}},
            "seccomp": None,
            "rootfsPropagation": "",
            "cgroupsPath": "",
            "sysctl": None,
        },
    }
    assert load(text(config)) == (RESOLVED, [])


def test_each_result_is_fresh() -> None:
    first, _ = load(text(MINIMAL))
    first["mounts"].append({"destination": "/x", "type": None, "source": None, "options": [], "uidMappings": [], "gidMappings": []})
    first["linux"]["resources"]["memory"]["limit"] = 1
    first["annotations"]["a"] = "b"
    assert load(text(MINIMAL)) == (RESOLVED, [])


def test_unknown_keys_are_dropped() -> None:
    config = {**MINIMAL, "windows": {"layerFolders": 7}, "vm": [], "process": {**MINIMAL["process"], "commandLine": 3}, "x": {"y": [1e9]}}
    assert load(text(config)) == (RESOLVED, [])


@pytest.mark.parametrize(
    "version",
    [
        "1.0.0",
        "1.0.0-rc",
        "1.0.0-rc5-dev",
        "1.0.2-dev",
        "1.1.0",
        "1.1.0-rc.3",
        "1.1.0+dev",
        "1.2.0",
        "1.2.1",
        "1.3.0",
        "1.3.99",
        "1.3.0-rc.1+build.7",
    ],
)
def test_versions_accepted(version: str) -> None:
    assert load(text({**MINIMAL, "ociVersion": version}))[0]["ociVersion"] == version


@pytest.mark.parametrize("version", ["0.1.0", "0.9.9", "2.0.0", "1.4.0", "1.4.0-rc.1", "1.10.0", "10.0.0"])
def test_versions_not_supported(version: str) -> None:
    with pytest.raises(BadSpec, match=r"^/ociVersion: version \S+ of the runtime-spec is not supported, only 1\.0\.0 to 1\.3\.x$"):
        load(text({**MINIMAL, "ociVersion": version, "process": "of another age"}))


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "1.0.0.0", "1.01.0", "1.x.0", " 1.0.0", "1.0.", "١.0.0", "-", "1.-1.0"])
def test_versions_that_are_none(version: str) -> None:
    with pytest.raises(BadSpec, match=r"^/ociVersion: must be a semantic version such as 1\.3\.0, not "):
        load(text({**MINIMAL, "ociVersion": version}))


@pytest.mark.parametrize("key", ["ociVersion", "process", "root"])
def test_required_sections(key: str) -> None:
    config = {name: value for name, value in MINIMAL.items() if name != key}
    with pytest.raises(BadSpec) as caught:
        load(text(config))
    assert str(caught.value) == f"/{key}: is required"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ([], "config.json: must be an object, not a list"),
        (None, "config.json: must be an object, not null"),
        ({**MINIMAL, "root": {"path": ""}}, "/root/path: must not be empty"),
        ({**MINIMAL, "root": {}}, "/root/path: is required"),
        ({**MINIMAL, "root": {"path": 1}}, "/root/path: must be a string, not 1"),
        ({**MINIMAL, "process": {"args": ["a"], "cwd": "a"}}, '/process/cwd: must be an absolute path, not "a"'),
        (
            {**MINIMAL, "process": {**MINIMAL["process"], "user": {"uid": "x"}}},
            '/process/user/uid: must be an integer from 0 to 4294967295, not "x"',
        ),
        (
            {**MINIMAL, "process": {**MINIMAL["process"], "user": {"uid": True}}},
            "/process/user/uid: must be an integer from 0 to 4294967295, not true",
        ),
        (
            {**MINIMAL, "process": {**MINIMAL["process"], "user": {"uid": 1e3}}},
            "/process/user/uid: must be an integer from 0 to 4294967295, not 1000.0",
        ),
        ({**MINIMAL, "process": {**MINIMAL["process"], "env": ["A=b", None]}}, "/process/env/1: must be a string, not null"),
        ({**MINIMAL, "annotations": {"a/b~c": 1}}, "/annotations/a~1b~0c: must be a string, not 1"),
        ({**MINIMAL, "annotations": {"": "x"}}, "/annotations: has an empty key"),
        ({**MINIMAL, "linux": {"namespaces": [{"type": "net"}]}}, None),
        ({**MINIMAL, "mounts": [{"source": "x"}]}, "/mounts/0/destination: is required"),
        ({**MINIMAL, "hooks": {"poststop": [{"path": "/h"}, {"path": "h"}]}}, '/hooks/poststop/1/path: must be an absolute path, not "h"'),
        (
            {**MINIMAL, "hooks": {"poststop": [{"path": "/h", "timeout": 0}]}},
            "/hooks/poststop/0/timeout: must be an integer from 1 to 9223372036854775807, not 0",
        ),
    ],
)
def test_messages(config: object, message: str | None) -> None:
    with pytest.raises(BadSpec) as caught:
        load(text(config))
    if message is None:
        message = '/linux/namespaces/0/type: must be one of mount, pid, network, uts, ipc, user, cgroup, time, not "net"'
    assert str(caught.value) == message


def test_files_of_their_own_have_their_own_paths() -> None:
    with pytest.raises(BadSpec, match=r"^/user/uid: must be an integer"):
        load_process(b'{"args": ["a"], "cwd": "/", "user": {"uid": -1}}')
    with pytest.raises(BadSpec, match=r"^/args: must name at least the program to run$"):
        load_process(b'{"args": [], "cwd": "/"}')
    with pytest.raises(BadSpec, match=r"^process file: must be an object, not a list$"):
        load_process(b"[]")
    with pytest.raises(BadSpec, match=r"^process file: line 1 column 2: "):
        load_process(b"{")
    with pytest.raises(BadSpec, match=r"^/memory/limit: must be an integer"):
        load_resources(b'{"memory": {"limit": "1G"}}')
    assert load_process(b'{"args": ["a"], "cwd": "/", "capabilities": {"bounding": ["CAP_X"]}}')[1] == [
        '/capabilities/bounding/0: capability "CAP_X" is not known, left out'
    ]


NUL_AND_HALVES = [
    ("process", {"args": ["a", "b\0c"], "cwd": "/"}, "/process/args/1: must not contain a NUL character"),
    ("process", {"args": ["a"], "cwd": "/", "env": ["A=\0"]}, "/process/env/0: must not contain a NUL character"),
    ("process", {"args": ["a"], "cwd": "/\0"}, "/process/cwd: must not contain a NUL character"),
    ("process", {"args": ["a"], "cwd": "/", "apparmorProfile": "p\0"}, "/process/apparmorProfile: must not contain a NUL character"),
    ("root", {"path": "r\0"}, "/root/path: must not contain a NUL character"),
    ("root", {"path": "r\ud800"}, "/root/path: must not contain half a surrogate pair"),
    ("hostname", "h\0", "/hostname: must not contain a NUL character"),
    ("linux", {"sysctl": {"net.a\0b": "1"}}, "/linux/sysctl/net.a\\u0000b: must not contain a NUL character"),
    ("linux", {"sysctl": {"net.a": "\0"}}, "/linux/sysctl/net.a: must not contain a NUL character"),
    ("mounts", [{"destination": "/a", "options": ["x=\0"]}], "/mounts/0/options/0: must not contain a NUL character"),
    ("annotations", {"a": "\udfff"}, "/annotations/a: must not contain half a surrogate pair"),
    ("annotations", {"\ud8ff": "a"}, "/annotations/\\ud8ff: must not contain half a surrogate pair"),
]


@pytest.mark.parametrize(("key", "value", "message"), NUL_AND_HALVES)
def test_strings_that_the_kernel_cannot_be_given(key: str, value: object, message: str) -> None:
    with pytest.raises(BadSpec) as caught:
        load(text({**MINIMAL, key: value}))
    assert str(caught.value) == message
    upper = text({**MINIMAL, key: value}).replace(b"\\ud", b"\\uD")
    with pytest.raises(BadSpec):
        load(upper)


def test_escapes_that_are_fine() -> None:
    config, _ = load(text({**MINIMAL, "root": {"path": "\U0001f980é"}, "annotations": {"a": "x\0y", "b": "\\u0000"}, "unknown": "\0"}))
    assert config["root"]["path"] == "\U0001f980é"
    assert config["annotations"] == {"a": "x\0y", "b": "\\u0000"}


def test_the_room_imports_only_what_start_up_can_afford() -> None:
    code = "import sys; before = set(sys.modules); import rundlet.spec; print(*sorted(set(sys.modules) - before))"
    root = Path(__file__).resolve().parents[2] / "src"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(run.stdout.split()) <= {
        "_json",
        "rundlet",
        "rundlet.errors",
        "rundlet.jsontext",
        "rundlet.spec",
        "rundlet.spec.table",
        "rundlet.spec.validate",
    }
