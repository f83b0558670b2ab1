"""What Python code gives, of wrong types: one line that names the argument, what was given, and what is taken."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

import sdist
from sdist.errors.arguments import checked, matches, shown, taken

METHOD: dict[str, Any] = {"method": "dds", "settings": {"steps": 2}}


@pytest.fixture(autouse=True)
def _unchecked(unchecked: None) -> None:
    """The annotations are those of the code under test."""


EDIT = {
    "no source": ({"source": None}, "source must be text, got None"),
    "a number as target": ({"target": 3}, r"target must be text, got 3 \(int\)"),
    "a number as words": ({"words": 5}, r"words must be text or a list \(each text\), got 5"),
    "words of numbers": ({"words": [1]}, "words must be text or a list"),
    "bytes as words": ({"words": b"cat"}, "words must be text or a list"),
    "a number as image": ({"image": 3}, "image cannot be given as int; give a path"),
    "a list as image": ({"image": [1, 2]}, "image cannot be given as list; give .*one at a time"),
    "no image": ({"image": None}, "image cannot be given as NoneType"),
    "an ellipsis as mask": ({"mask": ...}, "mask cannot be given as ellipsis"),
    "a tensor as mask": ({"mask": torch.ones(4, 4)}, "mask cannot be given as torch.Tensor"),
    "a number as method": ({"method": 3}, r"method must be text or a path or None, got 3"),
    "a class as model": ({"model": int}, "model is a name, hub id or folder, got type"),
    "text as seed": ({"seed": "2"}, r"seed must be a whole number or None, got '2' \(str\)"),
    "a truth value as seed": ({"seed": True}, "seed must be a whole number"),
    "half a step": ({"steps": 2.5}, "steps must be a whole number"),
    "a size of two numbers": ({"size": (32, 32)}, r"size must be text or None, got \(32, 32\) \(tuple\)"),
    "settings that are a number": ({"settings": 5}, "settings is a mapping or a list"),
    "settings of numbers": ({"settings": [1]}, "settings is a mapping or a list"),
    "settings named by numbers": ({"settings": {1: 2}}, "a setting is named by text such as .optimizer.lr., got 1"),
    "no function": ({"on_step": 5}, "on_step must be a function or None, got 5"),
    "a list as instruction": ({"instruction": ["a"]}, "instruction must be text"),
    "an unknown name": ({"sauce": "a"}, "unknown argument 'sauce' in sdist.edit.*did you mean 'source'"),
    "a device that is a number": ({"device": 0}, "device must be text or None, got 0"),
}


@pytest.mark.parametrize("name", EDIT)
def test_arguments_of_edit(name: str, picture: Path, tiny_folder: Path) -> None:
    given, message = EDIT[name]
    with pytest.raises(sdist.UserError, match=message):
        sdist.edit(**{"image": picture, "source": "a cat", "target": "a dog", "model": tiny_folder, **METHOD, **given})


REQUEST = {
    "no source": (("a.png", None, "a dog"), {}, "source must be text, got None"),
    "a number as target": (("a.png", "a cat", 3), {}, "target must be text, got 3"),
    "a number as image": ((3, "a cat", "a dog"), {}, "image must be a path, got 3"),
    "no image": ((None, "a cat", "a dog"), {}, "image must be a path, got None"),
    "text as seed": (("a.png", "a cat", "a dog"), {"seed": "2"}, "seed must be a whole number, got '2'"),
    "words of numbers": (("a.png", "a cat", "a dog"), {"words": (1,)}, "words must be a list"),
    "a number as mask": (("a.png", "a cat", "a dog"), {"mask": 3}, "mask must be a path or None, got 3"),
    "a URL": (("https://a.org/b.png", "a cat", "a dog"), {}, "is a URL"),
}


@pytest.mark.parametrize("name", REQUEST)
def test_fields_of_a_request(name: str) -> None:
    arguments, more, message = REQUEST[name]
    with pytest.raises(sdist.UserError, match=message):
        sdist.Request(*arguments, **more)


def test_other_forms_of_a_request_are_taken() -> None:
    plain = sdist.Request("a.png", "a cat", "a dog", np.int64(3), "dog", "m.png")
    assert plain == sdist.Request(Path("a.png"), "a cat", "a dog", 3, ("dog",), Path("m.png"))
    assert json.dumps(plain.seed) == "3"
    assert sdist.Request("a.png", "a cat", "a dog", words=["dog"]).words == ("dog",)


RUN = {
    "text as seeds": ({"seeds": "2"}, r"sdist.run: seeds must be a whole number, got '2' \(str\)"),
    "text as limit": ({"limit": "2"}, "limit must be a whole number or None"),
    "a number as shard": ({"shard": 3}, r"shard must be \(a whole number, a whole number\), got 3"),
    "a truth value as workers": ({"workers": True}, "workers must be a whole number"),
    "text as overwrite": ({"overwrite": "no"}, "overwrite must be True or False, got 'no'"),
    "a number as log": ({"log": 1}, "log must be text"),
    "no input": ({"input": None}, "input must be text or a path, got None"),
    "a number as output": ({"output": 5}, "output must be text or a path"),
    "an unknown option": (
        {"foo": 1},
        "unknown option 'foo' in sdist.run: have .*compile, crop, device, devices, .*model, .*steps, ",
    ),
    "a misspelt argument": ({"stpes": 1}, "did you mean 'steps'"),
}


@pytest.mark.parametrize("name", RUN)
def test_options_of_run(name: str, tmp_path: Path) -> None:
    given, message = RUN[name]
    with pytest.raises(sdist.UserError, match=message):
        sdist.run(**{"input": tmp_path, "output": tmp_path, **METHOD, **given})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": "0"}, "seed must be a whole number"),
        ({"dataset": None}, "dataset must be text"),
        ({"allow_missing": 1}, "allow_missing must be True or False"),
        ({"clip": 3}, "clip must be text or None"),
        ({"progress": 3}, "progress must be a function"),
        ({"clap": "x"}, "unknown option 'clap' in sdist.evaluate; did you mean 'clip'"),
    ],
)
def test_options_of_evaluate(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(sdist.UserError, match=message):
        sdist.evaluate(**{"dataset": f"index:{tmp_path}", "results": tmp_path, **given})


def test_a_loaded_method_takes_requests_and_what_it_prepared(picture: Path, tiny_folder: Path) -> None:
    method = sdist.load("dds", tiny_folder, settings={"steps": 1})
    ready = method.prepare(sdist.Request(picture, "a cat", "a dog"))
    wide = sdist.load("dds", tiny_folder, settings={"size": "48x32"}).prepare(ready.request)
    edit = method.editor.encode(method.model, [ready])
    assert repr(method) == f"<LoadedMethod dds with {tiny_folder} on cpu>"
    for call, message in (
        (lambda: method.edit([]), "nothing to edit: give a list of what prepare returns"),
        (lambda: method.edit(ready), r"batch must be a list \(each a Prepared\), got sdist.Prepared"),
        (lambda: method.edit([ready.request]), r"batch must be a list \(each a Prepared\)"),
        (lambda: method.edit([ready, wide]), "have one size, these are 32 x 32, 48 x 32"),
        (lambda: method.edit([ready], 3), "run must be an Observers, got 3"),
        (lambda: method.prepare(str(picture)), "request must be a Request"),
        (lambda: method.check(None), "request must be a Request, got None"),
        (lambda: sdist.ScoreDistiller(method.model, ready, method.editor.parts, []), "edit must be an Edit, got sdist.Prepared"),
        (lambda: sdist.ScoreDistiller(method.model, edit, method, []), "method must be a Method, got sdist.LoadedMethod"),
        (lambda: sdist.ScoreDistiller(method.model, edit, method.editor.parts, [0]), "identities must be a list"),
        (lambda: sdist.ScoreDistiller(method.model, edit, method.editor.parts, []), "each of 1 images, got 0"),
        (lambda: sdist.load(3), "method must be text or a path or None"),
    ):
        with pytest.raises(sdist.UserError, match=message):
            call()


# --- results -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> sdist.Result:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
    settings = {"scale": {"cross_level": 1, "self_level": 0}, "steps": 2}
    return sdist.edit(path, "a cat", "a cat in a hat", model=tiny_folder, method=Path("lusd"), seed=3, settings=settings)


def test_a_result_is_one_line_and_a_picture(result: sdist.Result, tiny_folder: Path) -> None:
    assert repr(result) == f"<Result of lusd on {tiny_folder}, seed 3: 'a cat' -> 'a cat in a hat', 32 x 32>"
    shown = Image.open(io.BytesIO(result._repr_png_()))
    assert shown.size == (3 * 256 + 8, 256)  # source, mask, edit


@pytest.mark.parametrize(("name", "kind"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP"), ("new/in/a.png", "PNG")])
def test_a_result_is_saved_as_its_suffix_says(result: sdist.Result, tmp_path: Path, caplog, name: str, kind: str) -> None:
    result.save(str(tmp_path / name))
    saved = Image.open(tmp_path / name)
    assert saved.format == kind
    assert np.abs(np.asarray(saved.convert("RGB"), float) - np.asarray(result.image)).mean() < 40
    card = saved.text["sdist"] if kind == "PNG" else (tmp_path / "a.json").read_text()
    assert json.loads(card) == result.card
    assert ("a.json beside it" in caplog.text) == (kind != "PNG")


def test_places_where_a_result_cannot_be_saved(result: sdist.Result, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "other.json").write_text("[]")
    for path, message in (
        (tmp_path / "a.bmp", r"a.bmp cannot be written: a result is saved as .png, .jpg, .jpeg, .webp"),
        (tmp_path / "a", "is saved as .png"),
        (tmp_path / "file" / "a.png", "file.* cannot be written: "),
        (tmp_path / "folder.png", "folder.png.* cannot be written: "),
        (tmp_path / "other.jpg", "needs other.json beside it for the run card, and that is another file"),
        (3, r"path must be text or a path, got 3"),
    ):
        with pytest.raises(sdist.UserError, match=message):
            result.save(path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png", "other.json"]


# --- annotations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, True),
        (True, int, False),
        (np.float32(1), float, True),
        (1.0, int, False),
        ("ab", Sequence[str], False),
        (("a",), Sequence[str], True),
        ([1], list[str], False),
        ((0, 1), tuple[int, int], True),
        ((0, 1, 2), tuple[int, int], False),
        ((), tuple[str, ...], True),
        ("a", Literal["a", "b"], True),
        ([], Literal["a", "b"], False),
        ({}, Mapping[str, Any], True),
        (len, Callable[[int], None], True),
        (None, int | None, True),
        (object(), Any, True),
    ],
)
def test_values_match_annotations(value: Any, hint: Any, expected: bool) -> None:
    assert matches(value, hint) == expected
    assert taken(hint)
    assert shown(value)


def test_numbers_of_numpy_are_those_of_python(picture: Path, tiny_folder: Path) -> None:
    settings = {"optimizer": {"lr": np.float32(0.5), "options": {"momentum": np.float64(0.5)}}, "timesteps.t_min": np.int64(60)}
    result = sdist.edit(picture, "a cat", "a dog", model=tiny_folder, method="dds", steps=np.int64(1), settings=settings)
    assert json.loads(json.dumps(result.card["settings"]["optimizer"]))["options"] == {"momentum": 0.5}


def test_a_long_value_is_cut() -> None:
    assert shown("x" * 1000) == f"'{'x' * 56}... (str)"


def test_what_is_checked_elsewhere_and_what_has_no_annotation_pass() -> None:
    @checked("a")
    def three(a: int, b, c: int = 0, **more: str) -> tuple:
        return a, b, c, more

    assert three("x", "y", 1, d=5) == ("x", "y", 1, {"d": 5})
