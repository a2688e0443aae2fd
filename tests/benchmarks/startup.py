"""Start-up times of the answers that need no model, and of an error that only the real parser finds."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
CONFIGS = Path("configs").resolve()
QUICKSTART = str(CONFIGS / "quickstart.yaml")
MODEL = f"--model.model_name={CONFIGS / 'tiny-resnet'}"
HEADS = {
    "--help": [],
    "--version": [],
    "fit --help": [],
    "a missing config": ["fit", "--config", "none.yaml"],
    "broken YAML": ["fit", "--config", "broken.yaml"],
    "an unknown section": ["fit", "--config", "section.yaml"],
    "an unknown key of a class": ["fit", "--config", "key.yaml"],
    "an unknown option": ["fit", "--model.init_args.optimizer_config.lrr", "1"],
    "a wrong value (real parser)": ["fit", "--model.init_args.optimizer_config.lr", "abc"],
    "tune: a misspelt key": ["tune", "--config", QUICKSTART, "--config", "search.yaml", MODEL],
    "tune: a misspelt metric": ["tune", "--config", QUICKSTART, "--config", "metric.yaml", MODEL],
}
SPACE = "{distribution: uniform, low: 1e-5, high: 1e-3}"
FILES = {
    "search.yaml": f"optuna: {{search_spaces: {{model.init_args.optimizer_config.lrr: {SPACE}}}}}\n",
    "metric.yaml": f"optuna: {{metric: accuracy, search_spaces: {{model.init_args.optimizer_config.lr: {SPACE}}}}}\n",
    "broken.yaml": "a: [1\n",
    "section.yaml": "modle:\n  model_name: x\n",
    "key.yaml": "model:\n  init_args: {model_nam: x}\n",
}


def best_time(line: list[str], folder: str) -> tuple[float, bool]:
    """Shortest wall-clock time of several runs in seconds, and whether a traceback was printed."""
    times = []
    for _ in range(ROUNDS if "abc" not in line and line[:1] != ["tune"] else 2):
        start = time.perf_counter()
        result = subprocess.run([sys.executable, "-m", "imgcls", *line], cwd=folder, capture_output=True, text=True)
        times.append(time.perf_counter() - start)
    return min(times), "Traceback" in result.stderr


def main() -> None:
    """Print one line for each answer."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in FILES.items():
            Path(folder, name).write_text(text)
        for name, line in HEADS.items():
            seconds, traceback = best_time(line or name.split(), folder)
            print(f"{name:32s} {seconds:6.3f} s{'  TRACEBACK' if traceback else ''}", flush=True)


if __name__ == "__main__":
    main()
