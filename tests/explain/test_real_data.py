"""Deletion and insertion on solar cells, with a network that was trained on them for two epochs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import wilcoxon
from torch import Tensor

import imgcls
from imgcls.cli.main import main
from imgcls.data.transforms.build import build_pipeline
from imgcls.explain.heat_maps import HeatMaps
from imgcls.images import load_image
from tests.helpers.faithfulness import curves
from tests.helpers.real_data import write_efficientnet_lite0, write_elpv

pytestmark = pytest.mark.slow

IMAGES = 25  # of each class


def test_hot_cells_count_more_than_random_or_central_ones(tmp_path: Path) -> None:
    cells, weights = write_elpv(tmp_path / "elpv"), write_efficientnet_lite0(tmp_path / "lite0")
    line = ["fit", str(cells / "train"), "--model.model_name", str(weights), "--trainer.max_epochs", "2"]
    main([*line, "--experiment.output_dir", str(tmp_path), "--experiment.custom_folder_name", "x"])
    classifier = imgcls.load(tmp_path / "x" / "version_0", device="cpu", num_workers=0)
    model, maps = classifier.model, HeatMaps(classifier.model)
    pipeline = build_pipeline(classifier.evaluation_steps, "eval")
    files = [file for folder in sorted((cells / "test").iterdir()) for file in sorted(folder.iterdir())[::8][:IMAGES]]
    rows, columns = np.mgrid[:7, :7]
    central = np.exp(-((rows - 3) ** 2 + (columns - 3) ** 2) / 8).astype(np.float32)
    generator = np.random.default_rng(0)
    found = []
    for file in files:
        image = pipeline(load_image(str(file)), 0)
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
        with torch.inference_mode():
            target = int(model(batch).argmax())

        def answer(images: Tensor, target: int = target) -> Tensor:
            with torch.inference_mode():
                probs: Tensor = model(images).softmax(1)
                return probs[:, target]

        [heat] = maps.explain(batch, [target])
        found.append(curves(answer, image, np.stack([heat, generator.random((7, 7), dtype=np.float32), central])))
    assert len(found) == 2 * IMAGES
    deletion, insertion = np.moveaxis(np.array(found), 2, 0)
    for other in (1, 2):
        assert wilcoxon(deletion[:, 0], deletion[:, other], alternative="less").pvalue < 0.01
        assert wilcoxon(insertion[:, 0], insertion[:, other], alternative="greater").pvalue < 0.01
