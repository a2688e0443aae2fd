"""The name of a pretrained model: a folder, or an id of the Hub; torchvision and timm know some by a short name."""

import os
import re
import shlex

from imgcls.errors import ConfigError, similar_path

KEY = "model.init_args.model_name"

_HUB_IDS = (  # names of torchvision and timm -> models of the Hub
    (r"resnet-?(18|26|34|50|101|152)", r"microsoft/resnet-\1"),
    (r"efficientnet[-_]?(b[0-7])", r"google/efficientnet-\1"),
    (r"vit(_b_?16|_base.*)?", "google/vit-base-patch16-224"),
    (r"convnext(?:_(tiny|small|base|large))", r"facebook/convnext-\1-224"),
    (r"swin_?(?:t|tiny.*)", "microsoft/swin-tiny-patch4-window7-224"),
    (r"mobilenet_?v2.*", "google/mobilenet_v2_1.0_224"),
    (r"mobilenet_?v3.*", "timm/mobilenetv3_large_100.ra_in1k"),
    (r"deit.*", "facebook/deit-base-distilled-patch16-224"),
)


def hub_id(name: str) -> str:
    """Return the Hub id of a model that torchvision or timm calls ``name``; any other name as it is."""
    found = (re.fullmatch(pattern, name) for pattern, _ in _HUB_IDS)
    return next((match.expand(known) for match, (_, known) in zip(found, _HUB_IDS, strict=True) if match), name)


def local_or_hub(model_name: str) -> str:
    """Return the folder or the Hub id; refuse a path that does not exist.

    Raises:
        ConfigError: If the folder does not exist or has no ``config.json``.
    """
    path = os.path.expanduser(model_name)
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, "config.json")):
            _refuse_checkpoint(os.path.join(path, "checkpoints/best.ckpt"))
            raise ConfigError(f"{KEY}: the folder {model_name!r} has no config.json")
        return path
    _refuse_checkpoint(path)
    if model_name.startswith((".", "/", "~")) or model_name.count("/") > 1 or os.path.exists(path):
        example = "; give a folder with config.json, or a Hub id, for example microsoft/resnet-18"
        raise ConfigError(f"{KEY}: folder {model_name!r} does not exist{similar_path(model_name) or example}")
    if (meant := hub_id(model_name)) != model_name:
        raise ConfigError(f"{KEY}: {model_name!r} is not a folder and not a Hub id; did you mean {meant!r}?")
    return model_name


def _refuse_checkpoint(path: str) -> None:
    if path.endswith(".ckpt") and os.path.isfile(path):
        raise ConfigError(
            f"{KEY}: {path!r} is the checkpoint of a run, not a model; to start from its weights, type --ckpt_path "
            f"{shlex.quote(path)} --experiment.only_weights_load true in its place"
        )
