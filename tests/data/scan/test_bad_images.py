"""Images that cannot be read, leaks between splits, groups and folds: through the real command."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from imgcls.cli.main import main
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments, fails, program


def truncate(path: Path) -> None:
    """Keep the header, so that the damage shows when the image is decoded, and not before."""
    Image.open(path).convert("RGB").resize((200, 200)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def test_damage_that_a_class_of_ones_own_lets_through_is_skipped(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = json.dumps({"class_path": "tests.helpers.own.Torn", "init_args": {"bad": 4}})
    line = arguments(Path(spec), tiny_model, tmp_path, "--trainer.max_epochs=1")
    code, message = fails(["fit", *line], capsys)
    assert (code, "square/004: UnidentifiedImageError: cannot identify image file" in message) == (2, True), message
    main(["fit", *line, "--data.on_bad_image=skip", "--data.max_bad_fraction=0.1"])
    assert "skipped in train: square/004: UnidentifiedImageError" in capsys.readouterr().err


@pytest.mark.parametrize("cached", ["false", "true"])
def test_what_a_class_of_ones_own_reads_is_checked_in_workers(
    cached: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--data.num_workers=1", "--data.on_bad_image=skip", f"--data.create_dataset={cached}"]
    line = arguments(Path("{class_path: tests.helpers.own.Floats}"), tiny_model, tmp_path, *more)
    code, message = fails(["fit", *line, f"--data.cache_dir={tmp_path}/cache"], capsys)
    assert code == 2
    wanted = r"Floats\.read\(\d+\) must return uint8 of shape \(H, W, 3\), got float64 of shape \(32, 32, 3\)"
    assert re.fullmatch(wanted, message.removeprefix("imgcls: ")), message


def test_share_of_bad_images_is_of_the_whole_dataset(
    line: Callable[..., list[str]], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line("--trainer.max_epochs=1"))
    table = splits(tmp_path)
    truncate(Path(table[table["split"] == "validation"]["path"].iloc[0]))
    main(line("--trainer.max_epochs=1", "--data.on_bad_image=skip", "--data.max_bad_fraction=0.02"))  # 1 of 60
    assert "skipped in train: " in capsys.readouterr().err
    code, message = fails(line("--data.on_bad_image=skip", "--data.max_bad_fraction=0.01"), capsys)
    assert (code, "1 of 60 images in train cannot be read (limit 0.01" in message) == (2, True), message
    assert message.endswith("remove or replace them, or raise the limit: --data.max_bad_fraction 0.02")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_class_folders(tmp_path / "photos", 20)


@pytest.fixture
def line(folder: Path, tiny_model: Path, tmp_path: Path) -> Callable[..., list[str]]:
    return lambda *more: ["fit", *arguments(folder, tiny_model, tmp_path / "runs", *more)]


def splits(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "runs/run/version_0/splits.csv", dtype=str)


# -- bad images


def test_a_scan_lists_all_bad_images_before_the_first_step(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = write_class_folders(tmp_path / "test", 3, seed=5)
    (folder / "red/000.png").write_text("<html>not found</html>")
    (folder / "red/001.png").write_bytes(b"")
    (test / "blue/002.png").write_bytes(b"")
    with pytest.raises(SystemExit) as stop:
        main(line(f"--data.dataset_classes.test={test}"))
    assert stop.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "2 of 60 images in train, 1 of 9 images in test cannot be read; remove or replace them, or skip them: "
        "--data.on_bad_image skip"
    )
    assert f"  train: {folder}/red/001.png: is empty" in said
    assert f"  test: {test}/blue/002.png: is empty" in said
    assert not (tmp_path / "runs").exists()


def test_skip_goes_on_without_them_and_accounts_for_each(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "red/000.png").write_bytes(b"")
    truncate(folder / "green/003.png")
    (folder / "red/.DS_Store").touch()
    main(line("--data.on_bad_image=skip", "--data.max_bad_fraction=0.1", "--data.num_workers=2"))
    said = capsys.readouterr().err
    for path in ("red/000.png: is empty", "green/003.png: "):
        assert len(re.findall(rf"skipped in \w+: {folder}/{path}", said)) == 1
    account = json.loads((tmp_path / "runs/run/version_0/data.json").read_text())
    reasons = {Path(item["path"]).relative_to(folder).as_posix(): item["reason"] for item in account["unused"]}
    assert reasons.keys() == {"red/000.png", "green/003.png", "red/.DS_Store"}
    assert "truncated" in reasons["green/003.png"]
    assert account["used"] == 58
    assert str(folder / "red/000.png") not in splits(tmp_path)["path"].to_list()
    main(["validate", f"--ckpt_path={tmp_path}/runs/run/version_0/checkpoints/best.ckpt"])  # by the run's policy


def test_a_damaged_image_ends_the_run_by_name(
    folder: Path, line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    truncate(folder / "green/003.png")
    code, said = fails(line("--data.num_workers=2"), capsys)
    assert code == 2
    assert f"{folder}/green/003.png: " in said
    assert said.endswith("remove or replace the file, or leave such files out: --data.on_bad_image skip")


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b""), truncate])
def test_too_many_bad_images_are_refused(
    damage: Callable[[Path], object], folder: Path, line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.glob("*/01*.png"):
        damage(path)
    code, said = fails(line("--data.on_bad_image=skip"), capsys)
    assert code == 2
    assert re.search(
        r"\d+ of \d+ images in (train|validation) cannot be read \(limit 0.01: data.init_args.max_bad_fraction\)", said
    )


def test_the_order_of_the_others_stays(folder: Path, line: Callable[..., list[str]], tmp_path: Path) -> None:
    """A batch from which an image is left out is smaller; everything else is the run without the damage."""
    main(line("--trainer.max_epochs=1"))
    truncate(folder / splits(tmp_path).query("split == 'train'")["path"].iloc[0])
    main(line("--trainer.max_epochs=1", "--data.on_bad_image=skip", "--data.max_bad_fraction=0.1"))
    steps = [pd.read_csv(tmp_path / f"runs/run/version_{version}/metrics.csv")["step"].to_list() for version in (0, 1)]
    assert steps[0] == steps[1]


def test_a_batch_without_a_readable_image_is_passed_over(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path
) -> None:
    truncate(folder / "green/003.png")
    truncate(folder / "red/003.png")
    options = ("--data.on_bad_image=skip", "--data.max_bad_fraction=0.1", "--data.batch_size=1")
    main(line(*options, "--trainer.max_epochs=1", "--model.optimizer_config.lr=0.0001"))
    row = pd.read_csv(tmp_path / "runs/run/version_0/metrics.csv").iloc[-1]
    assert row["train_loss"] > 0
    assert row["validation_loss"] > 0


def test_a_validation_image_that_vanishes_ends_the_run(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path
) -> None:
    validation = write_class_folders(tmp_path / "validation", 4, seed=3)
    (tmp_path / "own.py").write_text(
        "import os\nfrom lightning.pytorch import Callback\n"
        "class Vanish(Callback):\n"
        "    def on_train_start(self, trainer, model):\n"
        f"        os.unlink({str(validation / 'red/001.png')!r})\n"
    )
    options = [f"--data.dataset_classes.validation={validation}", "--data.on_bad_image=skip"]
    done = program(*line(*options, "--trainer.callbacks+=own.Vanish"), cwd=tmp_path)
    assert done.returncode == 2
    assert f"{validation}/red/001.png: No such file or directory; it existed when" in done.stderr.splitlines()[-1]


# -- leaks


def test_a_duplicate_across_splits_stops_fit_with_both_paths(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = write_class_folders(tmp_path / "test", 3, seed=5)
    shutil.copy(folder / "red/007.png", test / "red/copy.png")
    code, said = fails(line(f"--data.dataset_classes.test={test}"), capsys)
    assert code == 2
    assert f"{folder}/red/007.png (" in said
    assert f"and {test}/red/copy.png (test); remove them from one side, or accept it: --data.on_leak warn" in said
    main(line(f"--data.dataset_classes.test={test}", "--data.on_leak=warn"))
    assert f"{test}/red/copy.png (test)" in capsys.readouterr().err


def test_an_image_with_two_labels_is_said(
    folder: Path, line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folder / "blue/007.png", folder / "red/copy.png")
    main(line("--trainer.max_epochs=1"))
    assert (
        capsys.readouterr().err.count(
            f"the same image has two labels: {folder}/blue/007.png (blue) and {folder}/red/copy.png (red); "
            "`imgcls check` lists all"
        )
        == 1
    )


def test_copies_within_train_stay_on_one_side(folder: Path, line: Callable[..., list[str]], tmp_path: Path) -> None:
    for path in sorted((folder / "red").iterdir()):
        shutil.copy(path, path.with_stem(f"copy{path.stem}"))
    main(line("--trainer.max_epochs=1"))
    table = splits(tmp_path)
    assert table.groupby("content")["split"].nunique().max() == 1
    assert len(table) == 80


@pytest.mark.parametrize("command", ["validate", "test"])
def test_an_evaluation_on_trained_images_is_refused(
    command: str, folder: Path, line: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line("--trainer.max_epochs=1"))
    split = {"validate": "validation"}.get(command, command)
    evaluation = [
        command,
        f"--ckpt_path={tmp_path}/runs/run/version_0/checkpoints/best.ckpt",
        f"--data.dataset_classes.{split}={folder}",
    ]
    code, said = fails(evaluation, capsys)
    assert code == 2
    assert f"{split}: the checkpoint was trained on 48 of these 60 images, for example {folder}/" in said
    main([*evaluation, "--data.on_leak=warn"])
    assert "the checkpoint was trained on 48 of these 60 images" in capsys.readouterr().err


# -- groups and folds


def test_group_regex_keeps_groups_whole(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line(r"--data.group_regex=(\w+/\d\d)\d\.png", "--data.validation_split=0.5", "--trainer.max_epochs=1"))
    table = splits(tmp_path)
    groups = table["path"].str.extract(r"(\w+/\d\d)\d\.png")[0]
    assert table.groupby(groups)["split"].nunique().to_list() == [1] * 6
    assert set(table["split"]) == {"train", "validation"}
    code, said = fails(line("--data.group_regex=patient"), capsys)
    assert code == 2
    assert f"data.init_args.group_regex: 'patient' does not match '{folder}/blue/000.png'" in said


def test_a_group_of_train_in_test_is_a_leak(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = write_class_folders(tmp_path / "test", 3, seed=5)
    expression = r"--data.group_regex=(\w+/\d\d)\d\.png"
    code, said = fails(line(expression, f"--data.dataset_classes.test={test}"), capsys)
    assert code == 2
    one, other = folder / "blue/000.png", test / "blue/000.png"
    assert f"two splits: {one} (train, group blue/00) and {other} (test, group blue/00)" in said
    for path in test.glob("*/*.png"):
        path.rename(path.with_name(f"from-elsewhere-{path.name}"))
    expression = r"--data.group_regex=^(\w+/\d\d)\d\.png"
    main(line(expression, f"--data.dataset_classes.test={test}", "--trainer.max_epochs=1"))


def test_group_column_that_is_missing_is_named(
    line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fails(line("--data.group_column=patient"), capsys)
    assert code == 2
    assert "data.init_args.group_column: the samples have no column 'patient'; the columns are path, label" in said


def test_fold_holds_its_part_out(folder: Path, line: Callable[..., list[str]], tmp_path: Path) -> None:
    held = []
    for number in (1, 2, 3):
        main(line(f"--data.fold={number}/3", "--trainer.max_epochs=1"))
        table = pd.read_csv(tmp_path / f"runs/run/version_{number - 1}/splits.csv")
        held += table.query("split == 'validation'")["path"].to_list()
    assert sorted(held) == sorted(map(str, folder.glob("*/*")))


def test_a_wrong_expression_is_named(line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    code, said = fails(line(r"--data.group_regex=patient(\d+"), capsys)
    assert code == 2
    assert "group_regex must be a regular expression, got 'patient(\\\\d+': missing ), unterminated subpattern" in said


def test_groups_that_leave_one_side_empty_are_refused(
    line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fails(line("--data.group_regex=png"), capsys)
    assert code == 2
    assert "validation_split: 0.2 of 60 images in 3 classes cannot be held out" in said


def test_images_to_predict_are_no_concern_of_fit(line: Callable[..., list[str]], tmp_path: Path) -> None:
    main(line(f"--data.dataset_classes.predict={tmp_path}/later", "--trainer.max_epochs=1"))
    assert (tmp_path / "runs/run/version_0/data.json").exists()


def test_a_leak_leaves_no_run_folder(
    folder: Path, line: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = fails(line(f"--data.dataset_classes.test={folder}"), capsys)
    assert code == 2
    assert "the same image or group is in two splits" in said
    assert not (tmp_path / "runs").exists()


def test_a_leak_is_found_by_each_process_that_a_scheduler_starts(
    folder: Path, line: Callable[..., list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or those would wait for the first one, which has ended."""
    monkeypatch.setattr("imgcls.commands.fit_start.is_first_process", lambda: False)
    monkeypatch.setattr("imgcls.commands.fit.build_trainer", lambda *_: pytest.fail("it would wait"))
    code, said = fails(line(f"--data.dataset_classes.test={folder}"), capsys)
    assert code == 2
    assert "the same image or group is in two splits" in said


def test_a_dataset_class_with_its_own_reader_may_skip(
    line: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squares = "{class_path: tests.helpers.own.Squares, init_args: {count: 40, bad: 3}}"
    main(line(f"--data.dataset_classes.train={squares}", "--data.on_bad_image=skip", "--data.max_bad_fraction=0.2"))
    account = json.loads((tmp_path / "runs/run/version_0/data.json").read_text())
    unused = [{"path": "square/003", "reason": "is broken"}]
    assert account == {"used": 39, "content_hash": "full", "unused": unused}
