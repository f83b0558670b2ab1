"""Lines on stderr and progress bars do not break each other."""

import logging
import sys

import pytest
from tqdm.auto import tqdm

from sdist.commands.messages import print_error
from sdist.jobs.console import ConsoleHandler, print_line
from sdist.jobs.problems import ProblemReporter


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


def test_names_with_control_characters_are_written_out_in_one_line(capsys: pytest.CaptureFixture) -> None:
    name, told = "a\nb\x1b[31m\x9b\x7f.png", list[str]()
    logger = logging.Logger("sdist")
    logger.addHandler(ConsoleHandler())
    logger.warning("%s is read", name)
    print_error(f"no {name[3:]}")
    logger.name = "another's"
    logger.warning("two\nlines")
    assert (
        capsys.readouterr().err == "a\\nb\\x1b[31m\\x9b\\x7f.png is read\nsdist: error: no \\x1b[31m\\x9b\\x7f.png\ntwo\nlines\n"
    )
    ProblemReporter(told.append)(f"line 2: {name}")
    assert told == ["line 2: a\\nb\\x1b[31m\\x9b\\x7f.png"]


def test_without_bars_a_line_is_printed_alone(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tqdm")
    print_line("a line")
    assert capsys.readouterr().err == "a line\n"
