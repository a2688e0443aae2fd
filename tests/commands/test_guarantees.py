"""``predict --risk`` and ``--coverage``: from the scores in a checkpoint, or an evaluation, to the table."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import imgcls
from imgcls.cli.main import main
from imgcls.datasets.labels import read_names
from imgcls.predictions.predicted_texts import Selection, predicted_texts
from imgcls.types import Batch
from tests.helpers.runs import arguments, fails, load

GUARANTEES = ["--risk", "0.1", "--coverage", "0.8"]


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with made-up scores of 300 images: the 200 with a probability above 0.6 are right."""
    out = tmp_path_factory.mktemp("scores")
    main(["fit", *arguments(photos, tiny_model, out)])
    best = out / "run/version_0/checkpoints/best.ckpt"
    confidence = torch.linspace(0.99, 0.405, 300)
    correct = confidence > 0.6
    scores = {"confidence": confidence, "correct": correct, "of_truth": torch.where(correct, confidence, 0.3)}
    torch.save(load(best) | {"calibration": {"split": "validation", "images": 300, **scores}}, best)
    return out / "run/version_0"


def predicted(run: Path, images: Path, output: Path, *more: str) -> pd.DataFrame:
    main(["predict", str(run), str(images), "--output", str(output), *more])
    return pd.read_csv(output) if output.suffix == ".csv" else pd.read_parquet(output)


def test_images_below_the_threshold_abstain_and_sets_have_what_is_above_theirs(
    run: Path, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "imgcls")
    plain = predicted(run, photos, tmp_path / "plain.csv")
    found = predicted(run, photos, tmp_path / "new.csv", *GUARANTEES)
    assert list(found)[:4] == ["path", "prediction", "probability", "set"]
    least = 0.99 - 0.585 / 299 * 210  # 211 predictions, of which 11 are wrong
    assert found["probability"].tolist() == plain["probability"].tolist()
    abstains = found["probability"] < least
    assert 0 < abstains.sum() < len(found)
    assert found["prediction"].tolist() == plain["prediction"].mask(abstains, "abstain").tolist()
    in_set = [{name for name in ("blue", "green", "red") if row[f"prob_{name}"] >= 0.3} for _, row in found.iterrows()]
    assert [set(read_names(text)) for text in found["set"]] == in_set
    assert any(";" in text for text in found["set"])
    text = "\n".join(caplog.messages)
    assert (
        "Risk 0.1 at a confidence level of 95 % (optimistic, since these images chose the epoch): predictions with a "
        "probability of at least 0.5791, which are 211 of 300 validation images, 11 of them wrong" in text
    )
    assert (
        "Coverage 0.8: a set has the most probable class and all others with a probability of at least 0.3, chosen by "
        "300 validation images; it may be lower on new images, since these chose the epoch" in text
    )
    assert "These images also chose the epoch and the temperature" in text
    assert "imgcls test CHECKPOINT PHOTOS, and add --calibrate_on FOLDER/test_predictions.csv" in text


def test_python_and_parquet_have_the_same(run: Path, photos: Path, tmp_path: Path) -> None:
    expected = predicted(run, photos / "red", tmp_path / "new.csv", *GUARANTEES)
    shutil.copytree(photos / "red", tmp_path / "red")
    (tmp_path / "red/zzz.png").write_bytes(b"no image")
    frame = imgcls.load(run, device="cpu").predict(tmp_path / "red", risk=0.1, coverage=0.8)
    assert list(frame) == list(expected)
    for name in ("prediction", "set"):
        assert frame[name][:-1].tolist() == expected[name].tolist()
    assert frame["set"].isna().tolist() == [False] * 20 + [True]
    table = predicted(run, tmp_path / "red", tmp_path / "new.parquet", *GUARANTEES, "--top_k", "2")
    assert list(table)[:5] == ["path", "prediction", "probability", "set", "top_1"]
    assert table["set"][:-1].tolist() == expected["set"].tolist()
    assert table["set"].isna().tolist() == [False] * 20 + [True]
    assert table["prediction"][:-1].tolist() == expected["prediction"].tolist()


def test_few_images_are_printed_with_their_sets(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["predict", str(run), str(photos / "red/000.png"), "--output", str(tmp_path / "x.csv"), *GUARANTEES])
    heading, row, *_ = capsys.readouterr().out.splitlines()
    assert heading.split()[:6] == ["path", "prediction", "probability", "set", "top_1", "top_1_probability"] or (
        heading.split() == ["path", "prediction", "probability", "set"]
    )
    assert row.split()[3] == pd.read_csv(tmp_path / "x.csv")["set"][0]


def test_evaluation_of_other_images_calibrates(
    run: Path, photos: Path, test_photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    main(["test", str(run), str(test_photos), "--output", str(tmp_path / "test")])
    table = tmp_path / "test/test_predictions.csv"
    caplog.set_level(logging.INFO, "imgcls")
    given = ["--coverage", "0.9", "--calibrate_on", str(table)]
    found = predicted(run, test_photos, tmp_path / "new.csv", *given)
    rows = pd.read_csv(table)
    of_truth = np.sort([row[f"prob_{row['label']}"] for _, row in rows.iterrows()])
    least = of_truth[0]  # floor(19 * 0.1) = 1
    sets = [{name for name in ("blue", "green", "red") if row[f"prob_{name}"] >= least} for _, row in found.iterrows()]
    assert [set(read_names(text)) for text in found["set"]] == [
        kept | {row["prediction"]} for kept, (_, row) in zip(sets, found.iterrows(), strict=True)
    ]
    assert "18 images of" in caplog.text
    assert "; on new images it is between 0.8" in caplog.text
    assert "also chose" not in caplog.text
    other = [*given, "--tta", "hflip", "--output", str(tmp_path / "y.csv")]
    code, message = fails(["predict", str(run), str(photos), *other], capsys)
    assert code == 2
    assert "were evaluated without --tta hflip; leave out --tta hflip, or calibrate on" in message
    assert "another evaluation: imgcls test CHECKPOINT PHOTOS --tta hflip --output FOLDER" in message
    main(["test", str(run), str(test_photos), "--tta", "hflip", "--output", str(tmp_path / "flipped")])
    flipped = tmp_path / "flipped/test_predictions.csv"
    given_flipped = ["--coverage", "0.9", "--calibrate_on", str(flipped), "--tta", "hflip"]
    assert "set" in predicted(run, test_photos, tmp_path / "flipped.csv", *given_flipped)
    code, message = fails(["predict", str(run), str(photos), *given_flipped[:-2]], capsys)
    assert "were evaluated with --tta hflip; type --tta hflip, or calibrate on" in message
    shutil.copytree(run, tmp_path / "run/version_0")
    last = tmp_path / "run/version_0/checkpoints/last.ckpt"
    code, message = fails(["predict", str(last), str(photos), *given, "--output", str(tmp_path / "y.csv")], capsys)
    assert "is not an evaluation of" in message


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["--risk", "0.001"], "--risk 0.001 cannot be guaranteed with 300 validation images: at least 2,995 are "
         "needed, all classified correctly; type --risk 0.0"),
        (["--risk", "2"], "--risk must be above 0 and below 1, got 2; for 2 % type --risk 0.02"),
        (["--coverage", "90"], "--coverage must be above 0 and below 1, got 90; for 90 % type --coverage 0.9"),
        (["--risk", "0"], "got 0; for 10 % type --risk 0.1"),
        (["--coverage", "0.999"], "coverage 0.999 needs at least 999 images, got 300 validation images"),
        (["--calibrate_on", "x.csv"], "--calibrate_on is used with --risk or --coverage; add --risk 0.02, or "),
        (["--risk", "0.1", "--raw"], "were evaluated without --raw; leave out --raw, or calibrate"),
        (["--risk", "0.1", "--calibrate_on", "x.csv"], "expected validation_predictions.csv or test_predictions.csv"),
        (["--risk"], "--risk needs a value; type --risk 0.02"),
    ],
)  # fmt: skip
def test_what_cannot_be_guaranteed_is_an_error(
    given: list[str], reason: str, run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, message = fails(["predict", str(run), str(photos), "--output", str(tmp_path / "x.csv"), *given], capsys)
    assert (code, reason in message) == (2, True), message
    assert not (tmp_path / "x.csv").exists()


def test_checkpoint_without_scores_says_what_to_type(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = str(run / "checkpoints/last.ckpt")
    code, message = fails(["predict", last, str(photos), "--output", str(tmp_path / "x.csv"), "--risk", "0.1"], capsys)
    assert code == 2
    assert "has no calibration scores, which a fit with validation images and experiment.calibrate keeps; " in message


def test_stopped_prediction_is_resumed_with_the_same_guarantee_only(
    run: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predicted(run, photos, tmp_path / "whole.csv", *GUARANTEES)
    line = ["predict", str(run), str(photos), "--output", str(tmp_path / "new.csv"), "--data.batch_size", "8"]
    calls = []
    original = imgcls.ImageClassifier.predict_step

    def stop(self: imgcls.ImageClassifier, batch: Batch, batch_idx: int) -> torch.Tensor:
        calls.append(batch_idx)
        if len(calls) == 4:
            raise RuntimeError("stopped")
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(imgcls.ImageClassifier, "predict_step", stop)
        fails([*line, *GUARANTEES], capsys)
    code, message = fails([*line, "--resume", "--risk", "0.2", "--coverage", "0.8"], capsys)
    assert code == 2
    assert "was begun with --risk 0.1, this command has --risk 0.2" in message
    main([*line, "--resume", *GUARANTEES])
    resumed = pd.read_csv(tmp_path / "new.csv")
    counts = resumed["prediction"].value_counts()
    abstained = counts.pop("abstain")
    [said] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Predicted for 60 images: ")]
    shown = [f"{name} {count} ({100 * count / 60:.1f} %)" for name, count in counts.items()]
    shown.append(f"abstained from {abstained} ({100 * abstained / 60:.1f} %)")
    assert sorted(said.partition(": ")[2].split(", ")) == sorted(shown)
    assert resumed[["path", "prediction", "set"]].equals(whole[["path", "prediction", "set"]])


def test_class_named_abstain_is_refused_and_sets_quote_names() -> None:
    probs = torch.tensor([[0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [float("nan")] * 3])
    found = predicted_texts(probs, ["", "", "lost"], ["a;b", "c", "d"], None, Selection(least=0.6, in_set=0.75))
    assert [each[:2] for each in found] == [("abstain", "0.5"), ("c", "0.7"), ("", "")]
    assert [each.label_set for each in found] == ['["a;b"]', "c", ""]
