"""Variables with which the libraries cannot be imported are one line."""

import pytest

from sdist.cli import main
from sdist.commands.environment import check_environment


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
        ("PL_TRAINER_MAX_STEPS", "none", True),  # which is not read here
    ],
)
def test_only_what_stops_an_import_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, allowed: bool
) -> None:
    monkeypatch.setenv(name, value)
    if allowed:
        check_environment()
        return
    assert main(["methods"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sdist: error: the environment variable {name} is {value!r}")
