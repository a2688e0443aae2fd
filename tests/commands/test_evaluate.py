"""A classifier on other data: with the classes and steps of its checkpoint, and with numbers that mean something."""

import json
import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

import imgcls
from imgcls.cli.main import main
from imgcls.errors import ConfigError
from tests.helpers.runs import arguments, fails, load, table_of

STEPS = {"class_path": "albumentations.Resize", "init_args": {"height": 32, "width": 32}}
OWN = {"class_path": f"{__name__}.Invert"}

# of Lightning; the commands hide them
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*LeafSpec", "ignore:Found .* in eval mode"
)


class Invert:
    """A step of one's own, which a checkpoint may not have loaded."""

    def __call__(self, image: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        return {"image": 255 - image}


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    own = {"mean": [0.2, 0.3, 0.9], "std": [0.5, 0.4, 0.3]}
    normalize = {"class_path": "albumentations.Normalize", "init_args": own}
    lists = [f"--data.augmentations.{stage}={json.dumps([STEPS, normalize])}" for stage in ("train", "eval")]
    main(["fit", *arguments(photos, tiny_model, out, "--trainer.max_epochs=6", *lists)])
    return out / "run/version_0"


@pytest.fixture(scope="module")
def best(run: Path) -> Path:
    return run / "checkpoints/best.ckpt"


def trainer(**more: Any) -> pl.Trainer:
    silent: dict[str, Any] = dict.fromkeys(
        ("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    return pl.Trainer(accelerator="cpu", logger=False, callbacks=[imgcls.MetricsLogger()], **silent, **more)


def data(**arguments: Any) -> imgcls.ImageDataModule:
    augmentations = imgcls.Augmentations(train=[STEPS], eval=[STEPS])
    return imgcls.ImageDataModule(augmentations=augmentations, num_workers=0, batch_size=8, **arguments)


# -- the steps of the checkpoint


def test_steps_of_the_checkpoint_hold_beside_a_configuration_that_names_none(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [f"--data.augmentations.{stage}={json.dumps([STEPS, OWN])}" for stage in ("train", "eval")]
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", *steps)])
    trained = table_of(capsys.readouterr().out)
    line = ["validate", f"--ckpt_path={tmp_path}/run/version_0/checkpoints/best.ckpt"]
    small, whole = tmp_path / "small.yaml", tmp_path / "whole.yaml"
    small.write_text("trainer: {limit_val_batches: 1.0}")
    whole.write_text(yaml.safe_dump({"data": {"init_args": {"augmentations": {"eval": [STEPS, OWN]}}}}))
    code, said = fails([*line, f"--config={small}"], capsys)
    assert code == 2
    assert f"data.init_args.augmentations.eval: the checkpoint names {__name__}.Invert" in said
    main([*line, f"--config={whole}"])
    assert table_of(capsys.readouterr().out) == trained
    for item in ("0.init_args.height=0", "0.init_args={height: 0, width: 8}"):  # an item of the file's steps
        code, said = fails([*line, f"--config={whole}", f"--data.augmentations.eval.{item}"], capsys)
        assert code == 2
        assert "data.init_args.augmentations.eval[0] albumentations.Resize: height" in said


def test_dataset_class_that_is_given_takes_nothing_of_the_checkpoints(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"path": str(path), "label": path.parent.name} for path in sorted(photos.rglob("*.png"))]
    pd.DataFrame(rows).assign(split="train").to_csv(tmp_path / "run.csv", index=False)
    pd.DataFrame(rows[:7] + rows[-7:]).to_csv(tmp_path / "other.csv", index=False)
    train = {"class_path": "imgcls.CsvImageDataset", "init_args": {"csv": str(tmp_path / "run.csv"), "split": "train"}}
    test = {"class_path": "imgcls.CsvImageDataset", "init_args": {"csv": str(tmp_path / "other.csv")}}
    data = {"class_path": "imgcls.ImageDataModule", "init_args": {"dataset_classes": {"train": train, "test": train}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"data": data}))
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"dataset_classes": {"test": test}}}}))
    _, *line = arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1", "--data.on_leak=warn")
    main(["fit", f"--config={tmp_path}/c.yaml", *line])
    checkpoint = f"--ckpt_path={tmp_path}/run/version_0/checkpoints/best.ckpt"
    main(["test", checkpoint, f"--config={tmp_path}/d.yaml"])
    main(["test", checkpoint, f"--data.dataset_classes.test={json.dumps(test)}"])
    code, message = fails(
        ["test", checkpoint, f"--data.dataset_classes.test.init_args.csv={tmp_path}/other.csv"], capsys
    )
    assert (code, "no column 'split'" in message) == (2, True), message  # of a single key the rest is kept


def test_division_of_the_checkpoint_is_not_changed(best: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fails(["validate", f"--ckpt_path={best}", "--data.fold=1/2"], capsys)
    assert code == 2
    assert "leave --data.fold out" in said


def test_classes_of_a_run_that_goes_on_stay(
    run: Path, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = load(run / "checkpoints/last.ckpt")["imgcls"]["class_names"]
    more = [f"--ckpt_path={run}/checkpoints/last.ckpt", f"--data.class_names={json.dumps(names[::-1])}"]
    code, said = fails(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=9", *more)], capsys)
    assert code == 2
    assert f"data.init_args.class_names: {names[::-1]} differs from {names} in {run}/checkpoints/last.ckpt" in said


# -- without the command line


def test_python_evaluation_takes_the_classes_of_the_model(best: Path, photos: Path, test_photos: Path) -> None:
    model = imgcls.ImageClassifier.load_from_checkpoint(best)
    [expected] = trainer().test(
        model, data(dataset_classes={"train": str(photos), "test": str(test_photos)}), verbose=False
    )
    [alone] = trainer().test(model, data(dataset_classes={"test": str(test_photos)}), verbose=False)
    assert alone == expected
    turned = data(dataset_classes={"test": str(test_photos)}, class_names=model.class_names[::-1])
    with pytest.raises(ConfigError, match=r"classes are .*, those of the data .*; set class_names of ImageData"):
        trainer().test(model, turned, verbose=False)


def test_python_evaluation_of_a_checkpoint_is_that_of_the_command(
    best: Path, photos: Path, test_photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["test", f"--ckpt_path={best}", f"--data.dataset_classes.test={test_photos}"])
    accuracy = float(table_of(capsys.readouterr().out)["accuracy"][0])
    fresh = imgcls.ImageClassifier(str(tiny_model), pretrained=False)
    both = {"train": str(photos), "test": str(test_photos)}
    [found] = trainer().test(fresh, data(dataset_classes=both), ckpt_path=best, weights_only=True, verbose=False)
    assert found["test_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    other = imgcls.ImageClassifier(str(tiny_model), pretrained=False)
    turned = data(dataset_classes=both, class_names=fresh.class_names[::-1])
    with pytest.raises(ConfigError, match="those of the checkpoint"):
        trainer().test(other, turned, ckpt_path=best, weights_only=True, verbose=False)


def test_images_of_other_integers_are_refused(best: Path) -> None:
    model = imgcls.ImageClassifier.load_from_checkpoint(best).eval()
    pixels = torch.zeros(1, 3, 32, 32, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"images must be uint8 .*, got torch\.int64"):
        model(pixels)
    assert torch.equal(model(pixels.byte()), model(model.normalize(pixels.byte())))


def test_one_logger_serves_one_run_after_the_other(best: Path, photos: Path, test_photos: Path) -> None:
    model = imgcls.ImageClassifier.load_from_checkpoint(best)
    photographs = data(dataset_classes={"train": str(photos), "test": str(test_photos)})
    several = trainer(max_epochs=1)
    several.validate(model, photographs, verbose=False)
    several.fit(model, photographs)
    [found] = several.validate(model, photographs, verbose=False)
    [expected] = trainer().validate(model, photographs, verbose=False)
    assert found == expected


# -- numbers


def test_metrics_that_begin_alike_are_counted_apart(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    def score(threshold: float) -> dict[str, Any]:
        return {"class_path": "torchmetrics.F1Score", "init_args": {"threshold": threshold, "average": "macro"}}

    rows = [{"path": str(path), "label": path.parent.name} for path in sorted(photos.glob("*/*"))]
    pd.DataFrame(rows).to_csv(tmp_path / "photos.csv", index=False)
    table = {"csv": str(tmp_path / "photos.csv"), "label_separator": ";"}
    train = json.dumps({"class_path": "imgcls.CsvImageDataset", "init_args": table})
    metrics = {"low": score(0.9), "high": score(0.999)}
    logger = json.dumps({"class_path": "imgcls.MetricsLogger", "init_args": {"metrics": metrics}})
    more = [f"--data.dataset_classes.train={train}", f"--trainer.callbacks=[{logger}]", "--trainer.max_epochs=8"]
    more += ["--model.scheduler_config.warmup_epochs=4"]  # so that the first epoch is sure of nothing yet
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more)])
    values = pd.read_csv(tmp_path / "run/version_0/metrics.csv")
    first, last = values.iloc[0], values.iloc[-1]
    assert first["validation_low"] == first["validation_high"] == 0
    assert last["validation_low"] > last["validation_high"]


def test_outputs_that_are_no_numbers_are_no_predictions(
    best: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load(best)
    weights = content["state_dict"]
    bias = next(name for name in reversed(weights) if name.endswith("bias"))
    weights[bias][0] = torch.nan
    torch.save(content, tmp_path / "nan.ckpt")
    code, said = fails(
        ["test", f"--ckpt_path={tmp_path}/nan.ckpt", f"--data.dataset_classes.test={test_photos}"], capsys
    )
    assert code == 1
    assert f"test_loss is nan: the outputs of {tmp_path}/nan.ckpt are not finite" in said
    output = tmp_path / "predictions.csv"
    main(["predict", f"--ckpt_path={tmp_path}/nan.ckpt", f"--images={test_photos}", f"--output={output}"])
    table = pd.read_csv(output)
    assert set(table["error"]) == {"the model's outputs are not finite"}
    assert table["prediction"].isna().all()
    assert f"could not be predicted; see column 'error' of {output}" in capsys.readouterr().err


def test_class_without_an_image_is_named(
    best: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, *others = sorted(test_photos.iterdir())
    for folder in others:
        (tmp_path / folder.name).symlink_to(folder)
    main(["test", f"--ckpt_path={best}", f"--data.dataset_classes.test={tmp_path}"])
    assert f"Test has no images of 1 class ('{first.name}')" in capsys.readouterr().err


def test_curves_end_with_the_last_epoch(run: Path) -> None:
    events = EventAccumulator(str(run))
    events.Reload()
    steps = [event.step for event in events.Scalars("validation_loss")]
    assert len(steps) == len(set(steps)) == len(pd.read_csv(run / "metrics.csv"))


def test_an_evaluation_that_logs_nothing_says_so(
    best: Path, test_photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    line = ["test", f"--ckpt_path={best}", f"--data.dataset_classes.test={test_photos}"]
    main([*line, "--experiment.default_callbacks=false"])
    assert "No metric was logged: add imgcls.MetricsLogger" in caplog.text


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"loss": "Accuracy"}, "'loss' is the name of the model's loss"),
        ({"top.2": "Accuracy"}, "'top.2' is not a valid name"),
        ({"": "Accuracy"}, "'' is not a valid name"),
        (
            {"cm": "ConfusionMatrix"},
            "metrics.cm: torchmetrics.ConfusionMatrix: must return one number or one per class, got (3, 3)",
        ),
        ({"counts": "StatScores"}, "metrics.counts: torchmetrics.StatScores: must return one number"),
    ],
)
def test_name_or_kind_of_metric_that_cannot_be_logged(
    metrics: dict[str, str],
    said: str,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    specs = {name: {"class_path": f"torchmetrics.{kind}"} for name, kind in metrics.items()}
    logger = json.dumps({"class_path": "imgcls.MetricsLogger", "init_args": {"metrics": specs}})
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{logger}]")], capsys)
    assert code == 2
    assert said in message
    assert not (tmp_path / "run").exists()


def test_two_values_of_one_name_are_refused() -> None:
    by_class = {"class_path": "torchmetrics.F1Score", "init_args": {"average": "none"}}
    logger = imgcls.MetricsLogger({"f1": by_class, "f1_red": {"class_path": "torchmetrics.Accuracy"}})
    with pytest.raises(ConfigError, match="two values are named 'f1_red'"):
        logger.names(["blue", "red"])
