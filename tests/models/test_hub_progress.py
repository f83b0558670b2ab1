"""A download says how far it is, in few lines."""

import logging

import pytest

from sdist.models import hub_progress
from sdist.models.hub_progress import hub_says, progress_of


@pytest.mark.parametrize(
    ("total", "piece", "lines"),
    {"large": (4_000_000_000, 10_000_000, 10), "small": (12_000_000, 5_000_000, 3), "in one piece": (1000, 1000, 1)}.values(),
)
def test_a_download_is_said_in_tenths(caplog, monkeypatch, total: int, piece: int, lines: int) -> None:
    caplog.set_level("INFO", "sdist")
    monkeypatch.setattr(hub_progress, "SPACE", 0.0)
    bar = progress_of("owner/name")(total=0, initial=0, unit="B", unit_scale=True, desc="Downloading")
    bar.total += total
    for start in range(0, total, piece):
        bar.update(min(piece, total - start))
    assert len(caplog.messages) == lines
    assert caplog.messages[-1].startswith("fetching owner/name: ")
    assert caplog.messages[-1].split(": ")[1].split(" of ")[0] == caplog.messages[-1].split(" of ")[1]


def test_a_slow_download_is_said_all_the_same(caplog, monkeypatch) -> None:
    caplog.set_level("INFO", "sdist")
    for name in ("SPACE", "EVERY"):
        monkeypatch.setattr(hub_progress, name, 0.0)
    kind = progress_of("owner/name")
    for bar in (
        kind(total=4_000_000_000, unit="B"),
        kind(total=4_000_000_000, unit="B"),
    ):  # one of what comes, one of what is written
        bar.update(1_000_000)
    assert caplog.messages == ["fetching owner/name: 1.0 MB of 4.00 GB"]


def test_a_quick_one_is_not(caplog) -> None:
    caplog.set_level("INFO", "sdist")
    progress_of("owner/name")(total=1000, unit="B").update(1000)
    assert not caplog.messages


def test_the_count_of_files_and_sizes_that_are_not_known_are_not(caplog, capsys) -> None:
    caplog.set_level("INFO", "sdist")
    for options in ({"total": 9, "unit": "it"}, {"total": None, "unit": "B"}):
        with progress_of("owner/name")(**options) as bar:
            bar.update(5)
            bar.set_description("done")
    assert [*progress_of("owner/name")(range(3))] == [0, 1, 2]
    assert not caplog.messages
    assert not capsys.readouterr().err


def test_what_the_hubs_library_says_is_one_line(caplog, capsys) -> None:
    library = logging.getLogger("huggingface_hub.file_download")
    before = logging.getLogger("huggingface_hub").handlers
    with hub_says("owner/name"):
        library.warning("Error while downloading from https://cdn/x?y: %s\nTrying to resume download...", "The read timed out")
    assert caplog.messages == ["fetching owner/name: The read timed out Trying to resume download..."]
    assert not capsys.readouterr().err
    assert logging.getLogger("huggingface_hub").handlers == before
