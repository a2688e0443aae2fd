"""Where each loss is least: found numerically, and compared with what the docstrings say."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import one_hot

from imgcls.cli.main import main
from imgcls.models.training.losses import (
    LossConfig,
    MixConfig,
    MultilabelLoss,
    TrainingLoss,
    balanced_weights,
    make_mixer,
)
from tests.helpers.runs import arguments

COUNTS = {"5:1": [50, 10], "19:1": [190, 10], "40:1": [400, 10], "10 classes": [100] * 9 + [1]}
OPTIONS = list(product([0.0, 0.1], [0.0, 2.0]))


def least(loss: Callable[[Tensor], Tensor], classes: int) -> Tensor:
    """The logits where a loss of ``(1, classes)`` logits is least, from 0 on."""
    logits = torch.zeros(1, classes, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9, tolerance_change=0
    )

    def step() -> float:
        search.zero_grad()
        value = loss(logits)
        torch.autograd.backward(value)
        return float(value.detach())

    search.step(step)  # type: ignore[no-untyped-call]
    return logits.detach()[0]


def softmax(logits: Tensor) -> Tensor:
    return torch.softmax(logits, 0)


def expected(kind: TrainingLoss, probabilities: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss that is to be expected of an image whose class has those probabilities."""
    labels = torch.eye(len(probabilities), dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        return torch.stack([kind(logits, label[None]) for label in labels]) @ probabilities

    return loss


def images(classes: int) -> dict[str, Tensor]:
    """Probabilities of the class of an image: a sure one of the first class, of the last, and a doubtful one."""
    eye = torch.eye(classes, dtype=torch.float64)
    doubtful = 0.6 * eye[0] + 0.1 * eye[-1] + 0.3 / classes
    return {"first": eye[0], "last": eye[-1], "doubtful": doubtful}


@pytest.mark.parametrize(("smoothing", "gamma"), OPTIONS)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_optimum_of_an_images_class(counts: list[int], smoothing: float, gamma: float) -> None:
    weights = balanced_weights(counts).double()
    loss = TrainingLoss(LossConfig(smoothing, "auto", gamma), weights)
    for name, probabilities in images(len(counts)).items():
        weighted = weights * probabilities / (weights * probabilities).sum()
        target = (1 - smoothing) * weighted + smoothing / len(counts)
        found = softmax(least(expected(loss, probabilities), len(counts)))
        if gamma:
            higher = target[:, None] > target + 1e-9
            assert (found[:, None] > found)[higher].all(), (name, target, found)
            assert found.max() <= target.max() + 2e-3
        else:
            torch.testing.assert_close(found, target, atol=2e-3, rtol=0)
        if target.max() == 1:
            assert found.max() > 0.98, (name, found)


def test_optimum_of_the_smoothed_focal_loss_of_two_classes() -> None:
    loss = TrainingLoss(LossConfig(0.1, None, 2.0))
    found = softmax(least(expected(loss, torch.tensor([1.0, 0.0]).double()), 2))
    assert float(found[0]) == pytest.approx(0.75, abs=0.005)


@pytest.mark.parametrize(("smoothing", "gamma"), OPTIONS)
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("kind", [TrainingLoss, MultilabelLoss])
def test_weights_leave_the_optimum_of_a_mixture(
    kind: type[TrainingLoss], counts: list[int], smoothing: float, gamma: float
) -> None:
    classes = len(counts)
    shares = 0.7 * one_hot(torch.tensor([0]), classes).double() + 0.3 * one_hot(torch.tensor([classes - 1]), classes)
    weighted = kind(LossConfig(smoothing, "auto", gamma), balanced_weights(counts).double())
    plain = kind(LossConfig(smoothing, None, gamma))
    link = softmax if kind is TrainingLoss else torch.sigmoid
    found, without = (link(least(lambda z, k=one: k(z, shares), classes)) for one in (weighted, plain))  # type: ignore[misc]
    torch.testing.assert_close(found, without, atol=2e-3, rtol=0)
    if not gamma:
        target = (1 - smoothing) * shares[0] + smoothing / (classes if kind is TrainingLoss else 2)
        torch.testing.assert_close(found, target, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("smoothing", "gamma"), OPTIONS)
@pytest.mark.parametrize("weight", [0.5, 1.0, 33.0])
@pytest.mark.parametrize("probability", [0.0, 0.03, 0.4, 1.0])
def test_optimum_of_one_of_several_labels(weight: float, probability: float, smoothing: float, gamma: float) -> None:
    loss = MultilabelLoss(LossConfig(smoothing, [weight], gamma), torch.tensor([weight]).double())
    yes, no = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    found = torch.sigmoid(least(lambda z: probability * loss(z, yes) + (1 - probability) * loss(z, no), 1))
    weighted = weight * probability / (weight * probability + 1 - probability)
    target = (1 - smoothing) * weighted + smoothing / 2
    if gamma:
        assert (found > 0.5) == (target > 0.5)
    else:
        assert float(found) == pytest.approx(target, abs=2e-3)


@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.1, 0.0), (0.0, 2.0)])
def test_each_of_several_labels_is_a_choice_of_two_classes(smoothing: float, gamma: float) -> None:
    torch.manual_seed(0)
    logits, shares = 3 * torch.randn(8, 1), torch.rand(8, 1).round(decimals=0 if gamma else 1)
    several = MultilabelLoss(LossConfig(smoothing, [5.0], gamma), torch.tensor([5.0]))
    two = TrainingLoss(LossConfig(smoothing, [1.0, 5.0], gamma), torch.tensor([1.0, 5.0]))
    same = two(torch.cat([torch.zeros(8, 1), logits], 1), torch.cat([1 - shares, shares], 1))
    torch.testing.assert_close(several(logits, shares), same, rtol=1e-5, atol=1e-6)


def fitted_accuracy(loss: TrainingLoss, counts: list[int], mixes: MixConfig) -> float:
    """Accuracy on balanced images of a linear model that is fitted to separable ones, by full batches."""
    torch.manual_seed(0)
    classes, multilabel = len(counts), isinstance(loss, MultilabelLoss)
    labels = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    seen, new = (2 * one_hot(label, classes) + 0.1 * torch.randn(len(label), classes) for label in (labels, labels))
    model = torch.nn.Linear(classes, classes)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    mixer = make_mixer(mixes, classes) if mixes.mixes else None
    for _ in range(250):
        target = one_hot(labels, classes).float() if multilabel else labels
        features = seen
        if mixer is not None:
            features, target = mixer(seen[:, None, None], target)
            features = features[:, 0, 0]
        optimizer.zero_grad()
        torch.autograd.backward(loss(model(features), target))
        optimizer.step()
    logits = model(new)
    right = (logits > 0) == one_hot(labels, classes) if multilabel else logits.argmax(1) == labels
    return float(right.float().mean())


@pytest.mark.parametrize(("smoothing", "gamma"), OPTIONS)
@pytest.mark.parametrize("mixup", [0.0, 0.2])
@pytest.mark.parametrize("kind", [TrainingLoss, MultilabelLoss])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_separable_classes_are_told_apart(
    counts: list[int], kind: type[TrainingLoss], mixup: float, smoothing: float, gamma: float
) -> None:
    loss = kind(LossConfig(smoothing, "auto", gamma), balanced_weights(counts))
    assert fitted_accuracy(loss, counts, MixConfig(mixup=mixup)) == 1.0


def write_colours(root: Path, counts: list[int], seed: int) -> Path:
    """Class folders of noisy pictures, of colours on a circle: told apart by each pixel, none a mixture of others."""
    generator = np.random.default_rng(seed)
    for number, count in enumerate(counts):
        turn = 2 * np.pi * (number / len(counts) + np.arange(3) / 3)
        colour = 128 + 80 * np.cos(turn)
        (root / f"class_{number}").mkdir(parents=True)
        for place in range(count):
            pixels = generator.normal(colour, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class_{number}" / f"{place:03d}.png")
    return root


def accuracy_of_fit(counts: list[int], model: Path, out: Path, *options: str) -> float:
    """Accuracy on as many new images of each class, by the real entry point."""
    train = write_colours(out / "train", counts, seed=0)
    test = write_colours(out / "test", [5] * len(counts), seed=1)
    epochs = max(8, 3000 // sum(counts))
    more = ["--data.batch_size=16", f"--trainer.max_epochs={epochs}", f"--data.dataset_classes.test={test}", *options]
    main(["fit", *arguments(train, model, out, "--model.loss_config.class_weights=auto", *more)])
    results = json.loads((out / "run/version_0/results.json").read_text())
    return float(results["test_accuracy"])


def test_weights_beside_the_default_smoothing_teach_the_right_class(tiny_model: Path, tmp_path: Path) -> None:
    assert accuracy_of_fit([400, 10], tiny_model, tmp_path) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [
        "--model.loss_config.label_smoothing=0",
        "--model.loss_config.label_smoothing=0.1",
        "--model.loss_config.focal_gamma=2",
        "--model.mix_config.mixup=0.2",
    ],
)
@pytest.mark.parametrize("counts", [[50, 10], [190, 10], [400, 10], [500] * 9 + [5]], ids=COUNTS)
def test_weights_beside_each_option_teach_the_right_class(
    counts: list[int], option: str, tiny_model: Path, tmp_path: Path
) -> None:
    assert accuracy_of_fit(counts, tiny_model, tmp_path, option) == 1.0
