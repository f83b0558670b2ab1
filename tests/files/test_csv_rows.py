"""Tables as spreadsheets, editors and other systems write them: read, or refused with the cause."""

from pathlib import Path

import pytest

from sdist.errors import UserError
from sdist.files.csv_rows import read_rows

COLUMNS = ("img_path", "source_prompt", "target_prompt")
HEAD, ROW = "img_path,source_prompt,target_prompt\n", "é.png,a field,a red balloon\n"
PLAIN = HEAD + ROW


def rows_of(folder: Path, content: bytes | str) -> list:
    path = folder / "index.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path, COLUMNS))


READ = {
    "plain": PLAIN,
    "byte order mark and CRLF": PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
    "CR alone": PLAIN.replace("\n", "\r"),
    "semicolons": PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "sep=": "sep=;\r\n" + PLAIN.replace(",", ";"),
    "sep= of a tab": "SEP=\t\n" + PLAIN.replace(",", "\t"),
    "sep= in quotation marks": '"sep=,"\n' + PLAIN,
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-16 without a mark": PLAIN.encode("utf-16-le"),
    "UTF-16 with tabs, a spreadsheet's 'Unicode text'": PLAIN.replace(",", "\t").encode("utf-16"),
    "UTF-32": PLAIN.encode("utf-32"),
    "other case and spaces in the header": PLAIN.replace("img_path,source_prompt", "Img_Path , Source Prompt"),
    "another order": "target_prompt,source_prompt,img_path\na red balloon,a field,é.png\n",
    "spaces around fields": HEAD + " é.png\u00a0, a field ,a red balloon \n",
    "quotation marks": '"img_path","source_prompt","target_prompt"\n"é.png","a field","a red balloon"\n',
    "a space before a quotation mark": HEAD + 'é.png, "a field", "a red balloon"\n',
    "empty columns": PLAIN.replace("\n", ",,\n"),
    "a column of one's own": HEAD.replace("\n", ",note\n") + ROW.replace("\n", ",good\n"),
    "blank lines and rows of separators": "\n,,\n" + HEAD + "\n,,\n" + ROW + ",,\n\n",
    "no end of the last line": PLAIN.rstrip("\n"),
    "an invisible character in the header": PLAIN.replace("source", "\u200bsource"),
}


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_a_table_of_any_kind_is_read(tmp_path: Path, content: bytes | str) -> None:
    (row,) = rows_of(tmp_path, content)
    assert not row.problem
    assert [row.fields[column] for column in COLUMNS] == ["é.png", "a field", "a red balloon"]


REFUSED = {
    "another column": ("a,b\n1,2\n", "has no column img_path, source_prompt, target_prompt: its header is 'a,b'"),
    "no header": (ROW, "its header is 'é.png,a field,a red balloon'"),
    "a column misspelt": (PLAIN.replace("img_path", "img"), "has no column img_path"),
    "a column twice": (PLAIN.replace("source_prompt", "img_path,source_prompt"), "has the column img_path more than once"),
    "nothing": ("", "has no column img_path, source_prompt, target_prompt: its header is ''"),
    "half of a character": (b"\xff\xfe\0", "begins as UTF-16 and cannot be read as that"),
    "a workbook": (b"PK\x03\x04" + bytes(range(256)), "is a workbook (xlsx, ods) or an archive, not csv: save it as csv"),
    "a web page": (
        "<!doctype html><html>not found</html>",
        "is a web page (HTML); it should be csv: give the table itself",
    ),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a git LFS pointer, not the file itself"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_such_table_is_one_line(tmp_path: Path, content: bytes | str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        rows_of(tmp_path, content)
    assert message in str(refused.value)


BAD_ROWS = {
    "too short": ("a.png,a\n", "line 2", "needs 3 fields: img_path, source_prompt, target_prompt"),
    "a comma in a prompt": ("a.png,a,b, c\n", "line 2", "has 4 fields, the header 3: what has the separator in it stands in"),
    "Latin-1": ("é.png,a,b\n".encode("latin-1"), "line 2", "is not UTF-8 text; save it as csv in UTF-8"),
    "a zero byte": ("a\0.png,a,b\n", "line 2", "is not UTF-8 text"),
    "a quotation mark that is never closed": ('a.png,"a,b\nb.png,a,b\n', "lines 2 to 3", "is a quotation mark never closed?"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "where", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_costs_itself(tmp_path: Path, row: bytes | str, where: str, message: str) -> None:
    content = HEAD.encode() + (row.encode() if isinstance(row, str) else row)
    bad = rows_of(tmp_path, content)[-1]
    assert bad.where == where
    assert message in bad.problem
    good, bad = rows_of(tmp_path, PLAIN.encode() + content[len(HEAD) :])
    assert not good.problem
    assert bad.problem


def test_lines_are_those_that_an_editor_shows(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "sep=,\n\n" + HEAD + '\na.png,"two\nlines",b\n' + "b.png,a,b\n")
    assert [row.where for row in rows] == ["lines 5 to 6", "line 7"]
