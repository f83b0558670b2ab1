"""Noise schedules of diffusers: which schedulers say what a model was trained on, and what they say.

A scheduler's class is how one samples; what is read here is the noise that its configuration says the model was trained with.
Only of known classes is it known that they mean what the keys say.
"""

from hashlib import sha256
from math import exp
from typing import Any

import torch

from ..errors import UserError

DISCRETE = (  # alpha_bar_t = prod(1 - beta): all of these say the same with the same keys, whatever they sample with
    "DDIMInverseScheduler", "DDIMParallelScheduler", "DDIMScheduler", "DDPMParallelScheduler", "DDPMScheduler",
    "DEISMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler",
    "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
FLOW = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
OTHER_NOISE = {  # keys by which a scheduler of a known class means another schedule than that of its betas: their harmless values
    "use_flow_sigmas": (False, None),
    "snr_shift_scale": (1, None),
    "timestep_type": ("discrete", None),
}
OF_BETAS = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "rescale_betas_zero_snr")
MOST_LEFT = 0.5  # of the image at the end of a schedule; Stable Diffusion leaves half a percent
PREDICTION_TYPES = ("epsilon", "v_prediction")


def discrete_schedule(scheduler: Any) -> Any:
    """A DDPMScheduler with the betas and the kind of prediction of a scheduler in DISCRETE, its defaults included.

    Raises UserError for a schedule that betas do not say.
    """
    from diffusers import DDPMScheduler

    name, config = type(scheduler).__name__, dict(scheduler.config)
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTION_TYPES:
        known = " and ".join(PREDICTION_TYPES)
        raise UserError(f"this model predicts '{kind}', of which score distillation with a UNet here knows {known}")
    for key, harmless in OTHER_NOISE.items():
        if config.get(key) not in harmless:
            raise UserError(f"scheduler: {name} has {key}={config[key]}, a noise schedule that is not known here for a UNet")
    config.pop("_use_default_values", None)  # else defaults of DDPMScheduler would take the place of its own
    try:
        schedule = DDPMScheduler.from_config(config)
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"scheduler: no noise schedule can be made of its configuration ({error})") from None
    _check(scheduler, schedule)
    return schedule


def schedule_keys(schedule: Any) -> dict[str, Any]:
    """What a discrete schedule was made of; a list of betas by its digest."""
    config = schedule.config
    betas = config["trained_betas"]
    if betas is not None:
        digest = sha256(repr([float(beta) for beta in betas]).encode()).hexdigest()[:16]
        return {"trained_betas": digest, "rescale_betas_zero_snr": bool(config["rescale_betas_zero_snr"])}
    return {key: config[key] for key in OF_BETAS}


def flow_shift(scheduler: Any) -> float:
    """How far a scheduler in FLOW shifts noise levels. Raises UserError for one that does something else to them."""
    if scheduler.config.get("use_dynamic_shifting"):
        raise UserError("scheduler: it shifts levels by the size of the image (use_dynamic_shifting), which this model does not")
    check_flow(scheduler)
    return float(getattr(scheduler, "shift", None) or scheduler.config["shift"])


def exponential_shift(scheduler: Any, mu: float) -> float:
    """exp(mu) if a scheduler in FLOW shifts levels by the size of the image, else the number that it shifts them by."""
    return exp(mu) if scheduler.config.use_dynamic_shifting else float(scheduler.config.shift)


def check_flow(scheduler: Any, stretched: bool = False) -> None:
    """Raises UserError for a scheduler in FLOW whose levels are not shifted 1/1000 to 1.

    If `stretched` it may stretch their end for sampling, which says nothing of the levels that a network was trained on.
    """
    config, shift = scheduler.config, getattr(scheduler, "shift", None) or scheduler.config.get("shift")
    for key in ("invert_sigmas", *(() if stretched else ("shift_terminal",))):
        if config.get(key):
            raise UserError(f"scheduler: its noise levels are changed in a way that is not known here ({key})")
    if config.get("use_dynamic_shifting") and config.get("time_shift_type", "exponential") != "exponential":
        raise UserError(f"scheduler: time_shift_type must be exponential, got {config['time_shift_type']!r}")
    if not isinstance(shift, int | float) or not 0 < shift < float("inf"):
        raise UserError(f"scheduler: shift must be a number above 0, got {shift!r}")
    if config.get("num_train_timesteps") != 1000:
        raise UserError(f"scheduler: num_train_timesteps must be 1000 for a flow, got {config.get('num_train_timesteps')!r}")


def _check(scheduler: Any, schedule: Any) -> None:
    """Raises UserError for impossible betas, and for a scheduler whose own scales are others than its configuration says."""
    betas, own = schedule.betas, getattr(scheduler, "alphas_cumprod", None)
    if not len(betas) or not ((betas >= 0) & (betas <= 1)).all():
        raise UserError("scheduler: its betas make no noise schedule: they must be within 0..1")
    if float(schedule.alphas_cumprod[-1]) > MOST_LEFT:
        left = float(schedule.alphas_cumprod[-1])
        raise UserError(f"scheduler: its betas make hardly any noise: of the image's variance {left:.0%} is left at its end")
    fresh = type(scheduler).from_config(scheduler.config)
    known = [schedule, *([fresh] if type(scheduler).__module__.startswith("diffusers.") else [])]  # which may not know a key
    if own is None or any(_close(own, one.alphas_cumprod) for one in known):
        return
    raise UserError(
        f"scheduler: the alphas_cumprod of this {type(scheduler).__name__} are not those of its configuration; give them as "
        "trained_betas: pipe.scheduler = DDPMScheduler(trained_betas=betas)"
    )


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return len(one) == len(other) and torch.allclose(one.float().cpu(), other.float().cpu(), atol=1e-6)
