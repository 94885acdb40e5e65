"""The search for the layers that deny: against every way in which up to four layers can deny together."""

from collections.abc import Callable, Iterator
from itertools import chain, combinations

import pytest

from rundlet.confine.denials import Denial
from rundlet.confine.matrix.attribute import search, text
from rundlet.confine.matrix.build import answer, with_log
from rundlet.confine.matrix.record import Mark, Said, sorted_out
from rundlet.confine.matrix.settings import LAYERS

Set = frozenset[str]


def subsets(names: tuple[str, ...]) -> list[Set]:
    return [frozenset(some) for some in chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))]


def worlds(names: tuple[str, ...]) -> Iterator[frozenset[Set]]:
    """Every monotone world where it is denied at first: the sets of layers that, taken away, make it allowed; more of them never harm."""
    every = subsets(names)
    for code in range(1 << len(every)):
        allowing = frozenset(some for n, some in enumerate(every) if code >> n & 1)
        if frozenset() not in allowing and all(more in allowing for some in allowing for more in every if more > some):
            yield allowing


def asked(names: tuple[str, ...], would: Callable[[Set], bool | None]) -> tuple[tuple[tuple[str, ...], ...], list[Set]]:
    """The answer, and what was asked for it."""
    questions: list[Set] = []

    def ask(layers: Set) -> bool | None:
        questions.append(layers)
        return would(layers)

    return answer(search(names), ask), questions


@pytest.mark.parametrize("count", range(5))
def test_every_world(count: int) -> None:
    names = LAYERS[:count]
    number = 0
    for allowing in worlds(names):
        number += 1
        found, questions = asked(names, allowing.__contains__)
        assert len(questions) == len(set(questions)) <= max(2 * count, 1) + 1
        assert frozenset() not in questions
        alone = tuple((name,) for name in names if frozenset([name]) in allowing)
        if alone:
            assert found == alone
        elif not allowing:
            assert found == ()
        else:
            (together,) = found
            needed = frozenset(together)
            assert needed in allowing
            assert not [some for some in subsets(together) if some < needed and some in allowing], "each of them is necessary"
            assert list(together) == [name for name in names if name in needed]
    assert number == (1, 2, 5, 19, 167)[count]  # Dedekind's numbers, without the function that is always true


@pytest.mark.parametrize("count", range(4))
def test_an_experiment_that_cannot_be_made_proves_nothing(count: int) -> None:
    names = LAYERS[:count]
    for allowing in worlds(names):
        for lost in subsets(names):
            found, _ = asked(names, lambda some, lost=lost, allowing=allowing: None if some == lost else some in allowing)  # type: ignore[misc]
            for together in found:
                assert frozenset(together) in allowing
                assert frozenset(together) != lost


def test_in_words() -> None:
    assert text(()) == "unknown"
    assert text([["seccomp"]]) == "seccomp"
    assert text([["capability"], ["dac"]]) == "capability or dac"
    assert text([["capability", "seccomp"]]) == "capability and seccomp"


# ── and the kernel's log ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("layers", "named", "found", "also"),
    [
        ((("apparmor",), ("nnp",)), {"apparmor"}, (("apparmor",),), "without nnp it would be allowed too"),
        ((("apparmor",), ("seccomp",), ("dac",)), {"apparmor", "seccomp"}, (("apparmor",), ("seccomp",)), "without dac it would be allowed too"),
        ((("apparmor",), ("nnp",)), {"seccomp"}, (("apparmor",), ("nnp",)), ""),
        ((("apparmor",),), {"apparmor"}, (("apparmor",),), ""),
        ((("apparmor", "mount"),), {"apparmor"}, (("apparmor", "mount"),), ""),
        ((("capability",),), {"apparmor"}, (("capability",),), ""),
        ((), {"apparmor"}, (("apparmor",),), "the log names it; it is not allowed with every layer taken away either"),
    ],
)  # fmt: skip
def test_with_the_log(layers: tuple[tuple[str, ...], ...], named: set[str], found: tuple[tuple[str, ...], ...], also: str) -> None:
    assert with_log(layers, frozenset(named)) == (found, also)


def denial(comm: str, when: float, label: str = "web", layer: str = "apparmor") -> Denial:
    return Denial(when, layer, "denied", 9, comm, label, "signal", "TERM", None, None, f"what {comm} did at {when:g}", None, (), "")


def test_whose_a_record_is() -> None:
    marks = {"a": Mark("run1-0", 100, 101), "b": Mark("run1-1", 101, 102), "own": Mark("", 102, 103)}
    found = [
        denial("run1-0", 100.5), denial("run1-0", 102.5),  # late, but its own
        denial("run2-0", 100.5), denial("runc", 101.5), denial("ping", 102.5), denial("ping", 102.5), denial("ping", 102.5, "other"),
        denial("ping", 104), denial("ping", 102.6, "", "seccomp"),
    ]  # fmt: skip
    said = sorted_out(found, marks, "rt//&web (enforce)")
    assert set(said) == {"a", "own"}
    assert said["a"] == Said(
        frozenset(["apparmor"]), ("apparmor, web: what the probe did at 100.5", "apparmor, web: what the probe did at 102.5"),
    )
    assert said["own"].layers == {"apparmor", "seccomp"}
    assert said["own"].words == ("apparmor, web: what ping did at 102.5", "seccomp, no label: what ping did at 102.6"), "once each"
    assert sorted_out(found, marks, None).keys() == {"a"}
