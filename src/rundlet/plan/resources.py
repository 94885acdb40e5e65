"""The limits of a container: /linux/resources becomes texts for files of its cgroup, for v1 and v2, in the order of writing.

    writes(resources, cgroups)        for a new cgroup
    writes(resources, cgroups, now)   for one in use, `now` holding the texts of the files that asks() names

A limit whose controller the host has not is refused; nothing is dropped but what notes() tells. As with runc and crun, 0 means "not
given" where a limit of 0 makes no sense. Sources: the kernel's cgroup-v1/*.rst and cgroup-v2.rst, runtime-spec config-linux.md.
"""

from rundlet.errors import Refused
from rundlet.plan.devicefilter import allows_all, lines, rules
from rundlet.plan.write import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    from rundlet.spec.types import CPU, BlockIO, HugepageLimit, Memory, Network, Rdma, Resources

    class CgroupFacts(TypedDict):
        """What cgroup/layout.py found: section "cgroup" of the host facts."""

        layout: str  # "v2", "v1", "hybrid" or "none"
        mounts: dict[str, str]  # controller, named hierarchy ("name=systemd") or "unified" → its mount point
        own: dict[str, str]  # the same keys → this process's cgroup below that mount point; absent where it is not visible there
        controllers: list[str]  # those of the unified hierarchy


UNLIMITED = 1 << 63
# files that move, stop or kill processes rather than limit them
NOT_LIMITS = ("cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.type")


def version(cgroups: "CgroupFacts", controller: str) -> int:
    """The cgroup version that `controller` is on, 0 for neither; "devices" and "freezer" are in every unified hierarchy."""
    if controller in cgroups["mounts"]:
        return 1
    if "unified" in cgroups["mounts"] and (controller in cgroups["controllers"] or controller in ("devices", "freezer")):
        return 2
    return 0


def writes(resources: "Resources", cgroups: "CgroupFacts", now: "dict[str, str] | None" = None) -> "tuple[Write, ...]":
    """The writes that set the limits, in order: for a new cgroup, or for one in use, where `now` has the text of each file of asks().

    Device rules are among them on v1 and when the cgroup is new (on v2 they are a program: devicefilter). Raises Refused for a limit
    that this host cannot keep, or that contradicts another.
    """
    out: "list[Write]" = []
    if now is None:
        out += _devices(resources, cgroups)
    out += _memory(resources["memory"], cgroups, now)
    out += _cpu(resources["cpu"], cgroups, now)
    out += _cpuset(resources["cpu"], cgroups)
    limit = resources["pids"]["limit"]
    if limit is not None:
        _on("pids", "limit of processes", cgroups)
        # a limit of 0 is one: runtime-spec 1.3 has -1 alone for "no limit"
        out.append(Write("pids", "pids.max", "max" if limit < 0 else str(limit), "limit of processes"))
    out += _block_io(resources["blockIO"], cgroups)
    out += _hugepages(resources["hugepageLimits"], cgroups)
    out += _network(resources["network"], cgroups)
    out += _rdma(resources["rdma"], cgroups)
    out += _unified(resources["unified"], cgroups)
    return tuple(out)


def asks(resources: "Resources", cgroups: "CgroupFacts") -> "tuple[tuple[str, str], ...]":
    """The (controller, file) pairs whose present texts the writes to a cgroup in use depend on."""
    memory, cpu = resources["memory"], resources["cpu"]
    out: "list[tuple[str, str]]" = []
    kind = version(cgroups, "memory")
    if (memory["limit"] or memory["swap"]) and memory["checkBeforeUpdate"] and kind:
        out.append(("memory", "memory.usage_in_bytes" if kind == 1 else "memory.current"))
    if memory["swap"] or memory["limit"]:
        if kind == 1:
            out.append(("memory", "memory.memsw.limit_in_bytes"))
        elif kind == 2:
            out.append(("memory", "memory.max"))
    if (cpu["quota"] or cpu["period"]) and version(cgroups, "cpu") == 2:
        out.append(("cpu", "cpu.max"))
    return tuple(out)


def notes(resources: "Resources", cgroups: "CgroupFacts") -> "tuple[str, ...]":
    """What of the resources has no effect here, and why, one line each."""
    out: "list[str]" = []
    memory = resources["memory"]
    if memory["kernel"]:
        out.append("/linux/resources/memory/kernel is ignored: Linux has no separate limit of kernel memory since 5.16")
    if memory["swappiness"] == 0 and version(cgroups, "memory") == 2:
        out.append("/linux/resources/memory/swappiness is ignored: cgroup v2 has none for a cgroup")
    if memory["useHierarchy"] is False:
        out.append("/linux/resources/memory/useHierarchy is ignored: limits hold for sub-cgroups too")
    return tuple(out)


def lost(resources: "Resources") -> str:
    """The warning that a container without cgroups is not held to limits that are asked for; "" where none is."""
    asked = [
        name for name, section in resources.items()
        if name != "devices" and any(value and value != -1 for value in (section.values() if isinstance(section, dict) else (section,)))
    ]
    return f"/linux/resources: without a cgroup no limits are set: {', '.join(asked)}" if asked else ""


def _on(controller: str, what: str, cgroups: "CgroupFacts") -> int:
    """The version the controller is on; raises Refused when the host has it on neither."""
    kind = version(cgroups, controller)
    if not kind:
        raise Refused(
            f"cannot set the {what}: no {controller} controller in the cgroup hierarchies of this host",
            f"mount or enable the {controller} controller, or do not ask for this limit",
        )
    return kind


def v1_only(what: str) -> Refused:
    """The fault of a limit that cgroup v2 has not."""
    return Refused(f"cannot set the {what}: cgroup v2 has none", "remove it from /linux/resources, or use a host with cgroup v1")


# ── devices ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _devices(resources: "Resources", cgroups: "CgroupFacts") -> "list[Write]":
    wanted = rules(resources["devices"])
    kind = version(cgroups, "devices")
    if kind == 1:
        return [Write("devices", file, text, "device rules") for file, text in lines(wanted)]
    if not kind and resources["devices"] and not allows_all(wanted):
        _on("devices", "device rules", cgroups)
    return []


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _memory(memory: "Memory", cgroups: "CgroupFacts", now: "dict[str, str] | None") -> "list[Write]":
    limit, swap, reservation = memory["limit"] or None, memory["swap"] or None, memory["reservation"] or None
    if limit or swap or reservation or memory["swappiness"] or memory["disableOOMKiller"] or memory["kernelTCP"]:
        kind = _on("memory", "memory limit", cgroups)
    else:
        kind = version(cgroups, "memory")  # what may be left to ask for holds without the controller too
    if memory["checkBeforeUpdate"] and now is not None:
        usage = int(now["memory.usage_in_bytes" if kind == 1 else "memory.current"])
        for limited, what in ((swap, "memory+swap"), (limit, "memory")):
            if limited is not None and 0 < limited < usage:
                todo = "raise it, free memory first, or turn checkBeforeUpdate off"
                # runc's words, which tools look for
                raise Refused(f"rejecting {what} limit {limited}: the memory in use is {usage} bytes", todo)
    if kind == 1:
        return _memory_v1(memory, limit, swap, now)
    return _memory_v2(memory, limit, swap, now) if kind else []


def _memory_v1(memory: "Memory", limit: "int | None", swap: "int | None", now: "dict[str, str] | None") -> "list[Write]":
    out: "list[Write]" = []
    if memory["useHierarchy"]:
        # always so since 5.11; before, it must be set before there are sub-cgroups
        out.append(Write("memory", "memory.use_hierarchy", "1", "memory hierarchy", fine=("ENOENT",)))
    pair: "list[Write]" = []
    if limit is not None and limit > 0 and swap is not None and 0 < swap < limit:
        raise _swap_below(swap, limit)
    if limit is not None:
        pair.append(Write("memory", "memory.limit_in_bytes", str(limit), "memory limit"))
    if swap is not None:
        pair.append(Write("memory", "memory.memsw.limit_in_bytes", str(swap), "limit of memory and swap"))
    elif limit == -1:
        # no limit of memory means none of both; a kernel that does not account swap has no such file
        pair.append(Write("memory", "memory.memsw.limit_in_bytes", "-1", "limit of memory and swap", fine=("ENOENT",)))
    # at every moment the kernel wants memory <= memory and swap (mm/memcontrol-v1.c), and a new cgroup has both unlimited
    both = UNLIMITED if now is None else int(now.get("memory.memsw.limit_in_bytes", UNLIMITED))
    if limit is not None and (limit if limit > 0 else UNLIMITED) > both:
        pair.reverse()
    out += pair
    if memory["reservation"]:
        out.append(Write("memory", "memory.soft_limit_in_bytes", str(memory["reservation"]), "memory reservation"))
    if memory["kernelTCP"]:
        out.append(Write("memory", "memory.kmem.tcp.limit_in_bytes", str(memory["kernelTCP"]), "limit of TCP buffers"))
    if memory["swappiness"] is not None:
        out.append(Write("memory", "memory.swappiness", str(memory["swappiness"]), "swappiness"))
    if memory["disableOOMKiller"] or (memory["disableOOMKiller"] is False and now is not None):
        out.append(Write("memory", "memory.oom_control", str(int(memory["disableOOMKiller"])), "OOM killer"))
    return out


def _memory_v2(memory: "Memory", limit: "int | None", swap: "int | None", now: "dict[str, str] | None") -> "list[Write]":
    if memory["disableOOMKiller"]:
        raise v1_only("switch for the OOM killer")
    if memory["swappiness"]:
        raise v1_only("swappiness")  # engines fill in 0: notes
    if memory["kernelTCP"]:
        raise v1_only("limit of TCP buffers")
    out: "list[Write]" = []
    if swap is None and limit == -1:
        swap = -1  # as on v1: no limit of memory means none of swap
    if swap is not None:
        alone = _swap_alone(swap, limit, now)
        # without swap in the kernel there is no file, and neither none nor all of nothing is a loss
        fine = ("ENOENT",) if alone <= 0 else ()
        out.append(Write("memory", "memory.swap.max", _bytes(alone), "swap limit", fine=fine))
    if limit is not None:
        # after that of swap: what has no room any more has to go there, or the kernel kills
        out.append(Write("memory", "memory.max", _bytes(limit), "memory limit"))
    if memory["reservation"]:
        out.append(Write("memory", "memory.low", _bytes(memory["reservation"]), "memory reservation"))
    return out


def _swap_alone(swap: int, limit: "int | None", now: "dict[str, str] | None") -> int:
    """The limit of swap alone in bytes, -1 for none, from that of memory and swap, which is what the config has."""
    if swap < 0:
        return -1
    if limit is None and now is not None:
        text = now["memory.max"].strip()
        limit = -1 if text == "max" else int(text)
    if limit is None:
        raise Refused("cannot set the swap limit without a memory limit", "set /linux/resources/memory/limit too")
    if limit < 0:
        return swap
    if swap < limit:
        raise _swap_below(swap, limit)
    return swap - limit


def _swap_below(swap: int, limit: int) -> Refused:
    why = f"the limit of memory and swap, {swap} bytes, is below that of memory, {limit}"
    return Refused(why, "raise /linux/resources/memory/swap, which is that of both (update --memory-swap)")


def _bytes(value: int) -> str:
    return "max" if value < 0 else str(value)


# ── cpu ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def cpu_weight(shares: int) -> int:
    """cpu.weight (1 to 10000, 100 by default) for the shares of v1 (2 to 262144, 1024 by default).

    The curve through these three points that runc and crun have had since 2025; before, it was a line, on which 1024 were 39.
    """
    if shares <= 2 or shares >= 262144:
        return 1 if shares <= 2 else 10000
    from math import ceil, log2

    power = log2(shares)
    # ceil as they do: 612, 125 and 7/34 are what makes the three points come out
    return ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def _cpu(cpu: "CPU", cgroups: "CgroupFacts", now: "dict[str, str] | None") -> "list[Write]":
    shares, quota, period = cpu["shares"] or None, cpu["quota"] or None, cpu["period"] or None
    burst, idle = cpu["burst"], cpu["idle"]
    realtime = [(name, cpu[key]) for name, key in REALTIME if cpu[key]]
    if shares is None and quota is None and period is None and burst is None and idle is None and not realtime:
        return []
    kind = _on("cpu", "cpu limit", cgroups)
    out: "list[Write]" = []
    if kind == 2 and realtime:
        raise v1_only("realtime cpu time")
    if shares is not None:
        file, text = ("cpu.shares", str(shares)) if kind == 1 else ("cpu.weight", str(cpu_weight(shares)))
        out.append(Write("cpu", file, text, "cpu shares"))
    if idle is not None:
        flag = Write("cpu", "cpu.idle", str(idle), "idle cpu scheduling")
        if idle:
            # an idle cgroup has no shares and refuses them (sched_group_set_shares): give them before, unless it is idle already
            if out and now is not None:
                out[0] = Write(out[0].controller, out[0].file, out[0].text, out[0].what, fine=("EINVAL",))
            out.append(flag)
        else:
            out.insert(0, flag)
    bandwidth: "list[Write]" = []
    if kind == 1:
        if period is not None:
            bandwidth.append(Write("cpu", "cpu.cfs_period_us", str(period), "cpu period"))
        if quota is not None:
            bandwidth.append(Write("cpu", "cpu.cfs_quota_us", str(quota), "cpu quota"))
    elif quota is not None or period is not None:
        bandwidth.append(Write("cpu", "cpu.max", _cpu_max(quota, period, now), "cpu quota"))
    if burst is not None:
        bandwidth.append(Write("cpu", "cpu.cfs_burst_us" if kind == 1 else "cpu.max.burst", str(burst), "cpu burst"))
    for group in (bandwidth, [Write("cpu", file, str(value), "realtime cpu time") for file, value in realtime]):
        if now is not None and len(group) > 1:
            # each has to suit the others as they are at that moment: whatever goes through first opens the way for the rest
            out += [Write(w.controller, w.file, w.text, w.what, fine=("EINVAL",)) for w in reversed(group)]
        out += group
    return out


REALTIME: "tuple[tuple[str, Literal['realtimePeriod', 'realtimeRuntime']], ...]" = (
    ("cpu.rt_period_us", "realtimePeriod"), ("cpu.rt_runtime_us", "realtimeRuntime"),
)


def _cpu_max(quota: "int | None", period: "int | None", now: "dict[str, str] | None") -> str:
    """The text of cpu.max, "quota period", what is not given staying as it is."""
    had = (now["cpu.max"] if now is not None else "max 100000").split()
    first = had[0] if quota is None else "max" if quota < 0 else str(quota)
    return f"{first} {had[1] if period is None else period}"


def _cpuset(cpu: "CPU", cgroups: "CgroupFacts") -> "list[Write]":
    out: "list[Write]" = []
    if cpu["cpus"]:
        _on("cpuset", "set of cpus", cgroups)
        out.append(Write("cpuset", "cpuset.cpus", cpu["cpus"], "set of cpus"))
    if cpu["mems"]:
        _on("cpuset", "set of memory nodes", cgroups)
        out.append(Write("cpuset", "cpuset.mems", cpu["mems"], "set of memory nodes"))
    return out


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hugepages(limits: "list[HugepageLimit]", cgroups: "CgroupFacts") -> "list[Write]":
    out: "list[Write]" = []
    for limit in limits:
        size, text = limit["pageSize"], str(limit["limit"])
        what = f"limit of {size} pages"
        end = "limit_in_bytes" if _on("hugetlb", what, cgroups) == 1 else "max"
        out.append(Write("hugetlb", f"hugetlb.{size}.{end}", text, what))
        # pages reserved count apart from those in use since 5.7; before, there is no such file
        out.append(Write("hugetlb", f"hugetlb.{size}.rsvd.{end}", text, what, fine=("ENOENT",)))
    return out


def _block_io(io: "BlockIO", cgroups: "CgroupFacts") -> "list[Write]":
    if not any(io.values()):
        return []
    from rundlet.plan.blockio import v1, v2  # rarely asked for

    name = "io" if version(cgroups, "io") else "blkio"
    if _on(name, "block I/O limit", cgroups) == 1:
        return v1(io)
    if io["leafWeight"] or any(device["leafWeight"] for device in io["weightDevice"]):
        raise v1_only("block I/O leaf weight")
    return v2(io)


def _network(network: "Network", cgroups: "CgroupFacts") -> "list[Write]":
    out: "list[Write]" = []
    if network["classID"]:
        if not version(cgroups, "net_cls") and cgroups["layout"] == "v2":
            raise v1_only("network class")
        _on("net_cls", "network class", cgroups)
        out.append(Write("net_cls", "net_cls.classid", str(network["classID"]), "network class"))
    for entry in network["priorities"]:
        if not version(cgroups, "net_prio") and cgroups["layout"] == "v2":
            raise v1_only("network priority")
        _on("net_prio", "network priority", cgroups)
        out.append(Write("net_prio", "net_prio.ifpriomap", f"{entry['name']} {entry['priority']}", f"network priority on {entry['name']}"))
    return out


def _rdma(devices: "dict[str, Rdma]", cgroups: "CgroupFacts") -> "list[Write]":
    out: "list[Write]" = []
    for name, limit in devices.items():
        what = f"limit of RDMA resources of {name}"
        _on("rdma", what, cgroups)
        words = [name]
        if limit["hcaHandles"] is not None:
            words.append(f"hca_handle={limit['hcaHandles']}")
        if limit["hcaObjects"] is not None:
            words.append(f"hca_object={limit['hcaObjects']}")
        out.append(Write("rdma", "rdma.max", " ".join(words), what))
    return out


def _unified(files: "dict[str, str]", cgroups: "CgroupFacts") -> "list[Write]":
    """Files of cgroup v2 by name: last, so that they override."""
    out: "list[Write]" = []
    for file, text in files.items():
        where = f"/linux/resources/unified/{file}"
        controller, dot, _ = file.partition(".")
        if not dot:
            raise Refused(f"{where}: the specified key has not the form CONTROLLER.VALUE `{file}`", "name a file such as memory.high")
        if "/" in file or file in NOT_LIMITS:
            raise Refused(f"{where}: not the name of a cgroup file that sets a limit", "name a file such as memory.high")
        if "unified" not in cgroups["mounts"]:
            raise Refused(f"{where}: invalid configuration: this host has no cgroup v2", "remove it, or use a host with cgroup v2")
        if controller != "cgroup" and controller not in cgroups["controllers"]:
            why = f"{where}: invalid configuration: the requested cgroup controller `{controller}` is not available in cgroup v2 here"
            raise Refused(why, "enable it, or remove this limit")
        # the kernel takes one line a write, of io.max and its like
        out += [Write(controller, file, line, f"limit {file}") for line in [line for line in text.split("\n") if line] or [text]]
    return out


if TYPE_CHECKING:
    from typing import Literal
