"""The place where a frozen fraction ends, and the network cut in two there."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from imgcls.models.backbone import Backbone
from tests.data.feature_cache.test_frozen_encoder import FIXED, assert_same_run, fit
from tests.helpers.architectures import TINY
from tests.models.huggingface.test_build import every_architecture, make_network

HALF = ("--model.freeze_encoder=0.5", "--trainer.precision=32", "--trainer.max_epochs=3")


def make_backbone(model_type: str, **values: object) -> Backbone:
    size = TINY[model_type].size
    return Backbone(make_network(model_type, **values), (size, size)).train()


def noise(size: int, images: int = 5) -> torch.Tensor:
    return torch.randn(images, 3, size, size, generator=torch.Generator().manual_seed(1))


@every_architecture
def test_two_parts_make_the_whole(model_type: str) -> None:
    backbone, size = make_backbone(model_type), TINY[model_type].size
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.2)  # layer scales that start at zero must count
    backbone.freeze(0.5)
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    until = backbone.frozen_until((size, size))
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())
    assert until is not None
    images = noise(size)
    features = backbone.encode_frozen_part(images)
    assert not features.requires_grad
    for mode in (True, False):
        backbone.train(mode)
        torch.manual_seed(2)
        expected = backbone.encode(images)
        torch.manual_seed(2)
        found = backbone.encode_rest(features.clone(), (size, size))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.detach().abs().max()))
    torch.autograd.backward(backbone.train().classify(backbone.encode_rest(features, (size, size))).sum())
    learning = {name: value for name, value in backbone.named_parameters() if value.requires_grad}
    assert [name for name, value in learning.items() if value.grad is None] == []


@pytest.mark.parametrize(
    ("model_type", "share", "place"),
    [
        ("resnet", 0.2, "resnet.embedder"),
        ("resnet", 0.8, "resnet.encoder.stages.0"),
        ("convnext", 0.4, "convnext.encoder.stages.0.layers.0"),
        ("convnext", 0.95, "convnext.encoder"),
        ("efficientnet", 0.5, "efficientnet.encoder.blocks.1.depthwise_conv"),
        ("vit", 0.4, "vit.embeddings"),
        ("vit", 0.8, "vit.layers.0"),
        ("swin", 0.5, "swin.encoder.layers.0.blocks.0"),
        ("swin", 0.8, "swin.encoder.layers.0.downsample"),
        ("timm_wrapper", 0.4, "timm_model.layer1"),
        ("timm_wrapper", 0.8, "timm_model.layer3"),
    ],
)
def test_place_is_the_last(model_type: str, share: float, place: str) -> None:
    backbone, size = make_backbone(model_type), TINY[model_type].size
    backbone.freeze(share)
    assert backbone.frozen_until((size, size)) == place


def test_other_sizes_are_cut_too() -> None:
    backbone = make_backbone("swin")
    backbone.freeze(0.5)
    until = backbone.frozen_until((32, 32))
    assert until is not None
    assert backbone.frozen_until((64, 64)) == until
    for size in (64, 32):
        expected = backbone.eval().encode(noise(size))
        found = backbone.encode_rest(backbone.encode_frozen_part(noise(size)), (size, size))
        torch.testing.assert_close(found, expected)


class Noisy(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + torch.rand_like(values)


def test_chance_before_the_place_is_seen() -> None:
    backbone = make_backbone("vit")
    backbone.freeze(0.5)
    assert backbone.frozen_until((32, 32)) == "vit.layers.0"
    backbone.network.vit.embeddings.dropout = Noisy()
    backbone.freeze(0.5)
    assert backbone.frozen_until((32, 32)) == "vit.embeddings.patch_embeddings"


def test_a_second_way_past_the_place_is_seen() -> None:
    backbone = make_backbone("resnet")
    backbone.freeze(0.5)
    assert backbone.frozen_until((32, 32)) == "resnet.encoder.stages.0.layers.0"
    kept: list[torch.Tensor] = []
    embedder, stages = backbone.network.resnet.embedder, backbone.network.resnet.encoder.stages
    embedder.register_forward_hook(lambda _, __, output: kept.append(output))
    stages[1].register_forward_hook(lambda _, __, output: output + kept[-1].mean())
    backbone.freeze(0.5)
    assert backbone.frozen_until((32, 32)) == "resnet.embedder"


def test_where_nothing_passes_a_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    backbone = make_backbone("vit")
    backbone.freeze(0.05)
    caplog.set_level("INFO", "imgcls")
    for _ in range(2):
        assert backbone.frozen_until((32, 32)) is None
    said = "feature cache off: no module before vit.embeddings.patch_embeddings"
    assert caplog.text.count(said) == 1


@pytest.mark.parametrize(
    "more",
    [
        ("--model.feature_views=1", f"--data.augmentations.train={FIXED}"),
        ("--model.feature_views=3", f"--data.augmentations.eval={FIXED.replace('32', '40')}"),
    ],
)
def test_fraction_gives_the_run_of_the_long_way(
    more: tuple[str, ...], photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = fit(photos, tiny_model, tmp_path / "short", *HALF, *more)
    said = capsys.readouterr().err
    assert "9 of 18 layers frozen, " in said
    assert "features of train from resnet.encoder.stages.0: " in said
    assert "features of validation from resnet.encoder.stages.0: " in said
    long = fit(photos, tiny_model, tmp_path / "long", *HALF, *more, "--model.feature_views=null")
    assert "features" not in capsys.readouterr().err
    assert_same_run(short, long)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_bytes_kept_for_backward_fall_with_the_fraction(kind: str) -> None:
    """ResNet-50 and ViT-B with random weights."""
    network = ResNetForImageClassification(ResNetConfig()) if kind == "resnet" else None
    network = network or ViTForImageClassification(ViTConfig())
    backbone = Backbone(network, (224, 224)).train()
    kept = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        backbone.freeze(share)
        kept.append(kept_bytes(backbone))
    print(kind, kept)
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == len(kept)


def kept_bytes(backbone: Backbone) -> int:
    """Bytes that autograd keeps of a step on two images."""
    kept = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = backbone(noise(224, 2)).sum()
    assert loss.requires_grad
    return kept
