import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sdist
from sdist import plugins
from sdist.cli import main
from sdist.config.build import load_settings
from sdist.edits import stored_results
from sdist.errors import UserError
from sdist.registry import LOSSES

HALF = """
from dataclasses import dataclass
from sdist import LOSSES
from sdist.losses.sbp import SBP

@LOSSES.register("half")
@dataclass(frozen=True)
class Half(SBP):
    def gradient(self, p):
        return super().gradient(p) / 2
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch) -> Path:
    """A file with a loss of one's own; what it registers is forgotten afterwards."""
    LOSSES.names()
    monkeypatch.setattr(LOSSES, "_classes", dict(LOSSES._classes))
    monkeypatch.setattr(plugins, "_loaded", {})
    path = tmp_path / "my_loss.py"
    path.write_text(HALF)
    return path


def forget(monkeypatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(LOSSES, "_classes", {n: c for n, c in LOSSES._classes.items() if n != "half"})
    monkeypatch.setattr(plugins, "_loaded", {})
    stored_results._recorded_settings.cache_clear()


def test_a_file_of_ones_own_edits_and_replays(
    plugin: Path, picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys
):
    shared = ["edit", str(picture), "--source", "a cat", "--target", "a dog", "--model", str(tiny_folder), "--method", "sbp"]
    shared += ["--set", "loss=half", "steps=2", "--quiet", "--output", str(tmp_path / "out")]
    assert main(shared) == 2
    assert "unknown loss 'half'" in capsys.readouterr().err
    assert main([*shared, "--plugin", str(plugin)]) == 0
    image = tmp_path / "out" / "picture_sbp_a-dog_seed0.png"
    assert list(json.loads(image.with_suffix(".json").read_text())["plugins"]) == [str(plugin)]
    forget(monkeypatch)
    assert main(["replay", str(image), "--quiet"]) == 2
    assert f"was made with --plugin {plugin}" in capsys.readouterr().err
    assert main(["replay", str(image), "--quiet", "--plugin", str(plugin)]) == 0
    forget(monkeypatch)
    plugin.write_text(HALF + "# other\n")
    assert main(["replay", str(image), "--plugin", str(plugin)]) == 0
    assert "identical" in capsys.readouterr().out


def test_a_card_names_the_plugins_that_were_used(
    plugin: Path, picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """Of all that are loaded: what brought a component of the settings, or a class that one of them is made of."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_base.py").write_text(HALF.replace('"half"', '"my_base"'))
    quarter = (
        "from sdist import LOSSES\nfrom my_base import Half\n\n@LOSSES.register('quarter')\nclass Quarter(Half):\n    pass\n"
    )
    (tmp_path / "quarter.py").write_text(quarter)
    (tmp_path / "empty.py").write_text("")
    plugins.load_plugins([str(plugin), "my_base", str(tmp_path / "quarter.py"), str(tmp_path / "empty.py")])
    used = {"sbp": [], "half": ["my_loss.py"], "my_base": ["my_base"], "quarter": ["my_base", "quarter.py"]}
    for loss, names in used.items():
        result = sdist.edit(picture, "a cat", "a dog", model=str(tiny_folder), method="sbp", settings={"loss": loss, "steps": 1})
        assert [Path(name).name for name in result.card.get("plugins", {})] == names
    sys.modules.pop("my_base")


def test_settings_bring_their_plugins_to_another_process(plugin: Path, monkeypatch) -> None:
    plugins.load_plugin(str(plugin))
    settings = load_settings("sbp", ["loss=half"])
    sent, plain = pickle.dumps(settings), settings.plain()
    forget(monkeypatch)
    assert pickle.loads(sent).plain() == plain
    assert "half" in LOSSES.names()


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "does not exist"), ("1 / 0", "cannot be loaded: ZeroDivisionError"), ("raise SystemExit(3)", "loaded: SystemExit")],
)
def test_bad_plugins_are_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        plugins.load_plugin(str(path))


def test_a_plugin_that_changed_needs_a_new_process(plugin: Path) -> None:
    plugins.load_plugin(str(plugin))
    plugins.load_plugin(str(plugin))
    plugin.write_text("")
    with pytest.raises(UserError, match="has changed since it was loaded"):
        plugins.load_plugin(str(plugin))
    with pytest.raises(UserError, match="plugin no_such_module cannot be loaded"):
        plugins.load_plugin("no_such_module")


@pytest.mark.parametrize("named", ["my_loss.py", "my_losses.my_loss"], ids=["file", "module"])
def test_a_plugin_that_failed_halfway_can_be_mended_and_tried_again(plugin: Path, monkeypatch, named: str) -> None:
    monkeypatch.syspath_prepend(str(plugin.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = plugin if named.endswith(".py") else plugin.parent / "my_losses" / plugin.name
    path.parent.mkdir(exist_ok=True)
    path.write_text(HALF + "1 / 0\n")
    for _ in range(2):
        with pytest.raises(UserError, match="cannot be loaded: ZeroDivisionError"):
            plugins.load_plugin(str(path) if path is plugin else named)
        assert "half" not in LOSSES.names()
        assert "sbp" in LOSSES.names()
    path.write_text(HALF)
    plugins.load_plugin(str(path) if path is plugin else named)
    assert "half" in LOSSES.names()


def test_two_plugins_of_one_file_name_are_one_line(plugin: Path) -> None:
    plugins.load_plugin(str(plugin))
    other = plugin.parent / "other" / plugin.name
    other.parent.mkdir()
    other.write_text("")
    with pytest.raises(UserError, match=f"plugin {other} has the file name of {plugin}, which is loaded; rename one of them"):
        plugins.load_plugin(str(other))


def run_arguments(folder: Path, model: Path, *plugin: Path) -> list[str]:
    arguments = ["run", "--input", str(folder), "--output", str(folder / "out"), "--model", str(model), "--method", "sbp"]
    return [*arguments, "--steps", "2", "--quiet", *(word for path in plugin for word in ("--plugin", str(path)))]


@pytest.fixture
def listed(picture: Path, tmp_path: Path) -> Path:
    """A folder with one pair to edit."""
    folder = tmp_path / "listed"
    (folder / "images").mkdir(parents=True)
    shutil.copy(picture, folder / "images" / "a.png")
    (folder / "index.csv").write_text("img_path,source_prompt,target_prompt\na.png,a cat,a dog\n")
    return folder


def test_a_run_goes_on_with_the_plugins_that_its_results_were_made_with(
    plugin: Path, listed: Path, tiny_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    half = ["--set", "loss=half"]
    assert main([*run_arguments(listed, tiny_folder, plugin), *half]) == 0
    forget(monkeypatch)
    (tmp_path / "moved").mkdir()
    moved = shutil.move(plugin, tmp_path / "moved" / plugin.name)
    unrelated = tmp_path / "unrelated.py"
    unrelated.write_text("")
    capsys.readouterr()
    assert main([*run_arguments(listed, tiny_folder, moved, unrelated), *half]) == 0
    assert "0 of 1 made, 1 already there" in capsys.readouterr().out
    forget(monkeypatch)
    moved.write_text(HALF + "# other\n")
    assert main([*run_arguments(listed, tiny_folder, moved), *half]) == 2
    assert "a_seed0.png was made with different my_loss.py; --changed" in capsys.readouterr().err


def test_results_of_a_component_that_is_not_loaded_are_not_taken_for_foreign_pictures(
    plugin: Path, listed: Path, tiny_folder: Path, monkeypatch, capsys
) -> None:
    assert main([*run_arguments(listed, tiny_folder, plugin), "--set", "loss=half"]) == 0
    forget(monkeypatch)
    assert main(run_arguments(listed, tiny_folder)) == 2
    assert f"a_seed0.png was made with --plugin {plugin}; give the same here" in capsys.readouterr().err
    path = listed / "out" / "a_seed0.json"
    card = json.loads(path.read_text())
    del card["plugins"]  # as of an installed package that is gone
    path.write_text(json.dumps(card))
    assert main(run_arguments(listed, tiny_folder)) == 2
    assert "a_seed0.png: run card: unknown loss 'half'" in capsys.readouterr().err


def test_a_plugin_that_takes_a_name_is_the_one_to_blame(tmp_path: Path) -> None:
    """Also in a process that has looked for no component yet."""
    (tmp_path / "taken.py").write_text(
        "from sdist import LOSSES, Loss\n\n\n@LOSSES.register('sbp')\nclass Mine(Loss):\n    pass\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "sdist", "methods", "--plugin", str(tmp_path / "taken.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("taken.py cannot be loaded: ValueError: loss 'sbp' is already SBP")


def test_python_takes_plugins_too(plugin: Path, picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    given = {"method": "sbp", "model": str(tiny_folder), "settings": ["loss=half", "steps=1"]}
    with pytest.raises(UserError, match=r"unknown loss 'half'.*in Python with plugins=\[\.\.\.\]"):
        sdist.load(**given)
    assert type(sdist.load(**given, plugins=[plugin]).settings.editor.loss).__name__ == "Half"
    forget(monkeypatch)
    result = sdist.edit(picture, "a cat", "a dog", **given, plugins=[str(plugin)])
    assert [*result.card["plugins"]] == [str(plugin)]
    forget(monkeypatch)
    (tmp_path / "images").mkdir()
    shutil.copy(picture, tmp_path / "images" / "a.png")
    (tmp_path / "index.csv").write_text("img_path,source_prompt,target_prompt\na.png,a cat,a dog\n")
    assert sdist.run(tmp_path, tmp_path / "out", **given, plugins=[plugin]).made == 1
