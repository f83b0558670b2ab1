"""The page: what stands where, and what happens when something is pressed."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from .limits import Limits
from .looks import empty_stage
from .scenes import thumbnails

SIDE = 512  # pixels of the short side of a picture that is painted on


@dataclass(frozen=True)
class Page:
    """The components that events read or change."""

    desk: gr.State
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


def layout(methods: list[str], models: list[str], limits: Limits) -> Page:
    """Draws the page inside the Blocks that are open: what is asked on the left, what comes of it on the right."""
    made: dict[str, Any] = {"desk": gr.State(delete_callback=lambda desk: desk and desk.close())}
    gr.HTML('<div class="masthead"><b>sdist studio</b><span>edit a picture by saying what should be there</span></div>')
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            made |= _asked(methods, models, limits)
        with gr.Column(scale=7, min_width=320):
            made |= _shown()
    return Page(**made)


def _asked(methods: list[str], models: list[str], limits: Limits) -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["picture"] = gr.Image(label="Picture", sources=["upload", "clipboard"], type="filepath", format="png", height=230,
                               buttons=[], elem_id="picture")  # fmt: skip
    made["picture"].preprocess = lambda payload: payload  # the file as it was given: it is opened, and refused, in one place
    made["scenes"] = gr.Gallery(thumbnails, label="or a drawn scene", columns=6, height=96, allow_preview=False, buttons=[],
                                interactive=False, object_fit="cover", format="png", elem_id="scenes")  # fmt: skip
    made["source"] = gr.Textbox(label="What is there", placeholder="a cat on a sofa", lines=1, elem_id="source")
    made["target"] = gr.Textbox(
        label="What should be there", placeholder="a cat wearing a hat on a sofa", lines=1, elem_id="target"
    )
    made["words"] = gr.CheckboxGroup([], label="The edit follows these words", visible=False, elem_id="words")
    made["edit"] = gr.Button("Edit", variant="primary", size="lg", elem_id="edit")
    made["stop"] = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="stop")
    made["methods"] = gr.Dropdown(methods, value=methods[:1], multiselect=True, label="Methods, side by side if several",
                                  elem_id="methods")  # fmt: skip
    with gr.Accordion("Paint where it may change", open=False, elem_id="masking") as made["masking"]:
        made["editor"] = gr.ImageEditor(
            show_label=False, sources=(), type="pil", transforms=(), layers=False, height=380, buttons=[], format="png",
            brush=gr.Brush(default_size=48, colors=["#e8590c"], color_mode="fixed"), canvas_size=(SIDE, SIDE), elem_id="editor",
        )  # fmt: skip
    with gr.Accordion("Model, seeds, settings", open=False):
        made["model"] = gr.Dropdown(models, value=models[0], label="Model")
        with gr.Row():
            made["seed"] = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=80)
            made["seeds"] = gr.Number(1, label="Seeds", precision=0, minimum=1, maximum=limits.edits, min_width=80)
            made["steps"] = gr.Number(
                0, label="Steps (0: the method's)", precision=0, minimum=0, maximum=limits.steps, min_width=80
            )
        made["size"] = gr.Textbox("native", label="Size: native, keep or WIDTHxHEIGHT")
        made["overrides"] = gr.Textbox(
            "", label="Further settings, KEY=VALUE a line", lines=2, placeholder="regularizers.source_pull.weight=0.05"
        )
    with gr.Accordion("Restore from a run card", open=False, elem_id="restoring"):
        made["cards"] = gr.File(
            label="an edited PNG or a .json; its source picture may come along", file_count="multiple", height=110
        )
        made["pasted"] = gr.Textbox(label="or paste a run card", lines=2, max_lines=6)
        made["restore"] = gr.Button("Restore", size="sm")
    return made


def _shown() -> dict[str, Any]:
    made: dict[str, Any] = {"stage": gr.HTML(empty_stage(), elem_id="stage")}
    made["status"] = gr.HTML('<div class="status"></div>', elem_id="status")
    with gr.Row():
        made["at"] = gr.Slider(0, 1, value=0, step=1, label="Timeline (step)", interactive=False, min_width=160, elem_id="at")
        made["strength"] = gr.Slider(
            0, 1.5, value=1, step=0.05, label="Strength", interactive=False, min_width=160, elem_id="strength"
        )
        made["onward"] = gr.Button(
            "Continue from this picture", size="sm", interactive=False, scale=0, min_width=200, elem_id="onward"
        )
    made["curves"] = gr.HTML("", elem_id="curves")
    made["runs"] = gr.Gallery([], label="Edits so far", columns=6, height=190, allow_preview=False, buttons=[], interactive=False,
                              visible=False, format="png", elem_id="runs")  # fmt: skip
    return made


def status(text: str) -> str:
    return f'<div class="status" role="status">{escape(text)}</div>'


def paintable(image: Image.Image) -> dict[str, Any]:
    """The picture as the mask editor takes it, large enough to paint on."""
    factor = SIDE / min(image.size)
    large = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    return {"background": large, "layers": [], "composite": None}


def painted(value: dict[str, Any] | None) -> Image.Image | None:
    """White where something was painted; None if nothing was."""
    layers = [] if value is None else [layer.getchannel("A") for layer in value["layers"] if layer is not None]
    if not any(layer.getbbox() for layer in layers):
        return None
    mask = Image.new("L", layers[0].size)
    for layer in layers:
        mask.paste(255, mask=layer)
    return mask
