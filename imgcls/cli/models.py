"""The command ``models``: good starting points among the pretrained models of the Hugging Face Hub."""

import json
from functools import cache
from pathlib import Path
from typing import Any

_MARKS = {"authors": "a", "card": "c", "linear": "l"}  # source of a figure that is not of timm's table -> its mark
_FOOTER = """
Parameters in millions, with the head of ImageNet-1k. Size: of the images, in pixels; --data.image_size sets another.
top-1: accuracy on ImageNet-1k in %, and after @ the size of its images. Measured by timm (results/results-imagenet.csv
in github.com/huggingface/pytorch-image-models, commit 0173a139); a: given by the authors (README of the model's
repository on GitHub); c: of the model card; l: of a linear classifier on frozen features, by the authors.

timm/...: needs timm (pip install timm). CC BY-NC: not for commercial use; for other licences see the model card,
https://huggingface.co/NAME. Any other image classifier of transformers or timm works as well.

To train one: imgcls fit PHOTOS --model.model_name NAME"""


@cache
def _groups() -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = json.loads(Path(__file__).with_name("models.json").read_text(encoding="utf-8"))
    return groups


def models() -> list[dict[str, Any]]:
    """Return name, parameters in millions, image size, ImageNet figure and its source of each model."""
    return [model for group in _groups() for model in group["models"]]


def names() -> list[str]:
    """Return the names of the models, for completion and the schema."""
    return [model["name"] for model in models()]


def table() -> str:
    """Return the table of models, grouped by what they are good for."""
    width = max(map(len, names())) + 2
    lines = [f"{'model_name':{width}s}  params  size  top-1"]
    for group in _groups():
        lines += ["", group["use"]]
        lines += [_row(model, width) for model in group["models"]]
    return "\n".join([*lines, _FOOTER])


def _row(model: dict[str, Any], width: int) -> str:
    name = f"  {model['name']}"
    figure = f"{model['top1']:.1f}" if "top1" in model else ""
    figure += f"@{model['at']}" if "at" in model else ""
    mark = _MARKS.get(model.get("source", ""), "")
    end = "  ".join(filter(None, [f"{figure} {mark}".strip(), model.get("note", "")]))
    return f"{name:{width}s}  {model['parameters']:6.1f}  {model['size']:4d}  {end}".rstrip()
