"""PIE-Bench (PnPInversion, arXiv 2310.01506): structure, background and agreement with the target prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..errors import UserError
from .background import background_mse, background_psnr
from .encoders import Clip, Dino
from .failures import with_failures
from .lpips import Lpips, background_lpips
from .masks import Mask
from .pixels import Pixels, unit_pixels
from .profile import Profile, check_profile
from .similarity import Scores, cosine
from .ssim import background_ssim
from .structure import structure_distance

CLIP = "openai/clip-vit-large-patch14"
DINO = "facebook/dino-vitb8"
NAMES = ("structure_distance", "psnr", "mse", "ssim", "clip_whole", "clip_edited")
TABLE_SCALE = {"structure_distance": 1e3, "lpips": 1e3, "mse": 1e4, "ssim": 1e2}  # the published tables print these multiples


@dataclass(frozen=True)
class Case:
    """An edit and all that it is compared with, of one size."""

    edit: Image.Image | None  # None if it could not be made: every score is nan
    source: Image.Image
    mask: Mask
    prompt: str  # target prompt; its square brackets mark what is new and are not read

    def __post_init__(self) -> None:
        sizes = {self.source.size, self.mask.shape[::-1], *([] if self.edit is None else [self.edit.size])}
        if len(sizes) > 1:
            shown = " and ".join(f"{w} x {h}" for w, h in sorted(sizes))
            raise UserError(f"edit, source and mask must have one size, got {shown}")


def score(cases: Sequence[Case], clip: Clip, dino: Dino, lpips: Lpips | None, profile: Profile) -> dict[str, Scores]:
    """One value a case of structure_distance, psnr, mse, ssim, clip_whole, clip_edited, and with its network of lpips.

    psnr, mse, ssim and lpips are nan where the mask leaves no background. UserError for no cases.
    """
    profile = check_profile(profile)
    names = NAMES if lpips is None else (*NAMES, "lpips")
    return with_failures(cases, names, lambda made: _score_made(made, clip, dino, lpips, profile))


def clip_whole(cases: Sequence[Case], clip: Clip, profile: Profile) -> Scores:
    """CLIP of the whole edit, higher is better: 100 cos(edit, prompt).

    official: a negative value becomes 0, and a prompt beyond the model's limit is cut. clean: neither; the prompt is an error.
    """
    return _agreement([case.edit for case in cases], cases, clip, profile)  # type: ignore[misc]


def clip_edited(cases: Sequence[Case], clip: Clip, profile: Profile) -> Scores:
    """The same of an edit that is black outside the mask, against the whole prompt."""
    return _agreement([_blacked(case) for case in cases], cases, clip, profile)


def _agreement(images: Sequence[Image.Image], cases: Sequence[Case], clip: Clip, profile: Profile) -> Scores:
    prompts = [case.prompt.replace("[", "").replace("]", "") for case in cases]
    values = 100 * cosine(clip.images(images, profile), clip.texts(prompts, cut=profile == "official"))
    return np.maximum(values, 0) if profile == "official" else values


def _blacked(case: Case) -> Image.Image:
    return Image.fromarray(np.asarray(case.edit.convert("RGB")) * case.mask[:, :, None])  # type: ignore[union-attr]


def _score_made(cases: list[Case], clip: Clip, dino: Dino, lpips: Lpips | None, profile: Profile) -> dict[str, Scores]:
    background = {"psnr": background_psnr, "mse": background_mse, "ssim": background_ssim}
    scores = {name: np.array([metric(*_pixels(case), profile) for case in cases]) for name, metric in background.items()}
    if lpips is not None:
        scores["lpips"] = np.array([background_lpips(*_pixels(case), lpips, profile) for case in cases])
    return scores | {
        "structure_distance": np.array([structure_distance(case.edit, case.source, dino, profile) for case in cases]),
        "clip_whole": clip_whole(cases, clip, profile),
        "clip_edited": clip_edited(cases, clip, profile),
    }


def _pixels(case: Case) -> tuple[Pixels, Pixels, Mask]:
    return unit_pixels(case.edit), unit_pixels(case.source), case.mask
