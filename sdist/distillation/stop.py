"""When an edit ends by itself: where it hardly grows any more."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class StopSettings:
    """Ends an edit whose growth over the last `window` steps is below `share` of the most that it grew in as many.

    Its size is the root mean square of z - z_src. For timesteps that are drawn; a walk down the levels ends by itself. Ours.
    """

    share: float = 0.0  # 0: all steps are made
    window: int = 40  # steps

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UserError(f"stop.share must be within 0..1, not 1, got {self.share:g}")
        if self.window < 1:
            raise UserError(f"stop.window must be at least 1, got {self.window}")

    @property
    def is_on(self) -> bool:
        return self.share > 0

    def ends(self, sizes: Sequence[float]) -> bool:
        """Whether the step after these sizes, of which there is one before each step so far, is the last."""
        if not self.is_on or len(sizes) <= self.window:
            return False
        growth = [late - early for early, late in zip(sizes, sizes[self.window :], strict=False)]
        return growth[-1] < self.share * max(growth)
