"""EMA: validation, best epoch and checkpoints of the weights' moving average."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from torch import Tensor

from imgcls.errors import ConfigError

RAW_WEIGHTS = (
    "ModelCheckpoint with save_weights_only: true would save the weights that are not averaged; leave out the option, "
    "or the callback that averages"
)
"""Why callbacks that ``saves_raw_weights`` finds are refused."""

_WARM_UP = 10  # updates, as in TensorFlow's ExponentialMovingAverage


class EMA(WeightAveraging):
    """Keeps an exponential moving average of the weights, which is what is validated, saved and evaluated.

    Lightning's WeightAveraging with one fused update a step; its own EMA starts over a thousand kernels a step, and
    waits for the device twice. What a checkpoint keeps is averaged: parameters, and buffers such as the statistics of
    BatchNorm. A fit has it by default, unless a ModelCheckpoint saves weights alone, or the run goes on that had none.

    Args:
        decay: Share of the average that a step keeps, 0 to below 1. The first steps keep less, at most
            (1 + step) / (10 + step), so that the weights of the start are soon forgotten. 0: no average, the weights
            as they are.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"imgcls.EMA: decay: {decay}; it must be at least 0 and below 1")
        super().__init__()
        self.decay = decay
        self._forget()

    def _forget(self) -> None:
        self._swapped = False  # whether the model holds the average
        self._epoch = -1  # in which the tensors are lined up
        self._averages: list[Tensor] = []
        self._currents: list[Tensor] = []
        self._casts = False  # whether the average has more bits than the weights
        self._kept: list[Tensor] = []  # the weights, while the average of a model in 16 bits is validated
        self._counts: list[Tensor] = []
        self._current_counts: list[Tensor] = []

    def _pairs(self, pl_module: pl.LightningModule) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(_tensors(self._average_model.module), _tensors(pl_module), strict=True)  # type: ignore[union-attr]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the model for the average."""
        if saves_raw_weights(trainer.callbacks):  # type: ignore[attr-defined]
            raise ConfigError(f"trainer.callbacks: {RAW_WEIGHTS}")
        with warnings.catch_warnings():  # of models that are sharded, which none of ours is
            warnings.filterwarnings("ignore", message=".*WeightAveraging callback with a model that overrides")
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the dtypes of the model, and the weights of a run that begins, now that they are final."""
        for average, current in self._pairs(pl_module):
            if current.is_floating_point():  # bfloat16 would lose what a step adds
                average.data = average.data.to(torch.promote_types(current.dtype, torch.float32))
            if self._latest_update_step == 0:
                average.data.copy_(current.data)
        self._casts = any(average.dtype != current.dtype for average, current in self._pairs(pl_module))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Line up, once an epoch, what is averaged: all but the parameters that are frozen in it."""
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
        self._counts = [average for average, _ in pairs if not average.is_floating_point()]
        self._current_counts = [current for _, current in pairs if not current.is_floating_point()]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after a step of the optimizer."""
        step = trainer.global_step
        if step == self._latest_update_step:  # gradients are accumulated
            return
        kept = 0.0 if self._latest_update_step == 0 else min(self.decay, (1 + step) / (_WARM_UP + step))
        currents = self._currents
        if self._casts:
            currents = [current.to(average.dtype) for average, current in zip(self._averages, currents, strict=True)]
        torch._foreach_lerp_(self._averages, currents, 1 - kept)
        if self._counts:
            torch._foreach_copy_(self._counts, self._current_counts)
        self._latest_update_step = step

    def _swap_models(self, pl_module: pl.LightningModule) -> None:
        """Exchange the weights and their average; a model in 16 bits would round it, so it stays where it is."""
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

    def _copy_average_to_current(self, pl_module: pl.LightningModule) -> None:
        for average, current in self._pairs(pl_module):
            current.data.copy_(average.data)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save average and weights under their own names, also within a validation, as at a signal or an error."""
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if not self._swapped:
            return
        average, weights = checkpoint["current_model_state"], checkpoint["state_dict"]
        if self._casts:  # the module holds the average rounded
            kept = dict(zip(map(id, _tensors(pl_module)), self._kept, strict=True))
            own = pl_module.state_dict(keep_vars=True)
            average, weights = weights, {name: kept[id(value)] for name, value in own.items()}
        checkpoint["state_dict"], checkpoint["current_model_state"] = average, weights

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the average of a run that goes on."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the average: a checkpoint that is evaluated after the fit must not be exchanged for it."""
        self._average_model = None
        self._forget()


def _tensors(module: torch.nn.Module) -> list[Tensor]:
    """Return each tensor that a checkpoint keeps, once; a forward pass may replace other buffers."""
    state = module.state_dict(keep_vars=True).values()
    return list({id(value): value for value in state if isinstance(value, Tensor)}.values())


def saves_raw_weights(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks that save the weights that are not averaged, beside an average."""
    if not any(isinstance(callback, WeightAveraging) for callback in callbacks):
        return []
    return [callback for callback in callbacks if isinstance(callback, ModelCheckpoint) and callback.save_weights_only]
