"""A method of score distillation: one component of each slot, and the algorithm that they are parts of."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Real
from torch import Tensor

from ..diffusion import Latents, PerImage, per_image, size_of, std
from ..draws import DrawKey, RandomSampler, Sampler
from ..errors import UserError
from ..faults import check_shape, naming
from ..filters import Filter
from ..gammas import Constant, Gamma
from ..losses.base import Loss, predict_for
from ..models.memory import allocating
from ..normalizers import Normalizer
from ..optimizer import OptimizerSettings
from ..prediction import Branch, Draw, Edit, Hook, Network, Prediction, Progress, State
from ..regularizers.base import Regularizer
from ..regularizers.mask import MaskRegularizer
from ..regularizers.user_mask import UserMask
from ..timesteps import Timesteps, Uniform
from .past import PastDraws
from .schedule import first_until
from .stop import StopSettings


class States(NamedTuple):
    """What the components of a method keep of the images of one run."""

    loss: State
    regularizers: dict[str, State]
    past: PastDraws | None  # for a filter that reads it
    sizes: list[list[float]]  # of each image's edit before each of its steps


class Verdict(NamedTuple):
    """Of each draw, on the host."""

    good: Bool[Tensor, " b"]  # passed, or the last that its step may try
    exhausted: Bool[Tensor, " b"]  # the latter only
    finite: Bool[Tensor, " b"]
    t: Real[Tensor, " b"]
    sd: PerImage
    threshold: PerImage  # that it had to reach; 0 without a filter
    size: PerImage  # of the edit so far: the root mean square of z - z_src


class Step(NamedTuple):
    """What a method made of draws: a direction for each that is a step of its image."""

    verdict: Verdict
    counts: Bool[Tensor, " b"]  # the draws of each image up to the first that is good; those after it were not needed
    rows: Int[Tensor, " m"]  # the draws that are a step
    last: Bool[Tensor, " m"]  # which of those is the last that its image makes
    direction: Latents  # (m, c, h, w): an optimizer moves the latents against it
    values: dict[str, PerImage]  # of those m, for the log; step_norm is lr x |direction|: how far a step of plain SGD goes
    faults: list[str]  # what is not finite, by draw; empty if all is


@dataclass(frozen=True)
class Method:
    """Its `direction` is the algorithm; an optimizer makes the step."""

    loss: Loss
    regularizers: dict[str, Regularizer] = field(default_factory=dict)
    filter: Filter | None = None
    normalizer: Normalizer | None = None
    gamma: Gamma = field(default_factory=Constant)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    steps: int = 200
    timesteps: Timesteps = field(default_factory=Uniform)
    noises: int = 1  # that the loss's gradient of one draw is the mean of; regularizers see the first
    stop: StopSettings = field(default_factory=StopSettings)

    def __post_init__(self) -> None:
        self.loss.check(self.steps)
        if self.loss.walks and not self.timesteps.descends:
            raise UserError(
                "the loss takes steps from level to level, which needs timesteps that descend; "
                "set timesteps.name to descending or annealed (or the step of velocity_delta to constant)"
            )
        if self.stop.is_on and self.timesteps.descends:
            raise UserError("stop: these timesteps walk down to a last level, where the edit ends; set stop.share to 0")
        if len(self._masks) > 1:
            raise UserError(f"regularizers: {' and '.join(self._masks)} are masks, a method has one; null switches one off")

    # --- the algorithm --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def direction(
        self, network: Network, latents: Latents, edit: Edit, draw: Draw, images: Int[Tensor, " b"], states: States
    ) -> Step:
        """One network call for draws that `draw` made; each row belongs to one of the `images` that `states` are of.

        Draws of the same image stand together and are tried in their order. Raises AllocationError if they do not fit, and then
        nothing has changed.
        """
        p, gradient = self.predict(network, latents, edit, draw, images, states)
        verdict = self._judge(gradient, p, images, states.past)
        faults = [] if verdict.finite.all() else self._faults(network, p)
        counts = first_until(images.cpu(), verdict.good | ~verdict.finite)
        if states.past is not None:
            states.past.add(images.cpu()[counts], verdict.sd[counts])
        rows = (counts & verdict.good).nonzero()[:, 0]
        last = self._last(images.cpu()[rows], verdict.size[rows], states.sizes)
        if not len(rows):
            return Step(verdict, counts, rows, last, gradient[rows], {}, faults)
        p, gradient = p.narrow(rows), gradient[rows]
        with naming("loss", self.loss):
            self.loss.accepted(gradient, p)
        values = dict[str, PerImage]()
        for name, regularize in self.regularizers.items():
            p = replace(p, state=states.regularizers[name])
            with naming("regularizer", regularize):
                gradient = regularize(gradient, p)
                values |= regularize.diagnostics(p)
            check_shape("regularizer", regularize, "gradient", gradient, tuple(p.latents.shape))
        normalized = gradient if self.normalizer is None else self.normalizer(gradient)
        gamma = self.gamma(p.step.to(gradient.dtype) / max(1, self.steps - 1))
        direction = per_image(gamma) * normalized
        values |= {"gamma": gamma, "step_norm": self.optimizer.step_size(direction) * direction.flatten(1).norm(dim=1)}
        return Step(verdict, counts, rows, last, direction, values, faults)

    def draw(self, network: Network, keys: Sequence[DrawKey], like: Latents, sampler: Sampler | None = None) -> Draw:
        """The draws of those keys for latents like these, each with its `noises`; `sampler` can play recorded ones back."""
        keys = [replace(key, sample=i) for key in keys for i in range(self.noises)]
        sampler, last = sampler or RandomSampler(), network.last_timestep
        redrawn = self.filter is not None and self.filter.redraw_timestep
        timed = [replace(key, sample=0, attempt=key.attempt if redrawn else 0) for key in keys]
        t = torch.tensor([self.timesteps.at(key, self.steps, last) for key in timed], device=like.device)
        following = self._following(t, timed, last)
        noise = torch.stack([sampler.noise(self.loss.noise_key(key, self.steps), like.shape[1:]) for key in keys]).to(like)
        scales = (*network.scales(t, size_of(like)), *_scales_or_clean(network, following, noise))
        return Draw(t, noise, *scales, tuple(keys), sampler)

    def _following(self, t: Real[Tensor, " b"], keys: Sequence[DrawKey], last: int) -> list[float | None]:
        """The timestep of the next level of each draw, as the loss or else the timesteps have it; None is clean data."""
        if self.loss.gap is None:
            return [self.timesteps.after(key, self.steps, last) for key in keys]
        return [max(0.0, float(at) - self.loss.gap) for at in t]

    def predict(
        self, network: Network, latents: Latents, edit: Edit, draw: Draw, images: Int[Tensor, " b"], states: States
    ) -> tuple[Prediction, Latents]:
        """What the network says of the first noise of each draw, and the mean of the loss's raw gradient over all of them."""
        if self.noises > 1:
            rows = torch.arange(len(latents), device=latents.device).repeat_interleave(self.noises)
            latents, edit, images = latents[rows], edit.narrow(rows), images[rows]
        z = latents.detach().requires_grad_(self.loss.graph)
        progress = Progress(images, torch.tensor([key.step for key in draw.keys], device=z.device), self.steps)
        with torch.set_grad_enabled(self.loss.graph), allocating(z.device, f"{len(z)} draws at once"):
            with naming("model", network):
                p = predict_for(self.loss, network, z, edit, draw, self.branches, self.hooks, progress, states.loss)
            with naming("loss", self.loss):
                gradient = self.loss.gradient(p).detach()
        check_shape("loss", self.loss, "gradient", gradient, tuple(z.shape))
        if self.noises == 1:
            return p, gradient
        first = torch.arange(0, len(z), self.noises, device=z.device)
        return p.narrow(first), gradient.unflatten(0, (-1, self.noises)).mean(1)

    def _judge(self, gradient: Latents, p: Prediction, images: Int[Tensor, " b"], past: PastDraws | None) -> Verdict:
        """What the host must know to go on; here, and only here, it waits for the device."""
        accept, draw, sd = self.filter, p.draw, std(gradient)
        size = (p.latents - p.edit.source).detach().square().flatten(1).mean(1).sqrt()
        attempt = torch.tensor([key.attempt for key in draw.keys])
        finite = gradient.isfinite().flatten(1).all(1)
        passed, threshold = torch.ones_like(finite), torch.zeros_like(sd)
        if accept is not None:
            before = sd.new_empty(len(sd), 0) if past is None else past.before(images, sd)
            passed, threshold = accept.accept_after(gradient, attempt.to(sd.device), before)
        facts = torch.stack([passed.to(sd), finite.to(sd), draw.t.to(sd), sd, threshold.to(sd), size.to(sd)]).cpu()
        passed, finite = facts[:2].bool()
        last = torch.zeros_like(passed) if accept is None else attempt + 1 >= accept.max_attempts
        return Verdict((passed | last) & finite, last & ~passed & finite, finite, facts[2].to(draw.t.dtype), *facts[3:])

    def _last(self, images: Int[Tensor, " m"], size: PerImage, sizes: list[list[float]]) -> Bool[Tensor, " m"]:
        """Which of these images, which make a step, make no other; their sizes are kept."""
        for image, before in zip(images.tolist(), size.tolist(), strict=True):
            sizes[image].append(before)
        return torch.tensor([self.stop.ends(sizes[image]) for image in images.tolist()], dtype=torch.bool)

    def _faults(self, network: Network, p: Prediction) -> list[str]:
        """Where the first value of each row may come from that is not finite: the latents, the denoiser, or the loss."""
        name = getattr(network, "denoiser_name", type(network).__name__)
        causes = {
            **self.loss.causes(p),
            f"the denoiser ({name}) gave values that are not finite": p.outputs.finite,
            "the latents are not finite": p.latents.isfinite().flatten(1).all(1),
        }
        reasons = [f"{type(self.loss).__name__} gave a gradient that is not finite"] * len(p.latents)
        for text, finite in causes.items():
            reasons = [reason if fine else text for reason, fine in zip(reasons, finite.tolist(), strict=True)]
        return reasons

    # --- its components -------------------------------------------------------------------------------------------------

    def states(self, images: int) -> States:
        """Those of a run that begins."""
        past = PastDraws(images) if self.filter is not None and self.filter.reads_past else None
        return States(State(images), {name: State(images) for name in self.regularizers}, past, [[] for _ in range(images)])

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All predictions that its components read."""
        return (*self.loss.branches, *(b for regularizer in self.regularizers.values() for b in regularizer.branches))

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """All activations that its components read."""
        return (*self.loss.hooks, *(hook for regularizer in self.regularizers.values() for hook in regularizer.hooks))

    @property
    def reads(self) -> frozenset[str]:
        """What its components read of a request, beside image and prompts."""
        return frozenset[str]().union(*(regularizer.reads for regularizer in self.regularizers.values()))

    @property
    def follows(self) -> frozenset[str]:
        """The prompts whose words its components follow."""
        return frozenset[str]().union(*(regularizer.follows for regularizer in self.regularizers.values()))

    @property
    def mask(self) -> str | None:
        """Which of the regularizers is its mask."""
        return next(iter(self._masks), None)

    def with_user_mask(self) -> "Method":
        """The same for images of which one has a mask image: a method without a mask multiplies the gradient by that."""
        if self.mask is not None:
            return self
        return replace(self, regularizers={"user_mask": UserMask(), **self.regularizers})

    @property
    def _masks(self) -> list[str]:
        return [name for name, regularizer in self.regularizers.items() if isinstance(regularizer, MaskRegularizer)]


def _scales_or_clean(network: Network, t: Sequence[float | None], z: Latents) -> tuple[PerImage, PerImage]:
    """alpha and sigma at those timesteps; 1 and 0, those of clean data, for None. `z` are as many latents."""
    alpha, sigma = network.scales(torch.tensor([at or 0 for at in t], device=z.device), size_of(z))
    clean = torch.tensor([at is None for at in t], device=z.device)
    return torch.where(clean, torch.ones_like(alpha), alpha), torch.where(clean, torch.zeros_like(sigma), sigma)
