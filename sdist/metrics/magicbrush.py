"""MagicBrush (arXiv 2306.10012), single turns, with the metrics of LUSD (arXiv 2503.11054, sections 4.2 and 8.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .encoders import Clip, Dino
from .failures import with_failures
from .pixels import l1, l2
from .profile import Profile, check_profile
from .similarity import Embeddings, Scores, clip_i, clip_r, clip_t, dino_similarity

CLIP = "openai/clip-vit-base-patch32"
DINO = "facebook/dino-vits16"
NAMES = ("l1", "l2", "clip_i", "clip_t", "clip_r")


@dataclass(frozen=True)
class Turn:
    """An edit and all that it is compared with."""

    edit: Image.Image | None  # None if it could not be made: every score is nan
    source: Image.Image
    reference: Image.Image  # the benchmark's own edit
    local_description: str  # of what is new in the reference
    global_description: str  # of the whole reference


def score(turns: Sequence[Turn], clip: Clip, dino: Dino | None, profile: Profile) -> dict[str, Scores]:
    """One value a turn of l1, l2, clip_i, clip_t, clip_r, and with a DINO model of dino; UserError for no turns."""
    profile = check_profile(profile)
    names = NAMES if dino is None else (*NAMES, "dino")
    return with_failures(turns, names, lambda made: _score_made(made, clip, dino, profile))


def against_text(
    edits: Embeddings, sources: Sequence[Image.Image], local: Sequence[str], whole: Sequence[str], clip: Clip, profile: Profile
) -> dict[str, Scores]:
    """clip_t and clip_r, which need no reference: of embedded edits against local and global descriptions."""
    ratio = clip_r(edits, clip.images(sources, profile), clip.texts(whole), profile)
    return {"clip_t": clip_t(edits, clip.texts(local)), "clip_r": ratio}


def _score_made(turns: list[Turn], clip: Clip, dino: Dino | None, profile: Profile) -> dict[str, Scores]:
    edits, references = [turn.edit for turn in turns], [turn.reference for turn in turns]
    embedded, local = clip.images(edits, profile), [turn.local_description for turn in turns]
    sources, whole = [turn.source for turn in turns], [turn.global_description for turn in turns]
    scores = {
        **against_text(embedded, sources, local, whole, clip, profile),
        "l1": np.array([l1(a, b, profile) for a, b in zip(edits, references, strict=True)]),
        "l2": np.array([l2(a, b, profile) for a, b in zip(edits, references, strict=True)]),
        "clip_i": clip_i(embedded, clip.images(references, profile)),
    }
    if dino is not None:
        scores["dino"] = dino_similarity(dino.images(edits, profile), dino.images(references, profile))
    return scores
