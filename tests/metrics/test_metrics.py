"""Metrics: golden values of the published algorithms, what both profiles must keep, and encoders of the real classes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPVisionConfig, ViTConfig, ViTModel

from sdist.errors import UserError
from sdist.metrics import magicbrush, pie_bench
from sdist.metrics.background import background_mse, background_psnr
from sdist.metrics.curves import clip_auc, passing, starred
from sdist.metrics.encoders import Clip, Dino
from sdist.metrics.lpips import Lpips, background_lpips, load_lpips
from sdist.metrics.masks import decode_runs
from sdist.metrics.pixels import l1, l2
from sdist.metrics.preprocessing import center_crop, clip_pixels, dino_pixels, resize_short, structure_pixels
from sdist.metrics.profile import check_profile
from sdist.metrics.similarity import clip_r, cosine
from sdist.metrics.ssim import background_ssim, ssim_map
from sdist.metrics.structure import self_similarity, structure_distance
from sdist.metrics.summary import summarize

from ..conftest import tiny_text_config, tiny_tokenizer

PROFILES = ("official", "clean")
BOTH = pytest.mark.parametrize("profile", PROFILES)
SIDE = 32
fixed = settings(derandomize=True, deadline=None, max_examples=50)


# --- areas over CLIP-R ---


def grid(n: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    i = np.arange(n)
    ratios = 0.9 + 0.6 * ((37 * i) % 100) / 100 + 0.0005
    return ratios, 0.02 + 0.002 * ((53 * i) % 100) / 10, 0.99 - 0.2 * ((71 * i) % 100) / 100


CASES = {
    "few": (
        np.array([0.95, 1.0, 1.055, 1.123, 1.301]), np.array([0.02, 0.03, 0.05, 0.08, 0.11]),
        np.array([0.98, 0.97, 0.93, 0.90, 0.85]), (0.0966666666666667, 0.0215, 0.1911222222222222),
    ),
    "nothing done": (np.ones(4), np.full(4, 0.037), np.full(4, 0.943), (0.0, np.nan, np.nan)),
    "all pass": (np.full(2, 2.0), np.array([0.1, 0.3]), np.array([0.8, 0.6]), (0.40, 0.044, 0.154)),
    "hundred": (*grid(), (0.1986333333333333, 0.006617512141086436, 0.19628307411544532)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_areas_of_the_published_algorithm(name: str) -> None:
    ratios, l1s, clip_is, expected = CASES[name]
    areas = (clip_auc(ratios, "official"), starred(l1s, ratios, "official"), starred(clip_is, ratios, "official"))
    np.testing.assert_allclose(areas, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_exact_areas_are_near_the_published_ones(name: str) -> None:
    ratios, l1s, clip_is, expected = CASES[name]
    areas = (clip_auc(ratios, "clean"), starred(l1s, ratios, "clean"), starred(clip_is, ratios, "clean"))
    np.testing.assert_allclose(areas, expected, rtol=0, atol=2e-3)


def test_exact_areas_in_closed_form() -> None:
    assert clip_auc(grid()[0], "clean") == pytest.approx(0.198335, abs=1e-12)
    ratios, values = np.array([1.1, 1.3, 0.9]), np.array([0.2, 0.4, 9.0])
    assert starred(values, ratios, "clean") == pytest.approx(0.1 * 0.3 + 0.12 * 0.4, abs=1e-12)


RATIOS = st.lists(st.floats(0.5, 2), min_size=1, max_size=40).map(np.array)


@fixed
@given(RATIOS, RATIOS)
def test_clip_auc_is_linear_in_the_edits(add: np.ndarray, other: np.ndarray) -> None:
    everything = np.concatenate([add, other])
    for profile in PROFILES:
        mixed = (len(add) * clip_auc(add, profile) + len(other) * clip_auc(other, profile)) / len(everything)
        assert clip_auc(everything, profile) == pytest.approx(mixed, abs=1e-12)


@fixed
@given(RATIOS, st.floats(1, 2), st.floats(1, 2))
def test_fewer_edits_pass_a_larger_threshold(ratios: np.ndarray, a: float, b: float) -> None:
    assert passing(ratios, max(a, b)) <= passing(ratios, min(a, b))


@fixed
@given(RATIOS, st.floats(0, 1))
def test_the_profiles_differ_by_the_step_alone(ratios: np.ndarray, value: float) -> None:
    auc = {profile: clip_auc(ratios, profile) for profile in PROFILES}
    assert abs(auc["official"] - auc["clean"]) <= 0.0101
    assert all(0 <= area <= 0.4 + 1e-12 for area in auc.values())
    values = np.full(len(ratios), value)
    for profile in PROFILES:
        area = starred(values, ratios, profile)
        if passing(ratios, 1.22):
            assert area == pytest.approx(0.22 * value, abs=1e-9)
        elif max(ratios) < 1.22:
            assert np.isnan(area)


@BOTH
def test_an_edit_without_a_ratio_passes_nowhere_and_is_counted(profile: str) -> None:
    assert clip_auc(np.array([2.0, np.nan]), profile) == pytest.approx(0.2)
    assert starred(np.array([0.1, 9.0]), np.array([2.0, np.nan]), profile) == pytest.approx(0.022)
    assert np.isnan(starred(np.array([0.1, np.nan]), np.array([2.0, 2.0]), profile))


def test_areas_need_edits_and_equal_lengths() -> None:
    with pytest.raises(UserError, match="at least one edit"):
        clip_auc(np.array([]), "clean")
    with pytest.raises(UserError, match="got 1 and 2"):
        starred(np.ones(1), np.ones(2), "clean")


# --- published tables ---

NOTEBOOK = {  # LUSD's released notebook: all, add (465 edits), other (588)
    "clip_t": (0.287, 0.283, 0.290), "l1": (0.063, 0.059, 0.067), "clip_i": (0.900, 0.897, 0.902),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTEBOOK)
def test_class_means_mix_to_the_published_mean(name: str) -> None:
    whole, add, other = NOTEBOOK[name]
    mixed = summarize(np.repeat([add, other], [465, 588]), "official")
    assert (mixed.n, mixed.mean) == (1053, pytest.approx(whole, abs=1e-3))


@BOTH
def test_class_areas_mix_to_the_published_area(profile: str) -> None:
    assert clip_auc(1 + np.repeat([0.081, 0.069], [465, 588]), "clean") == pytest.approx(0.074, abs=5e-4)
    add, other = grid(50)[0], grid(100)[0][50:]
    whole = (len(add) * clip_auc(add, profile) + len(other) * clip_auc(other, profile)) / 100
    assert clip_auc(np.concatenate([add, other]), profile) == pytest.approx(whole, abs=1e-12)


USER_STUDY = {  # LUSD, tables 5 (add, other) and 1: background, prompt, quality, overall
    "InstructPix2Pix": [(30, 37, 33.5), (39, 41, 40), (35, 38, 36.5), (36, 36, 36)],
    "HIVE": [(42, 52, 47), (34, 47, 40.5), (42, 48, 45), (34, 44, 39)],
    "LEDITS++": [(31, 40, 35.5), (27, 39, 33), (27, 47, 37), (29, 41, 35)],
    "DDS": [(39, 48, 43.5), (31, 43, 37), (34, 42, 38), (35, 42, 38.5)],
    "CDS": [(28, 61, 44.5), (25, 55, 40), (31, 55, 43), (29, 55, 42)],
}


@pytest.mark.parametrize("method", USER_STUDY)
def test_the_user_study_is_the_mean_of_its_classes(method: str) -> None:
    for add, other, whole in USER_STUDY[method]:
        assert summarize(np.array([add, other]), "official").mean == whole


# --- summaries ---


def test_summaries_count_what_they_leave_out() -> None:
    values = np.array([1.0, np.nan, 3.0, np.inf])
    assert summarize(values, "clean") == (2.0, 4, 1, 1)
    assert summarize(values, "official") == (np.inf, 4, 1, 1)
    assert np.isnan(summarize(np.array([np.nan]), "clean").mean)


def test_an_unknown_profile_is_named() -> None:
    with pytest.raises(UserError, match="unknown profile 'clear': have clean, official; did you mean 'clean'"):
        check_profile("clear")


# --- pixels ---


def noise_image(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@BOTH
def test_l1_of_the_published_code(profile: str) -> None:
    rng = np.random.RandomState(0)
    first, second = (Image.fromarray((rng.rand(8, 8, 3) * 255).astype(np.uint8)) for _ in range(2))
    assert l1(second, first, profile) == pytest.approx(0.350674, abs=1e-6)
    grey, lighter = (Image.new("RGB", (4, 4), (value,) * 3) for value in (51, 102))
    assert l2(grey, lighter, profile) == pytest.approx(0.04)


@fixed
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 40))
def test_doing_nothing_has_no_distance(seed: int, width: int, height: int) -> None:
    image = noise_image(seed, width, height)
    for profile in PROFILES:
        assert l1(image, image, profile) == l2(image, image, profile) == 0


def test_clean_brings_the_reference_to_the_edit() -> None:
    reference = noise_image(0, 48, 32)
    edit = ImageOps.fit(reference, (16, 16), Image.Resampling.BICUBIC)
    assert l1(edit, reference, "clean") == 0
    stretched = np.asarray(edit.resize((48, 32), Image.Resampling.BICUBIC), float) / 255
    assert l1(edit, reference, "official") == pytest.approx(np.abs(stretched - np.asarray(reference) / 255).mean())


# --- background ---


@pytest.mark.parametrize(("rows", "expected"), [(0, 20.0), (128, 21.2494), (256, 23.0103), (460, 29.9327)])
def test_background_psnr_of_a_uniform_error(rows: int, expected: float) -> None:
    source = np.full((512, 512, 3), 0.5)
    mask = np.zeros((512, 512), bool)
    mask[:rows] = True
    assert background_psnr(source + 0.1, source, mask, "official") == pytest.approx(expected, abs=1e-4)
    assert background_psnr(source + 0.1, source, mask, "clean") == pytest.approx(20, abs=1e-9)


def ssim_fixture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.RandomState(0)
    a = rng.rand(96, 80, 3).astype(np.float32)
    b = np.clip(a + 0.1 * rng.randn(96, 80, 3), 0, 1)
    mask = np.zeros((96, 80), bool)
    mask[20:60, 20:60] = True
    return a.astype(np.float64), b.astype(np.float32).astype(np.float64), mask


def test_background_ssim_and_psnr_of_the_published_code() -> None:
    a, b, mask = ssim_fixture()
    assert background_ssim(b, a, np.zeros_like(mask), "official") == pytest.approx(0.946305, abs=2e-6)
    assert background_ssim(b, a, mask, "official") == pytest.approx(0.960242, abs=2e-6)
    assert background_psnr(b, a, mask, "official") == pytest.approx(21.52202, abs=1e-4)


def test_ssim_is_torchmetrics_map_without_its_border() -> None:
    from torchmetrics.functional.image import structural_similarity_index_measure

    a, b = (torch.from_numpy(x).permute(2, 0, 1) for x in ssim_fixture()[:2])
    _, whole = structural_similarity_index_measure(a[None], b[None], data_range=1.0, return_full_image=True)
    torch.testing.assert_close(ssim_map(a, b), whole[0, :, 5:-5, 5:-5], rtol=0, atol=1e-9)


@BOTH
def test_changes_inside_the_mask_are_free(profile: str) -> None:
    a, b, mask = ssim_fixture()
    b = np.where(mask[:, :, None], b, a)
    assert background_mse(b, a, mask, profile) == 0
    assert background_psnr(b, a, mask, profile) == np.inf
    assert background_ssim(b, a, mask, profile) == pytest.approx(1, abs=1e-12)


def test_clean_ignores_the_size_of_the_mask() -> None:
    a, b, mask = ssim_fixture()
    official, clean = (background_mse(b, a, mask, profile) for profile in PROFILES)
    assert official * mask.size / (~mask).sum() == pytest.approx(clean)
    assert background_ssim(b, a, mask, "clean") == pytest.approx(background_ssim(b, a, np.zeros_like(mask), "clean"), abs=2e-3)


@BOTH
def test_a_mask_without_background_leaves_nothing_to_measure(profile: str) -> None:
    a, b, mask = ssim_fixture()
    for metric in (background_mse, background_psnr, background_ssim):
        assert np.isnan(metric(b, a, np.ones_like(mask), profile))


def test_clean_ssim_needs_a_window_of_background() -> None:
    a, b, mask = ssim_fixture()
    mask[:] = True
    mask[:5] = False
    assert np.isnan(background_ssim(b, a, mask, "clean"))
    with pytest.raises(UserError, match="at least 11 x 11 pixels, got 8 x 9"):
        background_ssim(b[:9, :8], a[:9, :8], np.zeros((9, 8), bool), "clean")


@pytest.mark.parametrize(
    ("runs", "count"), [([], 2044), ([512 * 10 + 5, 20], 2064), ([512 * 512 - 3, 100], 2044), ([0, 262144], 262144)]
)
def test_runs_of_a_mask(runs: list[int], count: int) -> None:
    assert decode_runs(runs).sum() == count


@pytest.mark.parametrize("runs", [[1], [3, -1]])
def test_bad_runs_are_refused(runs: list[int]) -> None:
    with pytest.raises(UserError, match="pairs of start and length"):
        decode_runs(runs)


# --- LPIPS ---


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    torch.manual_seed(2)
    model = Lpips().eval().requires_grad_(False)
    for weight in model.weights.parameters():
        weight.abs_()
    return model


def test_lpips_is_that_of_torchmetrics(lpips: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only torchvision's SqueezeNet, which is not installed, is ours in both."""
    from torchmetrics.functional.image import lpips as theirs

    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: lpips.features)
    model = theirs._LPIPS(pretrained=False, net="squeeze")
    for linear, weight in zip(model.lins, lpips.weights, strict=True):
        linear.model[1].load_state_dict(weight.state_dict())
    a, b, mask = ssim_fixture()
    black = [torch.from_numpy(np.where(mask[:, :, None], 0, x)).permute(2, 0, 1)[None].float() for x in (b, a)]
    expected = model(*black, normalize=True).item()
    assert expected > 1e-3
    assert background_lpips(b, a, mask, lpips, "official") == pytest.approx(expected, rel=1e-4)
    assert sum(p.numel() for p in lpips.features.parameters()) == 722_496  # of squeezenet1_1 without its classifier


@BOTH
def test_lpips_of_the_background(lpips: Lpips, profile: str) -> None:
    a, b, mask = ssim_fixture()
    inside_only = np.where(mask[:, :, None], b, a)
    assert background_lpips(inside_only, a, mask, lpips, profile) == 0
    assert background_lpips(b, a, mask, lpips, profile) > 0
    assert np.isnan(background_lpips(b, a, np.ones_like(mask), lpips, profile))


def test_clean_lpips_ignores_the_size_of_the_mask(lpips: Lpips) -> None:
    a, b, mask = ssim_fixture()
    half = np.zeros_like(mask)
    half[:48] = True
    whole = background_lpips(b, a, np.zeros_like(mask), lpips, "official")
    assert background_lpips(b, a, half, lpips, "clean") == pytest.approx(whole, rel=0.2)
    assert background_lpips(b, a, half, lpips, "official") < 0.7 * whole


def test_lpips_weights_have_their_published_names(lpips: Lpips, tmp_path: Path) -> None:
    path = tmp_path / "lpips.safetensors"
    state = {f"features.{name}": value for name, value in lpips.features.state_dict().items()}
    state |= {f"lin{i}.model.1.weight": layer.weight for i, layer in enumerate(lpips.weights)}
    save_file(state | {"classifier.1.weight": torch.ones(2)}, path)
    a, b, mask = ssim_fixture()
    assert background_lpips(b, a, mask, load_lpips(path, "cpu"), "clean") == background_lpips(b, a, mask, lpips, "clean")
    del state["lin3.model.1.weight"]
    save_file(state, path)
    with pytest.raises(UserError, match=r"lack lin3.model.1.weight of shape \(1, 384, 1, 1\)"):
        load_lpips(path, "cpu")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_lpips(tmp_path / "none.safetensors", "cpu")


# --- similarity ---


@fixed
@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_cosines(seed: int, factor: float) -> None:
    a, b = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed))
    assert (cosine(a, a) == 1).all()
    assert (np.abs(cosine(a, b)) <= 1).all()
    np.testing.assert_allclose(cosine(a * factor, b), cosine(b, a), atol=1e-6)
    assert np.isnan(cosine(torch.zeros(1, 8), a[:1]))


def test_a_ratio_over_a_source_that_points_away_is_undefined_in_the_clean_profile() -> None:
    text = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    source = torch.tensor([[1.0, 0], [-1, 0], [0, 1]])
    edit = torch.tensor([[1.0, 0], [1, 0], [1, 0]])
    np.testing.assert_array_equal(clip_r(edit, source, text, "official"), [1, -1, np.inf])
    np.testing.assert_array_equal(clip_r(edit, source, text, "clean"), [1, np.nan, np.nan])


# --- preprocessing ---


@pytest.mark.parametrize("size", [(64, 64), (300, 400), (300, 401), (500, 334), (427, 640), (32, 33), (20, 20)])
def test_clip_input_is_that_of_transformers(size: tuple[int, int]) -> None:
    image = noise_image(0, *size)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    theirs = torch.as_tensor(np.array(processor(image).pixel_values[0]))
    torch.testing.assert_close(clip_pixels(image, 224, "clean"), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("margin", "official", "clean"), [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 1), (5, 2, 2), (75, 38, 37)])
def test_only_crops_round_differently(margin: int, official: int, clean: int) -> None:
    columns = np.arange(224 + margin) % 256
    image = Image.fromarray(np.tile(columns.astype(np.uint8), (224, 1)))
    for profile, left in (("official", official), ("clean", clean)):
        assert center_crop(image, 224, profile).getpixel((0, 0)) == left


def test_sizes() -> None:
    assert resize_short(noise_image(0, 333, 500), 224).size == (224, 336)
    assert resize_short(noise_image(0, 500, 333), 224).size == (336, 224)
    assert structure_pixels(noise_image(0, 500, 400), 224, "clean").shape == (3, 224, 280)
    assert structure_pixels(noise_image(0, 100, 500), 224, "clean").shape == (3, 480, 96)


def test_the_published_structure_input_is_255_times_too_large() -> None:
    grey = Image.new("RGB", (64, 64), (255, 255, 255))
    official, clean = (structure_pixels(grey, 32, profile)[:, 0, 0] for profile in PROFILES)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(official, (255 - mean) / std)
    torch.testing.assert_close(clean, (1 - mean) / std)


def test_only_the_clean_structure_input_is_antialiased() -> None:
    image = noise_image(0, 512, 512)
    official, clean = (structure_pixels(image, SIDE, profile).std() for profile in PROFILES)
    assert clean < official / 255 / 4


def test_dino_input_leaves_a_margin_of_a_sixteenth() -> None:
    image = noise_image(0, 256, 256)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (torch.from_numpy(np.array(image)[16:240, 16:240]) / 255 - mean) / std
    torch.testing.assert_close(dino_pixels(image, 224, "clean"), expected.permute(2, 0, 1))


# --- encoders ---


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder, tokenizer = tmp_path_factory.mktemp("clip"), tiny_tokenizer()
    text = tiny_text_config(tokenizer, layers=2)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("dino")
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=8
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Clip:
    return Clip(str(clip_folder), "cpu")


@pytest.fixture(scope="module")
def dino(dino_folder: Path) -> Dino:
    return Dino(str(dino_folder), "cpu")


def test_embeddings_are_those_of_the_model(clip: Clip) -> None:
    image = noise_image(0, 40, 50)
    with torch.no_grad():
        both = clip.model(
            pixel_values=clip_pixels(image, SIDE, "clean")[None], **clip.tokenizer(["a red cat"], return_tensors="pt")
        )
    for ours, theirs in ((clip.images([image], "clean"), both.image_embeds), (clip.texts(["a red cat"]), both.text_embeds)):
        torch.testing.assert_close(torch.nn.functional.normalize(ours, dim=-1), theirs, rtol=0, atol=1e-5)


def test_dino_embeddings_are_class_tokens(dino: Dino) -> None:
    image = noise_image(0, 40, 50)
    with torch.no_grad():
        tokens = dino.model(dino_pixels(image, SIDE, "clean")[None]).last_hidden_state[0]
    torch.testing.assert_close(dino.images([image], "clean")[0], tokens[0], rtol=0, atol=1e-6)
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


def test_batches_and_repetitions_do_not_change_embeddings(clip: Clip, dino: Dino) -> None:
    images = [noise_image(seed % 40, 40, 50) for seed in range(45)]
    for encoder in (clip, dino):
        together = encoder.images(images, "clean")
        torch.testing.assert_close(together[[0, 35]], encoder.images([images[0], images[35]], "clean"), rtol=0, atol=1e-5)
        assert torch.equal(together[:5], together[40:])


def test_texts_beyond_the_limit_are_errors_or_cut(clip: Clip) -> None:
    long = "cat " * 30
    with pytest.raises(UserError, match="description has 32 tokens, this CLIP reads 24"):
        clip.texts(["a cat", long])
    torch.testing.assert_close(clip.texts([long], cut=True), clip.texts([("cat " * 22).strip()]), rtol=0, atol=1e-6)


def test_keys_are_what_the_last_layer_projects(dino: Dino) -> None:
    seen: list[torch.Tensor] = []
    handle = dino.model.layers[-1].attention.k_proj.register_forward_hook(lambda module, given, out: seen.append(out))
    image = noise_image(3, 64, 64)
    with torch.no_grad():
        dino.model(structure_pixels(image, SIDE, "clean")[None])
    handle.remove()
    torch.testing.assert_close(dino.keys([image], "clean"), seen[0], rtol=0, atol=1e-6)
    assert dino.keys([image], "clean").shape == (1, 17, 16)


@BOTH
def test_structure_distance(dino: Dino, profile: str) -> None:
    a, b = noise_image(0, 64, 48), noise_image(1, 64, 48)
    assert structure_distance(a, a, dino, profile) == pytest.approx(0, abs=1e-10)
    assert structure_distance(a, b, dino, profile) == pytest.approx(structure_distance(b, a, dino, profile), rel=1e-4)
    first, second = dino.keys([a, b], profile)
    apart = [torch.cosine_similarity(keys[:, None], keys, dim=-1) for keys in (first, second)]
    assert structure_distance(a, b, dino, profile) == pytest.approx(((apart[0] - apart[1]) ** 2).mean().item(), rel=1e-4)
    assert not torch.allclose(*apart, atol=1e-3)
    similar = self_similarity(first[None])[0]
    torch.testing.assert_close(similar.diagonal(), torch.ones(len(similar), dtype=torch.float64))
    assert similar.abs().max() <= 1 + 1e-12


def test_models_that_cannot_be_loaded_are_named(tmp_path: Path, dino_folder: Path, clip_folder: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation model .*nowhere cannot be loaded as CLIPModel"):
        Clip(str(tmp_path / "nowhere"), "cpu")
    with pytest.raises(UserError, match="ViTModel"):
        Dino(str(clip_folder), "cpu")
    torch.save(ViTModel.from_pretrained(dino_folder, add_pooling_layer=False).state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((dino_folder / "config.json").read_bytes())
    with pytest.raises(UserError, match="with safetensors"):
        Dino(str(tmp_path), "cpu")


# --- cache ---


def test_cached_embeddings_are_read_again_and_damaged_ones_made_again(
    clip_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [noise_image(seed) for seed in range(3)]
    clip = Clip(str(clip_folder), "cpu", tmp_path)
    first = clip.images([*images, images[0]], "clean")
    files = sorted(tmp_path.rglob("*"))
    assert len([f for f in files if f.suffix == ".safetensors"]) == 3
    assert not [f for f in files if f.name.startswith(".")]
    again = Clip(str(clip_folder), "cpu", tmp_path)
    again.model = None  # nothing is left to compute
    assert torch.equal(again.images([*images, images[0]], "clean"), first)
    next(f for f in files if f.suffix == ".safetensors").write_bytes(b"damaged")
    mended = Clip(str(clip_folder), "cpu", tmp_path)
    torch.testing.assert_close(mended.images([*images, images[0]], "clean"), first, rtol=0, atol=1e-6)
    assert "is made again" in caplog.text


def test_embeddings_are_made_once_without_a_folder_too(clip_folder: Path) -> None:
    clip, image = Clip(str(clip_folder), "cpu"), noise_image(0)
    first = clip.images([image], "clean"), clip.texts(["a cat"])
    clip.model.forward = clip.model.get_image_features = clip.model.get_text_features = None  # nothing may be computed
    assert torch.equal(clip.images([image, image], "clean"), first[0].repeat(2, 1))
    assert torch.equal(clip.texts(["a cat"]), first[1])


def test_caches_tell_contents_profiles_and_models_apart(clip_folder: Path, dino_folder: Path, tmp_path: Path) -> None:
    clip, dino = Clip(str(clip_folder), "cpu", tmp_path), Dino(str(dino_folder), "cpu", tmp_path)
    image = noise_image(0, 40, 20)
    for turned in (image, image.transpose(Image.Transpose.ROTATE_90), Image.new("RGB", (20, 40))):
        for profile in PROFILES:
            clip.images([turned], profile)
            dino.images([turned], profile)
    clip.texts(["a cat", "a dog", "a cat"])
    assert len(list(tmp_path.rglob("*.safetensors"))) == 14


# --- benchmarks ---


def turn(seed: int, **changes: object) -> magicbrush.Turn:
    images = [noise_image(3 * seed + i) for i in range(3)]
    return replace(magicbrush.Turn(*images, "a red hat", "a cat wearing a red hat"), **changes)


@BOTH
def test_magicbrush_scores(clip: Clip, dino: Dino, profile: str) -> None:
    turns = [turn(0), turn(1, edit=None), replace(turn(2), edit=turn(2).reference), replace(turn(3), edit=turn(3).source)]
    scores = magicbrush.score(turns, clip, dino, profile)
    assert set(scores) == {*magicbrush.NAMES, "dino"}
    for values in scores.values():
        assert np.isnan(values[1])
        assert summarize(values, profile).undefined >= 1
    assert scores["l1"][2] == scores["l2"][2] == 0
    assert scores["clip_i"][2] == scores["dino"][2] == 1
    assert scores["clip_r"][3] == 1 or (profile == "clean" and np.isnan(scores["clip_r"][3]))
    alone = magicbrush.score(turns[:1], clip, None, profile)
    assert set(alone) == set(magicbrush.NAMES)
    assert all(values[0] == pytest.approx(scores[name][0], abs=1e-4, nan_ok=True) for name, values in alone.items())


@BOTH
def test_every_magicbrush_score_compares_what_it_should(clip: Clip, dino: Dino, profile: str) -> None:
    one = turn(0)
    edit, source, reference = clip.images([one.edit, one.source, one.reference], profile).split(1)
    local, whole = clip.texts([one.local_description, one.global_description]).split(1)
    expected = {
        "l1": l1(one.edit, one.reference, profile),
        "l2": l2(one.edit, one.reference, profile),
        "clip_i": cosine(edit, reference)[0],
        "clip_t": cosine(edit, local)[0],
        "clip_r": clip_r(edit, source, whole, profile)[0],
        "dino": cosine(*dino.images([one.edit, one.reference], profile).split(1))[0],
    }
    scores = magicbrush.score([one], clip, dino, profile)
    assert {name: values[0] for name, values in scores.items()} == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert abs(cosine(edit, local) - cosine(edit, whole)) > 1e-3


@BOTH
def test_doing_nothing_never_passes(clip: Clip, profile: str) -> None:
    turns = [replace(turn(seed), edit=turn(seed).source) for seed in range(6)]
    scores = magicbrush.score(turns, clip, None, profile)
    ratios = scores["clip_r"]
    assert clip_auc(ratios, profile) == passing(ratios, 1.0) == 0
    assert np.isnan([starred(scores[name], ratios, profile) for name in ("l1", "clip_i")]).all()


@BOTH
def test_a_method_that_always_fails_is_all_nan(clip: Clip, dino: Dino, profile: str) -> None:
    scores = magicbrush.score([turn(0, edit=None)], clip, dino, profile)
    assert all(np.isnan(values).all() for values in scores.values())
    assert clip_auc(scores["clip_r"], profile) == 0


def case(seed: int, **changes: object) -> pie_bench.Case:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[8:24, :16] = True
    return replace(pie_bench.Case(noise_image(seed), noise_image(seed + 1), mask, "a [red] cat"), **changes)


@BOTH
def test_pie_bench_scores(clip: Clip, dino: Dino, lpips: Lpips, profile: str) -> None:
    cases = [case(0), case(2, edit=None), case(4, edit=noise_image(5)), case(6, mask=np.ones((SIDE, SIDE), bool))]
    scores = pie_bench.score(cases, clip, dino, lpips, profile)
    assert set(scores) == {*pie_bench.NAMES, "lpips"}
    assert set(pie_bench.score(cases[:1], clip, dino, None, profile)) == set(pie_bench.NAMES)
    assert all(np.isnan(values[1]) for values in scores.values())
    assert scores["structure_distance"][2] == pytest.approx(0, abs=1e-10)
    assert (scores["mse"][2], scores["psnr"][2]) == (0, np.inf)
    assert scores["ssim"][2] == pytest.approx(1)
    assert np.isnan([scores[name][3] for name in ("psnr", "mse", "ssim", "lpips")]).all()
    assert scores["clip_edited"][3] == pytest.approx(scores["clip_whole"][3])
    whole = 100 * cosine(clip.images([cases[0].edit], profile), clip.texts(["a red cat"]))
    assert scores["clip_whole"][0] == pytest.approx(np.maximum(whole, 0) if profile == "official" else whole, abs=1e-4)


def test_clip_edited_sees_the_mask_alone(clip: Clip) -> None:
    first = case(0)
    pixels = np.array(first.edit)
    pixels[~first.mask] = 7
    other = replace(first, edit=Image.fromarray(pixels))
    assert pie_bench.clip_edited([first], clip, "clean") == pie_bench.clip_edited([other], clip, "clean")


def test_pictures_of_a_case_have_one_size() -> None:
    with pytest.raises(UserError, match="one size, got 32 x 32 and 40 x 32"):
        case(0, edit=noise_image(0, 40, 32))


def test_nothing_to_score_is_an_error(clip: Clip, dino: Dino) -> None:
    with pytest.raises(UserError, match="at least one edit"):
        magicbrush.score([], clip, None, "clean")
    with pytest.raises(UserError, match="unknown profile"):
        pie_bench.score([case(0)], clip, dino, None, "fair")  # type: ignore[arg-type]
