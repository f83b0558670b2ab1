"""Whatever a yaml, a csv, a picture or a prompt holds: the answer is a value or a UserError, at once."""

import csv
import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdist.config.build import load_settings
from sdist.config.settings import Settings
from sdist.datasets.base import load_dataset
from sdist.edits.request import Request
from sdist.edits.run_card import read_card
from sdist.errors import UserError
from sdist.files.images import CARD_KEY, load_image
from sdist.files.opening import MAX_PIXELS
from sdist.jobs.inputs import read_index
from sdist.models.base import Backbone
from sdist.prompts import differing_nouns, token_indices

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ODD = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    [
        "\0",
        "\u202ecat",
        "<script>alert(1)</script>",
        "=1+1",
        "a\tb\nc",
        "\x1b[2J",
        "${scale.step}",
        "../../etc/passwd",
        "\ufeff",
        "🦊" * 9,
    ]
)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ODD,
    lambda own: st.lists(own, max_size=3) | st.dictionaries(ODD, own, max_size=3),
)
KEYS = ("base", "loss", "filter", "steps", "regularizers", "optimizer", "timesteps", "gamma", "scale", "prompts", "size", "model")


# --- yaml and --set ----------------------------------------------------------------------------------------------------


@quick
@given(st.dictionaries(st.sampled_from(KEYS) | ODD, VALUE, max_size=4))
def test_a_yaml_of_any_content_is_a_method_or_an_error(tmp_path: Path, content: dict) -> None:
    path = tmp_path / "method.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with suppress(UserError):
        assert isinstance(load_settings(str(path)), Settings)


@quick
@given(st.binary(max_size=200))
@example(b"a: " + b"[" * 100_000)
@example(b"{a: " * 5_000)
@example(b"a: &a [*a]")
@example(b"0")
@example(b"x: !!python/object/apply:os.system [true]")
def test_bytes_are_a_method_or_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "method.yaml"
    path.write_bytes(content)
    with suppress(UserError):
        load_settings(str(path))


def test_a_yaml_that_multiplies_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    doubled = "".join(f"l{i}: &l{i} [*l{i - 1}, *l{i - 1}]\n" for i in range(1, 40))
    path.write_text(f"base: lusd\nl0: &l0 [x, x]\n{doubled}")
    with pytest.raises(UserError, match=r"bomb\.yaml cannot be read: .*limit"):
        load_settings(str(path))


@pytest.mark.parametrize(
    "content", ["model: ${oc.env:HOME}", "loss: {name: sds, guidance_scale: '${oc.decode:7}'}", "size: a${ oc.env:X}"]
)
def test_a_yaml_cannot_read_the_environment(tmp_path: Path, content: str) -> None:
    path = tmp_path / "method.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="calls a resolver"):
        load_settings(str(path))


def test_a_yaml_of_megabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("# " + "x" * 2_000_000)
    with pytest.raises(UserError, match="at most 1000000 are read"):
        load_settings(str(path))


@quick
@given(st.lists(ODD | st.builds("{}={}".format, st.sampled_from(KEYS) | ODD, ODD), max_size=3))
@example(["size=" + "[" * 100_000])
@example(["scale=${scale.step}"])
@example(["loss=${0}"])
def test_overrides_are_settings_or_an_error(overrides: list[str]) -> None:
    with suppress(UserError):
        assert isinstance(load_settings("dds", overrides), Settings)


# --- csv ---------------------------------------------------------------------------------------------------------------


@quick
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xef\xbb\xbf"]), st.booleans())
@example(b"a.png,\0,b\n", b"", True)
@example("a.png,cat,chien\n".encode("utf-16"), b"", True)
@example(b'a.png,"' + b"x" * 300_000 + b'",b\n', b"", True)
def test_an_index_of_any_bytes_gives_rows_or_errors(tmp_path: Path, content: bytes, mark: bytes, headed: bool) -> None:
    head = b"img_path,source_prompt,target_prompt\n" if headed else b""
    (tmp_path / "index.csv").write_bytes(mark + head + content)
    (tmp_path / "images").mkdir(exist_ok=True)
    complaints: list[str] = []
    with suppress(UserError):
        for row in read_index(tmp_path, complaints.append):
            assert row.image.is_relative_to((tmp_path / "images").resolve())
    with pytest.raises(UserError):  # there is no picture, so never a dataset
        load_dataset(f"index:{tmp_path}")


@pytest.mark.parametrize("name", ["../../../etc/hostname", "/etc/hostname", "a/../../b.png", "link.png"])
def test_a_picture_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link.png").symlink_to("/etc/hostname")
    with (tmp_path / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["img_path", "source_prompt", "target_prompt"], [name, "a cat", "a dog"]])
    complaints: list[str] = []
    assert read_index(tmp_path, complaints.append) == []
    assert "leaves the folder" in complaints[0]
    with pytest.raises(UserError, match="leaves the folder"):
        load_dataset(f"index:{tmp_path}")


# --- pictures ----------------------------------------------------------------------------------------------------------


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(buffer, kind)
    return buffer.getvalue()


@quick
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"]), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_a_damaged_picture_is_a_picture_or_an_error(tmp_path: Path, kind: str, at: int, junk: bytes) -> None:
    path, content = tmp_path / "picture", encoded(kind)
    path.write_bytes(content[:at] + junk + content[at + len(junk) :])
    with suppress(UserError):
        assert load_image(path).mode == "RGB"


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    with pytest.raises(UserError, match="bomb"):
        load_image(path)
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(path)
    with pytest.raises(UserError, match=f"at most {MAX_PIXELS} pixels"):
        load_image(path)


@quick
@given(st.binary(max_size=100) | ODD.map(lambda text: text.encode(errors="replace")))
@example(b"[" * 100_000)
@example(b'{"settings": {"model": "../.."}}')
def test_a_run_card_of_any_content_is_refused(tmp_path: Path, content: bytes) -> None:
    info = PngInfo()
    info.add_text(CARD_KEY, content.decode("latin-1"), zip=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "edit.png", pnginfo=info)
    with pytest.raises(UserError):
        read_card(tmp_path / "edit.png")


def test_a_run_card_that_inflates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edit.png"
    plain = encoded("PNG")
    bomb = chunk(b"zTXt", CARD_KEY.encode() + b"\0\0" + zlib.compress(bytes(200_000_000)))
    path.write_bytes(plain[:33] + bomb + plain[33:])
    with pytest.raises(UserError):
        read_card(path)


# --- prompts -----------------------------------------------------------------------------------------------------------


@quick
@given(ODD, ODD)
def test_prompts_of_any_text_are_read_or_refused(tiny: Backbone, source: str, target: str) -> None:
    with suppress(UserError):
        job = Request(Path("a.png"), source, target)
        tiny.text.token_ids(job.target)  # which refuses what is too long
        tokens = token_indices(tiny.text.token_spans(job.target), differing_nouns(job.source, job.target, "paper"), "all")
        assert all(0 <= token < tiny.text.length for token in tokens)
