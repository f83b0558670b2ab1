"""What a sweep leaves beside its variants: grid.png, and with --clip evaluation/ and comparison/."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..cli import parser
from ..config.sweep import Sweep
from ..edits.outputs import output_files, writable_folder
from ..errors import UserError
from ..extras import need
from ..files.contact_sheet import Line, block, stack
from ..files.images import load_image, png_bytes
from ..files.storage import write_atomic
from .plan import Row, dataset_of, result_name
from .session import Session
from .summary import Complaints

Evaluate = Callable[[Session, Path], None]


def write_grid(path: Path, sweep: Sweep, sessions: Sequence[Session], rows: Sequence[Row]) -> Path:
    """For each row its source and the result of every variant, side by side; of a grid over two keys as a matrix."""
    blocks = []
    for row in rows:
        source = load_image(row.image)
        caption = " -> ".join(filter(None, (f"{row.name}: {row.source}".strip(), row.target)))
        blocks.append(block(caption, *_table(sweep, source, [_result(session, row, source) for session in sessions])))
    write_atomic(path, png_bytes(stack(blocks)))
    return path


def _table(sweep: Sweep, source: Image.Image, results: list[Image.Image]) -> tuple[list[str], list[Line]]:
    """Names of columns, and lines of pictures."""
    if len(sweep.axes) != 2:
        return ["source", *(variant.name for variant in sweep.variants)], [("", [source, *results])]
    (down, labels), (across, others) = sweep.axes.items()
    n = len(others)
    left = [source, *[None] * (len(labels) - 1)]
    lines = [(f"{down}={label}", [left[i], *results[i * n : (i + 1) * n]]) for i, label in enumerate(labels)]
    return ["source", *(f"{across}={other}" for other in others)], lines


def _result(session: Session, row: Row, source: Image.Image) -> Image.Image:
    """The picture of the first seed; plain grey where there is none."""
    path = output_files(session.folder, result_name(row, session.settings.seed))["image"]
    return load_image(path) if path.exists() else Image.new("RGB", source.size, "lightgrey")


def evaluator(args: argparse.Namespace) -> Evaluate:
    """What `sdist evaluate` does, with pairs and encoders that are read now, before the edits."""
    need("sweep --clip", "matplotlib", "pandas", "pyarrow", "scipy", "tabulate")
    from ..datasets.base import load_dataset
    from ..evaluation.evaluate import evaluate
    from ..evaluation.results import find_results
    from ..evaluation.scores import load_encoders
    from ..metrics.profile import check_profile

    profile = check_profile(args.profile)
    pairs = load_dataset(dataset_of(args.input), profile)
    encoders = load_encoders(args.clip, args.dino, None, args.cache, args.device or "auto")

    def own(session: Session, folder: Path) -> None:
        found = find_results(session.folder, pairs, session.settings.seed)
        evaluate(writable_folder(folder), pairs[: args.first], found, encoders, profile, session.name)

    return own


def compare_all(output: Path, sessions: Sequence[Session], evaluate: Evaluate, complain: Complaints) -> None:
    """OUTPUT/evaluation/VARIANT for every variant that has results, and what `sdist compare` makes of them."""
    from ..commands import compare

    folders = []
    for session in sessions:
        folder = output / "evaluation" / session.name
        try:
            evaluate(session, folder)
        except UserError as error:
            complain(f"{session.name} is not evaluated: {error}")
        else:
            folders.append(str(folder))
    if folders:
        compare.main(parser().parse_args(["compare", *folders, "--output", str(output / "comparison")]))
