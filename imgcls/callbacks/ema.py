"""EMA: validate, select and save an exponential moving average of the weights."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imgcls.errors import ConfigError

RAW_WEIGHTS = (
    "ModelCheckpoint with save_weights_only: true would save the weights that are not averaged; remove the option or "
    "the callback that averages"
)
"""Why the callbacks found by ``saves_raw_weights`` are refused."""

_WARM_UP = 10  # updates, as in TensorFlow's ExponentialMovingAverage


class EMA(WeightAveraging):
    """Keep an exponential moving average of the weights, which is validated, saved and evaluated.

    Averages what a checkpoint keeps: parameters, and buffers such as the statistics of BatchNorm. Used by default in
    every fit, unless a ModelCheckpoint saves only weights or the resumed run did not use it.

    Args:
        decay: Fraction of the average kept per step, 0 to below 1. The first steps keep at most
            (1 + step) / (10 + step), so that the initial weights are forgotten quickly. 0: no averaging.
    """

    # Subclass of Lightning 2.6's WeightAveraging for its checkpoint format; uses its private ``_average_model`` and
    # ``_latest_update_step``, which no hook gives. Its updates, also with ``multi_avg_fn``, wait for the device twice a
    # step (torch's AveragedModel compares ``n_averaged``), average frozen parameters and fail on non-persistent buffers
    # that a forward pass replaces (ConViT). May go when AveragedModel updates chosen tensors without a synchronisation.

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"imgcls.EMA: decay must be at least 0 and below 1, got {decay}")
        super().__init__()
        self.decay = decay
        self._reset()

    def _reset(self) -> None:
        self._swapped = False  # whether the model holds the average
        self._epoch = -1  # for which the lists below were made
        self._averages: list[Tensor] = []
        self._currents: list[Tensor] = []
        self._casts = False  # whether the average has a higher precision than the weights
        self._kept: list[Tensor] = []  # the weights, while the average of a 16-bit model is validated
        self._counts: list[tuple[Tensor, Tensor]] = []  # integer buffers, which are copied before they are used

    def _pairs(self, pl_module: pl.LightningModule) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(_tensors(self._average_model.module), _tensors(pl_module), strict=True)  # type: ignore[union-attr]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the model."""
        if saves_raw_weights(trainer.callbacks):  # type: ignore[attr-defined]
            raise ConfigError(f"trainer.callbacks: {RAW_WEIGHTS}")
        with warnings.catch_warnings():  # about sharded models, which imgcls does not support
            warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides")
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose the dtype of the average and, in a new run, copy the initial weights."""
        for average, current in self._pairs(pl_module):
            if current.is_floating_point():  # bfloat16 would round the update away
                average.data = average.data.to(torch.promote_types(current.dtype, torch.float32))
            if self._latest_update_step == 0:
                average.data.copy_(current.data)
        self._casts = any(average.dtype != current.dtype for average, current in self._pairs(pl_module))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Once per epoch, list the tensors to average: all except frozen parameters."""
        if trainer.current_epoch == self._epoch:
            return
        self._epoch = trainer.current_epoch
        pairs = [
            (average.data, current.data)
            for average, current in self._pairs(pl_module)
            if current.requires_grad or not isinstance(current, torch.nn.Parameter)
        ]
        self._averages = [average for average, _ in pairs if average.is_floating_point()]
        self._currents = [current for _, current in pairs if current.is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after an optimizer step, with one fused kernel."""
        step = trainer.global_step
        if step == self._latest_update_step:  # gradients are accumulated
            return
        kept = 0.0 if self._latest_update_step == 0 else min(self.decay, (1 + step) / (_WARM_UP + step))
        currents = self._currents
        if self._casts:
            currents = [current.to(average.dtype) for average, current in zip(self._averages, currents, strict=True)]
        get_ema_multi_avg_fn(kept)(self._averages, currents, step)  # type: ignore[no-untyped-call]
        self._latest_update_step = step

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average into the model, and at the end the weights back."""
        if self._average_model is not None:
            self._swap(pl_module)

    on_validation_epoch_end = on_validation_epoch_start

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the model."""
        self._copy_counts()
        for average, current in self._pairs(pl_module):
            current.data.copy_(average.data)

    def _copy_counts(self) -> None:
        for average, current in self._counts:
            average.copy_(current)

    def _swap(self, pl_module: pl.LightningModule) -> None:
        """Exchange weights and average; for a 16-bit model keep the unrounded average and save the weights."""
        if not self._swapped:
            self._copy_counts()
        self._swapped = not self._swapped
        if not self._casts:
            for average, current in self._pairs(pl_module):
                weights = current.data.clone()
                current.data.copy_(average.data)
                average.data.copy_(weights)
            return
        kept, self._kept = self._kept, []
        if not kept:
            self._kept = [current.data.clone() for _, current in self._pairs(pl_module)]
        for number, (average, current) in enumerate(self._pairs(pl_module)):
            current.data.copy_(kept[number] if kept else average.data)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save average and weights under their own keys, also during a validation, when they are exchanged."""
        if not self._swapped:
            self._copy_counts()
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self._swapped:
            return
        average, weights = checkpoint["current_model_state"], checkpoint["state_dict"]
        if self._casts:  # the module holds the rounded average
            kept = dict(zip(map(id, _tensors(pl_module)), self._kept, strict=True))
            own = pl_module.state_dict(keep_vars=True)
            average, weights = weights, {name: kept[id(value)] for name, value in own.items()}
        checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average of a resumed run."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Drop the average, so that evaluating a checkpoint after the fit does not exchange its weights."""
        self._average_model = None
        self._reset()


def _tensors(module: torch.nn.Module) -> list[Tensor]:
    """Return each tensor of the state dict once; a forward pass may replace other buffers."""
    state = module.state_dict(keep_vars=True).values()
    return list({id(value): value for value in state if isinstance(value, Tensor)}.values())


def saves_raw_weights(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks that save weights without the average, if another callback averages."""
    if not any(isinstance(callback, WeightAveraging) for callback in callbacks):
        return []
    return [callback for callback in callbacks if isinstance(callback, ModelCheckpoint) and callback.save_weights_only]
