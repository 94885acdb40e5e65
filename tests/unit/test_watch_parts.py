"""watch without containers: addresses, what is believed and told, when is looked, lines, metrics, and what a page is told."""

import asyncio
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rundlet.confine import verify
from rundlet.confine.verify.facts import FACTS
from rundlet.confine.watch import address, lines, page
from rundlet.confine.watch.address import Address
from rundlet.confine.watch.look import Other
from rundlet.confine.watch.metrics import Metrics
from rundlet.confine.watch.rounds import Rounds
from rundlet.confine.watch.table import Drift, Look, Table
from rundlet.confine.watch.watcher import AGAIN, Change, Denied, Watcher
from rundlet.errors import Usage
from rundlet.life.spec import template

HOLDS = Look("running", "holds", (("limit", "holds"), ("seccomp", "holds")), label=("web", "enforce"), seconds=0.01)
DRIFT = Drift("limit", "memory.max", "1", "2")
DIFFERS = Look("running", "differs", (("limit", "differs"), ("seccomp", "holds")), (DRIFT,), label=("web", "enforce"), seconds=0.02)
BLIND = Look("running", "unknown", (("limit", "unknown"),), why=("limit of container: permission denied",), seconds=0.02)
STOPPED = Look("stopped")


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, Address("127.0.0.1", 9617)), ("none", None), ("80", Address("127.0.0.1", 80)), (":80", Address("127.0.0.1", 80)),
        ("localhost:0", Address("127.0.0.1", 0)), ("0.0.0.0:9617", Address("0.0.0.0", 9617)), ("[::1]:80", Address("::1", 80)),
        ("[::]:80", Address("::", 80)), ("10.1.2.3:65535", Address("10.1.2.3", 65535)),
    ],
)  # fmt: skip
def test_where_to_listen(text: str | None, found: Address | None) -> None:
    assert address.parse(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "web.example:80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x", "::1:80", "[::1]", "[web]:80", "127.1:80", "1.2.3.4:８０", "none:80"],
)
def test_where_one_cannot_listen(text: str) -> None:
    with pytest.raises(Usage, match="^--listen: "):
        address.parse(text)


def test_a_port_that_is_none_is_named() -> None:
    with pytest.raises(Usage, match='^--listen: "65536" is no port from 0 to 65535; it is ADDR:PORT, PORT for one of the loopback, or none$'):
        address.parse("127.0.0.1:65536")


def test_what_only_this_machine_reaches() -> None:
    assert [Address(host, 1).loopback for host in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.1")] == [True, True, True, False, False, False]
    assert (str(Address("::1", 80)), str(Address("127.0.0.1", 80))) == ("[::1]:80", "127.0.0.1:80")


NAMES = frozenset({"localhost", "lab"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9617", "[::1]:80", "[::1]", "10.1.2.3:1", "localhost", "LocalHost:80", "lab", "lab.:80", " lab "])
def test_a_host_that_is_ours(host: str) -> None:
    assert address.host_allowed(host, NAMES)


@pytest.mark.parametrize("host", ["", ":80", "evil.example", "evil.example:80", "lab.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "0x7f000001", "localhost,evil"])
def test_a_host_that_is_somebody_elses(host: str) -> None:
    assert not address.host_allowed(host, NAMES)


@given(st.text(max_size=30))
def test_no_name_is_ours_by_chance(host: str) -> None:
    address.host_allowed(host, NAMES)
    assert not address.host_allowed(host + ".evil.example", NAMES)


# ── what is believed, and told ───────────────────────────────────────────────────────────────────────────────────────────────


class Told:
    """A watcher without events, and what it told."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.table = Table()
        self.watcher = Watcher(self.table, lambda _: None, list, self.changes.append, lambda look: None, 30)

    def found(self, *looks: Look | None, id: str = "web") -> list[str]:
        """What is told when these are found one after the other."""
        self.changes.clear()
        for look in looks:
            self.watcher.found(id, look)
        return [change.look.verdict if change.look and change.kind == "verdict" else change.kind for change in self.changes]


def run(job: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own."""
    asyncio.run(job)


def test_what_is_told() -> None:
    async def test() -> None:
        told = Told()
        assert told.found(Look("creating")) == ["status"]
        assert told.found(HOLDS) == ["status", "holds"]
        assert told.found(HOLDS, HOLDS) == []  # nothing is new
        assert told.found(DIFFERS) == []  # not believed yet
        assert told.table.rows["web"].look == HOLDS
        assert told.found(DIFFERS) == ["differs"]
        assert told.found(DIFFERS) == []
        assert told.found(HOLDS) == ["holds"]  # what is better is believed at once
        assert told.found(DIFFERS, HOLDS) == []  # it was in between
        assert told.found(BLIND, BLIND) == ["unknown"]
        assert told.found(STOPPED) == ["status"]
        assert told.found(None) == ["gone"]
        assert told.found(None) == []

    run(test())


def test_a_first_look_that_is_bad_is_taken_again() -> None:
    async def test() -> None:
        told = Told()
        assert told.found(DIFFERS) == []
        assert "web" not in told.table.rows
        assert told.watcher.rounds.due["web"] <= asyncio.get_running_loop().time() + AGAIN
        assert told.found(DIFFERS) == ["status", "differs"]

    run(test())


def test_other_differences_are_news() -> None:
    async def test() -> None:
        told = Told()
        told.found(DIFFERS, DIFFERS)
        more = Look("running", "differs", DIFFERS.checks, (DRIFT, Drift("seccomp", "process 7", "a filter", "none")))
        swapped = Look("running", "differs", DIFFERS.checks, more.drifts[::-1])
        assert told.found(more, more) == ["differs"]
        assert told.found(swapped, swapped) == []

    run(test())


def test_nothing_is_kept_of_what_is_gone() -> None:
    async def test() -> None:
        told = Told()
        for n in range(50):
            told.found(HOLDS, DIFFERS, id=f"c{n}")
            told.watcher.denied(Denied(f"c{n}", "apparmor", "denied", "open", "/x", 2))
        for n in range(50):
            told.found(None, id=f"c{n}")
        watcher = told.watcher
        assert (told.table.rows, watcher.rounds.due, watcher.rounds.last, watcher._doubted) == ({}, {}, {}, set())
        assert b'container="c' not in Metrics(told.table).exposition("")[0]

    run(test())


def test_denials_before_the_first_look() -> None:
    async def test() -> None:
        told = Told()
        told.watcher.rounds.ask("web")
        told.watcher.denied(Denied("web", "apparmor", "denied", "open", "/x", 2))
        told.watcher.denied(Denied("unknown", "apparmor", "denied", "open", "/x", 3))
        told.found(HOLDS)
        assert told.table.rows["web"].denials == {"apparmor": 2}
        assert told.table.elsewhere == {"apparmor": 3}
        told.watcher.rounds.ask("short")
        told.watcher.denied(Denied("short", "apparmor", "denied", "open", "/x"))
        told.found(None, id="short")
        assert told.table._early == {}

    run(test())


# ── when is looked ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_events_are_one_look_and_the_first_is_not_put_off() -> None:
    async def test() -> None:
        rounds = Rounds(30)
        rounds.ask("web", 0.02)
        first = rounds.due["web"]
        for _ in range(100):
            rounds.ask("web", 0.05)
        assert rounds.due["web"] == first
        assert await rounds.next() == "web"
        assert rounds.due["web"] > asyncio.get_running_loop().time() + 25  # the interval's

    run(test())


def test_the_one_that_is_due_first() -> None:
    async def test() -> None:
        rounds = Rounds(30)
        waiting = asyncio.create_task(rounds.next())
        await asyncio.sleep(0)
        rounds.ask("late", 0.05)
        rounds.ask("soon", 0.01)
        assert await waiting == "soon"
        assert await rounds.next() == "late"

    run(test())


def test_whoever_makes_noise_does_not_keep_us_busy() -> None:
    async def test() -> None:
        rounds = Rounds(30)
        rounds.ask("noisy", 0)
        assert await rounds.next() == "noisy"
        rounds.ask("noisy", 0)
        rounds.ask("quiet", 0.01)
        assert await rounds.next() == "quiet"
        assert rounds.due["noisy"] >= rounds.last["noisy"] + 1
        rounds.forget("noisy")
        assert set(rounds.due) | set(rounds.last) == {"quiet"}

    run(test())


# ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_for_people() -> None:
    def said(change: Change) -> list[str]:
        return [line.partition(" ")[2] for line in lines.text(change).splitlines()]

    assert said(Change("status", 0, "web", HOLDS)) == ["web: running"]
    assert said(Change("verdict", 0, "web", HOLDS)) == ["web: holds: 2 checks, under web (enforce)"]
    assert said(Change("verdict", 0, "web", HOLDS, DIFFERS)) == ["web: holds again: 2 checks, under web (enforce)"]
    assert said(Change("verdict", 0, "web", DIFFERS)) == ["web: differs: limit of memory.max: is 2, asked for 1"]
    assert said(Change("verdict", 0, "web", BLIND)) == ["web: cannot tell: limit of container: permission denied"]
    assert said(Change("gone", 0, "web")) == ["web: gone"]
    assert said(Change("denied", 0, None, denied=Denied(None, "apparmor", "denied", "open", "read /x", 3))) == ["(no container): apparmor denied read /x (3 times)"]


def test_lines_tell_what_is_new() -> None:
    other = Drift("seccomp", "process 7", "a filter", "none")
    both = Look("running", "differs", (), (DRIFT, other))
    one = Look("running", "differs", (), (other,))

    def said(look: Look, before: Look) -> list[str]:
        return [line.partition("web: ")[2] for line in lines.text(Change("verdict", 0, "web", look, before)).splitlines()]

    assert said(both, DIFFERS) == ["differs: seccomp of process 7: is none, asked for a filter"]
    assert said(one, both) == ["no longer: limit of memory.max: is 2, asked for 1"]
    assert said(one, DIFFERS) == ["differs: seccomp of process 7: is none, asked for a filter", "no longer: limit of memory.max: is 2, asked for 1"]
    assert said(DIFFERS, Look("running", "unknown", (), (), BLIND.why)) == ["differs: limit of memory.max: is 2, asked for 1", "can be told again"]
    many = Look("running", "differs", (), tuple(Drift("seccomp", f"process {n}", "x" * 500, "none") for n in range(30)))
    told = said(many, HOLDS)
    assert (len(told), told[-1], max(map(len, told))) == (21, "and 10 more", lines.LONGEST)


def test_no_terminal_obeys_what_a_container_says() -> None:
    evil = "a\x1b]0;b\x07\nc\u202e"
    drift = Drift(evil, evil, evil, evil)
    change = Change("verdict", 0, "web", Look("running", "differs", (), (drift,), (evil,), (evil, "enforce")))
    for text in (lines.text(change), lines.json_line(lines.document(change))):
        assert not set(text) & set("\x1b\x07\u202e")
        assert text.count("\n") == (2 if text[0] != "{" else 1)
    assert lines.plain("\udcff") == "\\udcff"  # of a name that is no text


def test_lines_for_programs() -> None:
    shown = json.loads(lines.json_line(lines.document(Change("verdict", 1.5, "web", DIFFERS, HOLDS))))
    assert next(iter(shown)) == "schema"
    assert shown == {
        "schema": "rundlet.watch/1", "time": 1.5, "event": "verdict", "container": "web", "status": "running", "verdict": "differs",
        "label": {"profile": "web", "mode": "enforce"}, "checks": {"limit": "differs", "seccomp": "holds"},
        "differences": [{"field": "limit", "where": "memory.max", "wanted": "1", "found": "2"}], "unknown": [],
        "before": {"status": "running", "verdict": "holds"},
    }  # fmt: skip


# ── metrics ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, as Prometheus reads them."""
    text = metrics.exposition("text/plain")[0].decode()
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in text_string_to_metric_families(text) for one in family.samples}


def test_metrics_of_a_table() -> None:
    table = Table()
    metrics = Metrics(table)
    for id, look in (("web", DIFFERS), ("db", HOLDS), ("old", STOPPED)):
        table.put(id, look, 1000.5)
        metrics.looked(look)
    table.denied("web", "apparmor", 3)
    table.denied("nobody", "seccomp", 1)
    found = samples(metrics)
    of = {name: {labels: value for (key, labels), value in found.items() if key == name} for name, _ in found}
    assert of["rundlet_containers"][(("status", "running"),)] == 2
    assert of["rundlet_container_drift"] == {
        (("container", "web"), ("field", "limit")): 1, (("container", "web"), ("field", "seccomp")): 0,
        (("container", "db"), ("field", "limit")): 0, (("container", "db"), ("field", "seccomp")): 0,
    }  # fmt: skip
    assert of["rundlet_container_verified"][(("container", "web"), ("result", "differs"))] == 1
    assert of["rundlet_container_verified"][(("container", "web"), ("result", "holds"))] == 0
    assert of["rundlet_container_label_info"] == {(("container", id), ("mode", "enforce"), ("profile", "web")): 1 for id in ("web", "db")}
    assert of["rundlet_container_last_verified_timestamp_seconds"][(("container", "db"),)] == 1000.5
    assert of["rundlet_denials_total"] == {(("container", ""), ("layer", "seccomp")): 1, (("container", "web"), ("layer", "apparmor")): 3}
    assert of["rundlet_verifications_total"] == {(("result", "holds"),): 1, (("result", "differs"),): 1, (("result", "unknown"),): 0}
    assert found["rundlet_verification_duration_seconds_count", ()] == 2
    table.drop("web")
    assert not [labels for _, labels in samples(metrics) if ("container", "web") in labels]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_a_profile_whose_name_is_odd(accept: str) -> None:
    """A name is bytes to the kernel, and one must not take the metrics of all others with it."""
    table = Table()
    table.put("web", Look("running", "holds", label=('a\n"b\\\udcff', "enforce")), 1.0)
    assert b'{container="web",mode="enforce",profile="a\\n\\"b\\\\?"} 1.0' in Metrics(table).exposition(accept)[0]


def test_the_formats_that_prometheus_asks_for() -> None:
    metrics = Metrics(Table())
    assert metrics.exposition("")[1].startswith("text/plain; version=0.0.4")
    text, kind = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")


# ── what a page is told ──────────────────────────────────────────────────────────────────────────────────────────────────────


def events(data: bytes) -> list[tuple[str, Any]]:
    """Of a piece of a stream."""
    return [(part.split("\n")[0].removeprefix("event: "), json.loads(part.split("\n")[1].removeprefix("data: "))) for part in data.decode().split("\n\n") if part]


def test_a_page_is_told_what_it_does_not_know() -> None:
    table = Table()
    table.put("web", HOLDS, 0)
    table.put("db", HOLDS, 0)
    told = page.Difference(table)
    [(name, hello)] = events(told.hello(interval=30))
    assert (name, hello["ids"], hello["columns"]) == ("hello", ["db", "web"], list(page.COLUMNS))
    assert [(kind, row["id"]) for kind, row in events(told.take())] == [("row", "db"), ("row", "web")]
    assert told.take() == b""
    table.put("web", DIFFERS, 0)
    table.put("web", HOLDS, 0)
    table.put("web", DIFFERS, 0)
    [(_, row)] = events(told.take())  # however often it changed
    assert (row["verdict"], row["checks"]["limits"], row["checks"]["seccomp"], row["checks"]["AppArmor"]) == ("differs", "differs", "holds", "")
    table.drop("db")
    table.put("db", HOLDS, 0)  # another one of that name
    assert [kind for kind, _ in events(told.take())] == ["row"]
    table.drop("db")
    assert events(told.take()) == [("gone", ["db"])]
    assert told.sent.keys() == {"web"}


def test_every_fact_has_one_column() -> None:
    placed = [fact for facts in page.COLUMNS.values() for fact in facts]
    assert sorted(placed) == sorted(FACTS)


def test_the_worst_of_a_column() -> None:
    states = {"user": "holds", "groups": "unknown", "id-map": "differs", "limit": "holds", "cgroup": "unknown"}
    found = page.columns(states.items())
    assert (found["user"], found["limits"], found["files"]) == ("differs", "unknown", "")


def test_what_goes_wrong_in_a_look_is_told_of_its_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And ends no watch."""

    def fail(target: object) -> None:
        raise KeyError("mount")

    (tmp_path / "config.json").write_text(json.dumps(template()))
    other = Other(os.getpid(), str(tmp_path))
    monkeypatch.setattr(verify, "check", fail)
    [name] = other.names()
    found = other.look(name)
    assert found
    assert (found.verdict, found.why) == ("unknown", ("internal error: KeyError: 'mount'",))
    assert other.look("another") is None
