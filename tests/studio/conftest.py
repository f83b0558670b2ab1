"""A studio's offer, and a visitor."""

from pathlib import Path

import pytest

from sdist.studio.bench import Bench
from sdist.studio.limits import Limits, Offer
from sdist.studio.visitor import Visitor


@pytest.fixture
def offer(tiny_folder: Path, tmp_path: Path) -> Offer:
    return Offer(Limits(), ["lusd", "dds"], [str(tiny_folder)], tmp_path, Bench(16))


@pytest.fixture
def visitor(offer: Offer) -> Visitor:
    return Visitor(offer, "a" * 32)
