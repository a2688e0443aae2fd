"""Answers and refusals before any heavy import, and what the real parser refuses."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import imgcls
from imgcls.cli import precheck
from imgcls.cli.argv import CommandLine
from imgcls.cli.main import main
from imgcls.errors import ConfigError, ImageError
from imgcls.runtime.error_messages import explain
from tests.helpers.runs import fails, program

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.mark.parametrize(
    "line",
    [
        ["--help"],
        ["--version"],
        ["fit", "--help"],
        ["fit", "--help", "all"],
        ["fit", "photos", "--epochs=3"],
        ["fit", "--ckpt_path", "last"],
        ["fit", "--config", "none.yaml"],
        ["fitt"],
        ["fit", "--lr=1"],
        ["schema"],
        ["completion", "bash"],
        ["fit"],
        ["fit", "--data.dataset_classes.train=x", "--model.model_name=./none"],
        ["predict", "photos"],
        ["predict", "--ckpt_path=best.ckpt", "--output=pyproject.toml"],
        ["export", "--ckpt_path=pyproject.toml", "--output=tests"],
    ],
)
def test_instant_answers_load_nothing_heavy(line: list[str]) -> None:
    code = (
        "import sys\nfrom imgcls.cli.main import main\n"
        f"try:\n    main({line!r})\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'lightning', 'transformers', 'numpy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_program_answers_and_its_exit_codes() -> None:
    assert program("--version").stdout == f"imgcls {imgcls.__version__}\n"
    missing = program("fit", "--config", "none.yaml")
    assert (missing.returncode, missing.stderr) == (2, "imgcls: --config none.yaml: no such file\n")


CONFIGS = {
    "a: [1": ":1: expected ',' or ']'",
    "modle:\n  model_name: x\n": ":1: unknown key 'modle'; did you mean 'model'?",
    "model:\n  init_args:\n    model_nam: x\n": ":3: unknown key 'model.init_args.model_nam'; did you mean 'model_name'?",
    "model:\n  model_nam: x\n": "did you mean 'model_name'?",
    "data:\n  init_args:\n    dataset_classes:\n      trian: x\n": "did you mean 'train'?",
    "data:\n  dataset_classes:\n    train: {class_path: imgcls.FolderImageDataset, init_args: {rot: x}}\n": "did you mean 'root'?",
    "trainer:\n  max_epoch: 3\n": "did you mean 'max_epochs'?",
    "trainer:\n  callbacks:\n    - class_path: imgcls.MetricsLogger\n      init_args: {metric: {}}\n": "did you mean 'metrics'?",
    "model: {}\ndata: {}\nmodel: {}\n": ":3: the key 'model' is given twice",
    "- fit\n": "has no sections",
    "optuna:\n  n_trial: 3\n": "did you mean 'n_trials'?",
    "model:\n  optimizer_config: {lrr: 1.0e-3}\n": ":2: unknown key 'model.optimizer_config.lrr'; did you mean 'lr'?",
    "model:\n  optimizer_config: {learning_rate: 1.0e-3}\n": ":2: unknown key 'model.optimizer_config.learning_rate'; did you mean 'lr'?",
    "trainer:\n  callbacks:\n    - class_path: own.Callback\n      init_arg: {patience: 3}\n": ":4: unknown key 'trainer.callbacks[0].init_arg'; did you mean 'init_args'?",
    "data:\n  augmentations:\n  # train: light\n  batch_size: 8\n": ":2: data.augmentations is empty; leave it out, or give it a key",
    "model:\n  init_args:\n    optimizer_config:\n": ":3: model.init_args.optimizer_config is empty; leave it out, or give it a key",
    "trainer: {max_epochs: 1}\nexperiment: null\n": ":2: experiment is empty; leave it out, or give it a key",
    "optuna:\n": ":1: optuna is empty; leave it out, or give it a key",
    "data:\n  init_args:\n": ":2: data.init_args is empty; leave it out, or give it a key",
    "trainer:\n  callbacks:\n    - class_path: own.Callback\n      patience: 3\n": ":4: unknown key 'trainer.callbacks[0].patience'; there are class_path, init_args, dict_kwargs",
}


@pytest.mark.parametrize("text", CONFIGS)
def test_wrong_config_is_refused_at_once(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    code, message = fails(["fit", "--config", str(path)], capsys)
    assert code == 2
    assert message.startswith(f"imgcls: {path}")
    assert CONFIGS[text] in message


GUESSES = {  # what is typed -> what is to be typed
    "fit --modle.model_name x": "fit --model.model_name x",
    "fit --model.init_args.optimizer_config.lrr=1": "fit --model.optimizer_config.lr 1",
    "fit --model.model_nam=x": "fit --model.model_name x",
    "fit --trainer.max_epoch=3": "fit --trainer.max_epochs 3",
    "fit photos --lr 1e-3": "fit photos --model.optimizer_config.lr 1e-3",
    "fit --train photos --epochs 3": "fit --data.dataset_classes.train photos --trainer.max_epochs 3",
    "fit --data.train photos --max_epochs=-1": "fit --data.dataset_classes.train photos --trainer.max_epochs=-1",
    "fit --data.num_classes=9": "fit --model.num_classes 9",
    "fit --optimizer_config.lr=1": "fit --model.optimizer_config.lr 1",
    "fit --model.optimizer_config.learning_rate=1": "fit --model.optimizer_config.lr 1",
    "fit --data 'my photos' --val v": (
        "fit --data.dataset_classes.train 'my photos' --data.dataset_classes.validation v"
    ),
    "test --data photos --ckpt best.ckpt": "test --data.dataset_classes.test photos --ckpt_path best.ckpt",
    "fit --model resnet18": "fit --model.model_name microsoft/resnet-18",
    "fit --model=timm/resnet18.a1_in1k": "fit --model.model_name timm/resnet18.a1_in1k",
    "fit --model.name efficientnet_b0": "fit --model.model_name google/efficientnet-b0",
    "fit --optimizer adam --wd 0.1": "fit --model.optimizer_config.name adam --model.optimizer_config.weight_decay 0.1",
    "fit --bs 16 --batch-size 8 --workers 2": "fit --data.batch_size 16 --data.batch_size 8 --data.num_workers 2",
    "fit --patience 3 --seed 1 --name n --project p": (
        "fit --experiment.patience 3 --seed_everything 1 --experiment.custom_folder_name n --experiment.output_dir p"
    ),
    "fit --gpus 2 --device cpu --amp": "fit --trainer.devices 2 --trainer.accelerator cpu --trainer.precision 16",
    "fit --device 0": "fit --trainer.devices '[0]'",
    "fit --resume --freeze": "fit --ckpt_path last --model.freeze_encoder true",
    "fit photos -b 32 -j 4": "fit photos --data.batch_size 32 --data.num_workers 4",
    "fit epochs=3 batch=8": "fit --trainer.max_epochs 3 --data.batch_size 8",
    "fit --images x": "fit --data.dataset_classes.train x",
    "predict --source a.jpg --weights best.ckpt": "predict --images a.jpg --ckpt_path best.ckpt",
    "tune --n_trial 3": "tune --optuna.n_trials 3",
}


@pytest.mark.parametrize("line", GUESSES)
def test_first_guess_is_answered_with_the_command_to_type(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    code, message = fails(shlex.split(line), capsys)
    assert (code, message) == (2, f"imgcls: type: imgcls {GUESSES[line]}")


UNCLEAR = {
    "tune --timeout 3": "unknown option --timeout; did you mean --data.timeout or --optuna.timeout?",
    "fit --dropout 0.1": "unknown option --dropout; imgcls has none; against overfitting: --data.augmentations.train strong",
    "fit --lr 1 --foo 3": "unknown option --foo; there are seed_everything, ckpt_path",
    "fit --foo 3": "; all options: imgcls fit --help all",
}


@pytest.mark.parametrize("line", UNCLEAR)
def test_without_one_clear_target_no_command_is_proposed(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails(line.split(), capsys)
    assert (code, UNCLEAR[line] in message) == (2, True), message


def test_all_faults_of_files_and_options_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("trainer:\n  max_epoch: 3\ndata:\n  batch_siz: 8\n  num_workers: many\n")
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(path), "--modle.model_name=x"])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(";")[0].removeprefix("imgcls: ") for line in lines] == [
        f"{path}:2: unknown key 'trainer.max_epoch'",
        f"{path}:4: unknown key 'data.batch_siz'",
        f"{path}:5: data.num_workers must be an integer or null, got 'many'",
        "unknown option --modle.model_name",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "model: {optimizer_config: {lr: '1e-3', weight_decay: 1e-2}}\n",
        "data: {batch_size: '8', num_workers: ~, create_dataset: 'true'}\n",
        "trainer: {precision: '16', deterministic: warn, devices: [0]}\n",
        "trainer: {callbacks: {class_path: own.Callback, dict_kwargs: {x: 1}}}\n",
        "trainer: {callbacks: [{class_path: EarlyStopping, init_args: {monitor: x}}], logger: true}\n",
        "model: own.Model\ndata: {class_path: own.Data, init_args: {x: 1}}\n",
        "data: {dataset_classes: {train: photos, validation: {class_path: own.Data, init_args: {x: 1}}}}\n",
        "trainer: trainer.yaml\nmodel: {optimizer_config: parts/optimizer.yaml}\n",
        "optuna: {search_spaces: {model.optimizer_config.lr: {distribution: uniform, low: 0, high: 1e-3}}}\n",
        "trainer: {gradient_clip_val: .inf, limit_train_batches: 1, max_time: {minutes: 1}}\n",
        "trainer: {callbacks: [{class_path: RichProgressBar, init_args: {theme: {progress_bar: {color: red}}}}]}\n",
        'data: {dataset_classes: {train: "\\ud800"}}\n',
        "$schema: schema.json\n",
    ],
)
def test_what_the_parser_may_read_is_not_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    precheck.check(["fit", "--config", str(tmp_path / "c.yaml")])


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("--data=photos", "--data takes a class; to use a folder: --data.dataset_classes.train photos"),
        ("--model=resnet18", "--model takes a class; to choose a network: --model.model_name microsoft/resnet-18"),
        ("--lr=1e-3", "unknown option --lr; did you mean --model.optimizer_config.lr?"),
        ("--resume", "unknown option --resume; did you mean --ckpt_path last?"),
    ],
)
def test_what_was_meant_is_named(option: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", option])
    assert capsys.readouterr().err.splitlines()[0] == f"imgcls: {wanted}"


ODD = {
    f"trainer: {'[' * 60}{']' * 60}\n": ":1: holds more than 50 levels, one within the other",
    f"trainer: {'[' * 3000}{']' * 3000}\n": ": holds more than 50 levels, one within the other",
    "experiment: {custom_folder_name: {{name}}}\n": ":1: a key is a text, and no list or mapping; put quotes around a text with braces",
    "experiment: &a\n  custom_folder_name: *a\n": ":1: holds itself, by the alias of its own anchor",
    "model:\n  <<: &a {<<: *a}\n": ":2: holds itself, by the alias of its own anchor",
    "model: &a {init_args: {model_name: x}}\ndata: {<<: *a}\n": ":1: unknown key 'data.init_args.model_name'",
    "trainer:\n  <<: {max_epoch: 3}\n": ":2: unknown key 'trainer.max_epoch'; did you mean 'max_epochs'?",
    "trainer: {<<: {max_epochs: 3}, max_epochs: 1, max_epochs: 2}\n": ":1: the key 'trainer.max_epochs' is given twice",
}


@pytest.mark.parametrize("text", ODD, ids=[*ODD.values()])
def test_odd_yaml_is_refused_with_its_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    code, message = fails(["fit", "--config", str(path)], capsys)
    assert code == 2
    assert message.startswith(f"imgcls: {path}{ODD[text]}")


def test_merge_keys_are_merged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "optuna: &one {n_trials: 3}\n"
        "trainer: &fast {max_epochs: 1, limit_train_batches: 2}\n"
        "model:\n  optimizer_config: &rates {lr: 0.1, name: adamw}\n"
        "data:\n  dataset_classes:\n    train: &own {class_path: own.Data, init_args: {root: x}}\n"
        "    test: {<<: [*own], init_args: {root: y, more: 1}}\n"
    )
    precheck.check(["fit", "--config", str(path)])
    path.write_text("model:\n  init_args: {optimizer_config: {<<: [{lr: 2.0}, {lr: 3.0, eps: 1.0}], lr: -0.1}}\n")
    code, message = fails(["fit", "--config", str(path), "--data.dataset_classes.train=x"], capsys)
    assert (code, "optimizer_config.lr must be greater than 0, got -0.1" in message) == (2, True), message


@pytest.mark.parametrize("option", ["-c", "-h", "--config", "-c=x.yaml", "--config=x.yaml"])
def test_values_of_a_list_end_at_the_next_option(option: str) -> None:
    line = ["check", "--allow", "leakage", option, "x.yaml", "--allow=unreadable"]
    [*_, (name, [text])] = CommandLine(line).options
    assert (name, json.loads(text)) == ("--allow", ["leakage", "unreadable"])


@pytest.mark.parametrize("value", ["{{name}}", "&a [*a]"])
def test_option_of_odd_yaml_is_a_text(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    precheck.check(["fit", f"--experiment.custom_folder_name={value}"])
    code, message = fails(["fit", f"--experiment.custom_folder_name={value}"], capsys)
    assert (code, message) == (
        2,
        "imgcls: no train data; type: imgcls fit PHOTOS, where PHOTOS has one folder of images per class; or a YAML "
        "that names the data: imgcls fit --config FILE.yaml",
    )


VALUES = {
    "--model.optimizer_config={learning_rate: 1}": "unknown key 'model.optimizer_config.learning_rate'; did you mean 'lr'?",
    "--model.init_args.optimizer_config={lrr: 1}": "unknown key 'model.init_args.optimizer_config.lrr'; did you mean 'lr'?",
    "--experiment={outputdir: x}": "unknown key 'experiment.outputdir'; did you mean 'output_dir'?",
    "--trainer.callbacks=[{class_path: own.Callback, init_agrs: {}}]": "unknown key 'trainer.callbacks[0].init_agrs'; did you mean 'init_args'?",
    "--trainer.callbacks+={class_path: own.Callback, patience: 3}": "unknown key 'trainer.callbacks[0].patience'; there are class_path, init_args, dict_kwargs",
    "--data.dataset_classes.train={class_path: imgcls.FolderImageDataset, init_args: {rot: x}}": "unknown key 'data.dataset_classes.train.init_args.rot'; did you mean 'root'?",
    "--data={dataset_classes: }": "data.dataset_classes is empty; leave it out, or give it a key",
    "--data={batch_size: 1, batch_size: 2}": "the key 'data.batch_size' is given twice",
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("argument", VALUES)
def test_wrong_key_within_an_option_is_refused_at_once(
    argument: str, apart: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    option, _, value = argument.partition("=")
    code, message = fails(["fit", *([option, value] if apart else [argument])], capsys)
    assert (code, message) == (2, f"imgcls: {option}: {VALUES[argument]}")


@pytest.mark.parametrize(
    "line",
    [
        ["--model=own.Model", "--model.extra=1"],
        ["--model.class_path", "own.Model", "--model.init_args.extra=1"],
        ["--model={class_path: own.Model, init_args: {extra: 1}}", "--model.extra=1"],
        ["--config", "own.yaml", "--data.extra=1"],
        ["--trainer.callbacks=[{class_path: own.Saver, init_args: {filename: '{epoch}-{loss}'}}]"],
        ["--trainer.callbacks.init_args.filename={epoch:03d}-{validation_loss:.4f}"],
        ["--trainer.callbacks=[{class_path: EarlyStopping, init_args: {monitor: validation_loss}}, ModelSummary]"],
        ["--trainer.callbacks+=ModelSummary", "--trainer.logger=CSVLogger"],
        ["--data.dataset_classes.train=caf\udce9"],
    ],
)
def test_arguments_of_own_classes_are_left_to_the_parser(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text("data: {class_path: own.Data, init_args: {extra: 1}}\n")
    precheck.check(["fit", *line])
    with pytest.raises(ConfigError, match=r"unknown option --experiment\.extra"):
        precheck.check(["fit", *line, "--experiment.extra=1"])


@pytest.mark.parametrize("flag", ["--overwrite", "--overwrite=true"])
def test_a_flag_needs_no_value(flag: str) -> None:
    precheck.check(["predict", "--ckpt_path=best.ckpt", "--images=photos", flag])


MISSING = {
    ("fit", "--config"): "--config needs a value; type --config FILE.yaml",
    ("fit", "--config="): "--config needs a value; type --config FILE.yaml",
    ("fit", "-c"): "-c needs a value; type -c FILE.yaml",
    ("fit", "--config", "--trainer.max_epochs=3"): "--config needs a value",
    ("fit", "--ckpt_path"): "--ckpt_path needs a value; type --ckpt_path FILE.ckpt",
    ("validate", "--ckpt_path="): "--ckpt_path needs a value",
    ("predict", "--images", "--ckpt_path", "x.ckpt"): "--images needs a value; type --images PATH",
}


@pytest.mark.parametrize("line", MISSING)
def test_missing_value_is_refused_at_once(line: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails([*line], capsys)
    assert (code, MISSING[line] in message) == (2, True), message


@pytest.mark.parametrize(
    ("line", "command"),
    [
        (["--config", "c.yaml"], "imgcls fit --config c.yaml"),
        (["--config", "c.yaml", "--test", "--ckpt_path", "x"], "imgcls test --config c.yaml --ckpt_path x"),
        (["--val", "--ckpt_path", "x"], "imgcls validate --ckpt_path x"),
        (["--predict"], "imgcls predict"),
    ],
)
def test_old_spelling_names_the_new(line: list[str], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails(line, capsys)
    assert (code, message.endswith(f"type: {command}")) == (2, True)


def test_option_that_is_empty_or_leads_nowhere_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["fit", "--data.augmentations=null", "--trainer.max_epochs.x=1"]
    with pytest.raises(SystemExit):
        main(line)
    assert capsys.readouterr().err.splitlines() == [
        "imgcls: --data.augmentations is empty; leave it out, or give it a key",
        'imgcls: --trainer.max_epochs must be an integer or null, got {"x": "1"}',
    ]


def test_arguments_beside_init_args_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text("data: {init_args: {batch_size: 16}, validation_split: 0.3}\n")
    code, message = fails(["fit", f"--config={tmp_path}/c.yaml"], capsys)
    assert (code, "c.yaml:1: 'data.validation_split' is beside init_args; move it" in message) == (2, True)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("valdate", "no command 'valdate'; did you mean 'validate'?"),
        ("trian", "no command 'trian'; did you mean 'fit'? type: imgcls fit"),
        ("shema", "no command 'shema'; did you mean 'schema'?"),
        ("train photos --epochs 3", "did you mean 'fit'? type: imgcls fit photos --epochs 3"),
        ("val", "did you mean 'validate'? type: imgcls validate"),
        ("evaluate best.ckpt", "did you mean 'test'? type: imgcls test best.ckpt"),
        ("inference", "did you mean 'predict'? type: imgcls predict"),
        ("search", "did you mean 'tune'? type: imgcls tune"),
    ],
)
def test_unknown_command(line: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = fails(line.split(), capsys)
    assert (code, wanted in message) == (2, True), message


REAL = {
    "--model.init_args.optimizer_config.lr=abc": "--model.init_args.optimizer_config.lr must be a number or null, got 'abc'",
    "--model.init_args.optimizer_config.name=adamm": "must be 'adam', 'adamw' or 'sgd', got 'adamm'; did you mean 'adam",
    "--model.init_args.optimizer_config.momentum=0.9": "momentum applies only to sgd, not to 'adamw'",
    "--data.image_size=128x128": "got '128x128'; for example 128, or [128,160] (height, width)",
    "--data.batch_size=big": "--data.batch_size must be an integer, got 'big'",
    "--data.batch_size=0": "data.init_args.batch_size must be at least 1, got 0",
    "--data.validation_split=1.5": "data.init_args.validation_split must be between 0 and 1",
    "--model.freeze_encoder=1.5": "model.init_args.freeze_encoder must be true, false or a fraction from 0 to 1, got 1.5",
    "--model.num_classes=42": "model.init_args.num_classes must be 10, the number of classes of the data ('0', '1', '2'",
    "--model.class_path=torch.nn.Linear": "torch.nn.Linear does not correspond to a subclass of ImageClassifier",
    "--model.model_name=./none": "model.init_args.model_name: folder './none' does not exist",
    "--data.dataset_classes.train=/none": "Folder '/none' does not exist",
    "--data.dataset_classes.train.class_path=imgcls.DigitDataset": "did you mean 'DigitsDataset'?",
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStoping, init_args: {monitor: x}}]": "did you mean 'EarlyStopping'?",
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: validation_f1}}]": "did you mean 'validation_f1_score'?",
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {filename: '{epoch}-{val_loss}'}}]": "no metric is called 'val_loss'",
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {patiense: 3}}]": "did you mean 'patience'?",
    "--trainer.callbacks+={class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {patiense: 3}}": "unknown key 'trainer.callbacks[0].init_args.patiense'; did you mean 'patience'?",
    "--trainer.logger={class_path: lightning.pytorch.loggers.CSVLogger, init_args: {savedir: x}}": "unknown key 'trainer.logger.init_args.savedir'; did you mean 'save_dir'?",
    "--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStopping, init_args: {monitor: x, mode: maxi}}]": "imgcls: `mode` can be min, max, got maxi",
    "--trainer.callbacks=[{class_path: no_such_package.Callback}]": "imgcls: trainer.callbacks: No module named 'no_such_package'",
    "--trainer.callbacks=[{class_path: pytorch_lightning.callbacks.Timer}]": "use lightning.pytorch.callbacks.Timer",
    "--trainer.callbacks=[{class_path: pytorch_lightning.callbacks.EarlyStopping, init_args: {monitor: validation_loss}}]": "imgcls: trainer.callbacks: pytorch_lightning.callbacks.EarlyStopping belongs to another package than the Trainer; use lightning.pytorch.callbacks.EarlyStopping",
    "--trainer.callbacks=[{class_path: imgcls.MetricsLogger, init_args: {metrics: {acc: {class_path: torchmetrics.Acuracy}}}}]": "did you mean 'Accuracy'?",
    "--trainer.callbacks=[{class_path: imgcls.MetricsLogger, init_args: {metrics: {acc: {class_path: torchmetrics.Accuracy, init_args: {averag: macro}}}}}]": "did you mean 'average'?",
    "--data.augmentations.train=[{class_path: albumentations.HorizontalFlp}]": "data.init_args.augmentations.train[0] albumentations.HorizontalFlp: 'albumentations' has no 'HorizontalFlp'; did you mean 'HorizontalFlip'?",
    "--trainer.accelerator=gpu": "--trainer.accelerator auto",
    "--trainer.strategy=ddp_spawn": "ddp_spawn leaves the trained weights in processes that end; use ddp",
    "--trainer.devices=[0]": "--trainer.devices auto",
    "--trainer.precision=17": "--trainer.precision must be 16, 32, 64, ",
    "--data.augmentations=light": "--data.augmentations must be a section with keys (train, eval), got 'light'",
    "--model.optimizer_config=adamw": "--model.optimizer_config must be a section with keys (name, lr, weight_decay",
    "--experiment=foo": "--experiment must be a section with keys (custom_folder_name, output_dir",
    "--data.dataset_classes.train=list.csv": "--data.dataset_classes.train: 'list.csv' is not a folder; for a table, type --data.dataset_classes.train.class_path imgcls.CsvImageDataset --data.dataset_classes.train.init_args.csv list.csv",
    "--data.dataset_classes.train={class_path: scans.Scan, init_args: {root: x}}": "data.init_args.dataset_classes.train: no dataset class has these arguments: {'class_path': 'scans.Scan'",
    "--optuna.direction=up": "--optuna.direction must be 'maximize', 'minimize', null or a list, got 'up'",
    "--optuna.search_spaces={a: {distribution: uniform, lo: 1}}": "did you mean 'low'?",
}


@pytest.mark.parametrize("option", REAL)
def test_real_parser_errors_are_one_line(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(QUICKSTART.parent.parent)
    line = ["fit", "--config", str(QUICKSTART), f"--experiment.output_dir={tmp_path}", option]
    with pytest.raises(SystemExit) as stop:
        main(line)
    assert stop.value.code == 2
    *before, message = capsys.readouterr().err.strip().splitlines()
    assert REAL[option] in message
    assert [text for text in before if "preprocessor_config" not in text and "precision" not in text] == []
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_package_of_the_old_name_need_not_be_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_lightning", None)
    callback = "{class_path: pytorch_lightning.callbacks.EarlyStopping, init_args: {monitor: validation_loss}}"
    code, message = fails(["fit", "--data=imgcls.ImageDataModule", f"--trainer.callbacks=[{callback}]"], capsys)
    assert (code, message.partition("; ")[2]) == (2, "use lightning.pytorch.callbacks.EarlyStopping")


def _raised(cause: BaseException | None, suppress: bool) -> BaseException:
    """An error that was raised while another was handled."""
    try:
        try:
            raise ConfigError("handled")
        except ConfigError:
            error = KeyError("own")
            if suppress:
                raise error from cause
            raise error  # noqa: B904
    except KeyError as raised:
        return raised


def test_explanation_follows_causes() -> None:
    assert explain(_raised(None, suppress=False)) == ("handled", 2)
    assert explain(_raised(None, suppress=True)) == ("the run failed: KeyError: 'own' (--debug shows where)", 1)
    assert explain(_raised(ImageError("a.png: torn"), suppress=True)) == (
        "a.png: torn; remove or replace the file, or leave such files out: --data.on_bad_image skip",
        2,
    )


def test_garbage_collector_is_out_of_the_way_of_imports_alone() -> None:
    code = "import gc; from imgcls.cli.main import _import_program as p; p(); p(); print(gc.isenabled(), gc.get_freeze_count())"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    enabled, frozen = fresh.stdout.split()
    assert enabled == "True"
    assert int(frozen) > 500_000
