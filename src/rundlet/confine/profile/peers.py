"""What stacking does to the rules of a profile for its own peers, and the profile that knows the stacked label as well. No I/O.

Under a stack L//&P a process is a peer by its whole label: a rule of P with peer=P is not about it any more. Rules for L and for P
together are, to newer kernels alone (docs/profiles.md has what was measured). So each rule that is about a profile of the text gets a
second one, the same but for the peer, which is that profile stacked on the runtime's label. Nothing else is added: whatever is done to a
peer under the stacked label had to be permitted for the same peer unstacked, and what is denied to the one is denied to the other.
"""

from dataclasses import dataclass

from rundlet.confine.profile.language import Block, parse
from rundlet.confine.profile.rule import PeerRule, peer_rule, peer_rules, variables
from rundlet.errors import Refused
from rundlet.plan.apparmor import Transition, rule
from rundlet.plan.label import components, joined, pattern

MARK = "# for peers stacked on {0}, as rundlet profile derive has them"


@dataclass(frozen=True)
class Addition:
    """A rule that a profile lacks for stacked peers: that of `rule`, for the peer `label`."""

    profile: str
    rule: PeerRule
    label: str

    @property
    def text(self) -> str:
        """As policy has it, without the comma."""
        return self.rule.for_peer(pattern(self.label))


@dataclass(frozen=True)
class Derived:
    """A profile that knows stacked peers: its text, what was added, and what is for its author to know."""

    text: str
    additions: tuple[Addition, ...]
    runtime: tuple[str, ...]  # rules that the runtime's profile needs
    notes: tuple[str, ...]


def stacked(profile: str, runtime: str) -> str:
    """The label of a container's process: the profile stacked on the runtime's label, in the order in which the kernel prints it.

    That is by bytes: Z before a, `a.b` before `a_b`. Raises Refused for labels with policy namespaces, which each observer sees otherwise.
    """
    names = {*components(runtime), profile}
    if any(name[:1] == ":" for name in names):
        why = f'a rule for "{runtime}" would depend on the policy namespace that it is seen from'
        raise Refused(why, "derive for labels without namespaces")
    return joined(names)


def additions(flat: Block, runtime: str) -> tuple[Addition, ...]:
    """The rules that the profiles of a preprocessed text lack for peers stacked on the label `runtime`."""
    profiles, known = flat.profiles(), variables(flat)
    found: list[Addition] = []
    for profile in profiles:
        own = peer_rules(profile, known)
        there = {(one.kind, one.deny, one.access, one.signals, one.text) for one in own}
        for one in own:
            for peer in profiles:
                label = stacked(peer.name, runtime)
                if not one.peers or not one.knows(peer.name) or one.knows(label):
                    continue
                more = Addition(profile.name, one, label)
                again = peer_rule(more.text, known)
                assert again
                if more not in found and (again.kind, again.deny, again.access, again.signals, again.text) not in there:
                    found.append(more)
    return tuple(found)


def derive(text: str, preprocessed: str, runtime: str) -> Derived:
    """The profiles of `text` with rules for their peers stacked on the label `runtime`; `preprocessed` is the text with what it includes.

    Raises Malformed, and Refused where there is no profile, or a label with a policy namespace.
    """
    flat, whole = parse(preprocessed), parse(text)
    if not flat.profiles():
        raise Refused("there is no profile in it", "name a file of AppArmor profiles")
    found = additions(flat, runtime)
    places = {block.name: block for block in whole.profiles()}
    made, notes = text, []
    wanted = {one.profile for one in found}
    for name in sorted(wanted, key=lambda name: places[name].end if name in places else -1, reverse=True):
        if name not in places:
            lines = ", ".join(one.text for one in found if one.profile == name)
            notes.append(f'the profile "{name}" comes from a file that is included: add to it there: {lines},')
            continue
        made = _insert(made, places[name], [one.text for one in found if one.profile == name], runtime)
    for block in flat.profiles():
        known = variables(flat)
        for statement in block.conditional():
            one = peer_rule(statement.text, known | {"profile_name": [block.name]})
            if one and one.peers:
                notes.append(f'the profile "{block.name}" has a rule under a condition, which is left as it is: {one.text},')
    return Derived(made, found, runtime_rules(flat, found, runtime), tuple(notes + receiving(flat, runtime)))


def _insert(text: str, block: Block, rules: list[str], runtime: str) -> str:
    start = text.rfind("\n", 0, block.end) + 1
    indent = text[start : block.end]
    if indent.strip():  # the brace does not stand on a line of its own
        return f"{text[: block.end]}{' '.join(one + ',' for one in rules)} {text[block.end :]}"
    lines = [MARK.format(pattern(runtime)), *(one + "," for one in rules)]
    return text[:start] + "".join(f"{indent}  {line}\n" for line in lines) + text[start:]


def runtime_rules(flat: Block, found: tuple[Addition, ...], runtime: str) -> tuple[str, ...]:
    """What each confining profile of the runtime's label has to permit as well, since all profiles of a stack have to agree."""
    made: list[str] = []
    for profile in flat.profiles():
        if "//" in profile.name:
            continue
        label = stacked(profile.name, runtime)
        made.append(rule(Transition("stack", profile.name, tuple(label.split("//&")), "", 6)))
        made.append(f"signal (send) peer={pattern(label)},")
        made.append(f"signal (receive) peer={pattern(runtime)},")
        made.append(f"ptrace (read, readby) peer={pattern(label)},")
    made += [one.text + "," for one in found if not one.rule.deny]
    return tuple(dict.fromkeys(made))


def receiving(flat: Block, runtime: str) -> list[str]:
    """What the profile does not let a runtime of this label do to it, one sentence each."""
    said = []
    for profile in flat.profiles():
        if "//" in profile.name or "unconfined" in profile.flags:
            continue
        rules = peer_rules(profile, variables(flat))
        if not permits(rules, "signal", "receive", runtime, "kill"):
            need = f"signal (receive) peer={pattern(runtime)},"
            said.append(f'the profile "{profile.name}" takes no signals from the runtime: it needs the rule: {need}')
        if runtime != "unconfined" and not permits(rules, "ptrace", "readby", runtime):
            said.append(
                f'the profile "{profile.name}" does not let the runtime look at it, as exec has to: '
                f"it needs the rule: ptrace (readby) peer={pattern(runtime)},"
            )
    return said


def permits(rules: list[PeerRule], kind: str, access: str, peer: str, signal: str = "") -> bool:
    """Whether rules permit something of a peer with this label: denials win, and what no rule is about is denied."""
    about = [one for one in rules if one.kind == kind and access in one.access and one.knows(peer)]
    about = [one for one in about if not one.signals or signal in one.signals]
    return any(not one.deny for one in about) and not any(one.deny for one in about)
