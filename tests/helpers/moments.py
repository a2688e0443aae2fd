"""Signals at stated moments of a run, and forks of a process that has imported the program, to try many of them.

``python -m tests.helpers.moments`` is that process: it reads one JSON object a line, runs the program once for each in
a fork, and answers with how it ended.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

_MOMENT = "SIGNAL_MOMENT"
_LOOK = 0.0002  # seconds between two looks at what the program does
_ORPHANS = 2.0  # seconds that a process of the run may take to end after it


@dataclass
class Moment:
    """When which signals are sent.

    Args:
        place: A part of ``file:function``; the signal comes when the main thread is in it. Empty: at once.
        nth: The how manieth time that it is there.
        after: Seconds that pass then.
        sent: The signals.
        gap: Seconds between them.
    """

    place: str
    nth: int
    after: float
    sent: list[int]
    gap: float = 0.3


@dataclass
class Ended:
    """How a run ended.

    Args:
        code: Its exit code, as a shell shows it.
        seconds: From the first signal to the end; from the start where none came.
        fired: Whether the signal was sent.
        worked: Seconds from the end of the parsing to the end, where a moment was given.
        said: What it said on standard error.
        left: Command lines of its processes that outlived it.
    """

    code: int
    seconds: float
    fired: bool
    worked: float
    said: str
    left: list[str]


class Traced(Callback):
    """Writes down each step that is done, takes its time, and sends the signals of the moment.

    Args:
        path: The file of the steps: a line ``epoch batch`` each.
        seconds: What a step takes longer.
    """

    def __init__(self, path: str, seconds: float = 0.0) -> None:
        self.path = Path(path)
        self.seconds = seconds
        if moment := os.environ.pop(_MOMENT, ""):
            sys.setswitchinterval(_LOOK)
            self.path.with_suffix(".began").write_text(str(time.time()))
            threading.Thread(target=_send, args=(Moment(**json.loads(moment)), self.path), daemon=True).start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        with self.path.open("a") as file:
            file.write(f"{trainer.current_epoch} {batch_idx}\n")
        time.sleep(self.seconds)


def _send(moment: Moment, path: Path) -> None:
    for _ in range(moment.nth):
        while not _is_in(moment.place):
            time.sleep(_LOOK)
        while moment.place and moment.nth > 1 and _is_in(moment.place):
            time.sleep(_LOOK)
    time.sleep(moment.after)
    path.with_suffix(".fired").write_text(str(time.time()))
    for number in moment.sent:
        os.kill(os.getpid(), number)
        time.sleep(moment.gap)


def _is_in(place: str) -> bool:
    frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
    while frame is not None:
        if place in f"{frame.f_code.co_filename}:{frame.f_code.co_name}":
            return True
        frame = frame.f_back
    return False


class Program:
    """The process that has imported the program.

    Args:
        process: It.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def run(self, line: list[str], folder: Path, moment: Moment | None = None, limit: float = 120) -> Ended:
        """Run the program, as a user does: in a session of its own, with the folder's trace and cache."""
        environment = {"IMGCLS_CACHE": str(folder / "cache")}
        if moment:
            environment[_MOMENT] = json.dumps(asdict(moment))
        fired, began = (folder / f"trace.{name}" for name in ("fired", "began"))
        fired.unlink(missing_ok=True)
        start = time.time()
        self._write({"line": line, "environment": environment, "said": str(folder / "said.txt")})
        pid = self._read()
        killer = threading.Timer(limit, os.killpg, (pid, signal.SIGKILL))
        killer.start()
        code, end = self._read()
        killer.cancel()
        since, parsed = (float(path.read_text()) if path.exists() else start for path in (fired, began))
        said = (folder / "said.txt").read_text(errors="replace")
        return Ended(abs(code) + 128 * (code < 0), end - since, fired.exists(), end - parsed, said, _left(pid))

    def _write(self, value: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def _read(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


@contextmanager
def program() -> Iterator[Program]:
    """Start the process that has imported the program."""
    line = [sys.executable, "-m", "tests.helpers.moments"]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Program(process)
        assert process.stdin
        process.stdin.close()


def _left(session: int) -> list[str]:
    """Return the command lines of a session's processes that do not end; they are killed."""
    end = time.monotonic() + _ORPHANS
    while (pids := _processes(session)) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return [str(pid) for pid in pids]


def _processes(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, sid = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(sid) == session and state != "Z":
            found.append(int(folder.name))
    return found


def _serve() -> None:
    import imgcls.cli.run_command  # noqa: F401  # what takes seconds
    from imgcls.cli.main import main

    answers = os.fdopen(os.dup(1), "w")
    while request := sys.stdin.readline():
        job = json.loads(request)
        pid = os.fork()
        if not pid:
            _become(job)
            main()
            return
        print(json.dumps(pid), file=answers, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps([status, time.time()]), file=answers, flush=True)


def _become(job: dict[str, Any]) -> None:
    os.setsid()
    said = os.open(job["said"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    for source, target in ((os.open(os.devnull, os.O_RDWR), (0, 1)), (said, (2,))):
        for number in target:
            os.dup2(source, number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(job["environment"])
    sys.argv[1:] = job["line"]


if __name__ == "__main__":
    _serve()
