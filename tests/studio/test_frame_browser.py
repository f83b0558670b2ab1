"""The studio in a frame of another page, in headless Chromium: shown where its origin was named, and blank elsewhere."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver.common.by import By

from sdist.studio.limits import Limits
from sdist.studio.server import Address, serving

from ..browser import browser, browsers, open_page, wait_until  # noqa: F401
from .test_server import free_port


@pytest.fixture(scope="module")
def other_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A page of another origin with a frame that shows an address; gives the page's own address."""
    folder, port = tmp_path_factory.mktemp("other"), free_port()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    Thread(target=server.serve_forever, daemon=True).start()

    def page(address: str) -> str:
        (folder / "index.html").write_text(f'<iframe src="{address}" width="1200" height="900"></iframe>')
        return f"http://localhost:{port}"

    yield page
    server.shutdown()
    server.server_close()


def tab_in_frame(browser) -> str:  # noqa: F811
    """The name of the visitor whom the page in the frame shows; empty if there is no page."""
    browser.switch_to.default_content()
    browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
    try:
        return browser.find_element(By.CSS_SELECTOR, "#tab :is(textarea, input)").get_attribute("value")
    except NoSuchElementException:
        return ""


@pytest.mark.parametrize("named", [True, False])
def test_a_frame_of_another_origin(browser, other_page, tiny_folder: Path, named: bool) -> None:  # noqa: F811
    port = free_port()
    origin = other_page(f"http://127.0.0.1:{port}/")
    with serving(str(tiny_folder), Address(port=port, frames=(origin,) if named else ()), Limits()):
        open_page(browser, origin)
        if named:
            wait_until(lambda: bool(tab_in_frame(browser)), 90)
        else:
            refusals = []
            wait_until(lambda: bool(refusals.extend(browser.get_log("browser")) or refusals), 90)
            assert any("frame-ancestors" in entry["message"] for entry in refusals)
            assert not tab_in_frame(browser)
