"""The graph's resizes and crops: every value of the libraries, on images of many sizes."""

from typing import Any, get_args

import numpy as np
import pytest
import torch

from imgcls.config.class_path import Spec
from imgcls.data.transforms.build import build_pipeline
from imgcls.errors import ConfigError
from imgcls.export.pixel_graph import PixelGraph
from imgcls.export.pixel_steps import read_steps
from imgcls.images import Pixels
from imgcls.images.resize import Interpolation, Kernel

# larger and smaller than the result, narrow, so tall that Pillow resizes the rows first, and of one pixel
SIZES = [(97, 61), (61, 97), (20, 31), (240, 100), (450, 90), (57, 300), (1, 9), (48, 48)]


def image(height: int, width: int, sharp: bool = False) -> Pixels:
    """Noise; sharp: of black and white pixels, at which cubic filters overshoot."""
    noise = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(noise > 127, 255, 0).astype(np.uint8) if sharp else noise


def spec(name: str, **arguments: Any) -> Spec:
    return {"class_path": name if "." in name else f"albumentations.{name}", "init_args": arguments}


def differing(specs: list[Spec], size: tuple[int, int], sizes: list[tuple[int, int]] = SIZES) -> list[tuple[int, int]]:
    """The image sizes at which a value differs between the graph and the transforms of the program."""
    pipeline, graph = build_pipeline(specs, "eval"), PixelGraph(read_steps(specs), size)
    wrong = []
    for number, (height, width) in enumerate(sizes):
        pixels = image(height, width, sharp=number % 2 == 1)
        found = graph(torch.from_numpy(pixels))
        assert found.shape == (1, 3, *size)
        if not np.array_equal(found[0].permute(1, 2, 0).numpy(), pipeline(pixels, 0)):
            wrong.append((height, width))
    return wrong


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_resize_and_crop_equal_the_library_in_every_value(kernel: str, interpolation: str) -> None:
    how = {"interpolation": interpolation, "kernel": kernel}
    edge = spec("imgcls.ResizeShortestEdge", edge=51, **how)
    assert differing([edge, spec("imgcls.CenterCrop", height=48, width=48, kernel=kernel)], (48, 48)) == []
    assert differing([edge, spec("imgcls.CenterCrop", height=60, width=33, kernel=kernel)], (60, 33)) == []
    assert differing([spec("imgcls.Resize", height=37, width=52, **how)], (37, 52)) == []


def test_crops_and_padding_of_albumentations_are_exact() -> None:
    resize = spec("imgcls.Resize", height=50, width=41)
    crop = spec("CenterCrop", height=32, width=32)
    assert differing([resize, crop], (32, 32)) == []
    assert differing([spec("CenterCrop", height=64, width=64, pad_if_needed=True, fill=[9, 8, 7])], (64, 64)) == []
    box = spec("Crop", x_min=3, y_min=5, x_max=40, y_max=33)
    assert differing([resize, box, spec("Pad", padding=[1, 2, 3, 4], fill=200)], (34, 41)) == []
    assert differing([resize, crop, spec("imgcls.Resize", height=40, width=40, kernel="pillow")], (40, 40)) == []
    fill = [spec("Pad", padding=4, fill=255), spec("Pad", padding=2, fill=0)]
    assert differing([resize, *fill], (62, 53)) == []
    for position in ("center", "top_left", "top_right", "bottom_left", "bottom_right"):
        pad = spec("PadIfNeeded", min_height=63, min_width=70, position=position)
        assert differing([resize, pad], (63, 70), SIZES[:2]) == []


def test_a_window_over_padding_shows_padding_and_not_what_was_cut_off() -> None:
    steps = [spec("Crop", x_min=10, y_min=10, x_max=20, y_max=20), spec("Pad", padding=10)]
    assert differing(steps, (30, 30), [(40, 40), (21, 90)]) == []


def test_normalisation_is_left_to_the_network() -> None:
    pytorch = spec("albumentations.pytorch.ToTensorV2")
    assert len(read_steps([spec("imgcls.Resize", height=8, width=8), spec("Normalize"), pytorch])) == 1


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (spec("CLAHE", p=1.0), "albumentations.CLAHE: is not a resize"),
        (spec("Resize", height=8, width=8, p=0.5), "albumentations.Resize: is random, with p 0.5"),
        (spec("Pad", padding=3, border_mode=4), "albumentations.Pad: pads with pixels of the image"),
        (spec("PadIfNeeded", min_height=9, min_width=9, position="random"), "has position 'random'"),
        (spec("Normalize", normalization="image"), "has normalization 'image'"),
    ],
)
def test_a_step_without_an_exact_form_is_refused_by_name(step: Spec, reason: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_steps([spec("NoOp", p=1), step])
    assert f"data.init_args.augmentations.eval[1] {step['class_path']}" in str(refused.value)
    assert reason in str(refused.value)
    assert "--from_network_input" in str(refused.value)


def test_a_step_after_normalize_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"eval\[1\] albumentations.CenterCrop: follows albumentations.Normalize"):
        read_steps([spec("Normalize"), spec("CenterCrop", height=8, width=8)])
