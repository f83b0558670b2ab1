"""The one place that calls the network: all rows that the components asked for, in one batch, returned by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Real
from torch import Tensor

from .diffusion import Estimate, Latents, PerImage, add_noise, per_image
from .draws import DrawKey, Sampler

Prompt = Literal["target", "source", "null", "negative"]
Guidance = Literal["cfg", "embedded"]  # true guidance by a null prompt, or a scale that the network reads (FLUX.1 dev)


class Branch(NamedTuple):
    """One prediction: which noisy latents are shown to the network with which prompt, and with what guidance.

    A sampler may have noisy latents and prompts of other names than those of an edit.
    """

    latent: Literal["edit", "source"] | str
    prompt: Prompt | str
    scale: float | None = None  # null + scale (this - null); None and 1: no guidance

    def guided(self, scale: float) -> "Branch":
        """The same with guidance; 1 is none, so that a network that embeds it is asked once."""
        return self._replace(scale=None if scale == 1 else scale)

    @property
    def bare(self) -> "Branch":
        """The same without guidance."""
        return Branch(self.latent, self.prompt)

    @property
    def null(self) -> "Branch":
        """What its guidance leads away from."""
        return Branch(self.latent, "null")

    @property
    def has_guidance(self) -> bool:
        return self.scale not in (None, 1)


TARGET = Branch("edit", "target")
SOURCE = Branch("edit", "source")
NULL = Branch("edit", "null")
SOURCE_SOURCE = Branch("source", "source")
SOURCE_NULL = Branch("source", "null")


@dataclass(frozen=True)
class Text:
    """What a network reads of prompts, one row per prompt."""

    tokens: Float[Tensor, "n l d"]
    pooled: Float[Tensor, "n p"] | None = None  # one vector for the whole prompt, where the model reads one
    mask: Bool[Tensor, "n l"] | None = None  # the tokens that are read, where not all are

    def map(self, function: Callable[[Tensor], Tensor]) -> "Text":
        """The function of each part that there is."""
        return Text(function(self.tokens), *(None if part is None else function(part) for part in (self.pooled, self.mask)))

    @property
    def finite(self) -> bool:
        """Whether all embeddings are."""
        return all(bool(part.isfinite().all()) for part in (self.tokens, self.pooled) if part is not None)

    def __getitem__(self, rows: slice | Tensor) -> "Text":
        """The same for some rows."""
        return self.map(lambda part: part[rows])

    def to(self, dtype: torch.dtype) -> "Text":
        """The same with its embeddings in another format."""
        return Text(self.tokens.to(dtype), None if self.pooled is None else self.pooled.to(dtype), self.mask)

    def repeat(self, n: int) -> "Text":
        """All rows, n times."""
        return self.map(lambda part: part.repeat(n, *(1 for _ in part.shape[1:])))

    @staticmethod
    def cat(texts: Sequence["Text"]) -> "Text":
        """Rows of texts of one model, one text after the other."""
        pooled = [text.pooled for text in texts if text.pooled is not None]
        masks = [text.mask for text in texts if text.mask is not None]
        tokens = torch.cat([text.tokens for text in texts])
        return Text(tokens, torch.cat(pooled) if pooled else None, torch.cat(masks) if masks else None)


@runtime_checkable
class Network(Protocol):
    """Estimates what noisy latents are made of; a Backbone is one, an analytic predictor in the tests is another."""

    @property
    def guidance(self) -> Guidance: ...

    @property
    def last_timestep(self) -> int:
        """The noisiest."""

    def scales(self, t: Real[Tensor, " n"], size: tuple[int, int]) -> tuple[PerImage, PerImage]:
        """alpha and sigma of z_t = alpha z + sigma noise at timesteps 0..last_timestep, whole or not.

        `size`: height and width of the latents, which the levels of some models depend on.
        """

    def estimate(
        self,
        z_t: Float[Tensor, "n c h w"],
        t: Real[Tensor, " n"],
        text: Text,
        guidance: Float[Tensor, " n"] | None = None,
    ) -> Estimate:
        """What each row is made of, in float32, whatever the network computes in; `guidance` where it is embedded."""


@runtime_checkable
class Hook(Protocol):
    """Opens hooks on the network for one call, to see what it computes or to steer it; hashable."""

    def open(self, network: Any, rows: Mapping[Branch, slice]) -> Any:
        """A context manager that yields a function: called after the forward with (height, width), it gives what was seen.

        That has an image axis. A hook that only steers yields None.
        `rows` are those of each branch, a guided one's conditional rows; also under its name without guidance.
        """


@runtime_checkable
class ImageHook(Hook, Protocol):
    """A hook that knows something of each image."""

    def narrow(self, rows: Int[Tensor, " m"]) -> "ImageHook":
        """The same for some images."""


@dataclass(frozen=True)
class Edit:
    """What is edited, one row per image: source latents, embedded prompts by name, noun tokens, an optional user mask."""

    source: Latents
    text: Mapping[str, Text]
    focus: Float[Tensor, "b l"]  # 1 at the tokens that the mask follows, else 0; a row of zeros: no mask
    mask: Float[Tensor, "b 1 h w"] | None = None  # the user's, 1 where the edit may happen
    masked: Bool[Tensor, " b"] | None = None  # which images have a mask of their own, where `mask` is there; None: all
    steering: ImageHook | None = None  # what steers every network call by the image
    source_focus: Float[Tensor, "b l"] | None = None  # `focus` of the source prompt's tokens; None: it has none
    condition: Float[Tensor, "b k h w"] | None = None  # what the network reads behind noisy latents, along the channels

    def narrow(self, rows: Int[Tensor, " m"]) -> "Edit":
        """The same for some images."""
        text = {prompt: value[rows] for prompt, value in self.text.items()}
        optional = (self.mask, self.masked, self.condition, self.source_focus)
        mask, masked, condition, source = (None if value is None else value[rows] for value in optional)
        steering = None if self.steering is None else self.steering.narrow(rows)
        return Edit(self.source[rows], text, self.focus[rows], mask, masked, steering, source, condition)


@dataclass(frozen=True)
class Draw:
    """A timestep and a noise for each image, and the level that comes next; keys name the draws, for components that sample more.

    The next level is that of the step that follows where timesteps descend, else, and after the last step, clean data: 1 and 0.
    """

    t: Real[Tensor, " b"]
    noise: Latents
    alpha: PerImage
    sigma: PerImage
    next_alpha: PerImage
    next_sigma: PerImage
    keys: tuple[DrawKey, ...]
    sampler: Sampler

    def narrow(self, rows: Int[Tensor, " m"]) -> "Draw":
        """The same for some images."""
        return Draw(
            self.t[rows],
            self.noise[rows],
            self.alpha[rows],
            self.sigma[rows],
            self.next_alpha[rows],
            self.next_sigma[rows],
            tuple(self.keys[i] for i in rows.tolist()),
            self.sampler,
        )


@dataclass
class State:
    """What one component keeps of the images of a run between accepted steps."""

    images: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)  # one row per image
    large: dict[str, dict[int, Tensor]] = field(default_factory=dict)  # by image, of those alone that are being edited

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """The tensor of that name, zeros at first, whose rows have the shape of the rows of `like`."""
        if name not in self.tensors:
            self.tensors[name] = like.new_zeros(self.images, *like.shape[1:])
        return self.tensors[name]

    def rows(self, name: str, images: Int[Tensor, " b"], like: Tensor) -> Tensor:
        """A copy of what is large, one row per image, zeros at first; rows have the shape of the rows of `like`."""
        kept = self.large.setdefault(name, {})
        for image in images.tolist():
            if image not in kept:
                kept[image] = like.new_zeros(like.shape[1:])
        return torch.stack([kept[image] for image in images.tolist()])

    def keep(self, name: str, images: Int[Tensor, " b"], rows: Tensor) -> None:
        """Writes what `rows` gave, until the images are finished."""
        for image, row in zip(images.tolist(), rows, strict=True):
            self.large[name][image].copy_(row)

    def free(self, images: Sequence[int]) -> None:
        """Lets go of what is large of these images."""
        for kept in self.large.values():
            for image in images:
                kept.pop(image, None)


@dataclass(frozen=True)
class Outputs:
    """What one network call gave, by branch: eps, clean, velocity, each computed when it is read; recorded activations."""

    estimates: Mapping[Branch, Estimate]  # of the rows that the network saw, see `rows_of`
    recorded: Mapping[Hook, Any]
    rows: Int[Tensor, " m"] | None = None  # the images that are left, None: all

    def __getitem__(self, branch: Branch) -> Estimate:
        """Of one branch. Raises KeyError if the network was not asked for what it needs."""
        if branch in self.estimates:
            whole = self.estimates[branch]
        else:
            whole = self.estimates[branch.bare]
            if branch.scale is not None and branch.has_guidance:
                whole = whole.guided(self.estimates[branch.null], branch.scale)
        return whole if self.rows is None else whole[self.rows]

    @property
    def finite(self) -> Bool[Tensor, " m"]:
        """Of each image: whether all that the network gave is."""
        whole = torch.stack([estimate.output.isfinite().flatten(1).all(1) for estimate in self.estimates.values()]).all(0)
        return whole if self.rows is None else whole[self.rows]

    def narrow(self, rows: Int[Tensor, " m"]) -> "Outputs":
        """The same for some images; nothing is copied before it is read, but what was recorded."""
        recorded = {hook: value.narrow(rows) for hook, value in self.recorded.items()}
        return Outputs(self.estimates, recorded, rows if self.rows is None else self.rows[rows])

    @property
    def eps(self) -> "Part":
        return Part(self, "eps")

    @property
    def clean(self) -> "Part":
        return Part(self, "clean")

    @property
    def velocity(self) -> "Part":
        return Part(self, "velocity")


@dataclass(frozen=True)
class Part(Mapping[Branch, Latents]):
    """One part of every estimate, by branch."""

    outputs: Outputs
    name: Literal["eps", "clean", "velocity"]

    def __getitem__(self, branch: Branch) -> Latents:
        return getattr(self.outputs[branch], self.name)

    def __iter__(self) -> Iterator[Branch]:
        return iter(self.outputs.estimates)

    def __len__(self) -> int:
        return len(self.outputs.estimates)


@dataclass(frozen=True)
class Prediction:
    """What components see: latents, the edit, the draw, predictions by branch, recorded activations.

    `images` says which image of the run each row belongs to, `step` how many steps it has done, of `steps`. `state` is that of
    the component that looks: `state.tensors["x"][p.images]` are the rows of p.
    """

    latents: Latents
    edit: Edit
    draw: Draw
    outputs: Outputs
    images: Int[Tensor, " b"]
    step: Int[Tensor, " b"]
    steps: int
    state: State = field(default_factory=State)
    earlier: Outputs | None = None  # of calls before this one, that the loss made to prepare it

    @property
    def eps(self) -> Part:
        """The predicted noise by branch."""
        return self.outputs.eps

    @property
    def clean(self) -> Part:
        """The predicted image by branch, in latents: alpha clean + sigma eps = z_t."""
        return self.outputs.clean

    @property
    def velocity(self) -> Part:
        """eps - clean by branch."""
        return self.outputs.velocity

    @property
    def recorded(self) -> Mapping[Hook, Any]:
        return self.outputs.recorded

    def narrow(self, rows: Int[Tensor, " m"]) -> "Prediction":
        """The same for some rows; what was recorded for the others is gone."""
        return Prediction(
            self.latents[rows],
            self.edit.narrow(rows),
            self.draw.narrow(rows),
            self.outputs.narrow(rows),
            self.images[rows],
            self.step[rows],
            self.steps,
            self.state,
            None if self.earlier is None else self.earlier.narrow(rows),
        )


class Progress(NamedTuple):
    """Where each row stands in its run."""

    images: Int[Tensor, " b"]
    step: Int[Tensor, " b"]
    steps: int


def rows_of(branches: Iterable[Branch], guidance: Guidance) -> tuple[Branch, ...]:
    """What the network is asked for: each row once; under true guidance the null prompt's rows come last."""
    branches = tuple(branches)
    if guidance == "embedded":
        return tuple(dict.fromkeys(branches))
    return tuple(dict.fromkeys([*(b.bare for b in branches), *(b.null for b in branches if b.has_guidance)]))


def call(
    network: Network,
    noisy: Mapping[str, Latents],
    t: Real[Tensor, " b"],
    text: Mapping[str, Text],
    branches: Iterable[Branch],
    hooks: Iterable[Hook] = (),
) -> Outputs:
    """The only network call: all branches of all images in one batch, ordered by branch, then by image.

    `noisy` and `text` hold what the branches name: latents that are noisy already, at the timestep of each image, and prompts.
    """
    rows, b = rows_of(branches, network.guidance), len(t)
    places = {row: slice(i * b, (i + 1) * b) for i, row in enumerate(rows)}
    z_t = torch.cat([noisy[row.latent] for row in rows])
    words = Text.cat([text[row.prompt] for row in rows])
    scales = None
    if network.guidance == "embedded":
        scales = torch.tensor([1.0 if row.scale is None else row.scale for row in rows], device=z_t.device).repeat_interleave(b)
    with ExitStack() as stack:
        seen = {row.bare: place for row, place in places.items()} | places
        collect = {hook: stack.enter_context(hook.open(network, seen)) for hook in dict.fromkeys(hooks)}
        estimate = network.estimate(z_t, t.repeat(len(rows)), words, scales)
        recorded = {hook: value(tuple(z_t.shape[-2:])) for hook, value in collect.items() if value is not None}
    return Outputs({row: estimate[place] for row, place in places.items()}, recorded)


def predict(
    network: Network,
    latents: Latents,
    edit: Edit,
    draw: Draw,
    branches: Iterable[Branch],
    hooks: Iterable[Hook] = (),
    progress: Progress | None = None,
    shift: PerImage | None = None,
) -> Prediction:
    """Noises the edited and the source latents by the draw and calls the network.

    `shift` times sigma times the edit so far is added to the noisy latents of the edit: 1 takes it along whole at every level.
    Gradients flow to `latents` only if autograd is on and they require it. `progress` says which images of a run these are, for
    components that keep a state; without it they are images 0, 1, ... at the first of one step.
    """
    branches, rows = tuple(branches), torch.arange(len(latents), device=latents.device)
    progress = progress or Progress(rows, torch.zeros_like(rows), 1)
    clean = {"edit": latents, "source": edit.source}
    read = dict.fromkeys(branch.latent for branch in branches)
    noisy = {name: add_noise(clean[name], draw.noise, draw.alpha, draw.sigma) for name in read}
    if shift is not None and "edit" in noisy:
        noisy["edit"] = noisy["edit"] + per_image(shift * draw.sigma) * (latents - edit.source)
    if edit.condition is not None:
        noisy = {name: torch.cat([z_t, edit.condition], 1) for name, z_t in noisy.items()}
    hooks = (*hooks, *([] if edit.steering is None else [edit.steering]))
    return Prediction(latents, edit, draw, call(network, noisy, draw.t, edit.text, branches, hooks), *progress)
