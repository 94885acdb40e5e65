"""Scheduling as values: the structures that the kernel reads, and where in the order they are set."""

from struct import unpack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.executor.program import Program
from rundlet.plan import order, scheduling, stages
from rundlet.plan.step import Slot
from rundlet.spec import table
from tests.unit.test_plan import FILTER, KEEP, config, create

SCHEDULER = {"policy": "SCHED_FIFO", "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_UTIL_CLAMP_MAX"]}
IO = {"class": "IOPRIO_CLASS_BE", "priority": 3}
USERS = [{"type": kind} for kind in ("user", "mount", "pid", "network", "uts")]
MAPS = [{"containerID": 0, "hostID": 1000, "size": 10}]


def test_every_word_of_the_specification_has_its_number() -> None:
    assert {*scheduling.POLICIES} == {*table.POLICIES}
    assert {*scheduling.FLAGS} == {*table.SCHEDULER_FLAGS}
    assert {*scheduling.IO_CLASSES} == {*table.IO_CLASSES}
    assert {*scheduling.MODES} == {*table.MEMORY_MODES}
    assert {*scheduling.MODE_FLAGS} == {*table.MEMORY_FLAGS}


def test_sched_attr() -> None:
    times = {"policy": "SCHED_DEADLINE", "nice": -3, "runtime": 5000, "deadline": 6000, "period": 7000}
    for asked, values in (
        (SCHEDULER, (56, 1, 0x41, 0, 7, 0, 0, 0, 0, 1024)),
        (times, (56, 6, 0, -3, 0, 5000, 6000, 7000, 0, 0)),
    ):
        conf = config(process__scheduler=asked)
        (step,) = scheduling.turns(conf["process"])
        raw = step.calls[0].args[1]
        assert isinstance(raw, bytes) and unpack("=IIQiIQQQII", raw) == values


@given(st.sets(st.integers(0, 1023), min_size=1))
def test_masks(numbers: set[int]) -> None:
    text = ",".join(map(str, sorted(numbers)))
    mask = scheduling.bits(text, 1024)
    assert len(mask) == 128
    assert {n for n in range(1024) if mask[n // 8] >> n % 8 & 1} == numbers


def test_ranges() -> None:
    assert scheduling.bits("0-3, 8", 64) == (0x10F).to_bytes(8, "little")
    assert scheduling.bits("5 - 5", 64) == (1 << 5).to_bytes(8, "little")


ASKED: dict[str, Any] = {
    "process__scheduler": SCHEDULER, "process__ioPriority": IO, "linux__personality": {"domain": "LINUX32"},
    "linux__memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-2", "flags": ["MPOL_F_STATIC_NODES"]},
}


@pytest.mark.parametrize("nnp", [True, False])
@pytest.mark.parametrize("users", [True, False])
def test_before_privilege_goes_and_before_a_filter_comes(nnp: bool, users: bool) -> None:
    more = {"linux__namespaces": USERS, "linux__uidMappings": MAPS, "linux__gidMappings": MAPS} if users else {}
    conf = config(process__noNewPrivileges=nnp, **ASKED, **more)
    plan = create(conf, KEEP, FILTER)
    kinds = [step.kind for step in plan.stage("last")]
    assert kinds.count("scheduling") == (2 if users else 4)
    assert max(i for i, kind in enumerate(kinds) if kind == "scheduling") < min(kinds.index("bounding"), kinds.index("seccomp"))
    outside = plan.stage("scheduling")
    assert len(outside) == (2 if users else 0)
    assert all(Slot("process") in step.calls[0].args for step in outside)
    for steps in (outside, plan.stage("last")):
        Program(steps, {}, {"start": 9, "process": 4711})
    assert order.execute(conf, conf["process"], KEEP, "scoped", FILTER, stages.Choices("box")).stage("scheduling") == outside


def test_affinity_is_of_exec() -> None:
    conf = config(process__execCPUAffinity={"initial": "1", "final": "2-3"})
    joined = order.execute(conf, conf["process"], KEEP, "scoped", None, stages.Choices("box"))
    first = next(step for step in joined.stage("outside") if step.kind == "affinity")
    assert joined.stage("outside").index(first) < next(i for i, s in enumerate(joined.stage("outside")) if s.kind == "clone")
    assert (first.what, joined.stage("enter")[0].what) == ("run on the CPUs 1", "run on the CPUs 2-3")
    assert not any("on the CPUs" in step.what for stage in create(conf).stages for step in stage.steps)
