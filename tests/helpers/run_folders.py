"""Run folders with made-up predictions, as a fit leaves them, without training."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image

from imgcls.datasets.labels import to_text

Array = NDArray[Any]


def write_run(
    folder: Path,
    class_names: Sequence[str],
    images: int,
    *,
    multilabel: bool = False,
    split: str = "test",
    seed: int = 0,
    skill: float = 3.0,
    thumbnails: int = 0,
    epochs: int = 12,
) -> Path:
    """A run folder with predictions for ``images`` images; the larger ``skill``, the more are right."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names, count = list(class_names), len(class_names)
    if multilabel:
        labels: Array = rng.random((images, count)) < rng.uniform(0.1, 0.4, count)
        logits = rng.normal(size=(images, count)) + skill * (labels - 0.5)
        probs: Array = (1 / (1 + np.exp(-logits))).astype(np.float32)
        decided: Array = probs > np.float32(0.5)
    else:
        frequencies = rng.dirichlet(np.full(count, 4.0))
        labels = rng.choice(count, images, p=frequencies)
        logits = rng.normal(size=(images, count))
        logits[np.arange(images), labels] += skill
        logits[np.arange(images), (labels // 3 * 3 + 1) % count] += skill / 3  # a class that others are taken for
        odds = np.exp(logits)
        probs = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        decided = probs.argmax(axis=1)
    paths = [f"photos/{split}/{number:06d}.jpg" for number in range(images)]
    truth, said = (_texts(each, names, multilabel) for each in (labels, decided))
    _write_predictions(folder / f"{split}_predictions.csv", paths, truth, said, decided, probs, names, multilabel)
    _write_records(folder, paths, truth, split, multilabel, count, epochs, rng)
    if thumbnails:
        _write_thumbnails(folder, [paths[index] for index in rng.permutation(images)[:thumbnails]], rng)
    return folder


def _texts(classes: Array, names: list[str], multilabel: bool) -> list[str]:
    if not multilabel:
        return [names[index] for index in classes]
    return [to_text(tuple(names[index] for index in np.flatnonzero(row))) for row in classes]


def _escaped(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _write_predictions(
    path: Path,
    paths: list[str],
    labels: list[str],
    predictions: list[str],
    predicted: Array,
    probs: Array,
    names: list[str],
    multilabel: bool,
) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "prediction", "probability", *(f"prob_{name}" for name in names), "error"])
        for index, row in enumerate(probs):
            given = row[predicted[index]] if multilabel else [row[predicted[index]]]
            certain = ";".join(map(str, given))
            texts = [_escaped(labels[index]), _escaped(predictions[index])]
            writer.writerow([paths[index], *texts, certain, *map(str, row), ""])


def _write_records(
    folder: Path,
    paths: list[str],
    labels: list[str],
    split: str,
    multilabel: bool,
    count: int,
    epochs: int,
    rng: np.random.Generator,
) -> None:
    train = [f"photos/train/{number:06d}.jpg" for number in range(3 * len(paths))]
    table = pd.DataFrame({"path": [*train, *paths], "label": labels * 4}, dtype=object)
    table["split"] = ["train"] * len(train) + [split] * len(paths)
    with (folder / "splits.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([["path", "label", "split", "content"], *([*row, ""] for row in table.to_numpy())])
    steps = np.arange(epochs)
    losses = {"train_loss": 2 * np.exp(-steps / 5) + 0.1, "validation_loss": 2 * np.exp(-steps / 4) + 0.3 + steps / 200}
    scores = {"train_accuracy": 1 - 0.6 * np.exp(-steps / 4), "validation_accuracy": 0.9 - 0.5 * np.exp(-steps / 4)}
    noise = {name: values + rng.normal(0, 0.01, epochs) for name, values in (losses | scores).items()}
    pd.DataFrame({"epoch": steps, "step": 20 * (steps + 1), **noise}).to_csv(folder / "metrics.csv", index=False)
    config = {"seed_everything": 42, "data": {"class_path": "imgcls.ImageDataModule", "init_args": {"batch_size": 64}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    data = {
        "used": 4 * len(paths),
        "content_hash": "full",
        "unused": [{"path": "photos/notes.jpg", "reason": "is empty"}],
    }
    (folder / "data.json").write_text(json.dumps(data))
    task = {"multilabel": multilabel, "thresholds": [0.5] * count if multilabel else None}
    record = {"model_name": "microsoft/resnet-18", "image_size": [224, 224], **task, "epoch": epochs - 3}
    (folder / f"{split}_results.json").write_text(json.dumps(record))
    (folder / "results.json").write_text(json.dumps({"epoch": epochs - 3}))


def _write_thumbnails(folder: Path, paths: list[str], rng: np.random.Generator) -> None:
    (folder / "thumbnails").mkdir(exist_ok=True)
    rows = []
    for number, path in enumerate(paths):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)).resize(
            (128, 128), Image.Resampling.BICUBIC
        )
        for name in (f"{number:03d}.webp", f"{number:03d}_heat.webp"):
            coarse.save(folder / "thumbnails" / name, quality=75)
        rows.append([path, f"thumbnails/{number:03d}.webp", f"thumbnails/{number:03d}_heat.webp" * (number % 2)])
    pd.DataFrame(rows, columns=["path", "file", "heat_map"]).to_csv(folder / "thumbnails.csv", index=False)
