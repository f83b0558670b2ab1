"""A method: one component of each slot, and how many steps they are given."""

from dataclasses import dataclass, field, replace

from ..errors import UserError
from ..filters import Filter
from ..gammas import Constant, Gamma
from ..losses.base import Loss
from ..normalizers import Normalizer
from ..optimizer import OptimizerSettings
from ..prediction import Branch, Recorder
from ..regularizers.base import Regularizer
from ..regularizers.mask import MaskRegularizer
from ..regularizers.user_mask import UserMask


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

    def __post_init__(self) -> None:
        if len(self._masks) > 1:
            raise UserError(f"regularizers: {' and '.join(self._masks)} are masks, a method has one; null switches one off")

    @property
    def _masks(self) -> list[str]:
        return [name for name, regularizer in self.regularizers.items() if isinstance(regularizer, MaskRegularizer)]

    @property
    def mask(self) -> str | None:
        """Which of the regularizers is its mask."""
        return next(iter(self._masks), None)

    @property
    def reads(self) -> frozenset[str]:
        """What its components read of a request, beside image and prompts."""
        return frozenset[str]().union(*(regularizer.reads for regularizer in self.regularizers.values()))

    def with_user_mask(self) -> "Method":
        """The same for images of which one has a mask image: a method without a mask multiplies the gradient by that."""
        if self.mask is not None:
            return self
        return replace(self, regularizers={"user_mask": UserMask(), **self.regularizers})

    @property
    def branches(self) -> tuple[Branch, ...]:
        """All predictions that its components read."""
        return (*self.loss.branches, *(b for regularizer in self.regularizers.values() for b in regularizer.branches))

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        """All activations that its components read."""
        return (*self.loss.recorders, *(r for regularizer in self.regularizers.values() for r in regularizer.recorders))
