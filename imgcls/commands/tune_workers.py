"""Run the worker processes of a search (``optuna.n_jobs``), each with its share of cores and GPUs."""

import logging
import os
import subprocess
import sys

import torch

from imgcls.errors import RunError
from imgcls.runtime.cores import CORES, available_cores
from imgcls.runtime.signals import end_with_this, postponed

log = logging.getLogger(__name__)

WORKER = "IMGCLS_WORKER"  # set in the processes of n_jobs
_SECONDS_TO_END = 20.0  # that a worker has after a signal


def run_workers(count: int, arguments: list[str]) -> None:
    """Run the same command in several processes; the others repeat the trial of one that is killed.

    Raises:
        RunError: If all of them were killed.
        SystemExit: If all of them failed, with the highest exit code.
    """
    # -P: the working directory is last in sys.path, as in this process
    line = [sys.executable, "-P", "-m", "imgcls", *arguments, "--optuna.n_jobs=1"]
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(count):
            with postponed():  # no signal between the start of a worker and its registration
                environment = _environment(number, count)
                workers.append(subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL))  # noqa: S603 - ours
                end_with_this(workers[-1:])
        codes = [worker.wait() for worker in workers]
    except (KeyboardInterrupt, SystemExit):
        _end(workers)
        raise
    for number, code in enumerate(codes):
        if code:
            log.warning("worker %d ended with code %d", number, code)
    if all(codes):
        raise SystemExit(max(codes)) if max(codes) > 0 else RunError("all workers were killed")


def _end(workers: list["subprocess.Popen[bytes]"]) -> None:
    """Terminate the workers; to those that a terminal has sent a signal already, it is the same one."""
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _environment(number: int, count: int) -> dict[str, str]:
    """Return the environment of a worker: a GPU of its own if there are several, and its share of the cores."""
    environment = os.environ | {WORKER: str(number), CORES: str(max(available_cores() // count, 1))}
    gpus = torch.cuda.device_count()
    if gpus > 1:
        visible = environment.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[number % len(visible)]
    environment.setdefault("OMP_NUM_THREADS", str(max(torch.get_num_threads() // count, 1)))
    return environment
