"""What pruning saves: the same search on handwritten digits with and without it.

python -m tests.benchmarks.pruning [TRIALS]
"""

import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pandas as pd
import yaml

from imgcls.cli.main import main

EPOCHS = 10
SPACES = {
    "model.init_args.optimizer_config.lr": {"distribution": "loguniform", "low": 1e-5, "high": 3e-2},
    "model.init_args.optimizer_config.weight_decay": {"distribution": "loguniform", "low": 1e-4, "high": 1.0},
}


def search(out: Path, pruner: str, trials: int) -> pd.DataFrame:
    """Search, and return the table of trials."""
    config = out / f"{pruner}.yaml"
    section = {"tune": True, "n_trials": trials, "pruner": pruner, "search_spaces": SPACES}
    config.write_text(yaml.safe_dump({"optuna": section}))
    line = ["tune", "--config=configs/quickstart.yaml", f"--config={config}", f"--trainer.max_epochs={EPOCHS}"]
    with redirect_stdout(StringIO()):
        main([*line, f"--experiment.output_dir={out / pruner}", "--data.dataset_classes.test=null"])
    return pd.read_csv(out / pruner / "digits/tune/trials.csv")


def report(trials: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = {pruner: search(Path(folder), pruner, trials) for pruner in ("none", "median", "hyperband")}
    whole = tables["none"]["epochs"].sum()
    for pruner, table in tables.items():
        states = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
        epochs, best = table["epochs"].sum(), table["validation_f1_score"].max()
        print(f"{pruner:10s} {epochs:4d} epochs ({epochs / whole:.2f})  best {best:.4f}  {states}")


if __name__ == "__main__":
    report(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
