"""What a trial of `imgcls tune` costs beside the same fit by itself, and what 50 of them leave in memory.

python -m tests.benchmarks.search [TRIALS]
"""

import re
import sys
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from imgcls.cli.main import main

LR = "model.init_args.optimizer_config.lr"
SHORT = ["--config", "configs/quickstart.yaml", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
ALONE = ["--data.dataset_classes.test=null", "--experiment.calibrate=false", "--experiment.report=false"]


def resident() -> float:
    """Memory of this process in MB."""
    [size] = re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(size) / 1024


def fits(out: Path, count: int) -> list[float]:
    """Seconds of fits by themselves, without what a trial leaves out: temperature, report and test."""
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        with redirect_stdout(StringIO()):
            main(["fit", *SHORT, *ALONE, f"--experiment.output_dir={out}"])
        seconds.append(time.perf_counter() - start)
    return seconds


def trials(out: Path, count: int, config: Path) -> tuple[list[float], list[float]]:
    """Seconds from a trial's start to the next one's, and the memory after each ten."""
    memory = []
    for total in range(10, count + 1, 10):
        line = [*SHORT, f"--config={config}", f"--experiment.output_dir={out}", f"--optuna.n_trials={total}"]
        with redirect_stdout(StringIO()):
            main(["tune", *line, "--data.dataset_classes.test=null"])
        memory.append(resident())
    table = pd.read_csv(out / "digits/tune/trials.csv", parse_dates=["start"])
    between = table["start"].diff().dt.total_seconds()
    return between[table["trial"] % 10 != 0].tolist(), memory


def report(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        config = out / "tune.yaml"
        space = {LR: {"distribution": "uniform", "low": 1e-5, "high": 1e-3}}
        config.write_text(yaml.safe_dump({"optuna": {"tune": True, "pruner": "none", "search_spaces": space}}))
        alone = fits(out / "fits", 6)[1:]
        between, memory = trials(out / "search", count, config)
    print(f"a fit by itself       {np.median(alone):.2f} s (median of {len(alone)})")
    print(f"a trial, to the next  {np.median(between):.2f} s (median of {len(between)})")
    print(f"overhead of a trial   {np.median(between) - np.median(alone):+.2f} s")
    growth = (memory[-1] - memory[0]) / (count - 10)
    shown = ", ".join(f"{value:.0f}" for value in memory)
    print(f"memory after each ten {shown} MB; {growth:+.2f} MB a trial")


if __name__ == "__main__":
    report(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
