"""How the studio looks: pictures and their captions as HTML, a theme of the system's own fonts, and the styles."""

import base64
import json
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from ..files.images import mask_image, png_bytes
from .edits import Run
from .form import headline

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
SHOWN = 1024  # pixels of the long side of a picture on the page
MASK_ALT = "the mask: white where the picture may change"
BRANCHES = {"source": "source branch", "edit": "target branch, before the mask"}


def theme() -> gr.themes.Base:
    """Quiet greys and one accent; nothing is fetched."""
    base = gr.themes.Base(primary_hue="teal", secondary_hue="teal", neutral_hue="stone", font=FONT, font_mono=MONO)
    fills = {f"button_primary_background_fill{end}": "*primary_700" for end in ("", "_dark")}
    fills |= {f"button_primary_background_fill_hover{end}": "*primary_800" for end in ("", "_dark")}
    words = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_400"}  # to be read by all
    return base.set(block_border_width="1px", block_shadow="none", button_primary_text_color="white", **fills, **words)


def uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def light(image: Image.Image) -> str:
    """A picture for a glance, as a data URI."""
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=90)
    return uri(buffer.getvalue(), "image/jpeg")


def small(image: Image.Image) -> Image.Image:
    """At most as large as a page shows it."""
    if max(image.size) <= SHOWN:
        return image
    copy = image.copy()
    copy.thumbnail((SHOWN, SHOWN))
    return copy


def figure(source: str, caption: str, alt: str, kind: str) -> str:
    """Caption and alt are escaped here."""
    image = f'<img src="{source}" alt="{escape(alt)}">' if source else '<div class="none"></div>'
    return f'<figure class="{kind}">{image}<figcaption>{escape(caption)}</figcaption></figure>'


def status(text: str, share: float | None = -1.0) -> str:
    """A line; with a bar for a share in 0..1, or one without an end for None. It is read aloud without a bar, or at the end."""
    value = "" if share is None else f' value="{share:.3f}"'
    bar = "" if share is not None and share < 0 else f'<progress max="1"{value} aria-label="progress of the edit"></progress>'
    role = "" if bar and share != 1 else ' role="status"'
    return f'<div class="status"{role}>{bar}<span>{escape(text)}</span></div>'


def problem(text: str) -> str:
    """What went wrong, beside the button until something else is done; empty if nothing did."""
    return f'<div class="problem" role="alert">{escape(text)}</div>' if text else ""


def sized(text: str) -> str:
    return f'<div class="sized" role="status">{escape(text)}</div>' if text else ""


def about(methods: Sequence[str]) -> str:
    """A line for each method."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(headline(name))}</dd>" for name in methods)
    return f'<dl class="about">{lines}</dl>' if lines else ""


def heading(text: str) -> str:
    """For those who hear the page, or walk through it by its headings."""
    return f'<h2 class="unseen">{escape(text)}</h2>'


def empty_stage() -> str:
    return '<div class="stage empty"><p>Drop a picture or choose a scene, say what should be there, and press Edit.</p></div>'


def source_stage(image: Image.Image) -> str:
    """Before the first edit."""
    return f'<div class="stage">{figure(light(image), "the source", "the source picture", "main")}</div>'


def run_stage(run: Run, image: Image.Image, step: int, strength: float) -> str:
    """The picture in the middle; beside it where it came from and where it may change; below, what can be taken along."""
    frame, size = run.timeline.at(step), image.size
    whole = run.result is not None
    shown = uri(png_bytes(image), "image/png") if whole and max(size) <= SHOWN else light(small(image))
    at = (f"step {frame.step}" if frame.step < run.timeline.made else "", f"strength {strength:g}" if strength != 1 else "")
    part = ", ".join(filter(None, at))
    source = f"source: {run.request.source}" if run.request.source else "source"
    rail = figure(light(small(run.before(size))), source, f"the {source}", "small")
    if frame.mask is not None:
        rail += figure(light(mask_image(frame.mask, size)), mask_caption(run), MASK_ALT, "small")
    for name, picture in run.branches(step).items():
        rail += figure(light(picture), BRANCHES[name], f"the {BRANCHES[name]}", "small")
    links = downloads(run, image, frame.step, strength) if whole else ""
    main = figure(shown, f"{run.wish} ({part})" if part else run.wish, f"the edit: {run.wish}", "main")
    return f'<div class="stage">{main}<div class="rail">{rail}{links}</div></div>'


def mask_caption(run: Run) -> str:
    words = run.result.prepared.words if run.result else run.request.words
    followed = words if "words" in run.settings.editor.reads else ()
    return "mask: " + ", ".join(followed) if followed else "mask"


def card_at(run: Run, step: int, strength: float) -> dict[str, Any]:
    """The run's card for the picture at a step: that of a run that was stopped there; a strength is noted."""
    card = {**run.card, "attempts": run.card["attempts"][:step]}
    if step < run.timeline.made and "composition" in card:  # what is kept of the picture depends on the mask of the step
        card["composition"] = {key: value for key, value in card["composition"].items() if key != "kept"}
    return card if strength == 1 else {**card, "strength": strength}


def downloads(run: Run, image: Image.Image, step: int, strength: float) -> str:
    text = json.dumps(card_at(run, step, strength), indent=1, ensure_ascii=False)
    name = f"{run.request.image.stem}_{run.name}_seed{run.request.seed}"
    png, card = uri(png_bytes(image, text), "image/png"), uri(text.encode(), "application/json")
    return (
        f'<p class="take"><a download="{escape(name)}.png" href="{png}" title="the run card is inside">Save PNG</a>'
        f'<a download="{escape(name)}.json" href="{card}">Run card</a></p>'
    )


CSS, JS = ((Path(__file__).parent / f"studio.{end}").read_text(encoding="utf-8") for end in ("css", "js"))
