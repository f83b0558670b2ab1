"""Long runs: kills at any moment, full disks, folders that refuse, failed pictures, shards that share a folder."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdist.cli import main
from sdist.edits.outputs import failed_before, is_whole, output_files, remove_parts, write_result
from sdist.edits.request import Prepared, Request, Result
from sdist.files.images import CARD_KEY
from sdist.files.opening import image_size
from sdist.files.storage import read_ends

from ..forks import Forks, forks
from ..test_cli import error, listed, pixels_of, run_arguments, write_index  # noqa: F401

KILLS = int(os.environ.get("SDIST_KILLS", "20"))
PICTURES = 6


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks(tmp_path_factory.mktemp("forks")) as own:
        yield own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the released format with small pictures of two sizes."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "images").mkdir()
    for i in range(PICTURES):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32 if i % 3 else 48, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    write_index(folder, [[f"{i}.png", "a cat", "a cat wearing a hat"] for i in range(PICTURES)])
    return folder


@pytest.fixture(scope="module")
def whole(started: Forks, folder: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """What a run that nothing disturbs leaves, and its seconds."""
    output, start = tmp_path_factory.mktemp("whole") / "out", time.perf_counter()
    assert started.run(run_arguments(folder, tiny_folder, output)) == 0
    return output, time.perf_counter() - start


def card_of(path: Path) -> dict:
    """A card without what time tells."""
    card = json.loads(path.read_text())
    return {key: value for key, value in card.items() if key not in ("created", "seconds")}


def assert_same(one: Path, other: Path) -> None:
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    for path in one.iterdir():
        if path.suffix == ".json":
            assert card_of(path) == card_of(other / path.name)
        elif path.stem.endswith("_panel"):
            assert path.read_bytes() == (other / path.name).read_bytes()
    mine, theirs = pixels_of(one), pixels_of(other)
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def assert_whole_or_absent(folder: Path) -> int:
    """Whatever is called a picture is one, with its panel and its card; and how many there are."""
    made = [path for path in folder.glob("*.png") if not path.stem.endswith("_panel")]
    for path in made:
        with Image.open(path) as image, Image.open(path.with_name(f"{path.stem}_panel.png")) as panel:
            image.load()
            panel.load()
            assert image.info[CARD_KEY] == path.with_suffix(".json").read_text()
    return len(made)


# --- kills -------------------------------------------------------------------------------------------------------------


def test_kills_at_random_moments_cost_nothing_that_was_made(
    started: Forks, folder: Path, tiny_folder: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    expected, seconds = whole
    moments, kills, rounds, made = random.Random(0), 0, 0, 0
    while kills < KILLS:
        output = tmp_path / f"out{rounds}"
        code = started.stop(started.start(run_arguments(folder, tiny_folder, output)), moments.uniform(0, seconds))
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        before, made = made, assert_whole_or_absent(output)
        assert made >= before
        if code == 0:
            assert_same(expected, output)
            rounds, made = rounds + 1, 0
    assert started.run(run_arguments(folder, tiny_folder, output)) == 0
    assert_same(expected, output)


def result() -> Result:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    return Result(Prepared(Request(Path("a.png"), "a cat", "a dog"), image, None, (), ()), image, None, (), 1, {})


def killed_at(call: int, files: dict[str, Path], card: dict) -> bool:
    """Writes in a process that is killed before that call of fsync or rename; whether there was such a call."""
    process = os.fork()
    if process == 0:
        left = [call]

        def dying(function: Callable) -> Callable:
            def called(*args: object) -> object:
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return function(*args)

            return called

        os.fsync, os.replace = dying(os.fsync), dying(os.replace)
        write_result(files, result(), card)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("older", [False, True])
def test_a_kill_at_any_point_of_writing_leaves_no_half_result(tmp_path: Path, older: bool) -> None:
    call = 0
    while True:
        files = output_files(tmp_path / str(call), "0_seed0")
        files["image"].parent.mkdir()
        if older:
            write_result(files, result(), {"of": "before"})
        if not killed_at(call, files, {"of": "now"}):
            break
        if files["image"].exists():
            card = files["card"].read_text()
            with Image.open(files["image"]) as image:
                image.load()
                assert is_whole(files, card) == (image.info[CARD_KEY] == card)
                assert older or json.loads(image.info[CARD_KEY]) == {"of": "now"} == json.loads(card)
        else:
            assert not older
        remove_parts(files["image"].parent, {"0_seed0"})
        assert {p.name for p in files["image"].parent.iterdir()} <= {path.name for path in files.values()}
        call += 1
    assert call == 9


def test_a_picture_whose_replacement_was_killed_is_made_again(
    started: Forks, folder: Path, tiny_folder: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(whole[0], output)
    files, arguments = output_files(output, "1_seed0"), run_arguments(folder, tiny_folder, output)
    files["card"].write_text(json.dumps(json.loads(files["card"].read_text()) | {"created": "later"}))
    (output / ".1_seed0_panel.png.0123abcd.part").touch()
    assert started.run(arguments) == 0
    assert "1 of 6 made, 5 already there, 0 failed\n" in started.log.read_text()
    assert_same(whole[0], output)


@pytest.mark.parametrize("kept", [slice(0), slice(4), slice(400), slice(-20)])
def test_a_picture_that_is_cut_short_is_made_again(
    started: Forks, folder: Path, tiny_folder: Path, whole: tuple[Path, float], tmp_path: Path, kept: slice
) -> None:  # fmt: skip
    output = tmp_path / "out"
    shutil.copytree(whole[0], output)
    image = output / "1_seed0.png"
    image.write_bytes(image.read_bytes()[kept])
    assert started.run(run_arguments(folder, tiny_folder, output)) == 0
    assert f"{image} does not count: it is empty, cut short," in started.log.read_text()
    assert "1 of 6 made, 5 already there, 0 failed\n" in started.log.read_text()
    assert_same(whole[0], output)


@pytest.mark.parametrize(("size", "last"), [(100, b"the end"), (70000, b"the end")])
def test_the_ends_of_a_file_are_read(tmp_path: Path, size: int, last: bytes) -> None:
    (tmp_path / "x").write_bytes(bytes(size) + last)
    head, end = read_ends(tmp_path / "x", 65536, len(last))
    assert (len(head), end) == (min(size + len(last), 65536), last)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8])
def test_an_interrupt_is_one_line_and_the_run_goes_on_from_there(
    started: Forks, folder: Path, tiny_folder: Path, whole: tuple[Path, float], tmp_path: Path, share: float
) -> None:
    arguments = run_arguments(folder, tiny_folder, tmp_path / "out", "--quiet")
    process = started.start(arguments)
    while not (tmp_path / "out").exists():
        time.sleep(0.01)
    code = started.stop(process, share * whole[1], signal.SIGINT)
    if code:  # it had not ended by then
        assert code == 130
        (line,) = [line for line in started.log.read_text().splitlines() if line.startswith("sdist: ")]
        assert line.startswith(("sdist: stopped", "sdist: interrupted; what was not finished was not saved"))
    assert_whole_or_absent(tmp_path / "out")
    assert not list(tmp_path.glob("out/.*"))
    assert started.run(arguments) == 0
    assert_same(whole[0], tmp_path / "out")


# --- disks -------------------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_grow_is_named_and_the_run_goes_on_from_there(
    started: Forks, folder: Path, tiny_folder: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    arguments = run_arguments(folder, tiny_folder, tmp_path / "out", "--quiet")
    assert started.run(arguments, largest=4500) == 2
    assert started.error().startswith(f"sdist: error: {tmp_path / 'out'}")
    assert started.error().endswith("File too large")
    assert assert_whole_or_absent(tmp_path / "out") < PICTURES
    assert not list(tmp_path.glob("out/.*"))
    assert started.run(arguments) == 0
    assert_same(whole[0], tmp_path / "out")


def refuse(folder: Path, refused: bool) -> None:
    """Makes a folder read-only, for root too, or writable again; skips where that cannot be."""
    if os.geteuid():
        folder.chmod(0o555 if refused else 0o755)
    elif shutil.which("chattr") is None or subprocess.run(["chattr", "+i" if refused else "-i", folder], check=False).returncode:
        pytest.skip("root writes everywhere, and this file system has no immutable folders")


def test_a_folder_that_becomes_read_only(
    started: Forks, folder: Path, tiny_folder: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    arguments = run_arguments(folder, tiny_folder, output, "--parallel", "1", "--quiet", "--steps", "20")
    process = started.start(arguments)
    while not list(output.glob("*.json")):
        time.sleep(0.002)
    refuse(output, True)
    try:
        assert started.wait(process) == 2
        assert "not permitted" in started.error() or "Permission denied" in started.error()
        assert assert_whole_or_absent(output) < PICTURES
        assert started.run(arguments) == 2
        assert f"output folder {output} cannot be written" in started.error()
    finally:
        refuse(output, False)
    assert started.run(arguments) == 0
    assert assert_whole_or_absent(output) == PICTURES


# --- states ------------------------------------------------------------------------------------------------------------


def test_a_picture_that_failed_is_tried_again_only_if_asked(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    good = (listed / "images" / "1.png").read_bytes()
    (listed / "images" / "1.png").write_bytes(good[: len(good) // 2])
    output = tmp_path / "out"
    arguments = run_arguments(listed, tiny_folder, output)
    assert image_size(listed / "images" / "1.png") == (32, 32)
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "index.csv line 3: image" in printed.err
    assert "3 of 4 made, 0 already there, 1 failed\n" in printed.out
    assert f"1 failed, see {output / 'errors'}" in printed.out
    remembered = json.loads((output / "errors" / "1_seed0.json").read_text())
    assert "cannot be read" in remembered["error"]
    assert remembered["target"] == "a cat wearing a hat"
    (listed / "images" / "1.png").write_bytes(good)
    assert main(arguments) == 2
    assert "1 image failed in an earlier call, see" in error(capsys)
    assert main([*arguments, "--retry"]) == 0
    assert "1 of 4 made, 3 already there, 0 failed\n" in capsys.readouterr().out
    assert failed_before(output) == set()
    assert main(arguments) == 0


def test_a_failed_edit_is_remembered_and_its_queue_goes_on(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out", "--set", "optimizer.lr=1e38", "--seeds", "2")
    assert main(arguments) == 2
    assert failed_before(tmp_path / "out") == {f"{i}_seed{s}" for i in range(4) for s in (0, 1)}
    assert "not finite" in json.loads((tmp_path / "out" / "errors" / "3_seed1.json").read_text())["error"]
    capsys.readouterr()
    assert main(arguments) == 2
    assert "8 images failed in an earlier call" in error(capsys)


def test_a_call_makes_no_more_than_its_limit(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    arguments = run_arguments(listed, tiny_folder, tmp_path / "out", "--limit", "3")
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "3 of 4 made, 0 already there, 0 failed\n1 not made yet (--limit); " in printed.out
    assert "6/6" in printed.err  # steps of three pictures, on one bar
    assert main(arguments) == 0
    assert "1 of 4 made, 3 already there" in capsys.readouterr().out
    assert main(run_arguments(listed, tiny_folder, tmp_path / "all")) == 0
    assert_same(tmp_path / "all", tmp_path / "out")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--limit", "0"], "--limit must be at least 1, got 0"),
        (["--shard", "2/2"], "must be I/N with I from 0 to N-1, such as 0/4, got '2/2'"),
        (["--shard", "a/2"], "got 'a/2'"),
    ],
)
def test_bad_arguments(listed: Path, tiny_folder: Path, tmp_path: Path, capsys, more: list[str], message: str) -> None:  # noqa: F811
    try:
        code = main(run_arguments(listed, tiny_folder, tmp_path / "out", *more))
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    assert code == 2
    assert message in error(capsys)


# --- shards ------------------------------------------------------------------------------------------------------------


def test_two_shards_at_once_make_what_one_run_makes(
    started: Forks, folder: Path, tiny_folder: Path, whole: tuple[Path, float], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shards = [started.start(run_arguments(folder, tiny_folder, output, "--shard", f"{i}/2")) for i in range(2)]
    assert [started.wait(process) for process in shards] == [0, 0]
    assert_same(whole[0], output)


def test_a_shard_names_its_own_rows_only_and_leaves_the_files_of_others(
    listed: Path, tiny_folder: Path, tmp_path: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    rows = [["0.png", "a cat", "a dog"], ["none.png", "a", "b"], ["1.png", "a cat", "a dog"], ["2.png"]]
    write_index(listed, rows)
    output = tmp_path / "out"
    output.mkdir()
    living = output / ".3_seed0.png.0123abcd.part"
    living.touch()
    assert main(run_arguments(listed, tiny_folder, output, "--shard", "0/2")) == 0
    assert "2 of 2 made" in capsys.readouterr().out
    assert living.exists()
    assert main(run_arguments(listed, tiny_folder, output, "--shard", "1/2")) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("0 of 2 made, 0 already there, 0 failed, 2 refused\n2 problems, all in ")
    assert [line.split(":")[2].split()[-1] for line in printed.err.splitlines() if "error" in line] == ["3", "5"]


def test_a_sweep_is_shared_too(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    (tmp_path / "own.yaml").write_text("variants: {plain: dds, small: {base: dds, optimizer.lr: 0.001}}")
    arguments = ["sweep", str(tmp_path / "own.yaml"), *run_arguments(listed, tiny_folder, tmp_path / "out")[1:]]
    assert main([*arguments, "--shard", "0/2", "--limit", "3"]) == 0
    assert "3 of 4 made, 0 already there, 0 failed\n1 not made yet (--limit)" in capsys.readouterr().out
    assert main([*arguments, "--shard", "0/2"]) == 0
    assert main([*arguments, "--shard", "1/2"]) == 0
    assert not (tmp_path / "out" / "grid.png").exists()
    capsys.readouterr()
    assert main(arguments) == 0
    assert "0 of 8 made, 8 already there" in capsys.readouterr().out
    assert (tmp_path / "out" / "grid.png").exists()
    assert main([*arguments, "--shard", "0/2", "--clip", "x"]) == 2
    assert "without --shard" in error(capsys)
