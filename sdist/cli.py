"""The command line. Parsing is here and imports nothing heavy; each command is a module of sdist/commands."""

import argparse
import errno
import logging
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from . import __version__
from .errors import UserError
from .files.storage import place

BAD_INPUT, INTERRUPTED = 2, 130
DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "the disk is read-only"}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (done, but not all), 2 (bad input), 130 (Ctrl-C)."""
    args = parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("sdist").setLevel(logging.WARNING if args.quiet else logging.INFO)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return import_module(f"sdist.commands.{args.command}").main(args)
    except (UserError, FloatingPointError) as error:
        return _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is kept", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = DISK.get(error.errno or 0, error.strerror)
        if error.errno in DISK or error.filename is not None:
            return _fail(f"{error.filename or 'output'}: {reason}", BAD_INPUT)
        raise


def _fail(message: str, code: int) -> int:
    print(f"sdist: error: {' '.join(message.split())}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error here does; subcommands are of this class too."""

    def error(self, message: str) -> NoReturn:
        raise SystemExit(_fail(f"{message} (see {self.prog} --help)", BAD_INPUT))


def parser() -> argparse.ArgumentParser:
    root = Parser(prog="sdist", description="Text-guided image editing by score distillation.")
    root.add_argument("--version", action="version", version=f"sdist {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _edit(commands.add_parser("edit", help="edit one image", description="Edits one image."))
    _run(commands.add_parser("run", help="edit a folder of images listed in index.csv"))
    _sweep(commands.add_parser("sweep", help="edit a folder with every variant of an ablation or grid"))
    _replay(commands.add_parser("replay", help="make an edited PNG again from its run card"))
    _verify(commands.add_parser("verify", help="hold a recorded trace of another implementation against this one"))
    methods = commands.add_parser("methods", help="list methods and components with their defaults")
    methods.add_argument("--markdown", action="store_true", help="print the configuration reference instead")
    _plain(methods)
    doctor = commands.add_parser("doctor", help="show what is installed and what an edit would need")
    doctor.add_argument("--online", action="store_true", help="ask the hub for models that are not on this disk")
    _plain(doctor)
    _bench(commands.add_parser("bench", help="time LUSD against a plain loop on this machine"))
    _evaluate(commands.add_parser("evaluate", help="score results with the metrics of MagicBrush, LUSD and PIE-Bench"))
    _compare(commands.add_parser("compare", help="evaluated methods side by side"))
    _app(commands.add_parser("app", help="a studio in the browser, on this machine"))
    _tinyworld(commands.add_parser("tinyworld", help="measure the embedded model"))
    return root


def _plain(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(quiet=True)


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", metavar="ALIAS|ID|DIR", help="alias, hub id or folder (default: tinyworld)")
    command.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    command.add_argument("--precision", choices=("auto", "fp32", "fp16", "bf16"), help="of the network (default: fp16 on CUDA)")
    command.add_argument("--compile", action="store_const", const=True, help="torch.compile: a minute at the start, faster steps")
    command.add_argument("--size", help="native (default), keep or WIDTHxHEIGHT")
    command.add_argument("--steps", type=int, help="accepted steps (default: the method's)")
    command.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", dest="overrides",
                         help="any values of the method's yaml, such as regularizers.source_pull.weight=0.05")  # fmt: skip
    command.add_argument("--batch", type=int, metavar="N", help="draws tried at once (default: what suits the device)")


def _method(command: argparse.ArgumentParser) -> None:
    command.add_argument("--method", default="lusd", metavar="NAME|YAML", help="see: sdist methods (default: lusd)")


def _common(command: argparse.ArgumentParser) -> None:
    _model(command)
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="make N pictures, seeds seed..seed+N-1")
    command.add_argument("--log", default="none", choices=("none", "csv", "tensorboard", "wandb"))
    command.add_argument("--overwrite", action="store_true", help="replace results that exist")
    command.add_argument("--quiet", action="store_true", help="warnings and errors only")


def _edit(command: argparse.ArgumentParser) -> None:
    command.add_argument("image", type=Path)
    command.add_argument("--source", default="", metavar="PROMPT", help="what the image shows (may be empty)")
    command.add_argument("--target", required=True, metavar="PROMPT", help="what it should show")
    command.add_argument("--words", type=_words, default=(), metavar="A,B", help="words that the mask follows")
    command.add_argument("--mask", type=Path, metavar="IMAGE", help="grey image, white where the edit may happen")
    command.add_argument("--instruction", default="", metavar="TEXT", help="for instruct_pix2pix (default: the target prompt)")
    command.add_argument("--output", type=_place, default=Path("outputs"), metavar="DIR|URL")
    command.add_argument("--record", type=Path, metavar="DIR",
                         help="run once more and keep draws and quantities as a trace (see: sdist verify)")  # fmt: skip
    _method(command)
    _common(command)


def _run(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Edits every row of DIR/index.csv (img_path, source_prompt, target_prompt, for instruct_pix2pix also instruction; "
        "images in DIR/images)."
    )
    command.add_argument("--input", required=True, metavar="DIR|FORMAT:DIR", help="or a dataset as for sdist evaluate")
    command.add_argument("--output", type=_place, required=True, metavar="DIR|URL", help="a URL is such as s3://bucket/results")
    _method(command)
    _request(command)
    _engine(command)
    _common(command)


def _request(command: argparse.ArgumentParser) -> None:
    command.add_argument("--limit", type=int, metavar="N", help="make at most N pictures now; the next call goes on")
    command.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N",
                         help="rows I, I+N, ... only, I = 0..N-1: N processes share one --output")  # fmt: skip
    command.add_argument("--retry", action="store_true", help="try pictures again that failed in an earlier call")


def _engine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--devices", type=_devices, metavar="N|auto",
                         help="N processes on this machine, one a GPU; auto: all GPUs (default: this process alone)")  # fmt: skip
    command.add_argument("--engine", choices=("local", "ray"), default="local",
                         help="ray: the actors of a Ray cluster, see docs/scale.md (default: local)")  # fmt: skip
    command.add_argument("--workers", type=int, metavar="N", help="actors (default: one a GPU, or one a machine without)")


def _sweep(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Does what sdist run does for every variant, into OUTPUT/VARIANT, and puts all of them into OUTPUT/grid.png; with --clip "
        "evaluates and compares them too. Skips what is there."
    )
    command.add_argument("sweep", metavar="FILE.yaml|NAME", help="variants or a grid, see docs/sweeps.md")
    command.add_argument("--input", metavar="DIR|FORMAT:DIR", help="as for sdist run")
    command.add_argument("--output", type=_place, metavar="DIR")
    command.add_argument("--list", action="store_true", help="print the variants and what they change, and make nothing")
    command.add_argument("--first", type=int, metavar="N", help="take the first N rows of index.csv only")
    command.add_argument("--rows", type=int, default=8, metavar="N", help="pairs in grid.png (default: 8)")
    command.add_argument("--clip", metavar="ID|DIR", help="evaluate with this CLIP, see: sdist evaluate (default: no evaluation)")
    _scores(command)
    _request(command)
    _common(command)


def _bench(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Makes the same edits with the plain loop, with ours one by one and with ours as a queue, checks that the same draws "
        "were accepted, and prints times, memory and ratios."
    )
    command.add_argument("--edits", type=int, default=16, metavar="N", help="edits of drawn scenes (default: 16)")
    command.add_argument("--repetitions", type=int, default=5, metavar="N", help="passes of each kind, in turns (default: 5)")
    _model(command)
    _plain(command)


def _evaluate(command: argparse.ArgumentParser) -> None:
    command.description = "Scores every result KEY.png or KEY_seedN.png against its pair, and summarizes with 95 % intervals."
    command.add_argument(
        "--dataset", required=True, metavar="FORMAT:DIR", help="index, magicbrush, pie_bench or tinyworld, and its folder"
    )
    command.add_argument("--results", type=Path, required=True, metavar="DIR")
    command.add_argument("--output", type=Path, default=Path("evaluation"), metavar="DIR")
    command.add_argument("--clip", default="openai/clip-vit-base-patch32", metavar="ID|DIR",
                         help="tinyworld is embedded (default: openai/clip-vit-base-patch32)")  # fmt: skip
    _scores(command)
    command.add_argument("--lpips", type=Path, metavar="FILE", help="weights of LPIPS as safetensors (default: no LPIPS)")
    command.add_argument("--seed", type=int, default=0, help="of the results KEY_seedN.png (default: 0)")
    command.add_argument("--allow-missing", action="store_true", help="a missing result is undefined instead of an error")
    command.add_argument("--device", default="auto")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--quiet", action="store_true", help="warnings and errors only")


def _scores(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", default="clean", help="official: the published code's quirks; clean (default): without")
    command.add_argument("--dino", metavar="ID|DIR", help="such as facebook/dino-vits16 (default: no DINO)")
    command.add_argument("--cache", metavar="DIR", help="keeps embeddings, found by content")


def _compare(command: argparse.ArgumentParser) -> None:
    command.description = (
        "One table, two plots and a page of the folders that sdist evaluate wrote; a folder's name names its row."
    )
    command.add_argument("evaluations", nargs="+", metavar="DIR")
    command.add_argument("--group", default="all", help="all (default) or a category")
    command.add_argument("--x", metavar="METRIC", help="of trade_off.png (default: the first measured of psnr, l1, clip_i)")
    command.add_argument("--y", metavar="METRIC", help="the same (default: of clip_edited, clip_auc, clip_t)")
    command.add_argument("--published", action="extend", nargs="+", default=[], metavar="TABLE",
                         help="published rows under the measured ones, such as lusd_table_2")  # fmt: skip
    command.add_argument("--output", type=Path, default=Path("comparison"), metavar="DIR")
    command.add_argument("--quiet", action="store_true", help="warnings and errors only")


def _app(command: argparse.ArgumentParser) -> None:
    command.description = "Serves the studio until it is interrupted (Ctrl-C); see docs/studio.md."
    command.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others on the network in (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=7860)
    command.add_argument("--model", default="tinyworld", metavar="ALIAS|ID|DIR", help="offered first (default: tinyworld)")
    command.add_argument("--login", type=Path, metavar="FILE", help="holds USER:PASSWORD, asked of visitors; or set SDIST_LOGIN")
    command.add_argument("--max-side", type=int, default=1024, metavar="PIXELS", help="of an edited picture (default: 1024)")
    command.add_argument("--max-steps", type=int, default=1000, metavar="N", help="of an edit (default: 1000)")
    command.add_argument(
        "--queue", type=int, default=16, metavar="N", help="edits that may wait; one is made at a time (default: 16)"
    )
    command.add_argument("--quiet", action="store_true", help="warnings and errors only")


def _tinyworld(command: argparse.ArgumentParser) -> None:
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT")
    quality = kinds.add_parser("quality", help="generation, autoencoder and attention masks, measured afresh")
    quality.add_argument("--n", type=int, default=500, help="captions and renders (default: 500)")
    quality.add_argument("--seed", type=int, default=0)
    quality.add_argument("--model", default="tinyworld", help="tinyworld, or a folder with another training of it")
    quality.add_argument("--device", default="auto")
    _plain(quality)


def _replay(command: argparse.ArgumentParser) -> None:
    command.add_argument("image", type=Path, help="a PNG that sdist made")
    command.add_argument("--images", type=Path, metavar="DIR", help="where the source images are, if they were moved")
    command.add_argument("--output", type=Path, metavar="PNG", help="where to write the picture (default: nowhere)")
    command.add_argument("--device", help="default: the recorded one")
    command.add_argument("--quiet", action="store_true", help="warnings and errors only")


def _verify(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Replays a recorded trace with our components and prints how far each quantity is from the recorded one."
    )
    command.add_argument("trace", type=Path, metavar="TRACE_DIR", help="folder with case.json and trace.safetensors")
    command.add_argument("--model", metavar="DIR", help="pipeline (default: TRACE_DIR/pipeline, else TRACE_DIR/../pipeline)")
    command.add_argument("--device", default="cpu", help="auto, cpu, cuda, cuda:N or mps (default: cpu)")
    command.add_argument(
        "--teacher-forced", action="store_true", help="start every step from the recorded latents, not from ours"
    )
    command.add_argument("--tolerance", type=float, default=1e-4, help="of a quantity's largest magnitude (default: 1e-4)")
    command.add_argument("--record", type=Path, metavar="DIR", help="write our run as a trace of the same format")
    _plain(command)


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _devices(text: str) -> int | str:
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be auto or a number from 1, got {text!r}")
    return text if text == "auto" else int(text)


def _place(text: str) -> Path:
    try:
        return place(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N-1, such as 0/4, got {text!r}")
    return int(index), int(count)
