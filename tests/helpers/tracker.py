"""A logger of a user's own that records what it is given, and may fail at the end."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

CALLS: list[tuple[str, Any]] = []


class Recorder(Logger):
    """Records its calls in ``CALLS``."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails

    @property
    def name(self) -> str:
        return "recorder"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        CALLS.append(("hyperparams", params))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        CALLS.append(("metrics", (sorted(metrics), step)))

    def finalize(self, status: str) -> None:
        CALLS.append(("finalize", status))
        if self.fails:
            raise ConnectionError("no server")

    def log_file(self, path: Path) -> None:
        CALLS.append(("file", (path.name, path.exists())))
