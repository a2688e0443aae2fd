"""The model: a Hugging Face image classifier, and how it is trained."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from imgcls.errors import ConfigError
from imgcls.models.inference import InferenceModule, outputs
from imgcls.models.thresholds import Threshold
from imgcls.models.training.freezing import FrozenShare
from imgcls.models.training.losses import (
    LossConfig,
    MixConfig,
    MultilabelLoss,
    TrainingLoss,
    balanced_weights,
    make_mixer,
)
from imgcls.models.training.optimizer import OptimizerConfig, Rates, choose_rates, make_optimizer
from imgcls.models.training.resume_check import PACE, Pace, Recorded
from imgcls.models.training.scheduler import SchedulerConfig, make_plateau, make_scheduler
from imgcls.models.training.torch_compile import compile_in_place
from imgcls.runtime.seeding import mix, run_seed
from imgcls.types import Batch, ClassifiedData

log = logging.getLogger(__name__)

DEFAULT_MODEL = "microsoft/resnet-18"
_PLATEAU = "plateau_schedule"


class ImageClassifier(InferenceModule):
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
            what the checkpoint holds, unless a new run takes its weights alone, else 0.5.
        compile: Compile the network for the fit with torch.compile: faster steps on a GPU, after a minute or more for
            each size of batch. Checkpoints are those of a fit that does not compile.

    Where an image may have several labels (their data say so), each output is a probability of its own (sigmoid), and
    the loss is binary cross-entropy, its mean over images and classes.
    """

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
        super().__init__(model_name, pretrained, num_classes, threshold)
        self.frozen_share = FrozenShare(freeze_encoder, unfreeze or {})
        if feature_views is not None and feature_views < 1:
            raise ConfigError(f"model.init_args.feature_views: {feature_views}; it must be at least 1, or null")
        self.save_hyperparameters(logger=False)
        self.feature_views = feature_views
        self.optimizer_config = _as(OptimizerConfig, optimizer_config)
        self.scheduler_config = _as(SchedulerConfig, scheduler_config)
        self.loss_config = _as(LossConfig, loss_config)
        self.mix_config = _as(MixConfig, mix_config)
        self.compiles = compile
        self.from_random = not pretrained  # until other weights are loaded
        self.training_loss = TrainingLoss(self.loss_config)
        self._mixer: nn.Module | None = None
        self._said_frozen = False
        self._plateau: ReduceLROnPlateau | None = None
        self._plateau_state: dict[str, Any] | None = None
        self._pace: Pace | None = None
        self._recorded: Recorded | None = None

    @property
    def rates(self) -> Rates:
        """The rates of the network that is built, chosen where ``optimizer_config`` leaves them null."""
        batch_normalized = self._built().batch_normalized
        return choose_rates(self.optimizer_config, batch_normalized, not self.from_random, self.block_count)

    @property
    def block_count(self) -> int:
        """Number of blocks of the encoder, which ``layer_decay`` counts."""
        return len(self._built().blocks()) - 1

    @property
    def fused_norms(self) -> set[str]:
        """The network's classes of layers that are BatchNorm and more."""
        return self._built().fused_norms()

    @property
    def chosen(self) -> dict[str, float]:
        """What the configuration leaves null, as chosen for the network that is built and its task."""
        optimizer, loss = self.optimizer_config, self.loss_config
        given = {
            "lr": optimizer.lr,
            "weight_decay": optimizer.weight_decay,
            "layer_decay": optimizer.layer_decay,
            "label_smoothing": loss.label_smoothing,
        }
        used = asdict(self.rates) | {"label_smoothing": self._loss_kind(loss).smoothing}
        return {name: used[name] for name, value in given.items() if value is None}

    @property
    def lr(self) -> float:
        """``optimizer_config.lr``, under the name by which Lightning's LearningRateFinder sets it."""
        return self.rates.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer_config = replace(self.optimizer_config, lr=value)
        self.hparams["optimizer_config"] = self.optimizer_config

    # -- building

    def build(
        self,
        class_names: list[str],
        record: Mapping[str, Any] | None = None,
        multilabel: bool | None = None,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Build the network, as ``InferenceModule`` does, for classes that the training's options fit."""
        self.loss_config.check_classes(class_names)
        super().build(class_names, record, multilabel, weights)

    def configure_model(self) -> None:
        """Build the network, unless that is done; freeze what does not train."""
        super().configure_model()
        trainer = self._trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            self._freeze_at_start(trainer.world_size)
            if self.compiles:
                compile_in_place(self._built().network, trainer.strategy.root_device)

    # -- steps

    def _make_loss(self) -> None:
        """Make what the training minimises, now that the split is known."""
        self.training_loss = self._loss_kind(self.loss_config, self._class_weights())
        if self.mix_config.mixes:
            self._mixer = make_mixer(self.mix_config, len(self.class_names))

    @property
    def _loss_kind(self) -> type[TrainingLoss]:
        return MultilabelLoss if self.multilabel else TrainingLoss

    def _class_weights(self) -> Tensor | None:
        given = self.loss_config.class_weights
        if given is None:
            return None
        weights = balanced_weights(self._class_counts()) if given == "auto" else torch.tensor(given)
        return weights.to(self.device)

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
        target = label = batch["label"]
        if not len(target):  # none of its images could be read
            return self._no_images() if self.trainer.world_size > 1 else None
        if "features" in batch:
            logits = self._go_on(batch)
        else:
            images = self.normalize(batch["image"])
            if self._mixer is not None:
                images, target = self._mixer(images, target)
                label = self._most_of(target).to(label.dtype)
            logits = self(images)
        return outputs(self.training_loss(logits, target), logits, label)

    def _most_of(self, target: Tensor) -> Tensor:
        """Return the labels that mixtures have most of, by which the metrics judge; others are as they were."""
        if self.multilabel:
            return target >= 0.5
        return target if target.ndim == 1 else target.argmax(1)

    # -- freezing

    def on_train_start(self) -> None:
        """Go on as the checkpoint says: with what is frozen in its epoch, and its schedule."""
        self._thaw()
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)

    def on_fit_end(self) -> None:
        """Forget the checkpoint that this fit went on from; a finder loads one of its own, and another fit follows."""
        self._recorded = self._plateau_state = None

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
        if backbone.frozen and not self._said_frozen:  # EMA builds the model before the Trainer does
            self._said_frozen = True
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

    def _no_images(self) -> dict[str, Tensor]:
        """A loss whose gradient is 0 in every parameter; there are no logits for the metrics."""
        learning = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
        return {"loss": 0 * torch.stack(learning).sum()}

    # -- training

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build optimizer and schedule; parameters that stay frozen to the end stay out."""
        self._make_loss()  # not later: a LearningRateFinder of Lightning's begins before on_fit_start
        # fused ones do no clipping under mixed precision, says Lightning
        optimizer = self._make_optimizer(fused=not self.trainer.gradient_clip_val)
        self._pace = Pace.of(self.trainer)
        if self._recorded is not None:
            self._recorded.check(self._pace, self.scheduler_config.name not in {"constant", "plateau"})
        if self.scheduler_config.name == "plateau":
            if not self.trainer.limit_val_batches:
                raise ConfigError(
                    "model.init_args.scheduler_config.name: 'plateau' waits for validations; there are none"
                )
            self._plateau = make_plateau(self.scheduler_config, optimizer)
            return {"optimizer": optimizer}
        total = self.trainer.estimated_stepping_batches
        scheduler = make_scheduler(self.scheduler_config, optimizer, total, self._pace.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _make_optimizer(self, fused: bool) -> Optimizer:
        backbone, frozen = self._built(), self.frozen_share
        backbone.freeze(frozen.least)  # those that learn later wait: without a gradient they are left as they are
        optimizer = make_optimizer(self.optimizer_config, self.rates, backbone.blocks(), backbone.kernels(), fused)
        backbone.freeze(frozen.at(0))
        return optimizer

    def check_optimizers(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Refuse to go on with the state of an optimizer of other parameters; torch would say less, and later.

        Raises:
            ConfigError: If its groups are others.
        """
        theirs = [[len(group["params"]) for group in state["param_groups"]] for state in states]
        ours = [len(group["params"]) for group in self._make_optimizer(fused=False).param_groups]
        if theirs != [ours]:
            raise ConfigError(
                "model.init_args: the checkpoint's optimizer has other groups of parameters: its run had another "
                "optimizer_config, freeze_encoder or unfreeze; give those of its config.yaml, or take its weights "
                "alone: --experiment.only_weights_load true"
            )

    def on_validation_epoch_end(self) -> None:
        """Tell the schedule that waits for validations how this one went."""
        trains = self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking
        if self._plateau is None or not trains:
            return
        if "validation_loss" not in self.trainer.callback_metrics:
            raise ConfigError(
                "model.init_args.scheduler_config.name: 'plateau' waits for validation_loss, which nothing logs; add "
                "imgcls.MetricsLogger to trainer.callbacks"
            )
        self._plateau.step(float(self.trainer.callback_metrics["validation_loss"]))

    # -- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model without a hub, and where its schedule stands."""
        super().on_save_checkpoint(checkpoint)
        if self._plateau is not None:
            checkpoint[_PLATEAU] = self._plateau.state_dict()
        if self._pace is not None:
            checkpoint[PACE] = self._pace.record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the network that the checkpoint records, where nothing is built yet."""
        super().on_load_checkpoint(checkpoint)
        goes_on = self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING
        self._plateau_state = checkpoint.get(_PLATEAU) if goes_on else None
        self._recorded = Recorded.of(checkpoint) if goes_on else None


def _seed(seed: int, device: torch.device) -> None:
    """Seed what draws on a device; ``torch.manual_seed`` formats three stack traces for devices that are not there."""
    if device.type not in {"cpu", "cuda", "meta"}:
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _as(kind: Any, value: Any) -> Any:
    return kind(**value) if isinstance(value, dict) else value
