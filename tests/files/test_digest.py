"""Digests of files, piece by piece, and once per state of a file where they are kept."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from sdist.files import digest
from sdist.files.digest import PIECE, file_digest, kept_digest


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1])
def test_a_digest_is_that_of_all_of_the_file(tmp_path: Path, size: int) -> None:
    file, content = tmp_path / "x", os.urandom(size)
    file.write_bytes(content)
    assert file_digest(file) == kept_digest(file) == sha256(content).hexdigest()


def test_a_kept_digest_is_computed_again_when_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(digest, "file_digest", lambda path: read.append(path) or str(len(read)))
    file = tmp_path / "x"
    file.write_bytes(b"one")
    assert [kept_digest(file), kept_digest(file)] == ["1", "1"]
    os.utime(file, ns=(1, 1))
    assert kept_digest(file) == "2"
    file.write_bytes(b"other")
    assert kept_digest(file) == "3"
