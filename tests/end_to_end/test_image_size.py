"""``data.image_size``: training, evaluation and checkpoints with another size than the model's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from transformers import PreTrainedConfig

from imgcls.checkpoints.io import read_checkpoint
from imgcls.cli.main import main
from imgcls.data.config import DatasetClasses
from imgcls.data.datamodule import ImageDataModule
from imgcls.models.classifier import ImageClassifier
from tests.helpers.architectures import tiny_config
from tests.helpers.runs import arguments, fails

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning, which the program hides

KINDS = ["resnet", "vit", "swin", "convnext", "test_vit"]


def config_of(kind: str) -> PreTrainedConfig:
    """A tiny config of transformers for images of 32 pixels; of timm, for 160."""
    if not kind.startswith("test_"):
        return tiny_config(kind)
    config = tiny_config("timm_wrapper")
    config.architecture = kind
    return config


def fit(model: ImageClassifier, data: ImageDataModule, folder: Path) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(default_root_dir=folder, max_epochs=1, accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(model, data)
    return trainer


def seen_sizes(model: ImageClassifier) -> set[tuple[int, ...]]:
    """The sizes of the images that pass through the network from now on."""
    sizes: set[tuple[int, ...]] = set()

    def note(_: nn.Module, __: Any, named: dict[str, torch.Tensor]) -> None:
        sizes.add(tuple(named["pixel_values"].shape[-2:]))

    model.built().network.register_forward_pre_hook(note, with_kwargs=True)
    return sizes


def check_size(kind: str, side: int, photos: Path, others: Path, folder: Path, config: PreTrainedConfig) -> None:
    """Train, and predict in the process and by the command, which has the checkpoint alone."""
    config.save_pretrained(folder / "model")
    model = ImageClassifier(str(folder / "model"), pretrained=False)
    model.build(["blue", "green", "red"], image_size=(side, side))
    sizes = seen_sizes(model)
    data = ImageDataModule(DatasetClasses(train=str(photos), predict=str(others)), image_size=side, num_workers=0)
    trainer = fit(model, data, folder)
    inside = trainer.predict(model, datamodule=data)
    assert sizes == {(side, side)}
    assert model.preprocessing.size == (side, side)
    trainer.save_checkpoint(folder / "a.ckpt")
    (folder / "model" / "config.json").unlink()
    main(["predict", f"--ckpt_path={folder}/a.ckpt", f"--images={others}", f"--output={folder}/p.csv"])
    table = pd.read_csv(folder / "p.csv")
    np.testing.assert_allclose(table[["prob_blue", "prob_green", "prob_red"]], torch.cat(inside), atol=1e-6)  # type: ignore[arg-type]
    again = ImageClassifier.load_from_checkpoint(folder / "a.ckpt")
    assert again.preprocessing.size == (side, side)


@pytest.mark.parametrize("side", [16, 48])
@pytest.mark.parametrize("kind", KINDS)
def test_image_size_trains_and_is_remembered(
    kind: str, side: int, photos: Path, test_photos: Path, tmp_path: Path
) -> None:
    check_size(kind, side, photos, test_photos, tmp_path, config_of(kind))


@pytest.mark.slow
@pytest.mark.parametrize("side", [96, 320])
@pytest.mark.parametrize("kind", ["resnet", "vit", "swin", "convnext", "swin_tiny_patch4_window7_224"])
def test_sizes_of_real_photos_train(kind: str, side: int, photos: Path, test_photos: Path, tmp_path: Path) -> None:
    small: dict[str, dict[str, Any]] = {
        "vit": {"num_hidden_layers": 2},
        "resnet": {"depths": [1, 1, 1, 1]},
        "convnext": {"depths": [1, 1, 1, 1]},
    }
    if "_" in kind:
        config = tiny_config("timm_wrapper")
        config.architecture, config.model_args = kind, {"depths": [1, 1, 2, 1]}
    else:
        config = type(tiny_config(kind))(**small.get(kind, {"depths": [1, 1, 2, 2]}))
    check_size(kind, side, photos, test_photos, tmp_path, config)


def test_image_size_on_the_command_line(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", "--model.freeze_encoder=0.5")
    main(["fit", *line, "--data.image_size=48", "--data.create_dataset=true", f"--data.cache_dir={tmp_path}/cache"])
    best = tmp_path / "run" / "version_0" / "checkpoints" / "best.ckpt"
    content = read_checkpoint(best)
    assert content["imgcls"]["preprocessing"]["size"] == [48, 48]
    assert content["imgcls"]["preprocessing"]["shortest_edge"] == 56  # 37 of 32, in proportion
    resize, crop = content["ImageDataModule"]["eval"]
    assert (resize["init_args"]["edge"], crop["init_args"]["height"]) == (52, 48)
    before = json.loads((tmp_path / "run" / "version_0" / "results.json").read_text())["validation_loss"]
    capsys.readouterr()
    main(["validate", f"--ckpt_path={best}"])
    assert f"{before:.4f}" in capsys.readouterr().out
    # another size is another crop of the same weights
    main(["validate", f"--ckpt_path={best}", "--data.image_size=64"])
    assert f"{before:.4f}" not in capsys.readouterr().out
    code, error = fails(["fit", *line, "--data.image_size=64", "--trainer.max_epochs=2", "--ckpt_path=last"], capsys)
    assert code == 2
    assert "data.init_args.image_size: 64 differs from 48" in error
    # but a new run may start from the weights
    main(["fit", *line, "--data.image_size=64", f"--ckpt_path={best}", "--experiment.only_weights_load=true"])
    assert "loaded 57 of 57 weights\n" in capsys.readouterr().err
    new = read_checkpoint(tmp_path / "run" / "version_1" / "checkpoints" / "best.ckpt")
    assert new["imgcls"]["preprocessing"]["size"] == [64, 64]


def test_a_list_of_another_size_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resize = "[{class_path: albumentations.Resize, init_args: {height: 40, width: 48}}]"
    line = arguments(photos, tiny_model, tmp_path, "--data.image_size=[40,40]", f"--data.augmentations.eval={resize}")
    code, error = fails(["fit", *line], capsys)
    assert code == 2
    assert (
        "data.init_args.image_size is 40 x 40, but data.init_args.augmentations.eval returns images of 40 x 48" in error
    )


def test_a_size_that_the_network_does_not_take_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_config("levit").save_pretrained(tmp_path / "levit")
    code, error = fails(["fit", *arguments(photos, tmp_path / "levit", tmp_path, "--data.image_size=48")], capsys)
    assert code == 2
    assert "data.init_args.image_size: model.init_args.model_name" in error
    assert "does not accept images of 48 x 48 pixels" in error
    assert "sizes that it accepts: 64" in error
    assert not (tmp_path / "run").exists()


def test_a_search_over_image_size(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    space = "--optuna.search_spaces={data.image_size: {distribution: categorical, choices: [24, 48]}}"
    line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", "--optuna.n_trials=2", space)
    main(["tune", *line])
    tried = [read_checkpoint(path) for path in tmp_path.glob("run/tune/*/checkpoints/best.ckpt")]
    assert sorted(content["imgcls"]["preprocessing"]["size"] for content in tried) == [[24, 24], [48, 48]]
