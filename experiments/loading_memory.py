"""Peak host memory of loading a pipeline, against the weights as they then run: SD 1.5's layers with random weights, on the CPU.

    python experiments/loading_memory.py               # half of the real width: 0.9 GB of files
    python experiments/loading_memory.py --narrow 1    # the real width: 3.8 GB of files

The gate is LUSD's, with a threshold that lets every format pass; its own calls of two rows need memory for activations, too.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from architectures import save_pipeline

from sdist.benchmark.measure import resident
from sdist.config.build import load_settings
from sdist.editors.loading import load_method

LINES = {"fp32": "dds", "bf16": "dds", "bf16, with the gate": "lusd"}  # what is loaded, and for which method


def measured(line: str, folder: Path) -> tuple[int, int]:
    """Bytes of weights, and bytes of resident memory at most beyond those of a process that has loaded a tiny model."""
    precision, method = line.partition(",")[0], LINES[line]
    wide = ["filter.threshold=1e9"] if method == "lusd" else []
    load_method(load_settings(method, wide, model="tinyworld", device="cpu", precision=precision))
    before = reset_peak()
    model = load_method(load_settings(method, wide, model=str(folder), device="cpu", precision=precision)).model
    weights = sum(p.numel() * p.element_size() for network in model.networks for p in network.parameters())
    return weights, resident() - before


def reset_peak() -> int:
    """Resident memory now, from which the largest is counted again (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narrow", type=int, default=2, help="what channels are divided by (default: 2)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            pool.submit(save_pipeline, Path(folder), "sd15", args.narrow, 4).result()
        for line in LINES:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                weights, peak = pool.submit(measured, line, Path(folder)).result()
            print(f"{line}: weights {weights / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB, {peak / weights:.2f} times")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
