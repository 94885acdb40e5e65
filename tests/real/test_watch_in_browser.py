"""watch from end to end: a real container, the command, and a browser of its own, which is gone before the container is looked after."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.bundles import Box
from tests.real.test_watch import LONG, Watching
from tests.real.test_watch_page import BROWSER, DRIVER, Browser, started

pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver here")


@pytest.fixture
def chromium(box: Box, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """The browser."""
    with started(tmp_path / "chromium") as driver:
        yield driver


def test_a_container_that_is_made_wrong(chromium: webdriver.Chrome, box: Box) -> None:
    """All of it: a limit changed by hand, seen by the kernel's event, verified, and on the page."""
    box.linux["resources"] = {"pids": {"limit": 64}}
    box.started()
    watch = Watching(box, "--interval", LONG)
    browser = Browser(chromium)
    browser.complaints()
    try:
        chromium.get(f"http://{watch.at}/")
        assert browser.shows(f"[data-id='{box.id}'] .verdict", "✓ holds")
        box.limit("pids.max", "pids.max").write_text("4096")
        assert browser.shows(f"[data-id='{box.id}'] .why", "limit of pids.max: is 4096, asked for 64")
        assert "✗ differs" in browser.text(f"[data-id='{box.id}'] .verdict")
        box.limit("pids.max", "pids.max").write_text("64")
        assert browser.shows(f"[data-id='{box.id}'] .verdict", "✓ holds")
        box.ended()
        box.ok("delete", box.id)
        assert browser.shows("#none", "No container is here.")
        assert browser.complaints() == []
    finally:
        assert watch.end() == 0
    assert browser.shows("#link", "connection lost, trying again")
