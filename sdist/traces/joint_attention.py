"""Traces of joint attention: one forward of a flow model, and what its image tokens see of the text's."""

import torch
from torch import Tensor

from ..errors import UserError
from ..hooks.attach import record
from ..hooks.attention import Attention, Queries
from ..hooks.layers import Kind
from ..models.base import Backbone
from ..models.flow import JointLayout
from ..prediction import Text
from .deviation import Deviation, deviations
from .flow_run import timesteps
from .inputs import inputs
from .kinds import Case

KINDS: tuple[Kind, Kind] = ("cross", "self")
ARRAYS = ("z_src", "z_noised", "velocity", "emb", "pooled", "image_to_text", "focus_map", "refined_map")


def compare(case: Case) -> dict[str, Deviation]:
    """Velocity, the maps of all blocks, the map of the focus tokens plain and refined, the encoded image and prompt."""
    model, recorded = case.loaded(*ARRAYS)
    blocks, focus, s = case.need("block_names", "focus", "sigma")
    velocity, cross, own = _forward(case, model, recorded, s, blocks)
    size = (recorded["z_src"].shape[-2], recorded["z_src"].shape[-1])
    chosen = [list(cross)[i] for i in case.need("blocks")[0]]
    focused = Attention({k: cross[k] for k in chosen}, {k: own[k] for k in chosen}, size)
    one = recorded["emb"].new_zeros(1, recorded["emb"].shape[1])
    one[0, focus] = 1
    ours = {
        "velocity": velocity,
        "image_to_text": torch.stack([_each_token(Attention({k: qk}, {}, size), one.shape[1]) for k, qk in cross.items()]),
        "focus_map": focused.cross_map(one)[0, 0],
        "refined_map": focused.refined(one)[0, 0],
    }
    expected = recorded | {"emb_target": recorded["emb"], "pooled_target": recorded["pooled"]}
    ours |= inputs(model, case, expected)
    return deviations(ours, expected)


def _forward(
    case: Case, model: Backbone, recorded: dict[str, Tensor], s: float, blocks: list[str]
) -> tuple[Tensor, Queries, Queries]:
    """The velocity, and queries and keys by block: of image tokens for all keys, and for the image's."""
    layout = model.layout
    if not isinstance(layout, JointLayout):
        raise UserError(f"the trace is of joint attention, {model.name} has none; name its model with --model")
    layers = [layout.layer(name) for name in blocks]
    text = Text(recorded["emb"], recorded["pooled"])
    t = torch.tensor(timesteps({"sigma": torch.tensor([s]), "z_src": recorded["z_src"]}, model).values, device=model.device)
    guidance = case.settings.get("guidance")
    scale = None if guidance is None else torch.tensor([float(guidance)], device=model.device)
    names = [name for layer in layers for kind in KINDS for name in layout.reads(kind, layer)]
    with torch.no_grad(), record(model, names, slice(0, 1)) as tape:
        velocity = model.estimate(recorded["z_noised"], t, text, scale).velocity
        cross, own = ({layer: layout.queries_and_keys(kind, layer, tape.__getitem__) for layer in layers} for kind in KINDS)
    return velocity, cross, own


def _each_token(attention: Attention, count: int) -> Tensor:
    """(image tokens, text tokens): the probability of each."""
    many = {layer: (q.expand(count, -1, -1), k.expand(count, -1, -1)) for layer, (q, k) in attention.cross.items()}
    (queries, _), *_ = many.values()
    return Attention(many, {}, attention.size).cross_map(torch.eye(count, device=queries.device)).flatten(1).T
