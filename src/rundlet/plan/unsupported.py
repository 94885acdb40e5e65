"""What the specification has and this plan has not: refused by name, since a container that quietly lacks it is another one."""

from rundlet.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Config

PROCESS = ("selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity")
LINUX = ("mountLabel", "intelRdt", "personality", "memoryPolicy", "netDevices")


def refuse(config: "Config") -> None:
    """Raises Refused for the first thing asked for that is not supported."""
    for name in PROCESS:
        if config["process"][name]:  # type: ignore[literal-required]
            raise Refused(f"/process/{name} is not supported", "remove it from the configuration")
    for name in LINUX:
        if config["linux"][name]:  # type: ignore[literal-required]
            raise Refused(f"/linux/{name} is not supported", "remove it from the configuration")
    section = config["linux"]["seccomp"]
    if section and any(rule["action"] == "SCMP_ACT_NOTIFY" for rule in section["syscalls"]):
        raise Refused("/linux/seccomp: the action SCMP_ACT_NOTIFY is not supported", "choose another action for these system calls")
