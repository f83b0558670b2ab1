"""Traces of ViMAEdit's release and of PnPInversion, by piece: the same inputs go in, the same quantities must come out."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.traces.verify import deviation
from sdist.traces.vimaedit_inversion import inversions
from sdist.traces.vimaedit_step import steps

from .test_traces import GOLDEN, TOLERANCE


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = GOLDEN / name
    return json.loads((folder / "case.json").read_text()), load_file(folder / "trace.safetensors")


@pytest.fixture(scope="module")
def golden() -> Backbone:
    return load_backbone(str(GOLDEN / "pipeline"), "cpu")


def far(ours: dict[str, Tensor], recorded: dict[str, Tensor]) -> dict[str, float]:
    """The quantities that are not the recorded ones."""
    found = {name: deviation(value, recorded[name], name) for name, value in ours.items()}
    return {name: d.max_rel for name, d in found.items() if not d.within(TOLERANCE)}


def test_solver_steps() -> None:
    case, arrays = read("vimaedit_step")
    ours = steps(case, arrays)
    assert set(ours) == {"ddim_plain", "ddim_virtual", "dpm6_plain", "dpm6_virtual"}
    assert far(ours, arrays) == {}


def test_inversions(golden: Backbone) -> None:
    case, arrays = read("vimaedit_inversion")
    ours = inversions(case, arrays, golden)
    assert set(ours) == {"direct_final", "ef_xts", "ef_final"}
    assert far(ours, arrays) == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda case: case | {"eta": 0.9}, {"ef_final"}),
        (lambda case: case | {"target_guidance": 7.4}, {"direct_final", "ef_final"}),
    ],
)
def test_another_setting_is_noticed(golden: Backbone, change: Callable, expected: set[str]) -> None:
    case, arrays = read("vimaedit_inversion")
    assert set(far(inversions(change(case), arrays, golden), arrays)) == expected
