"""Score distillation as a pipeline of diffusers: what `sdist.edit` does, for code that is written around pipelines."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin, SchedulerMixin
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils import BaseOutput
from PIL import Image
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..api import without_folders
from ..config.build import settings_of
from ..config.settings import Settings
from ..distillation.callbacks import ProgressBar, StopCondition
from ..editors.base import Observers
from ..editors.loading import LoadedMethod
from ..edits.request import Prepared, Result
from ..errors import UserError, unknown
from ..errors.arguments import checked, matches
from ..faults import is_out_of_memory
from ..files.in_memory import Picture, in_memory
from ..models.base import Backbone
from ..models.catalogue import IN_MEMORY, default_method, find_model, is_folder, is_single_file
from ..models.flow import check_pipeline
from ..models.folders import INDEX, find_class, on_disk, read_index
from ..models.kinds import checked_variant, family_of
from ..models.library import loading
from ..models.loading import FAULTS, add, load_shared_parts, part_problem
from ..models.options import LoadOptions
from ..models.other_vae import load_vae
from ..models.precision import DTYPES
from ..models.process_state import process_state
from ..models.single_file import load_single_file
from ..models.weights import read_json
from ..models.wrappers import check_hooks, unwrapped
from .arguments import as_type, broadcast_arguments, common_seed, seeds_of, size_of, to_request, words_of
from .callback import TENSORS, OnStepEnd, StepEnd
from .networks import as_backbone, networks_of, restoring_state

OUTPUTS = ("pil", "np", "pt", "latent")
OF_COMPONENTS = (  # settings that the pipeline has by its components, and where they stand
    "model", "model_config", "variant", "vae", "lora", "embedding", "device", "precision", "offload", "storage",
)  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def _with_vae(options: Mapping[str, Any], lora: Sequence[str], embedding: Sequence[str]) -> tuple[dict[str, Any], LoadOptions]:
    """Components alone, and what is loaded from files: an autoencoder that is named by its place is one of these."""
    vae = options.get("vae")
    place = os.fspath(vae) if isinstance(vae, str | os.PathLike) else ""
    return {k: v for k, v in options.items() if k != "vae" or not place}, LoadOptions(
        vae=place, loras=tuple(lora), embeddings=tuple(embedding)
    )


def _vae(options: LoadOptions, family: type[Backbone], configs: Path) -> Any:
    return load_vae(options.vae, find_class(family.components["vae"]), configs)


@dataclass
class ScoreDistillationPipelineOutput(BaseOutput):
    """The edited images in the order they were given."""

    images: list[Image.Image] | np.ndarray | Tensor  # np: (b, height, width, 3), pt: (b, 3, height, width), both in 0..1
    masks: list[Tensor | None]  # the last mask of each, (1, h, w) in 0..1; None where the method has none
    cards: list[dict[str, Any]]  # the run card of each


class ScoreDistillationPipeline(DiffusionPipeline):
    """Edits images by score distillation with the components of a model of any family that is known here (docs/models.md).

    Of the scheduler the noise schedule is read (docs/troubleshooting.md, Models). A call borrows the networks: it runs the UNet
    or transformer in the format that it has and the others in float32, as everywhere here, and leaves all as they were.
    """

    _optional_components: ClassVar[list[str]] = [
        "unet", "transformer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3",
    ]  # fmt: skip
    _callback_tensor_inputs: ClassVar[list[str]] = list(TENSORS)

    def __init__(
        self,
        vae: ModelMixin,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        unet: Optional[ModelMixin],  # noqa: UP045 (older diffusers cannot read X | Y)
        scheduler: SchedulerMixin,
        text_encoder_2: Optional[PreTrainedModel] = None,  # noqa: UP045
        tokenizer_2: Optional[PreTrainedTokenizerBase] = None,  # noqa: UP045
        force_zeros_for_empty_prompt: bool = True,
        transformer: Optional[ModelMixin] = None,  # noqa: UP045
        text_encoder_3: Optional[PreTrainedModel] = None,  # noqa: UP045
        tokenizer_3: Optional[PreTrainedTokenizerBase] = None,  # noqa: UP045
    ) -> None:
        """Of components whose exact classes a call checks, by the family of the denoiser among them."""
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=scheduler,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            transformer=transformer,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
        )
        self.register_to_config(force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        self._interrupt = False
        self._loaded_with = LoadOptions()  # the configurations of a single file, and what was put on its networks

    @classmethod
    @checked()
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        lora: Sequence[str] = (),
        embedding: Sequence[str] = (),
        **options: Any,
    ) -> "ScoreDistillationPipeline":
        """diffusers' own for a hub id or a folder; an alias such as "tinyworld" too. Weights are safetensors, never pickles.

        `lora` and `embedding` are those of the settings; `vae` may be a file, folder or hub id. Raises UserError for what is not
        there or cannot be loaded.
        """
        options, added = _with_vae(options, lora, embedding)
        name = os.fspath(pretrained_model_name_or_path)
        if is_single_file(name):
            raise UserError(f"{name} is a single file: from_single_file reads it")
        model = find_model(name)
        name = next((source for source in model.sources if on_disk(source)), model.sources[0])
        source = str(Path(name).resolve()) if is_folder(name) else name
        safe = {**{name: unwrapped(value) for name, value in options.items()}, "use_safetensors": True}
        try:
            with process_state(), loading():  # weights that inference_mode makes have no gradients anywhere
                folder = source if is_folder(name) else cls._fetched(source, safe)
                check_pipeline(str(read_json(Path(folder) / INDEX).get("_class_name")))
                safe = {**load_shared_parts(Path(folder), model.shared_parts), **safe}
                if added.vae:
                    safe["vae"] = _vae(added, read_index(Path(folder))[2], Path(folder))
                pipeline = super().from_pretrained(folder, **{"variant": checked_variant(folder, safe), **safe})
        except FAULTS as error:
            if isinstance(error, UserError) or is_out_of_memory(error):
                raise
            reason = part_problem(Path(folder), safe) or " ".join(str(error).split())[:300]
            raise UserError(f"{pretrained_model_name_or_path} cannot be loaded as a pipeline: {reason}") from error
        pipeline.register_to_config(_name_or_path=source)
        return pipeline._with(replace(added, variant=options.get("variant") or ""))

    @classmethod
    @checked()
    def from_single_file(
        cls,
        path: str | os.PathLike[str],
        config: str | os.PathLike[str] = "",
        lora: Sequence[str] = (),
        embedding: Sequence[str] = (),
        **options: Any,
    ) -> "ScoreDistillationPipeline":
        """The pipeline of a safetensors file that holds a whole model in the names of its original code, in float32.

        `config` is an alias, hub id or folder whose configurations and tokenizers it has; empty: what its weights look like.
        `lora`, `embedding` and `vae` are those of `from_pretrained`, `options` components in place of its own. Raises UserError
        for what is not there or cannot be loaded.
        """
        options, added = _with_vae(options, lora, embedding)
        file, named = Path(path).absolute(), os.fspath(config)
        find_model(str(file))  # which refuses what is no such file
        with process_state(), loading():
            contents = load_single_file(file, named)
            if added.vae:
                options["vae"] = _vae(added, contents.family, contents.configs)
        empty = bool(contents.model_index.get("force_zeros_for_empty_prompt", True))
        pipeline = cls(**{"unet": None, "force_zeros_for_empty_prompt": empty, **contents.parts, **options})
        pipeline.register_to_config(_name_or_path=str(file))
        return pipeline._with(replace(added, config=named))

    def _with(self, options: LoadOptions) -> "ScoreDistillationPipeline":
        """The pipeline itself, with words and LoRAs put on its networks, which keep their number formats."""
        self._loaded_with = options
        if not (options.loras or options.embeddings):
            return self
        parts = {name: part for name, part in self.components.items() if part is not None}
        formats = [(network, next(network.parameters()).dtype) for network in networks_of(parts)]
        for network, _ in formats:
            nn.Module.to(network, torch.float32)
        with process_state(), loading():
            add(family_of(parts), parts, options)
        for network, dtype in formats:
            nn.Module.to(network, dtype)
        return self

    @classmethod
    def _fetched(cls, hub_id: str, options: Mapping[str, Any]) -> str:
        """The folder of its files in the hub's cache. Raises UserError if they cannot be had."""
        try:
            return str(cls.download(hub_id, **options))
        except OSError as error:
            raise UserError(f"{hub_id}: {' '.join(str(error).split())[:300]}") from error

    @classmethod
    @checked()
    def from_pipe(cls, pipeline: DiffusionPipeline, **options: Any) -> "ScoreDistillationPipeline":
        """A pipeline of the same networks, without a copy; a dtype in the options casts those of the given pipeline too.

        Without one they stay as they are, where diffusers' own would cast them to float32. Raises UserError for networks of
        classes that are not known here.
        """
        check_pipeline(type(pipeline).__name__)
        own = signature(cls.__init__).parameters.keys()
        parts = {name: unwrapped(part) for name, part in {**pipeline.components, **options}.items() if name in own}
        family_of(parts)  # diffusers would go on without a part of a class that it does not expect
        networks = [] if {"dtype", "torch_dtype"} & options.keys() else networks_of(parts)
        with loading(), restoring_state(*networks):
            made = super().from_pipe(pipeline, **{"unet": None, **options, **parts})
        made._loaded_with = getattr(pipeline, "_loaded_with", made._loaded_with)
        return made

    @property
    def interrupt(self) -> bool:
        """Whether the call is to end after the present round."""
        return self._interrupt

    @checked("prompt", "image", "source_prompt", "seed", "mask_image", "settings", "output_type")
    def __call__(
        self,
        prompt: str | list[str],
        image: Picture | list[Picture],
        source_prompt: str | list[str] = "",
        method: str | os.PathLike[str] | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seed: int | list[int] | None = None,
        height: int | None = None,
        width: int | None = None,
        words: str | Sequence[str] | Sequence[Sequence[str]] = (),
        mask_image: Picture | list[Picture] | None = None,
        keep_background: bool | None = None,
        output_size: str | None = None,
        crop: str | None = None,
        settings: Mapping[str, Any] | Sequence[str] = (),
        output_type: Literal["pil", "np", "pt", "latent"] = "pil",
        return_dict: bool = True,
        callback_on_step_end: OnStepEnd | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ScoreDistillationPipelineOutput | tuple[Any, ...]:
        """The edits of images from `source_prompt`, which says what they show, to `prompt`.

        Methods that read an instruction take `prompt` for it, as diffusers' own pipeline does, and no `source_prompt`.

        Lists have one value per image, and what is no list belongs to all; images of one call go through the network together
        and come out as they would alone. `method`, `words`, `mask_image`, `keep_background`, `output_size`, `crop`, `settings`
        and the images are those of `sdist.edit`, `num_inference_steps` its steps (None: the method's).

        A `generator` gives its initial seed and no more, and is not moved on: noise is a function of (seed, image, step,
        attempt) here. `callback_on_step_end(pipe, step, timestep, tensors)` is called after every step of every image, of
        which "latents" are (1, c, h, w), "mask" (1, h, w) or None, "index" its place in the call; each image has a pace of
        its own, and a timestep is whole where the method's are. It may read latents and not replace them. `pipe._interrupt =
        True` ends the run after the present round, each image as it then is. "np" and "pt" are the 8-bit images over 255,
        "latent" is (b, c, h, w) in the VAE's scaling.

        Raises UserError (a ValueError) for bad input, and ImagesError if a gradient is not finite.
        """
        self._interrupt = False
        if output_type not in OUTPUTS:
            raise unknown("output_type", str(output_type), OUTPUTS)
        step_end = StepEnd(self, callback_on_step_end, callback_on_step_end_tensor_inputs)
        rows = broadcast_arguments(
            prompt=prompt,
            source_prompt=source_prompt,
            image=image,
            mask_image=mask_image,
            words=words_of(words),
            seed=seeds_of(seed, generator),
        )
        arguments = {
            "steps": num_inference_steps,
            "size": size_of(height, width),
            "seed": common_seed(row["seed"] for row in rows),
            "keep_background": keep_background,
            "output_size": output_size,
            "crop": crop,
        }
        method = default_method(self._model) if method is None else method
        resolved = self._settings(method, settings, arguments)
        if not resolved.editor.stepwise and (callback_on_step_end is not None or output_type == "latent"):
            more = "; sdist.edit(..., on_step=...) shows them" if resolved.editor.watchable else ""
            raise UserError(f"the steps of {method} cannot be watched here: no callback_on_step_end and no latents{more}")
        results = self._edit(resolved, rows, step_end)
        images = step_end.latents if output_type == "latent" else as_type([r.image for r in results], output_type)
        output = ScoreDistillationPipelineOutput(images, [r.mask for r in results], [r.card for r in results])
        return output if return_dict else (output.images, output.masks, output.cards)

    def _settings(
        self, method: str | os.PathLike[str], settings: Mapping[str, Any] | Sequence[str], arguments: Mapping[str, Any]
    ) -> Settings:
        keys = settings if matches(settings, Mapping | Sequence[str]) else ()  # anything else is refused by settings_of
        refused = {str(key).partition("=")[0] for key in keys} & set(OF_COMPONENTS)
        if refused:
            raise UserError(
                f"{', '.join(sorted(refused))}: the pipeline has its own, see from_pretrained(..., torch_dtype, lora) and .to(); "
                "sdist.edit has them all"
            )
        networks = {name: unwrapped(part) for name, part in self.components.items()}
        kind = family_of(networks).denoiser_name
        check_hooks({name: part for name, part in networks.items() if isinstance(part, torch.nn.Module)})
        dtype, device = networks[kind].dtype, next(networks[kind].parameters()).device
        if dtype not in NAMES:
            raise UserError(f"the pipeline's {kind} is {dtype}: have {', '.join(map(str, NAMES))}")
        options = self._loaded_with
        parts = {
            "model": self._model, "model_config": options.config, "variant": options.variant, "vae": options.vae,
            "lora": list(options.loras), "embedding": list(options.embeddings), "device": str(device), "precision": NAMES[dtype],
        }  # fmt: skip
        return settings_of(method, settings, {**arguments, **parts})

    @property
    def _model(self) -> str:
        """Where the components come from, as far as that is known; it chooses the scale (see sdist/models/catalogue.py)."""
        name = str(self.name_or_path)
        try:
            find_model(name)
        except UserError:
            return IN_MEMORY
        return name

    def _edit(self, settings: Settings, rows: list[dict[str, Any]], step_end: StepEnd) -> list[Result]:
        with process_state(), ExitStack() as stack:
            backbone = stack.enter_context(as_backbone(self.components, settings, self.config))
            method = LoadedMethod(settings, backbone)
            instructs = "instruction" in settings.editor.reads
            batch = [method.prepare(to_request(row, settings.seed, stack, instructs)) for row in rows]
            sizes = dict.fromkeys(f"{prepared.image.width} x {prepared.image.height}" for prepared in batch)
            if len(sizes) > 1:
                raise UserError(f"the pictures of a call have one size, these would be {', '.join(sizes)}; give height and width")
            results = self._run(method, batch, step_end)
        passing = [in_memory(image=row["image"], mask=row["mask_image"]) for row in rows]
        cards = [without_folders(result.card, names) for result, names in zip(results, passing, strict=True)]
        return [replace(result, card=card) for result, card in zip(results, cards, strict=True)]

    def _run(self, method: LoadedMethod, batch: list[Prepared], step_end: StepEnd) -> list[Result]:
        """On the pipeline's progress bar, which counts steps, or images where the editor is not stepwise."""
        steps, unit = method.editor.progress
        with self.progress_bar(total=steps * len(batch)) as bar:
            callbacks = [ProgressBar(run=bar), step_end, StopCondition(lambda distiller: self._interrupt)]
            return method.edit(batch, Observers(callbacks, deliver=lambda result: bar.update() if unit == "image" else None))
