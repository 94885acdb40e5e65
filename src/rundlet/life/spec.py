"""rundlet spec: writes a config.json to start from: a shell in namespaces of its own, with few capabilities and no new privileges."""

import posix
from posix import O_CLOEXEC, O_CREAT, O_EXCL, O_WRONLY

from rundlet import OCI_VERSION, jsontext
from rundlet.cgroup import layout
from rundlet.errors import Fault
from rundlet.life.store import absolute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rundlet.options import Options

CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
QUIET = ["nosuid", "noexec", "nodev"]
MASKED = (
    "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi "
    "/proc/interrupts /sys/firmware /sys/devices/virtual/powercap"
)
READONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


def main(options: "Options") -> int:
    """The verb."""
    path = absolute(options.bundle) + "/config.json"
    # a namespace of cgroups where there is v2 alone, as the peers do
    text = jsontext.dumps(template(options.rootless == "true", layout.read()["layout"] == "v2"), 4) + "\n"
    try:
        fd = posix.open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Fault(f"{path} exists already; remove it first") from None
    except OSError as e:
        raise Fault(f"cannot write {path}: {(e.strerror or '').lower()}") from None
    posix.write(fd, text.encode())
    posix.close(fd)
    return 0


def template(rootless: bool = False, cgroups: bool = True) -> "dict[str, object]":
    """The configuration; `rootless`: for a user without privileges, whose id becomes root of a user namespace.

    `cgroups`: with a namespace of them.
    """
    namespaces = ["pid", "network", "ipc", "uts", "mount", *(["cgroup"] if cgroups else [])]
    mounts = [
        _mount("/proc", "proc", []),
        _mount("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *([] if rootless else ["gid=5"])]),
        _mount("/dev/shm", "tmpfs", [*QUIET, "mode=1777", "size=65536k"], "shm"),
        _mount("/dev/mqueue", "mqueue", QUIET),
        _mount("/sys", "sysfs", [*QUIET, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", [*QUIET, "relatime", "ro"]),
    ]
    linux: "dict[str, object]" = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": kind} for kind in (["user", *namespaces] if rootless else namespaces)],
        "maskedPaths": MASKED.split(),
        "readonlyPaths": READONLY.split(),
    }
    if rootless:
        del linux["resources"]
        linux["uidMappings"] = [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": posix.getegid(), "size": 1}]
        # a network namespace of one's own has a sysfs of one's own; the host's can be shown
        mounts[5] = {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", *QUIET, "ro"]}
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "rundlet",
        "mounts": mounts,
        "linux": linux,
    }


def _mount(destination: str, kind: str, options: "list[str]", source: str = "") -> "dict[str, object]":
    return {"destination": destination, "type": kind, "source": source or kind, "options": options}
