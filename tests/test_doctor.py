"""sdist doctor --online asks for all models at once, and ends in time whatever the hub does."""

import json
import time
from collections.abc import Callable

import pytest

from sdist.cli import main
from sdist.commands import doctor


def not_there(source: str) -> str:
    time.sleep(0.05)
    return "not on this disk, and the hub gives ConnectError"


ANSWERS: dict[str, tuple[Callable[[str], str | None], str]] = {
    "there": (lambda source: None, "on the hub: CompVis/stable-diffusion-v1-4"),
    "no network": (not_there, "CompVis/stable-diffusion-v1-4: not on this disk, and the hub gives ConnectError"),
    "no answer": (lambda source: time.sleep(5), "CompVis/stable-diffusion-v1-4: the hub has not answered within 0.3 s"),
}


@pytest.mark.parametrize(("answer", "said"), ANSWERS.values(), ids=ANSWERS)
def test_the_hub_is_waited_for_once(monkeypatch, capsys, answer: Callable[[str], str | None], said: str) -> None:
    monkeypatch.setattr("sdist.models.catalogue.hub_problem", answer)
    monkeypatch.setattr(doctor, "ONLINE", 0.3)
    start = time.monotonic()
    doctor._ask_hub([f"owner/model{i}" for i in range(20)])
    assert time.monotonic() - start < 2
    assert main(["doctor", "--online", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    assert models["sd14"] == said
    assert models["tinyworld"].startswith("ready: ")
