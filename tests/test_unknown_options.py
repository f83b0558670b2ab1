"""An option that a command does not have is refused, and what was meant is named."""

import pytest

from sdist.cli import parser
from sdist.commands.unknown import is_option

EDIT = "edit a.png --target b"
UNKNOWN = {  # what is typed: the end of the line
    f"{EDIT} --mod x": "unknown option --mod, did you mean --model? (see sdist edit --help)",
    f"{EDIT} --step=3": "unknown option --step, did you mean --steps? (see sdist edit --help)",
    f"{EDIT} --SEED 7": "unknown option --SEED, did you mean --seed? (see sdist edit --help)",
    f"{EDIT} -seed 7": "unknown option -seed, did you mean --seed? (see sdist edit --help)",
    f"{EDIT} --num-seeds 7": "unknown option --num-seeds, did you mean --seeds? (see sdist edit --help)",
    f"{EDIT} \u2014seed 7": "unknown option \u2014seed: it begins with a dash of a text program; write --seed",
    f"{EDIT} \u2013\u2013steps=7": "unknown option \u2013\u2013steps: it begins with a dash of a text program; write --steps",
    f"{EDIT} --limit 3": "unknown option --limit: it is one of sdist run, sweep (see sdist edit --help)",
    f"{EDIT} --input x": "unknown option --input: it is one of sdist run, sweep, calibrate (see sdist edit --help)",
    f"{EDIT} --guidance-scale 7": "unknown option --guidance-scale: values of a method are given as --set KEY=VALUE",
    "run --input x --output y --mask z": "unknown option --mask: it is one of sdist edit; a row of index.csv has img_path, "
    "source_prompt, target_prompt, and may have instruction, mask, category, caption, truth (see sdist run --help)",
    "run --input x --output y --images z": "unknown option --images: it is one of sdist replay (see sdist run --help)",
    "evaluate --dataset x --results y --seeds 2": "unknown option --seeds, did you mean --seed? (see sdist evaluate --help)",
    "compare a --zzz": "unknown option --zzz (see sdist compare --help)",
    "--seed 3 edit a.png": "unknown option --seed: options stand behind the command, sdist COMMAND --seed (see sdist --help)",
    "--versoin": "unknown option --versoin, did you mean --version? (see sdist --help)",
}


@pytest.mark.parametrize(("typed", "message"), UNKNOWN.items(), ids=UNKNOWN)
def test_an_unknown_option_is_one_line_with_what_was_meant(typed: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        parser().parse_args(typed.split(" "))
    assert refused.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"sdist: error: {message}")


@pytest.mark.parametrize(
    ("word", "option"),
    {"--a": True, "-a": True, "--a=b c": True, "\u2014a": True, "-a cat": False, "-1": False, "--": False, "-": False, "a": False,
     "\u2014 a cat": False, "": False}.items(),
)  # fmt: skip
def test_what_looks_like_an_option(word: str, option: bool) -> None:
    assert is_option(word) == option


@pytest.mark.parametrize("target", ["-a cat", "\u2014 a cat", "-1", "=a", "a --seed 7"])
def test_prompts_that_begin_like_one_are_prompts(target: str) -> None:
    assert parser().parse_args(["edit", "a.png", "--target", target]).target == target
