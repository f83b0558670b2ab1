import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .need import need, need_program

ROOT = Path(__file__).parents[1]


def test_what_is_there_is_returned() -> None:
    assert need("math") is math
    assert need_program("no-such-program", "sh").endswith("/sh")


@pytest.mark.parametrize(("call", "name"), [(need, "no_such_module"), (need_program, "no-such-program")])
@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_is_missing_skips_and_in_ci_fails(monkeypatch: pytest.MonkeyPatch, call, name: str, ci: str, outcome: type) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match=f"the tests need {name}"):
        call(name)


@pytest.mark.parametrize(("ci", "summary"), [("", "1 skipped"), ("true", "1 error")])
def test_a_whole_module_is_skipped_or_fails(tmp_path: Path, ci: str, summary: str) -> None:
    (tmp_path / "test_whole.py").write_text("from tests.need import need\nneed('no_such_module')\ndef test(): pass")
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", tmp_path, tmp_path]
    output = subprocess.run(command, cwd=ROOT, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False).stdout
    assert summary in output.splitlines()[-1]
