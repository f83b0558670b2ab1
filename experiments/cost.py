"""What a thousand edits cost on real models: operations of the denoiser, counted on the meta device at the models' native sizes.

    python experiments/cost.py          # the table of docs/performance.md

An edit's rows are its steps times the rows of a draw; of LUSD, whose filter rejects draws, times --draws. Autoencoder and
text encoders, which run once per edit, and gradients through the network are not counted.
"""

import argparse
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from model_sizes import SD3, unet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sdist.config.build import load_settings
from sdist.prediction import rows_of

METHODS = ("lusd", "sds", "dds", "flowedit", "localflow")
TOKENS = 333  # that SD3 reads: 77 of CLIP and 256 of T5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--draws", type=float, default=3.14, help="per step of a filter; of tinyworld in sdist bench (default: 3.14)"
    )
    draws = parser.parse_args().draws
    with torch.device("meta"), torch.no_grad():
        row = {name: flops(*network) for name, network in networks().items()}
    print(f"| | rows | {' | '.join(row)} |\n|{'---|' * (len(row) + 2)}")
    print(f"| one row, TFLOP | 1 | {' | '.join(f'{value / 1e12:.2f}' for value in row.values())} |")
    for method in METHODS:
        rows = {name: edit_rows(method, name, draws) for name in row}
        counts = " / ".join(f"{value:.0f}" for value in dict.fromkeys(rows.values()))
        print(f"| {method} | {counts} | {' | '.join(f'{1000 * rows[name] * row[name] / 1e18:.2f}' for name in row)} |")


def networks() -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """Denoisers by alias, each with what it is called with for one row."""
    t, pooled = torch.ones(1), torch.zeros(1, 1280)

    def of_unet(side: int, width: int) -> dict[str, Any]:
        return {"sample": torch.zeros(1, 4, side, side), "timestep": t, "encoder_hidden_states": torch.zeros(1, 77, width)}

    sdxl = of_unet(128, 2048) | {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": torch.zeros(1, 6)}}
    sd3 = {
        "hidden_states": torch.zeros(1, 16, 128, 128), "timestep": t, "pooled_projections": torch.zeros(1, 2048),
        "encoder_hidden_states": torch.zeros(1, TOKENS, 4096),
    }  # fmt: skip
    return {"sd15": (unet("sd15"), of_unet(64, 768)), "sdxl": (unet("sdxl"), sdxl), "sd3": (SD3Transformer2DModel(**SD3), sd3)}


def flops(network: nn.Module, inputs: dict[str, Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        network(**inputs)
    return counter.get_total_flops()


def edit_rows(method: str, model: str, draws: float) -> float:
    """Rows of one edit by the method's constants for that model."""
    editor = load_settings(method, model=model).editor
    return editor.steps * len(rows_of(editor.branches, "cfg")) * (draws if editor.filter is not None else 1)


if __name__ == "__main__":
    main()
