"""What a sweep leaves beside its variants: grid.png, and with --clip evaluation/ and comparison/."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from ..config.sweep import Sweep
from ..edits.outputs import output_files
from ..errors import UserError
from ..evaluation.evaluate import EvaluationOptions
from ..extras import need
from ..files.contact_sheet import Line, block, stack
from ..files.images import load_image, png_bytes
from ..files.storage import write_atomic
from .inputs import InputPair, dataset_of
from .plan import Plan
from .problems import Report
from .session import Session

Evaluate = Callable[[Session, Path], Sequence[str]]  # gives the pages that could not be made
Say = Callable[[str], None]  # takes what is for people to read when it is there


def write_grid(path: Path, sweep: Sweep, work: Mapping[Session, Plan], pairs: Sequence[InputPair]) -> Path:
    """For each pair its source and the result of every variant, side by side; of a grid over two keys as a matrix."""
    blocks = []
    for pair in pairs:
        source = load_image(pair.image)
        caption = " -> ".join(filter(None, (f"{pair.key}: {pair.source}".strip(), pair.target)))
        blocks.append(block(caption, *_table(sweep, source, [_result(*planned, pair, source) for planned in work.items()])))
    write_atomic(path, png_bytes(stack(blocks)))
    return path


def _table(sweep: Sweep, source: Image.Image, results: list[Image.Image]) -> tuple[list[str], list[Line]]:
    """Names of columns, and rows of images."""
    if len(sweep.axes) != 2:
        return ["source", *(variant.name for variant in sweep.variants)], [("", [source, *results])]
    (down, labels), (across, others) = sweep.axes.items()
    n = len(others)
    left = [source, *[None] * (len(labels) - 1)]
    lines: list[Line] = [(f"{down}={label}", [left[i], *results[i * n : (i + 1) * n]]) for i, label in enumerate(labels)]
    return ["source", *(f"{across}={other}" for other in others)], lines


def _result(session: Session, plan: Plan, pair: InputPair, source: Image.Image) -> Image.Image:
    """The image of the first seed; plain grey where there is none."""
    name = plan.named.get((pair.number, session.settings.seed), "")
    path = output_files(session.folder, name)["image"]
    return load_image(path) if path.exists() else Image.new("RGB", source.size, "lightgrey")


def evaluator(options: EvaluationOptions, source: str, first: int | None) -> Evaluate:
    """What `sdist evaluate` does with a variant, with the pairs of `source` and encoders that are read now, before the edits."""
    need("sweep --clip", "matplotlib", "pandas", "pyarrow", "scipy", "tabulate")
    from ..evaluation.evaluator import Evaluator

    evaluate = Evaluator(dataset_of(source), options, first)
    evaluate.load()
    return lambda session, folder: evaluate(session.folder, folder, session.settings.seed).problems


def compare_all(output: Path, sessions: Sequence[Session], evaluate: Evaluate, report: Report, say: Say) -> None:
    """OUTPUT/evaluation/VARIANT for every variant that has results, and what `sdist compare` makes of them."""
    folders = []
    for session in sessions:
        folder = output / "evaluation" / session.name
        try:
            problems = evaluate(session, folder)
        except UserError as error:
            report(f"{session.name} is not evaluated: {error}")
        else:
            folders.append(folder)
            for problem in problems:
                report(problem)
    if folders:
        from ..evaluation.comparison import compare_folders
        from ..evaluation.tables import to_markdown

        table, files, problems = compare_folders(folders, output / "comparison")
        say("\n".join([to_markdown(table), *map(str, files)]))
        for problem in problems:
            report(problem)
