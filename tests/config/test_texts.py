"""Text that yaml would read as something else stays text, on the command line, in yamls, in sweeps and from Python."""

from pathlib import Path

import pytest

from sdist.config.build import load_settings, settings_of
from sdist.config.sweep import read_sweep
from sdist.errors import UserError

PLAIN = [
    "no", "No", "off", "on", "yes", "y", "true", "FALSE", "1e3", "007", "12:30", "0x1f", "0b1", "1_000", "3.50", ".5", "+1",
    ".inf", ".nan", "2020-01-01", "=", "a cat", "été 🦊", "null cat",
]  # fmt: skip
RAW = [
    "a dog #1", "", " ", "a: b", "[x", "{y}", "- a", "? a", "*star", "&a b", "!bang", "@home", "%", "`", "|", ">", "it's", "'",
    '"a', '"a" b', "a\\nb", "null", "~", "a\tb",
]  # fmt: skip


@pytest.mark.parametrize("text", PLAIN + RAW)
def test_text_on_the_command_line_is_taken_as_it_stands(text: str) -> None:
    settings = load_settings("lusd", [f"prompts.negative={text}", f"log.project={text}"])
    assert settings.editor.prompts.negative == settings.log.project == text
    assert settings_of("lusd", [f"prompts.null={text}"], {}).editor.prompts.null == text


@pytest.mark.parametrize(("written", "text"), [("'no'", "no"), ('"a\\tb"', "a\tb"), ("'it''s'", "it's"), ('""', "")])
def test_quotes_of_yaml_are_still_read(written: str, text: str) -> None:
    assert load_settings("lusd", [f"prompts.negative={written}"]).editor.prompts.negative == text


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize(
    "form",
    [
        "prompts:\n  negative: {}\n  null: b",
        "prompts: {{negative: {}, 'null': b}}",
        "prompts: {{negative: {}}} # no",
        "? prompts\n: {{negative: {}}}",
        "prompts:\n  negative: &n {}\n  null: *n",
    ],
)
def test_text_in_a_yaml_is_taken_as_it_stands(tmp_path: Path, text: str, form: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"base: lusd\nsteps: 3\n{form.format(text)}\n", encoding="utf-8")
    assert load_settings(str(path)).editor.prompts.negative == text
    assert load_settings("lusd", [f"prompts={{negative: {text}}}"]).editor.prompts.negative == text


def test_nothing_after_the_colon_is_the_empty_text(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("base: lusd\nprompts:\n  negative:\nsteps: 3\n")
    assert load_settings(str(tmp_path / "own.yaml")).editor.prompts.negative == ""


@pytest.mark.parametrize("null", ["null", "~", "Null"])
def test_null_in_a_yaml_is_no_text(tmp_path: Path, null: str) -> None:
    (tmp_path / "own.yaml").write_text(f"base: lusd\nprompts: {{negative: {null}}}\n")
    with pytest.raises(UserError, match=r'own\.yaml cannot be read: prompts\.negative is text, got null; write "" for none'):
        load_settings(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("text", ["no", "007", "12:30", "1e3"])
def test_text_in_a_sweep_is_taken_as_it_stands(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    for body in (
        f"variants: {{lr=0.1: {{prompts.negative: {text}}}}}",
        f"grid: {{prompts.negative: {{x: {text}}}}}",
        f"grid:\n  prompts.negative:\n    x: {text}\n  steps: [3]",
        f"search: {{samples: 1, pairs: 1, score: l1, space: {{prompts.negative: {{x: {text}}}}}}}",
    ):
        path.write_text(f"base: lusd\n{body}\n")
        (variant,) = read_sweep(str(path)).variants
        assert load_settings(variant.method, variant.overrides).editor.prompts.negative == text


@pytest.mark.parametrize("value", [False, 7, 1.5, None, ["a"]])
def test_what_is_no_text_from_python_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="negative is text, got"):
        settings_of("lusd", {"prompts": {"negative": value}}, {})
    with pytest.raises(UserError, match="project is text, got"):
        settings_of("lusd", {"log.project": value}, {})


def test_numbers_and_switches_stay_what_they_are() -> None:
    settings = load_settings(
        "lusd", ["steps=7", "checkpoint=yes", "optimizer={lr: 1e-2, name: Adam}", "regularizers.source_pull=null"]
    )
    editor = settings.editor
    assert (editor.steps, settings.checkpoint, editor.optimizer.lr, editor.optimizer.name) == (7, True, 0.01, "Adam")
    assert "source_pull" not in editor.regularizers
