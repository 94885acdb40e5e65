"""The page of watch in a browser: chromium, over the real server and its stream; what is in the table is the test's."""

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from rundlet.confine.verify.facts import FACTS
from rundlet.confine.watch.address import Address
from rundlet.confine.watch.metrics import Metrics
from rundlet.confine.watch.server import Server
from rundlet.confine.watch.table import Drift, Look, Table
from tests.bundles import PATIENCE, eventually

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium and chromedriver here")

CHECKS = tuple(FACTS)
PHONE, DESK = (390, 844), (1280, 800)


def holding(**more: Any) -> Look:
    """A container that is as it should be."""
    return Look("running", "holds", tuple((name, "holds") for name in CHECKS), label=("docker-default", "enforce"), seconds=0.01, **more)


def differing(*drifts: Drift, why: tuple[str, ...] = ()) -> Look:
    """One that is not."""
    bad = {drift.field for drift in drifts}
    checks = tuple((name, "differs" if name in bad else "holds") for name in CHECKS)
    return Look("running", "differs", checks, drifts, why, ("docker-default", "complain"))


DRIFT = Drift("limit", "memory.max", "67108864", "134217728")


class Served:
    """A server in a thread of its own, on a port that stays when it is started again."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.table = Table()
        self.metrics = Metrics(self.table)
        self.port = 0
        self.begin()

    def do(self, job: Any) -> Any:
        """Runs a coroutine there."""
        return asyncio.run_coroutine_threadsafe(job, self.loop).result(PATIENCE)

    def begin(self) -> None:
        """Starts to serve."""
        self.server = Server(self.table, self.metrics, frozenset({"localhost"}), 30)
        self.port = self.do(self.server.listen(Address("127.0.0.1", self.port))).port

    def end(self) -> None:
        """Stops to serve."""
        self.do(self.server.close())

    def close(self) -> None:
        """Stops everything."""
        self.end()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def put(self, id: str, look: Look) -> None:
        """Into the table."""

        async def put() -> None:
            self.table.put(id, look, time.time())

        self.do(put())

    def drop(self, id: str) -> None:
        """Out of it."""

        async def drop() -> None:
            self.table.drop(id)

        self.do(drop())

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.port}/"


class Browser:
    """The page, as a person has it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def size(self, width: int, height: int) -> None:
        """Of the page on the screen; a window cannot be as narrow as a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """light or dark, as the system is set."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def js(self, script: str, *args: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *args)

    def ids(self) -> list[str]:
        """The containers that can be seen, from the top."""
        return list(self.js("return [...document.querySelectorAll('tbody')].filter(b => !b.hidden).map(b => b.dataset.id)"))

    def text(self, selector: str) -> str:
        """What an element says to the eye; "" where there is none."""
        return str(self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def shows(self, selector: str, text: str) -> bool:
        """Whether it comes to say that."""
        return eventually(lambda: text in self.text(selector))

    def find(self, selector: str) -> WebElement:
        """An element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def complaints(self) -> list[str]:
        """What the console says, the favourite icon's and policy's complaints included, since it was last asked."""
        return [line["message"] for line in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def picture(self, name: str) -> None:
        """A picture of the page, where $RUNDLET_PICTURES says so: to be looked at."""
        if folder := os.environ.get("RUNDLET_PICTURES"):
            self.driver.save_screenshot(str(Path(folder, f"{name}.png")))


@pytest.fixture
def served() -> Iterator[Served]:
    """A server."""
    made = Served()
    yield made
    made.close()


@contextmanager
def started(folder: Path) -> Iterator[webdriver.Chrome]:
    """The browser, with its files in `folder`; selenium's own manager would fetch one."""
    options = webdriver.ChromeOptions()
    assert BROWSER and DRIVER
    options.binary_location = BROWSER
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={folder}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """The browser of all tests here."""
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(chromium: webdriver.Chrome, served: Served) -> Iterator[Callable[[], Browser]]:
    """Opens the page; nothing may have complained in the end."""
    browser = Browser(chromium)
    browser.complaints()

    def opened() -> Browser:
        browser.size(*DESK)
        browser.scheme("light")
        chromium.get(served.url)
        assert browser.shows("#link", "live")
        return browser

    yield opened
    chromium.get("about:blank")


def test_drift_appears_and_goes_without_a_reload(page: Callable[[], Browser], served: Served) -> None:
    served.put("web", holding())
    served.put("db", holding())
    browser = page()
    assert eventually(lambda: browser.ids() == ["db", "web"])
    assert browser.text("#sum") == "2 containers · 2 hold"
    browser.js("window.mark = 'the same page'")
    served.put("web", differing(DRIFT))
    assert browser.shows("[data-id=web] .why", "limit of memory.max: is 134217728, asked for 67108864")
    assert browser.ids() == ["web", "db"]  # what needs somebody comes first
    assert "✗ differs" in browser.text("[data-id=web] .verdict")
    assert browser.driver.title == "✗ 1 · rundlet watch"
    assert browser.js("return document.querySelector('#news').textContent") == "web differs"
    served.put("web", holding())
    assert eventually(lambda: browser.ids() == ["db", "web"])
    served.drop("db")
    assert eventually(lambda: browser.ids() == ["web"])
    assert browser.js("return window.mark") == "the same page"
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_can_be_read(page: Callable[[], Browser], served: Served, scheme: str, size: tuple[int, int]) -> None:
    """On a phone and on a desk, light and dark: no sideways scrolling, and every text stands out from its ground (WCAG 2.2, 1.4.3)."""
    served.put("web", holding())
    served.put("a-container-with-a-name-as-long-as-engines-make-them-0123456789abcdef0123456789abcdef0123456789abcdef", holding())
    served.put("db", differing(DRIFT, Drift("apparmor.mode", "process 4711 (sh)", "enforce", "complain")))
    served.put("blind", Look("paused", "unknown", (("apparmor.label", "unknown"),), why=("cannot read /proc/1/attr/current: permission denied",)))
    served.put("made", Look("stopped"))
    browser = page()
    browser.size(*size)
    browser.scheme(scheme)
    assert eventually(lambda: len(browser.ids()) == 5)
    browser.picture(f"{scheme}-{size[0]}")
    for wide in ("documentElement", "querySelector('#containers')"):
        assert browser.js(f"return document.{wide}.scrollWidth <= document.{wide}.clientWidth")
    ground = browser.js("return getComputedStyle(document.documentElement).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) == (scheme == "dark")
    poor = browser.js(CONTRAST)
    assert poor == []
    assert browser.complaints() == []


# the texts whose contrast to what is behind them is less than 4.5
CONTRAST = """
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (c !== 'rgba(0, 0, 0, 0)') return c; }
  return 'rgb(255, 255, 255)'; };
return [...document.body.querySelectorAll('*')].filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length)
  .map(e => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x); return [e.outerHTML.slice(0, 80), (a + .05) / (b + .05)]; })
  .filter(([, ratio]) => ratio < 4.5);
"""


def test_colour_is_not_the_only_sign(page: Callable[[], Browser], served: Served) -> None:
    served.put("web", differing(DRIFT))
    browser = page()
    assert eventually(lambda: browser.ids() == ["web"])
    cells = browser.js("return [...document.querySelectorAll('[data-id=web] .check')].map(c => [c.querySelector('.name').textContent.trim(), c.textContent])")
    said = {name: text.removeprefix(name).split() for name, text in cells}
    assert said["limits"] == ["✗", "differs"]
    assert said["AppArmor"] == ["✓", "holds"]


def test_by_the_keyboard(page: Callable[[], Browser], served: Served) -> None:
    for name in ("web", "db", "cache"):
        served.put(name, differing(DRIFT) if name == "db" else holding())
    browser = page()
    assert eventually(lambda: len(browser.ids()) == 3)

    def press(*keys: str) -> str:
        webdriver.ActionChains(browser.driver).send_keys(*keys).perform()
        return str(browser.js("return document.activeElement.id || document.activeElement.className || document.activeElement.textContent"))

    assert press(Keys.TAB) == "skip"
    assert browser.js("return document.activeElement.getBoundingClientRect().left") >= 0
    assert press(Keys.TAB) == "find"
    press("we")
    assert browser.ids() == ["web"]
    assert press(Keys.BACKSPACE, Keys.BACKSPACE, Keys.TAB) == "bad"
    assert browser.js("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press(Keys.SPACE)
    assert browser.ids() == ["db"]
    served.put("db", holding())
    assert browser.shows("#none", "No container is as chosen above.")
    assert browser.js("return document.activeElement.id") == "bad"  # what comes in takes the focus from nobody
    assert press(Keys.TAB) == "metrics"


def test_a_stream_that_breaks(page: Callable[[], Browser], served: Served) -> None:
    served.put("web", holding())
    served.put("old", holding())
    browser = page()
    assert eventually(lambda: len(browser.ids()) == 2)
    served.end()
    assert browser.shows("#link", "connection lost, trying again; what is here is of ")
    assert browser.ids() == ["old", "web"]
    browser.picture("lost")
    served.drop("old")
    served.put("web", differing(DRIFT))
    served.begin()
    assert browser.shows("#link", "live")
    assert browser.shows("[data-id=web] .verdict", "differs")
    assert browser.ids() == ["web"]
    assert all("ERR_" in line for line in browser.complaints())  # the browser's own of the connection, none of the page's


def test_what_a_container_says_is_never_markup(page: Callable[[], Browser], served: Served) -> None:
    evil = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
    served.put("web", Look("running", "differs", ((evil, "differs"),), (Drift(evil, evil, evil, evil),), (evil,), (evil, evil)))
    browser = page()
    assert browser.shows("[data-id=web] .why", evil)
    assert browser.js("return document.querySelectorAll('img, td script').length") == 0
    assert browser.driver.title == "✗ 1 · rundlet watch"
    assert browser.complaints() == []


def test_the_policy_holds(page: Callable[[], Browser], served: Served) -> None:
    """Nothing runs that is not the page's own, and nothing can be sent elsewhere."""
    browser = page()
    browser.js(
        "window.violated = []; document.addEventListener('securitypolicyviolation', e => violated.push(e.effectiveDirective));"
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
        "const i = new Image(); i.src = 'http://127.0.0.2:1/x'; document.body.append(i);"
        "document.body.setAttribute('style', 'color: red'); fetch('http://127.0.0.2:1/').catch(() => {});"
        "const f = document.createElement('form'); f.action = '/'; document.body.append(f); f.submit();"
    )
    wanted = {"script-src-elem", "img-src", "style-src-attr", "connect-src", "form-action"}
    assert eventually(lambda: set(browser.js("return violated")) == wanted), browser.js("return violated")
    assert browser.js("return window.ran") is None
    assert browser.complaints()  # they are told, so none of the other tests overlooks one


def test_it_takes_no_more_than_it_shows(page: Callable[[], Browser], served: Served) -> None:
    """A page that has been open for long is no larger than a new one."""
    served.put("web", holding())
    browser = page()
    before = browser.js("return document.querySelectorAll('*').length")
    for n in range(60):
        served.put(f"c{n}", differing(DRIFT))
        if n >= 3:
            served.drop(f"c{n - 3}")
    for n in range(57, 60):
        served.drop(f"c{n}")
    assert eventually(lambda: browser.ids() == ["web"])
    assert browser.js("return document.querySelectorAll('*').length") <= before + len(CHECKS) * 4 + 20
    assert browser.js("return rows.size + bodies.size") == 2
    assert json.dumps(browser.complaints()) == "[]"
