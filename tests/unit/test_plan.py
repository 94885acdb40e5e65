"""The plan without a kernel: what the order must never break, for any configuration, and a few plans in full."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rundlet import kernel as k
from rundlet import spec
from rundlet.confine.text import plan_lines
from rundlet.executor.program import Program
from rundlet.life.spec import template
from rundlet.plan import order, stages
from rundlet.plan.apparmor import Transition
from rundlet.plan.bundle import Bundle
from rundlet.plan.seccomp import LISTENER
from rundlet.plan.step import Call, Step

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "plans"
EXEC = Transition("exec", "web", ("web",), "", 4)
STACK = Transition("stack", "web", ("rt", "web"), "", 6)
KEEP = Transition("keep", "", ("unconfined",), "", 1)
HIERARCHY_V2 = [("/sys/fs/cgroup/box", 2, ["memory", "pids"])]
HIERARCHY_V1 = [("/sys/fs/cgroup/cpu,cpuacct/box", 1, ["cpu", "cpuacct"]), ("/sys/fs/cgroup/systemd/box", 1, ["name=systemd"])]
FILTER = bytes(8) * 3
CAPABILITIES = list(k.CAPABILITIES)


def config(**changes: Any) -> Any:
    """A configuration of rundlet spec, changed at the paths given as a__b=value, as spec.load resolves it."""
    raw = copy.deepcopy(template())
    raw["process"]["terminal"] = False  # type: ignore[index]
    for path, value in changes.items():
        at: Any = raw
        *names, last = path.split("__")
        for name in names:
            at = at.setdefault(name, {})
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return spec.load(json.dumps(raw).encode())[0]


def bundle(conf: Any) -> Bundle:
    """What a look at the host would give: every bind source is a directory."""
    binds = {i: (mount["source"], True) for i, mount in enumerate(conf["mounts"]) if "bind" in mount["options"] or "rbind" in mount["options"]}
    return Bundle("/b/rootfs", binds, {})


def create(conf: Any, transition: Transition = EXEC, filter_: bytes | None = FILTER, cgroups: Any = None, **choices: Any) -> stages.Plan:
    return order.create(conf, transition, "scoped", bundle(conf), cgroups or HIERARCHY_V2, filter_, stages.Choices("box", **choices))


namespaces = st.lists(st.sampled_from(["pid", "network", "ipc", "uts", "cgroup", "time"]), unique=True).map(lambda kinds: [*kinds, "mount"])
names = st.lists(st.sampled_from(CAPABILITIES), unique=True, max_size=6)
bind_options = st.builds(
    lambda flags, ways: [*flags, *ways], st.lists(st.sampled_from(["ro", "rro", "nosuid", "nodev", "noexec", "noatime"]), unique=True, max_size=3),
    st.lists(st.sampled_from(["rslave", "shared", "private"]), max_size=1),
)
paths = st.lists(st.sampled_from(["a", "b", "c.d", "e f"]), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@st.composite
def configs(draw: st.DrawFn) -> Any:
    """Configurations that are valid, over everything that changes the order."""
    kinds = draw(namespaces)
    user = draw(st.booleans())
    bounding = draw(names)
    sets = {"bounding": bounding, "permitted": bounding, "effective": bounding[:2], "inheritable": bounding[:3], "ambient": bounding[:1]}
    mounts = list(template()["mounts"])  # type: ignore[call-overload]
    for _ in range(draw(st.integers(0, 3))):
        recursive = draw(st.sampled_from(["bind", "rbind"]))
        mounts.append({"destination": draw(paths), "source": "/host" + draw(paths), "options": [recursive, *draw(bind_options)]})
    changes: dict[str, Any] = {
        "process__noNewPrivileges": draw(st.booleans()),
        "process__capabilities": sets,
        "process__user": {"uid": draw(st.sampled_from([0, 5])), "gid": 3, "additionalGids": draw(st.lists(st.integers(0, 9), max_size=3))},
        "process__args": draw(st.sampled_from([["sh"], ["/bin/sh", "-c", "true"], ["./x"]])),
        "process__terminal": draw(st.booleans()),
        "root__readonly": draw(st.booleans()),
        "linux__namespaces": [{"type": kind} for kind in [*kinds, *(["user"] if user else [])]],
        "linux__maskedPaths": draw(st.lists(paths, max_size=3)),
        "linux__readonlyPaths": draw(st.lists(paths, max_size=3)),
        "linux__rootfsPropagation": draw(st.sampled_from([None, "shared", "rslave", "private"])),
        "mounts": mounts,
        "hooks__startContainer": draw(st.lists(st.sampled_from([{"path": "/hook"}, {"path": "/late", "timeout": 2}]), max_size=2)),
    }
    if "uts" not in kinds:
        changes["hostname"] = None
    if user:
        changes["linux__uidMappings"] = changes["linux__gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1000}]
    return config(**changes)


plans = st.builds(
    create, configs(), st.sampled_from([EXEC, STACK, KEEP]), st.sampled_from([None, FILTER]), st.sampled_from([HIERARCHY_V1, HIERARCHY_V2]),
    no_pivot=st.booleans(), new_keyring=st.booleans(), notify=st.booleans(), said=st.sampled_from([("", ""), ("file", ""), ("file", "other")]),
)


def every(plan: stages.Plan) -> list[Step]:
    return [step for stage in plan.stages for step in stage.steps]


def kinds_of(steps: tuple[Step, ...]) -> list[str]:
    return [step.kind for step in steps]


@given(plans)
@settings(max_examples=150, deadline=None)
def test_the_label_is_asked_for_once_and_before_anything_that_takes_privilege_away(plan: stages.Plan) -> None:
    steps = every(plan)
    labels = [i for i, step in enumerate(steps) if step.kind == "label"]
    assert len(labels) == (0 if plan.transition.action == "keep" else 1)
    loses = [i for i, step in enumerate(steps) if step.kind in ("namespace", "clone", "userns", "bounding", "user", "capset", "nnp", "seccomp")]
    assert all(label < min(loses) for label in labels)


@given(plans)
@settings(max_examples=150, deadline=None)
def test_privilege_only_shrinks_and_nothing_after_the_drop_needs_any(plan: stages.Plan) -> None:
    last = kinds_of(plan.stage("last"))
    order_of = [kind for kind in last if kind in ("rlimit", "bounding", "user", "capset", "ambient", "nnp", "exec")]
    ranks = {kind: rank for rank, kind in enumerate(("rlimit", "bounding", "user", "capset", "ambient", "nnp", "exec"))}
    assert [ranks[kind] for kind in order_of] == sorted(ranks[kind] for kind in order_of)
    # what may follow capset needs no capability: prctl on oneself, umask, the filter under no_new_privs, execve
    after = last[last.index("capset") + 1 :]
    assert set(after) <= {"ambient", "umask", "nnp", "seccomp", LISTENER, "hook", "exec"}
    assert last.count("exec") == 1 and last[-1] == "exec"


@given(plans)
@settings(max_examples=150, deadline=None)
def test_programs_of_the_container_run_when_all_is_done_that_confines_them(plan: stages.Plan) -> None:
    last = kinds_of(plan.stage("last"))
    hooks = last.count("hook")
    assert hooks % 2 == 0
    assert last[-1 - hooks : -1] == ["hook"] * hooks


@given(plans)
@settings(max_examples=150, deadline=None)
def test_the_filter_comes_last_under_no_new_privs_and_before_the_drop_without(plan: stages.Plan) -> None:
    last = kinds_of(plan.stage("last"))
    if LISTENER in last:  # handed over at once
        at = last.index(LISTENER)
        assert last.count(LISTENER) == 1 and last[at - 1] == "seccomp"
    last = [kind for kind in last if kind not in (LISTENER, "hook")]
    assert last.count("seccomp") == int(plan.seccomp) and last.count("nnp") == int(plan.nnp)
    if plan.seccomp and plan.nnp:
        assert last[-3:] == ["nnp", "seccomp", "exec"]
    elif plan.seccomp:
        assert last.index("seccomp") < last.index("bounding")
    assert "seccomp" not in [step.kind for stage in plan.stages[:-1] for step in stage.steps]


@given(plans)
@settings(max_examples=150, deadline=None)
def test_inside_the_container_paths_are_opened_in_its_root_alone(plan: stages.Plan) -> None:
    rootfs = "/b/rootfs"
    inside = [step for name in ("inside", "enter") for step in plan.stage(name)]
    for step in inside:
        for call in step.calls:
            if call.name == "openat2":
                assert not str(call.args[1]).startswith("/")
                assert int.from_bytes(call.args[2][16:24], "little") & k.RESOLVE_IN_ROOT  # type: ignore[arg-type,index]
            if call.name == "move_mount":
                to_root = call.args[3] == rootfs
                at_slot = not isinstance(call.args[2], int) and (call.args[3] == "" or step.kind == "mount")
                assert to_root or at_slot
            if call.name == "openat":
                # the host's: /dev/null, the old root, its procfs
                assert call.args[1] in ("/dev/null", "/", "ptmx") or str(call.args[1]).startswith("sys/")


@given(plans)
@settings(max_examples=150, deadline=None)
def test_the_first_thing_is_to_hide_and_a_change_of_ids_does_not_undo_it(plan: stages.Plan) -> None:
    assert plan.stage("outside")[0].kind == "hide"
    for step in plan.stage("inside"):
        if step.kind == "userns":
            assert step.calls[-1] == Call("prctl", k.PR_SET_DUMPABLE, 0, 0, 0, 0)


@given(configs())
@settings(max_examples=60, deadline=None)
def test_a_user_mounts_nothing_outside_and_hides_again_before_entering(conf: Any) -> None:
    plan = create(conf, privileged=False, nodes=False)
    takes = [call.name for step in plan.stage("outside") for call in step.calls]
    assert not {"open_tree", "mount_setattr", "unshare", "fsopen"} & {*takes}
    shown = [i for i, step in enumerate(every(plan)) if Call("prctl", k.PR_SET_DUMPABLE, 1, 0, 0, 0) in step.calls]
    assert bool(shown) == ("user" in dict(plan.namespaces))
    if shown:
        assert plan.stage("enter")[0].kind == "hide"
        assert [every(plan)[i].kind for i in shown] == ["clone", "userns"]
    assert "mknodat" not in [call.name for step in every(plan) for call in step.calls if step.what == "make the default devices"]


@given(configs())
@settings(max_examples=60, deadline=None)
def test_the_same_values_give_the_same_plan_and_every_stage_can_be_sent(conf: Any) -> None:
    before = copy.deepcopy(conf)
    one, two = create(conf), create(conf)
    assert one == two and hash(one) == hash(two)
    assert conf == before, "planning changes nothing"
    for machine in (0, 1):
        slots: dict[str, int] = {}
        for stage in one.stages:
            program = Program(stage.steps, slots, {"start": 9, "console": 10}, machine)
            assert len(program.where) >= sum(len(step.calls) for step in stage.steps)


@given(configs(), st.sampled_from([None, FILTER]))
@settings(max_examples=60, deadline=None)
def test_create_and_exec_end_in_the_same_confinement(conf: Any, filter_: bytes | None) -> None:
    choices = stages.Choices("box")
    created = tuple(step for step in create(conf, EXEC, filter_).stage("last") if step.kind != "hook")
    joined = order.execute(conf, conf["process"], EXEC, "scoped", filter_, choices).stage("last")
    assert created[len(created) - len(joined) :] == joined


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rootless": (
        {
            "linux__namespaces": [{"type": kind} for kind in ("user", "pid", "mount", "uts", "ipc", "cgroup")],
            "linux__uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "linux__gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
            "linux__maskedPaths": [], "linux__readonlyPaths": [],
        },
        {"transition": KEEP, "filter_": None, "privileged": False, "set_groups": False},
    ),
    "shell-stacked": ({"process__apparmorProfile": "web"}, {"transition": STACK}),
    "user-namespace": (
        {
            "linux__namespaces": [{"type": kind} for kind in ("user", "pid", "mount", "network", "uts")],
            "linux__uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
            "linux__gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
            "process__noNewPrivileges": False,
        },
        {"transition": KEEP},
    ),
    "joined-by-path": (
        {
            "linux__namespaces": [{"type": "mount"}, {"type": "network", "path": "/run/netns/a"}, {"type": "pid", "path": "/proc/7/ns/pid"}],
            "hostname": None, "process__user": {"uid": 1000, "gid": 1000, "additionalGids": [4, 20]}, "process__args": ["/bin/true"],
            "mounts": [{"destination": "/data", "source": "/srv/data", "options": ["rbind", "rro", "rslave"]}], "root__readonly": True,
        },
        {"transition": EXEC, "filter_": None},
    ),
    "mounts": (
        {
            "mounts": [
                {
                    "destination": "/mapped", "source": "/srv/data", "options": ["rbind", "ridmap"],
                    "uidMappings": [{"containerID": 0, "hostID": 5000, "size": 10}], "gidMappings": [{"containerID": 0, "hostID": 6000, "size": 10}],
                },
                {"destination": "/same", "source": "/srv/other", "options": ["bind", "idmap=uids=0-5000-10;gids=0-6000-10", "dest-nofollow"]},
                {"destination": "/var/lib", "type": "tmpfs", "options": ["tmpcopyup", "ro", "mode=755"]},
                {"destination": "/", "type": "tmpfs", "options": ["size=1m"]},
            ],
            "linux__maskedPaths": [], "linux__readonlyPaths": [], "linux__namespaces": [{"type": "mount"}], "hostname": None,
        },
        {"transition": KEEP, "filter_": None, "no_pivot": True},
    ),
    "cgroup-v1": ({"linux__maskedPaths": [], "linux__readonlyPaths": []}, {"cgroups": HIERARCHY_V1, "filter_": None, "transition": KEEP}),
}


@pytest.mark.parametrize("name", CASES)
def test_plans_in_full(name: str) -> None:
    changes, choices = CASES[name]
    text = "\n".join(plan_lines(create(config(**changes), **choices))) + "\n"
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("RUNDLET_WRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text(), f"the plan has changed; read the difference, then RUNDLET_WRITE_GOLDEN=1 writes {file}"
