"""Traces of flow editors: a recorded run of the release, and runs that plain loops record here, replayed by sdist verify."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdist.cli import main
from sdist.models.base import Backbone
from sdist.models.loading import load_backbone
from sdist.traces.flow_editors import compare
from sdist.traces.kinds import Case
from sdist.traces.trace import text_arrays

from ..models.test_stable_diffusion_3 import save_tiny_sd3

GOLDEN = Path(__file__).parent.parent / "golden"
SOURCE, OTHER, TOTAL, STEPS = "a cat", "a cat wearing a hat", 5, 4


def test_the_release_of_flowedit_and_ours_agree() -> None:
    """FLUX, two noises per step, the last two steps plain sampling."""
    folder = GOLDEN / "flowedit_flux_nmin"
    found = compare(Case(folder, json.loads((folder / "case.json").read_text())))
    assert {"z", "x_before", "v_sampling", "z_src", "emb_target"} <= set(found)
    assert max(d.max_rel for d in found.values()) <= 1e-4


# --- plain loops --------------------------------------------------------------------------------------------------------


class Loop:
    """A run on a tiny Stable Diffusion 3 in the releases' own words; keeps what their traces hold."""

    def __init__(self, model: Backbone) -> None:
        self.model, self.kept = model, dict[str, list[Tensor]]()
        self.generator = torch.Generator().manual_seed(7)
        scheduler = model.scheduler
        scheduler.set_timesteps(TOTAL)
        self.sigmas = scheduler.sigmas.tolist()[TOTAL - STEPS :]
        prompts = {"source": SOURCE, "target": OTHER, "null": ""}
        self.text = {name: model.embed([prompt]) for name, prompt in prompts.items()}
        self.image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
        pixels = self.image.permute(2, 0, 1)[None] / 127.5 - 1
        self.x = model.encode(pixels)

    def noise(self) -> Tensor:
        return torch.randn(self.x.shape, generator=self.generator)

    def velocity(self, z: Tensor, prompt: str, s: float) -> Tensor:
        text = self.text[prompt]
        level = torch.tensor([1000.0 * s])
        return self.model.denoiser(z, text.tokens, text.pooled, level, return_dict=False)[0].detach()

    def guided(self, z: Tensor, prompt: str, s: float, scale: float, null: str = "null") -> Tensor:
        plain = self.velocity(z, null, s)
        return plain + scale * (self.velocity(z, prompt, s) - plain)

    def keep(self, **values: Tensor | float) -> None:
        for name, value in values.items():
            self.kept.setdefault(name, []).append(value if torch.is_tensor(value) else torch.tensor([value]))

    def save(self, folder: Path, z: Tensor, case: dict) -> None:
        folder.mkdir()
        (folder / "case.json").write_text(json.dumps(case | {"model": "pipeline"}))
        shutil.copytree(self.model.source, folder / "pipeline")
        arrays = {name: torch.cat(rows).contiguous() for name, rows in self.kept.items()}
        texts = {name: self.text[name] for name in ("source", "target", "null")}
        save_file(
            arrays | text_arrays(texts) | {"image": self.image, "z_src": self.x, "z_final": z}, folder / "trace.safetensors"
        )


def flowedit(loop: Loop, folder: Path) -> None:
    z = loop.x
    for s, after in zip(loop.sigmas, loop.sigmas[1:], strict=False):
        deltas, noises = [], []
        for _ in range(2):
            e = loop.noise()
            x_s = (1 - s) * loop.x + s * e
            source, target = loop.guided(x_s, "source", s, 2.5), loop.guided(z + x_s - loop.x, "target", s, 6.0)
            deltas.append(target - source)
            noises.append(e)
        loop.keep(z_before=z, sigma=s, noise=torch.stack(noises, 1))
        z = z + (after - s) * torch.stack(deltas).mean(0)
    case = {"trace": "flowedit", "source_guidance": 2.5, "target_guidance": 6.0, "n_avg": 2, "n_min": 0, "steps": TOTAL}
    loop.save(folder, z, case | {"source_prompt": SOURCE, "target_prompt": OTHER})


def flowalign(loop: Loop, folder: Path) -> None:
    z = loop.x
    for s, after in zip(loop.sigmas, loop.sigmas[1:], strict=False):
        e = loop.noise()
        x_s = (1 - s) * loop.x + s * e
        q = x_s + z - loop.x
        v = loop.guided(q, "target", s, 4.0, null="source")
        source = loop.velocity(x_s, "source", s)
        loop.keep(z_before=z, sigma=s, noise=e)
        z = z + (after - s) * (v - source) + 0.02 * ((x_s - s * source) - (q - s * v))
    case = {"trace": "flowalign", "guidance_scale": 4.0, "source_pull": 0.02, "steps": STEPS}
    loop.save(folder, z, case | {"source_prompt": SOURCE, "target_prompt": OTHER})


def dvrf(loop: Loop, folder: Path, optimizer: str | None = None) -> None:
    z = torch.nn.Parameter(loop.x.clone())
    steps = getattr(torch.optim, optimizer or "SGD")([z], lr=0.05)
    for k, s in enumerate(loop.sigmas[:-1]):
        e, eta = loop.noise(), 0.8 * (k + TOTAL - STEPS) / TOTAL
        x_s = (1 - s) * loop.x + s * e
        before = z.detach().clone()
        z_s = (1 - s) * before + s * e + eta * s * (before - loop.x)
        delta = loop.guided(z_s, "target", s, 6.0) - loop.guided(x_s, "source", s, 2.5)
        z.grad = delta + (1 - eta) * (before - loop.x)
        loop.keep(z_before=before, sigma=s, noise=e, grad=z.grad, eta=eta)
        steps.step()
    z, named = z.detach(), {} if optimizer is None else {"optimizer": optimizer}
    case = {"trace": "dvrf", "source_guidance": 2.5, "target_guidance": 6.0, "eta": 0.8, "lr": 0.05, "steps": TOTAL}
    loop.save(folder, z, case | named | {"source_prompt": SOURCE, "target_prompt": OTHER})


def rfds(loop: Loop, folder: Path, reverse: bool = False) -> None:
    z = torch.nn.Parameter(loop.x.clone())
    optimizer = torch.optim.AdamW([z], lr=0.03, weight_decay=0)
    for s in loop.sigmas[:-1]:
        e, u = loop.noise(), 0.3 - s
        loop.keep(z_before=z.detach().clone(), sigma=s, noise=e, **({} if reverse else {"u": u}))
        current = e
        if reverse:
            first = loop.velocity((1 - s) * z.detach() + s * e, "target", s)
            current = e + (1 - s) * (first + z.detach() - e)
            loop.keep(v_first=first)
        v = loop.guided((1 - s) * z.detach() + s * current, "target", s, 9.0)
        weight = 1.0 if reverse else torch.sigmoid(torch.tensor(u)).item()
        optimizer.zero_grad()
        loss = weight * ((current - z - v) ** 2).mean()
        loss.backward()
        loop.keep(grad=z.grad.clone(), loss=loss.detach()[None])
        optimizer.step()
    case = {"trace": "rfds_rev" if reverse else "rfds", "guidance_scale": 9.0, "optimizer": "AdamW", "learning_rate": 0.03}
    loop.save(folder, z.detach(), case | {"target_prompt": OTHER, "steps": STEPS})


def rfds_rev(loop: Loop, folder: Path) -> None:
    rfds(loop, folder, reverse=True)


def dvrf_by_adam(loop: Loop, folder: Path) -> None:
    dvrf(loop, folder, "Adam")


LOOPS: list[Callable[[Loop, Path], None]] = [flowedit, flowalign, dvrf, dvrf_by_adam, rfds, rfds_rev]


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(str(save_tiny_sd3(tmp_path_factory.mktemp("sd3"), qk_norm="rms_norm")), "cpu")


@pytest.mark.parametrize("record", LOOPS)
def test_a_run_in_the_releases_own_words_is_replayed(
    sd3: Backbone, record: Callable[[Loop, Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "trace"
    record(Loop(sd3), folder)
    assert main(["verify", str(folder), "--json"]) == 0, capsys.readouterr().out
    shown = json.loads(capsys.readouterr().out)
    assert shown["ok"]
    assert {"z", "z_src", "emb_target"} <= set(shown["deviations"])
    assert main(["verify", str(folder), "--teacher-forced"]) == 0


@pytest.mark.parametrize(
    ("key", "value"), [("source_guidance", 2.0), ("target_guidance", 7.0), ("n_avg", 1)], ids=["source", "target", "noises"]
)
def test_other_constants_do_not_pass(sd3: Backbone, tmp_path: Path, key: str, value: float) -> None:
    folder = tmp_path / "trace"
    flowedit(Loop(sd3), folder)
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(case | {key: value}))
    assert main(["verify", str(folder)]) == 1


def test_what_a_trace_lacks_or_does_not_fit_is_one_line(
    sd3: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "trace"
    flowedit(Loop(sd3), folder)
    case, arrays = json.loads((folder / "case.json").read_text()), load_file(folder / "trace.safetensors")

    def error(*options: str) -> str:
        assert main(["verify", str(folder), *options]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert "--record writes runs of score distillation; " in error("--record", str(tmp_path / "ours"))
    assert "the trace is of a flow model" in error("--model", str(GOLDEN / "pipeline"))
    (folder / "case.json").write_text(json.dumps({**case, "trace": "flowedi"}))
    assert "unknown trace 'flowedi'" in error()
    assert "did you mean 'flowedit'?" in error()
    (folder / "case.json").write_text(json.dumps({k: v for k, v in case.items() if k != "source_guidance"}))
    assert "case.json lacks source_guidance" in error()
    (folder / "case.json").write_text(json.dumps({**case, "trace": "irfds"}))
    assert "unknown trace 'irfds'" in error()
    (folder / "case.json").write_text(json.dumps(case))
    del arrays["noise"]
    save_file(arrays, folder / "trace.safetensors")
    assert "trace.safetensors lacks noise" in error()


def test_schedules_at_random_are_refused(sd3: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "trace"
    dvrf(Loop(sd3), folder)
    case = json.loads((folder / "case.json").read_text())
    (folder / "case.json").write_text(json.dumps(case | {"schedule": "random"}))
    assert main(["verify", str(folder)]) == 2
    assert "only descending timesteps are replayed" in capsys.readouterr().err
