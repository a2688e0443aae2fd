"""The model card of an exported folder: README.md with the metadata of the Hugging Face Hub."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load, try_to_load_from_cache

from imgcls.checkpoints.content import data_state
from imgcls.checkpoints.io import checkpoint_id, read_checkpoint
from imgcls.checkpoints.run_folder import EVALUATED, results_file, run_folder_of
from imgcls.commands.trainer import evaluation_precision
from imgcls.export.formats import BATCHED, FORMATS, INT8, Written
from imgcls.inference.classifier import Classifier
from imgcls.models.inference import RECORD
from imgcls.statistics.intervals import Interval, wilson

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_README = "README.md"
_LIBRARIES = {"hf": "transformers", "onnx": "onnx", "torch": "pytorch"}
_SCALED = (
    "The figures below were measured with `data.decode: scaled`: large JPEGs were decoded at a smaller size. Here they "
    "are decoded whole, so that probabilities may differ a little."
)


@dataclass(frozen=True)
class Figure:
    """A figure of an evaluation, with its 95 % interval if it is a share of images."""

    name: str
    value: float
    interval: Interval | None = None
    images: int = 0


@dataclass(frozen=True)
class Results:
    """The figures of a split."""

    images: int
    metrics: list[Figure]
    classes: list[Figure]


def write_card(classifier: Classifier, folder: Path, about: dict[str, Any], written: Written) -> None:
    """Write README.md.

    Args:
        classifier: The classifier.
        folder: The exported folder.
        about: The content of export.json.
        written: The exported model.
    """
    base = classifier.model.model_name
    name = public_name(base)
    run, results = run_folder_of(classifier.path), _results(classifier)
    title = run.parent.name if run else classifier.path.stem
    content = read_checkpoint(classifier.path)
    split = data_state(content).get("split") or {}
    precision = evaluation_precision({"precision": None}, content[RECORD].get("precision"))
    hashes = sorted(each for part in split.values() for each in part)
    card = ModelCard.from_template(
        _metadata(about["format"], title, base if name == base else None, results),
        template_path=str(_TEMPLATE),
        title=_plain(title),
        class_names=[_plain(name) for name in classifier.class_names],
        multilabel=classifier.multilabel,
        model_name=_in_code(name),
        usage=written.usage,
        steps=[_step(step) for step in classifier.evaluation_steps],
        mean=", ".join(map(str, about["mean"])),
        std=", ".join(map(str, about["std"])),
        notes=[*written.notes, *([_SCALED] if about["decode"] == "scaled" else [])],
        files=_other_files(folder, about),
        results=results,
        precision=precision if precision != "32-true" else None,
        counts={name: len(part) for name, part in split.items()} if hashes else None,
        digest=hashlib.sha256("\n".join(hashes).encode(errors="surrogateescape")).hexdigest()[:16],
        parity=about["parity"],
        program=FORMATS[about["format"]].name,
        licence=_licence(base),
    )
    (folder / _README).write_text(f"{str(card).rstrip()}\n", encoding="utf-8", errors="backslashreplace")


def _other_files(folder: Path, about: dict[str, Any]) -> dict[str, str]:
    """Describe the models beside the one that is compared."""
    found = {}
    if (folder / BATCHED).is_file():
        height, width = about["image_size"]
        found[BATCHED] = f"takes a batch of images, uint8 `(N, 3, {height}, {width})`, that are resized and cropped"
    if quantized := about.get("quantization"):
        same = f"same prediction for {quantized['same_answer']} of {quantized['images']} {quantized['source']}"
        scores = [quantized.get(f"accuracy_{kind}") for kind in ("float32", "int8")]
        lost = "" if None in scores else "; accuracy {:.4f} in float32, {:.4f} in int8".format(*scores)
        found[INT8] = f"8-bit weights and activations: {same}{lost}. To use it: `classify.py --model {INT8}`"
    return found


def public_name(model_name: str) -> str:
    """Return the Hub id of a pretrained model; of a folder on this machine its last part."""
    is_local = os.path.isdir(os.path.expanduser(model_name)) or model_name.startswith((".", "/", "~"))
    return os.path.basename(os.path.normpath(model_name)) if is_local else model_name


def description(classifier: Classifier) -> dict[str, Any]:
    """Return what export.json and the metadata of a graph say of a classifier."""
    expected = classifier.model.preprocessing
    return {
        "model_name": public_name(classifier.model.model_name),
        "class_names": classifier.class_names,
        "multilabel": classifier.multilabel,
        "thresholds": classifier.model.thresholds,
        "temperature": classifier.model.temperature.tolist(),
        "image_size": list(classifier.image_size),
        "preprocessing": classifier.evaluation_steps,
        "mean": list(expected.mean),
        "std": list(expected.std),
    }


def _metadata(name: str, title: str, base: str | None, results: dict[str, Results]) -> ModelCardData:
    """Return the metadata; the licence is the user's to choose."""
    task = "image-classification"
    evaluations = [
        EvalResult(task, "imagefolder", title, figure.name, figure.value, dataset_split=split)
        for split, found in results.items()
        for figure in found.metrics
    ]
    return ModelCardData(
        base_model=base,
        library_name=_LIBRARIES[name],
        pipeline_tag=task,
        tags=["imgcls", task],
        model_name=title if evaluations else None,
        eval_results=evaluations or None,
    )


def _results(classifier: Classifier) -> dict[str, Results]:
    """Return the results of this checkpoint in its run folder, by split."""
    run, found = run_folder_of(classifier.path), {}
    for split in EVALUATED if run else ():
        file = Path(run or "", results_file(split))
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            if values.get("checkpoint_id") == checkpoint_id(classifier.path):
                found[split] = _read_results(values, split, classifier.multilabel)
        except (OSError, ValueError, AttributeError, KeyError, TypeError):  # there is none, or it was edited
            continue
    return found


def _read_results(values: dict[str, Any], split: str, multilabel: bool) -> Results:
    classes = [
        Figure(
            _plain(name),
            each["recall"],
            wilson(round(each["recall"] * each["support"]), each["support"]),
            each["support"],
        )
        for name, each in values["classes"][split].items()
        if each["recall"] is not None
    ]
    images = values["images"][split]
    correct = sum(round(each.value * each.images) for each in classes)
    metrics = []
    for key, value in values.items():
        name = key.removeprefix(f"{split}_")
        if name == key or name == "loss" or not isinstance(value, (int, float)):
            continue
        # only accuracy is a share of images, unless it is configured as the mean of the classes
        is_share = name == "accuracy" and not multilabel and abs(correct / images - value) < 1e-6
        metrics.append(Figure(name, value, wilson(correct, images) if is_share else None, images))
    return Results(images, metrics, classes)


def _licence(base: str) -> str | None:
    """Return the licence that the model card of the pretrained model states, in its folder or the cache of the Hub."""
    folder = os.path.expanduser(base)
    try:
        file = os.path.join(folder, _README) if os.path.isdir(folder) else try_to_load_from_cache(base, _README)
        stated = (metadata_load(file) or {}).get("license") if isinstance(file, str) and os.path.isfile(file) else None
    except (OSError, ValueError):  # no metadata, or no id of the Hub
        return None
    return _plain(str(stated)) if stated else None


def _step(step: dict[str, Any]) -> str:
    arguments = ", ".join(f"{key}={value!r}" for key, value in (step.get("init_args") or {}).items())
    return _in_code(f"{step['class_path'].rpartition('.')[2]}({arguments})")


def _in_code(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")


def _plain(text: str) -> str:
    """Return a text, which may come from a stranger, without what Markdown reads as markup."""
    return re.sub(r"([\\`|<>\[\]*_])", r"\\\1", " ".join(text.split()))
