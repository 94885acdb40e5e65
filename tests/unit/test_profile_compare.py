"""What one profile permits that another does not: what is certain is said, and what is not is not."""

import pytest

from rundlet.confine.profile.compare import Difference, compare, permissions
from rundlet.confine.profile.language import parse


def differ(a: str, b: str, flags_a: str = "", flags_b: str = "") -> Difference:
    sides = []
    for rules, flags in ((a, flags_a), (b, flags_b)):
        whole = parse(f"@{{X}} = one two\nprofile p {f'flags=({flags})' if flags else ''} {{ {rules} }}")
        sides.append((whole.profiles()[0], whole))
    return compare("p", sides[0], sides[1])


@pytest.mark.parametrize(
    ("a", "b", "more"),
    [
        ("file,", "file,", "same"),
        ("/a rw, capability chown kill,", "capability kill, capability chown, /a wr,", "same"),
        ("/@{X}/ r,", "/one/ r, /two/ r,", "same"),
        ("audit /a r,", "/a r,", "same"),
        ("/a r, /b r,", "/a r,", "a"),
        ("/a r,", "/a rw,", "b"),
        ("/a w,", "/a a,", "a"),
        ("/a r,", "owner /a r,", "a"),
        ("file,", "/a r, /b rw,", "a"),
        ("/a r,", "/a r, deny /b w,", "a"),
        ("deny /b w, /a r,", "deny /b wl, /a r,", "a"),
        ("capability,", "capability chown,", "a"),
        ("signal,", "signal (send) set=(term) peer=x,", "a"),
        ("signal (send) peer=x,", "signal (send, receive) peer=x,", "b"),
        ("network,", "network inet stream,", "a"),
        ("network inet,", "network inet stream,", "a"),
        ("change_profile,", "change_profile -> x,", "a"),
        ("change_profile -> **,", "change_profile,", "same"),
        ("mount,", "mount options=(ro) /a -> /b,", "a"),
        ("/a px,", "/a ix,", ""),
        ("/a/* r,", "/a/** r,", ""),
        ("/a r,", "/b r,", ""),
        ("/a r, deny /x r,", "/b r,", ""),
        ("if $x { /a r, }", "file,", ""),
        ("ptrace (read) peer=x,", "ptrace (trace) peer=x,", ""),
        ("/a px -> one,", "/a px -> two,", ""),
    ],
)
def test_which_permits_more(a: str, b: str, more: str) -> None:
    assert differ(a, b).more == more
    assert differ(b, a).more == {"a": "b", "b": "a"}.get(more, more)
    assert (differ(a, b).why == "") is (more != "")


def test_what_is_only_in_one_is_listed() -> None:
    found = differ("/a r, /b rw, capability kill,", "/a r, /b r, deny mount,")
    assert (found.only_a, found.only_b) == (("/b rw", "capability kill"), ("deny mount",))


def test_modes_and_flags() -> None:
    assert differ("/a r,", "file,", "complain").more == "a"
    assert differ("file,", "", flags_b="unconfined").more == "b"
    assert differ("file,", "file,", "attach_disconnected").why == "their flags differ, which changes what rules apply to"
    assert differ("file,", "file,", "attach_disconnected,complain", "complain,attach_disconnected").more == "same"


def test_a_profile_that_is_not_there() -> None:
    whole = parse("profile p { /a r, }")
    found = compare("p", (whole.profiles()[0], whole), None)
    assert (found.only_a, found.more, found.why) == (("/a r",), "", "there is no such profile in B")


@pytest.mark.parametrize(
    ("text", "count"), [("/a rwix", 4), ("rw /a", 3), ("file rw /a", 3), ("signal (send, receive) set=(term kill) peer=x", 4), ("link /a -> /b", 1)]
)
def test_a_rule_is_taken_apart(text: str, count: int) -> None:
    assert len(permissions(text)) == count
