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
from sdist.datasets.base import load_dataset
from sdist.errors import UserError
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
    parts["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
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
    ("change", "settings", "message"),
    [
        ("", ["editor.factor=0"], "editor coarse in --set editor.factor=0: factor is a whole number of at least 1, got 0"),
        ("", ["editor.solver=null"], "editor coarse in --set editor.solver=null: solver cannot be null; without it, it is ddim"),
        ("", ["editor.guidance=[1]"], "guidance must be a number, got [1]"),
        (
            "noises.of_level(0)",
            [],
            "editor Coarse: ZeroDivisionError: division by zero (my_editor.py:",
        ),
        ("model.text.token_ids(request.target)", [], "editor Coarse: ZeroDivisionError: division by zero (my_editor.py:"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_mistakes_of_an_editor(
    page: Path, picture: Path, tiny_folder: Path, capsys, change: str, settings: list[str], message: str
) -> None:
    if change:
        path = page / "my_editor.py"
        path.write_text(path.read_text().replace(change, "1 / 0"))
    arguments = ["edit", str(picture), "--target", "a dog", "--model", str(tiny_folder), "--output", str(page / "out")]
    arguments += ["--plugin", str(page / "my_editor.py"), "--method", str(page / "my_editor.yaml"), "--quiet"]
    assert main([*arguments, "--set", "editor.steps=4", *settings]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ('[{"key": "first", "source": "a cat", "target": "a dog"}]', "pair 0 has no text 'image'"),
        ('[{"key": 3, "image": "a.png", "source": "a cat", "target": "a dog"}]', "pair 0 has no text 'key'"),
        ('[{"key": "a", "image": "../a.png", "source": "a", "target": "b"}]', "'../a.png' leaves the folder"),
        ("[3]", "dataset PairsJson: AttributeError: 'int' object has no attribute 'get' (base.py:"),
        ("{}", "pairs.json holds a dict, needs a list"),
        ("[", "pairs.json cannot be read"),
        (None, "pairs.json does not exist"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_mistakes_in_a_data_set(page: Path, tiny_folder: Path, capsys, pairs: str | None, message: str) -> None:
    (page / "data").mkdir()
    if pairs is not None:
        (page / "data" / "pairs.json").write_text(pairs)
    arguments = ["run", "--input", f"pairs_json:{page / 'data'}", "--output", str(page / "out"), "--method", "dds", "--quiet"]
    assert main([*arguments, "--model", str(tiny_folder), "--plugin", str(page / "my_dataset.py")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("[record for record in [1]]", "pair 0 is 1 (int), must be a Pair"),
        ("[Pair(3, folder, 'a', 'b')]", "pair 0: key must be text, got 3 (int)"),
        ("[Pair('a', str(folder), 'a', 'b')]", "pair 0: image must be a path, got"),
        ("None", "dataset PairsJson: TypeError: 'NoneType' object is not iterable"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_mistakes_of_a_data_set(page: Path, capsys, result: str, message: str) -> None:
    (page / "data").mkdir()
    path = page / "my_dataset.py"
    (page / "my_dataset.py").write_text(path.read_text().replace("        pairs = []\n", f"        return {result}\n"))
    plugins.load_plugin(str(path))
    with pytest.raises(UserError, match=re.escape(message)):
        load_dataset(f"pairs_json:{page / 'data'}")


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
