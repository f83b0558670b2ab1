"""Which draws a round tries: the next of each image in flight, and further ones ahead where lanes are spare."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

Slots = Int[Tensor, " n"]


class Schedule:
    """How far each image is, and what comes next; all of it on the host.

    A round tries at most `lanes` draws: one of each of the first unfinished images, so that a finished image makes room for
    one that waits. With a filter, spare lanes try further draws of the same images, which count only if all before them are
    rejected. So lanes change the time that a run takes, not its result.
    """

    def __init__(self, images: int, steps: int, lanes: int, filtered: bool) -> None:
        self.lanes, self.steps, self.filtered = lanes, steps, filtered
        self.step = torch.zeros(images, dtype=torch.long)  # accepted steps of each image
        self.attempt = torch.zeros_like(self.step)  # rejects in its present step
        self.tried = torch.zeros_like(self.step)  # its draws that the network has seen, also those that did not count
        self.drawn = 0  # draws that counted, of all images
        self.failed = torch.zeros(images, dtype=torch.bool)

    @property
    def active(self) -> Slots:
        """The unfinished images, in the order of the queue."""
        return ((self.step < self.steps) & ~self.failed).nonzero()[:, 0]

    def candidates(self) -> tuple[Slots, Int[Tensor, " n"]]:
        """Image and number of attempt of each draw of the next round; the draws of an image together, in their order."""
        flying = self.active[: self.lanes]
        if not len(flying):
            return flying, flying
        count, extra = divmod(self._draws(len(flying)), len(flying))
        tries = count + (torch.arange(len(flying)) < extra).long()
        slots = flying.repeat_interleave(tries)
        ahead = torch.arange(len(slots)) - torch.searchsorted(slots, slots)
        return slots, self.attempt[slots] + ahead

    def _draws(self, flying: int) -> int:
        """Draws of a round: as many a step as have been needed so far, as a power of two, which keeps shapes few.

        Never one alone where there are lanes for two: kernels for two rows may round otherwise than those for more.
        """
        needed = self.drawn / max(1, int(self.step.sum())) if self.filtered else 1.0
        wanted = 2 ** math.ceil(math.log2(flying * max(1.0, needed))) if self.filtered else flying
        return min(self.lanes, max(wanted, 2))

    def advance(self, slots: Slots, counts: Bool[Tensor, " n"], good: Bool[Tensor, " n"]) -> None:
        """After a round: which of its draws count, and which of those are a step."""
        images, stepped = len(self.step), slots[counts & good]
        self.tried += torch.bincount(slots, minlength=images)
        self.attempt += torch.bincount(slots[counts], minlength=images)
        self.attempt[stepped] = 0
        self.step[stepped] += 1
        self.drawn += int(counts.sum())


def first_until(slots: Slots, good: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which draws count: of each image those up to the first good one; the draws of an image stand together."""
    before = good.long().cumsum(0) - good.long()  # good draws before each, of all images
    first = torch.searchsorted(slots, slots)  # where the draws of its image begin
    return before == before[first]
