"""From the command to the picture: seconds of whole processes, each with more than the one before.

python experiments/startup.py    # the table of docs/performance.md; medians, on a machine with nothing else to do
"""

import argparse
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

EDIT = 'edit assets/demo.png --source "a field of snow" --target "a red balloon in the snow" --quiet --overwrite --output'
IMPORTS = {
    "Python": "pass",
    "with torch": "import torch",
    "with diffusers and transformers": "import torch, diffusers.models, transformers",
    "with Lightning": "import torch, diffusers.models, transformers, pytorch_lightning",
}
EDITS = {
    "`sdist edit`, one step": "--steps 1",
    "`sdist edit`": "",
    "`sdist edit --compile openvino`": "--compile openvino",
    "`sdist edit --method flowedit`": "--method flowedit",
    "`sdist edit --method lusd`, 300 steps": "--method lusd",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        commands = {name: ["-c", text] for name, text in IMPORTS.items()}
        commands |= {name: ["-m", "sdist", *shlex.split(EDIT), folder, *more.split()] for name, more in EDITS.items()}
        print("| | seconds | of the processors |\n|---|---|---|")
        for name, command in commands.items():
            wall, busy = zip(*(seconds([sys.executable, *command]) for _ in range(turns)), strict=True)
            print(f"| {name} | {statistics.median(wall):.1f} | {statistics.median(busy):.1f} |", flush=True)


def seconds(command: list[str]) -> tuple[float, float]:
    """Of the clock, and of all processors together."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
