"""Axes, settings and layers of the matrix: each is varied by itself, and nothing is left out without a word."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from rundlet.confine.matrix import config as files
from rundlet.confine.matrix import engine, policy, probes
from rundlet.confine.matrix import settings as s
from rundlet.confine.matrix.run import CONFINEMENTS, file_capability, outside
from rundlet.confine.profile.language import parse
from rundlet.errors import BadSpec, Fault, Usage
from rundlet.executor.program import Program
from rundlet.kernel import CAPABILITIES, MACHINES
from rundlet.life.spec import template
from rundlet.plan.label import pattern

SECCOMP = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []}
HOST = s.Host("", CAPABILITIES, SECCOMP, 0, "web")
BARE = s.Host("no AppArmor", CAPABILITIES, None, 0, "web")
USER = s.Host("no AppArmor", (), SECCOMP, 1000, None)


def bundle() -> dict[str, Any]:
    config: dict[str, Any] = template()
    config["process"]["apparmorProfile"] = "own"
    config["linux"]["seccomp"] = SECCOMP
    return s.base(config)[0]


def made(change: dict[str, str], host: s.Host = HOST) -> s.Case:
    return s.case(bundle(), s.named(change), host)


def test_the_default_design() -> None:
    rows = s.default()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert len({tuple(sorted(row.axes.items())) for row in rows}) == len(rows)
    assert {"bundle", "open", "strict", "strict profile=given"} <= set(names)
    for axis, values in s.AXES.items():
        for value in values:
            wanted = s.named({axis: value}).axes if value != "bundle" else s.BUNDLE
            assert any(row.axes == wanted for row in rows), "one axis at a time"
    for confinement, nnp, profile in product(s.AXES["confinement"], ("off", "config", "inherited"), ("none", "given")):
        assert any(row.axes == s.OPEN | {"confinement": confinement, "nnp": nnp, "profile": profile} for row in rows)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({}, "confinement=enforce profile=given nnp=config"), ({"nnp": "inherited"}, "confinement=enforce profile=given nnp=inherited"),
        ({"confinement": "complain", "root": "ro"}, "confinement=complain profile=given nnp=config root=ro"),
        ({"confinement": "unconfined-mode", "nnp": "off"}, "confinement=enforce profile=given nnp=config"),
    ],
)  # fmt: skip
def test_stacked_is_what_makes_a_runtime_stack(change: dict[str, str], name: str) -> None:
    found = s.named({"profile": "stacked", **change})
    assert found.name == name
    assert found in s.default() or "root" in change


def test_a_full_product() -> None:
    rows = s.full({"nnp": ["off", "config"], "capabilities": ["none", "default", "all"]})
    assert len(rows) == 6
    assert [row.name for row in rows][:3] == ["capabilities=none", "capabilities=default", "open"]
    with pytest.raises(Usage, match="unknown axis colour"):
        s.full({"colour": ["red"]})
    with pytest.raises(Usage, match="no value 'red'; known are bundle, rw, ro"):
        s.full({"root": ["red"]})


def test_nothing_of_the_host_is_within_reach() -> None:
    config: dict[str, Any] = template()
    config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}, {"type": "user", "path": "/x"}]
    config["linux"] |= {"rootfsPropagation": "shared", "cgroupsPath": "/of/another"}
    config["hooks"] = {"poststart": [{"path": "/bin/x"}]}
    safe, changed = s.base(config)
    spaces = {space["type"]: space for space in safe["linux"]["namespaces"]}
    assert set(s.NEEDED_NAMESPACES) <= set(spaces)
    assert not [space for space in spaces.values() if "path" in space]
    assert "hooks" not in safe
    assert not {"rootfsPropagation", "cgroupsPath"} & set(safe["linux"])
    assert changed == [
        "a pid namespace of its own", "a network namespace of its own", "an ipc namespace of its own", "a uts namespace of its own",
        "a user namespace of its own", "no mount propagation to the host", "no hooks",
    ]
    assert config["linux"]["rootfsPropagation"] == "shared", "the caller's is left alone"


@pytest.mark.parametrize(
    ("change", "host", "why"),
    [
        ({"profile": "given"}, BARE, "no AppArmor"), ({"confinement": "enforce"}, BARE, "no AppArmor"),
        ({"seccomp": "default"}, BARE, "no seccomp profile of an engine"), ({"user": "mapped"}, USER, "no root"), ({}, USER, "no root"),
    ],
)
def test_not_here(change: dict[str, str], host: s.Host, why: str) -> None:
    with pytest.raises(s.NotHere, match=why):
        made(change, host)
    with pytest.raises(s.NotHere, match="no AppArmor"):
        s.case(bundle(), s.Setting("bundle", s.BUNDLE), BARE)


def test_each_axis_changes_its_own() -> None:
    opened = made({})
    config = opened.read()
    assert "apparmorProfile" not in config["process"]
    assert config["process"]["capabilities"]["effective"] == list(CAPABILITIES)
    assert "seccomp" not in config["linux"]
    assert not config["process"]["noNewPrivileges"]
    assert made({"profile": "given"}).read()["process"]["apparmorProfile"] == "web"
    assert made({"nnp": "config"}).read()["process"]["noNewPrivileges"] is True
    assert made({"nnp": "inherited"}) == s.Case(opened.config, inherited=True)
    assert made({"confinement": "enforce"}) == s.Case(opened.config, confinement="enforce")
    assert made({"seccomp": "default"}).read()["linux"]["seccomp"] == SECCOMP
    assert made({"capabilities": "none"}).read()["process"]["capabilities"]["bounding"] == []
    assert made({"root": "ro"}).read()["root"]["readonly"] is True
    mapped, rootless = made({"user": "mapped"}), made({"user": "rootless"})
    assert mapped.read()["linux"]["uidMappings"] == [{"containerID": 0, "hostID": s.MAPPED, "size": 65536}]
    assert rootless.rootless
    assert rootless.read()["linux"]["uidMappings"] == [{"containerID": 0, "hostID": s.ROOTLESS, "size": 1}]
    untouched = s.case(bundle(), s.Setting("bundle", s.BUNDLE), HOST)
    assert untouched.read() == bundle()


@pytest.mark.parametrize("row", s.default(), ids=lambda row: row.name)
def test_with_every_layer_taken_away_nothing_denies(row: s.Setting) -> None:
    case = s.case(bundle(), row, HOST)
    active = s.active(case, HOST)
    free = s.relaxed(case, active, HOST)
    assert s.active(free, HOST) == ()
    config = free.read()
    assert (free.confinement, free.inherited, free.rootless, free.dac) == ("unconfined", False, False, True)
    assert not {"apparmorProfile"} & set(config["process"])
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & set(config["linux"])
    assert not s.has_user(config)
    for layer in active:
        one = s.relaxed(case, [layer], HOST)
        assert layer not in s.active(one, HOST)
        left = {other for other in active if other != layer}
        # without its user namespace a container may have rules for devices, and mounts of its own kind
        assert left - {"devices", "mount"} <= set(s.active(one, HOST)) <= left | {"devices", "mount"}


@pytest.mark.parametrize("machine", sorted(MACHINES))
@pytest.mark.parametrize("probe", probes.PROBES, ids=lambda probe: probe.name)
def test_every_probe_is_a_program_on_every_machine(probe: probes.Probe, machine: str) -> None:
    steps = probe.steps("/dev/helper")
    assert Program(steps, {}, {"peer": 7}, MACHINES[machine]).text
    assert [step.what for step in steps].count(probes.PROBED) == 1
    assert probe.harmless and probe.what
    assert bool(probe.after) == bool(probe.gained)


def test_the_documentation_names_every_probe_and_axis() -> None:
    page = (Path(__file__).parents[2] / "docs/matrix.md").read_text()
    for probe in probes.PROBES:
        assert f"| {probe.name} | {probe.what} | {probe.harmless} |" in page, probe.name
    for axis, values in s.AXES.items():
        assert f"| `{axis}` | {', '.join(f'`{value}`' for value in values)} |" in page, axis


def test_ids_and_capabilities_of_files() -> None:
    maps = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 10}]
    assert [outside(maps, id_) for id_ in (0, 1, 10, 11)] == [1000, 100000, 100009, 65534]
    assert outside([], 5) == 5
    assert file_capability(0).hex() == "0100000200040000000000000000000000000000"
    assert file_capability(1000).hex() == "0100000300040000000000000000000000000000e8030000"


def test_an_engine_s_profile() -> None:
    asked = {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [{"architecture": name, "subArchitectures": ["SCMP_ARCH_X86"]} for _, name in engine.MACHINES.values()],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["s390"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
        ],
    }
    for capabilities, names in ((set(), ["read", "clone"]), ({"CAP_SYS_ADMIN"}, ["read", "mount"])):
        found = engine.resolved(asked, capabilities)
        assert [rule["names"][0] for rule in found["syscalls"]] == names
        assert found["defaultErrnoRet"] == 38
        assert found["architectures"][1:] == ["SCMP_ARCH_X86"]
    assert engine.resolved(SECCOMP, set()) == SECCOMP


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("colour = 1", "colour: no such key"), ("probes = 1", "probes: must be of type list"), ("probes = [1]", "must be a list of texts"),
        ('probes = ["fly"]', "no probe is called 'fly'; known are set-uid exec"), ("timeout = true", "timeout: must be of type int"),
        ('settings = ["fly"]', "no setting is called 'fly'"), ('settings = ["nnp=maybe"]', "axis nnp has no value 'maybe'"),
        ('[axes]\nsky = ["blue"]', "unknown axis sky"), ("x", "expected '=' after a key"), ("[[probe]]\nname = 'mount'\ncommand = ['x']", "no other probe's"),
        ("[[probe]]\nname = 'x'\ncommand = 'ls'", "probe[0].command: must be a list of texts"), ("[[probe]]\nnames = 'x'", "a probe has a name, a command"),
        ("[[probe]]\nname = 'x'\ncommand = ['ls']\nexpected = 'no'", "probe[0].expected: must be a number"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    with pytest.raises(BadSpec) as caught:
        files.read(str(path))
    assert says in str(caught.value)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(
        'probes = ["mount"]\nsettings = ["open", "strict", "nnp=config root=ro"]\nruntimes = ["crun"]\nprofile = "mine"\npolicy = ["mine.aa"]\ntimeout = 5\n'
        '[axes]\nuser = "mapped"\nnnp = ["off", "config"]\n[[probe]]\nname = "list"\ncommand = ["ls", "/"]\nexpected = 1\n'
    )
    found = files.read(str(path))
    assert [probe.name for probe in found.probes] == ["mount", "list"]
    assert [row.name for row in found.settings] == ["open", "strict", "nnp=config root=ro", "user=mapped", "nnp=config user=mapped"]
    assert (found.runtimes, found.profile, found.policy, found.timeout) == (["crun"], "mine", [str(tmp_path / "mine.aa")], 5)
    assert "other combinations are not tried" in found.design
    with pytest.raises(Fault, match="cannot read"):
        files.read(str(tmp_path / "none"))
    assert files.read(None).settings == s.default()


def test_cases_are_told_apart_by_what_is_run() -> None:
    assert json.loads(made({}).config) == made({}).read()
    assert made({}) == made({}) != made({"nnp": "config"})
    assert hash(made({})) == hash(made({}))


@pytest.mark.parametrize("given", [policy.CONTAINER, "web", 'an "odd" {name}'])
def test_a_confined_runtime_may_change_to_the_given_profile_and_stack_it(given: str) -> None:
    profiles = {one.name: [rule.text for rule in one.statements] for one in parse(policy.text(given)).profiles()}
    assert set(profiles) == {policy.CONTAINER, *CONFINEMENTS.values()}
    for mode in ("enforce", "complain"):
        rules = profiles[CONFINEMENTS[mode]]
        assert {f"change_profile -> {pattern(given, before)}" for before in ("", "&")} <= set(rules)
        assert "change_profile -> unconfined" in rules
    assert profiles[CONFINEMENTS["unconfined-mode"]] == []
