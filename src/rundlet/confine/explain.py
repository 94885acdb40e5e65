"""rundlet explain: what a bundle's container may do, and why, printed without running anything.

The plan printed is the very value that create carries out: the same functions make both. With --assume the facts are those of another
host, as `rundlet host --json` printed them there.
"""

import json
import sys
from typing import TYPE_CHECKING, Any

from rundlet import host, jsontext, spec
from rundlet.cgroup import layout as cgroup_layout
from rundlet.cgroup import place as cgroup_place
from rundlet.confine.text import call_text, section
from rundlet.errors import BadSpec, Fault, Refused, Usage
from rundlet.life import bundle, deciding, preload, process, rootless, store
from rundlet.options import Options
from rundlet.plan import delegation, devicefilter, order, resources, stages, systemd
from rundlet.plan.label import joined
from rundlet.plan.mounts import cgroup
from rundlet.plan.seccomp import describe, receiver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rundlet.confine.document import Document, Label
    from rundlet.host import Facts
    from rundlet.life.preload import Preload
    from rundlet.plan.apparmor import Transition
    from rundlet.plan.stages import Plan
    from rundlet.plan.write import Write
    from rundlet.spec.types import Config


def main(options: Options) -> int:
    """The verb: 0 when the container would be made, 1 when it would be refused."""
    if len(options.args) != 1:
        raise Usage("explain needs the path of a bundle")
    options.bundle = options.args[0]
    explanation = ask(options, assumed(options.assume) if options.assume else None)
    if options.json:
        sys.stdout.write(json.dumps(explanation.as_json(options.steps), indent=2) + "\n")
    else:
        sys.stdout.write(explanation.as_text(options.steps))
    return 1 if explanation.refusal else 0


def ask(options: Options, facts: "Facts | None") -> "Explanation":
    """What create would do with the options' bundle on the host of `facts`; None: on this one. Raises BadSpec and Fault."""
    path = store.absolute(options.bundle)
    config, warnings = spec.load(bundle.text(options), True) if facts else deciding.read(options)[::2]
    here = facts is None
    facts = facts or host.facts(config["process"]["apparmorProfile"], everything=True)
    explanation = explain(config, path, facts, options.cgroup_manager == "systemd", here, options.cgroup_manager == "disabled")
    explanation.warnings = [*warnings, *explanation.warnings]
    return explanation


def assumed(path: str) -> "Facts":
    """Facts of another host from a file; raises BadSpec naming what is missing."""
    try:
        return checked(jsontext.loads(store.read(path), path), path)
    except OSError as e:
        raise Fault(f"cannot read {path}: {(e.strerror or '').lower()}") from None


def checked(facts: Any, name: str) -> "Facts":
    """Facts of another host; raises BadSpec naming what is missing, and where: `name`."""
    for key, needed in NEEDED.items():
        value = facts.get(key) if isinstance(facts, dict) else None
        if not isinstance(value, needed):
            raise BadSpec(f"{name}: /{key}", "missing or of another type; print the facts with `rundlet host --json`")
    for key in ("state", "components", "stack", "loaded", "interface"):
        if key not in facts["apparmor"]:
            raise BadSpec(f"{name}: /apparmor/{key}", "missing; print the facts with `rundlet host --json`")
    return facts  # type: ignore[no-any-return]


NEEDED: dict[str, type] = {"apparmor": dict, "nnp": bool, "kernel": str, "caps": dict, "cgroup": dict}


class Explanation:
    """What would happen to one configuration on one host: a plan, or the refusal that takes its place."""

    def __init__(self, config: "Config", facts: "Facts") -> None:
        self.config = config
        self.facts = facts
        self.plan: Plan | None = None
        self.transition: Transition | None = None
        self.refusal: Fault | None = None
        self.limits: list[str] = []
        self.warnings: list[str] = []
        self.preload: Preload | None = None

    def __str__(self) -> str:
        return self.as_text()

    def as_json(self, steps: bool = False) -> "Document":
        """The explanation as a document; its form is `version` 1 and is described in docs/explain.md. With `steps` the plan is in it."""
        config, proc = self.config, self.config["process"]
        user, root = proc["user"], config["root"]
        shown: Document = {
            "version": 1,
            "refused": str(self.refusal) if self.refusal else None,
            "label": self._label(),
            "noNewPrivileges": {
                "asked": proc["noNewPrivileges"], "inherited": self.facts["nnp"], "holds": proc["noNewPrivileges"] or self.facts["nnp"],
            },
            "user": {"uid": user["uid"], "gid": user["gid"], "additionalGids": user["additionalGids"]},
            "capabilities": proc["capabilities"] or order.NO_CAPABILITIES,
            "seccomp": describe(config["linux"]["seccomp"]) if config["linux"]["seccomp"] else None,
            "namespaces": {space["type"]: space["path"] or "new" for space in config["linux"]["namespaces"]},
            "root": {"path": root["path"], "readonly": root["readonly"]},
            "mounts": [
                {"destination": mount["destination"], "type": mount["type"], "source": mount["source"], "options": mount["options"]}
                for mount in config["mounts"]
            ],
            "maskedPaths": config["linux"]["maskedPaths"],
            "readonlyPaths": config["linux"]["readonlyPaths"],
            "cgroup": self.limits,
            "hooks": {kind: [hook["path"] for hook in hooks] for kind, hooks in config["hooks"].items() if hooks},  # type: ignore[attr-defined]
            "process": {"args": proc["args"], "cwd": proc["cwd"], "terminal": proc["terminal"]},
            "warnings": self.warnings,
            "profiles": {"file": self.preload.file, "names": [one.name for one in self.preload.profiles]} if self.preload else None,
        }
        if steps and self.plan:
            shown["steps"] = [
                {
                    "stage": stage.name,
                    "steps": [{"what": step.what, "calls": [call_text(call) for call in step.calls]} for step in stage.steps],
                }
                for stage in self.plan.stages if stage.steps
            ]
        return shown

    def _label(self) -> "Label":
        own = self.facts["apparmor"]["label"]
        if self.transition is None:
            return {"from": own, "to": None, "action": "refuse", "reason": str(self.refusal), "row": None}
        to = None if self.facts["apparmor"]["state"] != "on" else joined(self.transition.expected) if self.transition.expected else own
        return {"from": own, "to": to, "action": self.transition.action, "reason": self.transition.reason, "row": self.transition.row}

    def as_text(self, steps: bool = False) -> str:
        """The explanation for people."""
        return section(self.as_json(), self.plan if steps else None)


def explain(
    config: "Config", path: str, facts: "Facts", by_systemd: bool = False, here: bool = True, without_cgroup: bool = False,
) -> Explanation:
    """Plans the container of `config`, whose bundle lies at `path`, for the host of `facts`, and makes nothing.

    `by_systemd`: a unit of systemd's is its cgroup. `here`: the facts are this host's. `without_cgroup`: it stays in those of its caller.
    """
    facts = {**facts, "apparmor": {**facts["apparmor"]}}
    found = Explanation(config, facts)
    spaces = {space["type"] for space in config["linux"]["namespaces"]}
    process.grantable(config["process"], facts, "user" in spaces, found.warnings.append)
    try:
        if any(name.startswith("org.rundlet.apparmor.") for name in config["annotations"]):
            found.preload = preload.prepare(Options(), config, path, facts, here)
        found.transition = deciding.decide(config, facts)
        unit = systemd.unit(config["linux"]["cgroupsPath"], "ID", is_user(facts)) if by_systemd else None
        below = f"{unit.path()}/{subgroup(config, facts)}" if unit else config["linux"]["cgroupsPath"]
        bare = bool(facts.get("uid") or facts.get("user_namespace"))
        if bare:
            rootless.check(config, facts)
        layout = facts["cgroup"]
        if without_cgroup:
            layout = cgroup_layout.left_out(layout)
        at = (rootless if bare and not unit else cgroup_place).place(layout, below, "ID")
        limits = config["linux"]["resources"]
        notes = [*resources.notes(limits, layout), resources.lost(limits) if without_cgroup else "", cgroup.idle(config)]
        found.warnings += filter(None, notes)
        writes = resources.writes(limits, layout) if at.dirs else ()
        if bare and not unit:
            writes = rootless.limits(limits, layout, at, facts)
        found.limits = [f"{write.what}: {write.text}" for write in writes if write.controller != "devices"]
        if at.dirs and not bare:
            found.limits.append(device_text(config))
            found.limits += given_away(config, facts)
        if unit:
            found.limits += unit_text(unit, config, facts, writes)
        filter_ = process.seccomp_program(config, found.warnings.append)
        agent = filter_ is not None and receiver(config, "")
        choices = stages.Choices(
            "ID", set_groups=process.sets_groups(config) and not (bare and rootless.groups_denied(config, facts)),
            privileged="CAP_SYS_ADMIN" in facts["caps"]["effective"], nodes=not facts.get("user_namespace"),
            notify=bool(agent), unit=by_systemd,
        )
        hierarchies = [(d.path, d.version, list(d.controllers)) for d in at.dirs]
        if (bare and not unit) or without_cgroup:
            hierarchies = rootless.shown(facts["cgroup"], at)
        survey = bundle.survey(config, path)
        found.plan = order.create(config, found.transition, facts["apparmor"]["interface"], survey, hierarchies, filter_, choices)
    except (Refused, BadSpec) as refusal:
        found.refusal = refusal
    return found


def is_user(facts: "Facts") -> bool:
    """Whether it is the user's systemd that would be asked."""
    return bool(facts.get("uid") or facts.get("user_namespace"))


def subgroup(config: "Config", facts: "Facts") -> str:
    """Of the unit's cgroup."""
    return systemd.subgroup(config["annotations"], 2 if facts["cgroup"]["layout"] == "v2" else 1)


def unit_text(unit: "systemd.Unit", config: "Config", facts: "Facts", writes: "Sequence[Write]") -> list[str]:
    """The unit and its properties, as a systemd that knows them all would be asked for them."""
    rules = devicefilter.since_reset(devicefilter.rules(config["linux"]["resources"]["devices"]))
    properties = systemd.limits(writes, 1000) | ({} if is_user(facts) else systemd.devices(*rules, 1000))
    properties |= systemd.annotated(config["annotations"])
    shown = {name: "infinity" if value == systemd.UNSET else value for name, (_, value) in properties.items() if name != "DeviceAllow"}
    return [f"by systemd: {unit.name} in {unit.slice}", *(f"its {name}: {value}" for name, value in shown.items())]


def given_away(config: "Config", facts: "Facts") -> list[str]:
    """Whose the container's cgroup is to be, where that is not the host's root alone."""
    given = delegation.decide(config, facts["cgroup"])
    lines = [] if given.owner is None else [f"the container's cgroup: given to user {given.owner}"]
    return [*lines, f"its sub-cgroup {given.path}: given to user {given.root[0]}, and where the process is"] if given.path else lines


def device_text(config: "Config") -> str:
    """The device rules in a line."""
    rules = devicefilter.rules(config["linux"]["resources"]["devices"])
    if devicefilter.allows_all(rules):
        return "devices: all"
    asked = len(config["linux"]["resources"]["devices"])
    return f"devices: {asked} rule{'s' * (asked != 1)} asked, and those every container has"


