"""One spelling of what reads alike: Unicode's forms, spaces, and characters that nobody sees."""

import re
import unicodedata

from .errors import UserError

INVISIBLE = re.compile(  # Unicode's Default_Ignorable_Code_Point: zero-width, soft hyphen, byte order mark, marks of direction
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
SPACES = re.compile(r"[^\S\t\n\r\f\v ]")  # no-break, thin, ideographic ...
CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")  # but tabs
APOSTROPHES, HYPHENS = "'\u2019\u2018\u201b\u02bc\uff07\u00b4`", "-\u2010\u2011\uff0d"
PLAIN = str.maketrans(dict.fromkeys(APOSTROPHES, "'") | dict.fromkeys(HYPHENS, "-"))


def clean(text: str) -> str:
    """Composed (NFC), without invisible characters, every space a plain one; what is seen stays as it is."""
    return unicodedata.normalize("NFC", SPACES.sub(" ", INVISIBLE.sub("", text)))


def key(word: str) -> str:
    """What two words have in common that are one to a reader, whatever their case, apostrophes and hyphens."""
    return unicodedata.normalize("NFKC", clean(word)).translate(PLAIN).casefold()


def aligned(text: str) -> str:
    """As long as the text: apostrophes and hyphens are plain, marks and invisible characters, which end no word, are "_"."""
    return "".join("_" if INVISIBLE.match(c) or unicodedata.category(c)[0] == "M" else c for c in text).translate(PLAIN)


def escaped(text: str) -> str:
    """The text with its half characters, as of a path that is not UTF-8, written out; else the text itself."""
    return text.encode(errors="backslashreplace").decode()


def counted(count: int, what: str) -> str:
    """1 image, 2 images."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def one_line(text: str) -> str:
    """The text for a terminal or a list: control characters, as names of files may have them, written out (\\n, \\x1b)."""
    return CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def check_text(name: str, text: str) -> None:
    """Raises UserError for what is no text: another type, half characters of UTF-16, and control characters."""
    if not isinstance(text, str):
        raise UserError(f"the {name} is text, got {type(text).__name__}")
    for at, c in enumerate(text):
        if "\ud800" <= c <= "\udfff":
            raise UserError(f"the {name} is not valid text: half a character at place {at + 1}, as of bytes that are not UTF-8")
        if unicodedata.category(c) == "Cc" and not c.isspace():
            raise UserError(f"the {name} is not valid text: the control character U+{ord(c):04X} at place {at + 1}; leave it out")
