"""Every image classifier of transformers is cut, trained, frozen and reloaded by the same few lines."""

import argparse
import io
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from torch import Tensor, nn
from transformers import ConvNextImageProcessor, PreTrainedModel
from transformers.utils.import_utils import BACKENDS_MAPPING

from imgcls.errors import ConfigError, RunError
from imgcls.models.architecture import call, interpolation_origin
from imgcls.models.backbone import Backbone
from imgcls.models.classifier import ImageClassifier
from imgcls.models.huggingface.build import build, check_weights, load_network, record_of, set_classes
from imgcls.models.huggingface.from_checkpoint import build_recorded
from imgcls.models.huggingface.hub import check_reachable, load_config, load_error
from imgcls.types import Batch
from tests.helpers.architectures import TINY, tiny_config

CLASS_NAMES = ["a", "b", "c"]
every_architecture = pytest.mark.parametrize("model_type", TINY)


def make_model(folder: Path, model_type: str) -> ImageClassifier:
    tiny_config(model_type).save_pretrained(folder)
    torch.manual_seed(0)
    model = ImageClassifier(str(folder), pretrained=False)
    model.build(CLASS_NAMES)
    return model


def make_batch(size: int) -> Batch:
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"image": images, "label": torch.tensor([0, 2]), "path": ["a/1.png", "c/1.png"]}


def train(model: ImageClassifier, batch: Batch, steps: int) -> Tensor:
    # the logits of some untrained networks are as small as 1e-12
    optimizer = torch.optim.Adam((parameter for parameter in model.parameters() if parameter.requires_grad), eps=1e-30)
    for step in range(steps):
        optimizer.zero_grad()
        outputs = model.training_step(batch, step)
        assert outputs is not None
        loss = outputs["loss"]
        torch.autograd.backward(loss)
        optimizer.step()
    return loss


def backbone_of(model: ImageClassifier) -> Backbone:
    assert model.backbone is not None
    return model.backbone


def still(backbone: Backbone) -> Iterator[tuple[str, Tensor]]:
    """Frozen parameters, and the buffers of modules whose parameters are all frozen."""
    for name, module in backbone.network.named_modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            yield from module.named_buffers(name)
    yield from ((name, value) for name, value in backbone.network.named_parameters() if not value.requires_grad)


def make_network(model_type: str, **values: object) -> PreTrainedModel:
    config = tiny_config(model_type)
    config.update(values)
    set_classes(config, CLASS_NAMES)
    torch.manual_seed(0)
    return build(config)


def assert_cut_leaves_logits(model_type: str, size: int, **values: object) -> None:
    network = make_network(model_type, **values).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)  # biases and layer scales that start at zero must count
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = call(network, images, interpolation_origin(network))
        logits = Backbone(network, (size, size)).eval()(images)
    assert logits.shape == (2, 3)
    assert expected.isfinite().all()
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@every_architecture
def test_cut_network_gives_the_logits_of_the_intact_one(model_type: str) -> None:
    assert_cut_leaves_logits(model_type, TINY[model_type].size)


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("deit", "DeiTForImageClassificationWithTeacher"),
        ("levit", "LevitForImageClassificationWithTeacher"),
        ("perceiver", "PerceiverForImageClassificationConvProcessing"),
    ],
)
def test_cut_keeps_the_architecture_that_the_config_names(model_type: str, architecture: str) -> None:
    assert_cut_leaves_logits(model_type, TINY[model_type].size, architectures=[architecture])


@pytest.mark.parametrize(("architecture", "size"), [("test_vit", 160), ("crossvit_tiny_240", 240), ("resnetv2_18", 64)])
def test_cut_keeps_heads_of_unequal_width_and_heads_of_convolution(architecture: str, size: int) -> None:
    assert_cut_leaves_logits("timm_wrapper", size, architecture=architecture)


def assert_head_is_float32(model_type: str, size: int, **values: object) -> None:
    backbone = Backbone(make_network(model_type, **values), (size, size)).eval()
    for parameter in backbone.heads.parameters():  # some start at zero
        nn.init.normal_(parameter)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = backbone.encode(images)
        logits = backbone.classify(features)
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16()).any()
    with torch.no_grad():
        torch.testing.assert_close(logits, backbone.classify(features.float()))


@every_architecture
def test_logits_are_float32_under_mixed_precision(model_type: str) -> None:
    assert_head_is_float32(model_type, TINY[model_type].size)


@pytest.mark.parametrize(("architecture", "size"), [("crossvit_tiny_240", 240), ("resnetv2_18", 64)])
def test_logits_of_timms_heads_are_float32_under_mixed_precision(architecture: str, size: int) -> None:
    assert_head_is_float32("timm_wrapper", size, architecture=architecture)


def test_heads_that_are_not_averaged_are_refused() -> None:
    network = make_network("swiftformer")
    network.register_forward_hook(lambda *passed: (2 * passed[-1].logits,))
    with pytest.raises(ConfigError, match="does not average its heads"):
        Backbone(network, (32, 32))


@every_architecture
def test_one_step_gives_every_trainable_parameter_a_gradient(model_type: str, tmp_path: Path) -> None:
    model = make_model(tmp_path, model_type)
    loss = train(model, make_batch(TINY[model_type].size), 1)
    assert loss.isfinite()
    assert not [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert backbone_of(model).network.config.id2label == {0: "a", 1: "b", 2: "c"}


@every_architecture
def test_record_rebuilds_the_model(model_type: str, tmp_path: Path) -> None:
    model = make_model(tmp_path, model_type)
    file = io.BytesIO()
    torch.save({"record": json.loads(json.dumps(model.record())), "state_dict": model.state_dict()}, file)
    file.seek(0)
    checkpoint = torch.load(file, weights_only=True)
    (tmp_path / "config.json").unlink()
    other = ImageClassifier(str(tmp_path))
    other.build(CLASS_NAMES, checkpoint["record"], weights=checkpoint["state_dict"])
    other.load_state_dict(checkpoint["state_dict"])
    images = make_batch(TINY[model_type].size)["image"]
    with torch.no_grad():
        assert torch.equal(other.eval()(images), model.eval()(images))
    assert backbone_of(other).network.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert type(backbone_of(other).network) is type(backbone_of(model).network)


@every_architecture
def test_half_frozen_encoder_stays_and_the_rest_learns(model_type: str, tmp_path: Path) -> None:
    model = make_model(tmp_path, model_type)
    backbone = backbone_of(model)
    backbone.freeze(0.5)
    frozen = {name: value.clone() for name, value in still(backbone)}
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    train(model, make_batch(TINY[model_type].size), 3)
    assert len(backbone.architecture.layers) > 3
    assert frozen
    assert all(torch.equal(value, frozen[name]) for name, value in still(backbone))
    same = {name for name, value in backbone.state_dict().items() if torch.equal(value, before[name])}
    kept = {f"network.{name}" for name in frozen}
    gradients = {name: value.grad for name, value in backbone.named_parameters() if value.requires_grad}
    assert None not in gradients.values()
    # of so small a network some are 0 in float32, behind a ReLU that nothing passes
    learning = {name for name, gradient in gradients.items() if gradient is not None and gradient.any()}
    assert len(learning) > len(gradients) / 2
    statistics = {name for name in before if name.endswith(("running_mean", "num_batches_tracked"))}
    assert not (learning | statistics) & same - kept


@pytest.mark.parametrize("model_type", ["vit", "clip", "hiera", "perceiver", "swin", "resnet"])
def test_images_of_another_size_are_taken(model_type: str) -> None:
    assert_cut_leaves_logits(model_type, 2 * TINY[model_type].size)


@pytest.mark.parametrize("model_type", ["levit", "pvt"])
def test_images_of_another_size_are_refused(model_type: str) -> None:
    with pytest.raises(ConfigError, match="does not accept images of 128 x 128 pixels"):
        Backbone(make_network(model_type), (128, 128))


def test_labels_of_timm_are_written_out_anew(tmp_path: Path) -> None:
    config = tiny_config("timm_wrapper")
    set_classes(config, ["old", "older"])
    config.save_pretrained(tmp_path)
    network, _ = load_network(str(tmp_path), False, CLASS_NAMES)
    network.config.save_pretrained(tmp_path)
    assert load_config(str(tmp_path)).id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("dinat", "natten"),
        ("imagegpt", "colour clusters"),
        ("siglip2", "patches"),
        ("shieldgemma2", "text"),
        ("bert", "no image classifier"),
    ],
)
def test_architectures_that_cannot_be_used_are_named(model_type: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=f"^[^\n]*cannot be used: its architecture {model_type} [^\n]*{reason}[^\n]*$"
    ):
        ImageClassifier(str(tmp_path), pretrained=False).build(CLASS_NAMES)


@pytest.mark.parametrize(
    "arguments",
    [{"channels": [8, 8, 8, 16], "drop_path_rate": 0.1}, {"block_args": {"attn_layer": "se"}}, {"stem_width": 4}],
)
def test_record_keeps_the_arguments_of_timm(arguments: dict[str, object], tmp_path: Path) -> None:
    config = tiny_config("timm_wrapper")
    usual = ImageClassifier(str(tmp_path / "usual"), pretrained=False)
    config.save_pretrained(tmp_path / "usual")
    config.model_args = arguments
    config.save_pretrained(tmp_path)
    model = ImageClassifier(str(tmp_path), pretrained=False)
    for classifier in (model, usual):
        classifier.build(CLASS_NAMES)
    other = ImageClassifier("unused")
    other.build(CLASS_NAMES, json.loads(json.dumps(model.record())), weights=model.state_dict())
    other.load_state_dict(model.state_dict())
    with pytest.raises(ConfigError, match="weights do not match its network"):
        check_weights(usual.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    "arguments",
    [
        {"checkpoint_path": "weights.pth"},
        {"pretrained": True},
        {"pretrained_cfg": {"hf_hub_id": "own"}},
        {"cache_dir": "cache"},
        {"block_args": {"weights_url": "own"}},
        {"stem_type": "../deep"},
        {"stem_type": ["hf-hub:own"]},
    ],
)
def test_arguments_of_timm_that_lead_to_files_are_refused(arguments: dict[str, object], tmp_path: Path) -> None:
    config = tiny_config("timm_wrapper")
    record = record_of(make_network("timm_wrapper"))
    with pytest.raises(ConfigError, match=r"^the checkpoint has model_args \{.*; only plain values"):
        build_recorded(record | {"model_args": arguments}, CLASS_NAMES)
    config.model_args = arguments
    config.save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError, match=r"^model\.init_args\.model_name: '.*' has model_args \{.*; only plain values"
    ):
        load_network(str(tmp_path), False, CLASS_NAMES)


@pytest.mark.parametrize("architecture", ["no_such_network", "hf-hub:own/network", "test_resnet.hf-hub:own/network"])
def test_only_architectures_of_timm_are_built(architecture: str, tmp_path: Path) -> None:
    config = tiny_config("timm_wrapper")
    config.architecture = architecture
    config.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="which is not an architecture of timm"):
        load_network(str(tmp_path), False, CLASS_NAMES)
    with pytest.raises(ConfigError, match="which is not an architecture of timm"):
        build_recorded(record_of(make_network("timm_wrapper")) | {"architecture": architecture}, CLASS_NAMES)


def test_timm_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny_config("timm_wrapper").save_pretrained(tmp_path)
    record = record_of(make_network("timm_wrapper"))
    monkeypatch.setattr("imgcls.models.huggingface.hub.is_timm_available", lambda: False)
    missing = "is a timm model; install it with: pip install timm"
    with pytest.raises(ConfigError, match=rf"model_name: '{tmp_path}' {missing}"):
        load_config(str(tmp_path))
    with pytest.raises(ConfigError, match=f"the checkpoint {missing}"):
        build_recorded(record, CLASS_NAMES)


def test_timm_that_transformers_misses_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder as timm saves it, without label names: transformers itself stops at the config."""
    tiny_config("timm_wrapper").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved = {key: value for key, value in saved.items() if key not in {"id2label", "label2id", "label_names"}}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    monkeypatch.setitem(BACKENDS_MAPPING, "timm", (lambda: False, BACKENDS_MAPPING["timm"][1]))
    monkeypatch.setattr("imgcls.models.huggingface.hub.is_timm_available", lambda: False)
    with pytest.raises(ConfigError, match=r"is a timm model; install it with: pip install timm$"):
        load_config(str(tmp_path))


def test_unknown_argument_of_timm_is_named(tmp_path: Path) -> None:
    network = make_network("timm_wrapper")
    network.config.model_args = {"chanels": [8, 8, 8, 16]}
    network.save_pretrained(tmp_path)
    for pretrained in (False, True):
        with pytest.raises(ConfigError, match="chanels"):
            load_network(str(tmp_path), pretrained, CLASS_NAMES)


def test_other_weights_are_counted() -> None:
    own = {"a": torch.zeros(1), "b": torch.zeros(2), "c": torch.zeros(3)}
    check_weights(own, {key: value + 1 for key, value in own.items()})
    message = r"of 3 tensors, 2 missing \(a\), 1 unknown \(d\), 1 of another shape \(c\); use another checkpoint"
    with pytest.raises(ConfigError, match=message):
        check_weights(own, {"c": torch.zeros(4), "d": torch.zeros(1)})


def _answered(status: int) -> Exception:
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return HfHubHTTPError("no success", response=response)


def _of_transport(name: str) -> Exception:
    """An error of httpx, or of httpx2, as huggingface_hub has it."""
    package = import_module(HfHubHTTPError.__mro__[1].__module__.partition(".")[0])
    error: Exception = getattr(package, name)("no success")
    return error


@pytest.mark.parametrize(
    ("cause", "is_unreachable"),
    [
        (OfflineModeIsEnabled("off"), True),
        (LocalEntryNotFoundError("not here"), True),
        (ConnectionResetError("reset"), True),
        (TimeoutError("late"), True),
        (_of_transport("ProxyError"), True),
        (_of_transport("ReadTimeout"), True),
        (_answered(503), True),
        (_answered(404), False),
        (KeyError("no connection between layers"), False),
        (None, False),
    ],
)
def test_unreachable_hub_is_known_by_what_was_raised(cause: Exception | None, is_unreachable: bool) -> None:
    error = OSError("the offline connection of internet couldn't connect")
    error.__cause__ = cause
    assert isinstance(load_error("own/network", error), RunError if is_unreachable else ConfigError)


def test_folder_with_a_similar_name_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "efficientnet_lite0").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'efficientnet_lite0'?" in str(load_error("efficientnet_lite", OSError("no such model")))


def test_proxy_that_refuses_is_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise _of_transport("ProxyError")

    monkeypatch.setattr("imgcls.models.huggingface.hub.get_hf_file_metadata", refuse)
    with pytest.raises(RunError, match="the Hub cannot be reached"):
        check_reachable("own/network", "preprocessor_config.json")


def test_unreachable_hub_ends_a_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise _of_transport("ConnectError")

    monkeypatch.setattr("imgcls.models.huggingface.hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("imgcls.models.huggingface.hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("imgcls.models.huggingface.hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(RunError, match=r"'microsoft/resnet-18' \(the default model\) .* the Hub cannot be reached"):
        load_config("microsoft/resnet-18")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 44000000\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", POINTER),
        ("model.safetensors", None),  # cut off
        ("pytorch_model.bin", POINTER),
        ("pytorch_model.bin", b""),
    ],
)
def test_damaged_weights_are_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    network = build(tiny_config("resnet"))
    network.save_pretrained(tmp_path)
    file = tmp_path / name
    if name == "pytorch_model.bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(network.state_dict(), file)
    file.write_bytes(file.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(
        ConfigError,
        match=rf"the weights in the folder '{tmp_path}' are damaged or a Git LFS pointer; download them again",
    ):
        load_network(str(tmp_path), True, CLASS_NAMES)


def test_weights_that_hold_more_than_tensors_are_refused(tmp_path: Path) -> None:
    network = build(tiny_config("resnet"))
    network.config.save_pretrained(tmp_path)
    torch.save(network.state_dict() | {"arguments": argparse.Namespace(lr=1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="hold Python objects beside the tensors, which could run code"):
        load_network(str(tmp_path), True, CLASS_NAMES)


@pytest.mark.parametrize("name", ["network", "models/network"])
def test_unreachable_hub_says_where_a_folder_was_looked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=f"'{name}' cannot be loaded: there is no folder of this name in {tmp_path}, "):
        load_config(name)
    tiny_config("resnet").save_pretrained(tmp_path / name)
    assert load_config(name).model_type == "resnet"


@pytest.mark.parametrize("cached", ["config", "processor"])
def test_unreachable_hub_is_named_where_the_cache_holds_a_part(
    cached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--own--network"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    tiny_config("resnet").save_pretrained(repository / "snapshots" / ("0" * 40))
    if cached == "processor":
        ConvNextImageProcessor().save_pretrained(repository / "snapshots" / ("0" * 40))
    with pytest.raises(RunError, match="the local cache does not have all of its files; HF_HUB_OFFLINE forbids"):
        ImageClassifier("own/network").build(CLASS_NAMES)
