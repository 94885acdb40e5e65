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
