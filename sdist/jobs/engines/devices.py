"""--devices N: N processes on this machine, one per GPU, started by Lightning Fabric; each makes every N-th image.

They wait for each other twice: when all have planned, so that none writes while another still looks at what is there, and at
the end, to add up. What they exchange then are counts and messages, over gloo, on GPUs too: it notices at once when a process
is gone.
"""

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any, TypeVar, cast

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
from ...models.process_state import process_state
from ..console import set_up_logging
from ..options import RunOptions
from ..plan import Plan, plan_run
from ..problems import ProblemReporter, Report
from ..session import Session
from ..summary import RunResult, run_result
from .local import edit_tasks
from .queues import begin, by_size

if multiprocessing.parent_process() is not None:  # a process that was started here: what it says first comes before _work
    for name in ("lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)

T = TypeVar("T")

log = logging.getLogger("sdist")

GROUP = ("MASTER_", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LT_")  # variables that others left for theirs
TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ANSWER = 30  # seconds that the address of a group of processes may take to answer
LONG = timedelta(days=365)  # until the slowest has made its share; one that is gone is noticed without waiting
ENDING = (UserError, FloatingPointError, OSError)  # what the command line prints as one line


def make(options: RunOptions, show: Report) -> RunResult:
    """Plans a run and makes its images. Under torchrun only the first process returns."""
    among = _is_started_by_torchrun()
    alone = _without_variables(*(("LT_",) if among else GROUP))
    with process_state(), alone, _processes():
        fabric = _fabric(options)  # it looks into arguments, and refuses those that are frozen
        result = fabric.launch(partial(_work, options=options, show=show, verbose=log.isEnabledFor(logging.INFO)))
    if among and fabric.global_rank:
        raise SystemExit(2 if isinstance(result, Exception) or result.problems else 0)
    if isinstance(result, Exception):
        raise result
    return result


def _fabric(options: RunOptions) -> Fabric:
    kind = choose_device(options.settings.device)
    if kind not in ("cpu", "cuda"):
        raise UserError(f"--devices chooses among all GPUs or works on the CPU; --device must be auto, cuda or cpu, got '{kind}'")
    available = torch.cuda.device_count() if kind == "cuda" else 1
    count = options.devices if isinstance(options.devices, int) else available
    if kind == "cuda" and count > available:
        raise UserError(f"--devices {count}: this machine has {available} GPU{'s' * (available > 1)}")
    started = _is_started_by_torchrun()
    if started:
        _check_torchrun(count)
    environment = TorchElasticEnvironment() if started else LightningEnvironment()
    strategy = DDPStrategy(start_method="popen" if started else "spawn", process_group_backend="gloo", timeout=LONG)
    return Fabric(accelerator=kind, devices=count, strategy=strategy, plugins=[environment])


def _is_started_by_torchrun() -> bool:
    """Whether all that torchrun tells a process is there; a part of it was left by something else."""
    return TorchElasticEnvironment.detect() and all(name in os.environ for name in TORCHRUN)


def _check_torchrun(count: int) -> None:
    """Raises UserError if it started another number of processes, or if nothing answers where they are to meet."""
    group = TorchElasticEnvironment()
    if count != group.world_size():
        raise UserError(f"--devices {count}: torchrun has started {group.world_size()} processes; give both the same number")
    if group.global_rank() == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return  # the others meet at this one
    try:
        socket.create_connection((group.main_address, group.main_port), timeout=ANSWER).close()
    except OSError as error:
        raise UserError(
            f"--devices: the variables of torchrun are set, but nothing answers at {group.main_address}:{group.main_port} "
            f"({error}); start it with torchrun, or unset TORCHELASTIC_RUN_ID"
        ) from None


@contextmanager
def _without_variables(*prefixes: str) -> Iterator[None]:
    """No environment variable of these prefixes at the beginning of the block; at its end they are as before."""
    before = {name: value for name, value in os.environ.items() if name.startswith(prefixes)}
    _remove_variables(prefixes)
    try:
        yield
    finally:
        _remove_variables(prefixes)
        os.environ.update(before)


def _remove_variables(prefixes: tuple[str, ...]) -> None:
    for name in [name for name in os.environ if name.startswith(prefixes)]:
        del os.environ[name]


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


def _work(fabric: Fabric, options: RunOptions, show: Report, verbose: bool) -> RunResult | Exception:
    """One process: the same plan as the others', and its share of it. An error of any of them that ends a run is returned."""
    first = fabric.global_rank == 0
    _set_up_process(verbose and first)
    if fabric.device.type == "cuda":
        options = replace(options, settings=replace(options.settings, device=str(fabric.device)))
    report = ProblemReporter(show)
    planned = _result_or_error(lambda: _plan(options, report if first else None))
    errors = [error for error in _all_gather(planned if isinstance(planned, Exception) else None) if error is not None]
    if isinstance(planned, Exception) or errors:
        return errors[0]
    (session, plan), start = planned, time.perf_counter()
    share = by_size(plan.todo)[fabric.global_rank :: fabric.world_size]
    failure = _result_or_error(lambda: edit_tasks(session, share, plan.sizes, report))
    gathered = _all_gather((session.made, session.elsewhere, report.problems, failure))
    made, elsewhere, problems, failures = zip(*gathered, strict=True)
    session.made, session.elsewhere, unique = sum(made), sum(elsewhere), tuple(dict.fromkeys(chain(*problems)))
    return next(filter(None, failures), run_result(session, plan, time.perf_counter() - start, unique))


def _plan(options: RunOptions, report: Report | None) -> tuple[Session, Plan]:
    """The plan, which one of the processes reports about, and clears the way for."""
    session, plan = plan_run(options, report or (lambda text: None))
    if report is not None:
        begin(session, plan, report)
    return session, plan


def _set_up_process(verbose: bool) -> None:
    """What the command line does in its own process. Each trainer is one of its own, and logs, whatever its process' rank is."""
    set_up_logging(verbose)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # sent if the command is killed, and may have been ignored
    cast(Any, rank_zero_only).rank = 0  # an attribute of the function
    tqdm.set_lock(threading.RLock())  # the default one has a semaphore, which a killed process would leave behind


def _result_or_error(function: Callable[[], T]) -> T | Exception:
    """What the function returns, or what ended it."""
    try:
        return function()
    except ENDING as error:
        return error


def _all_gather(value: T) -> list[T]:
    """The values of all processes in the order of their ranks, when the last has come."""
    values: list[Any] = [None] * torch.distributed.get_world_size()
    try:
        all_gather_object(values, value)
    except RuntimeError:  # one is gone: whoever started them says which
        raise SystemExit(1) from None
    return values
