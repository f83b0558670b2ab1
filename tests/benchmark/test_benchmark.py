"""The benchmark's reference loop makes the same edits as ours, and `sdist bench` says what it should."""

import json

import pytest
import torch

from sdist.benchmark import plain_loop as reference
from sdist.benchmark.measure import Timing, report
from sdist.cli import main
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone

from ..conftest import tiny_edit
from ..distillation.test_distiller import IDENTITIES, attempts_of, distill, lusd


def test_the_plain_loop_and_the_queue_take_the_same_draws_to_the_same_end(tiny: Backbone, tiny_folder) -> None:
    theirs, method = load_backbone(str(tiny_folder), "cpu"), lusd(threshold=0.02)
    reference.explicit_attention(theirs)
    ours = distill(tiny, method, [0, 1, 2])
    with torch.no_grad():
        for i in range(3):
            run = reference.edit(theirs, method, tiny_edit(tiny, 8).narrow(torch.tensor([i])), IDENTITIES[i])
            assert tuple(run.attempts) == attempts_of(ours, i)
            assert run.evaluations == sum(run.attempts)
            torch.testing.assert_close(run.latents[0], ours.latents[i].detach(), rtol=0, atol=1e-4)
    assert max(max(attempts_of(ours, i)) for i in range(3)) > 1


def test_a_report_compares_passes_of_the_same_turn() -> None:
    def passes(seconds: tuple[float, ...], rows: int, attempts: tuple = ((1, 3),)) -> list[Timing]:
        return [Timing(s, 0.9 * s, rows, 4, attempts) for s in seconds]

    timed = {"reference": passes((4.0, 8.0), 8), "single": passes((2.0, 2.0), 8), "queue": passes((1.0, 4.0), 10)}
    figures = report(timed, (20.0, 10.0), {"reference": 300, "single": 200, "queue": 100}, edits=1)
    assert figures["throughput_ratio"] == {"min": 2.0, "median": 3.0, "max": 4.0}
    assert figures["latency_ratio"] == {"min": 2.0, "median": 3.0, "max": 4.0}
    assert figures["overhead_share"] == pytest.approx(0.1)
    assert figures["peak_memory_ratio"] == pytest.approx(1 / 3)
    assert (figures["draws_per_step"], figures["occupancy"], figures["agree"]) == (2.0, 0.8, True)
    assert (figures["bare_rows_per_second"], figures["bare_ratio"]) == (15.0, {"min": 0.25, "median": 0.375, "max": 0.5})
    timed["queue"] = passes((1.0, 4.0), 10, ((2, 2),))
    assert report(timed, (1.0, 1.0), {"reference": 3, "single": 2, "queue": 1}, edits=1)["agree"] is False


def test_bench_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--edits", "2", "--repetitions", "1", "--steps", "2", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["agree"] is True
    assert set(figures["throughput_ratio"]) == {"min", "median", "max"}
    assert 0 < figures["overhead_share"] < 1
    assert figures["bare_rows_per_second"] > 0
    for rates in figures["network_rows_per_second"].values():
        assert list(rates) == ["2 rows", "8 rows", "16 rows"]
        assert min(rates.values()) > 0
    assert {"none", "openvino"} == set(figures["network_rows_per_second"])
    assert figures["evaluations_per_image"]["reference"] == figures["evaluations_per_image"]["single"] >= 2
    assert min(figures["peak_memory_bytes"].values()) > 1e8


@pytest.mark.parametrize("change", ["loss=dds", "filter=null", "regularizers.source_pull=null", "normalizer=null"])
def test_bench_refuses_what_the_plain_loop_does_not_know(change: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--set", change]) == 2
    assert "the benchmark compares LUSD as the paper describes it" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_map_of_flat_attention_is_a_number_in_every_format(tiny_folder, dtype: torch.dtype) -> None:
    """On a GPU in half precision, with random weights, it was nan, and so was everything after it."""
    backbone = load_backbone(str(tiny_folder), "cpu")
    reference.explicit_attention(backbone)
    for name, processor in backbone.denoiser.attn_processors.items():
        queries = 4 if ".2." in name or "mid" in name else 16
        keys = 24 if "attn2" in name else queries
        processor.probabilities = torch.full((4, queries, keys), 1 / keys, dtype=dtype)
    focus = torch.zeros(1, 24)
    focus[0, 2] = 1
    assert reference.dense_map(backbone, 1, 1, focus, (8, 8)).isfinite().all()
