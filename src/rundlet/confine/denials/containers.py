"""Whose a denial is: the container in whose cgroup the process is, else the one whose label it is."""

import datetime
import os
from dataclasses import dataclass, replace

from rundlet import host
from rundlet.cgroup import layout, place
from rundlet.confine.denials.denial import Denial
from rundlet.confine.denials.since import boot
from rundlet.confine.verify import target
from rundlet.errors import Fault, Refused
from rundlet.life import store
from rundlet.plan.label import LEARNING, canonical, components

TICKS = os.sysconf("SC_CLK_TCK")
# what is done to a process of the profile: the process of the record is the other one
RECEIVED = ("receive signal", "be looked for", "be traced by", "be looked into by")


@dataclass(frozen=True)
class Container:
    """What tells a container's processes: its cgroups by their paths in each hierarchy, the label decided for it, its first process.

    `profile` is the one that its configuration asks for: the other parts of the label are the runtime's."""

    id: str
    created: float
    pid: int
    cgroups: tuple[str, ...]
    label: frozenset[str]
    profile: str

    def has(self, profile: str) -> bool:
        """Whether the profile, or the one that it is a child of, is part of the label."""
        return any(within(profile, part) for part in self.label)

    def owns(self, profile: str) -> bool:
        """Whether it is the container's own, or a child of that."""
        return bool(self.profile) and within(profile, canonical(self.profile))


def within(profile: str, parent: str) -> bool:
    """Whether a profile is the other one, or a child or hat of it; nobody is told by `unconfined`."""
    return parent != "unconfined" and (profile == parent or profile.startswith(parent + "//"))


def known(top: str) -> list[Container]:
    """The containers in the folder `top`; those without a record that can be read are left out."""
    found = []
    for name in store.names(top):
        try:
            held = store.find_in(top, name, lock=False)
        except (Fault, OSError):
            continue
        try:
            if held.complete:
                found.append(of(held.record))
        finally:
            held.close()
    return found


def of(record: "store.Record") -> Container:
    """A container by its record."""
    expect = record["expect"]
    return Container(
        record["id"], datetime.datetime.fromisoformat(record["created"]).timestamp(), record["pid"], _below(place.load(record["cgroup"])),
        frozenset(expect["label"] if expect else ()), expect["profile"] if expect else "",
    )


def of_pid(pid: int, config: str) -> Container:
    """Another runtime's, by its first process and the path of its config.json or bundle. Raises WrongState where there is no such process,
    Fault, BadSpec."""
    there = target.of_pid(pid, config)
    try:
        label = components(host.label_of(pid)[0])
    except Refused:
        label = ()  # without AppArmor there is none
    return Container(
        there.name, boot() + there.start / TICKS, pid, _below(target.place(there, layout.read())), frozenset(label),
        there.config["process"]["apparmorProfile"] or "",
    )


def _below(at: place.Place) -> tuple[str, ...]:
    """Cgroups by their paths in their hierarchies."""
    return tuple(one.path[len(one.mount) :] for one in at.dirs)


def cgroups_of(pid: int, when: float) -> list[str]:
    """The cgroups of a process, as proc_pid_cgroup(5) has them; none where it has ended, or began after `when`: it is another one then."""
    try:
        found = store.stat(pid)
        if not found or boot() + found[1] / TICKS > when + 1:
            return []
        text = store.read(f"/proc/{pid}/cgroup").decode("utf-8", "surrogateescape")
    except OSError:
        return []
    return [line.split(":", 2)[2] for line in text.splitlines() if line.count(":") >= 2]


def whose(denial: Denial, containers: list[Container]) -> Denial:
    """The denial with its container, where there is one, and with what its rule would widen beyond that container."""
    alive = [one for one in containers if one.created <= denial.time + 1]
    found = None
    if not denial.what.startswith(RECEIVED):
        inside = cgroups_of(denial.pid, denial.time)
        held = [one for one in alive if any(path == own or path.startswith(own + "/") for own in one.cgroups for path in inside)]
        # of nested ones the innermost
        found = max(held, key=lambda one: max(map(len, one.cgroups), default=0), default=None)
        found = found or next((one for one in alive if one.pid == denial.pid and denial.pid), None)
        if inside:  # it lives, and would be in the cgroup of the container that it is of
            alive = [one for one in alive if not one.cgroups]
    if not found:
        mine, perhaps = _named(denial, alive)
        if len(mine) != 1:
            return replace(denial, maybe=tuple(one.id for one in mine or perhaps))
        found = mine[0]
    widens = denial.widens
    if denial.rule and denial.layer == "apparmor" and found.has(denial.label) and not found.owns(denial.label):
        widens = (f'it is a rule of the profile "{denial.label}", which is the runtime\'s: it holds for every container', *widens)
    return replace(denial, container=found.id, widens=widens)


def _named(denial: Denial, containers: list[Container]) -> tuple[list[Container], list[Container]]:
    """By the label: those whose own profile it is, and those who are held to it besides, as the runtime is that made them."""
    if denial.layer == "seccomp":
        parts = frozenset(components(denial.label)) - {"unconfined", ""}
        return [one for one in containers if parts and parts == one.label], []
    base = denial.label.partition(LEARNING)[0]
    return [one for one in containers if one.owns(base)], [one for one in containers if one.has(base)]
