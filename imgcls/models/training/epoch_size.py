"""Steps per epoch and global batch size, which must not change on resume."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl

from imgcls.errors import ConfigError, first_line
from imgcls.runtime.lightning_loops import is_within_epoch, optimizer_steps_per_epoch

EPOCH_SIZE = "pace"  # key of a checkpoint
_WEIGHTS_ONLY = "or load only the weights: --experiment.only_weights_load true"


@dataclass(frozen=True)
class EpochSize:
    """Size of an epoch and of its batches.

    Args:
        steps: Optimizer steps per epoch; 0 if the training loader has no length.
        images: Images per batch over all processes; 0 if the data module has no ``batch_size``.
    """

    steps: int
    images: int

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "EpochSize":
        """Return the size of a trainer's epochs.

        Raises:
            ConfigError: If ``val_check_interval`` does not fit.
        """
        try:
            steps = optimizer_steps_per_epoch(trainer)
        except ValueError as error:
            if isinstance(error, ConfigError) or "val_check_interval" not in str(error):
                raise
            raise ConfigError(f"trainer: {first_line(error)}") from error
        batch_size = getattr(getattr(trainer, "datamodule", None), "batch_size", 0)
        return cls(steps, batch_size * trainer.world_size)

    def record(self) -> dict[str, int]:
        """Return the value for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class RecordedEpochSize:
    """The epoch size of a checkpoint.

    Args:
        size: The size.
        is_within: Whether the checkpoint was saved within an epoch.
    """

    size: EpochSize
    is_within: bool

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "RecordedEpochSize | None":
        """Read a checkpoint; None if it is of an older version."""
        if EPOCH_SIZE not in checkpoint:
            return None
        return cls(EpochSize(**checkpoint[EPOCH_SIZE]), is_within_epoch(checkpoint))

    def check(self, size: EpochSize, counts_steps: bool) -> None:
        """Refuse a size with which the run would differ from an uninterrupted one.

        Args:
            size: That of the current configuration.
            counts_steps: Whether the learning-rate schedule counts steps, so that its position would change.

        Raises:
            ConfigError: States what differs.
        """
        if counts_steps and size.steps != self.size.steps:
            raise ConfigError(
                f"an epoch has {size.steps} optimizer steps, but {self.size.steps} in the checkpoint, whose schedule "
                "counts them; set data.batch_size, trainer.accumulate_grad_batches, limit_train_batches and devices to "
                f"give the same number, {_WEIGHTS_ONLY}"
            )
        if self.is_within and size.images != self.size.images:
            raise ConfigError(
                f"the checkpoint was saved within an epoch of batches of {self.size.images} images over all processes, "
                f"but they now have {size.images}, so that images would be skipped or seen twice; restore "
                f"data.batch_size and trainer.devices, use a checkpoint of the end of an epoch, {_WEIGHTS_ONLY}"
            )
