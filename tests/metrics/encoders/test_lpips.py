from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdist.errors import UserError
from sdist.metrics.encoders.lpips import Lpips, load_lpips
from sdist.metrics.lpips import background_lpips

from ..samples import pixel_arrays


def test_lpips_weights_have_their_published_names(lpips: Lpips, tmp_path: Path) -> None:
    path = tmp_path / "lpips.safetensors"
    state = {f"features.{name}": value for name, value in lpips.features.state_dict().items()}
    state |= {f"lin{i}.model.1.weight": layer.weight for i, layer in enumerate(lpips.weights)}
    save_file(state | {"classifier.1.weight": torch.ones(2)}, path)
    a, b, mask = pixel_arrays()
    assert background_lpips(b, a, mask, load_lpips(path, "cpu"), "clean") == background_lpips(b, a, mask, lpips, "clean")
    del state["lin3.model.1.weight"]
    save_file(state, path)
    with pytest.raises(UserError, match=r"lack lin3.model.1.weight of shape \(1, 384, 1, 1\)"):
        load_lpips(path, "cpu")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_lpips(tmp_path / "none.safetensors", "cpu")
