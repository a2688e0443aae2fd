"""Results of a search: the table of trials, the best configuration and checkpoint, and plots."""

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import optuna
import pandas as pd
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from imgcls.checkpoints.run_folder import BEST, CHECKPOINTS, folder_name
from imgcls.runtime.atomic_files import link, replacing
from imgcls.runtime.tables import write_table
from imgcls.tune.near_best import NearBest, near_best
from imgcls.tune.search_space import short_names, shown
from imgcls.tune.study import SharedStudy
from imgcls.tune.trial_states import BEST_EPOCH, FOLDER, REASON

log = logging.getLogger(__name__)

_BEST_ROWS = 5
_WIDE = 11.0  # inches


class Results:
    """Writes the results of a study, after each trial and at the end."""

    def __init__(self, study: SharedStudy) -> None:
        self.study = study
        self.folder = study.folder
        self.metrics = study.task.metrics
        self.near: NearBest | None = None
        """What distinguishes the trials from the best one; None before ``compare``, or if it is unknown."""

    def compare(self) -> NearBest | None:
        """Compare the complete trials with the best one on the validation images, and return what was found."""
        best = self.study.best
        if best is not None:
            folders = {trial.number: self.study.folder_of(trial) for trial in self.study.complete}
            known = {number: folder for number, folder in folders.items() if folder is not None}
            self.near = near_best(known, best.number, self.metrics[0], higher_is_better=self._higher_is_better(0))
        return self.near

    def write(self) -> bool:
        """Write trials.csv, best.yaml and best.ckpt; remove the checkpoints of the other trials.

        Returns:
            Whether the files of the best trial are on this machine.
        """
        with self.study.exclusive():
            write_table(self.folder / "trials.csv", self.table())
            best = self.study.best
            if best is None:
                return False
            folder = self.study.folder_of(best)
            if folder is None or not (folder / CHECKPOINTS / BEST).exists():
                log.warning("the files of trial %d, the best one, are missing: no best.yaml and best.ckpt", best.number)
                return False
            sources = {"best.yaml": folder / "config.yaml", "best.ckpt": folder / CHECKPOINTS / BEST}
            sources["schema.json"] = folder / "schema.json"  # that best.yaml names for editors
            for name, source in sources.items():
                if source.exists():  # a trial of an earlier version has no schema
                    link(source, self.folder / name)
            if not self.study.config.keep_checkpoints:
                self._remove_checkpoints(best)
            return True

    def table(self) -> pd.DataFrame:
        """Return one row per trial: number, state, values, epochs, seconds, parameters, reason and folder."""
        # dtype object, because Arrow strings cannot hold a folder name that is not UTF-8
        return pd.DataFrame([self._row(trial) for trial in self.study.trials], dtype=object)

    def best_rows(self) -> list[list[str]]:
        """Return the heading and the best five trials as strings."""
        space = self.study.space
        heading = ["trial", *self.metrics, *short_names([item.key for item in space.dimensions])]
        return [heading, *(self._cells(trial) for trial in self.study.ranked[:_BEST_ROWS])]

    def plot(self) -> list[Path]:
        """Plot history, importance, parallel coordinates and slices; return the files."""
        if len(self.study.complete) < 2:
            return []
        mpl.use("Agg")
        study = self._renamed()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            warnings.filterwarnings("ignore", "Attempting to set identical")  # of a key with a single value
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # an intended default
            return [path for index in range(len(self.metrics)) for path in self._plots_of(study, index)]

    def _plots_of(self, study: optuna.Study, index: int) -> list[Path]:
        metric, is_multi_objective = self.metrics[index], len(self.metrics) > 1
        suffix = f"-{folder_name(metric)}" if is_multi_objective else ""
        target: dict[str, Any] = {"target_name": metric}
        if is_multi_objective:
            target["target"] = lambda trial: trial.values[index]
        drawn = {
            "history": plots.plot_optimization_history(study, **target),
            "slice": plots.plot_slice(study, **target),
            "parallel": plots.plot_parallel_coordinate(study, **target),
        }
        varies = len({trial.values[index] for trial in self.study.complete}) > 1
        if varies and len(self.study.space.dimensions) > 1:
            if is_multi_objective:  # the importance evaluator minimises a custom target
                target["target"] = lambda trial: trial.values[index] * (-1 if self._higher_is_better(index) else 1)
            drawn["importance"] = plots.plot_param_importances(study, **target)
        return [self._save(axes, f"{name}{suffix}") for name, axes in drawn.items()]

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        seconds = trial.duration.total_seconds() if trial.duration else None
        values = trial.values or [None] * len(self.metrics)
        worse = None if self.near is None else self.near.worse.get(trial.number)
        return {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            **dict(zip(self.metrics, values, strict=True)),
            "epochs": len(trial.intermediate_values),
            "best_epoch": trial.user_attrs.get(BEST_EPOCH),
            "start": trial.datetime_start,
            "seconds": seconds,
            **self.study.space.values(trial.params),
            "reason": trial.user_attrs.get(REASON, "killed" if trial.state == TrialState.FAIL else ""),
            "worse_than_best": {True: "yes", False: "no", None: ""}[worse],
            "folder": trial.user_attrs.get(FOLDER, ""),
        }

    def _cells(self, trial: FrozenTrial) -> list[str]:
        values = self.study.space.values(trial.params).values()
        return [str(trial.number), *(f"{value:.4f}" for value in trial.values), *map(shown, values)]

    def _remove_checkpoints(self, best: FrozenTrial) -> None:
        keep = {self.study.folder_of(trial) for trial in [*self.study.study.best_trials, best]}
        for trial in self.study.done:
            folder = self.study.folder_of(trial)
            if folder is not None and folder not in keep:
                for checkpoints in folder.glob(f"**/{CHECKPOINTS}"):
                    shutil.rmtree(checkpoints)

    def _higher_is_better(self, index: int) -> bool:
        return self.study.task.directions[index] == "maximize"

    def _renamed(self) -> optuna.Study:
        """Return the study with short names of its keys, since dotted keys would cover the plots."""
        names = short_names([item.key for item in self.study.space.dimensions])
        full = dict(zip(self.study.space.distributions, names, strict=True))
        study = optuna.create_study(directions=self.study.study.directions)
        for trial in self.study.trials:  # all of them, to keep their numbers
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
        if name.startswith("parallel"):  # else the colour bar covers the labels of the last axis
            figure.set_figwidth(_WIDE)
        path = self.folder / f"{name}.png"
        with replacing(path) as file:
            figure.savefig(file, dpi=120, bbox_inches="tight", format="png")
        mpl.pyplot.close(figure)
        return path
