"""A method: one component of each slot, and how many steps they are given."""

from dataclasses import dataclass, field

from ..filters import Filter
from ..gammas import Constant, Gamma
from ..losses.base import Loss
from ..normalizers import Normalizer
from ..optimizer import OptimizerSettings
from ..prediction import Recorder
from ..regularizers.base import Regularizer


@dataclass(frozen=True)
class Method:
    """filter(loss) -> regularizers, in order -> normalizer -> gamma -> optimizer."""

    loss: Loss
    regularizers: dict[str, Regularizer] = field(default_factory=dict)
    filter: Filter | None = None
    normalizer: Normalizer | None = None
    gamma: Gamma = field(default_factory=Constant)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    steps: int = 200

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        """All activations that its components read."""
        return (*self.loss.recorders, *(r for regularizer in self.regularizers.values() for r in regularizer.recorders))
