"""`features` tells the truth: in the form of the specification, about what the plan takes, and about this very kernel."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rundlet import OCI_VERSION, kernel
from rundlet.errors import Fault
from rundlet.life.features import features
from rundlet.plan.mounts import options
from rundlet.seccomp.compile import VERSION, compile_section
from rundlet.spec import load, table
from tests.unit.test_spec_schema import SCHEMAS

needs_an_executor = pytest.mark.skipif(os.geteuid() != 0, reason="what the kernel takes is asked as root")


@pytest.fixture(scope="module")
def said() -> Any:
    return json.loads(json.dumps(features()))


@pytest.mark.skipif(not SCHEMAS, reason="RUNDLET_SPEC_SCHEMAS does not name a folder of schemas")
def test_the_form_of_the_specification(said: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    files = [(path.name, DRAFT4.create_resource(json.loads(path.read_text()))) for path in Path(str(SCHEMAS)).glob("*.json")]
    registry: Any = Registry().with_resources(files).crawl()
    validator = jsonschema.Draft4Validator({"$ref": "features-schema.json#"}, registry=registry)
    assert [error.message for error in validator.iter_errors(said)] == []


def test_every_block_is_there(said: Any) -> None:
    assert set(said) == {
        "ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux", "annotations", "potentiallyUnsafeConfigAnnotations",
    }
    assert set(said["linux"]) == {
        "namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "memoryPolicy", "mountExtensions", "netDevices",
    }
    assert set(said["linux"]["cgroup"]) == {"v1", "v2", "systemd", "systemdUser", "rdma"}
    assert set(said["linux"]["seccomp"]) == {"enabled", "actions", "operators", "archs", "knownFlags", "supportedFlags"}
    assert set(said["linux"]["intelRdt"]) == {"enabled", "schemata", "monitoring"}
    assert set(said["linux"]["memoryPolicy"]) == {"modes", "flags"}
    assert (said["ociVersionMin"], said["ociVersionMax"]) == ("1.0.0", OCI_VERSION)
    assert said["hooks"] == ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


def test_mount_options_are_those_that_the_plan_takes(said: Any) -> None:
    for word in said["mountOptions"]:  # what is not understood goes to the filesystem
        assert word in options.SUPERBLOCK or options.Options([word]).data == ()
    peers = "ro rro rw rrw nosuid rnosuid nodev rdev noexec rnoexec noatime rnoatime strictatime relatime nodiratime sync dirsync bind rbind remount"
    assert {*peers.split(), "rshared", "private", "runbindable", "rslave", "nosymfollow", "rnosymfollow", "lazytime", "tmpcopyup", "copy-symlink"} <= {*said["mountOptions"]}
    assert said["linux"]["mountExtensions"]["idmap"]["enabled"] and {"idmap", "ridmap"} <= {*said["mountOptions"]}
    for word in ("nothing", "rsize=4096"):
        assert word not in said["mountOptions"]


def test_capabilities_and_namespaces_are_the_kernels(said: Any) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert said["linux"]["capabilities"] == list(kernel.CAPABILITIES)[: last + 1]
    names = {"network": "net", "mount": "mnt"}
    there = [kind for kind in kernel.NAMESPACES if Path("/proc/self/ns", names.get(kind, kind)).is_symlink()]
    assert said["linux"]["namespaces"] == sorted(there)


def test_seccomp(said: Any) -> None:
    """What is said to be known is taken; what the schema of configurations knows and libseccomp does not is left out."""
    block = said["linux"]["seccomp"]
    rules = [{"names": ["mkdir"], "action": action} for action in block["actions"]]
    rules += [{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": op}]} for op in block["operators"]]
    asked = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": block["archs"], "flags": block["knownFlags"], "syscalls": rules}
    config = {
        "ociVersion": "1.3.0", "process": {"cwd": "/", "args": ["x"]}, "root": {"path": "x"}, "linux": {"seccomp": asked},
    }
    compile_section(load(json.dumps(config).encode())[0]["linux"]["seccomp"])  # type: ignore[arg-type]
    assert "SCMP_ACT_NOTIFY" in block["actions"] and "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" in block["knownFlags"]
    for arch in set(table.ARCHITECTURES) - set(block["archs"]):
        asked["architectures"] = [arch]
        with pytest.raises(Fault, match="knows no architecture"):
            compile_section(load(json.dumps(config).encode())[0]["linux"]["seccomp"])  # type: ignore[arg-type]
    assert said["annotations"]["io.github.seccomp.libseccomp.version"] == VERSION


@needs_an_executor
def test_flags_are_those_of_the_kernel(said: Any) -> None:
    """TSYNC came with Linux 3.17, LOG with 4.14, SPEC_ALLOW with 4.17, WAIT_KILLABLE_RECV with 5.19."""
    since = {"TSYNC": (3, 17), "LOG": (4, 14), "SPEC_ALLOW": (4, 17), "WAIT_KILLABLE_RECV": (5, 19)}
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    expected = sorted("SECCOMP_FILTER_FLAG_" + flag for flag, first in since.items() if release >= first)
    assert said["linux"]["seccomp"]["supportedFlags"] == expected


def test_annotations_that_change_confinement(said: Any) -> None:
    assert said["potentiallyUnsafeConfigAnnotations"] == ["run.oci.", "org.systemd.property.", "org.rundlet.apparmor."]
    named = {word for file in Path(options.__file__).parents[2].rglob("*.py") for word in file.read_text().split('"') if word.startswith("run.oci.")}
    assert len(named) > 5
