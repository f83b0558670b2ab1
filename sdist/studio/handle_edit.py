"""Handlers for an edit: begin, watch, stop, and look at it afterwards."""

import time
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

import gradio as gr

from .edits import Run, follow
from .form import Wanted, runs_of
from .handle_source import placed
from .html import run_stage
from .limits import Offer, shown_errors
from .page import painted, status
from .plot import curves
from .visitor import Visitor


def begin(visitor: Visitor) -> list[Any]:
    """Before the queue, so that Stop works while an edit waits."""
    if visitor.busy:
        raise gr.Error("An edit is being made; stop it first.", print_exception=False)
    visitor.stop, visitor.busy = Event(), True
    return [gr.update(visible=False), gr.update(visible=True), status("waiting for the model")]


def edit(
    offer: Offer, visitor: Visitor, editor: dict[str, Any] | None, source: str, target: str,
    methods: Sequence[str], model: str, seed: float | None, seeds: float | None, steps: float | None, size: str, overrides: str,
) -> Iterator[list[Any]]:  # fmt: skip
    """Makes all runs that are asked for, one after the other, and shows them growing."""
    try:
        with shown_errors():
            mask = painted(editor)
            chosen = visitor.ticked[1] if visitor.ticked is not None and visitor.ticked[0] == target else None
            wanted = Wanted(
                image=visitor.source, source=source, target=target, methods=methods, model=model, seed=int(seed or 0),
                seeds=1 if seeds is None else int(seeds), chosen=chosen,
                mask=None if mask is None else visitor.take_image(mask, "mask"),
                steps=int(steps or 0), size=size, overrides=overrides, card=visitor.card,
            )  # fmt: skip
            for run in runs_of(wanted, offer.limits):
                if visitor.stop is not None and not visitor.stop.is_set():
                    yield from _watch(offer, visitor, run)
    finally:
        visitor.busy = False


def _watch(offer: Offer, visitor: Visitor, run: Run) -> Iterator[list[Any]]:
    assert visitor.stop is not None
    start = time.monotonic()
    for _ in follow(run, visitor.stop, offer.limits):
        if run.timeline.frames:
            if visitor.shown is not run:
                visitor.show(run)
            yield [*seen(run, run.timeline.made, time.monotonic() - start), gallery(visitor) if run.result else gr.skip()]


def seen(run: Run, step: int, seconds: float | None = None) -> list[Any]:
    """Stage, status, curves, sliders and the way onward of a run at a step."""
    done = run.result is not None
    last = max(1, run.timeline.made) if done else run.timeline.steps
    shown = [run_stage(run, run.picture(step), step, 1.0), status(progress(run, seconds)), curves(run.timeline)]
    at, strength = gr.update(maximum=last, value=step, interactive=done), gr.update(value=1.0, interactive=done)
    return [*shown, at, strength, gr.update(interactive=done)]


def end() -> list[Any]:
    return [gr.update(visible=True), gr.update(visible=False)]


def failed(visitor: Visitor) -> list[Any]:
    """Also where the queue was full and no edit began."""
    visitor.busy = False
    return [*end(), status("nothing was made")]


def stop(visitor: Visitor) -> Any:
    if visitor.stop is None:
        return gr.skip()
    visitor.stop.set()
    return status("stopping")


def scrub(visitor: Visitor, step: float, strength: float) -> Any:
    """The picture at another step or strength."""
    run = visitor.shown
    if run is None or run.result is None:
        return gr.skip()
    with shown_errors():
        return run_stage(run, run.picture(int(step), strength), int(step), strength)


def choose_run(visitor: Visitor, event: gr.SelectData) -> list[Any]:
    """Another of the edits so far."""
    if visitor.busy or event.index >= len(visitor.ended):
        return [gr.skip()] * 6
    visitor.shown = visitor.ended[event.index]
    with shown_errors():
        return seen(visitor.shown, visitor.shown.timeline.made)


def onward(visitor: Visitor, step: float, strength: float) -> list[Any]:
    """The picture that is shown becomes the source, with what it shows as its prompt."""
    run = visitor.shown
    if run is None or run.result is None:
        return [gr.skip()] * 7
    with shown_errors():
        visitor.source = visitor.take_image(run.picture(int(step), strength), f"{run.request.image.stem}_edited")
    return [*placed(visitor), run.request.target, "", gr.update(choices=[], value=[], visible=False)]


def gallery(visitor: Visitor) -> Any:
    return gr.update(value=[(run.result.image, run.label) for run in visitor.ended if run.result], visible=bool(visitor.ended))


def progress(run: Run, seconds: float | None) -> str:
    """One line: how far, how often a draw was refused, how long."""
    made, steps = run.timeline.made, run.timeline.steps
    draws = f", {sum(run.timeline.attempts) / made:.2f} draws per step" if any(run.timeline.grad_std) else ""
    if run.result is not None:
        how = "done" if made == steps else f"stopped after {made} of {steps} steps"
        took = next(run.result.timings[name] for name in ("optimize", "edit") if name in run.result.timings)
        return f"{run.label}: {how}{draws}, {took:.1f} s"
    left = f", about {seconds / made * (steps - made):.0f} s left" if seconds and made >= 3 else ""
    return f"{run.label}: step {made} of {steps}{draws}{left}"
