"""What every step of a two-branch editor asks for: which attention is injected, where the edit belongs, which noise is added.

ViMAEdit, arXiv 2410.10496, section 4; Prompt-to-Prompt's injection, arXiv 2208.01626.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch

from ..diffusion import Latents
from ..hooks.attention import AttentionRecorder
from ..hooks.image_tokens import ImageTokens, SharedAttention
from ..hooks.injection import Injection, TokenMap
from ..prediction import SOURCE_SOURCE, TARGET, Branch, Hook, Outputs
from .base import StepNoise
from .grounding import Mask, Masks, Saliency
from .sample import ByName, Plan

Variance = Literal["critical", "everywhere", "none"]


class InjectionSteps(NamedTuple):
    """How many steps inject each kind of attention; that to the image, self-attention's and image tokens', from `level` on."""

    text: int
    self: int
    image: int
    level: int

    @staticmethod
    def of(steps: int, text: float, self_: float, image: float, level: int) -> "InjectionSteps":
        """From parts of the steps, as the releases round them."""
        return InjectionSteps(int(text * (steps + 1)), int(self_ * steps), int(image * steps), level)


@dataclass(eq=False)
class Course:
    """One walk of some images; `plan` is asked for its steps in their order.

    Without `saliency` there is nothing to look at. `user` is the mask of the user, 1 where the edit may happen.
    """

    branches: tuple[Branch, Branch]  # source and target, with their guidance
    injected: InjectionSteps
    tokens: TokenMap
    noise: Callable[[int], Latents]
    images: ImageTokens | None = None
    saliency: Saliency | None = None
    first: int = 0  # the step that has the first map
    levels: tuple[int, int] = (2, 1)  # of cross-attention and of self-attention that the maps are made of
    variance: Variance = "critical"
    user: Mask | None = None
    masks: Masks | None = field(default=None, init=False)  # of the last step

    @property
    def recorders(self) -> tuple[AttentionRecorder, AttentionRecorder]:
        """Of both branches."""
        return AttentionRecorder(SOURCE_SOURCE, *self.levels), AttentionRecorder(TARGET, *self.levels)

    def plan(self, k: int) -> Plan:
        hooks: list[Hook] = list(self.recorders) if self.saliency is not None and k >= self.first else []
        text, level = self.tokens if k < self.injected.text else None, self.injected.level if k < self.injected.self else None
        if text is not None or level is not None:
            hooks.append(Injection(SOURCE_SOURCE, TARGET, text, level))
        if self.images is not None:
            shared = SharedAttention(SOURCE_SOURCE, TARGET, self.injected.level) if k < self.injected.image else None
            hooks.append(replace(self.images, shared=shared))
        return Plan(self.branches, hooks, lambda outputs: self._added(k, outputs), self._blended)

    def _added(self, k: int, outputs: Outputs) -> StepNoise | None:
        like = outputs.estimates[TARGET].z_t
        if self.saliency is None or k < self.first:
            self.masks = None if self.user is None else Masks(self.user, torch.zeros_like(self.user))
            return None
        source, target = (outputs.recorded[recorder] for recorder in self.recorders)
        shares = k < self.injected.self and self.levels[1] >= self.injected.level
        self.saliency.look(source, target, self.tokens if k < self.injected.text else None, shares)
        masks = self.saliency.masks((like.shape[-2], like.shape[-1]))
        self.masks = masks if self.user is None else Masks(self.user * masks.edit, self.user * masks.critical)
        everywhere = self.saliency.has_words.to(like).expand_as(self.masks.critical)
        where = everywhere if self.variance == "everywhere" else self.masks.critical
        return None if self.variance == "none" else StepNoise(self.noise(k), where)

    def _blended(self, noisy: ByName) -> ByName:
        """The target outside of the mask is the source."""
        if self.masks is None:
            return noisy
        return noisy | {"edit": self.masks.edit * noisy["edit"] + (1 - self.masks.edit) * noisy["source"]}
