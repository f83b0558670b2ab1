"""The metrics of LUSD's paper (Tables 2 to 4, Figure 8) on the edits that compare_methods.py made, with tinyworld's own CLIP.

    python experiments/compare_methods.py --work runs/compare --pairs 60      # the edits, where they are missing
    python experiments/paper_metrics.py --work runs/compare                   # seconds per method; embeddings are kept

Evaluations are left in WORK/from_FIRST/evaluation/METHOD, comparisons with report.html in WORK/from_FIRST/comparison/.
Tables and plots go to --output, into its part of results.md.
"""

import argparse
import shutil
from pathlib import Path
from typing import get_args

from compare_methods import METHODS, NOTHING, fill

from sdist.cli import main as sdist
from sdist.metrics.profile import Profile

EVERY = [NOTHING, *METHODS]
TABLES = {  # folder: title, group, methods
    "all": ("All edits (the paper's Table 2)", "all", EVERY),
    "add": ("Additions (Table 3)", "add", EVERY),
    "attach": ("Attachments (Table 3)", "attach", EVERY),
    "ablations": ("Ablations (Table 4)", "all", [m for m in METHODS if m.startswith("lusd")]),
}
PART = """    python experiments/paper_metrics.py --work runs/compare --profile {profile}

{tables}
![share of edits that pass each threshold of CLIP-R](success.png)

![prompt fidelity against what is kept](trade_off.png)
"""


def main() -> int:
    args = parse()
    work = args.work / f"from_{args.first}"
    methods = args.methods.split(",")
    for method in methods:
        evaluate(args, work, method)
    tables = ""
    for folder, (title, group, chosen) in TABLES.items():
        tables += f"### {title}\n\n{compare(work, folder, group, [m for m in chosen if m in methods])}\n"
    args.output.mkdir(parents=True, exist_ok=True)
    fill(args.output / "results.md", "metrics", PART.format(profile=args.profile, tables=tables))
    for plot in ("success.png", "trade_off.png"):
        shutil.copy(work / "comparison" / "all" / plot, args.output / plot)
    return 0


def evaluate(args: argparse.Namespace, work: Path, method: str) -> None:
    """Scores one method's edits; doing nothing leaves the sources."""
    results = work / "input" / "images" if method == NOTHING else work / method
    where = ["--results", str(results), "--output", str(work / "evaluation" / method), "--cache", str(work / "embeddings")]
    dataset = f"tinyworld:{work / 'input'}"
    run(["evaluate", "--dataset", dataset, *where, "--clip", "tinyworld", "--profile", args.profile, "--overwrite", "--quiet"])


def compare(work: Path, name: str, group: str, methods: list[str]) -> str:
    """The comparison of those methods in that group, as Markdown."""
    folder = work / "comparison" / name
    run(["compare", *(str(work / "evaluation" / m) for m in methods), "--group", group, "--output", str(folder), "--quiet"])
    return (folder / "comparison.md").read_text()


def run(arguments: list[str]) -> None:
    code = sdist(arguments)
    if code:
        raise SystemExit(code)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder that compare_methods.py was given")
    parser.add_argument("--output", type=Path, default=Path("docs"))
    parser.add_argument("--methods", default=",".join(EVERY))
    parser.add_argument("--first", type=int, default=0, help="number of the first pair")
    parser.add_argument(
        "--profile", choices=get_args(Profile), default="official", help="as the paper's code computes, or corrected"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
