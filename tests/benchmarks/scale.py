"""What happens before the first step, and in ``check``, with many files: seconds, CPU seconds and memory.

python -m tests.benchmarks.scale TREE [TREE ...] [--folder FOLDER] [--only NAME ...] [--times N]

A TREE is a checkout of this repository; with several, their runs take turns. Files are written once to FOLDER.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import yaml

FILES, CLASSES = 100_000, 100
CHECKED, CLUSTERS = 20_000, 400
SHORT = ("max_epochs=1", "limit_train_batches=1", "limit_val_batches=1", "num_sanity_val_steps=0", "logger=false")
LR = "model.init_args.optimizer_config.lr"
SPACE = {LR: {"distribution": "uniform", "low": 1e-5, "high": 1e-3}}
TWO = ("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp")


class Probe(pl.Callback):
    """Writes down what a process has used when its first step begins; ends it where IMGCLS_PROBE_ENDS is set."""

    def on_train_batch_start(self, *_: Any) -> None:
        ours, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        row = {
            "wall": time.time() - float(os.environ["IMGCLS_PROBE_START"]),
            "cpu": ours.ru_utime + ours.ru_stime + theirs.ru_utime + theirs.ru_stime,
            "peak": ours.ru_maxrss / 1024,
        }
        with open(os.environ["IMGCLS_PROBE"], "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if os.environ.get("IMGCLS_PROBE_ENDS"):
            os._exit(0)


def write_files(folder: Path) -> Path:
    """Distinct tiny PNGs of noise in class folders."""
    for number in range(CLASSES):
        target, generator = folder / f"c{number:03d}", np.random.default_rng(number)
        target.mkdir(parents=True)
        for name in range(FILES // CLASSES):
            side = int(generator.integers(8, 17))
            cv2.imwrite(str(target / f"{name:04d}.png"), generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
    return folder


def write_checked(folder: Path) -> Path:
    """Smooth pictures of 48 pixels in class folders; in each of some clusters two that are near duplicates."""
    generator = np.random.default_rng(0)
    for number in range(CHECKED):
        target = folder / f"c{number % 10}"
        target.mkdir(parents=True, exist_ok=True)
        if number % (CHECKED // CLUSTERS) != 1:
            coarse = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        pixels = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(target / f"{number:05d}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 80 + number % 15])
    return folder


def run(tree: Path, line: list[str], cache: Path, out: Path, ends: bool) -> list[dict[str, float]]:
    """Run the program of a tree; return what each process had used at its first step, or else at its end."""
    out.mkdir()
    shutil.copy(__file__, out / "scale_probe.py")
    told = out / "told"
    environment = os.environ | {
        "PYTHONPATH": f"{tree}:{out}",
        "IMGCLS_CACHE": str(cache),
        "IMGCLS_PROBE": str(told),
        "IMGCLS_PROBE_START": str(time.time()),
        "IMGCLS_PROBE_ENDS": "1" if ends else "",
        "HF_HUB_OFFLINE": "1",
    }
    start = time.time()
    with (out / "log").open("w") as log:
        program = subprocess.Popen(
            [sys.executable, "-m", "imgcls", *line], cwd=out, env=environment, stdout=log, stderr=log
        )
        _, status, used = os.wait4(program.pid, 0)
    if status and "check" not in line:  # which ends with 1 where it finds copies
        raise SystemExit((out / "log").read_text())
    while ends and told.read_text().count("\n") < 1 + ("--trainer.devices=2" in line):
        time.sleep(0.1)
    whole = {"wall": time.time() - start, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss / 1024}
    return list(map(json.loads, told.read_text().splitlines())) if ends else [whole]


def measure(tree: Path, name: str, folder: Path) -> Iterator[tuple[str, list[dict[str, float]]]]:
    """Measure one scenario, each with a first run, whose cache is empty, and a second one."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        out = Path(temporary)
        if name == "check":
            yield "check", run(tree, ["check", f"--images={folder}/checked"], out / "cache", out / "run", False)
            return
        model = out / "model"
        model.mkdir()
        shutil.copy(Path(__file__).parents[2] / "configs/tiny-resnet/config.json", model)
        line = [f"--data.dataset_classes.train={folder}/files", f"--model.model_name={model}"]
        line += ["--model.pretrained=false", "--data.num_workers=0", f"--experiment.output_dir={out}/runs"]
        line += [f"--trainer.{option}" for option in SHORT]
        if name == "tune":
            search = {"optuna": {"tune": True, "pruner": "none", "n_trials": 3, "search_spaces": SPACE}}
            (out / "tune.yaml").write_text(yaml.safe_dump(search))
            line = ["tune", f"--config={out}/tune.yaml", *line]
        else:
            line = ["fit", *line, "--trainer.callbacks+=scale_probe.Probe", *(TWO if name == "two" else ())]
        for number in ("first", "second"):
            yield f"{name}, {number} run", run(tree, line, out / "cache", out / number, name != "tune")
            shutil.rmtree(out / "runs", ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "imgcls-scale")
    parser.add_argument("--only", nargs="+", default=["fit", "two", "tune", "check"])
    parser.add_argument("--times", type=int, default=1)
    given = parser.parse_args()
    for name, write in (("files", write_files), ("checked", write_checked)):
        if not (given.folder / name).exists():
            write(given.folder / name)
    for _ in range(given.times):
        for name in given.only:
            for tree in given.trees:
                for what, rows in measure(tree.absolute(), name, given.folder.absolute()):
                    cpu, wall = sum(row["cpu"] for row in rows), max(row["wall"] for row in rows)
                    peaks = " + ".join(f"{row['peak']:.0f}" for row in rows)
                    print(f"{what:18} {tree.name:12} {wall:7.1f} s wall {cpu:7.1f} s CPU {peaks} MB", flush=True)


if __name__ == "__main__":
    main()
