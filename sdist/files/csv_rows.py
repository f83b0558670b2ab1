"""Rows of a csv as spreadsheets and other systems write it: which encoding, which separator, how the header is spelled."""

import csv
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError, nearest
from ..spelling import clean
from .formats import ANNEX, ARCHIVE, HEAD, POINTER, TEXT, foreign_kind

log = logging.getLogger("sdist")

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MARKS = {  # that a file may begin with; the longer ones first, since one begins as another
    b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig",
}  # fmt: skip
REMEDY = "save it as csv in UTF-8"


class Row(NamedTuple):
    """A row with something in it; `problem` says why it cannot be used, or is empty."""

    where: str  # "line 3"
    fields: dict[str, str]  # by column, without space around; not those that the row is too short for
    problem: str


class _Table(NamedTuple):
    lines: Any  # csv's reader, which has read the header
    header: list[str]
    skipped: int  # lines before those that the reader counts


def read_rows(path: Path, columns: Sequence[str], more: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a csv that has these columns, in any order and case; blank ones are left out.

    The log warns of columns that are neither these nor `more`, if that is given.

    UTF-8, or UTF-16 and 32 with their mark; commas, semicolons, tabs or bars, or what a line "sep=;" says. Raises UserError for a
    file that cannot be read as a whole; what is wrong with one row is its `problem`.
    """
    lines, header, skipped = _open(path, columns)
    if more is not None:
        _warn_of_others(path, header, (*columns, *more))
    last = lines.line_num
    try:
        for values in lines:
            first, last = last + 1, lines.line_num
            if any(value.strip() for value in values):
                where = f"line {last + skipped}" if first == last else f"lines {first + skipped} to {last + skipped}"
                yield _row(where, header, [value.strip() for value in values], columns)
    except csv.Error as error:
        raise UserError(f"{path}, line {lines.line_num + skipped}, is not csv: {error}") from None


def _warn_of_others(path: Path, header: list[str], known: Sequence[str]) -> None:
    free = [name for name in known if name not in header]
    others = [name for name in header if name and name not in known]
    shown = [f"{name} (did you mean {near}?)" if (near := nearest(name, free)) else name for name in others]
    if others:
        log.warning("%s: columns that are not read: %s; known are %s", path, ", ".join(shown)[:200], ", ".join(known))


def _row(where: str, header: list[str], values: list[str], columns: Sequence[str]) -> Row:
    fields = {name: value for name, value in zip(header, values, strict=False) if name}
    if any("\udc00" <= character <= "\udcff" for value in values for character in value):
        return Row(where, fields, f"is not UTF-8 text; {REMEDY}")
    if any(values[len(header) :]):
        more = "what has the separator in it stands in quotation marks"
        return Row(where, fields, f"has {len(values)} fields, the header {len(header)}: {more}")
    if any(column not in fields for column in columns):
        unclosed = "; is a quotation mark never closed?" if where.startswith("lines") else ""
        return Row(where, fields, f"needs {len(columns)} fields: {', '.join(columns)}{unclosed}")
    return Row(where, fields, "")


def _open(path: Path, columns: Sequence[str]) -> _Table:
    csv.field_size_limit(2**31 - 1)
    text, skipped, separator = _text(path), 0, ""
    first = next(iter(text.splitlines(keepends=True)), "")
    if (mark := first.strip('"\r\n ')).lower().startswith("sep="):
        text, skipped, separator = text[len(first) :], 1, mark[4:5] or ","
    tables = [_Table(*_with_header(text, sep), skipped) for sep in ([separator] if separator else SEPARATORS)]
    table = max(tables, key=lambda one: sum(column in one.header for column in columns))  # of equals the first: commas
    missing = [column for column in columns if column not in table.header]
    if missing:
        raise _without(missing, columns, path, text)
    twice = [column for column in columns if table.header.count(column) > 1]
    if twice:
        raise UserError(f"{path} has the column {twice[0]} more than once; leave one")
    return table


def _without(missing: Sequence[str], columns: Sequence[str], path: Path, text: str) -> UserError:
    """Why there is no such table: another kind of file, or another header."""
    with path.open("rb") as file:
        kind = foreign_kind(file.read(HEAD))
    if kind is ARCHIVE:
        return UserError(f"{path} is a workbook (xlsx, ods) or an archive, not csv: {REMEDY}")
    if kind is not None and kind is not TEXT:
        remedy = kind.remedy if kind in (POINTER, ANNEX) else "give the table itself"
        return UserError(f"{path} is {kind.name}; it should be csv: {remedy}")
    found = next((line for line in text.splitlines() if line.strip(",;\t| ")), "")[:200]
    return UserError(f"{path} has no column {', '.join(missing)}: its header is {found!r}, it needs {','.join(columns)!r}")


def _with_header(text: str, separator: str) -> tuple[Any, list[str]]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        header = next((values for values in lines if any(value.strip() for value in values)), [])
    except csv.Error:
        header = []
    names = [clean(name).strip().casefold().replace(" ", "_").replace("-", "_") for name in header]
    while names and not names[-1]:  # a spreadsheet's empty columns
        names.pop()
    return lines, names


def _text(path: Path) -> str:
    """All of the file; bytes that are not UTF-8, and zeros, which end a line before Python 3.11, as lone surrogates."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    encoding = next((encoding for mark, encoding in MARKS.items() if data.startswith(mark)), _without_mark(data))
    try:
        text = data.decode(encoding, errors="surrogateescape" if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} begins as {encoding.upper()} and cannot be read as that ({error.reason}); {REMEDY}") from None
    return text.replace("\0", "\udc00")


def _without_mark(data: bytes) -> str:
    """UTF-16 is told by the zeros beside the letters of a header."""
    if len(data) > 7 and data[1:8:2] == bytes(4):
        return "utf-16-le"
    return "utf-16-be" if len(data) > 7 and data[0:8:2] == bytes(4) else "utf-8"
