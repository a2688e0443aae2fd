"""The cache of decoded images: what is kept, that nothing is lost or stale, and that it changes no result."""

import copy
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from imgcls.cli.main import main
from imgcls.config.class_path import Spec
from imgcls.data.config import Augmentations, DatasetClasses
from imgcls.data.datamodule import ImageDataModule
from imgcls.data.pixel_cache import build, cache_keys, store
from imgcls.data.pixel_cache.build import fill
from imgcls.data.pixel_cache.cached_split import CachedSplit
from imgcls.data.pixel_cache.cached_transforms import eval_steps, train_steps
from imgcls.data.pixel_cache.store import INDEX, PIXELS, Reader, Writer
from imgcls.data.splitting.split import Split
from imgcls.data.transforms.build import build_pipeline
from imgcls.datasets.dataset import ImageDataset, JoinedDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.errors import ConfigError, ImageError, RunError
from imgcls.images import Pixels, load_image
from imgcls.runtime.cache_folder import cache_folder
from tests.conftest import write_class_folders
from tests.data.test_datamodule import Numbers
from tests.helpers.cache_builder import GO
from tests.helpers.runs import arguments, within

NAMES = [f"{number:024d}" for number in range(9)]


def item(class_path: str, /, **init_args: Any) -> Spec:
    return {"class_path": class_path, "init_args": init_args}


RESIZE = item("Resize", height=16, width=20)
FLIP = item("HorizontalFlip", p=0.5)
JITTER = item("ColorJitter", p=0.5)
CROP = item("RandomResizedCrop", size=[20, 16], scale=[0.25, 1.0])


def inverted(image: Pixels) -> dict[str, Pixels]:
    np.subtract(255, image, out=image)  # in place
    return {"image": image}


INVERTED = item(f"{__name__}.inverted")


class One(ImageDataset):
    """A sample of a class, so that train is not divided."""

    def __init__(self, label: str) -> None:
        self.samples = pd.DataFrame({"path": ["one"], "label": [label]}, dtype=object)

    def read(self, index: int) -> Pixels:
        return np.full((30, 40, 3), 255, np.uint8)


def module(data: ImageDataset | str, cache: Path | None, **more: Any) -> ImageDataModule:
    """A datamodule that is set up, without a trainer; with a cache where a folder is given."""
    lists = Augmentations(train=more.pop("train", [RESIZE]), eval=more.pop("eval", [RESIZE]))
    classes = DatasetClasses(train=data, validation=more.pop("validation", None))
    use: dict[str, Any] = {"create_dataset": True, "cache_dir": str(cache)} if cache else {}
    use |= {"num_workers": 0, "on_leak": "warn"}
    made = ImageDataModule(classes, lists, 8, **(use | more))
    made.setup("fit")
    return made


def kept_split(loader: Any) -> CachedSplit:
    split = loader.dataset.split
    assert isinstance(split, CachedSplit)
    return split


def pixels(loader: Any, epoch: int = 0) -> torch.Tensor:
    loader.sampler.set_epoch(epoch)
    return torch.cat([batch["image"] for batch in loader])


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, apart from the one on which the lists are tried."""
    found: list[str] = []

    def noted(path: str, *more: int) -> Pixels:
        found.append(path)
        return load_image(path, *more)

    monkeypatch.setattr("imgcls.datasets.dataset.load_image", noted)
    monkeypatch.setattr(Split, "first_readable", lambda _: None)
    return found


def folders(cache: Path) -> dict[str, int]:
    """The folders of the cache: name -> images."""
    return {path.name: len((path / INDEX).read_bytes()) // 48 for path in (cache / "pixels").iterdir()}


# -- what is kept


@pytest.mark.parametrize(
    ("specs", "cache_size", "side", "why"),
    [
        ([CROP, FLIP], None, 40, "shorter side at most 40 pixels, enough for RandomResizedCrop(20, scale from 0.25)"),
        ([item("RandomResizedCrop", size=[224, 224])], None, 792, "shorter side at most 792 pixels, enough for Random"),
        ([CROP], 24, 24, "shorter side at most 24 pixels, from cache_size"),
        ([FLIP], 24, 24, "shorter side at most 24 pixels, from cache_size"),
        ([FLIP, CROP], None, None, "whole images"),
        ([INVERTED, RESIZE], None, None, "whole images"),
        ([item("RandomResizedCrop", size=[20, 16], p=0.5), RESIZE], None, None, "whole images"),
        ([RESIZE, FLIP], None, None, "the result of Resize"),
        (
            [item("SmallestMaxSize", max_size=90), CROP],
            None,
            40,
            "the result of SmallestMaxSize, shorter side at most 40",
        ),
        (
            [item("imgcls.ResizeShortestEdge", edge=90), {**CROP, "class_path": "imgcls.RandomResizedCrop"}],
            None,
            40,
            "the result of ResizeShortestEdge, shorter side at most 40",
        ),
        ([item("SmallestMaxSize", max_size=[30, 40]), RESIZE], None, None, "whole images"),
        ([item("PadIfNeeded", min_height=64, min_width=64, position="random"), RESIZE], None, None, "whole images"),
        ([item("Resize", height=8, width=8, p=0.5), RESIZE], None, None, "whole images"),
    ],
)
def test_train_steps_keep_the_smallest_that_the_list_can_use(
    specs: list[Spec], cache_size: int | None, side: int | None, why: str
) -> None:
    steps = train_steps(build_pipeline(specs, "train"), cache_size)
    assert steps.shorter_side == side
    assert steps.description.startswith(why)


def test_smallest_crop_of_what_is_kept_has_the_pixels_of_the_output() -> None:
    steps = train_steps(build_pipeline([CROP], "train"))
    assert steps.shorter_side is not None
    assert 0.25 * steps.shorter_side**2 >= 20 * 20


def test_images_are_shrunk_by_area_and_never_enlarged() -> None:
    steps = train_steps(build_pipeline([FLIP], "train"), cache_size=10)
    board = np.repeat((np.indices((40, 60)).sum(0) % 2 * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    kept = steps.before_cache(board)
    assert kept.shape == (10, 15, 3)
    assert set(np.unique(kept)) <= {127, 128}
    assert steps.before_cache(board[:9]) is not None
    np.testing.assert_array_equal(steps.before_cache(board[:9]), board[:9])


def test_eval_steps_end_before_what_may_differ() -> None:
    kept = eval_steps(build_pipeline([RESIZE, item("Normalize")], "eval")).once
    names = [type(part).__name__ for part in kept.transforms]
    assert names == ["Resize"]
    whole = eval_steps(
        build_pipeline([item("SmallestMaxSize", max_size=9), item("CenterCrop", height=8, width=8)], "eval")
    )
    assert whole.each_time.transforms == []
    assert whole.description == "the result of SmallestMaxSize, CenterCrop"


def test_key_follows_from_steps_and_size_alone() -> None:
    def key(*specs: Spec, size: int | None = None) -> str:
        return train_steps(build_pipeline(list(specs), "train"), size).key()

    assert key(RESIZE, FLIP) != key({**RESIZE, "class_path": "imgcls.Resize"}, FLIP)
    assert key(RESIZE, FLIP) == key({**RESIZE, "class_path": "albumentations.Resize"}, JITTER)
    keys = {key(RESIZE), key(RESIZE, size=8), key(item("Resize", height=16, width=21)), key(CROP), key(FLIP)}
    assert len(keys) == 5


# -- results


@pytest.mark.parametrize(
    "specs",
    [
        [RESIZE],
        [item("SmallestMaxSize", max_size=24), item("CenterCrop", height=20, width=24, pad_if_needed=True)],
        [item("imgcls.ResizeShortestEdge", edge=24), item("imgcls.CenterCrop", height=20, width=24)],
        [RESIZE, item("Normalize")],
        [RESIZE, INVERTED],
        [INVERTED, RESIZE, JITTER],
        [item("LongestMaxSize", max_size=30), item("PadIfNeeded", min_height=32, min_width=32), item("ToTensorV2")],
    ],
    ids=["resize", "crop", "own crop", "normalize", "callable", "callable first", "tensor"],
)
def test_evaluation_from_the_cache_is_the_same(specs: list[Spec], photos: Path, tmp_path: Path) -> None:
    train = [RESIZE, item("Normalize")] if "Normalize" in str(specs) else [RESIZE]
    alone, kept = (module(str(photos), cache, eval=specs, train=train) for cache in (None, tmp_path))
    expected = pixels(alone.val_dataloader())
    loader = kept.val_dataloader()
    kept_split(loader)
    assert torch.equal(pixels(loader), expected)
    assert torch.equal(pixels(loader), expected)  # nothing was written into


@pytest.mark.parametrize("specs", [[RESIZE, FLIP, JITTER], [RESIZE, INVERTED, FLIP], [FLIP, RESIZE]])
def test_training_from_the_cache_draws_the_same(specs: list[Spec], photos: Path, tmp_path: Path) -> None:
    alone, kept = (module(str(photos), cache, train=specs).train_dataloader() for cache in (None, tmp_path))
    for epoch in range(2):
        assert torch.equal(pixels(kept, epoch), pixels(alone, epoch))


def test_fit_from_the_cache_gives_the_same_metrics(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    lists = [f"--data.augmentations.train={[item('Resize', height=32, width=32), FLIP]}", "--data.num_workers=1"]
    for name, more in (("plain", []), ("cached", ["--data.create_dataset=true", f"--data.cache_dir={tmp_path}"])):
        main(["fit", *arguments(photos, tiny_model, tmp_path / name, *lists, *more)])
    plain, cached = (pd.read_csv(tmp_path / name / "run/version_0/metrics.csv") for name in ("plain", "cached"))
    pd.testing.assert_frame_equal(plain, cached, check_exact=True)


# -- decoding once


def test_second_run_decodes_nothing(photos: Path, tiny_model: Path, tmp_path: Path, read: list[str]) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    more = ["--data.create_dataset", "true", "--data.cache_dir", str(tmp_path / "cache")]
    main([*line, *more])
    assert Counter(read) == Counter(map(str, photos.glob("*/*")))
    assert sorted(folders(tmp_path / "cache").values()) == [12, 48]
    read.clear()
    main([*line, *more, "--data.batch_size=4"])
    assert read == []


def test_changed_file_is_decoded_again(tmp_path: Path, read: list[str]) -> None:
    root = write_class_folders(tmp_path / "data", 4)
    loader = module(str(root), tmp_path, validation=One("red")).train_dataloader
    loader()
    read.clear()
    changed = root / "red/002.png"
    Image.new("RGB", (30, 30), "white").save(changed)
    (root / "red/003.png").rename(root / "red/004.png")
    loader = module(str(root), tmp_path, validation=str(root)).train_dataloader
    white = {
        path
        for batch in loader()
        for path, image in zip(batch["path"], batch["image"], strict=True)
        if image.min() == 255
    }
    assert read == [str(changed)]
    assert white == {str(changed)}


def test_copies_are_decoded_once(tmp_path: Path, read: list[str]) -> None:
    root = write_class_folders(tmp_path / "data", 2)
    shutil.copy(root / "red/000.png", root / "red/copy.png")
    shutil.copytree(root, tmp_path / "other")
    data = JoinedDataset([FolderImageDataset(str(root)), FolderImageDataset(str(tmp_path / "other"))])
    assert len(pixels(module(data, tmp_path, validation=One("red")).train_dataloader())) == 14
    assert len(read) == 6


class Darker(FolderImageDataset):
    """Reads in a way of its own."""

    def __init__(self, root: str, by: int) -> None:
        super().__init__(root)
        self.by = by

    def read(self, index: int) -> Pixels:
        return super().read(index) // np.uint8(self.by)


class Listed(ImageDataset):
    """Lists files in a way of its own."""

    def __init__(self, root: Path) -> None:
        paths = sorted(map(str, root.glob("*/*")))
        self.samples = pd.DataFrame({"path": paths, "label": [Path(path).parent.name for path in paths]})


def test_what_a_class_reads_in_its_own_way_is_kept_apart(photos: Path, tmp_path: Path, read: list[str]) -> None:
    sums = []
    for data in (Darker(str(photos), by=1), Darker(str(photos), by=4), Darker(str(photos), by=4), Listed(photos)):
        sums.append(pixels(module(data, tmp_path, validation=One("red")).train_dataloader()).sum())
    assert len(read) == 180  # the third found everything
    assert sums[0] == sums[3]
    assert sums[1] == sums[2] < sums[0] / 3
    pixels(module(str(photos), tmp_path, validation=One("red")).train_dataloader())
    assert len(read) == 180  # as a folder's own images


@dataclass(slots=True)
class Way:
    """Settings of a class of one's own."""

    by: int


class Inheriting(Darker):
    """Reads as its base does, by settings of several kinds."""

    def __init__(self, root: str, setting: object) -> None:
        super().__init__(root, by=2)
        self.setting = setting


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"by": 1}, {"by": 2}),
        ({("a", 1): [[1]]}, {("a", 1): [[2]]}),
        (Path("a"), Path("b")),
        (np.eye(3), np.ones((3, 3))),
        (np.arange(256), np.zeros(256)),
        (np.array([1j]), np.array([2j])),
        (Way(1), Way(2)),
        ({"a", "b"}, {"a", "c"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_settings_of_ones_own_class_are_part_of_the_key(one: object, other: object, photos: Path) -> None:
    first, second = (cache_keys.reader_keys(Inheriting(str(photos), value))[0] for value in (one, other))
    assert first != second
    assert first == cache_keys.reader_keys(Inheriting(str(photos), copy.deepcopy(one)))[0]


def test_key_leaves_out_what_is_of_the_rows_and_what_has_no_value(photos: Path, tmp_path: Path) -> None:
    data = Inheriting(str(photos), None)
    data.pixels = np.zeros((60, 1000), np.uint8)  # type: ignore[attr-defined]
    first = cache_keys.reader_keys(data)
    data.samples = data.samples.head(4)
    data.pixels = np.ones((60, 1000), np.uint8)  # type: ignore[attr-defined]
    assert len(data.sample_paths) == 4  # is kept from now on
    data.setting = (tmp_path / "opened").open("w")  # which was not yet
    assert cache_keys.reader_keys(data) == first[:4]
    data.setting.close()


def test_settings_may_hold_each_other_and_bytes_count(photos: Path) -> None:
    tree: dict[str, Any] = {"name": "root"}
    tree["children"] = [{"parent": tree}]
    for one, other in ((tree, tree | {"name": "other"}), (bytes(range(256)), bytes(256)), ("a" * 999, "b" * 999)):
        first, second = (cache_keys.reader_keys(Inheriting(str(photos), value))[0] for value in (one, other))
        assert first != second


def test_key_does_not_depend_on_the_order_of_a_set() -> None:
    code = (
        "from imgcls import FolderImageDataset\n"
        "from imgcls.data.pixel_cache.cache_keys import _settings\n"
        "data = FolderImageDataset('x')\n"
        "data.setting = {'x': {'a', 'b', 'c', 'd'}}\n"
        "print(_settings(data))"
    )
    lines = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(lines) == 1


def test_sources_of_bases_are_part_of_the_key(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {Darker: "class Darker: 1", Inheriting: "class Inheriting"}
    monkeypatch.setattr("inspect.getsource", sources.__getitem__)
    first = cache_keys.reader_keys(Inheriting(str(photos), 1))
    sources[Darker] = "class Darker: 2"
    assert cache_keys.reader_keys(Inheriting(str(photos), 1)) != first


def test_samples_that_are_no_files_are_kept(tmp_path: Path) -> None:
    data = module(Numbers(20), tmp_path, validation=One("class0"))
    assert sorted(pixels(data.train_dataloader())[:, 0, 0, 0].tolist()) == list(range(20))
    assert folders(tmp_path) == {kept_split(data.train_dataloader())._reader.file.parent.name: 20}


def test_batches_do_not_depend_on_the_number_of_workers(photos: Path, tmp_path: Path) -> None:
    loaders = [
        module(str(photos), tmp_path / str(n), train=[CROP, FLIP], num_workers=n).train_dataloader() for n in (0, 2)
    ]
    assert torch.equal(pixels(loaders[0]), pixels(loaders[1]))
    assert folders(tmp_path / "0") == folders(tmp_path / "2")


def test_cached_split_goes_to_a_process_that_is_no_fork(photos: Path, tmp_path: Path) -> None:
    split = kept_split(module(str(photos), tmp_path).val_dataloader())
    text = pickle.dumps(split)
    assert len(text) < 20_000
    np.testing.assert_array_equal(pickle.loads(text).read(3), split.read(3))  # noqa: S301 - our own


# -- messages of the processes that decode


@pytest.mark.parametrize(("side", "many"), [(16, True), (600, False)])
def test_small_images_come_many_a_message(
    side: int, many: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter one by one, by which the size of all is judged; images of a megabyte all come alone."""
    for number in range(40):
        Image.new("RGB", (side, side), (number, 0, 0)).save(tmp_path / f"{number:03d}.png")
    messages: list[int] = []
    decoded = build._decoded

    def counting(*arguments: Any) -> Iterator[Any]:
        for message in decoded(*arguments):
            messages.append(len(message))
            assert all(type(pixels) is np.ndarray for _, pixels in message)  # a tensor takes a file of /dev/shm
            yield message

    monkeypatch.setattr(build, "_decoded", counting)
    split = Split(FolderImageDataset(str(tmp_path)), None)
    steps = eval_steps(build_pipeline([], "eval"))
    names = [f"{number:024d}" for number in range(40)]
    assert fill(tmp_path / "cache", split, names, steps, workers=1, timeout=60) == (40, {})
    assert sum(messages) == 40
    assert messages[:10] == [1] * 10
    assert (len(messages) < 20) == many, messages
    assert {int(Reader(tmp_path / "cache", names).read(place)[0, 0, 0]) for place in range(40)} == set(range(40))


# -- killed, shared


@contextmanager
def builder(*line: object) -> "Iterator[subprocess.Popen[str]]":
    command = [sys.executable, "-m", "tests.helpers.cache_builder", *map(str, line)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_while_building_is_finished_by_the_next_run(workers: int, photos: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    (tmp_path / GO).touch()
    with builder(photos, tmp_path, log, workers, 31) as killed:
        assert killed.wait(60) == -signal.SIGKILL
    [(folder, kept)] = folders(tmp_path).items()
    assert 20 <= kept < 31
    with (tmp_path / "pixels" / folder / PIXELS).open("ab") as file:
        file.write(b"half of an image")
    first = log.read_text().splitlines()
    log.write_text("")
    with builder(photos, tmp_path, log, workers) as second:
        said, _ = second.communicate(timeout=60)
    assert second.returncode == 0, said
    expected = pixels(module(str(photos), None, validation=str(photos)).train_dataloader()).sum()
    assert int(said.splitlines()[-1]) == expected
    assert f"{60 - kept} of 60 images decoded now" in said
    assert len(log.read_text().splitlines()) == 60 - kept
    assert len(first) - kept <= 1 + 3 * workers  # those that were under way
    assert folders(tmp_path) == {folder: 60}


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def test_two_processes_share_one_build(photos: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with builder(photos, tmp_path, log, 0) as first:
        wait_for(log.exists)
        with builder(photos, tmp_path, log, 0) as second:
            lines: Iterator[str] = iter(second.stdout or ())
            assert any("waiting for another process that fills" in line for line in lines)
            (tmp_path / GO).touch()
            ours, _ = first.communicate(timeout=60)
            theirs = list(lines)
    assert "60 of 60 images decoded now" in ours
    assert ours.splitlines()[-1] == theirs[-1].strip()
    assert len(log.read_text().splitlines()) == 60


# -- what does not fit


def test_disk_that_is_too_small_is_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 12_345))
    data = module(str(photos), tmp_path)
    message = r"create_dataset: 36 images need about 0\.\d MB in .*/pixels/\w+, but 0\.0 MB are free; remove older "
    with pytest.raises(
        ConfigError, match=message + "caches, or use --data.cache_dir FOLDER .* --data.cache_size N .* false"
    ):
        data.train_dataloader()
    assert list(folders(tmp_path).values()) == [12]  # by which the size was judged; they are good


class Uneven(ImageDataset):
    """Forty images of 30 kB, but those by which the size of all is judged: they are small."""

    def __init__(self) -> None:
        self.small = set(np.linspace(0, 39, 10, dtype=int).tolist())
        names = [str(place) for place in range(40)]
        self.samples = pd.DataFrame({"path": names, "label": ["red", "blue"] * 20}, dtype=object)

    def read(self, index: int) -> Pixels:
        return np.full((3, 3, 3) if index in self.small else (100, 100, 3), index, np.uint8)


def test_disk_that_runs_full_is_named_and_given_back(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMMIT_SECONDS", 0.0)
    message = r"the disk of .*/pixels/\w+ is full \(0\.\d MB free\); remove older caches, or use --data"
    with pytest.raises(RunError, match=message):
        module(Uneven(), small_disk, train=[FLIP, RESIZE], validation=One("red")).train_dataloader()
    [folder] = (small_disk / "pixels").iterdir()
    assert [(folder / name).stat().st_size for name in (PIXELS, INDEX)] == [0, 0]


@pytest.mark.parametrize("workers", [0, 1])
def test_pixels_that_are_not_those_that_were_written_are_named(photos: Path, tmp_path: Path, workers: int) -> None:
    loader = module(str(photos), tmp_path, num_workers=workers).train_dataloader()
    expected = pixels(loader)
    [folder] = (tmp_path / "pixels").iterdir()
    good = (folder / PIXELS).read_bytes()
    for bad in (bytes(len(good)), good[:20_000] + bytes([good[20_000] ^ 1]) + good[20_001:]):
        with (folder / PIXELS).open("r+b") as file:
            file.write(bad)
        loader = module(str(photos), tmp_path, num_workers=workers).train_dataloader()
        message = rf"cache: {folder}/{PIXELS} is damaged at byte [\d,]+; remove the folder {folder}, so that"
        with pytest.raises(RunError, match=message):
            pixels(loader)
    shutil.rmtree(folder)
    assert torch.equal(pixels(module(str(photos), tmp_path, num_workers=workers).train_dataloader()), expected)


@pytest.mark.parametrize("name", [PIXELS, INDEX])
def test_links_and_pipes_in_the_cache_are_refused(photos: Path, tmp_path: Path, name: str) -> None:
    module(str(photos), tmp_path).train_dataloader()
    [folder] = (tmp_path / "pixels").iterdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    message = rf"data.init_args.cache_dir: {folder} cannot be used: it is a link or a pipe; choose another"
    for plant in (lambda path: path.symlink_to(victim), os.mkfifo):
        (folder / name).unlink()
        plant(folder / name)
        with within(20), pytest.raises(ConfigError, match=message):
            module(str(photos), tmp_path).train_dataloader()
    assert victim.read_bytes() == b"mine"


def test_folder_that_cannot_be_used_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "pixels").touch()
    message = rf"data.init_args.cache_dir: {tmp_path}/pixels/\w+ cannot be used: Not a directory; choose another folder"
    with pytest.raises(ConfigError, match=message):
        module(str(photos), tmp_path).train_dataloader()


def test_unreadable_images_are_named_with_their_reasons(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_class_folders(tmp_path / "data", 5)
    for number in range(12):
        path = root / "red" / f"bad{number:02}.jpg"
        Image.effect_noise((100, 100), 50 + number).convert("RGB").save(path)
        path.write_bytes(path.read_bytes()[:-500])
    more = ["--data.create_dataset=true", f"--data.cache_dir={tmp_path}", "--data.validation_split=0.2"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments(root, tiny_model, tmp_path, *more)])
    assert stop.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert re.match(r"\d+ of \d+ images in train cannot be read; remove or replace them, or skip", said[-1])
    assert any(re.match(rf"  train: {root}/red/bad\d\d\.jpg: .*truncated", line) for line in said)


class Deadly(FolderImageDataset):
    """Images one of which kills the process that reads it."""

    def read(self, index: int) -> Pixels:
        path = str(self.samples["path"].iat[index])
        if path.endswith("red/003.png") and get_worker_info() is not None:
            os._exit(9)
        return super().read(index)


def test_killed_worker_is_named_with_its_file(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"a data worker was killed .*; the last file that it read: {photos}/red/003"):
        module(Deadly(str(photos)), tmp_path, num_workers=1).train_dataloader()


def test_cache_that_is_removed_while_it_is_filled_is_an_error(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emptied(folder: Path, *more: Any) -> Any:
        result = fill(folder, *more)
        shutil.rmtree(folder)
        return result

    monkeypatch.setattr("imgcls.data.pixel_cache.cached_split.fill", emptied)
    with pytest.raises(RunError, match=rf"cache: {tmp_path}/pixels/\w+ was removed while it was filled; run the"):
        module(str(photos), tmp_path).train_dataloader()


def test_cached_split_says_why_an_image_cannot_be_read(photos: Path, tmp_path: Path) -> None:
    split = Split(FolderImageDataset(str(photos)), None)
    reader = Reader(tmp_path, cache_keys.image_names(split))
    kept = CachedSplit(split, reader, eval_steps(build_pipeline([], "eval")), {2: "is truncated"})
    with pytest.raises(ImageError, match=r"^/.*/blue/002\.png: is truncated$"):
        kept.read(2)


def test_step_that_fails_names_the_image(photos: Path, tmp_path: Path) -> None:
    specs = [item("CenterCrop", height=50, width=50), RESIZE]
    data = module(str(photos), tmp_path, eval=specs)
    with pytest.raises(ConfigError, match=r"augmentations\.eval\[0\] CenterCrop: fails on an image|eval: fails on /"):
        data.val_dataloader()


# -- the files


def write(folder: Path, images: int, start: int = 0) -> list[Pixels]:
    generator = np.random.default_rng(start)
    made = [generator.integers(0, 256, (3 + n, 5, 3), dtype=np.uint8) for n in range(start, start + images)]
    with Writer(folder) as writer:
        for name, image in zip(NAMES[start:], made, strict=False):
            writer.add(name, image)
    return made


@pytest.mark.parametrize(
    ("file", "harm", "left"),
    [
        (INDEX, lambda content: content[:-1], 2),
        (INDEX, lambda content: content + bytes(48), 3),
        (INDEX, lambda content: content[:48] + bytes(48) + content[96:], 1),
        (INDEX, lambda content: b"", 0),
        (PIXELS, lambda content: content[:-1], 2),
        (PIXELS, lambda content: content + b"torn", 3),
        (PIXELS, lambda content: b"", 0),
    ],
)
def test_images_count_as_far_as_both_files_are_whole(
    file: str, harm: Callable[[bytes], bytes], left: int, tmp_path: Path
) -> None:
    made = write(tmp_path, 3)
    (tmp_path / file).write_bytes(harm((tmp_path / file).read_bytes()))
    assert Reader(tmp_path, NAMES[:3]).missing == list(range(left, 3))
    made = made[:left] + write(tmp_path, 3 - left + 2, start=left)
    reader = Reader(tmp_path, NAMES[:5])
    assert reader.missing == []
    for place, image in enumerate(made):
        np.testing.assert_array_equal(reader.read(place), image)
    assert reader.nbytes == (tmp_path / PIXELS).stat().st_size == sum(image.nbytes for image in made)


def test_reader_stays_good_while_others_write(tmp_path: Path) -> None:
    (first,) = write(tmp_path, 1)
    reader = Reader(tmp_path, NAMES[:1])
    write(tmp_path, 3, start=1)
    shutil.rmtree(tmp_path)
    np.testing.assert_array_equal(reader.read(0), first)


# -- keys


def test_cache_folder_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("IMGCLS_CACHE", "/scratch")
    assert cache_folder("~/mine") == Path("/home/somebody/mine")
    assert cache_folder() == Path("/scratch")
    monkeypatch.delenv("IMGCLS_CACHE")
    assert cache_folder() == Path("/home/somebody/.cache/imgcls")


def test_cache_size_says_when_it_has_no_effect(said: pytest.LogCaptureFixture) -> None:
    ImageDataModule(cache_size=3)  # auto may build a cache
    ImageDataModule(cache_size=3, create_dataset=False)
    assert said.messages == ["data.init_args.cache_size: 3 has no effect with create_dataset: false"]
    with pytest.raises(ConfigError, match="cache_size must be at least 1, or null, got 0"):
        ImageDataModule(cache_size=0, create_dataset=True)


def test_fast_dev_run_leaves_the_cache_alone(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--data.create_dataset=true", f"--data.cache_dir={tmp_path / 'cache'}", "--trainer.fast_dev_run=true"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    assert "cache: train: not used" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
