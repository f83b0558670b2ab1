"""What a trace says of the model that recorded it."""

from typing import cast, get_args

from ..diffusion import OutputKind
from ..errors import unknown
from ..models.base import Backbone


def adapt(model: Backbone, prediction_type: str | None, vae_scaling_factor: float | None) -> None:
    """Gives it to a model; none: the model's own. Raises UserError for a prediction type that does not exist."""
    kind = model.prediction_type if prediction_type is None else prediction_type
    if kind not in (kinds := get_args(OutputKind)):
        raise unknown("prediction_type", str(kind), kinds, "case.json")
    model.prediction_type = cast(OutputKind, kind)
    if vae_scaling_factor is not None:
        model.vae.register_to_config(scaling_factor=vae_scaling_factor)
