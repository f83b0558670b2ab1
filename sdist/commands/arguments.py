"""Arguments that several commands have, and how a command line becomes what the library takes. Imports nothing heavy."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import UserError
from ..files.paths import image_path
from ..files.storage import storage_path

if TYPE_CHECKING:
    from ..config.settings import Settings

T = TypeVar("T")

Commands = Any  # argparse's subparsers, which have no public type
SETTINGS = (  # that are arguments of their own
    "model", "device", "precision", "size", "seed", "steps", "compile", "keep_background", "output_size", "crop", "variant",
    "model_config", "vae", "lora", "embedding", "offload", "storage",
    "clip_skip", "prompt_blocks", "prompt_weights",
)  # fmt: skip


def model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model", metavar="ALIAS|ID|DIR|FILE", help="alias, hub id, folder or .safetensors file (default: tinyworld)"
    )
    command.add_argument("--model-config", metavar="ALIAS|ID|DIR",
                         help="whose configurations a file has (default: what its weights look like)")  # fmt: skip
    command.add_argument("--variant", metavar="NAME", help="of the weights, such as fp16 (default: none, or what there is)")
    added_arguments(command)
    command.add_argument("--clip-skip", type=int, metavar="N", help="last layers of CLIP that are left out (default: 0)")
    command.add_argument("--prompt-blocks", type=int, metavar="N", help="of 75 tokens, that prompts are read in (default: 1)")
    command.add_argument("--prompt-weights", action="store_const", const=True,
                         help="(cat:1.3) in a prompt weighs the cat by 1.3 (default: it is text)")  # fmt: skip
    command.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    command.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16", "bf16"),
        help="number format of the network (default: auto, fp16 on CUDA, else fp32)",
    )
    command.add_argument("--offload", choices=("auto", "none", "model", "group"),
                         help="what leaves a GPU while it waits: networks, or layers (default: auto, as needed)")  # fmt: skip
    command.add_argument("--storage", choices=("same", "fp8"),
                         help="of the network's weights: as it computes, or fp8: half of fp16 (default: same)")  # fmt: skip
    command.add_argument(
        "--compile",
        choices=("auto", "inductor", "openvino", "none"),
        help="an engine that runs the network faster, after a start that takes longer (default: none)",
    )
    command.add_argument(
        "--size", help="of the edit and the result, in pixels: WIDTHxHEIGHT, keep, or native (default): the model's short side"
    )
    command.add_argument("--steps", type=int, metavar="N", help="steps (default: the method's)")
    command.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides",
                         help="values of the method's yaml, such as optimizer.lr=0.05 (default: none)")  # fmt: skip
    command.add_argument("--parallel", "--batch", type=int, metavar="N",
                         help="noise samples tried at once (default: what suits the device); older name: --batch")  # fmt: skip


def added_arguments(command: argparse.ArgumentParser) -> None:
    """What is put on a model."""
    command.add_argument("--vae", metavar="FILE|DIR|ID", help="in place of the model's own autoencoder (default: none)")
    command.add_argument("--lora", action="append", metavar="FILE[:WEIGHT]",
                         help="file, folder or hub id of a LoRA (default: none); may be given several times")  # fmt: skip
    command.add_argument("--embedding", action="append", metavar="FILE[:WORD]",
                         help="a word of textual inversion (default: none); may be given several times")  # fmt: skip


def method_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--method", metavar="NAME|YAML", help="see: sdist methods (default: the model's; localflow for tinyworld, lusd for most)"
    )


def method_of(args: argparse.Namespace) -> str:
    """The method that was named, else the model's."""
    from ..models.catalogue import default_method

    return args.method or default_method(args.model, args.overrides)


def plugin_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--plugin", action="append", default=[], metavar="FILE.py|MODULE", dest="plugins",
                         help="import components of one's own first (default: none); may be given several times")  # fmt: skip


def edit_arguments(command: argparse.ArgumentParser) -> None:
    """Of every command that edits."""
    model_arguments(command)
    plugin_argument(command)
    command.add_argument("--seed", type=int, metavar="N", help="the first seed (default: the method's, which is 0)")
    command.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="make N variants, with seeds S to S+N-1 where S is the first seed (default: 1)",
    )
    composition_arguments(command)
    command.add_argument("--log", default="none", choices=("none", "csv", "tensorboard", "wandb"),
                         help="where values and images of the steps go, under OUTPUT/logs (default: none)")  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace results that exist")
    quiet_argument(command)


def composition_arguments(command: argparse.ArgumentParser) -> None:
    """How an edit comes back into its image."""
    command.add_argument("--keep-background", action="store_const", const=True,
                         help="outside of the mask the image's own pixels (default: as the autoencoder draws them)")  # fmt: skip
    command.add_argument("--output-size", choices=("edit", "source"),
                         help="of the result; source: the image's own (default: edit, that of --size)")  # fmt: skip
    command.add_argument(
        "--crop",
        choices=("none", "auto", "mask"),
        help="edit a square around the mask and put it back; auto: if there is a mask (default: none)",
    )


def share_arguments(command: argparse.ArgumentParser) -> None:
    """Which part of many edits is made."""
    command.add_argument("--limit", type=int, metavar="N", help="make at most N images now (default: all); the next call goes on")
    command.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N",
                         help="rows I, I+N, ... only, I = 0..N-1, for N processes (default: 0/1, all rows)")  # fmt: skip
    command.add_argument("--changed", action="store_true",
                         help="make images again whose row or settings have changed since (default: name them)")  # fmt: skip
    command.add_argument("--retry", action="store_true", help="try images again that failed in an earlier call")


def score_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", default="clean", help="official: the published code's quirks; clean (default): without")
    command.add_argument("--dino", metavar="ID|DIR", help="such as facebook/dino-vits16 (default: no DINO)")
    command.add_argument("--cache", metavar="DIR", help="keeps embeddings, found by content (default: none are kept)")


def quiet_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quiet", action="store_true", help="warnings and errors only")


def json_argument(command: argparse.ArgumentParser) -> None:
    """Of a command whose output is for programs too."""
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(quiet=True)


def storage_folder(text: str) -> Path:
    """A folder or an fsspec URL, as an argument's type."""
    try:
        return storage_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def image_file(text: str) -> Path:
    """An image's path, as an argument's type."""
    try:
        return image_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N-1, such as 0/4, got {text!r}")
    return int(index), int(count)


def settings_from(args: argparse.Namespace, method: str, overrides: tuple[str, ...] = ()) -> Settings:
    """The settings of a method; "key=value" overrides win over it, --set over these, and single arguments over all."""
    from ..config.build import load_settings

    values = {key: value for key in SETTINGS if (value := getattr(args, key, None)) is not None}
    return load_settings(method, [*overrides, *args.overrides], **values)


def from_arguments(options: type[T], args: argparse.Namespace, **values: Any) -> T:
    """Options of a dataclass: the arguments of the same names, and values that win over them."""
    names = {field.name for field in fields(cast(Any, options))}
    return options(**{**{name: value for name, value in vars(args).items() if name in names}, **values})
