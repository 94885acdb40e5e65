"""A rule as what it permits: its qualifiers, its kind, and each access apart; and the patterns that rules have for names. No I/O.

Source: apparmor.d(5), and convert_aaregex_to_pcre() in parser_regex.c for what a pattern matches.
"""

import re
from dataclasses import dataclass
from functools import cache

from rundlet.confine.profile.language import WORD, Block, unquoted

QUALIFIERS = {"audit", "quiet", "allow", "deny", "owner", "other"}
ACCESSES = {  # what a rule of the kind permits that names no access
    "signal": ("receive", "send"),
    "ptrace": ("read", "readby", "trace", "tracedby"),
    "unix": ("accept", "bind", "connect", "create", "getattr", "getopt", "listen", "receive", "send", "setattr", "setopt", "shutdown"),
}
SYNONYMS = {"r": ("receive",), "w": ("send",), "rw": ("receive", "send"), "read": ("receive",), "write": ("send",)}  # of signal and unix
VALUE = r'(?:"(?:\\.|[^"\\])*"|(?:\\.|\{[^}\s]*\}|[^\s"\\,(){}]|,(?=\S))+)'
PEER = re.compile(rf"peer\s*=\s*(?P<value>{VALUE})")
LABEL = re.compile(rf"peer\s*=\s*\([^)]*?label\s*=\s*(?P<value>{VALUE})")
EVERY = "every"  # stands where a rule leaves a condition out


@dataclass(frozen=True)
class PeerRule:
    """A rule of signal, ptrace or unix. `peers` are patterns, none where any peer will do; `where` is the pattern's place in `text`."""

    text: str
    kind: str
    deny: bool
    access: frozenset[str]
    signals: frozenset[str]
    peers: tuple[str, ...]
    where: tuple[int, int]

    def for_peer(self, written: str) -> str:
        """The same rule for another peer, which is written as a rule has it."""
        return self.text[: self.where[0]] + written + self.text[self.where[1] :]

    def knows(self, label: str) -> bool:
        """Whether the rule is about a peer of this label."""
        return not self.peers or any(matches(peer, label) for peer in self.peers)


def qualified(text: str) -> tuple[frozenset[str], str]:
    """The qualifiers of a rule, and the rest of it."""
    rest, found = text.strip(), set()
    while rest:
        word, _, behind = rest.partition(" ")
        if word not in QUALIFIERS and not word.startswith("priority="):
            break
        found.add(word)
        rest = behind.lstrip()
    return frozenset(found), rest


def variables(whole: Block) -> dict[str, list[str]]:
    """The variables that a text sets, each with its values; those in values are left as they stand."""
    found: dict[str, list[str]] = {}
    for statement in whole.statements:
        if set_ := re.match(r"@\{(\w+)\}\s*(\+?=)\s*(.*)", statement.text, re.DOTALL):
            values = [unquoted(word) for word in WORD.findall(set_[3])]
            found[set_[1]] = found.get(set_[1], []) + values if set_[2] == "+=" else values
    return found


def expanded(pattern: str, known: dict[str, list[str]]) -> list[str]:
    """A pattern with its variables set; one of several values makes several patterns. A variable that is not known matches nothing."""
    found = re.search(r"@\{(\w+)\}", pattern)
    if not found:
        return [pattern]
    rest = expanded(pattern[found.end() :], known)
    inner = {name: values for name, values in known.items() if name != found[1]}
    values = [value for one in known.get(found[1], []) for value in expanded(one, inner)]
    return [pattern[: found.start()] + value + behind for value in values for behind in rest]


def peer_rule(text: str, known: dict[str, list[str]]) -> PeerRule | None:
    """The rule, where it is one of signal, ptrace or unix; `known` are the variables, `profile_name` among them."""
    text = " ".join(text.split()) if '"' not in text else text.strip()
    qualifiers, rest = qualified(text)
    kind = re.match(r"\w+", rest)
    if not kind or kind[0] not in ACCESSES:
        return None
    found = (LABEL if kind[0] == "unix" else PEER).search(text)
    peers = tuple(expanded(unquoted(found["value"]), known)) if found else ()
    if found and not peers:
        peers = ("{}",)  # of an unknown variable: no name is empty
    before = re.split(r"\b(?:peer|set|type|protocol|addr|label|attr|opt)\s*=", rest[kind.end() :])[0]
    words = [word for word in re.split(r"[\s,()]+", before) if word]
    access = {access for word in words for access in (SYNONYMS.get(word, (word,)) if kind[0] != "ptrace" else (_ptrace(word)))}
    sets = [word for one in re.findall(r"set\s*=\s*(\([^)]*\)|\S+)", rest) for word in re.split(r'[\s,()"]+', one) if word]
    return PeerRule(
        text, kind[0], "deny" in qualifiers, frozenset(access or ACCESSES[kind[0]]), frozenset(sets), peers,
        found.span("value") if found else (len(text), len(text)),
    )


def _ptrace(word: str) -> tuple[str, ...]:
    return {"r": ("read",), "w": ("trace",), "rw": ("read", "trace")}.get(word, (word,))


def peer_rules(block: Block, known: dict[str, list[str]]) -> list[PeerRule]:
    """Those of a profile that hold without condition, in its order."""
    names = known | {"profile_name": [re.sub(r'([\\*?\[\]{}^"])', r"\\\1", block.name)]}
    return [rule for statement in block.statements if (rule := peer_rule(statement.text, names))]


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    made, at, depth = "", 0, 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            made += re.escape(pattern[at])
        elif char == "*":
            double = pattern[at : at + 2] == "**"
            one = "[^\0]" if double else "[^/\0]"
            # behind a slash at least one character has to stand that is none
            made += f"[^/\0]{one}*" if pattern[at - 1 : at] == "/" and at + (2 if double else 1) == len(pattern) else f"{one}*"
            at += double
        elif char == "?":
            made += "[^/\0]"
        elif char == "[":
            end = pattern.find("]", at + 2)
            if end < 0:
                made += re.escape(char)
            else:
                inner = pattern[at + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
                made += f"[{inner}]"
                at = end
        elif char == "{":
            made, depth = made + "(?:", depth + 1
        elif char == "}" and depth:
            made, depth = made + ")", depth - 1
        elif char == "," and depth:
            made += "|"
        else:
            made += re.escape(char)
        at += 1
    return re.compile(made + ")" * depth, re.DOTALL)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern of policy matches a name or label as a whole; a star stops at slashes, so it does not pass the // of a stack."""
    return _regex(pattern).fullmatch(name) is not None
