"""Where results go: a local folder, or one in any store that fsspec reaches, as a `UPath`, which has pathlib's methods.

A UPath is annotated as the Path that it stands for. Whatever class of error a driver raises becomes an OSError that names the
place; only here is a store told from a local folder.
"""

import errno
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar, cast

from ..errors import UserError, unknown

_made = list[Path]()  # folders, by this process
READERS = 16  # questions that a store is asked at once
LOCAL = ("file", "local")  # protocols of a folder on this machine
ACCOUNTS = {
    "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY": ("s3", "s3a"),
    "GOOGLE_APPLICATION_CREDENTIALS": ("gs", "gcs"),
    "AZURE_STORAGE_CONNECTION_STRING": ("az", "abfs", "abfss", "adl"),
}

T = TypeVar("T")
R = TypeVar("R")
Remote = Any  # a UPath, whose package only some have installed


def storage_path(text: str) -> Path:
    """The folder that a path or an fsspec URL names. Raises a UserError with what to install if a driver is missing."""
    protocol, is_url, rest = text.partition("://")
    if not is_url:
        return Path(os.path.expanduser(text))  # noqa: PTH111, which leaves the ~ of an unknown user as it is
    if "::" in protocol or "://" in rest:
        raise UserError(f"{text} is a chain of file systems, which may answer from a cache; name the store itself")
    if protocol in LOCAL:
        return _local(rest, text)
    try:
        from fsspec import get_filesystem_class
        from upath import UPath
        from upath.registry import available_implementations
    except ImportError:
        raise UserError(f"{text} needs universal-pathlib: pip install 'sdist[remote]'") from None
    if protocol not in (known := available_implementations(fallback=True)):
        raise unknown("protocol", protocol, known, text)
    if not rest.strip("/"):
        raise UserError(f"{text} names no folder; a URL is such as {protocol}://bucket/results")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of drivers that UPath has no class of its own for
            folder = UPath(text)
            get_filesystem_class(folder.protocol)  # fails if the driver is missing
            str(folder / "name")  # is when some kinds read what they were given
            return cast(Path, folder)
    except Exception as error:  # a driver's, of any class
        raise UserError(f"{text} cannot be used: {_reason(error)}") from None


def _local(rest: str, text: str) -> Path:
    host, slash, path = rest.partition("/")
    if not slash or host not in ("", "localhost"):
        raise UserError(f"{text} names no folder of this machine; a URL is such as file:///home/me/results")
    from urllib.request import url2pathname  # loads http and ssl, which the start of the command line need not wait for

    return Path(url2pathname(slash + path))


def need_local(folder: Path, what: str) -> None:
    """Raises UserError if the folder is in a store."""
    if not isinstance(folder, Path):
        raise UserError(f"{what} needs a local --output, got {folder}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes what a store's driver raises an OSError that names the path."""
    try:
        yield
    except Exception as error:
        if isinstance(path, Path):
            raise
        number = errno.ENOENT if isinstance(error, FileNotFoundError) else getattr(error, "errno", None)
        raise OSError(number if isinstance(number, int) else errno.EIO, _reason(error), str(path)) from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# --- reading -----------------------------------------------------------------------------------------------------------


def names(folder: Path) -> set[str]:
    """Names of what is in the folder, by one listing; none if there is no such folder."""
    with naming(folder), suppress(FileNotFoundError, NotADirectoryError):
        return {path.name for path in folder.iterdir()}
    return set()


def read(path: Path, limit: int | None = None) -> bytes:
    """A file, or its first `limit` bytes: one question to a store."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            return file.read(limit)
    with naming(path):
        return path.fs.cat_file(path.path, end=limit)


def read_ends(path: Path, first: int, last: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file; none of a large one in a store, which shows only what it has all of."""
    head = read(path, first)
    if len(head) < first or not isinstance(path, Path):
        return head, head[-last:] if len(head) < first else b""
    with path.open("rb") as file:
        file.seek(-last, os.SEEK_END)
        return head, file.read()


def mapped(folder: Path, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The values of a function that reads in the folder; a store, which takes its time to answer, is asked side by side."""
    if isinstance(folder, Path):
        yield from map(function, items)
    else:
        with ThreadPoolExecutor(READERS) as readers:
            yield from readers.map(function, items)


# --- writing -----------------------------------------------------------------------------------------------------------


def make_folder(folder: Path) -> None:
    """Makes the folder if needed; in an object store there is nothing to make, and a bucket that is not there stays so."""
    if isinstance(folder, Path):
        _made.extend(path for path in (folder, *folder.parents) if not path.exists())
    with naming(folder):
        if isinstance(folder, Path) or _moves(folder):
            folder.mkdir(parents=True, exist_ok=True)


def remove_unused_folders() -> None:
    """Removes folders that this process has made and nothing was put into."""
    for folder in sorted(set(_made), key=lambda path: -len(path.parts)):
        with suppress(OSError):  # it is not empty, or gone
            folder.rmdir()
    _made.clear()


def _moves(path: Remote) -> bool:
    """Whether the store has files in folders, as disks do; in fsspec a driver of an object store moves by copying."""
    from fsspec import AbstractFileSystem

    return type(path.fs).mv is not AbstractFileSystem.mv


def try_writing(folder: Path) -> None:
    """Makes the folder if needed, and a file in it that does not stay. Raises OSError if that fails."""
    if isinstance(folder, Path):
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            return
    try:
        make_folder(folder)
        with naming(folder):
            folder.fs.invalidate_cache()  # others may have written since this process last listed something
            trial = (folder / f".{token_hex(4)}.part").path
            folder.fs.pipe_file(trial, b"")
            folder.fs.rm_file(trial)
    except OSError as error:
        account = next(
            (f"; the account is taken from {variables}" for variables, of in ACCOUNTS.items() if folder.protocol in of), ""
        )
        raise OSError(error.errno, f"{error.strerror}{account}", str(folder)) from None


def write(path: Path, data: bytes) -> None:
    """The file is there whole or not at all. Raises an OSError that names it.

    A local one as `write_atomic` does it. An object store (S3, GCS, Azure, memory) shows an object when it has all of it, so
    that is one put. Where there are files in folders (SFTP, HDFS), it is written beside and moved, but not flushed to disk: a
    power cut over there may still cost it.
    """
    if isinstance(path, Path):
        write_atomic(path, data)
        return
    with naming(path):
        if _moves(path):
            _move_in(path, data)
        else:
            path.fs.pipe_file(path.path, data)


def _move_in(path: Remote, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{token_hex(4)}.part").path
    try:
        path.fs.pipe_file(beside, data)
        path.fs.mv(beside, path.path)
    except BaseException:
        with suppress(Exception):
            path.fs.rm_file(beside)
        raise


def remove(path: Path) -> None:
    """Removes a file if it is there."""
    with naming(path):
        try:
            path.unlink(missing_ok=True)
        except OSError:  # which a read-only disk says of what is not there, too
            if path.exists():
                raise


def write_atomic(path: Path, data: bytes) -> None:
    """The file is there whole or not at all, also after a power cut: written beside, flushed to disk, then renamed.

    A kill may leave .NAME.*.part beside it; that name is this writing's own, so that no two processes write into one file.
    Raises an OSError that names the file.
    """
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def _flush_folder(folder: Path) -> None:
    """Makes a rename last; some file systems cannot be asked to, and the file itself is on disk by then."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
