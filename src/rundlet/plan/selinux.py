"""SELinux: the label of a process, asked of the kernel for the next exec, and that of what is mounted. AppArmor is apparmor.py's."""

from rundlet import kernel as k
from rundlet.errors import BadSpec, Refused
from rundlet.plan.bundle import is_bind
from rundlet.plan.step import Call, Slot, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.spec.types import Config, Mount


UNLABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")  # their files have labels of their own, by policy
CONTEXTS = ("context", "fscontext", "defcontext", "rootcontext")  # mount(8), of which the first is the usual one


def refuse(config: "Config", lsm: "list[str] | None") -> None:
    """Raises Refused for a label unless this kernel is known to run SELinux: under another module the same file takes other words.

    `lsm`: the active modules, None where nobody tells.
    """
    asked = {"/process/selinuxLabel": config["process"]["selinuxLabel"], "/linux/mountLabel": config["linux"]["mountLabel"]}
    for where, label in asked.items():
        if label and "selinux" not in (lsm or ()):
            modules = f"this kernel runs {', '.join(lsm)}" if lsm else "/sys/kernel/security/lsm does not tell"
            why = "selinux label is specified in config, but selinux is disabled or not supported"
            raise Refused(f"{where}: {why}", f"leave it out; {modules}")


def labelled(mount: "Mount", config: "Config") -> "Mount":
    """A mount with the label of config-linux.md, "Mount Label", where it makes a filesystem that has none; by the annotation
    run.oci.mount_context_type as another of the contexts of mount(8). Raises BadSpec for one that there is not."""
    kind = config["annotations"].get("run.oci.mount_context_type", "context")
    if kind not in CONTEXTS:
        raise BadSpec("/annotations/run.oci.mount_context_type", f'must be one of {", ".join(CONTEXTS)}, not "{kind}"')
    given = any(option.partition("=")[0] in CONTEXTS for option in mount["options"])
    if given or mount["type"] in UNLABELLED or is_bind(mount) or "remount" in mount["options"]:
        return mount
    return {**mount, "options": [*mount["options"], f"{kind}={config['linux']['mountLabel']}"]}


def step(label: str) -> Step:
    """Asks for the label at the next exec, through the host's procfs: proc_pid_attr(5), security/selinux/hooks.c selinux_setprocattr()."""
    text = label.encode("utf-8", "surrogateescape")
    return Step(
        f"ask SELinux for the label {label} at the exec",
        Call("openat2", Slot("proc"), "thread-self/attr/exec", k.open_how(k.O_WRONLY | k.O_CLOEXEC, 0, k.RESOLVE_NO_MAGICLINKS), 24,
             into="label"),
        Call("write", Slot("label"), text, len(text)),
        Call("close", Slot("label")),
        kind="selinux", hint="is SELinux on, does its policy know the label, and may the runtime set it?",
    )
