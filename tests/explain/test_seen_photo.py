"""Where the network's input lies in a photo, and the drawing."""

from collections.abc import Callable
from typing import Any

import albumentations as A
import numpy as np
import pytest

from imgcls.data.transforms.build import build_pipeline
from imgcls.data.transforms.model_transforms import eval_specs
from imgcls.explain.overlay import overlay, panel_scale, side_by_side
from imgcls.explain.seen_photo import measure_frame, place, scaled, to_pixels
from imgcls.images import Pixels
from imgcls.types import Preprocessing

PREPROCESSING = Preprocessing()


def frame_of(transform: Callable[[Pixels], Any], height: int, width: int) -> Any:
    return measure_frame(transform, height, width, PREPROCESSING)


@pytest.mark.parametrize("kernel", ["torchvision", "pillow", "opencv"])
def test_frame_of_resize_and_crop(kernel: Any) -> None:
    pipeline = build_pipeline(eval_specs(Preprocessing(kernel=kernel)), "eval")
    frame = frame_of(lambda image: pipeline(image, 0), 600, 1000)
    edge, crop = 256, 224
    scale = 600 / edge
    left, top = (1000 / scale - crop) / 2 * scale, (edge - crop) / 2 * scale
    corners = frame @ [[-0.5, crop - 0.5], [-0.5, crop - 0.5], [1, 1]] + 0.5
    assert corners[0] == pytest.approx([left, left + crop * scale], abs=3)
    assert corners[1] == pytest.approx([top, top + crop * scale], abs=3)


def test_frame_of_padding_flip_and_normalised_floats() -> None:
    padded = A.Compose([A.HorizontalFlip(p=1), A.PadIfNeeded(64, 64), A.Normalize()])
    frame = frame_of(lambda image: padded(image=image)["image"], 40, 40)
    assert frame @ [12, 12, 1] == pytest.approx([39, 0], abs=0.5)  # after a border of 12 pixels
    assert frame @ [51, 51, 1] == pytest.approx([0, 39], abs=0.5)


def test_no_frame_where_colours_change_or_the_photo_is_bent() -> None:
    assert frame_of(lambda image: image[..., ::-1], 40, 40) is None
    assert frame_of(lambda image: np.repeat(image[..., :1], 3, axis=2), 40, 40) is None
    assert frame_of(lambda image: image[np.r_[0:20, 39:19:-1]], 40, 40) is None


def test_heat_lies_where_the_network_sees_it() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1
    frame = np.array([[2.0, 0, 20.5], [0, 2.0, 10.5]])  # the input is 32 x 32, and begins at row 10, column 20
    placed = place(heat, (32, 32), frame, 100, 100)
    assert np.isnan(placed[:9]).all()
    assert np.isnan(placed[:, :19]).all()
    assert np.isnan(placed[75:]).all()
    row, column = np.unravel_index(np.nanargmax(placed), placed.shape)
    assert 10 <= row < 26
    assert 68 <= column < 84
    half = place(heat, (32, 32), scaled(frame, 0.5), 50, 50)
    assert np.nanmean(np.abs(half - placed[::2, ::2])) < 0.02


def test_input_as_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert to_pixels(image, PREPROCESSING) is image
    assert np.array_equal(to_pixels(A.Normalize()(image=image)["image"], PREPROCESSING), image)


@pytest.mark.parametrize("brightness", [0, 30, 230, 255])
def test_heat_shows_on_dark_and_bright_photos(brightness: int) -> None:
    photo = np.full((100, 100, 3), brightness, np.uint8)
    heat = np.zeros((100, 100), np.float32)
    heat[:40] = 1
    heat[90:] = np.nan
    drawn = overlay(photo, heat).astype(int)
    assert drawn.shape == photo.shape
    assert np.abs(drawn[20, 50] - drawn[70, 50]).max() > 40, "hot differs from cold"
    assert drawn[95, 50].max() < drawn[70, 50].max() / 2, "unseen is dark"
    assert np.ptp(drawn[70, 50]) == 0, "cold is grey"


def test_panel_has_both_pictures_below_the_title() -> None:
    photo = np.full((300, 200, 3), 90, np.uint8)
    panel = side_by_side(photo, np.full_like(photo, 200), "a short title\nof two lines")
    pixels = np.asarray(panel)
    assert [(pixels == value).all(axis=2).sum() >= 60_000 for value in (90, 200)] == [True, True]
    assert (panel_scale(3000, 4000), panel_scale(8, 8), panel_scale(300, 300)) == (0.2, 28, 1)
