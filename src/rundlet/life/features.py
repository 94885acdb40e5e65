"""rundlet features: what this build does on this very host, in the form of the specification (features.md, features-linux.md, 1.3)."""

import posix

from rundlet import OCI_VERSION, __version__, host, jsontext, kernel
from rundlet.errors import Fault, StepFailed
from rundlet.plan import seccomp, systemd
from rundlet.plan.mounts.options import words
from rundlet.plan.step import Call, Step
from rundlet.spec import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options

HOOKS = [kind for kind, *_ in table.HOOKS]
EFAULT = 14
# whoever may set these may change confinement: prefixes, as their last dot says
UNSAFE = ["run.oci.", systemd.PREFIX, "org.rundlet.apparmor."]


def main(options: "Options") -> int:
    """The verb."""
    posix.write(1, (jsontext.dumps(features(), 2) + "\n").encode())
    return 0


def features() -> "dict[str, object]":
    """The document. What depends on the host is looked up: AppArmor as it is, controllers that are mounted, kinds of namespaces."""
    facts = host.facts()
    layout = facts["cgroup"]
    mounts = words()
    filters = _seccomp()
    versions = {"v1": (True, False), "hybrid": (True, True), "v2": (False, True), "none": (False, False)}[layout["layout"]]
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": HOOKS,
        "mountOptions": mounts,
        "linux": {
            "namespaces": sorted(kind for kind in kernel.NAMESPACES if _has(kind)),
            "capabilities": _capabilities(),
            "cgroup": {
                "v1": versions[0], "v2": versions[1], "systemd": True, "systemdUser": True,
                "rdma": "rdma" in layout["mounts"] or "rdma" in layout.get("controllers", ()),
            },
            "seccomp": filters,
            "apparmor": {"enabled": facts["apparmor"]["state"] == "on"},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": list(table.MEMORY_MODES), "flags": list(table.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": "idmap" in mounts}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"io.github.rundlet.version": __version__, **_libseccomp(filters)},
        "potentiallyUnsafeConfigAnnotations": UNSAFE,
    }


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
    return {
        "enabled": True,
        "actions": sorted(table.ACTIONS),
        "operators": sorted(table.OPERATORS),
        "archs": sorted(compiler.known(table.ARCHITECTURES)),
        "knownFlags": sorted(seccomp.FLAGS),
        "supportedFlags": _supported(),
    }


def _supported() -> "list[str]":
    """The flags of filters that this kernel takes: asked with no filter at all, it says EINVAL of the flag or EFAULT of the filter."""
    from rundlet.executor import client

    found = []
    executor = client.spawn()
    try:
        for flag, number in sorted(seccomp.FLAGS.items()):
            more = seccomp.NEW_LISTENER if number == seccomp.WAIT_KILLABLE_RECV else 0  # it takes that one, too
            try:
                executor.run([Step(f"ask for {flag}", Call("seccomp", seccomp.SECCOMP_SET_MODE_FILTER, number | more, 0))])
            except StepFailed as failed:
                if failed.errno == EFAULT:
                    found.append(flag)
    finally:
        executor.close()
        posix.waitpid(executor.pid, 0)
    return found


def _libseccomp(filters: "dict[str, object]") -> "dict[str, str]":
    """The version of libseccomp under the name that runc gives it."""
    if not filters["enabled"]:
        return {}
    from rundlet.seccomp import compile as compiler

    return {"io.github.seccomp.libseccomp.version": compiler.VERSION}
