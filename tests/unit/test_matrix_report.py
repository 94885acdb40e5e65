"""The document of the matrix: held against another, and as a page in which no text becomes markup."""

import json
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rundlet.confine.matrix import html, report
from rundlet.confine.matrix.build import Cell, Matrix, Row
from rundlet.confine.matrix.probes import Command
from rundlet.confine.matrix.run import Runtime
from rundlet.confine.matrix.settings import OPEN, Setting
from rundlet.errors import Fault

MACHINE = {"kernel": "6.1", "arch": "x86_64", "apparmor": "on", "label": "unconfined", "cgroup": "v2", "uid": 0}
KINDS = (
    ("allowed", ()), ("denied", (("seccomp",),)), ("denied", (("capability",), ("dac",))), ("denied", (("apparmor", "mount"),)), ("denied", ()),
    ("unknown", ()), ("absent", ()), ("refused", ()),
)  # fmt: skip


def document(word: str = "plain") -> report.Document:
    """One with a cell of each kind, and `word` in every place where text comes from elsewhere."""
    probes = [Command(f"{word}{n}", (word,)) for n in range(len(KINDS))]
    facts = {"label": word, "nnp": True, "seccomp": "filter", "exec label": word}
    made = Matrix(runs=3)
    for name in (word, "other" + word):
        made.rows += [Row(name, word, "ran", "", word, facts), Row(name, "no" + word, "refused", word, word), Row(name, "absent", "absent", word)]
        made.cells += [Cell(name, word, probe.name, is_, layers, word, word, (word,)) for probe, (is_, layers) in zip(probes, KINDS, strict=True)]
        made.cells += [Cell(name, "no" + word, probe.name, "refused", (), "", word) for probe in probes]
        made.cells += [Cell(name, "absent", probe.name, "absent", (), "", word) for probe in probes]
    runtimes = [Runtime(word, (word,), word), Runtime("other" + word, (word,), word)]
    rows = [Setting(word, OPEN), Setting("no" + word, OPEN), Setting("absent", OPEN)]
    found = report.document({**MACHINE, "kernel": word}, runtimes, rows, probes, made, [word], word)
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


class Page(HTMLParser):
    """What a browser would make of it: the tags, the attributes' names, and the texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.values: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag + " " + " ".join(name for name, _ in attrs))
        self.values += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


HOSTILE = ("<script>alert(1)</script>", '" onmouseover="alert(1)', "'><img src=x onerror=alert(1)>", "</style><b>", "&lt;b&gt;", "</script>")


@pytest.mark.parametrize("word", HOSTILE)
def test_no_text_becomes_markup(word: str) -> None:
    tame, wild = Page(html.page(document("tame"))), Page(html.page(document(word)))
    assert wild.tags == tame.tags
    assert any(word in text for text in ["".join(wild.texts), *wild.values])


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_any_text_is_shown(word: str) -> None:
    tame, wild = Page(html.page(document("tame"))), Page(html.page(document(word)))
    assert wild.tags == tame.tags
    assert word in "".join(wild.texts)


def test_the_page_loads_nothing() -> None:
    text = html.page(document())
    assert not [word for word in ("http:", "https:", "//cdn", "@import", "url(", " src=") if word in text]
    assert "default-src 'none'" in text


def test_every_kind_of_cell_has_a_sign_of_its_own() -> None:
    cells = document()["cells"][: len(KINDS)]
    assert [html.sign_of(cell) for cell in cells] == [
        ("✓", "allowed"), ("SC", "denied"), ("CA/FI", "several"), ("AA+MO", "several"), ("?", "unknown"), ("?", "unknown"), ("–", "absent"), ("✗", "refused"),
    ]
    assert [html.kinds(cell) for cell in cells] == [
        ["allowed"], ["seccomp"], ["capability", "dac", "several"], ["apparmor", "mount", "several"], ["nobody"], ["unknown"], ["absent"], ["refused"],
    ]


def test_the_document() -> None:
    found = document()
    assert next(iter(found)) == "schema"
    assert found["schema"] == "rundlet.matrix/1"
    assert found["cells"][0] == {"runtime": "plain", "setting": "plain", "probe": "plain0", "is": "allowed", "errno": "plain", "why": "plain", "log": ["plain"]}
    assert found["cells"][4]["layers"] == []
    assert "layers" not in found["cells"][5]
    assert [report.says(cell) for cell in found["cells"][: len(KINDS)]] == [
        "allowed", "denied by seccomp", "denied by capability or dac", "denied by apparmor and mount", "denied by unknown", "unknown", "not here",
        "refused to start",
    ]  # fmt: skip


def test_the_table() -> None:
    out = StringIO()
    report.show(document(), Console(file=out, width=160))
    text = out.getvalue()
    for words in ("1 of 8", "apparmor and mount: plain3", "refused to start", "not here: plain (1 settings: absent)", "The runtimes do not differ.", "3 containers"):
        assert words in text, text
    assert "\x1b" not in text


def change(found: report.Document, at: int, **how: Any) -> report.Document:
    """The document with a cell that is otherwise."""
    copy = json.loads(json.dumps(found))
    copy["cells"][at] |= how
    return copy  # type: ignore[no-any-return]


def test_held_against_another(tmp_path: Path) -> None:
    found = document()
    golden = tmp_path / "golden.json"
    kept = ("runtime", "setting", "probe", "is", "layers")  # what counts of a golden file
    cells = [{key: cell[key] for key in kept if key in cell} for cell in found["cells"]]
    golden.write_text(json.dumps({"schema": "rundlet.matrix/1", "cells": cells}))
    assert report.compare(found, report.expected(str(golden))) == ([], [])
    golden.write_text(json.dumps(found))
    wanted = report.expected(str(golden))
    assert report.compare(found, wanted) == ([], [])
    assert report.compare(change(found, 1, layers=[["nnp"]]), wanted) == (["plain / plain / plain1: expected denied by seccomp, is denied by nnp"], [])
    assert report.compare(change(found, 0, **{"is": "denied", "layers": []}), wanted)[0] == ["plain / plain / plain0: expected allowed, is denied by unknown"]
    assert report.compare(change(found, 0, **{"is": "absent"}), wanted) == ([], ["plain / plain / plain0: expected allowed, not here"])
    assert report.compare(change(found, 0, **{"is": "unknown"}), wanted) == ([], ["plain / plain / plain0: expected allowed, unknown"])
    assert report.compare(change(found, 0, setting="new"), wanted) == ([], ["plain / plain / plain0: expected allowed, not tried"])
    assert report.compare(change(found, 0, why="otherwise", errno="EIO"), wanted) == ([], [])


def test_where_runtimes_differ() -> None:
    found = document()
    assert report.differences(found) == []
    assert report.differences(change(found, 1, layers=[["nnp"]])) == ["plain, plain1: plain denied by nnp, otherplain denied by seccomp"]
    found["rows"][1]["status"] = "ran"
    assert report.differences(found) == ["noplain: plain runs, otherplain refuses"]


@pytest.mark.parametrize(
    ("text", "says"), [("{", "no JSON"), ("[]", "/schema"), ('{"schema": "rundlet.matrix/2"}', "/schema"), ('{"schema": "rundlet.matrix/1", "cells": [{}]}', "/cells")],
)  # fmt: skip
def test_what_is_no_document(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text)
    with pytest.raises(Fault, match=says):
        report.expected(str(path))
    with pytest.raises(Fault, match="cannot read"):
        report.expected(str(tmp_path / "none"))
