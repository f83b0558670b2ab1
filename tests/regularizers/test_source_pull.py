import pytest
import torch

from sdist.errors import UserError
from sdist.prediction import TARGET, predict
from sdist.regularizers.source_pull import SourcePull

from ..conftest import Gaussian, gaussian_edit, make_draw, progress


def test_source_pull() -> None:
    network, edit = Gaussian(), gaussian_edit(2)
    z = edit.source + 1.5
    p = predict(network, z, edit, make_draw(network, 2, 300), [TARGET], (), progress(2))
    gradient = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(SourcePull(0.0)(gradient, p), gradient)
    torch.testing.assert_close(SourcePull(0.25)(gradient, p), 0.75 * gradient + 0.25 * 1.5)
    with pytest.raises(UserError, match="within"):
        SourcePull(1.5)
