"""The folder in which code blocks run: small photos, tables and models under the names that the text uses."""

import shutil
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageClassification

from imgcls.cli.main import main
from tests.helpers.markdown import ROOT

COLOURS = {"daisy": (230, 230, 210), "dandelion": (220, 190, 30), "tulip": (190, 30, 90)}
MODELS = ["microsoft/resnet-18", "google/vit-base-patch16-224-in21k", "facebook/convnext-tiny-224"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """To be copied; with a run ``flowers`` of two epochs on ``photos``."""
    folder = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(["photos", "more_photos", "validation_photos"]):
        _photos(folder / name, 12 if name == "photos" else 4, seed)
    _photos(folder / "flowers/train", 8, 3)
    _photos(folder / "flowers/val", 4, 4)
    (folder / "new_photos").mkdir()
    for number, path in enumerate(sorted(_photos(folder / "new", 1, 5))):
        path.rename(folder / f"new_photos/{number}.jpg")
    shutil.rmtree(folder / "new")
    for path in _photos(folder / "patients", 6, 6):
        path.rename(path.with_name(f"p{int(path.stem) // 2}_{path.name}"))
    _tables(folder)
    _shards(folder)
    _model(folder, tiny_model)
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    _run(folder)
    return folder


def _photos(root: Path, images: int, seed: int) -> list[Path]:
    generator = np.random.default_rng(seed)
    paths = []
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(images):
            pixels = generator.normal(colour, 40, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            paths.append(root / name / f"{number:03d}.jpg")
            Image.fromarray(pixels).save(paths[-1])
    return paths


def _tables(folder: Path) -> None:
    paths = sorted((folder / "photos").rglob("*.jpg"))
    table = pd.DataFrame({"path": [path.relative_to(folder) for path in paths]})
    table["kind"] = [path.parent.name for path in paths]
    table["split"] = ["test" if int(path.stem) > 5 else "train" for path in paths]
    table["patient"] = [f"p{path.stem}" for path in paths]
    table.to_csv(folder / "images.csv", index=False)
    kinds = ["cat;dog", "", "dog", "cat"]
    table.assign(kinds=[kinds[place % 4] for place in range(len(table))]).to_csv(folder / "kinds.csv", index=False)
    table.rename(columns={"kind": "label"}).to_csv(folder / "scans.csv", index=False)
    generator = np.random.default_rng(0)
    np.save(folder / "scans.npy", generator.integers(0, 256, (len(table), 32, 32), dtype=np.uint8))
    rows = {"image": [{"bytes": path.read_bytes(), "path": None} for path in paths], "label": list(table["kind"])}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(COLOURS))})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "flowers.parquet")


def _shards(folder: Path) -> None:
    for shard in range(2):
        with tarfile.open(folder / f"flowers-{shard:03d}.tar", "w") as tar:
            for path in sorted((folder / "photos").rglob("*.jpg"))[shard::2]:
                label = folder / "label"
                label.write_text(path.parent.name)
                tar.add(path, f"{path.parent.name}{path.stem}.jpg")
                tar.add(label, f"{path.parent.name}{path.stem}.cls")
    (folder / "label").unlink()


def _model(folder: Path, tiny_model: Path) -> None:
    """Folders with the names of models on the Hub, which the program opens before it asks the Hub."""
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(tiny_model))
    for name in MODELS:
        model.save_pretrained(folder / name)


def _run(folder: Path) -> None:
    options = {
        "data.dataset_classes.train": folder / "photos",
        "model.model_name": folder / MODELS[0],
        "data.num_workers": 0,
        "trainer.max_epochs": 2,
        "experiment.output_dir": folder / "runs",
        "experiment.custom_folder_name": "flowers",
    }
    main(["fit", *(f"--{key}={value}" for key, value in options.items())])
