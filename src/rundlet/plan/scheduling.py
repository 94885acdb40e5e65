"""How a process is scheduled, where its memory comes from, and which kernel it believes to run on: where a configuration says so.

config.md, "Linux Process" (scheduler, ioPriority, execCPUAffinity); config-linux.md, "Memory policy", "Personality".
"""

from _struct import pack

from rundlet.plan.step import Call, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Linux, MemoryPolicy, Process, Scheduler

# include/uapi/linux/sched.h
POLICIES = {"SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01, "SCHED_FLAG_RECLAIM": 0x02, "SCHED_FLAG_DL_OVERRUN": 0x04, "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10, "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20, "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
CLAMP_MOST = 1024  # SCHED_CAPACITY_SCALE: the configuration names no bounds, so clamping is within those that hold anyway
# include/uapi/linux/ioprio.h
IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
IOPRIO_WHO_PROCESS = 1
# include/uapi/linux/mempolicy.h
MODES = {
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4, "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MODE_FLAGS = {"MPOL_F_STATIC_NODES": 1 << 15, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_NUMA_BALANCING": 1 << 13}
CPUS, NODES = 8192, 1024  # the largest CONFIG_NR_CPUS, and MAX_NUMNODES: spec/ has refused greater numbers
DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}  # include/uapi/linux/personality.h


def turns(process: "Process", target: "int | Slot" = 0) -> "tuple[Step, ...]":
    """The scheduler and the I/O priority of process `target`, 0 for the caller.

    In a user namespace nobody may ask for more than everybody has: capable(CAP_SYS_NICE) means the host's. So there `target` is the
    process's number, and the caller is a process of the host.
    """
    steps = []
    if process["scheduler"]:
        steps.append(_scheduler(process["scheduler"], target))
    io = process["ioPriority"]
    if io:
        steps.append(Step(
            f"set the I/O priority to {io['class']}, {io['priority']}",
            Call("ioprio_set", IOPRIO_WHO_PROCESS, target, IO_CLASSES[io["class"]] << 13 | io["priority"]), kind="scheduling",
            hint="IOPRIO_CLASS_RT takes CAP_SYS_NICE or CAP_SYS_ADMIN" if io["class"] == "IOPRIO_CLASS_RT" else "",
        ))
    return tuple(steps)


def _scheduler(asked: "Scheduler", target: "int | Slot") -> Step:
    """struct sched_attr of sched_setattr(2), in its second size (Linux 5.3)."""
    policy = asked["policy"]
    flags = sum(FLAGS[name] for name in {*asked["flags"]})
    attributes = pack(
        "=IIQiIQQQII", 56, POLICIES[policy], flags, asked["nice"], asked["priority"], asked["runtime"], asked["deadline"], asked["period"],
        0, CLAMP_MOST if flags & FLAGS["SCHED_FLAG_UTIL_CLAMP_MAX"] else 0,
    )
    if policy == "SCHED_DEADLINE":
        hint = (
            "it takes CAP_SYS_NICE, time that others have not reserved, and every CPU of the machine: this process scheduler can't be used "
            "together with AllowedCPUs, /linux/resources/cpu/cpus"
        )
    elif policy in ("SCHED_FIFO", "SCHED_RR"):
        hint = "it takes CAP_SYS_NICE, and in a cgroup v1 a share of real time, /linux/resources/cpu/realtimeRuntime"
    elif policy == "SCHED_ISO":
        hint = "no kernel has it"
    else:
        hint = "a nice value below the runtime's own takes CAP_SYS_NICE"
    said = f", priority {asked['priority']}" if asked["priority"] else f", nice {asked['nice']}" if asked["nice"] else ""
    return Step(f"set the scheduler to {policy}{said}", Call("sched_setattr", target, attributes, 0), kind="scheduling", hint=hint)


def memory_and_personality(linux: "Linux") -> "tuple[Step, ...]":
    """The NUMA memory policy and the execution domain, for the caller: nobody else can set them. set_mempolicy(2), personality(2)."""
    steps = []
    if linux["memoryPolicy"]:
        steps.append(_memory(linux["memoryPolicy"]))
    if linux["personality"]:
        domain = linux["personality"]["domain"]
        steps.append(Step(f"set the personality {domain}", Call("personality", DOMAINS[domain]), kind="scheduling"))
    return tuple(steps)


def _memory(policy: "MemoryPolicy") -> Step:
    nodes = policy["nodes"]
    mode = MODES[policy["mode"]] | sum(MODE_FLAGS[name] for name in {*policy["flags"]})
    words = ", ".join([policy["mode"], *policy["flags"]]) + (f" on the nodes {nodes}" if nodes else "")
    # the kernel looks at one bit less than it is told: get_nodes() in mm/mempolicy.c
    mask = (bits(nodes, NODES), NODES + 1) if nodes else (0, 0)
    return Step(
        f"set the memory policy to {words}", Call("set_mempolicy", mode, *mask), kind="scheduling",
        hint="are these nodes there, and do this mode and its flags go with them? see set_mempolicy(2)",
    )


def affinity(cpus: str, when: str) -> Step:
    """Runs the caller, and whatever it forks, on the CPUs of a list such as "0-3,8" alone; `when` is initial or final."""
    mask = bits(cpus, CPUS)
    return Step(
        f"run on the CPUs {cpus}", Call("sched_setaffinity", 0, len(mask), mask), kind="affinity",
        hint=f"/process/execCPUAffinity/{when}: are any of these CPUs there, and in the container's cpuset?",
    )


def bits(text: str, size: int) -> bytes:
    """A list of numbers below `size`, such as "0-3, 8", as a mask of that many bits."""
    mask = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        mask |= (1 << int(last if dash else first) + 1) - (1 << int(first))
    return mask.to_bytes(size // 8, "little")
