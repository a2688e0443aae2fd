"""The size that a list needs of its input."""

from typing import Any

import pytest

from imgcls.config.class_path import Spec
from imgcls.data.transforms.build import build_pipeline
from imgcls.data.transforms.needed_size import needed_side
from imgcls.data.transforms.presets import Preset, preset_specs
from imgcls.types import Preprocessing


def item(class_path: str, /, **init_args: Any) -> Spec:
    return {"class_path": class_path, "init_args": init_args}


@pytest.mark.parametrize(
    ("specs", "side"),
    [
        ([item("RandomResizedCrop", size=[224, 224])], 792),  # 224 / sqrt(0.08)
        ([item("imgcls.RandomResizedCrop", size=[20, 16], scale=[0.25, 1.0])], 40),
        ([item("RandomResizedCrop", size=[20, 16], scale=[0.0, 1.0])], None),
        ([item("RandomResizedCrop", size=[20, 16], p=0.5), item("Resize", height=8, width=8)], None),
        ([item("imgcls.ResizeShortestEdge", edge=240), item("imgcls.CenterCrop", height=224, width=224)], 480),
        ([item("SmallestMaxSize", max_size=256)], 512),
        ([item("SmallestMaxSize", max_size=[256, 300])], None),
        ([item("imgcls.Resize", height=32, width=48)], 96),
        ([item("Resize", height=48, width=32), item("HorizontalFlip")], 96),
        ([item("HorizontalFlip"), item("Resize", height=48, width=32)], None),
        ([item("CenterCrop", height=100, width=100)], None),
        ([item("RandomCrop", height=100, width=100)], None),
    ],
)
def test_needed_side(specs: list[Spec], side: int | None) -> None:
    assert needed_side(build_pipeline(specs, "list")) == side


@pytest.mark.parametrize(("preset", "side"), [("light", 448), ("medium", 448), ("strong", 579)])
def test_presets(preset: Preset, side: int) -> None:
    assert needed_side(build_pipeline(preset_specs(preset, Preprocessing()), "list")) == side
