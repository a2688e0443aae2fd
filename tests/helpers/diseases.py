"""Handwritten digits with one planted disease, and the command line that trains a small network on them."""

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from imgcls.datasets.digits import DigitsDataset

Disease = Literal["healthy", "flipped", "few", "bright", "leak", "one_epoch"]
SICK = "3"  # the class that has the disease
GIVEN = "8"  # the label that a tenth of its images get
FEW = 12  # images of the small class, in train and validation
LEAKED = 20  # images of test in train


class SickDigits(DigitsDataset):
    """Digits with a disease.

    Args:
        part: ``train`` or ``test``.
        disease: ``few`` and ``leak`` change train alone.
        seed: Which images have it.
    """

    def __init__(self, part: Literal["train", "test"], disease: Disease, seed: int = 0) -> None:
        super().__init__(part)
        generator = np.random.default_rng(seed)
        labels = np.array(self.samples["label"], dtype=object)
        is_sick = labels == SICK
        sick = generator.permutation(np.flatnonzero(is_sick))
        if disease == "flipped":
            labels[sick[: round(len(sick) / 10)]] = GIVEN
        if disease == "bright":
            self._images = (self._images * 0.6).astype(np.uint8) + (100 * is_sick[:, None, None]).astype(np.uint8)
        self.samples = self.samples.assign(label=labels)
        if disease == "few" and part == "train":
            self._keep(np.setdiff1d(np.arange(len(labels)), sick[FEW:]))
        if disease == "leak" and part == "train":
            self._add(DigitsDataset("test"), generator)

    def _keep(self, rows: "np.typing.NDArray[np.intp]") -> None:
        self._images, self.samples = self._images[rows], self.samples.iloc[rows]

    def _add(self, other: DigitsDataset, generator: np.random.Generator) -> None:
        rows = generator.permutation(len(other.samples))[:LEAKED]
        copies = other.samples.iloc[rows].assign(path=lambda table: "copy/" + table["path"])
        self.samples = pd.concat([self.samples, copies], ignore_index=True)
        self._images = np.concatenate([self._images, other._images[rows]])


def fit_line(disease: Disease, model: Path, out: Path, seed: int = 0) -> list[str]:
    """Return the arguments that train the network in ``model`` for ten epochs, or one."""
    size = "[{class_path: imgcls.Resize, init_args: {height: 16, width: 16}}]"
    name = "{{class_path: tests.helpers.diseases.SickDigits, init_args: {{part: {}, disease: {}, seed: {}}}}}"
    return [
        "fit",
        *(f"--data.dataset_classes.{part}={name.format(part, disease, seed)}" for part in ("train", "test")),
        f"--data.augmentations.train={size}",
        f"--data.augmentations.eval={size}",
        "--data.batch_size=64",
        "--data.num_workers=0",
        f"--data.on_leak={'warn' if disease == 'leak' else 'error'}",
        f"--model.model_name={model}",
        "--model.pretrained=false",
        "--model.optimizer_config.lr=0.01",
        f"--trainer.max_epochs={1 if disease == 'one_epoch' else 10}",
        "--trainer.enable_progress_bar=false",
        f"--seed_everything={seed}",
        f"--experiment.output_dir={out}",
        f"--experiment.custom_folder_name={disease}",
    ]
