"""The decision against a model of the kernel's own rules: what is decided is what the kernel gives, and it is never weaker.

The model is written from the rules of docs/apparmor.md and shares no code with the decision. Each wrong way of deciding that
runtimes have been seen to take is run through it too, and must be found out.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
from rundlet.errors import Refused
from rundlet.plan.apparmor import Transition, check, decide, pending_ok
from tests.rulebook import CASES, ENFORCING, FREE, HALF, LEARNING, MISNAMED, MIXED, ON_UNCONFINED, PLAIN, TWO, Case, facts, situation

LOADED = {
    "rt": "enforce", "second": "enforce", "rt-learns": "complain", "rt-free": "unconfined", "unconfined_x": "enforce",
    "web": "enforce", "web-learns": "complain", ":box:web": "enforce",
}


class No(Exception):
    """The kernel's errno."""


@dataclass
class Task:
    """A task under AppArmor. `rules` maps a confining profile to the targets its change_profile rules name, `**` for all."""

    label: dict[str, str]
    nnp: bool = False
    rules: dict[str, set[str]] = field(default_factory=dict)
    loaded: dict[str, str] = field(default_factory=lambda: dict(LOADED))
    can_stack: bool = True
    privileged: bool = True
    restricted: bool = False  # kernel.apparmor_restrict_unprivileged_unconfined
    outer: frozenset[str] = frozenset()  # profiles of outer policy namespaces, which the task does not see
    baseline: frozenset[str] | None = None  # the label when no_new_privs was noticed
    pending: tuple[str, dict[str, str]] | None = None

    def unconfined(self) -> bool:
        return all(mode == "unconfined" for mode in self.label.values())

    def notice(self) -> None:
        if self.nnp and not self.unconfined() and self.baseline is None:
            self.baseline = frozenset(name for name, mode in self.label.items() if mode != "unconfined")

    def narrower(self, target: dict[str, str]) -> bool:
        """Whether every confining profile of the baseline is still in the label."""
        return self.baseline is None or self.baseline <= set(target)

    def lookup(self, name: str) -> dict[str, str]:
        namespace, _, inner = name[1:].partition(":") if name.startswith(":") else ("", "", name)
        inner = inner.removeprefix("//")
        full = f":{namespace}:{inner}" if namespace else inner
        if full in self.loaded:
            return {full: self.loaded[full]}
        if "unconfined".startswith(inner):  # a prefix will do, and so will no name at all
            return {f":{namespace}:unconfined" if namespace else "unconfined": "unconfined"}
        first = next(iter(self.label))
        if self.label[first] == "complain":
            return {f"{first}//null-{name}": "complain"}
        raise No("ENOENT")

    def write(self, text: str) -> None:
        """One write to attr/exec, or one lsm_set_self_attr(LSM_ATTR_EXEC)."""
        self.notice()
        verb, _, name = text.rstrip("\n\0").partition(" ")
        name = name.strip()
        if verb not in ("exec", "stack") or not name or (verb == "stack" and not self.can_stack):
            raise No("EINVAL")
        if name.startswith("&"):
            verb, name = "stack", name[1:]
        target: dict[str, str] = {}
        for part in name.split("//&"):
            target |= self.lookup(part)
        invented = any("//null-" in part for part in target)
        mark = "&" if verb == "stack" else ""
        for part, mode in self.label.items():
            if mode in ("unconfined", "complain") or invented:
                continue
            if not {"**", *(mark + wanted for wanted in target)} & self.rules.get(part, set()):
                raise No("EACCES")
        if verb == "exec" and self.nnp and not self.unconfined() and not self.narrower(target):
            raise No("EPERM")
        if self.restricted and not self.privileged and set(self.label) == {"unconfined"}:
            verb = "stack"
        self.pending = (verb, target)

    def read_back(self) -> str:
        """attr/exec, which does not say whether the transition stacks."""
        if self.pending is None:
            raise No("EINVAL")
        name, modes = "//&".join(sorted(self.pending[1])), {*self.pending[1].values()}
        mode = modes.pop() if len(modes) == 1 else "mixed"
        return f"{name}\n" if name.split(":")[-1] == "unconfined" else f"{name} ({mode})\n"

    def execve(self) -> None:
        self.notice()
        pending, self.pending = self.pending, None
        if pending is None:
            return
        verb, target = pending
        new = {**self.label, **target} if verb == "stack" else target
        if self.nnp and not self.unconfined() and not self.narrower(new):
            if any(mode not in ("complain", "unconfined") for mode in self.label.values()):
                raise No("EPERM")
            return  # complaining: the exec succeeds and the label stays
        self.label = new

    def real_label(self) -> frozenset[str]:
        return self.outer | set(self.label)


RULES: list[set[str]] = [set(), {"**"}, {"web", "rt", "second", "web-learns", "unconfined", ":box:web", ":box:unconfined"}]
RULES.append({f"&{name}" for name in RULES[2]})
LABELS: list[dict[str, str]] = [
    PLAIN, ENFORCING, LEARNING, FREE, MISNAMED, TWO, MIXED, HALF, ON_UNCONFINED,
    {"rt-free": "unconfined", "unconfined": "unconfined"}, {"rt-free": "unconfined", "second": "enforce"},
]
PROFILES = ["web", "web-learns", "nope", "unconfined", "rt", "rt-learns", "rt-free", ":box:web", ":box:unconfined", "uncon", "&web"]

Decider = Callable[[Any, Any], Transition]


def outcomes(decider: Decider) -> Iterator[str]:
    """Everything that a way of deciding does wrong, over all combinations; each complaint names its situation."""
    for own, config, inherited, profile, known, can_stack, rules, hidden in itertools.product(
        LABELS, (False, True), (False, True), PROFILES, (False, True), (False, True), RULES, (False, True)
    ):
        modes = {name: "unknown" if hidden and len(own) > 1 and name != "unconfined" else mode for name, mode in own.items()}
        host = facts(modes, inherited, known=known, stack=can_stack)
        if known:
            host["apparmor"]["loaded"] = list(LOADED)
        task = Task(dict(own), inherited, dict.fromkeys(own, rules), can_stack=can_stack)
        if fault := outcome(decider, host, {"profile": profile, "nnp": config}, task, hidden):
            where = f"{'+'.join(own)} config={config} inherited={inherited} {profile} known={known} stack={can_stack} {rules}"
            yield f"{where}: {fault}"


def outcome(decider: Decider, host: Any, request: Any, task: Task, hidden: bool = False) -> str:
    """What comes of one decision by the model: "" when it was carried out to the letter, or rightly refused."""
    own = frozenset(name for name, mode in task.label.items() if mode != "unconfined")
    profile, nnp = request["profile"], request["nnp"] or host["nnp"]
    inner = profile.split(":")[-1]
    try:
        transition = decider(host, request)
    except Refused:
        return needless(task, profile, request["nnp"], nnp, own) if not hidden else ""
    try:
        task.write(f"{transition.action} {transition.profile}")
    except No as errno:
        # a missing rule, or a profile that was not known to be missing, is for the kernel to say; the rest is for us to know
        foreseen = str(errno) == "EACCES" or (str(errno) == "ENOENT" and host["apparmor"]["loaded"] is None)
        return "" if foreseen else f"the write fails: {errno}"
    if not pending_ok(transition, task.read_back()):
        return "" if host["apparmor"]["loaded"] is None and "null-" in task.read_back() else "another profile is pending"
    task.nnp = task.nnp or request["nnp"]
    try:
        task.execve()
    except No as errno:
        return f"the exec fails: {errno}"
    live = set(task.label)
    if nnp and not own <= live:
        return f"weaker: {sorted(live)} lacks what confined the runtime"
    if inner != "unconfined" and profile not in live:
        return f"weaker: {sorted(live)} lacks {profile}"
    if inner == "unconfined" and live != {profile}:
        return f"not unconfined: {sorted(live)}"
    if live != set(transition.expected):
        return f"{sorted(live)} is not {transition.expected}"
    if check(transition, "//&".join(sorted(live, key=lambda name: (name[0] == ":", name))), "mixed"):
        return f"the check denies {sorted(live)}"
    if not own and live != {profile} and not hidden:  # an unknown mode is taken as confining, which costs no more than this
        return f"needlessly stacked: {sorted(live)}"
    return ""


def needless(task: Task, profile: str, config: bool, nnp: bool, own: frozenset[str]) -> str:
    """A complaint when the kernel would have given what was refused, by either verb."""
    if not task.can_stack and profile in task.label:
        return ""  # a kernel that cannot stack would still take `exec L`; the table spares itself a row for that
    for verb in ("exec", "stack"):
        other = Task(dict(task.label), task.nnp, {name: {"**"} for name in task.label}, can_stack=task.can_stack)
        try:
            other.write(f"{verb} {profile}")
            other.nnp = other.nnp or config
            other.execve()
        except No:
            continue
        live = set(other.label)
        if (live == {profile} or (nnp and live == own | {profile})) and (profile.split(":")[-1] != "unconfined" or live == {profile}):
            return f"refused needlessly: {verb} gives {sorted(live)}"
    return ""


def test_what_is_decided_is_what_the_kernel_gives() -> None:
    assert list(outcomes(decide)) == []


CONTAINERS = [{"rt", "web"}, {"rt-learns", "web"}, {"rt", "second", "web"}, {"rt", "rt-free", "web"}, {"unconfined_x", "web-learns"}]


def test_an_exec_is_under_the_containers_label() -> None:
    """Whoever it is by: never less, and no more than no_new_privs adds of the runtime's own."""
    seen = set()
    for own, theirs, config, inherited in itertools.product(LABELS, CONTAINERS, (False, True), (False, True)):
        profile = "web" if "web" in theirs else "web-learns"
        host = facts(own, inherited)
        host["apparmor"]["loaded"] = list(LOADED)
        made = Task(dict(own), inherited, {name: {"**"} for name in own})
        decided = decide(host, {"profile": profile, "nnp": config, "beside": sorted(theirs - {profile})})
        made.write(f"{decided.action} {decided.asked}")
        assert pending_ok(decided, made.read_back())
        made.nnp = made.nnp or config
        made.execve()
        live, held = set(made.label), (config or inherited) and not Task(dict(own)).unconfined()
        assert live == (theirs | set(own) if held else theirs) == set(decided.expected), (own, theirs, config, inherited, decided.asked)
        assert check(decided, "//&".join(sorted(live)), "mixed") is None
        assert decided.row == 13
        seen.add(decided.action)
    assert seen == {"exec", "stack"}


# ------------------------------------------------------------------------------------------ wrong ways, which must be found out


def transition(action: Any, host: Any, profile: str) -> Transition:
    own = {part["name"] for part in host["apparmor"]["components"]}
    return Transition(action, profile, tuple(sorted({profile} | (own if action == "stack" else set()))), "", 0)


def always_exec(host: Any, request: Any) -> Transition:
    return transition("exec", host, request["profile"])


def always_stack(host: Any, request: Any) -> Transition:
    return transition("stack", host, request["profile"])


def blind_to_inherited(host: Any, request: Any) -> Transition:
    blind: Any = {**host, "nnp": False}
    return decide(blind, request)


def blind_to_config(host: Any, request: Any) -> Transition:
    blind: Any = {**request, "nnp": False}
    return decide(host, blind)


def by_name_alone(host: Any, request: Any) -> Transition:
    confined = not host["apparmor"]["label"].startswith("unconfined")
    return transition("stack" if confined and (request["nnp"] or host["nnp"]) else "exec", host, request["profile"])


def first_component_alone(host: Any, request: Any) -> Transition:
    parts = host["apparmor"]["components"]
    free = parts[0]["mode"] == "unconfined"
    return transition("exec" if free or not (request["nnp"] or host["nnp"]) else "stack", host, request["profile"])


def complaining_is_unconfined(host: Any, request: Any) -> Transition:
    free = all(part["mode"] in ("unconfined", "complain") for part in host["apparmor"]["components"])
    return transition("exec" if free or not (request["nnp"] or host["nnp"]) else "stack", host, request["profile"])


def unknown_is_unconfined(host: Any, request: Any) -> Transition:
    free = all(part["mode"] in ("unconfined", "unknown") for part in host["apparmor"]["components"])
    return transition("exec" if free or not (request["nnp"] or host["nnp"]) else "stack", host, request["profile"])


def refuse_all(host: Any, request: Any) -> Transition:
    raise Refused("no")


@pytest.mark.parametrize(
    ("decider", "words"),
    [
        (always_exec, "the exec fails: EPERM"),
        (always_exec, "weaker"),
        (always_stack, "needlessly stacked"),
        (always_stack, "not unconfined"),
        (blind_to_inherited, "the write fails: EPERM"),
        (blind_to_config, "the exec fails: EPERM"),
        (blind_to_config, "weaker: ['rt-learns'] lacks web"),
        (by_name_alone, "needlessly stacked"),
        (by_name_alone, "unconfined_x config=True inherited=False web known=True"),
        (first_component_alone, "EPERM"),
        (complaining_is_unconfined, "weaker"),
        (unknown_is_unconfined, "EPERM"),
        (refuse_all, "refused needlessly"),
    ],
)
def test_wrong_ways_are_found_out(decider: Decider, words: str) -> None:
    assert any(words in fault for fault in outcomes(decider))


# ------------------------------------------------------------------------------------------------------- the rules of the model


def after(task: Task, *texts: str, late: bool = False) -> frozenset[str]:
    """The label after the writes and an exec; `late` sets no_new_privs between them."""
    for text in texts:
        task.write(text)
    task.nnp = task.nnp or late
    task.execve()
    return task.real_label()


ALL = {"rt": {"**"}, "rt-learns": {"**"}, "second": {"**"}, "unconfined_x": {"**"}}


def task(own: dict[str, str], **more: Any) -> Task:
    return Task(dict(own), rules=more.pop("rules", ALL), **more)


def test_rules_of_the_unconfined() -> None:
    for nnp in (False, True):
        assert after(task(PLAIN, nnp=nnp), "exec web") == {"web"}
        assert after(task(FREE, nnp=nnp), "exec web") == {"web"}
    assert after(task(PLAIN), "stack web") == {"web", "unconfined"}
    assert after(task(FREE), "stack web") == {"web", "rt-free"}


def test_rules_of_no_new_privs() -> None:
    with pytest.raises(No, match="EPERM"):
        task(ENFORCING, nnp=True).write("exec web")
    with pytest.raises(No, match="EPERM"):
        after(task(ENFORCING), "exec web", late=True)
    assert after(task(ENFORCING, nnp=True), "stack web") == after(task(ENFORCING), "stack web", late=True) == {"rt", "web"}
    assert after(task(LEARNING), "exec web", late=True) == {"rt-learns"}
    assert after(task(LEARNING), "stack web", late=True) == {"rt-learns", "web"}
    assert after(task(ENFORCING, nnp=True), "exec rt") == {"rt"}
    assert after(task(ENFORCING, nnp=True), "stack unconfined") == {"rt", "unconfined"}


def test_rules_of_names() -> None:
    assert after(task(LEARNING), "exec nope") == {"rt-learns//null-nope"}
    assert after(task(PLAIN), "exec uncon") == {"unconfined"}
    assert after(task(ENFORCING), "exec &web\n") == {"rt", "web"}
    with pytest.raises(No, match="EINVAL"):
        task(PLAIN).write("web")
    with pytest.raises(No, match="ENOENT"):  # before the missing rule, and before no_new_privs
        task(ENFORCING, nnp=True, rules={}).write("exec nope")
    with pytest.raises(No, match="EACCES"):  # before no_new_privs
        task(ENFORCING, nnp=True, rules={}).write("exec web")


def test_rules_of_rules() -> None:
    for rule, good, bad in (("web", "exec web", "stack web"), ("&web", "stack web", "exec web")):
        assert "web" in after(task(ENFORCING, rules={"rt": {rule}}), good)
        with pytest.raises(No, match="EACCES"):
            task(ENFORCING, rules={"rt": {rule}}).write(bad)
    with pytest.raises(No, match="EACCES"):
        task(TWO, rules={"rt": {"**"}}).write("stack web")


def test_rules_of_the_pending() -> None:
    failed = task(ENFORCING, rules={"rt": {"web"}})
    failed.write("exec web")
    with pytest.raises(No):
        failed.write("stack web")
    assert failed.read_back() == "web (enforce)\n"
    assert after(task(PLAIN), "stack rt", "exec web") == {"web"}


def test_rules_of_restricted_and_hidden() -> None:
    assert after(task(PLAIN, restricted=True, privileged=False), "exec web") == {"web", "unconfined"}
    assert after(task(PLAIN, restricted=True), "exec web") == {"web"}
    assert after(task(FREE, restricted=True, privileged=False), "exec web") == {"web"}
    assert after(task(PLAIN, nnp=True, outer=frozenset({"rt"})), "exec web") == {"rt", "web"}


@pytest.mark.parametrize("case", [case for case in CASES if case.action in ("exec", "stack")], ids=lambda case: f"{case.row} {case.name}")
def test_the_cases_hold_in_the_model(case: Case) -> None:
    host, request = situation(case)
    decided = decide(host, request)
    rules = {name: set() if name == "rt-no-rule" else {"**"} for name in case.own}
    made = Task(dict(case.own), case.inherited, rules, {**LOADED, "rt-no-rule": "enforce"})
    if case.errno:
        with pytest.raises(No, match=case.errno):
            made.write(f"{decided.action} {decided.profile}")
        return
    made.write(f"{decided.action} {decided.profile}")
    assert pending_ok(decided, made.read_back()) is not case.hidden
    if not case.hidden:
        made.nnp = made.nnp or case.config
        made.execve()
        assert set(made.label) == set(case.label)
