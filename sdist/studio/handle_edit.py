"""Handlers for an edit: begin, watch, stop, and look at it afterwards."""

from time import monotonic
from typing import Any

import gradio as gr

from ..errors import UserError
from .edits import BusyError, Run, Work
from .form import EditOrder, runs_of
from .handle_source import placed
from .html import problem, run_stage, status
from .page import OFTEN, SELDOM, painted
from .plot import curves
from .visitor import Visitor, form_of

SHARE = 3  # as many times as a look takes is the edit left alone


def begin(visitor: Visitor, editor: dict[str, Any] | None, *fields: Any) -> dict[str, Any]:
    """Has the edits made that are asked for; what is wrong with them is known at once."""
    if visitor.is_busy:
        raise UserError("an edit is being made; stop it first")
    form, mask = form_of(*fields), painted(editor)
    visitor.form, visitor.mask = form, mask
    chosen = visitor.ticked[1] if visitor.ticked is not None and visitor.ticked[0] == form.target else None
    wanted = EditOrder(
        image=visitor.source, source=form.source, target=form.target, methods=form.methods, model=form.model, seed=form.seed,
        seeds=form.seeds, chosen=chosen, mask=None if mask is None else visitor.take_image(mask, "mask"), steps=form.steps,
        size=form.size, overrides=form.overrides, card=visitor.card, keep_background=form.keep_background,
        output_size=form.output_size, crop=form.crop, added=visitor.offer.chosen(form.vae, form.lora, form.embedding),
    )  # fmt: skip
    visitor.ask(runs_of(wanted, visitor.offer.limits))
    return {**buttons(visitor), "status": status("beginning", 0.0)}


def watch(visitor: Visitor, mark: str) -> dict[str, Any]:
    """What has changed since the look that `mark` names; nothing while the page rests, so that the edit goes on."""
    work = visitor.work
    ended = work is not None and work.ended  # before the rest is looked at, so that the last look sees the last step
    newest = _mark(visitor)
    if work is None or (mark == newest and ended):
        return {}
    answer = {"status": _status_of(visitor, work)}
    if monotonic() < visitor.rests and not ended:
        return answer
    began, run = monotonic(), visitor.shown
    looked = seen_if_free(run, run.timeline.made) if run is not None and run in work.runs and mark != newest else {}
    changes = {**looked, **answer}
    changes |= {} if mark.split(".")[-1] == newest.split(".")[-1] else {"runs": gallery(visitor)}
    changes |= {**buttons(visitor), "problem": problem(work.problem)} if ended else {}
    visitor.rests = monotonic() + SHARE * (monotonic() - began)
    return {**changes, "mark": newest}


def _mark(visitor: Visitor) -> str:
    """Names what there is to see: changes with every step, and its end with every edit that was made."""
    work = visitor.work
    return f"{visitor.presses}.{work.news if work else 0}.{len(visitor.ended)}"


def _status_of(visitor: Visitor, work: Work) -> str:
    """How far the edits are, in a line with a bar."""
    run = work.run
    if work.ended or run is None or run.result is not None:
        run = visitor.shown if visitor.shown in work.runs else None
    if run is None and work.ended:
        return status("" if work.problem else "stopped before it began")
    if work.stop.is_set() and not work.ended:
        return status("stopping" if run is None else f"{run.label}: stopping", None)
    if run is None:
        ahead = visitor.offer.bench.ahead(work)
        return status(f"waiting: {ahead} of other visitors before yours" if ahead else "beginning", 0.0)
    if work.loading:
        return status(f"{run.label}: loading the model {run.settings.model}, {monotonic() - run.began:.0f} s", None)
    if not run.timeline.steps:
        return status(_remarked(run, "preparing the picture"), None)
    return status(progress(run), 1.0 if run.result else run.timeline.made / run.timeline.steps)


def buttons(visitor: Visitor) -> dict[str, Any]:
    """Edit or Stop, and how often the page asks for news."""
    busy = visitor.is_busy
    clock = gr.Timer(OFTEN if busy else SELDOM, active=True)
    return {"edit": gr.update(visible=not busy), "stop": gr.update(visible=busy), "clock": clock}


def seen_if_free(run: Run, step: int, strength: float = 1.0) -> dict[str, Any]:
    """What `seen` says, or that the picture comes later."""
    try:
        return seen(run, step, strength)
    except BusyError as error:
        return {"status": status(str(error))}


def seen(run: Run, step: int, strength: float = 1.0) -> dict[str, Any]:
    """Stage, status, curves, sliders and the way onward of a run at a step. Raises BusyError, see Run.picture."""
    done = run.result is not None
    last, drawn = max(1, run.timeline.made) if done else run.timeline.steps, curves(run.timeline)
    return {
        "stage": run_stage(run, run.picture(step, strength), step, strength),
        "status": status(progress(run), 1.0 if done else step / max(1, run.timeline.steps)),
        "curves": drawn,
        "details": gr.update(visible=bool(drawn)),
        "at": gr.update(maximum=last, value=step, interactive=done),
        "strength": gr.update(value=strength, interactive=done),
        "onward": gr.update(interactive=done),
    }


def stop(visitor: Visitor) -> dict[str, Any]:
    """Ends the edit that is made after its round, and one that waits at once."""
    if visitor.work is None or visitor.work.ended:
        return {}
    visitor.work.stop.set()
    if visitor.offer.bench.leave(visitor.work):
        visitor.work()  # ends it, since nothing is made after a stop
    return {"status": status("stopping", None)}


def scrub(visitor: Visitor, step: float, strength: float) -> dict[str, Any]:
    """The picture at another step or strength."""
    run = visitor.shown
    if run is None or run.result is None:
        return {}
    visitor.look = (int(step), strength)
    return {"stage": run_stage(run, run.picture(int(step), strength), int(step), strength)}


def choose_run(visitor: Visitor, event: gr.SelectData) -> dict[str, Any]:
    """Another of the edits so far."""
    if visitor.is_busy or event.index >= len(visitor.ended):
        return {}
    run = visitor.ended[event.index]
    changes = seen(run, run.timeline.made)
    visitor.shown, visitor.look = run, None  # unless it cannot be seen yet
    return changes


def onward(visitor: Visitor, step: float, strength: float) -> dict[str, Any]:
    """The picture that is shown becomes the source, with what it shows as its prompt."""
    run = visitor.shown
    if run is None or run.result is None:
        return {}
    visitor.source = visitor.take_image(run.picture(int(step), strength), f"{run.request.image.stem}_edited")
    visitor.form.source, visitor.form.target = run.request.target, ""
    words = gr.update(choices=[], value=[], visible=False)
    return {**placed(visitor), "source": run.request.target, "target": "", "words": words}


def gallery(visitor: Visitor) -> Any:
    return gr.update(value=[(run.thumbnail, run.label) for run in visitor.ended], visible=bool(visitor.ended))


def progress(run: Run) -> str:
    """One line: how far, and how long."""
    made, steps = run.timeline.made, run.timeline.steps
    if run.result is not None:
        ended = "done after" if run.result.is_whole else "stopped after"
        how = f"done, {steps} steps" if made == steps else f"{ended} {made} of {steps} steps"
        took = next(run.result.timings[name] for name in ("optimize", "edit") if name in run.result.timings)
        return _remarked(run, f"{how}, {took:.1f} s")
    seconds = monotonic() - run.began
    left = f", about {seconds / made * (steps - made):.0f} s left" if made >= 3 else ""
    return _remarked(run, f"step {made} of {steps}{left}")


def _remarked(run: Run, text: str) -> str:
    return "; ".join(filter(None, (f"{run.label}: {text}", run.remark)))
