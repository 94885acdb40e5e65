"""The cgroup of a container when systemd makes it (--cgroup-manager systemd): what create, update and delete do about it."""

import posix

from rundlet import log
from rundlet.cgroup import files, systemd
from rundlet.errors import Fault, Refused
from rundlet.plan import devicefilter
from rundlet.plan import systemd as plan_systemd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    from rundlet.cgroup.place import Place
    from rundlet.host import Facts
    from rundlet.plan.devicefilter import Rule
    from rundlet.plan.write import Write
    from rundlet.spec.types import Config

    class Made(TypedDict):
        """What later commands know of the unit: its name, the address of the bus, the cgroup in it, and whether it is a user's."""

        unit: str
        bus: str
        subgroup: str
        user: bool


class Unit:
    """The unit of a container to be. There is a manager to make it as soon as there is this."""

    def __init__(self, config: "Config", container_id: str, facts: "Facts") -> None:
        """Raises BadSpec and Refused."""
        user = posix.geteuid() != 0 or facts["user_namespace"]
        cgroups = facts["cgroup"]
        if not cgroups["mounts"]:
            raise Refused("the systemd cgroup manager needs cgroups, and none are mounted here", "leave out --systemd-cgroup")
        annotations = config["annotations"]
        self.unit = plan_systemd.unit(config["linux"]["cgroupsPath"], container_id, user)
        self.subgroup = plan_systemd.subgroup(annotations, 2 if cgroups["layout"] == "v2" else 1)
        self.text = f"rundlet container {container_id}"
        self.properties = plan_systemd.annotated(annotations)
        self.bus = systemd.connect(user)
        self.version = systemd.version(self.bus)
        if not user:  # a user's manager may not filter devices
            rules = devicefilter.rules(config["linux"]["resources"]["devices"])
            self.properties = {**plan_systemd.devices(*devicefilter.since_reset(rules), self.version), **self.properties}
        self.place = systemd.place(self.bus, self.unit, self.subgroup, cgroups)
        self.user = user
        self.started = False

    def made(self) -> "Made":
        """What later commands need to know, for the container's record."""
        return {"unit": self.unit.name, "bus": self.bus.address, "subgroup": self.subgroup, "user": self.user}

    def start(self, pid: int, writes: "tuple[Write, ...]") -> str:
        """Asks for the unit, with the limits that it has properties for; the job. Raises Refused."""
        files.thawed(self.place, self.subgroup)
        properties = {**plan_systemd.limits(writes, self.version), **self.properties}
        job = systemd.start(self.bus, self.unit, pid, properties, self.text)
        self.started = True
        return job

    def enter(self, job: str, pid: int, need: "set[str]") -> "Place":
        """Once the unit is there: the container's cgroups in it, with the process in them. Raises Refused and StepFailed."""
        systemd.wait(self.bus, self.unit, job)
        self.bus.close()  # the bus would go on to tell us of jobs
        return systemd.settle(self.unit, self.place, pid, need).place

    def stop(self) -> None:
        """Undoes start."""
        if self.started:
            stop(self.made())
            files.remove(self.place)


class Limits:
    """The properties of a container's unit that are to say other limits, and what they were before."""

    def __init__(self, made: "Made", writes: "tuple[Write, ...]", rules: "Sequence[Rule] | None") -> None:
        """For limits that have changed, and device rules where these have. Raises Refused."""
        self.unit = made["unit"]
        self.bus = systemd.again(made["bus"])
        try:
            known = systemd.version(self.bus)
            self.asked = list(plan_systemd.limits(writes, known).items())
            if rules is not None and not made["user"]:
                # what is set is added to what there is, and nothing else than nothing takes it all away
                self.asked += plan_systemd.NO_DEVICES.items()
                self.asked += plan_systemd.devices(*devicefilter.since_reset(rules), known).items()
            self.former = plan_systemd.replacing(systemd.properties(self.bus, self.unit, dict(self.asked)))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Hangs up."""
        self.bus.close()

    def change(self) -> None:
        """Tells systemd. Raises Refused."""
        systemd.update(self.bus, self.unit, self.asked)

    def take_back(self, fault: Fault) -> None:
        """Has systemd know again what it knew; where it will not, this is said in the fault."""
        try:
            systemd.update(self.bus, self.unit, self.former)
        except Refused as second:
            fault.cleanup.append(str(second))


def attach(made: "Made", pid: int) -> None:
    """Has one more process of the container moved to where the first one was, for who may not do that by himself. Raises Refused."""
    bus = systemd.again(made["bus"])
    try:
        systemd.attach(bus, made["unit"], f"/{made['subgroup']}", pid)
    finally:
        bus.close()


def stop(made: "Made") -> None:
    """Stops the unit of a container whose processes are gone. systemd may be gone as well: then that is said, and nothing else to do."""
    try:
        bus = systemd.again(made["bus"])
        try:
            systemd.stop(bus, made["unit"])
        finally:
            bus.close()
    except Refused as e:
        log.warning(str(e))
