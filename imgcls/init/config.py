"""A configuration for a folder of photos and a machine, as commented YAML."""

import json
import math
import re
import textwrap
from importlib.resources import files

import yaml

from imgcls.init.folder import PhotoFolder
from imgcls.init.machine import Machine

_SMALL, _MEDIUM = "microsoft/resnet-18", "facebook/convnext-tiny-224"
_MEMORY = 6  # GB of a GPU from which the medium model and batches of 64 fit
_IMBALANCED = 10  # largest class / smallest class, from which classes are weighted
_TINY = 96  # pixels; below, enlarging to 224 costs time and adds no detail
_DETAILED = 448  # pixels; above, details are lost at 224
_LONG = 1.8  # longer side / shorter side
_WIDTH = 118
_LISTED = 20  # classes


def config_text(root: str, folder: PhotoFolder, machine: Machine, model: str | None = None) -> str:
    """Return the configuration for a folder, as the user named it, and a machine; without a model, one is chosen."""
    parts = [
        f"# yaml-language-server: $schema={files('imgcls.cli').joinpath('schema.json')}",
        f"# Made by `imgcls init {_printable(root)}` for: {machine}. To train: imgcls fit --config THIS_FILE",
        *textwrap.wrap(_classes(folder), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_long_words=False),
        *_model(folder, machine, model),
        *_data(folder, machine, model),
        *_trainer(folder),
    ]
    return "\n".join(parts) + "\n"


def _classes(folder: PhotoFolder) -> str:
    shown = [f"{_printable(name)} {count}" for name, count in folder.classes.items()]
    more = [f"and {len(shown) - _LISTED} more"] if len(shown) > _LISTED else []
    total = sum(folder.classes.values())
    return f"{len(shown)} classes, {total} training images: {', '.join(shown[:_LISTED] + more)}."


def _model(folder: PhotoFolder, machine: Machine, model: str | None) -> list[str]:
    large = machine.gpu is not None and (machine.memory or _MEMORY) >= _MEMORY
    name = model or (_MEDIUM if large else _SMALL)
    reason = "as asked for"
    if model is None:
        size = "medium (29 M parameters)" if large else "small (12 M parameters)"
        reason = (
            f"{size}, pretrained on ImageNet, for a {'GPU' if large else 'CPU or small GPU'}; others: imgcls models"
        )
    lines = ["model:", "  init_args:", f"    model_name: {_quoted(name)} # {reason}"]
    if machine.gpu is None:
        lines.append("    # freeze_encoder: true # trains the head alone, in minutes; often less accurate")
    ratio = folder.imbalance
    sizes = f"the largest class has {ratio:.1f} times the images of the smallest"
    weights = f"# no class weights: {sizes if ratio >= 1.05 else 'the classes have about equal numbers of images'}"
    if ratio >= _IMBALANCED:
        weights = f"loss_config: {{class_weights: auto}} # {sizes}"
    return [*lines, f"    {weights}"]


def _data(folder: PhotoFolder, machine: Machine, model: str | None) -> list[str]:
    batch = _batch_size(folder, machine)
    steps = math.ceil(_trained(folder) / batch)
    lines = ["data:", "  init_args:", "    dataset_classes:"]
    lines += [
        f"      {split}: {_quoted(path)} # {folder.counts[split]} images" for split, path in folder.splits.items()
    ]
    if "test" not in folder.splits:
        lines.append("      # test: FOLDER # images that are never trained on, for the final figures")
    if "validation" not in folder.splits:
        lines.append("    validation_split: 0.2 # held out of train, with the same share of each class")
        smallest = min(folder.classes, key=lambda name: folder.classes[name])
        if (count := folder.classes[smallest]) < 10:
            lines.append(
                f"    # only {count} image{'s' * (count > 1)} of {_printable(smallest)}: its figures will vary"
            )
    lines += _image_size(folder, model)
    lines.append(f"    batch_size: {batch} # {steps} step{'s' * (steps > 1)} per epoch; smaller if memory runs out")
    lines.append(f"    num_workers: null # all cores but one load images: {max(machine.cores - 1, 0)} here")
    if folder.unreadable:
        share = folder.unreadable / (folder.unreadable + len(folder.sizes))
        lines += [
            "    on_bad_image: skip # some images cannot be read; imgcls check lists them",
            f"    max_bad_fraction: {min(max(math.ceil(200 * share) / 100, 0.02), 1):g} # more is an error",
        ]
    if found := folder.groups:
        one, other = map(_printable, found.examples)
        lines += [
            f"    # {one}, {other}: is {_printable(found.name)!r} one patient, object or video? If so, keep",
            f"    # the images of each of these {found.count} on one side, or the validation is too optimistic:",
            f"    # group_regex: '{found.regex}'",
        ]
    return lines


def _image_size(folder: PhotoFolder, model: str | None) -> list[str]:
    """Return the line of ``image_size``: a value for tiny images, else a suggestion."""
    width, height = folder.size
    shorter = min(width, height)
    typical = f"typically {width} x {height} pixels"
    if shorter <= _TINY and model is None:
        side = max(96, min(160, math.ceil(2 * shorter / 32) * 32))
        return [f"    image_size: {side} # images are {typical}; the model's 224 would take longer and show no more"]
    lines = [f"    image_size: null # the model's own, mostly 224; images are {typical}"]
    if max(width, height) >= _LONG * shorter:
        sides = [160, 320] if width > height else [320, 160]
        lines.append(
            f"    # image_size: {sides} # [height, width]: long images whole, where the model's own crops them"
        )
    elif shorter >= _DETAILED:
        lines.append("    # image_size: 320 # if small details matter: twice the time and memory")
    return lines


def _trainer(folder: PhotoFolder) -> list[str]:
    count = _trained(folder)
    epochs = 40 if count < 1000 else 20 if count < 50_000 else 10
    reason = f"{count} images are few, so that they are seen often" if epochs == 40 else f"for {count} images"
    return [
        "trainer:",
        f"  max_epochs: {epochs} # {reason}{'; ends after 10 epochs without improvement' * (epochs > 10)}",
        "  precision: null # bfloat16 or float16 where the processor gains by it, else float32",
    ]


def _trained(folder: PhotoFolder) -> int:
    return folder.counts["train"] if "validation" in folder.splits else round(0.8 * folder.counts["train"])


def _batch_size(folder: PhotoFolder, machine: Machine) -> int:
    """Return a power of two that leaves at least ten steps per epoch, if that is possible."""
    size = 64 if machine.gpu is not None and (machine.memory or 0) >= _MEMORY else 32
    while size > 8 and _trained(folder) < 10 * size:
        size //= 2
    return size


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _quoted(text: str) -> str:
    """Return a text as a YAML scalar."""
    plain = re.fullmatch(r"[\w./-]+", text, re.ASCII) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)
