"""Test-time augmentation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from imgcls.cli.main import main
from imgcls.models.tta import averaged
from tests.helpers.runs import arguments, fails, table_of


def test_probabilities_are_the_mean_over_the_views() -> None:
    images = torch.rand(2, 3, 4, 4)

    def model(images: torch.Tensor) -> torch.Tensor:
        return images[:, :, 0, 0]  # the corner

    corners = [images[:, :, row, column] for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1))]
    probs = torch.stack([torch.softmax(corner, 1) for corner in corners])
    torch.testing.assert_close(torch.softmax(averaged(model, images, "hflip"), 1), probs[:2].mean(0))
    torch.testing.assert_close(torch.softmax(averaged(model, images, "flips"), 1), probs.mean(0))
    assert torch.equal(averaged(model, images, "none"), corners[0])


@pytest.fixture(scope="module")
def checkpoint(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    # no crop, whose middle of an odd rest lies elsewhere in the mirror
    resize = "[{class_path: albumentations.Resize, init_args: {height: 32, width: 32}}]"
    more = ["--trainer.max_epochs=1", "--trainer.precision=32", f"--data.augmentations.eval={resize}"]
    main(["fit", *arguments(photos, tiny_model, out, *more)])
    return out / "run/version_0/checkpoints/best.ckpt"


def test_prediction_is_the_mean_over_an_image_and_its_mirror(checkpoint: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name, image in (("a", pixels), ("b", pixels[:, ::-1])):
        Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / f"{name}.png")
    tables = {}
    for views in ("none", "hflip"):
        output = tmp_path / f"{views}.csv"
        main(
            [
                "predict",
                f"--ckpt_path={checkpoint}",
                f"--images={tmp_path}",
                f"--output={output}",
                f"--tta={views}",
                "--data.num_workers=0",
            ]
        )
        tables[views] = pd.read_csv(output).filter(like="prob_").to_numpy()
    mean = tables["none"].mean(0)
    assert np.abs(tables["none"] - mean).max() > 1e-3
    np.testing.assert_allclose(tables["hflip"], [mean, mean], atol=1e-5)


def test_validation_takes_the_views(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for views in ("none", "flips"):
        main(["validate", f"--ckpt_path={checkpoint}", f"--tta={views}", "--data.num_workers=0"])
        found.append(table_of(capsys.readouterr().out)["loss"])
    assert found[0] != found[1]


def test_unknown_views_are_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails(["test", f"--ckpt_path={checkpoint}", "--tta=vflip"], capsys)
    assert code == 2
    assert "hflip" in message
