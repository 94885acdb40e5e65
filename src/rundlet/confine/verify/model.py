"""What verify is asked, and what it answers: values, without I/O.

    Target      a container: its first process, and the configuration it is held to
    Report      what was found of it; `status` is "holds", "differs" or "unknown"
    Difference  one thing that is not as asked: what was asked, what holds, why that matters
    Unknown     one thing that could not be found out, and why; never guessed
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rundlet.life.store import Record
    from rundlet.spec.types import Config

Status = Literal["holds", "differs", "unknown"]
State = Literal["running", "paused", "created", "stopped", "unknown"]  # the last one where it cannot be looked at


@dataclass(frozen=True)
class Difference:
    """Something that does not hold. `fact` is a key of facts.FACTS and stays the same between versions; `subject` is whose it is:
    "container", a path, or "process 4711 (sh)". `pid` and `tid` are given where it is a process's or a thread's."""

    fact: str
    subject: str
    asked: str
    holds: str
    why: str
    pid: int | None = None
    tid: int | None = None


@dataclass(frozen=True)
class Unknown:
    """Something that was asked for and could not be looked at."""

    fact: str
    subject: str
    why: str


@dataclass(frozen=True)
class Report:
    """What was found of one container. `notes` name what is narrower or other than asked and permitted nevertheless: hats, stacks, dropped
    capabilities; `checked` are the facts that were compared, of so many processes and threads; of the kinds in `host_namespaces` the first
    process has the host's namespace; `config` is the path of the configuration it was made from."""

    name: str
    pid: int
    state: State
    differences: tuple[Difference, ...] = ()
    unknown: tuple[Unknown, ...] = ()
    notes: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()
    processes: int = 0
    threads: int = 0
    host_namespaces: tuple[str, ...] = ()
    config: str = ""

    @property
    def status(self) -> Status:
        """A difference counts for more than what is not known."""
        return "differs" if self.differences else "unknown" if self.unknown else "holds"

    @property
    def facts(self) -> frozenset[str]:
        """Those that do not hold or could not be told."""
        return frozenset([one.fact for one in self.differences] + [one.fact for one in self.unknown])

    def as_json(self) -> dict[str, Any]:
        """One entry of "containers" in the document rundlet.verify/1: docs/verify.md."""
        return {
            "id": self.name, "pid": self.pid, "state": self.state, "status": self.status,
            "differences": [{key: value for key, value in vars(one).items() if value is not None} for one in self.differences],
            "unknown": [dict(vars(one)) for one in self.unknown],
            "notes": list(self.notes), "checked": list(self.checked), "processes": self.processes, "threads": self.threads,
            "hostNamespaces": list(self.host_namespaces), "config": self.config,
        }


@dataclass(frozen=True)
class Target:
    """A container to be looked at. Made by of_container() or of_pid(); what is of no interest to callers is not compared or printed."""

    name: str
    pid: int  # of its first process; 0 where there is none
    config: "Config" = field(repr=False, compare=False)
    start: int = 0  # the first process's start time in clock ticks, 0 where any process of that number is meant
    rootfs: str = ""  # of the host; empty where it is not known
    path: str = ""  # of the configuration that was given to whoever made it
    folder: str = ""  # where its state is, empty for another runtime's
    record: "Record | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def of_container(cls, root: str, id: str) -> "Target":
        """One of rundlet's, by the folder of all containers and its id. Raises WrongState where there is none, Fault, BadSpec."""
        from rundlet.confine.verify import target

        return target.of_container(root, id)

    @classmethod
    def of_pid(cls, pid: int, config: str) -> "Target":
        """Any runtime's, by its first process and the path of its config.json or bundle. Raises WrongState where there is no such process,
        Fault, BadSpec."""
        from rundlet.confine.verify import target

        return target.of_pid(pid, config)
