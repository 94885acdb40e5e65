"""The table of the configuration: it agrees with the written types, and cases made from it are judged as it says."""

import copy
import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from rundlet.errors import BadSpec
from rundlet.spec import load, load_process, load_resources, table
from rundlet.spec import types as shapes

Rows = tuple[tuple[str, Any, str, Any], ...]

# ── the table and the types say the same ──

# Keys whose last form is made by validate.py, so that the type is narrower or wider than the row says.
FINISHED = {
    ("Device", "major"): (int, "0 for a fifo, else required"),
    ("Device", "minor"): (int, "0 for a fifo, else required"),
    ("NetDevice", "name"): (str, "the name outside, when absent"),
}


def typed_dicts() -> dict[str, Any]:
    return {name: value for name, value in vars(shapes).items() if typing.is_typeddict(value)}


def pairs() -> Iterator[tuple[Any, Rows]]:
    """Every TypedDict with its rows, found by walking both from the top."""
    seen = set()
    todo: list[tuple[Any, Rows]] = [(shapes.Config, table.CONFIG)]
    while todo:
        shape, rows = todo.pop()
        if shape.__name__ in seen:
            continue
        seen.add(shape.__name__)
        yield shape, rows
        hints = typing.get_type_hints(shape)
        for key, _, kind, more in rows:
            hint = without_none(hints[key])
            if kind in ("list", "map"):
                kind, more = more
                hint = typing.get_args(hint)[-1]
            if kind == "object":
                todo.append((hint, more))


def without_none(hint: Any) -> Any:
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    return parts[0] if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else hint


def hint_matches(hint: Any, kind: str, more: Any) -> bool:
    if kind in ("list", "map"):
        base: Any = list if kind == "list" else dict
        return typing.get_origin(hint) is base and hint_matches(typing.get_args(hint)[-1], *more)
    if kind == "object":
        return typing.is_typeddict(hint) and set(hint.__annotations__) == {row[0] for row in more}
    if kind == "word" and typing.get_origin(hint) is typing.Literal:
        return set(typing.get_args(hint)) <= set(more)
    return hint is {"string": str, "path": str, "word": str, "bool": bool, "int": int}[kind]


def test_every_typed_dict_is_described_by_the_table() -> None:
    assert {shape.__name__ for shape, _ in pairs()} == set(typed_dicts())


def test_types_agree_with_the_table() -> None:
    for shape, rows in pairs():
        hints = typing.get_type_hints(shape)
        assert set(hints) == {row[0] for row in rows}, shape.__name__
        assert len(rows) == len(hints), f"{shape.__name__} has a row twice"
        for key, default, kind, more in rows:
            finished = FINISHED.get((shape.__name__, key))
            if finished:
                assert hints[key] is finished[0]
                continue
            optional = type(None) in typing.get_args(hints[key])
            assert optional == (default is None), f"{shape.__name__}.{key}"
            assert hint_matches(without_none(hints[key]), kind, more), f"{shape.__name__}.{key}: {hints[key]}"


def test_defaults_are_of_their_kind() -> None:
    for shape, rows in pairs():
        for key, default, kind, more in rows:
            if default is None or default is ...:
                continue
            if default == ():
                assert kind in ("list", "map", "object"), f"{shape.__name__}.{key}"
            elif kind == "int":
                assert more[0] <= default <= more[1]
            elif kind == "word":
                assert default in more
            else:
                assert type(default) is {"bool": bool, "string": str}[kind], f"{shape.__name__}.{key}"


# ── values by the table ──

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


def one(kind: str, more: Any) -> st.SearchStrategy[Any]:
    """Values that a row of this kind accepts."""
    if kind == "int":
        return st.sampled_from([more[0], more[1]]) | st.integers(*more)
    if kind == "word":
        return st.sampled_from(more)
    if kind == "bool":
        return st.booleans()
    if kind == "path":
        return st.text(LETTERS, max_size=8).map("/".__add__)
    if kind == "string":
        return st.text(LETTERS, min_size=1, max_size=8)
    if kind == "list":
        return st.lists(one(*more), max_size=3)
    if kind == "map":
        return st.dictionaries(st.text(LETTERS, min_size=1, max_size=8), one(*more), max_size=3)
    return objects(more)


@st.composite
def objects(draw: st.DrawFn, rows: Rows) -> dict[str, Any]:
    """Objects that fit the rows: required keys always, others sometimes, sometimes null, sometimes an unknown key."""
    out: dict[str, Any] = {}
    for key, default, kind, more in rows:
        choice = 2 if default is ... else draw(st.integers(0, 4))
        if choice >= 2:
            out[key] = draw(one(kind, more))
        elif choice == 1:
            out[key] = None
    if draw(st.integers(0, 5)) == 0:
        out["x-unknown"] = draw(st.sampled_from([1, None, {}, "x", [[]]]))
    return out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**65) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def judge(loader: Callable[[bytes], tuple[Any, list[str]]], value: object) -> BadSpec | Any:
    """The fault, or the result; whatever else is raised fails the test."""
    try:
        result, warnings = loader(json.dumps(value).encode())
    except BadSpec as fault:
        assert str(fault).isprintable(), "one line"
        assert fault.where
        return fault
    for line in warnings:
        assert line.isprintable(), "one line"
    return result


def is_shaped(value: Any, kind: str, more: Any) -> bool:
    """Whether a result has exactly the keys and kinds of the rows."""
    if kind == "object":
        return set(value) == {row[0] for row in more} and all(
            value[key] is None or is_shaped(value[key], kind, inner) for key, _, kind, inner in more
        )
    if kind in ("list", "map"):
        items = value if kind == "list" else value.values()
        return isinstance(value, list if kind == "list" else dict) and all(is_shaped(item, *more) for item in items)
    return isinstance(value, {"int": int, "bool": bool}.get(kind, str))


LOADERS = [(load, table.CONFIG), (load_process, table.PROCESS), (load_resources, table.RESOURCES)]


@SLOW
@given(JSON, st.sampled_from(LOADERS))
def test_any_json_is_a_result_or_a_bad_spec(value: object, loader: tuple[Any, Rows]) -> None:
    judge(loader[0], value)


@SLOW
@given(st.data(), st.sampled_from(LOADERS))
def test_what_fits_the_table_is_shaped_or_breaks_a_rule(data: st.DataObject, loader: tuple[Any, Rows]) -> None:
    value = data.draw(objects(loader[1]))
    result = judge(loader[0], value)
    if not isinstance(result, BadSpec):
        assert is_shaped(result, "object", loader[1])


@SLOW
@given(st.data(), st.sampled_from(LOADERS), JSON)
def test_any_json_in_the_place_of_a_field(data: st.DataObject, loader: tuple[Any, Rows], junk: object) -> None:
    value = data.draw(objects(loader[1]))
    places = list(fields(value, loader[1]))
    assume(places)
    _, parent, key, *_ = data.draw(st.sampled_from(places))
    parent[key] = junk
    judge(loader[0], value)


# ── one wrong field is named ──


def fields(value: Any, rows: Rows, where: str = "") -> Iterator[tuple[str, Any, Any, str, Any]]:
    """Every field present in `value` that the rows know: (path, its parent, its key, kind, more)."""
    for key, _, kind, more in rows:
        if value.get(key) is not None:
            yield from below(value, key, kind, more, f"{where}/{key}")


def below(parent: Any, key: Any, kind: str, more: Any, where: str) -> Iterator[tuple[str, Any, Any, str, Any]]:
    yield where, parent, key, kind, more
    value = parent[key]
    if kind == "object":
        yield from fields(value, more, where)
    elif kind in ("list", "map"):
        for name in range(len(value)) if kind == "list" else value:
            inner, rows = more
            yield from below(value, name, inner, rows, f"{where}/{str(name).replace('~', '~0').replace('/', '~1')}")


def wrong(kind: str, more: Any) -> list[Any]:
    """Values that no row of this kind accepts."""
    values: list[Any] = [1.0, [[]], {"": {}}] if kind != "list" else [1.0, "", {}]
    if kind != "bool":
        values.append(True)
    if kind not in ("string", "path", "word"):
        values.append("x")
    if kind == "int":
        values += [more[0] - 1, more[1] + 1, "0"]
    elif kind == "word":
        values += ["NO_SUCH_WORD", 0]
    elif kind == "path":
        values += ["relative/path", "./x"]
    elif kind == "map":
        values = [1.0, "x", [], True]
    elif kind == "object":
        values = [1.0, "x", [], True, 0]
    return values


FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1, 2]},
        "args": ["/bin/sh", "-c", ""],
        "env": ["PATH=/bin", "A="],
        "cwd": "/",
        "capabilities": {
            "bounding": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "permitted": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2**64 - 1}],
        "noNewPrivileges": True,
        "apparmorProfile": "docker-default",
        "selinuxLabel": "system_u:system_r:svirt_lxc_net_t:s0:c1,c2",
        "oomScoreAdj": -998,
        "scheduler": {"policy": "SCHED_DEADLINE", "nice": 0, "priority": 0, "flags": ["SCHED_FLAG_RECLAIM"],
                      "runtime": 10000, "deadline": 20000, "period": 30000},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-3, 8", "final": "1"},
    },
    "root": {"path": "rootfs", "readonly": True},
    "mounts": [
        {
            "destination": "/data",
            "type": "none",
            "source": "/srv",
            "options": ["rbind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        }
    ],
    "hostname": "box",
    "domainname": "example.org",
    "hooks": {
        name: [{"path": "/bin/hook", "args": ["hook", "x"], "env": ["A=b"], "timeout": 5}]
        for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    },
    "annotations": {"org.example/key": "value", "empty": ""},
    "linux": {
        "namespaces": [{"type": kind} for kind in table.NAMESPACES[1:]] + [{"type": "mount", "path": "/proc/1/ns/mnt"}],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 1}, "monotonic": {"secs": 7, "nanosecs": 0}},
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
        "netDevices": {"eth1": {"name": "eth0"}},
        "cgroupsPath": "/a/b",
        "resources": {
            "unified": {"memory.high": "max"},
            "devices": [{"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            "memory": {"limit": 1, "reservation": 2, "swap": -1, "kernel": 4, "kernelTCP": 5, "swappiness": 60,
                       "disableOOMKiller": False, "useHierarchy": True, "checkBeforeUpdate": True},
            "cpu": {"shares": 1024, "quota": -1, "burst": 1, "period": 100000, "realtimeRuntime": 1, "realtimePeriod": 2,
                    "cpus": "0-1", "mems": "0", "idle": 1},
            "pids": {"limit": 100},
            "blockIO": {
                "weight": 10,
                "leafWeight": 20,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9223372036854772000}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
        },
        "rootfsPropagation": "rslave",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/listener.sock",
            "listenerMetadata": "data",
            "syscalls": [
                {
                    "names": ["personality", "clone"],
                    "action": "SCMP_ACT_TRACE",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 2**64 - 1, "valueTwo": 7, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "sysctl": {"net/ipv4/ip_forward": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "system_u:object_r:svirt_sandbox_file_t:s0:c1,c2",
        "intelRdt": {"closID": "group", "schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20",
                     "enableMonitoring": True},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX32", "flags": []},
    },
}  # fmt: skip
"""A configuration that gives every field there is. It resolves to itself but for the paths of its new namespaces, which become None."""


def test_the_full_configuration_has_every_field_and_loads_as_it_is() -> None:
    assert is_shaped(load(json.dumps(FULL).encode())[0], "object", table.CONFIG)
    given_paths = {path for path, *_ in fields(FULL, table.CONFIG)}
    for _, rows in pairs():
        for key, *_ in rows:
            assert any(path.rsplit("/", 1)[1] == key for path in given_paths), f"no {key} in the full configuration"
    config, warnings = load(json.dumps(FULL).encode())
    assert warnings == []
    expected = copy.deepcopy(FULL)
    for namespace in expected["linux"]["namespaces"]:
        namespace.setdefault("path", None)
    assert cast(Any, config) == expected


def mutations() -> list[Any]:
    """Every field of the full configuration with every wrong value."""
    return [
        pytest.param(path, bad, id=f"{path}={bad!r}") for path, _, _, kind, more in fields(FULL, table.CONFIG) for bad in wrong(kind, more)
    ]


def replace(value: Any, path: str, new: Any) -> Any:
    """A deep copy of `value` with the one at the JSON pointer replaced."""
    out = copy.deepcopy(value)
    spot = out
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    for part in way:
        spot = spot[int(part) if isinstance(spot, list) else part]
    spot[int(last) if isinstance(spot, list) else last] = new
    return out


def test_each_wrong_field_is_named_by_its_path() -> None:
    """Wrong in type, range or word, so the table itself must refuse it, and exactly there (or just within, for junk in a list)."""
    cases = mutations()
    assert len(cases) > 1000
    for case in cases:
        path, bad = case.values
        result = judge(load, replace(FULL, path, bad))
        assert isinstance(result, BadSpec), case.id
        assert result.where == path or (bad == [[]] and result.where == f"{path}/0"), f"{case.id}: {result}"


def test_each_required_field_is_missed_by_its_path_and_each_other_may_be_null() -> None:
    bound = {  # not required by itself, but by another field of the full configuration
        "/linux": "/hostname",
        "/linux/namespaces": "/linux/uidMappings",
        "/mounts/0/uidMappings": "/mounts/0/uidMappings",
        "/mounts/0/gidMappings": "/mounts/0/gidMappings",
        "/linux/devices/0/major": "/linux/devices/0/major",
        "/linux/devices/0/minor": "/linux/devices/0/minor",
        "/process/scheduler/runtime": "/process/scheduler/runtime",
        "/process/scheduler/deadline": "/process/scheduler/deadline",
    }
    for path, parent, key, _, _ in fields(FULL, table.CONFIG):
        if not isinstance(parent, dict):
            continue
        rows = rows_at(path)
        if rows is None:
            continue  # an entry of a map: its value is not optional
        result = judge(load, replace(FULL, path, None))
        default = next(default for name, default, *_ in rows if name == key)
        if default is ...:
            assert isinstance(result, BadSpec), path
            assert (result.where, result.why) == (path, "is required")
        elif path in bound:
            assert isinstance(result, BadSpec), path
            assert result.where == bound[path]
        else:
            assert not isinstance(result, BadSpec), f"{path}: {result}"


def rows_at(path: str) -> Rows | None:
    """The rows that describe the object which holds the field at `path`; None where that is a map."""
    rows: Any = table.CONFIG
    kind, more = "object", rows
    for part in path.split("/")[1:-1]:
        kind, more = next((row[2], row[3]) for row in more if row[0] == part) if kind == "object" else more
    return more if kind == "object" else None
