"""A tiny classifier with random weights whose answers differ from image to image, without a training run."""

from pathlib import Path
from typing import Any

import torch

from imgcls.commands.resume import Start
from imgcls.data.datamodule import ImageDataModule
from imgcls.export.images import write_sample_photos
from imgcls.inference.classifier import Classifier
from imgcls.models.classifier import ImageClassifier
from tests.helpers.architectures import tiny_config

CLASSES = ["blue", "green", "red"]


def tiny_classifier(
    model_type: str,
    folder: Path,
    *,
    multilabel: bool = False,
    temperature: float = 1.0,
    pretrained: bool = False,
    image_size: tuple[int, int] | None = None,
    **data: Any,
) -> Classifier:
    """Make a classifier of three classes.

    Args:
        model_type: Of transformers.
        folder: Where the config of the network, and sample photos, are written; a config that is there is kept.
        multilabel: Whether it is multi-label.
        temperature: By which the logits are divided.
        pretrained: Whether the folder has weights.
        image_size: Height and width in pixels.
        data: Arguments of the data.
    """
    torch.manual_seed(0)
    if not (folder / "config.json").exists():
        tiny_config(model_type).save_pretrained(folder)
    model = ImageClassifier(model_name=str(folder), pretrained=pretrained)
    model.build(CLASSES, multilabel=multilabel, image_size=image_size)
    start = Start(folder / "best.ckpt", {"imgcls": {}})
    classifier = Classifier(model, ImageDataModule(num_workers=0, **data), start, torch.device("cpu"), "32-true")
    photos = folder / "photos"
    photos.mkdir()
    features = torch.from_numpy(classifier.embed(write_sample_photos(photos)))
    with torch.no_grad():
        for head in model.built().heads:
            weight, bias = head.get_parameter("weight"), head.get_parameter("bias")
            weight.normal_(0, 1 / (features.std(0).mean().item() * features.shape[1] ** 0.5 + 1e-12))
            bias.copy_(-(features[..., -weight.shape[1] :].mean(0) @ weight.flatten(1).T))
        model.temperature.fill_(temperature)
    return classifier
