"""Changing the limits of a container: what was asked for, from options or a file, beside what it has. Pure.

    from_options(…)         the words of the command line as /linux/resources
    merge(before, asked)    the resources of the container's configuration from now on, both as JSON has them
    complete(asked, whole)  what has to be written: limits that depend on each other take the other from the whole
"""

from rundlet.errors import BadSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rundlet.spec.types import Resources

# option (as an attribute) → section and key of /linux/resources
NUMBERS = {
    "blkio_weight": ("blockIO", "weight"), "cpu_period": ("cpu", "period"), "cpu_quota": ("cpu", "quota"), "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"), "cpu_rt_period": ("cpu", "realtimePeriod"), "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_idle": ("cpu", "idle"), "pids_limit": ("pids", "limit"),
}
SIGNED = ("cpu_quota", "cpu_rt_runtime", "pids_limit")
TEXTS = {"cpuset_cpus": ("cpu", "cpus"), "cpuset_mems": ("cpu", "mems")}
SIZES = {"memory": ("memory", "limit"), "memory_reservation": ("memory", "reservation"), "memory_swap": ("memory", "swap")}
OPTIONS = (*NUMBERS, *TEXTS, *SIZES)
UNITS = "bkmgtp"
LONGEST = 100  # digits that are looked at; no number here has more than 20

# where 0 is Go's "not given": such a limit would make no sense
ZERO_IS_NONE = {
    "memory": ("limit", "reservation", "swap", "kernel", "kernelTCP"), "blockIO": ("weight", "leafWeight"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod"),
}
# lists whose items stand for one thing each, and what names it; of others the new list takes the place of the old
NAMED_BY = {
    "weightDevice": ("major", "minor"), "throttleReadBpsDevice": ("major", "minor"), "throttleWriteBpsDevice": ("major", "minor"),
    "throttleReadIOPSDevice": ("major", "minor"), "throttleWriteIOPSDevice": ("major", "minor"), "hugepageLimits": ("pageSize",),
    "priorities": ("name",),
}


def from_options(given: "dict[str, str]") -> "dict[str, dict[str, int | str]]":
    """The resources, as JSON has them, for the options given (by attribute). Raises BadSpec for what is no number or size."""
    out: "dict[str, dict[str, int | str]]" = {}
    for name, text in given.items():
        section, key = NUMBERS.get(name) or TEXTS.get(name) or SIZES[name]
        where = out.setdefault(section, {})
        if name in TEXTS:
            where[key] = text
        else:
            where[key] = size(text, name) if name in SIZES else _number(text, name)
    return out


def _number(text: str, name: str) -> int:
    digits = text[1:] if text[:1] == "-" and name in SIGNED else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < LONGEST):
        raise _invalid(name, f'must be a whole number, not "{text}"')
    return int(text)


def size(text: str, name: str) -> int:
    """Bytes for a size such as 512M, 1.5g or 64KiB, all to the base of 1024, or -1; as go-units' RAMInBytes, which Docker and runc use.

    Raises BadSpec naming the option.
    """
    if text == "-1":
        return -1
    word = text.lower()
    for ending in ("ib", "b"):
        if word.endswith(ending):
            word = word.removesuffix(ending)
            break
    power = UNITS.find(word[-1:]) if word else -1
    if power > 0:
        word = word[:-1]
    whole, dot, fraction = word.removesuffix(" ").partition(".")
    if not (whole.isascii() and whole.isdigit()) or (dot and not (fraction.isascii() and fraction.isdigit())) or len(word) > LONGEST:
        raise _invalid(name, f'must be a size such as 512M, or -1, not "{text}"')
    bytes_: int = (int(whole + fraction) << (10 * max(power, 0))) // 10 ** len(fraction)
    if bytes_ >= 1 << 63:
        raise _invalid(name, f'must be below 8 EiB, not "{text}"')
    return bytes_


def _invalid(name: str, why: str) -> BadSpec:
    option = name.replace("_", "-")
    return BadSpec(f"--{option}", f"invalid value for {option}: {why}")


def merge(before: "dict[str, Any]", asked: "dict[str, Any]", section: str = "") -> "dict[str, Any]":
    """`before` with what `asked` has, both /linux/resources or a part of it; null, "" and meaningless zeros are not given.

    Of a file by its name, in `unified`, "" is a text as any.
    """
    out = {**before}
    for key, value in asked.items():
        if value is None or (value == "" and section != "unified"):
            continue
        if value == 0 and value is not False and key in ZERO_IS_NONE.get(section, ()):
            continue
        old = out.get(key)
        if isinstance(value, dict):
            out[key] = merge(old if isinstance(old, dict) else {}, value, key)
        elif key in NAMED_BY and isinstance(value, list) and isinstance(old, list):
            names = NAMED_BY[key]
            new = {tuple(item.get(name) for name in names) for item in value}
            out[key] = [item for item in old if tuple(item.get(name) for name in names) not in new] + value
        else:
            out[key] = value
    if section == "memory" and asked.get("limit") == -1 and not asked.get("swap"):
        out["swap"] = -1  # no limit of memory means none of both
    return out


def complete(asked: "Resources", whole: "Resources") -> "Resources":
    """The limits to write for `asked`, given the `whole` that the container is to have.

    The limit of memory and swap stays when that of memory changes: on v1 the kernel keeps it, on v2 that of swap alone follows from both.
    So do the shares when the cgroup is idle no longer, which the kernel gives the default ones, and the weights of single disks when
    that of all changes, since the kernel forgets them then.
    """
    memory, cpu, io = {**asked["memory"]}, {**asked["cpu"]}, {**asked["blockIO"]}
    if io["weight"]:
        io["weightDevice"] = whole["blockIO"]["weightDevice"]
    if cpu["idle"] == 0 and not cpu["shares"]:
        cpu["shares"] = whole["cpu"]["shares"]
    memory["checkBeforeUpdate"] = whole["memory"]["checkBeforeUpdate"]
    if memory["limit"] and not memory["swap"]:
        memory["swap"] = whole["memory"]["swap"]
    return {**asked, "memory": memory, "cpu": cpu, "blockIO": io}  # type: ignore[typeddict-item]
