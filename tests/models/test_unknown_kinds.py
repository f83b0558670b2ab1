"""Models that mean something else than they seem to: read as they are meant, or refused by name."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDPMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModelWithProjection

from sdist import ScoreDistillationPipeline
from sdist.diffusion import discrete_scales
from sdist.errors import UserError
from sdist.models.base import Backbone
from sdist.models.loading import assemble, load_backbone
from sdist.models.schedules import DISCRETE, check_flow, discrete_schedule, flow_shift
from sdist.models.stable_diffusion import check_inputs
from sdist.models.vae import native_side

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def change(path: Path, drop: tuple[str, ...] = (), **values: Any) -> None:
    data = {key: value for key, value in json.loads(path.read_text()).items() if key not in drop}
    path.write_text(json.dumps(data | values))


def parts_of(model: Backbone) -> dict[str, Any]:
    """Its components, for another one."""
    text = {"text_encoder": model.text.encoders[0], "tokenizer": model.text.tokenizers[0]}
    return {"unet": model.denoiser, "vae": model.vae, "scheduler": model.scheduler, **text}


# --- noise schedules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISCRETE)
def test_a_scheduler_of_a_known_class_is_read_with_its_own_defaults(name: str) -> None:
    try:
        scheduler = getattr(diffusers, name)()
    except (AttributeError, ImportError) as error:  # of an older diffusers, or one that needs torchsde
        pytest.skip(str(error))
    ours = discrete_schedule(scheduler).alphas_cumprod
    torch.testing.assert_close(ours, scheduler.alphas_cumprod)
    alike = discrete_schedule(type(scheduler).from_config({**SD, "prediction_type": "v_prediction"}))
    torch.testing.assert_close(alike.alphas_cumprod, DDPMScheduler(**SD).alphas_cumprod)
    assert alike.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    "sampling",
    [
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"timestep_spacing": "trailing", "steps_offset": 1},
        {"final_sigmas_type": "sigma_min"},
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        {"clip_sample": False, "set_alpha_to_one": False},
    ],
)
def test_how_one_samples_changes_nothing(folder: Path, tiny: Backbone, sampling: dict[str, Any]) -> None:
    config = {"_class_name": "DPMSolverMultistepScheduler", **sampling}
    change(folder / "scheduler" / "scheduler_config.json", **config)
    model, t = load_backbone(str(folder), "cpu"), torch.arange(1000)
    for ours, expected in zip(model.scales(t, (8, 8)), tiny.scales(t, (8, 8)), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler", "PNDMScheduler"])
def test_what_the_model_was_trained_on_is_read(folder: Path, name: str) -> None:
    file = folder / "scheduler" / "scheduler_config.json"
    change(file, _class_name=name, rescale_betas_zero_snr=True)
    model = load_backbone(str(folder), "cpu")
    assert model.scales(torch.tensor([999]), (8, 8))[0].item() == 0
    assert model.configuration["rescale_betas_zero_snr"] is True
    betas = np.linspace(0.001, 0.02, 500).tolist()
    change(file, rescale_betas_zero_snr=False, trained_betas=betas)
    model = load_backbone(str(folder), "cpu")
    assert model.last_timestep == 499
    expected = discrete_scales(torch.cumprod(1 - torch.tensor(betas), 0), torch.tensor([250]))
    torch.testing.assert_close(model.scales(torch.tensor([250]), (8, 8)), expected)
    assert len(model.configuration["trained_betas"]) == 16


BAD_SCHEDULES = {
    "EDM": ({"_class_name": "EDMEulerScheduler"}, "scheduler is a EDMEulerScheduler, which is not known here"),
    "EDM of DPM": ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDMDPMSolverMultistepScheduler"),
    "cosine": ({"_class_name": "CosineDPMSolverMultistepScheduler"}, "CosineDPMSolverMultistepScheduler"),
    "consistency": ({"_class_name": "CMStochasticIterativeScheduler"}, "CMStochasticIterativeScheduler"),
    "IPNDM": ({"_class_name": "IPNDMScheduler"}, "IPNDMScheduler"),
    "flow": ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "FlowMatchEulerDiscreteScheduler"),
    "CogVideoX": ({"_class_name": "CogVideoXDDIMScheduler", "snr_shift_scale": 3.0}, "CogVideoXDDIMScheduler"),
    "of nobody": ({"_class_name": "MyScheduler"}, "scheduler is a MyScheduler, which is not known here"),
    "flow sigmas": ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "has use_flow_sigmas=True"),
    "shifted SNR": ({"snr_shift_scale": 2.0}, "has snr_shift_scale=2.0"),
    "continuous": ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "has timestep_type=continuous"),
    "flow prediction": ({"_class_name": "DEISMultistepScheduler", "prediction_type": "flow_prediction"}, "predicts 'flow_pred"),
    "sample": ({"prediction_type": "sample"}, "predicts 'sample'"),
    "unknown betas": ({"beta_schedule": "cosine"}, "scheduler: .*cosine is not implemented"),
    "betas above 1": ({"beta_end": 2.0}, "its betas make no noise schedule"),
    "no noise": ({"beta_start": 0.0, "beta_end": 0.0}, "of the image's variance 100% is left at its end"),
    "no betas": ({"trained_betas": []}, "scheduler: "),
    "betas that are no numbers": ({"trained_betas": ["a"]}, "scheduler: "),
}


@pytest.mark.parametrize("name", BAD_SCHEDULES)
def test_other_schedules_are_refused_by_name(folder: Path, name: str) -> None:
    config, message = BAD_SCHEDULES[name]
    change(folder / "scheduler" / "scheduler_config.json", **config)
    with pytest.raises(UserError, match=message) as raised:
        load_backbone(str(folder), "cpu")
    assert "\n" not in str(raised.value)


def test_the_pipelines_index_may_not_name_another_scheduler(folder: Path) -> None:
    change(folder / "model_index.json", scheduler=["diffusers", "EDMEulerScheduler"])
    with pytest.raises(UserError, match="scheduler is a EDMEulerScheduler"):
        load_backbone(str(folder), "cpu")


def test_betas_changed_in_memory_are_refused_and_the_advice_works(tiny: Backbone) -> None:
    scheduler = EulerDiscreteScheduler(**SD)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**2
    with pytest.raises(UserError, match=r"give them as trained_betas: pipe.scheduler = DDPMScheduler"):
        assemble({**parts_of(tiny), "scheduler": scheduler}, "cpu", {})
    betas = 1 - scheduler.alphas_cumprod / torch.cat([torch.ones(1), scheduler.alphas_cumprod[:-1]])
    model = assemble({**parts_of(tiny), "scheduler": DDPMScheduler(trained_betas=betas.tolist())}, "cpu", {})
    alpha, _ = model.scales(torch.tensor([500]), (8, 8))
    torch.testing.assert_close(alpha**2, scheduler.alphas_cumprod[500:501], rtol=1e-4, atol=1e-6)


def test_a_scheduler_derived_from_a_known_one_is_read(tiny: Backbone) -> None:
    own = type("OwnScheduler", (DDPMScheduler,), {})
    assert assemble({**parts_of(tiny), "scheduler": own(**SD)}, "cpu", {}).last_timestep == 999


def test_a_dynamic_shift_of_another_form_is_refused() -> None:
    check_flow(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True))
    with pytest.raises(UserError, match="time_shift_type must be exponential, got 'linear'"):
        check_flow(diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"shift": 0}, "shift must be a number above 0, got 0"),
        ({"use_dynamic_shifting": True}, "shifts levels by the size of the image"),
        ({"invert_sigmas": True}, r"changed in a way that is not known here \(invert_sigmas\)"),
        ({"shift_terminal": 0.1}, r"changed in a way that is not known here \(shift_terminal\)"),
        ({"num_train_timesteps": 500}, "must be 1000 for a flow, got 500"),
    ],
)
def test_flows_that_shift_otherwise_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        flow_shift(diffusers.FlowMatchEulerDiscreteScheduler(**config))


def test_flows_are_read_as_they_sample() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_shift(5.0)
    assert flow_shift(scheduler) == 5.0
    assert flow_shift(diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)) == 3.0


# --- VAEs --------------------------------------------------------------------------------------------------------------


def test_statistics_of_a_vae_are_used(folder: Path, tiny: Backbone) -> None:
    mean, std = [0.5, 0.1, -0.2, 0.3], [2.0, 1.0, 0.5, 4.0]
    change(folder / "vae" / "config.json", latents_mean=mean, latents_std=std)
    model, pixels = load_backbone(str(folder), "cpu"), torch.rand(1, 3, 16, 16) * 2 - 1
    by_channel = [torch.tensor(values)[:, None, None] for values in (mean, std)]
    plain = tiny.encode(pixels) / tiny.vae.config.scaling_factor
    expected = (plain - by_channel[0]) * model.vae.config.scaling_factor / by_channel[1]  # as StableDiffusionXLImg2ImgPipeline
    torch.testing.assert_close(model.encode(pixels), expected)
    torch.testing.assert_close(model.decode(model.encode(pixels)), tiny.decode(tiny.encode(pixels)))
    assert model.configuration["latents_std"] == std


BAD_VAES = {
    "one number": ({"latents_mean": 0.5, "latents_std": 1.0}, "latents_mean must be 4 numbers"),
    "too few": ({"latents_mean": [0.5], "latents_std": [1.0]}, "latents_mean must be 4 numbers"),
    "one of two": ({"latents_mean": [0.5] * 4}, "belong together"),
    "a deviation of 0": ({"latents_mean": [0.5] * 4, "latents_std": [1.0, 0.0, 1.0, 1.0]}, "latents_std must be above 0"),
    "not finite": ({"latents_mean": [float("nan")] * 4, "latents_std": [1.0] * 4}, "latents_mean must be 4 numbers"),
    "no scale": ({"scaling_factor": 0}, "scaling_factor must be a number other than 0, got 0"),
    "a scale that is text": ({"scaling_factor": "0.18"}, "scaling_factor must be a number"),
    "a shift that is text": ({"shift_factor": "x"}, "shift_factor must be a number"),
    "another class": (
        {"_class_name": "AutoencoderTiny"},
        "vae is a AutoencoderTiny, which is not known here: have AutoencoderKL",
    ),
    "for video": ({"_class_name": "AutoencoderKLTemporalDecoder"}, "vae is a AutoencoderKLTemporalDecoder"),
    "with two decoders": ({"_class_name": "AsymmetricAutoencoderKL"}, "vae is a AsymmetricAutoencoderKL"),
}


@pytest.mark.parametrize("name", BAD_VAES)
def test_other_vaes_are_refused_by_name(folder: Path, name: str) -> None:
    config, message = BAD_VAES[name]
    change(folder / "vae" / "config.json", **config)
    with pytest.raises(UserError, match=message):
        load_backbone(str(folder), "cpu")


def test_other_vaes_in_memory_are_refused_by_name(tiny: Backbone) -> None:
    with pytest.raises(UserError, match="vae is a AutoencoderTiny"):
        assemble({**parts_of(tiny), "vae": AutoencoderTiny(encoder_block_out_channels=(8,) * 4)}, "cpu", {})
    grey = AutoencoderKL(in_channels=1, out_channels=1, block_out_channels=(4,), norm_num_groups=2)
    with pytest.raises(UserError, match="vae: it makes 1 channels of 1, an image has 3"):
        assemble({**parts_of(tiny), "vae": grey}, "cpu", {})


@pytest.mark.parametrize(
    ("sample_size", "pixels", "expected"),
    [(8, 512, 32), ([8, 8], None, 32), ((8, 12), None, 32), (None, 130, 128), (None, [64], 64)],
)
def test_the_size_that_a_model_was_trained_on(sample_size: Any, pixels: Any, expected: int) -> None:
    assert native_side(sample_size, SimpleNamespace(sample_size=pixels), 4) == expected


def test_a_model_that_says_no_size_at_all_is_one_line(folder: Path) -> None:
    change(folder / "unet" / "config.json", sample_size=None)
    assert load_backbone(str(folder), "cpu").native_side == 32
    change(folder / "vae" / "config.json", sample_size=None)
    with pytest.raises(UserError, match=r"vae/config.json has no sample_size: write the side"):
        load_backbone(str(folder), "cpu")
    with pytest.raises(UserError, match=r"sample_size is None in the denoiser's config.json.*write a number"):
        native_side(None, SimpleNamespace(), 8)


# --- UNets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_class_embeds": 10}, r"reads class labels \(num_class_embeds=10\)"),
        ({"class_embed_type": "timestep"}, r"reads class labels or a second time \(class_embed_type=timestep\)"),
        ({"class_embed_type": "identity"}, "class_embed_type=identity"),
        ({"class_embed_type": "projection", "projection_class_embeddings_input_dim": 8}, "class_embed_type=projection"),
        ({"encoder_hid_dim": 16, "encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type=text_proj"),
        ({"encoder_hid_dim": 16, "encoder_hid_dim_type": "image_proj"}, "embeddings of another kind"),
        ({"encoder_hid_dim": 16}, "encoder_hid_dim_type=text_proj"),
        ({"time_cond_proj_dim": 8}, "an embedded guidance scale"),
        ({"in_channels": 8}, "reads 8 latent channels, it gets 4"),
        ({"in_channels": 10}, "reads 10 latent channels, it gets 4"),
        ({"cross_attention_dim": 24}, "reads 24 text width, it gets 16"),
    ],
)
def test_unets_that_read_more_are_refused_by_what_they_read(tiny: Backbone, config: dict[str, Any], message: str) -> None:
    unet = UNet2DConditionModel.from_config({**tiny.denoiser.config, **config})
    with pytest.raises(UserError, match=message):
        assemble({**parts_of(tiny), "unet": unet}, "cpu", {})


@pytest.mark.parametrize("kind", ["text", "image", "text_image", "image_hint"])
def test_additional_embeddings_are_refused(tiny: Backbone, kind: str) -> None:
    tiny_config = {**tiny.denoiser.config, "addition_embed_type": kind}
    stub = type("UNet2DConditionModel", (), {"config": tiny_config})()
    with pytest.raises(UserError, match="this UNet2DConditionModel reads something else"):
        assemble({**parts_of(tiny), "unet": stub}, "cpu", {})


def test_one_width_of_text_for_each_block_is_one_width(tiny: Backbone) -> None:
    unet = UNet2DConditionModel.from_config({**tiny.denoiser.config, "cross_attention_dim": [16, 16, 16]})
    assert assemble({**parts_of(tiny), "unet": unet}, "cpu", {}).widths()["text width"] == (16, 16)


def test_an_ip_adapter_that_was_unloaded_is_none(tiny: Backbone) -> None:
    from diffusers.models.embeddings import MultiIPAdapterImageProjection

    pipeline = diffusers.StableDiffusionPipeline(
        **parts_of(tiny), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.unet = UNet2DConditionModel.from_config(tiny.denoiser.config)
    pipeline.unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    pipeline.unet.encoder_hid_proj = MultiIPAdapterImageProjection([])
    with pytest.raises(UserError, match=r"unet has an IP-Adapter.*unload_ip_adapter\(\)"):
        check_inputs(pipeline.unet)
    pipeline.unload_ip_adapter()
    check_inputs(pipeline.unet)


# --- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("text_encoder", "RobertaSeriesModelWithTransformation"),
        ("text_encoder", "BertModel"),
        ("text_encoder", "T5EncoderModel"),
        ("text_encoder", "CLIPVisionModel"),
        ("tokenizer", "XLMRobertaTokenizer"),
    ],
)
def test_other_text_encoders_are_refused_by_name(folder: Path, part: str, kind: str) -> None:
    change(folder / "model_index.json", **{part: ["transformers", kind]})
    with pytest.raises(UserError, match=f"{part} is a {kind}, which is not known here: have CLIP"):
        load_backbone(str(folder), "cpu")


def test_a_text_encoder_with_a_projection_gives_the_same_embeddings(tiny: Backbone) -> None:
    own = CLIPTextModelWithProjection(tiny.text.encoders[0].config)
    own.load_state_dict(tiny.text.encoders[0].state_dict(), strict=False)
    state = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in tiny.text.encoders[0].state_dict().items()}
    own.load_state_dict(state, strict=False)
    model = assemble({**parts_of(tiny), "text_encoder": own}, "cpu", {})
    torch.testing.assert_close(model.embed(["a cat"]).tokens, tiny.embed(["a cat"]).tokens)


@pytest.mark.parametrize("limit", [None, 10**30, 512, 0, -1])
def test_a_tokenizer_without_a_usable_limit_has_its_encoders(folder: Path, tiny: Backbone, limit: int | None) -> None:
    file = folder / "tokenizer" / "tokenizer_config.json"
    change(file, drop=("model_max_length",), **({} if limit is None else {"model_max_length": limit}))
    model = load_backbone(str(folder), "cpu")
    assert model.text.limit(0) == 24
    assert torch.equal(model.embed(["a cat"]).tokens, tiny.embed(["a cat"]).tokens)
    with pytest.raises(UserError, match=r"prompt has \d+ tokens, this model reads 24"):
        model.embed(["cat " * 30])


def fewer(encoder: Any, tokenizer: Any) -> None:
    encoder.set_input_embeddings(nn.Embedding(20, 16))


def one_less(encoder: Any, tokenizer: Any) -> None:
    encoder.resize_token_embeddings(len(tokenizer) - 1)


def added(encoder: Any, tokenizer: Any) -> None:
    tokenizer.add_tokens("<thing>")


def added_but_not_said(encoder: Any, tokenizer: Any) -> None:
    """As after loading a configuration that was written for more."""
    tokenizer.add_tokens("<thing>")
    encoder.config.vocab_size = len(tokenizer)


@pytest.mark.parametrize("change", [fewer, one_less, added, added_but_not_said])
def test_fewer_embeddings_than_tokens_are_one_line_and_the_advice_works(folder: Path, change: Callable[[Any, Any], None]) -> None:
    parts = parts_of(load_backbone(str(folder), "cpu"))
    text_encoder, tokenizer = parts["text_encoder"], parts["tokenizer"]
    change(text_encoder, tokenizer)
    model = assemble(parts, "cpu", {})
    rows = len(text_encoder.get_input_embeddings().weight)
    assert model.configuration.get("words") is None
    with pytest.raises(
        UserError, match=rf"has {len(tokenizer)} tokens and gives number \d+, .* has {rows} embeddings: "
    ) as raised:
        model.embed(["a <thing>"])
    advice = re.search(r"embeddings: (.*) makes room", str(raised.value))
    assert advice is not None
    eval(advice[1])
    assert model.embed(["a <thing>"]).finite


def test_an_added_token_that_no_prompt_has_changes_nothing(folder: Path, tiny: Backbone) -> None:
    parts = parts_of(load_backbone(str(folder), "cpu"))
    parts["tokenizer"].add_tokens("<thing>")
    assert torch.equal(assemble(parts, "cpu", {}).embed(["a cat"]).tokens, tiny.embed(["a cat"]).tokens)


def test_a_tokenizer_without_padding_is_one_line(tiny: Backbone) -> None:
    text = tiny.text
    tokenizer = text.tokenizers[0]
    before, tokenizer.pad_token = tokenizer.pad_token, None
    try:
        with pytest.raises(UserError, match="has no pad_token: write one"):
            text.token_ids("a cat")
    finally:
        tokenizer.pad_token = before


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_whole_numbers_are_refused_by_name(folder: Path, part: str) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    save_file({key: value.to(torch.int8) for key, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"{part}: \S+ is I8 in .*quantized weights are not read here"):
        load_backbone(str(folder), "cpu")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_without_a_place_are_told(folder: Path, part: str, caplog: pytest.LogCaptureFixture) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    save_file({**load_file(file), "zzz.weight": torch.zeros(3)}, file, {"format": "pt"})
    load_backbone(str(folder), "cpu")
    (said,) = [message for message in caplog.messages if "left out" in message]
    assert said.startswith(f"{part}: 1 weights of its files have no place in a ")
    assert "zzz.weight" in said


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_weights_of_another_shape_are_one_line_everywhere(folder: Path, part: str) -> None:
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    name = next(key for key, value in weights.items() if value.dim() > 1)
    weights[name] = weights[name][:-1].clone()
    save_file(weights, file, metadata={"format": "pt"})
    for load in (lambda: load_backbone(str(folder), "cpu"), lambda: ScoreDistillationPipeline.from_pretrained(folder)):
        with pytest.raises(UserError, match=rf"{part}: \S+ has the shape \(.*\), \w+ has \(.*\) there$"):
            load()
