"""Each finding on run folders in which the cause is known."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imgcls.errors import ConfigError
from imgcls.report.about_run import unused_files
from imgcls.report.advice import Advice, advise
from imgcls.results.run import Run, read_run
from imgcls.runtime.tables import write_table
from tests.report.advice.fake_run import fake_run, probabilities, write_history

NAMES = ["ant", "bee", "cow", "dog"]
LABELS = np.repeat(np.arange(4), 50)
FLAT = [1.5, 0.8, 0.5, 0.4, 0.35, 0.33, 0.32, 0.32]
FALLING = [1.5, 1.4, 1.3, 1.2, 1.0, 0.9, 0.7, 0.5]


def kinds(run: Run) -> list[str]:
    return [advice.kind for advice in advise(run)]


def only(run: Run) -> Advice:
    [advice] = advise(run)
    return advice


@pytest.mark.parametrize(
    ("content", "reason"),
    [("path,split\n0,test\n0,test,1,1\n", "Error tokenizing data"), ("file\n0\n", "no column 'path'")],
)
def test_damaged_properties_are_named(content: str, reason: str, tmp_path: Path) -> None:
    fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), {}), NAMES)
    (tmp_path / "image_properties.csv").write_text(content)
    with pytest.raises(ConfigError, match=rf"image_properties\.csv: cannot be read \({reason}"):
        advise(read_run(tmp_path))


def test_validation_without_a_prediction_has_no_curve_advice(tmp_path: Path) -> None:
    run = fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), {}), NAMES)
    write_history(
        tmp_path,
        train_accuracy=[0.5] * 8,
        validation_accuracy=[0.5] * 8,
        train_loss=FLAT,
        validation_loss=FLAT[::-1],
    )
    (tmp_path / "validation_predictions.csv").write_text("path,label,prediction,probability,prob_ant,prob_bee,error\n")
    assert kinds(read_run(run.folder)) == []


def test_nothing_is_found_in_a_run_of_right_predictions(tmp_path: Path) -> None:
    assert advise(fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), {}), NAMES)) == []


def test_leak_gives_the_score_without_it(tmp_path: Path) -> None:
    wrong = dict.fromkeys(range(40, 50), (3, 0.5))
    fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), wrong), NAMES)
    splits = pd.read_csv(tmp_path / "splits.csv")
    splits.loc[splits["path"].isin([f"test/{index}" for index in range(20)]), "content"] = "hash 7"
    write_table(tmp_path / "splits.csv", splits)
    advice = advise(read_run(tmp_path))[0]
    assert advice.kind == "leak"
    assert advice.title == "20 images of test (10.0 %) also in train: the score is too good"
    assert "for example test/0 and train/7" in advice.evidence
    assert "100.0 % of the copies, and 94.4 % of the other 180 images" in advice.evidence
    assert advice.paths == [f"test/{index}" for index in range(20)]


def test_leak_into_validation_is_not_one_of_test(tmp_path: Path) -> None:
    probs = probabilities(LABELS, 4, np.random.default_rng(0), {})
    fake_run(tmp_path / "validation", LABELS, probs, NAMES, split="validation")
    fake_run(tmp_path, LABELS, probs, NAMES)
    shutil.copy(tmp_path / "validation/validation_predictions.csv", tmp_path)
    splits = [pd.read_csv(folder / "splits.csv") for folder in (tmp_path, tmp_path / "validation")]
    held_out = splits[1][splits[1]["split"] == "validation"].assign(content="other")
    held_out.loc[held_out["path"].isin([f"validation/{index}" for index in range(20)]), "content"] = "hash 7"
    write_table(tmp_path / "splits.csv", pd.concat([splits[0], held_out]))
    [advice] = [each for each in advise(read_run(tmp_path)) if each.kind == "leak"]
    assert advice.title == "20 images of validation (10.0 %) also in train: the score is too good"
    assert "100.0 % of the copies" in advice.evidence
    assert advice.paths == [f"validation/{index}" for index in range(20)]


def test_evaluation_of_other_data_is_judged_by_its_own_images(tmp_path: Path) -> None:
    wrong = dict.fromkeys(range(0, 50, 2), (1, 0.9))  # the dark ones
    probs = probabilities(LABELS, 4, np.random.default_rng(0), wrong)
    fake_run(tmp_path, LABELS[:150], probabilities(LABELS[:150], 4, np.random.default_rng(0), {}), NAMES)
    folder = tmp_path / "evaluations/1"
    brightness = [100.0] * 400 + [20.0 if index in wrong else 100.0 for index in range(200)]
    fake_run(folder, LABELS, probs, NAMES, properties={"brightness": brightness})
    (folder / "splits.csv").unlink()
    record = {"changed": {"data.init_args.dataset_classes.test": "more"}, "trained_on": ["test/3", "test/4"]}
    (folder / "evaluation.json").write_text(json.dumps(record))
    run = read_run(folder)
    found = {advice.kind: advice for advice in advise(run)}
    assert "missing_classes" not in found  # the fit's test lacks 'dog'
    assert found["leak"].title == "2 images of test (1.0 %) also in train: the score is too good"
    assert found["leak"].paths == ["test/3", "test/4"]
    assert found["leak"].action == "Remove these images from the evaluated ones, and evaluate the others."
    assert "brightness" in found["weak_segment"].title
    assert unused_files(run)["checked"].endswith("the model was trained on: 2 equal.")
    (folder / "evaluation.json").write_text(json.dumps(record | {"trained_on": None}))
    assert unused_files(read_run(folder))["checked"].startswith("It is not known whether the model was trained on")


def test_runs_without_content_hashes_have_no_leak(tmp_path: Path) -> None:
    fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), {}), NAMES)
    write_table(tmp_path / "splits.csv", pd.read_csv(tmp_path / "splits.csv").assign(content=""))
    assert advise(read_run(tmp_path)) == []


@pytest.mark.parametrize(("trained", "found"), [(26, []), (25, ["few_images"])])
def test_few_images_are_at_most_25(tmp_path: Path, trained: int, found: list[str]) -> None:
    probs = probabilities(LABELS, 4, np.random.default_rng(0), {})
    assert kinds(fake_run(tmp_path, LABELS, probs, NAMES, trained=[100, trained, 90, 110])) == found


def test_rare_class_counts_where_its_recall_is_low(tmp_path: Path) -> None:
    wrong = {index: (index % 2, 0.5) for index in range(150, 170)}
    probs = probabilities(LABELS, 4, np.random.default_rng(0), wrong)
    advice = only(fake_run(tmp_path, LABELS, probs, NAMES, trained=[900, 1000, 1100, 60]))
    assert advice.title == "Class 'dog' has only 60 training images"
    assert "30 of 50 images of 'dog' are predicted correctly (95 % interval 46.2 % to 72.4 %)" in advice.evidence
    assert advice.paths == [f"test/{index}" for index in range(150, 170)]


def test_classes_without_images(tmp_path: Path) -> None:
    labels = LABELS[:150]
    probs = probabilities(labels, 4, np.random.default_rng(0), {})
    found = advise(fake_run(tmp_path, labels, probs, NAMES, trained=[90, 0, 90, 90]))
    assert {advice.title for advice in found} == {"Test has no image of 'dog'", "Train has no image of 'bee'"}


@pytest.mark.parametrize("classes", [2, 4])
def test_wrong_labels_are_told_from_confusions(tmp_path: Path, classes: int) -> None:
    """Errors with the confidence of right predictions are found in most seeds, the least of six in few."""
    labels = np.repeat(np.arange(classes), 50)
    found = {"flipped": 0, "confused": 0}
    for seed in range(20):
        generator = np.random.default_rng(seed)
        for kind, least_of in (("flipped", 1), ("confused", 6)):
            values = generator.uniform(0.6, 1, (10, least_of)).min(axis=1)
            wrong = {index: (1, value) for index, value in enumerate(values)}
            run = fake_run(
                tmp_path / f"{seed}{kind}", labels, probabilities(labels, classes, generator, wrong), NAMES[:classes]
            )
            found[kind] += "suspected_label_errors" in kinds(run)
    assert found["flipped"] >= 18
    assert found["confused"] <= 1


def test_wrong_labels_are_listed_most_confident_first(tmp_path: Path) -> None:
    wrong = {3: (1, 0.7), 60: (2, 0.8), 4: (1, 0.99), 5: (1, 0.95), 6: (1, 0.9)}
    advice = advise(fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), wrong), NAMES))[0]
    assert advice.kind == "suspected_label_errors"
    assert advice.title == "About 4 images in test may have a wrong label, and may be 'bee'"
    assert "the model predicts 'bee' for images with another label (4 'ant')" in advice.evidence
    assert "correct a label only where it is wrong" in advice.action
    assert f"`imgcls fit {tmp_path}/config.yaml --data.fold 1/5`" in advice.action
    assert advice.paths == ["test/4", "test/5", "test/6", "test/3"]


def test_labels_are_not_suspected_after_a_short_training(tmp_path: Path) -> None:
    wrong = dict.fromkeys(range(10), (1, 0.99))
    run = fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), wrong), NAMES)
    assert "suspected_label_errors" in kinds(run)
    write_history(tmp_path, 8, validation_loss=FALLING)
    assert kinds(read_run(tmp_path)) == ["short_training", "confused_pair"]


def test_labels_are_not_suspected_by_an_inaccurate_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dict.fromkeys(range(10), (1, 0.99)) | dict.fromkeys(range(150, 190), (2, 0.3))
    run = fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), wrong), NAMES)
    assert "suspected_label_errors" not in kinds(run)
    monkeypatch.setattr("imgcls.report.advice.label_errors._ACCURACY", 0.75)
    assert "suspected_label_errors" in kinds(run)


def test_labels_are_not_suspected_by_a_model_that_predicts_one_class(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], 100)
    wrong = dict.fromkeys(range(60), (1, 0.99))  # of class 0
    run = fake_run(tmp_path, labels, probabilities(labels, 2, np.random.default_rng(0), wrong), NAMES[:2])
    assert kinds(run) == ["confused_pair"]


def test_confused_pair(tmp_path: Path) -> None:
    wrong = dict.fromkeys(range(50, 62), (3, 0.4)) | {0: (1, 0.4), 1: (2, 0.4)}
    advice = only(fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), wrong), NAMES))
    assert advice.title == "'bee' is predicted as 'dog' in 12 of 50 images"
    assert "85.7 % of all errors on test" in advice.evidence
    assert set(advice.paths) == {f"test/{index}" for index in range(50, 62)}


@pytest.mark.parametrize(
    ("trained", "weights"), [([100, 100], "'[1, 2]'"), ([100, 85], "'[1, 2]'"), ([100, 70], "auto")]
)
def test_class_of_two_that_is_misclassified_more_often(tmp_path: Path, trained: list[int], weights: str) -> None:
    labels = np.repeat([0, 1], [100, 50])
    wrong = dict.fromkeys(range(100, 120), (0, 0.6)) | dict.fromkeys(range(10), (1, 0.6))
    probs = probabilities(labels, 2, np.random.default_rng(0), wrong)
    advice = only(fake_run(tmp_path, labels, probs, NAMES[:2], trained=trained))
    assert f"--model.loss_config.class_weights {weights}`" in advice.action
    assert advice.title == "'bee' is predicted as 'ant' in 20 of 50 images"
    assert "66.7 % of all errors on test. The other way round: 10 of 100 (Fisher's" in advice.evidence
    assert set(advice.paths) == {f"test/{index}" for index in range(100, 120)}


def test_spread_errors_are_no_pair(tmp_path: Path) -> None:
    wrong = {index: ((index % 3 + 2) % 4, 0.4) for index in range(50, 62)}
    assert advise(fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), wrong), NAMES)) == []


@pytest.mark.parametrize(
    ("column", "given", "usual", "text"),
    [
        ("brightness", 180.0, 90.0, "Brightness predicts class 'cow' by itself (a shortcut)"),
        ("format", "JPEG", "PNG", "The file type predicts class 'cow' by itself (a shortcut)"),
        ("width", 64, 32, "The width predicts class 'cow' by itself (a shortcut)"),
        ("sharpness", 9.0, 1.0, ""),
    ],
)
def test_property_that_tells_the_class(tmp_path: Path, column: str, given: object, usual: object, text: str) -> None:
    of_train = np.repeat(np.arange(4), 100)
    values = [given if label == 2 else usual for label in [*of_train, *LABELS]]
    probs = probabilities(LABELS, 4, np.random.default_rng(0), {})
    found = advise(fake_run(tmp_path, LABELS, probs, NAMES, properties={column: values}))
    assert [advice.title.partition(":")[0] for advice in found] == [text] * bool(text)


def test_property_that_goes_with_the_class_a_little(tmp_path: Path) -> None:
    labels = np.concatenate([np.repeat(np.arange(4), 100), LABELS])
    values = np.random.default_rng(0).normal(100 + 20 * (labels == 2), 20)
    probs = probabilities(LABELS, 4, np.random.default_rng(0), {})
    assert advise(fake_run(tmp_path, LABELS, probs, NAMES, properties={"brightness": values.tolist()})) == []


def test_dark_images_with_more_errors(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.permutation(600).astype(float)
    dark = np.flatnonzero(values[400:] < 120)[:20]
    wrong = {int(index): (int(LABELS[index] + 1 + number % 3) % 4, 0.3) for number, index in enumerate(dark)}
    probs = probabilities(LABELS, 4, generator, wrong)
    advice = only(fake_run(tmp_path, LABELS, probs, NAMES, properties={"brightness": values.tolist()}))
    assert advice.title.startswith("Errors are more frequent where brightness is below ")
    assert "after Holm's correction for 2 segments" in advice.evidence
    assert set(advice.paths) <= {f"test/{index}" for index in wrong}


def test_errors_by_chance_are_no_segment(tmp_path: Path) -> None:
    """At most one run in twenty, since the correction keeps the error over all segments of a run."""
    found = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        columns = {name: generator.normal(100, 10, 600).tolist() for name in ("brightness", "contrast", "bytes")}
        chosen = generator.permutation(200)[:24].tolist()
        wrong = {index: (int(LABELS[index] + generator.integers(1, 4)) % 4, 0.3) for index in chosen}
        run = fake_run(
            tmp_path / str(seed), LABELS, probabilities(LABELS, 4, generator, wrong), NAMES, properties=columns
        )
        found += "weak_segment" in kinds(run)
    assert found <= 4


@pytest.mark.parametrize(
    ("loss", "max_epochs", "found"),
    [([1.2], 1, True), (FALLING, 8, True), (FALLING, 20, False), (FLAT, 8, False)],
    ids=["one epoch", "still falling", "stopped early", "flat"],
)
def test_short_training(tmp_path: Path, loss: list[float], max_epochs: int, found: bool) -> None:
    run = fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), {}), NAMES)
    write_history(tmp_path, max_epochs, validation_loss=loss)
    assert kinds(run) == ["short_training"] * found
    if found:
        assert advise(run)[0].action == f"Train again: `imgcls fit {tmp_path}/config.yaml --trainer.max_epochs 20`."


def test_training_whose_best_epoch_is_early_was_long_enough(tmp_path: Path) -> None:
    run = fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), {}), NAMES)
    write_history(tmp_path, 8, validation_loss=FALLING)
    for epoch, found in ((6, ["short_training"]), (2, [])):
        (tmp_path / "results.json").write_text(json.dumps({"epoch": epoch}))
        assert kinds(read_run(run.folder)) == found


def test_short_training_of_two_epochs(tmp_path: Path) -> None:
    run = fake_run(tmp_path, LABELS, probabilities(LABELS, 4, np.random.default_rng(0), {}), NAMES)
    write_history(tmp_path, 2, validation_loss=[1.2, 0.9])
    assert "lowest in epoch 2 of 2, where it fell from 1.200 to 0.900" in only(run).evidence


def test_overfitting(tmp_path: Path) -> None:
    wrong = {index: (int(LABELS[index] + index) % 4, 0.3) for index in range(1, 200, 5)}
    probs = probabilities(LABELS, 4, np.random.default_rng(0), wrong)
    run = fake_run(tmp_path, LABELS, probs, NAMES, split="validation")
    loss = [1.2, 0.7, 0.5, 0.55, 0.6, 0.7, 0.8]
    write_history(tmp_path, validation_loss=loss, train_accuracy=[0.99] * 7, validation_accuracy=[0.8] * 7)
    advice = only(run)
    assert advice.kind == "overfitting"
    assert "lowest in epoch 3 of 7 (0.500) and rose by 60.0 % to 0.800" in advice.evidence


@pytest.mark.parametrize(
    ("frozen", "train", "found"), [(True, 0.78, True), (True, 0.9, False), (0.5, 0.78, False), (False, 0.78, False)]
)
def test_frozen_encoder(tmp_path: Path, frozen: bool | float, train: float, found: bool) -> None:
    wrong = {index: (int(LABELS[index] + index % 3 + 1) % 4, 0.3) for index in range(0, 200, 5)}
    probs = probabilities(LABELS, 4, np.random.default_rng(0), wrong)
    run = fake_run(tmp_path, LABELS, probs, NAMES, split="validation")
    write_history(tmp_path, train_accuracy=[0.6, train], validation_accuracy=[0.7, 0.8], validation_loss=[0.5, 0.5])
    config = {"model": {"init_args": {"freeze_encoder": frozen}}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    assert kinds(run) == ["frozen_encoder"] * found


def test_what_makes_the_score_wrong_comes_first(tmp_path: Path) -> None:
    wrong = dict.fromkeys(range(30), (1, 0.9))
    values = [180.0 if label == 2 else 90.0 for label in [*np.repeat(np.arange(4), 100), *LABELS]]
    probs = probabilities(LABELS, 4, np.random.default_rng(0), wrong)
    run = fake_run(tmp_path, LABELS, probs, NAMES, properties={"brightness": values})
    write_history(tmp_path, 1, validation_loss=[1.2])
    assert kinds(run)[:3] == ["shortcut", "short_training", "confused_pair"]


def test_multilabel_runs(tmp_path: Path) -> None:
    cells = ["ant;bee", "bee", "", "cow"] * 10
    table = pd.DataFrame({"path": [f"test/{row}" for row in range(40)], "label": cells, "prediction": "bee"})
    table = table.assign(probability="0.9", prob_ant=0.2, prob_bee=0.9, prob_cow=0.1, error="")
    write_table(tmp_path / "test_predictions.csv", table)
    (tmp_path / "test_results.json").write_text(json.dumps({"multilabel": True}))
    train = pd.DataFrame({"path": [f"train/{row}" for row in range(80)], "label": ["ant;bee", "bee"] * 40})
    splits = pd.concat([train.assign(split="train"), table[["path", "label"]].assign(split="test")])
    write_table(tmp_path / "splits.csv", splits.assign(content=""))
    advice = only(read_run(tmp_path))
    assert advice.title == "Train has no image of 'cow'"


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    names = ["caf\udce9", *NAMES[1:]]
    wrong = dict.fromkeys(range(60, 66), (0, 0.99))
    probs = probabilities(LABELS, 4, np.random.default_rng(0), wrong)
    brightness = np.random.default_rng(0).normal(size=600).tolist()
    advice = advise(fake_run(tmp_path, LABELS, probs, names, properties={"brightness": brightness}))[0]
    assert advice.title == "About 6 images in test may have a wrong label, and may be 'caf\\udce9'"
