"""Seconds of tinyworld's network by all threads, and the processor time that they take: how threads wait for each other.

python experiments/waiting.py
OMP_WAIT_POLICY=passive python experiments/waiting.py    # beside other work, in turns with the line above
"""

import time

import torch

from sdist.models.loading import load_backbone

ROWS, CALLS = 8, 15


@torch.no_grad()
def main() -> None:
    model = load_backbone("tinyworld", "cpu")
    side, text = model.denoiser.config.sample_size, model.embed(["a red balloon"]).repeat(ROWS)
    z, t = torch.randn(ROWS, model.channels, side, side), torch.full((ROWS,), 500)
    model.estimate(z, t, text)
    start, processor = time.perf_counter(), time.process_time()
    for _ in range(CALLS):
        model.estimate(z, t, text)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    print(f"{torch.get_num_threads()} threads: {seconds:.1f} s, {processor:.1f} s of processor time")


if __name__ == "__main__":
    main()
