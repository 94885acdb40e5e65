"""Other device rules for a cgroup in use: no access that both the old and the new rules allow is denied in between.

    v1(listed, rules)      lines for devices.allow, then for devices.deny
    query → about → steps  v2: find the program that is ours, and put the new one in its place in one step
"""

from _struct import pack, unpack_from

from rundlet import kernel as k
from rundlet.plan.devicefilter import ACCESS, ALLOW_MULTI, CGROUP_DEVICE, NAME, PROG_ATTACH, lines, load
from rundlet.plan.step import Call, Data, Out, Ptr, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.plan.devicefilter import Rule

# linux/bpf.h enum bpf_cmd, and a flag of BPF_PROG_ATTACH
PROG_DETACH, PROG_GET_FD_BY_ID, OBJ_GET_INFO_BY_FD, PROG_QUERY = 9, 13, 15, 16
REPLACE = 4
MOST = 64  # BPF_CGROUP_MAX_PROGS of kernel/bpf/cgroup.c
INFO_SIZE = 80  # struct bpf_prog_info up to and with the name
NAME_AT = 64


def v1(listed: str, rules: "Sequence[Rule]") -> "tuple[tuple[str, str], ...]":
    """The (file, text) writes from what the file devices.list says now to what the rules say.

    Exceptions are added, then removed. Where the default itself changes, "a" is written first, which denies or allows everything for
    a moment, and which the kernel refuses when there are sub-cgroups (security/device_cgroup.c).
    """
    wanted = lines(rules) or (("devices.allow", "a"),)
    old = dict(_exception(line) for line in listed.splitlines())
    if wanted[0] == ("devices.allow", "a") or "a *:*" in old:
        return wanted
    new = dict(_exception(text) for _, text in wanted[1:])
    return (*_beyond("devices.allow", new, old), *_beyond("devices.deny", old, new))


def _beyond(file: str, these: "dict[str, int]", those: "dict[str, int]") -> "list[tuple[str, str]]":
    """Lines for what `these` have and `those` have not."""
    beyond = {device: bits & ~those.get(device, 0) for device, bits in these.items()}
    return [(file, f"{device} {''.join(letter for letter in 'rwm' if bits & ACCESS[letter])}") for device, bits in beyond.items() if bits]


def _exception(line: str) -> "tuple[str, int]":
    device, _, access = line.rpartition(" ")
    return device, sum(ACCESS[letter] for letter in access)


def query(cgroup_dir: str) -> "tuple[Step, ...]":
    """Asks for the programs attached to the cgroup at `cgroup_dir`; their ids are in the reply's "programs"."""
    ids = Out("programs", 4 * MOST)
    attr = Data(Slot("cgroup"), pack("=III", CGROUP_DEVICE, 0, 0), Ptr(ids), pack("=II", MOST, 0))
    return (
        Step(
            f"list the device filters of {cgroup_dir}",
            Call("openat", k.AT_FDCWD, cgroup_dir, k.O_RDONLY | k.O_CLOEXEC, into="cgroup"),
            Call("bpf", PROG_QUERY, attr, 32), kind="devices",
        ),
    )


def ids(found: bytes) -> "list[int]":
    """The ids in "programs"."""
    return [number for number in unpack_from(f"={MOST}I", found) if number]


def about(programs: "Sequence[int]") -> "tuple[Step, ...]":
    """Takes hold of the programs, in the slots "program 0" and on, and asks what they are: "info 0" and on."""
    return tuple(
        Step(
            f"look at the device filter with the id {number}",
            Call("bpf", PROG_GET_FD_BY_ID, pack("=III", number, 0, 0), 12, into=f"program {n}"),
            Call("bpf", OBJ_GET_INFO_BY_FD, Data(Slot(f"program {n}"), pack("=I", INFO_SIZE), Ptr(Out(f"info {n}", INFO_SIZE))), 16),
            kind="devices",
        )
        for n, number in enumerate(programs)
    )


def ours(info: bytes) -> bool:
    """Whether a program is one that this runtime has loaded."""
    return info[NAME_AT : NAME_AT + 16] == NAME


def steps(program: bytes, cgroup_dir: str, old: "int | None", release: str) -> "tuple[Step, ...]":
    """Puts the program in the place of the one in the slot "program `old`", None where none of ours is attached; after query().

    An empty program, which allows everything, takes the old one away.
    """
    if not program:
        if old is None:
            return ()
        attr = Data(Slot("cgroup"), Slot(f"program {old}"), pack("=II", CGROUP_DEVICE, 0))
        return (Step(f"detach the device filter of {cgroup_dir}", Call("bpf", PROG_DETACH, attr, 16), kind="devices"),)
    flags, place = (ALLOW_MULTI, pack("=I", 0)) if old is None else (ALLOW_MULTI | REPLACE, Slot(f"program {old}"))
    attr = Data(Slot("cgroup"), Slot("device filter"), pack("=II", CGROUP_DEVICE, flags), place)
    return (
        load(program, release),
        Step(f"put it in the place of the device filter of {cgroup_dir}", Call("bpf", PROG_ATTACH, attr, 20), kind="devices"),
    )

