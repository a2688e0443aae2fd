"""ImageClassifier: a Hugging Face image classifier, and how it is trained."""

from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from imgcls.errors import ConfigError, listed
from imgcls.models.huggingface.hub import DEFAULT_MODEL
from imgcls.models.inference import outputs
from imgcls.models.thresholds import Threshold
from imgcls.models.training.fit_hooks import FitHooks
from imgcls.models.training.frozen_layers import FrozenFraction
from imgcls.models.training.losses import (
    LossConfig,
    MixConfig,
    MultilabelLoss,
    TrainingLoss,
    balanced_weights,
    make_mixer,
)
from imgcls.models.training.optimized_module import OptimizedModule
from imgcls.models.training.optimizer import OptimizerConfig
from imgcls.models.training.scheduler import SchedulerConfig
from imgcls.models.training.torch_compile import compile_in_place
from imgcls.types import Batch, ClassifiedData


class ImageClassifier(OptimizedModule):
    """Any image classifier of Hugging Face, with a new head for the classes of the data.

    Args:
        model_name: A Hub id, or a local folder (config.json is enough if ``pretrained`` is false).
        pretrained: Start from the pretrained weights; false starts from random ones.
        num_classes: Number of classes; null takes it from the data.
        freeze_encoder: true, false, or the fraction 0 to 1 of the encoder's layers that are frozen, counted from the
            input in the order of execution.
        feature_views: Number of augmented versions per training image whose frozen features are cached; epochs cycle
            through them. Validation images have one. Null: the frozen layers are recomputed every epoch.
        unfreeze: Epoch, counted from 0 -> the fraction of layers that is frozen from that epoch on, instead of
            ``freeze_encoder``; the fractions must decrease. Turns the feature cache off.
        optimizer_config: The optimizer and its parameters.
        scheduler_config: The learning-rate schedule.
        loss_config: The training loss.
        mix_config: MixUp and CutMix.
        threshold: Multi-label: the probability, 0 to 1, above which an image is assigned a class; one for all classes,
            a list in their order, or ``{class: threshold}`` (0.5 for the others). Null: that of the checkpoint, unless
            a new run starts from its weights alone, else 0.5.
        compile: Compile the network for the fit with torch.compile: faster steps on a GPU, after a minute or more for
            each batch size. The checkpoints are the same as without.

    For multi-label data (which the dataset declares), each output is an independent probability (sigmoid), and the loss
    is the binary cross-entropy, averaged over images and classes.

    A subclass may define any hook of Lightning, steps with other outputs, and ``configure_optimizers``; only
    ``configure_model``, ``on_save_checkpoint`` and ``on_load_checkpoint`` must call ``super()``.
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
        self.frozen_share = FrozenFraction(freeze_encoder, unfreeze or {})
        if feature_views is not None and feature_views < 1:
            raise ConfigError(f"model.init_args.feature_views must be at least 1, or null, got {feature_views}")
        self.save_hyperparameters(logger=False)
        self.feature_views = feature_views
        self.optimizer_config = _as(OptimizerConfig, optimizer_config)
        self.scheduler_config = _as(SchedulerConfig, scheduler_config)
        self.loss_config = _as(LossConfig, loss_config)
        self.mix_config = _as(MixConfig, mix_config)
        self.compiles = compile
        self.from_random = not pretrained  # until other weights are loaded
        self._objective: tuple[TrainingLoss, nn.Module | None] | None = None  # of a fit, made at its first step
        self.fit_hooks = FitHooks()

    @property
    def chosen(self) -> dict[str, float]:
        """Dotted key of an argument -> the default in use where the configuration has null, if it has an effect."""
        found: dict[str, float] = {}
        if not self.has_own_optimizers:
            given = asdict(self.optimizer_config)
            rates = asdict(self.rates).items()
            found = {f"optimizer_config.{name}": rate for name, rate in rates if given[name] is None}
        if self.frozen_share.least == 1:
            found.pop("optimizer_config.layer_decay", None)
        if self.loss_config.label_smoothing is None:
            found["loss_config.label_smoothing"] = self._loss_kind(self.loss_config).smoothing
        return found

    # -- building

    def configure_model(self) -> None:
        """Build the network, unless that is done; in a fit, freeze layers and attach what surrounds the steps."""
        super().configure_model()
        trainer = self._trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            self.temperature.fill_(1)  # of a calibrated checkpoint
            self._objective, self.fit_hooks = None, FitHooks()
            self.fit_hooks.attach(trainer)
            self._freeze_at_start(trainer.world_size)
            if self.compiles:
                compile_in_place(self.built().network, trainer.strategy.root_device)

    # -- loss and steps

    def training_loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a training step, by ``loss_config``.

        Args:
            logits: ``(B, classes)``, float32.
            target: ``(B,)`` int64 classes, or ``(B, classes)`` floats: shares of a mixture, or multi-label.
        """
        loss, _ = self.objective()
        return loss(logits, target)

    def objective(self) -> tuple[TrainingLoss, nn.Module | None]:
        """Return the loss of a fit and its MixUp or CutMix, made at the first call, when the split is known."""
        if self._objective is None:
            mixer = make_mixer(self.mix_config, len(self.class_names)) if self.mix_config.mixes else None
            self._objective = self._loss_kind(self.loss_config, self._class_weights()), mixer
        return self._objective

    @property
    def _loss_kind(self) -> type[TrainingLoss]:
        return MultilabelLoss if self.multilabel else TrainingLoss

    def _class_weights(self) -> Tensor | None:
        given, key = self.loss_config.class_weights, "model.init_args.loss_config.class_weights"
        if given is None:
            return None
        if given != "auto":
            if len(given) != len(self.class_names):
                raise ConfigError(
                    f"{key} must have one weight for each of the {len(self.class_names)} classes "
                    f"{listed(self.class_names)}, got {len(given)}"
                )
            return torch.tensor(given, device=self.device)
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ClassifiedData):
            raise ConfigError(f"{key}: 'auto' needs an ImageDataModule; give a list")
        counts = data.class_counts()
        if 0 in counts:
            name = self.class_names[counts.index(0)]
            raise ConfigError(f"{key}: 'auto' needs training images of every class, {name!r} has none; give a list")
        return balanced_weights(counts).to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Return the loss, and what metrics need: ``logits``, ``label``, ``batch_loss``; None for an empty batch.

        With several processes, which wait for each other's gradients, an empty batch has a loss of 0 instead.
        """
        target = label = batch["label"]
        if not len(target):  # none of its images could be read
            learning = [parameter.sum() for parameter in self.parameters() if parameter.requires_grad]
            return {"loss": 0 * torch.stack(learning).sum()} if self.trainer.world_size > 1 else None
        if "features" in batch:
            logits = self._logits_of_features(batch)
        else:
            images = self.normalize(batch["image"])
            _, mixer = self.objective()
            if mixer is not None:
                images, target = mixer(images, target)
                # metrics compare with the largest share of a mixture; some batches are not mixed
                if self.multilabel:
                    label = (target >= 0.5).to(label.dtype)
                elif target.ndim == 2:
                    label = target.argmax(1)
            logits = self(images)
        return outputs(self.training_loss(logits, target), logits, label)


def _as(kind: Any, value: Any) -> Any:
    return kind(**value) if isinstance(value, dict) else value
