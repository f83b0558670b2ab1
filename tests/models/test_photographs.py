"""A model of drawn scenes says in one line that it is none of photographs, and which one is."""

from pathlib import Path

import pytest
from PIL import Image

import sdist
from sdist.edits.request import Request
from sdist.models import photographs
from sdist.models.photographs import ALIAS, CARD, DOWNLOAD

ROOT = Path(sdist.__file__).parent.parent


@pytest.mark.parametrize(
    ("model", "size", "lines"), [("tinyworld", (200, 128), 1), ("tinyworld", (128, 128), 0), (None, (200, 128), 0)]
)
def test_a_photograph_on_tinyworld(
    tiny_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str | None, size: tuple[int, int], lines: int
) -> None:
    photographs._report.cache_clear()
    Image.new("RGB", size, "gray").save(tmp_path / "photo.png")
    method = sdist.load("dds", model or tiny_folder)
    for target in ("a dog", "a hat"):
        method.prepare(Request(tmp_path / "photo.png", "a cat", target))
    said = [line for line in caplog.messages if "knows drawn scenes" in line]
    assert len(said) == lines
    for line in said:
        assert line == (
            "the model tinyworld knows drawn scenes of 128 x 128 pixels only; for a photograph: "
            "sdist edit ... --model sd15 (a download of 4.3 GB, 8 GB of GPU memory)"
        )


def test_the_sizes_are_those_of_the_page() -> None:
    (row,) = (line for line in (ROOT / "docs" / "models.md").read_text().splitlines() if f"`{ALIAS}` |" in line)
    _, _, denoiser, text, vae, full, *_ = (cell.strip() for cell in row.split("|"))
    assert abs(4 * sum(float(count.split()[0]) for count in (denoiser, text, vae)) - DOWNLOAD) < 0.1
    assert full.endswith(f"{CARD} GB")
