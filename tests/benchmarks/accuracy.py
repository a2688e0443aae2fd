"""Test accuracy and macro F1 on ELPV from EfficientNet-Lite0: the defaults of imgcls beside Hugging Face's example.

``python -m tests.benchmarks.accuracy OUT --bench DIR [--seeds 42 43 44] [--recipes imgcls example tuned]``: DIR holds
hf_elpv.py. OUT/accuracy.csv gets a row after each run, and a run that has its row is not repeated, for on two cores
all of them take hours: interrupt and go on as you like. ``nox -s bench`` leaves it out.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from tests.helpers.real_data import write_efficientnet_lite0, write_elpv

EXAMPLE = {  # recipe -> arguments of hf_elpv.py; the first are the example's own defaults
    "example": [],
    "tuned": ["--epochs", "15", "--lr", "3e-4", "--batch", "32"],
}
COLUMNS = ["recipe", "seed", "accuracy", "macro_f1", "minutes"]

Score = tuple[float, float]  # accuracy and macro F1 on test, in %


def score(options: argparse.Namespace, data: Path, recipe: str, seed: int) -> Score:
    """Train by a recipe, and look at test once."""
    if recipe == "imgcls":
        return our_score(data, options.out / "runs", seed)
    return example_score(options.bench / "hf_elpv.py", data, recipe, seed, quick=options.quick)


def our_score(data: Path, out: Path, seed: int) -> Score:
    """Fit with only the paths given, and the seed."""
    line = [
        f"--data.dataset_classes.train={data / 'elpv/train'}",
        f"--data.dataset_classes.test={data / 'elpv/test'}",
        f"--model.model_name={data / 'efficientnet_lite0'}",
        f"--experiment.output_dir={out}",
        f"--experiment.custom_folder_name=seed{seed}",
        f"--seed_everything={seed}",
    ]
    folder = _run("-m", "imgcls", "fit", *line).splitlines()[-1]
    results = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))
    return 100 * results["test_accuracy"], 100 * results["test_f1_score"]


def example_score(script: Path, data: Path, recipe: str, seed: int, *, quick: bool) -> Score:
    """Run hf_elpv.py."""
    program = ["-m", "tests.benchmarks._quick"] if quick else []
    paths = [str(data / "elpv"), str(data / "efficientnet_lite0")]
    said = _run(*program, str(script), *paths, *EXAMPLE[recipe], "--seed", str(seed))
    match = re.search(r"accuracy ([\d.]+)  macro F1 ([\d.]+)", said)
    if match is None:
        raise ValueError(f"{script} printed no figures")
    return float(match[1]), float(match[2])


def measure(options: argparse.Namespace) -> pd.DataFrame:
    """Make the runs that have no row yet, one after the other; return the table."""
    table, data = options.out / "accuracy.csv", options.out / "data"
    if not data.is_dir():
        write_elpv(data / "elpv")
        write_efficientnet_lite0(data / "efficientnet_lite0")
    rows = pd.read_csv(table) if table.exists() else pd.DataFrame(columns=COLUMNS)
    for seed in options.seeds:
        for recipe in options.recipes:
            if ((rows["recipe"] == recipe) & (rows["seed"] == seed)).any():
                continue
            start = time.monotonic()
            accuracy, f1 = score(options, data, recipe, seed)
            rows.loc[len(rows)] = [recipe, seed, accuracy, f1, (time.monotonic() - start) / 60]
            print(f"{recipe}, seed {seed}: accuracy {accuracy:.2f}  macro F1 {f1:.2f}", flush=True)
            rows.to_csv(table, index=False)
    return rows


def main() -> None:
    """Measure, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder of the data, the runs and accuracy.csv")
    parser.add_argument("--bench", type=Path, help="folder of hf_elpv.py")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--recipes", nargs="+", choices=["imgcls", *EXAMPLE], default=["imgcls", *EXAMPLE])
    parser.add_argument("--quick", action="store_true", help="let the example compute in bfloat16 and channels-last")
    options = parser.parse_args()
    if options.bench is None and set(options.recipes) & set(EXAMPLE):
        parser.error("--bench: the folder of hf_elpv.py is needed; or --recipes imgcls")
    rows = measure(options)
    print(rows.groupby("recipe")[["accuracy", "macro_f1", "minutes"]].agg(["mean", "min", "max"]).round(2))


def _run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


if __name__ == "__main__":
    main()
