"""``imgcls tune`` through the real entry point."""

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
import yaml
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from imgcls.cli.main import main
from imgcls.config.sections import OptunaConfig, SearchSpace
from imgcls.runtime.warning_filters import quieten
from imgcls.tune.results import Results
from imgcls.tune.search_setup import Task
from imgcls.tune.search_space import Space, short_names, shown
from imgcls.tune.study import SharedStudy
from imgcls.tune.trial_states import INTERRUPTED
from tests.conftest import write_class_folders
from tests.helpers.runs import arguments, fails, load, program, weights

LR = "model.init_args.optimizer_config.lr"
HEAD = "model.init_args.optimizer_config.head_multiplier"
SCHEDULE = "model.init_args.scheduler_config.name"
PATIENCE = "trainer.callbacks.0.init_args.patience"
LAST = "checkpoints/last.ckpt"
FLIPS = (
    "[{class_path: albumentations.Resize, init_args: {height: 32, width: 32}}, "
    "{class_path: albumentations.HorizontalFlip, init_args: {p: 0.5}}]"
)
STOPPING = {
    "class_path": "lightning.pytorch.callbacks.EarlyStopping",
    "init_args": {"monitor": "validation_f1_score", "mode": "max"},
}


def write_config(path: Path, optuna_section: dict[str, Any], callbacks: list[dict[str, Any]] | None = None) -> Path:
    content: dict[str, Any] = {"optuna": {"tune": True, "pruner": "none"} | optuna_section}
    if callbacks is not None:
        content["trainer"] = {"callbacks": callbacks}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def uniform(low: float = 1e-4, high: float = 1e-2) -> dict[str, Any]:
    return {"distribution": "uniform", "low": low, "high": high}


def tune_line(config: Path, photos: Path, model: Path, out: Path, *more: str) -> list[str]:
    return ["tune", f"--config={config}", *arguments(photos, model, out, *more)]


def search_task(config: OptunaConfig, folder: Path, name: str = "study") -> Task:
    """A search over one key, whose trials are not fitted."""
    space = Space({LR: SearchSpace("uniform", low=0.1, high=0.7)})
    base = {"trainer": {"max_epochs": 2}}
    return Task(
        config, ["validation_accuracy"], ["maximize"], base, {}, space, folder, name, lambda *_: None, drawn_seed=False
    )


def trials_in(url: str, name: str) -> list[FrozenTrial]:
    storage = RDBStorage(url)
    try:
        return optuna.load_study(study_name=name, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


def trials_of(folder: Path, name: str = "run") -> list[FrozenTrial]:
    return trials_in(f"sqlite:///{folder / 'study.db'}", name)


def states(folder: Path, name: str = "run") -> list[str]:
    return [trial.state.name for trial in trials_of(folder, name)]


@pytest.fixture(scope="module")
def searched(photos: Path, test_photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tune folder of a finished search over numbers, a choice of classes, and an item of a list."""
    out = tmp_path_factory.mktemp("search")
    small, wide = tiny_model, out / "wide"
    shutil.copytree(tiny_model, wide)
    spaces = {
        LR: {"distribution": "loguniform", "low": 1e-4, "high": 1e-2},
        PATIENCE: {"distribution": "int", "low": 1, "high": 3},
        "data.batch_size": {"distribution": "categorical", "choices": [8, 16]},  # as on the command line
        "model.init_args.model_name": {"distribution": "categorical", "choices": [str(small), str(wide)]},
        "data.init_args.augmentations.train": {
            "distribution": "categorical",
            "choices": [None, [{"class_path": "albumentations.Resize", "init_args": {"height": 32, "width": 32}}]],
        },
    }
    config = write_config(
        out / "c.yaml", {"n_trials": 4, "metric": "validation_accuracy", "search_spaces": spaces}, [STOPPING]
    )
    main(tune_line(config, photos, tiny_model, out, f"--data.dataset_classes.test={test_photos}"))
    return out / "run" / "tune"


def test_search_leaves_its_results(searched: Path) -> None:
    names = {path.name for path in searched.iterdir()}
    assert names >= {"study.db", "trials.csv", "best.yaml", "best.ckpt", "history.png", "slice.png", "parallel.png"}
    table = pd.read_csv(searched / "trials.csv")
    assert table["state"].tolist() == ["complete"] * 4
    assert table[LR].between(1e-4, 1e-2).all()
    assert set(table[PATIENCE]) <= {1, 2, 3}
    assert set(table["data.init_args.batch_size"]) <= {8, 16}
    assert len(table.drop_duplicates([LR, PATIENCE, "data.init_args.batch_size"])) == 4
    assert states(searched) == ["COMPLETE"] * 4


def test_trials_keep_the_predictions_of_their_best_epoch(searched: Path) -> None:
    table = pd.read_csv(searched / "trials.csv", keep_default_na=False)
    best = float(table["validation_accuracy"].max())
    for number, accuracy in enumerate(table["validation_accuracy"]):
        folder = searched / f"trial_{number:04d}"
        rows = pd.read_csv(folder / "validation_predictions.csv")
        assert (rows["label"] == rows["prediction"]).mean() == pytest.approx(accuracy)
        assert not (folder / "test_predictions.csv").exists()
    assert sorted(table["worse_than_best"])[0] == ""  # the best one
    assert set(table["worse_than_best"][table["validation_accuracy"] < best]) <= {"yes", "no"}
    assert set(table["worse_than_best"]) & {"yes", "no"}


def test_trials_see_one_split_and_no_test(searched: Path) -> None:
    splits = {(searched / f"trial_{number:04d}" / "splits.csv").read_text() for number in range(4)}
    assert len(splits) == 1
    assert not any(column.startswith("test") for column in pd.read_csv(searched / "trial_0000/metrics.csv").columns)


def test_checkpoints_of_the_best_alone_are_kept(searched: Path) -> None:
    table = pd.read_csv(searched / "trials.csv")
    best = table["validation_accuracy"].max()
    kept = [int(path.parent.name.removeprefix("trial_")) for path in searched.glob("trial_*/checkpoints")]
    assert kept
    assert (table["validation_accuracy"][kept] == best).all()
    files = [searched / f"trial_{number:04d}" / "checkpoints" / "best.ckpt" for number in kept]  # several may be equal
    assert (searched / "best.ckpt").read_bytes() in [file.read_bytes() for file in files]


def test_best_yaml_gives_the_metric_of_the_best_trial(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--config", str(searched / "best.yaml"), f"--experiment.output_dir={tmp_path}"])
    refitted = pd.read_csv(tmp_path / "run/version_0/metrics.csv")["validation_accuracy"].max()
    assert refitted == pd.read_csv(searched / "trials.csv")["validation_accuracy"].max()
    config = yaml.safe_load((searched / "best.yaml").read_text())
    assert config["experiment"]["monitor"] == "validation_accuracy"
    assert load(tmp_path / "run/version_0/checkpoints/best.ckpt")["epoch"] == load(searched / "best.ckpt")["epoch"]
    capsys.readouterr()
    main(["validate", "--ckpt_path", str(searched / "best.ckpt")])
    assert f"{refitted:.4f}" in capsys.readouterr().out


def test_config_of_a_trial_runs_by_itself(searched: Path, tmp_path: Path) -> None:
    number = 1
    main(["fit", "--config", str(searched / f"trial_{number:04d}/config.yaml"), f"--experiment.output_dir={tmp_path}"])
    trial = pd.read_csv(searched / f"trial_{number:04d}/metrics.csv")
    again = pd.read_csv(tmp_path / "run/version_0/metrics.csv")
    pd.testing.assert_frame_equal(
        trial, again.drop(columns=[name for name in again.columns if str(name).startswith("test")])
    )


def test_n_trials_is_a_total_and_draws_differ(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 2, "search_spaces": {LR: uniform()}})
    line = tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1")
    main(line)
    main([*line, "--optuna.n_trials=5"])
    main([*line, "--optuna.n_trials=5"])
    folder = tmp_path / "run/tune"
    assert states(folder) == ["COMPLETE"] * 5
    assert len({trial.params[LR] for trial in trials_of(folder)}) == 5
    main([*tune_line(config, photos, tiny_model, tmp_path / "whole", "--trainer.max_epochs=1"), "--optuna.n_trials=5"])
    whole = trials_of(tmp_path / "whole/run/tune")
    assert [trial.params for trial in whole] == [trial.params for trial in trials_of(folder)]


def test_no_combination_is_tried_twice(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    spaces = {
        "data.init_args.batch_size": {"distribution": "categorical", "choices": [8, 16]},
        "model.init_args.freeze_encoder": {"distribution": "uniform", "low": 0, "high": 0.5, "step": 0.5},
    }
    config = write_config(tmp_path / "c.yaml", {"n_trials": 9, "search_spaces": spaces})
    for sampler in ("tpe", "grid"):
        more = ["--trainer.max_epochs=1", f"--optuna.sampler={sampler}"]
        main(tune_line(config, photos, tiny_model, tmp_path / sampler, *more))
        drawn = {str(sorted(trial.params.items())) for trial in trials_of(tmp_path / sampler / "run/tune")}
        assert len(drawn) == len(trials_of(tmp_path / sampler / "run/tune")) == 4


@pytest.mark.parametrize("sampler", ["random", "gp", "qmc", "nsga2", "nsga3"])
def test_samplers(sampler: str, photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    spaces = {LR: uniform(), "data.init_args.batch_size": {"distribution": "categorical", "choices": [8, 16, 32]}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 3, "search_spaces": spaces, "sampler": sampler})
    line = tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1")
    main([*line, "--optuna.n_trials=2"])
    main(line)
    assert len({str(trial.params) for trial in trials_of(tmp_path / "run/tune")}) == 3


def test_bad_trials_are_marked_and_the_search_goes_on(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F39: an exception, NaN, no memory."""
    key = "trainer.callbacks.0.init_args.kind"
    spaces = {key: {"distribution": "categorical", "choices": ["none", "raise", "not a number", "memory"]}}
    config = write_config(
        tmp_path / "c.yaml", {"n_trials": 9, "search_spaces": spaces}, [{"class_path": "tests.helpers.killer.Faulty"}]
    )
    main(tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1"))
    table = pd.read_csv(tmp_path / "run/tune/trials.csv").set_index(key)
    assert table["state"].to_dict() == {"none": "complete", "raise": "fail", "not a number": "fail", "memory": "fail"}
    reasons = table["reason"].to_dict()
    assert "a bad combination" in reasons["raise"]
    assert "the loss is not finite (nan)" in reasons["not a number"]
    assert "MemoryError" in reasons["memory"]
    assert "failed: ValueError: a bad combination" in capsys.readouterr().err


def test_five_failures_in_a_row_end_the_search(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = {"class_path": "tests.helpers.killer.Faulty", "init_args": {"kind": "raise"}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 9, "search_spaces": {LR: uniform()}}, [faulty])
    code, message = fails(tune_line(config, photos, tiny_model, tmp_path), capsys)
    assert code == 1
    assert "5 trials in a row failed, the last one: ValueError: a bad combination" in message
    assert states(tmp_path / "run/tune") == ["FAIL"] * 5


def test_interrupted_trial_is_taken_up_again(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    faulty = {"class_path": "tests.helpers.killer.Faulty", "init_args": {"kind": "interrupt"}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 2, "search_spaces": {LR: uniform()}}, [faulty])
    with pytest.raises(SystemExit) as stop:
        main(tune_line(config, photos, tiny_model, tmp_path))
    assert stop.value.code == 130
    first, second = trials_of(tmp_path / "run/tune")
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.WAITING)
    assert first.params == second.params


def test_interruptions_do_not_use_up_a_trial(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    faulty = {"class_path": "tests.helpers.killer.Faulty", "init_args": {"kind": "interrupt"}}
    section = {"n_trials": 2, "search_spaces": {LR: uniform()}, "fidelity": {"data": 0.5}}
    config = write_config(tmp_path / "c.yaml", section, [faulty])
    for _ in range(5):
        with pytest.raises(SystemExit, match="130"):
            main(tune_line(config, photos, tiny_model, tmp_path))
    trials = trials_of(tmp_path / "run/tune")
    assert [trial.state.name for trial in trials] == ["FAIL"] * 5 + ["WAITING"]
    assert len({trial.params[LR] for trial in trials}) == 1


def test_trial_that_was_taken_for_dead_is_left_to_the_other_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quieten()
    with closing(SharedStudy(search_task(OptunaConfig(), tmp_path))) as study:
        claim = study.claim()
        assert claim is not None
        study.study.tell(claim.trial.number, state=TrialState.FAIL)
        study.finish(claim, TrialState.PRUNED)
    assert "trial 0 had no heartbeat for too long and is repeated by another worker" in caplog.text
    assert states(tmp_path, "study") == ["FAIL"]


def test_files_of_the_best_trial_may_be_gone(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": {LR: uniform()}})
    line = tune_line(config, photos, tiny_model, tmp_path)
    main(line)
    shutil.rmtree(tmp_path / "run/tune/trial_0000/checkpoints")
    capsys.readouterr()
    main([*line, "--optuna.retrain=true"])
    said = capsys.readouterr().err
    assert "the files of trial 0, the best one, are missing" in said
    assert "fit --config" not in said
    assert "etrain" not in said


def test_values_that_need_each_other_are_searched_together(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    optimizer = "model.init_args.optimizer_config"
    names = {"distribution": "categorical", "choices": ["adamw", "sgd"]}
    momentum = {"distribution": "categorical", "choices": [None, 0.9]}
    spaces = {f"{optimizer}.name": names, f"{optimizer}.momentum": momentum}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 4, "search_spaces": spaces})
    main(tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1"))
    table = pd.read_csv(tmp_path / "run/tune/trials.csv")
    assert list(table["state"]).count("fail") == 1  # adamw with momentum
    spaces |= {f"{optimizer}.lr": {"distribution": "categorical", "choices": [-1.0]}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 4, "search_spaces": spaces})
    code, message = fails(tune_line(config, photos, tiny_model, tmp_path / "other"), capsys)
    assert (code, f"optuna.search_spaces.{optimizer}.lr: -1.0" in message) == (2, True), message


def test_killed_trial_is_repeated_from_its_checkpoint(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    """F37: SIGKILL in trial 3 of 8; then the same command."""
    killer = {
        "class_path": "tests.helpers.killer.KillOnce",
        "init_args": {"trial": 3, "epoch": 1, "mark": str(tmp_path / "killed")},
    }
    config = write_config(tmp_path / "c.yaml", {"n_trials": 8, "search_spaces": {LR: uniform()}}, [killer])
    line = tune_line(config, photos, tiny_model, tmp_path)
    killed = program(*line)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "run/tune"
    assert states(folder) == ["COMPLETE"] * 3 + ["RUNNING"]
    again = program(*line)
    assert again.returncode == 0, again.stderr
    assert "trial 3 was killed; it is repeated with the same parameters" in again.stderr
    trials = trials_of(folder)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3 + ["FAIL"] + ["COMPLETE"] * 5
    assert trials[4].params == trials[3].params
    assert trials[4].user_attrs["folder"] == trials[3].user_attrs["folder"] == str(folder / "trial_0003")
    assert "epoch 1/2" not in (folder / "trial_0003/log.txt").read_text().rpartition("precision")[2]
    assert pd.read_csv(folder / "trial_0003/metrics.csv")["epoch"].tolist() == [0, 1]
    assert len({trial.params[LR] for trial in trials if trial.state == TrialState.COMPLETE}) == 8


def test_results_of_another_study_are_not_overwritten(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder has its own database; the same command names another one, and then none, which is gone."""
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": {LR: uniform()}})
    line = tune_line(config, photos, tiny_model, tmp_path)
    main(line)
    folder = tmp_path / "run/tune"
    before = {path: path.read_bytes() for path in (folder / "trials.csv", folder / "best.yaml", folder / "best.ckpt")}
    capsys.readouterr()
    said = f"{folder}: contains the results of another study in another database"
    code, message = fails([*line, f"--optuna.storage=sqlite:///{tmp_path / 'other.db'}"], capsys)
    assert (code, said in message) == (2, True), message
    for file in folder.glob("study.db*"):
        file.unlink()
    code, message = fails(line, capsys)
    assert (code, said in message) == (2, True), message
    assert {path: path.read_bytes() for path in before} == before
    main([*line, "--optuna.study_name=new"])
    assert (tmp_path / "run/tune-new/best.ckpt").is_file()


def test_trials_of_other_images_are_not_mixed(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(photos, images)
    config = write_config(tmp_path / "c.yaml", {"n_trials": 2, "search_spaces": {LR: uniform()}})
    line = tune_line(config, images, tiny_model, tmp_path)
    main([*line, "--optuna.n_trials=1"])
    for path in sorted((images / "red").iterdir())[:2]:
        path.unlink()
    code, message = fails(line, capsys)
    assert (code, "images.train is " in message) == (2, True), message
    assert "but the study 'run' was started with 48 images of content" in message


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("data.init_args.dataset_classes.train", "validation is held out of it"),
        ("data.init_args.dataset_classes.validation", "must be the same in all trials"),
        ("data.init_args", "contains data.init_args.validation_split"),
        ("trainer.limit_val_batches", "must be the same in all trials"),
    ],
)
def test_key_that_changes_what_is_validated_is_refused(
    key: str, reason: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = {"distribution": "categorical", "choices": [str(photos)]}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": {key: space}})
    code, message = fails(tune_line(config, photos, tiny_model, tmp_path), capsys)
    assert (code, f"optuna.search_spaces.{key}: {reason}" in message) == (2, True), message


def test_folder_of_another_study_is_not_taken_for_that_of_a_trial(tmp_path: Path) -> None:
    """A server's trial 0, of another machine; here, another study lies at the place of its folder."""
    quieten()
    there, here = tmp_path / "there", tmp_path / "here"
    config = OptunaConfig(storage=f"sqlite:///{tmp_path / 'server.db'}")
    for folder in (there, here):
        with closing(SharedStudy(search_task(config, folder))) as study:
            claim = study.claim()
            assert claim is not None
            study.finish(claim, TrialState.FAIL, reason=INTERRUPTED)
            assert study.folder_of(study.trials[0]) == (claim.folder if folder == there else None)
            (there / ".study").write_text("another")
            assert claim.folder == folder / f"trial_000{int(folder == here)}"


def test_table_of_trials_in_a_folder_of_any_name(tmp_path: Path) -> None:
    quieten()
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    storage = f"sqlite:///{tmp_path}/study.db"  # the URL of a database is UTF-8
    with closing(SharedStudy(search_task(OptunaConfig(storage=storage), folder))) as study:
        claim = study.claim()
        assert claim is not None
        study.finish(claim, TrialState.PRUNED)
        Results(study).write()
    table = pd.read_csv(folder / "trials.csv", encoding_errors="surrogateescape", dtype=object)
    assert table["folder"].tolist() == [str(claim.folder)]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"model.init_args.optimizer_config.lrr": uniform()},
            f"no key 'model.init_args.optimizer_config.lrr'; did you mean '{LR}'?",
        ),
        (
            {LR: {"distribution": "uniform", "low": 1e-2, "high": 1e-3}},
            f"{LR}.low must be at most high, 0.001, got 0.01",
        ),
        ({LR: {"distribution": "uniform", "low": 0, "high": 1}}, f"{LR}: 0.0: model.init_args.optimizer_config.lr"),
        ({LR: {"distribution": "loguniform", "low": 0, "high": 1}}, LR),
        ({LR: {"distribution": "uniform", "low": 0.1}}, f"{LR}: uniform requires 'low' and 'high'"),
        ({"data.init_args.batch_size": uniform(4, 8)}, "data.init_args.batch_size: "),
        (
            {"data.init_args.batch_size": {"distribution": "categorical", "choices": [4, "big"]}},
            "optuna.search_spaces.data.init_args.batch_size: 'big': ",
        ),
        ({"trainer.callbacks.0.init_args.patience": uniform()}, "trainer.callbacks lists no callback"),
        (
            {"data.init_args.batch_size": {"distribution": "int", "low": 1.5, "high": 3}},
            "distribution int requires integers, got 1.5",
        ),
        ({LR: {"distribution": "uniform", "low": 1e-3, "high": float("inf")}}, f"{LR}.high must be finite, got inf"),
        ({LR: {"distribution": "int", "low": 1, "high": 3, "step": 0}}, f"optuna.search_spaces.{LR}: "),
        (
            {HEAD: {"distribution": "categorical", "choices": [1e-3, None]}},
            f"{HEAD}: None: {HEAD} must be a valid number, got None",
        ),
        (
            {"experiment.output_dir": {"distribution": "categorical", "choices": ["a", "b"]}},
            "must be the same in all trials",
        ),
        ({"model.optimizer_config.lrr": uniform()}, f"did you mean '{LR}'?"),
        ({"trainer.max_epochs": {"distribution": "int", "low": 0, "high": 2}}, "trainer.max_epochs must be above 0"),
        ({}, "optuna.search_spaces is empty"),
        (
            {"model.init_args.model_name": {"distribution": "categorical", "choices": ["./nowhere"]}},
            "folder './nowhere' does not exist",
        ),
    ],
)
def test_wrong_space_is_refused_before_the_first_trial(
    space: dict[str, Any],
    message: str,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 2, "search_spaces": space})
    code, text = fails(tune_line(config, photos, tiny_model, tmp_path), capsys)
    assert code == 2
    assert message in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"metric": "validation_f1"},
            "optuna.metric: no metric is called 'validation_f1'; did you mean 'validation_f1_score'?",
        ),
        ({"tune": False}, "optuna.tune must be true or null for imgcls tune, got false"),
        ({"n_trials": 0}, "optuna.n_trials must be at least 1, got 0"),
        ({"direction": ["maximize", "minimize"]}, "optuna.direction must have one entry per metric (1), got 2"),
        ({"sampler": "grid"}, f"optuna.search_spaces.{LR}: the grid sampler requires 'step' or 'choices'"),
        ({"fidelity": {}}, "optuna.fidelity.data must be less than 1"),
        ({"storage": "nonsense"}, "optuna.storage"),
        ({"metric": []}, "optuna.metric must name a metric"),
        ({"fidelity": {"epochs": 2}}, "optuna.fidelity.epochs must be less than the 2 epochs of a fit, got 2"),
    ],
)
def test_wrong_option_is_refused(
    section: dict[str, Any],
    message: str,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config(tmp_path / "c.yaml", {"search_spaces": {LR: uniform()}} | section)
    code, text = fails(tune_line(config, photos, tiny_model, tmp_path), capsys)
    assert code == 2
    assert message in text
    assert not list(tmp_path.glob("run/tune/trial_*"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.devices=2", "trainer.devices must be 1 in a search, got 2"),
        ("--trainer.devices=[0]", "trainer.devices: [0] names one GPU for 2 workers"),
        ("--trainer.num_nodes=2", "trainer.num_nodes must be 1 in a search, got 2"),
        ("--trainer.fast_dev_run=true", "use --trainer.limit_train_batches 2"),
        (
            "--trainer.check_val_every_n_epoch=3",
            "trainer.check_val_every_n_epoch must be at most 2",
        ),
        ("--ckpt_path=last", "ckpt_path must be null in a search"),
    ],
)
def test_option_that_a_search_cannot_honour_is_refused(
    option: str, message: str, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "c.yaml", {"search_spaces": {LR: uniform()}})
    more = [option, "--optuna.n_jobs=2"] if option.endswith("]") else [option]
    code, text = fails(tune_line(config, photos, tiny_model, tmp_path, *more), capsys)
    assert code == 2
    assert message in text


def test_values_of_augmentations_are_tried_first(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "data.init_args.augmentations.train.1.init_args.p"
    config = write_config(tmp_path / "c.yaml", {"search_spaces": {key: uniform(0, 2)}})
    code, text = fails(
        [*tune_line(config, photos, tiny_model, tmp_path), f"--data.augmentations.train={FLIPS}"], capsys
    )
    assert code == 2
    assert f"optuna.search_spaces.{key}: 2.0: data.init_args.augmentations.train[1]" in text


def test_a_part_of_a_choice_keeps_its_own_value(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    item = "data.init_args.augmentations.train.1"
    flip = {"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 1.0}}
    spaces = {f"{item}.init_args.p": uniform(0.2, 0.3), item: {"distribution": "categorical", "choices": [flip]}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": spaces})
    main([*tune_line(config, photos, tiny_model, tmp_path), f"--data.augmentations.train={FLIPS}"])
    saved = yaml.safe_load((tmp_path / "run/tune/best.yaml").read_text())["data"]["init_args"]["augmentations"]
    [trial] = trials_of(tmp_path / "run/tune")
    assert saved["train"][1]["init_args"]["p"] == trial.params[f"{item}.init_args.p"]


def test_a_range_of_any_seed_needs_no_list() -> None:
    space = Space({"seed_everything": SearchSpace("int", low=0, high=2**32 - 1)})
    assert space.size() == 2**32


def test_grid_of_decimals_lies_within_its_range() -> None:
    space = Space({LR: SearchSpace("uniform", low=0.1, high=0.7, step=0.1)})
    [grid] = (space.grids() or {}).values()
    assert len(grid) == 7
    assert all(space.distributions[LR]._contains(value) for value in grid)


def test_names_and_values_are_short() -> None:
    keys = [LR, "model.init_args.scheduler_config.name", "model.init_args.optimizer_config.name", "data.train.0"]
    assert short_names(keys) == ["lr", "scheduler_config.name", "optimizer_config.name", "train.0"]
    assert shown([{"class_path": "a.B", "init_args": {}}, 0.123456]) == "[B, 0.1235]"


def test_another_search_does_not_mix_into_a_study(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": {LR: uniform()}})
    line = tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1")
    main(line)
    code, message = fails([*line, "--data.batch_size=16"], capsys)
    assert code == 2
    assert "data.init_args.batch_size is 16, but the study 'run' was started with 8" in message
    test = write_class_folders(tmp_path / "test", 4)
    main([*line, f"--data.dataset_classes.test={test}", "--trainer.log_every_n_steps=1"])  # which no trial looks at
    main([*line, "--data.batch_size=16", "--optuna.study_name=other"])
    assert (tmp_path / "run/tune-other/best.yaml").exists()


def test_several_metrics_give_a_front(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = {"n_trials": 3, "metric": ["validation_f1_score", "validation_loss"], "search_spaces": {LR: uniform()}}
    config = write_config(tmp_path / "c.yaml", section)
    main(tune_line(config, photos, tiny_model, tmp_path))
    folder = tmp_path / "run/tune"
    table = pd.read_csv(folder / "trials.csv")
    assert {"validation_f1_score", "validation_loss"} <= set(table.columns)
    study = optuna.load_study(study_name="run", storage=f"sqlite:///{folder / 'study.db'}")
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert sorted(shown) == sorted(str(trial.number) for trial in study.best_trials)
    assert (folder / "history-validation_loss.png").exists()


def test_retrain_uses_all_labelled_images(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = {"n_trials": 2, "search_spaces": {LR: uniform()}, "retrain": True}
    config = write_config(tmp_path / "c.yaml", section, [STOPPING])
    main(tune_line(config, photos, tiny_model, tmp_path))
    [folder] = (tmp_path / "run/tune").glob("retrained_*")
    assert pd.read_csv(folder / "splits.csv")["split"].value_counts().to_dict() == {"train": 60}
    best_epoch = load(tmp_path / "run/tune/best.ckpt")["epoch"]
    last = folder / "checkpoints/last.ckpt"
    assert load(last)["epoch"] == best_epoch
    main(["predict", f"--ckpt_path={last}", f"--images={photos / 'red'}"])
    assert len(pd.read_csv(folder / "predictions.csv")) == 20
    code, message = fails(["validate", f"--ckpt_path={last}"], capsys)
    assert (code, "the checkpoint's run held out no image" in message) == (2, True)
    others = f"--data.dataset_classes.validation={photos}"
    code, message = fails(["validate", f"--ckpt_path={last}", others], capsys)
    assert (code, "the checkpoint was trained on 60 of these 60 images" in message) == (2, True)
    before = weights(last)
    main(tune_line(config, photos, tiny_model, tmp_path))  # nothing is left to do
    assert all(torch.equal(value, before[name]) for name, value in weights(last).items())


@pytest.mark.parametrize(
    ("space", "option", "message"),
    [
        ({LR: uniform()}, "--model.scheduler_config.name=plateau", "which scheduler 'plateau' needs"),
        (
            {SCHEDULE: {"distribution": "categorical", "choices": ["cosine", "plateau"]}},
            "--model.scheduler_config.name=step",
            "which scheduler 'plateau' needs",
        ),
        (
            {LR: uniform()},
            "--data.dataset_classes.train={class_path: imgcls.StreamImageDataset, init_args: "
            "{urls: none.tar, length: 60, class_names: [blue, green, red]}}",
            "which a stream lacks",
        ),
    ],
)
def test_retrain_that_cannot_be_is_refused_before_the_first_trial(
    space: dict[str, Any],
    option: str,
    message: str,
    photos: Path,
    test_photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "Stream" in option:
        pytest.importorskip("webdataset")
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": space, "retrain": True})
    line = tune_line(config, photos, tiny_model, tmp_path, option, f"--data.dataset_classes.validation={test_photos}")
    code, said = fails([*line, "--data.on_leak=warn"], capsys)
    assert (code, "optuna.retrain: true" in said, message in said) == (2, True, True), said
    assert not (tmp_path / "run").exists()


def test_retrain_with_a_schedule_that_no_trial_has(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    spaces = {SCHEDULE: {"distribution": "categorical", "choices": ["cosine", "step"]}}
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": spaces, "retrain": True})
    line = tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1")
    main([*line, "--model.scheduler_config.name=plateau"])
    assert len(list((tmp_path / "run/tune").glob("retrained_*"))) == 1


def test_screen_ends_bad_trials_early(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    section = {"n_trials": 6, "search_spaces": {LR: uniform()}, "fidelity": {"epochs": 1, "data": 0.5}}
    config = write_config(tmp_path / "c.yaml", section)
    main(tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=3"))
    folder = tmp_path / "run/tune"
    table = pd.read_csv(folder / "trials.csv")
    assert table["state"].value_counts()["pruned"] >= 2
    for row in table.itertuples():
        screen = pd.read_csv(folder / f"trial_{row.trial:04d}/screen/metrics.csv")
        assert screen["step"].tolist() == [3]  # one epoch of half of six batches
        assert (folder / f"trial_{row.trial:04d}/metrics.csv").exists() == (row.state == "complete")


def test_screen_needs_no_logger(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    section = {"n_trials": 1, "search_spaces": {LR: uniform()}, "fidelity": {"epochs": 1}}
    config = write_config(tmp_path / "c.yaml", section)
    main(tune_line(config, photos, tiny_model, tmp_path, "--trainer.logger=false"))
    assert states(tmp_path / "run/tune") == ["COMPLETE"]


def test_trials_keep_what_the_search_needs(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path / "c.yaml", {"n_trials": 1, "search_spaces": {LR: uniform()}})
    main(tune_line(config, photos, tiny_model, tmp_path, "--trainer.enable_checkpointing=false"))
    assert (tmp_path / "run/tune/best.ckpt").exists()


def test_time_is_up(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    section = {"n_trials": 500, "search_spaces": {LR: uniform()}, "timeout": 2.0}
    config = write_config(tmp_path / "c.yaml", section)
    main(tune_line(config, photos, tiny_model, tmp_path, "--trainer.max_epochs=1"))
    assert 1 <= len(trials_of(tmp_path / "run/tune")) < 50


def test_database_is_in_write_ahead_mode(searched: Path) -> None:
    with sqlite3.connect(searched / "study.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
