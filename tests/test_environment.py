"""Variables with which the libraries cannot be imported are one line, from the command line and from Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from diffusers.models.attention_dispatch import AttentionBackendName

import sdist
from sdist.cli import main
from sdist.environment import check_environment, naming_variables, sleep_beside_others
from sdist.errors import UserError


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RANK", "", False),
        ("RANK", "one", False),
        ("LOCAL_RANK", "0", True),
        ("SLURM_PROCID", " 3 ", True),
        ("JSM_NAMESPACE_RANK", "-1", True),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "10s", False),
        ("HF_HUB_ETAG_TIMEOUT", "1.5", False),
        ("USE_TORCH", "0", False),
        ("USE_TORCH", "off", False),
        ("USE_TORCH", "True", True),
        ("DIFFUSERS_ATTN_BACKEND", "bogus", False),
        ("DIFFUSERS_ATTN_BACKEND", "NATIVE", False),
        ("DIFFUSERS_ATTN_BACKEND", "", False),
        ("DIFFUSERS_ATTN_BACKEND", "native", True),
        ("DIFFUSERS_ATTN_BACKEND", "flash", True),
        ("PL_TRAINER_MAX_STEPS", "none", True),  # which is not read here
    ],
)
def test_only_what_stops_an_import_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, allowed: bool
) -> None:
    monkeypatch.setenv(name, value)
    if allowed:
        check_environment()
        assert sdist.Request.__name__ == "Request"
        return
    assert main(["methods"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sdist: error: the environment variable {name} is {value!r}")
    with pytest.raises(UserError, match=f"^the environment variable {name} is"):
        _ = sdist.edit
    assert issubclass(sdist.UserError, ValueError)  # which can be caught by its name


def test_what_is_allowed_of_attention_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFUSERS_ATTN_BACKEND", "bogus")
    with pytest.raises(UserError, match=r"diffusers has .*; unset it$") as raised:
        check_environment()
    named = str(raised.value).partition("diffusers has ")[2].removesuffix("; unset it").split(", ")
    assert {"native", "flash"} <= set(named) <= {backend.value for backend in AttentionBackendName}


SCRIPT = """
import sys, sdist
if sys.argv[1] == "after diffusers":
    import diffusers
try:
    sdist.edit
except sdist.UserError as error:
    print(error)
"""


@pytest.mark.parametrize("when", ["first", "after diffusers"])
def test_diffusers_is_not_imported_with_such_a_value(when: str) -> None:
    environment = {**os.environ, "DIFFUSERS_ATTN_BACKEND": "bogus"}
    done = subprocess.run([sys.executable, "-c", SCRIPT, when], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("the environment variable DIFFUSERS_ATTN_BACKEND is 'bogus', diffusers has ")
    assert "Traceback" not in done.stderr


def number() -> int:
    return int(os.environ.get("SOME_LIBRARY_THREADS", "1"))


def words() -> dict:
    settings = os.environ["SOME_LIBRARY_THREADS"]
    raise ValueError(f"cannot read {settings}, which SOME_LIBRARY_THREADS says")


def mapping() -> dict:
    return json.loads(os.environ["SOME_LIBRARY_THREADS"])


@pytest.mark.parametrize("read", [number, words, mapping])
def test_a_variable_that_a_library_cannot_read_is_named(monkeypatch: pytest.MonkeyPatch, read) -> None:
    monkeypatch.setenv("SOME_LIBRARY_THREADS", "many")
    message = r"^the environment variable SOME_LIBRARY_THREADS is 'many', which a library cannot read \(\w+: .*\); unset it$"
    with pytest.raises(UserError, match=message), naming_variables():
        read()


def test_other_errors_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_LIBRARY_THREADS", "many")
    for error in (
        ValueError("another"),
        UserError("SOME_LIBRARY_THREADS"),
        TypeError("SOME_LIBRARY_THREADS"),
        ValueError("PATH"),
    ):
        with pytest.raises(type(error)) as raised, naming_variables():
            raise error
        assert raised.value is error


@pytest.mark.parametrize("name", ["TORCH_LOGS", "TORCHINDUCTOR_MIN_NUM_SPLIT", "DIFFUSERS_TIMEOUT_REMOTE_CODE"])
def test_variables_of_the_libraries_are_one_line(picture: Path, name: str) -> None:
    command = [sys.executable, "-m", "sdist", "edit", str(picture), "--source", "a cat", "--target", "a dog"]
    done = subprocess.run(command, env={**os.environ, name: "bogus"}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"sdist: error: the environment variable {name} is 'bogus'"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("load", "given", "policy"),
    [(0.1, {}, None), (1.4, {}, "passive"), (1.4, {"OMP_WAIT_POLICY": "active"}, "active"), (1.4, {"GOMP_SPINCOUNT": "9"}, None)],
)
def test_threads_sleep_beside_others_unless_the_user_says_how_they_wait(monkeypatch, load, given, policy) -> None:
    monkeypatch.setattr(os, "environ", {**given})
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 5.0, 5.0))
    sleep_beside_others()
    assert os.environ.get("OMP_WAIT_POLICY") == policy
