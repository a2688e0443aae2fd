"""Hub ids of models that torchvision and timm know by a short name."""

import re

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
