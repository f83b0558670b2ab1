"""sdist replay: a picture made again from its run card, and compared with itself."""

import argparse
import logging
from dataclasses import replace
from importlib.metadata import version

from ..errors import UserError

log = logging.getLogger("sdist")


def main(args: argparse.Namespace) -> int:
    import numpy as np
    import torch

    from ..backbone import load_backbone
    from ..callbacks import ProgressBar
    from ..card import read_card
    from ..editing import edit_batch, prepare
    from ..images import load_image, png_bytes, write_atomic
    from ..outputs import writable_folder

    if not args.image.is_file():
        raise UserError(f"image {args.image} does not exist")
    if args.output is not None:
        writable_folder(args.output.parent)
        if args.output.exists():
            raise UserError(f"{args.output} exists; name another file")
    card = read_card(args.image, args.images)
    settings = card.settings if args.device is None else replace(card.settings, device=args.device)
    for name, recorded in card.versions.items():
        if name != "python" and version(name) != recorded:
            log.warning("made with %s %s, replayed with %s: pixels may differ slightly", name, recorded, version(name))
    torch.set_num_threads(card.threads)
    backbone = load_backbone(settings.model, settings.device)
    batch = [prepare(backbone, settings, job) for job in card.jobs]
    result = edit_batch(backbone, settings, batch, [ProgressBar("replay")])[card.row]
    if args.output is not None:
        write_atomic(args.output, png_bytes(result.image))
    before = np.asarray(load_image(args.image), np.int16)
    difference = np.abs(before - np.asarray(result.image, np.int16))
    print("identical" if not difference.any() else f"differs: by at most {difference.max()} of 255, mean {difference.mean():.4f}")
    return int(difference.any())
