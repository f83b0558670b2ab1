"""MagicBrush's test set in the layout of its release. Zhang et al. 2023, arXiv 2306.10012."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError
from ..files.named import file_in
from ..metrics.profile import Profile
from ..registry import DATASETS
from .base import Dataset, Pair, read_json, text
from .categories import read_categories

CATEGORIES = "magicbrush_category.csv"  # of LUSD's release: which turns add something
NAME = re.compile(r"(?P<session>\w+)-(?:input|output(?P<turn>\d+))")


@DATASETS.register("magicbrush")
@dataclass(frozen=True)
class MagicBrush(Dataset):
    """Every turn by itself: its input is the wanted image of the turn before. Named SESSION_1, SESSION_inde_2, SESSION_inde_3.

    The folder holds edit_turns.json, global_descriptions.json (the prompts), local_descriptions.json (what CLIP-T compares with)
    and images/SESSION/. With magicbrush_category.csv pairs have its category, Add or Other, joined by the name of the input.

    official: pairs count as often as the released table names them, which is one twice and another, without a category, never.
    clean: the second row of the one is taken for the other's.
    """

    def load(self, folder: Path, profile: Profile = "clean") -> list[Pair]:
        turns = read_json(folder / "edit_turns.json", list)
        prompts, captions = (read_json(folder / f"{kind}_descriptions.json") for kind in ("global", "local"))
        pairs = {_input(turn, folder): _pair(folder, turn, prompts, captions) for turn in turns}
        if len(pairs) < len(turns):
            raise UserError(f"{folder / 'edit_turns.json'}: {len(turns)} turns have {len(pairs)} inputs; each needs its own")
        return _categorized(pairs, folder / CATEGORIES, profile) if (folder / CATEGORIES).exists() else list(pairs.values())


def _categorized(pairs: dict[str, Pair], path: Path, profile: Profile) -> list[Pair]:
    """The pairs, given by their inputs, with categories; in the official profile also with how often the table counts them."""
    rows = read_categories(path, profile)
    lost = [row.turn for row in rows if row.turn not in pairs]
    if lost:
        raise UserError(f"{path}: there is no turn whose input is {lost[0]}")
    groups, counts = dict(reversed(rows)), Counter(row.turn for row in rows)
    return [
        replace(pair, category=groups.get(name, ""), counted=counts[name] if profile == "official" else 1)
        for name, pair in pairs.items()
    ]


def _pair(folder: Path, turn: dict, prompts: dict, captions: dict) -> Pair:
    where, name, output = folder / "edit_turns.json", _input(turn, folder), text(turn, "output", folder / "edit_turns.json")
    session = _session(name)
    images = folder / "images" / session
    number = NAME.fullmatch(output.removesuffix(".png"))
    if number is None or number["session"] != session or number["turn"] is None:
        raise UserError(f"{where}: {output!r} is not an output of session {session}")
    key = f"{session}_1" if number["turn"] == "1" else f"{session}_inde_{number['turn']}"
    texts, local = prompts.get(session, {}), captions.get(session, {})
    return Pair(
        key, file_in(images, f"{name}.png"),
        text(texts, f"{name}.png", folder / "global_descriptions.json"), text(texts, output, folder / "global_descriptions.json"),
        caption=text(local, output, folder / "local_descriptions.json"), truth=file_in(images, output),
        instruction=turn.get("instruction") or "",
    )  # fmt: skip


def _input(turn: object, folder: Path) -> str:
    """The name of a turn's input image, without its ending."""
    name = text(turn, "input", folder / "edit_turns.json").removesuffix(".png") if isinstance(turn, dict) else ""
    if not NAME.fullmatch(name):
        raise UserError(f"{folder / 'edit_turns.json'}: {turn!r} is not a turn")
    return name


def _session(name: str) -> str:
    return name.split("-")[0]
