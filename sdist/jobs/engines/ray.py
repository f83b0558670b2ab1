"""--engine ray: the actors of a Ray cluster (https://docs.ray.io), one per GPU or with a share of the CPUs.

This process plans; the driver dispatches images; the actors edit and write to --output, a folder that all machines share.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from dataclasses import replace
from typing import Any

import ray
from ray._private import ray_constants

from ...config.settings import Settings
from ...distillation.progress import steps_bar
from ...editors.loading import LoadedMethod, ModelCache
from ...errors import UserError
from ...models.library import attribute, quiet
from ..options import RunOptions
from ..plan import Plan, plan_run
from ..problems import ProblemReporter, Report
from ..session import Session
from ..summary import RunResult, run_result
from .queues import QUEUE, Fail, begin, queues, recording_failures
from .ray_actor import Worker
from .ray_driver import Chunk, Driver

log = logging.getLogger("sdist")

MIN_CHUNK = 16  # images, unless there are fewer for an actor: with less it would too often try few draws at once


class ModelsForPlanning(ModelCache):
    """The model in main memory, which is enough for planning; where the session goes, it is loaded as the settings say."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return ModelCache, (1,)

    def get(self, settings: Settings) -> LoadedMethod:
        return super().get(replace(settings, device="cpu", precision="fp32", compile="none"))


def make(options: RunOptions, show: Report) -> RunResult:
    """Plans a run and has its images made."""
    report = ProblemReporter(show)
    options = replace(options, output=options.output.absolute())  # the actors have working folders of their own
    session, plan = plan_run(options, report, ModelsForPlanning(kept=1))
    session, start = deepcopy(session), time.perf_counter()  # without the model
    begin(session, plan, report)
    if plan.todo:
        with cluster():
            edit_all(session, plan, recording_failures(session, report), options.workers)
    return run_result(session, plan, time.perf_counter() - start, report.problems)


def edit_all(session: Session, plan: Plan, fail: Fail, wanted: int | None) -> None:
    """Has what is to be made edited by so many actors, which end with this call."""
    workers, resources = shares(wanted, session.settings.device)
    images, shared = len(plan.todo), ray.put(session)
    most = min(QUEUE, -(-images // workers), max(MIN_CHUNK, images // (4 * workers)))
    actor: Any = ray.remote(Worker)
    with steps_bar(images, session.name, "image") as bar:
        driver = Driver(session, plan.sizes, fail, bar, lambda: actor.options(**resources).remote(shared))
        try:
            driver.run([Chunk(tasks) for tasks in queues(plan.todo, most)], workers)
        finally:
            driver.end()
            session.claims.of_others()  # removes what actors that died have left


@contextmanager
def cluster() -> Iterator[None]:
    """The cluster that RAY_ADDRESS or `ray start` on this machine names, else one of this machine for as long as the block."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with (
        attribute(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),  # each actor would start uv on a copy of the folder
        quiet("ray", logging.ERROR),
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),  # where Ray prints pages about each death
    ):
        try:
            _check_reachable(os.environ.get("RAY_ADDRESS", ""))
            ray.init(log_to_driver=False, configure_logging=False)
        except (OSError, ValueError) as error:
            raise UserError(f"Ray's cluster cannot be reached: {error}; RAY_ADDRESS is HOST:PORT, or not set") from None
        try:
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises OSError if nothing answers at HOST:PORT; Ray itself would try for many minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def shares(wanted: int | None, device: str) -> tuple[int, dict]:
    """How many actors, and the resources that Ray gives each of them. Raises UserError if the cluster does not have as much."""
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--engine ray chooses the devices; --device must be auto, cuda or cpu, got '{device}'")
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = ([int(machine[kind]) for machine in machines if machine.get(kind)] for kind in ("CPU", "GPU"))
    if device == "cuda" and not gpus:
        raise UserError("--device cuda: Ray's cluster has no GPU")
    on_gpus = bool(gpus) and device != "cpu"
    workers, available = wanted or (sum(gpus) if on_gpus else len(cpus)), sum(gpus if on_gpus else cpus)
    if workers > available:
        raise UserError(f"--workers {workers}: Ray's cluster has {available} {'GPUs' if on_gpus else 'CPUs'}")
    threads = max(1, min(sum(cpus) // workers, *cpus))
    log.info("%d actors, each with %s", workers, "a GPU" if on_gpus else f"a share of {threads} CPU{'s' * (threads > 1)}")
    resources = {"num_gpus": 1, "num_cpus": 0} if on_gpus else {"num_cpus": threads}
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    return workers, {**resources, "runtime_env": {"env_vars": environment}}
