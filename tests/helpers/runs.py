"""Runs of the real entry point, on small data."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch

from imgcls.cli.main import main


def arguments(photos: Path, model: Path, out: Path, *more: str) -> list[str]:
    """A command line that trains a tiny model on small photos; two epochs, a second or two."""
    return [
        f"--data.dataset_classes.train={photos}",
        f"--model.model_name={model}",
        "--model.pretrained=false",
        "--model.optimizer_config.lr=0.01",
        "--data.batch_size=8",
        "--data.num_workers=0",
        "--trainer.max_epochs=2",
        f"--experiment.output_dir={out}",
        "--experiment.custom_folder_name=run",
        "--experiment.report=false",
        *more,
    ]


def fails(line: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command line that must fail; return exit code and what it says."""
    with pytest.raises(SystemExit) as stop:
        main(line)
    code = stop.value.code
    assert isinstance(code, int)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return code, error.strip().splitlines()[-1]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint."""
    state: dict[str, torch.Tensor] = load(checkpoint)["state_dict"]
    return state


def load(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's content, read as strictly as anyone may ask."""
    content: dict[str, Any] = torch.load(checkpoint, weights_only=True)
    return content


def assert_same_weights(first: Path, second: Path) -> None:
    """Compare two checkpoints' weights bit for bit."""
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def program(*line: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run the program as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "imgcls", *line], capture_output=True, text=True, check=False, **options
    )


def table_of(output: str) -> dict[str, list[str]]:
    """The last table that a command printed: metric -> values."""
    rows = [line.split() for line in output.splitlines()]
    start = max(number for number, row in enumerate(rows) if row[:1] == ["metric"])
    table = takewhile(lambda row: len(row) == len(rows[start]), rows[start + 1 :])
    return {row[0]: row[1:] for row in table}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Break off what waits for ever."""

    def stop(*_: object) -> None:
        raise TimeoutError

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
