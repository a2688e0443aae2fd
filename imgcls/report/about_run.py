"""What the report says of the run itself: class balance, files that were not used, settings, machine."""

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from imgcls.config.overrides import leaves, value_at
from imgcls.errors import join_keys
from imgcls.report.classes import counts_by_class, images_by_class
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run
from imgcls.runtime.progress import duration
from imgcls.runtime.tables import values_text

_SPLITS = ("train", "validation", "test")
_DEFAULT_CLASSES = ("imgcls.ImageClassifier", "imgcls.ImageDataModule")
_ROOTS = ("trainer", "model", "data", "experiment", "seed_everything")


@dataclass(frozen=True)
class Balance:
    """The images of each class in each split."""

    totals: dict[str, int]  # split -> number of images
    counts: dict[str, dict[str, int]]  # split -> class -> number of its images

    def largest(self, split: str) -> int:
        """Return the number of images of the largest class."""
        return max(self.counts[split].values(), default=0)


def balance_of(run: Run, found: EvaluatedSplit) -> Balance:
    """Return the class balance by ``splits.csv``; of an evaluation of other data, that of its images as well."""
    labels = {split: run.labels(split) for split in _SPLITS}
    counts = {split: images_by_class(each, found) for split, each in labels.items() if each}
    totals = {split: len(each) for split, each in labels.items() if each}
    if run.folder != run.home or found.split not in totals:
        name = found.split if found.split not in totals else f"this {found.split}"
        counts[name] = dict(zip(found.class_names, counts_by_class(found).images.tolist(), strict=True))
        totals[name] = len(found)
    return Balance(totals, counts)


def unused_files(run: Run) -> dict[str, Any]:
    """Return the files that were found and not used, and what was compared."""
    if run.is_of_other_data:
        return {"unused": [], "checked": _compared_with_training(run.evaluation_record.get("trained_on"))}
    refuses_leaks = value_at(run.config, "data.init_args.on_leak") in (None, "error")
    compared = {
        "full": "Images were compared by their content, so that none is in two splits."
        if refuses_leaks
        else "Images were compared by their content; the advice names any that are in two splits.",
        "sampled": "Images were compared by the size and both ends of their files.",
        "none": "Images were not compared by content (data.content_hash: none), so that one may be in two splits.",
    }
    return {"unused": run.data.get("unused", []), "checked": compared.get(str(run.data.get("content_hash")), "")}


def _compared_with_training(trained_on: list[str] | None) -> str:
    """Return what is known of the evaluated images that the checkpoint was trained on."""
    if trained_on is None:
        return "It is not known whether the model was trained on some of these images."
    return (
        "The content of these images was compared with that of the images the model was trained on: "
        f"{len(trained_on) or 'none'} equal."
    )


def facts(run: Run, found: EvaluatedSplit) -> list[tuple[str, str]]:
    """Return name and value of what is recorded of the run, its machine and its duration."""
    about = run.results_of(found.split)
    made = run.of_fit.get("run", {})
    rows = {
        "Folder": str(run.folder.absolute()),
        "Model": about.get("model_name"),
        "Checkpoint": about.get("checkpoint"),
        "Image size": " x ".join(map(str, about.get("image_size", []))),
        "Seed": run.config.get("seed_everything"),
        "Epochs": None if run.history is None else len(run.history),
        "Duration": _duration(made) if "seconds" in made else None,
        "Finished": made.get("finished"),
        "Device": made.get("device"),
        "Precision of the training": made.get("precision"),
        "Defaults": values_text(made.get("defaults", {})),
        "Versions": ", ".join(f"{name} {version}" for name, version in made.get("versions", {}).items()),
    }
    return [(name, str(value)) for name, value in rows.items() if value not in (None, "")]


def _duration(made: dict[str, Any]) -> str:
    since = " since it was resumed" if made.get("resumed") else ""
    return f"{duration(max(made['seconds'], 1))}{since}"


def settings(run: Run) -> list[tuple[str, str, str]]:
    """Return key, value and default of what differs from the defaults; keys of model and data without ``init_args``."""
    known = _defaults()
    given = leaves({key: run.config[key] for key in _ROOTS if key in run.config})
    found = {key.replace(".init_args.", ".", 1): value for key, value in given.items()}
    return [
        (key, _shown(value), _shown(known.get(key)))
        for key, value in found.items()
        if value != known.get(key) and value not in _DEFAULT_CLASSES
    ]


def _defaults() -> dict[str, Any]:
    """Return dotted key -> default, by the schema of the configuration."""
    whole = json.loads(files("imgcls").joinpath("cli", "schema.json").read_text(encoding="utf-8"))

    def walk(schema: dict[str, Any], key: str) -> dict[str, Any]:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        found = {key: schema["default"]} if "default" in schema else {}
        for inner in [*schema.get("anyOf", []), *filter(None, [schema.get("else")])]:
            found = walk(inner, key) | found
        for name, each in schema.get("properties", {}).items():
            found |= walk(each, join_keys(key, name))
        return found

    return walk({"properties": {key: whole["properties"][key] for key in _ROOTS if key in whole["properties"]}}, "")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
