"""Checkpoint files that are damaged or hostile."""

import errno
import io
import json
import os
import pickle
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imgcls.checkpoints.io import AtomicCheckpointIO, is_intact, read_checkpoint
from imgcls.cli.main import main
from imgcls.errors import ConfigError
from tests.helpers.runs import arguments, fails, table_of

Damage = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def good(photos: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a real checkpoint."""
    out = tmp_path_factory.mktemp("good")
    main(["fit", *arguments(photos, tiny_model, out, "--trainer.max_epochs=1")])
    return (out / "run/version_0/checkpoints/last.ckpt").read_bytes()


def _flip_in_tensor(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        largest = max(
            (info for info in archive.infolist() if "/data/" in info.filename), key=lambda info: info.file_size
        )
    place = largest.header_offset + 200
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


DAMAGES: dict[str, tuple[Damage, str]] = {
    "half": (lambda content: content[: len(content) // 2], "truncated"),
    "minus one byte": (lambda content: content[:-1], "truncated"),
    "empty": (lambda content: b"", "empty"),
    "text": (lambda content: b"hello", "not a checkpoint"),
    "html": (lambda content: b"<html><body>404</body></html>" * 50, "not a checkpoint"),
    "one byte flipped": (_flip_in_tensor, "checksum"),
    "4 KB zeroed": (lambda content: content[:8192] + bytes(4096) + content[12288:], "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_damaged_checkpoint_is_refused(
    command: str,
    damage: str,
    good: bytes,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    break_it, reason = DAMAGES[damage]
    path = tmp_path / "x.ckpt"
    path.write_bytes(break_it(good))
    assert not is_intact(path)
    more = arguments(photos, tiny_model, tmp_path) if command == "fit" else []
    code, message = fails([command, *more, "--ckpt_path", str(path)], capsys)
    assert code == 2
    assert message.startswith(f"imgcls: {path}: ")
    assert reason in message
    assert not (tmp_path / "run").exists()


def _metadata(content: bytes) -> list[int]:
    """The positions of the bytes of a ZIP file that no checksum covers: headers and the directory."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        starts = [info.header_offset for info in archive.infolist()]
        local = [start + place for start in starts for place in range(30)]
        return local + list(range(archive.start_dir, len(content)))


@pytest.mark.parametrize("seed", range(4))
def test_a_flipped_bit_in_the_archive_is_named_as_damage(good: bytes, tmp_path: Path, seed: int) -> None:
    path, chance = tmp_path / "x.ckpt", random.Random(seed)
    path.write_bytes(good)
    state = {name: tensor.clone() for name, tensor in read_checkpoint(path)["state_dict"].items()}
    places = _metadata(good)
    refused = []
    for _ in range(120):
        flipped = bytearray(good)
        flipped[chance.choice(places)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            found = read_checkpoint(path)["state_dict"]
        except ConfigError as error:
            refused.append(str(error))
        else:
            assert found.keys() == state.keys()
            assert all(torch.equal(found[name], state[name]) for name in state)
    assert len(refused) > 30
    assert [said for said in refused if not re.match(rf"{path}: (damaged|truncated)", said)] == []


def test_last_names_the_damaged_checkpoints_that_it_passes_over(
    good: bytes, photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run/version_0/checkpoints"
    folder.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt"):
        (folder / name).write_bytes(good)
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--ckpt_path=last")]
    (folder / "last.ckpt").write_bytes(good[: len(good) // 2])
    main(line)
    said = capsys.readouterr().err
    assert f"--ckpt_path last: skipping {folder}/last.ckpt: truncated" in said
    assert f"Resuming from {folder}/best.ckpt after epoch 1" in said

    for name in ("best.ckpt", "last.ckpt"):
        (folder / name).write_bytes(good[: len(good) // 2])
    code, message = fails(line, capsys)
    assert code == 2
    assert f"all checkpoints in {tmp_path}/run are damaged or contain weights only: " in message
    assert f"'{folder}/last.ckpt', '{folder}/best.ckpt'" in message
    assert "no checkpoint in" not in message


def test_last_does_not_pass_over_a_checkpoint_that_cannot_be_read_now(
    good: bytes,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run/version_0/checkpoints"
    folder.mkdir(parents=True)
    for name in ("best.ckpt", "last.ckpt"):
        (folder / name).write_bytes(good)
    opened = zipfile.ZipFile

    def stale(file: Path) -> zipfile.ZipFile:
        if file.name == "last.ckpt":
            raise OSError(errno.ESTALE, "Stale file handle")
        return opened(file)

    monkeypatch.setattr(zipfile, "ZipFile", stale)
    code, message = fails(["fit", *arguments(photos, tiny_model, tmp_path, "--ckpt_path=last")], capsys)
    assert (code, message) == (2, f"imgcls: {folder}/last.ckpt: cannot be read: Stale file handle")


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch {self.target}",)


def _hide(content: dict[str, Any], place: str, payload: _Payload) -> dict[str, Any]:
    if place == "state_dict":
        content["state_dict"]["extra"] = payload
    elif place == "hyper_parameters":
        content["hyper_parameters"]["model_name"] = payload
    else:
        content["callbacks"][place] = payload
    return content


@pytest.mark.parametrize("place", ["state_dict", "hyper_parameters", "callback", "raw pickle"])
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "only_weights_load"])
def test_payload_never_runs(
    command: str,
    place: str,
    good: bytes,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pwned, path = tmp_path / "pwned", tmp_path / "x.ckpt"
    if place == "raw pickle":
        path.write_bytes(pickle.dumps(_Payload(pwned)))
    else:
        torch.save(_hide(torch.load(io.BytesIO(good), weights_only=True), place, _Payload(pwned)), path)
    line = [command, "--ckpt_path", str(path)]
    if command == "only_weights_load":
        line = ["fit", "--ckpt_path", str(path), "--experiment.only_weights_load=true"]
    code, message = fails(line + (arguments(photos, tiny_model, tmp_path) if line[0] == "fit" else []), capsys)
    assert code == 2
    assert str(path) in message
    assert "weights_only" not in message
    assert not pwned.exists()


def test_checkpoint_does_not_steer_the_configuration(
    good: bytes, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    content["hyper_parameters"] |= {"model_name": "evil/repo", "trust_remote_code": True, "_class_path": "os.system"}
    content["hyper_parameters"]["_instantiator"] = "os.system"
    evil = '"callbacks": [{"class_path": "evil.Callback"}]'
    content["imgcls_config"] = content["imgcls_config"].replace('"callbacks": null', evil)
    content["imgcls"]["network"]["auto_map"] = {"AutoModelForImageClassification": "evil--repo"}
    path = tmp_path / "x.ckpt"
    torch.save(content, path)
    main(["validate", "--ckpt_path", str(path)])
    assert "accuracy" in capsys.readouterr().out


def test_trainer_of_the_checkpoint_does_not_steer_an_evaluation(
    good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def losses(content: dict[str, Any], *more: str) -> list[str]:
        torch.save(content, tmp_path / "x.ckpt")
        capsys.readouterr()
        # 12 images in batches of 2: two batches are 4 images, all of one class
        main(["validate", "--ckpt_path", str(tmp_path / "x.ckpt"), "--data.batch_size=2", *more])
        return table_of(capsys.readouterr().out)["loss"]

    content = torch.load(io.BytesIO(good), weights_only=True)
    config = json.loads(content["imgcls_config"])
    config["trainer"] |= {"devices": 2, "accelerator": "gpu", "limit_val_batches": 2}
    all_images = losses(content)
    assert losses(content | {"imgcls_config": json.dumps(config)}) == all_images
    assert losses(content, "--trainer.limit_val_batches=2") != all_images


@pytest.mark.parametrize("where", ["eval", "model"])
def test_checkpoint_may_not_name_foreign_classes(
    where: str, good: bytes, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    if where == "eval":
        content["ImageDataModule"]["eval"].append({"class_path": "os.system", "init_args": {"command": "true"}})
    else:
        content["imgcls_config"] = content["imgcls_config"].replace("imgcls.ImageClassifier", "evil.Model")
    path = tmp_path / "x.ckpt"
    torch.save(content, path)
    code, message = fails(["predict", "--ckpt_path", str(path), "--images", str(photos)], capsys)
    assert code == 2
    assert ("os.system" if where == "eval" else "evil.Model") in message
    assert "--config" in message


@pytest.mark.parametrize(
    "class_path", ["imgcls.cli.parser.ImgclsCLI", "torchmetrics.text.bert.BERTScore", "subprocess.run"]
)
def test_checkpoint_may_not_name_any_callable_as_a_metric(
    class_path: str, good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    config = json.loads(content["imgcls_config"])
    evil = {"class_path": class_path, "init_args": {"arguments": ["fit", "--config", "evil.yaml"]}}
    metrics = {"evil": evil, "accuracy": {"class_path": "torchmetrics.Accuracy"}}
    config["trainer"]["callbacks"] = [{"class_path": "imgcls.MetricsLogger", "init_args": {"metrics": metrics}}]
    torch.save(content | {"imgcls_config": json.dumps(config)}, tmp_path / "x.ckpt")
    main(["validate", "--ckpt_path", str(tmp_path / "x.ckpt")])
    output = capsys.readouterr()
    assert "metric evil: ignored, because its class is not in torchmetrics" in output.err
    assert "accuracy" in output.out
    assert "evil" not in output.out


@pytest.mark.parametrize(
    "class_path", ["imgcls.cli.parser.ImgclsCLI", "albumentations.from_dict", "albumentations.load"]
)
def test_checkpoint_may_not_name_any_callable_as_an_augmentation(
    class_path: str, good: bytes, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    content["ImageDataModule"]["eval"] = [{"class_path": class_path, "init_args": {}}]
    torch.save(content, tmp_path / "x.ckpt")
    code, message = fails(["predict", "--ckpt_path", str(tmp_path / "x.ckpt"), "--images", str(photos)], capsys)
    assert (code, class_path in message) == (2, True)


def _set(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        *before, last = keys
        for key in before:
            content = content[key]
        content[last] = to

    return edit


def _leave_out(*keys: str) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        *before, last = keys
        for key in before:
            content = content[key]
        del content[last]

    return edit


def _set_config(**values: Any) -> Callable[[dict[str, Any]], None]:
    def edit(content: dict[str, Any]) -> None:
        content["imgcls_config"] = json.dumps(json.loads(content["imgcls_config"]) | values)

    return edit


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "record is a list": (_set("imgcls", to=["a"]), "imgcls: input should be a valid dictionary"),
    "no classes": (_leave_out("imgcls", "class_names"), "imgcls.class_names: field required"),
    "classes are a text": (
        _set("imgcls", "class_names", to="blue"),
        "imgcls.class_names: input should be a valid list",
    ),
    "classes are numbers": (_set("imgcls", "class_names", to=[1, 2, 3]), "imgcls.class_names.0: input should be a"),
    "empty classes": (_set("imgcls", "class_names", to=[]), "imgcls.class_names: list should have at least 1"),
    "no network": (_leave_out("imgcls", "network"), "imgcls.network: field required"),
    "no type": (_leave_out("imgcls", "network", "model_type"), "imgcls.network.model_type: field required"),
    "no preprocessing": (_leave_out("imgcls", "preprocessing"), "imgcls.preprocessing: field required"),
    "unknown field": (_set("imgcls", "preprocessing", "gamma", to=2), "imgcls.preprocessing.gamma: extra inputs"),
    "size is a number": (
        _set("imgcls", "preprocessing", "size", to=32),
        "imgcls.preprocessing.size: input should be",
    ),
    "two channels": (
        _set("imgcls", "preprocessing", "mean", to=[0.5, 0.5]),
        "imgcls.preprocessing.mean: list should",
    ),
    "not JSON": (_set("imgcls_config", to="{"), "imgcls_config: invalid json"),
    "JSON is a list": (_set("imgcls_config", to="[]"), "imgcls_config: input should be a valid dictionary"),
    "config is a dict": (_set("imgcls_config", to={}), "imgcls_config: json input should be string"),
    "section is a text": (_set_config(data="x"), "imgcls_config.data: input should be a valid dictionary"),
    "callbacks are texts": (
        _set_config(trainer={"callbacks": ["x"]}),
        "imgcls_config.trainer.callbacks.0: input should be a valid dictionary",
    ),
    "weights are a list": (_set("state_dict", to=[]), "state_dict: input should be a valid dictionary"),
    "weight is a number": (_set("state_dict", "temperature", to=1.0), "state_dict.temperature: input should be an"),
    "config is null": (_set("imgcls_config", to=None), "imgcls_config: json input should be string"),
    "data are null": (_set("ImageDataModule", to=None), "ImageDataModule: input should be a valid dictionary"),
    "no split": (_leave_out("ImageDataModule", "split"), "ImageDataModule.split: field required"),
    "split of numbers": (_set("ImageDataModule", "split", "train", to=[1]), "ImageDataModule.split.train.0: input"),
    "steps are a text": (_set("ImageDataModule", "eval", to="Resize"), "ImageDataModule.eval: input should be a"),
    "no version": (_leave_out("pytorch-lightning_version"), "pytorch-lightning_version: field required"),
    "no progress": (_set("loops", to={}), "loops.fit_loop: field required"),
}


@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_checkpoint_is_refused(
    fault: str, good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, reason = MALFORMED[fault]
    content = torch.load(io.BytesIO(good), weights_only=True)
    edit(content)
    path = tmp_path / "x.ckpt"
    torch.save(content, path)
    code, message = fails(["validate", "--ckpt_path", str(path)], capsys)
    assert code == 2
    assert message.startswith(f"imgcls: {path}: is not a checkpoint of imgcls: {reason}")
    code, again = fails(["fit", "--data.dataset_classes.train=imgcls.DigitsDataset", f"--ckpt_path={path}"], capsys)
    assert (code, again) == (2, message)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("model_type", "no_such_model", "no_such_model"),
        ("depths", "many", "depths"),
        ("hidden_sizes", [-8, 16, 16], "negative dimension"),
        ("hidden_act", "no_such_function", "no_such_function"),
    ],
)
def test_network_that_cannot_be_built_is_refused(
    key: str, value: object, reason: str, good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    content["imgcls"]["network"][key] = value
    torch.save(content, tmp_path / "x.ckpt")
    code, message = fails(["validate", "--ckpt_path", str(tmp_path / "x.ckpt")], capsys)
    assert code == 2
    assert message.startswith("imgcls: the checkpoint's network cannot be built: ")
    assert reason in message


WEIGHTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "missing": (_leave_out("state_dict", "temperature"), "1 missing (temperature)"),
    "unknown": (_set("state_dict", "other", to=torch.zeros(1)), "1 unknown (other)"),
    "of another shape": (_set("state_dict", "temperature", to=torch.zeros(2)), "1 of another shape (temperature)"),
}


@pytest.mark.parametrize("fault", WEIGHTS)
@pytest.mark.parametrize("command", ["validate", "predict"])
def test_weights_of_another_network_are_refused(
    command: str, fault: str, good: bytes, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, reason = WEIGHTS[fault]
    content = torch.load(io.BytesIO(good), weights_only=True)
    edit(content)
    torch.save(content, tmp_path / "x.ckpt")
    more = ["--images", str(photos)] if command == "predict" else []
    code, message = fails([command, "--ckpt_path", str(tmp_path / "x.ckpt"), *more], capsys)
    assert code == 2
    assert "the checkpoint's weights do not match its network" in message
    assert reason in message
    assert not (tmp_path / "predictions.csv").exists()


def test_folder_names_its_checkpoints(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["fit", *arguments(photos, tiny_model, tmp_path, "--trainer.max_epochs=1")]
    main(line)
    folder = tmp_path / "run/version_0"
    best, last = (folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    expected = f"is a folder; type --ckpt_path {best} to evaluate, --ckpt_path {last} to resume training"
    for path in (folder, folder / "checkpoints"):
        code, message = fails([*line, "--ckpt_path", str(path)], capsys)  # evaluations load its best checkpoint
        assert (code, message) == (2, f"imgcls: {path}: {expected}")
    last.unlink()
    _, message = fails([*line, "--ckpt_path", str(folder)], capsys)
    assert message == f"imgcls: {folder}: is a folder; type --ckpt_path {best} to evaluate"
    code, message = fails(["validate", "--ckpt_path", str(tmp_path)], capsys)
    assert (code, f"contains run folders; did you mean '{folder}'?" in message) == (2, True)
    (tmp_path / "empty").mkdir()
    code, message = fails(["validate", "--ckpt_path", str(tmp_path / "empty")], capsys)
    assert (code, message) == (2, f"imgcls: {tmp_path / 'empty'}: is a folder; type --ckpt_path FILE.ckpt")


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match=r"other.ckpt: is not a checkpoint of imgcls: imgcls: field required"):
        read_checkpoint(tmp_path / "other.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    with pytest.raises(ConfigError, match=r"is not a checkpoint of imgcls: input should be a valid dictionary$"):
        read_checkpoint(tmp_path / "list.ckpt")
    with pytest.raises(ConfigError, match="there is no such file"):
        read_checkpoint(tmp_path / "missing.ckpt")


def test_failed_write_keeps_the_old_file(good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    content = torch.load(io.BytesIO(good), weights_only=True)
    AtomicCheckpointIO().save_checkpoint(content | {"epoch": 1}, target)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint(content | {"epoch": 2}, target)
    assert read_checkpoint(target)["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
