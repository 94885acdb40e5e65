"""The limits and the device rules of a container's cgroup, and the AppArmor policy in the kernel, beside what they are to be."""

import os
from typing import TYPE_CHECKING, Any

from rundlet import host
from rundlet.cgroup import files, place
from rundlet.confine.verify import devices, limits
from rundlet.confine.verify.compare import Findings
from rundlet.errors import Refused
from rundlet.life import rootless, store
from rundlet.plan import devicefilter, resources

if TYPE_CHECKING:
    from rundlet.cgroup.place import Dir, Place
    from rundlet.confine.verify.around import Host
    from rundlet.confine.verify.model import Target
    from rundlet.plan.write import Write


SHOWN = 16  # digits of a hash; all of it are in the record


def cgroup(target: "Target", at: "Place", about: "Host", found: Findings) -> None:
    """The limits that the configuration asks for, as updated, and the devices."""
    asked = target.config["linux"]["resources"]
    if not at.dirs:
        if any(_asks(part) for part in asked.values()):
            found.cannot_tell("limit", "container", "it has no cgroup of its own in which there could be limits")
        return
    try:
        writes = _writes(target, at, about)
    except Refused as refused:
        found.cannot_tell("limit", "container", str(refused))
        return
    for write in writes:
        text = files.read_text(at, write.controller, write.file)
        if text is None and write.otherwise is not None:
            write = write.otherwise
            text = files.read_text(at, write.controller, write.file)
        if text is not None:
            limits.compare(write, text, found)
        elif "ENOENT" not in write.fine:
            found.cannot_tell("limit", write.file, "the container's cgroup has no such file")
    _devices(target, at, about, found)


def _writes(target: "Target", at: "Place", about: "Host") -> "list[Write]":
    """The limits asked for; of two for one file, or one line of it, the last one counts."""
    asked = target.config["linux"]["resources"]
    bare = target.record is not None and about.facts is not None and (about.facts["uid"] != 0 or about.facts["user_namespace"])
    writes = rootless.limits(asked, about.cgroup, at, about.facts) if bare and about.facts else resources.writes(asked, about.cgroup)
    last = {}
    for write in writes:
        if write.controller != "devices":
            last[write.file, write.text.split(" ")[0] if " " in write.text and write.file != "cpu.max" else ""] = write
    return list(last.values())


def _devices(target: "Target", at: "Place", about: "Host", found: Findings) -> None:
    rules = devicefilter.rules(target.config["linux"]["resources"]["devices"])
    kind, there = resources.version(about.cgroup, "devices"), place.find(at, "devices")
    if devicefilter.allows_all(rules) or there is None or not kind or not limits_devices():
        return
    allows = _allows(kind, there, about, found)
    if allows is None:
        return
    peer = target.record is None
    compared = Findings()
    devices.compare(rules, allows, peer, compared)
    if peer and not target.config["linux"]["resources"]["devices"] and compared.differences:  # runc then denies all but a few, crun nothing
        found.note("devices of the host are allowed: nothing was asked for, and the runtime has not limited them")
        compared.differences.clear()
    found.add(compared)


def _allows(kind: int, there: "Dir", about: "Host", found: Findings) -> "devices.Allows | None":
    """What the kernel permits of devices; None where that cannot be told."""
    if kind == 1:
        try:
            return devices.listed(store.read(f"{there.path}/devices.list").decode())
        except OSError as e:
            found.cannot_tell("devices", "container", f"devices.list cannot be read: {(e.strerror or '').lower()}")
            return None
    from rundlet.confine.verify import bpf

    try:
        return devices.programs(bpf.filters(there.path, about.programs))
    except OSError as e:
        found.cannot_tell("devices", "container", f"the device filters of the cgroup cannot be read: {(e.strerror or '').lower()}")
        return None


def limits_devices() -> bool:
    """Whether a runtime with the privileges of this very process limits devices: a user's does not, docs/rootless.md."""
    return os.geteuid() == 0 and not host.user_namespace()


def policy(told: dict[str, Any], about: "Host", found: Findings) -> None:
    """Whether the profiles are those of the start; `told` is the record."""
    for then in told["profiles"]:
        name = then["name"]
        now = about.profile(name)
        if now is None:
            if about.modes is None:
                found.cannot_tell("apparmor.policy", name, "securityfs is not to be read")
            else:
                found.differs("apparmor.policy", name, "loaded, as at the start", "not loaded any more")
            continue
        for key in ("sha256", "sha1"):
            if key in then and now.get(key) != then[key]:
                holds = f"{key} {now[key][:SHOWN]}…: it was replaced" if key in now else f"no {key} of it any more"
                found.differs("apparmor.policy", name, f"{key} {then[key][:SHOWN]}…, as at the start", holds)
        if now["mode"] != then["mode"]:
            found.differs("apparmor.policy", name, f"mode {then['mode']}, as at the start", f"mode {now['mode']}")


def _asks(part: object) -> bool:
    """Whether a part of /linux/resources asks for something."""
    if isinstance(part, dict):
        return any(_asks(inner) for inner in part.values())
    return bool(part)
