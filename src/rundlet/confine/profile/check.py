"""rundlet profile check: whether a profile will do for a container of this runtime on this host."""

import re
from typing import Any

from rundlet import host
from rundlet.confine.explain import assumed
from rundlet.confine.profile import peers
from rundlet.confine.profile.rule import PeerRule, peer_rules, variables
from rundlet.confine.profile.source import Source, find, loaded
from rundlet.errors import Refused, Usage
from rundlet.life.loaded import Loaded, Malformed
from rundlet.options import Options
from rundlet.plan.apparmor import decide
from rundlet.plan.label import components, joined, parse

GOOD, BAD, UNKNOWN, NOTE = "good", "bad", "unknown", "note"


def main(options: Options, words: list[str]) -> tuple[dict[str, Any], list[Any], bool | None]:
    """The action: true when nothing is in the way, false when something is, None when something that counts cannot be known here."""
    if not words:
        raise Usage("profile check needs files or names of profiles")
    there = None if options.assume else loaded()
    facts = assumed(options.assume) if options.assume else host.facts(everything=True)
    if options.runtime_label:
        facts = labelled(facts, options.runtime_label, there)
    documents, lines, verdicts = [], [], []
    for word in words:
        try:
            source = find(word, there)
        except Refused as refused:
            findings = [(BAD if isinstance(refused, Malformed) else UNKNOWN, "parses", str(refused))]
            documents.append({"source": word, "profiles": [], "findings": _plain(findings)})
            lines += [word, findings]
            verdicts += [one[0] for one in findings]
            continue
        document: dict[str, Any] = {"source": word, "profiles": [], "findings": []}
        if source.flat:
            document["findings"] = _plain(about := of_text(source))
            lines += [word, about]
            verdicts += [one[0] for one in about]
        for name in source.names:
            findings = of_profile(source, name, facts, there)
            document["profiles"].append({"name": name, "findings": _plain(findings)})
            lines += [f"profile {name}", findings]
            verdicts += [one[0] for one in findings]
        documents.append(document)
    verdict = False if BAD in verdicts else None if UNKNOWN in verdicts else True
    return {"runtimeLabel": facts["apparmor"]["label"], "sources": documents}, lines, verdict


def _plain(findings: list[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [{"verdict": verdict, "about": about, "text": text} for verdict, about, text in findings]


def labelled(facts: Any, label: str, there: dict[str, Loaded] | None) -> Any:
    """The facts of a runtime of another label; the modes of its profiles are those that are loaded, else enforcing."""
    text, mode = parse(label)
    names = components(text)
    there = there or {}
    modes = {name: there[name].mode if name in there else mode or "enforce" for name in names} | {"unconfined": "unconfined"}
    own = [{"name": name, "mode": modes[name]} for name in names]
    other = {"state": "on", "label": text, "mode": mode, "components": own, "stack": True, "lacking": None}
    return {**facts, "apparmor": {**facts["apparmor"], **other}}


def of_text(source: Source) -> list[tuple[str, str, str]]:
    """Of a file as a whole."""
    abi = re.search(r"^\s*abi\s+([<\"][^>\"]+[>\"])\s*,", source.text, re.MULTILINE)
    names = ", ".join(source.names)
    without = "none is named: rules that the parser's default does not know are left out; name one: abi <abi/3.0>,"
    return [(GOOD, "parses", f"profiles: {names}"), (GOOD, "abi", abi[1]) if abi else (NOTE, "abi", without)]


def of_profile(source: Source, name: str, facts: Any, there: dict[str, Loaded] | None) -> list[tuple[str, str, str]]:
    """Of one profile."""
    found = [_loaded(source, name, there, facts["apparmor"]["loaded"])]
    if "//" in name:
        return found
    block = source.blocks().get(name)
    label = facts["apparmor"]["label"] or "unconfined"
    known: Any = {**facts, "apparmor": {**facts["apparmor"], "loaded": [*(facts["apparmor"]["loaded"] or ()), name]}}
    stacks = False
    for nnp, when in ((False, "without no_new_privs"), (True, "with no_new_privs")):
        try:
            transition = decide(known, {"profile": name, "nnp": nnp})
        except Refused as refused:
            off = facts["apparmor"]["state"] != "on"
            found.append((UNKNOWN if off else BAD, when, f"refused: {refused}"))
            continue
        stacks |= transition.action == "stack"
        verb = {"exec": "changed to", "stack": "stacked as", "keep": "kept as"}[transition.action]
        found.append((GOOD, when, f"{verb} {joined(transition.expected)}: {transition.reason}"))
    if block is None or source.flat is None:
        return [*found, (NOTE, "rules", "the kernel does not tell the rules of a loaded profile; check its file for those")]
    if "complain" in block.flags:
        found.append((NOTE, "mode", "complain: what it forbids is only logged"))
    if not {"attach_disconnected", "unconfined"} & set(block.flags):
        found.append((NOTE, "flags", "without attach_disconnected, files from outside of its mounts have no path, and are denied"))
    found += _peers(source, name, label, stacks)
    for note in peers.receiving(source.flat, label):
        if f'"{name}"' in note:
            found.append((BAD, "runtime", note))
    return found


def _loaded(source: Source, name: str, there: dict[str, Loaded] | None, told: list[str] | None) -> tuple[str, str, str]:
    if there is None and told is not None:  # of another host, by its facts
        return NOTE, "loaded", "yes, and the facts do not tell with which content" if name in told else "no"
    if there is None:
        return UNKNOWN, "loaded", "cannot be known here: AppArmor is not on, or its policy is not shown"
    if name not in there:
        return NOTE, "loaded", "no"
    mode = there[name].mode
    if source.loaded:
        return (GOOD if mode == "enforce" else NOTE), "loaded", f"yes, {mode}"
    compiled = next(one for one in source.compiled if one.name == name)
    same = there[name].same(compiled.hashes)
    texts = {True: "with this content", False: "with another content than the file's", None: "and the kernel does not tell with which"}
    return {True: GOOD, False: BAD, None: UNKNOWN}[same], "loaded", f"yes, {mode}, {texts[same]}"


def _peers(source: Source, name: str, label: str, stacks: bool) -> list[tuple[str, str, str]]:
    """The rules that a stacked label passes by."""
    assert source.flat
    runtime = label if stacks else "RUNTIME"
    try:
        missed = [one for one in peers.additions(source.flat, runtime) if one.profile == name and not one.rule.deny]
    except Refused as refused:
        return [(UNKNOWN, "peers", str(refused))]
    own = peer_rules(source.blocks()[name], variables(source.flat))
    if not missed:
        return [(GOOD, "peers", "all rules for peers hold when stacked" if own else "there are no rules for peers")]
    rules = "; ".join(dict.fromkeys(one.rule.text + "," for one in missed))
    whole = missed[0].label
    if stacks and all(by_parts(own, one) for one in missed):
        return [(NOTE, "peers", f'about the stacked label "{whole}" by its parts, which Linux 6.1 does not look at: {rules}')]
    if stacks:
        return [(BAD, "peers", f'not about the stacked label "{whole}": {rules} see rundlet profile derive')]
    why = "if it has to be stacked, these are not about its own processes any more"
    return [(NOTE, "peers", f"{why}: {rules} see rundlet profile derive")]


def by_parts(own: list[PeerRule], missed: peers.Addition) -> bool:
    """Whether what the rule permits is permitted to each profile of the stacked label: newer kernels take that for the stack."""
    signals = missed.rule.signals or frozenset({""})
    return all(
        peers.permits(own, missed.rule.kind, access, part, signal)
        for access in missed.rule.access for signal in signals for part in components(missed.label)
    )
