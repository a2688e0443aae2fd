"""Images of several labels: from the CSV through loss, metrics, thresholds and split to the predictions."""

import io
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.special import logit
from sklearn.metrics import average_precision_score, f1_score

import imgcls
from imgcls import CsvImageDataset, ImageClassifier, ImageDataModule
from imgcls.callbacks.metrics_logger import MetricsLogger
from imgcls.checkpoints.io import read_checkpoint
from imgcls.cli.main import main
from imgcls.data.config import Augmentations, DatasetClasses
from imgcls.data.splitting.checkpoint_split import check_unchanged
from imgcls.data.splitting.class_labels import class_names_of, is_multilabel, labels_of
from imgcls.data.splitting.split import Split
from imgcls.data.splitting.train_val_split import Fold, hold_out
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.datasets.labels import read_names, to_text
from imgcls.errors import ConfigError
from imgcls.metrics.stage_metrics import StageMetrics
from imgcls.models.thresholds import thresholds_of
from imgcls.models.training.losses import LossConfig, MultilabelLoss
from imgcls.models.tta import averaged
from imgcls.statistics.temperature import Temperature
from tests.conftest import COLOURS
from tests.helpers.runs import arguments, assert_same_weights, fails, load, table_of, weights

NAMES = list(COLOURS)
Labels = Sequence[tuple[str, ...]]


def write_images(folder: Path, split: str, count: int, seed: int) -> list[str]:
    """Noisy images with a band for each class, grey where it is of another; return the rows of their CSV."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        pixels = generator.normal(128, 30, (48, 48, 3))
        found = [name for name in NAMES if generator.random() < 0.4]
        for name in found:
            band = 16 * NAMES.index(name)
            pixels[:, band : band + 16] += np.subtract(COLOURS[name], 128)
        path = f"{split}{number:03d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
        rows.append(f"{path},{' | '.join(found[::-1])},{split}")
    return rows


def spec(folder: Path, split: str | None = None, **more: Any) -> str:
    given = {"csv": str(folder / "all.csv"), "label_column": "kinds", "label_separator": "|"} | (
        {"split": split} if split else {}
    )
    return json.dumps({"class_path": "imgcls.CsvImageDataset", "init_args": given | more})


@pytest.fixture(scope="module")
def bands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CSV of 90 training and 30 test images, and other test images with a class each; read only."""
    folder = tmp_path_factory.mktemp("bands")
    rows = write_images(folder, "train", 90, seed=0) + write_images(folder, "test", 30, seed=1)
    (folder / "all.csv").write_text("\n".join(["path,kinds,split", *rows]))
    return folder


def fit_line(bands: Path, model: Path, out: Path, *more: str) -> list[str]:
    line = arguments(bands, model, out, *more)
    return ["fit", f"--data.dataset_classes.train={spec(bands, 'train')}", *line[1:]]


def said(*line: str) -> str:
    """Run a command; return what it prints."""
    with redirect_stdout(io.StringIO()) as out:
        main(list(line))
    return out.getvalue()


@pytest.fixture(scope="module")
def run(bands: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a trained run, and what it printed."""
    out = tmp_path_factory.mktemp("runs")
    test = f"--data.dataset_classes.test={spec(bands, 'test')}"
    printed = said(*fit_line(bands, tiny_model, out, test, "--trainer.max_epochs=10"))
    return out / "run/version_0", printed


def predictions(folder: Path, images: Path, out: Path, *more: str) -> pd.DataFrame:
    (out / "images.csv").write_text(
        "\n".join(["path", *(str(images / f"test{number:03d}.png") for number in range(30))])
    )
    line = ["--ckpt_path", str(folder / "checkpoints/best.ckpt"), "--images", str(out / "images.csv")]
    said("predict", *line, f"--output={out / 'p.csv'}", "--overwrite", *more)
    return pd.read_csv(out / "p.csv", keep_default_na=False)


def truth(bands: Path) -> np.ndarray[Any, np.dtype[np.int_]]:
    data = CsvImageDataset(str(bands / "all.csv"), label_column="kinds", label_separator="|", split="test")
    return np.array([[name in label for name in NAMES] for label in data.samples["label"]]).astype(int)


# -- through the commands


def test_fit_learns_several_labels_and_test_finds_them_again(bands: Path, run: tuple[Path, str]) -> None:
    folder, printed = run
    f1 = table_of(printed)["f1_score"]
    assert float(f1[-1]) > 0.9  # always yes gives 0.57
    alone = table_of(said("test", "--ckpt_path", str(folder / "checkpoints/best.ckpt")))
    assert alone["f1_score"] == f1[1:]


def test_predictions_are_those_that_the_metrics_count(bands: Path, run: tuple[Path, str], tmp_path: Path) -> None:
    folder, printed = run
    table = predictions(folder, bands, tmp_path)
    assert list(table.columns) == ["path", "prediction", "probability", *(f"prob_{name}" for name in NAMES), "error"]
    probs = table[[f"prob_{name}" for name in NAMES]].to_numpy()
    for row, text, own in zip(probs, table["prediction"], table["probability"], strict=True):
        above = [place for place in range(3) if row[place] > 0.5]
        assert text == ";".join(NAMES[place] for place in above)
        assert [float(value) for value in str(own).split(";") if value] == [row[place] for place in above]
    assert {len(text.split(";")) for text in table["prediction"] if text} == {1, 2, 3}
    assert "" in set(table["prediction"])
    expected = truth(bands)
    decided = np.array([[name in text.split(";") for name in NAMES] for text in table["prediction"]])
    rows = pd.read_csv(folder / "test_predictions.csv", keep_default_na=False)
    assert list(rows["prediction"]) == list(table["prediction"])
    assert [[name in text.split(";") for name in NAMES] for text in rows["label"]] == (expected == 1).tolist()
    values = {name: float(row[-1]) for name, row in table_of(printed).items()}
    assert values["f1_score"] == pytest.approx(f1_score(expected, decided, average="macro"), abs=1e-4)
    assert values["accuracy"] == pytest.approx((expected == decided).mean(), abs=1e-4)
    entropy = -np.log(np.where(expected, probs, 1 - probs)).mean()
    assert values["loss"] == pytest.approx(entropy, abs=2e-3)


def test_python_predicts_what_the_csv_has(bands: Path, run: tuple[Path, str], tmp_path: Path) -> None:
    theirs = predictions(run[0], bands, tmp_path)
    classifier = imgcls.load(run[0], device="cpu")
    ours = classifier.predict(tmp_path / "images.csv")
    assert classifier.multilabel
    assert "multi-label" in repr(classifier)
    texts = ["path", "prediction", "probability", "error"]
    assert ours[texts].equals(theirs[texts].astype("str"))
    for name in NAMES:
        assert np.array_equal(ours[f"prob_{name}"], theirs[f"prob_{name}"].astype(np.float32))
    (tmp_path / "empty.png").write_bytes(b"")
    [bad] = classifier.predict([tmp_path / "empty.png"]).to_dict("records")
    assert bad.pop("error") == "is empty"
    assert bad.pop("path") == str(tmp_path / "empty.png")
    assert all(map(pd.isna, bad.values()))


def test_threshold_of_the_command_line_decides(bands: Path, run: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = run
    assert set(predictions(folder, bands, tmp_path, "--model.threshold=1")["prediction"]) == {""}
    assert set(predictions(folder, bands, tmp_path, "--model.init_args.threshold=0")["prediction"]) == {
        "blue;green;red"
    }
    given = "--model.threshold={blue: 0, red: 1}"
    found = predictions(folder, bands, tmp_path, given)["prediction"]
    assert set(found) == {"blue", "blue;green"}
    checkpoint = str(folder / "checkpoints/best.ckpt")
    recall = table_of(said("test", "--ckpt_path", checkpoint, "--model.threshold=[0, 0, 1]"))["recall"]
    assert float(recall[0]) == pytest.approx(2 / 3, abs=1e-4)


def test_threshold_of_a_configuration_decides_unless_one_is_typed(
    bands: Path, run: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("model: {threshold: {green: 0, blue: 1, red: 1}}")
    config = f"--config={tmp_path / 'c.yaml'}"
    assert set(predictions(run[0], bands, tmp_path, config)["prediction"]) == {"green"}
    assert set(predictions(run[0], bands, tmp_path, config, "--model.threshold=1")["prediction"]) == {""}


def test_each_class_may_have_a_temperature(
    bands: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [0.5, 1.0, 4.0]
    found = Temperature(np.array(values), "", 18, 0.5, 0.4)
    monkeypatch.setattr("imgcls.commands.calibration.fit_temperature", lambda logits, labels: found)
    said(*fit_line(bands, tiny_model, tmp_path))
    folder = tmp_path / "run/version_0"
    best, last = folder / "checkpoints/best.ckpt", folder / "checkpoints/last.ckpt"
    assert weights(best)["temperature"].tolist() == values
    assert float(weights(last)["temperature"]) == 1
    results = json.loads((folder / "results.json").read_text())
    assert results["calibration"]["temperature"] == dict(zip(NAMES, values, strict=True))
    assert table_of(said("validate", str(folder)))["loss"] == [f"{results['validation_loss']:.4f}"]
    columns = [f"prob_{name}" for name in NAMES]
    raw, cool = (predictions(folder, bands, tmp_path, *more)[columns].to_numpy(float) for more in (["--raw"], []))
    assert logit(cool) == pytest.approx(logit(raw) / values, rel=1e-3, abs=1e-4)
    frame = imgcls.load(best, device="cpu").predict(tmp_path / "images.csv")
    assert frame[columns].to_numpy(float) == pytest.approx(cool, rel=1e-5)
    for number, more in enumerate((["--trainer.max_epochs=3"], ["--experiment.only_weights_load=true"]), 1):
        said(*fit_line(bands, tiny_model, tmp_path, *more, f"--ckpt_path={best}"))
        assert weights(tmp_path / f"run/version_{number}/checkpoints/last.ckpt")["temperature"] == 1
    more_photos = ["--images", str(tmp_path / "images.csv"), f"--output={tmp_path / 'q.csv'}", "--risk", "0.1"]
    code, message = fails(["predict", "--ckpt_path", str(best), *more_photos], capsys)
    assert (code, "need a single-label model; this one is multi-label" in message) == (2, True)


def test_checkpoint_alone_rebuilds_the_task(run: tuple[Path, str], tmp_path: Path) -> None:
    path = run[0] / "checkpoints/best.ckpt"
    model = ImageClassifier.load_from_checkpoint(path, weights_only=True).eval()
    assert (model.multilabel, model.thresholds) == (True, [0.5] * 3)
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    probs = model.predict_step({"image": images, "label": torch.zeros(2), "path": ["a", "b"]}, 0)
    torch.testing.assert_close(probs, torch.sigmoid(model(images)))
    changed = ImageClassifier.load_from_checkpoint(path, weights_only=True, threshold={"red": 0.9})
    assert changed.thresholds == [0.5, 0.5, 0.9]
    content = load(path)
    for thresholds, message in (
        ([0.5, 1.5, 0.5], "less than or equal to 1"),
        ([0.5], "got 1 thresholds for 3 classes"),
    ):
        content["imgcls"]["thresholds"] = thresholds
        torch.save(content, tmp_path / "x.ckpt")
        with pytest.raises(ConfigError, match=message):
            ImageClassifier("x").build(NAMES, read_checkpoint(tmp_path / "x.ckpt")["imgcls"])


def test_threshold_of_the_run_is_the_checkpoints(
    bands: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("model: {init_args: {threshold: {green: 0, blue: 1, red: 1}}}")
    test = f"--data.dataset_classes.test={spec(bands, 'test')}"
    line = fit_line(bands, tiny_model, tmp_path, test, "--trainer.max_epochs=1", f"--config={tmp_path / 'c.yaml'}")
    printed = said(*line)
    share = truth(bands).mean(axis=0)[1]
    expected = 2 * share / (1 + share) / 3
    assert float(table_of(printed)["f1_score"][-1]) == pytest.approx(expected, abs=1e-4)
    folder = tmp_path / "run/version_0"
    record = load(folder / "checkpoints/best.ckpt")["imgcls"]
    assert (record["multilabel"], record["thresholds"]) == (True, [1.0, 0.0, 1.0])
    assert record["network"]["problem_type"] == "multi_label_classification"
    assert set(predictions(folder, bands, tmp_path)["prediction"]) == {"green"}
    assert table_of(said("test", "--ckpt_path", str(folder / "checkpoints/best.ckpt"))) == {
        name: row[1:] for name, row in table_of(printed).items()
    }
    resumed = ["--ckpt_path", str(folder / "checkpoints/last.ckpt"), "--trainer.max_epochs=2"]
    said(*fit_line(bands, tiny_model, tmp_path, *resumed))
    assert load(tmp_path / "run/version_1/checkpoints/last.ckpt")["imgcls"]["thresholds"] == [1.0, 0.0, 1.0]
    fresh = ["--experiment.only_weights_load=true", "--trainer.max_epochs=1"]
    said(*fit_line(bands, tiny_model, tmp_path, *resumed[:2], *fresh))
    assert load(tmp_path / "run/version_2/checkpoints/last.ckpt")["imgcls"]["thresholds"] == [0.5, 0.5, 0.5]


def test_split_is_written_down_and_kept(
    bands: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said(*fit_line(bands, tiny_model, tmp_path, "--trainer.max_epochs=2"))
    table = pd.read_csv(tmp_path / "run/version_0/splits.csv", keep_default_na=False)
    again = CsvImageDataset(str(tmp_path / "run/version_0/splits.csv"), label_separator=";").samples
    listed = CsvImageDataset(str(bands / "all.csv"), label_column="kinds", label_separator="|", split="train").samples
    assert dict(zip(again["path"], again["label"], strict=True)) == dict(
        zip(listed["path"], listed["label"], strict=True)
    )
    state = load(tmp_path / "run/version_0/checkpoints/last.ckpt")["ImageDataModule"]
    assert state["labels"]["validation"] == list(table["label"][table["split"] == "validation"])
    (tmp_path / "all.csv").write_text((bands / "all.csv").read_text().replace("train000.png,", "train000.png,other|"))
    changed = f"--data.dataset_classes.train={spec(tmp_path, 'train', root=str(bands))}"
    line = fit_line(bands, tiny_model, tmp_path, "--ckpt_path=last", "--trainer.max_epochs=3", changed)
    code, message = fails(line, capsys)
    assert code == 2
    assert "classes 'other' are not among the model's" in message
    swapped = "train000.png," + {"": "red", "red": ""}.get(";".join(listed["label"][0]), "red")
    text = (bands / "all.csv").read_text().splitlines()
    (tmp_path / "all.csv").write_text("\n".join([text[0], f"{swapped},train", *text[2:]]))
    code, message = fails(line, capsys)
    assert code == 2
    assert f"1 in another class ['{bands / 'train000.png'}']" in message


def test_resumed_run_is_the_uninterrupted_one(bands: Path, tiny_model: Path, tmp_path: Path) -> None:
    whole = fit_line(
        bands, tiny_model, tmp_path / "whole", "--model.scheduler_config={name: constant, warmup_epochs: 0}"
    )
    said(*whole)
    parts = fit_line(
        bands, tiny_model, tmp_path / "parts", "--model.scheduler_config={name: constant, warmup_epochs: 0}"
    )
    said(*parts, "--trainer.max_epochs=1")
    said(*parts, "--ckpt_path=last")
    last = "run/version_0/checkpoints/last.ckpt"
    assert_same_weights(tmp_path / "whole" / last, tmp_path / "parts" / last)


def test_record_without_the_task_is_of_one_label(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    test = f"--data.dataset_classes.test={test_photos}"
    printed = said("fit", *arguments(photos, tiny_model, tmp_path, test))
    path = tmp_path / "run/version_0/checkpoints/best.ckpt"
    content = load(path)
    assert content["imgcls"].pop("multilabel") is False
    assert content["imgcls"].pop("thresholds") is None
    torch.save(content, tmp_path / "old.ckpt")
    alone = table_of(said("test", "--ckpt_path", str(tmp_path / "old.ckpt")))
    assert alone == {name: row[1:] for name, row in table_of(printed).items()}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model.threshold=1.5"], "model.init_args.threshold must be a probability from 0 to 1, got 1.5"),
        (["--model.threshold=[0.5, 0.5]"], "model.init_args.threshold must have one value for each of the 3 classes"),
        (["--model.threshold={rde: 0.5}"], "there is no class 'rde'; did you mean 'red'?"),
        (
            ["--data.balanced_sampling=true"],
            "balanced_sampling: true cannot be used with multi-label data",
        ),
        (
            ["--data.dataset_classes.validation={photos}"],
            "train: multi-label, but validation: one label per image; set label_separator for all or none of them",
        ),
        (
            ["--trainer.callbacks=imgcls.MetricsLogger", "--trainer.callbacks.metrics={kappa}"],
            "metrics.kappa: torchmetrics.CohenKappa: does not support multi-label data; use another metric",
        ),
    ],
)
def test_fit_refuses_what_does_not_fit_several_labels(
    more: list[str],
    message: str,
    bands: Path,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kappa = json.dumps({"kappa": {"class_path": "torchmetrics.CohenKappa"}})
    more = [text.replace("{photos}", str(photos)).replace("{kappa}", kappa) for text in more]
    code, text = fails(fit_line(bands, tiny_model, tmp_path, *more), capsys)
    assert code == 2
    assert message in text
    assert not (tmp_path / "run").exists()


def test_one_label_has_no_threshold_and_folders_no_separator(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    code, text = fails([*line, "--model.threshold=0.5"], capsys)
    assert (code, "threshold: 0.5 applies to multi-label data only" in text) == (2, True)
    folder = {"class_path": "imgcls.FolderImageDataset", "init_args": {"root": str(photos), "label_separator": ";"}}
    code, text = fails([*line, f"--data.dataset_classes.train={json.dumps(folder)}"], capsys)
    assert code == 2
    assert "label_separator" in text


def test_evaluation_refuses_data_of_the_other_kind(
    photos: Path, bands: Path, run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(run[0] / "checkpoints/best.ckpt")
    code, text = fails(["test", "--ckpt_path", checkpoint, f"--data.dataset_classes.test={photos}"], capsys)
    assert code == 2
    assert "the model is multi-label, but the data single-label; set label_separator" in text
    code, text = fails(["test", "--ckpt_path", checkpoint, "--model.num_classes=3"], capsys)
    assert (code, "leave --model.num_classes out" in text) == (2, True)


def test_check_counts_every_label_and_compares_sets(
    bands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.png").write_bytes(
            (bands / ("train000.png" if name < "c" else "train001.png")).read_bytes()
        )
    rows = ["path,kinds", "a.png,x | y", "b.png,y|x", "c.png,x|z", "d.png,x", "e.png,"]
    (tmp_path / "e.png").write_bytes((bands / "train002.png").read_bytes())
    (tmp_path / "all.csv").write_text("\n".join(rows))
    main(
        [
            "check",
            f"--data.dataset_classes.train={spec(tmp_path)}",
            "--json",
            str(tmp_path / "r.json"),
            "--html",
            str(tmp_path / "r.html"),
        ]
    )
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["classes"] == {"train": {"x": 4, "y": 2, "z": 1}}
    assert found["imbalance"] == {"train": 4}
    assert found["of_no_class"] == {"train": 1}
    copies = {tuple(item["path"][-5] for item in group["images"]): group for group in found["exact_duplicates"]}
    assert {paths: group["two_labels"] for paths, group in copies.items()} == {("a", "b"): False, ("c", "d"): True}
    assert copies["c", "d"]["images"][0]["label"] == ["x", "z"]
    printed = capsys.readouterr().out
    assert "train: 1 image of no class" in printed
    assert "x;z" in printed
    assert "x;z" in (tmp_path / "r.html").read_text()


# -- labels and their table


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), ""),
        (("b", "a"), "a;b"),
        (("a;b", "c"), '["a;b", "c"]'),
        ((" a",), '[" a"]'),
        (('["a"]',), '["[\\"a\\"]"]'),
        (("[a]", "é"), "[a];é"),
        (("[]",), '["[]"]'),
    ],
)
def test_labels_are_read_as_they_are_written(names: tuple[str, ...], text: str) -> None:
    assert to_text(names) == text
    assert read_names(text) == tuple(sorted(names))


@pytest.mark.parametrize(("text", "names"), [("[]", ()), ('[ "a" ]', ("a",)), (' ["b", "a" ]', ("a", "b"))])
def test_labels_are_read_as_json_writes_them(text: str, names: tuple[str, ...]) -> None:
    assert read_names(text) == names


def write(folder: Path, text: str) -> str:
    for name in "abcd":
        (folder / name).touch()
    (folder / "t.csv").write_text(text)
    return str(folder / "t.csv")


def test_csv_dataset_reads_several_labels(tmp_path: Path) -> None:
    csv = write(tmp_path, 'path,label\na, dog ; cat\nb,\nc,nan\nd,"[""x;y"", ""cat""]"\n')
    labels = CsvImageDataset(csv, label_separator=";").samples["label"]
    assert list(labels) == [("cat", "dog"), (), ("nan",), ("cat", "x;y")]
    assert class_names_of(CsvImageDataset(csv, label_separator=";")) == ["cat", "dog", "nan", "x;y"]


def test_csv_dataset_names_rows_whose_labels_are_wrong(tmp_path: Path) -> None:
    csv = write(tmp_path, "path,label\na,cat;cat\nb,cat;;dog\nc,;\nd,dog\n")
    with pytest.raises(ConfigError) as error:
        _ = CsvImageDataset(csv, label_separator=";").samples
    assert "row 2: 'cat' twice in 'cat;cat'; row 3: an empty name in 'cat;;dog'; row 4: an empty name in ';' (" in str(
        error.value
    )
    with pytest.raises(ConfigError, match="label_separator must not be empty; give the text between names"):
        CsvImageDataset(csv, label_separator="")
    with pytest.raises(ConfigError, match="label_separator: ';' needs a label_column"):
        CsvImageDataset(csv, label_column=None, label_separator=";")


class Table(ImageDataset):
    """Samples without pixels; a sample's path is its content."""

    def __init__(self, labels: Sequence[object], paths: Sequence[str] | None = None) -> None:
        paths = [f"{number}" for number in range(len(labels))] if paths is None else paths
        self.samples = pd.DataFrame({"path": paths, "label": list(labels)}, dtype=object)

    def fingerprint(self, index: int) -> str:
        return str(self.samples["path"].iat[index]).partition("/")[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [("a", "b"), "a"],
            "train: Table: labels must all be names, or all tuples of names; '1' has 'a'",
        ),
        ([["a", "b"], ["a"]], r"train: Table: labels must all be names, or all tuples of names; '0' has \['a', 'b'\]"),
        ([("a", "b"), ("a", "a")], "train: Table: the label of '1' has 'a' twice"),
        ([("a", "b"), ("",)], "train: Table: the label of '1' has an empty name"),
        ([("a",), ("a",), ()], "train: Only one class .'a'. found in Table; at least two classes are needed"),
        ([("a", "b"), None], "train: '1' has no label"),
    ],
)
def test_labels_of_a_class_of_ones_own_are_checked(labels: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        class_names_of(Table(labels))


def test_several_labels_become_zeros_and_ones() -> None:
    data = Table([("b", "a"), (), ("c",)])
    labels = labels_of(data, ["c", "a", "b"], "train")
    assert labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    with pytest.raises(ConfigError, match=r"test: classes 'c' are not among the model's"):
        labels_of(data, ["a", "b"], "test")
    split = Split(data, labels)
    assert split.label_names == list(split.table()["label"]) == ["a;b", "", "c"]
    assert split.classes() == {0, 1, 2}
    assert split.class_counts(3) == [1, 1, 1]


def test_datasets_of_both_kinds_are_not_mixed() -> None:
    several, one = Table([("a",), ("b",)]), Table(["a", "b"])
    assert is_multilabel({"train": several, "test": several})
    assert not is_multilabel({"train": one})
    with pytest.raises(ConfigError, match="validation: multi-label, but train, test: one label per image"):
        is_multilabel({"train": one, "validation": several, "test": one})


def test_moved_labels_are_found() -> None:
    data = Table([("a", "b"), ("b",)])
    split = Split(data, labels_of(data, ["a", "b"], "train"))
    recorded = {"train": ["0", "1"], "validation": []}
    check_unchanged(split, recorded, {"train": ["a;b", "b"], "validation": []})
    with pytest.raises(ConfigError, match=r"1 in another class \['0'\]"):
        check_unchanged(split, recorded, {"train": ["a", "b"], "validation": []})


def test_batches_hold_a_row_of_zeros_and_ones_for_each_image(bands: Path) -> None:
    own = json.loads(spec(bands, "train"))["init_args"]
    resize = {"class_path": "Resize", "init_args": {"height": 16, "width": 16}}
    train = DatasetClasses(train=CsvImageDataset(**own))
    data = ImageDataModule(train, Augmentations([resize], [resize]), batch_size=4, num_workers=0)
    data.setup("fit")
    assert data.multilabel
    batch = next(iter(data.val_dataloader()))
    assert batch["label"].dtype == torch.float32
    assert batch["label"].shape == (4, 3)
    names = [";".join(NAMES[place] for place in row.nonzero().flatten()) for row in batch["label"]]
    assert names == data.split("validation").label_names[:4]


# -- the split


def random_labels(count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """Labels of eight classes, from frequent to rare, often together."""
    generator = np.random.default_rng(seed)
    shares = [0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02]
    drawn = generator.random((count, 8)) < np.array(shares) * generator.choice([0.3, 1.7], (count, 1))
    return [tuple(f"c{place}" for place in np.flatnonzero(row)) for row in drawn]


def whole(labels: Sequence[object], groups: Sequence[str] | None = None, paths: Sequence[str] | None = None) -> Split:
    data = Table(labels, paths)
    names = None if groups is None else np.array(groups, dtype=object)
    return Split(data, labels_of(data, class_names_of(data), "train"), groups=names)


def counts(split: Split) -> "Counter[str]":
    """Samples of each class, of no class, and in all."""
    labels = [label for row, label in enumerate(split.data.samples["label"]) if row in set(split.rows)]
    return Counter([name for label in labels for name in (*(label or ("none",)), "all")])


@pytest.mark.parametrize("share", [0.2, 0.37])
def test_hold_out_gives_each_side_its_share_of_every_label(share: float) -> None:
    split = whole(random_labels(600))
    held = counts(hold_out(split, share, seed=0)["validation"])
    for name, total in counts(split).items():
        assert abs(held[name] - share * total) <= max(2, 0.02 * total), name


def test_hold_out_beats_chance_on_rare_labels() -> None:
    split = whole(random_labels(600))
    totals = counts(split)

    def off(held: "Counter[str]") -> float:
        return sum(abs(held[name] - 0.2 * total) / total for name, total in totals.items())

    generator = np.random.default_rng(0)
    by_chance = [off(counts(split.divide(generator.permutation(600)[:120])["validation"])) for _ in range(20)]
    ours = [off(counts(hold_out(split, 0.2, seed)["validation"])) for seed in range(5)]
    assert max(ours) < 0.5 * min(by_chance)


def test_folds_hold_each_image_out_once_and_evenly() -> None:
    split = whole(random_labels(403))
    parts = [hold_out(split, 0.2, 0, Fold(number, 4))["validation"] for number in range(1, 5)]
    assert sorted(row for part in parts for row in part.rows) == list(range(403))
    for name, total in counts(split).items():
        held = [counts(part)[name] for part in parts]
        assert max(held) - min(held) <= max(3, 0.04 * total), (name, held)


def test_groups_and_copies_stay_on_one_side() -> None:
    labels = random_labels(400)
    groups = [f"g{number % 57}" for number in range(400)]
    held = hold_out(whole(labels, groups), 0.25, seed=1)
    sides = [set(np.array(groups)[part.rows]) for part in held.values()]
    assert sides[0] & sides[1] == set()
    assert 0.2 < len(held["validation"]) / 400 < 0.3
    paths = [f"{number // 2}/{number}" for number in range(400)]
    held = hold_out(whole(labels, paths=paths), 0.25, seed=1)
    assert set(held["train"].fingerprints) & set(held["validation"].fingerprints) == set()
    assert len(held["validation"]) == pytest.approx(100, abs=10)


def test_hold_out_of_several_labels_follows_contents_and_seed_alone() -> None:
    labels = random_labels(200)
    order = np.random.default_rng(3).permutation(200)
    sides = []
    for rows in (range(200), order):
        names = [f"{row:03d}" for row in rows]
        split = whole([labels[row] for row in rows], [f"{row // 3}" for row in rows], names)
        sides.append({split.path(int(row)) for row in hold_out(split, 0.2, seed=5)["validation"].rows})
    assert sides[0] == sides[1]
    split = whole(labels)
    assert list(hold_out(split, 0.2, 5)["validation"].rows) != list(hold_out(split, 0.2, 6)["validation"].rows)


def test_a_label_of_a_single_image_stays_in_train() -> None:
    split = whole([*random_labels(100), ("c0", "rare")])
    assert all(100 in hold_out(split, 0.2, seed)["train"].rows for seed in range(5))


@pytest.mark.parametrize("fold", [None, Fold(1, 5)])
def test_hold_out_of_too_few_images_is_refused(fold: Fold | None) -> None:
    with pytest.raises(ConfigError, match=r"data\.init_args\.\w+: .* of 2 images in 2 classes cannot be held out"):
        hold_out(whole([("a",), ("a", "b")]), 0.2, 0, fold)


# -- metrics and thresholds


def outputs(count: int = 3) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(40, 3, generator=generator) for _ in range(count)]
    labels = [(torch.rand(40, 3, generator=generator) < 0.4).float() for _ in range(count)]
    return [{"logits": a, "label": b, "batch_loss": a.mean()} for a, b in zip(logits, labels, strict=True)]


def metric(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def test_metrics_of_several_labels_are_scikit_learns() -> None:
    specs = {
        "f1_score": metric("torchmetrics.F1Score", average="macro"),
        "own": metric("torchmetrics.F1Score", average="macro", threshold=0.7),
        "each": metric("torchmetrics.F1Score", average="none"),
        "exact": metric("torchmetrics.ExactMatch"),
        "map": metric("torchmetrics.AveragePrecision"),
        "named": metric("torchmetrics.classification.MultilabelF1Score"),
    }
    thresholds = [0.2, 0.5, 0.8]
    stage = StageMetrics("validation", specs, NAMES, thresholds)
    for batch in outputs():
        stage.add(batch)
    values = {name.removeprefix("validation_"): float(value) for name, value in stage.compute().items()}
    probs, labels = (torch.cat([batch[key] for batch in outputs()]) for key in ("logits", "label"))
    probs = torch.sigmoid(probs)
    decided = probs > torch.tensor(thresholds)
    each = f1_score(labels, decided, average=None)
    assert values["f1_score"] == values["named"] == pytest.approx(each.mean())
    assert [values[f"each_{name}"] for name in NAMES] == pytest.approx(list(each))
    assert values["own"] == pytest.approx(f1_score(labels, probs > 0.7, average="macro"))
    assert values["exact"] == pytest.approx((labels == decided).all(dim=1).float().mean().item())
    assert values["map"] == pytest.approx(average_precision_score(labels, probs, average="macro"))


def test_names_of_several_labels_are_known_before() -> None:
    specs = {"recall": metric("torchmetrics.Recall", average="none"), "loss2": metric("torchmetrics.HammingDistance")}
    logger = MetricsLogger(specs)
    assert logger.names(NAMES, multilabel=True)[:5] == [
        "train_loss",
        "train_recall_blue",
        "train_recall_green",
        "train_recall_red",
        "train_loss2",
    ]
    assert logger.default_monitor(NAMES, multilabel=True) == "validation_loss2"
    assert logger.mode("validation_loss2", NAMES, multilabel=True) == "min"
    only = MetricsLogger({"ranking": metric("torchmetrics.classification.MultilabelRankingLoss")})
    assert only.mode("validation_ranking", NAMES, multilabel=True) == "min"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (metric("torchmetrics.CohenKappa"), "torchmetrics.CohenKappa: does not support multi-label data; use"),
        (metric("torchmetrics.F1Score", task="binary"), "does not support multi-label data, with task: binary"),
        (metric("torchmetrics.classification.BinaryF1Score"), "BinaryF1Score: does not support multi-label data"),
        (metric("torchmetrics.classification.MulticlassF1Score"), "MulticlassF1Score: does not support multi-label"),
        (metric("torchmetrics.F1Score", average="makro"), "average"),
        (metric("torchmetrics.ConfusionMatrix"), "must return one number or one per class"),
    ],
)
def test_metric_that_cannot_score_several_labels_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=r"mine|Multilabel") as error:
        StageMetrics("train", {"mine": given}, NAMES, [0.5] * 3)
    assert message in str(error.value)


LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
TARGET = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
PROBS = torch.where(TARGET > 0, LOGITS.sigmoid(), 1 - LOGITS.sigmoid())  # of what is true


def test_loss_of_several_labels() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    given = torch.where(TARGET > 0, weights, 1.0)
    assert MultilabelLoss(LossConfig())(LOGITS, TARGET) == pytest.approx(float(-PROBS.log().mean()))
    weighted = MultilabelLoss(LossConfig(), weights)(LOGITS, TARGET)
    assert weighted == pytest.approx(float(-(given * PROBS.log()).mean()))
    focal = MultilabelLoss(LossConfig(focal_gamma=2.0), weights)(LOGITS, TARGET)
    assert focal == pytest.approx(float(-(given * (1 - PROBS) ** 2 * PROBS.log()).mean()))
    almost = MultilabelLoss(LossConfig(focal_gamma=1e-6, label_smoothing=0.2), weights)(LOGITS, TARGET)
    smooth = MultilabelLoss(LossConfig(label_smoothing=0.2), weights)(LOGITS, TARGET)
    expected = -(given * (0.9 * PROBS.log() + 0.1 * (1 - PROBS).log())).mean()  # the weight of the image, not of a term
    assert smooth == pytest.approx(float(expected))
    assert almost == pytest.approx(float(smooth), rel=0.2)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_loss_of_labels_in_16_bits_is_not_rounded(gamma: float) -> None:
    loss = MultilabelLoss(LossConfig(focal_gamma=gamma, label_smoothing=0.1))
    found = loss(LOGITS, TARGET.bfloat16())
    assert (found.dtype, found) == (torch.float32, loss(LOGITS, TARGET))


def test_loss_of_a_validation_in_16_bits_is_not_rounded(tiny_model: Path) -> None:
    model = ImageClassifier(str(tiny_model), pretrained=False)
    model.build(NAMES, multilabel=True)
    model.bfloat16().eval()
    label = torch.eye(3)
    batch: Any = {"image": torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8), "label": label.bfloat16()}
    with torch.no_grad():
        found = model.validation_step(batch, 0)
    assert found is not None
    expected = torch.nn.functional.binary_cross_entropy_with_logits(found["logits"], label)
    assert (found["loss"].dtype, found["loss"]) == (torch.float32, expected)


def test_several_labels_are_evaluated_with_weights_of_16_bits(bands: Path, tiny_model: Path, tmp_path: Path) -> None:
    said(*fit_line(bands, tiny_model, tmp_path, "--trainer.max_epochs=1", "--trainer.precision=bf16-true"))
    table = pd.read_csv(tmp_path / "run/version_0/validation_predictions.csv")
    assert set(table["label"].fillna("")) > {""}


def test_probabilities_of_several_labels_are_the_mean_over_the_views() -> None:
    images = torch.rand(2, 3, 4, 4)
    found = averaged(lambda seen: 9 * seen[:, :, 0, 0], images, "hflip", multilabel=True)
    probs = [torch.sigmoid(9 * images[:, :, 0, column]) for column in (0, -1)]
    torch.testing.assert_close(torch.sigmoid(found), torch.stack(probs).mean(0))


@pytest.mark.parametrize(
    "option",
    [
        "--model.loss_config.label_smoothing=0.2",
        "--model.loss_config.class_weights=auto",
        "--model.loss_config.focal_gamma=2",
        "--model.mix_config={mixup: 0.5, cutmix: 0.5}",
        "--model.freeze_encoder=true",  # trains on features, whose batches are made elsewhere
    ],
)
def test_recipe_changes_what_is_learnt_of_several_labels(
    option: str, bands: Path, tiny_model: Path, tmp_path: Path, plain: dict[str, torch.Tensor]
) -> None:
    said(*fit_line(bands, tiny_model, tmp_path, "--trainer.max_epochs=1", option))
    found = weights(tmp_path / "run/version_0/checkpoints/last.ckpt")
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert any(not torch.equal(found[name], plain[name]) for name in plain)


@pytest.fixture(scope="module")
def plain(bands: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights after one epoch without options."""
    out = tmp_path_factory.mktemp("plain")
    said(*fit_line(bands, tiny_model, out, "--trainer.max_epochs=1"))
    return weights(out / "run/version_0/checkpoints/last.ckpt")


def test_thresholds_go_by_order_or_name() -> None:
    assert thresholds_of(None, ["a", "b"]) == [0.5, 0.5]
    assert thresholds_of(0.3, ["a", "b"]) == [0.3, 0.3]
    assert thresholds_of([0.1, 1], ["a", "b"]) == [0.1, 1.0]
    assert thresholds_of({"b": 0.2}, ["a", "b"]) == [0.5, 0.2]


def test_folder_dataset_has_no_separator() -> None:
    with pytest.raises(TypeError, match="label_separator"):
        FolderImageDataset(".", label_separator=";")  # type: ignore[call-arg]
