"""The id maps of a new user namespace, written from outside: user_namespaces(7).

    with CAP_SETUID, CAP_SETGID    whatever ids these are, the files are written
    one's own id and nothing else  may be mapped by anybody; the group only once setgroups(2) is denied in the namespace
    all else                       is mapped by newuidmap and newgidmap, setuid programs that go by /etc/subuid and /etc/subgid

Setgroups is denied since a group can also be what keeps somebody out: CVE-2014-8989.
"""

import posix
from posix import MFD_CLOEXEC, POSIX_SPAWN_DUP2

from rundlet.errors import Fault, Refused
from rundlet.life.procfs import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.host import Facts
    from rundlet.spec.types import IDMapping, Linux

# engines call without a PATH; /run/wrappers/bin is where NixOS has its setuid programs
FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/sbin", "/run/wrappers/bin")
PAGE = 4096
SAID = 1024  # so much of what a helper that failed wrote is shown


def groups_denied(linux: "Linux", facts: "Facts") -> bool:
    """Whether the maps of a new user namespace can only be written with setgroups(2) denied in it."""
    return "CAP_SETGID" not in facts["caps"]["effective"] and _own(linux["gidMappings"], facts["gid"])


def available() -> bool:
    """Whether both helpers are there."""
    return bool(_find("newuidmap") and _find("newgidmap"))


def check(linux: "Linux", facts: "Facts") -> None:
    """Raises Refused when the maps cannot be written, as far as that is known before anything is made."""
    for key, own, capability, helper in _kinds(facts):
        maps: "list[IDMapping]" = linux[key]  # type: ignore[literal-required]
        if not maps or capability in facts["caps"]["effective"] or _own(maps, own):
            continue
        single = f'map your own id alone: {{"containerID": 0, "hostID": {own}, "size": 1}}'
        if not _find(helper):
            raise Refused(
                f"/linux/{key}: it takes {helper} to map more than the id {own}, and there is none in {', '.join(FOLDERS)}",
                f"install the package uidmap (or shadow-utils), or {single}",
            )
        if facts["nnp"]:
            raise Refused(
                f"/linux/{key}: it takes {helper} to map more than the id {own}, and under no_new_privs no program gains privilege",
                f"start the runtime without no_new_privs, or {single}",
            )


def write(pid: int, linux: "Linux", facts: "Facts") -> None:
    """Writes the maps of the new user namespace of process `pid`. Raises Fault with the word of the kernel or of the helper."""
    for key, own, capability, helper in _kinds(facts):
        maps: "list[IDMapping]" = linux[key]  # type: ignore[literal-required]
        file = f"{key[:3]}_map"
        privileged = capability in facts["caps"]["effective"]
        if not privileged and not _own(maps, own):
            _help(helper, pid, maps, key)
            continue
        if not privileged and file == "gid_map":
            write_file(f"/proc/{pid}/setgroups", "deny", "deny setgroups in the user namespace")
        text = "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in maps)
        if len(text) >= PAGE:
            why = f"/linux/{key}: {len(maps)} entries make a text of {len(text)} bytes, and the kernel takes less than {PAGE}"
            raise Refused(why, "map longer ranges; those that follow each other on both sides are one")
        hint = f"every hostID must be an id of the runtime's own user namespace (/proc/self/{file}), and to map its 0 takes CAP_SETFCAP"
        shown = "; ".join(text.splitlines()[:3]) + ("; …" if len(maps) > 3 else "")
        write_file(f"/proc/{pid}/{file}", text, f"write the {key[:3]} map {shown}", hint)


def _kinds(facts: "Facts") -> "tuple[tuple[str, int, str, str], ...]":
    return (("gidMappings", facts["gid"], "CAP_SETGID", "newgidmap"), ("uidMappings", facts["uid"], "CAP_SETUID", "newuidmap"))


def _own(maps: "list[IDMapping]", own: int) -> bool:
    return len(maps) == 1 and maps[0]["size"] == 1 and maps[0]["hostID"] == own


def _find(helper: str) -> str:
    """The path of a helper, empty where there is none."""
    for folder in FOLDERS:
        if posix.access(f"{folder}/{helper}", posix.X_OK):
            return f"{folder}/{helper}"
    return ""


def _help(helper: str, pid: int, maps: "list[IDMapping]", key: str) -> None:
    """Runs newuidmap(1) or newgidmap(1)."""
    argv = [helper, str(pid), *(str(m[field]) for m in maps for field in ("containerID", "hostID", "size"))]
    said = posix.memfd_create("said", MFD_CLOEXEC)
    try:
        actions = [(POSIX_SPAWN_DUP2, said, 1), (POSIX_SPAWN_DUP2, said, 2)]
        child = posix.posix_spawn(_find(helper), argv, {}, file_actions=actions, setsigmask=[])
        status = posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])
        text = posix.pread(said, SAID, 0).decode("utf-8", "replace").strip()
    except OSError as e:
        raise Fault(f"/linux/{key}: {helper} cannot be executed: {(e.strerror or '').lower()}") from None
    finally:
        posix.close(said)
    if status:
        why = " | ".join(text.splitlines()) or f"exit status {status}"
        todo = f"give the user these ids: usermod --add-sub{key[:3]}s FIRST-LAST USER"
        raise Refused(f"/linux/{key}: {why}", f"{todo}, or map only those it has")
