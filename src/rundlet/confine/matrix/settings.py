"""What is varied: axes and their values, the settings that are tried by default, and how a setting becomes a configuration to run.

    Setting (a value on each axis) ── case() ──▶ Case (config.json, and how the runtime is started) ── relaxed() ──▶ Case with a layer less

A Case is plain data without a path of its own, so that two settings which come to the same are run once.
"""

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from rundlet.confine.matrix.engine import resolved
from rundlet.errors import Usage
from rundlet.kernel import CAPABILITIES

AXES: dict[str, tuple[str, ...]] = {
    "confinement": ("unconfined", "unconfined-mode", "complain", "enforce"),
    "profile": ("bundle", "none", "given", "stacked"),
    "nnp": ("bundle", "off", "config", "inherited"),
    "seccomp": ("bundle", "none", "default"),
    "capabilities": ("bundle", "none", "default", "all"),
    "root": ("bundle", "rw", "ro"),
    "user": ("bundle", "host", "mapped", "rootless"),
}
BUNDLE = {axis: "bundle" if "bundle" in values else values[0] for axis, values in AXES.items()}
OPEN = {
    "confinement": "unconfined", "profile": "none", "nnp": "off", "seccomp": "none", "capabilities": "all", "root": "rw", "user": "host",
}
STRICT = OPEN | {"nnp": "config", "seccomp": "default", "capabilities": "none", "root": "ro", "user": "mapped"}
# that of Docker, Podman and CRI-O: moby oci/caps/defaults.go, containers-common pkg/config
DEFAULT_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split()
    )
)
LAYERS = ("apparmor", "seccomp", "capability", "nnp", "mount", "devices", "dac", "namespace")
NEEDED_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")  # what probes do, they do in here
MAPPED = 100000  # the first id on the host of a container with a user namespace
ROOTLESS = 65533  # the user that starts a runtime without privileges, when root runs the matrix

DESIGN = (
    "the bundle as it is, everything open, one axis at a time from there, the strictest, and every combination of runtime confinement, "
    "no_new_privs and profile; other combinations are not tried: [axes] in --config asks for some"
)


@dataclass(frozen=True)
class Setting:
    """One row: its name, and a value on each axis."""

    name: str
    axes: Mapping[str, str]


@dataclass(frozen=True)
class Host:
    """What settings depend on: AppArmor (`lacking` says why no profiles can be loaded), capabilities, a seccomp profile, who we are."""

    lacking: str
    capabilities: tuple[str, ...]
    seccomp: Mapping[str, Any] | None
    uid: int
    profile: str | None  # that of "given"

    @property
    def apparmor(self) -> bool:
        """Whether profiles can be loaded here."""
        return not self.lacking


@dataclass(frozen=True)
class Case:
    """What is run: the configuration as JSON, and how the runtime is started. `dac` opens the files that probes are kept from."""

    config: str
    confinement: str = "unconfined"
    inherited: bool = False
    rootless: bool = False
    dac: bool = False
    runtime: str = ""  # its name: what one of them did is no other's

    def read(self) -> Any:
        """The configuration."""
        return json.loads(self.config)


class NotHere(Exception):
    """The setting needs what this machine has not."""


def default() -> list[Setting]:
    """The settings of DESIGN, each once."""
    rows = [Setting("bundle", BUNDLE), Setting("open", OPEN)]
    rows += [named({axis: value}) for axis, values in AXES.items() for value in values if value not in ("bundle", OPEN[axis])]
    rows += [Setting("strict", STRICT), Setting("strict profile=given", STRICT | {"profile": "given"})]
    for confinement, nnp, profile in product(AXES["confinement"], AXES["nnp"][1:], AXES["profile"][1:]):
        rows.append(named({"confinement": confinement, "nnp": nnp, "profile": profile}))
    return distinct(rows)


def full(axes: Mapping[str, Iterable[str]]) -> list[Setting]:
    """The full product of the values given; what is not given is open."""
    names = list(axes)
    return distinct([named(dict(zip(names, values, strict=True))) for values in product(*(list(axes[name]) for name in names))])


def named(change: Mapping[str, str]) -> Setting:
    """A setting that differs from the open one in this, and is called so."""
    for axis, value in change.items():
        if axis not in AXES:
            raise Usage(f"unknown axis {axis}; known are {', '.join(AXES)}")
        if value not in AXES[axis]:
            raise Usage(f"axis {axis} has no value {value!r}; known are {', '.join(AXES[axis])}")
    axes = _stacked(OPEN | dict(change))
    words = [f"{axis}={value}" for axis, value in axes.items() if value != OPEN[axis]]
    return Setting(" ".join(words) or "open", axes)


def _stacked(axes: dict[str, str]) -> dict[str, str]:
    """A container cannot ask for a stack: it comes of the profile given, a runtime that is confined, and no_new_privs."""
    if axes["profile"] != "stacked":
        return axes
    confinement = axes["confinement"] if axes["confinement"] in ("complain", "enforce") else "enforce"
    nnp = axes["nnp"] if axes["nnp"] in ("config", "inherited") else "config"
    return axes | {"profile": "given", "confinement": confinement, "nnp": nnp}


def distinct(rows: Iterable[Setting]) -> list[Setting]:
    """Each combination once, under its first name."""
    found: dict[tuple[tuple[str, str], ...], Setting] = {}
    for row in rows:
        found.setdefault(tuple(sorted(row.axes.items())), row)
    return list(found.values())


# ── from a setting to what is run ────────────────────────────────────────────────────────────────────────────────────────────


def base(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The bundle's configuration made safe to probe in, and what was changed for that, in words."""
    made = copy.deepcopy(dict(config))
    process, linux = made.setdefault("process", {}), made.setdefault("linux", {})
    process["terminal"] = False
    process.pop("consoleSize", None)
    changed = []
    spaces = {space["type"]: space for space in linux.get("namespaces", [])}
    for kind in NEEDED_NAMESPACES:
        if kind not in spaces or spaces[kind].get("path"):
            spaces[kind] = {"type": kind}
            changed.append(f"{'an' if kind == 'ipc' else 'a'} {kind} namespace of its own")
    if spaces.get("user", {}).get("path"):
        spaces["user"] = {"type": "user"}
        changed.append("a user namespace of its own")
    linux["namespaces"] = list(spaces.values())
    if linux.pop("rootfsPropagation", "private") not in ("private", "rprivate", "slave", "rslave"):
        changed.append("no mount propagation to the host")
    for key in ("cgroupsPath", "netDevices"):
        linux.pop(key, None)
    if made.pop("hooks", None):
        changed.append("no hooks")
    return made, changed


def case(config: Mapping[str, Any], setting: Setting, host: Host) -> Case:
    """What to run for a setting. `config` is of base(). Raises NotHere with the reason when this machine cannot."""
    made = copy.deepcopy(dict(config))
    axes = setting.axes
    _profile(made, axes["profile"], host)
    if axes["confinement"] != "unconfined" and not host.apparmor:
        raise NotHere(host.lacking)
    process, linux = made["process"], made["linux"]
    if axes["nnp"] != "bundle":
        process["noNewPrivileges"] = axes["nnp"] == "config"
    if axes["capabilities"] != "bundle":
        _capabilities(process, axes["capabilities"], host)
    if axes["seccomp"] == "none":
        linux.pop("seccomp", None)
    elif axes["seccomp"] == "default":
        if host.seccomp is None:
            raise NotHere("no seccomp profile of an engine (Debian: golang-github-containers-common), and none named in --config")
        # an engine permits what the container's capabilities are for; here one axis is varied at a time, so it is always the same filter
        linux["seccomp"] = resolved(host.seccomp, set(DEFAULT_CAPABILITIES))
    if axes["root"] != "bundle":
        made.setdefault("root", {})["readonly"] = axes["root"] == "ro"
    _user(made, axes["user"], host)
    return Case(
        dumps(made), axes["confinement"], axes["nnp"] == "inherited", axes["user"] == "rootless" or (host.uid != 0 and has_user(made)),
    )


def dumps(config: Mapping[str, Any]) -> str:
    """One text for one configuration."""
    return json.dumps(config, sort_keys=True)


def has_user(config: Mapping[str, Any]) -> bool:
    """Whether there is a user namespace."""
    return any(space["type"] == "user" for space in config["linux"]["namespaces"])


def _profile(config: dict[str, Any], value: str, host: Host) -> None:
    process = config["process"]
    if value == "none":
        process.pop("apparmorProfile", None)
    elif value == "given":
        if not host.apparmor:
            raise NotHere(host.lacking)
        process["apparmorProfile"] = host.profile
    elif process.get("apparmorProfile") and not host.apparmor:
        raise NotHere(f"{host.lacking}, and the bundle asks for a profile")


def _capabilities(process: dict[str, Any], value: str, host: Host) -> None:
    wanted = {"none": (), "default": DEFAULT_CAPABILITIES, "all": CAPABILITIES}[value]
    there = [name for name in wanted if name in host.capabilities]
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted", "inheritable"), there)


def _user(config: dict[str, Any], value: str, host: Host) -> None:
    if value == "bundle":
        if host.uid and not has_user(config):
            raise NotHere("no root, which a container without a user namespace needs")
        return
    if value != "rootless" and host.uid:
        raise NotHere("no root")
    linux = config["linux"]
    linux["namespaces"] = [space for space in linux["namespaces"] if space["type"] != "user"]
    for kind in ("uidMappings", "gidMappings"):
        linux.pop(kind, None)
    if value == "host":
        return
    linux["namespaces"].append({"type": "user"})
    first, size = (MAPPED, 65536) if value == "mapped" else (host.uid or ROOTLESS, 1)
    for kind in ("uidMappings", "gidMappings"):
        linux[kind] = [{"containerID": 0, "hostID": first, "size": size}]
    if value == "rootless":
        linux.pop("resources", None)
        for mount in config.get("mounts", []):
            mount["options"] = [word for word in mount.get("options", []) if not word.startswith("gid=")]


# ── layers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def active(what: Case, host: Host) -> tuple[str, ...]:
    """The layers that could deny something here, in the order of LAYERS."""
    return tuple(layer for layer in LAYERS if relaxed(what, [layer], host) != what)


def relaxed(what: Case, layers: Iterable[str], host: Host) -> Case:
    """The same with these layers taken away, and nothing else changed."""
    config = what.read()
    for layer in sorted(layers, key=list(RELAX).index):
        what = replace(what, **RELAX[layer](config, what, host))
    return replace(what, config=dumps(config))


def _no_apparmor(config: Any, what: Case, host: Host) -> dict[str, Any]:
    config["process"].pop("apparmorProfile", None)
    return {"confinement": "unconfined"}


def _no_seccomp(config: Any, what: Case, host: Host) -> dict[str, Any]:
    config["linux"].pop("seccomp", None)
    return {}


def _all_capabilities(config: Any, what: Case, host: Host) -> dict[str, Any]:
    _capabilities(config["process"], "all", host)
    return {}


def _no_nnp(config: Any, what: Case, host: Host) -> dict[str, Any]:
    config["process"]["noNewPrivileges"] = False
    return {"inherited": False}


def _plain_mounts(config: Any, what: Case, host: Host) -> dict[str, Any]:
    """Nothing masked, nothing read-only, nothing nosuid, nodev or noexec."""
    for kind in ("maskedPaths", "readonlyPaths"):
        config["linux"].pop(kind, None)
    config.setdefault("root", {})["readonly"] = False
    if not has_user(config):  # in a user namespace the flags of the host's own mounts are locked: mount_namespaces(7)
        for mount in config.get("mounts", []):
            mount["options"] = [word for word in mount.get("options", []) if word not in ("ro", "rro", "nosuid", "nodev", "noexec")]
    return {}


def _all_devices(config: Any, what: Case, host: Host) -> dict[str, Any]:
    resources = config["linux"].get("resources")
    if not what.rootless:  # a user's runtime has no rules for devices
        config["linux"]["resources"] = {**(resources or {}), "devices": [{"allow": True, "access": "rwm"}]}
    return {}


def _no_dac(config: Any, what: Case, host: Host) -> dict[str, Any]:
    config["process"]["user"] = {"uid": 0, "gid": 0}
    return {"dac": True}


def _no_namespace(config: Any, what: Case, host: Host) -> dict[str, Any]:
    if host.uid == 0 and has_user(config):
        _user(config, "host", host)
        if what.rootless:  # without it there are rules for devices, which would be one layer more
            _all_devices(config, replace(what, rootless=False), host)
        return {"rootless": False}
    return {}


RELAX = {  # in this order: what can be taken away depends on whether there is a user namespace
    "namespace": _no_namespace, "apparmor": _no_apparmor, "seccomp": _no_seccomp, "capability": _all_capabilities, "nnp": _no_nnp,
    "mount": _plain_mounts, "devices": _all_devices, "dac": _no_dac,
}
