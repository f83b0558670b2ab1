"""The page: what stands where, and what happens when something is pressed."""

from abc import ABCMeta
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from .html import about, empty_stage, heading, problem, sized, status
from .limits import Offer
from .scenes import scenes

SIDE = 512  # pixels of the short side of a picture that is painted on
BRUSH = "#e8590c"
OFTEN, SELDOM = 0.7, 20.0  # seconds between two questions of the page for news: while an edit is made, and else

# An image whose handlers get the file as it came, so that it is opened, and refused, in one place. Made past gradio's metaclass,
# which would write a stub beside this file; a method of one object alone is lost with the first answer that leaves it as it is.
RawImage = ABCMeta.__new__(
    type(gr.Image), "Image", (gr.Image,), {"preprocess": lambda self, payload: payload, "__module__": gr.Image.__module__}
)
SHELF: dict[str, Any] = {"columns": 6, "allow_preview": False, "interactive": False, "format": "png", "buttons": []}


@dataclass(frozen=True)
class Page:
    """The components that events read or change."""

    tab: gr.Textbox  # its name stands for the visitor in every handler
    mark: gr.Textbox  # what was seen last
    clock: gr.Timer
    picture: gr.Image
    sized: gr.HTML
    scenes: gr.Gallery
    source: gr.Textbox
    target: gr.Textbox
    words: gr.CheckboxGroup
    edit: gr.Button
    stop: gr.Button
    problem: gr.HTML
    methods: gr.Dropdown
    about: gr.HTML
    model: gr.Dropdown
    seed: gr.Number
    seeds: gr.Number
    steps: gr.Number
    size: gr.Textbox
    overrides: gr.Textbox
    keep_background: gr.Checkbox
    output_size: gr.Radio
    crop: gr.Radio
    vae: gr.Dropdown
    lora: gr.CheckboxGroup
    embedding: gr.CheckboxGroup
    masking: gr.Accordion
    editor: gr.ImageEditor
    brushed: gr.Button  # pressed by the page's script after every stroke, since the editor tells none
    cards: gr.File
    pasted: gr.Textbox
    restore: gr.Button
    stage: gr.HTML
    status: gr.HTML
    at: gr.Slider
    strength: gr.Slider
    onward: gr.Button
    details: gr.Accordion
    curves: gr.HTML
    runs: gr.Gallery


def layout(offer: Offer) -> Page:
    """Draws the page inside the Blocks that are open: what is asked on the left, what comes of it on the right."""
    made: dict[str, Any] = {name: gr.Textbox("", visible="hidden", elem_id=name, label=name) for name in ("tab", "mark")}
    made["clock"] = gr.Timer(SELDOM, active=False)
    gr.HTML('<div class="masthead"><h1>sdist studio</h1><span>edit a picture by saying what should be there</span></div>')
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            made |= _asked(offer)
        with gr.Column(scale=7, min_width=320, elem_id="shown"):
            made |= _shown()
    return Page(**made)


def _asked(offer: Offer) -> dict[str, Any]:
    gr.HTML(heading("Picture and prompts"))
    made = _given(offer)
    made["methods"] = gr.Dropdown(
        offer.methods, value=offer.methods[:1], multiselect=True, label="Method, or several to compare", elem_id="methods"
    )
    made["about"] = gr.HTML(about(offer.methods[:1]), elem_id="about")
    made["edit"] = gr.Button("Edit", variant="primary", size="lg", elem_id="edit")
    made["stop"] = gr.Button("Stop", variant="stop", size="lg", visible=False, elem_id="stop")
    made["problem"] = gr.HTML(problem(""), elem_id="problem")
    gr.HTML(heading("More to choose"))
    made |= _mask() | _back() | _more(offer) | _card()
    with gr.Accordion("What the methods are", open=False):
        gr.HTML(about(offer.methods))
    return made


def _given(offer: Offer) -> dict[str, Any]:
    """What an edit begins with."""
    picture = RawImage(
        label="Picture", sources=["upload", "clipboard"], type="filepath", format="png", height=200, buttons=[], elem_id="picture"
    )
    made: dict[str, Any] = {"picture": picture, "sized": gr.HTML(sized(""), elem_id="sized")}
    drawn = [(pair.source_image, pair.source) for pair in scenes()]
    made["scenes"] = gr.Gallery(drawn, label="or a drawn scene", elem_id="scenes", **SHELF)
    for name, label, example in zip(("source", "target"), ("What is there", "What should be there"), offer.example, strict=True):
        made[name] = gr.Textbox(label=label, placeholder=example, elem_id=name)
    made["words"] = gr.CheckboxGroup([], label="The edit follows these words", visible=False, elem_id="words")
    return made


def _mask() -> dict[str, Any]:
    with gr.Accordion("Paint where it may change", open=False, elem_id="masking") as masking:
        brush = gr.Brush(default_size=48, colors=[BRUSH], color_mode="fixed")
        editor = gr.ImageEditor(
            show_label=False, sources=(), type="pil", transforms=(), layers=False, height=380, buttons=[], format="png",
            brush=brush, canvas_size=(SIDE, SIDE), elem_id="editor",
        )  # fmt: skip
    brushed = gr.Button("painted", visible="hidden", elem_id="brushed")
    return {"masking": masking, "editor": editor, "brushed": brushed}


def _back() -> dict[str, Any]:
    """How an edit comes back into its picture."""
    with gr.Accordion("What stays as it was", open=False, elem_id="composing"):
        keep = gr.Checkbox(
            False, label="Keep the background", info="outside of the mask the picture's own pixels", elem_id="keep_background"
        )
        sizes = [("of the edit", "edit"), ("of the picture", "source")]
        output_size = gr.Radio(sizes, value="edit", label="Size of the result", elem_id="output_size")
        crops = [("all of it", "none"), ("a square around what is painted", "mask"), ("that square, if anything is", "auto")]
        crop = gr.Radio(crops, value="none", label="Part of the picture that is edited", elem_id="crop")
    return {"keep_background": keep, "output_size": output_size, "crop": crop}


def _on_model(offer: Offer) -> dict[str, Any]:
    """What may be put on the model, of what the studio was started with."""
    names = {kind: list(offer.added.get(kind, {})) for kind in ("vae", "lora", "embedding")}
    vae = gr.Dropdown(
        [("the model's own", ""), *names["vae"]], value="", label="Autoencoder", visible=bool(names["vae"]), elem_id="vae"
    )
    lora = gr.CheckboxGroup(names["lora"], label="LoRA", visible=bool(names["lora"]), elem_id="lora")
    embedding = gr.CheckboxGroup(
        names["embedding"], label="Words of textual inversion", visible=bool(names["embedding"]), elem_id="embedding"
    )
    return {"vae": vae, "lora": lora, "embedding": embedding}


def _more(offer: Offer) -> dict[str, Any]:
    with gr.Accordion("Model, seeds, settings", open=False, elem_id="settings"):
        model = gr.Dropdown(offer.models, value=offer.models[0], label="Model")
        made = _on_model(offer)
        with gr.Row():
            whole: dict[str, Any] = {"precision": 0, "min_width": 80}
            seed = gr.Number(0, label="First seed", info="then the next", minimum=0, elem_id="seed", **whole)
            seeds = gr.Number(
                1, label="How many", info="per method", minimum=1, maximum=offer.limits.edits, elem_id="seeds", **whole
            )
            steps = gr.Number(
                0, label="Steps", info="0: as usual", minimum=0, maximum=offer.limits.steps, elem_id="steps", **whole
            )
        size = gr.Textbox("native", label="Size", info="native, keep or WIDTHxHEIGHT")
        example = "regularizers.source_pull.weight=0.05"
        overrides = gr.Textbox("", label="Settings of the method", lines=2, placeholder=example, elem_id="overrides")
    return {**made, "model": model, "seed": seed, "seeds": seeds, "steps": steps, "size": size, "overrides": overrides}


def _card() -> dict[str, Any]:
    with gr.Accordion("Restore from a run card", open=False, elem_id="restoring"):
        label = "an edited PNG or a .json, with its source picture if it is new here"
        cards = gr.File(label=label, file_count="multiple", height=120, elem_id="cards")
        pasted = gr.Textbox(label="or paste a run card", lines=2, max_lines=6, elem_id="pasted")
        restore = gr.Button("Restore", size="sm", elem_id="restore")
    return {"cards": cards, "pasted": pasted, "restore": restore}


def _shown() -> dict[str, Any]:
    gr.HTML(heading("The edit"))
    made: dict[str, Any] = {"stage": gr.HTML(empty_stage(), elem_id="stage")}
    made["status"] = gr.HTML(status(""), elem_id="status")
    with gr.Row(elem_id="look"):
        off: dict[str, Any] = {"interactive": False, "min_width": 150, "buttons": []}
        made["at"] = gr.Slider(0, 1, value=0, step=1, label="Timeline", elem_id="at", scale=3, **off)
        made["strength"] = gr.Slider(0, 1.5, value=1, step=0.05, label="Strength", elem_id="strength", scale=2, **off)
        made["onward"] = gr.Button("Continue from here", size="md", interactive=False, scale=1, min_width=150, elem_id="onward")
    with gr.Accordion("Details", open=False, elem_id="details") as made["details"]:
        made["curves"] = gr.HTML("", elem_id="curves")
    made["runs"] = gr.Gallery([], label="Edits so far", visible=False, elem_id="runs", **SHELF)
    return made


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
