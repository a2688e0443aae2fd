"""RunLogger: write the TensorBoard event files of a run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from imgcls.errors import causes
from imgcls.runtime.atomic_files import naming


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger, whose write errors name the folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add values to the curves."""
        with self._named():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Write what waits, and the hyper-parameters."""
        with self._named():
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what waits, and close the file."""
        if status == "success":
            with self._named():
                super().finalize(status)
            return
        with suppress(OSError):  # the run ends with an error already, which may be this very one
            super().finalize(status)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # Lightning takes any error for a value that cannot be logged
            for cause in (cause for cause in causes(error) if isinstance(cause, OSError)):
                with naming(Path(self.log_dir, "events.out.tfevents")):
                    raise cause from None
            raise
