"""Types shared by the data half and the model half: the batch, and the protocols between them."""

from dataclasses import dataclass, replace
from typing import Literal, NotRequired, Protocol, Self, TypedDict, runtime_checkable

from torch import Tensor

LR_SCALE = "lr_scale"
"""Key of an optimizer's parameter group: its learning rate relative to ``lr``, as timm names it."""


class Batch(TypedDict):
    """One batch of B images, as ``ImageDataModule`` loads it and a model's steps receive it.

    Keys:
        image: ``(B, 3, H, W)`` in channels-last memory: uint8, 0..255, not normalised; or float32, if the configured
            list contains ``albumentations.Normalize``. Missing if there are ``features``.
        features: ``(B, ...)`` in the dtype of the computation: the output of the frozen first layers, cached in a fit.
        size: Height and width in pixels of the images that the features were computed from.
        label: ``(B,)`` int64, class indices, -1 if unknown; in a multi-label dataset ``(B, C)`` float32, 0 or 1 per
            class.
        path: The id of each sample: the path of a file.
        error: Only in prediction: for each sample the reason why it could not be read, else ""; its pixels are black.
        skipped: Only in a batch without some of its images: path -> reason. The datamodule removes it when it reports
            them.
    """

    image: NotRequired[Tensor]
    features: NotRequired[Tensor]
    size: NotRequired[tuple[int, int]]
    label: Tensor
    path: list[str]
    error: NotRequired[list[str]]
    skipped: NotRequired[dict[str, str]]


@dataclass(frozen=True)
class Preprocessing:
    """The input that a pretrained model expects.

    Args:
        size: Height and width in pixels of the network's input.
        shortest_edge: Length in pixels to which the shorter side is resized before the centre crop; None resizes to
            ``size`` without keeping the aspect ratio.
        interpolation: Interpolation of that resize.
        mean: Mean of each channel, for pixels scaled to 0..1.
        std: Standard deviation of each channel, for pixels scaled to 0..1.
        kernel: The library whose values the resize has: ``torchvision`` for transformers' image processors, ``pillow``
            for timm's, ``opencv`` for checkpoints made before kernels were recorded.
    """

    size: tuple[int, int] = (224, 224)
    shortest_edge: int | None = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    kernel: Literal["opencv", "torchvision", "pillow"] = "torchvision"

    def resized(self, size: tuple[int, int] | None) -> Self:
        """Return the preprocessing for another input size.

        The shorter side before the centre crop is scaled in proportion. A size that is not square has no crop: whole
        images are resized to it, since it is chosen for images of that aspect ratio.

        Args:
            size: Height and width in pixels; None keeps the size.
        """
        if size is None or size == self.size:
            return self
        height, width = size
        edge = None if self.shortest_edge is None or height != width else self.shortest_edge
        return replace(self, size=size, shortest_edge=edge and round(edge * height / min(self.size)))


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, for pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@runtime_checkable
class ClassifiedData(Protocol):
    """What the model needs of the datamodule that it is trained with (``trainer.datamodule``)."""

    class_names: list[str]

    @property
    def normalization(self) -> Normalization | None:
        """The normalisation of the configured list; None if the model normalises."""

    def class_counts(self) -> list[int]:
        """Return the number of training images of each class."""

    @property
    def multilabel(self) -> bool:
        """Whether the data is multi-label."""


@runtime_checkable
class PreprocessedModel(Protocol):
    """What the datamodule needs of the model (``trainer.lightning_module``)."""

    preprocessing: Preprocessing


@runtime_checkable
class ClassifyingModel(Protocol):
    """What the datamodule needs of a model that is built already, for example from a checkpoint."""

    class_names: list[str]
    """Names of its outputs; empty if it is not built yet."""


@runtime_checkable
class PartlyFrozenModel(Protocol):
    """What the datamodule needs of a model whose first layers may stay frozen during a fit."""

    @property
    def frozen_views(self) -> int:
        """Number of augmented versions per training image whose features are cached; 0: recomputed every epoch."""

    def frozen_until(self, size: tuple[int, int]) -> str | None:
        """Return the name of the split point for images of that height and width; None, logged, if there is none."""

    def compute_features(self, images: Tensor) -> Tensor:
        """Return the features ``(B, ...)`` of images ``(B, 3, H, W)``, as in ``Batch``."""
