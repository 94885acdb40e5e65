"""What must hold of a container and of each process in it, worked out from its configuration. Pure.

What a process may come to by itself is no difference: it may drop what it has, narrow its label, and become another user where it was
given the capability. So what must hold are bounds, and those of what the kernel permits such a process to come to: capabilities(7),
"Transformation of capabilities during execve()".
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rundlet import kernel
from rundlet.plan import process as plan_process
from rundlet.plan.label import canonical
from rundlet.plan.order import NO_CAPABILITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.spec.types import Config, IDMapping, Process

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 6, 7, 21, 24
LABEL_UNCHANGED = "keep"
INFINITY = (1 << 64) - 1


@dataclass(frozen=True)
class Confinement:
    """What one process, and those it starts, are held to. Ids are those that the host sees; None is an id that no map has."""

    of: str  # in words: "the container's process", "the exec of process 4711"
    label: frozenset[str]  # profiles that must all be in the label; empty: nothing was asked for
    profile: str  # the one asked for, "" for none
    nnp: bool
    filters: int  # how many seccomp filters there are at least: the container's; what confines the runtime is another matter
    capabilities: tuple[int, int, int, int, int]  # the most there may be, in the order of SETS
    uid: int | None
    gid: int | None
    groups: frozenset[int] | None  # None: those of the caller were kept
    uids: tuple[tuple[int, int], ...]  # (first, count) of the ids that the user namespace has
    gids: tuple[tuple[int, int], ...]
    any_user: bool  # whether it may become any user that the namespace has
    any_group: bool
    limits: tuple[tuple[str, int, int], ...]  # type, soft, hard
    may_raise: bool  # limits and the oom score
    oom: int | None

    def may(self, capability: int) -> bool:
        """Whether it may come to have a capability."""
        return bool(self.capabilities[2] >> capability & 1)


def confinement(
    config: "Config", proc: "Process", expected: "dict[str, Any] | None" = None, of: str = "the container's process",
) -> Confinement:
    """What the process `proc` of the configuration is held to. `expected` is what was decided at its start (store.Expect), where known."""
    linux = config["linux"]
    sets = proc["capabilities"] or NO_CAPABILITIES
    user = proc["user"]
    in_user = any(space["type"] == "user" for space in linux["namespaces"])
    nnp = expected["nnp"] if expected else proc["noNewPrivileges"]
    caps = bounds({kind: plan_process.bits(sets[kind]) for kind in SETS}, nnp)  # type: ignore[literal-required]
    profile = canonical(proc["apparmorProfile"] or "")
    if expected:
        label = frozenset() if expected["action"] == LABEL_UNCHANGED else frozenset(expected["label"])
        profile = expected["profile"] or profile
    else:
        label = frozenset({profile} if profile else ())
    if profile.rpartition(":")[2] == "unconfined":
        label = frozenset()  # whatever confines it is narrower
    filters = expected["seccomp"] if expected else linux["seccomp"] is not None or "run.oci.seccomp_bpf_data" in config["annotations"]
    uids, gids = _known(linux["uidMappings"], in_user), _known(linux["gidMappings"], in_user)
    return Confinement(
        of, label, profile, bool(nnp), int(filters), caps,
        outside(user["uid"], linux["uidMappings"]), outside(user["gid"], linux["gidMappings"]),
        _groups(config, proc),
        uids, gids,
        # a set-user-ID program makes any user of its caller, where no_new_privs does not forbid it
        bool(caps[2] >> CAP_SETUID & 1) or not nnp, bool(caps[2] >> CAP_SETGID & 1) or not nnp,
        tuple((one["type"], one["soft"], one["hard"]) for one in proc["rlimits"]),
        bool(caps[2] >> CAP_SYS_RESOURCE & 1) and not in_user, proc["oomScoreAdj"],
    )


def bounds(sets: dict[str, int], nnp: bool) -> tuple[int, int, int, int, int]:
    """The most capabilities that a process may come to, which begins with these sets and executes its program, in the order of SETS."""
    bounding = sets["bounding"]
    # without no_new_privs root, and programs with capabilities of their own, get what the bounding set lets them have
    permitted = sets["permitted"] if nnp else bounding | sets["inheritable"] | sets["ambient"]
    inheritable = sets["inheritable"] | (permitted & bounding)
    return bounding, permitted, permitted, inheritable, permitted & inheritable


def outside(number: int, maps: "Sequence[IDMapping]") -> int | None:
    """The id of the host for one of the container; the same without a map, None where the map has it not."""
    if not maps:
        return number
    for one in maps:
        if 0 <= number - one["containerID"] < one["size"]:
            return one["hostID"] + number - one["containerID"]
    return None


def _groups(config: "Config", proc: "Process") -> frozenset[int] | None:
    if config["annotations"].get("run.oci.keep_original_groups", "0") != "0":
        return None
    found = [outside(one, config["linux"]["gidMappings"]) for one in proc["user"]["additionalGids"]]
    return frozenset(one for one in found if one is not None)


def _known(maps: "Sequence[IDMapping]", in_user: bool) -> tuple[tuple[int, int], ...]:
    if not maps or not in_user:
        return ((0, 1 << 32),)
    return tuple((one["hostID"], one["size"]) for one in maps)


def names(mask: int) -> str:
    """Capabilities in words; of most of them those that are missing."""
    known = kernel.CAPABILITIES
    every = (1 << len(known)) - 1
    if mask & every == mask and mask.bit_count() > len(known) // 2:
        return f"all but {names(every & ~mask)}" if mask != every else "all"
    return ", ".join(known[n] if n < len(known) else f"capability {n}" for n in range(64) if mask >> n & 1) or "none"
