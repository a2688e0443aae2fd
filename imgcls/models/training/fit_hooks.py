"""FitHooks: what ImageClassifier does in a fit around its steps."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from imgcls.checkpoints.callback_states import keep_own_paths
from imgcls.errors import ConfigError
from imgcls.models.training.epoch_size import EpochSize
from imgcls.runtime.lightning_loops import is_within_epoch
from imgcls.runtime.seeding import derive_seed, run_seed

if TYPE_CHECKING:
    from imgcls.models.classifier import ImageClassifier

_PLATEAU, _EPOCH_SIZE = "plateau_schedule", "pace"  # keys of a checkpoint


class FitHooks(Callback):
    """Seeds each step, unfreezes layers, steps the plateau schedule, and records what a resume needs.

    A callback and not hooks of the model, so that a subclass may define hooks of these names without ``super()``.
    """

    def __init__(self) -> None:
        self.plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None  # of the checkpoint
        self._epoch_size: EpochSize | None = None
        self._resumed: tuple[EpochSize, bool] | None = None  # of the checkpoint; and whether it is within an epoch

    def attach(self, trainer: pl.Trainer) -> None:
        """Come first among the callbacks of a trainer, in place of the hooks of an earlier fit."""
        others = [item for item in trainer.callbacks if not isinstance(item, FitHooks)]  # type: ignore[attr-defined]
        trainer.callbacks = [self, *others]  # type: ignore[attr-defined]

    def measure(self, trainer: pl.Trainer, counts_steps: bool) -> EpochSize:
        """Return the steps and images of an epoch, once the data is set up; refuse others than the checkpoint's.

        ``counts_steps`` is whether the learning-rate schedule counts steps.
        """
        self._epoch_size = EpochSize.of(trainer)
        if self._resumed is not None:
            self._epoch_size.check_resumed(*self._resumed, counts_steps)
        self._resumed = None
        return self._epoch_size

    def follow(self, plateau: ReduceLROnPlateau) -> None:
        """Step this schedule after each validation, on resume from the checkpoint's state."""
        self.plateau = plateau
        if self._plateau_state is not None:
            plateau.load_state_dict(self._plateau_state)

    # -- the hooks of Lightning

    def on_fit_start(self, trainer: pl.Trainer, pl_module: "ImageClassifier") -> None:  # type: ignore[override]
        """Make the loss, so that wrong class weights are refused before the first step."""
        pl_module.objective()

    def on_train_start(self, trainer: pl.Trainer, pl_module: "ImageClassifier") -> None:  # type: ignore[override]
        """Freeze what is frozen in the epoch of the checkpoint; measure the epoch, unless the optimizer needed it."""
        pl_module.update_frozen_layers()
        if self._epoch_size is None:
            self.measure(trainer, counts_steps=False)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: "ImageClassifier") -> None:  # type: ignore[override]
        """Unfreeze the layers that learn from this epoch on."""
        pl_module.update_frozen_layers()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the step by its position in the run, so that a resumed run draws the same dropout."""
        _seed(derive_seed(run_seed(), trainer.current_epoch, batch_idx, trainer.global_rank), pl_module.device)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the plateau schedule the loss of this validation.

        Raises:
            ConfigError: If none is logged.
        """
        if self.plateau is None or trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if "validation_loss" not in trainer.callback_metrics:
            raise ConfigError(
                "model.init_args.scheduler_config.name: 'plateau' needs validation_loss, which was not logged; add "
                "imgcls.MetricsLogger to trainer.callbacks"
            )
        self.plateau.step(float(trainer.callback_metrics["validation_loss"]))

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: "ImageClassifier", checkpoint: dict[str, Any]
    ) -> None:
        """Add what rebuilds the model, the length of an epoch, and the state of the plateau schedule."""
        pl_module.add_record(checkpoint)
        if self.plateau is not None:
            checkpoint[_PLATEAU] = self.plateau.state_dict()
        if self._epoch_size is not None:
            checkpoint[_EPOCH_SIZE] = asdict(self._epoch_size)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what the resumed run needs; leave out paths that other callbacks would write to or delete."""
        self._plateau_state = checkpoint.get(_PLATEAU)
        if _EPOCH_SIZE in checkpoint:  # not in those of an older version
            self._resumed = EpochSize(**checkpoint[_EPOCH_SIZE]), is_within_epoch(checkpoint)
        keep_own_paths(checkpoint["callbacks"], trainer.callbacks)  # type: ignore[attr-defined]


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators of a device; ``torch.manual_seed`` formats three stack traces for devices that are absent."""
    if device.type not in {"cpu", "cuda", "meta"}:
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
