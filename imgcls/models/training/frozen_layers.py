"""Freeze layers of the encoder, epoch by epoch, and compute what frozen layers return for the feature cache."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from imgcls.errors import ConfigError
from imgcls.models.inference import InferenceModule
from imgcls.models.training.losses import MixConfig

log = logging.getLogger(__name__)

_KEY = "model.init_args.unfreeze"
_ON_IMAGES = (
    "training_step",
    "validation_step",
    "forward",
    "encode",
    "normalize",
    "on_before_batch_transfer",
    "on_after_batch_transfer",
)
"""Methods of which a subclass expects that they get images."""


class FrozenFraction:
    """Fraction of the encoder's layers that is frozen, by epoch: gradual unfreezing from the head down.

    Howard and Ruder 2018 (ULMFiT, https://arxiv.org/abs/1801.06146).

    Args:
        first: Fraction from epoch 0, 0 to 1; true is 1, false is 0.
        later: Zero-based epoch -> fraction from that epoch.

    Raises:
        ConfigError: If the fractions do not decrease.
    """

    def __init__(self, first: bool | float, later: Mapping[int, float]) -> None:
        if first is None or not 0 <= float(first) <= 1:  # the parser accepts null in a file
            got = "null" if first is None else first
            raise ConfigError(
                f"model.init_args.freeze_encoder must be true, false or a fraction from 0 to 1, got {got}"
            )
        self._fractions = {0: float(first)}
        for epoch, fraction in sorted((int(epoch), float(fraction)) for epoch, fraction in later.items()):
            if epoch < 1:
                raise ConfigError(f"{_KEY}: epochs must be at least 1, got {epoch}; set epoch 0 by freeze_encoder")
            if not 0 <= fraction < self.least:
                raise ConfigError(
                    f"{_KEY}: the fraction must decrease over epochs down to at least 0, but epoch {epoch} has "
                    f"{fraction} after {self.least}"
                )
            self._fractions[epoch] = fraction

    @property
    def least(self) -> float:
        """The fraction that stays frozen to the end."""
        return min(self._fractions.values())

    @property
    def changes(self) -> bool:
        """Whether the fraction changes during the run."""
        return len(self._fractions) > 1

    def at(self, epoch: int) -> float:
        """Return the fraction in a zero-based epoch."""
        return self._fractions[max(start for start in self._fractions if start <= epoch)]


class PartlyFrozenModule(InferenceModule):
    """A classifier whose first layers may be frozen; the constructor of the subclass sets the attributes."""

    frozen_share: FrozenFraction
    feature_views: int | None
    mix_config: MixConfig
    compiles: bool
    _frozen_logged = False

    def _freeze_at_start(self, processes: int) -> None:
        backbone, share = self.built(), self.frozen_share
        if share.changes and processes > 1:
            raise ConfigError(
                f"{_KEY} needs one process, got {processes}: DistributedDataParallel fixes the "
                "parameters that learn at the start; set trainer.devices: 1"
            )
        backbone.freeze(share.at(0))
        if backbone.frozen and not self._frozen_logged:  # EMA builds the model before the Trainer does
            self._frozen_logged = True
            log.info("%s", backbone.describe_frozen())
            if self.feature_views and (reason := self._reason_against_features()):
                log.info("%s: feature cache off, frozen layers are recomputed every epoch", reason)

    def update_frozen_layers(self) -> None:
        """Freeze the share of layers that is configured for this epoch."""
        backbone, before = self.built(), self.built().frozen
        if self.frozen_share.changes:
            backbone.freeze(self.frozen_share.at(self.current_epoch))
        if backbone.frozen != before:
            log.info("from epoch %d on: %s", self.current_epoch + 1, backbone.describe_frozen())

    @property
    def frozen_views(self) -> int:
        """Versions of each training image whose features are cached; 0: none, they are recomputed every epoch."""
        return (self.feature_views or 0) if self.built().frozen and not self._reason_against_features() else 0

    def _reason_against_features(self) -> str:
        """Return the option, or the method of a subclass, that forbids cached features; empty if none does."""
        base = next(kind for kind in type(self).__mro__ if kind.__module__.startswith("imgcls."))
        for name in _ON_IMAGES:
            if getattr(type(self), name) is not getattr(base, name):
                return f"{type(self).__name__}.{name}"
        reasons = {
            "unfreeze": self.frozen_share.changes,
            "mix_config": self.mix_config.mixes,
            "compile": self.compiles,
        }
        return next((f"model.init_args.{key}" for key, holds in reasons.items() if holds), "")

    def frozen_until(self, size: tuple[int, int]) -> str | None:
        """Return the name of the last layer whose output is cached, for images of (height, width); None: there is none.

        The layer is the last frozen one whose output alone feeds the rest.
        """
        with self.trainer.precision_plugin.forward_context():
            return self.built().frozen_until(size)

    @torch.no_grad()
    def compute_features(self, images: Tensor) -> Tensor:
        """Return the features ``(B, ...)`` of images ``(B, 3, H, W)``, in the run's precision and on its device."""
        with self.trainer.precision_plugin.forward_context():
            return self.built().encode_frozen_part(self.normalize(images.to(self.device, non_blocking=True)))
