"""Peak host memory of loading a pipeline, against the weights as they then run: real layers with random weights, on the CPU.

    python experiments/loading_memory.py               # SD 1.5 at half of the real width: 0.9 GB as a folder, then as one file
    python experiments/loading_memory.py --narrow 1    # the real width: 3.8 GB
    python experiments/loading_memory.py --model sdxl --narrow 1 --stored fp16 --lines bf16    # 5.7 GB

The gate is LUSD's, with a threshold that lets every format pass; its own calls of two rows need memory for activations, too.
"""

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from architectures import UNETS, save_pipeline
from original_format import save_original

from sdist.benchmark.measure import resident
from sdist.config.build import load_settings
from sdist.editors.loading import load_method
from sdist.models.precision import DTYPES

LINES = {"fp32": "dds", "bf16": "dds", "bf16, with the gate": "lusd"}  # what is loaded, and for which method


def save(folder: Path, model: str, narrow: int, dtype: torch.dtype) -> None:
    """A pipeline whose files are in that format."""
    torch.set_default_dtype(dtype)
    save_pipeline(folder, model, narrow, layers=4)


def measured(line: str, folder: Path, model: Path) -> tuple[int, int]:
    """Bytes of weights, and bytes of resident memory at most beyond those of a process that has loaded a tiny model."""
    precision, method = line.partition(",")[0], LINES[line]
    wide = ["filter.threshold=1e9"] if method == "lusd" else []
    load_method(load_settings(method, wide, model="tinyworld", device="cpu", precision=precision))
    before = reset_peak()
    configs = {"model_config": str(folder)} if model.is_file() else {}
    settings = load_settings(method, wide, model=str(model), device="cpu", precision=precision, **configs)
    networks = load_method(settings).model.networks
    weights = sum(p.numel() * p.element_size() for network in networks for p in network.parameters())
    return weights, resident() - before


def reset_peak() -> int:
    """Resident memory now, from which the largest is counted again (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result, computed by a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narrow", type=int, default=2, help="what channels are divided by (default: 2)")
    parser.add_argument("--model", choices=list(UNETS), default="sd15")
    parser.add_argument("--stored", choices=list(DTYPES), default="fp32", help="format of the files (default: fp32)")
    parser.add_argument("--lines", nargs="+", choices=list(LINES), default=list(LINES), metavar="LINE", help=", ".join(LINES))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, file = Path(place) / "folder", Path(place) / "model.safetensors"
        alone(save, folder, args.model, args.narrow, DTYPES[args.stored])
        for model in (folder, file):
            if model == file:
                alone(save_original, folder, file, DTYPES[args.stored])
                for weights in folder.rglob("*.safetensors"):
                    weights.unlink()
            for line in args.lines:
                weights, peak = alone(measured, line, folder, model)
                figures = f"weights {weights / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB, {peak / weights:.2f} times"
                print(f"{model.suffix or 'folder'} in {args.stored}, {line}: {figures}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
