"""MagicBrush's test set in the layout of its release. Zhang et al. 2023, arXiv 2306.10012."""

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..metrics.categories import read_categories
from .base import DATASETS, Dataset, Pair, inside, read_json, text

CATEGORIES = "magicbrush_category.csv"  # of LUSD's release: which turns add something
NAME = re.compile(r"(?P<session>\w+)-(?:input|output(?P<turn>\d+))")


@DATASETS.register("magicbrush")
@dataclass(frozen=True)
class MagicBrush(Dataset):
    """Every turn by itself: its input is the wanted picture of the turn before. Named SESSION_1, SESSION_inde_2, SESSION_inde_3.

    The folder holds edit_turns.json, global_descriptions.json (the prompts), local_descriptions.json (what CLIP-T compares with)
    and images/SESSION/. With magicbrush_category.csv pairs have its category, Add or Other, joined by the name of the input.

    `repair`: the turn that the released table leaves out gets the row that stands there twice; without, it has no category.
    """

    repair: bool = True

    def load(self, folder: Path) -> list[Pair]:
        turns = read_json(folder / "edit_turns.json", list)
        prompts, captions = (read_json(folder / f"{kind}_descriptions.json") for kind in ("global", "local"))
        categories = self._categories(folder / CATEGORIES, [_input(turn, folder) for turn in turns])
        return [_pair(folder, turn, prompts, captions, categories) for turn in turns]

    def _categories(self, path: Path, names: list[str]) -> dict[str, str]:
        """Category by the name of the input picture; the first row of a name counts."""
        if not path.exists():
            return {}
        rows = read_categories(path, "clean" if self.repair else "official")
        lost = [row.turn for row in rows if row.turn not in names]
        if lost:
            raise UserError(f"{path}: there is no turn whose input is {lost[0]}")
        return {row.turn: row.group.title() for row in reversed(rows)}


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
