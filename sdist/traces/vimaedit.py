"""Whole runs of ViMAEdit's release, replayed from the recorded image, prompts and noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..denoising.alignment import Tokens, refine, stack
from ..denoising.base import InversionResult, Solver, levels
from ..denoising.grounding import Focus, Grounding, Saliency
from ..denoising.sample import ByName, Plan, sample
from ..denoising.solvers.ddim import DDIM
from ..denoising.solvers.dpmpp_2m import DPMSolverPP2M
from ..denoising.two_branch import Course, InjectionSteps
from ..diffusion import add_noise
from ..errors import unknown
from ..files.images import to_pixels
from ..image_guidance.guide import Guide
from ..metrics.encoders.preprocessing import center_crop
from ..models.base import Backbone
from ..prediction import SOURCE_SOURCE, TARGET, Outputs
from .adapt import adapt
from .deviation import Deviation, deviations
from .kinds import Case
from .trace import image_of, text_arrays, texts_of
from .vimaedit_grounding import recorded_where_near
from .vimaedit_network import ROWS, embeddings, guide_of

BRANCHES = ("source", "edit")
NEEDED = (
    "solver", "steps", "source_prompt", "target_prompt", "image_scale", "cross_text_replace", "cross_image_replace",
    "self_replace", "start_blend", "threshold", "critical_threshold", "gamma", "iterations", "eta", "source_guidance",
    "target_guidance",
)  # fmt: skip
Settings = Mapping[str, Any]


def compare(case: Case) -> dict[str, Deviation]:
    """Of the encoded image, prompts and image embeddings, and of every step's latents, predictions, saliency and masks."""
    case.need(*NEEDED)
    if case.settings.get("inversion", "virtual") != "virtual":
        raise unknown("inversion", str(case.settings["inversion"]), ("virtual",), str(case.folder))
    read = ("image", "z_src", "init_noise", "timestep", "image_rows", "z_final")
    model, arrays = case.loaded(*read, *(("z",) if case.forced else ()))
    adapt(model, case.settings.get("prediction_type"), case.settings.get("vae_scaling_factor"))
    guide = guide_of(case, model)
    ours = _inputs(case.settings, arrays, model, guide) | Replay(case.settings, arrays, model, guide, case.forced).run()
    return deviations(ours, arrays)


def _solver(case: Settings) -> Solver:
    solvers: dict[str, Solver] = {"ddim": DDIM(case["eta"]), "dpmsolver++": DPMSolverPP2M()}
    if case["solver"] not in solvers:
        raise unknown("solver", str(case["solver"]), solvers, "case.json")
    return solvers[case["solver"]]


def _inputs(case: Settings, arrays: Mapping[str, Tensor], model: Backbone, guide: Guide) -> dict[str, Tensor]:
    """What our encoders make of the image, which CLIP sees whole and the VAE's encoder in its middle, and of the prompts."""
    whole = image_of(arrays)
    side, native = min(whole.size), model.native_side
    image = center_crop(whole, side, "clean").resize((native, native), Image.Resampling.BICUBIC)
    prompts = {"null": "", "source": case["source_prompt"], "target": case["target_prompt"]}
    text = text_arrays({name: model.embed([prompt]) for name, prompt in prompts.items()})
    return {"z_src": model.encode(to_pixels([image])), **text, "image_rows": embeddings(case, arrays, guide)["image_rows"]}


class Replay:
    """One run with the draws of a trace; if forced, every step starts from the recorded latents instead of ours."""

    def __init__(self, case: Settings, arrays: Mapping[str, Tensor], model: Backbone, guide: Guide, forced: bool) -> None:
        self.case, self.arrays, self.model, self.forced = case, arrays, model, forced
        self.solver = _solver(case)
        self.source = arrays["z_src"]
        self.course = self._course(guide)
        self.kept: dict[str, list[Tensor]] = {name: [] for name in ("z", "eps", "saliency", "mask", "critical")}

    def run(self) -> dict[str, Tensor]:
        """Our arrays by their names in the trace."""
        times = self.solver.timesteps(self.case["steps"], self.model.last_timestep)[: len(self.arrays["timestep"]) + 1]
        at = levels(self.model, times, self.source, clean_end=len(times) == self.case["steps"] + 1)
        start = add_noise(self.source, self.arrays["init_noise"], at[0].alpha, at[0].sigma)
        self.kept["z"].append(torch.cat([start, start]))
        both = {"source": start, "edit": start}
        inverted = InversionResult(start, clean=self.source)
        with torch.no_grad():
            for _ in sample(self.model, both, texts_of(self.arrays), at, self.solver, self._plan, inverted):
                pass
        walked = torch.stack(self.kept["z"])
        found = {name: torch.stack(values) for name, values in self.kept.items() if values and name != "z"}
        return found | {"z": walked[:-1], "z_final": walked[-1], "timestep": torch.tensor(times[:-1])}

    def _plan(self, k: int) -> Plan:
        plan = self.course.plan(k)

        def added(outputs: Outputs) -> Any:
            noise = plan.added(outputs)
            self._keep(k, outputs)
            return noise

        def after(noisy: ByName) -> ByName:
            ours = plan.after(noisy)
            self.kept["z"].append(torch.cat([ours[name] for name in BRANCHES]))
            if not self.forced or k + 1 >= len(self.arrays["z"]):
                return ours
            return dict(zip(BRANCHES, self.arrays["z"][k + 1].split(1), strict=True))

        return plan._replace(added=added, after=after)

    def _keep(self, k: int, outputs: Outputs) -> None:
        self.kept["eps"].append(torch.cat([outputs.eps[branch] for branch in self.course.branches]))
        if self.course.saliency is None:
            return
        masks, size = self.course.masks, self.source.shape[-2:]
        grid = self.arrays["saliency"].shape[-2:]
        self.kept["saliency"].append(self.source.new_zeros(2, *grid) if masks is None else self.course.saliency.whole[0])
        for name, field, threshold in (("mask", "edit", "threshold"), ("critical", "critical", "critical_threshold")):
            ours = self.source.new_zeros(size) if masks is None else getattr(masks, field)[0, 0]
            if (maps := self.course.saliency.maps) is not None:
                ours = recorded_where_near(maps, self.case[threshold], ours, self.arrays[name][k])
            self.kept[name].append(ours)

    def _course(self, guide: Guide) -> Course:
        case, n = self.case, self.case["steps"]
        grounding = Grounding(
            case["iterations"], case["gamma"], case["threshold"], case["critical_threshold"], case["start_blend"], add_up=True
        )
        prompts = [Tokens.of(self.model.text, case[name]) for name in ("source_prompt", "target_prompt")]
        words = case.get("blend_words")
        layers = [layer.name for layer in self.model.layout.layers("cross")]
        rows = dict(zip(ROWS, self.arrays["image_rows"].split(1), strict=True))
        return Course(
            branches=(SOURCE_SOURCE.guided(case["source_guidance"]), TARGET.guided(case["target_guidance"])),
            injected=InjectionSteps.of(n, case["cross_text_replace"], case["self_replace"], case["cross_image_replace"], 1),
            tokens=stack([refine(*prompts)], self.model.device),
            noise=self._noise,
            images=guide.adapter.hook(layers, rows, case["image_scale"]),
            saliency=Saliency(grounding, _focus(prompts, words, self.model)) if words else None,
            first=grounding.first(n),
            levels=self._levels(),
        )

    def _levels(self) -> tuple[int, int]:
        """Of cross- and self-attention, by the sides of their grids."""
        side = self.source.shape[-2]
        cross, self_ = (int(self.case.get(f"{kind}_resolution", side // 2**k)) for kind, k in (("cross", 2), ("self", 1)))
        return (side // cross).bit_length() - 1, (side // self_).bit_length() - 1

    def _noise(self, k: int) -> Tensor:
        """Where none was recorded it has no effect."""
        at = (self.arrays["noise_step"] == k).nonzero()
        return self.arrays["noise"][at[0]] if len(at) else torch.zeros_like(self.source)


def _focus(prompts: Sequence[Tokens], words: Sequence[str], model: Backbone) -> Focus:
    """All tokens of all places where a word stands between spaces, letter for letter."""
    rows = torch.zeros(2, 1, model.text.length, device=model.device)
    for row, tokens, chosen in zip(rows, prompts, words, strict=True):
        row[0, [i for word, places in tokens.words() if word == chosen for i in places]] = 1
    return Focus(*rows)
