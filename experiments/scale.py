"""What many edits take, from the speed of a benchmark and from results that are there: hours, machines, money, disk.

    sdist bench --json > bench.json
    python experiments/scale.py bench.json --results results --images 1000000 --days 7 --price 2.5

A picture costs its draws, whose mean the run cards of the results tell, at the seconds per draw of the benchmark's queue. A
price is of one machine like that of the benchmark, for an hour, in whatever currency. Prints a Markdown table.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

HOUR, DAY = 3600, 86400


@dataclass(frozen=True)
class Plan:
    """Draws, seconds of one machine and bytes for one picture, and how many pictures are wanted."""

    images: int
    draws: float
    seconds: float
    size: float

    @property
    def hours(self) -> float:
        return self.images * self.seconds / HOUR

    def machines(self, days: float) -> int:
        """How many machines are done within that time if all of them work all of it."""
        return math.ceil(self.images * self.seconds / (days * DAY))


def seconds_per_draw(figures: dict) -> float:
    """The queue's median; what an edit pays once is counted with its draws."""
    return figures["seconds_per_image"]["queue"]["median"] / figures["evaluations_per_image"]["queue"]


def measured(results: Path) -> tuple[float, float]:
    """Mean draws and bytes of the pictures of a folder, each with its run card and, if it is there, its panel."""
    cards = [path for path in results.glob("*.json") if path.with_suffix(".png").exists()]
    if not cards:
        raise SystemExit(f"{results} holds no results")
    draws = sum(sum(json.loads(path.read_text())["attempts"]) for path in cards)
    files = [path for card in cards for path in (card, card.with_suffix(".png"), card.with_name(f"{card.stem}_panel.png"))]
    return draws / len(cards), sum(path.stat().st_size for path in files if path.exists()) / len(cards)


def table(plan: Plan, days: float, price: float | None) -> str:
    rows = {
        "pictures": f"{plan.images:,}",
        "draws per picture": f"{plan.draws:.0f}",
        "seconds per picture, one machine": f"{plan.seconds:.3g}",
        "hours of one machine": f"{plan.hours:,.0f}",
        f"machines, to be done in {days:g} days": f"{plan.machines(days):,}",
        "kB per picture, panel and card with it": f"{plan.size / 1e3:.1f}",
        "GB in all": f"{plan.images * plan.size / 1e9:,.1f}",
        "files": f"{3 * plan.images:,}",
    }
    if price is not None:
        rows[f"price, at {price:g} an hour"] = f"{plan.hours * price:,.0f}"
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def main() -> int:
    args = parse()
    figures = json.loads(args.bench.read_text())
    figures = figures.get("ratios", {}).get("plain", figures)  # docs/performance.json holds several
    draws, size = measured(args.results)
    print(table(Plan(args.images, draws, draws * seconds_per_draw(figures), size), args.days, args.price))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="what sdist bench --json printed")
    parser.add_argument("--results", type=Path, required=True, help="a folder of results of the same method")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=7)
    parser.add_argument("--price", type=float, help="of one machine, an hour")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
