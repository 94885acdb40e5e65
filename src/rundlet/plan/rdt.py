"""Intel's resource director (resctrl): which group a container's processes are in, and what is written into it. No I/O.

config-linux.md 1.3, "IntelRdt"; Documentation/filesystems/resctrl.rst.
"""

from rundlet.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import IntelRdt


def group(asked: "IntelRdt", name: str) -> str:
    """The group's folder below the mount: closID, else the container's id; "" for the root group."""
    return "" if asked["closID"] == "/" else asked["closID"] or name


def schemata(asked: "IntelRdt") -> str:
    """What is to be written into the file `schemata`: l3CacheSchema without its MB lines, memBwSchema, then the lines of schemata."""
    lines = [line for line in (asked["l3CacheSchema"] or "").split("\n") if line and not line.lstrip().startswith("MB:")]
    lines += [asked["memBwSchema"]] if asked["memBwSchema"] else []
    lines += [line for line in asked["schemata"] if line]
    return "".join(line + "\n" for line in lines)


def check(asked: "IntelRdt", there: "str | None") -> bool:
    """Whether the group is to be made. `there`: the schemata of the group if it exists.

    Raises Refused when a group named by closID is not there and nothing is said of what it should hold, or is there and holds other
    values than l3CacheSchema and memBwSchema ask for.
    """
    wanted = schemata(asked)
    if there is None:
        if asked["closID"] and not wanted:
            raise Refused(f"/linux/intelRdt/closID: there is no group {asked['closID']}", "make it, or say by schemata what it is to hold")
        return True
    if asked["closID"]:
        lines = [line for line in wanted.split("\n") if line and line not in asked["schemata"]]
        holds = _parse(there)
        for line in lines:
            for resource, domains in _parse(line).items():
                if any(holds.get(resource, {}).get(domain) != value for domain, value in domains.items()):
                    raise Refused(
                        f'/linux/intelRdt: the group {asked["closID"]} is there, and its schemata is not "{line}"',
                        "choose another closID, or ask for what the group holds",
                    )
    return False


def _parse(text: str) -> "dict[str, dict[str, str]]":
    """Resource → domain → value, of lines such as `L3:0=ff;1=0f`."""
    found: "dict[str, dict[str, str]]" = {}
    for line in text.split("\n"):
        resource, colon, rest = line.strip().partition(":")
        if not colon:
            continue
        domains = found.setdefault(resource, {})
        for part in rest.split(";"):
            domain, equals, value = part.strip().partition("=")
            if equals:
                domains[domain.strip()] = value.strip().lower().lstrip("0") or "0"
    return found


def mount(mountinfo: str) -> str:
    """Where resctrl is mounted, by the text of proc_pid_mountinfo(5). Raises Refused when it is not."""
    for line in mountinfo.split("\n"):
        fields, dash, rest = line.partition(" - ")
        if dash and rest.split(" ")[0] == "resctrl":
            return fields.split(" ")[4]
    why = "no resctrl filesystem is mounted"
    raise Refused(f"/linux/intelRdt: {why}", "it takes a CPU with Intel RDT, and mount -t resctrl resctrl /sys/fs/resctrl")
