"""What a family of models answers. A family is a subclass of Backbone in a file of its own; loading finds it by its denoiser.

1. `components`, `accepts`, `optional`, `denoiser_name`, `matches`: which parts it is made of, and which denoisers are its own.
2. `make_text`: how prompts are embedded, and which token stands for which characters.
3. `factor`, `multiple`, `check_size`, `channels`, `native_side`, `posterior`, `pixels`, `from_vae`, `to_vae`: its latents.
4. `prediction_type`, `scales`, `last_timestep`, `denoise`: its levels of noise, what its denoiser predicts, how it is called.
5. `guidance`: whether guidance needs a null prompt or is embedded.
6. `layout`: which attention layers can be read.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float, Real
from torch import Tensor, nn

from ..diffusion import Estimate, Latents, OutputKind, PerImage, size_of
from ..errors import NotFiniteError, UserError
from ..faults import naming
from ..hooks.layers import AttentionLayout
from ..prediction import Guidance, Text
from .alterations import alterations
from .autoencoder import Posterior, Tiled, through_autoencoder
from .catalogue import IN_MEMORY, find_model
from .compiled import Choice, CompiledForward, engine_for
from .devices import memory_format
from .fingerprint import fingerprint
from .finite import checking_encoders
from .residence import Offload, Residence, Storage
from .text import PromptEncoder
from .text_memory import embed_where_it_fits
from .vae import LATENTS, check_vae, native_side, scale_of, shift_of


class Backbone(ABC):
    """The frozen networks of one pipeline, as latents, pixels and prompts; the one home of dtypes.

    Not a Module, so that neither checkpoints nor optimizers see its networks.
    """

    components: ClassVar[Mapping[str, str]]  # by their names in model_index.json: classes of diffusers or transformers
    accepts: ClassVar[Mapping[str, Sequence[str]]] = {}  # further classes of components that will do
    optional: ClassVar[frozenset[str]] = frozenset()  # those of them that a pipeline may lack
    denoiser_name: ClassVar[str]  # the component that predicts
    pipeline_name: ClassVar[str] = ""  # of diffusers, which knows what LoRAs of this family are called; none: no LoRA is read
    inpaints: ClassVar[bool] = False  # whether its denoiser reads a mask and the rest of the image, see inpainting.py
    prediction_type: OutputKind

    def __init__(self, parts: Mapping[str, Any], device: str, options: Mapping[str, Any], conditions: int = 0) -> None:
        """Of components by their names; of the denoiser in the format that it is to run in, or in float32, the others in float32.

        `options`: what model_index.json holds beside them; `conditions`: how many latents are read beside the noisy one.
        """
        self.device, self.conditions = torch.device(device), conditions
        self.denoiser, self.vae, self.scheduler = parts[self.denoiser_name], parts["vae"], parts["scheduler"]
        self.text = self.make_text(parts, options)
        names = {id(part): name for name, part in parts.items()}
        self._encoders = [names.get(id(encoder), f"text encoder {i}") for i, encoder in enumerate(self.text.encoders)]
        check_vae(self.vae.config)
        self.check()
        if (kind := getattr(self, "prediction_type", None)) not in get_args(OutputKind):
            raise UserError(
                f"{type(self).__name__}: prediction_type is {kind!r}, must be one of {', '.join(get_args(OutputKind))}"
            )
        for network in self.networks:
            network.eval().requires_grad_(False)
        self.residence = Residence(self.denoiser, self.vae, self.text.encoders, self.device)
        self.arrange(memory_format(self.device.type))
        self.fingerprint = fingerprint(self.networks)
        self.name = IN_MEMORY  # as it was asked for
        self.scale = find_model(IN_MEMORY).scale
        self.source = ""  # where it was loaded from
        self.tiled: Tiled = {}  # what of the autoencoder's work did not fit in memory whole
        self.added: dict[str, str] = {}  # what was put on it when it was loaded, with a digest of each file
        self.stored_formats: list[str] = []  # what was known of its weights' formats when they were borrowed
        self.compiled: CompiledForward | None = None
        self.from_files: Mapping[str, Tensor] | None = None  # the denoiser's weights, where they were loaded from files
        self.reads: torch.dtype | None = None  # what the denoiser is given, where that is not the format of its weights
        self.alone = threading.RLock()  # held while a thread edits: attention is read by hooks, which see every call

    def __repr__(self) -> str:
        """In one line."""
        precision = str(self.denoiser.dtype).removeprefix("torch.")
        return f"<{type(self).__name__} {self.name} on {self.device}, {precision}>"

    @classmethod
    def known_kinds(cls, name: str) -> list[str]:
        """The classes of a component that are known to do what the family's own does, which is the first."""
        return [kind.rpartition(".")[2] for kind in (cls.components[name], *cls.accepts.get(name, ()))]

    @classmethod
    def check_kind(cls, name: str, kinds: Sequence[str]) -> None:
        """Raises UserError for a component of a class that is not known to do what the family's own does; `kinds`: and bases."""
        known = cls.known_kinds(name)
        if not {kind.removesuffix("Fast") for kind in kinds} & set(known):
            others = (
                f" or {len(known) - 1} others (docs/troubleshooting.md)"
                if len(known) > 3
                else "".join(f" or {kind}" for kind in known[1:])
            )
            raise UserError(f"{name} is a {kinds[0]}, which is not known here: have {known[0]}{others}")

    def __init_subclass__(cls) -> None:
        """Raises TypeError for a family that does not say what it is made of: loading asks every one.

        A class that names ABC among its bases is what families have in common, and none itself.
        """
        missing = [name for name in ("components", "denoiser_name") if not hasattr(cls, name)]
        if missing and ABC not in cls.__bases__:
            raise TypeError(f"the family {cls.__name__} has no {' and no '.join(missing)}")

    # --- what a family answers ------------------------------------------------------------------------------------------

    @classmethod
    def matches(cls, config: Mapping[str, Any]) -> bool:
        """Whether a denoiser of the family's class, with that configuration, is of this family."""
        return True

    @abstractmethod
    def make_text(self, parts: Mapping[str, Any], options: Mapping[str, Any]) -> PromptEncoder:
        """The text encoders with their tokenizers."""

    def check(self) -> None:  # noqa: B027
        """Raises UserError unless the parts belong together."""

    @property
    def factor(self) -> int:
        """Pixels per latent, along each side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def multiple(self) -> int:
        """What the sides of an image in pixels must be divisible by."""
        return self.factor

    @property
    def guidance(self) -> Guidance:
        """Whether guidance takes a null prompt, or a scale that the denoiser reads."""
        return "cfg"

    @property
    def channels(self) -> int:
        """Of a latent."""
        return int(self.vae.config.latent_channels)

    @property
    def native_side(self) -> int:
        """The side in pixels of the square images that the model was trained on."""
        return native_side(self.denoiser.config.sample_size, self.vae.config, self.factor)

    def check_size(self, width: int, height: int) -> None:  # noqa: B027
        """Raises UserError for sides in pixels, multiples of `multiple`, that the denoiser cannot read."""

    def latent_size(self, pixels: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the latents of an image of (width, height) pixels."""
        width, height = pixels
        return height // self.factor, width // self.factor

    def from_vae(self, mean: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Latents as the denoiser reads them, from the mean of the VAE's posterior."""
        return (mean - shift_of(self.vae)) * scale_of(self.vae)

    def to_vae(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The inverse of `from_vae`."""
        return latents / scale_of(self.vae) + shift_of(self.vae)

    def posterior(self, pixels: Float[Tensor, "b 3 height width"]) -> Posterior:
        """What the VAE makes of images, in its own scaling."""
        found = self.vae.encode(pixels).latent_dist
        return Posterior(found.mean, found.std)

    def pixels(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """What the VAE makes of latents in its own scaling."""
        return self.vae.decode(z).sample

    @property
    @abstractmethod
    def last_timestep(self) -> int:
        """The noisiest timestep."""

    @abstractmethod
    def scales(self, t: Real[Tensor, " n"], size: tuple[int, int]) -> tuple[PerImage, PerImage]:
        """alpha and sigma at timesteps 0..last_timestep, whole or not, for latents of that height and width."""

    @abstractmethod
    def denoise(
        self, z_t: Float[Tensor, "n _ h w"], t: Real[Tensor, " n"], text: Text, guidance: Float[Tensor, " n"] | None
    ) -> Float[Tensor, "n c h w"]:
        """The denoiser's own output, of the kind `prediction_type`, by `self.forward`; z_t and text are in its dtype.

        Behind the channels of z_t are those of its `conditions`, if it reads any.
        """

    def with_condition(self, z_t: Latents) -> Float[Tensor, "b _ h w"]:
        """Noisy latents as the denoiser reads them where no image is given beside them."""
        return z_t

    @property
    def layout(self) -> AttentionLayout:
        """Its attention layers. Raises UserError where a family does not know them."""
        name = type(self.denoiser).__name__
        raise UserError(
            f"attention of a {name} cannot be read here, which this method needs; lusd_difference, dds and flowedit go without"
        )

    # --- what is the same for all ---------------------------------------------------------------------------------------

    def arrange(self, form: torch.memory_format) -> None:
        """The memory format of the denoiser's weights and input."""
        self.format = form
        self.denoiser.to(memory_format=form)

    def keep_stored(self, stored: Mapping[str, Tensor]) -> None:
        """Where the denoiser's weights were read from, in whatever format: all have one fingerprint, that of the files."""
        self.from_files = stored
        if self.dtype != torch.float32:
            self.fingerprint = fingerprint(self.networks, stored)

    def place(self, offload: Offload = "none", storage: Storage = "same", dtype: torch.dtype = torch.float32) -> None:
        """Puts the networks where they are to stand, see residence.py; `dtype` is what the denoiser will compute in."""
        self.residence.place(offload, storage, dtype)

    def finish(self) -> None:
        """The denoiser is in the format that it computes in, and from now on stored and moved as was decided."""
        if self.residence.storage != "same":
            self.reads = self.dtype
        self.residence.finish(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the denoiser's weights; diffusers' own `dtype` walks through all modules: 2 ms."""
        return next(self.denoiser.parameters()).dtype

    def compile(self, choice: Choice = "inductor") -> None:
        """From now on the denoiser runs by that engine, where autograd is off. Raises UserError for one that cannot be had."""
        engine = engine_for(choice, self.device.type, self.dtype)
        self.compiled = None if engine is None else CompiledForward(self.denoiser, engine)

    def begin_edit(self) -> None:
        """From here on `engine` says what runs the next edit."""
        if self.compiled is not None:
            self.compiled.begin_edit()

    @property
    def engine(self) -> str:
        """What runs the denoiser: in an edit, torch as soon as one call was left to it."""
        return "torch" if self.compiled is None or self.compiled.engine.stepped_aside else self.compiled.engine.name

    @property
    def networks(self) -> tuple[Any, ...]:
        return tuple(self.named_networks.values())

    @property
    def named_networks(self) -> dict[str, Any]:
        """By the names of their components."""
        return {self.denoiser_name: self.denoiser, "vae": self.vae, **self.encoders}

    @property
    def foreign_networks(self) -> dict[str, Any]:
        """Those that no hook of its own casts."""
        is_cast = self.residence.storage != "same"
        return {name: part for name, part in self.named_networks.items() if not (is_cast and name == self.denoiser_name)}

    @property
    def encoders(self) -> dict[str, Any]:
        """Of text, by the names of their components."""
        return dict(zip(self._encoders, self.text.encoders, strict=True))

    @property
    def changes(self) -> list[str]:
        """What was done to its networks in memory, which neither weights nor configuration say."""
        return [*self.stored_formats, *alterations(self.named_networks, self.components)]

    @property
    def configuration(self) -> dict[str, Any]:
        """What else its outputs depend on beside weights: for the run card."""
        latents = {name: getattr(self.vae.config, name, None) for name in LATENTS}
        more = {"words": self.text.added_words, "added": self.added}
        return {**latents, **{name: value for name, value in more.items() if value}}

    @torch.no_grad()
    def encode(
        self, pixels: Float[Tensor, "b 3 height width"], noise: Callable[[Tensor], Tensor] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """The mean of the posterior in the model's own scaling; pixels in [-1, 1].

        With `noise`, which draws some of unit variance in a tensor's shape, a draw from the posterior instead. Raises
        AllocationError and NotFiniteError, as `decode` and `embed` do.
        """
        if noise is None:
            return self.from_vae(self._encoded(pixels, lambda posterior: posterior.mean))
        mean, deviation = self._encoded(pixels, lambda posterior: torch.cat([posterior.mean, posterior.std], 1)).chunk(2, 1)
        return self.from_vae(mean + deviation * noise(mean))

    def _encoded(self, pixels: Float[Tensor, "b 3 height width"], part: Callable[[Posterior], Tensor]) -> Tensor:
        """That of the VAE's posterior."""
        height, width = pixels.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise UserError(f"image is {width} x {height}; this model needs both sides divisible by {self.multiple}")
        rows = pixels.to(self.device, self.vae.dtype)
        with self._working("autoencoder of", self.vae):
            found = through_autoencoder(self.vae, rows, "encoder", lambda x: part(self.posterior(x)).float().cpu(), self.tiled)
        return found.to(self.device)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Pixels in [-1, 1], clipped, on the CPU."""
        if not latents.isfinite().all():
            raise NotFiniteError("the latents to decode are not finite")
        z = self.to_vae(latents.detach()).to(self.device, self.vae.dtype)
        with self._working("autoencoder of", self.vae):
            decoded = through_autoencoder(self.vae, z, "decoder", lambda row: self.pixels(row).float().cpu(), self.tiled)
        return decoded.clamp(-1, 1)

    def embed(self, prompts: Sequence[str]) -> Text:
        """What `estimate` reads of prompts. Raises UserError for a prompt beyond the encoder's limit, which is never cut."""
        with self._working("text encoders of", *self.text.encoders):
            text = embed_where_it_fits(self.text, prompts, self.device, leave=self.residence.offload != "none")
        if not text.finite:
            with checking_encoders(self.encoders):
                self.text.embed(prompts)
            raise NotFiniteError("the text encoders gave an embedding that is not finite")
        return text

    @contextmanager
    def _working(self, what: str, *networks: nn.Module) -> Iterator[None]:
        """In the block these are on the device; where networks take turns there, an edit of another thread ends first."""
        with naming(what, self), self.alone if self.residence.takes_turns else nullcontext():
            self.residence.onload(*networks)
            yield

    def estimate(
        self,
        z_t: Float[Tensor, "n _ h w"],
        t: Real[Tensor, " n"],
        text: Text,
        guidance: Float[Tensor, " n"] | None = None,
    ) -> Estimate:
        """What each row of z_t is made of, in float32; latents that are read beside it are behind it along the channels."""
        self.residence.onload(self.denoiser)
        dtype = self.reads or self.dtype
        out = self.denoise(z_t.to(dtype, memory_format=self.format), t, text.to(dtype), guidance)
        noisy = z_t[:, : self.channels]
        return Estimate(out.float().contiguous(), noisy, *self.scales(t, size_of(z_t)), self.prediction_type)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """The denoiser's first output, compiled if it is: a tensor, of some classes a list with one per row."""
        return (self.compiled or self._plain)(*inputs, **options)

    def _plain(self, *inputs: Any, **options: Any) -> Any:
        return self.denoiser(*inputs, **options, return_dict=False)[0]


def check_widths(kind: str, denoiser: str, widths: Mapping[str, tuple[int, int]], instead: str = "") -> None:
    """Raises UserError unless the denoiser reads, of everything, as much as it gets: (reads, gets) by what it is.

    `instead`: what else to do.
    """
    for what, (expected, actual) in widths.items():
        if expected != actual:
            advice = f"; {instead}" if instead else ""
            raise UserError(f"this model is no {kind}: its {denoiser} reads {expected} {what}, it gets {actual}{advice}")
