"""Networks configured for images of another size."""

import re
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedConfig

from imgcls.errors import ConfigError
from imgcls.models.architecture import call, interpolation_origin
from imgcls.models.huggingface.build import build, load_network, set_classes
from imgcls.models.huggingface.input_size import config_for_size
from tests.helpers.architectures import TINY, tiny_config

FIXED = {"levit", "pvt"}  # the size is part of their weights


def timm_config(architecture: str) -> PreTrainedConfig:
    config = tiny_config("timm_wrapper")
    config.architecture = architecture
    set_classes(config, ["a", "b"])
    return config


@pytest.mark.parametrize("size", [(48, 48), (64, 96)])
@pytest.mark.parametrize("model_type", TINY)
def test_an_architecture_takes_the_size_or_names_sizes_that_it_takes(model_type: str, size: tuple[int, int]) -> None:
    config = tiny_config(model_type)
    set_classes(config, ["a", "b"])
    refused = re.escape(
        f"data.init_args.image_size: tiny ({model_type}) does not accept images of {size[0]} x {size[1]}"
    )
    if model_type in FIXED:
        with pytest.raises(ConfigError, match=refused) as error:
            config_for_size(config, size, "tiny")
        accepted = re.search(r"; sizes that it accepts: (\d+)", str(error.value))
        assert accepted is not None
        size = int(accepted[1]), int(accepted[1])
    network = build(config_for_size(config, size, "tiny")).eval()
    with torch.no_grad():
        assert call(network, torch.rand(2, 3, *size), interpolation_origin(network)).shape == (2, 2)


@pytest.mark.parametrize(
    "architecture", ["test_vit", "test_resnet", "swin_tiny_patch4_window7_224", "xcit_nano_12_p16_224"]
)
@pytest.mark.parametrize("side", [96, 320])
def test_networks_of_timm_take_other_sizes_with_all_their_weights(architecture: str, side: int) -> None:
    config = timm_config(architecture)
    other = config_for_size(config, (side, side), "timm")
    with torch.device("meta"):
        before, after = (
            {name: value.shape for name, value in build(each).state_dict().items()} for each in (config, other)
        )
    assert before == after
    with torch.no_grad():
        assert call(build(other).eval(), torch.rand(1, 3, side, side), None).shape == (1, 2)


@pytest.mark.parametrize("kind", ["vit", "swin", "beit", "test_vit"])
def test_pretrained_weights_are_all_loaded_at_another_size(kind: str, tmp_path: Path) -> None:
    config = timm_config(kind) if kind.startswith("test_") else tiny_config(kind)
    set_classes(config, ["a", "b"])
    network = build(config)
    network.save_pretrained(tmp_path)
    other, new = load_network(str(tmp_path), True, ["a", "b"], (48, 48))
    assert new == []
    state = other.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        assert call(other.eval(), torch.rand(1, 3, 48, 48), interpolation_origin(other)).isfinite().all()


def test_a_network_with_windows_of_fixed_size_names_the_sizes_that_it_takes() -> None:
    with pytest.raises(ConfigError, match=r"does not accept images of 320 x 320 pixels; sizes that it accepts: \d+"):
        config_for_size(timm_config("maxvit_pico_rw_256"), (320, 320), "timm")


def test_swin_takes_images_whose_feature_map_is_smaller_than_its_window() -> None:
    config = tiny_config("swin")
    set_classes(config, ["a", "b"])
    network = build(config).eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        first = call(network, images, interpolation_origin(network))
        call(network, torch.rand(2, 3, 32, 32), interpolation_origin(network))
        assert torch.equal(call(network, images, interpolation_origin(network)), first)
