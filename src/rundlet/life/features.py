"""rundlet features: what this build does on this very host, in the form of the specification (features.md, features-linux.md, 1.3)."""

import posix

from rundlet import OCI_VERSION, __version__, host, jsontext, kernel
from rundlet.errors import Fault
from rundlet.plan import mounts, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options

HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


def main(options: "Options") -> int:
    """The verb."""
    posix.write(1, (jsontext.dumps(features(), 2) + "\n").encode())
    return 0


def features() -> "dict[str, object]":
    """The document. What depends on the host is looked up: AppArmor as it is, controllers that are mounted, kinds of namespaces."""
    facts = host.facts()
    layout = facts["cgroup"]
    versions = {"v1": (True, False), "hybrid": (True, True), "v2": (False, True), "none": (False, False)}[layout["layout"]]
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": HOOKS,
        "mountOptions": mount_options(),
        "linux": {
            "namespaces": sorted(kind for kind in kernel.NAMESPACES if _has(kind)),
            "capabilities": _capabilities(),
            "cgroup": {
                "v1": versions[0], "v2": versions[1], "systemd": False, "systemdUser": False,
                "rdma": "rdma" in layout["mounts"] or "rdma" in layout.get("controllers", ()),
            },
            "seccomp": _seccomp(),
            "apparmor": {"enabled": facts["apparmor"]["state"] == "on"},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {},
            "mountExtensions": {"idmap": {"enabled": False}},
            "netDevices": {"enabled": False},
        },
        "annotations": {"io.github.rundlet.version": __version__},
        "potentiallyUnsafeConfigAnnotations": [],
    }


def mount_options() -> "list[str]":
    """Every mount option that is understood, the recursive ones too."""
    words = {*mounts.ATTRIBUTES, *mounts.NOTHING, *mounts.SUPERBLOCK, *mounts.PROPAGATION}
    words |= {"r" + word for word in mounts.PROPAGATION} | {"r" + word for word in mounts.ATTRIBUTES if "r" + word not in mounts.ATTRIBUTES}
    return sorted(words)


def _has(kind: str) -> bool:
    names = {"network": "net", "mount": "mnt"}
    try:
        posix.stat("/proc/self/ns/" + names.get(kind, kind))
    except FileNotFoundError:
        return False
    return True


def _capabilities() -> "list[str]":
    """The capabilities that this kernel has: proc_sys_kernel(5), cap_last_cap."""
    from rundlet.life import store

    try:
        last = int(store.read("/proc/sys/kernel/cap_last_cap"))
    except FileNotFoundError:
        last = len(kernel.CAPABILITIES) - 1
    return list(kernel.CAPABILITIES[: last + 1])


def _seccomp() -> "dict[str, object]":
    """Filters need libseccomp to be compiled and a kernel that takes them."""
    try:
        from rundlet.seccomp import compile as compiler

        compiler.library()
        posix.stat("/proc/sys/kernel/seccomp")
    except (Fault, ImportError, FileNotFoundError):
        return {"enabled": False}
    from rundlet.spec import table

    flags = sorted(flag for flag in seccomp.FLAGS if flag != "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")
    return {
        "enabled": True,
        "actions": sorted(action for action in table.ACTIONS if action != "SCMP_ACT_NOTIFY"),
        "operators": sorted(table.OPERATORS),
        "archs": sorted(table.ARCHITECTURES),
        "knownFlags": sorted(seccomp.FLAGS),
        "supportedFlags": flags,
    }
