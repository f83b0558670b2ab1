"""The Space, the image for Docker and the notebook for Colab: their commands are sdist's, and what they run runs."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import sdist
from sdist.cli import parser

ROOT = Path(__file__).parent.parent.parent
SETTINGS = 'settings={"scale": {"threshold": 0.01, "cross_level": 1, "self_level": 0}}'


def test_the_space_is_the_studio_in_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[list[str]]()
    monkeypatch.setattr("sdist.cli.main", lambda argv: asked.append(argv) or 0)
    monkeypatch.setenv("SDIST_APP", "--model sd15 --queue 4")
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "integrations" / "space" / "app.py"), run_name="__main__")
    args = parser().parse_args(asked[0])
    assert (args.frames, args.host, args.model, args.queue) == (["https://huggingface.co"], "0.0.0.0", "sd15", 4)


def test_the_space_installs_the_wheel_of_this_version() -> None:
    text = (ROOT / "integrations" / "space" / "requirements.txt").read_text(encoding="utf-8")
    assert f"./sdist-{sdist.__version__}-py3-none-any.whl[" in text


def test_the_image_runs_the_studio_if_nothing_else_is_asked() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (entry,), (command,) = (re.findall(rf"^{name} (\[.*\])$", text, re.MULTILINE) for name in ("ENTRYPOINT", "CMD"))
    assert json.loads(entry) == ["sdist"]
    assert parser().parse_args(json.loads(command)).host == "0.0.0.0"
    assert "ARG TORCH=https://download.pytorch.org/whl/cpu" in text
    extras = re.findall(r'"\.\[([\w,]+)\]"', text)[0].split(",")
    declared = (ROOT / "setup.cfg").read_text(encoding="utf-8").partition("[options.extras_require]")[2]
    assert all(re.search(rf"^{extra} ?=", declared, re.MULTILINE) for extra in extras)


@pytest.mark.full_width
@pytest.mark.skipif(shutil.which("docker") is None, reason="an image is built where docker is")
def test_the_image_edits(tmp_path: Path) -> None:
    subprocess.run(["docker", "build", "-q", "-t", "sdist-test", "."], cwd=ROOT, check=True, timeout=3600)
    shutil.copyfile(ROOT / "assets" / "demo.png", tmp_path / "demo.png")
    edit = ["edit", "demo.png", "--source", "a field of snow", "--target", "a red balloon in the snow", "--steps", "2"]
    subprocess.run(["docker", "run", "--rm", "-v", f"{tmp_path}:/work", "sdist-test", *edit], check=True, timeout=600)
    assert list(tmp_path.glob("outputs/*_seed0.png"))


def test_the_notebook_edits(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its cells but the one that installs, with the model, the size and the steps of a test."""
    notebook = nbformat.read(ROOT / "integrations" / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    install, *rest = (cell.source for cell in cells)
    assert "%pip install" in install
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    code = (
        "\n".join(rest)
        .replace('"sd15", None', f'"{tiny_folder}", 2')
        .replace("steps=STEPS, keep", f"steps=STEPS, {SETTINGS}, keep")
    )
    exec(code, {})
    with Image.open(tmp_path / "edited.png") as edited:
        assert edited.size == (90, 60)
