"""The profile that knows stacked peers: it permits what the original does, and to a stacked peer what the original permits to that peer alone."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.confine.profile.check import labelled
from rundlet.confine.profile.language import parse
from rundlet.confine.profile.peers import derive, permits, stacked
from rundlet.confine.profile.rule import ACCESSES, peer_rules, variables
from rundlet.errors import Refused

ENGINE = """\
profile engine-default flags=(attach_disconnected,mediate_deleted) {
  file,
  signal (receive) peer=unconfined,
  signal (send,receive) peer=engine-default,
  ptrace (trace,read,tracedby,readby) peer=engine-default,
  deny mount,
}
"""


def test_an_engines_profile() -> None:
    found = derive(ENGINE, ENGINE, "rt")
    assert found.text == ENGINE.replace("  deny mount,\n", """\
  deny mount,
  # for peers stacked on rt, as rundlet profile derive has them
  signal (send,receive) peer=engine-default//&rt,
  ptrace (trace,read,tracedby,readby) peer=engine-default//&rt,
""")
    assert found.runtime == (
        "change_profile -> &engine-default,", "signal (send) peer=engine-default//&rt,", "signal (receive) peer=rt,",
        "ptrace (read, readby) peer=engine-default//&rt,", "signal (send,receive) peer=engine-default//&rt,",
        "ptrace (trace,read,tracedby,readby) peer=engine-default//&rt,",
    )
    assert len(found.notes) == 2
    assert "signal (receive) peer=rt," in found.notes[0]
    assert "ptrace (readby) peer=rt," in found.notes[1]


def test_it_is_derived_once() -> None:
    once = derive(ENGINE, ENGINE, "rt").text
    assert derive(once, once, "rt").additions == ()
    twice = derive(once, once, "other").text
    assert twice.count("engine-default//&rt") == 2
    assert twice.count("engine-default//&other") == 2


def test_rules_of_what_is_included_count() -> None:
    text = "profile p {\n  include <abstractions/base>\n}\n"
    flat = "profile p {\n  signal peer=@{profile_name},\n}\n"
    assert derive(text, flat, "rt").text == (
        "profile p {\n  include <abstractions/base>\n  # for peers stacked on rt, as rundlet profile derive has them\n  signal peer=p//&rt,\n}\n"
    )


def test_a_profile_of_an_included_file_is_told_of() -> None:
    found = derive("include <more>\n", "profile p { signal peer=p, }\n", "rt")
    assert found.text == "include <more>\n"
    assert 'the profile "p" comes from a file that is included: add to it there: signal peer=p//&rt,' in found.notes


def test_a_rule_under_a_condition_is_told_of() -> None:
    text = "profile p {\n if $x { signal peer=p, }\n}\n"
    found = derive(text, text, "rt")
    assert found.additions == ()
    assert any("under a condition" in note for note in found.notes)


def test_children_are_peers_too() -> None:
    text = "profile p {\n  signal peer=p//kid,\n  profile kid {\n    signal peer=p,\n  }\n}\n"
    assert [(one.profile, one.text) for one in derive(text, text, "rt").additions] == [("p", "signal peer=p//kid//&rt"), ("p//kid", "signal peer=p//&rt")]
    made = parse(derive(text, text, "rt").text)
    assert [[one.text for one in block.statements] for block in made.profiles()] == [
        ["signal peer=p//kid", "signal peer=p//kid//&rt"], ["signal peer=p", "signal peer=p//&rt"],
    ]


@pytest.mark.parametrize(
    ("profile", "runtime", "label"),
    [
        ("web", "rt", "rt//&web"), ("app", "rt", "app//&rt"), ("Zz", "aa", "Zz//&aa"), ("a_b", "a.b", "a.b//&a_b"), ("p", "p//&q", "p//&q"),
        ("m", "a//&z", "a//&m//&z"), ("web", "unconfined", "unconfined//&web"),
    ],
)  # fmt: skip
def test_the_order_of_a_stack(profile: str, runtime: str, label: str) -> None:
    assert stacked(profile, runtime) == label


def test_another_runtimes_label() -> None:
    """A policy namespace is printed once for the profiles of it that follow."""
    about = labelled({"apparmor": {}}, ":box:a//&b (enforce)", None)["apparmor"]
    assert about["components"] == [{"name": ":box:a", "mode": "enforce"}, {"name": ":box:b", "mode": "enforce"}]


def test_namespaces_are_refused() -> None:
    with pytest.raises(Refused, match="policy namespace"):
        derive(ENGINE, ENGINE, ":box:rt")


# ── that it never permits more ───────────────────────────────────────────────────────────────────────────────────────────────

NAMES = ["p", "p//kid", "q", "rt", "unconfined", 'o"d{d}']
SIGNALS = ["term", "kill", "usr1"]
PATTERNS = [*NAMES[:5], "{p,q}", "p*", "p**", "**", "*", "?", "rt//&*", "**p", "@{profile_name}", "@{some}"]
word = st.text(string.ascii_lowercase, min_size=1, max_size=2)


@st.composite
def rules(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["signal", "ptrace", "unix"]))
    text = draw(st.sampled_from(["", "deny ", "audit ", "audit deny "])) + kind
    access = draw(st.lists(st.sampled_from(ACCESSES[kind]), unique=True))
    text += f" ({', '.join(access)})" if access else ""
    if kind == "signal" and (signals := draw(st.lists(st.sampled_from(SIGNALS), unique=True))):
        text += f" set=({' '.join(signals)})"
    if peer := draw(st.none() | st.sampled_from(PATTERNS)):
        text += f" peer=(label={peer})" if kind == "unix" else f" peer={peer}"
    return text + ","


@st.composite
def texts(draw: st.DrawFn) -> str:
    own, kid = draw(st.lists(rules(), max_size=5)), draw(st.lists(rules(), max_size=2))
    inner = draw(st.sampled_from(["", "  profile kid {\n    " + "\n    ".join(kid) + "\n  }\n"]))
    return "@{some} = p q\nprofile p {\n  file,\n" + "".join(f"  {one}\n" for one in own) + inner + "}\nprofile q { file, signal peer=p, }\n"


@given(texts(), st.sampled_from(["rt", "unconfined", "zz", "a//&zz"]))
def test_it_permits_no_more_than_the_original_to_the_peer_alone(text: str, runtime: str) -> None:
    found = derive(text, text, runtime)
    before, after = parse(text), parse(found.text)
    assert [block.name for block in before.profiles()] == [block.name for block in after.profiles()]
    alone = {stacked(block.name, runtime): block.name for block in before.profiles()}
    for old, new in zip(before.profiles(), after.profiles(), strict=True):
        # every rule of the original is there, in its order, and all others are additions
        assert [one.text for one in new.statements][: len(old.statements)] == [one.text for one in old.statements]
        assert [one.text for one in new.statements][len(old.statements) :] == [one.text for one in found.additions if one.profile == old.name]
        mine, theirs = (peer_rules(block, variables(whole)) for block, whole in ((old, before), (new, after)))
        for kind, accesses in ACCESSES.items():
            for access in accesses:
                for signal in SIGNALS if kind == "signal" else [""]:
                    for peer in NAMES:
                        assert permits(mine, kind, access, peer, signal) == permits(theirs, kind, access, peer, signal)
                    for label, name in alone.items():
                        both = [one for one in mine if one.kind == kind and access in one.access and (not one.signals or signal in one.signals)]
                        allowed = any(not one.deny for one in both if one.knows(name) or one.knows(label))
                        denied = any(one.deny for one in both if one.knows(name) or one.knows(label))
                        assert permits(theirs, kind, access, label, signal) == (allowed and not denied), (old.name, kind, access, label)
                        if not permits(mine, kind, access, name, signal) and not permits(mine, kind, access, label, signal):
                            assert not permits(theirs, kind, access, label, signal)
