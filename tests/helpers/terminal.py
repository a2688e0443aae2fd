"""A pseudo-terminal, and all that is on its screen from the start of a program to its end."""

import fcntl
import logging
import os
import pty
import struct
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch  # noqa: F401  # whose import adds a handler of its own
import pyte
import pytest

_LINES = 60


class Terminal:
    """A pseudo-terminal.

    Args:
        width: Its columns.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, width, 0, 0))
        self._screen = pyte.Screen(width, _LINES)
        self._stream = pyte.ByteStream(self._screen)
        self._reader = threading.Thread(target=self._read)
        self.screens: list[list[str]] = []
        """The lines on the screen, whenever it changed."""
        self.bars: list[list[str]] = []
        """The progress bars on the screen, whenever it changed."""

    def _read(self) -> None:
        try:
            while content := os.read(self._ours, 65536):
                self._stream.feed(content)
                self.screens.append(self.shown)
                self.bars.append([line for line in self.shown if "━" in line and not line.startswith(("┏", "┡"))])
        except OSError:  # how Linux reports that the last one has closed it
            pass

    @contextmanager
    def taken(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Let this process write to it."""
        self._reader.start()
        with monkeypatch.context() as patch, os.fdopen(self._theirs, "w", buffering=1, encoding="utf-8") as file:
            for name, value in {"TERM": "xterm", "COLUMNS": str(self.width), "LINES": str(_LINES)}.items():
                patch.setenv(name, value)  # rich asks the terminal of this process first
            patch.setattr(logging.getLogger("lightning"), "handlers", [])  # used where the root has one, as pytest's
            patch.setattr(sys, "stdout", file)
            patch.setattr(sys, "stderr", file)
            yield
        self._reader.join()
        os.close(self._ours)

    @property
    def shown(self) -> list[str]:
        """The lines that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]
