"""The studio in headless Chromium on a tiny pipeline: one server, two visitors."""

import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from sdist.cli import main
from sdist.studio import visitor as visitors_module
from sdist.studio.limits import Limits
from sdist.studio.server import Address, serving

from ..browser import browsers, open_page, serious_findings  # noqa: F401
from .samples import SETTINGS
from .test_html import HOSTILE
from .test_server import free_port

LONG = 9000  # steps of an edit that does not end while it is looked at, however fast the machine


@pytest.fixture(scope="module")
def address(tiny_folder: Path) -> Iterator[str]:
    """Where the studio answers."""
    with serving(str(tiny_folder), Address(port=free_port()), Limits(steps=LONG)) as found:
        yield found


class Visitor:
    """A browser at the studio, in the words of the page."""

    def __init__(self, driver, address: str, width: int = 1400) -> None:
        self.driver = driver
        open_page(driver, address, width)
        self.ready()

    def again(self) -> None:
        """Loads the page again, and waits until it knows whose it is."""
        self.driver.refresh()
        self.until(lambda: self.value("#tab"))

    def anew(self) -> None:
        """As one who has never been here."""
        self.driver.execute_script("sessionStorage.clear()")
        self.driver.refresh()
        self.ready()

    def ready(self) -> None:
        self.until(lambda: self.value("#tab"))
        self.open_settings()
        self.type("#overrides textarea", SETTINGS)

    def open_settings(self) -> None:
        """They are closed after every reload."""
        if not self.driver.find_elements(By.CSS_SELECTOR, "#overrides textarea"):
            self.click("#settings > button")
            self.until(lambda: self.find("#overrides textarea"))

    def find(self, css: str):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def value(self, css: str) -> str:
        return self.find(f"{css} :is(textarea, input)").get_attribute("value")

    def picture(self) -> str:
        return self.find("#stage .main img").get_attribute("src")

    def text(self, css: str) -> str:
        return self.find(css).get_attribute("textContent")

    def until(self, true: Callable[[], object], seconds: float = 90) -> None:
        WebDriverWait(self.driver, seconds, 0.05, [WebDriverException]).until(lambda _: true())

    def type(self, css: str, text: str) -> None:
        """By keys, in place of what stands there."""
        self.find(css).send_keys(Keys.CONTROL, "a", Keys.NULL, text)

    def click(self, css: str) -> None:
        """Of what stands there when it is clicked: the page may draw it anew in between."""
        self.until(lambda: self.driver.execute_script("arguments[0].click(); return true", self.find(css)))

    def upload(self, path: Path) -> None:
        self.find("#picture input[type=file]").send_keys(str(path))

    def ask(self, path: Path, target: str, steps: int) -> None:
        """Everything before the press of the button."""
        self.upload(path)
        self.until(lambda: path.name in self.text("#sized"))
        self.type("#source textarea, #source input", "a cat")
        self.type("#target textarea, #target input", target)
        self.until(lambda: "wearing" in self.text("#words"))
        self.open_settings()
        self.type("#steps input", str(steps))

    def waits_for(self, text: str, seconds: float = 90) -> None:
        self.until(lambda: text in self.text("#status"), seconds)

    @property
    def free(self) -> bool:
        return bool(self.driver.find_elements(By.CSS_SELECTOR, "button#edit"))


@pytest.fixture(scope="module")
def visitors(browsers, address: str) -> tuple[Visitor, Visitor]:  # noqa: F811
    return Visitor(browsers(), address), Visitor(browsers(), address, 400)


def test_upload_edit_watch_and_take_along(visitors: tuple[Visitor, Visitor], picture: Path) -> None:
    visitor, _ = visitors
    visitor.ask(picture, "a cat wearing a hat", LONG)
    ticked = [box.get_attribute("name") for box in visitor.driver.find_elements(By.CSS_SELECTOR, "#words input:checked")]
    assert ticked == ["hat"]
    visitor.click("#words input[name=cat]")
    visitor.click("button#edit")
    visitor.until(lambda: visitor.find("#stage .rail img"))
    first = visitor.find("#stage .main img").get_attribute("src")
    visitor.until(lambda: visitor.find("#stage .main img").get_attribute("src") != first)  # it is seen to grow
    visitor.click("#details > button")
    visitor.until(lambda: visitor.find("#curves svg path.sd"))
    visitor.click("button#stop")
    visitor.waits_for("stopped after")
    visitor.until(lambda: visitor.free)
    assert "mask: cat, hat" in visitor.text("#stage .rail")
    links = visitor.driver.find_elements(By.CSS_SELECTOR, "#stage a[download]")
    assert [link.get_attribute("download")[-4:] for link in links] == [".png", "json"]
    assert links[0].get_attribute("href").startswith("data:image/png;base64,")
    before = visitor.find("#stage .main img").get_attribute("src")
    visitor.type("#at input[type=number]", "1" + Keys.TAB)
    visitor.until(lambda: visitor.find("#stage .main img").get_attribute("src") != before)


def test_a_run_card_brings_everything_back(visitors: tuple[Visitor, Visitor], tmp_path: Path) -> None:
    visitor, _ = visitors
    _, link = visitor.driver.find_elements(By.CSS_SELECTOR, "#stage a[download]")
    card = tmp_path / "card.json"
    card.write_bytes(b64decode(link.get_attribute("href").partition(",")[2]))
    visitor.type("#target textarea, #target input", "something else")
    visitor.click("#restoring > button")
    visitor.until(lambda: visitor.find("#cards input[type=file]").send_keys(str(card)) or True)
    visitor.until(lambda: "card" in visitor.text("#cards .file-preview"))
    visitor.click("button#restore")
    visitor.until(lambda: visitor.find("#target textarea, #target input").get_attribute("value") == "a cat wearing a hat")
    visitor.until(lambda: "run card" in visitor.text("#methods"))  # the tiny model's settings are those of no method
    visitor.type("#steps input", "2")
    visitor.click("button#edit")
    visitor.waits_for("run card, seed 0: done")
    visitor.anew()


def test_the_background_stays_and_the_result_has_the_pictures_size(visitors: tuple[Visitor, Visitor], tmp_path: Path) -> None:
    visitor, _ = visitors
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    visitor.ask(tmp_path / "photo.png", "a cat wearing a hat", 3)
    visitor.click("#composing > button")
    visitor.click("#keep_background input")
    visitor.click("#output_size input[value=source]")
    visitor.until(lambda: visitor.find("#output_size input[value=source]").is_selected())
    visitor.click("button#edit")
    visitor.waits_for("done, 3 steps")
    visitor.until(lambda: visitor.free)
    png, card = (link.get_attribute("href") for link in visitor.driver.find_elements(By.CSS_SELECTOR, "#stage a[download]"))
    (tmp_path / "made.png").write_bytes(b64decode(png.partition(",")[2]))
    made = np.asarray(Image.open(tmp_path / "made.png"))
    composition = json.loads(b64decode(card.partition(",")[2]))["composition"]
    assert (made.shape, composition["mask"]) == ((60, 90, 3), "method")
    assert 1 - (made != pixels).any(-1).mean() >= composition["kept"] > 0
    assert main(["replay", str(tmp_path / "made.png"), "--images", str(tmp_path)]) == 0
    visitor.again()
    visitor.click("#composing > button")
    visitor.until(lambda: visitor.find("#keep_background input").is_selected())
    visitor.anew()


def test_bad_uploads_are_told_and_leave_nothing(visitors: tuple[Visitor, Visitor], tmp_path: Path) -> None:
    visitor, _ = visitors
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    for name, message in (("text.png", "is a text file, not an image"), ("bomb.png", "64000000 pixels")):
        visitor.upload(tmp_path / name)
        visitor.until(lambda text=message: text in visitor.text("#problem"))
        visitor.until(lambda: visitor.find("#picture input[type=file]").is_enabled())
        visitor.until(lambda: not visitor.driver.find_elements(By.CSS_SELECTOR, "#picture img"))
    assert "stage empty" in visitor.find("#stage").get_attribute("innerHTML")


def test_hostile_prompts_are_text_and_errors_are_one_line(visitors: tuple[Visitor, Visitor], picture: Path) -> None:
    visitor, _ = visitors
    visitor.ask(picture, "a cat wearing a " + HOSTILE, 2)
    visitor.click("button#edit")
    visitor.until(lambda: "this model reads 24" in visitor.text("#problem"))
    visitor.until(lambda: visitor.free)
    assert visitor.find("#problem [role=alert]").is_displayed()  # until something else is done
    assert "Traceback" not in visitor.text("body")
    visitor.type("#target textarea, #target input", "a wearing <b>")
    visitor.click("button#edit")
    visitor.waits_for("done")
    assert "a wearing <b>" in visitor.text("#stage .main figcaption")
    with pytest.raises(WebDriverException, match="no such alert"):
        _ = visitor.driver.switch_to.alert
    assert not visitor.driver.find_elements(By.CSS_SELECTOR, "img[onerror], #stage b")


def test_one_who_stops_does_not_stop_the_other(visitors: tuple[Visitor, Visitor], picture: Path) -> None:
    one, two = visitors
    one.ask(picture, "a cat wearing a hat", LONG)
    one.click("button#edit")
    one.waits_for("step ")
    two.ask(picture, "a cat wearing a red hat", 3)  # the page answers while an edit is made
    assert not one.free
    two.click("button#edit")
    two.waits_for("waiting")
    time.sleep(0.5)
    assert "waiting" in two.text("#status")  # one edit at a time
    one.click("button#stop")
    one.waits_for("stopped after")
    two.waits_for("done")
    assert "red hat" in two.text("#stage")
    assert "red hat" not in one.text("#stage")


def test_a_reload_in_the_middle_of_an_edit(visitors: tuple[Visitor, Visitor], picture: Path) -> None:
    visitor, other = visitors
    visitor.ask(picture, "a cat wearing a big hat", LONG)
    visitor.click("#words input[name=cat]")
    visitor.click("button#edit")
    visitor.waits_for(f"of {LONG}")
    edits = len(visitor.driver.find_elements(By.CSS_SELECTOR, "#runs button.thumbnail-item"))
    visitor.again()
    visitor.until(lambda: picture.name in visitor.text("#sized"))
    assert (visitor.value("#source"), visitor.value("#target")) == ("a cat", "a cat wearing a big hat")
    visitor.click("#settings > button")
    visitor.until(lambda: visitor.value("#steps") == str(LONG))
    boxes = visitor.driver.find_elements(By.CSS_SELECTOR, "#words input:checked")
    assert [box.get_attribute("name") for box in boxes] == ["cat", "hat"]
    assert len(visitor.driver.find_elements(By.CSS_SELECTOR, "#runs button.thumbnail-item")) == edits
    assert not visitor.free
    first = visitor.picture()
    visitor.until(lambda: visitor.picture() != first)  # it goes on, and is seen to
    visitor.driver.set_network_conditions(offline=True, latency=0, throughput=0)  # as while a laptop sleeps
    try:
        visitor.until(lambda: "Connection" in visitor.text("body"))
        visitor.until(lambda: "cannot be reached" in visitor.text("#status"))  # and not for ever at the same step
    finally:
        visitor.driver.delete_network_conditions()
    visitor.until(lambda: "Connection to the server was lost" not in visitor.text("body"))
    visitor.until(lambda: visitor.value("#tab") and f"of {LONG}" in visitor.text("#status"))
    visitor.click("button#stop")
    visitor.waits_for("stopped after")
    visitor.again()
    visitor.waits_for("stopped after")
    assert "big hat" in visitor.text("#stage")
    assert "big hat" not in other.text("#stage")


def test_two_tabs_do_not_mix(visitors: tuple[Visitor, Visitor]) -> None:
    visitor, _ = visitors
    mine = visitor.value("#tab")
    first, before = visitor.driver.current_window_handle, set(visitor.driver.window_handles)
    visitor.driver.execute_script("window.open(location.href)")  # which copies the tab's storage, as duplicating it does
    visitor.until(lambda: set(visitor.driver.window_handles) - before)
    visitor.driver.switch_to.window((set(visitor.driver.window_handles) - before).pop())
    visitor.until(lambda: visitor.value("#tab"))
    assert visitor.value("#tab") != mine
    assert visitor.value("#target") == ""
    visitor.driver.close()
    visitor.driver.switch_to.window(first)
    visitor.again()
    assert visitor.value("#tab") == mine


def test_one_who_leaves_makes_room(
    visitors: tuple[Visitor, Visitor], picture: Path, browsers: Callable, address: str, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setattr(visitors_module, "MINUTE", 1.0)
    leaving, staying = Visitor(browsers(), address), visitors[0]
    leaving.ask(picture, "a cat wearing a hat", LONG)
    leaving.click("button#edit")
    leaving.waits_for("step ")
    leaving.driver.get("about:blank")
    staying.ask(picture, "a cat wearing a hat", 2)
    staying.click("button#edit")
    staying.waits_for("done")
    leaving.driver.back()  # what was made until then is kept
    leaving.waits_for("stopped after")


def test_the_keyboard_and_those_who_hear_the_page(visitors: tuple[Visitor, Visitor]) -> None:
    visitor, _ = visitors
    for css in ("#scenes button.thumbnail-item", "#runs button.thumbnail-item", "#methods .token-remove"):
        names = [each.get_attribute("aria-label") for each in visitor.driver.find_elements(By.CSS_SELECTOR, css)]
        assert names
        assert not any(name is None or name.startswith("Thumbnail") for name in names), css
    pictures = visitor.driver.find_elements(By.CSS_SELECTOR, "#stage img, #scenes img, #picture img")
    assert not [
        shown.get_attribute("outerHTML")[-300:] for shown in pictures if shown.is_displayed() and not shown.get_attribute("alt")
    ]
    assert [len(visitor.driver.find_elements(By.TAG_NAME, tag)) for tag in ("h1", "h2")] == [1, 3]
    for css in ("#source :is(textarea, input)", "#methods input"):
        visitor.find(css).send_keys("")
        places = "[document.activeElement, document.activeElement.closest('#methods .wrap')].filter(e => e)"
        assert "solid" in visitor.driver.execute_script(f"return {places}.map(e => getComputedStyle(e).outlineStyle)")


def test_accessibility(visitors: tuple[Visitor, Visitor]) -> None:
    for visitor in visitors:
        assert serious_findings(visitor.driver) == []


def test_nothing_is_fetched_from_elsewhere(visitors: tuple[Visitor, Visitor], address: str) -> None:
    hosts, messages = set(), []
    for visitor in visitors:
        for entry in visitor.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                hosts |= {url.split("/")[2]} if url.startswith(("http", "ws")) else set()
        log = [entry["message"] for entry in visitor.driver.get_log("browser") if entry["level"] == "SEVERE"]
        messages += [message for message in log if "ERR_INTERNET_DISCONNECTED" not in message]  # as the test of a reload wants it
    assert hosts == {address.split("/")[2]}
    assert not messages
