"""Pages beside scores: what cannot be made costs itself alone."""

from collections.abc import Callable, Mapping
from pathlib import Path

from ..files.storage import write_atomic

Pages = Mapping[str, Callable[[], str | bytes]]  # what makes each file of a folder, by its name


def write_pages(folder: Path, pages: Pages) -> tuple[list[Path], list[str]]:
    """Makes and writes each page, atomically; the paths of those that are there, and a line for each that is not.

    Of a page that cannot be made, the one of an earlier call is removed.
    """
    paths, problems = list[Path](), list[str]()
    for name, make in pages.items():
        try:
            page = make()
            write_atomic(folder / name, page.encode() if isinstance(page, str) else page)
        except Exception as error:  # scores are written already, and whatever a page raises must not hide that
            (folder / name).unlink(missing_ok=True)
            problems.append(f"{folder / name} could not be made: {' '.join(f'{type(error).__name__}: {error}'.split())}")
        else:
            paths.append(folder / name)
    return paths, problems
