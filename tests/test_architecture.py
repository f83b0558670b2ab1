"""Which part of the package never imports which: imports that run are read off the source, those for type checkers alone are not.

A part is a folder of the package or a module beside the folders.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdist

PACKAGE = Path(sdist.__file__).parent
MATHS = ("diffusion", "draws", "prediction", "prompts", "spelling", "taggers")
COMPONENTS = ("filters", "gammas", "hooks", "losses", "normalizers", "optimizer", "regions", "regularizers", "timesteps")

ONLY = {part: {*MATHS, "errors"} for part in MATHS}
NEVER = {
    **{part: {"config", "distillation", "editors", "files", "models"} for part in COMPONENTS},
    **{part: {"config", "editors", "jobs"} for part in ("denoising", "distillation")},
    "config": {*COMPONENTS, "datasets", "denoising", "distillation", "editors", "metrics"},  # it asks the registries
    "editors": {"commands", "jobs"},
    "jobs": {"commands"},
    "metrics": {"datasets", "evaluation"},
    "models": {"config", "distillation", "editors"},
}
OUTSIDE = {  # packages of others: the files and folders that may import them
    "argparse": ("cli.py", "commands/"),
    "diffusers": ("models/", "pipeline/", "tinyworld/quality.py", "editors/ledits_pp.py"),
    "gradio": ("studio/",),
    "ray": ("jobs/engines/ray.py", "jobs/engines/ray_driver.py"),
}  # fmt: skip


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All that lies below a node, without the blocks for type checkers."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from running(child)


def imported(text: str, package: tuple[str, ...]) -> set[str]:
    """Full names of what a module of that package imports."""
    names = set()
    for node in running(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            names |= {".".join([*above, *filter(None, [node.module]), alias.name]) for alias in node.names}
    return names


IMPORTS: dict[str, set[str]] = {}  # of each file
for file in sorted(PACKAGE.rglob("*.py")):
    where = file.relative_to(PACKAGE)
    if where.parts[0] != "experiments":
        IMPORTS[where.as_posix()] = imported(file.read_text(encoding="utf-8"), ("sdist", *where.parts[:-1]))

PARTS: dict[str, set[str]] = {}  # the parts that each part imports
for name, names in IMPORTS.items():
    part = name.partition("/")[0].removesuffix(".py")
    inside = {full.split(".")[1] for full in names if full.startswith("sdist.")} - {part, "__version__"}
    PARTS[part] = PARTS.get(part, set()) | inside


def test_imports_are_read_as_python_reads_them() -> None:
    text = (
        "if TYPE_CHECKING:\n    import ray\ndef f():\n    from . import a\n    from ..b.c import d\nimport e.f\nfrom g import h"
    )
    assert imported(text, ("sdist", "x")) == {"sdist.x.a", "sdist.b.c.d", "e.f", "g.h"}
    assert {*NEVER, *ONLY} <= PARTS.keys()


@pytest.mark.parametrize("part", PARTS)
def test_no_part_imports_what_it_never_does(part: str) -> None:
    assert PARTS[part] & NEVER.get(part, set()) == set()
    assert PARTS[part] <= ONLY.get(part, PARTS[part])


def test_no_two_parts_need_each_other() -> None:
    left = dict(PARTS)
    while free := [part for part, needs in left.items() if not needs & left.keys()]:
        left = {part: needs for part, needs in left.items() if part not in free}
    assert left == {}


@pytest.mark.parametrize("package", OUTSIDE)
def test_packages_of_others_have_their_place(package: str) -> None:
    users = {name for name, names in IMPORTS.items() if any(full.split(".")[0] == package for full in names)}
    assert users
    assert {name for name in users if not name.startswith(OUTSIDE[package])} == set()
