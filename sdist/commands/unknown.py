"""What was probably meant by an option that a command does not have. Imports nothing heavy."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from ..errors import nearest
from ..files.index_file import COLUMNS, MORE

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"  # of text programs, which put them in the place of - and --


def is_option(word: str) -> bool:
    """Whether a word of the command line looks like an option's name, also under dashes of a text program."""
    name = word.partition("=")[0]
    return " " not in name and name[:1] in f"-{DASHES}" and name.lstrip(f"-{DASHES}")[:1].isalpha()


def hint(word: str, known: Iterable[str], commands: Mapping[str, Iterable[str]]) -> str:
    """The end of a message about it: the near option, the commands that have it, or where values of a method go.

    `known` are the options of the command, `commands` those of all by their names.
    """
    names, plain = list(known), "--" + word.partition("=")[0].lstrip(f"-{DASHES}")
    if word[0] in DASHES:
        return f": it begins with a dash of a text program; write {plain if plain in names else '--'}"
    alike = get_close_matches(plain, names, n=1, cutoff=0.85)
    if alike:
        return f", did you mean {alike[0]}?"
    elsewhere = [command for command, options in commands.items() if plain in options]
    if elsewhere:
        of_a_row = f"; a row of index.csv has {', '.join(COLUMNS)}, and may have {', '.join(MORE)}"
        return f": it is one of sdist {', '.join(elsewhere)}{of_a_row if 'edit' in elsewhere and '--input' in names else ''}"
    near = next((name for name in names if name.startswith(word)), "") or nearest(plain, names)
    if near:
        return f", did you mean {near}?"
    return ": values of a method are given as --set KEY=VALUE" if "--set" in names else ""
