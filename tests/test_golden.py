"""Traces recorded from released implementations, replayed: the recorded timestep and noise go in, the rest must come out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sdist.backbone import Backbone, load_backbone
from sdist.distiller import ScoreDistiller
from sdist.filters import StdThreshold
from sdist.gammas import ReverseSigmoid
from sdist.images import to_pixels
from sdist.losses.cds import CDS
from sdist.losses.dds import DDS
from sdist.losses.sds import SDS
from sdist.method import Method
from sdist.normalizers import UnitStd
from sdist.optimizer import OptimizerSettings
from sdist.prediction import Edit, Progress, predict
from sdist.regularizers.attention_mask import AttentionMask
from sdist.regularizers.source_pull import SourcePull
from sdist.sampling import Ticket

from .conftest import read_json

GOLDEN = Path(__file__).parent / "golden"
CASES = ("lusd_eps", "lusd_nomask", "dds_eps", "sds_eps", "cds_eps")
TOLERANCE = 1e-4  # relative to a quantity's largest magnitude


class Recorded:
    """Plays a trace's draws back, one after the other."""

    def __init__(self, trace: dict[str, torch.Tensor], patches: int) -> None:
        self.trace, self.patches, self.index, self.used = trace, patches, -1, 0

    def timestep(self, ticket: Ticket) -> int:
        self.index, self.used = self.index + 1, 0
        return int(self.trace["timestep"][self.index])

    def noise(self, ticket: Ticket, shape: tuple[int, ...]) -> torch.Tensor:
        return self.trace["noise"][self.index]

    def permutation(self, ticket: Ticket, stream: str, size: int) -> torch.Tensor:
        count = min(self.patches, size)
        self.used += count
        return self.trace["patch_ids"][self.index, self.used - count : self.used].long()


def method_of(case: dict[str, Any], steps: int) -> Method:
    optimizer = OptimizerSettings(lr=case["learning_rate"], scale="released")
    if case["method"] != "lusd":
        loss = {"dds": DDS, "sds": SDS, "cds": CDS}[case["method"]](case["guidance_scale"])
        return Method(loss, optimizer=optimizer, steps=steps)
    from sdist.losses.sbp import SBP

    return Method(
        SBP(),
        {
            "attention_mask": AttentionMask(momentum=case["mask_momentum"], timing="previous", beta="k/(N-1)"),
            "source_pull": SourcePull(case["regularizer_weight"]),
        },
        StdThreshold(redraw_timestep=True, threshold=case["threshold"], decay=case["threshold_decay"]),
        UnitStd(),
        ReverseSigmoid(case["gamma_high"], case["gamma_low"], case["gamma_speed"]),
        optimizer,
        steps,
    )


@pytest.fixture(scope="module")
def golden() -> Backbone:
    return load_backbone(str(GOLDEN / "pipeline"), "cpu")


def same(ours: torch.Tensor, recorded: torch.Tensor) -> None:
    bound = TOLERANCE * recorded.abs().max()
    assert (ours - recorded.to(ours.dtype)).abs().max() <= bound


@pytest.mark.parametrize("name", CASES)
def test_trace(golden: Backbone, name: str) -> None:
    case, trace = read_json(GOLDEN / name / "case.json"), load_file(GOLDEN / name / "trace.safetensors")
    same(golden.encode(trace["image"].permute(2, 0, 1)[None] / 127.5 - 1), trace["z_src"])
    for prompt in ("source", "target"):
        same(golden.embed([case[f"{prompt}_prompt"]]), trace[f"emb_{prompt}"])

    text = {key[4:]: value for key, value in trace.items() if key.startswith("emb_")}
    focus = torch.zeros(1, 77)
    focus[0, case.get("token_index") or []] = 1
    steps = len(trace["z_before"])
    sampler = Recorded(trace, case.get("n_patches", 0))
    edit = Edit(trace["z_src"], text, focus)  # type: ignore[arg-type]
    distiller = ScoreDistiller(golden, edit, method_of(case, steps), sampler, [(0, "")])
    optimizer = distiller.configure_optimizers()
    while not distiller.finished:
        k = int(distiller.step[0])
        same(distiller.latents, trace["z_before"][k : k + 1])
        distiller.training_step(None, 0).backward()
        optimizer.step()
        check_step(distiller, case, trace, k)
        optimizer.zero_grad()
    same(distiller.latents, trace["z_final"])
    if case["method"] == "lusd":
        assert [bool(r.accepted[0]) for r in distiller.rounds] == trace["accepted"].tolist()
        same(torch.cat([r.values["grad_std"] for r in distiller.rounds]), trace["grad_std"])
        same(torch.cat([r.values["threshold"] for r in distiller.rounds]), trace["threshold"])


def check_step(distiller: ScoreDistiller, case: dict[str, Any], trace: dict[str, torch.Tensor], k: int) -> None:
    if not len(distiller.accepted):
        return
    gradient = distiller.latents.grad[0]
    if case["method"] == "lusd":
        same(gradient, trace["direction"][k])
        if case.get("token_index"):
            same(distiller.memory["attention_mask"].tensors["mask"][0, 0], trace["mask"][k])
    elif case["method"] == "cds":
        same(gradient * 2000 / 64**2, trace["grad_dds"][k] + trace["grad_cut"][k])
    else:
        same(gradient * 2000 / 64**2, trace["grad"][k])


@pytest.mark.parametrize("k", [0, 1])
def test_the_contrastive_term_by_itself(golden: Backbone, k: int) -> None:
    case, trace = read_json(GOLDEN / "cds_eps" / "case.json"), load_file(GOLDEN / "cds_eps" / "trace.safetensors")
    loss = CDS(case["guidance_scale"], cut_weight=case["w_cut"], temperature=case["temperature"])
    sampler = Recorded(trace, case["n_patches"])
    sampler.index = k - 1
    text = {key[4:]: value for key, value in trace.items() if key.startswith("emb_")}
    edit = Edit(trace["z_src"], text, torch.zeros(1, 77))  # type: ignore[arg-type]
    distiller = ScoreDistiller(golden, edit, Method(loss), sampler, [(0, "")])
    z = trace["z_before"][k : k + 1].clone().requires_grad_()
    where = Progress(torch.tensor([0]), torch.tensor([k]), 2)
    p = predict(golden, z, edit, distiller.draw(torch.tensor([0])), loss.branches, loss.recorders, where)
    cut_loss = loss.cut_loss(p)
    (cut,) = torch.autograd.grad(cut_loss.sum(), z)
    same(cut_loss, trace["cut_loss"][k : k + 1])
    same(cut[0] * case["w_cut"], trace["grad_cut"][k])


def test_a_wrong_recording_is_noticed(golden: Backbone) -> None:
    """The comparison can fail: the trace of one method is not that of another."""
    trace = load_file(GOLDEN / "dds_eps" / "trace.safetensors")
    with pytest.raises(AssertionError):
        same(trace["grad"][0], load_file(GOLDEN / "sds_eps" / "trace.safetensors")["grad"][0])


def test_pixels_are_those_of_the_release(golden: Backbone) -> None:
    from PIL import Image

    trace = load_file(GOLDEN / "dds_eps" / "trace.safetensors")
    same(golden.encode(to_pixels([Image.fromarray(trace["image"].numpy())])), trace["z_src"])
