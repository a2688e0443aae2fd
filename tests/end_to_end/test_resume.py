"""A run that is killed and resumed is the uninterrupted run."""

import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from imgcls.cli.main import main
from imgcls.models.classifier import ImageClassifier
from tests.helpers.runs import arguments, assert_same_weights, fails, load, program

KILLER = "{class_path: tests.helpers.killer.Killer, init_args: {epoch: 2, batch: 3}}"


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_after_sigkill_is_bit_for_bit(workers: int, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    more = ["--trainer.max_epochs=5", f"--data.num_workers={workers}", "--model.freeze_encoder=0.3"]
    main(["fit", *arguments(photos, tiny_model, tmp_path / "whole", *more)])
    line = arguments(photos, tiny_model, tmp_path / "killed", *more)
    killed = program("fit", *line, f"--trainer.callbacks=[{KILLER}]")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    main(["fit", *line, "--ckpt_path=last"])

    whole, resumed = tmp_path / "whole/run/version_0", tmp_path / "killed/run/version_0"
    assert [path.name for path in resumed.parent.iterdir()] == ["version_0"]
    for name in ("last.ckpt", "best.ckpt"):
        assert_same_weights(whole / "checkpoints" / name, resumed / "checkpoints" / name)
    ours, theirs = (load(folder / "checkpoints/last.ckpt") for folder in (whole, resumed))
    assert_equal(ours["optimizer_states"], theirs["optimizer_states"])
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    pd.testing.assert_frame_equal(
        pd.read_csv(whole / "metrics.csv"), pd.read_csv(resumed / "metrics.csv"), check_exact=True
    )


def assert_equal(ours: object, theirs: object) -> None:
    """Compare nested lists and dicts of tensors and numbers."""
    if isinstance(ours, torch.Tensor):
        assert isinstance(theirs, torch.Tensor)
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert isinstance(theirs, dict)
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, list):
        assert isinstance(theirs, list)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    else:
        assert ours == theirs


def test_path_opens_a_new_version(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    first = tmp_path / "run/version_0"
    before = (first / "checkpoints/last.ckpt").read_bytes()
    main([*line, "--ckpt_path", str(first / "checkpoints/last.ckpt")])
    assert list(pd.read_csv(tmp_path / "run/version_1/metrics.csv")["epoch"]) == [0, 1]
    assert (first / "checkpoints/last.ckpt").read_bytes() == before


def test_last_without_a_run(photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, "--ckpt_path=last")], capsys)
    assert code == 2
    assert str(tmp_path / "run") in message


def test_last_passes_over_a_torn_file(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    checkpoints = tmp_path / "run/version_0/checkpoints"
    content = (checkpoints / "last.ckpt").read_bytes()
    (checkpoints / "last.ckpt").unlink()  # best.ckpt is the same file
    (checkpoints / "last.ckpt").write_bytes(content[: len(content) // 2])
    main([*line, "--ckpt_path=last"])
    assert list(pd.read_csv(tmp_path / "run/version_0/metrics.csv")["epoch"]) == [0, 1]


def test_resume_refuses_other_images(
    tiny_model: Path, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "data")
    line = ["fit", *arguments(tmp_path / "data", tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    shutil.copy(photos / "red" / "000.png", tmp_path / "data" / "red" / "copy.png")
    (tmp_path / "data" / "red" / "001.png").unlink()
    other = (photos / "red" / "002.png").read_bytes() + b"\0"
    (tmp_path / "data" / "red" / "new.png").write_bytes(other)
    code, message = fails([*line, "--ckpt_path=last"], capsys)
    assert code == 2
    assert "1 new or changed" in message
    assert "new.png" in message


def test_resume_refuses_other_classes(
    tiny_model: Path, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "data")
    line = ["fit", *arguments(tmp_path / "data", tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    (tmp_path / "data" / "red").rename(tmp_path / "data" / "pink")
    code, message = fails([*line, "--ckpt_path=last"], capsys)
    assert code == 2
    assert "classes 'pink'" in message
    assert "'red'" in message


def test_only_weights_load_starts_fresh(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    main(line)
    first = tmp_path / "run/version_0/checkpoints/last.ckpt"
    fresh = ["--experiment.only_weights_load=true", f"--ckpt_path={first}"]
    main([*line, *fresh, "--model.optimizer_config.lr=1e-12", "--model.optimizer_config.weight_decay=0"])
    second = tmp_path / "run/version_1/checkpoints/last.ckpt"
    assert load(second)["epoch"] == 0
    ours, theirs = load(first)["state_dict"], load(second)["state_dict"]
    kernels = [name for name in ours if ours[name].ndim == 4]
    assert max((ours[name] - theirs[name]).abs().max().item() for name in kernels) < 1e-6
    count = len(ours)
    assert f"loaded {count} of {count} weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--model.optimizer_config.lr=1e-5"], "model.init_args.optimizer_config.lr: 1e-05 differs from 0.01 in"),
        (["--model.optimizer_config.weight_decay=0.5"], "differs from null in"),
        (["--model.optimizer_config.name=sgd"], "To resume, use --model.init_args.optimizer_config.name=adamw"),
        (["--model.scheduler_config.name=plateau"], "model.init_args.scheduler_config.name: plateau"),
        (["--seed_everything=1"], "seed_everything: 1 differs from 42 in"),
        (["--data.validation_split=0.4"], "data.init_args.validation_split: 0.4 differs from 0.2 in"),
        (["--data.fold=1/3"], "data.init_args.fold: 1/3 differs from null in"),
        (["--data.batch_size=4"], "in the checkpoint, whose schedule counts them"),
        (["--trainer.accumulate_grad_batches=2"], "in the checkpoint, whose schedule counts them"),
    ],
)
def test_run_that_goes_on_keeps_its_course(
    more: list[str], named: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    config = (tmp_path / "run/version_0/config.yaml").read_text(encoding="utf-8")
    code, message = fails([*line, "--ckpt_path=last", *more], capsys)
    assert (code, named in message) == (2, True), message
    assert (tmp_path / "run/version_0/config.yaml").read_text(encoding="utf-8") == config


def test_run_that_holds_images_out_takes_no_others_later(
    photos: Path, test_photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    code, message = fails([*line, "--ckpt_path=last", f"--data.dataset_classes.validation={test_photos}"], capsys)
    assert (code, "To resume, set the key to null" in message) == (2, True), message


def test_run_that_goes_on_says_from_where_and_what_is_new(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    main([*line, "--ckpt_path=last", "--data.augmentations.train=strong"])
    last = tmp_path / "run/version_0/checkpoints/last.ckpt"
    told = f"Resuming from {last} after epoch 1. Changed since: data.init_args.augmentations.train: strong (was null)"
    assert told in capsys.readouterr().err.splitlines()
    dataset = f"{{class_path: imgcls.FolderImageDataset, init_args: {{root: {photos}}}}}"
    more = ["--ckpt_path=last", "--data.augmentations.train=strong"]
    main([*line, *more, "--trainer.max_epochs=3", f"--data.dataset_classes.train={dataset}"])
    assert f"train.init_args.root: {photos} (was null)" in capsys.readouterr().err
    main([*line, *more, "--trainer.max_epochs=4"])
    assert f"train.init_args.root: null (was {photos})" in capsys.readouterr().err


def test_run_that_goes_on_in_another_precision_says_so(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.precision=bf16", "--trainer.max_epochs=1"])
    capsys.readouterr()
    main([*line, "--trainer.precision=32", "--ckpt_path=last"])
    assert "trainer.precision: 32-true (was bf16-mixed)" in capsys.readouterr().err
    main([*line, "--trainer.precision=32", "--trainer.max_epochs=3", "--ckpt_path=last"])
    assert "(was " not in capsys.readouterr().err


def test_damaged_last_checkpoint_does_not_take_the_place_of_the_best(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    folder = tmp_path / "run/version_0/checkpoints"
    (folder / "whole.ckpt").write_bytes((folder / "best.ckpt").read_bytes())
    os.replace(folder / "whole.ckpt", folder / "best.ckpt")  # no link any more
    (folder / "last.ckpt").write_bytes((folder / "last.ckpt").read_bytes()[:5000])
    main([*line, "--ckpt_path=last"])
    assert "after epoch 1" in capsys.readouterr().err
    assert load(folder / "best.ckpt")["epoch"] in {0, 1}


def test_run_that_averages_goes_on_averaging(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    code, message = fails([*line, "--ckpt_path=last", "--experiment.default_callbacks=false"], capsys)
    assert (code, "to resume it, add imgcls.EMA" in message) == (2, True), message
    main([*line, "--ckpt_path=last"])
    content = load(tmp_path / "run/version_0/checkpoints/last.ckpt")
    assert any(
        not torch.equal(value, content["current_model_state"][name]) for name, value in content["state_dict"].items()
    )


@pytest.mark.parametrize(("name", "lowest"), [("onecycle", 0.9), ("cosine", 1e-6)])  # torch's rises after its end
def test_schedule_follows_a_run_that_is_made_longer(
    name: str, lowest: float, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path), f"--model.scheduler_config.name={name}"]
    main([*line, "--trainer.max_epochs=1"])
    main([*line, "--trainer.max_epochs=2", "--ckpt_path=last"])
    [state] = load(tmp_path / "run/version_0/checkpoints/last.ckpt")["optimizer_states"]
    assert max(group["lr"] / group["initial_lr"] for group in state["param_groups"]) < lowest


def test_last_passes_over_weights_alone(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    saver = (
        "{class_path: ModelCheckpoint, init_args: {save_weights_only: true, every_n_train_steps: 4, save_top_k: -1}}"
    )
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks=[{saver}]")]
    main([*line, "--trainer.max_epochs=1"])
    checkpoints = tmp_path / "run/version_0/checkpoints"
    [weights] = checkpoints.glob("epoch*.ckpt")
    later = (checkpoints / "last.ckpt").stat().st_mtime + 10
    os.utime(weights, (later, later))
    main([*line, "--ckpt_path=last"])
    assert list(pd.read_csv(tmp_path / "run/version_0/metrics.csv")["epoch"]) == [0, 1]


def test_weights_of_the_head_go_by_the_names_of_classes(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    first = tmp_path / "run/version_0/checkpoints/last.ckpt"
    shutil.copytree(photos, tmp_path / "other")
    (tmp_path / "other/green").rename(tmp_path / "other/yellow")
    still = ["--model.optimizer_config.lr=1e-12", "--model.optimizer_config.weight_decay=0", "--trainer.max_epochs=1"]
    still += ["--experiment.only_weights_load=true", f"--ckpt_path={first}", "--data.on_leak=warn"]
    for number, (data, more) in enumerate(
        [(photos, ["--data.class_names=[red,green,blue]"]), (tmp_path / "other", [])], start=1
    ):
        main(["fit", *arguments(data, tiny_model, tmp_path, *still, *more)])
        second = load(tmp_path / f"run/version_{number}/checkpoints/last.ckpt")
        head = "backbone.heads.0.weight"
        before, after = load(first)["state_dict"][head], second["state_dict"][head]
        names = second["imgcls"]["class_names"]
        assert torch.allclose(before[0], after[names.index("blue")], atol=1e-6)
        assert torch.allclose(before[2], after[names.index("red")], atol=1e-6)
    said = capsys.readouterr().err
    assert "weights; new: the head's rows of 'yellow'" in said


def test_a_head_that_lacks_a_part_is_new(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = ImageClassifier(str(tiny_model), pretrained=False)
    model.build(["a", "b"])
    state = dict(model.state_dict())
    del state["backbone.heads.0.bias"]
    with caplog.at_level("INFO", logger="imgcls"):
        model.load_weights(state, ["a", "b"])
    assert "56 of 57 weights; new: backbone.heads.0.bias" in caplog.text


def test_the_last_fit_on_all_images_goes_on_whatever_its_fold_was(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["--data.train_on_validation=true", "--trainer.limit_val_batches=0"]
    line = ["fit", *arguments(photos, tiny_model, tmp_path, *whole)]
    main([*line, "--trainer.max_epochs=1", "--data.validation_split=0.3"])
    main([*line, "--ckpt_path=last"])
    assert "validation_split: 0.2 (was 0.3)" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--data.group_regex=.", "--data.group_column=label"])
def test_groups_of_a_run_that_goes_on_are_those_of_its_beginning(
    option: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path)]
    main([*line, "--trainer.max_epochs=1"])
    code, message = fails([*line, option, "--ckpt_path=last"], capsys)
    assert (code, "differs from null in" in message) == (2, True), message


def test_another_model_of_the_same_last_name_is_refused(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")])
    other = tmp_path / tiny_model.name
    other.mkdir()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    (other / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": 32, **sizes}))
    last = f"--ckpt_path={tmp_path}/run/version_0/checkpoints/last.ckpt"
    for more in ([last], [last, "--experiment.only_weights_load=true"]):
        code, message = fails(["fit", *arguments(photos, other, tmp_path, *more)], capsys)
        assert (code, "is of type vit, but" in message, "is of type resnet" in message) == (2, True, True), message


def test_only_weights_load_without_a_checkpoint(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--experiment.only_weights_load=true")]
    code, message = fails(line, capsys)
    assert (code, "needs a checkpoint; add --ckpt_path" in message) == (2, True)


def test_weights_are_not_validated_on_what_they_were_trained_on(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    main(line)
    last = tmp_path / "run/version_0/checkpoints/last.ckpt"
    begun = [*line, "--experiment.only_weights_load=true", f"--ckpt_path={last}"]
    code, message = fails([*begun, "--data.split_seed=1"], capsys)
    assert (code, "validation: the checkpoint was trained on" in message) == (2, True), message
    assert not (tmp_path / "run/version_1").exists()
    main([*begun, "--data.split_seed=1", "--data.on_leak=warn"])
    assert "validation: the checkpoint was trained on" in capsys.readouterr().err


def test_config_of_a_run_from_weights_gives_the_same_run(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    main(line)
    runs = tmp_path / "run"
    main([*line, "--experiment.only_weights_load=true", f"--ckpt_path={runs / 'version_0/checkpoints/best.ckpt'}"])
    main(["fit", "--config", str(runs / "version_1/config.yaml")])
    assert_same_weights(runs / "version_1/checkpoints/last.ckpt", runs / "version_2/checkpoints/last.ckpt")


def test_run_from_weights_keeps_its_origin_when_it_goes_on(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    main(line)
    best = tmp_path / "run/version_0/checkpoints/best.ckpt"
    capsys.readouterr()
    main([*line, "--experiment.only_weights_load=true", f"--ckpt_path={best}"])
    assert "layer decay 0.9" in capsys.readouterr().err  # not that of random weights
    for epochs in (2, 3):
        main([*line, f"--trainer.max_epochs={epochs}", "--ckpt_path=last"])
        assert "layer decay 0.9" in capsys.readouterr().err
    config = yaml.safe_load((tmp_path / "run/version_1/config.yaml").read_text(encoding="utf-8"))
    assert (config["ckpt_path"], config["experiment"]["only_weights_load"]) == (str(best), True)


def test_killed_while_writing_leaves_a_whole_checkpoint(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """F01, F02: the process dies inside the write, with the temporary folder on another file system."""
    line = arguments(photos, tiny_model, tmp_path)
    killer = "{class_path: tests.helpers.killer.KillInWrite, init_args: {epoch: 1}}"
    environment = os.environ | {"TMPDIR": "/dev/shm"}  # noqa: S108
    killed = program("fit", *line, f"--trainer.callbacks=[{killer}]", env=environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checkpoints = tmp_path / "run/version_0/checkpoints"
    left = sorted(path.name for path in checkpoints.iterdir())
    assert [name for name in left if not name.startswith(".")] == ["best.ckpt", "last.ckpt"]
    assert any(name.endswith(".partial") for name in left)
    assert load(checkpoints / "last.ckpt")["epoch"] == 0
    main(["fit", *line, "--ckpt_path=last"])
    assert sorted(path.name for path in checkpoints.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert load(checkpoints / "last.ckpt")["epoch"] == 1


def test_run_that_goes_on_within_an_epoch_keeps_its_batches(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = "{class_path: ModelCheckpoint, init_args: {every_n_train_steps: 2, save_top_k: -1}}"
    line = ["fit", *arguments(photos, tiny_model, tmp_path), "--model.scheduler_config.name=constant"]
    main([*line, "--trainer.max_epochs=1", f"--trainer.callbacks=[{saver}]"])
    within = next((tmp_path / "run/version_0/checkpoints").glob("*step=2.ckpt"))
    code, message = fails([*line, f"--ckpt_path={within}", "--data.batch_size=4"], capsys)
    assert (code, "batches of 8 images over all processes, but they now have 4" in message) == (
        2,
        True,
    ), message
    main([*line, f"--ckpt_path={within}"])


def test_job_that_slurm_requeues_goes_on_by_itself(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fit of a job goes on in its own run, and a job that has none yet begins, whatever lies beside it."""
    options = arguments(photos, tiny_model, tmp_path)
    main(["fit", *options, "--trainer.max_epochs=1"])  # of another job
    other = (tmp_path / "run/version_0/config.yaml").read_text()
    lines = [["fit", *options, f"--seed_everything={seed}"] for seed in (1, "true")]
    weights = str(tmp_path / "run/version_0/checkpoints/best.ckpt")
    lines.append([*lines[0], f"--ckpt_path={weights}", "--experiment.only_weights_load=true"])
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")  # requeued before there was a checkpoint
    stop = "{class_path: tests.helpers.killer.StopAfter, init_args: {epochs: 1}}"
    for line in lines:
        main([*line, f"--trainer.callbacks=[{stop}]"])
    capsys.readouterr()
    for number, line in enumerate(lines, 1):
        folder = tmp_path / f"run/version_{number}"
        saved = folder / "hpc_ckpt_1.ckpt"  # as Lightning calls it, where it has the job requeued
        shutil.copy(folder / "checkpoints/last.ckpt", saved)
        main([*line, f"--trainer.callbacks=[{stop}]"])
        assert f"Resuming from {saved} after epoch 1" in capsys.readouterr().err
        assert len(pd.read_csv(folder / "metrics.csv")) == 2
    assert len(list((tmp_path / "run").iterdir())) == 4
    assert (tmp_path / "run/version_0/config.yaml").read_text() == other
    assert yaml.safe_load((tmp_path / "run/version_3/config.yaml").read_text())["ckpt_path"] == weights
