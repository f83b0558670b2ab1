"""What many edits are asked for. Messages name an option as the command line does: `limit` is --limit."""

from dataclasses import dataclass
from pathlib import Path

from ..config.settings import Settings
from ..errors import UserError, unknown
from ..extras import need
from ..files.storage import need_local
from .counts import at_least_one

LOGS = ("none", "csv", "tensorboard", "wandb")
ENGINES = ("local", "ray")
WHOLE = (0, 1)  # the shard that is everything


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """One method, and where its results go."""

    method: str  # a name or a yaml, as messages say it
    settings: Settings  # of that method; their seed is the first one
    output: Path  # folder, or one in a store (a UPath)
    name: str = ""  # of the runs in a log; default: the method's, without folder and ending
    parallel: int | None = None  # draws that the network sees at once; None: what suits the device
    log: str = "none"  # none, csv, tensorboard or wandb
    overwrite: bool = False  # replace results that exist
    dry_run: bool = False  # say what would be made, and write nothing
    json: bool = False  # a line of json on stdout for each image as it is there, see Session.emit

    def __post_init__(self) -> None:
        at_least_one(parallel=self.parallel)
        one_of("log", self.log, LOGS)
        if self.log != "none":
            need_local(self.output, f"--log {self.log}")
        if self.log == "tensorboard":
            need("--log tensorboard", "tensorboard", extra="tensorboard")


@dataclass(frozen=True, kw_only=True)
class RunOptions(SessionOptions):
    """The pairs of an input, every one with every seed."""

    input: str  # a folder with index.csv, or FORMAT:DIR
    seeds: int = 1  # images per pair, with the seeds settings.seed, settings.seed + 1, ...
    limit: int | None = None  # images that this call makes at most
    shard: tuple[int, int] = WHOLE  # (i, n): the pairs i, i + n, i + 2 n, ... only
    retry: bool = False  # try images again that failed in an earlier call
    changed: bool = False  # make images again whose row or settings are no longer what they were made for
    devices: int | str | None = None  # processes on this machine, one per GPU; "auto": all GPUs; None: this process alone
    engine: str = "local"  # local, or ray: the actors of a Ray cluster
    workers: int | None = None  # actors; None: one per GPU, or one per machine without

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(seeds=self.seeds, limit=self.limit, workers=self.workers)
        one_of("engine", self.engine, ENGINES)
        if not 0 <= self.shard[0] < self.shard[1]:
            raise UserError(f"--shard must be I/N with I from 0 to N-1, got {self.shard[0]}/{self.shard[1]}")
        if self.devices not in (None, "auto") and not (isinstance(self.devices, int) and self.devices > 0):
            raise UserError(f"--devices must be auto or a number from 1, got {self.devices!r}")
        if self.engine == "ray" and self.devices is not None:
            raise UserError("--devices is for this machine alone; with --engine ray it is --workers N")
        if self.engine != "ray" and self.workers is not None:
            raise UserError("--workers belongs to --engine ray; N processes on this machine are --devices N")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises UserError if an option has another value than these."""
    if value not in allowed:
        raise unknown(f"--{name}", value, allowed)
