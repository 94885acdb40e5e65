"""What the documentation shows is what the program prints."""

import re
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent.parent


def test_the_plan_in_the_journey_is_a_golden_plan() -> None:
    golden = (HOME / "tests/golden/plans/shell-stacked.txt").read_text().splitlines()
    blocks = re.findall(r"```\n(.*?)\n```", (HOME / "docs/journey.md").read_text(), re.S)
    plans = [block for block in blocks if block.startswith(("──", " 4", " 3", " 5"))]
    assert len(plans) == 2
    for block in plans:
        for line in block.splitlines():
            assert line in golden or line.strip() == "…", line


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in [HOME / "README.md", HOME / "CONTRIBUTING.md", *(HOME / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_test_that_a_page_names_is_there() -> None:
    """docs/compatibility.md says of each row what shows it: a file, and the test's name behind the #."""
    pages = {page: re.findall(r"\]\((\.\./tests/[^)#]+)#([^)]+)\)", page.read_text()) for page in (HOME / "docs").glob("*.md")}
    assert len(pages[HOME / "docs/compatibility.md"]) > 100
    for page, named in pages.items():
        for file, name in named:
            assert f"def {name}(" in (page.parent / file).read_text(), f"{page.name}: {file} has no {name}"


def test_every_row_that_we_have_is_shown_by_a_test() -> None:
    for line in (HOME / "docs/compatibility.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| |"):
            assert len(line.split(" | ")) == 6 and "](../tests/" in line, line
