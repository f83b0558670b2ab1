"""MagicBrush's test set in the layout of its release. Zhang et al. 2023, arXiv 2306.10012."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .base import DATASETS, Dataset, Pair, inside, read_json, text
from .index_csv import read_csv

CATEGORIES = "magicbrush_category.csv"  # of LUSD's release: which turns add something
NAME = re.compile(r"(?P<session>\w+)-(?:input|output(?P<turn>\d+))")


@DATASETS.register("magicbrush")
@dataclass(frozen=True)
class MagicBrush(Dataset):
    """Every turn by itself: its input is the wanted picture of the turn before. Named SESSION_1, SESSION_inde_2, SESSION_inde_3.

    The folder holds edit_turns.json, global_descriptions.json (the prompts), local_descriptions.json (what CLIP-T compares with)
    and images/SESSION/. With magicbrush_category.csv pairs have its category, Add or Other, joined by the name of the input.

    `repair`: the row that stands there twice is given to the turn that has none, as far as that can be told; without, as in the
    published evaluation, the first row counts and the turn has no category.
    """

    repair: bool = True

    def load(self, folder: Path) -> list[Pair]:
        turns = read_json(folder / "edit_turns.json", list)
        prompts, captions = (read_json(folder / f"{kind}_descriptions.json") for kind in ("global", "local"))
        categories = self._categories(folder / CATEGORIES, [_input(turn, folder) for turn in turns])
        return [_pair(folder, turn, prompts, captions, categories) for turn in turns]

    def _categories(self, path: Path, names: list[str]) -> dict[str, str]:
        """Category by the name of the input picture."""
        if not path.exists():
            return {}
        rows = [(row["idx"].removesuffix(".png"), row["category"]) for row in read_csv(path, ("idx", "category"))]
        found: dict[str, str] = {}
        for name, category in rows:
            if name not in names:
                raise UserError(f"{path}: there is no turn whose input is {name}")
            found.setdefault(self._meant(name, found, names, rows), "Add" if category == "add" else "Other")
        return found

    def _meant(self, name: str, found: dict[str, str], names: list[str], rows: list[tuple[str, str]]) -> str:
        """The turn that a row belongs to: if its own has one already, the only one of its session that no row names."""
        listed = {listed for listed, _ in rows}
        free = [other for other in names if other not in listed and other not in found and _session(other) == _session(name)]
        return free[0] if name in found and self.repair and len(free) == 1 else name


def _pair(folder: Path, turn: dict, prompts: dict, captions: dict, categories: dict[str, str]) -> Pair:
    where, name, output = folder / "edit_turns.json", _input(turn, folder), text(turn, "output", folder / "edit_turns.json")
    session = _session(name)
    images = folder / "images" / session
    number = NAME.fullmatch(output.removesuffix(".png"))
    if number is None or number["session"] != session or number["turn"] is None:
        raise UserError(f"{where}: {output!r} is not an output of session {session}")
    key = f"{session}_1" if number["turn"] == "1" else f"{session}_inde_{number['turn']}"
    told, local = prompts.get(session, {}), captions.get(session, {})
    return Pair(
        key, inside(images, f"{name}.png"),
        text(told, f"{name}.png", folder / "global_descriptions.json"), text(told, output, folder / "global_descriptions.json"),
        categories.get(name, ""), text(local, output, folder / "local_descriptions.json"), inside(images, output),
    )  # fmt: skip


def _input(turn: object, folder: Path) -> str:
    """The name of a turn's input picture, without its ending."""
    name = text(turn, "input", folder / "edit_turns.json").removesuffix(".png") if isinstance(turn, dict) else ""
    if not NAME.fullmatch(name):
        raise UserError(f"{folder / 'edit_turns.json'}: {turn!r} is not a turn")
    return name


def _session(name: str) -> str:
    return name.split("-")[0]
