"""The plan for many pictures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.scale import Plan, measured, seconds_per_draw

PROGRAM = Path(__file__).parent.parent / "experiments" / "scale.py"


BENCH = {"seconds_per_image": {"queue": {"median": 1.0}}, "evaluations_per_image": {"queue": 50}}


def test_a_plan_in_numbers() -> None:
    plan = Plan(images=1_000_000, draws=432, seconds=8.64, size=100)
    assert plan.hours == pytest.approx(2400)
    assert plan.machines(days=10) == 10
    assert plan.machines(days=9.99) == 11
    assert seconds_per_draw(BENCH) == 0.02


def test_a_table_from_a_benchmark_and_from_results(tmp_path: Path) -> None:
    card = json.dumps({"attempts": [1, 20, 29]})
    for name, content in {"000_seed0.json": card, "000_seed0.png": "x" * 20, "scores.json": "no card"}.items():
        (tmp_path / name).write_text(content)
    assert measured(tmp_path) == (50, len(card) + 20)
    (tmp_path / "000_seed0_panel.png").write_text("x" * 70)
    assert measured(tmp_path) == (50, len(card) + 90)
    bench = tmp_path / "figures.json"
    bench.write_text(json.dumps({"ratios": {"plain": BENCH}}))
    arguments = [bench, "--results", tmp_path, "--images", 7200, "--price", 3]
    run = subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=True)
    assert "| draws per picture | 50 |" in run.stdout
    assert "| hours of one machine | 2 |" in run.stdout
    assert "| price, at 3 an hour | 6 |" in run.stdout
    assert "| files | 21,600 |" in run.stdout


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no results"):
        measured(tmp_path)
