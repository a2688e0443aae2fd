"""Which classes are confused with which: the matrix, its most confused pairs, and a picture of it for many classes."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgcls.results.predictions import EvaluatedSplit

FULL = 30
"""Classes up to which the confusion matrix is a table."""
PAIRS = 25
"""Most confused pairs that are listed for more classes."""
_COLOUR = (214, 84, 34)
_FAINTEST = 60  # of 255, of a cell with a single image


@dataclass(frozen=True)
class Pair:
    """Images of a class that are predicted as another one."""

    true: int  # index of their class
    predicted: int
    images: int
    share: float  # of the images of their class


def confusion(found: EvaluatedSplit) -> NDArray[np.int64]:
    """Return the number of images by true class (row) and predicted class (column), of single-label data."""
    classes = len(found.class_names)
    cells = np.bincount(found.labels * classes + found.predicted, minlength=classes**2)
    return cells.reshape(classes, classes)


def row_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of each cell of the images of its true class."""
    found: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return found


def confused_pairs(matrix: NDArray[np.int64]) -> list[Pair]:
    """Return the pairs of confused classes, those with the most images first."""
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]
    rows, columns = np.unravel_index(order, matrix.shape)
    support = matrix.sum(axis=1)
    return [
        Pair(int(row), int(column), int(matrix[row, column]), float(matrix[row, column] / support[row]))
        for row, column in zip(rows, columns, strict=True)
    ]


def clustered(matrix: NDArray[np.int64]) -> list[int]:
    """Return an order of the classes that puts confused ones next to each other.

    Average linkage on the share of images that two classes exchange, with optimal leaf order (Bar-Joseph et al. 2001,
    "Fast optimal leaf ordering for hierarchical clustering").
    """
    from scipy.cluster.hierarchy import leaves_list, linkage  # takes a while
    from scipy.spatial.distance import squareform

    shares = row_shares(matrix)
    distance = 1 - np.minimum((shares + shares.T) / 2, 1)
    np.fill_diagonal(distance, 0)
    order: list[int] = leaves_list(linkage(squareform(distance), "average", optimal_ordering=True)).tolist()
    return order


def confusion_picture(matrix: NDArray[np.int64], order: list[int]) -> str:
    """Return the picture as the data URL of a PNG, the diagonal and empty cells transparent.

    Args:
        matrix: ``(classes, classes)``, images by true class (row) and predicted class (column).
        order: The order of the classes.
    """
    shares = row_shares(matrix)[np.ix_(order, order)]
    np.fill_diagonal(shares, 0)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _COLOUR
    strength = np.sqrt(shares / max(shares.max(), 1e-9))  # small shares stay visible
    pixels[..., 3] = np.where(shares > 0, _FAINTEST + (255 - _FAINTEST) * strength, 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
