import pytest
import torch

from sdist.errors import UserError
from sdist.metrics.base import Encoders
from sdist.metrics.encoders.dino import Dino
from sdist.metrics.structure_distance import StructureDistance, self_similarity, structure_distance

from .samples import BOTH, noise_image, sample


@BOTH
def test_structure_distance(dino: Dino, profile: str) -> None:
    a, b = noise_image(0, 64, 48), noise_image(1, 64, 48)
    assert structure_distance(a, a, dino, profile) == pytest.approx(0, abs=1e-10)
    assert structure_distance(a, b, dino, profile) == pytest.approx(structure_distance(b, a, dino, profile), rel=1e-4)
    first, second = dino.keys([a, b], profile)
    apart = [torch.cosine_similarity(keys[:, None], keys, dim=-1) for keys in (first, second)]
    assert structure_distance(a, b, dino, profile) == pytest.approx(((apart[0] - apart[1]) ** 2).mean().item(), rel=1e-4)
    assert not torch.allclose(*apart, atol=1e-3)
    similar = self_similarity(first[None])[0]
    torch.testing.assert_close(similar.diagonal(), torch.ones(len(similar), dtype=torch.float64))
    assert similar.abs().max() <= 1 + 1e-12


def test_edit_and_source_are_compared(dino: Dino) -> None:
    one = sample(0)
    values = StructureDistance()([one, sample(1, result=sample(1).source)], Encoders(dino=dino), "clean")
    assert values == pytest.approx([structure_distance(one.result, one.source, dino, "clean"), 0], abs=1e-10)
    with pytest.raises(UserError, match="needs one size"):
        StructureDistance()([sample(0, result=noise_image(0, 40, 32))], Encoders(dino=dino), "official")
