"""A denoiser alone, run in several ways: seconds until the first result, milliseconds per row, largest relative error.

    python experiments/engines.py                                                               # tinyworld on this CPU
    python experiments/engines.py --model sd15 --device cuda --rows 8 32 --ways eager cudagraphs regional inductor

`sd15`, `sd21`, `sdxl`: random weights of the real size (`--narrow N`: channels by N), fp16 on CUDA. A way whose name ends in
-bf16 has the network in bf16. No layer is recorded. Each way has a line as soon as it has run; then all are timed in turns, so
that a busy machine is equally busy for all.
"""

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from architectures import _unet

from sdist.models.compiled import CompiledForward, engine_for
from sdist.models.loading import load_backbone

TURNS, BF16 = 5, "-bf16"
Run = Callable[..., Any]


def main() -> None:
    args = parse()
    networks = {"": denoiser(args)}
    if any(way.endswith(BF16) for way in args.ways):
        networks[BF16] = deepcopy(networks[""]).bfloat16()
    runs: dict[tuple[int, str], Run] = {}
    exact: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        for way in args.ways:
            name, form, _ = way.partition(BF16)
            unet = networks[form]
            run = WAYS[name](unet)
            for rows in args.rows:
                start, inputs = now(), example(unet, rows)
                for _ in range(3):  # what captures or checks does so in its first calls
                    out = run(*inputs)
                exact.setdefault(rows, networks[""](*example(networks[""], rows), return_dict=False)[0].clone())
                error = float((out - exact[rows]).abs().max() / exact[rows].abs().max())
                ready, ms = now() - start, timed(run, inputs)
                print(f"{way}, {rows} rows: ready in {ready:.1f} s, error {error:.1e}, {ms:.2f} ms per row", flush=True)
                runs[rows, way] = run
        for rows in args.rows:
            given = {form: example(unet, rows) for form, unet in networks.items()}
            turns = [{way: timed(runs[rows, way], given[way.partition(BF16)[1]]) for way in args.ways} for _ in range(TURNS)]
            for way in args.ways:
                values = sorted(turn[way] for turn in turns)
                print(
                    f"{way}, {rows} rows: {values[TURNS // 2]:.2f} ms per row ({values[0]:.2f} to {values[-1]:.2f})", flush=True
                )


def denoiser(args: argparse.Namespace) -> Any:
    if args.model not in ("sd15", "sd21", "sdxl"):
        return load_backbone(args.model, args.device).denoiser
    torch.manual_seed(0)
    with torch.device(args.device):
        unet = _unet(args.model, args.narrow, None)
    dtype = torch.float16 if args.device == "cuda" else torch.float32
    return unet.eval().requires_grad_(False).to(dtype, memory_format=torch.channels_last)


def example(unet: Any, rows: int) -> tuple[torch.Tensor, ...]:
    side, weight = unet.config.sample_size, next(unet.parameters())
    generator = torch.Generator().manual_seed(rows)
    latents = torch.randn(rows, unet.config.in_channels, side, side, generator=generator)
    text = torch.randn(rows, 77, unet.config.cross_attention_dim, generator=generator)
    t = torch.full((rows,), 500, device=weight.device)
    return latents.to(weight, memory_format=torch.channels_last), t, text.to(weight)


def timed(run: Run, inputs: tuple[torch.Tensor, ...], calls: int = 3) -> float:
    start = now()
    for _ in range(calls):
        run(*inputs)
    return (now() - start) / calls / len(inputs[0]) * 1000


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def eager(unet: Any) -> Run:
    return lambda *inputs: unet(*inputs, return_dict=False)[0]


def by_engine(name: Any) -> Callable[[Any], Run]:
    def made(unet: Any) -> Run:
        weight = next(unet.parameters())
        engine = engine_for(name, weight.device.type, weight.dtype)
        assert engine is not None
        return CompiledForward(unet, engine)

    return made


def cudagraphs(unet: Any) -> Run:
    """The eager kernels in a graph of launches per shape, captured by hand."""
    graphs: dict[int, Any] = {}

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs[0]) not in graphs:
            graphs[len(inputs[0])] = torch.cuda.make_graphed_callables(eager(unet), tuple(x.clone() for x in inputs))
        return graphs[len(inputs[0])](*inputs)

    return run


def regional(unet: Any) -> Run:
    """Each transformer block by inductor, the rest eager; for this way alone."""
    torch._dynamo.config.cache_size_limit = 64
    blocks = [module for module in unet.modules() if type(module).__name__ == "BasicTransformerBlock"]
    fast = [torch.compile(block.forward, dynamic=False) for block in blocks]

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        for block, forward in zip(blocks, fast, strict=True):
            block.forward = forward
        try:
            return unet(*inputs, return_dict=False)[0]
        finally:
            for block in blocks:
                del block.forward

    return run


WAYS: dict[str, Callable[[Any], Run]] = {
    "eager": eager, "cudagraphs": cudagraphs, "regional": regional, "inductor": by_engine("inductor"),
    "openvino": by_engine("openvino"),
}  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="tinyworld", help="sd15, sd21, sdxl, or a model that can be loaded (default: tinyworld)"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--narrow", type=int, default=1)
    parser.add_argument("--rows", type=int, nargs="+", default=[2, 8, 16])
    parser.add_argument("--ways", nargs="+", default=["eager", "openvino"], choices=[*WAYS, *(name + BF16 for name in WAYS)])
    return parser.parse_args()


if __name__ == "__main__":
    main()
