"""Traces of LIME's two walks: recorded noise goes in, latents, features, attention, clusters and masks must come out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..denoising.base import Level
from ..denoising.instructed import INSTRUCTED, ROWS, SEEING, Scales, Step, linspace_levels, walk
from ..denoising.solvers.euler_ancestral import EulerAncestral
from ..diffusion import size_of
from ..files.images import to_pixels
from ..hooks.localization import Localization, LocalizationRecorder
from ..hooks.penalty import Penalty
from ..models.base import Backbone
from ..models.instruct_pix2pix import InstructPix2Pix
from ..prediction import Hook, Text
from ..regions.kmeans import lloyd
from ..regions.maps import FeatureMaps
from ..regions.segments import attention_of, holding, strongest
from .deviation import Deviation, deviations
from .kinds import Case
from .trace import image_of

Arrays = dict[str, Tensor]
RUN = ("image_latents", "emb_text", "emb_null", "noise_init", "noise_steps", "z")


def compare(case: Case) -> dict[str, Deviation]:
    with torch.no_grad():
        return {"lime_localize": _localize, "lime_edit": _edit}[case.kind](case)


@dataclass(frozen=True)
class Walk:
    """A recorded walk with our network; latents are recorded over alpha, as k-diffusion has them."""

    case: Case
    model: Backbone
    recorded: Mapping[str, Tensor]

    @property
    def levels(self) -> list[Level]:
        (steps,) = self.case.need("steps")
        return linspace_levels(self.model, steps, self.recorded["image_latents"])

    def steps(self, hooks: Callable[[int], Iterable[Hook]] = lambda k: ()) -> Iterator[Step]:
        """Ours from the recorded noise, or each from the recorded latents."""
        levels, draws = self.levels, self.recorded["noise_steps"]
        if not self.case.forced:
            yield from self._walk(levels, iter([self.recorded["noise_init"], *draws[:, None]]), hooks)
            return
        for k in range(len(levels) - 1):
            z = self.recorded["z"][k : k + 1] * levels[k].alpha / levels[k].sigma
            yield from self._walk(levels[k : k + 2], iter([z, draws[k : k + 1]]), _at(hooks, k))

    def _walk(self, levels: Sequence[Level], noise: Iterator[Tensor], hooks: Callable[[int], Iterable[Hook]]) -> Iterator[Step]:
        text = {"instruction": Text(self.recorded["emb_text"]), "null": Text(self.recorded["emb_null"])}
        scales = Scales(*self.case.need("guidance_scale", "image_guidance_scale"))
        return walk(
            self.model, self.recorded["image_latents"], text, levels, EulerAncestral(), scales, lambda like: next(noise), hooks
        )

    def latents(self, steps: Sequence[Step]) -> Tensor:
        """Before the first step and after each."""
        start = self.recorded["noise_init"] * self.levels[0].sigma / self.levels[0].alpha
        return torch.cat([start, *(step.z / level.alpha for step, level in zip(steps, self.levels[1:], strict=True))])

    def inputs(self) -> Arrays:
        """What we make of the instruction and of the number of steps."""
        (instruction,) = self.case.need("instruction")
        text = {"emb_text": self.model.embed([instruction]).tokens, "emb_null": self.model.embed([""]).tokens}
        sigmas = torch.cat([level.sigma / level.alpha for level in self.levels])
        return text | {"timesteps": torch.cat([level.t for level in self.levels[:-1]]), "sigmas": sigmas}


def _loaded(case: Case, *names: str) -> Walk:
    return Walk(case, *case.loaded(*RUN, *names, conditions=1))


def _localize(case: Case) -> dict[str, Deviation]:
    layers, averaged, clusters, points = case.need("feature_layers", "averaged_tokens", "clusters", "top_k")
    side, at = case.need("out_res", "recorded_step")
    run = _loaded(case, "image", "average", "sample_pixels", *(f"feature.{name}" for name in layers))
    levels = {layer.level for layer in run.model.layout.outputs() if layer.name in layers}
    hook = LocalizationRecorder(SEEING, INSTRUCTED, tuple(sorted(levels)))
    steps = list(run.steps(lambda k: [hook] if k == at else []))
    seen: Localization = steps[at].outputs.recorded[hook]
    assert isinstance(run.model, InstructPix2Pix)
    image = run.model.condition(to_pixels([image_of(run.recorded)]))
    ours = {**run.inputs(), "image_latents": image, "z": run.latents(steps), **_seen(seen, len(case.settings["tokens"]))}
    ours |= {"average": attention_of(seen, [averaged], (side, side))[0], **regions(run.recorded, layers, side, clusters, points)}
    return deviations(ours, run.recorded)


def _seen(seen: Localization, tokens: int) -> Arrays:
    columns = torch.eye(next(iter(seen.queries.values()))[1].shape[1])[None, :, :tokens].to(next(iter(seen.features.values())))
    cross = {f"cross.{name}": x[0] for name, x in seen.maps(columns).items()}
    return cross | {f"feature.{name}": x[0] for name, x in seen.features.items()}


def regions(
    recorded: Mapping[str, Tensor], layers: Sequence[str], side: int, clusters: Sequence[int], points: Sequence[int]
) -> Arrays:
    """Clusters from the recorded features and starts, and the masks of the recorded attention's strongest points."""
    maps = [recorded[f"feature.{name}"].double() for name in layers]
    features, cells = FeatureMaps.of(maps, (side, side)), recorded["sample_pixels"]
    apart = [FeatureMaps.of([x], (side, side)) for x in maps]
    stacked = torch.cat([f.at(cells) * f.norms.flatten()[cells, None] for f in apart], 1)
    found = {"sample_features": stacked / features.norms.flatten()[cells, None]}
    strong = {n: strongest(recorded["average"], n) for n in points}
    for n, cells in strong.items():
        found[f"points_top{n}"] = torch.stack([cells // side, cells % side], 1)
    for k in clusters:
        clustering = lloyd(features, features.at(recorded[f"seeds_k{k}"]))
        found |= {f"labels_k{k}": clustering.labels, f"inertia_k{k}": torch.tensor([clustering.inertia])}
        found |= {f"mask_k{k}_top{n}": holding(clustering.labels, cells) for n, cells in strong.items()}
    return found


def _edit(case: Case) -> dict[str, Deviation]:
    effective, (first, last) = case.need("effective_tokens", "active_steps")
    run = _loaded(case, "mask", "eps_rows", "z_plain_final")
    size = size_of(run.recorded["image_latents"])
    levels = tuple(i for i in range(8) if size[0] // 2**i > case.settings.get("regularized_grids_above", 16))
    allowed = F.one_hot(torch.tensor(effective), run.model.text.length).amax(0)[None].bool().to(run.model.device)
    penalty = Penalty(ROWS, levels, run.recorded["mask"][None].bool(), allowed, size)
    steps = list(run.steps(lambda k: [penalty] if first <= k <= last else []))
    ours = {**run.inputs(), "z": run.latents(steps)}
    ours["eps_rows"] = torch.stack([torch.cat([step.outputs[row].output for row in ROWS]) for step in steps])
    if not case.forced:
        ours["z_plain_final"] = run.latents(list(run.steps()))[-1:]
    return deviations(ours, run.recorded)


def _at(hooks: Callable[[int], Iterable[Hook]], k: int) -> Callable[[int], Iterable[Hook]]:
    """The hooks of step k, for a walk of that step alone."""
    return lambda _: hooks(k)
