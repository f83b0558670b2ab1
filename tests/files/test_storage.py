"""Results in a store: the same as in a folder, whatever the store refuses and whenever the process is killed."""

import errno
import http.server
import json
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from fsspec.registry import known_implementations
from PIL import Image

from sdist.cli import main
from sdist.edits.outputs import (
    error_file,
    failed_before,
    is_whole,
    output_files,
    remove_parts,
    write_error,
    write_result,
)
from sdist.errors import UserError
from sdist.files.images import CARD_KEY, png_bytes
from sdist.files.storage import names, read, storage_path, write

from ..jobs.test_jobs import assert_same, assert_whole_or_absent, result
from ..stores import Files, Objects
from ..test_cli import edit, error, listed, run_arguments  # noqa: F401

for store in (Objects, Files):
    fsspec.register_implementation(store.protocol, store, clobber=True)

STORES = ("objects", "files")


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the stores of a test keep what they are given."""
    (tmp_path / "stores").mkdir()
    monkeypatch.setattr(Objects, "root", tmp_path / "stores")
    monkeypatch.setattr(Objects, "asked", Counter())
    yield tmp_path / "stores"
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def refusing(monkeypatch: pytest.MonkeyPatch, problem: Exception, what: str, after: int = 0) -> None:
    """Lets the store say this to a question of that kind, after so many that it answers."""
    left = [after]

    def refuse(question: str, path: str) -> None:
        if question == what:
            left[0] -= 1
            if left[0] < 0:
                raise problem

    monkeypatch.setattr(Objects, "refuse", staticmethod(refuse))


def copied(url: str, folder: Path) -> Path:
    """A local folder with what is in a store."""
    folder.mkdir()
    for name in names(storage_path(url)) - {"claims"}:  # an empty folder, which the stores of these tests keep
        (folder / name).write_bytes(read(storage_path(url) / name))
    return folder


# --- URLs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["results", "/a/b", "a:b", "file:///a/b%20c", "file://localhost/a", "local:///a"])
def test_a_folder_of_this_machine_is_a_plain_path(text: str) -> None:
    expected = {"file:///a/b%20c": "/a/b c", "file://localhost/a": "/a", "local:///a": "/a"}
    folder = storage_path(text)
    assert isinstance(folder, Path)
    assert str(folder) == expected.get(text, text)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ojects://bucket/x", "unknown protocol 'ojects' in ojects://bucket/x"),
        ("ojects://bucket/x", "did you mean 'objects'?"),
        ("://x", "unknown protocol ''"),
        ("s3://", "s3:// names no folder; a URL is such as s3://bucket/results"),
        ("memory:///", "names no folder"),
        ("file://results", "names no folder of this machine"),
        ("http://[::1/x", "Invalid IPv6 URL"),
        ("memory://x::memory://y", "name the store itself"),
        ("simplecache::memory://x", "name the store itself"),
        ("data://x", "cannot be used"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(url: str, message: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--input", "x", "--output", url])
    assert stopped.value.code == 2
    assert message in error(capsys)


def test_a_missing_driver_is_named(monkeypatch) -> None:
    monkeypatch.setitem(known_implementations, "s9", {"class": "s9fs.S9", "err": "Install s9fs to access S9"})
    with pytest.raises(UserError, match="s9://bucket/x cannot be used: Install s9fs to access S9"):
        storage_path("s9://bucket/x")


def test_a_missing_universal_pathlib_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "upath", None)
    with pytest.raises(UserError, match=r"memory://x needs universal-pathlib: pip install 'sdist\[remote\]'"):
        storage_path("memory://x")


def test_a_server_that_takes_no_files(listed: Path, tiny_folder: Path, capsys) -> None:  # noqa: F811
    server = http.server.HTTPServer(("localhost", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://localhost:{server.server_port}/results"
    try:
        assert main(run_arguments(listed, tiny_folder, url)) == 2
    finally:
        server.shutdown()
        server.server_close()
    assert f"output folder {url} cannot be written: 501" in error(capsys)


def test_missing_credentials_are_told_with_where_to_set_them(
    listed: Path, tiny_folder: Path, monkeypatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    class NoCredentialsError(Exception):
        """A driver's own, as botocore's is."""

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "s3", Objects)
    refusing(monkeypatch, NoCredentialsError("Unable to locate credentials"), "put")
    assert main(run_arguments(listed, tiny_folder, "s3://bucket/results")) == 2
    line = error(capsys)
    assert "output folder s3://bucket/results cannot be written: Unable to locate credentials; the account is taken from" in line
    assert "AWS_ACCESS_KEY_ID" in line


# --- the same as in a folder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [*STORES, "memory"])
def test_a_run_leaves_in_a_store_what_it_leaves_in_a_folder(
    listed: Path, tiny_folder: Path, tmp_path: Path, capsys, protocol: str  # noqa: F811
) -> None:  # fmt: skip
    url = f"{protocol}://bucket/some results"
    assert main(run_arguments(listed, tiny_folder, tmp_path / "local")) == 0
    assert main(run_arguments(listed, tiny_folder, url, "--limit", "3")) == 0
    assert "3 of 4 made, 0 already there, 0 failed\n" in capsys.readouterr().out
    assert main(run_arguments(listed, tiny_folder, url)) == 0
    assert "1 of 4 made, 3 already there, 0 failed\n" in capsys.readouterr().out
    assert_same(tmp_path / "local", copied(url, tmp_path / "copied"))
    assert main(run_arguments(listed, tiny_folder, url)) == 0
    assert "0 of 4 made, 4 already there" in capsys.readouterr().out
    assert main(run_arguments(listed, tiny_folder, url, "--method", "dds")) == 2
    assert f"{url}/0_seed0.png was made by method lusd, this call is dds" in error(capsys)


def test_an_edit_in_a_store(picture: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:
    assert edit(picture, tiny_folder, "objects://bucket", "--seeds", "2") == 0
    assert "objects://bucket/picture_lusd_a-cat-wearing-a-hat_seed1.png\n" in capsys.readouterr().out
    assert edit(picture, tiny_folder, tmp_path / "local", "--seeds", "2") == 0
    assert_same(tmp_path / "local", copied("objects://bucket", tmp_path / "copied"))
    capsys.readouterr()
    assert edit(picture, tiny_folder, "objects://bucket") == 0
    assert "objects://bucket/picture_lusd_a-cat-wearing-a-hat_seed0.png\n" in capsys.readouterr().out
    assert edit(picture, tiny_folder, "objects://bucket", "--overwrite") == 0


def test_a_url_of_this_machine_is_a_folder(picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    assert edit(picture, tiny_folder, f"file://{tmp_path}/out") == 0
    assert (tmp_path / "out" / "picture_lusd_a-cat-wearing-a-hat_seed0.png").exists()


def test_failed_pictures_are_remembered_and_forgotten_in_a_store(
    listed: Path, tiny_folder: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    good = (listed / "images" / "1.png").read_bytes()
    (listed / "images" / "1.png").write_bytes(good[: len(good) // 2])
    arguments = run_arguments(listed, tiny_folder, "files://bucket/out")
    assert main(arguments) == 2
    assert "1 failed, see files://bucket/out/errors" in capsys.readouterr().out
    assert failed_before(storage_path("files://bucket/out")) == {"1_seed0"}
    (listed / "images" / "1.png").write_bytes(good)
    assert main(arguments) == 2
    assert "1 image failed in an earlier call, see files://bucket/out/errors" in error(capsys)
    assert main([*arguments, "--retry"]) == 0
    assert failed_before(storage_path("files://bucket/out")) == set()


def test_what_needs_a_local_folder_says_so(listed: Path, tiny_folder: Path, tmp_path: Path, capsys) -> None:  # noqa: F811
    assert main(run_arguments(listed, tiny_folder, "objects://bucket/out", "--log", "csv")) == 2
    assert "--log csv needs a local --output, got objects://bucket/out" in error(capsys)
    (tmp_path / "own.yaml").write_text("variants: {plain: dds}")
    more = run_arguments(listed, tiny_folder, "objects://bucket/out")[1:]
    assert main(["sweep", str(tmp_path / "own.yaml"), *more]) == 2
    assert "sdist sweep needs a local --output, got objects://bucket/out" in error(capsys)
    assert not Objects.asked


# --- stores that refuse, processes that are killed ---------------------------------------------------------------------

PROBLEMS = {
    "denied": (PermissionError("Access Denied"), "Access Denied"),
    "full": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    "gone": (ConnectionResetError(), "ConnectionResetError"),
    "of the driver": (RuntimeError("503 Slow Down"), "503 Slow Down"),
}


@contextmanager
def at_once(most: int) -> Iterator[Callable[..., None]]:
    """In place of `behind`: each result is written before the next image begins, so that what is refused is known."""
    yield lambda work, *arguments: work(*arguments)


@pytest.mark.parametrize(
    ("protocol", "what", "problem"),
    [
        *(("objects", "put", problem) for problem in PROBLEMS),
        *(("files", what, "denied") for what in ("put", "put the rest", "mv")),
    ],
)
def test_a_store_that_refuses_ends_a_run_with_one_line_and_the_next_call_goes_on(
    disk: Path, listed: Path, tiny_folder: Path, monkeypatch, capsys, protocol: str, what: str, problem: str  # noqa: F811
) -> None:  # fmt: skip
    raised, message = PROBLEMS[problem]
    arguments = run_arguments(listed, tiny_folder, f"{protocol}://bucket/out", "--batch", "1")
    with monkeypatch.context() as patch:
        patch.setattr("sdist.jobs.session.behind", at_once)
        refusing(patch, raised, what, after=5)  # the first picture and some of the second
        assert main(arguments) == 2
        line = error(capsys)
        assert re.match(rf"sdist: error: {protocol}://bucket/out/(claims/)?1_seed0", line)
        assert line.endswith(message)
    assert assert_whole_or_absent(disk / "bucket" / "out") == 1
    assert not list((disk / "bucket" / "out").glob(".*"))
    assert main(arguments) == 0
    assert "3 of 4 made, 1 already there" in capsys.readouterr().out
    assert assert_whole_or_absent(disk / "bucket" / "out") == 4


def test_a_store_that_refuses_while_others_are_made_ends_the_run_too(
    disk: Path, listed: Path, tiny_folder: Path, monkeypatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    arguments = run_arguments(listed, tiny_folder, "objects://bucket/out", "--batch", "1")
    with monkeypatch.context() as patch:
        refusing(patch, PermissionError("Access Denied"), "put", after=5)  # the next ones are claimed meanwhile
        assert main(arguments) == 2
        assert error(capsys).endswith("Access Denied")
    there = assert_whole_or_absent(disk / "bucket" / "out")
    assert not list((disk / "bucket" / "out").glob(".*"))
    assert main(arguments) == 0
    assert f"{4 - there} of 4 made, {there} already there" in capsys.readouterr().out
    assert assert_whole_or_absent(disk / "bucket" / "out") == 4


@pytest.mark.parametrize("what", ["put", "rm"])
def test_a_store_that_cannot_be_written_is_known_before_the_first_edit(
    listed: Path, tiny_folder: Path, monkeypatch, capsys, what: str  # noqa: F811
) -> None:  # fmt: skip
    refusing(monkeypatch, PermissionError("Access Denied"), what)
    assert main(run_arguments(listed, tiny_folder, "objects://bucket/out")) == 2
    assert error(capsys).endswith("output folder objects://bucket/out cannot be written: Access Denied")
    assert Objects.asked["put"] == 1


def test_a_store_that_cannot_be_read_is_not_taken_for_one_without_cards(
    listed: Path, tiny_folder: Path, monkeypatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    arguments = run_arguments(listed, tiny_folder, "objects://bucket/out")
    assert main(arguments) == 0
    for answered in (0, 1, 5):  # at a card, and at a picture
        with monkeypatch.context() as patch:
            patch.setattr("sdist.files.storage.READERS", 1)
            refusing(patch, TimeoutError("timed out"), "get", after=answered)
            assert main(arguments) == 2
            assert error(capsys).endswith(f"/{answered // 2}_seed0.{'png' if answered % 2 else 'json'}: timed out")
    with monkeypatch.context() as patch:
        refusing(patch, PermissionError("not for you"), "ls")
        assert main(arguments) == 2
        assert error(capsys).endswith("not for you")
    Objects.refuse("ls", "")
    (Objects.root / "bucket" / "out" / "2_seed0.json").unlink()
    assert main(arguments) == 2
    assert "2_seed0.png exists, and no run card says" in error(capsys)


def killed_at(question: int, files: dict[str, Path], card: dict) -> bool:
    """Writes in a process that is killed before the store answers that question; whether it was asked."""
    process = os.fork()
    if process == 0:
        left = [question]

        def refuse(what: str, path: str) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

        Objects.refuse = staticmethod(refuse)
        write_result(files, result(), card)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("protocol", "questions"), [("objects", 3), ("files", 9)])
def test_a_kill_at_any_point_leaves_no_half_result(disk: Path, older: bool, protocol: str, questions: int) -> None:
    own = disk / "bucket"
    for question in range(questions + 1):
        folder = storage_path(f"{protocol}://bucket")
        files = output_files(folder, "0_seed0")
        own.mkdir(exist_ok=True)
        for left in own.iterdir():
            left.unlink()
        if older:
            write_result(files, result(), {"of": "before"})
        assert killed_at(question, files, {"of": "now"}) == (question < questions)
        assert files["image"].exists() == (older or question == questions)
        if files["image"].exists():
            card = (own / "0_seed0.json").read_text()
            with Image.open(own / "0_seed0.png") as image:
                image.load()
                assert is_whole(files, card) == (image.info[CARD_KEY] == card)
        remove_parts(folder, {"0_seed0"})
        assert {path.name for path in own.iterdir()} <= {path.name for path in files.values()}


def test_a_picture_in_a_store_whose_replacement_was_killed_is_made_again(
    disk: Path, listed: Path, tiny_folder: Path, tmp_path: Path, capsys  # noqa: F811
) -> None:  # fmt: skip
    arguments = run_arguments(listed, tiny_folder, "files://bucket/out")
    assert main(arguments) == 0
    card = disk / "bucket" / "out" / "1_seed0.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | {"created": "later"}))
    part = card.with_name(".1_seed0_panel.png.0123abcd.part")
    part.touch()
    capsys.readouterr()
    assert main(arguments) == 0
    assert "1 of 4 made, 3 already there, 0 failed\n" in capsys.readouterr().out
    assert not part.exists()
    assert main(run_arguments(listed, tiny_folder, tmp_path / "local")) == 0
    with Image.open(card.with_suffix(".png")) as image:
        assert image.info[CARD_KEY] == card.read_text()


# --- questions ---------------------------------------------------------------------------------------------------------


def test_a_plan_asks_a_store_twice_a_picture_and_not_one_after_the_other(
    disk: Path, picture: Path, tiny_folder: Path, listed: Path, monkeypatch, capsys  # noqa: F811
) -> None:  # fmt: skip
    (listed / "index.csv").write_text("img_path,source_prompt,target_prompt\n1.png,a cat,a cat wearing a hat\n")
    arguments = run_arguments(listed, tiny_folder, "objects://bucket/out")
    assert main(arguments) == 0
    made = output_files(disk / "bucket" / "out", "1_seed0")
    card = json.loads(made["card"].read_text())
    for seed in range(1, 40):
        text = json.dumps(card | {"job": card["job"] | {"seed": seed}})
        files = output_files(disk / "bucket" / "out", f"1_seed{seed}")
        files["card"].write_text(text)
        files["image"].write_bytes(png_bytes(Image.new("RGB", (8, 8)), text))
    monkeypatch.setattr(Objects, "delay", 0.02)
    monkeypatch.setattr(Objects, "asked", asked := Counter())
    monkeypatch.setattr(Objects, "busiest", 0)
    capsys.readouterr()
    assert main([*arguments, "--seeds", "40"]) == 0
    assert "0 of 40 made, 40 already there" in capsys.readouterr().out
    assert asked["get"] == 80
    assert sum(asked.values()) - asked["get"] < 20
    assert Objects.busiest > 4


def test_names_are_none_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for folder in (
        tmp_path / "no",
        storage_path("objects://bucket/no"),
        storage_path("files://bucket/no"),
        storage_path("memory://bucket/no"),
    ):
        assert names(folder) == set()
        assert failed_before(folder) == set()


def test_an_error_makes_its_folder(tmp_path: Path) -> None:
    for folder in (
        tmp_path,
        storage_path("objects://bucket/out"),
        storage_path("files://bucket/out"),
        storage_path("memory://bucket/out"),
    ):
        write_error(folder, "0_seed0", "no", result().prepared.request)
        assert json.loads(read(error_file(folder, "0_seed0")))["error"] == "no"
        assert names(folder) >= {"errors"}


def test_reading_and_writing(tmp_path: Path) -> None:
    for folder in (tmp_path, storage_path("objects://bucket"), storage_path("memory://bucket")):
        write(folder / "a", b"first")
        write(folder / "a", b"second")
        assert (read(folder / "a"), read(folder / "a", 3), read(folder / "a", 99)) == (b"second", b"sec", b"second")
        with pytest.raises(FileNotFoundError):
            read(folder / "b")
