"""What a person reads who does not know the commands yet: help, completion, and mistakes before anything slow is loaded."""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdist.cli import COMMANDS, main, parser
from sdist.commands.messages import wrapped


def options(command: argparse.ArgumentParser, path: str = "sdist") -> Iterator[tuple[str, argparse.Action]]:
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from options(below, f"{path} {name}")
        elif not isinstance(action, (argparse._HelpAction, argparse._VersionAction)):
            yield f"{path} {'/'.join(action.option_strings) or action.dest}", action


@pytest.mark.parametrize(("name", "action"), options(parser()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_argument_says_what_it_means_and_what_it_is_if_not_given(name: str, action: argparse.Action) -> None:
    assert action.help
    if action.option_strings and action.nargs != 0 and not action.required:
        assert "default" in action.help


def test_sdist_alone_shows_help_with_three_examples(capsys) -> None:
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)
    examples = [line for line in shown.partition("examples:")[2].splitlines() if line.strip()]
    assert len(examples) == 3
    assert all(line.startswith("  sdist ") for line in examples)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("edti photo.jpg", "unknown command 'edti', did you mean 'edit'? (see sdist --help)"),
        ("runn", "unknown command 'runn', did you mean 'run'? (see sdist --help)"),
        ("zzz", "unknown command 'zzz': have edit, run"),
        ("tinyworld qualty", "unknown command 'qualty', did you mean 'quality'? (see sdist tinyworld --help)"),
    ],
)
def test_an_unknown_command_names_the_nearest(capsys, words: str, message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2
    assert f"sdist: error: {message}" in capsys.readouterr().err


MISTAKES = {
    "an image that is not there": ("edit nowhere.png --target a --model sd15", "image nowhere.png does not exist"),
    "a file that is no image": ("edit text.txt --target a", "text.txt"),
    "a mask that is not there": ("edit photo.png --target a --mask nowhere.png", "mask nowhere.png does not exist"),
    "no target": ("edit photo.png --source a", "the target prompt is empty"),
    "an empty target": ("edit photo.png --target {}", "the target prompt is empty"),
    "equal prompts": ("edit photo.png --source a --target a", "source and target prompt are identical"),
    "an unknown method": ("edit photo.png --target a --method lusdd", "did you mean 'lusd'"),
    "a yaml that is not there": ("edit photo.png --target a --method mine.yaml", "method file mine.yaml does not exist"),
    "no seeds": ("edit photo.png --target a --seeds 0", "--seeds must be at least 1, got 0"),
    "a result that is no PNG": ("edit photo.png --target a --output x.jpg", "name it x.png"),
    "a folder without an index": ("run --input . --output out", "index.csv does not exist"),
    "a wrong header": ("run --input wrong --output out", "img_path"),
    "no images at all": ("run --input . --output out --limit 0", "--limit must be at least 1, got 0"),
    "an unknown method of a run": ("run --input index --output out --method lusdd", "did you mean 'lusd'"),
    "an unknown sweep": ("sweep ablatoin --input index --output out", "did you mean 'ablation'"),
    "an unknown option": ("edit photo.png --target a --stepz 3", "unknown option --stepz, did you mean --steps?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_before_anything_slow_is_loaded(name: str, picture: Path, tmp_path: Path) -> None:
    words, message = MISTAKES[name]
    picture.rename(tmp_path / "photo.png")
    (tmp_path / "text.txt").write_text("no image")
    for folder, header in {"wrong": "a,b", "index": "img_path,source_prompt,target_prompt"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "index.csv").write_text(f"{header}\n1,2,3\n")
    code = (
        "import sys; from sdist.cli import main\n"
        "try: code = main([word.replace('{}', ' ') for word in sys.argv[1:]])\n"
        "except SystemExit as stopped: code = stopped.code\n"
        "assert code == 2, code\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    made = subprocess.run([sys.executable, "-c", code, *words.split()], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert message in made.stderr
    assert len([line for line in made.stderr.splitlines() if line.startswith("sdist: error:")]) == 1
    assert not (tmp_path / "out").exists()


def test_bash_completes_commands_options_and_methods(tmp_path: Path, capsys) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)

    def completed(*words: str) -> list[str]:
        asked = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sdist; printf "%s\\n" "${{COMPREPLY[@]}}"'
        shell = subprocess.run(["bash", "-c", asked, "bash", *words], capture_output=True, text=True, check=True, cwd=tmp_path)
        return shell.stdout.split()

    assert completed("sdist", "ed") == ["edit"]
    assert completed("sdist", "edit", "--see") == ["--seed", "--seeds"]
    assert "lusd_no_filtering" in completed("sdist", "run", "--method", "lusd_no")
    assert completed("sdist", "edit", "--log", "t") == ["tensorboard"]
    assert completed("sdist", "replay", "comp") == ["completion"]  # the file


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_of_every_command(shell: str, capsys) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert "--source" in script or "-l source" in script


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_are_as_wide_as_the_terminal(width: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = wrapped("word " * 60, "  name          ")
    assert max(map(len, text.splitlines())) <= width
    assert all(line.startswith(" " * 16) for line in text.splitlines()[1:])
    assert main(["methods"]) == 0
    long = [line for line in capsys.readouterr().out.splitlines() if len(line) > width]
    assert width < 80 or [line for line in long if " " in line[26:].strip()] == []
