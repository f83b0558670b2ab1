"""The studio without a browser: who is let in, and where the studio is served."""

import os
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from sdist.cli import main
from sdist.commands.app import read_login
from sdist.errors import UserError
from sdist.files.images import png_bytes
from sdist.studio.limits import Limits
from sdist.studio.server import Address, load_first, serving


def test_options_of_the_command(tmp_path: Path, capsys, monkeypatch) -> None:
    for arguments, message in ((["--port", "0"], "--port"), (["--max-steps", "0"], "--max-steps"), (["--queue", "0"], "--queue")):
        assert main(["app", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert main(["app", "--model", "tinyword"]) == 2
    assert "did you mean 'tinyworld'" in capsys.readouterr().err
    assert main(["app", "--login", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    monkeypatch.setattr("sdist.extras.find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert "pip install 'sdist[app]'" in capsys.readouterr().err


def test_a_login_is_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "login").write_text("ann:a:b\n")
    assert read_login(tmp_path / "login", "other:x") == ("ann", "a:b")
    assert read_login(None, "ann:secret") == ("ann", "secret")
    assert read_login(None, None) is None
    for bad in ("ann", ":x", "ann:", "a:b\nc:d"):
        with pytest.raises(UserError, match="one line USER:PASSWORD"):
            read_login(None, bad)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_the_server_lets_in_who_it_should_and_serves_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    import httpx

    port = free_port()
    with serving(str(tiny_folder), Address(port=port, login=("ann", "secret")), Limits(upload=1000)) as address:
        with (
            pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be had"),
            serving("tinyworld", Address(port=port), Limits()),
        ):
            pass
        with httpx.Client(base_url=address) as client:
            assert client.get("/config").status_code == 401
            assert client.post("/login", data={"username": "ann", "password": "wrong"}).status_code == 400
            assert client.post("/login", data={"username": "ann", "password": "secret"}).status_code == 200
            page = client.get("/")
            assert "default-src 'self'" in page.headers["content-security-policy"]
            for path in ("/etc/hostname", str(Path("setup.cfg").resolve()), str(tmp_path), "../setup.cfg"):
                assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)
            large = client.post("/gradio_api/upload", files={"files": ("x.png", BytesIO(b"x" * 2000))})
            assert large.status_code == 413
            assert client.post("/gradio_api/upload", files={"files": ("x.png", BytesIO(b"x"))}).status_code == 200
            own = client.post("/gradio_api/upload", files={"files": ("x.png", small_png())}).json()[0]
            assert _take(client, own) == 200
            assert _take(client, "/etc/hostname") == 500  # not uploaded


def test_a_model_is_offered_with_a_method_that_it_can_run(tiny_folder: Path) -> None:
    assert load_first("tinyworld-instruct", ["lusd", "sdedit", "lime", "dds"])[1] == ["lime", "lusd", "sdedit", "dds"]
    model, methods = load_first(str(tiny_folder), ["lime", "lusd"])
    assert (model.conditions, methods) == (0, ["lusd", "lime"])
    with pytest.raises(UserError, match="unknown model 'nowhere'"):
        load_first("nowhere", ["lusd", "lime"])


PROXIES = {
    "none": {},
    "one that is not there": {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"},
    "for all, of a kind that needs a package": {"ALL_PROXY": "socks5://127.0.0.1:9"},
    "with exceptions": {"http_proxy": "http://127.0.0.1:9", "no_proxy": "example.org"},
    "of no kind": {"http_proxy": "nonsense://here"},
}


@pytest.mark.parametrize("proxies", PROXIES.values(), ids=PROXIES)
def test_the_studio_starts_whatever_proxies_there_are(tiny_folder: Path, monkeypatch, proxies: dict[str, str]) -> None:
    import httpx

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    with serving(str(tiny_folder), Address(port=free_port()), Limits()) as address:
        assert httpx.get(address, trust_env=False).status_code == 200
        assert {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")} == proxies


@pytest.mark.parametrize(
    ("given", "root"),
    [("/studio", "http://example.org/studio"), ("https://b.org/x", "https://b.org/x"), ("", "http://example.org")],
)
def test_the_studio_below_a_path(tiny_folder: Path, given: str, root: str) -> None:
    import httpx

    with serving(str(tiny_folder), Address(port=free_port(), root_path=given), Limits()) as address:
        config = httpx.get(f"{address}config", headers={"host": "example.org"}, trust_env=False).json()
    assert config["root"] == root


def test_pages_of_named_origins_may_frame_it(tiny_folder: Path, capsys) -> None:
    import httpx

    with serving(str(tiny_folder), Address(port=free_port(), frames=("https://b.org", "http://a.org:8000")), Limits()) as address:
        policy = httpx.get(address, trust_env=False).headers["content-security-policy"]
    assert "frame-ancestors 'self' https://b.org http://a.org:8000; form-action 'self'" in policy
    for origin in ("example.org", "https://example.org/page", "https://a.org; script-src *", "*"):
        assert main(["app", "--allow-iframe", origin]) == 2
        assert "--allow-iframe must be an origin without a path" in capsys.readouterr().err


def test_a_path_that_is_none(capsys) -> None:
    assert main(["app", "--root-path", "studio"]) == 2
    assert "--root-path must begin with / or be a URL, such as /studio, got 'studio'" in capsys.readouterr().err


def small_png() -> BytesIO:
    return BytesIO(png_bytes(Image.new("RGB", (32, 32))))


def _take(client, path: str) -> int:
    """Asks the page to take a file of the server, as a visitor who writes his own requests could."""
    handlers = client.get("/config").json()["dependencies"]
    take = next(each["id"] for each in handlers if each["targets"][0][1] == "upload")
    body = {"data": ["a" * 32, {"path": path, "meta": {"_type": "gradio.FileData"}}], "fn_index": take, "session_hash": "one"}
    return client.post("/gradio_api/run/predict", json=body).status_code
