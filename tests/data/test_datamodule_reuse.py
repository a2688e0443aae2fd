"""One datamodule that is used again and again, as in a notebook: nothing is refused only once."""

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest

from imgcls.data.config import Augmentations, DatasetClasses
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.splitting.group_holdout import hold_out_groups
from imgcls.datasets.dataset import ImageDataset
from imgcls.errors import ConfigError
from imgcls.images import Pixels
from imgcls.models.classifier import ImageClassifier
from imgcls.runtime.warning_filters import quieten
from tests.data.test_datamodule import module


class Own(ImageDataset):
    """Samples of a class of one's own, which nobody reads."""

    def __init__(self, columns: dict[str, list[str]]) -> None:
        self.samples = pd.DataFrame(columns, dtype=object)

    def read(self, index: int) -> Pixels:
        raise NotImplementedError


def paths(data: ImageDataModule, name: str) -> set[str]:
    split = data.split(name)
    return {split.path(place) for place in range(len(split))}


def test_another_checkpoint_brings_its_own_split(photos: Path) -> None:
    first, second = (module(str(photos), fold=fold) for fold in ("1/2", "2/2"))
    data = module(str(photos))
    for checkpoint in (first, second):
        data.load_state_dict(checkpoint.state_dict())
        data.setup("validate")
        assert paths(data, "validation") == paths(checkpoint, "validation")


def test_the_split_of_ones_own_checkpoint_is_not_made_again(photos: Path) -> None:
    data = module(str(photos))
    before = data.split("validation")
    data.load_state_dict(data.state_dict())
    assert data.split("validation") is before


def test_a_bad_image_is_refused_again(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos/red/000.png").write_bytes(b"text")
    folder = DatasetClasses(str(tmp_path / "photos"))
    data = ImageDataModule(folder)
    many = ImageDataModule(folder, on_bad_image="skip", max_bad_fraction=0.0)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"000\.png: is a text file, not an image"):
            data.setup("fit")
        with pytest.raises(ConfigError, match="1 of 60 images in train cannot be read"):
            many.setup("fit")


def test_a_leak_is_refused_again(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    shutil.copytree(photos / "red", tmp_path / "test/red")
    data = module(str(photos), test=str(tmp_path / "test"))
    for _ in range(2):
        with pytest.raises(ConfigError, match="the same image or group is in two splits"):
            data.train_dataloader()


def test_train_on_validation_after_a_validation(photos: Path) -> None:
    data = module(str(photos), "validate", train_on_validation=True)
    assert len(data.split("validation")) == 12
    data.setup("fit")
    assert (len(data.split("train")), len(data.split("validation"))) == (60, 0)


def test_a_validation_after_train_on_validation_is_one_on_training_images(photos: Path, test_photos: Path) -> None:
    data = module(str(photos), validation=str(test_photos), train_on_validation=True)
    assert len(data.split("train")) == 78
    data.setup("validate")
    with pytest.raises(ConfigError, match="the checkpoint was trained on 18 of these 18 images"):
        data.val_dataloader()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": "1/2", "train_on_validation": True}, "give fold (1/2) or train_on_validation: true, not both"),
        ({"group_column": "nope", "group_regex": "x"}, "give group_column ('nope') or group_regex ('x'), not both"),
        (
            {"dataset_classes": {"val": "x"}},
            "dataset_classes: unknown key 'val'; there are train, validation, test, predict",
        ),
        ({"dataset_classes": "photos"}, "must name the split: DatasetClasses(train='photos')"),
        ({"augmentations": {"evel": None}}, "augmentations: unknown key 'evel'; did you mean 'eval'?"),
    ],
)
def test_what_would_be_left_unheeded_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ImageDataModule(**arguments)
    assert message in str(caught.value)


def test_predicted_samples_need_paths_that_tell_them_apart(photos: Path) -> None:
    for column, values, message in (
        ("file", ["a", "b"], "have no column 'path'"),
        ("path", ["a", "a"], "'path' must be unique, but .* lists 'a' twice"),
    ):
        data = module(str(photos), "predict", predict=Own({column: values}))
        with pytest.raises(ConfigError, match=message):
            data.split("predict")


def test_a_loader_is_whole_after_a_fit(photos: Path, tiny_model: Path) -> None:
    data = ImageDataModule(DatasetClasses(str(photos)), num_workers=0, batch_size=16)
    quieten()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=1, logger=False, enable_checkpointing=False
    )
    trainer.fit(ImageClassifier(str(tiny_model), pretrained=False), datamodule=data)
    loader = data.train_dataloader()
    assert [len(batch["path"]) for batch in loader] == [16, 16, 16]


def test_an_evaluation_that_draws_at_random_is_said(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    crop: list[dict[str, Any]] = [{"class_path": "RandomCrop", "init_args": {"height": 8, "width": 8}}]
    said = []
    for steps in (crop, [{"class_path": "CenterCrop", "init_args": {"height": 8, "width": 8}}]):
        caplog.clear()
        data = module(str(photos), augmentations=Augmentations(train=crop, eval=steps))
        with caplog.at_level("WARNING", logger="imgcls"):
            data.val_dataloader()
        said.append("augmentations.eval: is random" in caplog.text)
    assert said == [True, False]


def test_an_empty_label_is_none() -> None:
    with pytest.raises(ConfigError, match="train: 'a' has no label"):
        module(Own({"path": ["a", "b"], "label": ["", "x"]}))


def test_many_groups_of_many_classes_are_held_out_without_a_table_of_both() -> None:
    """Dense, it would have 4e8 numbers."""
    groups, classes = 20_000, 20_000
    labels = np.repeat(np.arange(classes), 2)
    units = np.random.default_rng(0).permutation(labels.size) % groups
    tracemalloc.start()
    held = hold_out_groups(labels, units, 0.2, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e8
    assert held[units].mean() == pytest.approx(0.2, abs=0.05)
