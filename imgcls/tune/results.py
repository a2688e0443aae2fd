"""What a search leaves in its folder: the table of trials, the best configuration and checkpoint, and plots."""

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
from imgcls.tune.search_space import short_names, shown
from imgcls.tune.study import BEST_EPOCH, REASON, SharedStudy, loss_of

log = logging.getLogger(__name__)

_BEST_ROWS = 5


_WIDE = 11.0  # inches


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

    def write(self) -> bool:
        """Write trials.csv, best.yaml and best.ckpt; remove the checkpoints of all others.

        Returns:
            Whether the files of the best trial are there.
        """
        with self.study.turn():
            write_table(self.folder / "trials.csv", self.table())
            best = self.study.best
            if best is None:
                return False
            folder = self.study.folder_of(best)
            if folder is None or not (folder / CHECKPOINTS / BEST).exists():
                log.warning("trial %d is the best, and its files are not here: best.yaml, best.ckpt", best.number)
                return False
            sources = {"best.yaml": folder / "config.yaml", "best.ckpt": folder / CHECKPOINTS / BEST}
            for name, source in sources.items():
                link(source, self.folder / name)
            if not self.study.config.keep_checkpoints:
                self._remove_checkpoints(best)
            return True

    def table(self) -> pd.DataFrame:
        """One row a trial: number, state, values, epochs, seconds, parameters, reason and folder."""
        # else Arrow holds the texts, which takes no name of a folder that is not UTF-8
        return pd.DataFrame([self._row(trial) for trial in self.study.trials], dtype=object)

    def best_rows(self) -> list[list[str]]:
        """The best five as texts, a heading in front."""
        space = self.study.space
        heading = ["trial", *self.metrics, *short_names([item.key for item in space.dimensions])]
        ranked = sorted(self.study.complete, key=loss_of)  # which decides among equal values
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
            warnings.filterwarnings("ignore", "Attempting to set identical")  # of a key with one value so far
            warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes")  # that we know
            return [path for place in range(len(self.metrics)) for path in self._plots_of(study, place)]

    def _plots_of(self, study: optuna.Study, place: int) -> list[Path]:
        metric = self.metrics[place]
        suffix = f"-{folder_name(metric)}" if len(self.metrics) > 1 else ""
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
        return [str(trial.number), *(f"{value:.4f}" for value in trial.values), *map(shown, values)]

    def _remove_checkpoints(self, best: FrozenTrial) -> None:
        keep = {self.study.folder_of(trial) for trial in [*self.study.study.best_trials, best]}
        for trial in self.study.done:
            folder = self.study.folder_of(trial)
            if folder is not None and folder not in keep:
                for checkpoints in folder.glob(f"**/{CHECKPOINTS}"):
                    shutil.rmtree(checkpoints)

    def _higher_is_better(self, place: int) -> bool:
        return bool(self.study.study.directions[place] == optuna.study.StudyDirection.MAXIMIZE)

    def _varies(self, place: int) -> bool:
        return len({trial.values[place] for trial in self.study.complete}) > 1

    def _renamed(self) -> optuna.Study:
        """The study with short names of its keys; the whole ones would cover the plots."""
        names = short_names([item.key for item in self.study.space.dimensions])
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
        if name.startswith("parallel"):  # else the bar of colours covers the numbers of the last axis
            figure.set_figwidth(_WIDE)
        path = self.folder / f"{name}.png"
        with replacing(path) as file:
            figure.savefig(file, dpi=120, bbox_inches="tight", format="png")
        mpl.pyplot.close(figure)
        return path
