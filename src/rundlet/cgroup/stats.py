"""What a container uses, from the files of its cgroups, in the shape that runc's `events` prints and containerd reads (types/events.go).

Times are nanoseconds, sizes bytes. As there, zeros that mean nothing are left out, and "no limit" is 2^64 - 1 for memory, 0 for pids.
"""

from posix import listdir, sysconf

from rundlet.cgroup.file import read_file
from rundlet.cgroup.place import Dir, Place, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | None"
    Section: TypeAlias = "dict[str, Json]"

NO_LIMIT = (1 << 64) - 1
TICK = 1_000_000_000 // sysconf("SC_CLK_TCK")


def collect(place: Place) -> "Section":
    """Everything that the cgroups of a container tell. What is gone, or not there, is left out or zero."""
    out: "Section" = {}
    out["cpu"] = _cpu(place)
    out["cpuset"] = _cpuset(find(place, "cpuset"))
    out["memory"] = _memory(find(place, "memory"))
    out["pids"] = _pids(find(place, "pids"))
    out["blkio"] = _block_io(place)
    out["hugetlb"] = _hugepages(find(place, "hugetlb"))
    out["intel_rdt"] = {}
    return out


def interfaces(text: str) -> "list[Json]":
    """The counters of /proc/PID/net/dev: proc_pid_net(5)."""
    out: "list[Json]" = []
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        n = [int(word) for word in rest.split()]
        out.append({
            "Name": name.strip(), "RxBytes": n[0], "RxPackets": n[1], "RxErrors": n[2], "RxDropped": n[3],
            "TxBytes": n[8], "TxPackets": n[9], "TxErrors": n[10], "TxDropped": n[11],
        })
    return out


def _number(at: Dir, file: str) -> int:
    """The one number in a file; 0 where there is none, 2^64 - 1 for max."""
    text = read_file(f"{at.path}/{file}").strip()
    return NO_LIMIT if text == "max" else int(text or 0)


def _table(at: Dir, file: str) -> "dict[str, int]":
    """The lines "key number" of a file."""
    pairs = (line.split() for line in read_file(f"{at.path}/{file}").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _lean(section: "Section") -> "Section":
    return {key: value for key, value in section.items() if value}


def _pressure(at: Dir, file: str) -> "Section":
    """The key "psi" with the lines of a pressure file, where the kernel counts it: accounting/psi.rst."""
    out: "Section" = {}
    try:
        text = read_file(f"{at.path}/{file}")
    except OSError:  # switched off
        text = ""
    for line in text.splitlines():
        kind, *words = line.split()
        pairs = dict(word.split("=") for word in words)
        out[kind] = {key: int(value) if key == "total" else float(value) for key, value in pairs.items()}
    return {"psi": out} if out else {}


def _cpu(place: Place) -> "Section":
    at = find(place, "cpu")
    usage: "Section" = {"kernel": 0, "user": 0}
    throttling: "Section" = {}
    pressure: "Section" = {}
    if at is not None:
        stat = _table(at, "cpu.stat")
        waited = stat.get("throttled_time", 0) or 1000 * stat.get("throttled_usec", 0)
        throttling = _lean({
            "periods": stat.get("nr_periods", 0), "throttledPeriods": stat.get("nr_throttled", 0), "throttledTime": waited,
        })
        if at.version == 2:
            usage = _lean({"total": 1000 * stat.get("usage_usec", 0)})
            usage |= {"kernel": 1000 * stat.get("system_usec", 0), "user": 1000 * stat.get("user_usec", 0)}
            pressure = _pressure(at, "cpu.pressure")
    account = find(place, "cpuacct")
    if account is not None and account.version == 1:
        split = _table(account, "cpuacct.stat")
        every = [line.split() for line in read_file(f"{account.path}/cpuacct.usage_all").splitlines()[1:]]
        usage = _lean({
            "total": _number(account, "cpuacct.usage"),
            "percpu": [int(word) for word in read_file(f"{account.path}/cpuacct.usage_percpu").split()],
            "percpu_kernel": [int(line[2]) for line in every], "percpu_user": [int(line[1]) for line in every],
        })
        usage |= {"kernel": TICK * split.get("system", 0), "user": TICK * split.get("user", 0)}
    return {"usage": usage, "throttling": throttling, **pressure}


CPUSET = (
    "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab", "memory_pressure",
    "sched_load_balance", "sched_relax_domain_level",
)


def _cpuset(at: "Dir | None") -> "Section":
    effective = ".effective" if at is not None and at.version == 2 else ""
    out: "Section" = {}
    for key in ("cpus", "mems") if at is not None else ():
        assert at is not None
        out[key] = list(_numbers(read_file(f"{at.path}/cpuset.{key}{effective}").strip()))
    return _lean(out) | {key: _number(at, f"cpuset.{key}") if at is not None and at.version == 1 else 0 for key in CPUSET}


def _numbers(text: str) -> "list[int]":
    """The numbers of a list such as 0-2,7."""
    out: "list[int]" = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return out


def _entry(at: Dir, limit: str, usage: str, peak: str, failures: int) -> "Section":
    used = _lean({"usage": _number(at, usage), "max": _number(at, peak)})
    return {"limit": _number(at, limit), **used, "failcnt": failures}


def _memory(at: "Dir | None") -> "Section":
    if at is None:
        return {}
    raw = _table(at, "memory.stat")
    if at.version == 1:
        out: "Section" = {"cache": raw.get("cache", 0)}
        for key, part in (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp.")):
            name = f"memory.{part}"
            failures = _number(at, name + "failcnt")
            out[key] = _entry(at, name + "limit_in_bytes", name + "usage_in_bytes", name + "max_usage_in_bytes", failures)
    else:
        failures = _table(at, "memory.events").get("max", 0)
        usage = _entry(at, "memory.max", "memory.current", "memory.peak", failures)
        swap = _entry(at, "memory.swap.max", "memory.swap.current", "memory.swap.peak", _table(at, "memory.swap.events").get("max", 0))
        # as on v1: memory and swap together, of which no peak is known
        limits = [_number(at, "memory.max"), _number(at, "memory.swap.max")]
        both = {"limit": NO_LIMIT if NO_LIMIT in limits else sum(limits), "failcnt": swap["failcnt"]}
        total = _number(at, "memory.current") + _number(at, "memory.swap.current")
        out = {"cache": raw.get("file", 0), "usage": usage, "swap": {**both, **_lean({"usage": total})}}
        out |= {"kernel": {"limit": 0, "failcnt": 0}, "kernelTCP": {"limit": 0, "failcnt": 0}, **_pressure(at, "memory.pressure")}
    return _lean({"cache": out.pop("cache")}) | out | {"raw": dict(raw)}


def _pids(at: "Dir | None") -> "Section":
    if at is None:
        return {}
    limit = _number(at, "pids.max")
    return _lean({"current": _number(at, "pids.current"), "limit": 0 if limit == NO_LIMIT else limit})


V1_BLOCK_IO = (
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"), ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"), ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"), ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "time_recursive"), ("sectorsRecursive", "sectors_recursive"),
)
V2_BLOCK_IO = (
    ("ioServiceBytesRecursive", (("Read", "rbytes"), ("Write", "wbytes"), ("Discard", "dbytes"))),
    ("ioServicedRecursive", (("Read", "rios"), ("Write", "wios"), ("Discard", "dios"))),
)


def _block_io(place: Place) -> "Section":
    at = find(place, "blkio")
    if at is not None:
        out: "Section" = {}
        for key, file in V1_BLOCK_IO:
            # BFQ's own count where that scheduler is in use, what the throttle has let pass where it is not
            text = next(filter(None, (read_file(f"{at.path}/blkio.{kind}{file}") for kind in ("bfq.", "", "throttle."))), "")
            out[key] = _entries_v1(text)
        return _lean(out)
    at = find(place, "io")
    if at is None:
        return {}
    lines = [line.split() for line in read_file(f"{at.path}/io.stat").splitlines()]
    out = {}
    for key, ops in V2_BLOCK_IO:
        entries: "list[Json]" = []
        for number, *words in lines:
            pairs = dict(word.split("=") for word in words if "=" in word)
            entries += [_device(number, op, int(pairs[name])) for op, name in ops if name in pairs]
        out[key] = entries
    return _lean(out) | _pressure(at, "io.pressure")


def _entries_v1(text: str) -> "list[Json]":
    out: "list[Json]" = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and ":" in words[0]:  # the last line is a total
            out.append(_device(words[0], words[1] if len(words) == 3 else "", int(words[-1])))
    return out


def _device(number: str, op: str, value: int) -> "Section":
    major, _, minor = number.partition(":")
    return _lean({"major": int(major), "minor": int(minor), "op": op, "value": value})


def _hugepages(at: "Dir | None") -> "Section":
    out: "Section" = {}
    if at is None:
        return out
    current, peak = (".usage_in_bytes", ".max_usage_in_bytes") if at.version == 1 else (".current", "")
    try:
        names = listdir(at.path)
    except FileNotFoundError:
        return out
    for name in sorted(names):
        size = name[8 : -len(current)]
        if name[:8] != "hugetlb." or name[-len(current) :] != current or "." in size:
            continue
        stem = f"hugetlb.{size}.rsvd" if f"hugetlb.{size}.rsvd{current}" in names else f"hugetlb.{size}"
        failures = _number(at, stem + ".failcnt") if at.version == 1 else _table(at, f"hugetlb.{size}.events").get("max", 0)
        out[size] = _lean({"usage": _number(at, stem + current), "max": _number(at, stem + peak) if peak else 0}) | {"failcnt": failures}
    return out
