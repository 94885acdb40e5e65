"""The validator against the specification's own JSON schemas: the same verdict, apart from a written list of differences.

Runs where RUNDLET_SPEC_SCHEMAS names the folder `schema` of a copy of the runtime-spec (config-schema.json and those it refers to).
"""

import json
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rundlet.errors import BadSpec
from rundlet.spec import load, table
from rundlet.spec.validate import CLOCKS
from tests.unit.test_spec_table import FULL, fields, objects, replace, wrong

SCHEMAS = os.environ.get("RUNDLET_SPEC_SCHEMAS")
pytestmark = pytest.mark.skipif(not SCHEMAS, reason="RUNDLET_SPEC_SCHEMAS does not name a folder of schemas")

# What we refuse and the schema accepts: where (a glob; * stands for any text), and why.
STRICTER = {
    "/process": "required wherever a container is to be started; config.md",
    "/root": "required on Linux; config.md",
    "/ociVersion": "1.0 to 1.3 in the form of SemVer",
    "/process/args": "at least one on Linux; config.md",
    "/process/args/0": "an empty program cannot be found",
    "/process/cwd": "an absolute path; config.md",
    "/process/consoleSize/*": "struct winsize has 16 bits",
    "/process/user/umask": "umask(2) has nine bits",
    "/process/user/uid": "must be mapped",
    "/process/user/gid": "must be mapped",
    "/process/user/additionalGids/*": "must be mapped",
    "/process/oomScoreAdj": "the kernel's range",
    "/process/rlimits/*/type": "those of Linux, each once; config.md",
    "/process/rlimits/*/soft": "not above hard; getrlimit(2)",
    "/process/scheduler/nice": "the kernel's range",
    "/process/scheduler/priority": "the kernel's range, and policies that have one",
    "/process/scheduler/runtime": "for SCHED_DEADLINE only, and as the kernel takes it",
    "/process/scheduler/deadline": "for SCHED_DEADLINE only, and as the kernel takes it",
    "/process/scheduler/period": "for SCHED_DEADLINE only",
    "/process/ioPriority/priority": "the kernel's range",
    "/process/execCPUAffinity/*": "a list that means something, not any text of its letters",
    "/process/apparmorProfile": "names that the kernel would take for another",
    "/root/path": "not empty",
    "/mounts/*/destination": "not empty",
    "/mounts/*/*Mappings": "both or none, and as the kernel takes them",
    "/mounts/*/*Mappings/*": "as the kernel takes them",
    "/mounts/*/options": "idmap needs a mapping; config.md",
    "/hostname": "needs a uts namespace; has 64 bytes",
    "/domainname": "needs a uts namespace; has 64 bytes",
    "/hooks/*/path": "an absolute path; config.md",
    "/hooks/*/timeout": "64 bits",
    "/annotations": "no empty key; config.md",
    "/annotations/": "no empty key; config.md",
    "/linux/namespaces/*/type": "each once; config-linux.md",
    "/linux/namespaces/*/path": "an absolute path; config-linux.md",
    "/linux/*Mappings": "a user namespace and its maps need each other; as the kernel takes them",
    "/linux/*Mappings/*": "as the kernel takes them",
    "/linux/timeOffsets": "needs a time namespace; no empty key",
    "/linux/timeOffsets/*": "the two clocks that have offsets; below a second",
    "/linux/devices/*/type": "not empty",
    "/linux/devices/*/path": "an absolute path; config-linux.md",
    "/linux/devices/*/major": "required but for fifos; the kernel's range",
    "/linux/devices/*/minor": "required but for fifos; the kernel's range",
    "/linux/netDevices": "needs a network namespace; no empty key",
    "/linux/netDevices/*": "names of devices, each once",
    "/linux/resources/unified": "no empty key",
    "/linux/resources/unified/*": "a file's name",
    "/linux/resources/devices/*/type": "a, b or c; config-linux.md",
    "/linux/resources/devices/*/major": "-1 or the kernel's range",
    "/linux/resources/devices/*/minor": "-1 or the kernel's range",
    "/linux/resources/devices/*/access": "of r, w, m; config-linux.md",
    "/linux/resources/memory/swappiness": "0 to 100; config-linux.md",
    "/linux/resources/blockIO/*/major": "the kernel's range",
    "/linux/resources/blockIO/*/minor": "the kernel's range",
    "/linux/resources/blockIO/weightDevice/*": "at least one weight; config-linux.md",
    "/linux/resources/hugepageLimits/*/pageSize": "each once",
    "/linux/resources/network/priorities/*/name": "not empty",
    "/linux/resources/rdma": "no empty key",
    "/linux/resources/rdma/*": "at least one limit; config-linux.md",
    "/linux/seccomp/defaultAction": "not SCMP_ACT_NOTIFY",
    "/linux/seccomp/defaultErrnoRet": "16 bits, and actions that have one; config-linux.md",
    "/linux/seccomp/syscalls/*/names": "none empty",
    "/linux/seccomp/syscalls/*/errnoRet": "16 bits, and actions that have one; config-linux.md",
    "/linux/seccomp/syscalls/*/args/*/index": "six arguments",
    "/linux/sysctl": "no empty key",
    "/linux/sysctl/*": "those of the container's namespaces",
    "/linux/maskedPaths": "needs a mount namespace",
    "/linux/readonlyPaths": "needs a mount namespace",
    "/linux/maskedPaths/*": "an absolute path; config-linux.md",
    "/linux/readonlyPaths/*": "an absolute path; config-linux.md",
    "/linux/intelRdt/closID": "a directory's name",
    "/linux/memoryPolicy/mode": "required; config-linux.md",
    "/linux/memoryPolicy/nodes": "a list that means something",
    "/linux/personality/domain": "required; config-linux.md",
}  # fmt: skip

# What we accept and the schema refuses.
LOOSER = {
    "/linux/resources/pids": "the Go type leaves `limit` out when it is not set",
    "/linux/devices/*/fileMode": "engines write the set-id bits and the bits of the type, too",
    "/linux/rootfsPropagation": "the recursive forms, which engines write",
}
# The same of two kinds of value, anywhere: null counts as absent (Go engines), and so does an empty string.


@pytest.fixture(scope="module")
def schema() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    from referencing import Registry
    from referencing.jsonschema import DRAFT4

    files = [(path.name, DRAFT4.create_resource(json.loads(path.read_text()))) for path in Path(str(SCHEMAS)).glob("*.json")]
    registry: Any = Registry().with_resources(files).crawl()
    return jsonschema.Draft4Validator({"$ref": "config-schema.json#"}, registry=registry)


def known(where: str, differences: dict[str, str]) -> bool:
    return any(fnmatchcase(where, pattern) for pattern in differences)


def compare(schema: Any, config: Any) -> str | None:
    """None where the verdicts agree or differ as written, else what differs."""
    try:
        load(json.dumps(config).encode())
    except BadSpec as fault:
        if known(fault.where, STRICTER) or not schema.is_valid(config):
            return None
        return f"we refuse: {fault}"
    for error in leaves(schema.iter_errors(config)):
        where = "".join(f"/{part}" for part in error.absolute_path)
        if error.instance is not None and error.instance != "" and not known(where, LOOSER):
            return f"the schema refuses: {where}: {error.message}"
    return None


def leaves(errors: Any) -> Iterator[Any]:
    """The errors themselves, not the "anyOf" around them."""
    for error in errors:
        yield from leaves(error.context) if error.context else [error]


def edges(kind: str, more: Any) -> Iterator[Any]:
    """Values at and beyond the edges of what a schema may say of a row's kind."""
    yield from wrong(kind, more)
    yield None
    if kind == "int":
        yield from (more[0], more[1], 0, 512, 65536, 2**31, 2**32, 2**63)
    elif kind == "word":
        yield from more
    elif kind in ("string", "path"):
        yield from ("", "/", "x", "0-1", "0-", "MB:", "1GB", "rw", "RLIMIT_X")
    elif kind == "bool":
        yield from (True, False)
    elif kind in ("map", "object"):
        yield {}
    else:
        yield []


def test_every_field_at_its_edges(schema: Any) -> None:
    assert list(schema.iter_errors(FULL_FOR_SCHEMA)) == []
    differences = []
    count = 0
    for path, _, _, kind, more in fields(FULL_FOR_SCHEMA, table.CONFIG):
        for value in edges(kind, more):
            count += 1
            difference = compare(schema, replace(FULL_FOR_SCHEMA, path, value))
            if difference:
                differences.append(f"{path} = {value!r}: {difference}")
    assert count > 1500
    assert differences == []


def test_every_key_left_out(schema: Any) -> None:
    differences = []
    for path, parent, key, _, _ in list(fields(FULL_FOR_SCHEMA, table.CONFIG)):
        if isinstance(parent, dict):
            kept = parent.pop(key)
            difference = compare(schema, FULL_FOR_SCHEMA)
            parent[key] = kept
            if difference:
                differences.append(f"without {path}: {difference}")
    assert differences == []


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_cases_made_from_the_table(schema: Any, data: st.DataObject) -> None:
    config = data.draw(objects(table.CONFIG))
    config["ociVersion"] = "1.3.0"
    assert compare(schema, config) is None


def test_the_schema_knows_every_field_of_the_table_and_the_table_every_field_of_the_schema() -> None:
    folder = Path(str(SCHEMAS))
    other_platforms = {"solaris", "windows", "vm", "zos", "freebsd", "commandLine", "username"}

    def keys(node: Any, name: str) -> Iterator[str]:
        """Every property that the schema names, wherever it leads."""
        if "$ref" in node:
            file, _, pointer = node["$ref"].partition("#")
            file = file or name
            node = json.loads((folder / file).read_text())
            for part in pointer.split("/")[1:]:
                node = node[part]
            yield from keys(node, file)
            return
        for key, below in node.get("properties", {}).items():
            if key not in other_platforms:
                yield key
                yield from keys(below, name)
        for below in [*node.get("allOf", []), *node.get("anyOf", []), node.get("items", {}), node.get("additionalProperties", {})]:
            if below and isinstance(below, dict):
                yield from keys(below, name)

    def rows(more: Any) -> Iterator[str]:
        for key, _, kind, inner in more:
            yield key
            while kind in ("list", "map"):
                kind, inner = inner
            if kind == "object":
                yield from rows(inner)

    in_schema = set(keys({"$ref": "config-schema.json#"}, "config-schema.json"))
    clocks = {*CLOCKS}  # keys of a map to us, checked by a rule
    assert in_schema - clocks == set(rows(table.CONFIG))


FULL_FOR_SCHEMA = replace(FULL, "/linux/rootfsPropagation", "slave")
