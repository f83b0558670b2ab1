"""index.csv with img_path, source_prompt, target_prompt and images/: the format of LUSD's release and of `sdist run`."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair, inside, read_csv

COLUMNS = ("img_path", "source_prompt", "target_prompt")


@DATASETS.register("index")
@dataclass(frozen=True)
class IndexCsv(Dataset):
    """A row is named by its number, `000`, as results are. Read if there: category, caption, truth."""

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        path = folder / "index.csv"
        return [_pair(folder, number, record, path) for number, record in enumerate(read_csv(path, COLUMNS))]


def _pair(folder: Path, number: int, record: dict[str, str], path: Path) -> Pair:
    images, truth = folder / "images", record.get("truth") or None
    name, source, target = (record[column].strip() for column in COLUMNS)
    if not name or not target:
        raise UserError(f"{path}, row {number}: img_path and target_prompt must not be empty")
    return Pair(
        f"{number:03d}", inside(images, name), source, target, record.get("category") or "", record.get("caption") or "",
        truth if truth is None else inside(images, truth), instruction=record.get("instruction") or "",
    )  # fmt: skip
