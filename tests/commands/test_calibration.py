"""The temperature at the end of a fit: where it is kept, what uses it, and that training does not."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import imgcls
from imgcls.checkpoints.calibration import MOST_SCORES, with_calibration, without_calibration
from imgcls.checkpoints.io import read_checkpoint
from imgcls.cli.main import main
from imgcls.commands import calibration
from imgcls.errors import ConfigError, WriteError
from imgcls.export.graph_modules import Network
from imgcls.statistics.temperature import Temperature
from tests.helpers.runs import arguments, load, table_of, weights
from tests.helpers.tiny_classifier import tiny_classifier

HOT = 2.5


def at(value: float | list[float]) -> Any:
    """Make a fit that always finds this temperature."""

    def fit_temperature(logits: Any, labels: Any) -> Temperature:
        return Temperature(np.array(value), "", len(logits), 1.0, 0.5)

    return fit_temperature


@pytest.fixture(scope="module")
def hot(photos: Path, test_photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose temperature is 2.5; to be read only."""
    out = tmp_path_factory.mktemp("hot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "fit_temperature", at(HOT))
        more = [f"--data.dataset_classes.test={test_photos}", "--trainer.max_epochs=3"]
        main(["fit", *arguments(photos, tiny_model, out, *more)])
    return out / "run/version_0"


def loss_of(rows: Path) -> float:
    """The log loss of a table of predictions."""
    table = pd.read_csv(rows)
    return float(-np.log([row[f"prob_{row['label']}"] for _, row in table.iterrows()]).mean())


def test_best_checkpoint_has_the_temperature_and_the_last_one_has_not(hot: Path) -> None:
    best, last = (load(hot / f"checkpoints/{name}.ckpt") for name in ("best", "last"))
    assert (best["state_dict"]["temperature"], last["state_dict"]["temperature"]) == (HOT, 1)
    assert best["current_model_state"]["temperature"] == 1
    assert best["calibration"] | {"confidence": 0, "correct": 0, "of_truth": 0} == {
        "split": "validation",
        "images": 12,
        "confidence": 0,
        "correct": 0,
        "of_truth": 0,
    }
    assert "calibration" not in last
    assert json.loads((hot / "results.json").read_text())["calibration"] == {
        "temperature": HOT,
        "reason": None,
        "images": 12,
        "log_loss_before": 1.0,
        "log_loss_after": 0.5,
    }


def test_files_of_the_fit_are_calibrated(hot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((hot / "results.json").read_text())
    for split in ("validation", "test"):
        assert loss_of(hot / f"{split}_predictions.csv") == pytest.approx(results[f"{split}_loss"], rel=1e-5)
    scores = load(hot / "checkpoints/best.ckpt")["calibration"]
    rows = pd.read_csv(hot / "validation_predictions.csv")
    assert sorted(scores["confidence"].tolist()) == pytest.approx(sorted(rows["probability"]), rel=1e-5)
    assert scores["correct"].sum() == (rows["label"] == rows["prediction"]).sum()
    for command, split in (("validate", "validation"), ("test", "test")):
        before = (hot / f"{split}_predictions.csv").read_bytes()
        main([command, str(hot)])
        assert table_of(capsys.readouterr().out)["loss"] == [f"{results[f'{split}_loss']:.4f}"]
        assert (hot / f"{split}_predictions.csv").read_bytes() == before


def test_raw_probabilities_are_those_of_temperature_1(
    hot: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cool", "raw"):
        more = ["--raw"] if name == "raw" else []
        main(["predict", str(hot), str(photos / "red"), "--output", str(tmp_path / f"{name}.csv"), *more])
    cool, raw = (pd.read_csv(tmp_path / f"{name}.csv").filter(like="prob_").to_numpy(float) for name in ("cool", "raw"))
    heated = raw ** (1 / HOT)
    assert cool == pytest.approx(heated / heated.sum(axis=1, keepdims=True), rel=1e-4)
    assert np.abs(cool - raw).max() > 0.01
    frame = imgcls.load(hot, device="cpu").predict(photos / "red", raw=True).filter(like="prob_")
    assert frame.to_numpy(float) == pytest.approx(raw, rel=1e-5)
    capsys.readouterr()
    main(["test", str(hot), "--raw", "--output", str(tmp_path / "raw")])
    files = tmp_path / "raw/test_results.json", hot / "results.json"
    uncalibrated, calibrated = (json.loads(path.read_text()) for path in files)
    assert uncalibrated["test_accuracy"] == calibrated["test_accuracy"]
    assert uncalibrated["test_loss"] != pytest.approx(calibrated["test_loss"], rel=0.01)


def test_raw_evaluation_does_not_replace_that_of_the_run(hot: Path, tmp_path: Path) -> None:
    run = tmp_path / "run/version_0"
    shutil.copytree(hot, run)
    before = (run / "validation_predictions.csv").read_bytes()
    main(["validate", str(run), "--raw"])
    assert (run / "validation_predictions.csv").read_bytes() == before
    assert json.loads((run / "evaluations/1/evaluation.json").read_text())["changed"] == {"raw": True}


@pytest.mark.parametrize("name", ["best", "last"])
def test_resumed_run_trains_at_temperature_1(
    name: str, hot: Path, photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run = tmp_path / "run/version_0"
    shutil.copytree(hot, run)
    before = pd.read_csv(run / "metrics.csv")
    monkeypatch.setattr(calibration, "fit_temperature", at(3.0))
    more = [f"--data.dataset_classes.test={test_photos}", "--trainer.max_epochs=5"]
    checkpoint = f"--ckpt_path={run / f'checkpoints/{name}.ckpt'}"
    caplog.set_level(logging.INFO, "imgcls")
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more), checkpoint])
    run = tmp_path / "run/version_1"
    after = pd.read_csv(run / "metrics.csv")
    assert len(after) == 5
    assert after["validation_loss"][: len(before)].tolist() == before["validation_loss"].tolist()
    assert weights(run / "checkpoints/last.ckpt")["temperature"] == 1
    assert load(run / "checkpoints/last.ckpt")["current_model_state"]["temperature"] == 1
    assert weights(run / "checkpoints/best.ckpt")["temperature"] == 3
    assert "Temperature 3: log loss 1.0000 -> 0.5000 (cross-validated on 12 validation images)" in caplog.messages


def test_complete_run_is_calibrated_to_the_same_values_again(
    hot: Path, photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run/version_0"
    shutil.copytree(hot, run)
    monkeypatch.setattr(calibration, "fit_temperature", at(HOT))
    more = [f"--data.dataset_classes.test={test_photos}", "--trainer.max_epochs=3"]
    main(["fit", *arguments(photos, tiny_model, tmp_path, *more), "--ckpt_path=last"])
    for name in ("validation_predictions.csv", "test_predictions.csv"):
        assert (run / name).read_bytes() == (hot / name).read_bytes()
    ours, theirs = (json.loads((each / "results.json").read_text()) for each in (run, hot))
    names = [name for name in theirs if name not in {"run", "intervals"}]  # its duration; which reports there were
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}


def test_new_run_from_calibrated_weights_starts_at_1(
    hot: Path, photos: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = ["--experiment.only_weights_load=true", "--experiment.calibrate=false", "--trainer.max_epochs=1"]
    caplog.set_level(logging.INFO, "imgcls")
    line = arguments(photos, tiny_model, tmp_path, *more)
    main(["fit", *line, f"--ckpt_path={hot / 'checkpoints/best.ckpt'}"])
    assert any(message.startswith("loaded 50 of 50 weights") or "weights" in message for message in caplog.messages)
    best = load(tmp_path / "run/version_0/checkpoints/best.ckpt")
    assert best["state_dict"]["temperature"] == 1
    assert "calibration" not in best
    assert "calibration" not in json.loads((tmp_path / "run/version_0/results.json").read_text())
    assert not any("Temperature" in message for message in caplog.messages)


def test_real_fit_says_why_or_how_far(
    photos: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    main(["fit", *arguments(photos, tiny_model, tmp_path)])
    [line] = [message for message in caplog.messages if message.startswith("Temperature")]
    found = json.loads((tmp_path / "run/version_0/results.json").read_text())["calibration"]
    assert found["images"] == 12
    assert weights(tmp_path / "run/version_0/checkpoints/best.ckpt")["temperature"] == pytest.approx(
        found["temperature"]
    )
    fitted = f"Temperature {found['temperature']:.3g}: log loss"
    assert line.startswith(f"Temperature 1: {found['reason']}" if found["reason"] else fitted)


@pytest.mark.parametrize("part", ["fit_temperature", "write_checkpoint"])
@pytest.mark.parametrize("error", [WriteError("no space left on device"), MemoryError()], ids=["disk", "memory"])
def test_calibration_that_fails_keeps_the_uncalibrated_checkpoint(
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    error: Exception,
) -> None:
    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(calibration, "fit_temperature", at(HOT))
    monkeypatch.setattr(calibration, part, fail)
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    assert f"best.ckpt: cannot be calibrated: {type(error).__name__}: " in caplog.text
    assert weights(tmp_path / "run/version_0/checkpoints/best.ckpt")["temperature"] == 1
    assert (tmp_path / "run/version_0/results.json").exists()


class OwnForward(imgcls.ImageClassifier):
    """A classifier that does not divide by the temperature."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.built()(self.normalize(images))
        return logits


def test_model_class_with_a_forward_of_its_own_is_left_alone(
    photos: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    own = f"--model={__name__}.OwnForward"
    main(["fit", own, *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    assert "Temperature 1: OwnForward has its own forward" in caplog.messages


def test_scores_are_few_and_finite(hot: Path) -> None:
    content = read_checkpoint(hot / "checkpoints/best.ckpt")
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet([1, 1, 1], 5000), rng.integers(0, 3, 5000)
    probs[7] = np.nan
    found = with_calibration(content, np.array(1.0), "validation", probs, labels)["calibration"]
    assert found["images"] == 5000
    sizes = [found[name].nbytes for name in ("confidence", "correct", "of_truth")]
    assert sizes == [4 * MOST_SCORES, MOST_SCORES, 4 * MOST_SCORES]
    assert sum(sizes) <= 16_000
    assert bool(found["of_truth"].isfinite().all())
    assert found["correct"].float().mean() == pytest.approx((probs.argmax(1) == labels).mean(), abs=0.03)
    assert "calibration" not in without_calibration({**content, "calibration": found})


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (
            {"confidence": torch.ones(2), "of_truth": torch.ones(3), "correct": torch.ones(2, dtype=torch.bool)},
            "as many",
        ),
        ({"confidence": torch.tensor([2.0])}, "confidence: must be a row of float32 probabilities"),
        ({"correct": torch.ones(2)}, "correct: must be a row of bool"),
    ],
)
def test_scores_of_a_stranger_are_checked(scores: dict[str, Any], reason: str, hot: Path, tmp_path: Path) -> None:
    content = load(hot / "checkpoints/best.ckpt")
    torch.save(content | {"calibration": {"split": "x", "images": 2, **scores}}, tmp_path / "x.ckpt")
    with pytest.raises(ConfigError, match=reason):
        imgcls.load(tmp_path / "x.ckpt")


def test_each_class_of_an_export_has_its_temperature(tmp_path: Path) -> None:
    classifier = tiny_classifier("resnet", tmp_path, multilabel=True)
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        logits = classifier.model(images)
        classifier.model.temperature = torch.tensor([0.5, 1.0, 4.0])
        expected = torch.sigmoid(logits / torch.tensor([0.5, 1.0, 4.0]))
        assert torch.allclose(Network(classifier.model)(images), expected, atol=1e-6)
        assert torch.allclose(torch.sigmoid(classifier.model(images)), expected, atol=1e-6)
