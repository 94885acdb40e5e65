"""The rules that look at more than one key, or further into a text than its kind. Each cites where it comes from.

Functions take the resolved shape (types.py), finish it where its documentation says so, and append warnings; what they refuse is
a BadSpec at the JSON path that the user has to change.
"""

from rundlet.errors import BadSpec
from rundlet.jsontext import escape, show
from rundlet.spec.table import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Config, Hooks, IDMapping, Linux, Mount, Process, Resources, Scheduler, Seccomp

IPC_SYSCTLS = (
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
    "kernel/msg_next_id",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
)
MAX_EXTENTS = 340  # UID_GID_MAP_MAX_EXTENTS, include/linux/user_namespace.h
MAX_ID = 4294967295  # the id -1 means "none" and cannot be mapped
MIN_RUNTIME, MAX_TIME = 1024, (1 << 63) - 1  # nanoseconds: 1 << DL_SCALE, kernel/sched/sched.h
MAX_CPU = 8191  # the largest CONFIG_NR_CPUS, less one
MAX_NODE = 1023  # MAX_NUMNODES of CONFIG_NODES_SHIFT=10, less one
MAX_HOST_NAME = 64  # __NEW_UTS_LEN, include/uapi/linux/utsname.h
MAX_INTERFACE_NAME = 15  # IFNAMSIZ with its NUL, include/uapi/linux/if.h
CLOCKS = ("boottime", "monotonic")
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")


def check_config(config: "Config", warnings: "list[str]") -> None:
    """All rules for a config.json. Raises BadSpec."""
    check_version(config["ociVersion"])
    linux = config["linux"]
    check_process(config["process"], "/process", warnings)
    check_namespaces(config)
    check_mounts(config["mounts"], linux, warnings)
    check_hooks(config["hooks"])
    linux["sysctl"] = {check_sysctl(name, f"/linux/sysctl/{escape(name)}", config): value for name, value in linux["sysctl"].items()}
    check_devices(linux, warnings)
    check_resources(linux["resources"], "/linux/resources")
    if linux["seccomp"]:
        check_seccomp(linux["seccomp"], "/linux/seccomp")
    check_rest(linux, warnings)


def check_hooks(hooks: "Hooks") -> None:
    """config.md, "POSIX-platform Hooks": without arguments there is the path."""
    for each in hooks.values():
        for hook in each:  # type: ignore[attr-defined]  # the values of a TypedDict are objects to mypy
            hook["args"] = hook["args"] or [hook["path"]]


def check_version(version: str) -> None:
    """Every 1.0.0 to 1.3.x, with any suffix of SemVer 2.0.0; config.md, "Specification version". Raises BadSpec."""
    core = version.split("+")[0].split("-")[0]
    parts = core.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") for part in parts):
        raise BadSpec("/ociVersion", f"must be a semantic version such as 1.3.0, not {show(version)}")
    if parts[0] != "1" or parts[1] not in ("0", "1", "2", "3"):
        raise BadSpec("/ociVersion", f"version {core} of the runtime-spec is not supported, only 1.0.0 to 1.3.x")


# ── process ──


def check_process(process: "Process", where: str, warnings: "list[str]") -> None:
    """config.md, "Process". `where` is "/process", or "" for a file of its own. Raises BadSpec."""
    args = process["args"]
    if not args:
        raise BadSpec(f"{where}/args", "must name at least the program to run")
    if not args[0]:
        raise BadSpec(f"{where}/args/0", 'exec: "": executable file not found: the program to run has an empty name')
    if not process["terminal"]:
        process["consoleSize"] = None  # "MUST ignore"
    for index, entry in enumerate(process["env"]):
        if entry.find("=") < 1:
            warnings.append(f"{where}/env/{index}: {show(entry)} is not of the form NAME=value, passed on as it is")
    seen = set()
    for index, limit in enumerate(process["rlimits"]):
        if limit["type"] in seen:
            raise BadSpec(f"{where}/rlimits/{index}/type", f"{limit['type']} is given twice")
        if limit["soft"] > limit["hard"]:
            raise BadSpec(f"{where}/rlimits/{index}/soft", f"must not be above hard, {limit['hard']}, not {limit['soft']}")
        seen.add(limit["type"])
    check_capabilities(process, f"{where}/capabilities", warnings)
    if process["apparmorProfile"]:
        check_profile_name(process["apparmorProfile"], f"{where}/apparmorProfile")
    if process["scheduler"]:
        check_scheduler(process["scheduler"], f"{where}/scheduler")
    affinity = process["execCPUAffinity"]
    if affinity:
        number_list(affinity["initial"] or "", MAX_CPU, f"{where}/execCPUAffinity/initial")
        number_list(affinity["final"] or "", MAX_CPU, f"{where}/execCPUAffinity/final")


def check_capabilities(process: "Process", where: str, warnings: "list[str]") -> None:
    """Since 1.2 the spec asks for a warning where a capability cannot be had, and SHOULD NOT fail; config.md, "capabilities"."""
    sets = process["capabilities"]
    if not sets:
        return
    for key, names in sets.items():
        known: list[str] = []
        for index, name in enumerate(names):  # type: ignore[arg-type,var-annotated]  # as above
            if name not in CAPABILITIES:
                warnings.append(f"{where}/{key}/{index}: capability {show(name)} is not known, left out")
            elif name not in known:
                known.append(name)
        sets[key] = known  # type: ignore[literal-required]
    # PR_CAP_AMBIENT_RAISE fails with EPERM for any other, prctl(2)
    grantable = [name for name in sets["ambient"] if name in sets["permitted"] and name in sets["inheritable"]]
    others = [name for name in sets["ambient"] if name not in grantable]
    if others:  # in one line: Buildah asks for all of them ambient, and none inheritable, at each step
        many = "ies" if len(others) > 1 else "y"
        warnings.append(
            f"{where}/ambient: can't raise ambient capabilit{many} {', '.join(others)}: not both permitted and inheritable, left out"
        )
    sets["ambient"] = grantable


def check_profile_name(name: str, where: str) -> None:
    """Names that the kernel would take for something else than the profile of that name.

    security/apparmor: a leading "&" stacks, edge blanks are stripped, more than a page is cut off (`proc_pid_attr_write`), and
    any prefix of the word "unconfined" is taken for it (`aa_fqlookupn_profile`). Each part of a stack is looked up by itself.
    """
    if "\n" in name:
        raise BadSpec(where, "must not contain a newline")
    if name != name.strip():
        raise BadSpec(where, "must not begin or end with blanks: the kernel would drop them")
    if len(name.encode()) > 4000:
        raise BadSpec(where, "must not be longer than 4000 bytes: the kernel would cut it off")
    if name[0] == "&":
        raise BadSpec(where, 'must not begin with "&": the kernel would stack the profile instead of changing to it')
    for part in name.split("//&"):
        if part[:1] == ":":  # :namespace:profile or :namespace://profile
            part = part[1:].partition(":")[2].removeprefix("//")
        part = part.strip()
        if not part:
            raise BadSpec(where, f"must name a profile in each part, not {show(name)}")
        if part != "unconfined" and "unconfined".startswith(part):
            raise BadSpec(where, f"{show(part)} would be taken by the kernel for unconfined: give the whole word, or rename the profile")


def check_scheduler(scheduler: "Scheduler", where: str) -> None:
    """sched_setattr(2), sched(7); the rules of other runtimes. Raises BadSpec."""
    policy = scheduler["policy"]
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        if not scheduler["priority"]:
            raise BadSpec(f"{where}/priority", f"must be an integer from 1 to 99 for {policy}")
    elif scheduler["priority"]:
        raise BadSpec(f"{where}/priority", f"can only be given for SCHED_FIFO and SCHED_RR, not for {policy}")
    runtime, deadline, period = scheduler["runtime"], scheduler["deadline"], scheduler["period"]
    if policy != "SCHED_DEADLINE":
        for key, value in (("runtime", runtime), ("deadline", deadline), ("period", period)):
            if value:
                raise BadSpec(f"{where}/{key}", f"can only be given for SCHED_DEADLINE, not for {policy}")
        return
    # __checkparam_dl() in kernel/sched/deadline.c; a period of 0 is the deadline
    for key, value in (("runtime", runtime), ("deadline", deadline)):
        if not value:
            raise BadSpec(f"{where}/{key}", f"sched_setattr: `SCHED_DEADLINE` requires `{key}`, greater than 0")
    if not MIN_RUNTIME <= runtime <= MAX_TIME:
        raise BadSpec(f"{where}/runtime", f"`SCHED_DEADLINE` runtime must be between {MIN_RUNTIME} and {MAX_TIME}, not {runtime}")
    if runtime > deadline:
        raise BadSpec(f"{where}/runtime", f"`SCHED_DEADLINE` runtime {runtime} must be <= deadline {deadline}")
    if period and deadline > period:
        raise BadSpec(f"{where}/deadline", f"`SCHED_DEADLINE` deadline {deadline} must be <= period {period}")


def number_list(text: str, most: int, where: str) -> "list[tuple[int, int]]":
    """The ranges of a list such as "0-3, 8" (cpuset(7), list format), first and last of each; the empty text has none.

    Raises BadSpec at `where` for any other form, and for a number above `most`.
    """
    ranges = []
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        first, last = first.strip(" "), last.strip(" ") if dash else first.strip(" ")
        if not all(number.isascii() and number.isdigit() and len(number) < 10 for number in (first, last)):
            raise BadSpec(where, f'must be a list such as "0-3,8", not {show(text)}')
        if not int(first) <= int(last) <= most:
            raise BadSpec(where, f"{show(part)} is not a range within 0 to {most}")
        ranges.append((int(first), int(last)))
    return ranges


# ── namespaces, ids, names ──


def check_namespaces(config: "Config") -> None:
    """config-linux.md, "Namespaces", "User namespace mappings", "Time offsets". Raises BadSpec."""
    linux = config["linux"]
    paths: dict[str, str | None] = {}
    for index, namespace in enumerate(linux["namespaces"]):
        if namespace["type"] in paths:
            raise BadSpec(f"/linux/namespaces/{index}/type", f"the {namespace['type']} namespace is given twice")
        paths[namespace["type"]] = namespace["path"]

    uid_maps, gid_maps = linux["uidMappings"], linux["gidMappings"]
    for key, maps in (("uidMappings", uid_maps), ("gidMappings", gid_maps)):
        if maps and "user" not in paths:
            raise BadSpec(f"/linux/{key}", "needs a user namespace in /linux/namespaces")
        check_maps(maps, f"/linux/{key}")
    if "user" in paths and not paths["user"]:
        user = config["process"]["user"]
        check_mapped(user["uid"], uid_maps, "/process/user/uid", "/linux/uidMappings")
        check_mapped(user["gid"], gid_maps, "/process/user/gid", "/linux/gidMappings")
        for index, gid in enumerate(user["additionalGids"]):
            check_mapped(gid, gid_maps, f"/process/user/additionalGids/{index}", "/linux/gidMappings")

    for clock in linux["timeOffsets"]:
        if clock not in CLOCKS:
            raise BadSpec(f"/linux/timeOffsets/{escape(clock)}", "is not a clock with an offset: those are boottime and monotonic")
        if "time" not in paths:
            raise BadSpec("/linux/timeOffsets", "needs a time namespace in /linux/namespaces")
        if paths["time"]:  # time_namespaces(7): fixed once a process is in it
            raise BadSpec("/linux/timeOffsets", "needs a new time namespace: one that is joined has its offsets already")

    for key in ("hostname", "domainname"):
        name: str | None = config[key]  # type: ignore[literal-required]
        if name and "uts" not in paths:
            raise BadSpec(f"/{key}", "needs a uts namespace in /linux/namespaces")
        if name and len(name.encode()) > MAX_HOST_NAME:
            raise BadSpec(f"/{key}", f"must not be longer than {MAX_HOST_NAME} bytes")
    for key in ("maskedPaths", "readonlyPaths"):
        if linux[key] and "mount" not in paths:  # type: ignore[literal-required]  # it would change the host's own mounts
            raise BadSpec(f"/linux/{key}", "needs a mount namespace in /linux/namespaces")
        for index, path in enumerate(linux[key]):  # type: ignore[literal-required]
            if is_root(path):  # what is mounted on / is not seen by who is in there already
                what = "hidden" if key == "maskedPaths" else "made read-only here: /root/readonly does that"
                raise BadSpec(f"/linux/{key}/{index}", f"the root itself cannot be {what}")
    if linux["netDevices"] and "network" not in paths:
        raise BadSpec("/linux/netDevices", "unable to move network devices without a NET namespace: add one to /linux/namespaces")


def is_root(path: str) -> bool:
    """Whether a path is the root, however it is written."""
    depth = 0
    for part in path.split("/"):
        depth = max(depth - 1, 0) if part == ".." else depth + (part not in ("", "."))
    return not depth


def check_maps(maps: "list[IDMapping]", where: str) -> None:
    """What the kernel accepts as an id map: user_namespaces(7), `map_write` in kernel/user_namespace.c. Raises BadSpec."""
    if len(maps) > MAX_EXTENTS:
        raise BadSpec(where, f"must not have more than {MAX_EXTENTS} entries, not {len(maps)}")
    for key in ("containerID", "hostID"):
        ranges = sorted((entry[key], entry["size"], index) for index, entry in enumerate(maps))
        end, before = 0, 0
        for first, size, index in ranges:
            if first + size > MAX_ID:
                raise BadSpec(f"{where}/{index}/size", f"{key} {first} and size {size} run past the last id, {MAX_ID - 1}")
            if first < end:
                raise BadSpec(f"{where}/{index}/{key}", f"the ids from {first} overlap those of {where}/{before}")
            end, before = first + size, index


def check_mapped(number: int, maps: "list[IDMapping]", where: str, table: str) -> None:
    """An unmapped id cannot be taken: setresuid(2), EINVAL. Without a map there will be one that has it. Raises BadSpec."""
    if maps and not any(entry["containerID"] <= number < entry["containerID"] + entry["size"] for entry in maps):
        raise BadSpec(where, f"{number} is not mapped by {table}")


def check_mounts(mounts: "list[Mount]", linux: "Linux", warnings: "list[str]") -> None:
    """config.md, "Mounts". Raises BadSpec."""
    user = has_namespace(linux, "user")
    for index, mount in enumerate(mounts):
        where = f"/mounts/{index}"
        if mount["destination"][0] != "/":
            warnings.append(f"{where}/destination: {show(mount['destination'])} is relative, taken from /; a later version may refuse it")
            mount["destination"] = "/" + mount["destination"]
        if not mount["uidMappings"] and not mount["gidMappings"]:
            if not user and ("idmap" in mount["options"] or "ridmap" in mount["options"]):
                raise BadSpec(f"{where}/options", "idmap needs uidMappings and gidMappings here, or a user namespace")
            continue
        for key in ("uidMappings", "gidMappings"):
            if not mount[key]:
                raise BadSpec(f"{where}/{key}", "is required: give both mappings or none")
            check_maps(mount[key], f"{where}/{key}")


def has_namespace(linux: "Linux", kind: str) -> bool:
    """Whether the container has a namespace of its own of this kind, or joins one."""
    return any(namespace["type"] == kind for namespace in linux["namespaces"])


def check_sysctl(name: str, where: str, config: "Config") -> str:
    """The path below /proc/sys of a parameter that a namespace of the container holds. Raises BadSpec for any other.

    Of "." and "/" the one that comes first separates, the other stands for a character of a name: sysctl.d(5). Which are
    namespaced: ipc/ipc_sysctl.c, ipc/mq_sysctl.c, kernel/utsname_sysctl.c, net/.
    """
    dot, slash = name.find("."), name.find("/")
    path = name.translate({46: 47, 47: 46}) if dot >= 0 and (slash < 0 or dot < slash) else name
    parts = path.split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts):
        raise BadSpec(where, "is not the name of a kernel parameter")
    if path in IPC_SYSCTLS or path.startswith("fs/mqueue/"):
        kind = "ipc"
    elif parts[0] == "net":
        kind = "network"
    elif path in ("kernel/hostname", "kernel/domainname"):
        kind, key = "uts", parts[1]
        if key == "hostname" or config["domainname"]:
            raise BadSpec(where, f"conflicts with /{key}: set that instead")
    else:
        raise BadSpec(where, "does not belong to a namespace: it would change the host")
    if not has_namespace(config["linux"], kind):
        raise BadSpec(where, f"needs a {kind} namespace in /linux/namespaces: it would change the host")
    return path


# ── devices, limits, filter ──


def check_devices(linux: "Linux", warnings: "list[str]") -> None:
    """config-linux.md, "Devices" and "Network Devices". Raises BadSpec."""
    for index, device in enumerate(linux["devices"]):
        where = f"/linux/devices/{index}"
        kind: str = device["type"]  # not yet what its type says
        if kind == "p":
            device["major"] = device["minor"] = 0
        for key, most in (("major", 4095), ("minor", 1048575)):  # include/linux/kdev_t.h
            number: int | None = device[key]  # type: ignore[literal-required]
            if number is None:
                raise BadSpec(f"{where}/{key}", f"is required for type {kind}")
            if not 0 <= number <= most:
                raise BadSpec(f"{where}/{key}", f"must be an integer from 0 to {most}, not {number}")
        if kind == "u":
            device["type"] = "c"
        if device["fileMode"] > 0o7777:
            # older engines wrote the bits of the file's type, too, or Go's own notion of them
            warnings.append(f"{where}/fileMode: only the permission bits of {device['fileMode']} are used")
            device["fileMode"] &= 0o7777
    names: set[str] = set()
    for outside, net_device in linux["netDevices"].items():
        where = f"/linux/netDevices/{escape(outside)}"
        check_interface(outside, where)
        net_device["name"] = net_device["name"] or outside
        check_interface(net_device["name"], f"{where}/name")
        if net_device["name"] in names:
            raise BadSpec(f"{where}/name", f"another device is to be named {show(net_device['name'])}, too")
        names.add(net_device["name"])


def check_interface(name: str, where: str) -> None:
    """A name that the kernel accepts: `dev_valid_name` in net/core/dev.c; "%" would be a pattern. Raises BadSpec."""
    if name in (".", "..") or len(name.encode()) > MAX_INTERFACE_NAME or any(c in "/:%" or c.isspace() for c in name):
        raise BadSpec(where, f"{show(name)} cannot be the name of a network device")


def check_resources(resources: "Resources", where: str) -> None:
    """config-linux.md, "Control groups". `where` is "/linux/resources", or "" for a file of its own. Raises BadSpec."""
    for name in resources["unified"]:
        if "/" in name or name in (".", ".."):
            raise BadSpec(f"{where}/unified/{escape(name)}", "must be the name of a file in the cgroup, not a path")
    for index, rule in enumerate(resources["devices"]):
        for key in ("major", "minor"):
            if rule[key] == -1:
                rule[key] = None
        # other letters mean nothing, and are passed over as with runc: engines have been seen to write them
        known = "".join(letter for letter in "rwm" if letter in rule["access"])
        if rule["access"] and not known:
            raise BadSpec(f"{where}/devices/{index}/access", f"must be made of the letters r, w and m, not {show(rule['access'])}")
        rule["access"] = known
    for index, device in enumerate(resources["blockIO"]["weightDevice"]):
        if device["weight"] is None and device["leafWeight"] is None:
            raise BadSpec(f"{where}/blockIO/weightDevice/{index}", "must have a weight or a leafWeight")
    sizes: set[str] = set()
    for index, page in enumerate(resources["hugepageLimits"]):
        size = page["pageSize"]
        digits = size[:-2]
        if size[-2:] not in ("KB", "MB", "GB") or not (digits.isascii() and digits.isdigit()) or digits[0] == "0":
            raise BadSpec(f"{where}/hugepageLimits/{index}/pageSize", f"must be a size such as 2MB, not {show(size)}")
        if size in sizes:
            raise BadSpec(f"{where}/hugepageLimits/{index}/pageSize", f"{size} is given twice")
        sizes.add(size)
    for name, rdma in resources["rdma"].items():
        if rdma["hcaHandles"] is None and rdma["hcaObjects"] is None:
            raise BadSpec(f"{where}/rdma/{escape(name)}", "must have hcaHandles or hcaObjects")


def check_seccomp(seccomp: "Seccomp", where: str) -> None:
    """config-linux.md, "Seccomp". Raises BadSpec."""
    if seccomp["defaultAction"] == "SCMP_ACT_NOTIFY":  # the listener could never be handed over: that takes system calls, too
        raise BadSpec(f"{where}/defaultAction", "must not be SCMP_ACT_NOTIFY")
    if seccomp["defaultErrnoRet"] is not None and seccomp["defaultAction"] not in WITH_ERRNO:
        raise BadSpec(f"{where}/defaultErrnoRet", f"needs SCMP_ACT_ERRNO or SCMP_ACT_TRACE, not {seccomp['defaultAction']}")
    for index, rule in enumerate(seccomp["syscalls"]):
        action = rule["action"]
        if not rule["names"] or "" in rule["names"]:
            raise BadSpec(f"{where}/syscalls/{index}/names", "must name at least one system call, none empty")
        if rule["errnoRet"] is not None and action not in WITH_ERRNO:
            raise BadSpec(f"{where}/syscalls/{index}/errnoRet", f"needs SCMP_ACT_ERRNO or SCMP_ACT_TRACE, not {action}")


def check_rest(linux: "Linux", warnings: "list[str]") -> None:
    """config-linux.md, "IntelRdt", "Memory policy", "Personality". Raises BadSpec."""
    rdt = linux["intelRdt"]
    if rdt:
        group = rdt["closID"]
        if group and group != "/" and ("/" in group or group in (".", "..")):  # "/" is the root group, since 1.3
            raise BadSpec("/linux/intelRdt/closID", f"must be the name of a directory, not {show(group)}")
        bandwidth = rdt["memBwSchema"]
        if bandwidth and (not bandwidth.startswith("MB:") or "\n" in bandwidth):
            raise BadSpec("/linux/intelRdt/memBwSchema", f"must be one line that begins with MB:, not {show(bandwidth)}")
    memory = linux["memoryPolicy"]
    if memory:
        number_list(memory["nodes"] or "", MAX_NODE, "/linux/memoryPolicy/nodes")
    personality = linux["personality"]
    if personality and personality["flags"]:
        warnings.append("/linux/personality/flags: no flags are defined, left out")
        personality["flags"] = []
