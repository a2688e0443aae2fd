"""What a trained classifier is: a Hugging Face network with its preprocessing and classes, applied to images."""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Self

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from imgcls.checkpoints.callback_states import keep_own_paths
from imgcls.checkpoints.io import read_checkpoint
from imgcls.errors import ConfigError, listed
from imgcls.models.backbone import Backbone
from imgcls.models.huggingface.build import check_weights, load_network, record_of
from imgcls.models.huggingface.hub import load_config
from imgcls.models.huggingface.image_processor import read_preprocessing
from imgcls.models.huggingface.recorded import build_recorded
from imgcls.models.recorded import recorded_arguments
from imgcls.models.thresholds import Threshold, check_threshold, thresholds_of
from imgcls.models.tta import Views, averaged
from imgcls.runtime.malloc import keep_freed_memory
from imgcls.runtime.serialize import plain, versions
from imgcls.types import Batch, ClassifiedData, Preprocessing

log = logging.getLogger(__name__)

_LISTED = 20  # images that a warning names
_HEADS = "backbone.heads."  # of the keys of weights whose rows are the classes


class InferenceModule(pl.LightningModule):
    """The classifier without its training: built, saved, evaluated and applied.

    Args:
        model_name: A Hub id, or a local folder.
        pretrained: Whether the network starts from the pretrained weights.
        num_classes: Number of classes; None takes it from the data.
        threshold: Where an image may have several labels: the probability above which it is said to be of a class.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    temperature: Tensor

    def __init__(self, model_name: str, pretrained: bool, num_classes: int | None, threshold: Threshold | None) -> None:
        super().__init__()
        check_threshold(threshold)
        self.model_name = model_name
        self.pretrained = pretrained
        self.num_classes = num_classes
        self.threshold = threshold
        self.thresholds: list[float] | None = None
        """The threshold of each class where an image may have several labels, None where it has one."""
        self.criterion: nn.Module = nn.CrossEntropyLoss()
        self.views: Views = "none"
        self.class_names: list[str] = []
        self.preprocessing = Preprocessing()
        self.backbone: Backbone | None = None
        self._unread: list[str] = []  # images of a prediction, with the reasons
        with torch.inference_mode(False):  # tensors that are made within it could not train
            self.register_buffer("temperature", torch.tensor(1.0))
            self._set_normalization()

    # -- building

    def configure_model(self) -> None:
        """Build the network for the classes of the trainer's data, unless that is done."""
        trainer = self._trainer
        if trainer is None:
            return  # load_from_checkpoint: the checkpoint's own record follows, in on_load_checkpoint
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        data = getattr(trainer, "datamodule", None)
        if self.backbone is None:
            self.build(self._class_names(data), multilabel=isinstance(data, ClassifiedData) and data.multilabel)
        elif isinstance(data, ClassifiedData) and trainer.state.fn != TrainerFn.PREDICTING:
            self.check_task("the data", data.multilabel)
            self._check_classes("the data", data.class_names)
        if isinstance(data, ClassifiedData) and data.normalization is not None:
            own = data.normalization
            self.preprocessing = replace(self.preprocessing, mean=own.mean, std=own.std)
            self._set_normalization()

    def build(
        self,
        class_names: list[str],
        record: Mapping[str, Any] | None = None,
        multilabel: bool | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Build the network.

        Args:
            class_names: Names of the outputs.
            record: What a checkpoint holds under ``imgcls``: the network and its preprocessing are then rebuilt from
                it, with random weights, and nothing is fetched.
            multilabel: Whether an image may have several labels; None for what the record says, with its thresholds.
            weights: The tensors beside the record, which say how large its network may be.

        Raises:
            ConfigError: If ``num_classes`` or ``threshold`` does not fit the classes.
        """
        if self.num_classes is not None and self.num_classes != len(class_names):
            raise ConfigError(
                f"model.init_args.num_classes: {self.num_classes}, but the data have {len(class_names)} classes: "
                f"{listed(class_names)}"
            )
        self.class_names = list(class_names)
        self._set_task(record or {}, multilabel)
        # Lightning makes a GPU the place of all that is made, which transformers would refuse; the network's parts are
        # found by a gradient, which inference mode has none of
        with torch.device("cpu"), torch.inference_mode(False):
            self._build(record, weights)

    def _build(self, record: Mapping[str, Any] | None, weights: Mapping[str, Tensor] | None) -> None:
        if record is None:
            self.preprocessing = read_preprocessing(self.model_name, load_config(self.model_name))
            network, new = load_network(self.model_name, self.pretrained, self.class_names)
        else:
            self.preprocessing = _recorded_preprocessing(record["preprocessing"])
            network, new = build_recorded(record["network"], self.class_names, weights), []
        network.config.problem_type = f"{'multi' if self.multilabel else 'single'}_label_classification"
        self.backbone = Backbone(network, self.preprocessing.size)
        _report_new(new, self.backbone.anatomy.heads)
        if self.backbone.channels_last:
            self.backbone.to(memory_format=torch.channels_last)
        self._set_normalization()

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""
        return self.thresholds is not None

    def check_task(self, source: str, multilabel: bool) -> None:
        """Refuse data, or a checkpoint, with several labels an image for a model of one, and the other way round.

        Raises:
            ConfigError: Names the source.
        """
        if multilabel != self.multilabel:
            ours, theirs = ("several labels" if several else "one label" for several in (self.multilabel, multilabel))
            remedy = "leave out" if multilabel else "give"
            raise ConfigError(
                f"the model was built for {ours} an image, {source} have {theirs}; {remedy} label_separator of "
                "imgcls.CsvImageDataset, or take another checkpoint"
            )

    def _check_classes(self, source: str, names: list[str]) -> None:
        """Refuse classes in another order, or others, than those of the outputs."""
        if names != self.class_names:
            raise ConfigError(
                f"the model's classes are {listed(self.class_names)}, those of {source} {listed(names)}; give "
                "ImageDataModule the class_names of the checkpoint, or none"
            )

    def _set_task(self, record: Mapping[str, Any], multilabel: bool | None) -> None:
        several = bool(record.get("multilabel")) if multilabel is None else multilabel
        if self.threshold is not None and not several:
            raise ConfigError(
                f"model.init_args.threshold: {self.threshold}, but an image has one label: the class of the highest "
                "probability; leave it out"
            )
        kept = record.get("thresholds") if multilabel is None else None
        given = kept if self.threshold is None else self.threshold
        self.thresholds = thresholds_of(given, self.class_names) if several else None
        if several:
            self.criterion = nn.BCEWithLogitsLoss()

    def load_weights(self, state: Mapping[str, Tensor], class_names: list[str]) -> None:
        """Take over the weights that fit by name and shape, those of the head class by class; say which do not.

        Args:
            state: The weights.
            class_names: The classes of their head.
        """
        own = self.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        shared = [name for name in self.class_names if name in class_names]
        ours, theirs = ([names.index(name) for name in shared] for names in (self.class_names, class_names))
        for key in [key for key in own if key.startswith(_HEADS)]:
            fitting.pop(key, None)  # it may fit by its shape alone
            if shared and key in state and state[key].shape == (len(class_names), *own[key].shape[1:]):
                rows = own[key].clone()
                rows[ours] = state[key][theirs].to(rows)
                fitting[key] = rows
        self.load_state_dict(fitting, strict=False)
        left = sorted(own.keys() - fitting.keys())
        if shared and len(shared) < len(self.class_names):
            left.append(f"the head's rows of {listed([name for name in self.class_names if name not in shared])}")
        log.info("loaded %d of %d weights%s", len(fitting), len(own), f"; new: {', '.join(left[:6])}" if left else "")

    def check_weights(self, state: Mapping[str, Tensor]) -> None:
        """Refuse the weights of a checkpoint that are not those of its network.

        Raises:
            ConfigError: Counts what is missing, too many and of another shape.
        """
        check_weights(self.state_dict(), state)

    def _class_names(self, data: object) -> list[str]:
        if isinstance(data, ClassifiedData) and data.class_names:
            return data.class_names
        if self.num_classes is not None:
            return [str(number) for number in range(self.num_classes)]
        raise ConfigError("model.init_args.num_classes: the data state no class names; give the number of classes")

    def _set_normalization(self) -> None:
        self.register_buffer("pixel_mean", 255 * torch.tensor(self.preprocessing.mean), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(self.preprocessing.std), persistent=False)

    # -- inference

    def normalize(self, images: Tensor) -> Tensor:
        """Scale and normalise uint8 images ``(B, 3, H, W)``; float images are normalised already.

        The result has the dtype of the weights, which ``precision: bf16-true`` or ``64`` changes.

        Raises:
            ConfigError: If the images are of other integers.
        """
        dtype = self.pixel_mean.dtype
        if images.is_floating_point():
            return images.to(dtype)
        if images.dtype != torch.uint8:
            raise ConfigError(f"images of {images.dtype}: give uint8, 0 to 255, or floats that are normalised")
        pixels = images.permute(0, 2, 3, 1)
        # as rows of whole pixels, which vectorise: on the CPU five times as fast as three values that are broadcast
        rows = pixels.flatten(2).to(dtype)
        rows.sub_(self.pixel_mean.repeat(pixels.shape[2])).div_(self.pixel_std.repeat(pixels.shape[2]))
        return rows.view(pixels.shape).permute(0, 3, 1, 2)

    def encode(self, images: Tensor) -> Tensor:
        """Return the features of images ``(B, 3, H, W)``, uint8 in 0..255 or already normalised."""
        return self._built().encode(self.normalize(images))

    def classify(self, features: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32, divided by the temperature."""
        return self._built().classify(features) / self.temperature

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)`` of images ``(B, 3, H, W)``, uint8 in 0..255 or already normalised."""
        return self.classify(self.encode(images))

    def _built(self) -> Backbone:
        if self.backbone is None:
            raise ConfigError("the network is not built yet: call build(class_names), or use a Trainer")
        return self.backbone

    # -- steps

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Return the loss, and what metrics need."""
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Return the loss, and what metrics need."""
        return self._evaluate(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities ``(B, classes)``, float32; they add up to 1 where an image has one label.

        The row of an image that could not be read is NaN.
        """
        logits = averaged(self, batch["image"], self.views, self.multilabel)
        probs = torch.sigmoid(logits) if self.multilabel else torch.softmax(logits, dim=1)
        for row, reason in enumerate(batch.get("error", [])):
            if reason:
                probs[row] = torch.nan
                self._unread.append(f"{batch['path'][row]}: {reason}")
        return probs

    def on_predict_epoch_start(self) -> None:
        """Forget the images of an earlier prediction."""
        self._unread.clear()

    def on_predict_epoch_end(self) -> None:
        """Warn of the images that could not be read, where the rows are returned; the command writes the reasons."""
        if self._unread and self.trainer.predict_loop.return_predictions:
            more = len(self._unread) - _LISTED
            lines = self._unread[:_LISTED] + ([f"and {more} more"] if more > 0 else [])
            log.warning("images that cannot be read, whose rows are NaN:\n  %s", "\n  ".join(lines))

    def _evaluate(self, batch: Batch) -> dict[str, Tensor] | None:
        if not len(batch["label"]):
            return None
        if "features" in batch:
            logits = self._go_on(batch)
        else:
            logits = averaged(self, batch["image"], self.views, self.multilabel)
        label = batch["label"]
        target = label.to(logits.dtype) if self.multilabel else label  # bf16-true casts it, and would round the loss
        return outputs(self.criterion(logits, target), logits, label)

    def _go_on(self, batch: Batch) -> Tensor:
        """Return the logits of features."""
        height, width = batch["size"]  # an older torch makes a list of it where it pins batches
        return self.classify(self._built().go_on(batch["features"], (height, width)))

    # -- checkpoints

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning reads other things than files, and pickles
        cls,
        checkpoint_path: str | os.PathLike[str],
        map_location: str | torch.device | None = None,
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **arguments: Any,
    ) -> Self:
        """Build the model of a checkpoint, with its weights, as the commands do: the file is checked part by part.

        Args:
            checkpoint_path: The file.
            map_location: The device of the model; None is the processor.
            hparams_file: Must be None: a checkpoint has its own record.
            strict: Whether all weights must fit; None is true.
            weights_only: Without effect: only tensors and plain values are ever loaded.
            arguments: Arguments of the constructor in place of those of the checkpoint.

        Raises:
            ConfigError: If the file is damaged or no checkpoint of imgcls, or holds Python objects.
        """
        if "://" in str(checkpoint_path):
            raise ConfigError(f"{checkpoint_path}: only files are read; download it first")
        if hparams_file is not None:
            raise ConfigError("hparams_file: is not read; give the constructor's arguments by name")
        content = read_checkpoint(checkpoint_path)
        model = cls(**recorded_arguments(cls, content.get("hyper_parameters") or {}) | arguments)
        model.on_load_checkpoint(content)
        if strict is not False:
            model.check_weights(content["state_dict"])
        model.load_state_dict(content["state_dict"], strict=strict is not False)
        return model.to(map_location or "cpu")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model without a hub, and keep every value plain."""
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            if key in checkpoint:
                checkpoint[key] = plain(checkpoint[key])
        checkpoint["imgcls"] = self.record()

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of the model besides its weights, as plain values."""
        return {
            "precision": self._trainer.precision if self._trainer else None,
            "model_name": self.model_name,
            "class_names": list(self.class_names),
            "multilabel": self.multilabel,
            "thresholds": self.thresholds,
            "network": record_of(self._built().network),
            "preprocessing": plain(asdict(self.preprocessing)),
            "versions": versions(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network that the checkpoint records, where nothing is built yet."""
        if self._trainer is not None and checkpoint.get("callbacks"):
            keep_own_paths(checkpoint["callbacks"], self._trainer.callbacks)  # type: ignore[attr-defined]
        record = checkpoint["imgcls"]
        if self.backbone is None:
            self.build(record["class_names"], record, weights=checkpoint["state_dict"])
        else:
            self.check_task("the checkpoint's data", bool(record.get("multilabel")))
            self._check_classes("the checkpoint", record["class_names"])
            if getattr(getattr(self._trainer, "datamodule", None), "normalization", None) is None:
                kept = _recorded_preprocessing(record["preprocessing"])
                self.preprocessing = replace(self.preprocessing, mean=kept.mean, std=kept.std)
                self._set_normalization()
            if self.multilabel and self.threshold is None:
                self.thresholds = thresholds_of(record.get("thresholds"), self.class_names)


def outputs(loss: Tensor, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Return what a step gives: the loss, and what metrics need."""
    # Lightning divides 'loss' by the accumulated batches; 'batch_loss' stays what it is
    return {"loss": loss, "batch_loss": loss.detach(), "logits": logits.detach(), "label": label}


def _report_new(names: list[str], heads: list[str]) -> None:
    """Say which weights of the encoder start at random; the head's always do."""
    unexpected = [name for name in names if name.rpartition(".")[0] not in heads]
    if unexpected:
        log.info("not among the pretrained weights, random: %s", listed(unexpected, 4))


def _recorded_preprocessing(record: Mapping[str, Any]) -> Preprocessing:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Preprocessing(**values)
