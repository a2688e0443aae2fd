"""The resizes and crops of imgcls as steps of a list."""

from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as torchvision_on_pillow

import imgcls
from imgcls.config.class_path import Spec
from imgcls.data.transforms.build import build_pipeline
from imgcls.errors import ConfigError


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def item(name: str, /, **arguments: Any) -> Spec:
    return {"class_path": f"imgcls.{name}", "init_args": arguments}


@pytest.mark.parametrize(
    ("shape", "expected"), [((431, 640), (240, 356)), ((640, 431), (356, 240)), ((203, 812), (240, 960))]
)
def test_longer_side_is_truncated(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    assert imgcls.ResizeShortestEdge(240)(image=noise(*shape))["image"].shape == (*expected, 3)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 11), (11, 9), (20, 4), (5, 12), (13, 15)])
def test_crop_begins_where_that_of_the_library_does(height: int, width: int) -> None:
    for shape in ((11, 11), (12, 13), (14, 8), (7, 19)):
        pixels = noise(*shape)
        theirs = torchvision_on_pillow.center_crop(Image.fromarray(pixels), [height, width])
        result = imgcls.CenterCrop(height, width, "pillow")(image=pixels)["image"]
        np.testing.assert_array_equal(result, np.asarray(theirs))
        floored = imgcls.CenterCrop(height, width)(image=pixels)["image"]
        inside = pixels[max(shape[0] - height, 0) // 2 :, max(shape[1] - width, 0) // 2 :][:height, :width]
        top, left = max(height - shape[0], 0) // 2, max(width - shape[1], 0) // 2
        np.testing.assert_array_equal(floored[top : top + len(inside), left : left + inside.shape[1]], inside)
        assert floored.shape == (height, width, 3)
        assert floored.sum() == inside.sum()  # else zeros


def test_random_parts_are_those_of_albumentations() -> None:
    ours, theirs = imgcls.RandomResizedCrop([24, 32], (0.2, 0.7)), A.RandomResizedCrop([24, 32], (0.2, 0.7))  # type: ignore[arg-type]
    pixels = np.repeat(np.indices((300, 400)).sum(0)[..., None] // 3, 3, -1).astype(np.uint8)  # a ramp
    for seed in range(5):
        for transform in (ours, theirs):
            transform.set_random_seed(seed)
        result, expected = (np.asarray(each(image=pixels)["image"], dtype=int) for each in (ours, theirs))
        assert np.abs(result - expected).max() <= 3


def test_steps_can_be_written_read_replayed_and_composed() -> None:
    steps = [
        imgcls.ResizeShortestEdge(40, "bicubic"),
        imgcls.RandomResizedCrop((24, 32), kernel="pillow"),
        A.OneOf([imgcls.Resize(20, 22), imgcls.CenterCrop(20, 22)]),
    ]
    compose = A.ReplayCompose(steps)
    pixels = noise(90, 70)
    done = compose(image=pixels)
    np.testing.assert_array_equal(A.ReplayCompose.replay(done["replay"], image=pixels)["image"], done["image"])
    again = [A.from_dict(A.to_dict(step)) for step in steps[:2]]
    assert [repr(step) for step in again] == [repr(step) for step in steps[:2]]


def test_steps_follow_the_seed_alone() -> None:
    specs = [item("RandomResizedCrop", size=[24, 32]), {"class_path": "HorizontalFlip"}]
    pipeline = build_pipeline(specs, "train")
    assert not pipeline.is_foreign  # so that global generators are left alone
    results = [pipeline(noise(50, 60), seed).tobytes() for seed in (*range(5), *range(5))]
    assert results[:5] == results[5:]
    assert len(set(results)) == 5


WRONG = {
    "edge": (item("ResizeShortestEdge", edge=0), "edge: Input should be greater than or equal to 1"),
    "kernel": (item("Resize", height=3, width=3, kernel="cv"), "kernel: Input should be 'torchvision' or 'pillow'"),
    "interpolation": (
        item("Resize", height=3, width=3, interpolation=3),
        "interpolation: Input should be 'nearest', 'bilinear', 'bicubic' or 'lanczos'",
    ),
    "size": (item("RandomResizedCrop", size=[3, 0]), "size.1: Input should be greater than or equal to 1"),
    "scale": (item("RandomResizedCrop", size=[3, 3], scale=[0.5, 0.1]), "scale: Value error, First value should be"),
    "ratio": (item("RandomResizedCrop", size=[3, 3], ratio=[0, 1]), "ratio.0: Input should be greater than 0"),
    "argument": (item("CenterCrop", hight=3, width=3), "has no argument 'hight'; did you mean 'height'?"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_arguments_are_named(mistake: str) -> None:
    spec, message = WRONG[mistake]
    with pytest.raises(ConfigError) as caught:
        build_pipeline([spec], "eval")
    assert message in str(caught.value)


def test_a_resize_of_normalised_pixels_is_refused() -> None:
    specs = [{"class_path": "Normalize"}, item("Resize", height=8, width=8)]
    with pytest.raises(ConfigError, match=r"eval\[1\] imgcls.Resize: .*got float32 .*before albumentations.Normalize"):
        build_pipeline(specs, "eval").check(noise(20, 30))


class Resized(Dataset[NDArray[np.uint8]]):
    def __init__(self, interpolation: str) -> None:
        size: dict[str, Any] = {"height": 64, "width": 48, "interpolation": interpolation}
        self.pipeline = build_pipeline([item("Resize", **size)], "eval")

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.pipeline(noise(300, 400), index)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "lanczos"])
def test_forked_workers_resize_after_the_parent_has_used_its_threads(interpolation: str) -> None:
    data = Resized(interpolation)
    expected = data[0]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.rand(600, 600) @ torch.rand(600, 600)  # starts the threads that a fork does not copy
        loader: Any = DataLoader(data, batch_size=2, num_workers=2, timeout=60, multiprocessing_context="fork")
        batches = list(loader)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(torch.cat(batches).numpy(), np.stack([expected] * 4))
