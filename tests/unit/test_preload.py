"""Which profiles of a file have to be loaded, what stands in the way, and which of the loaded ones are whose."""

import pytest

from rundlet.errors import Refused
from rundlet.life.loaded import Compiled, Loaded, split, within
from rundlet.life.preload import differing


def compiled(name: str, body: bytes = b"body") -> Compiled:
    return Compiled(name, b"\5\0\0\0", body, b"")


def loaded(one: Compiled, kinds: tuple[str, ...] = ("sha256",)) -> dict[str, Loaded]:
    return {one.name: Loaded(one.name, "enforce", {kind: one.hashes[kind] for kind in kinds}, "")}


WEB, OTHER = compiled("web"), compiled("web", b"other")


def test_what_is_not_there_is_loaded() -> None:
    assert [one.name for one in differing("f", [WEB, compiled("db")], {}, False)] == ["web", "db"]
    assert [one.name for one in differing("f", [WEB, compiled("db")], loaded(WEB), False)] == ["db"]


@pytest.mark.parametrize("kinds", [("sha1",), ("sha256",), ("sha1", "sha256")])
def test_the_same_content_is_left_alone(kinds: tuple[str, ...]) -> None:
    assert differing("f", [WEB], loaded(WEB, kinds), False) == []
    assert differing("f", [WEB], loaded(WEB, kinds), True) == []


def test_another_content_is_refused_or_replaced() -> None:
    with pytest.raises(Refused, match='the apparmor profile "web" of f is loaded with another content; .*: --replace'):
        differing("f", [WEB], loaded(OTHER), False, "--replace")
    assert differing("f", [WEB], loaded(OTHER), True) == [WEB]


def test_a_kernel_without_hashes_cannot_tell() -> None:
    assert loaded(WEB, ())["web"].same(WEB.hashes) is None
    with pytest.raises(Refused, match="the kernel does not tell with which content"):
        differing("f", [WEB], loaded(WEB, ()), False)


def test_the_hash_is_of_version_and_body() -> None:
    assert compiled("a").hashes == compiled("b").hashes  # the name is in the body that the parser writes
    assert Compiled("web", b"\7\0\0\0", b"body", b"").hashes != WEB.hashes


@pytest.mark.parametrize(("name", "profile", "is_"), [("p", "p", True), ("p//kid", "p", True), ("p2", "p", False), ("p", "p//kid", False), (":n:p", "p", False)])
def test_children_belong_to_their_parent(name: str, profile: str, is_: bool) -> None:
    assert within(name, profile) is is_


def test_what_is_no_policy_holds_no_profiles() -> None:
    assert split(b"") == split(b"\4\x08\0version\0\2\5\0\0\0") == []
