"""The cgroup of a container as a unit of systemd: which one, and with which properties. Pure; cgroup/systemd.py asks for it.

    unit(cgroupsPath, …)          slice:prefix:name → prefix-name.scope in that slice
    limits(writes, …)             texts for cgroup files → properties, as far as systemd has them
    devices(rules)                device rules → DevicePolicy, DeviceAllow
    annotated(annotations)        org.systemd.property.NAME → properties

A property is (name, (D-Bus signature, value)). Sources: systemd.resource-control(5), org.freedesktop.systemd1(5).
"""

from rundlet.errors import BadSpec
from rundlet.plan.gvariant import Text
from rundlet.plan.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from rundlet.plan.devicefilter import Rule
    from rundlet.plan.write import Write

    Variant: TypeAlias = tuple[str, object]
    Properties: TypeAlias = dict[str, Variant]

WHERE = "/linux/cgroupsPath"
PREFIX = "org.systemd.property."
UNSET = (1 << 64) - 1  # of a uint64: no limit, or no weight
# what the unit is made of, and so not for annotations to change: → where it is asked for instead
OURS = {
    "Slice": "/linux/cgroupsPath says which", "PIDs": "the container's process is in it", "Delegate": "a container's cgroups are its own",
}


class Unit(Value):
    """A unit: its `name`, NAME.scope or NAME.slice, and the `slice` it is in, which is its parent where it is a slice itself."""

    __slots__ = ("name", "slice")

    def __init__(self, name: str, slice: str) -> None:
        self.name = name
        self.slice = slice

    @property
    def is_slice(self) -> bool:
        """Whether it is a slice, which holds no processes of its own accord."""
        return self.name.endswith(".slice")

    def path(self) -> str:
        """The cgroup below the manager's own: the slices it is in, and itself."""
        return expand(self.name) if self.is_slice else f"{expand(self.slice)}/{escaped(self.name)}"


def unit(cgroups_path: "str | None", container_id: str, user: bool) -> Unit:
    """The unit for /linux/cgroupsPath, `slice:prefix:name`; `user`: of a user's manager.

    As the peers have it: the scope is prefix-name.scope; a name that ends in .slice is a slice's, and the prefix not used; an empty slice
    is system.slice, or user.slice. Without a path the scope is rundlet-ID.scope; slice:name and a mere name are taken as well, as crun
    does. Raises BadSpec.
    """
    default = "user.slice" if user else "system.slice"
    if not cgroups_path:
        return Unit(f"rundlet-{container_id}.scope", default)
    parts = cgroups_path.split(":")
    if "/" in cgroups_path or len(parts) > 3:
        raise BadSpec(WHERE, f'must be slice:prefix:name for the systemd cgroup manager, not "{cgroups_path}"')
    slice = parts[0] if len(parts) > 1 and parts[0] else default
    name = parts[-1]
    try:
        expand(slice)
        if name.endswith(".slice"):
            expand(name)
            return Unit(name, slice)
    except ValueError as e:
        raise BadSpec(WHERE, f'{e}: "{cgroups_path}"') from None
    name = f"{'-'.join(parts[1:]) if len(parts) == 3 else name}.scope"
    # systemd.unit(5): letters, digits and these, 255 of them; anything else has to be escaped, which is for whoever chooses the name
    if len(name) > 255 or len(name) == len(".scope") or not all((c.isascii() and c.isalnum()) or c in ":-_.\\@" for c in name):
        raise BadSpec(WHERE, f'"{name}" cannot be the name of a unit')
    return Unit(name, slice)


def expand(slice: str) -> str:
    """The cgroup of a slice below the manager's: a-b.slice is in a.slice; -.slice is the manager's own. Raises ValueError."""
    stem = slice.removesuffix(".slice")
    if stem == "-" and stem != slice:
        return ""
    parts = stem.split("-")
    if stem == slice or not all(parts) or not all((c.isascii() and c.isalnum()) or c in ":_.\\@" for part in parts for c in part):
        raise ValueError(f'"{slice}" cannot be the name of a slice')
    return "".join("/" + escaped("-".join(parts[: n + 1]) + ".slice") for n in range(len(parts)))


def escaped(name: str) -> str:
    """The cgroup of a unit of this name: one that might be a file of a cgroup gets a _, as systemd has it (cg_escape)."""
    risky = name[:1] in ("_", ".") or name[:7] == "cgroup." or name.rpartition(".")[0] in CONTROLLERS
    return f"_{name}" if risky else name


CONTROLLERS = ("cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids")  # systemd's


def subgroup(annotations: "dict[str, str]", version: int) -> str:
    """The cgroup below the unit's that the container is in: run.oci.systemd.subgroup; "" for none.

    Without the annotation "container" on cgroup v2, as with crun: what systemd writes and what is written by files or by the container
    itself are then in cgroups apart. Raises BadSpec.
    """
    name = annotations.get("run.oci.systemd.subgroup", "container" if version == 2 else "")
    if ".." in name.split("/") or "\0" in name or "\n" in name:
        raise BadSpec("/annotations/run.oci.systemd.subgroup", f'must be the name of a cgroup below the unit\'s, not "{name}"')
    return name.strip("/")


# ── resources ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

# file of a cgroup → (property, the least value that systemd takes); on v2, then on v1
NUMBERS = {
    "memory.max": ("MemoryMax", 1), "memory.high": ("MemoryHigh", 1), "memory.low": ("MemoryLow", 0), "memory.min": ("MemoryMin", 0),
    "memory.swap.max": ("MemorySwapMax", 0), "pids.max": ("TasksMax", 1), "cpu.weight": ("CPUWeight", 1),
    "memory.limit_in_bytes": ("MemoryLimit", 1), "cpu.shares": ("CPUShares", 2), "blkio.weight": ("BlockIOWeight", 10),
}
# limits of single devices: file → word in it → property; without a word in the file there is a number alone
DEVICES: "dict[str, dict[str, str]]" = {
    "io.max": {
        "rbps": "IOReadBandwidthMax", "wbps": "IOWriteBandwidthMax", "riops": "IOReadIOPSMax", "wiops": "IOWriteIOPSMax",
    },
    "io.weight": {"": "IODeviceWeight"},
    "blkio.throttle.read_bps_device": {"": "BlockIOReadBandwidth"}, "blkio.throttle.write_bps_device": {"": "BlockIOWriteBandwidth"},
    "blkio.weight_device": {"": "BlockIODeviceWeight"},
}
SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
BANDWIDTH = ("cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.idle")
FILES = (*NUMBERS, *DEVICES, *SETS, *BANDWIDTH, "io.bfq.weight")  # all that it may write


def limits(writes: "Iterable[Write]", version: int) -> "Properties":
    """The properties that say what the writes say, as far as systemd of this `version` has any; the least that it takes for less than that.

    The writes are made nevertheless, in the container's own cgroup; systemd knows of the limits, and upholds them around it.
    """
    out: "Properties" = {}
    for item in writes:
        file, text = _known(item)
        if file in NUMBERS:
            name, least = NUMBERS[file]
            value = _bytes(text) if file[:7] == "memory." else _number(text)
            if value is not None:
                out[name] = "t", max(value, least)
        elif file in SETS:
            mask = _mask(text)
            if mask and version >= 244:
                out[SETS[file]] = "ay", mask
        elif file in DEVICES and ":" in text.partition(" ")[0]:
            _device(out, DEVICES[file], text)
        elif file == "io.weight":
            value = _number(text.removeprefix("default "))
            if value:
                out["IOWeight"] = "t", value
        elif file == "cpu.max":
            words = text.split()
            _quota(out, words[0], words[1] if len(words) > 1 else "100000", version)
        elif file == "cpu.cfs_period_us":
            out["CPUQuotaPeriodUSec"] = "t", int(text)
        elif file == "cpu.cfs_quota_us":
            _quota(out, "max" if text[:1] == "-" else text, str(out.get("CPUQuotaPeriodUSec", ("t", 100000))[1]), version)
    idle = [item.text for item in writes if item.file == "cpu.idle"]
    if idle and version >= 252:
        if idle[-1] == "1":
            out["CPUWeight"] = "t", 0  # systemd's "idle"
        else:
            out.setdefault("CPUWeight", ("t", UNSET))
    return out


def _known(item: "Write") -> "tuple[str, str]":
    """The file and the text of a write; of its second choice where that is the one that systemd would make."""
    if item.file == "io.bfq.weight" and item.otherwise is not None:
        return item.otherwise.file, item.otherwise.text
    return item.file, item.text


def _number(text: str) -> "int | None":
    """What a limit says, in the way of a uint64; None for what is not a plain number."""
    text = text.strip()
    if text in ("max", "-1"):
        return UNSET
    return int(text) if text.isascii() and text.isdigit() else None


def _bytes(text: str) -> "int | None":
    """As _number(), of what may also be written as 1G (lib/cmdline.c, memparse)."""
    text = text.strip()
    power = "KMGTPE".find(text[-1:].upper()) + 1 if text else 0
    number = _number(text[:-1] if power else text)
    return number if not power or number in (None, UNSET) else min(number << 10 * power, UNSET)


def _device(out: "Properties", words: "dict[str, str]", text: str) -> None:
    """The properties for a line such as 8:0 rbps=1048576 wiops=max. systemd finds a device of this path by its numbers alone.

    v1 knows no operations there: systemd's block I/O of v1 is bytes and weights.
    """
    number, *limits = text.split()
    for limit in limits:
        word, equals, amount = limit.rpartition("=")
        value = _number(amount)
        if value and (word if equals else "") in words:
            name = words[word]
            given: "list[tuple[str, int]]" = out.setdefault(name, ("a(st)", []))[1]  # type: ignore[assignment]
            given.append((f"/dev/block/{number}", value))


def _quota(out: "Properties", quota: str, period: str, version: int) -> None:
    """CPUQuotaPerSecUSec and its period. systemd writes per cents down, so a part of one becomes a whole: the file is exact."""
    if not (quota + period).isascii() or not (quota == "max" or quota.isdigit()) or not period.isdigit() or not int(period):
        return
    per_second = UNSET
    if quota != "max":
        per_second = int(quota) * 1000000 // int(period)
        per_second += -per_second % 10000
    out["CPUQuotaPerSecUSec"] = "t", per_second
    if version >= 242:
        out["CPUQuotaPeriodUSec"] = "t", int(period)


def _mask(text: str) -> bytes:
    """A list such as 0-3,7 as the bytes of a bit mask; empty where it is written in another way."""
    bits = 0
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        last = last or first
        if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit()) or not int(first) <= int(last) < 65536:
            return b""
        bits |= (1 << int(last) + 1) - (1 << int(first))
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


NO_DEVICES: "Properties" = {"DevicePolicy": ("s", "auto"), "DeviceAllow": ("a(ss)", [])}  # nothing is said of them


def replacing(held: "Properties") -> "list[tuple[str, Variant]]":
    """Properties, one after the other, that come in the place of others: what is set to a list of pairs is added to what there is, and
    nothing else than an empty one takes that away."""
    return [*((name, (kind, [])) for name, (kind, _) in held.items() if kind[:2] == "a("), *held.items()]


def devices(default: bool, rules: "Sequence[Rule]", version: int) -> "Properties":
    """DevicePolicy and DeviceAllow for device rules behind a `default` (devicefilter.since_reset); none where systemd cannot say the same.

    It knows lists of what is allowed, no exceptions to them, and a major only with all its minors, or with one. The container's cgroup
    has a filter of its own, which knows all of it.
    """
    if default or version < 244 or not all(rule.allow and (rule.major is not None or rule.minor is None) for rule in rules):
        return {}
    allowed = []
    for rule in rules:
        for kind in ("block", "char") if rule.kind == "a" else ("block",) if rule.kind == "b" else ("char",):
            if rule.minor is not None:
                allowed.append((f"/dev/{kind}/{rule.major}:{rule.minor}", rule.access))
            else:
                allowed.append((f"{kind}-{'*' if rule.major is None else rule.major}", rule.access))
    return {"DevicePolicy": ("s", "strict"), "DeviceAllow": ("a(ss)", allowed)}


# ── annotations ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def annotated(annotations: "dict[str, str]") -> "Properties":
    """The properties of the annotations org.systemd.property.NAME, whose values are GVariant texts.

    What ends in Sec is a number of seconds and becomes one of microseconds under the name that D-Bus has for it: TimeoutStopSec →
    TimeoutStopUSec. Raises BadSpec.
    """
    out: "Properties" = {}
    for key, text in annotations.items():
        if key[: len(PREFIX)] != PREFIX:
            continue
        name, where = key[len(PREFIX) :], f"/annotations/{key}"
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise BadSpec(where, f'"{name}" is not the name of a property')
        if name in OURS:
            raise BadSpec(where, f"the property cannot be set: {OURS[name]}")
        try:
            signature, value = Text(text).whole()
        except ValueError as e:
            raise BadSpec(where, f"not a value in GVariant's text format: {text}: {e}") from None
        if name.endswith("Sec") and not name.endswith("USec"):
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value * 1000000 < UNSET:
                raise BadSpec(where, f"must be a number of seconds, not {text}")
            name, signature, value = name[:-3] + "USec", "t", int(value * 1000000)
        out[name] = signature, value
    return out
