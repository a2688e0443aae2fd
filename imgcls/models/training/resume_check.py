"""How a run counts: what must stay as it was where it goes on from a checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl

from imgcls.errors import ConfigError, first_line

PACE = "pace"  # key of a checkpoint
_ALONE = "or take the weights alone: --experiment.only_weights_load true"


@dataclass(frozen=True)
class Pace:
    """The length of an epoch and of its batches.

    Args:
        steps: Optimizer steps of an epoch; 0 if the training loader has no length.
        images: Images of a batch, over all processes; 0 where the data does not tell.
    """

    steps: int
    images: int

    @classmethod
    def of(cls, trainer: pl.Trainer) -> "Pace":
        """Let a trainer count its batches.

        Raises:
            ConfigError: If it cannot be validated as often as asked for.
        """
        try:
            trainer.fit_loop.setup_data()
        except ValueError as error:
            if isinstance(error, ConfigError) or "val_check_interval" not in str(error):
                raise
            raise ConfigError(f"trainer: {first_line(error)}") from error
        batches = trainer.num_training_batches
        steps = math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else 0
        batch_size = getattr(getattr(trainer, "datamodule", None), "batch_size", 0)
        return cls(steps, batch_size * trainer.world_size)

    def record(self) -> dict[str, int]:
        """What a checkpoint keeps."""
        return asdict(self)


@dataclass(frozen=True)
class Recorded:
    """The pace of a run that goes on, and whether it does so in the middle of an epoch.

    Args:
        pace: As the checkpoint has it.
        is_within: Whether it was saved within an epoch.
    """

    pace: Pace
    is_within: bool

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "Recorded | None":
        """Read a checkpoint; None for one of an older version."""
        if PACE not in checkpoint:
            return None
        progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        return cls(Pace(**checkpoint[PACE]), progress["processed"] < progress["ready"])

    def check(self, pace: Pace, counts_steps: bool) -> None:
        """Refuse another pace, where the run would not be the one that began.

        Args:
            pace: Of the run as it is configured now.
            counts_steps: Whether the schedule of the learning rate counts steps; it would stand elsewhere.

        Raises:
            ConfigError: Says what differs.
        """
        if counts_steps and pace.steps != self.pace.steps:
            raise ConfigError(
                f"an epoch would have {pace.steps} optimizer steps, but the run of the checkpoint has "
                f"{self.pace.steps}, and its schedule counts them; give data.batch_size, "
                "trainer.accumulate_grad_batches, limit_train_batches and devices so that they are as many, " + _ALONE
            )
        if self.is_within and pace.images != self.pace.images:
            raise ConfigError(
                f"the checkpoint was saved within an epoch of batches of {self.pace.images} images, over all "
                f"processes; of {pace.images}, some images would be left out or seen twice: give data.batch_size and "
                "trainer.devices as before, or a checkpoint of an epoch's end, " + _ALONE
            )
