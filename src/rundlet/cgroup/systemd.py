"""Cgroups by systemd: a transient unit around the container's first process, asked for over D-Bus.

    connect → start → place → … → stop

The unit's cgroup is systemd's; below it, where the container is, files.py goes on. Which unit and which properties: plan/systemd.py.
Source: org.freedesktop.systemd1(5), "Transient Units"; https://systemd.io/CGROUP_DELEGATION/.
"""

from posix import environ, geteuid

from rundlet.cgroup import files, layout
from rundlet.cgroup import place as cgroup_place
from rundlet.cgroup.bus import Bus, BusError
from rundlet.cgroup.file import failed
from rundlet.cgroup.place import Place
from rundlet.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rundlet.plan.resources import CgroupFacts
    from rundlet.plan.systemd import Properties, Unit, Variant

FILES = "leave out --systemd-cgroup: cgroups are then made by files"
ACCOUNTING = ("CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting")


def addresses(user: bool) -> "list[str]":
    """Where the manager may be reached, in the order to try: of the system, or of the user, whose environment says where."""
    if not user:
        given = _variable(b"DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
        return [given, "unix:path=/run/systemd/private"] if geteuid() == 0 else [given]
    folder = _variable(b"XDG_RUNTIME_DIR") or f"/run/user/{geteuid()}"
    found = [_variable(b"DBUS_SESSION_BUS_ADDRESS"), f"unix:path={folder}/bus", f"unix:path={folder}/systemd/private"]
    return [address for address in found if address]


def _variable(name: bytes) -> str:
    return environ.get(name, b"").decode("utf-8", "surrogateescape")


def connect(user: bool) -> Bus:
    """A connection to the manager of the system, or of the user. Raises Refused when there is none."""
    whose, why = "user's" if user else "system's", []
    for address in addresses(user):
        try:
            bus = Bus(address)
            if bus.shares_pids():
                return bus
            why.append(f"{address}: it is in another PID namespace, and would take the container's process for another one")
            bus.close()
        except OSError as e:
            # not in the kernel's words: engines read "no such file or directory" as a missing program
            why.append(f"nothing at {address}" if isinstance(e, FileNotFoundError) else f"{address}: {(e.strerror or '').lower()}")
        except BusError as e:
            why.append(f"{address}: {e}")
    todo = "set XDG_RUNTIME_DIR to that of a user with a systemd --user (loginctl enable-linger USER starts one)"
    raise Refused(f"the {whose} systemd cannot be reached: {'; '.join(why)}", todo if user else FILES)


def again(address: str) -> Bus:
    """A connection to the manager that an earlier command has found at `address`. Raises Refused."""
    try:
        return Bus(address)
    except (OSError, BusError) as e:
        why = str(e) if isinstance(e, BusError) else (e.strerror or "").lower()
        raise Refused(f"systemd, which made the container's cgroup, cannot be reached at {address}: {why}") from None


def version(bus: Bus) -> int:
    """The manager's version: 252. Raises Refused when what answers is no systemd."""
    try:
        text = str(bus.property("Version")).removeprefix("v")
    except BusError as e:
        raise Refused(f"there is no systemd at {bus.address}: {e}", FILES) from None
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    return int(digits or 0)


def place(bus: Bus, unit: "Unit", subgroup: str, cgroups: "CgroupFacts") -> Place:
    """Where the container will be: below the manager's own cgroup its slices, the unit, and the sub-cgroup in it. Raises Refused."""
    try:
        below = f"{str(bus.property('ControlGroup')).rstrip('/')}{unit.path()}"
    except BusError as e:
        raise Refused(f"systemd does not say which cgroup it has: {e}", FILES) from None
    return cgroup_place.place(cgroups, f"{below}/{subgroup}", "")


def start(bus: Bus, unit: "Unit", pid: int, asked: "Properties", text: str) -> str:
    """Has the unit started around a process; the job, for wait(). `asked` are further properties, `text` its description.

    Raises Refused when systemd will not, and then there is no unit of ours.
    """
    given: "Properties" = {
        "Description": ("s", text),
        # one that failed, by running out of memory perhaps, goes as well as one that ended
        "CollectMode": ("s", "inactive-or-failed"),
        "DefaultDependencies": ("b", False),
        **dict.fromkeys(ACCOUNTING, ("b", True)),
    }
    if unit.is_slice:
        given["Wants"] = "as", [unit.slice]
    given.update(asked)
    if not unit.is_slice:
        given.update({"Slice": ("s", unit.slice), "Delegate": ("b", True), "PIDs": ("au", [pid])})
    words: "tuple[object, ...]" = (unit.name, "fail", list(given.items()), [])
    try:
        try:
            return str(bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", *words)[0])
        except BusError as e:
            if not e.name.endswith(".UnitExists"):
                raise
            _forget(bus, unit.name)  # what is left of one that failed is nobody's
            return str(bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", *words)[0])
    except BusError as e:
        # runc's words, which tools look for
        why = "container's cgroup is not empty: " if e.name.endswith(".UnitExists") else ""
        raise _refused(f"{why}systemd does not start the unit {unit.name}", e) from None


def _forget(bus: Bus, name: str) -> None:
    """Has a unit that failed unloaded; there may be none."""
    try:
        bus.call("ResetFailedUnit", "s", name)
    except BusError as e:
        if not e.name.endswith(".NoSuchUnit"):
            raise


def _refused(what: str, error: BusError) -> Refused:
    todo = ""
    if error.name.endswith((".AccessDenied", ".InteractiveAuthorizationRequired", ".AuthFailed")):
        todo = "run as root, allow org.freedesktop.systemd1.manage-units in polkit, or use the user's own systemd"
    elif error.name.endswith(".UnitExists"):
        todo = "end what is in it, or give this container a cgroupsPath of its own"
    elif error.name.endswith((".InvalidArgs", ".PropertyReadOnly", ".UnknownProperty", ".InvalidSignature")):
        todo = "look at the annotations org.systemd.property.*, and at the limits in /linux/resources"
    return Refused(f"{what}: {error}", todo)


def wait(bus: Bus, unit: "Unit", job: str) -> None:
    """Waits until the unit is there. Raises Refused when it does not come to be."""
    try:
        result = bus.result(job)
    except BusError as e:
        raise _refused(f"systemd does not start the unit {unit.name}", e) from None
    if result != "done":
        raise Refused(f"systemd does not start the unit {unit.name}: {result}", f"its log may say why: journalctl -u {unit.name}")


def settle(unit: "Unit", at: Place, pid: int, need: "Iterable[str]") -> files.Made:
    """Makes what systemd does not make of the container's cgroups, and moves the process, which is in the unit, there.

    `need` are controllers that must be there. Raises StepFailed, and Refused when the unit is elsewhere than was thought.
    """
    last = at.dirs[-1]
    own = layout.read(pid)["own"].get("unified" if last.version == 2 else "name=systemd", "")
    if not unit.is_slice and not (own.endswith(unit.path()) and f"{last.path}/".startswith(f"{last.mount}{own}/")):
        raise Refused(f"systemd has put the process into the cgroup {own or '?'}, not into that of {unit.name}")
    if last.version == 2:
        try:
            files.make(last, [])
        except OSError as e:
            raise failed("make the container's cgroup", "mkdir", last.path, e) from None
        # a cgroup of v2 passes controllers on to its sub-cgroups when it has no processes itself
        files.join(Place((last,)), pid)
    made = files.create(at, need, pid)
    files.join(made.place, pid, alone=True)
    return made


def properties(bus: Bus, name: str, wanted: "Iterable[str]") -> "Properties":
    """What properties of a unit are now. Raises Refused."""
    kind = f"org.freedesktop.systemd1.{'Slice' if name.endswith('.slice') else 'Scope'}"
    try:
        path = str(bus.call("GetUnit", "s", name)[0])
        return {one: bus.call("Get", "ss", kind, one, interface="org.freedesktop.DBus.Properties", path=path)[0] for one in wanted}
    except BusError as e:
        raise _refused(f"systemd does not say what the limits of the unit {name} are", e) from None


def update(bus: Bus, name: str, asked: "Sequence[tuple[str, Variant]]") -> None:
    """Gives a unit other properties, all or none, one after the other, until the next boot. Raises Refused."""
    if not asked:
        return
    try:
        bus.call("SetUnitProperties", "sba(sv)", name, True, asked)
    except BusError as e:
        raise _refused(f"systemd does not change the unit {name}", e) from None


def attach(bus: Bus, name: str, subgroup: str, pid: int) -> None:
    """Has a process moved into a unit, for who may not do that by himself. Raises Refused."""
    try:
        bus.call("AttachProcessesToUnit", "ssau", name, subgroup, [pid])
    except BusError as e:
        raise _refused(f"systemd does not put process {pid} into the unit {name}", e) from None


def stop(bus: Bus, name: str) -> None:
    """Stops a unit, whose processes have been killed, and forgets that it may have failed; one that is gone is fine. Raises Refused."""
    try:
        bus.result(str(bus.call("StopUnit", "ss", name, "replace")[0]))
        _forget(bus, name)
    except BusError as e:
        if not e.name.endswith(".NoSuchUnit"):
            raise _refused(f"systemd does not stop the unit {name}", e) from None
