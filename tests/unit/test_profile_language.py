"""Profiles as texts: where rules, blocks and names begin and end, and what patterns match."""

import pytest

from rundlet.confine.profile.language import Malformed, parse
from rundlet.confine.profile.rule import expanded, matches, peer_rule, variables

TEXT = """\
abi <abi/3.0>,
#include <tunables/global>
@{NAMES} = one "t wo"  # a comment, with a comma
@{NAMES} += three
profile web "/srv/{a,b}/we b" flags=(attach_disconnected, complain) xattrs=(user.x="y,z") { # not a { block
  include if exists <local/web>
  /a/{b,c}/** rw,  /d r,
  "/with a, comma and } brace" r,
  change_profile -> {x,y},
  signal (send, receive) set=(term, kill)
    peer={web,web//kid},
  /esc\\{aped\\, r,
  if defined $x { /only/if r, } else { /only/else r, }
  profile kid { file, }
  ^hat flags=(complain) { /x r, }
  hat "o dd" { }
}
/usr/bin/bare { file, }
"""


def test_a_text_is_taken_apart() -> None:
    whole = parse(TEXT)
    assert [block.name for block in whole.profiles()] == ["web", "web//kid", "web//hat", "web//o dd", "/usr/bin/bare"]
    web, _, hat, _, bare = whole.profiles()
    assert (web.attachment, web.flags) == ("/srv/{a,b}/we b", ("attach_disconnected", "complain"))
    assert [one.text for one in web.statements] == [
        "include if exists <local/web>", "/a/{b,c}/** rw", "/d r", '"/with a, comma and } brace" r', "change_profile -> {x,y}",
        "signal (send, receive) set=(term, kill)\n    peer={web,web//kid}", "/esc\\{aped\\, r",
    ]
    assert [one.text for one in web.conditional()] == ["/only/if r", "/only/else r"]
    assert hat.kind == "hat"
    assert (bare.attachment, bare.flags) == ("/usr/bin/bare", ())
    assert TEXT[web.end] == TEXT[bare.end] == "}"
    assert TEXT[web.start :].startswith("profile web")
    for statement in web.statements:
        assert TEXT[statement.start :].startswith(statement.text)
    assert variables(whole) == {"NAMES": ["one", "t wo", "three"]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("profile x { file,", "a { without a }"), ("}", "a } without a {"), ("profile x { file }", "a rule without a comma: file"),
        ('profile "x { file, }', "a quotation without an end"), ("file", "a rule without a comma: file"),
    ],
)
def test_what_is_malformed_is_said(text: str, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        parse(text)


@pytest.mark.parametrize(
    ("pattern", "name", "same"),
    [
        ("web", "web", True), ("web", "web2", False), ("w*", "web", True), ("*web", "rt//&web", False), ("**web", "rt//&web", True),
        ("rt//&*", "rt//&web", True), ("{web,db}", "db", True), ("{web,d{b,c}}", "dc", True), ("{web,db}", "web,db", False), ("we?", "web", True),
        ("we?", "we/", False), ("w[a-f]b", "web", True), ("w[^a-f]b", "web", False), ("w\\*b", "w*b", True), ("w\\*b", "web", False), ("/a/*", "/a/", False),
        ("/a/**", "/a/b/c", True), ("a+b", "a+b", True), ("a,b", "a,b", True), ("{,x}y", "y", True), ("w.b", "web", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, name: str, same: bool) -> None:
    assert matches(pattern, name) is same


def test_variables_make_alternatives() -> None:
    known = {"A": ["1", "2"], "B": ["@{A}x"], "LOOP": ["@{LOOP}"]}
    assert expanded("p@{B}q", known) == ["p1xq", "p2xq"]
    assert expanded("plain", known) == ["plain"]
    assert expanded("@{UNKNOWN}", known) == expanded("@{LOOP}", known) == []


@pytest.mark.parametrize(
    ("text", "kind", "access", "signals", "peers"),
    [
        ("signal", "signal", "receive send", "", ()),
        ("signal send peer=web", "signal", "send", "", ("web",)),
        ("audit deny signal (send, receive) set=(term kill) peer=@{profile_name}", "signal", "receive send", "kill term", ("me",)),
        ("signal (r) set=term", "signal", "receive", "term", ()),
        ("ptrace (trace,read) peer={a,b}", "ptrace", "read trace", "", ("{a,b}",)),
        ("ptrace peer=\"a b\"", "ptrace", "read readby trace tracedby", "", ("a b",)),
        ("unix (send) type=stream peer=(label=web addr=none)", "unix", "send", "", ("web",)),
        ("unix (create)", "unix", "create", "", ()),
        ("signal peer=@{nobody}", "signal", "receive send", "", ("{}",)),
    ],
)
def test_rules_for_peers(text: str, kind: str, access: str, signals: str, peers: tuple[str, ...]) -> None:
    rule = peer_rule(text, {"profile_name": ["me"]})
    assert rule
    assert (rule.kind, rule.access, rule.signals, rule.peers) == (kind, frozenset(access.split()), frozenset(signals.split()), peers)
    assert rule.deny == ("deny" in text)
    if peers:
        again = peer_rule(rule.for_peer('"another//&one"'), {})
        assert again
        assert again.peers == ("another//&one",)
        assert (again.kind, again.access, again.signals, again.deny) == (rule.kind, rule.access, rule.signals, rule.deny)


@pytest.mark.parametrize("text", ["/signal r", "capability kill", "signals", "dbus send peer=(label=x)", ""])
def test_other_rules_are_not_for_peers(text: str) -> None:
    assert peer_rule(text, {}) is None
