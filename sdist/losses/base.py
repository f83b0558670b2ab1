"""What a loss is: the branches that it needs and dL/dz made of their predictions."""

from abc import ABC, abstractmethod
from typing import ClassVar

from ..diffusion import Latents
from ..prediction import Branch, Prediction, Recorder
from ..registry import Registry

LOSSES: Registry["Loss"] = Registry("loss", "sdist.losses")


class Loss(ABC):
    """A frozen dataclass whose fields are its configuration."""

    graph: ClassVar[bool] = False  # True only where the method differentiates through the network

    @property
    @abstractmethod
    def branches(self) -> tuple[Branch, ...]:
        """The predictions that `gradient` reads."""

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        """The activations that `gradient` reads."""
        return ()

    @abstractmethod
    def gradient(self, p: Prediction) -> Latents:
        """dL/dz: an optimizer moves the latents against it."""
