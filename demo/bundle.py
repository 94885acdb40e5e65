"""Makes the demo's bundle: a userland of busybox, and a config.json that asks for a profile and for no_new_privs."""

import json
import shutil
import subprocess
from pathlib import Path


def make(folder: Path, args: list[str], profile: str | None) -> Path:
    """Makes a bundle in `folder` whose process is `args`; returns the folder. busybox-static must be installed."""
    busybox = shutil.which("busybox")
    if not busybox:
        raise SystemExit("busybox is missing: apt-get install busybox-static")
    rootfs = folder / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "srv", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        link = rootfs / "bin" / applet
        if not link.is_symlink() and applet != "busybox":
            link.symlink_to("busybox")
    (rootfs / "etc/keys").write_text("the container's keys\n")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    (rootfs / "srv/of-the-host").write_text("a file that the runtime must not write\n")
    (folder / "config.json").write_text(json.dumps(config(args, profile), indent=2))
    return folder


def config(args: list[str], profile: str | None) -> dict[str, object]:
    """The configuration: few capabilities, namespaces of its own, no_new_privs, and the AppArmor profile if one is given."""
    quiet = ["nosuid", "noexec", "nodev"]
    process: dict[str, object] = {
        "user": {"uid": 0, "gid": 0},
        "args": args,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
        "noNewPrivileges": True,
    }
    if profile:
        process["apparmorProfile"] = profile
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs"},
        "hostname": "demo",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "resources": {"memory": {"limit": 64 << 20}, "pids": {"limit": 64}},
            "maskedPaths": ["/proc/kcore", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys"],
        },
    }
