"""Checkpoints of strangers: plain values alone, which may steer nothing but the model that they describe."""

import inspect
import io
import json
import logging
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import imgcls
from imgcls.checkpoints.callback_states import keep_own_paths
from imgcls.cli.main import main
from imgcls.data.transforms.from_checkpoint import ALLOWED_ARGUMENTS, COMPOSITIONS, TRANSFORMS, recorded_steps
from imgcls.errors import ConfigError
from imgcls.models.huggingface.build import load_network
from imgcls.models.huggingface.from_checkpoint import build_recorded
from imgcls.models.huggingface.hub import load_config
from tests.helpers.runs import arguments, fails, load, table_of

Edit = Callable[[dict[str, Any]], None]
SAVER = "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {monitor: validation_loss, mode: min}}]"


@pytest.fixture(scope="module")
def run(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch, with a ModelCheckpoint of the user's."""
    out = tmp_path_factory.mktemp("run")
    main(["fit", *arguments(photos, tiny_model, out, "--trainer.max_epochs=1", f"--trainer.callbacks={SAVER}")])
    return out / "run/version_0"


@pytest.fixture(scope="module")
def good(run: Path) -> bytes:
    return (run / "checkpoints/last.ckpt").read_bytes()


def content_of(good: bytes) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(io.BytesIO(good), weights_only=True)
    return content


def changed(good: bytes, path: Path, edit: Edit) -> str:
    """Write a checkpoint in which something is changed; return the option that names it."""
    content = content_of(good)
    edit(content)
    torch.save(content, path)
    return f"--ckpt_path={path}"


def config_edit(*keys: str, to: Any) -> Edit:
    """Set a value in the configuration that the checkpoint records."""

    def edit(content: dict[str, Any]) -> None:
        config = part = json.loads(content["imgcls_config"])
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = to
        content["imgcls_config"] = json.dumps(config)

    return edit


# -- what a text may say


def add_step(step: dict[str, Any]) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        content["ImageDataModule"]["eval"].append(step)

    return edit


@pytest.mark.parametrize("command", ["predict", "validate"])
def test_text_in_a_step_runs_no_command(
    command: str, good: bytes, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = json.dumps({"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/pwned"}})
    for arguments_of_step in (f'{{"p": {call}}}', {"p": call}, {"p": json.loads(call)}, {"p": [call]}):
        step = {"class_path": "albumentations.HorizontalFlip", "init_args": arguments_of_step}
        option = changed(good, tmp_path / "x.ckpt", add_step(step))
        more = [f"--images={photos}", f"--output={tmp_path}/p.csv"] if command == "predict" else []
        code, said = fails([command, option, *more], capsys)
        assert code == 2
        assert "data.init_args.augmentations.eval[2]" in said
    assert not (tmp_path / "pwned").exists()


EVIL = 'import pathlib\npathlib.Path("pwned").touch()\n\nclass Evil:\n    def __init__(self, root): pass\n'


@pytest.mark.parametrize(
    "spec",
    [
        '{"class_path": "evil.Evil", "init_args": {"root": "/x"}}',
        "{class_path: evil.Evil, init_args: {root: /x}}",
        "./evil.yaml",
        '{"class_path": "imgcls.StreamImageDataset", "init_args": {"urls": "pipe:touch ./pwned", "length": 1}}',
        '{"class_path": "imgcls.HubImageDataset", "init_args": {"name": "evil/data"}}',
        {"class_path": "evil.Evil", "init_args": {"root": "/x"}},
        "https://example.org/evil.yaml",
    ],
)
def test_text_in_place_of_a_dataset_makes_no_class(
    spec: Any,
    good: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "evil.yaml").write_text("class_path: evil.Evil\ninit_args: {root: /x}\n")
    option = changed(good, tmp_path / "x.ckpt", config_edit("data", "init_args", "dataset_classes", "train", to=spec))
    assert fails(["validate", option], capsys) == (
        2,
        "imgcls: no validation data; type: imgcls validate RUN_FOLDER PHOTOS (or give "
        "--data.dataset_classes.validation FOLDER, --data.dataset_classes.train with the folder that it was held out "
        "of, or --config with the YAML of the run)",
    )
    assert not (tmp_path / "pwned").exists()


def test_arguments_of_a_dataset_are_checked_by_its_constructor(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {
        "text": ("imgcls.CsvImageDataset", '{"csv": "/x"}', "init_args: input should be a valid dictionary"),
        "unknown": ("imgcls.CsvImageDataset", {"csv": "/x", "engine": "python"}, "engine: extra inputs"),
        "number": ("imgcls.CsvImageDataset", {"csv": 3}, "csv: input should be a valid string"),
        "pixels": ("imgcls.FolderImageDataset", {"root": "/x", "max_pixels": 10**12}, "max_pixels: input should be"),
        "shards": ("imgcls.ShardImageDataset", {"shards": "/x/{000000..999999999}.tar"}, "at most 100000 shards"),
        "digits": ("imgcls.ShardImageDataset", {"shards": "/x/{0..9999999999999999999}"}, "at most 100000 shards"),
        "none": ("imgcls.ShardImageDataset", {"shards": "/x/{0..9999999999}{1..0}"}, "at most 100000 shards"),
    }
    for class_path, given, reason in refused.values():
        spec = {"class_path": class_path, "init_args": given}
        edit = config_edit("data", "init_args", "dataset_classes", "train", to=spec)
        code, said = fails(["validate", changed(good, tmp_path / "x.ckpt", edit)], capsys)
        assert code == 2
        assert reason in said
        assert "data.init_args.dataset_classes.train" in said


def test_batch_of_more_images_than_there_are_is_refused(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = config_edit("data", "init_args", "batch_size", to=99999999999999999999)
    code, said = fails(["validate", changed(good, tmp_path / "x.ckpt", edit)], capsys)
    assert code == 2
    assert "x.ckpt: is not a checkpoint of imgcls: imgcls_config.data.init_args.batch_size: " in said
    code, said = fails(["fit", "--data.dataset_classes.train=x", "--data.batch_size=99999999999999999999"], capsys)
    assert (code, said) == (2, "imgcls: data.init_args.batch_size must be at most 1048576, got 99999999999999999999")


# -- the network


def network(**values: Any) -> Edit:
    return lambda content: content["imgcls"]["network"].update(values)


@pytest.mark.parametrize(
    "values",
    [
        {"attribute_map": {"foo": "_attn_implementation"}, "foo": "evil/kernels"},
        {"_attn_implementation": "evil/kernels", "attn_implementation": "evil/kernels", "use_kernels": True},
        {"attribute_map": {"foo": "auto_map"}, "foo": {"AutoConfig": "evil--x.Y"}, "trust_remote_code": True},
        {"_auto_class": "evil", "base_model_tp_plan": {"x": "colwise"}, "extra_files": ["evil"]},
    ],
)
def test_keys_that_name_code_are_left_out(
    values: dict[str, Any], good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["validate", "--trainer.precision=32", changed(good, tmp_path / "good.ckpt", lambda content: None)]
    main(line)
    expected = table_of(capsys.readouterr().out)
    main(["validate", "--trainer.precision=32", changed(good, tmp_path / "x.ckpt", network(**values))])
    assert table_of(capsys.readouterr().out) == expected


def test_record_of_a_network_names_fields_alone(tiny_model: Path) -> None:
    record = json.loads((tiny_model / "config.json").read_text())
    of_the_class = {"attribute_map": {"hidden_act": "evil"}, "_auto_class": "evil", "base_model_tp_plan": {"x": "evil"}}
    built = build_recorded(record | of_the_class, ["a", "b"]).config
    assert set(of_the_class) & vars(built).keys() == set()
    with pytest.raises(ConfigError, match="needs a text beside the image"):
        build_recorded({"model_type": "shieldgemma2"}, ["a", "b"])


def test_network_far_larger_than_its_weights_is_not_built(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: dict[str, dict[str, Any]] = {
        "more than": {"depths": [100_000] * 3},
        "numbers, too many": {"hidden_sizes": [2**18, 2**18, 2**18]},
        "network.depths must be a number up to 1048576": {"depths": [10**12] * 3},
        "network.depths must have at most 4096 values": {"depths": [1] * 5000},
        "network.hidden_act must be a name, got '/x/y.py'": {"hidden_act": "/x/y.py"},
    }
    for reason, values in cases.items():
        code, said = fails(["validate", changed(good, tmp_path / "x.ckpt", network(**values))], capsys)
        assert code == 2
        assert reason in said
        assert said.startswith("imgcls: the checkpoint's network")


def test_folder_of_a_model_says_nothing_about_code(tiny_model: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    more = {"_attn_implementation": "evil/kernels", "attribute_map": {"foo": "_attn_implementation"}, "foo": "evil/x"}
    (tmp_path / "config.json").write_text(json.dumps(config | more))
    read = load_config(str(tmp_path))
    assert read._attn_implementation is None
    assert read.attribute_map == load_config(str(tiny_model)).attribute_map


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("kind", ["torch", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickle_in_the_folder_of_a_model_is_named(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    payload = {"weight": torch.zeros(1), "other": _Payload(tmp_path / "pwned")}
    file = tmp_path / "model/pytorch_model.bin"
    torch.save(payload, file) if kind == "torch" else file.write_bytes(pickle.dumps(payload))
    with pytest.raises(ConfigError, match="hold Python objects beside the tensors, which could run code"):
        load_network(str(tmp_path / "model"), True, ["a", "b"])
    assert not (tmp_path / "pwned").exists()


# -- files


def test_resume_deletes_no_file_that_a_checkpoint_names(
    good: bytes, photos: Path, tiny_model: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    folder = tmp_path / "out/run/version_0/checkpoints"
    evil = f"{folder}/../../../../victim.txt"

    def edit(content: dict[str, Any]) -> None:
        [state] = [state for key, state in content["callbacks"].items() if key.startswith("ModelCheckpoint")]
        worst = torch.tensor(9.0)
        state |= {"dirpath": str(folder), "kth_best_model_path": evil, "best_model_path": evil, "kth_value": worst}
        state |= {"last_model_path": evil, "best_k_models": {evil: worst}, "best_model_score": worst}

    line = ["fit", *arguments(photos, tiny_model, tmp_path / "out", f"--trainer.callbacks={SAVER}")]
    main([*line, "--trainer.max_epochs=2", changed(good, tmp_path / "x.ckpt", edit)])
    assert victim.read_text() == "mine"
    [state] = [s for key, s in load(folder / "last.ckpt")["callbacks"].items() if key.startswith("ModelCheckpoint")]
    assert Path(state["best_model_path"]).parent == folder


def test_states_of_callbacks_keep_the_files_of_their_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "mine.ckpt").touch()
    (folder / "validation").mkdir()
    (folder / "validation/loss=0.1.ckpt").touch()  # as of the filename "{validation/loss}"
    (folder / "linked").symlink_to(tmp_path)
    (tmp_path / "other.ckpt").touch()
    (folder / "link.ckpt").symlink_to(tmp_path / "other.ckpt")
    saver, score = ModelCheckpoint(dirpath=folder, monitor="validation_loss"), torch.tensor(1.0)
    mine, outside, link = (f"{folder}/{name}" for name in ("mine.ckpt", "../other.ckpt", "link.ckpt"))
    below = f"{folder}/validation/loss=0.1.ckpt"
    state = saver.state_dict() | {
        "best_model_path": mine,
        "kth_best_model_path": outside,
        "last_model_path": link,
        "best_k_models": {mine: score, below: score, f"{folder}/linked/other.ckpt": score}
        | {outside: score, f"{tmp_path}/other.ckpt": score, f"{folder}/gone.ckpt": score},
        "best_model_score": score,
    }
    states = {saver.state_key: dict(state)}
    keep_own_paths(states, [saver])
    kept = states[saver.state_key]
    assert (kept["best_model_path"], kept["kth_best_model_path"], kept["last_model_path"]) == (mine, "", "")
    assert kept["best_k_models"] == {mine: score, below: score}
    assert kept["best_model_score"] == score
    moved = {saver.state_key: state | {"dirpath": str(tmp_path)}}  # of another run
    keep_own_paths(moved, [saver])
    assert moved[saver.state_key]["best_k_models"] == {}
    assert moved[saver.state_key]["best_model_path"] == ""
    assert moved[saver.state_key]["dirpath"] == saver.dirpath


def test_checkpoint_saver_of_the_user_resumes_with_its_files(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, f"--trainer.callbacks={SAVER}")]
    main([*line, "--trainer.max_epochs=1"])
    folder = tmp_path / "run/version_0/checkpoints"
    before = {path.name for path in folder.glob("epoch=*")}
    main([*line, "--trainer.max_epochs=3", "--ckpt_path=last"])
    [state] = [s for key, s in load(folder / "last.ckpt")["callbacks"].items() if key.startswith("ModelCheckpoint")]
    after = {path.name for path in folder.glob("epoch=*")}
    assert len(before) == len(after) == 1  # the former best is known, and replaced where it is beaten
    assert after == {Path(state["best_model_path"]).name}


# -- shapes and sizes


def callback(name: str, **values: Any) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        [state] = [state for key, state in content["callbacks"].items() if key.partition("{")[0] == name]
        state |= values

    return edit


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


MALFORMED: dict[str, tuple[Edit, str]] = {
    "history": (callback("History", rows=[{"epoch": "x"}]), "callbacks.History.rows.0.epoch: "),
    "saver": (callback("CheckpointSaver", best_score="high"), "callbacks.CheckpointSaver.best_score: "),
    "early stopping": (callback("EarlyStopping", wait_count="/x"), "callbacks.EarlyStopping{"),
    "average": (callback("EMA", latest_update_step=-1), "callbacks.EMA.latest_update_step: "),
    "metrics": (
        lambda content: content["callbacks"].update(MetricsLogger={"train": [{"x": 1}]}),
        "callbacks.MetricsLogger.train: ",
    ),
    "state of a metric": (
        lambda content: content["callbacks"].update(MetricsLogger={"train": {"f1": {"spec": "", "state": {"tp": 1}}}}),
        "callbacks.MetricsLogger.train.f1.state.tp",
    ),
    "state": (lambda content: content["callbacks"].update(History=[]), "callbacks.History: "),
    "levels": (callback("History", more=deep(100)), "callbacks: must have at most 20 levels"),
    "number": (lambda content: content["imgcls"].update(x=10**30), "imgcls: an integer must be at most 2**53"),
    "classes twice": (lambda content: content["imgcls"].update(class_names=["a", "a", "b"]), "contains a name twice"),
    "thresholds": (lambda content: content["imgcls"].update(thresholds=[0.5]), "got 1 thresholds for 3 classes"),
    "labels": (lambda content: content["ImageDataModule"]["labels"].update(train=["a"]), "1 labels for 48 images of"),
    "progress": (
        lambda content: content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"].update(ready="x"),
        "loops: must be an integer from 0, got 'x'",
    ),
    "rate": (
        lambda content: content["optimizer_states"][0]["param_groups"][0].update(lr="0.1"),
        "optimizer_states.0.param_groups.0.lr",
    ),
    "version": (lambda content: content.update({"pytorch-lightning_version": "x"}), "pytorch-lightning_version: "),
    "seed": (config_edit("seed_everything", to=-1), "imgcls_config.seed_everything"),
    "image size": (
        lambda content: content["imgcls"]["preprocessing"].update(size=[10**6, 32]),
        "imgcls.preprocessing.size.0: input should be less than or equal to 16384",
    ),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_value_is_refused_by_name(
    fault: str, good: bytes, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, reason = MALFORMED[fault]
    option = changed(good, tmp_path / "x.ckpt", edit)
    for line in (["validate", option], ["fit", *arguments(photos, tiny_model, tmp_path), option]):
        code, said = fails(line, capsys)
        assert code == 2
        assert said.startswith(f"imgcls: {tmp_path}/x.ckpt: is not a checkpoint of imgcls: ")
        assert reason in said
    with pytest.raises(ConfigError, match=r"x.ckpt: is not a checkpoint of imgcls: "):
        imgcls.ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ("text", "must be a list"),
        ([{"class_path": "albumentations.Lambda"}], "names albumentations.Lambda"),
        ([{"class_path": "albumentations.FDA", "init_args": {"reference_images": ["/x"]}}], "names albumentations.FDA"),
        ([{"class_path": "os.system", "init_args": {"command": "true"}}], "names os.system"),
        ([{"class_path": "Resize", "init_args": {"height": 10**9, "width": 8}}], "[0].height: "),
        ([{"class_path": "Resize", "init_args": {"height": 2**15, "width": 8}}], "[0].height: "),
        ([{"class_path": "Compose", "init_args": {"transforms": [], "bbox_params": {}}}], "[0].bbox_params: "),
        ([{"class_path": "Compose", "init_args": {"transforms": [{"class_path": "Lambda"}]}}], "names Lambda"),
        ([{"class_path": "Resize", "init_args": "{height: 8}"}], "init_args must be a mapping"),
        ([{"class_path": "OneOf", "init_args": {"transforms": [{"class_path": "Lambda"}]}}], "names Lambda"),
        ([{"class_path": "OneOf", "init_args": {"transforms": "os.system"}}], "[0].transforms: "),
        ([{"class_path": "Equalize", "init_args": {"mask": "os.system"}}], "[0].mask: is not loaded"),
        ([{"class_path": "Blur", "init_args": {"p": float("nan")}}], "[0].p: "),
        ([{"class_path": ["Resize"]}], "[0]: "),
        ([{"class_path": "OneOf", "init_args": {"transforms": [{"class_path": "NoOp"}] * 101}}], "[0].transforms: "),
        ([{"class_path": "Pad", "init_args": {"padding": {"no word": 1}}}], "[0].padding: "),
    ],
)
def test_step_that_is_not_of_the_table_is_refused(steps: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        recorded_steps(steps)
    assert str(error.value).startswith("data.init_args.augmentations.eval")
    assert reason in str(error.value)


PLAIN = {"int", "float", "bool", "str", "None", "Any", "list", "tuple", "dict", "Sequence", "Literal", "class"}


def test_steps_of_the_table_are_taken_whole() -> None:
    flip = {"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 0.5}}
    steps = [
        {"class_path": "albumentations.OneOf", "init_args": {"transforms": [flip, flip], "p": 1}},
        {"class_path": "albumentations.Compose", "init_args": {"transforms": [flip], "p": 1, "seed": 123456789}},
        {"class_path": "albumentations.Normalize", "init_args": {"mean": [0.5, 0.5, 0.5], "max_pixel_value": 65535}},
        {"class_path": "albumentations.pytorch.ToTensorV2", "init_args": {}},
    ]
    assert recorded_steps(steps) == steps


@pytest.mark.parametrize("name", sorted(TRANSFORMS | COMPOSITIONS))
def test_transforms_of_the_table_take_plain_values(name: str) -> None:
    kind = albumentations.pytorch.ToTensorV2 if name == "ToTensorV2" else getattr(albumentations, name)
    for key, parameter in inspect.signature(kind).parameters.items():
        if key in {"mask", "mask_params", "transforms", "first", "second"}:  # refused, or steps themselves
            continue
        if key not in ALLOWED_ARGUMENTS.get(name, {key}):  # refused
            continue
        words = set(re.findall(r"\w+", re.sub(r"Literal\[.*?\]", "", str(parameter.annotation))))
        assert words <= PLAIN, f"{key}: {parameter.annotation}"


# -- in Python


def test_load_from_checkpoint_checks_the_file(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    place = largest.header_offset + largest.file_size // 2
    path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
    with pytest.raises(ConfigError, match=r"x.ckpt: damaged: wrong checksum in "):
        imgcls.ImageClassifier.load_from_checkpoint(path)
    path.write_bytes(pickle.dumps(_Payload(tmp_path / "pwned")))
    with pytest.raises(ConfigError) as error:
        imgcls.ImageClassifier.load_from_checkpoint(path)
    assert "weights_only" not in str(error.value)
    content = content_of(good)
    content["callbacks"]["x"] = {"x": _Payload(tmp_path / "pwned")}
    torch.save(content, path)
    with pytest.raises(ConfigError, match="it holds Python objects, which could run code") as error:
        imgcls.ImageClassifier.load_from_checkpoint(path)
    assert "weights_only" not in str(error.value)
    assert not (tmp_path / "pwned").exists()


def test_load_from_checkpoint_takes_arguments_of_the_constructor_alone(good: bytes, tmp_path: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        content["hyper_parameters"] |= {"_instantiator": "os.system", "_class_path": "evil.Evil", "callback": "x"}

    changed(good, tmp_path / "x.ckpt", edit)
    model = imgcls.ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", feature_views=3)
    assert model.optimizer_config.lr == 0.01
    assert model.feature_views == 3
    changed(good, tmp_path / "y.ckpt", lambda content: content["hyper_parameters"].update(optimizer_config="{lr: 1}"))
    with pytest.raises(ConfigError, match=r"the checkpoint's hyper_parameters.optimizer_config: "):
        imgcls.ImageClassifier.load_from_checkpoint(tmp_path / "y.ckpt")


# -- what the user gives still counts


def test_items_of_the_recorded_steps_can_be_changed(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    option = changed(good, tmp_path / "x.ckpt", lambda content: None)
    code, said = fails(["validate", option, "--data.augmentations.eval.1.init_args.height=0"], capsys)
    assert code == 2
    assert "data.init_args.augmentations.eval[1] imgcls.CenterCrop: height" in said
    with caplog.at_level(logging.INFO):
        main(["validate", option, "--data.augmentations.eval.1.init_args.height=24"])
    assert "accuracy" in capsys.readouterr().out


def test_names_that_are_no_utf8_are_taken(good: bytes, tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9"), "b", "c"]
    changed(good, tmp_path / "x.ckpt", lambda content: content["imgcls"].update(class_names=names))
    assert imgcls.ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt").class_names == names


def test_argument_of_a_recorded_dataset_of_the_hub_asks_for_the_whole(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"class_path": "imgcls.HubImageDataset", "init_args": {"name": "some/data", "split": "train"}}
    edit = config_edit("data", "init_args", "dataset_classes", "train", to=spec)
    line = ["validate", changed(good, tmp_path / "x.ckpt", edit)]
    code, said = fails([*line, "--data.dataset_classes.train.init_args.split=test"], capsys)
    assert code == 2
    assert "data.init_args.dataset_classes.train: the dataset of the checkpoint is not on this machine" in said
    assert "--data.dataset_classes.train='{class_path: imgcls.HubImageDataset, init_args: {" in said


def test_arguments_of_a_dataset_that_are_a_text_are_refused(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"class_path": "imgcls.FolderImageDataset", "init_args": "abc"}
    config = {"data": {"init_args": {"dataset_classes": {"train": spec}}}}
    (tmp_path / "c.yaml").write_text(json.dumps(config))
    option = changed(good, tmp_path / "x.ckpt", lambda content: None)
    code, said = fails(["validate", option, f"--config={tmp_path}/c.yaml"], capsys)
    assert code == 2
    assert "dataset_classes" in said
