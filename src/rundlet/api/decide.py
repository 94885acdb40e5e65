"""What would be done, and why: plans and explanations, of this host or another. Nothing is made, and nothing is waited for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from rundlet import host, log
from rundlet.api.asked import Bundle, CgroupManager, Path, Read
from rundlet.confine import explain as confine_explain
from rundlet.confine import text
from rundlet.confine.explain import Explanation
from rundlet.options import Options
from rundlet.plan import stages

if TYPE_CHECKING:
    from rundlet.host import Facts as Facts
else:
    Facts = dict  # what it is; its keys are for type checkers, since typing is not imported where it is described

said: ContextVar[list[str] | None] = ContextVar("said", default=None)


def note(text: str) -> None:
    """Where warnings go in a program: to whoever asked, else nowhere."""
    listener = said.get()
    if listener is not None:
        listener.append(text)


log.told = note


@contextmanager
def listening() -> Iterator[list[str]]:
    """The warnings that there are meanwhile."""
    heard: list[str] = []
    token = said.set(heard)
    try:
        yield heard
    finally:
        said.reset(token)


class Plan(stages.Plan):
    """What will be done for a container: `stages`, each with a `name` and `steps`, each of them `what` in words and its `calls`.

    A value: printable, comparable and hashable. `transition` is the decision about its AppArmor label.
    """

    __slots__ = ()

    def __init__(self, plan: stages.Plan) -> None:
        for name in stages.Plan.__slots__:
            setattr(self, name, getattr(plan, name))

    def __str__(self) -> str:
        return "\n".join(text.plan_lines(self)) + "\n"


def facts() -> Facts:
    """What decisions are made from: the kernel, AppArmor, cgroups, and what this program may do; as `rundlet host --json` has it."""
    return host.facts(everything=True)


def explain(
    bundle: Bundle, facts: Facts | None = None, *, folder: Path | None = None, cgroup_manager: CgroupManager = "cgroupfs",
) -> Explanation:
    """What create would do with a bundle, and why. `facts` are those of the host in question; None: this one.

    `bundle` is a folder, or a configuration itself, whose paths are relative to `folder`. A container that would be refused is no error
    here: see Explanation.refusal. Raises BadSpec where there is no such configuration, Fault where it cannot be read.
    """
    read = Read(bundle, folder)
    options = Options()
    options.bundle, options.cgroup_manager = read.folder, cgroup_manager
    fd = os.memfd_create("rundlet", os.MFD_CLOEXEC)
    with open(fd, "wb") as file, listening() as warnings:
        file.write(read.text)
        file.flush()
        options.config = f"/proc/self/fd/{fd}"
        found = confine_explain.ask(options, None if facts is None else confine_explain.checked(facts, "facts"))
    found.warnings += [warning for warning in warnings if warning not in found.warnings]
    return found


def plan(
    bundle: Bundle, facts: Facts | None = None, *, folder: Path | None = None, cgroup_manager: CgroupManager = "cgroupfs",
) -> Plan:
    """The plan that create would carry out; the arguments are those of explain. Raises Refused and BadSpec where there would be none."""
    found = explain(bundle, facts, folder=folder, cgroup_manager=cgroup_manager)
    if found.refusal:
        raise found.refusal
    assert found.plan
    return Plan(found.plan)
