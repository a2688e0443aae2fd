"""The classes without the command line."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch

import imgcls
from imgcls.cli.main import main
from imgcls.errors import ConfigError
from imgcls.models.from_checkpoint import recorded_arguments
from tests.conftest import COLOURS, write_class_folders
from tests.helpers.runs import arguments, load

# of Lightning; the commands hide them
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:Found .* in eval mode"
)


def fit(photos: Path, tiny_model: Path, out: Path, **model: object) -> tuple[pl.Trainer, Path]:
    data = imgcls.ImageDataModule(
        imgcls.DatasetClasses(train=imgcls.FolderImageDataset(str(photos))), batch_size=8, num_workers=0
    )
    classifier = imgcls.ImageClassifier(
        str(tiny_model),
        pretrained=False,
        optimizer_config=imgcls.OptimizerConfig(lr=0.01),
        **model,  # type: ignore[arg-type]
    )
    trainer = pl.Trainer(
        max_epochs=1,
        default_root_dir=out,
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[imgcls.MetricsLogger(), pl.callbacks.ModelCheckpoint(out, "last")],
        log_every_n_steps=1,
    )
    trainer.fit(classifier, datamodule=data)
    return trainer, out / "last.ckpt"


def test_python_run_makes_a_plain_checkpoint_that_the_commands_take(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer, path = fit(photos, tiny_model, tmp_path)
    assert trainer.callback_metrics["validation_f1_score"] > 0
    content = load(path)
    assert content["hyper_parameters"]["optimizer_config"]["lr"] == 0.01
    assert content["datamodule_hyper_parameters"]["dataset_classes"]["train"] == str(photos)
    main(["predict", "--ckpt_path", str(path), "--images", str(photos), "--output", str(tmp_path / "p.csv")])
    assert len(pd.read_csv(tmp_path / "p.csv")) == 60
    main(["validate", "--ckpt_path", str(path)])
    assert "accuracy" in capsys.readouterr().out


def test_load_from_checkpoint_gives_the_same_logits(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    trainer, path = fit(photos, tiny_model, tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    loaded = imgcls.ImageClassifier.load_from_checkpoint(path).eval()
    model = trainer.lightning_module.eval()
    with torch.no_grad():
        assert torch.equal(model(images), loaded(images))
    assert loaded.class_names == sorted(COLOURS)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_plain_trainer_logs_the_metrics_of_the_checkpoint(
    command: str, photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    metrics = {"class_path": "imgcls.MetricsLogger", "init_args": {"metrics": {"top": {"class_path": "Accuracy"}}}}
    line = arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={json.dumps([metrics])}")
    main(["fit", *line, f"--data.dataset_classes.test={test_photos}", "--experiment.monitor=validation_top"])
    path = tmp_path / "run/version_0/checkpoints/best.ckpt"
    data = imgcls.ImageDataModule(imgcls.DatasetClasses(train=str(photos), test=str(test_photos)), num_workers=0)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    model = imgcls.ImageClassifier.load_from_checkpoint(path)
    [first] = getattr(trainer, command)(model, datamodule=data, verbose=False)
    [second] = getattr(trainer, command)(model, datamodule=data, verbose=False)
    split = {"validate": "validation"}.get(command, command)
    assert first == second
    assert set(first) == {f"{split}_loss", f"{split}_top"}
    assert sum(isinstance(item, imgcls.MetricsLogger) for item in trainer.callbacks) == 1  # type: ignore[attr-defined]


def test_a_command_adds_no_metrics_where_none_are_configured(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path)])
    capsys.readouterr()
    path = tmp_path / "run/version_0/checkpoints/best.ckpt"
    main(["validate", f"--ckpt_path={path}", "--experiment.default_callbacks=false"])
    assert "No metric was logged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        ("x.png", TypeError, "tensor .B, 3, H, W., got str"),
        (np.zeros((4, 4, 3), np.uint8), TypeError, "got ndarray"),
        (torch.zeros(1, 4, 4, 3, dtype=torch.uint8), ValueError, r"shape \(B, 3, H, W\), got \(1, 4, 4, 3\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), ValueError, r"got \(3, 4, 4\)"),
        (
            torch.zeros(1, 3, 4, 4, dtype=torch.int64),
            ValueError,
            "uint8 .0 to 255., or normalised floats, got torch.int",
        ),
    ],
)
def test_what_is_no_batch_of_images_is_refused(
    tiny_model: Path, images: Any, kind: type[Exception], message: str
) -> None:
    model = imgcls.ImageClassifier(str(tiny_model), pretrained=False)
    model.build(["a", "b"])
    with pytest.raises(kind, match=message) as error:
        model(images)
    assert "torch.int" in message or "imgcls.load(CHECKPOINT).predict(images)" in str(error.value)


def test_inference_mode_builds_a_model_that_works_within_and_without(
    photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    trainer, path = fit(photos, tiny_model, tmp_path)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    model = trainer.lightning_module.eval()
    with torch.inference_mode():
        loaded = imgcls.ImageClassifier.load_from_checkpoint(path).eval()
        assert torch.equal(model(images), loaded(images))
    with torch.no_grad():
        assert torch.equal(model(images), loaded(images))
    loaded(images).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_a_file_that_cannot_be_read_has_no_probabilities(
    photos: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, _ = fit(photos, tiny_model, tmp_path)
    new = write_class_folders(tmp_path / "new", 1)
    (new / "blue/000.png").write_bytes(b"")
    (new / "page.jpg").write_text("<html>")
    data = imgcls.ImageDataModule(imgcls.DatasetClasses(predict=str(new)), batch_size=3, num_workers=0)
    caplog.clear()
    first, second = trainer.predict(trainer.lightning_module, datamodule=data)  # type: ignore[misc]
    rows = torch.cat([first, second])  # type: ignore[list-item]
    assert rows.isnan().all(dim=1).tolist() == [True, False, True, False]  # blue, green, page, red
    assert rows[[1, 3]].sum(dim=1).tolist() == pytest.approx([1, 1])
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "predictions are NaN:\n" in said
    assert f"{new}/blue/000.png: is empty" in said
    assert f"{new}/page.jpg: " in said


class Wider(imgcls.ImageClassifier):
    """A model of the user's, which hands most arguments on."""

    def __init__(self, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


def test_arguments_that_a_subclass_hands_on_are_kept() -> None:
    recorded = {"extra": 2, "feature_views": 3, "self": 1, "kwargs": 2, "unknown": 3}
    assert recorded_arguments(Wider, recorded) == {"extra": 2, "feature_views": 3}


@pytest.mark.parametrize("command", ["validate", "test"])
def test_an_evaluation_in_python_accounts_for_what_it_cannot_read(
    command: str, photos: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, _ = fit(photos, tiny_model, tmp_path)
    root = write_class_folders(tmp_path / "new", 4, seed=5)
    (root / "blue/000.png").write_bytes(b"")
    datasets = imgcls.DatasetClasses(train=str(photos), validation=str(root), test=str(root))
    strict = imgcls.ImageDataModule(datasets, num_workers=0)
    run = getattr(trainer, command)
    with pytest.raises(ConfigError, match=r"blue/000.png: is empty\n1 of 12 images in \w+ cannot"):
        run(trainer.lightning_module, datamodule=strict, verbose=False)
    lenient = imgcls.ImageDataModule(datasets, num_workers=0, on_bad_image="skip", max_bad_fraction=0.1)
    run(trainer.lightning_module, datamodule=lenient, verbose=False)
    split = {"validate": "validation"}.get(command, command)
    assert f"skipped in {split}: {root}/blue/000.png: is empty" in caplog.messages
    assert lenient.bad_images.found == {split: {f"{root}/blue/000.png": "is empty"}}


def test_frozen_part_stays(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    _, path = fit(photos, tiny_model, tmp_path, freeze_encoder=0.5)
    state = load(path)["state_dict"]
    optimized = sum(len(group["params"]) for group in load(path)["optimizer_states"][0]["param_groups"])
    untouched = [name for name in state if name.endswith("num_batches_tracked") and state[name] == 0]
    moved = [name for name in state if name.endswith("num_batches_tracked") and state[name] > 0]
    assert untouched
    assert moved
    parameters = [name for name in state if name.endswith(("weight", "bias"))]
    assert 0 < optimized < len(parameters)


def test_public_names_can_be_imported() -> None:
    for name in imgcls.__all__:
        assert getattr(imgcls, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        imgcls.Nothing  # noqa: B018


def test_normalisation_happens_once(tiny_model: Path) -> None:
    model = imgcls.ImageClassifier(str(tiny_model), pretrained=False)
    model.build(["a", "b"])
    model.eval()
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    mean = torch.tensor((0.485, 0.456, 0.406)).reshape(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).reshape(1, 3, 1, 1)
    with torch.no_grad():
        assert torch.allclose(model(images), model((images / 255 - mean) / std), atol=1e-5)
        channels_last = images.contiguous(memory_format=torch.channels_last)
        assert torch.equal(model.normalize(channels_last), model.normalize(images))
        features = model.encode(images)
        assert torch.equal(model.classify(features), model(images))
        model.temperature.fill_(2.0)
        assert torch.allclose(model.classify(features) * 2, model.backbone.classify(features))  # type: ignore[union-attr]
