"""Every number of the page, read back out of the HTML, against scikit-learn on the table of predictions."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.dummy import DummyClassifier

from imgcls.datasets.labels import multi_hot, read_names
from imgcls.report.write import write_report
from tests.helpers.page import Page
from tests.helpers.run_folders import Array, write_run

EXACT = 1e-12


def read(folder: Path, names: list[str], multilabel: bool) -> tuple[Array, Array, Array]:
    """Labels, predicted and probabilities of the table, read without imgcls.results."""
    table = pd.read_csv(folder / "test_predictions.csv", dtype={"label": str, "prediction": str}, keep_default_na=False)
    probs = table[[f"prob_{name}" for name in names]].to_numpy(np.float64)
    columns = {name: index for index, name in enumerate(names)}
    if multilabel:
        found = [multi_hot(list(map(read_names, table[name])), columns) for name in ("label", "prediction")]
    else:
        found = [np.array([columns[text] for text in table[name]]) for name in ("label", "prediction")]
    return found[0], found[1], probs


def close(page: Page, expected: dict[str, float]) -> None:
    assert {name: page.numbers[name] for name in expected} == pytest.approx(expected, abs=EXACT, rel=EXACT)


def page_of(folder: Path, names: list[str], images: int, *, multilabel: bool = False, skill: float = 2.0) -> Page:
    return Page(write_report(write_run(folder, names, images, multilabel=multilabel, skill=skill)))


@pytest.mark.parametrize(("classes", "images"), [(2, 654), (10, 360), (40, 400)])
def test_single_label(classes: int, images: int, tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(classes)]
    page = page_of(tmp_path, names, images)
    labels, predicted, probs = read(tmp_path, names, multilabel=False)
    dummy = DummyClassifier().fit(probs, labels)
    always = dummy.predict(probs)
    close(
        page,
        {
            "verdict.accuracy": metrics.accuracy_score(labels, predicted),
            "verdict.images": images,
            "verdict.baseline": dummy.score(probs, labels),
            "accuracy": metrics.accuracy_score(labels, predicted),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
            "balanced_accuracy.baseline": metrics.balanced_accuracy_score(labels, always),
            "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
            "macro_f1.baseline": metrics.f1_score(labels, always, average="macro"),
            "log_loss": metrics.log_loss(labels, probs / probs.sum(axis=1, keepdims=True), labels=range(classes))
            + np.log(probs.sum(axis=1)).mean() * -1,
        },
    )
    one_hot = np.eye(classes)[labels]
    square = ((probs - one_hot) ** 2).sum(axis=1).mean()
    close(page, {"brier": square / 2 if classes == 2 else square})
    if classes == 2:
        positive = probs[:, 1]
        close(
            page,
            {
                "auroc": metrics.roc_auc_score(labels, positive),
                "average_precision": metrics.average_precision_score(labels, positive),
                "average_precision.baseline": labels.mean(),
            },
        )
    _check_classes(page, labels, predicted, probs)
    _check_confusion(page, labels, predicted)


def _check_classes(page: Page, labels: Array, predicted: Array, probs: Array) -> None:
    found = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(probs.shape[1]), zero_division=np.nan
    )
    for index, row in enumerate(zip(*found, strict=True)):
        truth = labels == index
        for name, value in zip(("precision", "recall", "f1_score", "support"), row, strict=True):
            if np.isnan(value):
                assert f"class.{index}.{name}" not in page.numbers
            else:
                close(page, {f"class.{index}.{name}": value})
        if truth.any():
            areas = {
                f"class.{index}.auroc": metrics.roc_auc_score(truth, probs[:, index]),
                f"class.{index}.average_precision": metrics.average_precision_score(truth, probs[:, index]),
            }
            close(page, areas)


def _check_confusion(page: Page, labels: Array, predicted: Array) -> None:
    matrix = metrics.confusion_matrix(labels, predicted)
    pairs = {name: value for name, value in page.numbers.items() if name.startswith("pair.") and "share" not in name}
    for name, value in pairs.items():
        _, row, column = name.split(".")
        assert value == matrix[int(row), int(column)]
    wrong = np.sort((matrix - np.diag(matrix.diagonal())).ravel())[::-1]
    if len(matrix) > 2:
        assert sorted(pairs.values(), reverse=True) == [
            each for each in wrong[: 10 if len(matrix) <= 30 else 25] if each
        ]
    if len(matrix) <= 30:
        cells = {f"confusion.{i}.{j}": int(value) for (i, j), value in np.ndenumerate(matrix)}
        assert {name: page.numbers[name] for name in cells} == cells
    else:
        assert not any(name.startswith("confusion.") for name in page.numbers)


def test_multilabel(tmp_path: Path) -> None:
    names = ["beach", "sunset", "mountain", "field"]
    page = page_of(tmp_path, names, 200, multilabel=True)
    labels, predicted, probs = read(tmp_path, names, multilabel=True)
    texts = pd.Series(map(str, labels.tolist()))
    close(
        page,
        {
            "accuracy": metrics.accuracy_score(labels, predicted),
            "accuracy.baseline": texts.value_counts().iloc[0] / len(texts),
            "label_accuracy": 1 - metrics.hamming_loss(labels, predicted),
            "label_accuracy.baseline": np.maximum(labels.mean(axis=0), 1 - labels.mean(axis=0)).mean(),
            "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
            "auroc": metrics.roc_auc_score(labels, probs),
            "average_precision": metrics.average_precision_score(labels, probs),
            "log_loss": np.mean([metrics.log_loss(labels[:, index], probs[:, index]) for index in range(4)]),
            "brier": np.mean([metrics.brier_score_loss(labels[:, index], probs[:, index]) for index in range(4)]),
        },
    )
    for index, ((tn, fp), (fn, tp)) in enumerate(metrics.multilabel_confusion_matrix(labels, predicted)):
        close(
            page,
            {
                f"confusion.{index}.{name}": value
                for name, value in zip(("tn", "fp", "fn", "tp"), (tn, fp, fn, tp), strict=True)
            },
        )
        close(page, {f"class.{index}.auroc": metrics.roc_auc_score(labels[:, index], probs[:, index])})


def test_calibration_and_class_balance(tmp_path: Path) -> None:
    page = page_of(tmp_path, ["cat", "dog"], 300)
    labels, predicted, probs = read(tmp_path, ["cat", "dog"], multilabel=False)
    confidence, right = probs.max(axis=1), labels == predicted
    bins = np.minimum((confidence * 15).astype(int), 14)
    known = np.unique(bins)
    gaps = [abs(confidence[bins == each].sum() - right[bins == each].sum()) for each in known]
    close(page, {"ece": sum(gaps) / len(labels)})
    for number, each in enumerate(known):
        inside = bins == each
        close(
            page,
            {
                f"bin.{number}.count": inside.sum(),
                f"bin.{number}.confidence": confidence[inside].mean(),
                f"bin.{number}.accuracy": right[inside].mean(),
            },
        )
    assert page.numbers["ece.perfect.low"] < page.numbers["ece.perfect.high"]
    counts = pd.Series(labels).value_counts()
    close(page, {f"balance.test.{index}": counts[index] for index in (0, 1)})
    close(page, {f"balance.train.{index}": 3 * counts[index] for index in (0, 1)})


def test_images_and_epochs(tmp_path: Path) -> None:
    names = ["cat", "dog", "cow"]
    page = page_of(tmp_path, names, 90, skill=1.0)
    labels, predicted, probs = read(tmp_path, names, multilabel=False)
    rows = {int(name.split(".")[1]) for name in page.numbers if name.startswith("image.")}
    wrong = np.flatnonzero(labels != predicted)
    assert set(wrong[np.argsort(probs[wrong, labels[wrong]], kind="stable")][:30]) <= rows
    for row in rows:
        close(page, {f"image.{row}.confidence": probs[row].max()})
        if labels[row] != predicted[row]:
            close(page, {f"image.{row}.of_truth": probs[row, labels[row]]})
    history = pd.read_csv(tmp_path / "metrics.csv")
    close(page, {f"history.{row}.{name}": history[name][row] for name in history for row in history.index})
    assert page.numbers["best_epoch"] == 10


def test_every_number_is_finite_and_in_its_interval(tmp_path: Path) -> None:
    page = page_of(tmp_path, ["cat", "dog", "cow"], 90)
    assert np.isfinite(list(page.numbers.values())).all()
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "log_loss", "brier", "class.0.recall"):
        assert page.numbers[f"{name}.low"] <= page.numbers[name] <= page.numbers[f"{name}.high"]
