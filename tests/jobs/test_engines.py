"""Engines: the same files by one process, by several, and by actors of a Ray cluster that die; and nothing that hangs."""

import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from sdist.cli import main
from sdist.config.build import load_settings
from sdist.edits.request import Prepared, Request
from sdist.errors import UserError
from sdist.files.images import load_image
from sdist.jobs.engines.ray_actor import TaskWithFiles, Worker
from sdist.jobs.options import RunOptions
from sdist.jobs.plan import plan_run
from sdist.registry import LOSSES

from ..conftest import read_json
from ..need import missing, need
from ..test_cli import edit, error, run_arguments, write_index
from .test_jobs import assert_same

ROOT = Path(__file__).parent.parent.parent
PICTURES, MISSING, BROKEN, FATAL, ONCE = 10, 7, 5, 4, 8
EVEN = ("--parallel", "2")  # as many rows for the network in every round, as some kernels of a CPU round by that
PROBLEMS = {
    "index.csv line 9: image '7.png' does not exist in IMAGES",
    "index.csv line 7: image IMAGES/5.png cannot be read: it begins as PNG",
}

# DDS, which kills its process while it edits certain pictures: those of FATAL always, those of ONCE a single time
DEADLY = """
import os, signal
from dataclasses import dataclass
from pathlib import Path

from sdist.losses.dds import DDS
from sdist.registry import LOSSES


@LOSSES.register("deadly")
@dataclass(frozen=True)
class Deadly(DDS):
    def gradient(self, p):
        keys = {key.image for key in p.draw.keys}
        once = Path(os.environ.get("ONCE_FILE", ""))
        if os.environ.get("ONCE") in keys and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get("FATAL") in keys:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gradient(p)
"""


@pytest.fixture(scope="module", autouse=True)
def deadly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the yaml of a method with that loss, which all processes find; one thread each, as bits depend on it."""
    folder, threads = tmp_path_factory.mktemp("deadly"), torch.get_num_threads()
    (folder / "deadly_loss.py").write_text(DEADLY)
    info = folder / "deadly_loss-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly_loss\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sdist.loss]\ndeadly = deadly_loss\n")
    (folder / "deadly.yaml").write_text("base: dds\nloss: {name: deadly}\n")
    LOSSES.names()  # the registry is asked anew for the new package, and is what it was at the end
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(LOSSES, "_classes", dict(LOSSES._classes))
        patch.setattr(LOSSES, "_complete", False)
        torch.set_num_threads(1)
        yield folder / "deadly.yaml"
        torch.set_num_threads(threads)
        sys.modules.pop("deadly_loss", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two sizes, one of which is broken, and one is not there."""
    folder = tmp_path_factory.mktemp("engines")
    (folder / "images").mkdir()
    for i in range(PICTURES):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 48 if i == BROKEN else 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    whole = (folder / "images" / f"{BROKEN}.png").read_bytes()
    (folder / "images" / f"{BROKEN}.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images" / f"{MISSING}.png").unlink()
    write_index(folder, [[f"{i}.png", "a cat", "a cat wearing a hat"] for i in range(PICTURES)])
    return folder


Start = Callable[..., tuple[int, Path]]


@pytest.fixture
def start(folder: Path, tiny_folder: Path, tmp_path: Path, deadly: Path) -> Start:
    """Runs the command, and gives its exit code and its results."""

    def started(*more: str, name: str = "out") -> tuple[int, Path]:
        return main(run_arguments(folder, tiny_folder, tmp_path / name, "--method", str(deadly), *EVEN, *more)), tmp_path / name

    return started


@pytest.fixture(scope="module")
def whole(folder: Path, tiny_folder: Path, deadly: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert main(run_arguments(folder, tiny_folder, output, "--method", str(deadly), *EVEN, "--quiet")) == 2
    return output


def key_of(folder: Path, picture: int) -> str:
    """What names the picture in draws."""
    path = folder / "images" / f"{picture}.png"
    return Prepared(Request(path, "a cat", "a dog"), load_image(path), None, (), ()).key


def problems_and_summary(capfd: pytest.CaptureFixture, folder: Path) -> tuple[list[str], str]:
    """The problems that were named, and the summary."""
    printed = capfd.readouterr()
    lines = [line.replace(str(folder / "images"), "IMAGES") for line in printed.err.splitlines()]
    return [line.removeprefix("sdist: error: ") for line in lines if line.startswith("sdist: error: ")], printed.out


def assert_problems(problems: list[str], *more: str) -> None:
    """Each is named once, whoever found it."""
    expected = sorted([*PROBLEMS, *more])
    assert len(problems) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(sorted(problems), expected, strict=True))


# --- devices -----------------------------------------------------------------------------------------------------------


OF_OTHERS = {  # variables of another program's group of processes
    "RANK": "1", "LOCAL_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "7", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "1",
    "LT_DEVICES": "3", "LT_STRATEGY": "ddp", "LT_PRECISION": "16-mixed", "SLURM_NTASKS": "2", "SLURM_PROCID": "1",
}  # fmt: skip


def test_two_processes_make_what_one_makes_and_tell_it_once(
    start: Start, whole: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    for name, value in OF_OTHERS.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    code, output = start("--devices", "2", "--quiet")
    problems, out = problems_and_summary(capfd, folder)
    assert code == 2
    assert_problems(problems)
    assert out.startswith(f"8 of 10 made, 0 already there, 1 failed, 1 refused\n1 failed, see {output / 'errors'}; ")
    assert_same(whole, output)
    assert_same(whole / "errors", output / "errors")
    assert multiprocessing.active_children() == []
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "7"}, "--devices 2: torchrun has started 7 processes; give both the same number"),
        ({"RANK": "1"}, "the variables of torchrun are set, but nothing answers at 127.0.0.1:1"),
        ({"TORCHELASTIC_USE_AGENT_STORE": "True"}, "the variables of torchrun are set, but nothing answers at 127.0.0.1:1"),
    ],
)
def test_what_torchrun_left_behind_hangs_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, capsys, variables: dict[str, str], message: str
) -> None:
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in {**group, "TORCHELASTIC_RUN_ID": "none", **variables}.items():
        monkeypatch.setenv(name, value)
    assert start("--devices", "2")[0] == 2
    assert message in capsys.readouterr().err


def test_a_process_that_dies_ends_the_run_in_one_line_and_the_next_call_goes_on(
    start: Start, whole: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.setenv("ONCE", key_of(folder, ONCE))
    monkeypatch.setenv("ONCE_FILE", str(tmp_path / "once"))
    code, output = start("--devices", "2", "--quiet")
    problems, out = problems_and_summary(capfd, folder)
    assert (code, out) == (2, "")
    assert problems[-1].startswith(
        "a process of --devices ended before its work did (SIGKILL), and the others were stopped; what"
    )
    assert multiprocessing.active_children() == []
    assert not (output / f"{ONCE}_seed0.png").exists()
    assert start("--quiet")[0] == 2
    assert_same(whole, output)


def test_an_error_that_all_processes_find_is_one_line(start: Start, whole: Path, folder: Path, tmp_path: Path, capfd) -> None:
    shutil.copytree(whole, tmp_path / "out")
    assert start("--devices", "2", "--quiet", "--steps", "3")[0] == 2
    problems, out = problems_and_summary(capfd, folder)
    assert (len(problems), out) == (2, "")  # the other is the missing picture
    assert "0_seed0.png was made with different steps" in problems[1]


def test_slurm_and_torchrun_do_not_change_the_trainer(picture: Path, tiny_folder: Path, tmp_path: Path, monkeypatch) -> None:
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "run", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    assert edit(picture, tiny_folder, tmp_path / "out") == 0


# --- machines that see none of the files -------------------------------------------------------------------------------


def test_an_actor_reads_what_it_is_sent(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """An image and a mask of the same name, both gone from the disk when the actor works."""
    files = {name: tmp_path / "in" / name / "1.png" for name in ("images", "masks")}
    for file in files.values():
        file.parent.mkdir(parents=True)
    shutil.copyfile(folder / "images" / "1.png", files["images"])
    Image.new("L", (32, 32), 255).save(files["masks"])
    columns = "img_path,source_prompt,target_prompt,mask\n"
    (tmp_path / "in" / "index.csv").write_text(f"{columns}1.png,a cat,a cat wearing a hat,1.png\n")
    settings = load_settings("dds", model=str(tiny_folder), steps=2, crop="mask")
    options = RunOptions(method="dds", settings=settings, output=tmp_path / "out", input=str(tmp_path / "in"))
    session, plan = plan_run(options, pytest.fail)
    (task,) = plan.todo
    sent = TaskWithFiles(task, tuple(file.read_bytes() for file in task.request.inputs))
    shutil.rmtree(tmp_path / "in")
    outcome = Worker(session).edit([sent], plan.sizes)
    assert (outcome.made, outcome.failed) == (1, {})
    job = read_json(tmp_path / "out" / "1_seed0.json")["job"]
    assert (job["image"], job["mask"]) == (str(files["images"]), str(files["masks"]))


# --- ray ---------------------------------------------------------------------------------------------------------------


def living(folder: Path) -> list[str]:
    """Processes that this one started: their environment names that folder. Python's own helper stays to its end."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                found += [line for line in [(process / "cmdline").read_text()] if "resource_tracker" not in line]
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[ModuleType]:
    """Ray, with a cluster of two CPUs."""
    ray = need("ray")
    try:
        ray.init(num_cpus=2, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # of many classes
        missing(f"Ray cannot start a cluster here: {error}")
    yield ray
    ray.shutdown()


COARSE = ["--workers", "1", "--method", "lusd", "--precision", "fp16", "--set", "scale.threshold=0.000001"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "3"], "--workers 3: Ray's cluster has 2 CPUs"),
        (["--device", "cuda"], "--device cuda: Ray's cluster has no GPU"),
        (["--device", "cuda:0"], "--engine ray chooses the devices; --device must be auto, cuda or cpu, got 'cuda:0'"),
        (COARSE, "precision fp16: SD "),  # which only the actor finds
    ],
)
def test_what_a_cluster_cannot_do_is_one_error(
    cluster: ModuleType, start: Start, folder: Path, capfd, more: list[str], message: str
) -> None:
    assert start("--engine", "ray", "--quiet", *more)[0] == 2
    problems, out = problems_and_summary(capfd, folder)
    assert problems[-1].startswith(message)
    assert len(problems) == 2  # the other is the missing picture
    assert " made, " not in out


def test_actors_that_never_load_end_the_run(cluster: ModuleType, unchecked: None) -> None:
    from sdist.jobs.engines.ray_driver import Chunk, Driver

    class Stillborn:
        def load(self) -> None:
            os._exit(1)

    driver = Driver(None, {}, None, None, lambda: cluster.remote(Stillborn).remote())
    with pytest.raises(UserError, match="3 actors in a row died before they had loaded the model: "):
        driver.run([Chunk([])], 1)
    driver.end()


def test_actors_that_die_cost_no_picture_but_one_that_always_kills(
    cluster: ModuleType, start: Start, whole: Path, folder: Path, deadly: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture,
) -> None:  # fmt: skip
    cluster.shutdown()  # the command starts one of its own
    with monkeypatch.context() as patch:
        patch.setenv("ONCE", key_of(folder, ONCE))
        patch.setenv("ONCE_FILE", str(tmp_path / "once"))
        patch.setenv("FATAL", key_of(folder, FATAL))
        patch.setattr("sdist.jobs.engines.ray_driver.DEATHS", 2)
        code, output = start("--engine", "ray", "--workers", "2", "--quiet")
    problems, out = problems_and_summary(capfd, folder)
    assert code == 2
    assert (tmp_path / "once").exists()
    reason = f"index.csv line {FATAL + 2}: 2 actors in a row died while they edited it; Ray's logs say why"
    assert_problems(problems, reason)
    assert "7 of 10 made, 0 already there, 2 failed, 1 refused" in out
    assert read_json(output / "errors" / f"{FATAL}_seed0.json")["error"] == reason
    broken = f"errors/{BROKEN}_seed0.json"
    assert read_json(output / broken) == read_json(whole / broken)
    for path in whole.glob(f"{FATAL}_*"):
        shutil.copy(path, output)
    assert_same(whole, output)
    until = time.monotonic() + 20
    while living(deadly.parent) and time.monotonic() < until:
        time.sleep(0.2)
    assert living(deadly.parent) == []


# --- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "2"], "--workers belongs to --engine ray; N processes on this machine are --devices N"),
        (["--engine", "ray", "--workers", "0"], "--workers must be at least 1, got 0"),
        (["--engine", "ray", "--devices", "2"], "--devices is for this machine alone; with --engine ray it is --workers N"),
        (["--devices", "3", "--device", "cuda"], "--devices 3: this machine has 2 GPUs"),
        (["--devices", "3", "--device", "cuda:1"], "--device must be auto, cuda or cpu, got 'cuda:1'"),
    ],
)
def test_options_that_do_not_fit(start: Start, monkeypatch: pytest.MonkeyPatch, capsys, more: list[str], message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert start(*more)[0] == 2
    assert message in error(capsys)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there(start: Start, folder: Path, monkeypatch, capfd, address: str) -> None:
    need("ray").shutdown()  # one that an earlier test started would be used
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert start("--engine", "ray", "--quiet")[0] == 2
    problems, _ = problems_and_summary(capfd, folder)
    assert problems[-1].startswith("Ray's cluster cannot be reached: ")


@pytest.mark.parametrize("given", ["0", "-1", "x"])
def test_devices_is_a_number_or_auto(start: Start, capsys, given: str) -> None:
    with pytest.raises(SystemExit):
        start(f"--devices={given}")
    assert f"must be auto or a number from 1, got '{given}'" in error(capsys)


def test_ray_is_an_extra(start: Start, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("sdist.extras.find_spec", lambda name: None)
    assert start("--engine", "ray")[0] == 2
    assert error(capsys).endswith("sdist run --engine ray needs ray: pip install 'sdist[ray]'")
