"""Where the runtime lacks the host's privileges: run by an unprivileged user, or as root of a user namespace that an engine has made.

    with_users   a user's container without a user namespace gets one, and a user namespace without maps its maps: crun does so
    check        what cannot be done is refused while nothing has been made
    place        the cgroups that the runtime may make; a limit without one is refused, and no limit asked for needs none
    told         the kernel's refusal of a user namespace, with the switch that is behind it
"""

import posix

from rundlet import jsontext
from rundlet.cgroup import place as cgroup_place
from rundlet.cgroup.place import Place
from rundlet.errors import Fault, Refused, StepFailed, WrongState
from rundlet.life import idmaps
from rundlet.life.procfs import write_oom_score
from rundlet.life.store import read, status
from rundlet.plan.label import split_namespace
from rundlet.plan.resources import writes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rundlet.cgroup.place import Dir
    from rundlet.host import Facts
    from rundlet.life.store import Record
    from rundlet.plan.mounts.mounting import Hierarchy
    from rundlet.plan.resources import CgroupFacts
    from rundlet.plan.write import Write
    from rundlet.spec.types import Config, Process, Resources

SUBORDINATE = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
EPERM, ENOMEM, EACCES, ENOSPC, EUSERS = 1, 12, 13, 28, 87
SWITCHES = "/proc/sys/"
RESTRICTS = "kernel/apparmor_restrict_unprivileged_userns"  # perhaps for root's eyes alone
# what of the making of a container takes capabilities in the new user namespace
TAKES_CAPABILITIES = ("userns", "propagation", "source", "root", "mount", "namespace", "uts", "sysctl", "device")


# ── the user namespace that was not asked for ────────────────────────────────────────────────────────────────────────────────


def with_users(text: bytes, config: "Config") -> bytes:
    """The text of a valid configuration without a user namespace, or with one that has no maps, with what is missing added: for the user
    who runs this command.

    User 0 in there is that user, the ids behind it are those of /etc/subuid and /etc/subgid. Without such, or without newuidmap, the
    process's user is the only one there is. Group 5 of a devpts, which is then nobody's, is left out.
    """
    raw: "Any" = jsontext.loads(text, "config.json")
    linux = raw["linux"] = {**(raw.get("linux") or {})}
    if not any(space["type"] == "user" for space in config["linux"]["namespaces"]):
        linux["namespaces"] = [*(linux.get("namespaces") or ()), {"type": "user"}]
    user = config["process"]["user"]
    ranges = {kind: _subordinate(path) for kind, path in SUBORDINATE.items()} if idmaps.available() else {}
    for kind, own in (("uid", posix.geteuid()), ("gid", posix.getegid())):
        if linux.get(f"{kind}Mappings"):
            continue
        linux[f"{kind}Mappings"] = maps = [{"containerID": 0, "hostID": own, "size": 1}]
        if ranges.get("uid") and ranges.get("gid"):
            first, size = ranges[kind]  # type: ignore[misc]
            maps.append({"containerID": 1, "hostID": first, "size": size})
        else:
            maps[0]["containerID"] = user[kind]  # type: ignore[literal-required]
    for mount in raw.get("mounts") or ():
        if mount.get("type") == "devpts":
            mount["options"] = [word for word in mount.get("options") or () if word[:4] != "gid=" or _maps(linux["gidMappings"], word[4:])]
    return jsontext.dumps(raw).encode()


def _maps(maps: "list[dict[str, int]]", text: str) -> bool:
    return text.isdigit() and any(m["containerID"] <= int(text) < m["containerID"] + m["size"] for m in maps)


def _subordinate(path: str) -> "tuple[int, int] | None":
    """The first range of ids that the user running this has in /etc/subuid or /etc/subgid: (first, how many). subuid(5)"""
    import pwd

    try:
        names = {str(posix.geteuid()), pwd.getpwuid(posix.geteuid()).pw_name}
        lines = read(path).decode("utf-8", "replace").splitlines()
    except (KeyError, OSError):
        return None  # newuidmap maps nothing for a user without a name
    for line in lines:
        name, _, numbers = line.strip().partition(":")
        first, _, size = numbers.partition(":")
        if name in names and first.isdigit() and size.isdigit() and int(size):
            return int(first), int(size)
    return None


# ── refusals before anything is made ─────────────────────────────────────────────────────────────────────────────────────────


def check(config: "Config", facts: "Facts") -> None:
    """Raises Refused for what the runtime's privileges do not suffice for."""
    linux = config["linux"]
    spaces = {space["type"]: space["path"] for space in linux["namespaces"]}
    if "user" not in spaces and spaces and "CAP_SYS_ADMIN" not in facts["caps"]["effective"]:
        raise Refused(
            f"/linux/namespaces: making them takes CAP_SYS_ADMIN, which user {facts['uid']} lacks here",
            "add a user namespace (rundlet spec --rootless writes such a configuration), or run as root",
        )
    if "user" in spaces and spaces["user"] is None:
        idmaps.check(linux, facts)
        if config["process"]["user"]["additionalGids"] and idmaps.groups_denied(linux, facts):
            raise Refused(
                "/process/user/additionalGids: a user may map its own group only where setgroups(2) is denied, so there can be no others",
                "leave them out, or map groups of /etc/subgid in /linux/gidMappings",
            )


def groups_denied(config: "Config", facts: "Facts") -> bool:
    """Whether the container's groups cannot be set: its user namespace forbids it, or the one that the runtime is in, and all below it."""
    new = any(space["type"] == "user" and space["path"] is None for space in config["linux"]["namespaces"])
    if new and idmaps.groups_denied(config["linux"], facts):
        return True
    return facts["user_namespace"] and read("/proc/self/setgroups").strip() == b"deny"


def before_exec(record: "Record", proc: "Process") -> None:
    """What a user's exec needs before there is a process: the oom score, which that one inherits, since its own files belong to root.

    Raises WrongState for a container that waits for start: its process is hidden, and so are the namespaces that it is in. Were it not,
    whatever runs in them already could take it over before it is confined.
    """
    if record["phase"] == "created" and status(record) == "created":
        raise WrongState("a user without privileges cannot exec in a container that has not been started; start it first")
    if proc["oomScoreAdj"] is not None:
        write_oom_score(posix.getpid(), proc["oomScoreAdj"])


# ── cgroups ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def place(cgroups: "CgroupFacts", path: "str | None", container_id: str) -> Place:
    """The cgroups that can be made and entered; none where nothing is delegated.

    Without /linux/cgroupsPath that is, on cgroup v2, beside the runtime's own cgroup, which has processes and so can have no cgroup with
    controllers in it; runc does the same. Raises Refused where one is named and none can be made.
    """
    named = bool(path)
    own = cgroups["own"].get("unified", "") if cgroups["layout"] == "v2" else ""
    if not path and own:
        path = f"{own.rpartition('/')[0]}/{container_id}"
    at = cgroup_place.place(cgroups, path, container_id)
    found = Place(tuple(one for one in at.dirs if _ours(one, own)))
    if named and at.dirs and not found.dirs:
        raise Refused(
            f"/linux/cgroupsPath: user {posix.geteuid()} may not make the cgroup {at.dirs[-1].path} and move processes to it",
            "have a cgroup v2 delegated, be in it, and name one in there; or leave cgroupsPath out",
        )
    return found


def _ours(at: "Dir", own: str) -> bool:
    """Whether the directory, or the nearest outer one that is there, may be written, and processes be moved from where the runtime is.

    The second takes the right to write cgroup.procs of the cgroup that is around both: cgroup-v2.rst, "Delegation Containment".
    """
    path = at.path
    while not _exists(path) and len(path) > len(at.mount):
        path = path.rpartition("/")[0]
    if not posix.access(path, posix.W_OK, effective_ids=True):
        return False
    if at.version == 1 or not own:
        return True
    around = at.mount
    for mine, its in zip(own.split("/")[1:], at.path[len(at.mount) :].split("/")[1:], strict=False):
        if mine != its or not mine:
            break
        around += "/" + mine
    return posix.access(around + "/cgroup.procs", posix.W_OK, effective_ids=True)


def _exists(path: str) -> bool:
    return posix.access(path, posix.F_OK)


def shown(cgroups: "CgroupFacts", at: Place) -> "list[Hierarchy]":
    """What a mount of type cgroup shows in each hierarchy: the container's cgroup, or the runtime's own, which it stays in."""
    ours = {one.mount: one.path for one in at.dirs}
    found = []
    for one in cgroup_place.place(cgroups, "/own", "").dirs:
        key = "unified" if one.version == 2 else one.controllers[0]
        path = ours.get(one.mount) or (one.mount + cgroups["own"].get(key, "/")).rstrip("/")
        found.append((path, one.version, list(one.controllers)))
    return found


def limits(resources: "Resources", cgroups: "CgroupFacts", at: Place, facts: "Facts") -> "tuple[Write, ...]":
    """The limits that are set; raises Refused for the first without a cgroup to be set in.

    Those on devices are left out, as the peers do: in a user namespace nobody makes device nodes, and the filter of cgroup v2 takes
    privileges on the host. The devices in the container are those that were bound into it.
    """
    if not cgroups["mounts"]:
        return ()
    left = tuple(write for write in writes({**resources, "devices": []}, cgroups) if write.controller != "devices")
    for write in left:
        if cgroup_place.find(at, write.controller) is None:
            raise Refused(
                f"/linux/resources: cannot set the {write.what}: user {facts['uid']} may not make a cgroup with the "
                f"{write.controller} controller here",
                "have a cgroup v2 delegated, be in it, and name it in /linux/cgroupsPath; or ask for no limit",
            )
    return left


# ── what the kernel said ─────────────────────────────────────────────────────────────────────────────────────────────────────


def told(failed: StepFailed, kind: str, facts: "Facts") -> Fault:
    """The fault with the switch of the host that may be behind it; as it is where none is."""
    why = _limits(failed.errno) if kind == "clone" else ""
    if not why and (kind == "clone" or kind in TAKES_CAPABILITIES) and failed.errno in (EPERM, EACCES):
        why = _switched_off(kind, facts) or (_unruled(facts) if kind == "clone" and failed.errno == EACCES else "")
    return Refused(f"{failed.message}; {why}") if why else failed


def _limits(errno: int) -> str:
    if errno == ENOMEM:
        return "where a PID namespace is joined, its first process has ended: pid_namespaces(7)"
    if errno not in (ENOSPC, EUSERS):
        return ""
    for kind in ("user", "mnt", "net", "pid", "ipc", "uts", "cgroup", "time"):
        if _switch(f"user/max_{kind}_namespaces") == "0":
            return f"user.max_{kind}_namespaces is 0; allow some: sysctl user.max_{kind}_namespaces=15000"
    return "the user has as many namespaces as user.max_*_namespaces permits, or user namespaces are nested too deep (32)"


def _switched_off(kind: str, facts: "Facts") -> str:
    """The host's switches against user namespaces of users: Debian's, and Ubuntu's, which lets them be made, but without capabilities."""
    names = {split_namespace(part["name"])[1] for part in facts["apparmor"]["components"]}
    on = facts["apparmor"]["restrict_userns"]
    hidden = on is None and posix.access(SWITCHES + RESTRICTS, posix.F_OK)
    if (on or hidden) and names and names <= {"unconfined", "unprivileged_userns"}:
        return (
            f"kernel.apparmor_restrict_unprivileged_userns {'may be' if hidden else 'is'} 1, and a program without its own profile then "
            "has no capabilities in a user namespace; load a profile for the runtime that has the rule: userns,"
        )
    if kind != "clone":
        return ""
    if _switch("kernel/unprivileged_userns_clone") == "0":
        return "kernel.unprivileged_userns_clone is 0; permit it: sysctl kernel.unprivileged_userns_clone=1"
    if facts["seccomp"]:
        return "a seccomp filter confines the runtime itself, and may forbid new namespaces"
    return ""


def _unruled(facts: "Facts") -> str:
    """To new namespaces EACCES is a security module's word alone, clone(2): AppArmor's where there is a user namespace among them."""
    names = [f'"{part["name"]}"' for part in facts["apparmor"]["components"] if part["mode"] == "enforce"]
    return f"the runtime's profile {' and '.join(names)} needs the rule: userns," if names else ""


def _switch(name: str) -> str:
    try:
        return read(SWITCHES + name).decode().strip()
    except OSError:
        return ""
