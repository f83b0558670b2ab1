"""How often the offline tagger finds the nouns that nltk's tagger finds, over a csv of prompt pairs.

    python experiments/tagger_agreement.py                      # the 79 pairs of tests/prompt_pairs.csv
    python experiments/tagger_agreement.py folder/index.csv     # any csv with source_prompt, target_prompt

Needs nltk's data (python -m nltk.downloader averaged_perceptron_tagger_eng). Prints the share of pairs with equal nouns, the
mean Jaccard index of the nouns, and the pairs that differ.
"""

import argparse
import csv
from pathlib import Path

from sdist.prompts import differing_nouns
from sdist.taggers import nltk_tagger, pattern_tags


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="?", default=Path(__file__).parent.parent / "tests" / "prompt_pairs.csv")
    with parser.parse_args().pairs.open(encoding="utf-8", newline="") as file:
        rows = [
            (row.get("source") or row["source_prompt"], row.get("target") or row["target_prompt"]) for row in csv.DictReader(file)
        ]
    online = nltk_tagger()
    if online is None:
        print("nltk's data is absent: python -m nltk.downloader averaged_perceptron_tagger_eng")
        return 1
    overlaps = []
    for source, target in rows:
        ours, theirs = ({w.start: w.text for w in differing_nouns(source, target, tagger=t)} for t in (pattern_tags, online))
        overlaps.append(len(ours.keys() & theirs) / len(ours.keys() | theirs) if ours or theirs else 1.0)
        if ours != theirs:
            print(f"{source} -> {target}: offline {', '.join(ours.values()) or '-'}; nltk {', '.join(theirs.values()) or '-'}")
    print(f"{len(rows)} pairs: equal in {overlaps.count(1.0) / len(rows):.0%}, Jaccard {sum(overlaps) / len(rows):.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
