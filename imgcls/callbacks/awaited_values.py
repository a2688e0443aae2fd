"""AwaitedValues: a run ends early where a value that options or callbacks monitor is never logged."""

from collections.abc import Iterable, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from imgcls.errors import NotLoggedError, did_you_mean


class AwaitedValues(Callback):
    """Checks values that only a class of the user's can log, once the first validation is over.

    ``val…`` must be logged by the end of that validation. Others may be logged at the end of the training epoch, after
    all hooks of which they are checked. It comes before EarlyStopping and ModelCheckpoint, which check their own later,
    with a message of Lightning's, and a file name, which Lightning fills with 0 instead.

    Args:
        values: Option and name of each value.
    """

    def __init__(self, values: Sequence[tuple[str, str]]) -> None:
        self.values = values
        self._validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the values of the validation."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._validated = True
            self._check(trainer, [value for value in self.values if value[1].startswith("val")])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Await no validation where there is none."""
        self._validated = self._validated or not trainer.enable_validation

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check all values, now that the hooks of the epoch before have run."""
        if self._validated:
            self._check(trainer, self.values)

    on_train_end = on_train_epoch_start

    def _check(self, trainer: pl.Trainer, values: Iterable[tuple[str, str]]) -> None:
        logged = list(trainer.callback_metrics)
        for where, name in values:
            if name not in logged:
                hint = f"{did_you_mean(name, logged)}; logged: {', '.join(logged) or 'no value'}"
                raise NotLoggedError(f"{where}: {name!r} was not logged by the end of the first validation{hint}")
