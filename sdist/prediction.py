"""The one place that calls the network: all rows that the components asked for, in one batch, returned by name."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from .diffusion import Latents, PerImage, add_noise
from .draws import Sampler, Ticket

Prompt = Literal["target", "source", "null", "negative"]


class Branch(NamedTuple):
    """One noise prediction: which latents are noised, and which prompt is shown to the network."""

    latent: Literal["edit", "source"]
    prompt: Prompt


TARGET = Branch("edit", "target")
SOURCE = Branch("edit", "source")
NULL = Branch("edit", "null")
SOURCE_SOURCE = Branch("source", "source")
SOURCE_NULL = Branch("source", "null")


class Network(Protocol):
    """Predicts noise; the Backbone is one, an analytic predictor in the tests is another."""

    alphas_cumprod: Float[Tensor, " steps"]

    def eps(self, z_t: Float[Tensor, "n c h w"], t: Int[Tensor, " n"], text: Float[Tensor, "n l d"]) -> Float[Tensor, "n c h w"]:
        """The predicted noise in float32, whatever the network itself predicts or computes in."""


class Recorder(Protocol):
    """Opens hooks on the network for one call and turns what they saw into a value with an image axis; hashable."""

    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Any:
        """A context manager that yields a function: called after the forward with (height, width), it gives the value."""


@dataclass(frozen=True)
class Edit:
    """What is edited, a row an image: source latents, text embeddings by prompt, noun tokens, an optional user mask."""

    source: Latents
    text: dict[Prompt, Float[Tensor, "b l d"]]
    focus: Float[Tensor, "b l"]  # 1 at the tokens that the mask follows, else 0; a row of zeros: no mask
    mask: Float[Tensor, "b 1 h w"] | None = None  # the user's, 1 where the edit may happen

    def narrow(self, rows: Int[Tensor, " m"]) -> "Edit":
        """The same for some images."""
        text = {prompt: value[rows] for prompt, value in self.text.items()}
        return Edit(self.source[rows], text, self.focus[rows], None if self.mask is None else self.mask[rows])


@dataclass(frozen=True)
class Draw:
    """A timestep and a noise for each image; tickets name the draw, for components that sample more."""

    t: Int[Tensor, " b"]
    noise: Latents
    alpha: PerImage
    sigma: PerImage
    tickets: tuple[Ticket, ...]
    sampler: Sampler

    def narrow(self, rows: Int[Tensor, " m"]) -> "Draw":
        tickets = tuple(self.tickets[i] for i in rows.tolist())
        return replace(
            self, t=self.t[rows], noise=self.noise[rows], alpha=self.alpha[rows], sigma=self.sigma[rows], tickets=tickets
        )


@dataclass(frozen=True)
class Prediction:
    """What components see: latents, the edit, the draw, predicted noise by branch, recorded activations.

    `slots` says which image of the run each row belongs to, `step` how many steps it has done, of `steps`.
    """

    latents: Latents
    edit: Edit
    draw: Draw
    eps: dict[Branch, Latents]
    recorded: dict[Recorder, Any]
    slots: Int[Tensor, " b"]
    step: Int[Tensor, " b"]
    steps: int

    def narrow(self, rows: Int[Tensor, " m"]) -> "Prediction":
        """The same for some rows; what was recorded for the others is gone."""
        return Prediction(
            self.latents[rows],
            self.edit.narrow(rows),
            self.draw.narrow(rows),
            {branch: eps[rows] for branch, eps in self.eps.items()},
            {recorder: value.narrow(rows) for recorder, value in self.recorded.items()},
            self.slots[rows],
            self.step[rows],
            self.steps,
        )


class Progress(NamedTuple):
    """Where each row stands in its run."""

    slots: Int[Tensor, " b"]
    step: Int[Tensor, " b"]
    steps: int


def predict(
    network: Network,
    latents: Latents,
    edit: Edit,
    draw: Draw,
    branches: Iterable[Branch],
    recorders: Iterable[Recorder],
    progress: Progress,
) -> Prediction:
    """One batched network call for all branches of all images; rows are ordered by branch, then by image.

    Gradients flow to `latents` only if autograd is on and they require it.
    """
    branches, b = tuple(dict.fromkeys(branches)), len(latents)
    clean = {"edit": latents, "source": edit.source}
    noised = {name: add_noise(z, draw.noise, draw.alpha, draw.sigma) for name, z in clean.items()}
    z_t = torch.cat([noised[branch.latent] for branch in branches])
    text = torch.cat([edit.text[branch.prompt] for branch in branches])
    rows = {branch: slice(i * b, (i + 1) * b) for i, branch in enumerate(branches)}
    with ExitStack() as stack:
        collect = {r: stack.enter_context(r.open(network, rows)) for r in dict.fromkeys(recorders)}
        eps = network.eps(z_t, draw.t.repeat(len(branches)), text)
        height, width = z_t.shape[-2:]
        recorded = {recorder: value((height, width)) for recorder, value in collect.items()}
    named = dict(zip(branches, rearrange(eps, "(n b) c h w -> n b c h w", b=b), strict=True))
    return Prediction(latents, edit, draw, named, recorded, *progress)
