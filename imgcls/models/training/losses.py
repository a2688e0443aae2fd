"""Training losses: label smoothing, class weights, focal loss, and MixUp and CutMix."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import v2

from imgcls.config.sections import section

_MIN_BASE = 1e-6  # of the focal loss


@dataclass(frozen=True, config=section("loss_config", "model.init_args"))
class LossConfig:
    """The training loss; validation and test use cross-entropy, or binary cross-entropy for multi-label data.

    Args:
        label_smoothing: Fraction of the target, 0 to below 1, spread evenly over all classes (Szegedy et al. 2016);
            multi-label: over yes and no. Default: 0.1 for single-label data without focal loss, else 0.
        class_weights: Weight of each class, in their order; ``auto``: inverse to the number of training images, so that
            all classes count equally; null: none. Multiplies the loss of the images of the class; multi-label: the loss
            of the positive labels of the class.
        focal_gamma: Focal-loss gamma (Lin et al. 2017); down-weights well-classified images. 0 is plain cross-entropy.
    """

    label_smoothing: Annotated[float | None, Field(ge=0, lt=1)] = None
    class_weights: list[float] | Literal["auto"] | None = None
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self) -> None:
        """Check the weights."""
        if isinstance(self.class_weights, list) and not all(weight > 0 for weight in self.class_weights):
            raise ValueError(
                f"model.init_args.loss_config.class_weights must be greater than 0, got {self.class_weights}"
            )


@dataclass(frozen=True, config=section("mix_config", "model.init_args"))
class MixConfig:
    """Train on mixtures of two images of a batch and of their targets; each batch uses one of the two methods.

    Training metrics count a mixture as the class with the largest share.

    Args:
        mixup: Parameter of the Beta distribution of the shares in a pixel-wise blend (Zhang et al. 2018); 0: off.
        cutmix: Parameter of the Beta distribution of the area of a rectangle pasted from the other image (Yun et al.
            2019); 0: off.
        probability: Fraction of the batches that are mixed, 0 to 1.
    """

    mixup: Annotated[float, Field(ge=0)] = 0.0
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0

    @property
    def mixes(self) -> bool:
        """Whether any batch is mixed."""
        return bool((self.mixup or self.cutmix) and self.probability)


class TrainingLoss:
    """Mean over a batch of each image's loss times the weight of its class.

    A mixture of images has the mean of their losses and weights, weighted by its shares. Smoothing changes the target
    of an image, not its weight.

    Optimum: let an image be of class c with probability q_c, let r_c be proportional to w_c q_c (w: class weights), and
    t_c = (1 - smoothing) r_c + smoothing / classes. The cross-entropy is minimal at the probabilities t. The focal loss
    is minimal at probabilities in the same order: at t for an unambiguous image without smoothing, else at flatter
    ones; with two classes, gamma 2 and smoothing 0.1 an unambiguous image ends at 0.75. For a mixture, r are its
    shares, independent of the weights.

    Not a module, because a buffer would be registered after callbacks have copied the model.

    Args:
        config: The section ``loss_config``.
        class_weights: ``(classes,)``, on the device of the logits; None: equal weights.
    """

    _smoothing = 0.1  # default without focal loss

    def __init__(self, config: LossConfig, class_weights: Tensor | None = None) -> None:
        self.config = config
        self.class_weights = class_weights
        default = 0.0 if config.focal_gamma else self._smoothing
        self.smoothing = default if config.label_smoothing is None else config.label_smoothing

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, classes)``, float32.
            target: ``(B,)`` int64 class indices, or ``(B, classes)`` float32 shares.
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
        if self.class_weights is not None:  # torch's weight each term of a smoothed target, and are normalised
            losses = losses * (shares * self.class_weights).sum(1)
        return losses.mean()


class MultilabelLoss(TrainingLoss):
    """Mean over a batch and all classes of the binary loss, positive labels times the weight of the class.

    Optimum: let an image have the label with probability q, let r = w q / (w q + 1 - q), and
    t = (1 - smoothing) r + smoothing / 2. The cross-entropy is minimal at the probability t, the focal loss on the same
    side of 0.5. For a mixture, r is its share of the class, independent of the weight.
    """

    _smoothing = 0.0

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, classes)``, float32.
            target: ``(B, classes)`` floats from 0 to 1.
        """
        smoothing, gamma = self.smoothing, self.config.focal_gamma
        shares = target.float()  # bf16-true casts the batch, which would round the loss
        smoothed = shares * (1 - smoothing) + smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
        if gamma:  # torchvision's sigmoid_focal_loss has a NaN gradient, see _modulating_factor
            probs = torch.sigmoid(logits)
            losses = losses * _modulating_factor(probs + smoothed - 2 * probs * smoothed, gamma)
        if self.class_weights is not None:
            losses = losses * (1 + (self.class_weights - 1) * shares)
        return losses.mean()


def _modulating_factor(base: Tensor, gamma: float) -> Tensor:
    """Return ``(1 - p_t) ** gamma`` of the focal loss; clamped, since its gradient at 0 is NaN for a gamma below 1.

    Args:
        base: ``1 - p_t``, where ``p_t`` is the probability of the true class.
        gamma: The exponent.
    """
    return base.clamp_min(_MIN_BASE) ** gamma


def balanced_weights(counts: Sequence[int]) -> Tensor:
    """Return weights ``(classes,)`` inverse to the numbers of images, none 0, with mean 1 over all images."""
    numbers = torch.tensor(counts, dtype=torch.float32)
    return numbers.sum() / (len(counts) * numbers)


def make_mixer(config: MixConfig, classes: int) -> nn.Module:
    """Return torchvision's transform of images ``(B, 3, H, W)``, float32, and labels ``(B,)`` or ``(B, classes)``.

    Mixed batches get labels ``(B, classes)``, float32 shares; other batches keep theirs.
    """
    kinds = [(v2.MixUp, config.mixup), (v2.CutMix, config.cutmix)]
    methods: list[nn.Module] = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]
    mixer: nn.Module = v2.RandomApply([v2.RandomChoice(methods)], p=config.probability)
    return mixer
