"""What a sweep leaves beside its variants: grid.png, and with --clip evaluation/ and comparison/."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..config.sweep import Sweep
from ..edits.outputs import output_files, writable_folder
from ..errors import UserError
from ..extras import need
from ..files.contact_sheet import Line, block, stack
from ..files.images import load_image, png_bytes
from ..files.storage import write_atomic
from .inputs import InputPair, dataset_of
from .plan import result_name
from .problems import Report
from .session import Session

Evaluate = Callable[[Session, Path], None]
Say = Callable[[str], None]  # takes what is for people to read when it is there


@dataclass(frozen=True)
class EvaluationOptions:
    """What scores the variants: encoders as ids on the hub or folders."""

    clip: str
    dino: str | None = None  # None: no DINO
    cache: str | None = None  # folder that keeps embeddings
    profile: str = "clean"  # clean or official
    device: str = "auto"


def write_grid(path: Path, sweep: Sweep, sessions: Sequence[Session], pairs: Sequence[InputPair]) -> Path:
    """For each pair its source and the result of every variant, side by side; of a grid over two keys as a matrix."""
    blocks = []
    for pair in pairs:
        source = load_image(pair.image)
        caption = " -> ".join(filter(None, (f"{pair.key}: {pair.source}".strip(), pair.target)))
        blocks.append(block(caption, *_table(sweep, source, [_result(session, pair, source) for session in sessions])))
    write_atomic(path, png_bytes(stack(blocks)))
    return path


def _table(sweep: Sweep, source: Image.Image, results: list[Image.Image]) -> tuple[list[str], list[Line]]:
    """Names of columns, and rows of images."""
    if len(sweep.axes) != 2:
        return ["source", *(variant.name for variant in sweep.variants)], [("", [source, *results])]
    (down, labels), (across, others) = sweep.axes.items()
    n = len(others)
    left = [source, *[None] * (len(labels) - 1)]
    lines = [(f"{down}={label}", [left[i], *results[i * n : (i + 1) * n]]) for i, label in enumerate(labels)]
    return ["source", *(f"{across}={other}" for other in others)], lines


def _result(session: Session, pair: InputPair, source: Image.Image) -> Image.Image:
    """The image of the first seed; plain grey where there is none."""
    path = output_files(session.folder, result_name(pair, session.settings.seed))["image"]
    return load_image(path) if path.exists() else Image.new("RGB", source.size, "lightgrey")


def evaluator(options: EvaluationOptions, source: str, first: int | None) -> Evaluate:
    """What `sdist evaluate` does with a variant, with the pairs of `source` and encoders that are read now, before the edits."""
    need("sweep --clip", "matplotlib", "pandas", "pyarrow", "scipy", "tabulate")
    from ..datasets.base import load_dataset
    from ..evaluation.evaluate import evaluate
    from ..evaluation.results import find_results
    from ..evaluation.scores import load_encoders
    from ..metrics.profile import check_profile

    profile = check_profile(options.profile)
    pairs = load_dataset(dataset_of(source), profile)
    encoders = load_encoders(options.clip, options.dino, None, options.cache, options.device)

    def score(session: Session, folder: Path) -> None:
        results = find_results(session.folder, pairs, session.settings.seed)
        evaluate(writable_folder(folder), pairs[:first], results, encoders, profile, session.name)

    return score


def compare_all(output: Path, sessions: Sequence[Session], evaluate: Evaluate, report: Report, say: Say) -> None:
    """OUTPUT/evaluation/VARIANT for every variant that has results, and what `sdist compare` makes of them."""
    folders = []
    for session in sessions:
        folder = output / "evaluation" / session.name
        try:
            evaluate(session, folder)
        except UserError as error:
            report(f"{session.name} is not evaluated: {error}")
        else:
            folders.append(folder)
    if folders:
        from ..evaluation.comparison import compare_folders

        table, paths = compare_folders(folders, output / "comparison")
        say("\n".join([table.to_markdown(disable_numparse=True), *map(str, paths)]))
