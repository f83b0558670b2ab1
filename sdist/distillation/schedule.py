"""Which draws a round tries: the next of each image in flight, and further ones ahead where there is room for them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Images = Int[Tensor, " n"]


class Schedule:
    """How far each image is, and what comes next; all of it on the host.

    A round tries one draw of each of the first `parallel` unfinished images, so that a finished image makes room for one that
    waits. With fewer than `min_parallel` images left, further draws of the same images are tried; they count only if all before
    them are rejected. So both change the time that a run takes, not its result.

    An image that `admit` refuses when its turn comes is left to others, without a draw. If `staggered`, the first image is alone
    until it is done, and then one joins whenever the one before has made its share of the steps, until `parallel` are in flight:
    the first is there as early as one alone would be, and the others come one by one.

    If `parallel` is above 1, the number of draws is even, if need be by one more: kernels round by the shape of what they get,
    and those of a CPU mostly round alike for any multiple of four rows. So an image seldom depends on the others in its rounds,
    and then by a rounding (a grey level, seen with the smallest networks).
    """

    def __init__(
        self,
        images: int,
        steps: int,
        parallel: int,
        min_parallel: int | None = None,
        admit: Callable[[int], bool] | None = None,
        staggered: bool = False,
    ) -> None:
        self.parallel, self.steps = parallel, steps
        self.min_parallel = parallel if min_parallel is None else min_parallel
        self.step = torch.zeros(images, dtype=torch.long)  # accepted steps of each image
        self.ends = torch.full_like(self.step, steps)  # how many it makes at most
        self.attempt = torch.zeros_like(self.step)  # rejects in its present step
        self.tried = torch.zeros_like(self.step)  # its draws that the network has seen, also those that did not count
        self.failed = torch.zeros(images, dtype=torch.bool)
        self.begun, self.left = torch.zeros_like(self.failed), torch.zeros_like(self.failed)  # admitted, and left to others
        self.stopped = False  # no further round is wanted
        self._admit = admit or (lambda image: True)
        self._spacing = -(-steps // parallel) if staggered else 0  # steps of the image before

    @property
    def active(self) -> Images:
        """The unfinished images, in the order of the queue; none once stopped."""
        return (~self.done & ~self.failed & ~self.left & (not self.stopped)).nonzero()[:, 0]

    @property
    def done(self) -> Bool[Tensor, " images"]:
        """Which images have made their last step."""
        return self.step >= self.ends

    def finish(self, images: Images) -> None:
        """They make no further step."""
        self.ends[images] = self.step[images]

    def _flying(self) -> Images:
        """The images of the next round; those that join are admitted here."""
        while len(flying := self.active[: self.parallel]):
            new = flying[~self.begun[flying]].tolist()
            if not new or not self._has_room():
                return flying[self.begun[flying]]
            admitted = self._admit(new[0])
            self.begun[new[0]], self.left[new[0]] = admitted, not admitted
        return flying

    def _has_room(self) -> bool:
        """Whether one more may join, by how far the last one is that did."""
        begun = (self.begun & ~self.failed).nonzero()[:, 0]
        if not self._spacing or not len(begun):
            return True
        is_first_alone, last = len(begun) == 1, begun[-1]
        return bool(self.done[last]) or (not is_first_alone and int(self.step[last]) >= self._spacing)

    def candidates(self) -> tuple[Images, Int[Tensor, " n"]]:
        """Image and number of attempt of each draw of the next round; the draws of an image together, in their order."""
        flying = self._flying()
        if not len(flying):
            return flying, flying
        draws = max(len(flying), min(self.min_parallel, self.parallel))
        count, extra = divmod(draws + draws % 2 if self.parallel > 1 else 1, len(flying))
        images = flying.repeat_interleave(count + (torch.arange(len(flying)) < extra).long())
        return images, self.attempt[images] + torch.arange(len(images)) - torch.searchsorted(images, images)

    def advance(self, images: Images, counts: Bool[Tensor, " n"], good: Bool[Tensor, " n"]) -> None:
        """After a round: which of its draws count, and which of those are a step."""
        count, stepped = len(self.step), images[counts & good]
        self.tried += torch.bincount(images, minlength=count)
        self.attempt += torch.bincount(images[counts], minlength=count)
        self.attempt[stepped] = 0
        self.step[stepped] += 1


def first_until(images: Images, good: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which draws count: of each image those up to the first good one; the draws of an image stand together."""
    before = good.long().cumsum(0) - good.long()  # good draws before each, of all images
    first = torch.searchsorted(images, images)  # where the draws of its image begin
    return before == before[first]
