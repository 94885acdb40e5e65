"""What the options of a mount mean, and what maps of ids may be written as: without a kernel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rundlet.errors import BadSpec, Refused
from rundlet.kernel import MOUNT_ATTR, MOUNT_ATTR__ATIME, MS_SHARED, MS_SLAVE
from rundlet.plan.mounts import copyup, hot, idmap
from rundlet.plan.mounts.options import ATTRIBUTES, DEEP, NOTHING, OWN, PROPAGATION, SUPERBLOCK, Options
from rundlet.plan.mounts.options import words as known
from rundlet.plan.step import Call, Step
from tests.unit.test_plan import config, create

WORDS = st.lists(st.sampled_from([*ATTRIBUTES, *DEEP]), max_size=8)


def test_the_opposite_of_each_word_is_its_opposite() -> None:
    for word, other in (
        ("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"), ("nodiratime", "diratime"), ("nosymfollow", "symfollow"),
    ):
        bit = MOUNT_ATTR[word]
        assert (Options([word]).set, Options([word]).clear) == (bit, 0)
        assert (Options([other]).set, Options([other]).clear) == (0, bit)
        assert (Options(["r" + word]).deep_set, Options(["r" + other]).deep_clear) == (bit, bit)


def test_the_access_time_is_one_field() -> None:
    """mount_setattr(2): to set one of its values the whole field has to be cleared."""
    for word, value in (("noatime", MOUNT_ATTR["noatime"]), ("strictatime", MOUNT_ATTR["strictatime"]), ("relatime", 0)):
        for words in ([word], ["noatime", word], ["strictatime", word]):
            options = Options(words)
            assert (options.set & MOUNT_ATTR__ATIME, options.clear & MOUNT_ATTR__ATIME) == (value, MOUNT_ATTR__ATIME)


@given(WORDS)
def test_no_bit_is_set_and_cleared_but_of_the_access_time(words: list[str]) -> None:
    options = Options(words)
    assert options.set & options.clear & ~MOUNT_ATTR__ATIME == 0
    assert options.deep_set & options.deep_clear & ~MOUNT_ATTR__ATIME == 0


@given(WORDS, st.sampled_from([*ATTRIBUTES]))
def test_the_last_word_holds(words: list[str], last: str) -> None:
    on, off = ATTRIBUTES[last]
    options = Options([*words, last])
    assert options.set & on == on
    assert options.clear & off == off


def test_words_are_known_once() -> None:
    tables = (ATTRIBUTES, DEEP, PROPAGATION, SUPERBLOCK, OWN, dict.fromkeys(NOTHING))
    assert len(known()) == sum(len([*table]) for table in tables)
    assert known() == sorted({word for table in tables for word in table})


def test_propagation() -> None:
    assert (Options(["rshared"]).propagation, Options(["rshared"]).deep) == (MS_SHARED, True)
    assert (Options(["rshared", "slave"]).propagation, Options(["rshared", "slave"]).deep) == (MS_SLAVE, False)


def test_what_is_left_goes_to_the_filesystem() -> None:
    options = Options(["size=64k", "sync", "acl", "async", "dirsync", "context=a:b=c", "", "ro"])
    assert options.data == (("dirsync", None), ("size", "64k"), ("acl", None), ("context", "a:b=c"))


# ── maps of ids ──

MAPS = [{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 100, "hostID": 5000, "size": 10}]


def triple(text: str) -> tuple[int, int, int]:
    found = idmap._triple(text, MAPS, "/x")  # type: ignore[arg-type]
    return found["containerID"], found["hostID"], found["size"]


@given(st.integers(0, 1 << 31), st.integers(0, 1 << 31), st.integers(1, 1 << 31))
def test_a_triple(inside: int, outside: int, size: int) -> None:
    assert triple(f"{inside}-{outside}-{size}") == (inside, outside, size)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 20))
def test_a_relative_triple(inside: int, outside: int, size: int) -> None:
    """The second number is looked up in the container's map, and all of the range has to be in one line of it."""
    line = next((m for m in MAPS if m["containerID"] <= outside and outside + size <= m["containerID"] + m["size"]), None)
    if line:
        assert triple(f"@{inside}-{outside}-{size}") == (inside, outside - line["containerID"] + line["hostID"], size)
    else:
        with pytest.raises(BadSpec):
            triple(f"@{inside}-{outside}-{size}")


@pytest.mark.parametrize("text", ["", "@", "1", "1-2", "1-2-3-4", "1-2-", "a-b-c", "-1-2-3", "1-2-0", "1 -2-3", "²-1-1", "@@0-0-1", "99999999999-1-1"])
def test_what_is_no_triple(text: str) -> None:
    with pytest.raises(BadSpec):
        idmap._triple(text, MAPS, "/x")  # type: ignore[arg-type]


def test_mapping_takes_the_privileges_of_the_host() -> None:
    conf = config(
        mounts=[{"destination": "/a", "source": "/srv", "options": ["bind", "idmap=uids=0-1-1;gids=0-1-1"]}],
        linux__namespaces=[{"type": kind} for kind in ("user", "pid", "mount", "uts")],
        linux__uidMappings=[{"containerID": 0, "hostID": 1000, "size": 1}], linux__gidMappings=[{"containerID": 0, "hostID": 1000, "size": 1}],
    )
    assert create(conf).users[0].uids == "0 1 1\n"
    with pytest.raises(Refused, match="/mounts/0: mapping the ids of /srv takes CAP_SYS_ADMIN"):
        create(conf, privileged=False)


# ── stages ──


@given(st.lists(st.sampled_from(["fill", "mount"])))
def test_a_stage_ends_where_something_is_filled(kinds: list[str]) -> None:
    steps = [Step(str(n), Call("getpid"), kind=kind) for n, kind in enumerate(kinds)]
    parts = copyup.parts(steps)
    assert [step for part in parts for step in part] == steps
    assert all(part for part in parts)
    assert all(step.kind != "fill" for part in parts for step in part[:-1])
    assert sum(part[-1].kind == "fill" for part in parts) == kinds.count("fill")


@pytest.mark.parametrize(("places", "path", "left"), [
    ("a b a/c", "a", "b"),
    ("a/b a a/c", "a", "a/b"),  # what it had covered is seen again
    ("a a/b a a/c", "a", "a a/b"),
    ("a ab a/b", "a/b", "a ab"),
    ("a a/b/c a/bc", "a/b", "a a/bc"),  # one that a recursive bind of `a` has brought along
    ("a/b a", "a/b", "a/b a"),  # likewise; the one at its place is covered
    ("a remount:a b", "a", "b"),
    ("a", "c", "a"),
])
def test_what_is_left_when_a_mount_goes(places: str, path: str, left: str) -> None:
    asked = [(f"/{word.rpartition(':')[2]}", {"options": word.split(":")[:-1]}) for word in places.split()]
    assert [at for at, _ in hot.without(asked, f"/{path}")] == [f"/{word}" for word in left.split()]
