"""The examples of docs/api.md and README.md run, and print what they say they print."""

import re
from pathlib import Path

import pytest

from tests.bundles import ROOT, Box
from tests.real.test_api_containers import ended, script

BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text())


EXAMPLES = [(page, number, text) for page in ("docs/api.md", "README.md") for number, text in enumerate(blocks(page))]


def test_there_are_examples() -> None:
    assert len(blocks("docs/api.md")) >= 7
    assert len(blocks("README.md")) >= 1


@pytest.mark.parametrize("text", [pytest.param(text, id=f"{page}-{number}") for page, number, text in EXAMPLES])
def test_an_example(box: Box, tmp_path: Path, text: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "greeting").write_text("good morning\n")
    told = re.findall(r"# → (.*)", text)
    assert told
    said = ended(script(text.replace("/srv/box", str(box.rootfs)).replace("/srv/data", str(data))))
    assert said.splitlines() == told
