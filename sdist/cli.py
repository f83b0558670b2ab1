"""The command line. Each command is a module of sdist/commands, whose import is light; what it works with comes later."""

import argparse
import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from . import __version__
from .commands.messages import print_error
from .commands.unknown import hint, is_option
from .environment import check_environment, naming_variables, sleep_beside_others
from .errors import UserError
from .files.storage import remove_unused_folders
from .jobs.console import print_line, set_up_logging
from .jobs.interrupts import UNSAVED, interrupts
from .plugins import load_plugins

COMMANDS = (
    "edit",
    "run",
    "sweep",
    "replay",
    "verify",
    "methods",
    "doctor",
    "bench",
    "calibrate",
    "evaluate",
    "compare",
    "app",
    "tinyworld",
    "completion",
)

EDITING = ("edit", "run", "sweep")
BAD_INPUT = 2
EXAMPLES = """examples:
  sdist edit photo.jpg --source "a cat" --target "a dog"   edit one image with the embedded model
  sdist run --input folder --output results                edit all that folder/index.csv lists
  sdist app                                                the same in the browser
"""
NUMBERS = {"int": "a whole number", "float": "a number"}
DISK = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "the disk is read-only"}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (done, but not all), 2 (bad input), 130 (Ctrl-C), 143 (SIGTERM)."""
    with interrupts.handled():
        try:
            return _main(argv)
        finally:
            remove_unused_folders()  # of a command that ended before it wrote anything


def _main(argv: list[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    root = parser()
    if not words:
        root.print_help()
        return 0
    args = root.parse_args(words)
    set_up_logging(verbose=not args.quiet)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        sleep_beside_others()
        check_environment()
        with naming_variables():
            load_plugins(getattr(args, "plugins", ()))
            return import_module(f"sdist.commands.{args.command}").main(args)
    except (UserError, FloatingPointError) as error:
        return _fail(str(error), BAD_INPUT)
    except KeyboardInterrupt as interrupt:
        print_line(f"sdist: {str(interrupt) or (UNSAVED if args.command in EDITING else 'interrupted')}")
        return interrupts.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = DISK.get(error.errno or 0, error.strerror)
        if error.errno in DISK or error.filename is not None:
            return _fail(f"{error.filename or 'output'}: {reason}", BAD_INPUT)
        return _out_of_memory(error)
    except (MemoryError, RuntimeError) as error:
        return _out_of_memory(error)


def _out_of_memory(error: Exception) -> int:
    """One line for a failed allocation that nothing else has met. Raises any other error."""
    from .faults import is_out_of_memory  # imports torch

    if not is_out_of_memory(error):
        raise error
    return _fail(f"the memory does not suffice: {error or type(error).__name__}", BAD_INPUT)


def _fail(message: str, code: int) -> int:
    print_error(message)
    return code


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other error here does; subcommands are of this class too.

    No option may be shortened, so that a new one never changes what an old command means.
    """

    commands: Mapping[str, "Parser"] = {}  # all by name, to say which has an option that this one has not

    def __init__(self, **keywords: Any) -> None:
        super().__init__(allow_abbrev=False, **keywords)

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Nothing is left over: an unknown option is an error of the command that it was given to, before missing ones are."""
        words = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:
            self._refuse_unknown(words)
        elif words and is_option(words[0]) and words[0] not in self._option_string_actions:
            behind = f": options stand behind the command, {self.prog} COMMAND {words[0]}"
            self.error(f"unknown option {words[0]}{hint(words[0], self._option_string_actions, {}) or behind}")
        else:
            self._refuse_unknown_command(words)
        known, others = super().parse_known_args(words, namespace)
        if others:
            self._refuse_unknown(others)
            self.error(f"unexpected {' '.join(others)}")
        return known, others

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        known = self._option_string_actions
        for word in words[: words.index("--") if "--" in words else None]:
            name = word.partition("=")[0]
            if is_option(word) and name not in known:
                every = {name: command._option_string_actions for name, command in self.commands.items()}
                self.error(f"unknown option {name}{hint(name, known, every)}")

    def _refuse_unknown_command(self, words: Sequence[str]) -> None:
        (commands,) = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        name = next((word for word in words if not word.startswith("-")), None)
        if name is not None and name not in commands:
            near = get_close_matches(name, commands, n=1)
            self.error(
                f"unknown command {name!r}" + (f", did you mean {near[0]!r}?" if near else f": have {', '.join(commands)}")
            )

    def error(self, message: str) -> NoReturn:
        for kind, what in NUMBERS.items():
            message = message.replace(f"invalid {kind} value:", f"must be {what}, got")
        raise SystemExit(_fail(f"{message} (see {self.prog} --help)", BAD_INPUT))


def parser() -> argparse.ArgumentParser:
    root = Parser(
        prog="sdist",
        description="Text-guided image editing by score distillation.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"sdist {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        import_module(f"sdist.commands.{name}").add_to(commands)
    for command in commands.choices.values():
        command.commands = commands.choices
    return root
