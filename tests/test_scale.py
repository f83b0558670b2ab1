"""The plan for many pictures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.scale import Plan, bytes_per_image, seconds_per_image

PROGRAM = Path(__file__).parent.parent / "experiments" / "scale.py"


def test_a_plan_in_numbers() -> None:
    plan = Plan(images=1_000_000, seconds=8.64, size=100)
    assert plan.hours == pytest.approx(2400)
    assert plan.machines(days=10) == 10
    assert plan.machines(days=9.99) == 11
    assert seconds_per_image({"seconds_per_image": {"queue": {"median": 2.0}}}, steps=300, bench_steps=30) == 20


def test_a_table_from_a_benchmark_and_from_results(tmp_path: Path) -> None:
    for name, count in {"000_seed0.json": 10, "000_seed0.png": 20, "000_seed0_panel.png": 70, "scores.json": 999}.items():
        (tmp_path / name).write_bytes(b"x" * count)
    assert bytes_per_image(tmp_path) == 100
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps({"ratios": {"plain": {"seconds_per_image": {"queue": {"median": 1.0}}}}}))
    arguments = [bench, "--bench-steps", 300, "--results", tmp_path, "--images", 7200, "--price", 3]
    run = subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=True)
    assert "| hours of one machine | 2 |" in run.stdout
    assert "| price, at 3 an hour | 6 |" in run.stdout
    assert "| files | 21,600 |" in run.stdout


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no results"):
        bytes_per_image(tmp_path)
