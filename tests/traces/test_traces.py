"""Traces recorded from released implementations, replayed: the recorded timestep and noise go in, the rest must come out."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.distillation.method import Method
from sdist.editors.loading import LoadedMethod
from sdist.edits.request import Request
from sdist.errors import UserError
from sdist.files.images import to_pixels
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.prediction import Text
from sdist.traces.adapt import adapt
from sdist.traces.deviation import Deviation, deviation
from sdist.traces.record import record
from sdist.traces.recorded_run import RecordedRun, read_run, run_of
from sdist.traces.trace import Trace, image_of, names_of, new_trace_folder, read_trace, text_arrays, texts_of, write_trace
from sdist.traces.verify import deviations, replay

from ..conftest import read_json, save_tiny_pipeline

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = ("lusd_eps", "lusd_nomask", "dds_eps", "sds_eps", "cds_eps")
TOLERANCE = 1e-4  # relative to a quantity's largest magnitude


@pytest.fixture(scope="module")
def golden() -> Backbone:
    return load_backbone(str(GOLDEN / "pipeline"), "cpu")


def failing(backbone: Backbone, trace: Trace, forced: bool = False) -> set[str]:
    errors = deviations(replay(backbone, trace, forced), trace)
    return {name for name, d in errors.items() if not d.within(TOLERANCE)}


def beginning(trace: Trace, steps: int = 2) -> Trace:
    """The first accepted steps of a trace."""
    arrays = dict(trace.arrays)
    attempts = int(arrays["accepted"].nonzero()[steps - 1, 0]) + 1 if "accepted" in arrays else steps
    arrays["z_final"] = trace.z[steps - 1 : steps]
    common, per_attempt, per_step = names_of(trace.run.method)
    cut = {name: arrays[name][:attempts] for name in per_attempt} | {name: arrays[name][:steps] for name in per_step}
    return Trace(trace.run, {**{name: arrays[name] for name in common}, **cut})


@pytest.mark.parametrize("name", CASES)
def test_the_released_code_and_ours_agree(golden: Backbone, name: str) -> None:
    trace = read_trace(GOLDEN / name)
    ours = replay(golden, trace)
    assert max(d.max_rel for d in deviations(ours, trace).values()) <= TOLERANCE
    if trace.run.method == "lusd":
        torch.testing.assert_close(ours["threshold"], trace.arrays["threshold"].float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_each_step_by_itself_agrees(golden: Backbone, name: str) -> None:
    assert failing(golden, beginning(read_trace(GOLDEN / name)), forced=True) == set()


def test_pixels_are_those_of_the_release(golden: Backbone) -> None:
    trace = read_trace(GOLDEN / "dds_eps").arrays
    ours = golden.encode(to_pixels([image_of(trace)]))
    assert deviation(ours, trace["z_src"], "z_src").within(TOLERANCE)


def test_deviations() -> None:
    a, b = torch.tensor([1.0, -4.0]), torch.tensor([1.0, -3.0])
    assert deviation(a, b, "x") == Deviation(1.0, 1 / 3)
    assert deviation(b, b, "x").within(0)
    assert deviation(torch.tensor([True, False]), torch.tensor([True, True]), "x").max_abs == 1
    assert not deviation(torch.tensor([torch.nan]), torch.zeros(1), "x").within(1e9)
    assert not deviation(torch.ones(1), torch.zeros(1), "x").within(1e9)
    with pytest.raises(UserError, match=r"x has shape \(2,\), ours is \(1,\)"):
        deviation(a[:1], b, "x")


# --- our own traces ----------------------------------------------------------------------------------------------------


@pytest.fixture
def job(picture: Path) -> Request:
    return Request(picture, "a cat", "a cat wearing a hat")


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("method", ["lusd", "lusd_released", "dds", "dds_object", "sds", "cds"])
def test_what_we_record_we_verify(job: Request, tmp_path: Path, method: str, prediction_type: str) -> None:
    backbone = load_backbone(str(save_tiny_pipeline(tmp_path / "pipeline", prediction_type)), "cpu")
    own = ["scale.threshold=0.02", "filter.max_attempts=6"] if method.startswith("lusd") else []
    settings = load_settings(method, own, model=str(tmp_path / "pipeline"), steps=3)
    write_trace(
        new_trace_folder(tmp_path / "trace"),
        record(LoadedMethod(settings, backbone), LoadedMethod(settings, backbone).prepare(job)),
    )
    trace = read_trace(tmp_path / "trace")
    assert trace.steps == 3
    if own:
        assert not trace.arrays["accepted"].all()
    for forced in (False, True):
        found = deviations(replay(backbone, trace, forced), trace)
        assert max(d.max_rel for d in found.values()) < 1e-6


@pytest.mark.parametrize(
    ("method", "overrides", "masked", "message"),
    [
        ("p2p", [], False, "a trace holds a run of score distillation; this method is another editor"),
        ("dds", ["prompts.null=snow"], False, "neither a mask image nor a null prompt"),
        ("dds", [], True, "neither a mask image nor a null prompt"),
        ("lusd", ["regularizers.attention_mask.maps=both"], False, "or a mask of both branches"),
    ],
)
def test_what_a_trace_cannot_hold(
    job: Request, tiny: Backbone, picture: Path, method: str, overrides: list[str], masked: bool, message: str
) -> None:
    loaded, mask = LoadedMethod(load_settings(method, overrides), tiny), picture.with_name("mask.png")
    Image.new("L", (32, 32), 255).save(mask)
    with pytest.raises(UserError, match=message):
        record(loaded, loaded.prepare(replace(job, mask=mask if masked else None)))


def test_a_recorded_case_means_the_same_method() -> None:
    for name in ("lusd_released", "dds", "sds", "cds_object"):
        method = load_settings(name, steps=7).editor.parts
        run = run_of(method, (32, 48), source_prompt="a", target_prompt="b")
        again = run_of(run.method_for(32, 48), (32, 48), source_prompt="a", target_prompt="b")
        assert again == run


@pytest.mark.parametrize("name", ["sbp", "dds_lusd", "lusd_no_spatial", "lusd_no_annealing"])
def test_a_method_that_the_format_cannot_tell(name: str) -> None:
    method: Method = load_settings(name).editor.parts
    with pytest.raises(UserError, match="a trace"):
        run_of(method, (64, 64), source_prompt="a", target_prompt="b")


@pytest.fixture(scope="module")
def own(tiny: Backbone, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    """Traces of our own, of three steps on the tiny pipeline."""
    path = tmp_path_factory.mktemp("own") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    traces = {}
    for name in ("lusd_released", "dds", "sds", "cds"):
        settings = load_settings(name, ["scale.threshold=0.001"], model=str(tiny_folder), steps=3)
        traces[name] = record(
            LoadedMethod(settings, tiny), LoadedMethod(settings, tiny).prepare(Request(path, "a cat", "a cat wearing a hat"))
        )
    return traces


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("lusd_released", {"threshold": 0.2}, {"accepted"}),
        ("lusd_released", {"regularizer_weight": 0.03}, {"direction"}),
        ("lusd_released", {"attention": "this step"}, {"mask", "direction"}),
        ("lusd_released", {"beta": "k/N"}, {"mask", "direction"}),
        ("lusd_released", {"mask_momentum": 0.5}, {"mask", "direction"}),
        ("lusd_released", {"token_index": [2]}, {"mask", "direction"}),
        ("lusd_released", {"gamma_high": 0.2}, {"direction", "z"}),
        ("lusd_released", {"target_prompt": "a dog"}, {"emb_target"}),
        ("dds", {"guidance_scale": 7.0}, {"grad", "z"}),
        ("sds", {"prediction_type": "v_prediction"}, {"grad", "z"}),
        ("dds", {"learning_rate": 0.11}, {"z"}),
        ("cds", {"w_cut": 2.0}, {"grad_cut"}),
        ("cds", {"temperature": 0.1}, {"grad_cut", "cut_loss"}),
        ("dds", {"vae_scaling_factor": 0.2}, {"z_src"}),
    ],
)
def test_another_setting_is_noticed(
    own: dict[str, Trace], tiny_folder: Path, name: str, change: dict, expected: set[str]
) -> None:
    backbone, trace = load_backbone(str(tiny_folder), "cpu"), own[name]
    assert failing(backbone, trace) == set()
    trace = replace(trace, run=replace(trace.run, **change))
    adapt(backbone, trace.run.prediction_type, trace.run.vae_scaling_factor)
    assert failing(backbone, trace) >= expected


def test_forcing_keeps_an_error_where_it_was_made(tiny: Backbone, own: dict[str, Trace]) -> None:
    """One wrong latent makes all that follows wrong when running free, and one step when forced."""
    trace = own["dds"]
    z = trace.arrays["z_before"].clone()
    z[1] += 0.1
    wrong = replace(trace, arrays={**trace.arrays, "z_before": z})
    off = (replay(tiny, wrong, forced=True)["grad"] - trace.arrays["grad"]).flatten(1).abs().amax(1)
    bound = TOLERANCE * trace.arrays["grad"].abs().max()
    assert (off > bound).tolist() == [False, True, False]
    assert failing(tiny, wrong) == {"z"}


def test_all_parts_of_an_embedded_prompt_are_kept() -> None:
    texts = {
        "null": Text(torch.randn(1, 3, 4)),
        "target": Text(torch.randn(1, 3, 4), torch.randn(1, 5), torch.tensor([[True, True, False]])),
    }
    again = texts_of(text_arrays(texts) | {"z_src": torch.zeros(1)})
    assert again.keys() == texts.keys()
    assert (again["null"].pooled, again["null"].mask) == (None, None)
    for part in ("tokens", "pooled", "mask"):
        assert torch.equal(getattr(again["target"], part), getattr(texts["target"], part))


# --- the command -------------------------------------------------------------------------------------------------------


def verify(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = main(["verify", *map(str, arguments)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_command_finds_the_pipeline_and_prints_json(capsys: pytest.CaptureFixture) -> None:
    code, out, _ = verify(capsys, GOLDEN / "lusd_nomask", "--json")
    data = json.loads(out)
    assert (code, data["ok"], data["case"], data["method"]) == (0, True, "lusd_nomask", "lusd")
    assert {"grad_std", "accepted", "mask", "direction", "z"} <= set(data["deviations"])
    assert set(data["deviations"]["z"]) == {"max_abs", "max_rel"}


def test_the_command_exits_with_1_beyond_the_tolerance(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trace = shutil.copytree(GOLDEN / "sds_eps", tmp_path / "sds_eps")
    shutil.copy(GOLDEN / "image.png", trace)
    arrays = load_file(trace / "trace.safetensors")
    arrays["grad"][1, 0, 0, 0] += 0.01 * arrays["grad"].abs().max()
    save_file(arrays, trace / "trace.safetensors")
    code, out, _ = verify(capsys, trace, "--model", GOLDEN / "pipeline")
    assert code == 1
    assert "grad" in out
    assert "beyond the tolerance" in out
    assert verify(capsys, trace, "--model", GOLDEN / "pipeline", "--tolerance", "0.02")[0] == 0


def test_edit_records_and_verify_reads(picture: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    edit = ["edit", picture, "--source", "a cat", "--target", "a dog", "--method", "dds", "--model", tiny_folder, "--steps", 2]
    folders = ["--output", tmp_path / "out", "--record", tmp_path / "trace"]
    assert main([*map(str, edit), *map(str, folders), "--quiet"]) == 0
    assert verify(capsys, tmp_path / "trace", "--model", tiny_folder, "--record", tmp_path / "again")[0] == 0
    refused = verify(capsys, tmp_path / "trace", "--model", tiny_folder, "--record", tmp_path / "trace")
    assert (refused[0], main([*map(str, edit), *map(str, folders), "--overwrite", "--quiet"])) == (2, 2)
    assert "holds a trace already" in refused[2]
    first, again = (load_file(tmp_path / name / "trace.safetensors") for name in ("trace", "again"))
    assert first.keys() == again.keys()
    torch.testing.assert_close(first, again)
    assert read_json(tmp_path / "trace" / "case.json") == read_json(tmp_path / "again" / "case.json")


def broken(tmp_path: Path, **changes: object) -> Path:
    folder = tmp_path / "case"
    shutil.copytree(GOLDEN / "lusd_nomask", folder)
    shutil.copy(GOLDEN / "image.png", folder)
    case = read_json(folder / "case.json") | changes
    (folder / "case.json").write_text(json.dumps({k: v for k, v in case.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "lsud"}, "unknown method 'lsud'.*did you mean 'lusd'"),
        ({"attention": "sometime"}, "unknown attention"),
        ({"steps": "many"}, "steps"),
        ({"steps": None}, "lacks steps"),
        ({"steps": 1}, "2 steps, of which case.json knows 1"),
        ({"cross_resolution": 17}, "attention of 17 rows"),
        ({"token_index": [99]}, r"token_index \[99\] does not fit 77 tokens"),
        ({"prediction_type": "sample"}, "unknown prediction_type"),
        ({"method": "dds"}, "lacks emb_null, grad"),
        ({"gamma_speed": "fast"}, "gamma_speed"),
        ({"beta": "N/k"}, "beta"),
    ],
)
def test_a_bad_case_is_named(tmp_path: Path, capsys: pytest.CaptureFixture, changes: dict, message: str) -> None:
    code, _, err = verify(capsys, broken(tmp_path, **changes), "--model", GOLDEN / "pipeline")
    assert code == 2
    assert re.search(message, err.splitlines()[-1])


def test_what_a_case_leaves_out_has_the_released_value(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = broken(tmp_path, gamma_low=None, mask_momentum=None, cross_resolution=None, loss_scale=None, prediction_type=None)
    assert verify(capsys, folder, "--model", GOLDEN / "pipeline")[0] == 0
    case = read_json(folder / "case.json") | {"token_index": None}
    (folder / "case.json").write_text(json.dumps(case))
    assert read_run(folder).token_index == []


def test_no_trace_no_pipeline_no_arrays(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "is no trace: it has no case.json" in verify(capsys, tmp_path)[2]
    folder = broken(tmp_path)
    assert "no pipeline in" in verify(capsys, folder)[2]
    (folder / "trace.safetensors").write_bytes(b"\x80pickle")
    assert "trace.safetensors cannot be read" in verify(capsys, folder)[2]
    shutil.copy(GOLDEN / "lusd_nomask" / "trace.safetensors", folder)
    (folder / "image.png").write_bytes(b"no image")
    assert "image.png cannot be read" in verify(capsys, folder)[2]
    (folder / "image.png").unlink()
    assert "trace.safetensors lacks image" in verify(capsys, folder)[2]
    (folder / "case.json").write_text("{")
    assert "case.json cannot be read" in verify(capsys, folder)[2]


def test_every_key_of_the_recorded_cases_is_known() -> None:
    """But for what tells how they were recorded, or what the format fixes."""
    keys = {key for name in CASES for key in read_json(GOLDEN / name / "case.json")}
    assert keys - set(RecordedRun.__dataclass_fields__) == {"attempts", "pipeline_seed"}
    assert all(read_run(GOLDEN / name).steps for name in CASES)
