"""Handwritten digits of scikit-learn: a real dataset without a download, and an example of a dataset class."""

from typing import Literal

import numpy as np
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from imgcls.datasets.dataset import ImageDataset
from imgcls.images import Pixels


class DigitsDataset(ImageDataset):
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels each (UCI, Alpaydin and Kaynak 1998).

    Args:
        part: ``train`` is four fifths, ``test`` the rest; stratified, the same on every machine.
    """

    def __init__(self, part: Literal["train", "test"] = "train") -> None:
        digits = load_digits()
        rows = np.arange(len(digits.target))
        train, test = train_test_split(rows, test_size=0.2, random_state=0, stratify=digits.target)
        rows = np.sort(train if part == "train" else test)
        self._images = (digits.images[rows] * (255 / 16)).round().astype(np.uint8)
        self.samples = pd.DataFrame(
            {"path": [f"digits/{row:04d}" for row in rows], "label": digits.target[rows].astype(str)}, dtype=object
        )

    def read(self, index: int) -> Pixels:
        """Return digit ``index``, uint8, ``(8, 8, 3)``."""
        return np.repeat(self._images[index][:, :, None], 3, axis=2)
