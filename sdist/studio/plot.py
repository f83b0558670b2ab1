"""The curves of a run as one small SVG that takes the page's colours: the gradient's SD, its threshold, draws per step."""

from .timeline import Timeline

WIDTH, HEIGHT, BARS = 320.0, 120.0, 28.0  # the last: the strip for draws per step
LEAST = 4  # draws that a full bar stands for, at least


def curves(timeline: Timeline) -> str:
    """HTML; empty before the first step, and for an editor without a gradient. The axis is as long as the steps made."""
    made = timeline.made
    if not made or not any(timeline.grad_std):
        return ""
    stds, thresholds, attempts = timeline.grad_std[:made], timeline.threshold[:made], timeline.attempts[:made]
    highest = max(*stds, *thresholds) or 1.0
    x = [(i + 0.5) / made * WIDTH for i in range(made)]
    floor = HEIGHT - BARS - 6
    sd = _path(x, [floor - value / highest * (floor - 4) for value in stds])
    threshold = _path(x, [floor - value / highest * (floor - 4) for value in thresholds])
    tallest = max(*attempts, LEAST)
    bar = max(0.6, WIDTH / made * 0.7)
    heights = [value / tallest * BARS for value in attempts]
    bars = "".join(
        f'<rect x="{a - bar / 2:.1f}" y="{HEIGHT - h:.1f}" width="{bar:.2f}" height="{h:.1f}"/>'
        for a, h in zip(x, heights, strict=True)
    )
    shown = f'<path class="threshold" d="{threshold}"/>' if any(thresholds) else ""
    label = f"gradient SD of steps 1 to {made}"
    frame = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" aria-label="{label}"'
    drawn = f'<g class="draws">{bars}</g><path class="sd" d="{sd}"/>{shown}'
    return f'<div class="curves"><svg {frame}>{drawn}</svg><p>{_key(stds, thresholds, attempts)}</p></div>'


def _key(stds: list[float], thresholds: list[float], attempts: list[int]) -> str:
    """What the colours mean, with the newest values."""
    key = f'<span class="sd">gradient SD {stds[-1]:.4f}</span>'
    key += f'<span class="threshold">threshold {thresholds[-1]:.4f}</span>' if any(thresholds) else ""
    mean = sum(attempts) / len(attempts)
    return key + f'<span class="draws">{mean:.2f} draws per step, at most {max(attempts)}</span><b>steps 1 to {len(attempts)}</b>'


def _path(x: list[float], y: list[float]) -> str:
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
