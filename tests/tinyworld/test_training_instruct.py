"""The parts of the instruction recipe that can be wrong without anyone noticing."""

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))  # where its recipes import one another

import train_tinyworld_instruct as recipe

from sdist.models.catalogue import TINYWORLD
from sdist.tinyworld.captions import caption
from sdist.tinyworld.compositions import has_held_out
from sdist.tinyworld.edits import KINDS
from sdist.tinyworld.instructions import instruct
from sdist.tinyworld.scene import sample_scene

MOST_BYTES = 14_000_000  # of what the model adds to tinyworld


def arguments(work: Path, samples: int, minutes: float = 99) -> argparse.Namespace:
    arguments = ["--work", str(work), "--pairs", "6", "--batch", "2", "--workers", "1", "--device", "cpu"]
    return recipe.parse([*arguments, "--samples", str(samples), "--minutes", str(minutes)])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training of two steps."""
    folder = tmp_path_factory.mktemp("instruct")
    recipe.fit(arguments(folder, 4))
    return folder


@pytest.fixture(scope="module")
def data(work: Path) -> dict[str, torch.Tensor]:
    return load_file(work / "data_6.safetensors")


def batches(data: dict[str, torch.Tensor]) -> recipe.Batches:
    return recipe.Batches(data, 1.0, (recipe.new_tokenizer().bos_token_id, recipe.new_tokenizer().eos_token_id))


def test_every_word_of_an_instruction_is_one_token() -> None:
    for i in range(60):
        rng, before, edits = recipe.scene_and_edits(i)
        for kind, after in edits:
            text, subject = instruct(kind, before, after, rng)
            ids, named = recipe.tokenize(text, subject)
            assert ids.tolist() == recipe.new_tokenizer()(text, padding="max_length", max_length=recipe.LONGEST).input_ids
            assert recipe.new_tokenizer().decode(ids[named].tolist()).split()[0] in text
            assert named.sum() == len(subject)


def test_captions_are_read_as_before() -> None:
    old = CLIPTokenizer.from_pretrained(TINYWORLD, subfolder="tokenizer")
    texts = [caption(sample_scene(np.random.default_rng(i))) for i in range(40)]
    assert old(texts).input_ids == recipe.new_tokenizer()(texts).input_ids


def test_edits_of_a_scene_are_a_function_of_its_number_and_never_show_what_is_held_out() -> None:
    assert recipe.scene_and_edits(4)[1:] == recipe.scene_and_edits(4)[1:]
    for i in range(60):
        _, before, edits = recipe.scene_and_edits(i)
        assert len(edits) == recipe.EDITS
        assert edits[0][0] == list(KINDS)[i % 6]
        assert not any(has_held_out(scene) for scene in (before, *(after for _, after in edits)))


def test_the_unet_starts_as_tinyworld_without_its_middle_whatever_the_picture() -> None:
    old = UNet2DConditionModel.from_pretrained(TINYWORLD, subfolder="unet", torch_dtype=torch.float32)
    old.mid_block = None
    z, image, text = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 32, 32), torch.randn(2, 77, 128)
    with torch.no_grad():
        new = recipe.new_unet()(torch.cat([z, image], 1), 500, text).sample
        torch.testing.assert_close(new, old(z, 500, text).sample, rtol=1e-4, atol=1e-4)


def test_conditions_are_left_out_as_often_as_in_the_paper(data: dict[str, torch.Tensor]) -> None:
    batch = batches(data).draw(0, 4000)
    instructed, shown = batch.instructed.bool(), batch.image.flatten(1).any(1)
    shares = [(a & b).float().mean().item() for a in (instructed, ~instructed) for b in (shown, ~shown)]
    assert shares == pytest.approx([0.85, 0.05, 0.05, 0.05], abs=0.015)
    empty = torch.tensor(recipe.new_tokenizer()("", padding="max_length", max_length=77).input_ids)
    assert (batch.ids[~instructed] == empty).all()
    assert (batch.ids[instructed] != empty).any(1).all()


def test_batches_follow_from_their_number_and_kinds_are_drawn_alike(data: dict[str, torch.Tensor]) -> None:
    source = batches(data)
    first, again, other = source.draw(3, 8), source.draw(3, 8), source.draw(4, 8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.noise, other.noise)
    kinds = {**data, "kinds": torch.tensor([0, 0, 0, 0, 0, 3])}
    rare = batches(kinds).draw(0, 2000).cells == data["cells"][5].flatten().float()
    assert rare.all(1).float().mean() > 0.2  # its mirror image apart


def test_source_target_and_mask_are_of_one_edit_mirrored_together(data: dict[str, torch.Tensor]) -> None:
    batch = batches(data).draw(0, 64)
    for z, image, cells in zip(batch.z, batch.image, batch.cells, strict=True):
        (at,) = [(m, p) for m in range(2) for p in range(6) if torch.equal(data["targets"][m, p].float(), z)]
        mask = data["cells"][at[1]]
        assert torch.equal((mask.flip(-1) if at[0] else mask).flatten().float(), cells)
        assert not image.any() or torch.equal(data["sources"][at[0], at[1] // recipe.EDITS].float(), image)


def test_latents_of_the_source_are_as_the_pipeline_makes_them(data: dict[str, torch.Tensor]) -> None:
    """The posterior's mode, unscaled (diffusers' prepare_image_latents)."""
    vae = recipe.load_vae(torch.device("cpu"))
    shell = argparse.Namespace(vae=vae)
    pixels = torch.from_numpy(recipe.draw_scene(0)["sources"].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        made = StableDiffusionInstructPix2PixPipeline.prepare_image_latents(shell, pixels, 1, 1, torch.float32, "cpu", False)
    torch.testing.assert_close(made[0], data["sources"][0, 0].float(), rtol=1e-2, atol=1e-2)


def test_attention_on_the_subject_inside_the_change_costs_less() -> None:
    share, cells, instructed = (
        torch.tensor([[0.99, 0.01], [0.5, 0.5]]),
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        torch.tensor([1.0, 0.0]),
    )
    right, wrong = (recipe.attention_loss(x, cells, instructed) for x in (share, 1 - share))
    assert right < 0.02 < 4 < wrong
    assert recipe.attention_loss(share + 0.02, cells, instructed).isfinite()  # as a product in TF32 may round


def test_a_training_that_was_killed_goes_on_bit_for_bit(work: Path, tmp_path: Path) -> None:
    (tmp_path / "data_6.safetensors").symlink_to(work / "data_6.safetensors")
    (tmp_path / "run.safetensors").write_bytes((work / "run.safetensors").read_bytes())
    resumed = recipe.fit(arguments(tmp_path, 6))
    (tmp_path / "run.safetensors").unlink()
    models = recipe.new_models(torch.device("cpu"))
    objective = recipe.Objective(models, torch.device("cpu"), False)
    whole = recipe.TimedRun(tmp_path / "run.safetensors", models, recipe.RATE, 4, 99)
    source = recipe.Batches(
        load_file(work / "data_6.safetensors"), AutoencoderKL.load_config(TINYWORLD, subfolder="vae")["scaling_factor"],
        (recipe.new_tokenizer().bos_token_id, recipe.new_tokenizer().eos_token_id),
    )  # fmt: skip
    for number, total in enumerate((4, 4, 6)):
        whole.total = total
        losses = objective(source.draw(number, 2))
        whole.step(losses[0] + recipe.GROUNDING * losses[1], 2)
    assert resumed.steps == whole.steps == 3
    for name, value in whole.modules.state_dict().items():
        assert torch.equal(value, resumed.modules.state_dict()[name]), name
        assert torch.equal(whole.average[name], resumed.average[name]), name


def test_a_training_ends_decayed_when_its_minutes_are_over(tmp_path: Path) -> None:
    run = recipe.TimedRun(tmp_path / "x.safetensors", nn.ModuleDict({"x": nn.Linear(2, 1)}), 1e-3, 10**9, 1.0)
    run.steps, rates = 1000, []
    for seconds in (0, 45, 59.9):
        run.began = recipe.time.time() - seconds
        run.step(run.modules["x"](torch.ones(2)).sum(), 2)
        rates.append(run.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 5e-4, 0], abs=2e-5)
    run.began = recipe.time.time() - 60
    assert run.progress >= 1


def test_the_export_is_a_small_pipeline_that_edits(work: Path, tmp_path: Path) -> None:
    recipe.export(work / "weights.safetensors", tmp_path, with_vae=False)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors")) <= MOST_BYTES
    assert not (tmp_path / "vae").exists()
    vae = AutoencoderKL.from_pretrained(TINYWORLD, subfolder="vae")
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path, vae=vae, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pair, text = recipe.held_out_edit(0, 3)
    (edit,) = pipeline(text, pair.source_image, 2).images
    assert edit.size == (128, 128)
    assert np.asarray(edit).std() > 5


def test_held_out_edits_take_kinds_in_turn() -> None:
    assert [recipe.held_out_edit(0, i)[0].kind for i in range(6)] == list(KINDS)
    pair, text = recipe.held_out_edit(0, 1)
    assert recipe.held_out_edit(0, 1)[1] == text
    assert pair.before == recipe.held_out_edit(0, 1)[0].before
