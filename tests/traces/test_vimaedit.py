"""Traces of ViMAEdit's release and of PnPInversion, by piece: the same inputs go in, the same quantities must come out."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from sdist.errors import UserError
from sdist.models.stable_diffusion import StableDiffusion
from sdist.traces.files import read_settings
from sdist.traces.kinds import Case, compare

from .test_traces import GOLDEN, TOLERANCE


def case_of(name: str, **changes: Any) -> Case:
    return Case(GOLDEN / name, read_settings(GOLDEN / name) | changes)


def far(case: Case) -> set[str]:
    """The quantities that are not the recorded ones."""
    return {name for name, d in compare(case).items() if not d.within(TOLERANCE)}


INPUTS = {"z_src", "emb_null", "emb_source", "emb_target", "image_rows", "timestep"}
TARGETS = {"target_released", "target_paper", "image_rows", "image_rows_paper", "ip_tokens"}
PIECES = {
    "vimaedit_ddim": INPUTS | {"saliency", "mask", "critical", "z_final"},
    "vimaedit_grounding": {"iterations", "saliency", "masks"},
    "vimaedit_step": {"ddim_plain", "ddim_virtual", "dpm6_plain", "dpm6_virtual"},
    "vimaedit_inversion": {"direct_final", "ef_xts", "ef_final"},
    "vimaedit_injection": {"refinement", "replacement", "words", "refine_text", "replace_text", "refine_self", "refine_image"},
    "vimaedit_embedding": {"image_embed", "text_embed", *TARGETS},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solver": "euler"}, "unknown solver 'euler'"),
        ({"inversion": "direct"}, "unknown inversion 'direct'"),
        ({"prediction_type": "x"}, "unknown prediction_type 'x'"),
        ({"gamma": None}, "lacks gamma"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compare(case_of("vimaedit_ddim", **change))


def test_latents_have_to_be_recorded_to_start_from_them() -> None:
    with pytest.raises(UserError, match="lacks z"):
        compare(replace(case_of("vimaedit_ddim"), forced=True))


@pytest.mark.parametrize("name", PIECES)
def test_what_was_recorded_is_recomputed(name: str) -> None:
    found = compare(case_of(name))
    assert set(found) == PIECES[name]
    assert {quantity: d for quantity, d in found.items() if not d.within(TOLERANCE)} == {}


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("vimaedit_step", {"beta_end": 0.0121}, PIECES["vimaedit_step"]),
        ("vimaedit_inversion", {"eta": 0.9}, {"ef_final"}),
        ("vimaedit_inversion", {"target_guidance": 7.4}, {"direct_final", "ef_final"}),
        ("vimaedit_injection", {"cross_text_replace": 0.6}, {"refine_text", "replace_text"}),
        ("vimaedit_injection", {"self_replace": 0.4}, {"refine_self"}),
        ("vimaedit_injection", {"cross_image_replace": 0.1}, {"refine_image"}),
        ("vimaedit_embedding", {"target_prompt": "a dog"}, {"text_embed", *TARGETS}),
        ("vimaedit_grounding", {"gamma": 0.4}, {"iterations", "saliency", "masks"}),
        ("vimaedit_grounding", {"focus": [[2], [2]]}, {"iterations", "saliency", "masks"}),
        ("vimaedit_ddim", {"cross_image_replace": 0.0}, {"saliency", "mask", "critical", "z_final"}),
        ("vimaedit_ddim", {"critical_threshold": 0.79}, {"saliency", "mask", "critical", "z_final"}),
    ],
)
def test_another_setting_is_noticed(name: str, change: dict[str, Any], expected: set[str]) -> None:
    assert far(case_of(name, **change)) == expected


def test_recorded_arrays_go_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StableDiffusion, "device", torch.device("meta"), raising=False)
    monkeypatch.setattr(Case, "backbone", lambda case, conditions: StableDiffusion.__new__(StableDiffusion))
    _, arrays = case_of("vimaedit_inversion").loaded("z_src")
    assert {array.device.type for array in arrays.values()} == {"meta"}
