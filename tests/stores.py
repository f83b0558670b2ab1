"""Stores that fsspec reaches, kept in a local folder: one of objects, one of files; slow, counted, refusing, as a test wants."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from fsspec import AbstractFileSystem

Refuse = Callable[[str, str], None]


class Objects(AbstractFileSystem):
    """An object is there whole or not at all, and a folder is but the beginning of names."""

    protocol = "objects"
    root = Path()
    delay = 0.0  # seconds a question takes
    asked: ClassVar[Counter[str]] = Counter()
    busy, busiest, lock = 0, 0, threading.Lock()  # questions that are asked at once
    refuse: Refuse = staticmethod(lambda what, path: None)

    @contextmanager
    def _question(self, what: str, path: str) -> Iterator[Path]:
        """Where the object is."""
        own = Objects
        with own.lock:
            own.asked[what] += 1
            own.busy += 1
            own.busiest = max(own.busy, own.busiest)
        try:
            time.sleep(own.delay)
            own.refuse(what, path)
            yield own.root / self._strip_protocol(path).strip("/")
        finally:
            with own.lock:
                own.busy -= 1

    def ls(self, path: str, detail: bool = True, **_: Any) -> list:
        with self._question("ls", path) as file:
            if not file.exists():
                raise FileNotFoundError(path)
            own = file.iterdir() if file.is_dir() else [file]
            found = [self._told(each) for each in own if not each.name.endswith(".putting")]
        return found if detail else [each["name"] for each in found]

    def info(self, path: str, **_: Any) -> dict:
        with self._question("info", path) as file:
            if not file.exists():
                raise FileNotFoundError(path)
            return self._told(file)

    def _told(self, file: Path) -> dict:
        kind = "directory" if file.is_dir() else "file"
        return {"name": str(file.relative_to(self.root)), "size": file.stat().st_size, "type": kind}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        with self._question("get", path) as file:
            return file.read_bytes()[start:end]

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        with self._question("put", path) as file:
            file.parent.mkdir(parents=True, exist_ok=True)
            whole = file.with_name(f"{file.name}.putting")
            whole.write_bytes(value)
            os.replace(whole, file)

    def rm_file(self, path: str) -> None:
        with self._question("rm", path) as file:
            file.unlink()

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        raise AssertionError(f"a bucket would be made for {path}")


class Files(Objects):
    """Files in folders, as on a disk: they grow while they are written, and can be moved."""

    protocol = "files"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        with self._question("put", path) as file, file.open("wb", buffering=0) as opened:
            opened.write(value[: len(value) // 2])
            self.refuse("put the rest", path)
            opened.write(value[len(value) // 2 :])

    def mv(self, path1: str, path2: str, **_: Any) -> None:
        with self._question("mv", path1) as old:
            os.replace(old, self.root / self._strip_protocol(path2).strip("/"))

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        with self._question("mkdir", path) as folder:
            folder.mkdir(parents=create_parents)
