"""Lines on stderr and progress bars do not break each other."""

import logging
import sys

import pytest
from tqdm.auto import tqdm

from sdist.commands.messages import print_error
from sdist.jobs.console import ConsoleHandler, print_line


def test_a_line_stands_above_the_bar(capsys: pytest.CaptureFixture) -> None:
    logger = logging.Logger("alone")
    logger.addHandler(ConsoleHandler())
    with tqdm(total=2, desc="edit") as bar:
        bar.update()
        logger.warning("a %s", "warning")
        print_error("a\nproblem")
        before = capsys.readouterr().err
    for line in ("a warning", "sdist: error: a problem"):
        assert f"\r{line}\n" in before  # from the first column on, where the bar was wiped out
    assert before.rsplit("\n", 1)[1].startswith("\redit:")


def test_without_bars_a_line_is_printed_alone(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tqdm")
    print_line("a line")
    assert capsys.readouterr().err == "a line\n"
