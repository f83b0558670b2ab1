"""The extensions of docs/extending.md, each as a file of one's own."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sdist import plugins
from sdist.cli import main
from sdist.registry import SLOTS

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = {name: text for text, name in re.findall(r"```(?:python|yaml)\n(# (my_\w+\.(?:py|yaml))\n.*?)```", PAGE, re.DOTALL)}


@pytest.fixture(autouse=True)
def page(tmp_path: Path, monkeypatch) -> Path:
    """The files of the page in a folder; what they register is forgotten afterwards."""
    for registry in SLOTS.values():
        registry.names()
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(plugins, "_loaded", {})
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def edit(page: Path, picture: Path, model: Path, *more: str) -> dict:
    """The run card of an edit with that plugin and method."""
    plugin, method, *settings = more
    arguments = ["edit", str(picture), "--source", "a cat", "--target", "a cat wearing a hat", "--model", str(model)]
    arguments += ["--plugin", str(page / plugin), "--method", str(page / method), "--output", str(page / "out"), "--quiet"]
    assert main([*arguments, *(["--set", *settings] if settings else [])]) == 0
    return json.loads((page / "out" / "picture_seed0.json").read_text())


def test_the_mask_source(page: Path, picture: Path, tiny_folder: Path) -> None:
    card = edit(page, picture, tiny_folder, "my_mask.py", "my_method.yaml", "steps=3")
    assert card["settings"]["regularizers"]["changed_mask"]["momentum"] == 0.2
    panel, image = (Image.open(page / "out" / f"picture_seed0{end}.png") for end in ("_panel", ""))
    assert panel.width > 3 * image.width  # source, mask, edit


def test_the_editor(page: Path, picture: Path, tiny_folder: Path) -> None:
    card = edit(page, picture, tiny_folder, "my_editor.py", "my_editor.yaml", "editor.steps=4")
    assert card["settings"]["editor"]["solver"] == {"name": "ddim"}
    assert main(["replay", str(page / "out" / "picture_seed0.png"), "--quiet"]) == 0


def test_the_data_set(page: Path, picture: Path, tiny_folder: Path) -> None:
    (page / "data").mkdir()
    picture.rename(page / "data" / "a.png")
    pairs = [{"key": "first", "image": "a.png", "source": "a cat", "target": "a dog"}]
    (page / "data" / "pairs.json").write_text(json.dumps(pairs))
    arguments = ["run", "--input", f"pairs_json:{page / 'data'}", "--output", str(page / "out"), "--method", "dds", "--quiet"]
    arguments += ["--model", str(tiny_folder), "--steps", "2", "--plugin", str(page / "my_dataset.py")]
    assert main(arguments) == 0
    assert (page / "out" / "first_seed0.png").is_file()


def test_the_metric(page: Path, picture: Path, capsys) -> None:
    (page / "data" / "images").mkdir(parents=True)
    picture.rename(page / "data" / "images" / "a.png")
    (page / "data" / "index.csv").write_text("img_path,source_prompt,target_prompt\na.png,a cat,a dog\n")
    (page / "results").mkdir()
    Image.new("RGB", (32, 32), "black").save(page / "results" / "000.png")
    arguments = ["evaluate", "--dataset", f"index:{page / 'data'}", "--results", str(page / "results"), "--clip", "tinyworld"]
    arguments += ["--output", str(page / "scores"), "--quiet", "--plugin", str(page / "my_metric.py")]
    assert main(arguments) == 0
    assert "brightness_shift" in capsys.readouterr().out
