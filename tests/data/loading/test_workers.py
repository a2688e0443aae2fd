"""The processes that read images."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.reduction
import multiprocessing.synchronize
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from torch.utils.data import Dataset

from imgcls.cli.main import main
from imgcls.data.loading.workers import WatchedLoader, follow_parent, worker_error
from tests.helpers.runs import arguments


class Deadly(Dataset[int]):
    """Data that kill the process that reads them."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, place: int) -> int:
        os._exit(9)


def test_the_end_of_a_worker_shows_at_once_after_a_fit(
    photos: os.PathLike[str], tiny_model: os.PathLike[str], tmp_path: os.PathLike[str]
) -> None:
    # Lightning puts back the handler of before the fit, and torch sets its own once
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--data.num_workers=1")])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="exited unexpectedly") as stop:
        list(WatchedLoader(Deadly(), num_workers=1, timeout=40))
    # what torch's handler says; without it the loader waits for the time-out, and the cause is an empty queue
    assert "exit code 9" in str(stop.value.__cause__)


class Children(Callback):
    """Notes how many processes a run has started."""

    most = 0

    def on_train_batch_end(self, *_: object) -> None:
        Children.most = max(Children.most, len(multiprocessing.active_children()))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux ties a process to a core")
@pytest.mark.filterwarnings("error:This DataLoader will create")
def test_more_workers_than_cores_are_what_the_user_wants(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        callback = f"--trainer.callbacks={__name__}.Children"
        main(["fit", *arguments(photos, tiny_model, tmp_path, "--data.num_workers=2", callback)])
    finally:
        os.sched_setaffinity(0, cores)
    assert Children.most >= 2


def wait_as_worker(ready: multiprocessing.synchronize.Event) -> None:
    follow_parent()
    ready.set()
    time.sleep(600)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a worker who sent a signal")
def test_worker_ends_at_the_sigterm_of_its_parent_alone() -> None:
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=wait_as_worker, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(60)
    subprocess.run([sys.executable, "-c", f"import os; os.kill({worker.pid}, {int(signal.SIGTERM)})"], check=True)
    worker.join(2)
    assert worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


def start_and_leave(worker_sent: multiprocessing.connection.Connection) -> None:
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=wait_as_worker, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(60)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    worker.terminate()
    worker_sent.send(worker.pid)
    os._exit(0)


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a worker who sent a signal")
def test_worker_ends_at_the_sigterm_of_a_parent_that_has_ended() -> None:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    parent = fork.Process(target=start_and_leave, args=(theirs,))
    parent.start()
    pid = ours.recv()
    parent.join(60)
    os.kill(pid, signal.SIGCONT)
    end = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    outlives = is_alive(pid)
    if outlives:
        os.kill(pid, signal.SIGKILL)
    assert not outlives


@pytest.mark.parametrize(
    "said",
    [
        "unable to allocate shared memory(shm) for file </torch_7_8_9>: No space left on device (28)",
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of",
    ],
)
def test_full_shared_memory_says_what_to_do(said: str) -> None:
    assert "--shm-size" in str(worker_error(RuntimeError(said)))


def _share(ready: "multiprocessing.connection.Connection") -> None:
    follow_parent()
    handle = multiprocessing.reduction.DupFd(os.open(os.devnull, os.O_RDONLY))
    ready.send(handle._id[0])  # type: ignore[union-attr]  # the address of the thread that hands memory over
    ready.recv()


@pytest.mark.parametrize("reads", [False, True])
def test_a_parent_that_stops_while_it_receives_a_batch_prints_no_traceback(
    reads: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_share, args=(theirs,), daemon=True)
    worker.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(ours.recv())
        assert select.select([connection], [], [], 30)[0]
        if reads:
            connection.recv(1024)
    time.sleep(0.5)
    ours.send("end")
    worker.join(30)
    assert (worker.exitcode, capfd.readouterr().err) == (0, "")
