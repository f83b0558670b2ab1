"""sdist completion: a script for the shell that completes commands, options, methods and files."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Iterator

from .arguments import Commands

SHELLS = ("bash", "zsh", "fish")


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in the shell",
        description="Prints a script for the shell: source <(sdist completion bash), the same with zsh, or "
        "sdist completion fish | source; in the shell's start-up file it is there every time.",
    )
    command.set_defaults(quiet=True, every=commands.choices)  # of which more come after this one
    command.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")


def main(args: argparse.Namespace) -> int:
    commands = {name: _innermost(command) for name, command in args.every.items()}
    print("\n".join(_fish(commands) if args.shell == "fish" else _bash(commands, args.shell)))
    return 0


def _innermost(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Of a command of commands the first one, whose options those are."""
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            return _innermost(next(iter(action.choices.values())))
    return command


def _values(action: argparse.Action) -> list[str]:
    """The words that an option can have; none where it takes a file or a number."""
    from ..config.methods import shipped

    if action.dest == "method":
        return [*shipped("method")]
    return [str(choice) for choice in action.choices or ()]


def _options(command: argparse.ArgumentParser) -> Iterable[argparse.Action]:
    return [action for action in command._actions if action.option_strings and action.help != argparse.SUPPRESS]


def _bash(commands: dict[str, argparse.ArgumentParser], shell: str) -> Iterator[str]:
    """Of zsh too, which has bash's completion."""
    if shell == "zsh":
        yield "autoload -U +X bashcompinit && bashcompinit"
    yield "_sdist() {"
    yield '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"'
    yield f'  if [ "$COMP_CWORD" = 1 ]; then COMPREPLY=($(compgen -W "{" ".join(commands)}" -- "$word")); return; fi'
    yield '  case "${COMP_WORDS[1]} $before" in'
    for name, command in commands.items():
        for action in _options(command):
            if values := _values(action):
                patterns = "|".join(f'"{name} {option}"' for option in action.option_strings)
                yield f'    {patterns}) COMPREPLY=($(compgen -f -W "{" ".join(values)}" -- "$word")); return;;'
    yield "  esac"
    yield '  case "${COMP_WORDS[1]} $word" in'
    for name, command in commands.items():
        options = " ".join(option for action in _options(command) for option in action.option_strings)
        yield f'    "{name} -"*) COMPREPLY=($(compgen -W "{options}" -- "$word"));;'
    yield '    *) COMPREPLY=($(compgen -f -- "$word"));;'
    yield "  esac"
    yield "}"
    yield "complete -o filenames -F _sdist sdist"


def _fish(commands: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    yield f"complete -c sdist -n __fish_use_subcommand -f -a {shlex.quote(' '.join(commands))}"
    for name, command in commands.items():
        for action in _options(command):
            names = " ".join(
                f"-{'l' if option.startswith('--') else 's'} {option.lstrip('-')}" for option in action.option_strings
            )
            values = f" -x -a {shlex.quote(' '.join(_values(action)))}" if _values(action) else " -r" if action.nargs != 0 else ""
            about = shlex.quote((action.help or "") % {"default": action.default, "prog": "sdist"})
            yield f"complete -c sdist -n '__fish_seen_subcommand_from {name}' {names}{values} -d {about}"
