"""Networks that somebody changed before they were borrowed: the plain picture, another with a card that says so, or one line.

What is advised is tried: it must lead to the plain picture.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.hooks import (
    HookRegistry,
    ModelHook,
    PyramidAttentionBroadcastConfig,
    apply_group_offloading,
    apply_layerwise_casting,
    apply_pyramid_attention_broadcast,
)
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image
from torch import nn

import sdist
from sdist import ScoreDistillationPipeline, UserError
from sdist.cli import main
from sdist.files.images import png_bytes
from sdist.models.text import ClipText
from sdist.models.wrappers import unwrapped

CPU = torch.device("cpu")
SETTINGS = {"scale": {"threshold": 1e-4, "cross_level": 1, "self_level": 0}}
EAGER = {"backend": "eager"}

pytestmark = pytest.mark.usefixtures("unchecked")  # wrapped networks are not of the annotated classes


@pytest.fixture
def pipe(tiny_folder: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))


def edit(pipe: Any, image: Image.Image, **options: Any) -> Any:
    ours = ScoreDistillationPipeline.from_pipe(pipe)
    ours.set_progress_bar_config(disable=True)
    prompts = {"prompt": "a cat wearing a hat", "source_prompt": "a cat"}
    return ours(image=image, **{**prompts, "num_inference_steps": 2, "seed": 0, "settings": SETTINGS, **options})


@pytest.fixture(scope="module")
def plain(tiny_folder: Path, image: Image.Image) -> Any:
    pipe = StableDiffusionPipeline.from_pretrained(tiny_folder, safety_checker=None)
    return edit(pipe, image)


def pixels(made: Any) -> np.ndarray:
    return np.asarray(made.images[0], int)


def compiled_after_a_call(pipe: Any) -> None:
    pipe.unet.compile(**EAGER)
    pipe("a cat", num_inference_steps=1, height=32, width=32)


def compiled_forward(pipe: Any) -> None:
    pipe.unet.forward = torch.compile(pipe.unet.forward, **EAGER)


def compiled_decoder(pipe: Any) -> None:
    pipe.vae.decode = torch.compile(pipe.vae.decode, **EAGER)


def freed(pipe: Any) -> None:
    pipe.enable_freeu(1.2, 1.4, 0.9, 0.2)
    pipe.disable_freeu()


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "unet": lambda pipe: setattr(pipe, "unet", torch.compile(pipe.unet, **EAGER)),
    "unet in place": lambda pipe: pipe.unet.compile(**EAGER),
    "after a call": compiled_after_a_call,
    "repeated blocks": lambda pipe: pipe.unet.compile_repeated_blocks(**EAGER),
    "its forward": compiled_forward,
    "a decoder's method": compiled_decoder,
    "vae": lambda pipe: setattr(pipe, "vae", torch.compile(pipe.vae, **EAGER)),
    "text encoder": lambda pipe: setattr(pipe, "text_encoder", torch.compile(pipe.text_encoder, **EAGER)),
    "data parallel": lambda pipe: setattr(pipe, "unet", nn.DataParallel(pipe.unet)),
    "data parallel, compiled": lambda pipe: setattr(pipe, "unet", torch.compile(nn.DataParallel(pipe.unet), **EAGER)),
    "vae in parallel": lambda pipe: setattr(pipe, "vae", nn.DataParallel(pipe.vae)),
    "text encoder in parallel": lambda pipe: setattr(pipe, "text_encoder", nn.DataParallel(pipe.text_encoder)),
    "FreeU on and off": freed,
    "slices of a batch": lambda pipe: pipe.vae.enable_slicing(),
    "checkpointing": lambda pipe: pipe.unet.enable_gradient_checkpointing(),
    "a mode": lambda pipe: pipe.unet.train(),
    "a list of sizes": lambda pipe: pipe.unet.register_to_config(sample_size=[8, 8]),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_computes_the_same_gives_the_plain_picture(pipe: Any, image: Image.Image, plain: Any, name: str) -> None:
    WRAPPERS[name](pipe)
    before = {part: getattr(pipe, part) for part in ("unet", "vae", "text_encoder")}
    calls = [module._compiled_call_impl for module in unwrapped(pipe.unet).modules()]
    made = edit(pipe, image)
    assert np.array_equal(pixels(made), pixels(plain))
    assert "changed" not in made.cards[0]["model"]
    assert all(getattr(pipe, part) is network for part, network in before.items())
    assert calls == [module._compiled_call_impl for module in unwrapped(pipe.unet).modules()]


class OwnProcessor:
    """Attention with half its effect, by the layer's own projections."""

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *_: Any, **__: Any) -> Any:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (attn.head_to_batch_dim(x) for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)))
        return attn.to_out[0](attn.batch_to_head_dim(attn.get_attention_scores(q, k) @ v)) / 2


def patched(pipe: Any) -> None:
    forward = pipe.unet.mid_block.forward
    pipe.unet.mid_block.forward = lambda *inputs, **options: 0.5 * forward(*inputs, **options)


def patched_vae(pipe: Any) -> None:
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z, **options: decode(z * 0.5, **options)


def of_another_class(pipe: Any) -> None:
    kind = type(pipe.unet.mid_block)

    class Own(kind):
        def forward(self, *inputs: Any, **options: Any) -> Any:
            return 0.5 * super().forward(*inputs, **options)

    pipe.unet.mid_block.__class__ = Own


class ToMeBlock(BasicTransformerBlock):
    def forward(self, hidden_states: Any, *inputs: Any, **options: Any) -> Any:
        half = hidden_states.shape[1] // 2
        return torch.cat([super().forward(hidden_states[:, :half], *inputs, **options), hidden_states[:, half:]], 1)


def merged_at_level_2(pipe: Any) -> None:
    """As token merging does, in the layers that no mask reads."""
    for module in pipe.unet.mid_block.modules():
        if isinstance(module, BasicTransformerBlock):
            module.__class__ = ToMeBlock


CHANGES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "FreeU": (lambda pipe: pipe.enable_freeu(1.2, 1.4, 0.9, 0.2), "unet: FreeU s1=1.2, s2=1.4, b1=0.9, b2=0.2 at up_blocks.0"),
    "a patched block": (patched, r"unet: forward replaced by patched.<locals>.<lambda> of .* at mid_block"),
    "a patched decoder": (patched_vae, r"vae: decode replaced by patched_vae.* of "),
    "a hook": (
        lambda pipe: pipe.unet.mid_block.register_forward_hook(lambda module, inputs, output: output * 0.5),
        "unet: hook .* at mid_block",
    ),
    "a hook before": (
        lambda pipe: pipe.unet.mid_block.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5, *inputs[1:])),
        "unet: hook .* at mid_block",
    ),
    "another class": (of_another_class, "unet: class .*Own of .* at mid_block"),
    "merged tokens": (merged_at_level_2, "unet: class .*ToMeBlock of .* at mid_block"),
    "a processor": (lambda pipe: pipe.unet.set_attn_processor(OwnProcessor()), "unet: attention by OwnProcessor of"),
    "8 bits": (
        lambda pipe: pipe.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32),
        "unet: weights stored as torch.float8_e4m3fn",
    ),
    "8 bits of a VAE": (
        lambda pipe: pipe.vae.enable_layerwise_casting(storage_dtype=torch.float8_e5m2, compute_dtype=torch.float32),
        "vae: weights stored as torch.float8_e5m2",
    ),
    "8 bits of a text encoder": (
        lambda pipe: apply_layerwise_casting(pipe.text_encoder, torch.float8_e4m3fn, torch.float32),
        "text_encoder: weights stored as torch.float8_e4m3fn",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_computes_something_else_stands_on_the_card(pipe: Any, image: Image.Image, plain: Any, name: str) -> None:
    change, message = CHANGES[name]
    change(pipe)
    before = [(p.dtype, p.clone()) for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()]
    made = edit(pipe, image)
    assert not np.array_equal(pixels(made), pixels(plain))
    assert any(re.search(message, line) for line in made.cards[0]["model"]["changed"])
    after = [p for part in (pipe.unet, pipe.vae, pipe.text_encoder) for p in part.parameters()]
    assert all(
        p.dtype == dtype and torch.equal(p.float(), value.float()) for p, (dtype, value) in zip(after, before, strict=True)
    )


def test_a_picture_of_changed_networks_is_not_replayed(
    pipe: Any, image: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "in.png"
    image.save(file)
    pipe.enable_freeu(1.2, 1.4, 0.9, 0.2)
    ours = ScoreDistillationPipeline.from_pipe(pipe)
    made = ours("a dog", str(file), "a cat", method="dds", num_inference_steps=1, seed=0)
    assert "changed in memory, so the run card cannot be replayed: unet: FreeU" in caplog.text
    (tmp_path / "made.png").write_bytes(png_bytes(made.images[0], json.dumps(made.cards[0])))
    assert main(["replay", str(tmp_path / "made.png")]) == 2
    assert "cannot be replayed: it was made with networks that were changed in memory (unet: FreeU" in capsys.readouterr().err


IN_MEMORY: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a scale": (
        lambda pipe: pipe.vae.register_to_config(scaling_factor=0.9),
        "scaling_factor of the model is 0.5, .* made with 0.9",
    ),
    "a shift": (
        lambda pipe: pipe.vae.register_to_config(shift_factor=0.3),
        "shift_factor of the model is None, .* made with 0.3",
    ),
    "statistics": (
        lambda pipe: pipe.vae.register_to_config(latents_mean=[0.5] * 4, latents_std=[2.0] * 4),
        r"latents_std of the model is None, .* made with \[2.0, 2.0, 2.0, 2.0\]",
    ),
    "what is predicted": (
        lambda pipe: pipe.scheduler.register_to_config(prediction_type="v_prediction"),
        "prediction_type of the model is epsilon, .* made with v_prediction",
    ),
}


@pytest.mark.parametrize("name", IN_MEMORY)
def test_replay_says_where_the_configuration_was_another(
    pipe: Any, image: Image.Image, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    file, (change, message) = tmp_path / "in.png", IN_MEMORY[name]
    image.save(file)
    for changed in (False, True):
        if changed:
            change(pipe)
        ours = ScoreDistillationPipeline.from_pipe(pipe)
        made = ours("a dog", str(file), "a cat", method="dds", num_inference_steps=2, seed=0)
        path = tmp_path / f"made{changed}.png"
        path.write_bytes(png_bytes(made.images[0], json.dumps(made.cards[0])))
        assert main(["replay", str(path)]) == changed
        assert bool(re.search(f"{message}: it will differ", caplog.text)) == changed


def leaves(pipe: Any) -> None:
    pipe.unet.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def blocks(pipe: Any) -> None:
    pipe.unet.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="block_level", num_blocks_per_group=1)


def all_parts(pipe: Any) -> None:
    blocks(pipe)
    pipe.vae.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")
    apply_group_offloading(pipe.text_encoder, onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def broadcast(pipe: Any) -> None:
    config = PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(0, 1000),
        current_timestep_callback=lambda: 500,
    )
    apply_pyramid_attention_broadcast(pipe.unet, config)


def own_hook(pipe: Any) -> None:
    HookRegistry.check_if_exists_or_initialize(pipe.unet.mid_block).register_hook(ModelHook(), "own")


@pytest.mark.parametrize("hook", [leaves, blocks, all_parts, broadcast, own_hook])
def test_hooks_that_move_or_cache_are_refused_and_the_advice_works(
    pipe: Any, image: Image.Image, plain: Any, hook: Callable[[Any], None]
) -> None:
    hook(pipe)
    with pytest.raises(UserError, match=r"hooks of diffusers .* move or cache it, but every step") as raised:
        edit(pipe, image)
    advice = re.search(r"on its device: (.*), then pipe.to\(device\)", str(raised.value))
    assert advice is not None
    exec(advice[1], {"pipe": pipe, "diffusers": diffusers})
    pipe.to("cpu")
    assert np.array_equal(pixels(edit(pipe, image)), pixels(plain))


def test_merged_tokens_where_the_mask_looks_are_named(pipe: Any, image: Image.Image) -> None:
    own = [module for module in pipe.unet.modules() if isinstance(module, BasicTransformerBlock)]
    for module in own:
        module.__class__ = ToMeBlock
    clusters = {"regularizers": {"attention_mask": None, "cluster_mask": {"clusters": 2}}}
    for method, changed in (("lusd", {}), ("cds", {}), ("lusd", clusters)):
        with pytest.raises(UserError, match=r"looks at \d+ tokens of an image of \d+ x \d+: something merges or drops tokens"):
            edit(pipe, image, method=method, num_inference_steps=1, settings={**SETTINGS, **changed})


def test_attention_that_goes_past_the_projections_is_named_and_the_advice_works(
    pipe: Any, image: Image.Image, plain: Any
) -> None:
    class Nothing:
        def __call__(self, attn: Any, hidden_states: Any, *_: Any, **__: Any) -> Any:
            return hidden_states

    pipe.unet.set_attn_processor(Nothing())
    with pytest.raises(UserError, match=r"was not called.*by set_attn_processor\(AttnProcessor2_0\(\)\)"):
        edit(pipe, image)
    pipe.unet.set_attn_processor(AttnProcessor2_0())
    assert np.array_equal(pixels(edit(pipe, image)), pixels(plain))


def test_quantized_weights_are_refused(pipe: Any, image: Image.Image) -> None:
    pipe.unet.conv_in.weight = nn.Parameter(pipe.unet.conv_in.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UserError, match=r"unet has quantized weights .*give the network that they were made of"):
        edit(pipe, image)


def test_weights_that_are_nowhere_are_refused(pipe: Any, image: Image.Image) -> None:
    pipe.text_encoder.to("meta")
    ours = ScoreDistillationPipeline(
        **{k: v for k, v in pipe.components.items() if k in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    )
    with pytest.raises(UserError, match="text_encoder has weights that are not in memory"):
        ours("a dog", image, "a cat", num_inference_steps=1)


def test_a_loaded_method_is_held_to_the_same(tiny_folder: Path, tmp_path: Path, image: Image.Image, plain: Any) -> None:
    file = tmp_path / "in.png"
    image.save(file)
    method = sdist.load("lusd", str(tiny_folder), device="cpu", settings={**SETTINGS, "steps": 2})
    request = sdist.Request(file, "a cat", "a cat wearing a hat", 0)

    def made() -> Any:
        (result,) = method.edit([method.prepare(request)])
        return result

    assert np.array_equal(np.asarray(made().image, int), pixels(plain))
    unet = method.model.denoiser
    try:
        unet.compile(**EAGER)
        assert np.array_equal(np.asarray(made().image, int), pixels(plain))
        unet.enable_freeu(1.2, 1.4, 0.9, 0.2)
        assert method.card(made())["model"]["changed"][0].startswith("unet: FreeU")
        unet.disable_freeu()
        assert "changed" not in method.card(made())["model"]
    finally:
        unet._compiled_call_impl = None


def test_words_with_several_vectors_are_read_whole(pipe: Any, image: Image.Image) -> None:
    torch.manual_seed(0)
    pipe.load_textual_inversion({"<thing>": torch.randn(3, 16)}, token="<thing>")
    out = edit(pipe, image, prompt="a <thing> in the snow", num_inference_steps=1, words="thing")
    assert out.cards[0]["job"]["tokens"] == [2, 3, 4]
    assert list(out.cards[0]["model"]["configuration"]["words"]) == ["<thing>", "<thing>_1", "<thing>_2"]
    backbone_ids = pipe.tokenizer(
        pipe.maybe_convert_prompt("a <thing> in the snow", pipe.tokenizer), padding="max_length"
    ).input_ids
    assert ClipText([pipe.text_encoder], [pipe.tokenizer]).token_ids("a <thing> in the snow") == backbone_ids


def test_what_is_no_name_is_one_line(pipe: Any, image: Image.Image) -> None:
    for call in (lambda: sdist.load("dds", pipe), lambda: sdist.edit(image, "a cat", "a dog", model=pipe)):
        with pytest.raises(UserError, match=r"got StableDiffusionPipeline; ScoreDistillationPipeline.from_pipe\(pipe\) takes"):
            call()
    with pytest.raises(UserError, match="nowhere/x: ") as raised:
        ScoreDistillationPipeline.from_pretrained("nowhere/x")
    assert "\n" not in str(raised.value)
