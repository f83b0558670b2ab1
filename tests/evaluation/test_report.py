"""report.html: written from evaluations, and used in a real browser."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sdist.cli import main
from sdist.evaluation.folder import Evaluation, ScoredPair, to_json
from sdist.evaluation.page import PLACE, TEMPLATE, report_page, visible
from sdist.evaluation.published import load_published
from sdist.evaluation.summary import summarize_table

from ..browser import browser, browsers, open_page, serious_findings, wait_until  # noqa: F401

HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\u202eesrever\x07 <!-- {{data}} \ud800"
)
PAIRS = 30  # more than the page shows at first


def flat(path: Path, colour: str, size: tuple[int, int] = (40, 20)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return str(path)


def evaluation(folder: Path, colour: str, seed: int) -> Evaluation:
    """Red sources, edits of that colour; scores are noise, the fourth is undefined and the fifth infinite."""
    keys, rng = [f"{i:03d}" for i in range(PAIRS)], np.random.default_rng(seed)
    category = ["add" if i % 3 else "<b>change</b>" for i in range(PAIRS)]
    scores = {"category": category, "clip_t": rng.random(PAIRS), "clip_r": 1 + rng.random(PAIRS), "psnr": rng.random(PAIRS)}
    table = pd.DataFrame(scores, index=pd.Index(keys, name="key"))
    table.loc["003", "psnr"], table.loc["004", "psnr"] = np.nan, np.inf
    source, truth = flat(folder / "source.png", "red"), flat(folder / "truth.png", "green")
    edit = flat(folder / f"{colour}.png", colour)
    shown = {key: ScoredPair("a red cat", HOSTILE if key == "001" else f"a blue cat {key}", source, edit, truth) for key in keys}
    shown["002"] = shown["002"]._replace(result=None)
    return Evaluation(table, summarize_table(table, "clean"), "clean", shown)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evaluation]:
    folder = tmp_path_factory.mktemp("report") / "pictures"
    return {"lusd": evaluation(folder, "blue", 0), "dds": evaluation(folder, "yellow", 1)}


@pytest.fixture(scope="module")
def report(evaluations: dict[str, Evaluation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(report_page(evaluations, [load_published("lusd_table_3")]))
    return path


def data_of(page: bytes) -> dict:
    found = re.search(rb'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_page_holds_all_and_reaches_for_nothing(evaluations: dict[str, Evaluation]) -> None:
    page = report_page(evaluations)
    data = data_of(page)
    assert len(data["pairs"]) == PAIRS
    assert len(data["pictures"]) == 4  # each file once
    assert data["pairs"][2]["edits"] == [None, None]
    assert data["pairs"][3]["scores"][0][2] is None
    assert data["pairs"][4]["scores"][0][2] == "Infinity"
    assert page.count(b"<script") == 2
    template = TEMPLATE.read_text()
    assert template.count(PLACE) == 1
    assert not re.search(r"https?:|//\w|url\(|@import|innerHTML|\bsrc: (?!`data:)|src=|href=", template)


def test_the_heading_names_few_evaluations_and_counts_many(evaluations: dict[str, Evaluation]) -> None:
    one, other = evaluations.values()
    assert data_of(report_page({"lusd": one}))["title"] == "lusd"
    assert data_of(report_page(evaluations))["title"] == "lusd and dds"
    assert data_of(report_page({"a": one, "b": other, "c": one}))["title"] == "3 evaluations compared"


def test_a_prompt_leaves_no_markup_in_the_file(evaluations: dict[str, Evaluation]) -> None:
    page = report_page(evaluations)
    assert b"hacked = 1</script>" not in page
    assert not re.search("[\u202e\x07\ud800]", page.decode())
    prompt = data_of(page)["pairs"][1]["prompts"][1]
    assert prompt.endswith("⟨U+202E⟩esrever⟨U+0007⟩ <!-- {{data}} ⟨U+D800⟩")
    assert visible("naïve café, 猫, שלום, 👩‍🚀") == "naïve café, 猫, שלום, 👩‍🚀"


def test_pictures_that_were_moved_are_left_out_and_told(
    evaluations: dict[str, Evaluation], tmp_path: Path, caplog, capsys
) -> None:
    for name, evaluation in evaluations.items():
        scores = tmp_path / "scores" / name
        scores.mkdir(parents=True)
        evaluation.per_image.to_csv(scores / "per_image.csv")
        evaluation.summary.to_csv(scores / "summary.csv")
        (scores / "evaluation.json").write_text(to_json(evaluation))
    folders, output = [str(tmp_path / "scores" / name) for name in evaluations], tmp_path / "both"
    assert main(["compare", *folders, "--output", str(output)]) == 0
    assert data_of((output / "report.html").read_bytes()) == data_of(report_page(evaluations))
    assert not caplog.messages
    pictures = Path(evaluations["lusd"].pairs["000"].source).parent
    moved = pictures.rename(tmp_path / "elsewhere")
    code = main(["compare", *folders, "--output", str(output)])
    moved.rename(pictures)  # the evaluations are shared with the other tests
    assert code == 0
    assert any("lacks 4 pictures that were moved or cannot be read, the first is" in message for message in caplog.messages)
    data = data_of((output / "report.html").read_bytes())
    assert (data["lost"], data["pictures"], data["pairs"][0]["edits"]) == (4, [], [-1, -1])
    assert data["pairs"][0]["scores"][0][0] == pytest.approx(evaluations["lusd"].per_image["clip_t"].iloc[0], abs=1e-6)


@pytest.fixture
def page(report: Path, browser):  # noqa: F811
    """The report in the browser, freshly loaded."""
    open_page(browser, report)
    return browser


def keys_of(page) -> list[str]:
    return page.execute_script("return [...document.querySelectorAll('.pair')].map(node => node.dataset.key)")


def choose(page, name: str, label: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(page.find_element("name", name)).select_by_visible_text(label)


def cuts(page) -> list[str]:
    return page.execute_script(
        "return [...document.querySelectorAll('.pair:first-child .slider')].map(node => node.style.getPropertyValue('--cut'))"
    )


def test_dragging_uncovers_the_source_under_all_edits_of_a_pair(page) -> None:
    from selenium.webdriver import ActionChains

    first = page.find_element("css selector", ".slider")
    quarter = first.size["width"] // 4
    ActionChains(page).move_to_element(first).click_and_hold().move_by_offset(quarter, 0).release().perform()
    assert cuts(page) == ["75%", "75%"]
    colour = pixel(page, first, 0.5), pixel(page, first, 0.9)
    assert [np.argmax(c) for c in colour] == [0, 2]  # red source, blue edit
    ActionChains(page).move_to_element(first).perform()  # without a button nothing moves
    assert cuts(page) == ["75%", "75%"]


def pixel(page, element, across: float) -> np.ndarray:
    from io import BytesIO

    image = np.asarray(Image.open(BytesIO(element.screenshot_as_png)).convert("RGB"))
    return image[image.shape[0] // 4, int(across * image.shape[1])]


def test_sliders_follow_the_keys(page) -> None:
    page.find_element("css selector", ".slider input").send_keys("\ue014" * 3)  # the right arrow
    assert cuts(page) == ["3%", "3%"]


def test_sorting_by_a_score(page, evaluations: dict[str, Evaluation]) -> None:
    choose(page, "metric", "PSNR ↑")
    choose(page, "method", "dds")
    scores = evaluations["dds"].per_image["psnr"]
    for order, ascending in (("highest first", False), ("lowest first", True)):
        choose(page, "order", order)
        page.execute_script("document.querySelector('#more button').click()")
        assert keys_of(page) == list(scores.sort_values(ascending=ascending, na_position="last").index)
    choose(page, "metric", "CLIP-T ↑")
    choose(page, "method", "spread of methods")
    spread = (evaluations["lusd"].per_image["clip_t"] - evaluations["dds"].per_image["clip_t"]).abs()
    assert keys_of(page)[0] == spread.idxmin()


def test_filtering_by_category_and_text(page, evaluations: dict[str, Evaluation]) -> None:
    choose(page, "category", "<b>change</b> (10)")
    assert keys_of(page) == [f"{i:03d}" for i in range(0, PAIRS, 3)]
    assert page.find_element("id", "count").text == "10 of 30 pairs"
    mean = page.find_element("css selector", "#summary td span").text
    assert float(mean) == pytest.approx(evaluations["lusd"].per_image["clip_t"].iloc[::3].mean(), abs=1e-4)
    page.find_element("name", "search").send_keys("CAT 01")
    assert keys_of(page) == ["012", "015", "018"]


def test_published_rows_stand_apart_and_only_beside_their_own_group(page) -> None:
    def rows() -> list[str]:
        return [row.text for row in page.find_elements("css selector", "#summary .published tr")]

    assert rows()[0].startswith("published: LUSD (arXiv 2503.11054), Table 3")
    assert [row.split()[:2] for row in rows()[1:]] == [["DDS", "0.277"], ["CDS", "0.272"], ["LUSD", "0.287"]]
    choose(page, "category", "add (20)")
    assert rows() == []


def test_a_hostile_prompt_stays_text(page) -> None:
    shown = page.find_element("css selector", "[data-key='001'] .target").text
    assert shown == visible(HOSTILE)
    assert page.execute_script("return window.hacked") is None
    assert page.execute_script("return document.querySelectorAll('script').length") == 2


@pytest.mark.parametrize("width", [320, 400, 800, 2000])
def test_no_width_needs_sideways_scrolling(report: Path, browser, width: int) -> None:  # noqa: F811
    open_page(browser, report, width)
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")


def test_more_pairs_come_while_scrolling_and_nothing_is_complained_about(page) -> None:
    assert len(keys_of(page)) < PAIRS
    page.execute_script("scrollTo(0, document.documentElement.scrollHeight)")
    wait_until(lambda: len(keys_of(page)) == PAIRS)
    assert page.get_log("browser") == []


def test_accessibility(page) -> None:
    assert serious_findings(page) == []
