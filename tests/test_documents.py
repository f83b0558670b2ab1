"""What the documents show is run."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from sdist.cli import main, parser
from sdist.errors import UserError
from sdist.registry import FAMILIES, LOSSES, Registry, _report_foreign_groups, installed

ROOT = Path(__file__).parent.parent
LOSS, PYTHON = ROOT / "docs" / "write_a_loss.md", ROOT / "docs" / "python.md"


def block(page: Path, language: str) -> str:
    """The first block of code in that language."""
    return re.search(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[1]


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str, entry: str) -> None:
    """A package of someone else, as pip leaves it."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """The registry, asked anew; what is added to it in the test is gone afterwards."""
    LOSSES.names()
    monkeypatch.setattr(LOSSES, "_classes", dict(LOSSES._classes))
    monkeypatch.setattr(LOSSES, "_complete", False)
    yield LOSSES
    for name in ("capped_loss", "broken_loss"):
        sys.modules.pop(name, None)


def test_the_loss_of_the_tutorial_edits_a_picture_from_a_package_of_its_own(
    losses: Registry, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "capped_of_the_page"  # who follows the page has a loss of its name in the package
    source, yaml = (
        block(LOSS, "python").replace('"capped"', f'"{name}"'),
        block(LOSS, "yaml").replace("name: capped", f"name: {name}"),
    )
    install(tmp_path, monkeypatch, "capped_loss", source, f"[sdist.loss]\n{name} = capped_loss\n")
    (tmp_path / "capped.yaml").write_text(yaml)
    assert losses.get(name)().cap == 0.5
    picture = str(ROOT / "assets" / "demo.png")
    command = ["edit", picture, "--source", "a cat", "--target", "a dog", "--method", str(tmp_path / "capped.yaml")]
    assert main([*command, "--model", str(tiny_folder), "--steps", "2", "--output", str(tmp_path / "out"), "--quiet"]) == 0
    assert (tmp_path / "out" / "demo_capped_a-dog_seed0.png").is_file()
    with pytest.raises(UserError, match="cap must be above 0, got 0"):
        losses.get(name)(cap=0)


def test_the_python_of_the_page_runs(
    tiny_folder: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """With a tiny model, on the CPU, in a few steps."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", PYTHON.read_text(encoding="utf-8"), re.DOTALL))
    here = {
        '"sd15"': "MODEL",
        '"stable-diffusion-v1-5/stable-diffusion-v1-5"': "MODEL",
        "float16": "float32",
        "cuda": "cpu",
        "300": "3",
    }
    for shown, own in here.items():
        assert shown in code
        code = code.replace(shown, own)
    Image.open(picture).save(tmp_path / "photo.jpg")
    (tmp_path / "folder" / "images").mkdir(parents=True)
    Image.open(picture).save(tmp_path / "folder" / "images" / "photo.png")
    rows = "img_path,source_prompt,target_prompt\nphoto.png,a cat,a cat wearing a hat\n"
    (tmp_path / "folder" / "index.csv").write_text(rows)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, PYTHON.name, "exec"), {"MODEL": str(tiny_folder), "__name__": "page"})
    assert [Image.open(tmp_path / name).size for name in ("step0.png", "hat.png")] == [(32, 32)] * 2
    assert {path.name for path in (tmp_path / "results").glob("*_seed?.png")} == {"photo_seed3.png", "photo_seed4.png"}
    out = capsys.readouterr().out.splitlines()
    assert "2 made, 0 already there, 0 problems" in out
    assert "same latents: True" in out
    assert Image.open(tmp_path / "loop.png").size == (32, 32)
    assert out[-1] == "(1, 32, 32, 3) 2"


def test_a_package_that_cannot_be_imported_ends_nothing_but_its_own(
    losses: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog, capsys
) -> None:
    install(tmp_path, monkeypatch, "broken_loss", "1 / 0", "[sdist.loss]\nbroken = broken_loss\n")
    message = "loss 'broken' of the installed package broken_loss 1.0 cannot be loaded: ZeroDivisionError: division by zero"
    monkeypatch.setattr(losses, "broken", {})
    assert "dds" in losses.names()
    assert message in caplog.text
    with pytest.raises(UserError, match=message):
        losses.get("broken")
    with pytest.raises(UserError, match=f"unknown loss 'nothing': .*; {message}"):
        losses.get("nothing")
    assert message in installed()
    assert main(["methods"]) == 0
    assert main(["doctor"]) == 0
    assert message in capsys.readouterr().out


def test_an_entry_point_of_an_unknown_group_is_said(
    losses: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    install(tmp_path, monkeypatch, "lost_loss", "", "[sdist.losses]\nlost = lost_loss\n")
    _report_foreign_groups.cache_clear()
    assert "dds" in losses.names()
    line = "the installed package lost_loss 1.0 has 'lost' in the group sdist.losses, which is not read: unknown slot 'losses'"
    assert line in caplog.text
    assert "did you mean 'loss'?" in caplog.text
    assert any(line in said for said in installed())
    _report_foreign_groups.cache_clear()


def test_troubleshooting_is_ordered_by_messages_that_exist() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "sdist").rglob("*.py")))
    headings = re.findall(r"^### (.*)$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)
    messages = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    assert len(messages) > 10
    assert [message for message in messages if message not in source] == []


PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "sdist/tinyworld/weights").rglob("README.md")),
    *sorted((ROOT / "integrations").rglob("README.md")),
]
IMAGINED = ("tests/metrics/test_NAME.py", "sdist/losses/capped.py")  # which a reader writes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in (link for link in links if not link.startswith("http")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_of_this_repository_that_pages_name_are_there(page: Path) -> None:
    named = re.findall(r"(?<![\w/.-])((?:sdist|tests|experiments|docs)/[\w./-]*\w)", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (ROOT / path).exists() and path not in IMAGINED] == []


def test_the_configuration_reference_is_that_of_the_code(capsys: pytest.CaptureFixture) -> None:
    assert main(["methods", "--markdown"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"), (
        "write it anew: sdist methods --markdown > docs/configuration.md"
    )


def commands(page: Path) -> list[str]:
    """What a page tells to type, lines that go on joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in re.findall(r"^(?: {4})?((?:[A-Z_]+=\S+ )?sdist [a-z].*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_are_understood(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line.replace("s3://", "memory://"), comments=True)  # a store whose driver is always there
        arguments = words[words.index("sdist") + 1 :]
        if "..." not in line.partition("#")[0] and "sdist.error" not in line:
            parser().parse_args(arguments[: arguments.index(">")] if ">" in arguments else arguments)


def test_commands_are_found() -> None:
    assert len(commands(ROOT / "README.md")) > 10


def test_what_each_family_does_is_told_of_each() -> None:
    header = re.search(r"^## What each family does\n+(.*)$", (ROOT / "docs" / "models.md").read_text(encoding="utf-8"), re.M)
    assert header is not None
    assert sorted(re.findall(r"`(\w+)`", header[1])) == sorted(FAMILIES.names())


def test_the_sizes_of_models_are_those_of_their_classes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    import_module("model_sizes").main()
    assert capsys.readouterr().out in (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
