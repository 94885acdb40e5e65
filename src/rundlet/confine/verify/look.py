"""Looks at one container and compares: what is read of it, in which order, and what is made of it."""

import os
import time
from fcntl import LOCK_NB, LOCK_SH, flock
from typing import TYPE_CHECKING, Any

from rundlet.cgroup import tasks
from rundlet.confine.verify import compare, expect, held, inside, lineage, observe, pod, spaces, target, whole
from rundlet.confine.verify.compare import Around, Findings
from rundlet.confine.verify.model import Report, Unknown
from rundlet.errors import WrongState
from rundlet.life import bundle, execs, late, store
from rundlet.life import record as record_file

if TYPE_CHECKING:
    from rundlet.confine.verify.around import Host
    from rundlet.confine.verify.model import State, Target
    from rundlet.confine.verify.observe import Process
    from rundlet.spec.types import Config

PATIENCE = 2.0  # seconds for another command to be done with the container
PAUSE = 0.02
EXECUTORS = ("/memfd:rundlet", "/rundlet/executor/executor")
INITS = ("crun", "runc", "youki")  # programs that wait for start as the first process of another runtime's container
OF_PROCESS = ("apparmor.label", "apparmor.mode", "no-new-privs", "seccomp", "capabilities", "user", "groups")
LATE = "start, exec, update, mounts, pause and resume look first, and kill what does not run as was decided"
PENDING = "the process waits for start: it becomes the container's user, and confined, only then"


def check(asked: "Target", about: "Host") -> Report:
    """The report of a container. While another command is at it, an exec say, what is found is looked at again."""
    try:
        return _check(asked, about)
    except OSError as failure:
        why = f"it cannot be looked at: {(failure.strerror or '').lower()}" + (f": {failure.filename}" if failure.filename else "")
        return Report(asked.name, asked.pid, "unknown", unknown=(Unknown("process", "container", why),), config=asked.path)


def _check(asked: "Target", about: "Host") -> Report:
    if not asked.folder:
        return Look(asked, about, False).report()
    try:
        fd = os.open(asked.folder, observe.FOLDER)
    except OSError:
        return _gone(asked, "the container has been deleted")
    try:
        end = time.monotonic() + PATIENCE
        while True:
            alone = _alone(fd)
            try:
                fresh = target.of_container(os.path.dirname(asked.folder), asked.name)
            except (WrongState, FileNotFoundError):
                return _gone(asked, "the container has been deleted")
            report = Look(fresh, about, alone).report()
            if alone or report.status == "holds" or time.monotonic() > end:
                return report
            time.sleep(PAUSE)
    finally:
        os.close(fd)


def _alone(fd: int) -> bool:
    """Whether no command is at the container, nor will be as long as the descriptor is open."""
    try:
        flock(fd, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _gone(asked: "Target", why: str) -> Report:
    found = Findings()
    found.cannot_tell("process", "container", why)
    return Report(asked.name, 0, "stopped", unknown=tuple(found.unknown), config=asked.path)


class Look:
    """One look at a container."""

    def __init__(self, asked: "Target", about: "Host", alone: bool) -> None:
        self.target = asked
        self.host = about
        self.alone = alone  # no exec is under way
        self.config = asked.config
        self.found = Findings()
        self.place = target.place(asked, about.cgroup)
        self.told = record_file.load(asked.folder) if asked.folder else None
        self.mounts = observe.Mounts()

    def report(self) -> Report:
        """Everything, in turn."""
        found = self.found
        self.state: State = self._state()
        self.config = self._mapped(self.target.config)
        self.processes = self._processes()
        first = next((one for one in self.processes if one.pid == self.target.pid), None)
        if first is None and self.state != "stopped":
            self.state = "stopped"
        if self.state == "stopped":
            left = f"; {len(self.processes)} processes are left in its cgroup" if self.processes else ""
            made = self.target.record is None or self.target.record["phase"] != "creating"
            why = "it does not run" if made else "it is not completed"
            found.cannot_tell("process", "container", f"{why}: nothing to compare{left}")
        if self.state == "paused":
            found.note("the container is paused")
        if self.alone and self.state in ("running", "paused") and self.target.record and late.begun(self.target.record):
            found.cannot_tell("process", "container", f"{late.WHY}; {LATE}")
        self._compare_processes(first)
        if first:
            self._whole(first)
        if self.state != "stopped":
            held.cgroup(self.target, self.place, self.host, found)
        if self.told and self.told.get("profiles") and self.host.apparmor == "on" and not self._names_hidden():
            held.policy(self.told, self.host, found)
        return Report(
            self.target.name, self.target.pid if self.state != "stopped" else 0, self.state, tuple(found.differences), tuple(found.unknown),
            tuple(found.notes), self._checked(first), len(self.processes), sum(len(one.tasks) for one in self.processes),
            whole.hosts(first.main.spaces, self.host.spaces) if first else (), self.target.path,
        )

    def _mapped(self, config: "Config") -> "Config":
        """The configuration, with the maps of a user namespace that it joins: they are not in it."""
        linux = config["linux"]
        if not any(space["type"] == "user" and space["path"] for space in linux["namespaces"]):
            return config
        maps: dict[str, list[dict[str, int]]] = {}
        try:
            folder = observe.hold_living(self.target.pid)
        except observe.Gone:
            return config
        try:
            for kind in ("uid", "gid"):
                rows = [tuple(map(int, line.split())) for line in observe.read(folder, f"{kind}_map").splitlines()]
                maps[f"{kind}Mappings"] = [dict(zip(("containerID", "hostID", "size"), row, strict=True)) for row in rows]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return config
        finally:
            os.close(folder)
        return {**config, "linux": {**linux, **maps}}  # type: ignore[typeddict-item]

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _state(self) -> "State":
        if self.target.record is not None:
            now = store.status(self.target.record)
            return now if now in ("running", "paused", "created", "stopped") else "stopped"  # type: ignore[return-value]
        found = store.stat(self.target.pid)
        if found is None or found[0] in "ZX" or found[1] != self.target.start:
            return "stopped"
        if self._is_runtime():
            return "created"
        return "paused" if tasks.frozen(self.place) else "running"

    def _is_runtime(self) -> bool:
        """Whether the first process of another runtime's container is still that runtime: by its name, and a program that is no file of the
        container, or the whole of a mount: runc and crun hide theirs so since CVE-2019-5736."""
        try:
            program = os.readlink(f"/proc/{self.target.pid}/exe").removesuffix(" (deleted)")
            name = store.read(f"/proc/{self.target.pid}/comm").decode("utf-8", "replace").strip()
        except OSError:
            return False
        called = name.startswith("runc:[") or name in INITS
        return called and (program == "/" or program.startswith("/memfd:") or program.rpartition("/")[2] in INITS)

    def _processes(self) -> "list[Process]":
        """Those of the cgroup and those below it, and those of the PID namespace, which may have left the cgroup."""
        pids = set(tasks.pids(self.place))
        if self.state != "stopped":
            pids.add(self.target.pid)
            own = self._own_pids()
            if own:
                pids.update(self._in_namespace(own, pids))
            elif not self.place.dirs:
                why = "without a cgroup and a PID namespace of its own only its first process can be found"
                self.found.cannot_tell("process", "container", why)
        processes = []
        for pid in sorted(pids, key=lambda pid: (pid != self.target.pid, pid)):
            try:
                processes.append(observe.process(pid, self.host.apparmor == "on", self.mounts))
            except observe.Gone:
                continue
            except PermissionError as e:
                self.found.cannot_tell("process", f"process {pid}", f"{(e.strerror or '').lower()}: run verify as root of the host")
        return processes

    def _in_namespace(self, own: str, known: set[int]) -> set[int]:
        """The processes of the container's PID namespace, less those of containers that have joined it."""
        found = set(self.host.pids(own))
        for name, theirs in pod.lodgers(self.target.folder, found - known).items() if self.target.folder else ():
            found -= theirs
            self.found.note(f"the container {name} shares the PID namespace")
        return found

    def _own_pids(self) -> str:
        """The PID namespace that the container was given; empty where it has joined one, or has the host's."""
        if pod.joins(self.config):
            return ""
        try:
            folder = observe.hold_living(self.target.pid)
        except observe.Gone:
            return ""
        try:
            own = os.readlink("ns/pid", dir_fd=folder)
        except OSError:
            return ""
        finally:
            os.close(folder)
        return "" if own == self.host.spaces.get("pid") else own

    def _expectations(self) -> "tuple[list[expect.Confinement], list[tuple[int, int]]]":
        """What the container's own process is held to, then each exec that was given more or other, by pid and start time."""
        config, record = self.config, self.target.record
        expectations = [expect.confinement(config, config["process"], record["expect"] if record else None)]  # type: ignore[arg-type]
        lines = execs.load(self.target.folder) if self.target.folder else []
        for line in lines:
            proc: Any = {**config["process"], **line["process"]}
            decided: Any = line["expect"]
            expectations.append(expect.confinement(config, proc, decided, f"the exec of process {line['pid']}"))
        return expectations, [(line["pid"], line["start"]) for line in lines]

    def _compare_processes(self, first: "Process | None") -> None:
        self.expectations, started = self._expectations()
        kin = [lineage.Kin(one.pid, one.ppid, one.session, one.start) for one in self.processes]
        origins = lineage.origins(kin, self.target.pid, started, bool(first and self._own_pids()))
        around = self._around(first)
        for one in self.processes:
            if one is first and self.state == "created":
                self._waiting(one, around)
                continue
            if self._under_way(one):
                self.found.cannot_tell("process", one.main.who, "it belongs to a command that is under way; look again")
                continue
            outer = self._descent(one, around)
            results = [compare.process(one, self.expectations[index], around, outer) for index in origins[one.pid]]
            fitting = next((index for index, result in enumerate(results) if not result.differences), 0)
            self.found.add(results[fitting])
            origin = origins[one.pid][fitting]
            if origin:
                self.found.note(f"{one.main.who}: held to what {self.expectations[origin].of} was given")
        if self._names_hidden() and self.expectations[0].label and self.state not in ("stopped", "created"):
            self.found.differences = [one for one in self.found.differences if one.fact != "apparmor.label"]
            self.found.cannot_tell(
                "apparmor.label", "container",
                "verify runs in another policy namespace than the runtime did, where profiles have other names",
            )

    def _names_hidden(self) -> bool:
        """Whether labels read here differ from those that the runtime read, as docs/apparmor.md says of policy namespaces."""
        then = self.told["host"]["apparmor"]["namespace"] if self.told else None
        return bool(then and self.host.policy_namespace and then != self.host.policy_namespace)

    def _under_way(self, one: "Process") -> bool:
        """Whether it is an executor that is about to become something. None is, while no other command is at the container."""
        link = one.exe.removesuffix(" (deleted)")
        waits = self.state == "paused" or not self.alone
        return bool(self.target.folder) and waits and (link.startswith(EXECUTORS[0]) or link.endswith(EXECUTORS[1]))

    def _waiting(self, one: "Process", around: Around) -> None:
        """The first process of a created container: not yet what it is to be."""
        mine = self.expectations[0]
        asked = {"apparmor.label": mine.label, "no-new-privs": mine.nnp, "seccomp": mine.filters, "capabilities": True, "user": True}
        for fact, wanted in asked.items():
            if wanted:
                self.found.cannot_tell(fact, one.main.who, PENDING)
        compare.waiting(one, around, self.found)
        if not self.target.record or one.main.uids[0] == 0:  # root's are root's anyway
            return
        try:
            owner = observe.owner(one.pid)
        except observe.Gone:
            return
        if owner == one.main.uids[0]:
            self.found.differs("hidden", one.main.who, "not dumpable", "dumpable", task=one.main)

    def _around(self, first: "Process | None") -> Around:
        asked: dict[str, str | None] = {space["type"]: space["path"] for space in self.config["linux"]["namespaces"]}
        given: set[tuple[int, int]] = set()
        kept = self.told["asked"]["preserveFds"] if self.told else 0
        for one in self.processes:
            files = one.main.files
            if files:
                given |= files.stdio  # of an exec that has ended, too, as those have them that it left behind
            if files and one is first:
                given |= {leading.identity for leading in files.leading if 3 <= leading.fd < 3 + kept}
        places = {}
        for at in self.place.dirs:
            for key in ("unified",) if at.version == 2 else at.controllers:
                places[key] = at.path[len(at.mount) :]
        places = self._as_printed(places)
        return Around(
            self.host.apparmor, self.host.modes if self.host.apparmor == "on" else None, self.host.spaces,
            dict(first.main.spaces) if first else {}, asked, places, frozenset(given), "mount" in asked, self.host.deaths,
        )

    def _as_printed(self, places: dict[str, str]) -> dict[str, str]:
        """The paths as /proc/PID/cgroup prints them: a hierarchy of which only a part is mounted here begins further up."""
        own, printed = self.host.cgroup["own"], {}
        mine = observe.own_cgroups()
        for key, path in places.items():
            here, shown = own.get(key), mine.get(key)
            if here is not None and shown is not None and shown.rstrip("/").endswith(here.rstrip("/")):
                printed[key] = shown.rstrip("/")[: len(shown.rstrip("/")) - len(here.rstrip("/"))] + path
        return printed

    def _descent(self, one: "Process", around: Around) -> dict[str, str]:
        known = {*around.container.values(), *self.host.spaces.values()}
        odd = [task for task in one.tasks if not known.issuperset(task.spaces.values())]
        found: dict[str, str] = {}
        if not odd or not around.container:
            return found
        try:
            folder = observe.hold(one.pid)
        except observe.Gone:
            return found
        try:
            for task in odd:
                if not found.keys() | known >= set(task.spaces.values()):
                    found |= spaces.descent(folder, f"task/{task.tid}/", task.spaces, around.container, self.host.spaces)
        finally:
            os.close(folder)
        return found

    # ── the container as a whole ─────────────────────────────────────────────────────────────────────────────────────────────

    def _whole(self, first: "Process") -> None:
        config, found, linux = self.config, self.found, self.config["linux"]
        joined: dict[str, str] = {}
        for space in linux["namespaces"]:
            there = spaces.at(space["path"], space["type"]) if space["path"] else None
            if there is not None:
                joined[space["type"]] = there
        whole.namespaces(config, first.main.spaces, self.host.spaces, joined, found)
        try:
            folder = observe.hold_living(self.target.pid)
        except observe.Gone:
            return
        try:
            if any(space["type"] == "user" and space["path"] is None for space in linux["namespaces"]):
                for kind in ("uid", "gid"):
                    asked: Any = linux[f"{kind}Mappings"]  # type: ignore[literal-required]
                    whole.id_map(kind, asked, observe.read(folder, f"{kind}_map").decode(), found)
            if any(space["type"] == "mount" for space in linux["namespaces"]):
                self._mounts(folder, first)
            else:
                found.note("it has no mount namespace: mounts, masks and open files are the host's")
        except (FileNotFoundError, ProcessLookupError):
            found.cannot_tell("process", "container", "its first process has just ended")
        except PermissionError as e:
            found.cannot_tell("mount", "container", f"{(e.strerror or '').lower()}: run verify as root of the host")
        finally:
            os.close(folder)

    def _mounts(self, folder: int, first: "Process") -> None:
        found, linux = self.found, self.config["linux"]
        space = first.main.spaces.get("mount")
        if space is None:
            found.cannot_tell("mount", "container", first.main.unread["namespace"])
            return
        mounts = [{**mount, "destination": bundle.inner(self.target.rootfs, mount["destination"])} for mount in self.config["mounts"]]
        config: Any = {**self.config, "mounts": mounts}
        paths = ["/", *(mount["destination"] for mount in config["mounts"]), *linux["readonlyPaths"]]
        seen = inside.view(folder, self.mounts.of(space, folder), self.host.mounts, paths, linux["maskedPaths"])
        rootfs = inside.identity(self.target.rootfs, self.host.mounts) if self.target.rootfs else None
        whole.root(config, seen, rootfs, self.host.root, found)
        whole.mounts(config, seen, self.host.peers, found)
        if not any(one.may(expect.CAP_SYS_ADMIN) for one in self.expectations):
            whole.unasked(config, seen, self.host.mounts_below(self.target.rootfs), found)
        whole.masked(config, seen, found)
        whole.read_only(config, seen, found)

    def _checked(self, first: "Process | None") -> tuple[str, ...]:
        """The facts that were compared, whatever came of it."""
        if not self.processes:
            return ()
        config, mine, linux = self.config, self.expectations[0], self.config["linux"]
        spaces_ = {space["type"] for space in linux["namespaces"]}
        whole_ = first is not None and "mount" in spaces_
        asked = {
            "apparmor.label": mine.label, "apparmor.mode": mine.label, "apparmor.policy": self.told and self.told.get("profiles"),
            "no-new-privs": mine.nnp, "seccomp": mine.filters, "capabilities": True, "user": True, "groups": mine.groups is not None,
            "id-map": first and "user" in spaces_, "namespace": True, "root": whole_, "propagation": whole_,
            "mount": whole_ and config["mounts"], "masked-path": whole_ and linux["maskedPaths"],
            "read-only-path": whole_ and linux["readonlyPaths"], "cgroup": self.place.dirs,
            "limit": self.place.dirs, "devices": self.place.dirs and held.limits_devices(), "rlimit": mine.limits,
            "oom-score": mine.oom is not None, "descriptor": whole_, "working-directory": whole_, "program": whole_,
            "parent-death": self.host.deaths is not None,
        }
        alone = len(self.processes) == 1
        pending = OF_PROCESS if self.state == "created" and alone else ()
        return tuple(fact for fact, yes in asked.items() if yes and fact not in pending)
