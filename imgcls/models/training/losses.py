"""From ``loss_config`` and ``mix_config`` to the loss of training; that of validation and test is the plain one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from imgcls.errors import ConfigError, listed
from imgcls.models.training.values import check_needed, check_numbers

_SMOOTHING = 0.1
_LEAST_DOUBT = 1e-6
_LOSS, _MIX = "model.init_args.loss_config", "model.init_args.mix_config"


@dataclass(frozen=True)
class LossConfig:
    """What the training minimises; the loss of validation and test stays the plain cross-entropy.

    Where an image may have several labels, that is the mean of the binary cross-entropies of all images and classes.

    Args:
        label_smoothing: Share of the target, 0 to below 1, that is spread evenly over all classes (Szegedy et al.
            2016); of several labels, over yes and no. Null: 0.1 where an image has one label and the loss is not the
            focal one, else 0.
        class_weights: Weight of each class, in the order of the classes; ``auto`` weights them by the inverse of their
            number of training images, so that all classes count alike; null: none. It multiplies the loss of the
            images of the class; of several labels, that of saying that an image is of the class.
        focal_gamma: Exponent of the focal loss (Lin et al. 2017), which turns the training to images that are still
            taken for another class; 0 is the cross-entropy.
    """

    label_smoothing: float | None = None
    class_weights: list[float] | Literal["auto"] | None = None
    focal_gamma: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a value that makes no loss."""
        values = asdict(self)
        check_needed(values, ("focal_gamma",), _LOSS)
        check_numbers(values, _LOSS)
        if isinstance(self.class_weights, str) and self.class_weights != "auto":
            raise ConfigError(f"{_LOSS}.class_weights: {self.class_weights!r}; 'auto', or a list of numbers")

    def check_classes(self, class_names: Sequence[str]) -> None:
        """Refuse a list of weights that is not of these classes.

        Raises:
            ConfigError: Says how many there are, and the classes.
        """
        if isinstance(self.class_weights, (list, tuple)) and len(self.class_weights) != len(class_names):
            raise ConfigError(
                f"{_LOSS}.class_weights: {len(self.class_weights)} weights for {len(class_names)} classes: "
                f"{listed(list(class_names))}"
            )


@dataclass(frozen=True)
class MixConfig:
    """Training on mixtures of two images of a batch, with their targets mixed alike; one of the two ways a batch.

    Training metrics count a mixture as what it has most of.

    Args:
        mixup: Parameter of the Beta distribution of the two images' shares, blended pixel by pixel (Zhang et al. 2018);
            0: off.
        cutmix: The same of the areas, where a rectangle of one image is put into the other (Yun et al. 2019); 0: off.
        probability: Share of the batches that are mixed, 0 to 1.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a value that makes no mixture."""
        check_needed(asdict(self), ("mixup", "cutmix", "probability"), _MIX)
        check_numbers(asdict(self), _MIX)

    @property
    def mixes(self) -> bool:
        """Whether any batch is mixed."""
        return bool((self.mixup or self.cutmix) and self.probability)


class TrainingLoss:
    """The mean over a batch of each image's loss, times the weight of its class.

    A mixture of images has the mean of their losses and of their weights, by its shares. Smoothing changes an image's
    target, never its weight.

    The optimum: let an image be of class c with probability q_c, let r_c be in proportion to w_c q_c (w: the weights of
    the classes), and t_c = (1 - smoothing) r_c + smoothing / classes. The cross-entropy is least at the probabilities
    t. The focal loss is least at probabilities in the same order: at t for an image of one sure class without
    smoothing, else flatter ones. With two classes, gamma 2 and smoothing 0.1 a sure image ends at 0.75. For a mixture,
    r are its shares, whatever the weights are.

    No module, whose buffer would come too late for what copies the model at the start of a fit.

    Args:
        config: What is asked for.
        class_weights: ``(classes,)``, on the device of the logits; None: all alike.
    """

    def __init__(self, config: LossConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights
        self.smoothing = self._default_smoothing() if config.label_smoothing is None else config.label_smoothing

    def _default_smoothing(self) -> float:
        return 0.0 if self.config.focal_gamma else _SMOOTHING

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, classes)``, float32.
            target: ``(B,)`` int64 classes, or ``(B, classes)`` float32 shares of classes.
        """
        smoothing, gamma = self.smoothing, self.config.focal_gamma
        if self.class_weights is None and not gamma:
            return functional.cross_entropy(logits, target, label_smoothing=smoothing)
        shares = target if target.ndim == 2 else functional.one_hot(target, logits.shape[1]).to(logits.dtype)
        if gamma:
            log_probs = torch.log_softmax(logits, dim=1)
            terms = _modulating_factor(1 - log_probs.exp(), gamma) * log_probs
            losses = -(terms * (shares * (1 - smoothing) + smoothing / logits.shape[1])).sum(1)
        else:
            losses = functional.cross_entropy(logits, shares, label_smoothing=smoothing, reduction="none")
        if self.class_weights is not None:  # torch's own are those of the terms, and divide by the batch's weights
            losses = losses * (shares * self.class_weights).sum(1)
        return losses.mean()


class MultilabelLoss(TrainingLoss):
    """The mean over a batch and all classes of the loss of saying that an image is of a class or is not.

    A class is a choice of two, "yes" with the weight of the class and "no" with the weight 1. The optimum: let an image
    be of the class with probability q, let r = w q / (w q + 1 - q), and t = (1 - smoothing) r + smoothing / 2. The
    cross-entropy is least at the probability t. The focal loss is least on the same side of one half. For a mixture, r
    is its share of the class, whatever the weight is.
    """

    def _default_smoothing(self) -> float:
        return 0.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, classes)``, float32.
            target: ``(B, classes)`` floats, 0 to 1.
        """
        smoothing, gamma = self.smoothing, self.config.focal_gamma
        shares = target.float()  # bf16-true casts the batch, and would round the loss
        smoothed = shares * (1 - smoothing) + smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
        if gamma:  # torchvision's sigmoid_focal_loss is the same, but for the NaN that _modulating_factor avoids
            probs = torch.sigmoid(logits)
            losses = losses * _modulating_factor(probs + smoothed - 2 * probs * smoothed, gamma)
        if self.class_weights is not None:
            losses = losses * (1 + (self.class_weights - 1) * shares)
        return losses.mean()


def _modulating_factor(doubt: Tensor, gamma: float) -> Tensor:
    """Return the paper's ``(1 - p_t) ** gamma``, whose gradient at 0 would be NaN for a gamma below 1.

    Args:
        doubt: ``1 - p_t``, where ``p_t`` is the probability of what is true.
        gamma: The exponent.
    """
    return doubt.clamp_min(_LEAST_DOUBT) ** gamma


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Return weights inverse to the numbers of images, ``(classes,)``, of mean 1 over the images.

    Args:
        counts: Number of training images of each class.

    Raises:
        ConfigError: If a class has none.
    """
    numbers = torch.tensor(counts, dtype=torch.float32)
    if not numbers.all():
        raise ConfigError(f"{_LOSS}.class_weights: 'auto', but class number {counts.index(0)} has no training image")
    return numbers.sum() / (len(counts) * numbers)


def make_mixer(config: MixConfig, classes: int) -> nn.Module:
    """Return torchvision's transform of ``(images, labels)``: floats ``(B, 3, H, W)``, and int64 ``(B,)`` or float32.

    It gives mixed images, and ``(B, classes)`` shares of classes; batches that it leaves alone keep their labels.
    """
    kinds = [(v2.MixUp, config.mixup), (v2.CutMix, config.cutmix)]
    ways: list[nn.Module] = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]
    mixer: nn.Module = v2.RandomApply([v2.RandomChoice(ways)], p=config.probability)
    return mixer
