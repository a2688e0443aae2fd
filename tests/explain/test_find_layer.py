"""The layer and its grid, found in every architecture: a planted patch is where the heat map says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from imgcls.explain.find_layer import Layer
from imgcls.explain.grid import Grid, layouts_of
from imgcls.explain.heat_maps import HeatMaps
from imgcls.explain.module_output import replaced
from imgcls.models.classifier import ImageClassifier
from tests.helpers.architectures import TINY, tiny_config

CELLS = 4  # a patch covers a cell of 4 x 4
SPOTS = [(0, 0), (0, 3), (1, 2), (2, 1), (3, 3)]
PREFIXES = {"beit": 1, "clip": 1, "deit": 2, "dinov2": 1, "dinov2_with_registers": 5, "ijepa": 0, "siglip": 0, "vit": 1}


class Reader(ImageClassifier):
    """Has a head that reads the grid cells of a layer, by a direction in its channels."""

    layer: Layer
    direction: Tensor

    def values(self, images: Tensor) -> Tensor:
        """The cells of the layer, ``(B, cells, channels)``."""
        kept: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            kept.append(tensor)
            return tensor

        with replaced(self.built().network.get_submodule(self.layer.name), self.layer.call, keep):
            self.encode(images)
        return self.layer.grid.of(kept[0])

    def forward(self, images: Tensor) -> Tensor:
        logit = (self.values(images) @ self.direction).sum(1)
        return torch.stack([logit, -logit], 1)


def tiny(model_type: str, folder: Path, kind: type[ImageClassifier] = ImageClassifier) -> ImageClassifier:
    torch.manual_seed(0)
    tiny_config(model_type).save_pretrained(folder)
    model = kind(model_name=str(folder), pretrained=False)
    model.build(["patch", "none"], image_size=(TINY[model_type].size,) * 2)
    return model


def planted(side: int) -> Tensor:
    """Return grey pictures with a patch of noise at each of the spots."""
    patch = side // CELLS
    noise = torch.randint(0, 256, (3, patch, patch), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    pictures = torch.full((len(SPOTS), 3, side, side), 128, dtype=torch.uint8)
    for picture, (row, column) in zip(pictures, SPOTS, strict=True):
        picture[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = noise
    return pictures


def within(layer: Layer, row: int, column: int) -> Tensor:
    """Return which cells of a layer are within the patch at a spot, ``(cells,)``, 0 or 1."""
    rows, columns = (torch.arange(side) * CELLS // side for side in (layer.grid.height, layer.grid.width))
    return ((rows[:, None] == row) & (columns[None] == column)).flatten().float()


def distance(heat: Tensor, spot: tuple[int, int]) -> float:
    """Return how far the hottest cell is from the patch, in cells of the heat map."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    found = ((row + 0.5) / heat.shape[0], (column + 0.5) / heat.shape[1])
    beyond = [max(first / CELLS - at, at - (first + 1) / CELLS, 0.0) for at, first in zip(found, spot, strict=True)]
    return max(beyond) * heat.shape[0]


@pytest.mark.parametrize("model_type", TINY)
def test_peak_is_within_a_cell_of_a_planted_patch(model_type: str, tmp_path: Path) -> None:
    reader = tiny(model_type, tmp_path, Reader)
    assert isinstance(reader, Reader)
    side = TINY[model_type].size
    maps = HeatMaps(tiny(model_type, tmp_path))
    layer = maps.layer((side, side))
    assert layer is not None
    assert layer.grid.prefix == PREFIXES.get(model_type, layer.grid.prefix)
    assert maps.explain(planted(side), [0] * len(SPOTS)).max() <= 1

    reader.layer = layer
    pictures = planted(side)
    with torch.no_grad():
        values = reader.eval().values(torch.cat([pictures, pictures.flip(-1)])).flatten(0, 1)
    inside = torch.stack([within(layer, *spot) for spot in (*SPOTS, *((row, CELLS - 1 - at) for row, at in SPOTS))])
    square = values.T @ values
    shrinkage = 1e-4 * square.diagonal().mean() * torch.eye(len(square))
    reader.direction = torch.linalg.solve(square + shrinkage, values.T @ inside.flatten())
    reading = HeatMaps(reader)
    reading._layers[side, side] = layer
    heat = torch.from_numpy(reading.explain(pictures, [0] * len(SPOTS)))
    assert heat.isfinite().all()
    assert [distance(*pair) <= 1 for pair in zip(heat, SPOTS, strict=True)] == [True] * len(SPOTS)


def test_grids_of_a_tensor() -> None:
    assert layouts_of(torch.Size([1, 197, 8]), (224, 224)) == {"tokens": [Grid("tokens", 1, 14, 14)]}
    assert layouts_of(torch.Size([1, 8, 7, 7]), (224, 224)) == {"channels first": [Grid("channels first", 0, 7, 7)]}
    assert layouts_of(torch.Size([1, 7, 7, 8]), (224, 224)) == {"channels last": [Grid("channels last", 0, 7, 7)]}
    [wide] = layouts_of(torch.Size([1, 8, 7, 14]), (224, 448))["channels first"]
    assert (wide.height, wide.width) == (7, 14)
    assert layouts_of(torch.Size([1, 8, 3, 3]), (96, 96)) == {}, "a map of 3 x 3 says nothing"
    assert layouts_of(torch.Size([1, 512]), (224, 224)) == {}
