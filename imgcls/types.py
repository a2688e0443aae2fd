"""What the data half and the model half share: the batch, and what each asks of the other."""

from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

from torch import Tensor


class Batch(TypedDict):
    """One batch of images.

    ``image`` is ``(B, 3, H, W)``: uint8 in 0..255, not normalised; or float32, already normalised by the user's own
    ``albumentations.Normalize``. Its memory is laid out as NHWC (channels-last). ``label`` is ``(B,)`` int64, the place
    in the class list, -1 where unknown; or, where an image may have several labels, ``(B, C)`` float32, 0 or 1 for each
    class. ``path`` names each sample. ``error`` (predict alone) holds for each sample the
    reason why it could not be read, or an empty string. ``skipped`` stands where images were left out of the batch, by
    path with their reasons.

    In a fit whose first layers stay as they are, ``features`` stands in place of ``image``: what those layers made of
    the images, ``(B, ...)`` in the dtype of the computation; ``size`` is then the height and width of the images.
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
    """How a pretrained model expects its images.

    Args:
        size: Height and width in pixels of the network's input.
        shortest_edge: Length in pixels that the shorter side is resized to before the centre crop; None resizes to
            ``size`` without keeping the aspect ratio.
        interpolation: Interpolation of that resize.
        mean: Mean of each channel, for pixels scaled to 0..1.
        std: Standard deviation of each channel, for pixels scaled to 0..1.
    """

    size: tuple[int, int] = (224, 224)
    shortest_edge: int | None = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, for pixels scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@runtime_checkable
class ClassifiedData(Protocol):
    """What the model asks of the datamodule that it is trained with (``trainer.datamodule``)."""

    class_names: list[str]

    @property
    def normalization(self) -> Normalization | None:
        """The user's own normalisation, None to use the pretrained model's."""

    def class_counts(self) -> list[int]:
        """Number of training images of each class."""

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several labels."""


@runtime_checkable
class PreprocessedModel(Protocol):
    """What the datamodule asks of the model that it feeds (``trainer.lightning_module``)."""

    preprocessing: Preprocessing


@runtime_checkable
class ClassifyingModel(Protocol):
    """What the datamodule takes from a model that is built already, as one of a checkpoint is."""

    class_names: list[str]
    """Names of its outputs; empty where it is still to be built."""


@runtime_checkable
class PartlyFrozenModel(Protocol):
    """What the datamodule asks of a model, the first layers of which may stay as they are during a fit."""

    @property
    def frozen_views(self) -> int:
        """Views of each training image whose features are to be computed once; 0: in each epoch anew."""

    def frozen_until(self, size: tuple[int, int]) -> str | None:
        """Where the features are taken, for images of that height and width; None where that cannot be, with a line."""

    def compute_features(self, images: Tensor) -> Tensor:
        """Return the features ``(B, ...)`` of images ``(B, 3, H, W)``, as ``Batch`` describes them."""
