"""The optimizer and learning-rate schedule of a fit."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer

from imgcls.errors import ConfigError
from imgcls.models.training.fit_hooks import FitHooks
from imgcls.models.training.frozen_layers import PartlyFrozenModule
from imgcls.models.training.optimizer import OptimizerConfig, Rates, choose_rates, make_optimizer
from imgcls.models.training.scheduler import SchedulerConfig, make_plateau, make_scheduler

log = logging.getLogger(__name__)


class OptimizedModule(PartlyFrozenModule):
    """A classifier with its optimizer; the constructor of the subclass sets the attributes."""

    optimizer_config: OptimizerConfig
    scheduler_config: SchedulerConfig
    from_random: bool
    fit_hooks: FitHooks

    @property
    def rates(self) -> Rates:
        """The rates of the network that is built: as configured, else their defaults for it."""
        batch_normalized = self.built().batch_normalized
        return choose_rates(self.optimizer_config, batch_normalized, not self.from_random, self.block_count)

    @property
    def block_count(self) -> int:
        """Number of blocks of the encoder, which ``layer_decay`` counts."""
        return len(self.built().blocks()) - 1

    @property
    def lr(self) -> float:
        """``optimizer_config.lr``, under the name by which Lightning's LearningRateFinder sets it."""
        return self.rates.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer_config = replace(self.optimizer_config, lr=value)
        self.hparams["optimizer_config"] = self.optimizer_config

    @property
    def has_own_optimizers(self) -> bool:
        """Whether a subclass defines ``configure_optimizers``."""
        return type(self).configure_optimizers is not OptimizedModule.configure_optimizers

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedule; parameters that stay frozen to the end are left out."""
        # Lightning refuses to clip the gradients of fused optimizers under mixed precision
        optimizer = self._make_optimizer(fused=not self.trainer.gradient_clip_val)
        epoch_size = self.fit_hooks.measure(self.trainer, self.scheduler_config.name not in {"constant", "plateau"})
        if self.scheduler_config.name == "plateau":
            if not self.trainer.limit_val_batches:
                raise ConfigError("model.init_args.scheduler_config.name: 'plateau' needs validations, there are none")
            self.fit_hooks.follow(make_plateau(self.scheduler_config, optimizer))
            return {"optimizer": optimizer}
        total, steps, interval = self.trainer.estimated_stepping_batches, epoch_size.steps, "step"
        if not epoch_size.steps:
            log.info("train has no length: the learning rate changes once per epoch")
            epochs = self.trainer.max_epochs
            total, steps, interval = epochs if epochs is not None and epochs > 0 else math.inf, 1, "epoch"
        scheduler = make_scheduler(self.scheduler_config, optimizer, total, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def _make_optimizer(self, fused: bool) -> Optimizer:
        backbone, frozen = self.built(), self.frozen_share
        backbone.freeze(frozen.least)  # layers that learn later are included: without a gradient they do not change
        optimizer = make_optimizer(self.optimizer_config, self.rates, backbone.blocks(), backbone.kernels(), fused)
        backbone.freeze(frozen.at(0))
        return optimizer

    def check_optimizers(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Refuse to resume with an optimizer of other parameters; torch would say less, and later.

        A subclass with its own ``configure_optimizers`` is left to torch.

        Raises:
            ConfigError: If its groups of parameters are others.
        """
        if self.has_own_optimizers:
            return
        theirs = [[len(group["params"]) for group in state.get("param_groups", [])] for state in states]
        ours = [len(group["params"]) for group in self._make_optimizer(fused=False).param_groups]
        if theirs != [ours]:
            raise ConfigError(
                "model.init_args: the checkpoint's optimizer has other groups of parameters: its run had another "
                "optimizer_config, freeze_encoder or unfreeze; use those of its config.yaml, or start a new run from "
                "its weights: --experiment.only_weights_load true"
            )
