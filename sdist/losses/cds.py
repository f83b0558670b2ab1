"""Contrastive Denoising Score. Nam et al. 2024, arXiv 2311.18608."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..diffusion import Latents
from ..errors import UserError
from ..hooks.features import FeatureRecorder
from ..prediction import SOURCE_SOURCE, TARGET, Branch, Hook, Prediction
from ..registry import LOSSES
from .base import Loss, Weighting
from .dds import DDS

DIAGONAL = -10.0  # similarity given to a patch with itself among its negatives, before the temperature


class Terms(NamedTuple):
    """The gradients of CDS's two terms, and the second term itself."""

    dds: Latents
    cut: Latents
    cut_loss: Float[Tensor, " b"]


@LOSSES.register("cds")
@dataclass(frozen=True)
class CDS(Loss):
    """DDS + w_cut d/dz PatchNCE, between self-attention outputs of the edited and of the source branch (eq. 9).

    The PatchNCE term (Park et al. 2020, arXiv 2007.15651) is differentiated through the network. As released, patches of
    the source look for their counterpart among patches of the edit. `cut_scale` is the weight of the term relative to
    DDS at the released step size: the release scales DDS by 2000 / (H W), not the term.
    """

    graph: ClassVar[bool] = True

    guidance_scale: float = 7.5  # of the DDS part
    weighting: Weighting = "uniform"  # w(t) of the DDS part
    cut_weight: float = 3.0  # w_cut
    cut_scale: float = 2.048  # H W / 2000 at 64 x 64 latents, see above
    patches: int = 256  # at most, per layer and patch size
    patch_sizes: tuple[int, ...] = (1, 2)  # features are averaged over squares of this side
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.patches < 1 or not self.patch_sizes or min(self.patch_sizes) < 1 or self.temperature <= 0:
            raise UserError(
                "loss cds: patches and every one of patch_sizes must be at least 1 and temperature above 0, got "
                f"patches={self.patches}, patch_sizes={list(self.patch_sizes)}, temperature={self.temperature}"
            )

    @property
    def branches(self) -> tuple[Branch, ...]:
        return self._dds.branches

    @property
    def hooks(self) -> tuple[Hook, ...]:
        return (FeatureRecorder((TARGET, SOURCE_SOURCE)),)

    @property
    def _dds(self) -> DDS:
        return DDS(self.guidance_scale, self.weighting)

    def gradient(self, p: Prediction) -> Latents:
        terms = self.terms(p)
        return terms.dds + self.cut_scale * self.cut_weight * terms.cut

    def terms(self, p: Prediction) -> Terms:
        """Both terms of the gradient, and the PatchNCE loss, before their weights."""
        cut_loss = self.cut_loss(p)
        (cut,) = torch.autograd.grad(cut_loss.sum(), p.latents)
        return Terms(self._dds.gradient(p).detach(), cut, cut_loss.detach())

    def cut_loss(self, p: Prediction) -> Float[Tensor, " b"]:
        """PatchNCE of each image, summed over layers and patch sizes, before `cut_weight`."""
        by_branch = p.recorded[self.hooks[0]].by_branch
        pairs = zip(by_branch[TARGET], by_branch[SOURCE_SOURCE], strict=True)
        total = p.latents.new_zeros(len(p.latents))
        for layer, (edited, source) in enumerate(pairs):
            for size in self.patch_sizes:
                q, k = F.avg_pool2d(source, size), F.avg_pool2d(edited, size)
                ids = self._sampled(p, f"patches {layer} {size}", q.shape[-1] * q.shape[-2])
                total = total + patch_nce(_patches(q, ids), _patches(k, ids), self.temperature)
        return total

    def _sampled(self, p: Prediction, stream: str, available: int) -> Int[Tensor, "b n"]:
        """Indices of the compared patches, drawn for each image by itself."""
        orders = [p.draw.sampler.permutation(key, stream, available) for key in p.draw.keys]
        return torch.stack(orders)[:, : self.patches].to(p.latents.device)


def patch_nce(query: Float[Tensor, "b n d"], key: Float[Tensor, "b n d"], temperature: float) -> Float[Tensor, " b"]:
    """Cross-entropy of finding each query's own key among the keys of all sampled patches of the same image."""
    positive = (query * key).sum(-1, keepdim=True)
    diagonal = torch.eye(query.shape[1], dtype=torch.bool, device=query.device)
    negative = (query @ key.mT).masked_fill(diagonal, DIAGONAL)
    logits = torch.cat([positive, negative], -1) / temperature
    return (logits.logsumexp(-1) - logits[..., 0]).mean(-1)


def _patches(x: Float[Tensor, "b d h w"], ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
    flat = rearrange(x, "b d h w -> b (h w) d")
    picked = flat.gather(1, ids[..., None].expand(-1, -1, flat.shape[-1]))
    return F.normalize(picked, dim=-1, eps=1e-7)
