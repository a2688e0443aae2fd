"""What a search leaves in its folder: the table of trials, the best configuration and checkpoint, and plots."""

import os
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import optuna
import pandas as pd
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from imgcls.run_folder import BEST, CHECKPOINTS
from imgcls.tune.study import BEST_EPOCH, REASON, SharedStudy

_BEST_ROWS = 5


class Results:
    """Writes the results of a study; as they stand after each trial, so that a search that is killed has them too.

    Args:
        study: The study.
        metrics: Names of its values.
    """

    def __init__(self, study: SharedStudy, metrics: list[str]) -> None:
        self.study = study
        self.folder = study.folder
        self.metrics = metrics

    def write(self) -> None:
        """Write trials.csv, best.yaml and best.ckpt; remove the checkpoints of all others."""
        with self.study.turn():
            _write_table(self.table(), self.folder / "trials.csv")
            best = self.study.best
            if best is None:
                return
            folder = Path(best.user_attrs["folder"])
            if not folder.is_dir():  # on another machine, whose worker writes it
                return
            _copy(folder / "config.yaml", self.folder / "best.yaml")
            _copy(folder / CHECKPOINTS / BEST, self.folder / "best.ckpt")
            if not self.study.config.keep_checkpoints:
                self._remove_checkpoints(best)

    def table(self) -> pd.DataFrame:
        """One row a trial: number, state, values, epochs, seconds, parameters, reason and folder."""
        return pd.DataFrame([self._row(trial) for trial in self.study.trials])

    def best_rows(self) -> list[list[str]]:
        """The best five as texts, a heading in front."""
        space = self.study.space
        heading = ["trial", *self.metrics, *_short_names([item.key for item in space.dimensions])]
        ranked = self.study.complete
        for place in reversed(range(len(self.metrics))):
            down = self._higher_is_better(place)
            ranked = sorted(ranked, key=lambda trial, place=place: trial.values[place], reverse=down)  # type: ignore[misc]
        if len(self.metrics) > 1:
            front = {trial.number for trial in self.study.study.best_trials}
            ranked = [trial for trial in ranked if trial.number in front]
        return [heading, *(self._cells(trial) for trial in ranked[:_BEST_ROWS])]

    def plot(self) -> list[Path]:
        """Draw history, importance, parallel coordinates and slices; return the files."""
        if len(self.study.complete) < 2:
            return []
        mpl.use("Agg")
        study = self._renamed()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # that we know
            return [path for place in range(len(self.metrics)) for path in self._plots_of(study, place)]

    def _plots_of(self, study: optuna.Study, place: int) -> list[Path]:
        metric = self.metrics[place]
        suffix = f"-{metric}" if len(self.metrics) > 1 else ""
        several = len(self.metrics) > 1
        target: dict[str, Any] = {"target_name": metric}
        if several:
            target["target"] = lambda trial: trial.values[place]
        drawn = {
            "history": plots.plot_optimization_history(study, **target),
            "slice": plots.plot_slice(study, **target),
            "parallel": plots.plot_parallel_coordinate(study, **target),
        }
        if self._varies(place) and len(self.study.space.dimensions) > 1:
            if several:  # Optuna takes a low value of a target for a good one
                target["target"] = lambda trial: trial.values[place] * (-1 if self._higher_is_better(place) else 1)
            drawn["importance"] = plots.plot_param_importances(study, **target)
        return [self._save(axes, f"{name}{suffix}") for name, axes in drawn.items()]

    # -- inside

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        seconds = trial.duration.total_seconds() if trial.duration else None
        values = trial.values or [None] * len(self.metrics)
        drawn = self.study.space.values(trial.params) if trial.params else {}
        return {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            **dict(zip(self.metrics, values, strict=True)),
            "epochs": len(trial.intermediate_values),
            "best_epoch": trial.user_attrs.get(BEST_EPOCH),
            "start": trial.datetime_start,
            "seconds": seconds,
            **drawn,
            "reason": trial.user_attrs.get(REASON, "killed" if trial.state == TrialState.FAIL else ""),
            "folder": trial.user_attrs.get("folder", ""),
        }

    def _cells(self, trial: FrozenTrial) -> list[str]:
        values = self.study.space.values(trial.params).values()
        shown = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
        return [str(trial.number), *(f"{value:.4f}" for value in trial.values), *shown]

    def _remove_checkpoints(self, best: FrozenTrial) -> None:
        keep = {trial.user_attrs["folder"] for trial in self.study.study.best_trials} | {best.user_attrs["folder"]}
        for trial in self.study.done:
            folder = trial.user_attrs.get("folder", "")
            if folder and folder not in keep and Path(folder).is_relative_to(self.folder):
                for checkpoints in Path(folder).glob(f"**/{CHECKPOINTS}"):
                    shutil.rmtree(checkpoints)

    def _higher_is_better(self, place: int) -> bool:
        return bool(self.study.study.directions[place] == optuna.study.StudyDirection.MAXIMIZE)

    def _varies(self, place: int) -> bool:
        return len({trial.values[place] for trial in self.study.complete}) > 1

    def _renamed(self) -> optuna.Study:
        """The study with short names of its keys; the whole ones would cover the plots."""
        names = _short_names([item.key for item in self.study.space.dimensions])
        full = dict(zip(self.study.space.distributions, names, strict=True))
        study = optuna.create_study(directions=self.study.study.directions)
        for trial in self.study.trials:  # all of them, so that the numbers are the same
            study.add_trial(
                optuna.create_trial(
                    state=trial.state if trial.state.is_finished() else TrialState.FAIL,
                    values=trial.values if trial.state == TrialState.COMPLETE else None,
                    params={full[key]: value for key, value in trial.params.items()},
                    distributions={full[key]: value for key, value in trial.distributions.items()},
                )
            )
        return study

    def _save(self, axes: Any, name: str) -> Path:
        axes = axes if hasattr(axes, "figure") else axes.flat[0]
        figure = axes.figure
        path = self.folder / f"{name}.png"
        figure.savefig(path, dpi=120, bbox_inches="tight")
        mpl.pyplot.close(figure)
        return path


def _short_names(keys: list[str]) -> list[str]:
    """The shortest ends of dotted keys that tell them apart."""
    parts = [key.split(".") for key in keys]
    names = []
    for own in parts:
        ends = (".".join(own[-count:]) for count in range(1, len(own) + 1))
        counted = {end: Counter(".".join(other[-len(end.split(".")) :]) for other in parts) for end in ends}
        names.append(next(end for end, count in counted.items() if count[end] == 1))
    return names


def _copy(source: Path, target: Path) -> None:
    """Give a file a second name; the old file of that name is replaced at once."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    shutil.copyfile(source, partial)
    partial.replace(target)


def _write_table(table: pd.DataFrame, target: Path) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    table.to_csv(partial, index=False)
    partial.replace(target)
