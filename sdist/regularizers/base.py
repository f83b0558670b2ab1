"""What a regularizer is: a map from gradient to gradient that may remember, image by image, what it saw."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor

from ..diffusion import Latents, PerImage
from ..prediction import Prediction, Recorder


@dataclass
class Memory:
    """What one regularizer keeps between accepted steps; each tensor has a leading axis of slots (images of the run)."""

    slots: int
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def tensor(self, name: str, like: Tensor) -> Tensor:
        """The tensor of that name, zeros at first: one row a slot, shaped like the rows of `like`."""
        if name not in self.tensors:
            self.tensors[name] = like.new_zeros(self.slots, *like.shape[1:])
        return self.tensors[name]


class Regularizer(ABC):
    """A frozen dataclass whose fields are its configuration. It sees accepted draws only."""

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        """The activations that it reads."""
        return ()

    def diagnostics(self, p: Prediction, memory: Memory) -> dict[str, PerImage]:
        """What the log should show of the step just made, a value an image."""
        return {}

    @abstractmethod
    def __call__(self, gradient: Latents, p: Prediction, memory: Memory) -> Latents:
        """The regularized gradient of p's rows."""
