"""sdist app: the studio in the browser, until it is interrupted."""

import argparse
import logging
import os
import re
import signal
from pathlib import Path
from threading import Event

from ..errors import UserError
from ..extras import need
from .arguments import Commands, added_arguments, plugin_argument, quiet_argument

log = logging.getLogger("sdist")

ORIGIN = re.compile(r"https?://(\*\.)?[\w.-]+(:\d+)?")
LOCAL = ("127.0.0.1", "localhost", "::1")


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "app",
        help="a studio in the browser, on this machine",
        description="Serves the studio until it is interrupted (Ctrl-C); see docs/studio.md. Visitors may put --vae, --lora and "
        "--embedding on a model, and no other files.",
    )
    command.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets others on the network in (default: 127.0.0.1)")
    command.add_argument("--port", type=int, default=7860, metavar="N", help="of the address in the browser (default: 7860)")
    command.add_argument("--model", default="tinyworld", metavar="ALIAS|ID|DIR", help="offered first (default: tinyworld)")
    command.add_argument("--root-path", default="", metavar="/PATH|URL",
                         help="where visitors find it behind another server (default: GRADIO_ROOT_PATH, or /)")  # fmt: skip
    command.add_argument(
        "--login",
        type=Path,
        metavar="FILE",
        help="holds USER:PASSWORD, asked of visitors (default: SDIST_LOGIN, else nobody is asked)",
    )
    command.add_argument("--allow-iframe", action="append", default=[], metavar="ORIGIN", dest="frames",
                         help="whose pages may frame it, such as https://example.org (default: none of others)")  # fmt: skip
    added_arguments(command)
    command.add_argument("--max-side", type=int, default=1024, metavar="PIXELS", help="of an edited image (default: 1024)")
    command.add_argument("--max-steps", type=int, default=1000, metavar="N", help="of an edit (default: 1000)")
    command.add_argument("--queue", type=int, default=16, metavar="N",
                         help="edits that may wait; one is made at a time (default: 16)")  # fmt: skip
    plugin_argument(command)
    quiet_argument(command)


def main(args: argparse.Namespace) -> int:
    for name in ("max_side", "max_steps", "queue"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if not 1 <= args.port <= 65535:
        raise UserError(f"--port must be within 1..65535, got {args.port}")
    if args.root_path and not args.root_path.startswith(("/", "http://", "https://")):
        raise UserError(f"--root-path must begin with / or be a URL, such as /studio, got {args.root_path!r}")
    for origin in args.frames:
        check_origin(origin)
    login = read_login(args.login, os.environ.get("SDIST_LOGIN"))
    need("app", "gradio", extra="app")
    from ..models.options import LoadOptions
    from ..studio.limits import Limits
    from ..studio.server import Address, serving

    if args.host not in LOCAL and login is None:
        log.warning("whoever reaches %s can use the studio; --login asks for a password", args.host)
    limits = Limits(side=args.max_side, steps=args.max_steps, queue=args.queue)
    added = LoadOptions(vae=args.vae or "", loras=tuple(args.lora or ()), embeddings=tuple(args.embedding or ()))
    where = Address(args.host, args.port, login, args.root_path.rstrip("/"), tuple(args.frames))
    with serving(args.model, where, limits, added) as address:
        print(f"the studio is at {address} (Ctrl-C ends it)", flush=True)
        _wait_for_the_end()
    print("the studio is closed")
    return 0


def check_origin(origin: str) -> None:
    """Raises UserError for what is no origin of pages."""
    if not ORIGIN.fullmatch(origin):
        raise UserError(f"--allow-iframe must be an origin without a path, such as https://example.org, got {origin!r}")


def _wait_for_the_end() -> None:
    """Until Ctrl-C or SIGTERM, so that what visitors gave is removed either way."""
    end = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    end.wait()


def read_login(file: Path | None, variable: str | None) -> tuple[str, str] | None:
    """USER:PASSWORD from a file or the environment; not from the arguments, which every user of the machine can read."""
    if file is None and variable is None:
        return None
    if file is not None and not file.is_file():
        raise UserError(f"login file {file} does not exist; it holds one line USER:PASSWORD")
    user, colon, password = (file.read_text(encoding="utf-8") if file is not None else variable or "").strip().partition(":")
    if not (user and colon and password) or "\n" in password:
        raise UserError(f"{file or 'SDIST_LOGIN'} must hold one line USER:PASSWORD")
    return user, password
