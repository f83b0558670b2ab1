"""The extensions of docs/extending.md, each as a file of one's own."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdist import plugins
from sdist.cli import main
from sdist.registry import SLOTS

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "extending.md").read_text(encoding="utf-8")
FILES = {name: text for text, name in re.findall(r"```(?:python|yaml)\n(# (my_\w+\.(?:py|yaml))\n.*?)```", PAGE, re.DOTALL)}

OWN = {
    "mask source": "my_mask.py",
    "editor": "my_editor.py",
    "metric": "my_metric.py",
    "family of models": "my_family.py",
    "data set": "my_dataset.py",
}


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


def test_the_lines_that_the_page_names_are_counted() -> None:
    """Of code: neither blank nor a comment."""
    tutorial = (DOCS / "write_a_loss.md").read_text(encoding="utf-8")
    sections = {"loss": re.search(r"```python\n(.*?)```", tutorial, re.DOTALL)[1]}
    sections |= {name: FILES[file] for name, file in OWN.items()}
    named = dict(re.findall(r"^\| \[([\w ]+)\]\(.*?\) \| `\S+` \| (\d+) \|", PAGE, re.MULTILINE))
    code = {name: [line for line in text.splitlines() if line.strip() and line[0] != "#"] for name, text in sections.items()}
    assert named == {name: str(len(lines)) for name, lines in code.items()}


def made(page: Path, end: str = ".png") -> Path:
    """A file of the one result."""
    (path,) = (page / "out").glob(f"picture_*_seed0{end}")
    return path


def edit(page: Path, picture: Path, model: Path, *more: str) -> dict:
    """The run card of an edit with that plugin and method."""
    plugin, method, *settings = more
    arguments = ["edit", str(picture), "--source", "a cat", "--target", "a cat wearing a hat", "--model", str(model)]
    arguments += ["--plugin", str(page / plugin), "--method", str(page / method), "--output", str(page / "out"), "--quiet"]
    assert main([*arguments, *(["--set", *settings] if settings else [])]) == 0
    return json.loads(made(page, ".json").read_text())


def test_the_mask_source(page: Path, picture: Path, tiny_folder: Path) -> None:
    card = edit(page, picture, tiny_folder, "my_mask.py", "my_method.yaml", "steps=3")
    assert card["settings"]["regularizers"]["changed_mask"]["momentum"] == 0.2
    panel, image = (Image.open(made(page, end)) for end in ("_panel.png", ".png"))
    assert panel.width > 3 * image.width  # source, mask, edit


def test_the_editor(page: Path, picture: Path, tiny_folder: Path) -> None:
    card = edit(page, picture, tiny_folder, "my_editor.py", "my_editor.yaml", "editor.steps=4")
    assert card["settings"]["editor"]["solver"]["name"] == "ddim"
    assert main(["replay", str(made(page)), "--quiet"]) == 0


def test_the_family(page: Path, picture: Path, tiny_folder: Path) -> None:
    folder = shutil.copytree(tiny_folder, page / "flow", ignore=shutil.ignore_patterns("unet", "model_index.json"))
    parts = json.loads((tiny_folder / "model_index.json").read_text())
    parts = {name: part for name, part in parts.items() if name != "unet"} | {"transformer": ["my_family", "MyTransformer"]}
    (folder / "model_index.json").write_text(json.dumps(parts))
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("DDPMScheduler", "FlowMatchEulerDiscreteScheduler"))
    plugins.load_plugin(str(page / "my_family.py"))
    sys.modules["sdist_plugin_my_family"].MyTransformer().save_pretrained(folder / "transformer")
    (page / "dds.yaml").write_text("base: dds\nsteps: 2\n")
    card = edit(page, picture, folder, "my_family.py", "dds.yaml")
    assert card["plugins"]
    assert Image.open(made(page)).size == (32, 32)


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


@pytest.mark.parametrize(
    ("file", "listed"),
    {
        "my_mask.py": ("regularizer", "changed_mask", "M = |z - z_src| averaged over channels, scaled to 0..1."),
        "my_metric.py": ("metric", "brightness_shift", "How far the mean grey value of the image moved, in 0..255."),
        "my_family.py": ("family", "my_flow", ""),
        "my_dataset.py": ("dataset", "pairs_json", "pairs.json: a list of {key, image, source, target}, images beside it."),
    }.items(),
)
def test_methods_lists_it_among_the_others(page: Path, capsys, file: str, listed: tuple[str, str, str]) -> None:
    slot, name, about = listed
    assert main(["methods", "--plugin", str(page / file), "--json"]) == 0
    components = json.loads(capsys.readouterr().out)["components"][slot]
    assert len(components) > 1
    assert components[name]["about"] == about
