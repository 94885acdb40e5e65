"""What one profile permits that another does not, as far as texts tell with certainty. No I/O.

A rule is taken apart into single permissions, one for each access, signal, capability and letter, so that their order and spelling do not
count. One permission covers another where each of its conditions is the same or left out. Patterns are compared as texts: `/a/*` and
`/a/**` are two, of which nothing is said.
"""

import re
from dataclasses import dataclass

from rundlet.confine.profile.language import WORD, Block, unquoted
from rundlet.confine.profile.rule import ACCESSES, EVERY, expanded, peer_rule, qualified, variables

FREE = {"complain", "unconfined", "default_allow"}  # modes in which nothing is kept from anybody
EXEC = re.compile(r"[pPcCuU]?i?x|[pPcC][uU]?x")
PERMISSIONS = re.compile(r"[rwalkmxipPcCuUd]+")


@dataclass(frozen=True)
class Permission:
    """One thing that a rule permits or denies: its kind, and conditions in an order of the kind's."""

    deny: bool
    owner: bool
    kind: str
    conditions: tuple[str, ...]

    def covers(self, other: "Permission") -> bool:
        """Whether whatever `other` is about, this is about as well."""
        if (self.deny, self.kind) != (other.deny, other.kind) or (self.owner and not other.owner):
            return False
        return all(mine in (EVERY, theirs) for mine, theirs in zip(self.conditions, other.conditions, strict=True))


@dataclass(frozen=True)
class Rule:
    """A rule with its variables set, on one line, and the permissions in it."""

    text: str
    permissions: tuple[Permission, ...]


@dataclass(frozen=True)
class Difference:
    """Between two profiles of one name. `more` is "a", "b", "same" or "" where that is not certain; `why` then says what is in the way."""

    name: str
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    flags_a: tuple[str, ...]
    flags_b: tuple[str, ...]
    more: str
    why: str


def rules(profile: Block, whole: Block) -> list[Rule]:
    """The rules of a profile of the preprocessed text `whole`; abi is no rule, and conditions are left to `conditional()`."""
    known = variables(whole) | {"profile_name": [profile.name]}
    found = []
    for statement in profile.statements:
        text = " ".join(statement.text.split())
        if re.match(r"abi\s|#?include\s", text):
            continue
        for one in expanded(text, known) or [text]:
            found.append(Rule(one, permissions(one)))
    return found


def permissions(text: str) -> tuple[Permission, ...]:
    """What a rule permits or denies, apart."""
    qualifiers, rest = qualified(text)
    deny, owner = "deny" in qualifiers, "owner" in qualifiers
    words = WORD.findall(rest)
    kind = re.match(r"\w+", rest)

    def made(name: str, *conditions: str) -> Permission:
        return Permission(deny, owner, name, conditions)

    if kind and kind[0] in ACCESSES and (one := peer_rule(text, {})):
        others = re.sub(r"\s+", " ", re.sub(r"set\s*=\s*(\([^)]*\)|\S+)", "", _behind(rest)))
        others = "" if kind[0] != "unix" else others.strip()
        return tuple(
            made(kind[0], access, signal, peer, others or EVERY)
            for access in sorted(one.access) for signal in sorted(one.signals) or [EVERY] for peer in one.peers or [EVERY]
        )
    if kind and kind[0] == "capability":
        return tuple(made("capability", name) for name in re.split(r"[\s,]+", rest)[1:] or [EVERY])
    if words and (file := _file(words)):
        path, letters, target = file
        return tuple(made("file", path, letter, target) for letter in letters)
    if kind and kind[0] == "network":
        return (made("network", *[*words[1:], EVERY, EVERY][:2], " ".join(words[3:]) or EVERY),)
    if kind and kind[0] == "change_profile" and words[1:] in ([], ["->", "**"]):
        return (made("change_profile", EVERY),)
    return (made(words[0] if words else "", " ".join(words[1:]) or EVERY),)


def _behind(rest: str) -> str:
    found = re.search(r"\b(?:set|type|protocol|addr|attr|opt|peer)\s*=", rest)
    return rest[found.start() :] if found else ""


def _file(words: list[str]) -> tuple[str, list[str], str] | None:
    """The path of a rule for files, its permissions apart, and the profile that an execution changes to."""
    if words[0] == "file":
        words = words[1:]
        if not words:
            return EVERY, [EVERY], EVERY
    target = EVERY
    if "->" in words and words[0] != "link":
        target = " ".join(words[words.index("->") + 1 :])
        words = words[: words.index("->")]
    if len(words) != 2:
        return None
    path, letters = words if words[0][0] in '/"@{' else words[::-1]
    if path[0] not in '/"@{' or not PERMISSIONS.fullmatch(letters):
        return None
    executes = EXEC.findall(letters)
    plain = sorted(set(EXEC.sub("", letters)) | ({"a"} if "w" in letters else set()))
    return re.sub("/+", "/", unquoted(path)), [*plain, *executes], target  # the parser makes one slash of several, too


def compare(name: str, a: tuple[Block, Block] | None, b: tuple[Block, Block] | None) -> Difference:
    """Two profiles, each with the preprocessed text that it stands in; None where there is none of that name."""
    found = [rules(*one) if one else [] for one in (a, b)]
    flags = [tuple(sorted(one[0].flags)) if one else () for one in (a, b)]
    only_a, only_b = tuple(_only(found[0], found[1])), tuple(_only(found[1], found[0]))
    if not a or not b:
        return Difference(name, only_a, only_b, flags[0], flags[1], "", f"there is no such profile in {'A' if not a else 'B'}")
    free = [bool(FREE & set(one)) for one in flags]
    more, why = "", ""
    conditions = [sorted(" ".join(one.text.split()) for one in side[0].conditional()) for side in (a, b)]
    if free[0] != free[1]:
        more = "a" if free[0] else "b"
    elif conditions[0] != conditions[1]:
        why = "rules under conditions differ"
    elif {*flags[0]} != {*flags[1]}:
        why = "their flags differ, which changes what rules apply to"
    else:
        holds = _permits_all(found[0], found[1]), _permits_all(found[1], found[0])
        more = {(True, True): "same", (True, False): "a", (False, True): "b", (False, False): ""}[holds]
        why = "" if more else "each has something that the other has not, or patterns would have to be compared"
    return Difference(name, only_a, only_b, flags[0], flags[1], more, why)


def _only(mine: list[Rule], theirs: list[Rule]) -> list[str]:
    """The rules of one side of which something is not in the other."""
    there = [one for rule in theirs for one in rule.permissions]
    found = [rule.text for rule in mine if not all(any(one.covers(part) for one in there) for part in rule.permissions)]
    return list(dict.fromkeys(found))


def _permits_all(mine: list[Rule], theirs: list[Rule]) -> bool:
    """Whether what the others permit is permitted here for certain: all that they allow is allowed, and all denied here is denied there."""
    ours = [one for rule in mine for one in rule.permissions]
    others = [one for rule in theirs for one in rule.permissions]
    allowed = all(any(one.covers(part) for one in ours if not one.deny) for part in others if not part.deny)
    return allowed and all(any(one.covers(part) for one in others if one.deny) for part in ours if part.deny)
