"""The model: a Hugging Face image classifier as a LightningModule."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from imgcls.backbone import Backbone
from imgcls.batch import Batch, ClassifiedData, Preprocessing
from imgcls.chance import mix, run_seed
from imgcls.compilation import compile_in_place
from imgcls.errors import ConfigError
from imgcls.hub import load_config
from imgcls.losses import LossConfig, MixConfig, SeveralLabelsLoss, TrainingLoss, balanced_weights, make_mixer
from imgcls.network import build_recorded, check_weights, load_network, record_of
from imgcls.optim import OptimizerConfig, make_optimizer
from imgcls.plain import plain, versions
from imgcls.preprocessing import read_preprocessing
from imgcls.schedules import Plateau, SchedulerConfig, make_scheduler
from imgcls.thresholds import Threshold, check_threshold, thresholds_of
from imgcls.unfreezing import FrozenShare
from imgcls.views import Views, averaged

log = logging.getLogger(__name__)

DEFAULT_MODEL = "microsoft/resnet-18"
_PLATEAU = "plateau_schedule"


class ImageClassifier(pl.LightningModule):
    """Any image classifier of Hugging Face, with the head replaced for the classes of the data.

    Args:
        model_name: A Hub id, or a local folder (with config.json alone if ``pretrained`` is false).
        pretrained: Start from the pretrained weights; false starts from random ones.
        num_classes: Number of classes; null takes it from the data.
        freeze_encoder: true, false, or the fraction 0 to 1 of the encoder's layers that stay as they are, counted from
            the input up in the order of execution.
        feature_views: Where the whole encoder is frozen, or a share of it up to a place that a single tensor passes,
            what comes before that place is computed once for so many augmented views of each training image, and once
            for validation images; the views take turns with the epochs. Null: it is computed anew in each epoch.
        unfreeze: Epoch, counted from 0 -> the fraction of layers that is frozen from that epoch on, in place of
            ``freeze_encoder``; the fractions fall. Features are then computed anew in each epoch.
        optimizer_config: The optimizer and its parameters.
        scheduler_config: How the learning rate moves.
        loss_config: What the training minimises.
        mix_config: Training on mixtures of two images, MixUp and CutMix.
        threshold: Where an image may have several labels: the probability, 0 to 1, above which it is said to be of a
            class; one for all classes, a list in their order, or ``{class: threshold}`` (0.5 for those left out). Null:
            what the checkpoint holds, else 0.5.
        compile: Compile the network for the fit with torch.compile: faster steps on a GPU, after a minute or more for
            each size of batch. Checkpoints are those of a fit that does not compile.

    Where an image may have several labels (their data say so), each output is a probability of its own (sigmoid), and
    the loss is binary cross-entropy, its mean over images and classes.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    temperature: Tensor

    def __init__(
        self,
        model_name: str = DEFAULT_MODEL,
        pretrained: bool = True,
        num_classes: int | None = None,
        freeze_encoder: bool | float = False,
        feature_views: int | None = 1,
        unfreeze: dict[int, float] | None = None,
        optimizer_config: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        scheduler_config: SchedulerConfig = SchedulerConfig(),  # noqa: B008 - frozen
        loss_config: LossConfig = LossConfig(),  # noqa: B008 - frozen
        mix_config: MixConfig = MixConfig(),  # noqa: B008 - frozen
        threshold: Threshold | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.frozen_share = FrozenShare(freeze_encoder, unfreeze or {})
        if feature_views is not None and feature_views < 1:
            raise ConfigError(f"model.init_args.feature_views: {feature_views}; it must be at least 1, or null")
        check_threshold(threshold)
        self.save_hyperparameters(logger=False)
        self.model_name = model_name
        self.pretrained = pretrained
        self.num_classes = num_classes
        self.feature_views = feature_views
        self.optimizer_config = _as(OptimizerConfig, optimizer_config)
        self.scheduler_config = _as(SchedulerConfig, scheduler_config)
        self.compiles = compile
        self.loss_config = _as(LossConfig, loss_config)
        self.mix_config = _as(MixConfig, mix_config)
        self.threshold = threshold
        self.thresholds: list[float] | None = None
        """The threshold of each class where an image may have several labels, None where it has one."""
        self.criterion: nn.Module = nn.CrossEntropyLoss()
        self.training_loss: TrainingLoss | SeveralLabelsLoss = TrainingLoss(self.loss_config)
        self.views: Views = "none"
        self._mixer: nn.Module | None = None
        self._plateau: Plateau | None = None
        self._plateau_state: dict[str, Any] | None = None
        self.class_names: list[str] = []
        self.preprocessing = Preprocessing()
        self.backbone: Backbone | None = None
        self.register_buffer("temperature", torch.tensor(1.0))
        self._set_normalization()

    @property
    def lr(self) -> float:
        """``optimizer_config.lr``, under the name by which Lightning's LearningRateFinder sets it."""
        config: OptimizerConfig = self.optimizer_config
        return config.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer_config = replace(self.optimizer_config, lr=value)
        self.hparams["optimizer_config"] = self.optimizer_config

    # -- building

    def configure_model(self) -> None:
        """Build the network for the classes of the trainer's data, unless that is done; freeze what does not train."""
        trainer = self._trainer
        if trainer is None:
            return  # load_from_checkpoint: the checkpoint's own record follows, in on_load_checkpoint
        data = getattr(trainer, "datamodule", None)
        if self.backbone is None:
            self.build(self._class_names(data), multilabel=isinstance(data, ClassifiedData) and data.multilabel)
        elif isinstance(data, ClassifiedData) and trainer.state.fn != TrainerFn.PREDICTING:
            self.check_task("the data", data.multilabel)
        if trainer.state.fn == TrainerFn.FITTING:
            self._freeze_at_start(trainer.world_size)
            if self.compiles:
                compile_in_place(self._built().network, trainer.strategy.root_device)
        if isinstance(data, ClassifiedData) and data.normalization is not None:
            own = data.normalization
            self.preprocessing = replace(self.preprocessing, mean=own.mean, std=own.std)
            self._set_normalization()

    def build(
        self, class_names: list[str], record: Mapping[str, Any] | None = None, multilabel: bool | None = None
    ) -> None:
        """Build the network.

        Args:
            class_names: Names of the outputs.
            record: What a checkpoint holds under ``imgcls``: the network and its preprocessing are then rebuilt from
                it, with random weights, and nothing is fetched.
            multilabel: Whether an image may have several labels; None for what the record says, with its thresholds.

        Raises:
            ConfigError: If ``num_classes`` or ``threshold`` does not fit the classes.
        """
        if self.num_classes is not None and self.num_classes != len(class_names):
            raise ConfigError(
                f"model.init_args.num_classes: {self.num_classes}, but the data have {len(class_names)} classes: "
                f"{', '.join(class_names[:10])}{' …' if len(class_names) > 10 else ''}"
            )
        self.loss_config.check_classes(class_names)
        self.class_names = list(class_names)
        self._set_task(record or {}, multilabel)
        if record is None:
            self.preprocessing = read_preprocessing(self.model_name, load_config(self.model_name))
            network, new = load_network(self.model_name, self.pretrained, self.class_names)
        else:
            self.preprocessing = _recorded_preprocessing(record["preprocessing"])
            network, new = build_recorded(record["network"], self.class_names), []
        network.config.problem_type = f"{'multi' if self.multilabel else 'single'}_label_classification"
        self.backbone = Backbone(network, self.preprocessing.size)
        _report_new(new, self.backbone.anatomy.heads)
        if self.backbone.convolutional:
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
            self.training_loss = SeveralLabelsLoss(self.loss_config)

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights that fit by name and shape, and say which do not.

        Raises:
            ConfigError: If none fits.
        """
        own = self.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        if not fitting:
            raise ConfigError("experiment.only_weights_load: no weight of the checkpoint fits this model")
        self.load_state_dict(fitting, strict=False)
        left = sorted(own.keys() - fitting.keys())
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
        shape = (1, 3, 1, 1)
        self.register_buffer("pixel_mean", 255 * torch.tensor(self.preprocessing.mean).reshape(shape), persistent=False)
        self.register_buffer("pixel_std", 255 * torch.tensor(self.preprocessing.std).reshape(shape), persistent=False)

    # -- inference

    def normalize(self, images: Tensor) -> Tensor:
        """Scale and normalise uint8 images ``(B, 3, H, W)``; float images are normalised already."""
        if images.dtype != torch.uint8:
            return images
        return (images.float() - self.pixel_mean) / self.pixel_std

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

    def on_fit_start(self) -> None:
        """Make what the training minimises, now that the split is known."""
        given = self.loss_config.class_weights
        if given is not None:
            weights = balanced_weights(self._class_counts()) if given == "auto" else torch.tensor(given)
            self.training_loss = type(self.training_loss)(self.loss_config, weights.to(self.device))
        if self.mix_config.mixes:
            self._mixer = make_mixer(self.mix_config, len(self.class_names))

    def _class_counts(self) -> list[int]:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ClassifiedData):
            raise ConfigError("model.init_args.loss_config.class_weights: 'auto' needs an ImageDataModule; give a list")
        return data.class_counts()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the step by its place in the run, so that a resumed run draws the same dropout."""
        _seed(mix(run_seed(), self.current_epoch, batch_idx, self.global_rank), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Return the loss, and what metrics need: ``logits``, ``label``, ``batch_loss``; None for an empty batch.

        With several processes, which wait for each other's gradients, an empty batch gives a loss of 0 instead.
        """
        target = batch["label"]
        if not len(target):  # none of its images could be read
            return self._no_images() if self.trainer.world_size > 1 else None
        if "features" in batch:
            logits = self._go_on(batch)
        else:
            images = self.normalize(batch["image"])
            if self._mixer is not None:
                images, target = self._mixer(images, target)
            logits = self(images)
        return _outputs(self.training_loss(logits, target), logits, batch["label"])

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Return the loss, and what metrics need."""
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Return the loss, and what metrics need."""
        return self._evaluate(batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the probabilities ``(B, classes)``, float32; they add up to 1 where an image has one label."""
        logits = averaged(self, batch["image"], self.views, self.multilabel)
        return torch.sigmoid(logits) if self.multilabel else torch.softmax(logits, dim=1)

    def _evaluate(self, batch: Batch) -> dict[str, Tensor] | None:
        if not len(batch["label"]):
            return None
        if "features" in batch:
            logits = self._go_on(batch)
        else:
            logits = averaged(self, batch["image"], self.views, self.multilabel)
        return _outputs(self.criterion(logits, batch["label"]), logits, batch["label"])

    # -- freezing

    def on_train_start(self) -> None:
        """Go on as the checkpoint says: with what is frozen in its epoch, and its schedule."""
        self._thaw()
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)

    def on_train_epoch_start(self) -> None:
        """Freeze what is frozen in this epoch."""
        self._thaw()

    def _freeze_at_start(self, processes: int) -> None:
        backbone, share = self._built(), self.frozen_share
        if share.changes and processes > 1:
            raise ConfigError(
                f"model.init_args.unfreeze: {processes} processes agree beforehand on what learns; one device, or no "
                "unfreeze: trainer.devices: 1"
            )
        backbone.freeze(share.at(0))
        if backbone.frozen:
            log.info("%s", backbone.describe_frozen())
            if self.feature_views and (reason := self._reason_against_features()):
                log.info("%s: features are computed anew in each epoch", reason)

    def _thaw(self) -> None:
        """Let the layers learn that are not frozen any more."""
        backbone, before = self._built(), self._built().frozen
        if self.frozen_share.changes:
            backbone.freeze(self.frozen_share.at(self.current_epoch))
        if backbone.frozen != before:
            log.info("from epoch %d on: %s", self.current_epoch + 1, backbone.describe_frozen())

    # -- features that are computed once

    @property
    def frozen_views(self) -> int:
        """Views of each training image whose features are to be computed once; 0: in each epoch anew."""
        return (self.feature_views or 0) if self._built().frozen and not self._reason_against_features() else 0

    def _reason_against_features(self) -> str:
        if self.frozen_share.changes:
            return "model.init_args.unfreeze"
        reasons = {"mix_config": self.mix_config.mixes, "compile": self.compiles}
        return next((f"model.init_args.{key}" for key, holds in reasons.items() if holds), "")

    def frozen_until(self, size: tuple[int, int]) -> str | None:
        """Where the features are taken, for images of that height and width; None where that cannot be, with a line."""
        with self.trainer.precision_plugin.forward_context():
            return self._built().frozen_until(size)

    @torch.no_grad()
    def compute_features(self, images: Tensor) -> Tensor:
        """Return the features ``(B, ...)`` of images ``(B, 3, H, W)``, in the run's precision and on its device."""
        with self.trainer.precision_plugin.forward_context():
            return self._built().begin(self.normalize(images.to(self.device, non_blocking=True)))

    def _go_on(self, batch: Batch) -> Tensor:
        """Return the logits of features."""
        return self.classify(self._built().go_on(batch["features"], batch["size"]))

    def _no_images(self) -> dict[str, Tensor]:
        """A loss whose gradient is 0 in every parameter; there are no logits for the metrics."""
        learning = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
        return {"loss": 0 * torch.stack(learning).sum()}

    # -- training

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedule; parameters that stay frozen to the end stay out."""
        # fused ones do no clipping under mixed precision, says Lightning
        fused = not self.trainer.gradient_clip_val
        backbone, frozen = self._built(), self.frozen_share
        backbone.freeze(frozen.least)  # those that learn later wait: without a gradient they are left as they are
        optimizer = make_optimizer(self.optimizer_config, backbone.blocks(), fused)
        backbone.freeze(frozen.at(0))
        if self.scheduler_config.name == "plateau":
            if not self.trainer.limit_val_batches:
                raise ConfigError(
                    "model.init_args.scheduler_config.name: 'plateau' waits for validations; there are none"
                )
            self._plateau = Plateau(self.scheduler_config, optimizer)
            return {"optimizer": optimizer}
        total = int(self.trainer.estimated_stepping_batches)
        epochs = self.trainer.max_epochs or 1
        scheduler = make_scheduler(self.scheduler_config, optimizer, total, total / max(epochs, 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_validation_epoch_end(self) -> None:
        """Tell the schedule that waits for validations how this one went."""
        trains = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking
        if self._plateau is not None and trains:
            self._plateau.step(float(self.trainer.callback_metrics["validation_loss"]))

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model without a hub, and keep every value plain."""
        for key in ("hyper_parameters", "datamodule_hyper_parameters"):
            if key in checkpoint:
                checkpoint[key] = plain(checkpoint[key])
        checkpoint["imgcls"] = self.record()
        if self._plateau is not None:
            checkpoint[_PLATEAU] = self._plateau.state_dict()

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
        record = checkpoint["imgcls"]
        if self.backbone is None:
            self.build(record["class_names"], record)
        else:
            self.check_task("the checkpoint's data", bool(record.get("multilabel")))
            if self.multilabel and self.threshold is None:
                self.thresholds = thresholds_of(record.get("thresholds"), self.class_names)
        self._plateau_state = checkpoint.get(_PLATEAU)


def _outputs(loss: Tensor, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
    # Lightning divides 'loss' by the accumulated batches; 'batch_loss' stays what it is
    return {"loss": loss, "batch_loss": loss.detach(), "logits": logits.detach(), "label": label}


def _seed(seed: int, device: torch.device) -> None:
    """Seed what draws on a device; ``torch.manual_seed`` formats three stack traces for devices that are not there."""
    if device.type not in {"cpu", "cuda", "meta"}:
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _report_new(names: list[str], heads: list[str]) -> None:
    """Say which weights of the encoder start at random; the head's always do."""
    unexpected = [name for name in names if name.rpartition(".")[0] not in heads]
    if unexpected:
        more = f" and {len(unexpected) - 4} more" if len(unexpected) > 4 else ""
        log.info("not among the pretrained weights, random: %s%s", ", ".join(unexpected[:4]), more)


def _recorded_preprocessing(record: Mapping[str, Any]) -> Preprocessing:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in record.items()}
    return Preprocessing(**values)


def _as(kind: Any, value: Any) -> Any:
    return kind(**value) if isinstance(value, dict) else value
