"""Label smoothing and selective prediction of whole networks: EfficientNet-Lite0 fine-tuned on ELPV's training images.

``python -m tests.benchmarks.label_smoothing OUT [--seeds 0 1 2 3]``: of the training images, a fifth that each seed
draws is held out for the figures; test is not looked at. OUT/smoothing.csv gets a row after each run, and a run that
has its row is not repeated. ``nox -s bench`` leaves it out, for it takes half an hour on two cores.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from imgcls.results.predictions import read_predictions
from imgcls.statistics.scores import log_loss
from tests.benchmarks.selective import aurc
from tests.helpers.real_data import write_efficientnet_lite0, write_elpv

SMOOTHING = (0.0, 0.1)
RECIPE = ("--data.image_size=128", "--trainer.max_epochs=8", "--experiment.report=false", "--data.content_hash=none")
SCORES = ("accuracy", "aurc", "log_loss")


def split_off(train: Path, folder: Path, seed: int) -> tuple[Path, Path]:
    """Copy four fifths of each class into ``train/``, the rest into ``held_out/``; return both."""
    files = sorted(train.glob("*/*.png"))
    parts = train_test_split(files, test_size=0.2, stratify=[file.parent.name for file in files], random_state=seed)
    for name, part in zip(("train", "held_out"), parts, strict=True):
        for file in part:
            target = folder / name / file.parent.name
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return folder / "train", folder / "held_out"


def scores(out: Path, data: Path, seed: int, smoothing: float) -> list[float]:
    """Train, and return the scores on the held-out images, in percent; log loss in nats."""
    folder = out / f"seed{seed}"
    train, held_out = (folder / "train", folder / "held_out")
    if not folder.exists():
        split_off(data / "elpv" / "train", folder, seed)
    name = f"smoothing{smoothing}-seed{seed}"
    line = [
        f"--data.dataset_classes.train={train}",
        f"--data.dataset_classes.test={held_out}",
        f"--model.model_name={data / 'efficientnet_lite0'}",
        f"--model.loss_config.label_smoothing={smoothing}",
        f"--experiment.output_dir={out / 'runs'}",
        f"--experiment.custom_folder_name={name}",
        f"--seed_everything={seed}",
    ]
    subprocess.run([sys.executable, "-m", "imgcls", "fit", *line, *RECIPE], check=True, capture_output=True)
    found = read_predictions(out / "runs" / name / "version_0" / "test_predictions.csv")
    return [
        100 * found.correct.mean(),
        100 * aurc(found.confidence, found.correct),
        log_loss(found.labels, found.probs),
    ]


def main() -> None:
    """Make the runs that have no row yet; print means, and changes by smoothing with their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    options = parser.parse_args()
    data, table = options.out / "data", options.out / "smoothing.csv"
    if not data.is_dir():
        write_elpv(data / "elpv")
        write_efficientnet_lite0(data / "efficientnet_lite0")
    columns = ["seed", "smoothing", *SCORES]
    rows = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=columns)
    for seed in options.seeds:
        for smoothing in SMOOTHING:
            if not ((rows["seed"] == seed) & (rows["smoothing"] == smoothing)).any():
                rows.loc[len(rows)] = [seed, smoothing, *scores(options.out, data, seed, smoothing)]
                rows.to_csv(table, index=False)
                print(rows.tail(1).to_string(header=False), flush=True)
    for name in SCORES:
        values = rows.pivot(index="seed", columns="smoothing", values=name)
        change = values[SMOOTHING[1]] - values[SMOOTHING[0]]
        error = change.std(ddof=1) / np.sqrt(len(change))
        print(f"{name:9} {values[SMOOTHING[0]].mean():.3f}  {change.mean():+.3f} +- {error:.3f}")


if __name__ == "__main__":
    main()
