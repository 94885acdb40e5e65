"""The page of the matrix in a browser: it filters, is used by keyboard, is dark at night, fits on a phone, and prints."""

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from rundlet.confine.matrix import html
from tests.unit.test_matrix_report import HOSTILE, KINDS, document

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium, or no chromium-driver, here")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One for all tests, without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    home = tmp_path_factory.mktemp("browser")
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={home}/data"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = Service(DRIVER, env={**os.environ, "HOME": str(home), "TMPDIR": str(home)})
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """The page, as wide as on a desk; afterwards the browser must have had nothing to complain of."""
    yield shown(browser, tmp_path, document())
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def shown(browser: webdriver.Chrome, folder: Path, found: dict[str, Any], width: int = 1400, scheme: str = "light") -> webdriver.Chrome:
    """The page of a document, at that width, in that colour scheme."""
    (folder / "page.html").write_text(html.page(found), encoding="utf-8")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(f"file://{folder}/page.html")
    return browser


def visible(page: webdriver.Chrome, what: str) -> int:
    return sum(one.is_displayed() for one in page.find_elements(By.CSS_SELECTOR, what))


def count(page: webdriver.Chrome) -> str:
    return page.find_element(By.ID, "count").text


def choose(page: webdriver.Chrome, name: str, value: str) -> None:
    page.execute_script(
        "const at = document.getElementById(arguments[0]); at.value = arguments[1]; at.dispatchEvent(new Event('input', {bubbles: true}))", name, value
    )


WHOLE = 4 * len(KINDS)  # two runtimes, a row that ran and one that was refused for each


def test_the_filter(page: webdriver.Chrome) -> None:
    assert count(page) == f"{WHOLE} of {WHOLE} cells in 4 rows"
    box = page.find_element(By.ID, "text")
    box.send_keys("plain1 SECCOMP")
    assert count(page) == f"2 of {WHOLE} cells in 2 rows"
    assert visible(page, "tbody tr") == 2
    assert visible(page, "td:not(.off)") == 2
    box.send_keys(Keys.ESCAPE)
    assert count(page) == f"{WHOLE} of {WHOLE} cells in 4 rows"
    box.send_keys("nothing of this kind")
    assert count(page) == f"0 of {WHOLE} cells in 0 rows"
    assert visible(page, "tbody tr") == 0


@pytest.mark.parametrize(("layer", "cells"), [("seccomp", 2), ("apparmor", 2), ("several", 4), ("nobody", 2), ("allowed", 2), ("refused", 2 * len(KINDS) + 2)])
def test_the_filter_by_layer(page: webdriver.Chrome, layer: str, cells: int) -> None:
    choose(page, "layer", layer)
    assert count(page).startswith(f"{cells} of ")


def test_the_filter_by_runtime(page: webdriver.Chrome) -> None:
    choose(page, "runtime", "otherplain")
    assert visible(page, "section") == 1
    assert count(page) == f"{WHOLE // 2} of {WHOLE} cells in 2 rows"
    choose(page, "layer", "seccomp")
    assert count(page) == f"1 of {WHOLE} cells in 1 rows"


def test_the_keyboard(page: webdriver.Chrome) -> None:
    def focused() -> str:
        return str(page.execute_script("return document.activeElement.getAttribute('aria-label') || document.activeElement.id"))

    def press(*keys: str) -> None:
        for key in keys:
            page.switch_to.active_element.send_keys(key)

    page.find_element(By.TAG_NAME, "body").send_keys("/")
    assert focused() == "text"
    press(Keys.TAB, Keys.TAB, Keys.TAB)
    assert focused() == "plain0: allowed", "one stop for the table, at its first cell"
    press(Keys.ARROW_RIGHT)
    assert focused() == "plain1: denied by seccomp"
    press(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert focused() == "plain0: allowed", "there is nothing to the left"
    press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert page.execute_script("return document.activeElement.closest('section').dataset.runtime") == "plain"
    press(Keys.ARROW_DOWN)
    assert focused() == "plain1: denied by seccomp"
    assert page.execute_script("return document.activeElement.closest('section').dataset.runtime") == "otherplain"
    press(Keys.ENTER)
    assert page.find_element(By.ID, "detail").is_displayed()
    assert page.find_element(By.ID, "detail-is").text == "denied by seccomp"
    assert page.find_element(By.ID, "detail-setting").text == "plain (otherplain)"
    assert "Harmless:" in page.find_element(By.ID, "detail-what").text
    press(Keys.ESCAPE)
    assert not page.find_element(By.ID, "detail").is_displayed()
    assert focused() == "plain1: denied by seccomp", "back where it was"


def contrast(page: webdriver.Chrome, what: str) -> float:
    """Of an element's text and the first background behind it: WCAG 2, "contrast ratio"."""
    script = """
        const at = document.querySelector(arguments[0]);
        let behind = at;
        while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        return [getComputedStyle(at).color, getComputedStyle(behind || document.body).backgroundColor];"""
    lights = []
    for colour in page.execute_script(script, what):
        parts = [int(number) / 255 for number in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_light_and_dark(browser: webdriver.Chrome, tmp_path: Path) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        page = shown(browser, tmp_path, document(), scheme=scheme)
        backgrounds.append(page.execute_script("return getComputedStyle(document.body).backgroundColor"))
        for what in ("body", ".soft", *(f"button.{kind}" for kind in ("allowed", "denied", "several", "unknown", "absent")), ".sign.refused"):
            assert contrast(page, what) >= 4.5, (scheme, what)
    assert backgrounds[0] != backgrounds[1]
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_colour_is_never_the_only_sign(page: webdriver.Chrome) -> None:
    signs: dict[str, set[str]] = {}
    for button in page.find_elements(By.CSS_SELECTOR, "td button"):
        signs.setdefault(button.text, set()).add((button.get_attribute("aria-label") or "").partition(": ")[2])
        assert button.text
    assert signs == {
        "✓": {"allowed"}, "SC": {"denied by seccomp"}, "CA/FI": {"denied by capability or dac"}, "AA+MO": {"denied by apparmor and mount"},
        "?": {"denied by unknown", "unknown"}, "–": {"not here"}, "✗": {"refused to start"},
    }  # fmt: skip


@pytest.mark.parametrize("width", [390, 900, 1400])
def test_nothing_is_wider_than_the_screen(browser: webdriver.Chrome, tmp_path: Path, width: int) -> None:
    page = shown(browser, tmp_path, document("a-word-that-is-long-" * 8), width)
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    if width == 390:  # on a phone the tables scroll neither: cells are under each other, and named
        assert page.execute_script("return [...document.querySelectorAll('.scroll')].every((at) => at.scrollWidth <= at.clientWidth)")
        assert page.find_element(By.CSS_SELECTOR, "td .name").is_displayed()
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("word", HOSTILE)
def test_no_text_becomes_markup(browser: webdriver.Chrome, tmp_path: Path, word: str) -> None:
    page = shown(browser, tmp_path, document(word))
    assert count(page).startswith(f"{WHOLE} of {WHOLE}")
    assert len(page.find_elements(By.CSS_SELECTOR, "script, style, img, b")) == 2
    assert page.find_element(By.CSS_SELECTOR, "tbody th").text.startswith(word)
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_it_prints(page: webdriver.Chrome) -> None:
    choose(page, "layer", "seccomp")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert visible(page, "form") == visible(page, "dialog") == visible(page, ".keys") == 0
    assert visible(page, "tbody tr") == 4, "paper has no filter: all is there"
    assert visible(page, ".legend") == 1
    paper = base64.b64decode(page.print_page())
    assert paper.startswith(b"%PDF")
    assert paper.count(b"/Type /Page\n") + paper.count(b"/Type /Page ") >= 1
