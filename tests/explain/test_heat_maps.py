"""Heat maps of a network that was trained on squares, and of one that a map cannot be learnt for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from imgcls.explain.heat_maps import HeatMaps
from imgcls.explain.smooth_grad import SIDE as SMOOTH_SIDE
from imgcls.models.classifier import ImageClassifier
from tests.helpers.architectures import tiny_config

SIDE, SQUARE = 32, 12
STEPS = 150


def squares(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return noise with a red or green square each, uint8; the colour, 0 or 1; row and column of the square."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(60, 180, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 2, (count,), generator=generator)
    corners = torch.randint(0, SIDE - SQUARE + 1, (count, 2), generator=generator)
    for image, label, (row, column) in zip(images, labels, corners.tolist(), strict=True):
        image[:, row : row + SQUARE, column : column + SQUARE] = 30
        image[label, row : row + SQUARE, column : column + SQUARE] = 220
    return images, labels, corners


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ImageClassifier:
    folder = tmp_path_factory.mktemp("squares")
    torch.manual_seed(0)
    tiny_config("resnet").save_pretrained(folder)
    model = ImageClassifier(model_name=str(folder), pretrained=False)
    model.build(["red", "green"], image_size=(SIDE, SIDE))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(STEPS):
        images, labels, _ = squares(32, step)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return model.eval()


def test_peak_is_inside_the_square(trained: ImageClassifier) -> None:
    images, labels, corners = squares(200, 1000)
    with torch.no_grad():
        assert (trained(images).argmax(1) == labels).float().mean() > 0.95
    heat = torch.from_numpy(HeatMaps(trained).explain(images, labels.tolist()))
    assert (heat.shape[1:], float(heat.min()), float(heat.max())) == ((8, 8), 0, 1)
    peaks = heat.flatten(1).argmax(1)
    rows, columns = (peaks // 8 + 0.5) * SIDE / 8, (peaks % 8 + 0.5) * SIDE / 8
    inside = [(corners[:, axis] <= at) & (at <= corners[:, axis] + SQUARE) for axis, at in enumerate((rows, columns))]
    assert (inside[0] & inside[1]).float().mean() >= 0.95


def test_random_weights_give_another_map(trained: ImageClassifier, tmp_path: Path) -> None:
    """Sanity check of Adebayo et al. 2018: a map that stays the same does not show what the network has learnt."""
    images, labels, _ = squares(50, 2000)
    before = HeatMaps(trained).explain(images, labels.tolist())
    tiny_config("resnet").save_pretrained(tmp_path)
    found = []
    for seed in range(3):
        torch.manual_seed(seed + 1)
        other = ImageClassifier(model_name=str(tmp_path), pretrained=False)
        other.build(["red", "green"], image_size=(SIDE, SIDE))
        after = HeatMaps(other).explain(images, labels.tolist())
        found += [
            spearmanr(*pair).statistic for pair in zip(before.reshape(50, -1), after.reshape(50, -1), strict=True)
        ]
    assert abs(np.nanmean(found)) < 0.3


def test_against_is_the_difference_of_both_classes(trained: ImageClassifier) -> None:
    images, labels, _ = squares(8, 3000)
    maps = HeatMaps(trained)
    with_other = maps.explain(images, labels.tolist(), [None, *(1 - labels[1:]).tolist()])
    alone = maps.explain(images, labels.tolist())
    assert np.array_equal(with_other[0], alone[0])
    both = torch.stack(
        [maps._scores(maps.layer((SIDE, SIDE)), images, maps._weights([each] * 8, [None] * 8)) for each in (0, 1)]
    )
    row = torch.arange(8)
    difference = both[labels, row] - both[1 - labels, row]
    direct = maps._scores(maps.layer((SIDE, SIDE)), images, maps._weights(labels.tolist(), (1 - labels).tolist()))
    torch.testing.assert_close(direct, difference, rtol=1e-4, atol=1e-6)


def test_frozen_network_has_maps_and_keeps_its_modes(trained: ImageClassifier) -> None:
    images, labels, _ = squares(4, 4000)
    expected = HeatMaps(trained).explain(images, labels.tolist())
    trained.built().freeze(True)
    trained.train()
    modes = [module.training for module in trained.modules()]
    with torch.inference_mode():
        frozen = HeatMaps(trained).explain(images, labels.tolist())
    assert [module.training for module in trained.modules()] == modes
    trained.built().freeze(False)
    trained.eval()
    np.testing.assert_allclose(frozen, expected, atol=1e-5)


def test_pixels_where_no_tensor_passes(trained: ImageClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgcls.explain.heat_maps.find_layer", lambda *_: None)
    images, labels, corners = squares(100, 5000)
    heat = torch.from_numpy(HeatMaps(trained).explain(images, labels.tolist()))
    assert heat.shape == (100, SMOOTH_SIDE, SMOOTH_SIDE)
    scale = SIDE / SMOOTH_SIDE
    peaks = heat.flatten(1).argmax(1)
    at = torch.stack([peaks // SMOOTH_SIDE, peaks % SMOOTH_SIDE], 1).add(0.5) * scale
    assert ((corners - scale <= at) & (at <= corners + SQUARE + scale)).all(1).float().mean() > 0.9
