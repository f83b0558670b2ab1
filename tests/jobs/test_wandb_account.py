"""wandb is asked before anything is loaded, and whatever it answers is one line or nothing."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sdist.cli import main
from sdist.config.settings import LogSettings
from sdist.errors import UserError
from sdist.jobs import wandb_account
from sdist.jobs.wandb_account import check_account

KEY = "a" * 40


class Answering(BaseHTTPRequestHandler):
    answer: tuple[int, bytes] | None = None  # None: nothing for longer than is waited

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.answer is None:
            time.sleep(1)
            return
        code, body = self.answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Its address, with nobody's key; wandb is online."""
    found = HTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{found.server_port}"
    for name in ("WANDB_API_KEY", "WANDB_MODE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(wandb_account, "_server", lambda: (address, None))
    monkeypatch.setattr(wandb_account, "WAIT", 0.3)
    yield address
    found.shutdown()
    found.server_close()


def viewer(who: object) -> bytes:
    return json.dumps({"data": {"viewer": who}}).encode()


ANSWERS = {
    "a known key": ((200, viewer({"username": "ann"})), None),
    "an unknown key": ((200, viewer(None)), "does not know this key"),
    "an unauthorized key": ((401, b""), "does not know this key"),
    "a forbidden key": ((403, b"no"), "does not know this key"),
    "a broken server": ((502, b"<html>"), "answers with HTTP 502"),
    "a page": ((200, b"<html>log in to the hotel's network</html>"), "answers, but not as wandb does"),
    "other json": ((200, b"[1]"), "answers, but not as wandb does"),
    "nothing": (None, "does not answer"),
}


@pytest.mark.parametrize(("answer", "message"), ANSWERS.values(), ids=ANSWERS)
def test_what_the_server_says(server: str, monkeypatch, answer: tuple[int, bytes] | None, message: str | None) -> None:
    monkeypatch.setattr(Answering, "answer", answer)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    if message is None:
        check_account(LogSettings(offline=False))
        return
    with pytest.raises(UserError) as refused:
        check_account(LogSettings(offline=False))
    assert str(refused.value).startswith(f"--log wandb: {server} {message}")
    assert str(refused.value).endswith("or keep the log on this disk with --set log.offline=true")


def test_a_server_that_is_not_there(server: str, monkeypatch) -> None:
    monkeypatch.setattr(wandb_account, "_server", lambda: ("http://127.0.0.1:9", None))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with pytest.raises(UserError, match=r"http://127.0.0.1:9 does not answer \(.*refused"):
        check_account(LogSettings(offline=False))


@pytest.mark.parametrize(
    ("key", "message"),
    {"none": ("", "there is no key for"), "short": ("short", "has 5 characters"), "spaces": ("a " * 40, "has 80 char")}.values(),
)
def test_a_key_that_cannot_be_one(server: str, monkeypatch, key: str, message: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(UserError, match=message):
        check_account(LogSettings(offline=False))


def test_the_key_of_wandb_login_is_found(server: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Answering, "answer", (200, viewer({"username": "ann"})))
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1\n  login user\n  password {KEY}\n")
    check_account(LogSettings(offline=False))


@pytest.mark.parametrize("project", ["a/b", "a\\b", "a#b", "50%", "a:b", "what?", "", "x" * 129])
def test_names_of_projects_that_wandb_refuses(project: str) -> None:
    with pytest.raises(UserError, match="wandb takes 1 to 128 characters"):
        check_account(LogSettings(project=project))


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_nothing_is_asked_offline(server: str, monkeypatch, mode: str) -> None:
    check_account(LogSettings(offline=True))
    monkeypatch.setenv("WANDB_MODE", mode)
    check_account(LogSettings(offline=False))


def test_it_is_asked_before_anything_is_loaded(server: str, picture: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sdist.editors.loading.load_backbone", None)
    edit = [
        "edit",
        str(picture),
        "--target",
        "a cat",
        "--output",
        str(tmp_path / "out"),
        "--log",
        "wandb",
        "--set",
        "log.offline=false",
    ]
    assert main(edit) == 2
    assert "there is no key" in capsys.readouterr().err
