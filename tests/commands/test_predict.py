"""predict: the most probable classes, features, Parquet, and a prediction that is stopped and resumed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import imgcls
from imgcls.cli.main import main
from imgcls.runtime import resumable_output
from tests.helpers.runs import arguments, fails, load

KILLED = """
import sys
from imgcls.cli.main import main
from imgcls.runtime import resumable_output

resumable_output.RECORD_SECONDS = 0.0
main(sys.argv[1:])
"""
ENDS = "--trainer.callbacks={class_path: tests.helpers.killer.EndPrediction, init_args: {batch: 3, number: %d}}"


@pytest.fixture(scope="module")
def checkpoint(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    main(["fit", *arguments(photos, tiny_model, out, "--trainer.max_epochs=1")])
    return out / "run/version_0/checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def images(test_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 18 photos, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "broken.png").write_text("broken")
    paths = [folder / "broken.png", *test_photos.glob("*/*.png")]
    (folder / "list.csv").write_text("".join(f"{line}\n" for line in ["path", *paths]))
    return folder / "list.csv"


def predict(checkpoint: Path, images: Path, *more: str) -> list[str]:
    every = ("--data.num_workers=0", "--data.batch_size=4")
    return ["predict", f"--ckpt_path={checkpoint}", f"--images={images}", *every, *more]


def outputs(folder: Path, suffix: str) -> list[str]:
    return [f"--output={folder}/p{suffix}", f"--embeddings={folder}/e.npy"]


def read_csv(path: Path) -> pd.DataFrame:
    texts = {"path", "prediction", "error", *(f"top_{rank}" for rank in range(1, 4))}
    names = path.read_text().splitlines()[0].split(",")
    return pd.read_csv(path, dtype={name: "str" if name in texts else "float32" for name in names})


def test_top_k_are_the_most_probable_classes(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    main(predict(checkpoint, images, f"--output={tmp_path}/all.csv"))
    main(predict(checkpoint, images, f"--output={tmp_path}/top.csv", "--top_k=2"))
    whole, top = read_csv(tmp_path / "all.csv"), read_csv(tmp_path / "top.csv")
    columns = ["top_1", "top_1_probability", "top_2", "top_2_probability"]
    assert list(top.columns) == ["path", "prediction", "probability", *columns, "error"]
    same = ["path", "prediction", "probability", "error"]
    pd.testing.assert_frame_equal(top[same], whole[same])
    read = top[top["error"].isna()]
    assert len(read) == 18
    assert (read["top_1"] == read["prediction"]).all()
    names = ["prob_blue", "prob_green", "prob_red"]
    for row, ours in zip(whole.to_dict("records"), top.to_dict("records"), strict=True):
        if isinstance(row["error"], str):
            continue
        ranked = sorted(((row[name], name.removeprefix("prob_")) for name in names), reverse=True)
        assert [(ours["top_1_probability"], ours["top_1"]), (ours["top_2_probability"], ours["top_2"])] == ranked[:2]
    assert top.loc[top["error"].notna(), columns].isna().all(axis=None)


@pytest.mark.parametrize("count", [0, 4])
def test_top_k_is_at_most_the_number_of_classes(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: int
) -> None:
    code, said = fails(predict(checkpoint, images, f"--output={tmp_path}/p.csv", f"--top_k={count}"), capsys)
    assert code == 2
    assert said.endswith(f"--top_k must be between 1 and 3, the number of classes, got {count}")


def test_few_top_classes_are_printed(
    checkpoint: Path, test_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(predict(checkpoint, test_photos / "red/000.png", f"--output={tmp_path}/p.csv", "--top_k=3"))
    heading, line, _ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["path", "prediction", "probability", "top_2", "top_3"]
    [row] = read_csv(tmp_path / "p.csv").to_dict("records")
    rounded = [
        [row["prediction"], row["probability"]],
        *([row[f"top_{n}"], row[f"top_{n}_probability"]] for n in (2, 3)),
    ]
    assert line.split() == [row["path"], *(text for name, prob in rounded for text in (name, f"{prob:.4f}"))]


@pytest.mark.parametrize("more", [[], ["--top_k=2", "--tta=hflip"]])
def test_parquet_has_the_values_of_the_csv(checkpoint: Path, images: Path, tmp_path: Path, more: list[str]) -> None:
    for suffix in (".csv", ".parquet"):
        main(predict(checkpoint, images, f"--output={tmp_path}/p{suffix}", *more))
    table = pd.read_parquet(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(table, read_csv(tmp_path / "p.csv"), check_exact=True)
    assert set(table.dtypes[["probability"]]) == {np.dtype("float32")}


def test_embeddings_are_those_of_the_python_api(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """Of the images themselves, also with test-time augmentation."""
    main(predict(checkpoint, images, *outputs(tmp_path, ".csv"), "--tta=flips"))
    main(predict(checkpoint, images, f"--output={tmp_path}/alone.csv", "--tta=flips"))
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    features = np.load(tmp_path / "e.npy")
    assert features.dtype == np.float32
    paths = read_csv(tmp_path / "p.csv")["path"].tolist()
    model = imgcls.load(checkpoint, batch_size=4, num_workers=0)
    np.testing.assert_array_equal(features, model.embed(paths))
    assert np.isnan(features[paths.index(str(images.parent / "broken.png"))]).all()
    assert np.isfinite(features).all(axis=1).sum() == 18


@pytest.mark.parametrize(
    ("option", "message"),
    [("e.npz", "--embeddings must end with .npy, got {}/e.npz"), ("old.npy", "{}/old.npy exists; add --overwrite")],
)
def test_embeddings_that_cannot_be_written(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    (tmp_path / "old.npy").touch()
    line = predict(checkpoint, images, f"--output={tmp_path}/p.csv", f"--embeddings={tmp_path}/{option}")
    code, said = fails(line, capsys)
    assert (code, message.format(tmp_path) in said) == (2, True), said
    assert [path.name for path in tmp_path.iterdir()] == ["old.npy"]


@pytest.mark.parametrize("ending", [".xlsx", ".txt"])
def test_table_of_another_format_is_refused(
    ending: str, checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fails(predict(checkpoint, images, f"--output={tmp_path}/p{ending}"), capsys)
    assert (code, f"p{ending}: {ending} is not supported; end the file with .csv or .parquet" in said) == (2, True), (
        said
    )


# -- a prediction that is stopped


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_killed_prediction_is_resumed_to_the_byte(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main(predict(checkpoint, images, *outputs(whole, suffix), "--top_k=2"))
    line = predict(checkpoint, images, *outputs(parts, suffix), "--top_k=2")
    killed = [sys.executable, "-c", KILLED, *line, ENDS % signal.SIGKILL]
    assert subprocess.run(killed, check=False, capture_output=True).returncode == -signal.SIGKILL
    left = {f".p{suffix}.lock", f".p{suffix}.unfinished", f".p{suffix}.unfinished.json"}
    assert {path.name for path in parts.iterdir()} == left | {".e.npy.lock", ".e.npy.unfinished"}
    with (parts / f".p{suffix}.unfinished").open("ab") as rows:
        rows.write(b"torn")  # a row that was not complete
    code, said = fails(line, capsys)
    expected = f"{parts}/p{suffix}: 8 of 19 images are predicted, by a command that was stopped; add --resume"
    assert (code, expected in said) == (2, True), said
    main([*line, "--resume"])
    assert "Resuming after 8 of 19 images" in capsys.readouterr().err
    assert sorted(path.name for path in parts.iterdir()) == ["e.npy", f"p{suffix}"]
    for path in whole.iterdir():
        assert path.read_bytes() == (parts / path.name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_prediction_says_how_to_resume(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    line = predict(checkpoint, images, *outputs(tmp_path, ".csv"))
    with pytest.raises(SystemExit) as stop:
        main([*line, ENDS % number])
    assert stop.value.code == 128 + number
    assert "12 of 19 images are predicted; to resume, type the same command with --resume" in capsys.readouterr().err
    main([*line, "--resume"])
    assert len(read_csv(tmp_path / "p.csv")) == 19


@pytest.fixture
def stopped(checkpoint: Path, images: Path, tmp_path: Path) -> list[str]:
    """The command line of a prediction that was stopped after 12 images."""
    line = predict(checkpoint, images, *outputs(tmp_path, ".csv"))
    with pytest.raises(SystemExit):
        main([*line, ENDS % signal.SIGTERM])
    return line


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("--top_k=1", "was begun with --top_k null, this command has --top_k 1"),
        ("--tta=hflip", "was begun with --tta none, this command has --tta hflip"),
        ("--images={photo}", "was begun with --images 19 files"),
        ("--trainer.precision=64", "this command has trainer.precision 64-true"),
        ("--data.image_size=48", "this command has data.init_args.image_size 48"),
        ("--embeddings=null", "e.npy, this command has --embeddings null"),
        ("--ckpt_path={other}", "this command has --ckpt_path"),
    ],
)
def test_another_command_does_not_resume(
    stopped: list[str],
    checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    other: str,
    message: str,
) -> None:
    given = other.format(photo=photos / "red/000.png", other=tmp_path / "other.ckpt")
    other_weights(checkpoint, tmp_path / "other.ckpt")
    code, said = fails([*stopped, "--resume", given], capsys)
    assert (code, message in said, "give the same, or add --overwrite" in said) == (2, True, True), said


def other_weights(checkpoint: Path, other: Path) -> None:
    content = load(checkpoint)
    content["state_dict"] = {name: value + 1 for name, value in content["state_dict"].items()}
    torch.save(content, other)


def test_a_stopped_prediction_is_overwritten(
    stopped: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*stopped, "--overwrite", "--top_k=1"])
    assert list(read_csv(tmp_path / "p.csv").columns[3:5]) == ["top_1", "top_1_probability"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.npy", "p.csv"]


@pytest.mark.parametrize("damage", ["cut", "removed", "record"])
def test_files_that_do_not_fit_the_record_are_not_resumed(
    stopped: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    if damage == "cut":
        os.truncate(tmp_path / ".p.csv.unfinished", 20)
    elif damage == "removed":
        (tmp_path / ".e.npy.unfinished").unlink()
    else:
        (tmp_path / ".p.csv.unfinished.json").write_text("{}")
    code, said = fails([*stopped, "--resume"], capsys)
    assert code == 2
    assert ".unfinished" in said
    assert said.endswith("add --overwrite to start again")


def test_a_link_at_the_hidden_name_is_not_followed(stopped: list[str], tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes((tmp_path / ".p.csv.unfinished").read_bytes())
    (tmp_path / ".p.csv.unfinished").unlink()
    (tmp_path / ".p.csv.unfinished").symlink_to(victim)
    before = victim.read_bytes()
    with pytest.raises(SystemExit):
        main([*stopped, "--resume"])
    assert victim.read_bytes() == before


def test_rows_that_are_all_there_are_completed(
    stopped: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a disk that was full when the file was converted."""

    def refuse(*_: object) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(resumable_output.Unfinished, "finish", refuse)
        fails([*stopped, "--resume"], capsys)
    assert json.loads((tmp_path / ".p.csv.unfinished.json").read_text())["rows"] == 19
    main([*stopped, "--resume"])
    assert len(read_csv(tmp_path / "p.csv")) == 19
    assert np.load(tmp_path / "e.npy").shape[0] == 19


def test_nothing_to_resume_starts(
    checkpoint: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(predict(checkpoint, images, f"--output={tmp_path}/p.csv", "--resume"))
    assert "There is nothing to resume: predicting all 19 images" in capsys.readouterr().err
    assert len(read_csv(tmp_path / "p.csv")) == 19
