"""A headless Chromium for tests of pages; such tests need Chromium and chromedriver."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from .need import missing, need_program

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """A factory of selenium drivers, each with an empty profile of its own; all are ended with the module."""
    chromium, driver = need_program("chromium", "chromium-browser"), need_program("chromedriver")
    started = []

    def start():
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
            options.add_argument(flag)
        started.append(webdriver.Chrome(options, webdriver.ChromeService(driver)))
        return started[-1]

    yield start
    for each in started:
        each.quit()


@pytest.fixture(scope="module")
def browser(browsers: Callable):
    """A driver."""
    return browsers()


def open_page(browser, page: Path | str, width: int = 1400, height: int = 1000) -> None:
    """Loads a file or an address at a size of the window's inside, which headless windows cannot have below 500 pixels alone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri() if isinstance(page, Path) else page)


def serious_findings(browser) -> list[str]:
    """What axe-core (of npm) finds on the page that is serious: each as rule and element."""
    path = Path(os.environ.get("AXE_CORE") or "node_modules/axe-core/axe.min.js")
    if not path.is_file():
        missing("axe-core is not there: npm install --no-save axe-core, or AXE_CORE=.../axe.min.js")
    browser.execute_script(path.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run(document).then(arguments[0])")
    bad = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {node['html'][:200]}" for each in bad for node in each["nodes"]]


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Returns as soon as the condition holds; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not get there in time"
        time.sleep(0.02)
