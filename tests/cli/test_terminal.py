"""What a run shows on a real terminal."""

import fcntl
import logging
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch  # noqa: F401  # whose import adds a handler of its own
import pandas as pd
import pyte
import pytest

from imgcls.cli.main import main
from tests.helpers.runs import arguments

_LINES = 60


class _Terminal:
    """A pseudo-terminal, and what stands on its screen.

    Args:
        width: Its columns.
    """

    def __init__(self, width: int) -> None:
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, width, 0, 0))
        self._screen = pyte.Screen(width, _LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._reader = threading.Thread(target=self._read)

    def _read(self) -> None:
        try:
            while content := os.read(self._ours, 65536):
                self._stream.feed(content)
        except OSError:  # how Linux says that the last one has closed it
            pass

    @contextmanager
    def taken(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Let this process write to it."""
        self._reader.start()
        with monkeypatch.context() as patch, os.fdopen(self._theirs, "w", buffering=1, encoding="utf-8") as file:
            patch.setattr(sys, "stdout", file)
            patch.setattr(sys, "stderr", file)
            yield
        self._reader.join()
        os.close(self._ours)

    @property
    def shown(self) -> list[str]:
        """The lines that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_each_epoch_is_a_whole_line_above_one_bar(
    width: int, photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))  # rich asks the terminal of this process first
    monkeypatch.setenv("LINES", str(_LINES))
    monkeypatch.setattr(logging.getLogger("lightning"), "handlers", [])  # used where the root has one, such as pytest's
    terminal = _Terminal(width)
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=12", "--trainer.callbacks=EarlyStopping")
    with terminal.taken(monkeypatch):
        main(["fit", *line, "--trainer.callbacks.monitor=train_loss", "--trainer.callbacks.verbose=true"])
    epochs = [text for text in terminal.shown if re.search(r"epoch \d", text)]
    rows = pd.read_csv(tmp_path / "run/version_0/metrics.csv").to_dict("records")
    assert [text.rpartition("  ")[0] for text in epochs] == [
        f"epoch {row['epoch'] + 1}/12  train_loss {row['train_loss']:.4f}  "
        f"validation_loss {row['validation_loss']:.4f}  f1_score {row['validation_f1_score']:.4f}"
        for row in rows
    ]
    assert len([text for text in terminal.shown if text.startswith("Metric train_loss improved")]) > 1
    assert len([text for text in terminal.shown if "Epoch " in text]) <= 1
    assert "v_num" not in " ".join(terminal.shown)
