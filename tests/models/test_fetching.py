"""A hub that is slow, stalls, or answers nonsense: what is fetched is said, the next mirror is tried, and the end is one line."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http

from sdist.errors import UserError
from sdist.models.catalogue import MODELS, STABLE_DIFFUSION, Model
from sdist.models.loading import load_backbone

SHA, LARGE = "a" * 40, "diffusion_pytorch_model.safetensors"
FAULTS = {  # of what a mirror answers, and the files or questions that it does so for
    "stalls in the middle of a file": LARGE,
    "cuts a file": LARGE,
    "answers 500": LARGE,
    "answers 403": LARGE,
    "answers 401": "/api/",
    "is gated": "model_index.json",
    "answers 404": "/api/",
    "answers with a page": "/api/",
    "answers with another list": "/api/",
    "hangs up": "model_index.json",
}


class Hub(BaseHTTPRequestHandler):
    """Has one folder under every name; what is wrong with each name stands in `faults`."""

    protocol_version = "HTTP/1.1"
    folder: Path
    faults: dict[str, str]

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except OSError:  # the other side has gone
            self.close_connection = True

    def fault(self) -> str:
        owner = self.path.removeprefix("/api/models").split("/")[1]
        kind = self.faults.get(owner, "")
        return kind if kind and FAULTS[kind] in self.path else ""

    def answer(self, code: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), "X-Repo-Commit": SHA, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            fault = self.fault()
            half = "stalls" in fault or "cuts" in fault
            self.wfile.write(data[: len(data) // 2] if half else data)
            if half:
                time.sleep(0.6 if "stalls" in fault else 0)
                self.close_connection = True

    def do_GET(self) -> None:
        path, fault = self.path.split("?")[0], self.fault()
        names = [str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file()]
        if fault.startswith("answers ") and fault[-3:].isdigit():
            self.answer(int(fault[-3:]), b"no")
        elif fault == "is gated":
            self.answer(401, X_Error_Code="GatedRepo", X_Error_Message="Access to model first/model is restricted.")
        elif fault == "answers with a page":
            self.answer(200, b"<html>log in</html>")
        elif fault == "answers with another list":
            self.answer(200, b"[1, 2]")
        elif fault == "hangs up":
            self.close_connection = True
        elif path.startswith("/api/models/"):
            tree = [{"type": "file", "path": name, "size": 1, "oid": SHA} for name in names]
            info = {"id": "a/b", "sha": SHA, "siblings": [{"rfilename": name} for name in names], "private": False, "tags": []}
            self.answer(200, json.dumps(tree if "/tree/" in path else info).encode())
        elif (name := path.partition("/resolve/")[2].partition("/")[2]) in names:
            data = (self.folder / name).read_bytes()
            self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"')
        else:
            self.answer(404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this machine, a cache of its own, and the model "two" with two mirrors."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "ENDPOINT": address, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_DOWNLOAD_TIMEOUT": 0.3,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():  # fmt: skip
        monkeypatch.setattr(constants, name, value)
        if hasattr(file_download, name):
            monkeypatch.setattr(file_download, name, value)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    monkeypatch.setitem(MODELS, "two", Model(("first/model", "second/model"), STABLE_DIFFUSION))
    Hub.folder, Hub.faults = tiny_folder, {}
    yield Hub
    server.shutdown()
    server.server_close()


def test_a_first_download_is_said(hub: type[Hub], caplog) -> None:
    caplog.set_level("INFO", "sdist")
    assert load_backbone("two", "cpu").source == "first/model"
    said = [line for line in caplog.messages if line.startswith("fetching model first/model")]
    assert said[0] == "fetching model first/model from the hub"
    caplog.clear()
    load_backbone("two", "cpu")
    assert not [line for line in caplog.messages if "fetching" in line]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_next_mirror_is_tried(hub: type[Hub], fault: str, caplog) -> None:
    hub.faults = {"first": fault}
    assert load_backbone("two", "cpu").source == "second/model"
    assert all("\n" not in line for line in caplog.messages)
    resumed = [line for line in caplog.messages if line.startswith("fetching model first/model: ")]
    assert bool(resumed) == (fault in ("stalls in the middle of a file", "cuts a file", "answers 500"))


def test_mirrors_that_all_fail_are_one_line(hub: type[Hub]) -> None:
    hub.faults = {"first": "stalls in the middle of a file", "second": "answers 404"}
    with pytest.raises(UserError, match=r"model 'two' could not be loaded \(first/model: .*; second/model: .*\)") as refused:
        load_backbone("two", "cpu")
    assert "\n" not in str(refused.value)


def test_a_gated_model_says_how_to_have_it(hub: type[Hub]) -> None:
    hub.faults = {"first": "is gated", "second": "is gated"}
    with pytest.raises(
        UserError, match=r"first/model: gated: accept its licence at http\S+/first/model, then log in with .hf auth login.;"
    ):
        load_backbone("two", "cpu")
