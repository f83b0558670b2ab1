"""The scale of a loaded model for a method of LUSD's kind, from pairs that it would edit."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from ..config.settings import Settings
from ..distillation.calibration import Calibration, Survey, calibration, path_of, survey
from ..edits.request import Prepared, Request
from ..errors import UserError
from ..models.process_state import process_state
from ..normalizers import UnitStd
from .base import Editor
from .loading import LoadedMethod
from .score_distillation import ScoreDistillation


def is_scaled(editor: Editor) -> bool:
    """Whether its steps have a length that a model's scale can set: its directions have an SD of their own."""
    return isinstance(editor, ScoreDistillation) and isinstance(editor.normalizer, UnitStd)


def check_scaled(settings: Settings, method: str) -> None:
    """Raises UserError for a method that has no scale, and for one whose timesteps or optimizer the rule is not of."""
    if not is_scaled(settings.editor):
        raise UserError(f"{method} does not read a model's scale: calibrate a method with the unit_std normalizer, such as lusd")
    if settings.editor.timesteps.descends:  # as they do for every loss that walks
        raise UserError(
            f"{method}: the rule is of draws that do not depend on the steps before; calibrate a method with uniform timesteps"
        )
    if (settings.editor.optimizer.name, settings.editor.optimizer.scale) != ("SGD", "per_element"):
        raise UserError(f"{method}: the rule is that of SGD per element; set optimizer.name=SGD optimizer.scale=per_element")


def survey_all(loaded: LoadedMethod, requests: Sequence[Request], draws: int, parallel: int | None = None) -> list[Survey]:
    """What `draws` draws tell of each request at its source; nothing is edited, and the same call gives the same.

    Raises UserError for a request that cannot be read, or a number of draws that cannot be had.
    """
    prepared = [loaded.prepare(request) for request in requests]
    with loaded.model.alone, process_state():
        loaded.model.begin_edit()
        return [_survey(loaded, one, draws, parallel) for one in prepared]


def _survey(loaded: LoadedMethod, prepared: Prepared, draws: int, parallel: int | None) -> Survey:
    """Of one image; regularizers, which see accepted draws alone, are left out."""
    model, editor = loaded.model, cast(ScoreDistillation, loaded.editor)
    edit = editor.encode(model, [prepared])
    parallel = parallel or editor.parallel(model, draws, (edit.source.shape[-2], edit.source.shape[-1]))
    bare = replace(editor.parts, regularizers={})
    return survey(model, bare, edit, prepared.request.seed, prepared.key, draws, parallel)


def calibrate(loaded: LoadedMethod, requests: Sequence[Request], draws: int, parallel: int | None = None) -> Calibration:
    """The scale by the rule, of settings that `check_scaled` lets pass."""
    editor = cast(ScoreDistillation, loaded.editor)
    return calibration(survey_all(loaded, requests, draws, parallel), path_of(editor.gamma, editor.steps))
