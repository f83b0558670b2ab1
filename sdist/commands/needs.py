"""sdist doctor --model M --size S: the memory that an edit needs, computed from configurations, and what fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    from ..config.settings import Settings
    from ..models.base import Backbone
    from ..models.needs import Ways

GIB = 2**30


@dataclass(frozen=True)
class MemoryQuery:
    """What is to be edited, and with what."""

    model: str
    model_config: str
    size: str
    method: str
    device: str


def needs(query: MemoryQuery) -> dict[str, Any]:
    """The report, as plain data. Raises UserError where no configuration of the model is on this disk."""
    import torch

    from ..config.build import load_settings
    from ..files.images import fitted_size
    from ..models.devices import choose_device
    from ..models.library import loading
    from ..models.memory import free_bytes
    from ..models.needs import count, measure, plans
    from ..models.precision import DTYPES, format_on
    from ..prediction import rows_of

    settings = load_settings(query.method, (), model=query.model, model_config=query.model_config, size=query.size)
    precision = format_on(choose_device(query.device).partition(":")[0], settings.precision)
    with loading():
        model = _model(query)
        size = fitted_size((model.native_side,) * 2, settings.size, model.native_side, settings.editor.size_multiple(model))
        needed = measure(model, DTYPES[precision], size)
    rows = len(rows_of(getattr(settings.editor, "branches", ()), model.guidance)) or 2
    model.device = torch.device(choose_device(query.device))  # how many draws at once suit it
    draws, free = settings.editor.parallel(model, 1, model.latent_size(size)), free_bytes(model.device)
    return {
        "model": query.model, "size": "{} x {}".format(*size), "method": query.method, "device": str(model.device),
        "precision": precision, "scale": _start(settings),
        "weights": {name: count(network) for name, network in model.named_networks.items()},
        "bytes": vars(needed), "rows": rows * draws, "free": free,
        "plans": [{"with": flags, "bytes": peak, "fits": None if free is None else peak <= free}
                  for flags, peak in plans(needed, draws, rows, _ways(settings, model.device.type, DTYPES[precision].itemsize))],
    }  # fmt: skip


def _start(settings: Settings) -> dict[str, float] | None:
    """The step and the threshold of a method that reads them, where they were not found for this model."""
    from ..editors.calibration import is_scaled
    from ..models.catalogue import find_model

    known = find_model(settings.model, settings.model_config).is_tuned
    return (
        None if known or not is_scaled(settings.editor) else {"step": settings.scale.step, "threshold": settings.scale.threshold}
    )


def _ways(settings: Settings, device: str, itemsize: int) -> Ways:
    """The ways that the settings do not refuse and that free memory: off CUDA nothing can leave the device."""
    from ..models.needs import Ways

    def goes(**values: Any) -> bool:
        try:
            replace(settings, **values)
        except UserError:
            return False
        return not settings.editor.ignores & set(values)

    offloads = [name for name in ("model", "group") if device == "cuda" and goes(offload=name)]
    return Ways(("none", *offloads), 1 / itemsize if goes(storage="fp8") else None)


def _model(query: MemoryQuery) -> Backbone:
    """Without values. Raises UserError where its configurations do not make one."""
    from ..models.catalogue import find_model
    from ..models.loading import FAULTS
    from ..models.needs import without_values

    folder = _configurations(query)
    try:
        return without_values(folder, find_model(query.model).shared_parts)
    except UserError as error:
        raise UserError(f"{query.model}: {error}") from None
    except FAULTS as error:  # what the libraries make of a missing or damaged file, in several lines
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{query.model}: {said}; the configurations of all of its parts must be whole") from None


def _configurations(query: MemoryQuery) -> Path:
    from ..models.catalogue import find_model
    from ..models.folders import local_folder
    from ..models.single_file import trained_from

    name, file = query.model, Path(query.model)
    if file.is_file():
        name = query.model_config or trained_from(file)
    folders = [folder for source in find_model(name).sources if (folder := local_folder(source)) and folder.is_dir()]
    if not folders:
        raise UserError(f"the configurations of {name} are not on this disk: an edit fetches them, docs/models.md has its size")
    return folders[0]


def lines(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The report for people, as names and texts."""
    import torch

    from ..models.memory import available

    size = {name: f"{value / GIB:.2f} GiB" for name, value in report["bytes"].items()}
    weights = [(name, f"{value / 1e9:.3f} billion weights") for name, value in report["weights"].items()]
    return [
        *weights,
        ("weights", f"{size['denoiser']} in {report['precision']}, the autoencoder's {size['vae']}, fp32"),
        ("text", f"{size['encoders']} before the first step"),
        ("a step", f"{report['rows'] * report['bytes']['row'] / GIB:.2f} GiB in {report['rows']} rows"),
        ("encode, decode", size["codec"]),
        ("free", available(torch.device(report["device"]))),
        *_verdict(report),
        *_calibration(report),
    ]


def _verdict(report: dict[str, Any]) -> list[tuple[str, str]]:
    """The first plan that fits; all of them where nobody says what is free."""
    said = [
        (plan["fits"], f"sdist edit ... --model {report['model']} {plan['with']}".strip() + f" ({plan['bytes'] / GIB:.2f} GiB)")
        for plan in report["plans"]
    ]
    if report["free"] is None:
        return [("needs", text) for _, text in said]
    return [("fits", next((text for fits, text in said if fits), "in no way: a smaller --size, or another model"))]


def _calibration(report: dict[str, Any]) -> list[tuple[str, str]]:
    """How a model that nobody tuned gets a scale of its own."""
    if report["scale"] is None:
        return []
    text = "step {step:.3g} and threshold {threshold:.3g} are a start, nobody tuned them: ".format(**report["scale"])
    return [("scale", f"{text}sdist calibrate --model {report['model']} --input FOLDER")]
