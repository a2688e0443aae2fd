"""A trained classifier applied to images: forward pass, evaluation, prediction, and what a checkpoint keeps."""

import json
import logging
import os
from dataclasses import asdict, replace
from typing import Any, Self

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from imgcls.callbacks.metrics_logger import MetricsLogger
from imgcls.checkpoints.calibration import without_calibration
from imgcls.checkpoints.content import CONFIG_KEY
from imgcls.checkpoints.io import read_checkpoint
from imgcls.config.class_path import Spec
from imgcls.errors import ConfigError, in_lines
from imgcls.metrics.from_checkpoint import metrics_in
from imgcls.models.from_checkpoint import recorded_arguments
from imgcls.models.huggingface.build import check_weights, record_of
from imgcls.models.network_module import NetworkModule, recorded_preprocessing
from imgcls.models.thresholds import thresholds_of
from imgcls.models.tta import TTA, averaged
from imgcls.runtime.serialize import serialize, versions
from imgcls.types import Batch

log = logging.getLogger(__name__)

RECORD = "imgcls"  # key of a checkpoint
_PREDICT = "for files, arrays and Pillow images: imgcls.load(CHECKPOINT).predict(images)"


class InferenceModule(NetworkModule):
    """The classifier without its training: evaluated, applied, saved and loaded."""

    tta: TTA = "none"
    uncalibrated = False
    """Whether the temperature is ignored."""
    adds_metrics = True
    """Whether an evaluation by a Trainer without a MetricsLogger gets one; a command adds its own callbacks."""
    keeps_features = False
    """Whether ``predict_step`` leaves the features of its images in ``features``."""
    features: Tensor | None = None
    """What ``embed`` returns for the images of the last ``predict_step``."""
    _metrics: dict[str, Spec] | None = None  # of the checkpoint; None for the default ones
    _unread: tuple[str, ...] = ()  # images of a prediction, with the reasons

    # -- forward pass

    def normalize(self, images: Tensor) -> Tensor:
        """Scale and normalise uint8 images ``(B, 3, H, W)``; float images are normalised already.

        The result has the dtype of the weights, which ``precision: bf16-true`` or ``64`` changes.

        Raises:
            TypeError: If the images are not a tensor.
            ConfigError: If they have another shape or integer dtype.
        """
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a tensor (B, 3, H, W), got {type(images).__name__}; {_PREDICT}")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ConfigError(f"images must be of shape (B, 3, H, W), got {tuple(images.shape)}; {_PREDICT}")
        dtype = self.pixel_mean.dtype
        if images.is_floating_point():
            return images.to(dtype)
        if images.dtype != torch.uint8:
            raise ConfigError(f"images must be uint8 (0 to 255), or normalised floats, got {images.dtype}")
        pixels = images.permute(0, 2, 3, 1)
        # in rows of whole pixels, which vectorise: on the CPU five times as fast as broadcasting three values
        rows = pixels.flatten(2).to(dtype)
        rows.sub_(self.pixel_mean.repeat(pixels.shape[2])).div_(self.pixel_std.repeat(pixels.shape[2]))
        return rows.view(pixels.shape).permute(0, 3, 1, 2)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features of images ``(B, 3, H, W)``, uint8 in 0..255 or already normalised."""
        return self.built().encode(self.normalize(images))

    def embed(self, images: Tensor) -> Tensor:
        """Return the pooled features ``(B, D)`` that the head receives, of images as for ``encode``."""
        return self.encode(images).flatten(1)

    def classify(self, features: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32, divided by the temperature unless ``uncalibrated`` is set."""
        logits = self.built().classify(features)
        return logits if self.uncalibrated else logits / self.temperature

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)`` of images ``(B, 3, H, W)``, uint8 in 0..255 or already normalised.

        The images are neither resized nor cropped; ``imgcls.load(…).predict`` does that, as ``imgcls predict`` does.
        """
        return self.classify(self.encode(images))

    # -- steps

    def configure_callbacks(self) -> list[Callback]:
        """Return a MetricsLogger with the metrics of the checkpoint, for an evaluation by a Trainer that has none."""
        evaluates = self.trainer.state.fn in {TrainerFn.VALIDATING, TrainerFn.TESTING}
        has_one = any(isinstance(item, MetricsLogger) for item in self.trainer.callbacks)  # type: ignore[attr-defined]
        return [MetricsLogger(self._metrics)] if self.adds_metrics and evaluates and not has_one else []

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Return the loss, and what metrics need; None for an empty batch."""
        label = batch["label"]
        if not len(label):
            return None
        if "features" in batch:
            logits = self._logits_of_features(batch)
        else:
            logits = averaged(self, batch["image"], self.tta, self.multilabel)
        target = label.to(logits.dtype) if self.multilabel else label  # bf16-true casts labels, and rounds the loss
        return outputs(self.criterion(logits, target), logits, label)

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities ``(B, classes)``, float32, which add up to 1 for single-label data.

        The row of an image that could not be read is NaN.
        """
        images, first = batch["image"], None
        if self.keeps_features:
            features = self.encode(images)
            self.features, first = features.flatten(1), self.classify(features)
        logits = averaged(self, images, self.tta, self.multilabel, first)
        probs = torch.sigmoid(logits) if self.multilabel else torch.softmax(logits, dim=1)
        for row, reason in enumerate(batch.get("error", [])):
            if reason:
                probs[row] = torch.nan
            if reason and self._trainer is not None and self._trainer.predict_loop.return_predictions:
                self._unread += (f"{batch['path'][row]}: {reason}",)
        return probs

    def on_predict_epoch_start(self) -> None:
        """Clear the list of images that an earlier prediction could not read."""
        self._unread = ()

    def on_predict_epoch_end(self) -> None:
        """Warn about images that could not be read, if predictions are returned; the command writes the reasons."""
        if self._unread:
            log.warning("images that cannot be read, their predictions are NaN:%s", in_lines(list(self._unread)))

    def _logits_of_features(self, batch: Batch) -> Tensor:
        """Return the logits ``(B, classes)`` of cached features."""
        height, width = batch["size"]  # an older torch turns it into a list when it pins batches
        return self.classify(self.built().encode_rest(batch["features"], (height, width)))

    # -- checkpoints

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning accepts URLs and file objects, and unpickles them
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: str | torch.device | None = None,
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **arguments: Any,
    ) -> Self:
        """Build the model of a checkpoint, with its weights, after the checks that the commands make.

        Args:
            checkpoint_path: The file.
            map_location: The device of the model; None is the CPU.
            hparams_file: Must be None: a checkpoint has its own record.
            strict: Whether all weights must fit; None is true.
            weights_only: Without effect: only tensors and plain values are ever loaded.
            arguments: Arguments of the constructor instead of those of the checkpoint.

        Raises:
            ConfigError: If the file is damaged, is not a checkpoint of imgcls, or holds Python objects.
        """
        if "://" in str(checkpoint_path):
            raise ConfigError(f"{checkpoint_path}: must be a local file; download it first")
        if hparams_file is not None:
            raise ConfigError("hparams_file must be None; pass the constructor's arguments by name")
        content = read_checkpoint(checkpoint_path)
        model = cls(**recorded_arguments(cls, content.get("hyper_parameters") or {}) | arguments)
        model.on_load_checkpoint(content)
        model._metrics = metrics_in(json.loads(content.get(CONFIG_KEY) or "{}"))
        if strict is not False:
            check_weights(model.state_dict(), content["state_dict"])
        model.load_state_dict(content["state_dict"], strict=strict is not False)
        return model.to(map_location or "cpu")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model without a download, as plain values."""
        self.add_record(checkpoint)

    def add_record(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model without a download, unless it is there; make hyper-parameters plain values."""
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            if key in checkpoint:
                checkpoint[key] = serialize(checkpoint[key])
        if RECORD not in checkpoint:
            checkpoint[RECORD] = self.record()

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of the model besides its weights, as plain values."""
        return {
            "precision": self._trainer.precision if self._trainer else None,
            "model_name": self.model_name,
            "class_names": list(self.class_names),
            "multilabel": self.multilabel,
            "thresholds": self.thresholds,
            "network": record_of(self.built().network),
            "preprocessing": serialize(asdict(self.preprocessing)),
            "versions": versions(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network that the checkpoint records, unless one is built; else check that both agree."""
        record = checkpoint[RECORD]
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            checkpoint |= without_calibration(checkpoint)
        if self.backbone is None:
            self.build(record["class_names"], record, weights=checkpoint["state_dict"])
            return
        self.check_task("the checkpoint's data", bool(record.get("multilabel")))
        self._check_classes("the checkpoint", record["class_names"])
        self.shape_temperature(checkpoint["state_dict"])
        kept = recorded_preprocessing(record["preprocessing"])
        self.preprocessing = replace(self.preprocessing, kernel=kept.kernel)
        if getattr(getattr(self._trainer, "datamodule", None), "normalization", None) is None:
            self.preprocessing = replace(self.preprocessing, mean=kept.mean, std=kept.std)
            self._set_normalization()
        if self.multilabel and self.threshold is None:
            self.thresholds = thresholds_of(record.get("thresholds"), self.class_names)


def outputs(loss: Tensor, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Return what a step gives to callbacks: the loss, and what metrics need."""
    # Lightning divides 'loss' by the accumulated batches; 'batch_loss' stays as it is
    return {"loss": loss, "batch_loss": loss.detach(), "logits": logits.detach(), "label": label}
