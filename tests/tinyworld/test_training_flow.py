"""The recipe of tinyworld-flow: what it feeds and learns is what diffusers' pipeline of Stable Diffusion 3 does."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from einops import rearrange
from safetensors.torch import load_file
from torch import Tensor, nn

from sdist.tinyworld.compositions import has_held_out

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))  # its scripts import one another by name

import train_tinyworld_flow as flow


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "WIDTH", 32)
    monkeypatch.setattr(flow, "HEADS", 2)
    monkeypatch.setattr(flow, "LAYERS", 4)
    monkeypatch.setattr(flow, "GROUNDED", (1, 2))


@pytest.fixture
def modules() -> nn.ModuleDict:
    """With random numbers also where training starts from zeros."""
    made = flow.new_modules().eval()
    for p in made.parameters():
        nn.init.normal_(p, std=0.1) if p.abs().max() == 0 else None
    return made


@pytest.fixture
def pipeline(modules: nn.ModuleDict, tmp_path: Path) -> StableDiffusion3Pipeline:
    flow.export(modules, tmp_path / "pipeline")
    return flow.load_pipeline(tmp_path / "pipeline", torch.device("cpu"))


def arguments(work: Path, **changes: object) -> Namespace:
    told = ["--work", str(work), "--scenes", "6", "--samples", "12", "--batch", "4", "--workers", "1", "--device", "cpu"]
    return Namespace(**(vars(flow.parse(told)) | changes))


PROMPTS = ["a red cat wearing a blue hat in a meadow", ""]


def test_text_is_encoded_as_the_pipeline_does(pipeline: StableDiffusion3Pipeline) -> None:
    rows, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
    ids = torch.from_numpy(flow.token_ids(PROMPTS))
    trained = flow.encode([pipeline.text_encoder, pipeline.text_encoder_2], ids, flow.ZERO_ROWS)
    assert torch.equal(rows, trained[0])
    assert torch.equal(pooled, trained[1])


def test_few_zero_rows_stand_for_all_that_the_pipeline_feeds(pipeline: StableDiffusion3Pipeline) -> None:
    model = pipeline.transformer
    z, s = torch.randn(2, 4, 32, 32), torch.tensor([0.3, 0.9])
    rows, _, pooled, _ = pipeline.encode_prompt(PROMPTS, None, None, do_classifier_free_guidance=False)
    columns = torch.zeros(2, rows.shape[1], 8)
    columns[:, 3, 0] = columns[:, 9, 1] = 1
    with torch.no_grad():
        expected = model(z, rows, pooled, 1000 * s, return_dict=False)[0]
        plain, shares = flow.velocity_and_shares(model, z, s, rows, pooled, columns, range(4))
        model.set_attn_processor(flow.RepeatedRows(flow.KEPT_ROWS, flow.ZERO_ROWS))
        few = flow.TOKENS + flow.KEPT_ROWS
        trained, compact = flow.velocity_and_shares(model, z, s, rows[:, :few], pooled, columns[:, :few], range(4))
    assert torch.equal(plain, expected)
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(compact, shares, rtol=1e-4, atol=1e-6)


def test_shares_are_those_of_an_explicit_softmax(pipeline: StableDiffusion3Pipeline) -> None:
    model, seen = pipeline.transformer, {}
    attn = model.transformer_blocks[2].attn
    for name in ("norm_q", "norm_k", "norm_added_k"):
        getattr(attn, name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    rows, _, pooled, _ = pipeline.encode_prompt(PROMPTS[0], None, None, do_classifier_free_guidance=False)
    columns = torch.zeros(1, rows.shape[1], 8)
    columns[:, [2, 3], 0] = 1
    with torch.no_grad():
        z, s = torch.randn(1, 4, 32, 32), torch.tensor([0.5])
        (shares,) = flow.velocity_and_shares(model, z, s, rows, pooled, columns, [2])[1]
    keys = torch.cat([seen["norm_k"], seen["norm_added_k"]], 2)
    whole = (seen["norm_q"] @ keys.mT / seen["norm_q"].shape[-1] ** 0.5).softmax(-1).mean(1)
    torch.testing.assert_close(shares[..., 0], whole[..., 256 + 2 : 256 + 4].sum(-1))


def test_the_scheduler_walks_along_the_velocity_that_is_learned() -> None:
    scheduler, z, noise = flow.new_scheduler(), torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    scheduler.set_timesteps(5)
    sample = noise
    for t in scheduler.timesteps:
        s = t / 1000
        torch.testing.assert_close(sample, (1 - s) * z + s * noise)
        sample = scheduler.step(noise - z, t, sample, return_dict=False)[0]
    torch.testing.assert_close(sample, z)


def test_a_batch_pairs_mirrored_latents_with_mirrored_labels(tmp_path: Path) -> None:
    data = flow.make_data(arguments(tmp_path, scenes=40))
    held_out = sum(has_held_out(flow.scene_of(i)[1]) for i in range(40))
    assert len(data.labels) == 40 - held_out < 40
    null = torch.from_numpy(flow.token_ids([""]))
    batch = flow.draw(data, null, 3, 200)
    for z, labels, ids, captioned, columns in zip(batch.z, batch.labels, batch.ids, batch.captioned, batch.columns, strict=True):
        ((mirrored, index),) = (data.latents == z.half()).all((2, 3, 4)).nonzero().tolist()
        shown = data.labels[index].flip(1) if mirrored else data.labels[index]
        assert torch.equal(labels, shown.flatten().long())
        if captioned:
            assert (data.ids[index] == ids).all(1).any()
            assert columns[:77, :5].sum() > 0
        else:
            assert torch.equal(ids, null[0])
    assert 0.02 < 1 - batch.captioned.mean() < 0.25
    assert 0 < batch.s.min() < batch.s.max() <= 1


@pytest.mark.parametrize(("there", "cheap"), [(0, True), (1, False)])
def test_attention_on_the_right_words_costs_less(there: int, cheap: bool) -> None:
    labels = torch.zeros(1, 256, dtype=torch.long)
    labels[:, :64] = 1
    shares = torch.full((1, 256, 8), 1e-3)
    shares[:, :64, 1 - there] = shares[:, 64:, there] = 0.1
    shares[..., 5] = shares[..., :5].sum(-1)
    assert (flow.grounding(shares, labels, torch.ones(1)) < 0.3) == cheap
    assert flow.grounding(shares, labels, torch.zeros(1)) == 0


def test_a_training_that_was_killed_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = flow.train(arguments(tmp_path / "whole"))
    drawn = flow.draw

    def killed(data: flow.Data, null: Tensor, seed: int, size: int) -> flow.Batch:
        if seed == 2:
            raise KeyboardInterrupt
        return drawn(data, null, seed, size)

    monkeypatch.setattr(flow, "draw", killed)
    with pytest.raises(KeyboardInterrupt):
        flow.train(arguments(tmp_path / "broken", keep=0))
    monkeypatch.setattr(flow, "draw", drawn)
    resumed = flow.train(arguments(tmp_path / "broken"))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    started = flow.new_modules().state_dict()
    assert any(not torch.equal(value, started[name]) for name, value in whole.items())


def test_a_training_ends_when_its_minutes_are_used_up(tmp_path: Path) -> None:
    args = arguments(tmp_path, samples=10**9, minutes=0.01)
    flow.train(args)
    run = flow.TimedRun(args.work / "flow.safetensors", flow.new_modules(), 1e-3, args.samples, 60 * args.minutes)
    assert run.used >= 1
    assert 0 < run.samples < 10**9


def test_the_weights_that_travel_make_a_pipeline_that_can_be_measured(tmp_path: Path) -> None:
    args = arguments(tmp_path, single=tmp_path / "single.safetensors")
    weights = flow.train(args)
    flow.export(flow.filled(load_file(args.single)), tmp_path / "pipeline")
    pipeline = flow.load_pipeline(tmp_path / "pipeline", torch.device("cpu"))
    for name in ("transformer", *flow.TOWERS):
        for key, value in getattr(pipeline, name).named_parameters():
            assert torch.equal(value, weights[f"{name}.{key}"].half().float())
    found = flow.evaluate(pipeline, 2, 2, 4.0)
    assert {"noun", "colour", "background", "heldout_composition", "mask_auc", "mask_auc_p10"} <= set(found)
    assert all(0 <= value <= 1 for value in found.values())


def test_columns_that_are_no_text_get_nothing() -> None:
    bias = flow.RepeatedRows(3, 256).bias(torch.zeros(1, 2, 10, 4))
    assert rearrange(bias, "1 1 1 n -> n").exp().sum() == pytest.approx(7 + 256)
