"""What a regularizer is: a map from gradient to gradient that may keep, of each image, what it saw."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ..diffusion import Latents, PerImage
from ..prediction import Branch, Hook, Prediction, Prompt


class Regularizer(ABC):
    """A frozen dataclass whose fields are its configuration. It sees accepted draws only; p.state is its own."""

    reads: ClassVar[frozenset[str]] = frozenset()  # of a request, beside its image and prompts: "words", "mask"

    @property
    def follows(self) -> frozenset[Prompt]:
        """The prompts whose words it follows, if it does."""
        return frozenset({"target"} if "words" in self.reads else ())

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The predictions that it reads."""
        return ()

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """The activations that it reads."""
        return ()

    def adapted(self, network: Any, scale: Any) -> "Regularizer":
        """The same for a network, whose `scale` (sdist/models/catalogue.py) says which values were not chosen by the user."""
        return self

    def diagnostics(self, p: Prediction) -> dict[str, PerImage]:
        """What the log should show of the step just made, one value per image."""
        return {}

    @abstractmethod
    def __call__(self, gradient: Latents, p: Prediction) -> Latents:
        """The regularized gradient of p's rows."""
