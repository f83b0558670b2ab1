"""An IP-Adapter's weights: an embedding to tokens, tokens to keys and values. Ye et al. 2023, arXiv 2308.06721.

The file's layout is that of h94/IP-Adapter: `image_proj.proj` and `image_proj.norm` make the tokens, `ip_adapter.N.to_k_ip` and
`to_v_ip` belong to the N-th attention layer, which is odd for cross-attention.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from ..errors import UserError
from ..hooks.image_tokens import ImageTokens
from ..models.base import Backbone
from ..prediction import Branch

PROJECTION = ("image_proj.proj.weight", "image_proj.proj.bias", "image_proj.norm.weight", "image_proj.norm.bias")


@dataclass(frozen=True, eq=False)
class Adapter:
    """The weights by their names in the file, float32, on the model's device."""

    weights: Mapping[str, Tensor]

    @property
    def width(self) -> int:
        """Of the embeddings that it reads."""
        return self.weights[PROJECTION[0]].shape[1]

    def tokens(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b tokens width"]:
        """What the layers read of an image: a linear map to a few tokens, each normalized."""
        weight, bias, gain, shift = (self.weights[name] for name in PROJECTION)
        tokens = F.linear(embedding, weight, bias).reshape(len(embedding), -1, len(gain))
        return F.layer_norm(tokens, gain.shape, gain, shift)

    def hook(self, layers: Sequence[str], embeddings: Mapping[Branch, Float[Tensor, "b d"]], scale: float) -> ImageTokens:
        """That lets branches read embeddings, in the cross-attention layers of these names, in module order."""
        tokens = {branch: self.tokens(embedding) for branch, embedding in embeddings.items()}
        keys, values = (
            {name: {b: F.linear(t, self._layer(number, kind)) for b, t in tokens.items()} for number, name in enumerate(layers)}
            for kind in ("k", "v")
        )
        return ImageTokens(keys, values, scale)

    def _layer(self, number: int, kind: str) -> Tensor:
        return self.weights[_name(number, kind)]

    def check(self, model: Backbone, where: str) -> None:
        """Raises UserError unless it was made for a model of this kind."""
        for number, layer in enumerate(model.layout.layers("cross")):
            text = model.denoiser.get_submodule(layer.name)
            for kind in "kv":
                wanted = tuple(getattr(text, f"to_{kind}").weight.shape)
                weight = self.weights.get(_name(number, kind))
                if weight is None or tuple(weight.shape) != wanted:
                    has = "no such layer" if weight is None else f"{tuple(weight.shape)}"
                    raise UserError(
                        f"the IP-Adapter {where} is not for this model: layer {layer.name} wants weights {wanted}, it has {has}; "
                        "name another one, or set adapter to null"
                    )


def _name(number: int, kind: str) -> str:
    return f"ip_adapter.{2 * number + 1}.to_{kind}_ip.weight"


def read_adapter(path: Path, device: str) -> Adapter:
    """Raises UserError if the file cannot be read or holds another kind of adapter."""
    try:
        weights = {name: value.float() for name, value in load_file(path, device=device).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"the IP-Adapter {path} cannot be read: {error}") from None
    if missing := [name for name in PROJECTION if name not in weights]:
        raise UserError(
            f"{path} is no IP-Adapter of the plain kind: it lacks {missing[0]} (plus, full and face adapters read something else)"
        )
    _check_values(path, weights)
    return Adapter(weights)


def _check_values(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raises UserError for weights of which no tokens, or none that the layers read, can be made."""
    weight, bias, gain, shift = (weights[name] for name in PROJECTION)
    layers = [value for name, value in weights.items() if name.startswith("ip_adapter.")]
    fits = (
        (weight.dim(), gain.dim()) == (2, 1)
        and bias.shape == weight.shape[:1]
        and gain.shape == shift.shape
        and len(weight) > 0 == len(weight) % len(gain)
        and all(value.dim() == 2 and value.shape[1] == len(gain) for value in layers)
    )
    if not fits:
        shapes = ", ".join(f"{name} {tuple(weights[name].shape)}" for name in PROJECTION)
        raise UserError(f"the IP-Adapter {path} is damaged: its weights do not fit together ({shapes}); copy it again")
    if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise UserError(f"the IP-Adapter {path} is damaged: {broken[0]} has values that are not finite; copy it again")
