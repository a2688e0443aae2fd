"""The data of a run: splits, batches, and what is said about them."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from imgcls.cli.main import main
from imgcls.config.class_path import Spec
from imgcls.data.config import Augmentations, DatasetClasses
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.loading.samplers import KeyedSampler
from imgcls.data.splitting.split_report import file_report, split_table
from imgcls.datasets.dataset import ImageDataset, PathListDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.errors import ConfigError
from imgcls.images import Pixels
from imgcls.runtime.cores import CORES, available_cores
from imgcls.types import Batch, Normalization, Preprocessing
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments, fails

RESIZE: Spec = {"class_path": "Resize", "init_args": {"height": 16, "width": 20}}
FLIPS: list[Spec] = [{"class_path": "HorizontalFlip", "init_args": {"p": 0.5}}, {"class_path": "ColorJitter"}]
PLAIN = Augmentations(train=[RESIZE], eval=[RESIZE])


class Numbers(ImageDataset):
    """Samples that are no files: each is an image of its number."""

    def __init__(self, size: int, classes: int = 2) -> None:
        labels = [f"class{number % classes}" for number in range(size)]
        self.samples = pd.DataFrame({"path": [f"number/{n}" for n in range(size)], "label": labels}, dtype=object)

    def read(self, index: int) -> Pixels:
        return np.full((16, 20, 3), index, dtype=np.uint8)


def module(train: ImageDataset | str | None = None, stage: str = "fit", **arguments: Any) -> ImageDataModule:
    """A datamodule that is set up, without a trainer."""
    splits = {name: arguments.pop(name) for name in ("validation", "test", "predict") if name in arguments}
    defaults: dict[str, Any] = {"augmentations": PLAIN, "batch_size": 8, "num_workers": 0}
    data = ImageDataModule(DatasetClasses(train=train, **splits), **(defaults | arguments))
    data.setup(stage)
    return data


def model_of(size: tuple[int, int]) -> pl.Trainer:
    """A stand-in for a trainer whose model states its preprocessing."""
    model = SimpleNamespace(preprocessing=Preprocessing(size=size, shortest_edge=None))
    progress = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=0)))
    loop = SimpleNamespace(epoch_loop=progress)
    where = {
        "world_size": 1,
        "global_rank": 0,
        "current_epoch": 0,
        "fit_loop": loop,
        "overfit_batches": 0,
        "training": True,
    }
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return cast(pl.Trainer, SimpleNamespace(lightning_module=model, strategy=strategy, **where))


def batches(loader: DataLoader[Batch], epoch: int = 0) -> list[Batch]:
    assert isinstance(loader.sampler, KeyedSampler)
    loader.sampler.set_epoch(epoch)
    return list(loader)


# -- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "data.init_args.batch_size must be at least 1, got 0"),
        (
            {"image_size": 0},
            "data.init_args.image_size must be a number of pixels from 1 to 16384, [height, width], or",
        ),
        ({"image_size": [1, 2, 3]}, "data.init_args.image_size must be a number of pixels from 1 to 16384"),
        ({"num_workers": -1}, "data.init_args.num_workers must be at least 0, or null, got -1"),
        ({"split_seed": -1}, "data.init_args.split_seed must be between 0 and 4294967295, got -1"),
        ({"split_seed": 2**32}, "data.init_args.split_seed must be between 0 and 4294967295, got 4294967296"),
        ({"class_names": ["a", "b", "a"]}, "data.init_args.class_names must be unique, got 'a' twice"),
        ({"class_names": ["a", " "]}, "data.init_args.class_names[1] must not be blank, got ' '"),
        (
            {"dataset_classes": {"test": FolderImageDataset("x", max_pixels=0)}},
            "data.init_args.dataset_classes.test.init_args.max_pixels must be at least 1, got 0",
        ),
        ({"validation_split": 0}, "data.init_args.validation_split must be between 0 and 1"),
        ({"validation_split": 1.0}, "data.init_args.validation_split must be between 0 and 1"),
        (
            {"augmentations": Augmentations(eval=[{"class_path": "Normalize", "init_args": {"men": 1}}])},
            "data.init_args.augmentations.eval[0] Normalize: has no argument 'men'; did you mean 'mean'?",
        ),
        (
            {"dataset_classes": {"train": "{'rot': 'x'}"}},
            "data.init_args.dataset_classes.train: no dataset class has these arguments",
        ),
    ],
)
def test_datamodule_refuses_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        ImageDataModule(**arguments)


@pytest.mark.parametrize(
    ("stage", "arguments", "message"),
    [
        ("fit", {}, r"no train data; type: imgcls fit PHOTOS \(or give --data.dataset_classes.train FOLDER or"),
        (
            "validate",
            {},
            r"no validation data; type: imgcls validate RUN_FOLDER PHOTOS \(or .*, --data.dataset_classes.train with",
        ),
        ("test", {"train": Numbers(4)}, "no test data; type: imgcls test RUN_FOLDER PHOTOS"),
        ("predict", {"train": Numbers(4)}, "no predict data; type: imgcls predict RUN_FOLDER IMAGES"),
        ("test", {"test": Numbers(4)}, "no class list: give dataset_classes.train, class_names, or a checkpoint"),
    ],
)
def test_datamodule_setup_says_what_is_missing(stage: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        module(stage=stage, **arguments)


def test_datamodule_chooses_workers_from_the_cores() -> None:
    assert ImageDataModule().num_workers == available_cores() - 1
    assert ImageDataModule(num_workers=3).num_workers == 3


def test_cores_are_those_of_the_containers_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)  # which reads the quota
    assert available_cores() == 1
    monkeypatch.setenv(CORES, "3")
    assert available_cores() == 3


def test_datamodule_takes_a_path_for_a_folder_dataset(photos: Path) -> None:
    for given in (str(photos), photos):
        data = ImageDataModule(DatasetClasses(train=given)).datasets["train"]  # type: ignore[arg-type]
        assert type(data) is FolderImageDataset
        assert data.root == str(photos)


def test_datamodule_keeps_the_dataset_that_it_is_given(photos: Path) -> None:
    class Mine(FolderImageDataset):
        pass

    mine = Mine(str(photos), max_pixels=7)
    data = ImageDataModule(DatasetClasses(train=mine))
    assert data.datasets["train"] is mine
    assert data.name == str(photos)


def test_datamodule_takes_dicts_for_dataclasses(photos: Path) -> None:
    data = ImageDataModule({"train": str(photos)}, {"train": [RESIZE], "eval": [RESIZE]})  # type: ignore[arg-type]
    data.setup("fit")
    assert data.class_names == ["blue", "green", "red"]
    assert data.pipelines.eval_specs() == [RESIZE]
    assert batches(data.val_dataloader())[0]["image"].shape == (12, 3, 16, 20)


# -- classes and splits


def test_datamodule_takes_the_class_list_from_train_in_natural_order(tmp_path: Path) -> None:
    for name in ("10", "9", "100"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "1.png")
    assert module(str(tmp_path)).class_names == ["9", "10", "100"]


def test_datamodule_matches_labels_by_name_where_a_class_is_missing(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "red", tmp_path / "red")
    data = module(str(photos), validation=str(tmp_path))
    assert data.split("validation").label_array.tolist() == [2] * 20
    assert len(data.split("train")) == 60


def test_datamodule_refuses_a_class_that_the_model_does_not_know(photos: Path) -> None:
    data = module(stage="test", test=str(photos), class_names=["blue", "green"])
    with pytest.raises(
        ConfigError, match=re.escape("test: classes 'red' are not among the model's classes, 'blue', 'gr")
    ):
        data.test_dataloader()


@pytest.mark.parametrize("split", ["validation", "test", "predict"])
def test_datamodule_refuses_a_folder_without_images(split: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    empty = "1 ignored: a folder without an image"
    with pytest.raises(ConfigError, match=rf"^{split}: no image in {tmp_path} \({empty}\)$"):
        module(str(photos), **{split: str(tmp_path)}).split(split)
    for name in ("red/a.txt", "red/b.TXT", ".hidden"):
        (tmp_path / name).touch()
    reasons = rf"\(1 ignored: hidden; 2 ignored: a text file by its extension; {empty}\)"
    with pytest.raises(ConfigError, match=f"^{split}: no image in {tmp_path} {reasons}$"):
        module(str(photos), **{split: str(tmp_path)}).split(split)


def test_class_of_ones_own_is_predicted_as_it_is(photos: Path) -> None:
    class Half(FolderImageDataset):
        @property
        def samples(self) -> pd.DataFrame:
            return super().samples.iloc[::2]

    data = Half(str(photos))
    split = module(stage="predict", predict=data, class_names=["blue", "green", "red"]).split("predict")
    assert (split.data, len(split)) == (data, 30)


def test_datamodule_holds_a_share_out(photos: Path) -> None:
    data = module(str(photos), validation_split=0.25)
    table = split_table(data.splitter)
    assert table.groupby("split").size().to_dict() == {"train": 45, "validation": 15}
    assert table.groupby(["split", "label"]).size().to_dict()["validation", "red"] == 5
    assert not table["path"].duplicated().any()
    other = module(str(photos), validation_split=0.25, split_seed=1)
    assert set(other.split("validation").table()["path"]) != set(data.split("validation").table()["path"])


def test_datamodule_split_table_lists_the_test_split(photos: Path, test_photos: Path) -> None:
    table = split_table(module(str(photos), test=str(test_photos)).splitter)
    assert list(table.columns) == ["path", "label", "split", "content"]
    assert table.groupby("split").size().to_dict() == {"test": 18, "train": 48, "validation": 12}
    of_test = table[table["split"] == "test"]
    assert of_test["path"].tolist() == sorted(str(path) for path in test_photos.glob("*/*"))


def test_datamodule_ignored_files_are_of_all_splits(tmp_path: Path) -> None:
    train, test = (write_class_folders(tmp_path / name, 10, seed) for seed, name in enumerate(("train", "test")))
    (train / "red" / ".DS_Store").touch()
    (test / "loose.png").touch()
    shared = FolderImageDataset(str(test))
    assert file_report(module(str(train), test=shared, predict=shared).splitter)["unused"] == [
        {"path": str(train / "red" / ".DS_Store"), "reason": "hidden"},
        {"path": str(test / "loose.png"), "reason": "not inside a class folder"},
    ]


def test_datamodule_state_is_plain_and_restores_the_split(photos: Path, tmp_path: Path) -> None:
    data = module(str(photos))
    torch.save(data.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["class_names"] == ["blue", "green", "red"]
    assert state["eval"] == [RESIZE]
    for key in ("split", "labels"):
        assert {name: len(values) for name, values in state[key].items()} == {"train": 48, "validation": 12}
    assert state["labels"]["validation"] == ["blue"] * 4 + ["green"] * 4 + ["red"] * 4

    shutil.copytree(photos, tmp_path / "moved")
    moved = module(str(tmp_path / "moved"), validation_split=0.5, split_seed=9)
    moved.load_state_dict(state)
    assert moved.state_dict() == state


def test_datamodule_refuses_to_go_on_with_other_images(photos: Path, tmp_path: Path) -> None:
    state = module(str(photos)).state_dict()
    shutil.copytree(photos, tmp_path / "more")
    Image.new("RGB", (4, 4)).save(tmp_path / "more/red/new.png")
    data = module(str(tmp_path / "more"))
    data.load_state_dict(state)
    with pytest.raises(ConfigError, match=r"1 new or changed \['.*/red/new\.png'\], 0 missing"):
        data.split("train")
    data.setup("validate")
    assert data.split("validation").fingerprints == state["split"]["validation"]


def test_datamodule_refuses_to_go_on_with_former_validation_images(photos: Path, tmp_path: Path) -> None:
    train, validation = write_class_folders(tmp_path / "train", 4), write_class_folders(tmp_path / "validation", 4, 9)
    state = module(str(train), validation=str(validation)).state_dict()
    same = module(str(train), validation=str(validation))
    same.load_state_dict(state)
    assert same.state_dict() == state
    moved = (validation / "red/000.png").rename(train / "red/moved.png")
    data = module(str(train), validation=str(validation))
    data.load_state_dict(state)
    with pytest.raises(ConfigError, match=rf"1 new or changed \['{moved}'\], 0 missing; restore"):
        data.split("train")
    joined = module(str(train), validation=str(validation), train_on_validation=True)
    joined.load_state_dict(state)
    assert len(joined.split("train")) == 24


def relabelled(photos: Path, root: Path) -> tuple[dict[str, Any], Path]:
    """The state of a run on copies of the photos, one of which is then moved to another class."""
    shutil.copytree(photos, root)
    state = module(str(root)).state_dict()
    return state, (root / "red/000.png").rename(root / "blue/moved.png")


def test_datamodule_refuses_to_go_on_with_another_label(photos: Path, tmp_path: Path) -> None:
    state, moved = relabelled(photos, tmp_path / "data")
    data = module(str(tmp_path / "data"))
    data.load_state_dict(state)
    with pytest.raises(
        ConfigError, match=rf"0 new or changed \[\], 0 missing, 1 in another class \['{moved}'\]; restore"
    ):
        data.split("train")


def test_datamodule_takes_the_state_of_an_older_checkpoint(photos: Path, tmp_path: Path) -> None:
    state, moved = relabelled(photos, tmp_path / "data")
    del state["labels"]
    data = module(str(tmp_path / "data"))
    data.load_state_dict(state)
    assert str(moved) in split_table(data.splitter)["path"].tolist()
    assert sorted(data.state_dict()["split"]["validation"]) == sorted(state["split"]["validation"])


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_datamodule_restores_a_split_with_copies(stage: str, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path, dirs_exist_ok=True)
    for path in sorted((tmp_path / "red").iterdir()):
        shutil.copy(path, path.with_stem(f"copy{path.stem}"))
    first = module(str(tmp_path))
    state = first.state_dict()
    assert not set(state["split"]["train"]) & set(state["split"]["validation"])
    data = module(str(tmp_path), stage)
    data.load_state_dict(state)
    for split in ("train", "validation"):
        pd.testing.assert_frame_equal(data.split(split).table(), first.split(split).table())


# -- batches


def test_batches_are_uint8_in_channels_last_memory(photos: Path) -> None:
    (first, *_) = batches(module(str(photos)).val_dataloader())
    assert set(first) == {"image", "label", "path"}
    assert first["image"].dtype == torch.uint8
    assert first["image"].shape == (8, 3, 16, 20)
    assert first["image"].is_contiguous(memory_format=torch.channels_last)
    assert first["label"].tolist() == [["blue", "green", "red"].index(Path(path).parent.name) for path in first["path"]]


def test_batches_are_float_where_the_list_normalises() -> None:
    normalize = {"class_path": "albumentations.Normalize", "init_args": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    lists = Augmentations(train=[RESIZE, normalize], eval=[RESIZE, normalize])
    data = module(Numbers(20), augmentations=lists)
    assert data.normalization == Normalization((0.5,) * 3, (0.25,) * 3)
    for batch in (*batches(data.train_dataloader()), *batches(data.val_dataloader())):
        assert batch["image"].dtype == torch.float32
        numbers = torch.tensor([float(path.removeprefix("number/")) for path in batch["path"]])
        torch.testing.assert_close(batch["image"][:, 0, 0, 0], (numbers / 255 - 0.5) / 0.25)


def test_datamodule_refuses_two_normalisations() -> None:
    lists = {
        name: [{"class_path": "Normalize", "init_args": {"mean": [mean] * 3, "std": [1.0] * 3}}]
        for name, mean in (("train", 0.5), ("eval", 0.0))
    }
    with pytest.raises(ConfigError, match=r"train and eval must normalise alike, got .*0\.5.* and .*0\.0"):
        ImageDataModule(augmentations=Augmentations(**lists))


def test_train_batches_do_not_depend_on_the_number_of_workers(photos: Path) -> None:
    augmentations = Augmentations(train=[RESIZE, *FLIPS], eval=[RESIZE])
    loaders = [module(str(photos), augmentations=augmentations, num_workers=n).train_dataloader() for n in (0, 2)]
    epochs = []
    for epoch in (0, 1):
        alone, shared = (batches(loader, epoch) for loader in loaders)
        assert [batch["path"] for batch in alone] == [batch["path"] for batch in shared]
        for one, two in zip(alone, shared, strict=True):
            assert torch.equal(one["image"], two["image"])
        epochs.append(
            {path: image for batch in alone for path, image in zip(batch["path"], batch["image"], strict=True)}
        )
    first, second = epochs
    assert list(first) != list(second)
    assert set(first) == set(second)
    assert not all(torch.equal(first[path], second[path]) for path in first)


def test_batches_that_are_kept_stay_as_they_were() -> None:
    """Workers use their memory again after three batches."""
    data = module(Numbers(90), validation=Numbers(2), num_workers=2, batch_size=2, on_leak="warn")
    loader = data.train_dataloader()
    for epoch in range(2):
        kept = batches(loader, epoch)
        for batch in kept:
            assert batch["image"][:, 0, 0, 0].tolist() == [int(path.removeprefix("number/")) for path in batch["path"]]
            assert batch["image"].is_contiguous(memory_format=torch.channels_last)


def test_eval_batches_are_in_order_and_the_same_in_every_epoch(test_photos: Path, photos: Path) -> None:
    loader = module(str(photos), stage="test", test=str(test_photos)).test_dataloader()
    first, second = batches(loader), batches(loader, epoch=1)
    assert [path for batch in first for path in batch["path"]] == sorted(map(str, test_photos.glob("*/*")))
    assert all(torch.equal(one["image"], two["image"]) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize(("size", "kept"), [(17, 16), (16, 16), (18, 18), (1, 1)])
def test_train_loader_leaves_a_last_single_image_out(size: int, kept: int, said: pytest.LogCaptureFixture) -> None:
    data = module(Numbers(size), validation=Numbers(2), class_names=["class0", "class1"], on_leak="warn")
    loader = data.train_dataloader()
    found = [{path for batch in batches(loader, epoch) for path in batch["path"]} for epoch in range(3)]
    assert [len(paths) for paths in found] == [kept] * 3
    line = "The last batch would contain a single image; one randomly chosen image is skipped each epoch"
    assert said.messages[1:] == ([line] if kept < size else [])  # after that of the leak
    assert found[0] != found[1] or kept == size


@pytest.mark.parametrize("normalised", [False, True])
def test_predict_batches_carry_the_reason_of_unreadable_images(normalised: bool, photos: Path, tmp_path: Path) -> None:
    bad = [str(tmp_path / f"{number}.png") for number in range(9)]
    for path in bad:
        Path(path).write_text("no image")
    eval_list: list[Spec] = [RESIZE, {"class_path": "Normalize"}] if normalised else [RESIZE]
    # one batch holds both kinds, the other nothing that can be read
    images = PathListDataset([str(photos / "red/000.png"), *bad])
    data = module(stage="predict", predict=images, class_names=["a", "b"], augmentations=Augmentations(eval=eval_list))
    mixed, unreadable = batches(data.predict_dataloader().loader)
    reason = "is a text file, not an image"
    assert mixed["error"] == ["", *[reason] * 7]
    assert unreadable["error"] == [reason] * 2
    assert mixed["label"].tolist() == [-1] * 8
    for batch, size in ((mixed, 8), (unreadable, 2)):
        assert batch["image"].shape == (size, 3, 16, 20)
        assert batch["image"].dtype == (torch.float32 if normalised else torch.uint8)
    assert torch.equal(mixed["image"][1:3], unreadable["image"])


def inverted(image: Pixels) -> dict[str, Pixels]:
    np.subtract(255, image, out=image)  # in place
    return {"image": image}


def test_unreadable_images_are_as_large_as_the_others(tmp_path: Path) -> None:
    Image.new("RGB", (700, 600)).save(tmp_path / "good.png")
    bad = [str(tmp_path / f"{number}.png") for number in range(2)]
    crop: Spec = {"class_path": "CenterCrop", "init_args": {"height": 550, "width": 600}}
    data = module(
        stage="predict",
        predict=PathListDataset([*bad, str(tmp_path / "good.png")]),
        class_names=["a", "b"],
        augmentations=Augmentations(eval=[crop, {"class_path": f"{__name__}.inverted"}]),
    )
    (batch,) = batches(data.predict_dataloader().loader)
    assert batch["error"] == [*["No such file or directory"] * 2, ""]
    assert batch["image"].shape == (3, 3, 550, 600)
    assert batch["image"].min() == 255  # the first left nothing behind in the second


def test_predict_batches_have_the_models_size_where_nothing_can_be_read(tmp_path: Path) -> None:
    images = PathListDataset([str(tmp_path / "missing.png")])
    data = module(stage="predict", predict=images, augmentations=Augmentations(eval=FLIPS), class_names=["a", "b"])
    data.trainer = model_of((24, 28))
    (batch,) = batches(data.predict_dataloader().loader)
    assert batch["error"] == ["No such file or directory"]
    assert batch["image"].shape == (1, 3, 24, 28)
    assert batch["image"].sum() == 0


def test_paths_of_a_class_of_ones_own_are_counted_as_texts(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, 10)
    (root / "red/003.png").write_bytes(b"")
    own = ImageDataset()
    own.samples = pd.DataFrame({"path": sorted(root.glob("*/*.png"))})
    own.samples["label"] = [path.parent.name for path in own.samples["path"]]
    data = ImageDataModule(DatasetClasses(train=own), num_workers=0, on_bad_image="skip", max_bad_fraction=0.5)
    data.setup("fit")
    data.bad_images.add({"train": {f"{root}/red/004.png": "is cut"}}, {"train": 30})  # as its batch would say
    account = file_report(data.splitter)
    assert (account["used"], len(account["unused"])) == (28, 2)


def test_predict_on_replaces_the_images() -> None:
    data = module(stage="predict", predict=Numbers(3), class_names=["a", "b"])
    assert [batch["path"] for batch in batches(data.predict_dataloader().loader)] == [
        ["number/0", "number/1", "number/2"]
    ]
    data.predict_on(Numbers(1))
    assert [batch["path"] for batch in batches(data.predict_dataloader().loader)] == [["number/0"]]


# -- the model's preprocessing


def test_empty_lists_are_those_of_the_model(photos: Path) -> None:
    data = module(str(photos), augmentations=Augmentations())
    data.trainer = model_of((24, 28))
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert data.normalization is None
        assert [spec["class_path"] for spec in data.pipelines.eval_specs()] == ["imgcls.Resize"]
        assert loader.dataset[(0, 1)]["image"].shape == (1, 3, 24, 28)


def test_a_list_that_leaves_the_size_open_gets_a_resize_in_front(photos: Path, said: pytest.LogCaptureFixture) -> None:
    border: Spec = {"class_path": "Pad", "init_args": {"padding": 2}}
    data = module(str(photos), augmentations=Augmentations(train=[border], eval=[RESIZE]))
    data.trainer = model_of((24, 28))
    assert data.train_dataloader().dataset[(0, 1)]["image"].shape == (1, 3, 28, 32)
    assert batches(data.val_dataloader())[0]["image"].shape == (8, 3, 16, 20)
    (message,) = said.messages
    assert message.startswith(
        "data.init_args.augmentations.train: does not fix the image size; prepending Resize(height=24, width=28"
    )


def test_lists_are_needed_where_the_model_states_nothing(photos: Path) -> None:
    data = module(str(photos), augmentations=Augmentations(train=[RESIZE]))
    assert len(data.train_dataloader()) == 6
    with pytest.raises(
        ConfigError, match="the model has no attribute 'preprocessing'; give both lists, train and eval"
    ):
        data.val_dataloader()


def test_an_augmentation_that_fails_names_the_image(tmp_path: Path) -> None:
    train, validation = (write_class_folders(tmp_path / name, 3, seed) for seed, name in enumerate("ab"))
    small = train / "red" / "small.png"
    Image.new("RGB", (30, 30)).save(small)
    crop = [{"class_path": "RandomCrop", "init_args": {"height": 32, "width": 32}}]
    lists = Augmentations(train=crop, eval=[RESIZE])
    loader = module(str(train), augmentations=lists, validation=str(validation)).train_dataloader()
    with pytest.raises(ConfigError, match=rf"augmentations.train: fails on {small}, of shape \(30, 30, 3\): Crop size"):
        batches(loader)


def by_height(image: Pixels) -> dict[str, Pixels]:
    return {"image": image[: 10 + image.shape[0] % 2, :10]}


def test_a_batch_of_several_sizes_says_what_to_do(photos: Path) -> None:
    data = module(str(photos), augmentations=Augmentations(train=[{"class_path": f"{__name__}.by_height"}]))
    data.trainer = model_of((24, 28))
    loader = data.train_dataloader()
    with pytest.raises(
        ConfigError, match=r"augmentations\.train: one batch has images of .*; end the list with a Resize"
    ):
        batches(loader)


def test_train_on_validation_joins_the_two_folders(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    more = [f"--data.dataset_classes.validation={test_photos}", "--data.train_on_validation=true"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more, "--trainer.limit_val_batches=0")])
    table = pd.read_csv(tmp_path / "run/version_0/splits.csv")
    assert table["split"].value_counts().to_dict() == {"train": 78}
    assert set(table["path"]) == {str(path) for folder in (photos, test_photos) for path in folder.rglob("*.png")}


def test_a_class_without_a_training_image_is_said(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--data.class_names=[red,green,blue,grey]", "--trainer.max_epochs=1"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    assert "Train has no images of 1 class ('grey'): it cannot be learned" in capsys.readouterr().err
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    assert "no images of" not in capsys.readouterr().err


def test_train_on_validation_leaves_nothing_to_validate(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, "--data.train_on_validation=true")], capsys)
    assert code == 2
    assert "data.init_args.train_on_validation: true leaves no validation data" in message


def joined(photos: Path, test_photos: Path, **more: Any) -> ImageDataModule:
    """Data whose train and validation are trained on, apart from a test set."""
    datasets = DatasetClasses(str(photos / "train"), str(photos / "validation"), str(test_photos))
    return ImageDataModule(datasets, train_on_validation=True, num_workers=0, **more)


def test_train_on_validation_keeps_groups_apart_from_test(photos: Path, test_photos: Path, tmp_path: Path) -> None:
    """The number in a name is that of a patient: 001 is in validation and in test, 100 in train alone."""
    for split, number in (("train", "000.png"), ("validation", "001.png")):
        for folder in photos.iterdir():
            (tmp_path / split / folder.name).mkdir(parents=True)
            shutil.copy(folder / number, tmp_path / split / folder.name / number.replace("000", "100"))
    data = joined(tmp_path, test_photos, group_regex=r"\d+(?=\.png)")
    data.setup("fit")
    with pytest.raises(ConfigError, match=r"in two splits: .*001\.png \(train, group 001\) and .*\(test, group 001\)"):
        data.splitter.refuse_leaks()


def test_train_on_validation_notices_a_misspelt_group_column(photos: Path, test_photos: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        shutil.copytree(photos, tmp_path / split)
    data = joined(tmp_path, test_photos, group_column="patiant")
    data.setup("fit")
    with pytest.raises(
        ConfigError, match="group_column: the samples have no column 'patiant'; the columns are path, label"
    ):
        data.split("train")
