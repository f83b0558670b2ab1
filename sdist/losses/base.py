"""What a loss is: the branches that it needs and dL/dz made of their predictions."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from jaxtyping import Bool, Float, Int, Real
from torch import Tensor, ones_like

from ..diffusion import Latents, PerImage, per_image, size_of
from ..draws import DrawKey
from ..prediction import Branch, Draw, Edit, Hook, Network, Outputs, Prediction, Progress, State, predict

Weighting = Literal["uniform", "sigma2", "alpha_sigma2"]


@dataclass(frozen=True)
class Probe:
    """What a loss may ask of the network before a step's own predictions: those of other draws for the same latents."""

    network: Network
    latents: Latents
    edit: Edit
    progress: Progress
    shift: PerImage | None = None  # see Loss.shift
    state: State = field(default_factory=State)  # of the loss; `prepare` only reads it, as `gradient` does

    def predict(self, draw: Draw, branches: Iterable[Branch], hooks: Iterable[Hook] = ()) -> Prediction:
        """One network call more."""
        return predict(self.network, self.latents.detach(), self.edit, draw, branches, hooks, self.progress, self.shift)

    def at(self, draw: Draw, t: Real[Tensor, " b"]) -> Draw:
        """The same noise at other timesteps."""
        alpha, sigma = (scale.to(draw.alpha) for scale in self.network.scales(t, size_of(self.latents)))
        return replace(draw, t=t, alpha=alpha, sigma=sigma)

    def narrow(self, rows: Int[Tensor, " m"]) -> "Probe":
        """The same for some rows."""
        images, step, steps = self.progress
        progress, shift = Progress(images[rows], step[rows], steps), None if self.shift is None else self.shift[rows]
        return Probe(self.network, self.latents[rows], self.edit.narrow(rows), progress, shift, self.state)


class Loss(ABC):
    """A frozen dataclass whose fields are its configuration. What it keeps of images from step to step is in p.state."""

    graph: ClassVar[bool] = False  # True only where `gradient` differentiates through the network

    @property
    @abstractmethod
    def branches(self) -> tuple[Branch, ...]:
        """The predictions that `gradient` reads."""

    @property
    def differentiates(self) -> bool:
        """Whether gradients go through the network, in `gradient` or in `prepare`."""
        return self.graph

    @property
    def walks(self) -> bool:
        """Whether a step leads from one noise level to the next, so that timesteps must descend."""
        return False

    @property
    def gap(self) -> int | None:
        """How many timesteps below its own the next level of a draw lies; None: what the timesteps say."""
        return None

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """The activations that `gradient` reads."""
        return ()

    @property
    def probed(self) -> tuple[Branch, ...]:
        """The predictions that `prepare` asks for."""
        return ()

    def check(self, steps: int) -> None:  # noqa: B027
        """Raises UserError if it has no run of so many steps."""

    def noise_key(self, key: DrawKey, steps: int) -> DrawKey:
        """The draw whose noise a draw of a run of so many steps uses: by default its own."""
        return key

    def shift(self, progress: Progress) -> PerImage | None:
        """How much of the edit so far is added to its noisy latents, in units of sigma, one value per image."""
        return None

    def prepare(self, draw: Draw, probe: Probe) -> tuple[Draw, Outputs | None]:
        """The draw that the step's predictions are made of, and what of the network's earlier answers `p.earlier` shall hold."""
        return draw, None

    @abstractmethod
    def gradient(self, p: Prediction) -> Latents:
        """dL/dz: an optimizer moves the latents against it. The draw may yet be rejected, so p.state is only read."""

    def causes(self, p: Prediction) -> dict[str, Bool[Tensor, " b"]]:
        """Why a gradient may not be finite, beside what the network gave, and for which images that is not so."""
        return {}

    def accepted(self, gradient: Latents, p: Prediction) -> None:  # noqa: B027
        """Called for the draws of p that are a step, with their gradient: here, and only here, p.state is written."""


def predict_for(
    loss: Loss,
    network: Network,
    latents: Latents,
    edit: Edit,
    draw: Draw,
    branches: Iterable[Branch],
    hooks: Iterable[Hook],
    progress: Progress,
    state: State | None = None,
) -> Prediction:
    """What the loss prepares, then all branches in one network call."""
    shift, state = loss.shift(progress), state or State()
    shift = None if shift is None else shift.to(latents)
    draw, earlier = loss.prepare(draw, Probe(network, latents, edit, progress, shift, state))
    return replace(predict(network, latents, edit, draw, branches, hooks, progress, shift), earlier=earlier, state=state)


def weight(name: Weighting, draw: Draw) -> Float[Tensor, "b 1 1 1"]:
    """1, sigma^2 = 1 - alpha_bar (DreamFusion, SBP) or alpha sigma^2 (Fantasia3D), one value per image."""
    values = {
        "uniform": ones_like(draw.sigma),
        "sigma2": draw.sigma**2,
        "alpha_sigma2": draw.alpha * draw.sigma**2,
    }
    return per_image(values[name])
