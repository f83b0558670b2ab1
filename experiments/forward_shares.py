"""What share of the UNet's forward depends on the prompt or the timestep alone, and so could be kept between rounds.

    python experiments/forward_shares.py

FLOPs are counted on the meta device, where SD 1.5 and SDXL have their real width; on tinyworld the time is measured too.
"""

import statistics
import time
from typing import Any

import torch
from architectures import UNETS
from diffusers import UNet2DConditionModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sdist.models.loading import load_backbone

PARTS = {
    "text keys and values": (".attn2.to_k", ".attn2.to_v"),
    "time embeddings": ("time_proj", "time_embedding", "time_emb_proj"),
}
ROWS, CALLS = (2, 8, 16), 15


def main() -> int:
    tinyworld = load_backbone("tinyworld", "cpu").denoiser
    with torch.device("meta"):
        real = {name: UNet2DConditionModel(layers_per_block=2, **UNETS[name]) for name in ("sd15", "sdxl")}
    for name, unet in {"tinyworld": UNet2DConditionModel.from_config(tinyworld.config).to("meta"), **real}.items():
        for rows in (2, 16):
            total, shares = flops(unet, rows)
            print(f"{name}, {rows} rows: {total / 1e9:.1f} GFLOP, of them {as_text(shares)}")
    for rows in ROWS:
        print(f"tinyworld, {rows} rows, time: {as_text(seconds(tinyworld, rows))}")
    return 0


def flops(unet: nn.Module, rows: int) -> tuple[int, dict[str, float]]:
    with FlopCounterMode(display=False) as counter:
        call(unet, rows)
    by_module = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    total = by_module["Global"]
    return total, {part: sum(n for m, n in by_module.items() if m.endswith(ends)) / total for part, ends in PARTS.items()}


def seconds(unet: nn.Module, rows: int) -> dict[str, float]:
    """Medians over calls of the shares of processor time in the modules of each part."""
    spent, shares = dict.fromkeys(PARTS, 0.0), {part: list[float]() for part in PARTS}

    def count(part: str, sign: int) -> None:
        spent[part] += sign * time.process_time()

    hooks = []
    for part, ends in PARTS.items():
        for module in (m for name, m in unet.named_modules() if name.endswith(ends)):
            hooks.append(module.register_forward_pre_hook(lambda *_, p=part: count(p, -1)))
            hooks.append(module.register_forward_hook(lambda *_, p=part: count(p, 1)))
    for _ in range(CALLS):
        spent.update(dict.fromkeys(PARTS, 0.0))
        start = time.process_time()
        call(unet, rows)
        whole = time.process_time() - start
        for part in PARTS:
            shares[part].append(spent[part] / whole)
    for hook in hooks:
        hook.remove()
    return {part: statistics.median(values) for part, values in shares.items()}


@torch.no_grad()
def call(unet: Any, rows: int) -> None:
    c, device = unet.config, next(unet.parameters()).device
    z = torch.randn(rows, 4, c.sample_size, c.sample_size, device=device)
    text = torch.randn(rows, 77, c.cross_attention_dim, device=device)
    ids = {"text_embeds": torch.zeros(rows, 1280, device=device), "time_ids": torch.zeros(rows, 6, device=device)}
    unet(z, torch.full((rows,), 500, device=device), text, added_cond_kwargs=ids)


def as_text(shares: dict[str, float]) -> str:
    return ", ".join(f"{part} {share:.2%}" for part, share in shares.items())


if __name__ == "__main__":
    raise SystemExit(main())
