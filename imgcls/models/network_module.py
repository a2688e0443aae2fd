"""A Hugging Face network with its preprocessing and classes, built for the data or from a checkpoint's record."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from imgcls.errors import ConfigError, listed
from imgcls.models.architecture import Size
from imgcls.models.backbone import Backbone
from imgcls.models.huggingface.build import load_network
from imgcls.models.huggingface.from_checkpoint import build_recorded
from imgcls.models.huggingface.hub import load_config
from imgcls.models.huggingface.image_processor import read_preprocessing
from imgcls.models.thresholds import Threshold, check_threshold, thresholds_of
from imgcls.runtime.malloc import keep_freed_memory
from imgcls.types import ClassifiedData, Preprocessing

log = logging.getLogger(__name__)

_HEADS = "backbone.heads."  # prefix of the weights whose rows are the classes


class NetworkModule(pl.LightningModule):
    """A Hugging Face network, its preprocessing, classes and thresholds; arguments as of ``ImageClassifier``."""

    pixel_mean: Tensor
    pixel_std: Tensor
    temperature: Tensor
    """By which logits are divided: one number, or multi-label: ``(classes,)``. 1 in training."""

    def __init__(self, model_name: str, pretrained: bool, num_classes: int | None, threshold: Threshold | None) -> None:
        super().__init__()
        check_threshold(threshold)
        self.model_name = model_name
        self.pretrained = pretrained
        self.num_classes = num_classes
        self.threshold = threshold
        self.thresholds: list[float] | None = None
        """Multi-label: the threshold of each class, 0 to 1; None for single-label."""
        self.criterion: nn.Module = nn.CrossEntropyLoss()
        self.class_names: list[str] = []
        self.preprocessing = Preprocessing()
        self.backbone: Backbone | None = None
        with torch.inference_mode(False):  # tensors that are made within it could not be trained
            self.register_buffer("temperature", torch.tensor(1.0))
            self._set_normalization()

    @property
    def multilabel(self) -> bool:
        """Whether the task is multi-label."""
        return self.thresholds is not None

    # -- building

    def configure_model(self) -> None:
        """Build the network for the classes of the trainer's data, unless that is done."""
        trainer = self._trainer
        if trainer is None:
            return  # load_from_checkpoint: on_load_checkpoint builds it from the checkpoint's own record
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        data = getattr(trainer, "datamodule", None)
        wanted = getattr(data, "image_size", None)
        image_size = wanted if isinstance(wanted, tuple) else None  # a user's data may mean something else by the name
        if self.backbone is None:
            multilabel = isinstance(data, ClassifiedData) and data.multilabel
            self.build(self._class_names(data), multilabel=multilabel, image_size=image_size)
        elif isinstance(data, ClassifiedData) and trainer.state.fn != TrainerFn.PREDICTING:
            self.check_task("the data", data.multilabel)
            self._check_classes("the data", data.class_names)
        self.preprocessing = self.preprocessing.resized(image_size)
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
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Build the network.

        Args:
            class_names: Names of the outputs.
            record: What a checkpoint holds under ``imgcls``: the network and its preprocessing are then rebuilt from
                it, with random weights, without a download.
            multilabel: Whether the data is multi-label; None for what the record has, with its thresholds.
            weights: The tensors beside the record, which limit the size of its network.
            image_size: Height and width of the images in pixels; None is the size of the pretrained model, or that of
                the record.

        Raises:
            ConfigError: If ``num_classes`` or ``threshold`` does not fit the classes, or the network does not accept
                images of that size.
        """
        if self.num_classes is not None and self.num_classes != len(class_names):
            raise ConfigError(
                f"model.init_args.num_classes must be {len(class_names)}, the number of classes of the data "
                f"({listed(class_names)}), got {self.num_classes}"
            )
        self.class_names = list(class_names)
        self._set_task(record or {}, multilabel)
        self.shape_temperature(weights or {})
        # Lightning makes a GPU the default device, which transformers refuses; the parts of the network are found by
        # a backward pass, which inference mode forbids
        with torch.device("cpu"), torch.inference_mode(False):
            self._build(record, weights, image_size)

    def _build(
        self, record: Mapping[str, Any] | None, weights: Mapping[str, Tensor] | None, image_size: Size | None
    ) -> None:
        if record is None:
            expected, is_bgr = read_preprocessing(self.model_name, load_config(self.model_name))
        else:
            expected, is_bgr = recorded_preprocessing(record["preprocessing"]), False
        other_size = None if image_size == expected.size else image_size
        if record is None:
            network, new = load_network(self.model_name, self.pretrained, self.class_names, other_size, is_bgr)
        else:
            network, new = build_recorded(record["network"], self.class_names, weights, other_size), []
        self.preprocessing = expected.resized(other_size)
        if other_size is not None:
            log.info("Image size: %d x %d pixels, instead of the model's %d x %d", *other_size, *expected.size)
        network.config.problem_type = f"{'multi' if self.multilabel else 'single'}_label_classification"
        self.backbone = Backbone(network, self.preprocessing.size)
        heads = self.backbone.architecture.heads  # which always start at random
        if random := [name for name in new if name.rpartition(".")[0] not in heads]:
            log.info("not among the pretrained weights, random: %s", listed(random, 4))
        if self.backbone.channels_last:
            self.backbone.to(memory_format=torch.channels_last)
        self._set_normalization()

    def built(self) -> Backbone:
        """Return the network.

        Raises:
            ConfigError: If it is not built yet.
        """
        if self.backbone is None:
            raise ConfigError("the network is not built yet: call build(class_names), or use a Trainer")
        return self.backbone

    def check_task(self, source: str, multilabel: bool) -> None:
        """Refuse multi-label data, or such a checkpoint, for a single-label model, and the other way round.

        Raises:
            ConfigError: Names the source of the labels.
        """
        if multilabel != self.multilabel:
            ours, theirs = ("multi-label" if several else "single-label" for several in (self.multilabel, multilabel))
            remedy = "leave out" if multilabel else "set"
            raise ConfigError(
                f"the model is {ours}, but {source} {theirs}; {remedy} label_separator of imgcls.CsvImageDataset, or "
                "use another checkpoint"
            )

    def _check_classes(self, source: str, names: list[str]) -> None:
        """Refuse other classes than those of the outputs, or another order."""
        if names != self.class_names:
            raise ConfigError(
                f"the model's classes are {listed(self.class_names)}, those of {source} {listed(names)}; set "
                "class_names of ImageDataModule to those of the checkpoint, or leave it out"
            )

    def _set_task(self, record: Mapping[str, Any], multilabel: bool | None) -> None:
        several = bool(record.get("multilabel")) if multilabel is None else multilabel
        if self.threshold is not None and not several:
            raise ConfigError(
                f"model.init_args.threshold: {self.threshold} applies to multi-label data only; leave it out: a single "
                "label is the class of the highest probability"
            )
        kept = record.get("thresholds") if multilabel is None else None
        given = kept if self.threshold is None else self.threshold
        self.thresholds = thresholds_of(given, self.class_names) if several else None
        if several:
            self.criterion = nn.BCEWithLogitsLoss()

    def _class_names(self, data: object) -> list[str]:
        if isinstance(data, ClassifiedData) and data.class_names:
            return data.class_names
        if self.num_classes is not None:
            return [str(number) for number in range(self.num_classes)]
        raise ConfigError("model.init_args.num_classes: the data have no class names; set the number of classes")

    def _set_normalization(self) -> None:
        self.register_buffer("pixel_mean", 255 * torch.tensor(self.preprocessing.mean), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(self.preprocessing.std), persistent=False)

    # -- weights

    def shape_temperature(self, weights: Mapping[str, Tensor]) -> None:
        """Set the temperature to 1, in the shape that weights have: one number, or multi-label: one of each class."""
        given = weights.get("temperature")
        one_each = self.multilabel and given is not None and given.shape == (len(self.class_names),)
        with torch.inference_mode(False):
            self.temperature = self.temperature.new_ones(len(self.class_names) if one_each else ())

    def load_weights(self, state: Mapping[str, Tensor], class_names: list[str]) -> None:
        """Load the weights that fit by name and shape, those of a head of these classes by class; log which do not."""
        own = self.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        shared = [name for name in self.class_names if name in class_names]
        ours, theirs = ([names.index(name) for name in shared] for names in (self.class_names, class_names))
        for key in [key for key in own if key.startswith(_HEADS)]:
            fitting.pop(key, None)  # its shape may fit although the classes are others
            if shared and key in state and state[key].shape == (len(class_names), *own[key].shape[1:]):
                rows = own[key].clone()
                rows[ours] = state[key][theirs].to(rows)
                fitting[key] = rows
        self.load_state_dict(fitting, strict=False)
        left = sorted(own.keys() - fitting.keys())
        if shared and len(shared) < len(self.class_names):
            left.append(f"the head's rows of {listed([name for name in self.class_names if name not in shared])}")
        log.info("loaded %d of %d weights%s", len(fitting), len(own), f"; new: {', '.join(left[:6])}" if left else "")


def recorded_preprocessing(record: Mapping[str, Any]) -> Preprocessing:
    """Return the preprocessing that a checkpoint records."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Preprocessing(**{"kernel": "opencv", **values})  # which older checkpoints do not name
