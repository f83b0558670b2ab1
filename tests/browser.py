"""A headless Chromium for tests: `browser()` opens one with an empty profile of its own; all are closed at the end."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    """A factory of drivers, each a visitor of its own; width x height in CSS pixels."""
    selenium = pytest.importorskip("selenium", reason="the browser tests need selenium")
    if not (CHROMIUM and DRIVER):
        pytest.skip("the browser tests need chromium and chromedriver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    assert selenium
    drivers: list[Chrome] = []

    def start(width: int = 1400, height: int = 1000, dark: bool = False) -> Chrome:
        profile: Path = tmp_path_factory.mktemp("profile")
        options = ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        drivers.append(Chrome(options, Service(DRIVER)))
        driver = drivers[-1]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)  # a window is never narrower than 500
        scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
        return driver

    yield start
    for driver in drivers:
        driver.quit()
