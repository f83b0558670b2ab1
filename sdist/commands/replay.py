"""sdist replay: an image made again from its run card, and compared with itself."""

import argparse
import logging
import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..extras import installed_version
from .arguments import Commands, plugin_argument, quiet_argument

if TYPE_CHECKING:
    from PIL import Image

    from ..editors.loading import LoadedMethod
    from ..edits.run_card import Card

log = logging.getLogger("sdist")


def add_to(commands: Commands) -> None:
    command = commands.add_parser("replay", help="make an edited PNG again from its run card")
    command.add_argument("image", type=Path, help="a PNG that sdist made")
    command.add_argument(
        "--images", type=Path, metavar="DIR", help="where the source images are, if they were moved (default: where they were)"
    )
    command.add_argument("--output", type=Path, metavar="PNG", help="where to write the picture (default: nowhere)")
    command.add_argument("--device", help="default: the recorded one")
    plugin_argument(command)
    quiet_argument(command)


def main(args: argparse.Namespace) -> int:
    import torch

    from ..distillation.callbacks import ProgressBar, StopCondition
    from ..editors.base import Observers
    from ..editors.loading import Localized, load_method
    from ..edits.outputs import writable_folder
    from ..edits.run_card import read_card
    from ..files.images import load_image, png_bytes
    from ..files.storage import write_atomic

    if not args.image.is_file():
        raise UserError(f"image {args.image} does not exist")
    if args.output is not None:
        writable_folder(args.output.parent)
        if args.output.exists():
            raise UserError(f"{args.output} exists; name another file")
    card = read_card(args.image, args.images)
    settings = card.settings if args.device is None else replace(card.settings, device=args.device)
    _check_changes(card, args.image)
    torch.set_num_threads(card.threads)
    method = load_method(settings)
    _check_model(card, method)
    method.model.tiled.update(card.tiled)
    prepared = method.prepare(card.request, Localized(card.words, card.tokens, card.source_tokens))
    callbacks = [ProgressBar("replay"), StopCondition(lambda distiller: bool(distiller.step[0] == card.steps))]
    (result,) = method.edit([prepared], Observers(callbacks, parallel=card.parallel))
    if args.output is not None:
        write_atomic(args.output, png_bytes(result.image, card.text))
    return _report(load_image(args.image), result.image)


def _report(recorded: "Image.Image", replayed: "Image.Image") -> int:
    """Prints how much the replayed image differs from the recorded one; 1 if it does."""
    import numpy as np

    difference = np.abs(np.asarray(recorded, np.int16) - np.asarray(replayed, np.int16))
    print("identical" if not difference.any() else f"differs: by at most {difference.max()} of 255, mean {difference.mean():.4f}")
    return int(difference.any())


def _check_changes(card: "Card", image: Path) -> None:
    """Says what is not as it was when the image was made. Raises UserError where it cannot be again."""
    if card.memory:
        raise UserError(f"{image} cannot be replayed: it was made {card.memory}, which no file holds; make it there again")
    for name, recorded in card.versions.items():
        present = platform.python_version() if name == "python" else installed_version(name)
        if present != recorded:
            log.warning("made with %s %s, replayed with %s: pixels may differ slightly", name, recorded, present or "none")
    for name in card.changed:
        log.warning("plugin %s is not as it was when this image was made: it may differ", name)


def _check_model(card: "Card", method: "LoadedMethod") -> None:
    """Says where the model and what is beside it are not those that made the image."""
    from ..edits.run_card import described

    if method.model.fingerprint != card.fingerprint:
        log.warning("the weights of %s are not those that made this picture: it will differ", card.settings.model)
    for name, value in described(method.model).items():
        if (recorded := card.described.get(name, value)) != value:
            log.warning("%s of the model is %s, this picture was made with %s: it will differ", name, value, recorded)
    for name, value in method.editor.weights(method.model).items():
        if value != (recorded := card.weights.get(name, "one that its card does not name")):
            log.warning("%s is %s, this picture was made with %s: it will differ", name.replace("_", " "), value, recorded)
