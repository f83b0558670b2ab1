"""What is kept of a run: its curves, and latents of some of its steps, from which any strength can be decoded."""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from ..distillation.callbacks import Snapshot
from ..files.images import to_images
from ..models.base import Backbone

KEPT = 40  # frames of a run, beside the first and the last


@dataclass(frozen=True)
class Frame:
    """The latents (1, c, h, w) after `step` steps, and the mask (1, h, w) and the branches that made the last of them."""

    step: int
    latents: Tensor
    mask: Tensor | None
    branches: Mapping[str, Tensor]


@dataclass
class Timeline:
    """Grows by snapshots; step 0 is the encoded source."""

    frames: list[Frame] = field(default_factory=list)
    grad_std: list[float] = field(default_factory=list)
    threshold: list[float] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    steps: int = 0  # that the run will make

    @property
    def made(self) -> int:
        """Steps so far."""
        return len(self.attempts)

    @property
    def stride(self) -> int:
        """Steps between frames that are kept."""
        return max(1, -(-self.steps // KEPT))

    def add(self, snapshot: Snapshot) -> None:
        """The newest frame is always there; the one before it stays only if it stands on the stride."""
        self.steps = snapshot.steps
        kept = self.frames[:-1] if self.frames and self.frames[-1].step % self.stride else self.frames
        mask = None if snapshot.mask is None else snapshot.mask.cpu()
        branches = {name: z.cpu() for name, z in snapshot.branches.items()}
        self.frames = [*kept, Frame(snapshot.step, snapshot.latents.cpu(), mask, branches)]  # at once: another thread may look
        if snapshot.step:
            self.grad_std.append(snapshot.grad_std)
            self.threshold.append(snapshot.threshold)
            self.attempts.append(snapshot.attempts)  # the last of the three: it tells how many there are

    def thin(self) -> None:
        """Leaves the first frame and the last."""
        self.frames = [*self.frames[:1], *self.frames[1:][-1:]]

    def at(self, step: int) -> Frame:
        """The last frame at that step or before."""
        frames = self.frames
        return frames[max(0, bisect_right([frame.step for frame in frames], step) - 1)]

    def latents(self, step: int, strength: float = 1.0) -> Tensor:
        """z_source + strength x (z_step - z_source), (1, c, h, w): 0 is the encoded source, 1 the run, beyond 1 further on."""
        source, frame = self.frames[0].latents, self.at(step)
        return frame.latents if strength == 1 else source + strength * (frame.latents - source)

    def branches(self, backbone: Backbone, step: int) -> dict[str, Image.Image]:
        """What each branch took the image to be at a step, decoded; that of the edit where a mask made another picture of it."""
        frame = self.at(step)
        shown = {name: z for name, z in frame.branches.items() if name != "edit" or frame.mask is not None}
        return {name: to_images(backbone.decode(z))[0] for name, z in shown.items()}

    def picture(self, backbone: Backbone, step: int, strength: float = 1.0) -> Image.Image:
        """Those latents, decoded."""
        return to_images(backbone.decode(self.latents(step, strength)))[0]
