"""Which sample belongs to which split, and what is said when that cannot be."""

import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imgcls.data.splitting.checkpoint_split import check_unchanged, copies_of_recorded, recorded_hold_out
from imgcls.data.splitting.class_labels import class_names_of, labels_of
from imgcls.data.splitting.leakage import find_leaks
from imgcls.data.splitting.rules import SplitRules
from imgcls.data.splitting.split import Split
from imgcls.data.splitting.train_val_split import Fold, hold_out
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.errors import ConfigError


class Table(ImageDataset):
    """Samples without pixels, to test the bookkeeping."""

    def __init__(self, labels: Sequence[str | None], paths: list[str] | None = None) -> None:
        paths = [f"{number}.png" for number in range(len(labels))] if paths is None else paths
        self.samples = pd.DataFrame({"path": paths, "label": labels}, dtype=object)

    def fingerprint(self, index: int) -> str:
        return str(self.samples["path"].iat[index])


def whole(data: ImageDataset, groups: Sequence[str] | None = None) -> Split:
    names = None if groups is None else np.array(groups, dtype=object)
    return Split(data, labels_of(data, class_names_of(data), "train"), groups=names)


def paths(split: Split) -> list[str]:
    return [split.path(place) for place in range(len(split))]


def write(root: Path, contents: dict[str, str]) -> FolderImageDataset:
    """Files below a folder; their contents are what a recorded split knows them by."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return FolderImageDataset(str(root))


# -- classes and labels


def test_class_names_of_sorts_naturally_and_by_name() -> None:
    assert class_names_of(Table(["10", "9", "b", "a", "9"])) == ["9", "10", "a", "b"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "cat"], r"train: Only one class \('cat'\) found in Table; at least two class folders are needed"),
        ([], "train: no image in Table"),
        (
            ["train", "test", "val"],
            "train: Table contains splits instead of classes: 'test', 'train', 'val'; give each split",
        ),
        (
            ["Train", "Test"],
            "splits instead of classes: .*--data.dataset_classes.train Table/Train --data.dataset_classes.test Table",
        ),
        (["train", "test", "extra"], "train: Table contains splits instead of classes: 'extra', 'test', 'train'"),
        (["cat", None], "train: '1.png' has no label; add it, or set the column of labels"),
    ],
)
def test_class_names_of_says_what_is_missing(labels: list[str | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_names_of(Table(labels))


def test_class_names_of_names_the_missing_column() -> None:
    data = Table(["a", "b"])
    data.samples = data.samples.rename(columns={"label": "klass"})
    with pytest.raises(ConfigError, match="train: the samples of Table have no column 'label'"):
        class_names_of(data)


def test_labels_of_go_by_name_when_a_class_is_missing() -> None:
    labels = labels_of(Table(["c", "a", "c"]), ["a", "b", "c"], "validation")
    assert labels.tolist() == [2, 0, 2]
    assert labels.dtype == np.int64


def test_labels_of_names_unknown_classes_and_known_ones() -> None:
    with pytest.raises(ConfigError, match=re.escape("test: classes 'y10', 'z' are not among the model's classes, 'a'")):
        labels_of(Table(["a", "z", "y10"]), ["a"], "test")


def test_labels_of_shortens_a_long_list() -> None:
    names = [str(number) for number in range(30)]
    with pytest.raises(ConfigError, match=r"'9' and 20 more"):
        labels_of(Table(["x"]), names, "test")


def test_labels_of_names_classes_that_look_like_known_ones() -> None:
    """Folders of Linux in train, unzipped on a Mac for validation."""
    with pytest.raises(ConfigError) as caught:
        labels_of(Table(["cafe\u0301", "bar"]), ["caf\u00e9", "bar"], "validation")
    assert str(caught.value).endswith(r"; 'cafe\u0301' and 'caf\xe9' differ only in case, blanks or Unicode form")


def test_a_class_needs_a_name() -> None:
    with pytest.raises(ConfigError, match=r"^train: class names must not be blank, got ' ' in Table$"):
        class_names_of(Table(["a", " ", "b"]))


def test_a_very_long_name_is_cut_in_messages() -> None:
    with pytest.raises(ConfigError) as caught:
        labels_of(Table(["x" * 5000]), ["a" * 5000, "b"], "test")
    assert 400 < len(str(caught.value)) < 600


def test_labels_of_refuses_a_path_twice() -> None:
    with pytest.raises(ConfigError, match=r"validation: 'path' must be unique, but Table lists 'x\.png' twice"):
        labels_of(Table(["a", "b"], ["x.png", "x.png"]), ["a", "b"], "validation")


# -- hold_out


def test_hold_out_is_disjoint_complete_and_stratified() -> None:
    data = Table(["a"] * 40 + ["b"] * 20 + ["c"] * 10)
    splits = hold_out(whole(data), 0.2, seed=0)
    assert sorted(paths(splits["train"]) + paths(splits["validation"])) == sorted(data.samples["path"])
    assert Counter(splits["validation"].table()["label"]) == {"a": 8, "b": 4, "c": 2}
    assert splits["validation"].label_array.tolist() == [0] * 8 + [1] * 4 + [2] * 2
    assert Counter(splits["train"].label_array.tolist()) == {0: 32, 1: 16, 2: 8}


def test_hold_out_follows_the_seed_not_the_order_of_creation(tmp_path: Path) -> None:
    names = [f"{label}/{number}.png" for label in "ab" for number in range(10)]
    orders = names, names[::-1]
    datasets = [write(tmp_path / str(n), {name: name for name in order}) for n, order in enumerate(orders)]

    def held(n: int, seed: int) -> list[str]:
        return [
            os.path.relpath(path, tmp_path / str(n))
            for path in paths(hold_out(whole(datasets[n]), 0.3, seed)["validation"])
        ]

    assert held(0, seed=1) == held(1, seed=1)
    assert held(0, seed=1) != held(0, seed=2)
    assert len(held(0, seed=1)) == 6


def test_hold_out_does_not_depend_on_names_or_folders(tmp_path: Path) -> None:
    contents = {f"{label}/{number}.png": f"{label}{number}" for label in "ab" for number in range(10)}
    renamed = {f"{name[0]}/deep/{99 - number}.jpg": text for number, (name, text) in enumerate(contents.items())}
    held = [
        sorted(hold_out(whole(write(tmp_path / str(n), files)), 0.3, seed=1)["validation"].fingerprints)
        for n, files in enumerate((contents, renamed))
    ]
    assert held[0] == held[1]


def test_hold_out_keeps_copies_on_one_side(tmp_path: Path) -> None:
    contents = {f"{label}/{number}.png": f"{label}{number // 3}" for label in "ab" for number in range(30)}
    splits = hold_out(whole(write(tmp_path, contents)), 0.2, seed=0)
    assert len(splits["validation"]) == 12
    assert not set(splits["train"].fingerprints) & set(splits["validation"].fingerprints)
    assert find_leaks(splits, {}) == []


def test_hold_out_of_copies_alone_divides_them_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "imgcls")
    logging.getLogger("imgcls").propagate = True
    data = write(tmp_path, {f"{label}/{number}.png": label for label in "ab" for number in range(10)})
    splits = hold_out(whole(data), 0.2, seed=0)
    assert Counter(splits["validation"].table()["label"]) == {"a": 2, "b": 2}
    assert caplog.messages[-1].startswith("train: only 2 of 20 images are distinct: copies of an image are in both")
    again = recorded_hold_out(whole(data), {name: split.fingerprints for name, split in splits.items()})
    assert again["validation"].fingerprints == splits["validation"].fingerprints


def test_hold_out_keeps_groups_whole_and_classes_even() -> None:
    groups = [f"patient{number // 5}" for number in range(100)]
    data = Table(["a", "b"] * 50)
    splits = hold_out(whole(data, groups), 0.2, seed=0)
    sides = [set(part.groups if part.groups is not None else ()) for part in splits.values()]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 4
    assert 8 <= Counter(splits["validation"].table()["label"])["a"] <= 12
    again = hold_out(whole(Table(["a", "b"] * 50), groups), 0.2, seed=0)
    assert paths(again["validation"]) == paths(splits["validation"])


@pytest.mark.parametrize(("share", "held"), [(0.2, 20), (0.3, 30), (0.4, 40), (0.75, 75), (0.01, 1), (0.99, 99)])
def test_hold_out_of_groups_is_near_the_share(share: float, held: int) -> None:
    groups = [f"patient{number}" for number in range(100)]
    found = len(hold_out(whole(Table(["a", "b"] * 50), groups), share, seed=0)["validation"])
    assert abs(found - held) <= 1
    few = hold_out(whole(Table(["a", "b"] * 2), ["p", "p", "q", "q"]), share, seed=0)
    assert len(few["validation"]) == 2


@pytest.mark.parametrize(
    ("share", "sizes"), [(0.2, [600, *[10] * 40]), (0.3, [600, *[50] * 8]), (0.7, [*range(1, 25)])]
)
def test_hold_out_of_groups_of_unequal_size_is_near_the_share(share: float, sizes: list[int]) -> None:
    groups = [f"patient{number}" for number, size in enumerate(sizes) for _ in range(size)]
    labels = [label for size in sizes for label in ("a" * (size // 2) + "b" * (size - size // 2))]
    for seed in range(5):
        held = hold_out(whole(Table(labels), groups), share, seed)["validation"]
        assert len(held) == pytest.approx(share * len(labels), abs=0.05 * len(labels))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.8])
def test_hold_out_of_groups_of_mainly_one_class_is_near_the_share(share: float) -> None:
    """A few groups of equal size, each with some samples of other classes than its own."""
    chosen = set()
    for seed in range(10):
        generator = np.random.default_rng(seed)
        labels = np.repeat(generator.integers(0, 4, 24), 10)
        labels = np.where(generator.random(240) < 0.3, generator.integers(0, 4, 240), labels)
        split = whole(Table([f"c{label}" for label in labels]), [f"g{number // 10}" for number in range(240)])
        splits = hold_out(split, share, seed)
        assert len(splits["validation"]) == pytest.approx(share * 240, abs=20)
        assert splits["train"].classes() == set(labels.tolist())
        chosen.add(tuple(paths(splits["validation"])))
    assert len(chosen) == 10


@pytest.mark.parametrize(("share", "classes", "each"), [(0.2, 10, 2), (0.2, 100, 2), (0.1, 5, 4), (0.2, 10, 3)])
def test_hold_out_of_few_groups_of_many_classes_is_near_the_share(share: float, classes: int, each: int) -> None:
    labels = [f"c{label}" for label in range(classes) for _ in range(10 * each)]
    groups = [f"g{number // 10}" for number in range(len(labels))]
    for seed in range(3):
        held = hold_out(whole(Table(labels), groups), share, seed)["validation"]
        assert len(held) == pytest.approx(share * len(labels), abs=0.06 * len(labels))


@pytest.mark.parametrize(("share", "side"), [(0.01, "validation"), (0.99, "train")])
def test_hold_out_of_groups_leaves_no_side_empty(share: float, side: str) -> None:
    """The smallest group is there, but not that with all of a class."""
    groups = ["p"] * 10 + ["q"] * 6 + ["r"] * 8 + ["s"] * 2
    data = Table(["a", "b"] * 12 + ["c", "c"])
    splits = hold_out(whole(data, groups), share, seed=0)
    assert paths(splits[side]) == [f"{number}.png" for number in range(10, 16)]  # those of q


def test_hold_out_joins_groups_that_share_an_image(tmp_path: Path) -> None:
    contents = {f"{label}/{number:02d}.png": f"{label}{number}" for label in "ab" for number in range(20)}
    contents["a/00.png"] = contents["b/19.png"] = "the same picture"
    data = write(tmp_path, contents)
    groups = [f"{path[-8]}{int(path[-6:-4]) // 2}" for path in data.samples["path"]]
    for seed in range(10):
        assert find_leaks(hold_out(whole(data, groups), 0.3, seed), {}) == []


def test_folds_are_a_partition() -> None:
    data = Table(["a"] * 23 + ["b"] * 12)
    held = [paths(hold_out(whole(data), 0.2, 0, Fold(number, 5))["validation"]) for number in range(1, 6)]
    assert sorted(path for fold in held for path in fold) == sorted(data.samples["path"])
    assert {len(fold) for fold in held} == {7}
    groups = [str(number // 4) for number in range(35)]
    held = [paths(hold_out(whole(data, groups), 0.2, 0, Fold(number, 3))["validation"]) for number in range(1, 4)]
    assert sorted(path for fold in held for path in fold) == sorted(data.samples["path"])


@pytest.mark.parametrize("text", ["0/5", "6/5", "1", "1/1", "a/b", "1/5/2"])
def test_fold_says_how_it_is_written(text: str) -> None:
    with pytest.raises(ConfigError, match=f"data.init_args.fold must be k/n, for example 1/5 .* got '{text}'"):
        Fold.read(text)


def test_find_leaks_names_both_paths_and_splits(tmp_path: Path) -> None:
    train, test = (write(tmp_path / name, {"a/1.png": "x", "b/2.png": name}) for name in ("train", "test"))
    leaks = find_leaks({"train": whole(train), "test": whole(test)}, {"validation": "train"})
    assert leaks == [(f"{tmp_path}/train/a/1.png (train)", f"{tmp_path}/test/a/1.png (test)")]
    one, other = Table(["a", "b"], ["1", "2"]), Table(["a", "b"], ["3", "4"])
    leaks = find_leaks({"train": whole(one, ["p", "q"]), "validation": whole(other, ["q", "r"])}, {})
    assert leaks == [("2 (train, group q)", "3 (validation, group q)")]


def test_groups_are_the_same_as_whole_numbers_and_as_floats() -> None:
    """As pandas reads a column of numbers in which one is missing."""
    rules = SplitRules(0.2, 0, None, "patient", None, "error", False)
    data = Table(["a", "b", "a"])
    found = []
    for patients in ([1, 2, 3], [1.0, 2.0, None], ["1", "2", "3"]):
        data.samples["patient"] = pd.Series(patients)
        groups = rules.groups(data)
        assert groups is not None
        found.append(list(groups))
    assert found == [["1", "2", "3"], ["1", "2", "path 2.png"], ["1", "2", "3"]]


def test_copies_of_recorded_samples_are_listed(tmp_path: Path) -> None:
    data = write(tmp_path, CONTENTS)
    trained = paths(hold_out(whole(data), 0.2, seed=3)["train"])
    assert copies_of_recorded(whole(data), record(data))["train"] == trained


def test_hold_out_keeps_a_single_sample_in_train() -> None:
    data = Table(["a"] * 10 + ["alone"] + ["b"] * 10)
    for seed in range(5):
        splits = hold_out(whole(data), 0.5, seed)
        assert "10.png" in paths(splits["train"])
        assert set(splits["validation"].table()["label"]) == {"a", "b"}


@pytest.mark.parametrize(("share", "labels"), [(0.1, ["a", "b"] * 5), (0.99, ["a", "b"] * 5), (0.5, ["a", "b"])])
def test_hold_out_says_that_a_share_cannot_be_held_out(share: float, labels: list[str | None]) -> None:
    message = f"_split: {share} of {len(labels)} images in 2 classes cannot be held out .*give dataset_classes.valid"
    with pytest.raises(ConfigError, match=message):
        hold_out(whole(Table(labels)), share, seed=0)


def test_hold_out_of_single_images_says_so() -> None:
    with pytest.raises(ConfigError, match=r"cannot be held out \(each class has a single image\)"):
        hold_out(whole(Table(["a", "b"])), 0.2, seed=0)


def test_hold_out_says_which_share_holds_each_class() -> None:
    """Also where there are copies: to divide them would be worse than to ask."""
    labels: list[str | None] = [f"c{number // 4}" for number in range(80)]
    with pytest.raises(ConfigError, match=r"0\.2 of 80 images in 20 classes .*\(one image of each class takes 0\.25\)"):
        hold_out(whole(Table(labels)), 0.2, seed=0)
    assert set(hold_out(whole(Table(labels)), 0.25, seed=0)["validation"].table()["label"]) == set(labels)


# -- a recorded split

CONTENTS = {f"{label}/{number}.png": f"{label}{number}" for label in "ab" for number in range(10)}


def record(data: ImageDataset) -> dict[str, list[str]]:
    return {name: split.fingerprints for name, split in hold_out(whole(data), 0.2, seed=3).items()}


def test_recorded_hold_out_finds_the_split_in_a_moved_folder(tmp_path: Path) -> None:
    data = write(tmp_path / "old", CONTENTS)
    recorded = record(data)
    before = [
        os.path.relpath(path, tmp_path / "old") for path in paths(hold_out(whole(data), 0.2, seed=3)["validation"])
    ]
    shutil.move(tmp_path / "old", tmp_path / "new")
    moved = whole(FolderImageDataset(str(tmp_path / "new")))
    check_unchanged(moved, recorded)
    after = recorded_hold_out(moved, recorded)
    assert [os.path.relpath(path, tmp_path / "new") for path in paths(after["validation"])] == before
    assert after["train"].fingerprints == recorded["train"]
    assert after["validation"].label_array.tolist() == [0, 0, 1, 1]


def test_recorded_hold_out_puts_new_files_into_train(tmp_path: Path) -> None:
    recorded = record(write(tmp_path, CONTENTS))
    splits = recorded_hold_out(whole(write(tmp_path, {"a/new.png": "new"})), recorded)
    assert str(tmp_path / "a/new.png") in paths(splits["train"])
    assert splits["validation"].fingerprints == recorded["validation"]


def test_recorded_hold_out_takes_as_many_copies_as_were_held_out(tmp_path: Path) -> None:
    data = write(tmp_path, CONTENTS)
    held = Path(paths(hold_out(whole(data), 0.2, seed=3)["validation"])[0])
    data = write(tmp_path, {"a/zz.png": held.read_text()})
    recorded = record(data)
    assert len(recorded["validation"]) == 5
    more = write(tmp_path, {"a/zzz.png": held.read_text()})
    splits = recorded_hold_out(whole(more), recorded)
    assert splits["validation"].fingerprints == recorded["validation"]
    assert str(tmp_path / "a/zzz.png") in paths(splits["train"])
    held.unlink()
    (tmp_path / "a/zzz.png").unlink()
    with pytest.raises(ConfigError, match="1 of the 5 images that the checkpoint's run held out are missing"):
        recorded_hold_out(whole(FolderImageDataset(str(tmp_path))), recorded)


def test_recorded_hold_out_says_that_held_out_images_are_gone(tmp_path: Path) -> None:
    data = write(tmp_path, CONTENTS)
    recorded = record(data)
    Path(paths(hold_out(whole(data), 0.2, seed=3)["validation"])[0]).unlink()
    with pytest.raises(
        ConfigError, match="1 of the 4 images that the checkpoint's run held out are missing or changed; give"
    ):
        recorded_hold_out(whole(FolderImageDataset(str(tmp_path))), recorded)


def test_check_unchanged_names_new_changed_and_lost_images(tmp_path: Path) -> None:
    data = write(tmp_path, CONTENTS)
    recorded = record(data)
    trained = Path(paths(hold_out(whole(data), 0.2, seed=3)["train"])[0])
    trained.write_text("changed")
    message = (
        rf"train: .* differ from the checkpoint's: 1 new or changed \['{trained}'\], 1 missing; restore them, or start"
    )
    with pytest.raises(ConfigError, match=message):
        check_unchanged(whole(FolderImageDataset(str(tmp_path))), recorded)
    trained.unlink()
    with pytest.raises(ConfigError, match=r"0 new or changed \[\], 1 missing"):
        check_unchanged(whole(FolderImageDataset(str(tmp_path))), recorded)


def labels(data: ImageDataset) -> dict[str, list[str]]:
    return {name: split.label_names for name, split in hold_out(whole(data), 0.2, seed=3).items()}


@pytest.mark.parametrize("side", ["train", "validation"])
def test_check_unchanged_names_images_in_another_class(side: str, tmp_path: Path) -> None:
    data = write(tmp_path, CONTENTS)
    recorded, classes = record(data), labels(data)
    check_unchanged(whole(data), recorded, classes)
    path = Path(paths(hold_out(whole(data), 0.2, seed=3)[side])[0])
    moved = path.rename(tmp_path / "b/zzz.png")
    after = whole(FolderImageDataset(str(tmp_path)))
    with pytest.raises(
        ConfigError, match=rf"0 new or changed \[\], 0 missing, 1 in another class \['{moved}'\]; restore"
    ):
        check_unchanged(after, recorded, classes)
    check_unchanged(after, recorded)  # an older checkpoint holds no labels


def test_check_unchanged_counts_copies(tmp_path: Path) -> None:
    data = write(tmp_path, CONTENTS | {"a/twice.png": "a0", "b/other.png": "a1"})  # one of them in both classes
    recorded, classes = record(data), labels(data)
    check_unchanged(whole(data), recorded, classes)
    more = write(tmp_path, {"a/zzz.png": "a0"})
    for known in (classes, None):
        message = rf"0 new or changed \[\], 0 missing, 1 copied \['{tmp_path}/a/zzz\.png'\]; restore"
        with pytest.raises(ConfigError, match=message):
            check_unchanged(whole(more), recorded, known)


def test_check_unchanged_counts_copies_that_are_gone(tmp_path: Path) -> None:
    data = write(tmp_path, CONTENTS)
    trained = [Path(path) for path in paths(hold_out(whole(data), 0.2, seed=3)["train"])[:2]]
    trained[0].write_text(trained[1].read_text())
    recorded = record(data)
    trained[0].unlink()
    with pytest.raises(ConfigError, match=r"0 new or changed \[\], 1 missing; restore"):
        check_unchanged(whole(FolderImageDataset(str(tmp_path))), recorded)


# -- Split


def test_split_gives_its_own_rows(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (1, 1), (number, 0, 0)).save(tmp_path / f"{number}.png")
    data = Table(["a", "b", "c"], [str(tmp_path / f"{number}.png") for number in range(3)])
    split = Split(data, np.array([0, 1, 2]), rows=np.array([2, 0]))
    assert paths(split) == [str(tmp_path / "2.png"), str(tmp_path / "0.png")]
    assert split.label_array.tolist() == [2, 0]
    assert split.read(0).tolist() == [[[2, 0, 0]]]
    assert split.table().to_dict("list") == {"path": paths(split), "label": ["c", "a"]}


def test_split_without_labels_has_minus_one() -> None:
    assert Split(Table([None, None]), labels=None).label_array.tolist() == [-1, -1]


def test_split_first_readable_skips_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text("no image")
    Image.new("RGB", (1, 1), (5, 6, 7)).save(tmp_path / "1.png")
    data = FolderImageDataset(str(tmp_path))
    first = Split(data, labels=None).first_readable()
    assert first is not None
    assert first.tolist() == [[[5, 6, 7]]]
    assert Split(data, labels=None, rows=np.array([0])).first_readable() is None
