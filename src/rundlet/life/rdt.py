"""A container's group of resctrl: found or made, joined by each process, removed by who made it."""

import posix
from posix import O_CLOEXEC, O_WRONLY

from rundlet.errors import Fault
from rundlet.life import store
from rundlet.plan import rdt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from rundlet.spec.types import IntelRdt

    class Group(TypedDict):
        """What the record says of it: the folder, that of the monitoring group or "", and which of them to remove with the container."""

        group: str
        monitor: str
        made: list[str]


def find(asked: "IntelRdt", name: str) -> "Group":
    """Where the group of the container `name` is, or is to be; makes nothing. Raises Refused when it cannot be had."""
    top = rdt.mount(store.read("/proc/self/mountinfo").decode("utf-8", "surrogateescape"))
    return at(top, asked, name)


def at(top: str, asked: "IntelRdt", name: str) -> "Group":
    """As find(), with resctrl mounted on `top`."""
    folder = rdt.group(asked, name)
    path = f"{top}/{folder}" if folder else top
    try:
        there = store.read(path + "/schemata").decode()
    except FileNotFoundError:
        there = None
    made = [path] if rdt.check(asked, there) else []
    monitor = f"{path}/mon_groups/{name}" if asked["enableMonitoring"] else ""
    return {"group": path, "monitor": monitor, "made": [*([monitor] if monitor else []), *made]}


def make(group: "Group", asked: "IntelRdt") -> None:
    """Makes what has to be made, and writes the schemata. Raises Fault; what was made, and no more, remove() then removes."""
    wanted, group["made"] = group["made"], []
    try:
        for path in reversed(wanted):
            posix.mkdir(path, 0o755)
            group["made"].insert(0, path)
    except OSError as e:
        hint = "; the CPU has no more classes of service" if e.errno == 28 else ""
        raise Fault(f"/linux/intelRdt: cannot make {path}: {(e.strerror or '').lower()}{hint}") from None
    # a group that was named and is there holds what is asked for already, but for the lines of `schemata`
    held = asked["closID"] and group["group"] not in group["made"]
    text = "".join(line + "\n" for line in asked["schemata"]) if held else rdt.schemata(asked)
    if text:
        write(group["group"], text)


def change(path: str, text: str) -> str:
    """Writes other schemata for a group in use, all or none; the text for take_back(). Raises Fault."""
    try:
        old = store.read(path + "/schemata").decode()
    except OSError as e:
        raise Fault(f"cannot read {path}/schemata: {(e.strerror or '').lower()}") from None
    try:
        write(path, text)
    except Fault as fault:
        take_back(path, old, fault)
        raise
    return old


def take_back(path: str, old: str, fault: Fault) -> None:
    """Undoes change(); what cannot be undone is said in the fault."""
    try:
        write(path, old)
    except Fault as e:
        fault.cleanup.append(str(e))


def write(path: str, text: str) -> None:
    """Writes schemata, line by line: the kernel forgets what of a longer text it has refused. Raises Fault with the kernel's reason."""
    for line in text.splitlines():
        try:
            _write(path + "/schemata", line + "\n")
        except OSError as e:
            try:
                why = store.read(path.rpartition("/")[0] + "/info/last_cmd_status").decode("utf-8", "replace").strip()
            except OSError:
                why = ""
            said = (e.strerror or "").lower() + (f" ({why})" if why else "")
            raise Fault(f'/linux/intelRdt: write "{line}" to {path}/schemata: {said}') from None


def join(group: "Group", pid: int) -> None:
    """Puts a process into the group and, where there is one, the monitoring group. Raises Fault."""
    for path in (group["group"], group["monitor"]):
        if path:
            try:
                _write(path + "/tasks", str(pid))
            except OSError as e:
                raise Fault(f"/linux/intelRdt: write {pid} to {path}/tasks: {(e.strerror or '').lower()}") from None


def remove(group: "Group") -> None:
    """Removes what was made. Raises Fault."""
    for path in group["made"]:
        try:
            posix.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as e:
            raise Fault(f"cannot remove {path}: {(e.strerror or '').lower()}") from None


INFO = {"l3_cache": ("L3", ("cbm_mask", "min_cbm_bits", "num_closids")),
        "mem_bw": ("MB", ("bandwidth_gran", "delay_linear", "min_bandwidth", "num_closids"))}  # fmt: skip
COUNTED = {"mbm_stats": ("mbm_total_bytes", "mbm_local_bytes"), "cmt_stats": ("llc_occupancy",)}


def usage(group: "Group") -> "dict[str, object]":
    """What `events` tells of the group, in runc's form (types/events.go): what the machine has, what is given, what has been counted."""
    path, out = group["group"], dict[str, object]()
    top = path if _text(f"{path}/info/last_cmd_status") is not None else path.rpartition("/")[0]
    for key, (resource, names) in INFO.items():
        found = {name: _text(f"{top}/info/{resource}/{name}") for name in names}
        info = {name: text if name == "cbm_mask" else int(text) for name, text in found.items() if text}
        if not info:
            continue
        out[f"{key}_info"] = info
        for suffix, where in (("_root", top), ("", path)):
            lines = (line.strip() for line in (_text(f"{where}/schemata") or "").split("\n"))
            out[f"{key}_schema{suffix}"] = next((line for line in lines if line.startswith(f"{resource}:")), "")
    where = f"{group['monitor'] or path}/mon_data"
    try:
        nodes = sorted(name for name in posix.listdir(where) if name.startswith("mon_L3_"))
    except OSError:
        nodes = []
    for key, names in COUNTED.items():
        counts = [{name: text for name in names if (text := _text(f"{where}/{node}/{name}"))} for node in nodes]
        if any(counts):
            out[key] = [{name: int(text) if text.isdigit() else 0 for name, text in count.items()} for count in counts]
    return out


def _text(path: str) -> "str | None":
    try:
        return store.read(path).decode("utf-8", "replace").strip()
    except OSError:
        return None


def _write(path: str, text: str) -> None:
    fd = posix.open(path, O_WRONLY | O_CLOEXEC)
    try:
        posix.write(fd, text.encode())
    finally:
        posix.close(fd)
