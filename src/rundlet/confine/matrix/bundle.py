"""The bundle that is probed when none is given: a userland of busybox, with what engines give a container."""

import json
import shutil
from pathlib import Path
from typing import Any

from rundlet import spec
from rundlet.cgroup import layout
from rundlet.confine.matrix.engine import resolved
from rundlet.confine.matrix.settings import DEFAULT_CAPABILITIES, Host
from rundlet.errors import Refused
from rundlet.life.spec import template
from rundlet.plan.bundle import is_bind

FOLDERS = ("bin", "dev", "etc", "proc", "sys", "tmp", "root")
APPLETS = "sh ash cat ls id ps kill sleep true false echo mount umount ping wget nc su test touch grep head wc".split()


def make(area: Path, host: Host) -> dict[str, Any]:
    """The configuration; its root is made below `area`. Raises Refused without a static busybox."""
    busybox = shutil.which("busybox")
    if not busybox or b"/ld-" in Path(busybox).read_bytes()[:4096]:  # a dynamic executable names its loader in its first page
        raise Refused("no bundle was given, and to make one takes a static busybox", "apt-get install busybox-static, or name a bundle")
    rootfs = area / "rootfs"
    for name in FOLDERS:
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for name in APPLETS:
        (rootfs / "bin" / name).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    config: dict[str, Any] = template(False, layout.read()["layout"] == "v2")
    config["ociVersion"] = "1.0.2"  # older releases of the peers refuse newer ones
    config["root"] = {"path": str(rootfs), "readonly": False}
    capabilities = [name for name in DEFAULT_CAPABILITIES if name in host.capabilities]
    config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
    if host.seccomp is not None:
        config["linux"]["seccomp"] = resolved(host.seccomp, set(DEFAULT_CAPABILITIES))
    if host.apparmor:
        config["process"]["apparmorProfile"] = host.profile
    return config


def read(folder: Path) -> dict[str, Any]:
    """That of a bundle, its root by its full path. Raises BadSpec, Refused."""
    path = folder / "config.json"
    try:
        text = path.read_bytes()
    except OSError as failure:
        raise Refused(f"cannot read {path}: {(failure.strerror or '').lower()}", "name a folder with a bundle in it") from None
    checked, _ = spec.load(text)
    config: dict[str, Any] = _without_nulls(json.loads(text))
    config["root"]["path"] = str((folder / config["root"]["path"]).resolve())
    for mount, known in zip(config.get("mounts", []), checked["mounts"], strict=True):
        if is_bind(known) and known["source"]:
            mount["source"] = str((folder / mount["source"]).resolve())
    return config


def _without_nulls(value: Any) -> Any:
    """The same without the keys whose value is null, which is as if they were not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value
