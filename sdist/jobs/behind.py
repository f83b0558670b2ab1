"""Work that is done behind what comes next, such as writing an image while the network makes others."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def behind(most: int) -> Iterator[Callable[..., None]]:
    """Gives a function that has one thread call another function, in order; the block ends when all is done.

    A call waits while `most` are not done yet, and raises what an earlier one raised, as the end of the block does.
    """
    begun: deque[Future[None]] = deque()

    def settle(left: int) -> None:
        while len(begun) > left or (begun and begun[0].done()):
            begun.popleft().result()

    with ThreadPoolExecutor(1) as thread:

        def later(work: Callable[..., None], *arguments: Any) -> None:
            settle(most - 1)
            begun.append(thread.submit(work, *arguments))

        yield later
        settle(0)
