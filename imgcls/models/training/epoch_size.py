"""Steps per epoch and global batch size, which must not change on resume."""

from dataclasses import dataclass

import lightning.pytorch as pl

from imgcls.errors import ConfigError, first_line
from imgcls.runtime.lightning_loops import optimizer_steps_per_epoch

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

    def check_resumed(self, kept: "EpochSize", is_within: bool, counts_steps: bool) -> None:
        """Refuse to resume with a size with which the run would differ from an uninterrupted one.

        Args:
            kept: The size in the checkpoint.
            is_within: Whether the checkpoint was saved within an epoch.
            counts_steps: Whether the learning-rate schedule counts steps, so that its position would change.

        Raises:
            ConfigError: States what differs.
        """
        if counts_steps and self.steps != kept.steps:
            raise ConfigError(
                f"an epoch has {self.steps} optimizer steps, but {kept.steps} in the checkpoint, whose schedule "
                "counts them; set data.batch_size, trainer.accumulate_grad_batches, limit_train_batches and devices to "
                f"give the same number, {_WEIGHTS_ONLY}"
            )
        if is_within and self.images != kept.images:
            raise ConfigError(
                f"the checkpoint was saved within an epoch of batches of {kept.images} images over all processes, "
                f"but they now have {self.images}, so that images would be skipped or seen twice; restore "
                f"data.batch_size and trainer.devices, use a checkpoint of the end of an epoch, {_WEIGHTS_ONLY}"
            )
