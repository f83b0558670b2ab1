"""Programs at the studio's HTTP API, as docs/studio.md has it."""

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from PIL import Image

import sdist
from sdist.studio.limits import Limits
from sdist.studio.server import Address, serving

from .test_server import free_port

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "studio.md"
PROMPTS = {"source": "a cat", "target": "a cat wearing a hat"}
BLACK = BytesIO()
Image.new("L", (32, 32)).save(BLACK, "PNG")


@pytest.fixture(scope="module")
def address(tiny_folder: Path) -> Iterator[str]:
    with serving(str(tiny_folder), Address(port=free_port()), Limits(upload=100_000)) as found:
        yield found


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


def test_the_example_of_the_page_runs(address: str, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n([^`]*gradio_client.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert "http://127.0.0.1:7860" in example
    assert "photo.jpg" in example
    monkeypatch.chdir(tmp_path)
    picture.rename(tmp_path / "photo.jpg")
    exec(example.replace("http://127.0.0.1:7860", address), {})
    assert Image.open(tmp_path / "dog.png").size == (32, 32)


def test_an_edit_is_that_of_the_library(client: Client, picture: Path, tiny_folder: Path, tmp_path: Path) -> None:
    Image.open(picture).convert("L").save(picture)  # which may be its own mask
    text = b64encode(picture.read_bytes()).decode()
    asked = {**PROMPTS, "method": "dds", "steps": 2, "seed": 5, "keep_background": True}
    made = client.predict(image=text, mask=text, **asked, api_name="/edit")
    (tmp_path / "made.png").write_bytes(b64decode(made))
    alone = sdist.edit(picture, mask=picture, **asked, model=tiny_folder, progress=False)
    assert Image.open(BytesIO(b64decode(made))).tobytes() == alone.image.tobytes()
    card = json.loads(Image.open(tmp_path / "made.png").text["sdist"])
    assert "/" not in card["job"]["image"]


REFUSED = {
    "no image": ({"image": ""}, "there is no picture yet"),
    "no base64": ({"image": "/etc/passwd!"}, "the image is no base64 of a file"),
    "no picture": ({"image": b64encode(b"text").decode()}, "is a text file, not an image"),
    "too large": ({"image": "A" * 200_000}, "the image has more than 100000 bytes"),
    "a method that is a file": ({"method": "/etc/method.yaml"}, "unknown method '/etc/method.yaml' in this studio"),
    "a model that is a folder": ({"model": "/etc"}, "unknown model '/etc' in this studio"),
    "too many steps": ({"steps": 2000}, "this studio makes at most 1000"),
    "a seed in words": ({"seed": "abc"}, "seed must be a whole number, got 'abc' (str)"),
    "a list of steps": ({"steps": [1]}, "steps must be a whole number, got [1] (list)"),
    "a number for a picture": ({"image": 5}, "image must be text, got 5 (int)"),
    "words that are none": ({"words": [1]}, "words must be text or a list (each text) or None, got [1] (list)"),
    "a word alone": ({"words": "dog"}, "'dog'"),
    "settings as a list": ({"settings": ["steps=2"]}, "settings must be text, got ['steps=2'] (list)"),
    "a mask that allows nothing": ({"mask": b64encode(BLACK.getvalue()).decode()}, "is empty: nothing in the image may change"),
    "the environment": ({"settings": "prompts.null=${oc.env:HOME}"}, "taken literally"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_line(client: Client, picture: Path, name: str) -> None:
    changed, message = REFUSED[name]
    given = {"image": b64encode(picture.read_bytes()).decode(), **PROMPTS, **changed}
    with pytest.raises(AppError, match=re.escape(message)):
        client.predict(**given, api_name="/edit")


def test_the_pages_own_handlers_are_not_public(client: Client) -> None:
    assert list(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == ["/edit"]
