"""The page: what stands where, and what happens when something is pressed."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from .html import empty_stage
from .limits import Offer
from .scenes import thumbnails
from .visitor import Visitor

SIDE = 512  # pixels of the short side of a picture that is painted on
BRUSH = "#e8590c"


@dataclass(frozen=True)
class Page:
    """The components that events read or change."""

    visitor: gr.State
    picture: gr.Image
    scenes: gr.Gallery
    source: gr.Textbox
    target: gr.Textbox
    words: gr.CheckboxGroup
    edit: gr.Button
    stop: gr.Button
    methods: gr.Dropdown
    model: gr.Dropdown
    seed: gr.Number
    seeds: gr.Number
    steps: gr.Number
    size: gr.Textbox
    overrides: gr.Textbox
    masking: gr.Accordion
    editor: gr.ImageEditor
    cards: gr.File
    pasted: gr.Textbox
    restore: gr.Button
    stage: gr.HTML
    status: gr.HTML
    at: gr.Slider
    strength: gr.Slider
    onward: gr.Button
    curves: gr.HTML
    runs: gr.Gallery


def layout(offer: Offer) -> Page:
    """Draws the page inside the Blocks that are open: what is asked on the left, what comes of it on the right."""
    made: dict[str, Any] = {"visitor": gr.State(Visitor(offer.root), delete_callback=Visitor.close)}
    gr.HTML('<div class="masthead"><b>sdist studio</b><span>edit a picture by saying what should be there</span></div>')
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            made |= _asked(offer)
        with gr.Column(scale=7, min_width=320, elem_id="shown"):
            made |= _shown()
    return Page(**made)


def _asked(offer: Offer) -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["picture"] = gr.Image(
        label="Picture", sources=["upload", "clipboard"], type="filepath", format="png", height=200, buttons=[], elem_id="picture"
    )
    made["scenes"] = gr.Gallery(
        thumbnails(),
        label="or a drawn scene",
        columns=6,
        allow_preview=False,
        interactive=False,
        format="png",
        buttons=[],
        elem_id="scenes",
    )
    made["source"] = gr.Textbox(label="What is there", placeholder="a cat on a sofa", elem_id="source")
    made["target"] = gr.Textbox(label="What should be there", placeholder="a cat wearing a hat on a sofa", elem_id="target")
    made["words"] = gr.CheckboxGroup([], label="The edit follows these words", visible=False, elem_id="words")
    made["methods"] = gr.Dropdown(
        offer.methods, value=offer.methods[:1], multiselect=True, label="Method, or several to compare", elem_id="methods"
    )
    made["edit"] = gr.Button("Edit", variant="primary", size="lg", elem_id="edit")
    made["stop"] = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="stop")
    made |= _mask() | _more(offer) | _card()
    made["picture"].preprocess = lambda payload: payload  # the file as it came: it is opened, and refused, in one place
    return made


def _mask() -> dict[str, Any]:
    with gr.Accordion("Paint where it may change", open=False, elem_id="masking") as masking:
        brush = gr.Brush(default_size=48, colors=[BRUSH], color_mode="fixed")
        editor = gr.ImageEditor(
            show_label=False, sources=(), type="pil", transforms=(), layers=False, height=380, buttons=[], format="png",
            brush=brush, canvas_size=(SIDE, SIDE), elem_id="editor",
        )  # fmt: skip
    return {"masking": masking, "editor": editor}


def _more(offer: Offer) -> dict[str, Any]:
    with gr.Accordion("Model, seeds, settings", open=False, elem_id="settings"):
        model = gr.Dropdown(offer.models, value=offer.models[0], label="Model")
        with gr.Row():
            whole: dict[str, Any] = {"precision": 0, "min_width": 80}
            seed = gr.Number(0, label="Seed", minimum=0, elem_id="seed", **whole)
            seeds = gr.Number(1, label="Seeds", minimum=1, maximum=offer.limits.edits, elem_id="seeds", **whole)
            steps = gr.Number(
                0, label="Steps", info="0: the method's", minimum=0, maximum=offer.limits.steps, elem_id="steps", **whole
            )
        size = gr.Textbox("native", label="Size", info="native, keep or WIDTHxHEIGHT")
        example = "regularizers.source_pull.weight=0.05"
        overrides = gr.Textbox("", label="Settings of the method", lines=2, placeholder=example, elem_id="overrides")
    return {"model": model, "seed": seed, "seeds": seeds, "steps": steps, "size": size, "overrides": overrides}


def _card() -> dict[str, Any]:
    with gr.Accordion("Restore from a run card", open=False, elem_id="restoring"):
        label = "an edited PNG or a .json, with its source picture if it is new here"
        cards = gr.File(label=label, file_count="multiple", height=120, elem_id="cards")
        pasted = gr.Textbox(label="or paste a run card", lines=2, max_lines=6, elem_id="pasted")
        restore = gr.Button("Restore", size="sm", elem_id="restore")
    return {"cards": cards, "pasted": pasted, "restore": restore}


def _shown() -> dict[str, Any]:
    made: dict[str, Any] = {"stage": gr.HTML(empty_stage(), elem_id="stage")}
    made["status"] = gr.HTML(status(""), elem_id="status")
    with gr.Row(elem_id="look"):
        off: dict[str, Any] = {"interactive": False, "min_width": 150, "buttons": []}
        made["at"] = gr.Slider(0, 1, value=0, step=1, label="Timeline", elem_id="at", scale=3, **off)
        made["strength"] = gr.Slider(0, 1.5, value=1, step=0.05, label="Strength", elem_id="strength", scale=2, **off)
        made["onward"] = gr.Button("Continue from here", size="md", interactive=False, scale=1, min_width=150, elem_id="onward")
    made["curves"] = gr.HTML("", elem_id="curves")
    made["runs"] = gr.Gallery(
        [],
        label="Edits so far",
        columns=6,
        allow_preview=False,
        interactive=False,
        visible=False,
        format="png",
        buttons=[],
        elem_id="runs",
    )
    return made


def status(text: str) -> str:
    return f'<div class="status" role="status">{escape(text)}</div>'


def paintable(image: Image.Image, mask: Image.Image | None = None) -> dict[str, Any]:
    """The picture as the mask editor takes it, large enough to paint on, with what was painted before."""
    factor = SIDE / min(image.size)
    large = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    layers = []
    if mask is not None:
        layers.append(Image.new("RGBA", large.size, BRUSH))
        layers[0].putalpha(mask.convert("L").resize(large.size))
    return {"background": large, "layers": layers, "composite": None}


def painted(value: dict[str, Any] | None) -> Image.Image | None:
    """White where something was painted; None if nothing was."""
    layers = [] if value is None else [layer.getchannel("A") for layer in value["layers"] if layer is not None]
    if not any(layer.getbbox() for layer in layers):
        return None
    mask = Image.new("L", layers[0].size)
    for layer in layers:
        mask.paste(255, mask=layer)
    return mask
