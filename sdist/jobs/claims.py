"""Which process makes an image: whoever begins one claims it, so that processes at one output share the work.

A claim is the file OUTPUT/claims/NAME.json, which names host and process and is renewed while the image is made. It is stale if
its process is gone, or on another machine if nobody has renewed it for ten minutes, and so is what is no claim, unless it is just
being written; whoever comes next takes it over. In a local folder a claim is exclusive; a store does not promise that, so two
processes that begin an image there in one moment both make it.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

from ..files.storage import make_folder, names, read, remove, write

log = logging.getLogger("sdist")

FOLDER = "claims"
RENEWED, STALE = 30.0, 600.0  # seconds between renewals, and after which a claim of another machine is stale
WRITING = 5.0  # seconds for which a file that is no claim may be one that is just being written


class Claim(NamedTuple):
    """What the file of a claim says; the defaults are what is taken for said by a file that is none."""

    owner: str = ""
    host: str = ""
    pid: int = 0
    process: str = ""  # see `process`
    time: float = 0.0  # of its renewal, in seconds since the epoch


class Claims:
    """The claims of one process, or of the actors of one run, in an output folder."""

    def __init__(self, output: Path, owner: str = "") -> None:
        self._folder, self._owner = output / FOLDER, owner or token_hex(8)
        self._held, self._lock, self._reported = set[str](), threading.Lock(), set[str]()

    def __reduce__(self) -> tuple[Any, ...]:
        """An actor's are the same owner's."""
        return Claims, (self._folder.parent, self._owner)

    def take(self, name: str) -> bool:
        """Whether the image is this owner's to make."""
        with self._lock:
            if name in self._held:
                return True
        if not self._create(name):
            other = self._read(name)
            if other is not None and self._is_at_work(other):
                self._report_other(other)
                return False
            if other is not None:
                self._drop(name, other)
            if not self._create(name):
                return False
        with self._lock:
            self._held.add(name)
        return True

    def release(self, name: str) -> None:
        """Gives a claim back, if it is held."""
        with self._lock, suppress(OSError):  # what cannot be removed will be stale
            if name in self._held:
                self._held.remove(name)
                remove(self._path(name))

    def of_others(self) -> set[str]:
        """Images that other processes are at work on; what is left of those that are gone is removed."""
        living = set()
        for name in [file.removesuffix(".json") for file in names(self._folder) if file.endswith(".json")]:
            other = self._read(name)
            if other is not None and self._is_at_work(other):
                living.add(name)
            elif other is not None:
                with suppress(PermissionError):  # where nothing can be written there is nothing to make either
                    self._drop(name, other)
        self._tidy()
        return living

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renews what is held for as long as the block lasts, and releases it at the end."""
        ended = threading.Event()
        threading.Thread(target=self._renew, args=(ended,), daemon=True).start()
        try:
            yield
        finally:
            ended.set()
            for name in [*self._held]:
                self.release(name)
            self._tidy()

    def _tidy(self) -> None:
        """Removes a local folder if it is empty."""
        if isinstance(self._folder, Path):
            with suppress(OSError):  # others have claims there, or it is not there
                self._folder.rmdir()

    def _renew(self, ended: threading.Event) -> None:
        while not ended.wait(RENEWED):
            for name in [*self._held]:
                with self._lock, suppress(OSError):  # the next time will do
                    if name in self._held:  # else it was released meanwhile
                        write(self._path(name), self._content())

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _content(self) -> bytes:
        host, pid = socket.gethostname(), os.getpid()
        return json.dumps(Claim(self._owner, host, pid, process(pid), time.time())._asdict()).encode()

    def _create(self, name: str) -> bool:
        """Whether the claim was not there, and is now."""
        path = self._path(name)
        if isinstance(path, Path):
            return _create_file(path, self._content())
        if self._read(name) is not None:
            return False
        make_folder(self._folder)
        write(path, self._content())
        written = self._read(name)
        return written is not None and written.owner == self._owner

    def _read(self, name: str) -> Claim | None:
        """A claim, or for a file that is none one without an owner, of its time of writing; None if there is no file."""
        try:
            text = read(self._path(name))
            written = self._path(name).stat().st_mtime if isinstance(self._folder, Path) else 0.0
        except FileNotFoundError:
            return None
        return _parsed(text) or Claim(time=written)

    def _is_at_work(self, claim: Claim) -> bool:
        if claim.owner == self._owner:
            return False  # of an actor of this run that is gone
        if claim.host == socket.gethostname() and claim.process:
            place, _, _ = process(os.getpid()).partition(" ")
            if claim.process.startswith(f"{place} "):
                return process(claim.pid) == claim.process
        return abs(time.time() - claim.time) < (STALE if claim.owner else WRITING)

    def _drop(self, name: str, stale: Claim) -> None:
        """Removes a stale claim, unless another process has put its own there meanwhile."""
        path = self._path(name)
        if not isinstance(path, Path):
            remove(path)
            return
        aside = path.with_name(f".{name}.{token_hex(4)}")
        with suppress(FileNotFoundError):
            path.rename(aside)
            if (_parsed(aside.read_bytes()) or Claim()).owner != stale.owner:
                aside.rename(path)
            aside.unlink(missing_ok=True)
        if not stale.owner:
            log.info("%s: its claim cannot be read and does not count", name)
        elif stale.owner != self._owner:
            log.info("%s: its claim of process %s on %s was left behind", name, stale.pid, stale.host)

    def _report_other(self, other: Claim) -> None:
        if other.owner and other.owner not in self._reported:
            self._reported.add(other.owner)
            exclusive = "" if isinstance(self._folder, Path) else "; a store cannot keep two from beginning the same one at once"
            text = "process %s on %s is at work here too: each image is made by the one that begins it%s"
            log.info(text, other.pid, other.host, exclusive)


def _parsed(text: bytes) -> Claim | None:
    """None if it is no claim, or not whole."""
    try:
        said = json.loads(text)
        claim = Claim(*(said[name] for name in Claim._fields))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    fits = all(type(value) is type(default) for value, default in zip(claim, Claim(), strict=True))
    return claim if fits and claim.owner else None


def _create_file(path: Path, content: bytes) -> bool:
    for _ in range(3):
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        except FileNotFoundError:
            make_folder(path.parent)  # which another process may just have removed
        else:
            return True
    return False


def process(pid: int) -> str:
    """Where numbers of processes count, and when this one began, which tells it from a later one; empty if it is gone.

    Without Linux's /proc it is only whether there is such a process; on Windows nothing.
    """
    try:
        if os.name != "posix":
            return ""
        if not Path("/proc/self/stat").exists():
            with suppress(PermissionError):  # of another user, so it is there
                os.kill(pid, 0)
            return f"here {pid}"
        place = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{Path('/proc/self/ns/pid').readlink()}"
        return f"{place} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return ""
