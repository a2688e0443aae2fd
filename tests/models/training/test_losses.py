"""What the training minimises."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot
from torchvision.ops import sigmoid_focal_loss

import imgcls
from imgcls.cli.main import main
from imgcls.models.training.losses import (
    LossConfig,
    MixConfig,
    MultilabelLoss,
    TrainingLoss,
    balanced_weights,
    make_mixer,
)
from imgcls.types import Batch
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments, fails, weights

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
LABEL = torch.tensor([0, 2])
PROBS = torch.softmax(LOGITS, 1)[[0, 1], LABEL]


def test_loss_without_options_is_the_cross_entropy_of_smoothed_labels() -> None:
    smoothed = cross_entropy(LOGITS, LABEL, label_smoothing=0.1)
    assert torch.equal(TrainingLoss(LossConfig())(LOGITS, LABEL), smoothed)
    assert torch.equal(TrainingLoss(LossConfig(label_smoothing=0))(LOGITS, LABEL), cross_entropy(LOGITS, LABEL))


def test_several_labels_and_the_focal_loss_are_smoothed_only_where_that_is_asked_for() -> None:
    several = MultilabelLoss(LossConfig())
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert torch.equal(several(LOGITS, target), binary_cross_entropy_with_logits(LOGITS, target))
    smoothed = MultilabelLoss(LossConfig(label_smoothing=0.2))
    plain = binary_cross_entropy_with_logits(LOGITS, target * 0.8 + 0.1)
    assert torch.equal(smoothed(LOGITS, target), plain)
    assert TrainingLoss(LossConfig(focal_gamma=1.0)).smoothing == 0


def test_class_weights_multiply_each_images_loss() -> None:
    loss = TrainingLoss(LossConfig(0, class_weights=[1.0, 2.0, 3.0]), torch.tensor([1.0, 2.0, 3.0]))
    assert loss(LOGITS, LABEL) == pytest.approx(float((-PROBS.log() * torch.tensor([1, 3])).mean()))


def test_focal_loss_turns_to_what_is_still_wrong() -> None:
    loss = TrainingLoss(LossConfig(focal_gamma=2.0))
    assert loss(LOGITS, LABEL) == pytest.approx(float((-((1 - PROBS) ** 2) * PROBS.log()).mean()))


@pytest.mark.parametrize("kind", [TrainingLoss, MultilabelLoss])
def test_focal_loss_has_a_gradient_where_an_image_is_certain(kind: type[TrainingLoss]) -> None:
    logits = torch.tensor([[40.0, -40.0, -40.0]], requires_grad=True)
    loss = kind(LossConfig(focal_gamma=0.5))(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    [gradient] = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()


def test_focal_loss_of_several_labels_is_torchvisions() -> None:
    target = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.3, 1.0]])
    ours = MultilabelLoss(LossConfig(focal_gamma=2.0))(LOGITS, target)
    assert torch.allclose(ours, sigmoid_focal_loss(LOGITS, target, alpha=-1, gamma=2.0, reduction="mean"))


def test_focal_loss_smooths_labels_and_takes_shares() -> None:
    almost = TrainingLoss(LossConfig(focal_gamma=1e-6, label_smoothing=0.1))
    assert almost(LOGITS, LABEL) == pytest.approx(float(cross_entropy(LOGITS, LABEL, label_smoothing=0.1)), rel=1e-5)
    shares = torch.nn.functional.one_hot(LABEL, 3).float()
    assert torch.equal(almost(LOGITS, shares), almost(LOGITS, LABEL))


def test_balanced_weights_count_classes_alike() -> None:
    counts = [30, 10, 20]
    found = balanced_weights(counts)
    assert (found * torch.tensor(counts)).tolist() == pytest.approx([20, 20, 20])


@pytest.mark.parametrize("config", [MixConfig(mixup=1.0), MixConfig(cutmix=1.0)])
def test_targets_are_mixed_as_the_images_are(config: MixConfig) -> None:
    images = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 3, 10, 10)  # all pixels of an image are its label
    torch.manual_seed(1)
    mixed, shares = make_mixer(config, 3)(images, torch.arange(3))
    assert mixed.mean((1, 2, 3)).tolist() == pytest.approx((shares @ torch.arange(3.0)).tolist(), abs=1e-5)
    assert 0.01 < shares.max() < 0.99


def test_some_batches_are_left_alone() -> None:
    mixer = make_mixer(MixConfig(mixup=1.0, cutmix=1.0, probability=0.5), 3)
    torch.manual_seed(0)
    mixed = [mixer(torch.rand(2, 3, 8, 8), torch.arange(2))[1].ndim == 2 for _ in range(200)]
    assert 70 < sum(mixed) < 130


class Oracle(imgcls.ImageClassifier):
    """Sees images that are all of their label's number, or shares of two; says what they have most of."""

    def normalize(self, images: Tensor) -> Tensor:
        return images

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 0, 0]


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_mixtures_count_as_what_they_have_most_of(multilabel: bool, probability: float) -> None:
    config = MixConfig(mixup=1.0, probability=probability)
    oracle = Oracle(mix_config=config)
    oracle.thresholds = [0.5] * 3 if multilabel else None
    loss = MultilabelLoss(LossConfig()) if multilabel else TrainingLoss(LossConfig())
    oracle._objective = loss, make_mixer(config, 3)
    label = torch.arange(24) % 3
    dtype = torch.bfloat16 if multilabel else torch.int64
    rows = one_hot(label, 3).float()
    batch: Batch = {  # type: ignore[typeddict-item]
        "image": rows[:, :, None, None],
        "label": rows.to(dtype) if multilabel else label,
    }
    torch.manual_seed(0)
    for _ in range(10):
        found = oracle.training_step(batch, 0)
        assert found is not None
        logits, scored = found["logits"], found["label"]
        assert scored.dtype == dtype
        assert torch.equal(scored, (logits >= 0.5).to(dtype) if multilabel else logits.argmax(1))


OPTIONS = (
    "--model.loss_config.label_smoothing=0.2",
    "--model.loss_config.class_weights=auto",
    "--model.loss_config.class_weights=[1.0, 2.0, 3.0]",
    "--model.loss_config.focal_gamma=2",
    "--model.mix_config.mixup=0.5",
    "--model.mix_config.cutmix=1.0",
    "--data.balanced_sampling=true",
    "--data.augmentations.train=medium",
    "--data.augmentations.train=strong",
)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 20, 20 and 8 images."""
    root = write_class_folders(tmp_path_factory.mktemp("uneven") / "train", 20)
    for path in sorted((root / "red").iterdir())[8:]:
        path.unlink()
    return root


@pytest.fixture(scope="module")
def plain(uneven: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a fit without options."""
    return fitted(uneven, tiny_model, tmp_path_factory.mktemp("plain"))


def fitted(photos: Path, model: Path, out: Path, *more: str) -> dict[str, torch.Tensor]:
    main(["fit", *arguments(photos, model, out, "--trainer.max_epochs=1", *more)])
    found = weights(out / "run/version_0/checkpoints/last.ckpt")
    assert all(bool(value.isfinite().all()) for value in found.values())
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_option_changes_what_is_learnt(
    option: str, uneven: Path, tiny_model: Path, tmp_path: Path, plain: dict[str, torch.Tensor]
) -> None:
    found = fitted(uneven, tiny_model, tmp_path, option)
    assert any(not torch.equal(found[name], plain[name]) for name in plain)


WRONG = {
    "--model.loss_config.class_weights=[1.0, 2.0]": "weight for each of the 3 classes 'blue', 'green', 'red', got 2",
    "--model.loss_config.label_smoothing=1": "label_smoothing must be less than 1, got 1.0",
    "--model.mix_config.probability=2": "probability must be at most 1, got 2.0",
}


@pytest.mark.parametrize("option", WRONG)
def test_wrong_values_are_refused(
    option: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, option)], capsys)
    assert code == 2
    assert WRONG[option] in message
