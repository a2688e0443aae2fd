"""Checkpoint files that are damaged or hostile."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imgcls.checkpoint import AtomicCheckpointIO, is_intact, read_checkpoint
from imgcls.entry import main
from imgcls.errors import ConfigError
from tests.runs import arguments, fails

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


@pytest.mark.parametrize("class_path", ["imgcls.cli.ImgclsCLI", "torchmetrics.text.bert.BERTScore", "subprocess.run"])
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
    assert "metric evil: the checkpoint names a class which only --config may load" in output.err
    assert "accuracy" in output.out
    assert "evil" not in output.out


@pytest.mark.parametrize("class_path", ["imgcls.cli.ImgclsCLI", "albumentations.from_dict", "albumentations.load"])
def test_checkpoint_may_not_name_any_callable_as_an_augmentation(
    class_path: str, good: bytes, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(io.BytesIO(good), weights_only=True)
    content["ImageDataModule"]["eval"] = [{"class_path": class_path, "init_args": {}}]
    torch.save(content, tmp_path / "x.ckpt")
    code, message = fails(["predict", "--ckpt_path", str(tmp_path / "x.ckpt"), "--images", str(photos)], capsys)
    assert (code, class_path in message) == (2, True)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="is not a checkpoint of imgcls"):
        read_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="no such checkpoint file"):
        read_checkpoint(tmp_path / "missing.ckpt")


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "imgcls": {"n": 1}}, target)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "imgcls": {"n": 2}}, target)
    assert read_checkpoint(target)["imgcls"] == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
