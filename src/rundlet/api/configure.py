"""A configuration to start from, in Python: that of `rundlet spec`, made to measure."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence

from rundlet import spec
from rundlet.api.asked import Path
from rundlet.cgroup import layout
from rundlet.life import spec as life_spec
from rundlet.spec.types import Config

BIND = ["rbind", "nosuid", "nodev"]


def config(
    args: Sequence[str], *, rootfs: Path, env: Mapping[str, str] | None = None, cwd: str = "/", user: int | tuple[int, int] = 0,
    hostname: str = "rundlet", terminal: bool = False, readonly: bool = True, capabilities: Iterable[str] | None = None,
    no_new_privs: bool = True, apparmor: str | None = None, binds: Mapping[str, Path] | None = None, host: Iterable[str] = (),
    resources: Mapping[str, object] | None = None, cgroup: str | None = None, annotations: Mapping[str, str] | None = None,
    rootless: bool | None = None,
) -> Config:
    """A complete configuration: that which `rundlet spec` writes, with what is said here in its place. It may be changed, and then run.

    args            the program and its arguments
    rootfs          the root filesystem; made absolute here
    env             the whole environment; None: a PATH, and TERM where there is a terminal
    user            UID, or (UID, GID)
    terminal        whether the program has one
    readonly        whether the root filesystem is
    capabilities    those it has, and may have; None: CAP_AUDIT_WRITE, CAP_KILL, CAP_NET_BIND_SERVICE
    no_new_privs    whether what it executes can gain no privilege
    apparmor        the name of a profile
    binds           directories and files of the host: path in the container → path here. For read-only ones add "ro" to the mount's options
    host            kinds of namespaces that are the host's, such as "network"
    resources       limits, in the form of linux.resources
    cgroup          linux.cgroupsPath
    annotations     names and values
    rootless        for a user without privileges; None: for whoever asks

    Raises BadSpec for what the runtime-spec does not allow, TypeError for arguments that are a single string.
    """
    if isinstance(args, str):
        raise TypeError(f"the arguments are a list of strings, not {args!r}")
    rootless = bool(os.geteuid()) if rootless is None else rootless
    made = json.loads(json.dumps(life_spec.template(rootless, layout.read()["layout"] == "v2")))  # its lists are shared
    process, linux = made["process"], made["linux"]
    uid, gid = user if isinstance(user, tuple) else (user, 0)
    process |= {
        "args": [os.fspath(word) for word in args], "cwd": cwd, "user": {"uid": uid, "gid": gid}, "terminal": terminal,
        "noNewPrivileges": no_new_privs, "apparmorProfile": apparmor,
    }
    if env is not None:
        process["env"] = [f"{name}={value}" for name, value in env.items()]
    elif not terminal:
        process["env"] = [entry for entry in process["env"] if not entry.startswith("TERM=")]
    if capabilities is not None:
        process["capabilities"] = {kind: sorted(set(capabilities)) for kind in ("bounding", "effective", "permitted")}
    made |= {"root": {"path": os.path.abspath(os.fspath(rootfs)), "readonly": readonly}, "hostname": hostname}
    kinds = set(host)
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] not in kinds]
    if "uts" in kinds:
        del made["hostname"]
    for destination, source in (binds or {}).items():
        made["mounts"].append({"destination": destination, "type": "bind", "source": os.path.abspath(os.fspath(source)), "options": BIND})
    linux["resources"] = linux.get("resources", {}) | (resources or {})
    linux["cgroupsPath"] = cgroup
    made["annotations"] = dict(annotations or {})
    checked, _ = spec.load(json.dumps(made).encode("utf-8", "surrogateescape"))
    return checked
