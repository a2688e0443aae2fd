"""Words without an option, run folders and ``last``: how they are read, and what is refused."""

import os
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml

from imgcls.cli.main import main
from imgcls.cli.positional_arguments import add_newest_run, expand
from imgcls.errors import ConfigError
from tests.helpers.runs import arguments, fails, table_of

TRAIN = "--data.dataset_classes.train"
BEST = "runs/x/version_0/checkpoints/best.ckpt"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: photos, configurations and a run."""
    for name in (
        "photos",
        "more photos",
        "runs/x/version_0/checkpoints",
        "runs/y/version_1/checkpoints",
        "runs/x/tune",
        "exported",
        "network",
        "runs/x/version_0/export/hf",
        *(f"animals/{name}" for name in "abc"),
    ):
        (tmp_path / name).mkdir(parents=True)
    for number, name in enumerate(("runs/y/version_1", "runs/x/version_0")):
        for file in ("config.yaml", "checkpoints/last.ckpt", "checkpoints/best.ckpt"):
            (tmp_path / name / file).touch()
            os.utime(tmp_path / name / file, (number, number))
    for name in (
        "c.yaml",
        "d.YML",
        "best.ckpt",
        "one.jpg",
        "list.csv",
        "predictions.csv",
        "runs/x/tune/best.ckpt",
        "exported/export.json",
        "network/config.json",
        "network/model.safetensors",
    ):
        (tmp_path / name).touch()
    export = '{"checkpoint": {"path": "x/version_0/checkpoints/best.ckpt"}}'
    (tmp_path / "runs/x/version_0/export/hf/export.json").write_text(export)
    monkeypatch.chdir(tmp_path)
    return tmp_path


EXPANDED = {
    "fit photos/": f"fit {TRAIN} photos/",
    "fit c.yaml": "fit --config c.yaml",
    "fit c.yaml photos --trainer.max_epochs 3 d.YML": f"fit --config c.yaml {TRAIN} photos --trainer.max_epochs 3 --config d.YML",
    "fit --trainer.max_epochs=-1 'more photos'": f"fit --trainer.max_epochs=-1 {TRAIN} 'more photos'",
    "fit c.yaml best.ckpt": "fit --config c.yaml --ckpt_path best.ckpt",
    "fit list.csv": f"fit {TRAIN} list.csv",
    "tune c.yaml photos": f"tune --config c.yaml {TRAIN} photos",
    "test best.ckpt photos": "test --ckpt_path best.ckpt --data.dataset_classes.test photos",
    "test runs/x/version_0": f"test --ckpt_path {BEST}",
    "test --ckpt_path=runs/x/version_0": f"test --ckpt_path {BEST}",
    "test runs/x/version_0/checkpoints": f"test --ckpt_path {BEST}",
    "test last photos": "test --ckpt_path last --data.dataset_classes.test photos",
    "fit c.yaml last": "fit --config c.yaml --ckpt_path last",
    "validate runs/x/tune -c c.yaml": "validate --ckpt_path runs/x/tune/best.ckpt -c c.yaml",
    "check c.yaml": "check --config c.yaml",
    "validate best.ckpt --tta hflip photos": "validate --ckpt_path best.ckpt --tta hflip --data.dataset_classes.validation photos",
    "predict best.ckpt photos one.jpg list.csv": "predict --ckpt_path best.ckpt --images photos --images one.jpg --images list.csv",
    "predict --images photos one.jpg --overwrite best.ckpt": "predict --images photos one.jpg --overwrite --ckpt_path best.ckpt",
    "predict best.ckpt --overwrite=true photos": "predict --ckpt_path best.ckpt --overwrite=true --images photos",
    "check photos 'more photos' --allow leakage unreadable": "check --images photos --images 'more photos' --allow leakage unreadable",
    "check photos/ --data.dataset_classes.test 'more photos'": (
        f"check {TRAIN} photos/ --data.dataset_classes.test 'more photos'"
    ),
    "check photos --images=animals --data.dataset_classes.test=d": (
        "check --images photos --images animals --data.dataset_classes.test d"
    ),
    "fit --print_config c.yaml": "fit --print_config --config c.yaml",
}


@pytest.mark.parametrize("line", EXPANDED)
def test_words_are_read_as_the_option_that_they_must_be(line: str, folder: Path) -> None:
    found, _ = expand(shlex.split(line))
    assert shlex.join(found) == EXPANDED[line]
    assert expand(found) == (found, [])


RESUMED = {
    "fit --ckpt_path last": (
        "fit --config runs/x/version_0/config.yaml --experiment.output_dir runs --experiment.custom_folder_name x "
        "--ckpt_path last"
    ),
    "fit --ckpt_path last --experiment.custom_folder_name y": (
        "fit --config runs/y/version_1/config.yaml --experiment.output_dir runs --experiment.custom_folder_name y "
        "--ckpt_path last --experiment.custom_folder_name y"
    ),
    f"fit {TRAIN}=photos --ckpt_path=last": f"fit {TRAIN}=photos --ckpt_path=last",
    "fit -c c.yaml --ckpt_path last": "fit -c c.yaml --ckpt_path last",
}


@pytest.mark.parametrize("line", RESUMED)
def test_last_without_a_configuration_is_the_newest_run(line: str, folder: Path) -> None:
    assert shlex.join(add_newest_run(shlex.split(line))[0]) == RESUMED[line]


def test_a_line_says_how_a_word_was_read(folder: Path) -> None:
    assert expand(["fit", "more photos"])[1] == [f"Reading 'more photos' as {TRAIN}"]
    assert expand(["test", "runs/x/version_0"])[1] == [f"Reading runs/x/version_0 as --ckpt_path {BEST}"]
    assert expand(["predict", "best.ckpt", *["one.jpg"] * 5])[1][1] == (
        "Reading one.jpg, one.jpg, one.jpg and 2 more as --images"
    )
    assert expand(["check", "photos", "more photos"])[1] == [
        "Reading photos, 'more photos' as --images",
        "Leaks are found only between splits; to check 'more photos' as the test images, type: "
        "imgcls check photos --data.dataset_classes.test 'more photos'",
    ]
    assert add_newest_run(["fit", "--ckpt_path=last"])[1] == [
        "Reading --ckpt_path last as the newest run, runs/x/version_0"
    ]


REFUSED = {
    "fit phtos": "'phtos': no such file or folder; did you mean 'photos'?",
    "fit ./none": "'./none': no such file or folder",
    "fit --trainer.devices [0, 1]": "'1]': no such file or folder; a value follows its option, one with spaces in quotes",
    "fit photos 'more photos'": (
        f"fit takes one of the folders 'photos', 'more photos' as {TRAIN}; for the second: "
        "--data.dataset_classes.validation 'more photos'"
    ),
    "fit animals/a animals/b animals/c": "for the folder that they are in: imgcls fit animals",  # the shell expands photos/*
    "check photos animals --data.dataset_classes.test 'more photos'": (
        f"check takes one of the folders 'photos', 'animals' as {TRAIN}"
    ),
    f"fit {TRAIN}=photos 'more photos'": f"fit takes one of the folders 'photos', 'more photos' as {TRAIN}",
    "test best.ckpt runs/x/version_0": f"test takes one of the checkpoints 'best.ckpt', '{BEST}' as --ckpt_path",
    "fit runs/x/version_0": "imgcls fit runs/x/version_0/config.yaml runs/x/version_0/checkpoints/last.ckpt",
    "fit one.jpg": "'one.jpg' belongs to no option; without an option, fit takes folders of images and .yaml files",
    "check one.jpg": "'one.jpg' belongs to no option; without an option, check takes folders of images and .yaml files",
    "tune best.ckpt": "'best.ckpt' belongs to no option; without an option, tune takes folders",
    "predict best.ckpt photos c.yaml": "'c.yaml' is not an image; if it is the configuration, type --config c.yaml",
    "check photos c.yaml": "'c.yaml' is not an image; if it is the configuration, type --config c.yaml",
    "fit none.yaml": "--config none.yaml: no such file",
    "fit --ckpt_path last --experiment.output_dir photos": "--ckpt_path last: no run in 'photos'; to train a new model: imgcls fit PHOTOS",
    "fit --ckpt_path last --experiment.custom_folder_name z": "no run named 'z' in 'runs', which contains 'x', 'y'; to train",
    "fit": "no train data; type: imgcls fit PHOTOS",
    "tune --optuna.n_trials=3": "no train data; type: imgcls tune FILE.yaml PHOTOS",
    "fit photos --model.model_name runs/x/version_0/checkpoints/best.ckpt": (
        f"'{BEST}' is the checkpoint of a run, not a model; to start from its weights, type --ckpt_path {BEST} "
        "--experiment.only_weights_load true"
    ),
    "fit photos --model.model_name runs/x/version_0": f"type --ckpt_path {BEST} --experiment.only_weights_load true",
    "tune last": "'last': no such file or folder",
    "fit photos --model.model_name ./phots": "folder './phots' does not exist; did you mean './photos'?",
    f"fit photos --model.model_name ./{'a' * 300}": "does not exist",
    "fit photos --model.model_name ~nobody-x/a": "does not exist",
    "predict photos": "such as runs/x/version_0/checkpoints/best.ckpt; type: imgcls predict runs/x/version_0 photos",
    "test": "such as runs/x/version_0/checkpoints/best.ckpt; type: imgcls test runs/x/version_0",
    "predict --experiment.output_dir=photos": "type: imgcls predict runs/NAME/version_N",
    "predict best.ckpt one.jpg --output list.csv": "list.csv exists; add --overwrite",
    "predict best.ckpt one.jpg": "predictions.csv exists; add --overwrite",
    "predict runs/x one.jpg": "'runs/x' contains run folders; did you mean 'runs/x/version_0'?",
    "predict exported photos": "'exported' is an exported model, for other programs",
    "predict runs/x/version_0/export/hf photos": "type: imgcls predict runs/x/version_0 photos",
    "predict --ckpt_path exported photos": "'exported' is an exported model, for other programs",
    "test network photos": "'network' is a pretrained network and not a run; to train a classifier from it, type: "
    "imgcls fit PHOTOS --model.model_name network",
    "test --ckpt_path runs": "'runs' contains run folders; did you mean 'runs/x/version_0'?",
    "fit --config c.yml": "--config c.yml: no such file; did you mean 'c.yaml'?",
    "photos/": "a command comes first; type: imgcls fit photos/",
    "c.yaml --test": "a command comes first; type: imgcls test c.yaml",
}


@pytest.mark.parametrize("line", REFUSED)
def test_doubt_is_an_error(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails(shlex.split(line), capsys)
    assert (code, REFUSED[line] in message) == (2, True), message


def test_long_word_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        expand(["fit", "a" * 300])


@pytest.mark.parametrize("word", ["nofolder/", "zebra.tif"])
def test_a_missing_path_is_no_value_of_an_option(word: str) -> None:
    with pytest.raises(ConfigError, match=r"no such file or folder$"):
        expand(["predict", word])


def test_short_forms_train_evaluate_and_predict(
    photos: Path,
    test_photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _, *options = arguments(photos, tiny_model, Path("runs"), "--trainer.max_epochs=1")
    main(["fit", *options, str(photos)])
    assert f"Reading {photos} as {TRAIN}" in capsys.readouterr().err.splitlines()
    main(["test", "runs/run/version_0", str(test_photos)])
    by_folder = table_of(capsys.readouterr().out)
    main(["test", "--ckpt_path=last", f"--data.dataset_classes.test={test_photos}"])
    captured = capsys.readouterr()
    assert (
        "Reading --ckpt_path last as runs/run/version_0/checkpoints/best.ckpt, the best of the newest run"
        in captured.err
    )
    assert table_of(captured.out) == by_folder
    images = sorted(map(str, test_photos.rglob("*.png")))[:2]
    main(["predict", "runs/run/version_0", *images, "--output", "p.csv"])
    assert pd.read_csv("p.csv")["path"].tolist() == images
    main(["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    assert "Resuming from" in capsys.readouterr().err
    assert sorted(Path("runs/run").glob("version_*")) == [Path("runs/run/version_0")]
    assert yaml.safe_load(Path("runs/run/version_0/config.yaml").read_text())["trainer"]["max_epochs"] == 2
