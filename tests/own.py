"""What a user may bring: a preprocessing function and a dataset class."""

import numpy as np
import pandas as pd

from imgcls import ImageDataset
from imgcls.errors import ImageError
from imgcls.images import Pixels


def darker(image: Pixels, amount: int = 20) -> dict[str, Pixels]:
    """A preprocessing function with the interface of Albumentations."""
    return {"image": np.clip(image.astype(int) - amount, 0, 255).astype(np.uint8)}


class Squares(ImageDataset):
    """Grey squares whose brightness is their class, each of its own shade; no files."""

    def __init__(self, count: int = 30, bad: int | None = None) -> None:
        self.bad = bad
        self.samples = pd.DataFrame(
            {
                "path": [f"square/{n:03d}" for n in range(count)],
                "label": ["dark" if n % 2 else "light" for n in range(count)],
            }
        )

    def read(self, index: int) -> Pixels:
        if index == self.bad:
            raise ImageError(f"{self.samples['path'].iat[index]}: is broken")
        return np.full((32, 32, 3), (40 if index % 2 else 200) + index // 2, np.uint8)
