"""A dataset class: drawn shapes instead of image files.

Run it in this folder: imgcls fit --config own_dataset.yaml
"""

import numpy as np
import pandas as pd

from imgcls import ImageDataset

SHAPES = ("circle", "cross", "square")


class Shapes(ImageDataset):
    """White shapes on grey noise, 32 x 32 pixels.

    Args:
        images: Number of images.
        seed: Seed of the drawing; another seed draws other images.
    """

    def __init__(self, images: int = 600, seed: int = 0) -> None:
        self.seed = seed
        labels = [SHAPES[index % len(SHAPES)] for index in range(images)]
        # path: a unique name of each sample; label: its class
        self.samples = pd.DataFrame({"path": [f"{seed}/{index:04d}" for index in range(images)], "label": labels})

    def read(self, index: int) -> np.ndarray:
        """Return the image of a sample: (height, width, 3), uint8, RGB."""
        generator = np.random.default_rng((self.seed, index))
        image = generator.integers(0, 64, (32, 32), dtype=np.uint8)
        row, column = generator.integers(9, 23, 2)
        size = generator.integers(4, 8)
        y, x = np.ogrid[:32, :32]
        drawn = {
            "circle": (y - row) ** 2 + (x - column) ** 2 <= size**2,
            "cross": (np.minimum(abs(y - row), abs(x - column)) <= 1)
            & (np.maximum(abs(y - row), abs(x - column)) <= size),
            "square": (abs(y - row) <= size) & (abs(x - column) <= size),
        }
        image[drawn[self.samples["label"][index]]] = 255
        return np.repeat(image[:, :, None], 3, axis=2)
