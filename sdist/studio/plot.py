"""The curves of a run as one small SVG that takes the page's colours: the gradient's SD, its threshold, draws per step."""

from .timeline import Timeline

WIDTH, HEIGHT, BARS = 320.0, 120.0, 28.0  # the last: the strip for draws per step
LEAST = 4  # draws that a full bar stands for, at least


def curves(timeline: Timeline) -> str:
    """HTML; empty before the first step, and for an editor without a gradient."""
    if not any(timeline.grad_std):
        return ""
    highest = max(*timeline.grad_std, *timeline.threshold) or 1.0
    x = [(i + 0.5) / timeline.steps * WIDTH for i in range(timeline.made)]
    floor = HEIGHT - BARS - 6
    sd = _path(x, [floor - value / highest * (floor - 4) for value in timeline.grad_std])
    threshold = _path(x, [floor - value / highest * (floor - 4) for value in timeline.threshold])
    most = max(timeline.attempts)
    tallest = max(most, LEAST)
    bar = max(0.6, WIDTH / timeline.steps * 0.7)
    heights = [value / tallest * BARS for value in timeline.attempts]
    bars = "".join(
        f'<rect x="{a - bar / 2:.1f}" y="{HEIGHT - h:.1f}" width="{bar:.2f}" height="{h:.1f}"/>'
        for a, h in zip(x, heights, strict=True)
    )
    shown = f'<path class="threshold" d="{threshold}"/>' if any(timeline.threshold) else ""
    last = timeline.grad_std[-1]
    key = f'<span class="sd">gradient SD {last:.4f}</span>'
    key += f'<span class="threshold">threshold {timeline.threshold[-1]:.4f}</span>' if any(timeline.threshold) else ""
    key += f'<span class="draws">draws per step, at most {most}</span>'
    frame = f'viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" aria-label="gradient SD by step"'
    drawn = f'<g class="draws">{bars}</g><path class="sd" d="{sd}"/>{shown}'
    return f'<div class="curves"><svg {frame}>{drawn}</svg><p>{key}</p></div>'


def _path(x: list[float], y: list[float]) -> str:
    return "M" + "L".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
