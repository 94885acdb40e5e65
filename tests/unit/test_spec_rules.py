"""The rules that look at more than one field: each refused at the field to change, its neighbour accepted."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.errors import BadSpec
from rundlet.spec import load, load_process, load_resources
from rundlet.spec.table import CAPABILITIES
from rundlet.spec.types import Config
from rundlet.spec.validate import number_list

BASE: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "process": {"args": ["sh"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "network", "uts", "ipc")]},
}
MAPS = [{"containerID": 0, "hostID": 100000, "size": 1000}]
NO_CAPABILITIES: Any = {key: [] for key in ("bounding", "effective", "inheritable", "permitted", "ambient")}
USER = {"linux": {"namespaces": [{"type": "user"}], "uidMappings": MAPS, "gidMappings": MAPS}}


def merged(base: Any, change: Any) -> Any:
    """`change` laid over `base`, object by object."""
    if not isinstance(base, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}


def loaded(change: Any) -> tuple[Config, list[str]]:
    return load(json.dumps(merged(BASE, change)).encode())


def accepted(change: Any) -> Config:
    config, warnings = loaded(change)
    assert warnings == []
    return config


def refused(change: Any) -> str:
    with pytest.raises(BadSpec) as caught:
        loaded(change)
    assert str(caught.value).isprintable()
    return str(caught.value)


def namespaces(*kinds: str) -> dict[str, Any]:
    return {"namespaces": [{"type": kind} for kind in kinds]}


# ── process ──


def test_args() -> None:
    assert refused({"process": {"args": []}}) == "/process/args: must name at least the program to run"
    assert refused({"process": {"args": None}}) == "/process/args: is required"
    assert refused({"process": {"args": [""]}}).startswith('/process/args/0: exec: "": executable file not found')
    assert accepted({"process": {"args": ["sh", ""]}})["process"]["args"] == ["sh", ""]


def test_console_size_is_ignored_without_a_terminal() -> None:
    size = {"height": 24, "width": 80}
    assert accepted({"process": {"consoleSize": size}})["process"]["consoleSize"] is None
    assert accepted({"process": {"consoleSize": size, "terminal": True}})["process"]["consoleSize"] == size
    assert accepted({"process": {"terminal": True}})["process"]["consoleSize"] is None


def test_env_without_a_name_is_passed_on_with_a_warning() -> None:
    env = ["A=b", "B", "=c", "A=", "C=d=e"]
    config, warnings = loaded({"process": {"env": env}})
    assert config["process"]["env"] == env
    assert warnings == [
        '/process/env/1: "B" is not of the form NAME=value, passed on as it is',
        '/process/env/2: "=c" is not of the form NAME=value, passed on as it is',
    ]


def test_rlimits() -> None:
    limit = {"type": "RLIMIT_CORE", "soft": 1, "hard": 2**64 - 1}
    accepted({"process": {"rlimits": [limit, {**limit, "type": "RLIMIT_CPU"}]}})
    assert refused({"process": {"rlimits": [limit, limit]}}) == "/process/rlimits/1/type: RLIMIT_CORE is given twice"
    assert refused({"process": {"rlimits": [{**limit, "hard": 0}]}}) == "/process/rlimits/0/soft: must not be above hard, 0, not 1"
    assert refused({"process": {"rlimits": [{**limit, "type": "RLIMIT_X"}]}}).startswith(
        "/process/rlimits/0/type: must be one of RLIMIT_AS,"
    )


def test_capabilities() -> None:
    assert len(set(CAPABILITIES)) == 41
    some = ["CAP_KILL", "CAP_CHOWN", "CAP_KILL"]
    config, warnings = loaded(
        {
            "process": {
                "capabilities": {
                    "bounding": [*some, "CAP_TELEPORT", "kill"],
                    "permitted": some,
                    "inheritable": ["CAP_CHOWN"],
                    "ambient": ["CAP_KILL", "CAP_CHOWN", "CAP_FOWNER", "CAP_X"],
                }
            }
        }
    )
    assert config["process"]["capabilities"] == {
        "bounding": ["CAP_KILL", "CAP_CHOWN"],
        "effective": [],
        "inheritable": ["CAP_CHOWN"],
        "permitted": ["CAP_KILL", "CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    assert warnings == [
        '/process/capabilities/bounding/3: capability "CAP_TELEPORT" is not known, left out',
        '/process/capabilities/bounding/4: capability "kill" is not known, left out',
        '/process/capabilities/ambient/3: capability "CAP_X" is not known, left out',
        "/process/capabilities/ambient: can't raise ambient capabilities CAP_KILL, CAP_FOWNER: not both permitted and inheritable, left out",
    ]


def test_a_required_key_may_be_in_any_case() -> None:
    """As Go's decoder has it, and so who writes for it."""
    config, _ = loaded({"linux": {"resources": {"hugepageLimits": [{"pagesize": "2MB", "limit": 5}]}}})
    assert config["linux"]["resources"]["hugepageLimits"] == [{"pageSize": "2MB", "limit": 5}]
    with pytest.raises(BadSpec, match="pageSize: is required"):
        loaded({"linux": {"resources": {"hugepageLimits": [{"limit": 5}]}}})


def test_absent_capabilities_are_told_from_empty_ones() -> None:
    assert accepted({})["process"]["capabilities"] is None
    assert accepted({"process": {"capabilities": {}}})["process"]["capabilities"] == NO_CAPABILITIES


PROFILES = [
    "docker-default", "unconfined", "/usr/bin/x", "a b", "P (enforce)", "unconfined_x", "unconfinedx", "nconfined", "P//hat", "P//&Q",
    ":ns:P", ":ns://P", ":ns://unconfined", "é" * 2000, "x&y", "unc.x",
]  # fmt: skip
BAD_PROFILES = [
    *["unconfined"[:length] for length in range(1, 10)],
    "&P", "&", " P", "P ", "\tP", "P\n", "P\nQ", "\n", " ", "x" * 4001, "é" * 2001, ":ns:uncon", ":ns://uncon", "P//&unc", "P//& unc",
    "P//&", ":ns:", ":ns", ":", "P//& //&Q",
]  # fmt: skip


@pytest.mark.parametrize("name", PROFILES)
def test_profile_names(name: str) -> None:
    assert accepted({"process": {"apparmorProfile": name}})["process"]["apparmorProfile"] == name


@pytest.mark.parametrize("name", BAD_PROFILES)
def test_profile_names_that_mean_another(name: str) -> None:
    assert refused({"process": {"apparmorProfile": name}}).startswith("/process/apparmorProfile: ")


def test_scheduler() -> None:
    def told(**scheduler: Any) -> str:
        return refused({"process": {"scheduler": scheduler}})

    accepted({"process": {"scheduler": {"policy": "SCHED_FIFO", "priority": 99}}})
    accepted({"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": -20}}})
    accepted({"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2000, "period": 2000}}})
    accepted({"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 2000}}})
    assert told(policy="SCHED_RR") == "/process/scheduler/priority: must be an integer from 1 to 99 for SCHED_RR"
    assert told(policy="SCHED_RR", priority=100) == "/process/scheduler/priority: must be an integer from 0 to 99, not 100"
    assert told(policy="SCHED_IDLE", priority=1).startswith("/process/scheduler/priority: can only be given for SCHED_FIFO and SCHED_RR")
    assert told(policy="SCHED_OTHER", nice=20) == "/process/scheduler/nice: must be an integer from -20 to 19, not 20"
    for key in ("runtime", "deadline", "period"):
        assert told(policy="SCHED_BATCH", **{key: 1}).startswith(f"/process/scheduler/{key}: can only be given for SCHED_DEADLINE")
    assert told(nice=1) == "/process/scheduler/policy: is required"
    for times, words in (
        ({"deadline": 2000}, "runtime: sched_setattr: `SCHED_DEADLINE` requires `runtime`, greater than 0"),
        ({"runtime": 2000}, "deadline: sched_setattr: `SCHED_DEADLINE` requires `deadline`, greater than 0"),
        ({"runtime": 1023, "deadline": 2000}, "runtime: `SCHED_DEADLINE` runtime must be between 1024 and 9223372036854775807, not 1023"),
        ({"runtime": 2001, "deadline": 2000}, "runtime: `SCHED_DEADLINE` runtime 2001 must be <= deadline 2000"),
        ({"runtime": 2000, "deadline": 3000, "period": 2999}, "deadline: `SCHED_DEADLINE` deadline 3000 must be <= period 2999"),
    ):
        assert told(policy="SCHED_DEADLINE", **times) == f"/process/scheduler/{words}"


def test_lists_of_numbers() -> None:
    assert number_list("", 9, "/x") == []
    assert number_list("0-3, 8,9 - 9", 9, "/x") == [(0, 3), (8, 8), (9, 9)]
    for bad in (",", "1,", "-", "1-", "-1", "1--2", "a", "2-1", "0-10", "99999999999999999999", "1 2", "١"):
        with pytest.raises(BadSpec, match=r"^/x: "):
            number_list(bad, 9, "/x")
    assert refused({"process": {"execCPUAffinity": {"initial": "x"}}}).startswith("/process/execCPUAffinity/initial: must be a list")
    assert refused({"process": {"execCPUAffinity": {"final": "9000"}}}).startswith('/process/execCPUAffinity/final: "9000" is not')
    assert refused({"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "1024"}}}).startswith("/linux/memoryPolicy/nodes: ")
    assert refused({"linux": {"memoryPolicy": {"nodes": "1"}}}) == "/linux/memoryPolicy/mode: is required"


@given(st.text("0123456789-, ", max_size=12))
def test_a_list_of_numbers_is_read_or_refused(text: str) -> None:
    try:
        ranges = number_list(text, 50, "/x")
    except BadSpec:
        return
    numbers = [part.split("-") for part in text.replace(" ", "").split(",")] if text else []
    assert ranges == [(int(part[0]), int(part[-1])) for part in numbers]
    assert all(0 <= first <= last <= 50 for first, last in ranges)


# ── namespaces, ids, names ──


def test_namespaces() -> None:
    assert refused({"linux": namespaces("pid", "mount", "pid")}) == "/linux/namespaces/2/type: the pid namespace is given twice"
    joined = accepted({"linux": {"namespaces": [{"type": "pid", "path": "/proc/1/ns/pid"}, {"type": "mount", "path": ""}]}})
    assert joined["linux"]["namespaces"] == [{"type": "pid", "path": "/proc/1/ns/pid"}, {"type": "mount", "path": None}]
    assert refused({"linux": {"namespaces": [{"type": "pid", "path": "proc/1"}]}}).startswith(
        "/linux/namespaces/0/path: must be an absolute"
    )


def test_user_namespace_and_mappings_need_each_other() -> None:
    accepted(USER)
    for key in ("uidMappings", "gidMappings"):
        assert refused({"linux": {key: MAPS}}) == f"/linux/{key}: needs a user namespace in /linux/namespaces"
        accepted(merged(USER, {"linux": {key: []}}))  # there will be one: life/rootless.py
    accepted({"linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}})
    accepted(merged(USER, {"linux": {"namespaces": [{"type": "user", "path": "/x"}]}}))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([(0, 0, 0)], "/0/size: must be an integer from 1 to 4294967295, not 0"),
        ([(0, 0, 5), (5, 4, 1)], "/1/hostID: the ids from 4 overlap those of /linux/uidMappings/0"),
        ([(4, 4, 1), (0, 10, 5)], "/0/containerID: the ids from 4 overlap those of /linux/uidMappings/1"),
        ([(0, 0, 5), (0, 0, 5)], "/1/containerID: the ids from 0 overlap those of /linux/uidMappings/0"),
        ([(0, 4294967295, 1)], "/0/size: hostID 4294967295 and size 1 run past the last id, 4294967294"),
        ([(1, 0, 4294967295)], "/0/size: containerID 1 and size 4294967295 run past the last id, 4294967294"),
        ([(index, index, 1) for index in range(341)], ": must not have more than 340 entries, not 341"),
    ],
)
def test_maps_that_the_kernel_refuses(maps: list[tuple[int, int, int]], message: str) -> None:
    entries = [{"containerID": inside, "hostID": outside, "size": size} for inside, outside, size in maps]
    assert refused(merged(USER, {"linux": {"uidMappings": entries}})) == "/linux/uidMappings" + message
    mount = {"destination": "/x", "options": ["bind"], "uidMappings": entries, "gidMappings": MAPS}
    assert refused({"mounts": [mount]}) == ("/linux/uidMappings" + message).replace("/linux/", "/mounts/0/")


def test_maps_at_their_bounds() -> None:
    many = [{"containerID": index, "hostID": 5 + index, "size": 1} for index in range(340)]
    accepted(merged(USER, {"linux": {"uidMappings": many}}))
    accepted(merged(USER, {"linux": {"gidMappings": [{"containerID": 0, "hostID": 0, "size": 4294967295}]}}))


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=4))
def test_maps_are_refused_exactly_when_they_overlap(maps: list[tuple[int, int, int]]) -> None:
    inside = [number for first, _, size in maps for number in range(first, first + size)]
    outside = [number for _, first, size in maps for number in range(first, first + size)]
    fine = len(set(inside)) == len(inside) and len(set(outside)) == len(outside)
    entries = [{"containerID": a, "hostID": b, "size": size} for a, b, size in maps]
    change = merged(USER, {"linux": {"uidMappings": entries}, "process": {"user": {"uid": maps[0][0]}}})
    if fine:
        accepted(change)
    else:
        assert "overlap" in refused(change)


def test_ids_of_the_process_are_mapped() -> None:
    accepted(merged(USER, {"process": {"user": {"uid": 999, "gid": 999, "additionalGids": [0, 5]}}}))
    assert refused(merged(USER, {"process": {"user": {"uid": 1000}}})) == "/process/user/uid: 1000 is not mapped by /linux/uidMappings"
    assert refused(merged(USER, {"process": {"user": {"gid": 1000}}})) == "/process/user/gid: 1000 is not mapped by /linux/gidMappings"
    assert refused(merged(USER, {"process": {"user": {"additionalGids": [1, 1000]}}})).startswith("/process/user/additionalGids/1: ")
    joined = merged(USER, {"linux": {"namespaces": [{"type": "user", "path": "/x"}]}, "process": {"user": {"uid": 5000}}})
    accepted(joined)  # the joined namespace has its own maps


def test_time_offsets() -> None:
    offsets = {"timeOffsets": {"boottime": {"secs": 1}}}
    assert accepted({"linux": {**namespaces("time"), **offsets}})["linux"]["timeOffsets"] == {"boottime": {"secs": 1, "nanosecs": 0}}
    assert refused({"linux": offsets}) == "/linux/timeOffsets: needs a time namespace in /linux/namespaces"
    joined = {"namespaces": [{"type": "time", "path": "/x"}], **offsets}
    assert refused({"linux": joined}).startswith("/linux/timeOffsets: needs a new time namespace")
    assert refused({"linux": {**namespaces("time"), "timeOffsets": {"realtime": {}}}}).startswith(
        "/linux/timeOffsets/realtime: is not a clock"
    )
    bad = {**namespaces("time"), "timeOffsets": {"boottime": {"nanosecs": 10**9}}}
    assert refused({"linux": bad}).startswith("/linux/timeOffsets/boottime/nanosecs: must be an integer from 0 to 999999999")


@pytest.mark.parametrize("key", ["hostname", "domainname"])
def test_names_need_their_namespace(key: str) -> None:
    accepted({key: "x" * 64})
    accepted({key: "x", "linux": {"namespaces": [{"type": "uts", "path": "/x"}]}})
    assert refused({key: "x", "linux": namespaces("mount")}) == f"/{key}: needs a uts namespace in /linux/namespaces"
    assert refused({key: "é" * 33}) == f"/{key}: must not be longer than 64 bytes"


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_paths_need_a_mount_namespace(key: str) -> None:
    accepted({"linux": {key: ["/proc/kcore"]}})
    assert refused({"linux": {key: ["/proc"], **namespaces("pid")}}) == f"/linux/{key}: needs a mount namespace in /linux/namespaces"
    assert refused({"linux": {key: ["/a", "proc"]}}) == f'/linux/{key}/1: must be an absolute path, not "proc"'


def test_net_devices() -> None:
    config = accepted({"linux": {"netDevices": {"eth0": {}, "eth1": {"name": "lan"}, "eth2": {"name": ""}}}})
    assert config["linux"]["netDevices"] == {"eth0": {"name": "eth0"}, "eth1": {"name": "lan"}, "eth2": {"name": "eth2"}}
    assert (
        refused({"linux": {"netDevices": {"a": {}}, **namespaces("pid")}})
        == "/linux/netDevices: unable to move network devices without a NET namespace: add one to /linux/namespaces"
    )
    assert refused({"linux": {"netDevices": {"a": {}, "b": {"name": "a"}}}}).startswith("/linux/netDevices/b/name: another device")
    for bad in ("x" * 16, "a/b", "a:b", "a b", "..", ".", "eth%d"):
        assert refused({"linux": {"netDevices": {"a": {"name": bad}}}}).startswith("/linux/netDevices/a/name: ")
        assert refused({"linux": {"netDevices": {bad: {}}}}).startswith("/linux/netDevices/")


# ── mounts, hooks ──


def test_relative_destination_is_taken_from_the_root_with_a_warning() -> None:
    config, warnings = loaded({"mounts": [{"destination": "/a"}, {"destination": "dev/x"}]})
    assert [mount["destination"] for mount in config["mounts"]] == ["/a", "/dev/x"]
    assert len(warnings) == 1
    assert warnings[0].startswith('/mounts/1/destination: "dev/x" is relative')


def test_mount_mappings() -> None:
    both = {"destination": "/x", "options": ["bind"], "uidMappings": MAPS, "gidMappings": MAPS}
    accepted({"mounts": [both]})
    assert refused({"mounts": [{**both, "uidMappings": []}]}) == "/mounts/0/uidMappings: is required: give both mappings or none"
    assert refused({"mounts": [{**both, "gidMappings": None}]}) == "/mounts/0/gidMappings: is required: give both mappings or none"
    for option in ("idmap", "ridmap"):
        plain = {"mounts": [{"destination": "/x", "options": ["bind", option]}]}
        assert refused(plain) == "/mounts/0/options: idmap needs uidMappings and gidMappings here, or a user namespace"
        accepted(merged(USER, plain))
        accepted({"mounts": [{**both, "options": ["bind", option]}]})


def test_hook_arguments() -> None:
    hooks = accepted({"hooks": {"prestart": [{"path": "/h"}, {"path": "/h", "args": []}, {"path": "/h", "args": ["x", "y"], "env": []}]}})[
        "hooks"
    ]
    assert hooks["prestart"] == [
        {"path": "/h", "args": ["/h"], "env": None, "timeout": None},
        {"path": "/h", "args": ["/h"], "env": None, "timeout": None},
        {"path": "/h", "args": ["x", "y"], "env": [], "timeout": None},
    ]


# ── sysctl ──


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "network"),
        ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter", "network"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter", "network"),
        ("kernel.msgmax", "kernel/msgmax", "ipc"),
        ("kernel/shm_rmid_forced", "kernel/shm_rmid_forced", "ipc"),
        ("kernel.sem", "kernel/sem", "ipc"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "ipc"),
        ("kernel.domainname", "kernel/domainname", "uts"),
    ],
)
def test_sysctl_of_a_namespace(name: str, path: str, kind: str) -> None:
    assert accepted({"linux": {"sysctl": {name: "1"}, **namespaces(kind)}})["linux"]["sysctl"] == {path: "1"}
    joined = {"namespaces": [{"type": kind, "path": "/x"}], "sysctl": {name: ""}}
    assert accepted({"linux": joined})["linux"]["sysctl"] == {path: ""}
    where = "/linux/sysctl/" + name.replace("/", "~1")
    message = f"{where}: needs a {kind} namespace in /linux/namespaces: it would change the host"
    assert refused({"linux": {"sysctl": {name: "1"}, **namespaces("cgroup")}}) == message


@pytest.mark.parametrize(
    "name", ["kernel.panic", "vm.swappiness", "fs.file-max", "kernel.semx", "kernel.shm", "fs.mqueuex", "netx.a", "user.x"]
)
def test_sysctl_of_the_host(name: str) -> None:
    message = f"/linux/sysctl/{name}: does not belong to a namespace: it would change the host"
    assert refused({"linux": {"sysctl": {name: "1"}}}) == message


@pytest.mark.parametrize(
    "name", ["net", "net.", "net..a", ".net.a", "net/../kernel/panic", "net/./a", "net./.a", "net.//.x", "/net/a", "fs.mqueue."]
)
def test_sysctl_that_is_no_name(name: str) -> None:
    assert refused({"linux": {"sysctl": {name: "1"}}}).endswith(": is not the name of a kernel parameter")


def test_sysctl_with_a_field_of_its_own() -> None:
    assert refused({"linux": {"sysctl": {"kernel.hostname": "x"}}}).endswith(": conflicts with /hostname: set that instead")
    assert refused({"domainname": "d", "linux": {"sysctl": {"kernel/domainname": "x"}}}).endswith(
        ": conflicts with /domainname: set that instead"
    )


@given(st.text("./netabc", min_size=1, max_size=12).map("net".__add__))
def test_an_accepted_sysctl_stays_below_its_folder(name: str) -> None:
    try:
        config = accepted({"linux": {"sysctl": {name: "1"}}})
    except BadSpec:
        return
    (path,) = config["linux"]["sysctl"]
    assert path.startswith("net/")
    assert not {"", ".", ".."} & {*path.split("/")}


# ── devices, limits, filter, the rest ──


def test_devices() -> None:
    def one(**device: Any) -> Any:
        return {"linux": {"devices": [{"path": "/dev/x", **device}]}}

    plain = {"path": "/dev/x", "major": 1, "minor": 2, "fileMode": 0o666, "uid": 0, "gid": 0}
    assert accepted(one(type="c", major=1, minor=2))["linux"]["devices"] == [{**plain, "type": "c"}]
    assert accepted(one(type="u", major=1, minor=2))["linux"]["devices"] == [{**plain, "type": "c"}]
    assert accepted(one(type="p", major=-7, minor=9))["linux"]["devices"] == [{**plain, "type": "p", "major": 0, "minor": 0}]
    accepted(one(type="p"))
    accepted(one(type="b", major=4095, minor=1048575))
    assert refused(one(type="b", minor=1)) == "/linux/devices/0/major: is required for type b"
    assert refused(one(type="c", major=1)) == "/linux/devices/0/minor: is required for type c"
    assert refused(one(type="c", major=4096, minor=1)) == "/linux/devices/0/major: must be an integer from 0 to 4095, not 4096"
    assert refused(one(type="c", major=1, minor=-1)) == "/linux/devices/0/minor: must be an integer from 0 to 1048575, not -1"
    config, warnings = loaded(one(type="c", major=1, minor=2, fileMode=0o20640))
    assert config["linux"]["devices"][0]["fileMode"] == 0o640
    assert warnings == ["/linux/devices/0/fileMode: only the permission bits of 8608 are used"]


def test_resources() -> None:
    def told(**resources: Any) -> str:
        with pytest.raises(BadSpec) as caught:
            load_resources(json.dumps(resources).encode())
        assert refused({"linux": {"resources": resources}}) == f"/linux/resources{caught.value}"
        return str(caught.value)

    config = accepted(
        {"linux": {"resources": {"devices": [{"allow": False}, {"allow": True, "type": "c", "major": 5, "minor": -1, "access": "mrra"}]}}}
    )
    assert config["linux"]["resources"]["devices"] == [
        {"allow": False, "type": "a", "major": None, "minor": None, "access": "rwm"},
        {"allow": True, "type": "c", "major": 5, "minor": None, "access": "rm"},
    ]
    assert told(devices=[{"allow": True, "access": "xy"}]) == '/devices/0/access: must be made of the letters r, w and m, not "xy"'
    assert told(unified={"../x": "1"}) == "/unified/..~1x: must be the name of a file in the cgroup, not a path"
    assert told(unified={"..": "1"}).startswith("/unified/..: ")
    assert told(blockIO={"weightDevice": [{"major": 1, "minor": 1}]}) == "/blockIO/weightDevice/0: must have a weight or a leafWeight"
    assert told(rdma={"mlx": {}}) == "/rdma/mlx: must have hcaHandles or hcaObjects"
    for size in ("2", "MB", "02MB", "2mb", "2TB", "2 MB", "-2MB", "²MB"):
        assert told(hugepageLimits=[{"pageSize": size, "limit": 1}]).startswith("/hugepageLimits/0/pageSize: must be a size such as 2MB")
    page = {"pageSize": "2MB", "limit": 1}
    assert told(hugepageLimits=[page, page]) == "/hugepageLimits/1/pageSize: 2MB is given twice"
    assert told(memory={"swappiness": 101}) == "/memory/swappiness: must be an integer from 0 to 100, not 101"
    accepted({"linux": {"resources": {"pids": {}, "memory": {"swappiness": 100, "limit": -1}}}})


def test_seccomp() -> None:
    def seccomp(**change: Any) -> Any:
        return {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", **change}}}

    def rule(action: str, **change: Any) -> Any:
        return seccomp(syscalls=[{"names": ["clone"], "action": action, **change}])

    accepted(seccomp(defaultErrnoRet=38))
    accepted(seccomp(defaultAction="SCMP_ACT_TRACE", defaultErrnoRet=65535))
    resolved: Any = accepted(rule("SCMP_ACT_ERRNO", errnoRet=0))["linux"]["seccomp"]
    assert resolved == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": None,
        "architectures": [],
        "flags": None,
        "listenerPath": None,
        "listenerMetadata": None,
        "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0, "args": []}],
    }
    assert refused(seccomp(defaultAction="SCMP_ACT_ALLOW", defaultErrnoRet=1)).startswith("/linux/seccomp/defaultErrnoRet: needs")
    assert (
        refused(rule("SCMP_ACT_ALLOW", errnoRet=1))
        == "/linux/seccomp/syscalls/0/errnoRet: needs SCMP_ACT_ERRNO or SCMP_ACT_TRACE, not SCMP_ACT_ALLOW"
    )
    assert refused(rule("SCMP_ACT_ERRNO", errnoRet=65536)).startswith(
        "/linux/seccomp/syscalls/0/errnoRet: must be an integer from 0 to 65535"
    )
    assert (
        refused(seccomp(defaultAction="SCMP_ACT_NOTIFY", listenerPath="/x")) == "/linux/seccomp/defaultAction: must not be SCMP_ACT_NOTIFY"
    )
    notify = rule("SCMP_ACT_NOTIFY")
    notify["linux"]["seccomp"]["listenerPath"] = "/run/x.sock"
    accepted(notify)
    for names in ([], [""], ["read", ""]):
        assert refused(seccomp(syscalls=[{"names": names, "action": "SCMP_ACT_ALLOW"}])).startswith("/linux/seccomp/syscalls/0/names: ")
    bad_arg = {"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}
    assert refused(rule("SCMP_ACT_ALLOW", args=[bad_arg])).startswith(
        "/linux/seccomp/syscalls/0/args/0/index: must be an integer from 0 to 5"
    )
    assert refused({"linux": {"seccomp": {}}}) == "/linux/seccomp/defaultAction: is required"


def test_rdt_and_personality() -> None:
    for group in ("a", "/", "...", ".a"):
        accepted({"linux": {"intelRdt": {"closID": group}}})
    for group in (".", "..", "a/b", "/a"):
        assert refused({"linux": {"intelRdt": {"closID": group}}}).startswith("/linux/intelRdt/closID: ")
    for schema in ("L3:0=f", "MB:0=1\nL3:0=f"):
        assert refused({"linux": {"intelRdt": {"memBwSchema": schema}}}).startswith("/linux/intelRdt/memBwSchema: ")
    config, warnings = loaded({"linux": {"personality": {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}}})
    assert config["linux"]["personality"] == {"domain": "LINUX", "flags": []}
    assert warnings == ["/linux/personality/flags: no flags are defined, left out"]


@pytest.mark.parametrize("word", ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"])
def test_propagation_words(word: str) -> None:
    assert accepted({"linux": {"rootfsPropagation": word}})["linux"]["rootfsPropagation"] == word


def test_a_process_file_obeys_the_same_rules() -> None:
    with pytest.raises(BadSpec, match=r"^/apparmorProfile: "):
        load_process(b'{"args": ["a"], "cwd": "/", "apparmorProfile": "uncon"}')
    with pytest.raises(BadSpec, match=r"^/rlimits/0/soft: "):
        load_process(b'{"args": ["a"], "cwd": "/", "rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}')


def test_keys_in_another_case_are_warned_about() -> None:
    """What they ask for is not done, and a program in Go would have."""
    config, warnings = load(json.dumps(merged(BASE, {
        "process": {"NoNewPrivileges": True, "User": {"uid": 5}, "user": {"UID": 7, "umask": 18}, "ARGS": ["sh"]},
        "linux": {"devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "filemode": 438}], "other": 1, "netdevices": {}},
        "annotations": {"Linux": "a word", "linux": "another"}, "MOUNTS": [], "mounts": [],
    })).encode(), True)
    assert warnings == [
        "/process/NoNewPrivileges: unknown, left out; what is known is noNewPrivileges",
        "/process/user/UID: unknown, left out; what is known is uid",
        "/linux/devices/0/filemode: unknown, left out; what is known is fileMode",
        "/linux/netdevices: unknown, left out; what is known is netDevices",
    ], warnings
    assert (config["process"]["noNewPrivileges"], config["process"]["user"]["uid"]) == (False, 0)
    assert load_process(b'{"args": ["a"], "cwd": "/", "apparmorprofile": "web"}')[1] == [
        "/apparmorprofile: unknown, left out; what is known is apparmorProfile",
    ]
    assert load_resources(b'{"Memory": {}, "pids": {"LIMIT": 1}}')[1] == [
        "/Memory: unknown, left out; what is known is memory", "/pids/LIMIT: unknown, left out; what is known is limit",
    ]


@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(["Linux", "process", "rOOT"]), st.integers() | st.none() | st.lists(st.none()), max_size=4))
def test_odd_keys_do_no_harm(more: Any) -> None:
    """Whatever else is in a configuration."""
    value = {**merged(BASE, {}), "process": {**BASE["process"], **{key: inner for key, inner in more.items() if key.lower() not in ("args", "cwd")}}}
    known = {**more, **value}
    try:
        load(json.dumps(known).encode(), True)
    except BadSpec:
        pass
