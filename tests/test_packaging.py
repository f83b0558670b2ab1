"""What wheel and sdist hold, and what setup.cfg and the messages say about packages."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sdist.cli import main

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "assets" / "demo.png"
GENERATED = r"PKG-INFO|setup\.cfg|sdist\.egg-info/.*"  # what setuptools writes into an sdist
BUILD = """
from setuptools import build_meta
print(build_meta.build_sdist("dist"), build_meta.build_wheel("dist"))
"""


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


@pytest.fixture(scope="module")
def tracked() -> set[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    if "setup.cfg" not in listed:
        pytest.skip("not a git checkout: nothing says which files belong to the project")
    return {name for name in listed if (ROOT / name).exists()}


@pytest.fixture(scope="module")
def archives(tracked: set[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Files of the sdist and of a wheel, built where there are also files that belong in neither."""
    folder = tmp_path_factory.mktemp("build")
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            (folder / name).touch()  # weights take seconds to compress
        else:
            shutil.copy(ROOT / name, folder / name)
    for name in (
        "runs/a.png",
        "outputs/a.png",
        "sdist/__pycache__/a.pyc",
        "tests/__pycache__/a.pyc",
        ".venv/a.py",
        "sdist/a.png",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    built = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    sdist, wheel = (folder / "dist" / name for name in built.stdout.split()[-2:])
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    return files, set(zipfile.ZipFile(wheel).namelist())


def test_the_sdist_is_what_git_tracks(archives: tuple[set[str], set[str]], tracked: set[str]) -> None:
    assert {name for name in archives[0] if not re.fullmatch(GENERATED, name)} == tracked - {"setup.cfg"}


def test_the_wheel_is_the_package_and_its_methods(archives: tuple[set[str], set[str]], tracked: set[str]) -> None:
    own = {name for name in archives[1] if ".dist-info/" not in name}
    methods = {f"sdist/{name}" for name in tracked if name.startswith("experiments/")}
    assert own == methods | {name for name in tracked if name.startswith("sdist/")}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in archives[1])


def test_every_package_is_installed(config: configparser.ConfigParser) -> None:
    listed = set(config["options"]["packages"].split())
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "sdist").rglob("__init__.py")}
    assert listed == folders | {"sdist.experiments"}


def requirements(config: configparser.ConfigParser) -> dict[str, list[Requirement]]:
    """By extra; those of every installation under "all"."""
    listed = {"all": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.split("\n") if line] for extra, text in listed.items()}


def test_constraints_pin_what_setup_cfg_asks_for(config: configparser.ConfigParser) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for asked in (one for extra in requirements(config).values() for one in extra):
        versions = [next(iter(pin.specifier)).version for pin in pins if pin.name == asked.name]
        assert versions, f"constraints.txt does not pin {asked.name}"
        assert all(asked.specifier.contains(version) for version in versions), asked


def test_messages_name_extras_that_hold_the_package(config: configparser.ConfigParser) -> None:
    held = {extra: {one.name for one in listed} for extra, listed in requirements(config).items()}
    calls = [call for path in (ROOT / "sdist").rglob("*.py") for call in calls_of_need(path)]
    assert len(calls) >= 5
    for packages, extra in calls:
        assert set(packages) <= held[extra], f"sdist[{extra}] has no {packages}"


def calls_of_need(path: Path) -> list[tuple[list[str], str]]:
    """Packages and extra of each call need(command, *packages, extra=...) in a file."""
    nodes = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    calls = [node for node in nodes if isinstance(node.func, ast.Name) and node.func.id == "need"]
    return [
        ([ast.literal_eval(x) for x in call.args[1:]], next((ast.literal_eval(k.value) for k in call.keywords), "evaluate"))
        for call in calls
    ]


def test_pages_name_extras_that_exist(config: configparser.ConfigParser) -> None:
    pages = [path for kind in ("*.md", "sdist/**/*.py", "docs/*.md", "experiments/*.py") for path in ROOT.glob(kind)]
    named = {
        extra for path in pages for extra in re.findall(r"(?:sdist|-e \"?\.)\[(\w+)\]['\"]", path.read_text(encoding="utf-8"))
    }
    assert {"app", "evaluate"} <= named <= set(config["options.extras_require"])


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["evaluate", "--dataset", "index:x", "--results", "x"], "evaluate"),
        (["compare", "x"], "evaluate"),
        (["app"], "app"),
        (["edit", str(DEMO), "--source", "y", "--target", "x", "--log", "tensorboard"], "tensorboard"),
    ],
)
def test_a_missing_extra_is_one_line_before_any_work(
    command: list[str], extra: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sdist.extras.find_spec", lambda name: None)
    assert main(command) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.endswith(f"pip install 'sdist[{extra}]'\n")
    assert list(tmp_path.iterdir()) == []


WITHOUT_EXTRAS = """
import sys
from importlib.machinery import PathFinder
extras, find = set(sys.argv[1:]), PathFinder.find_spec
hide = lambda name, *more: None if name.partition(".")[0] in extras else find(name, *more)
PathFinder.find_spec = staticmethod(hide)
from sdist.config.reference import headlines
print(headlines("metric")["clip_auc"])
"""


def test_methods_lists_metrics_without_the_extra_that_computes_them(config: configparser.ConfigParser) -> None:
    extra = [one.name for one in requirements(config)["evaluate"]]
    assert "scipy" in extra
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *extra]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("CLIP-AUC")
