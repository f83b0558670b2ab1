"""--devices N: N processes on this machine, one a GPU, started by Lightning Fabric; each makes every N-th picture.

They meet twice: when all have planned, so that none writes while another still looks at what is there, and at the end, to add
up. What they tell each other then are counts and messages, over gloo, on GPUs too: it notices at once when a process is gone.
"""

import argparse
import logging
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch.distributed import all_gather_object
from torch.multiprocessing import ProcessExitedException
from tqdm.auto import tqdm

from ...errors import UserError
from ...models.allocator import keep_freed_memory
from ...models.devices import choose_device
from ..plan import Plan, planned
from ..session import Session, settings_of
from ..summary import Complaints, summary
from .local import edit_tasks
from .queues import begin, by_size

LONG = timedelta(days=365)  # until the slowest has made its share; one that is gone is noticed without waiting
ENDING = (UserError, FloatingPointError, OSError)  # what the command line prints as one line

for name in ("lightning_fabric", "pytorch_lightning"):  # in the started processes too
    logging.getLogger(name).setLevel(logging.WARNING)

Done = tuple[list[str], int]


def make(args: argparse.Namespace) -> Done:
    """Plans a run and makes its pictures; its summary, and the number of problems. Under torchrun the first process goes on."""
    fabric = _fabric(args)
    with _processes():
        done = fabric.launch(_work, args)
    if fabric.global_rank:
        raise SystemExit(2 if isinstance(done, Exception) or done[1] else 0)
    if isinstance(done, Exception):
        raise done
    return done


def _fabric(args: argparse.Namespace) -> Fabric:
    kind, wanted = choose_device(settings_of(args, args.method).device), args.devices
    if kind not in ("cpu", "cuda"):
        raise UserError(f"--devices chooses among all GPUs or works on the CPU; --device must be auto, cuda or cpu, got '{kind}'")
    have = torch.cuda.device_count() if kind == "cuda" else 1
    count = have if wanted == "auto" else wanted
    if kind == "cuda" and count > have:
        raise UserError(f"--devices {count}: this machine has {have} GPU{'s' * (have > 1)}")
    started = TorchElasticEnvironment.detect()  # by torchrun
    environment = TorchElasticEnvironment() if started else LightningEnvironment()
    strategy = DDPStrategy(start_method="popen" if started else "spawn", process_group_backend="gloo", timeout=LONG)
    return Fabric(accelerator=kind, devices=count, strategy=strategy, plugins=[environment])


@contextmanager
def _processes() -> Iterator[None]:
    """None of the processes that are started in the block outlives it; one that was killed is said in one line."""
    others = multiprocessing.active_children()
    try:
        yield
    except ProcessExitedException as error:
        how = error.signal_name or f"exit code {error.exit_code}"
        raise UserError(
            f"a process of --devices ended before its work did ({how}), and the others were stopped; what was finished is kept, "
            "and the same command goes on from there"
        ) from None
    finally:
        for process in {*multiprocessing.active_children()}.difference(others):
            process.terminate()
            process.join()


def _work(fabric: Fabric, args: argparse.Namespace) -> Done | Exception:
    """One process: the same plan as the others', and its share of it. An error of any of them that ends a run is returned."""
    first = fabric.global_rank == 0
    _settle(quiet=args.quiet or not first)
    if fabric.device.type == "cuda":
        args.device = str(fabric.device)
    complain = Complaints()
    own = _tried(lambda: _planned(args, complain if first else None))
    if errors := [error for error in _meet(None if isinstance(own, tuple) else own) if error is not None]:
        return errors[0]
    (session, found), start = own, time.perf_counter()
    share = by_size(found.todo)[fabric.global_rank :: fabric.world_size]
    failure = _tried(lambda: edit_tasks(session, share, found.sizes, complain))
    counts, told, failures = zip(*_meet((session.made, complain.told, failure)), strict=True)
    session.made, problems = sum(counts), len(set().union(*told))
    return next(filter(None, failures), (summary({session: found}, time.perf_counter() - start, problems), problems))


def _planned(args: argparse.Namespace, complain: Complaints | None) -> tuple[Session, Plan]:
    """The plan, which one of the processes speaks about, and clears the way for."""
    session, found = planned(args, complain or (lambda text: None))
    if complain is not None:
        begin(session, found, complain)
    return session, found


def _settle(quiet: bool) -> None:
    """What the command line does in its own process. Each trainer is one of its own, and logs, whatever its process' rank is."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("sdist").setLevel(logging.WARNING if quiet else logging.INFO)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # sent if the command is killed, and may have been ignored
    rank_zero_only.rank = 0
    tqdm.set_lock(threading.RLock())  # the default one has a semaphore, which a killed process would leave behind


def _tried(function: Callable[[], Any]) -> Any:
    """What the function gives, or what ended it."""
    try:
        return function()
    except ENDING as error:
        return error


def _meet(own: Any) -> list[Any]:
    """What each process brings, in the order of their ranks, when the last has come."""
    everyone: list[Any] = [None] * torch.distributed.get_world_size()
    try:
        all_gather_object(everyone, own)
    except RuntimeError:  # one is gone: whoever started them says which
        raise SystemExit(1) from None
    return everyone
