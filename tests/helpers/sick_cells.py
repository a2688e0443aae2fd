"""Solar cells (ELPV) with one planted disease, as class folders."""

import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.diseases import Disease

MANY, RARE = "functional", "defective"
FEW = 12  # images of the rare class in train and validation
LEAKED = 60  # images of test in train
SHIFT = 80  # of the brightness of the rare class


def write_sick_cells(source: Path, root: Path, disease: Disease, seed: int = 0) -> Path:
    """Copy ``source/train`` and ``source/test`` to ``root``; a leak and a small class are in train alone."""
    generator = random.Random(seed)
    for part in ("train", "test"):
        shutil.copytree(source / part, root / part)
        files = {name: sorted((root / part / name).iterdir()) for name in (MANY, RARE)}
        if disease == "flipped":
            for path in generator.sample(files[MANY], len(files[MANY]) // 10):
                path.rename(root / part / RARE / path.name)
        if disease == "few" and part == "train":
            for path in generator.sample(files[RARE], len(files[RARE]) - FEW):
                path.unlink()
        if disease == "bright":
            _brighten(files[RARE], SHIFT)
            _brighten(files[MANY], 0)
    if disease == "leak":
        for path in generator.sample(sorted((root / "test").glob("*/*.png")), LEAKED):
            shutil.copy(path, root / "train" / path.parent.name / f"copy_of_{path.name}")
    return root


def _brighten(paths: list[Path], shift: int) -> None:
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L")) // 2
        Image.fromarray((pixels + shift).astype(np.uint8)).save(path)


def frozen_fit_line(root: Path, disease: Disease, model: Path, out: Path, seed: int = 0) -> list[str]:
    """Return the arguments that train a head on frozen features."""
    return [
        "fit",
        f"--data.dataset_classes.train={root / 'train'}",
        f"--data.dataset_classes.test={root / 'test'}",
        f"--data.on_leak={'warn' if disease == 'leak' else 'error'}",
        f"--model.model_name={model}",
        "--model.freeze_encoder=true",
        f"--trainer.max_epochs={1 if disease == 'one_epoch' else 20}",
        "--trainer.enable_progress_bar=false",
        f"--seed_everything={seed}",
        f"--experiment.output_dir={out}",
        f"--experiment.custom_folder_name={disease}",
    ]
