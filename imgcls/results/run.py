"""Run: what a run folder has, read when it is asked for."""

import filecmp
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from imgcls.checkpoints.run_folder import (
    CHECKPOINTS,
    EVALUATED,
    EVALUATION,
    EVALUATIONS,
    PROPERTIES,
    RESULTS,
    SPLITS,
    predictions_file,
    results_file,
    run_folder_of,
    run_of_export,
)
from imgcls.errors import ConfigError, first_line
from imgcls.results.predictions import EvaluatedSplit, is_of_other_data, read_predictions, read_record

CONFIG, HISTORY, DATA = "config.yaml", "metrics.csv", "data.json"


@dataclass(frozen=True)
class Run:
    """A run folder, or one of its ``evaluations/N``; files are read when they are asked for, once.

    Args:
        folder: The folder with the table of predictions.
    """

    folder: Path

    @property
    def home(self) -> Path:
        """The run folder: that of the evaluation, where ``folder`` is ``evaluations/N``."""
        parent = self.folder.absolute().parent
        return parent.parent if parent.name == EVALUATIONS else self.folder

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration; empty if there is none."""
        path = self.home / CONFIG
        try:
            loaded = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader) if path.exists() else {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read ({first_line(error)})") from error
        return loaded if isinstance(loaded, dict) else {}

    @cached_property
    def history(self) -> pd.DataFrame | None:
        """The rows of ``metrics.csv``, one per epoch; None if there is none."""
        return read_table(self.home / HISTORY, ("epoch",))

    @cached_property
    def data(self) -> dict[str, Any]:
        """What ``data.json`` says of used and unused files; empty if there is none."""
        return read_record(self.home / DATA)

    @cached_property
    def of_fit(self) -> dict[str, Any]:
        """What ``results.json`` says of the fit; empty if there is none."""
        return read_record(self.home / RESULTS)

    @cached_property
    def results(self) -> dict[str, Any]:
        """The metrics of the evaluation: ``results.json`` of a fit, else those of the evaluated split."""
        return read_record(self.folder / RESULTS) or self.results_of(self.evaluated.split)

    def results_of(self, split: str) -> dict[str, Any]:
        """Return the results file of a split; empty if there is none."""
        return read_record(self.folder / results_file(split))

    @cached_property
    def evaluation_record(self) -> dict[str, Any]:
        """What ``evaluation.json`` says of an evaluation on other data, or with other settings; else empty."""
        return read_record(self.folder / EVALUATION)

    @property
    def is_of_other_data(self) -> bool:
        """Whether the evaluated images are not those of the fit."""
        return is_of_other_data(self.evaluation_record)

    @cached_property
    def splits(self) -> pd.DataFrame | None:
        """The rows of the fit's ``splits.csv``: path, label, split, content, all text; None if there is none."""
        return _splits(self.home)

    def labels(self, split: str) -> list[str]:
        """Return the labels of the images of a split of the fit, as far as they are known."""
        return [] if self.splits is None else self.splits["label"][self.splits["split"] == split].tolist()

    def contents(self, split: str) -> dict[str, str]:
        """Return path -> hash of the content of the evaluated images of a split, as far as they are known."""
        table = _splits(self.folder)
        table = self.splits if table is None and not self.is_of_other_data else table
        if table is None:
            return {}
        rows = table[(table["split"] == split) & (table["content"] != "")]
        return dict(zip(rows["path"], rows["content"], strict=True))

    def properties(self, split: str) -> pd.DataFrame | None:
        """Return the rows of ``image_properties.csv`` of a split, by path; None if there are none."""
        tables = (table[table["split"] == split] for table in self._properties)
        found = next((table for table in tables if len(table)), None)
        return None if found is None else found.drop_duplicates("path").set_index("path")

    @cached_property
    def _properties(self) -> list[pd.DataFrame]:
        """The tables of the folder, and of the run folder: an evaluation has the properties of its own images."""
        kinds = dict.fromkeys(("path", "split", "format"), object)
        folders = dict.fromkeys((self.folder, self.home))
        tables = (read_table(folder / PROPERTIES, ("path", "split"), dtype=kinds) for folder in folders)
        return [table for table in tables if table is not None]

    @cached_property
    def evaluated(self) -> EvaluatedSplit:
        """The images that the scores are of: those of test, or of validation where there is no test set.

        Raises:
            ConfigError: If the folder is not that of a run, or there is no table of predictions, or it cannot be read.
        """
        found = self.evaluation("test")
        found = self.evaluation("validation") if found is None else found
        if found is None:
            self._refuse_other_folder()
            raise ConfigError(
                f"{self.folder}: neither {predictions_file('test')} nor {predictions_file('validation')}; to write "
                f"one, type: imgcls validate {self.home}"
            )
        return found

    def evaluation(self, split: str) -> EvaluatedSplit | None:
        """Return the images of a split with their predictions; None if there is no table of it."""
        if split not in self._known:
            path = self.folder / predictions_file(split)
            self._known[split] = read_predictions(path) if path.exists() else None
        return self._known[split]

    def _refuse_other_folder(self) -> None:
        """Refuse a folder that no run has written; name the run folder that was probably meant."""
        if not is_run(self.home):
            meant = _best_trial(self.folder) or _newest(self.folder) or run_of_export(self.folder)
            hint = f"; did you mean {str(meant)!r}?" if meant else "; a run folder is, for example, runs/NAME/version_0"
            raise ConfigError(f"{self.folder} is not a run folder{hint}")

    @cached_property
    def _known(self) -> dict[str, EvaluatedSplit | None]:
        return {}


def read_run(path: Path) -> Run:
    """Return what a run folder has.

    Args:
        path: The folder, one of its ``evaluations/N``, or a checkpoint in it.

    Raises:
        ConfigError: If there is no such folder, or the file is in none.
    """
    folder = run_folder_of(path) if path.is_file() else path
    if folder is None:
        raise ConfigError(f"{path} is not in a run folder; give the folder of a run")
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    return Run(folder.absolute().parent if folder.name == CHECKPOINTS else folder)


def is_run(folder: Path) -> bool:
    """Whether a folder has a configuration, checkpoints or predictions."""
    names = (CONFIG, CHECKPOINTS, *map(predictions_file, EVALUATED))
    return any((folder / name).exists() for name in names)


def _best_trial(folder: Path) -> Path | None:
    """Return the run folder of the best trial of a search, whose configuration is ``best.yaml``."""
    best, trials = folder / "best.yaml", sorted(folder.glob("trial_*/config.yaml"))
    found = (config for config in trials if best.is_file() and filecmp.cmp(best, config, shallow=False))
    return next((config.parent for config in found), None)


def _newest(folder: Path) -> Path | None:
    """Return the newest run folder in a folder of runs, or of such folders."""
    configs = [each for level in ("", "*/") for each in folder.glob(f"{level}version_*/{CONFIG}")]
    newest = max(configs, key=lambda path: path.stat().st_mtime_ns, default=None)
    return newest.parent if newest else None


def read_table(path: Path, columns: Collection[str] = (), **options: Any) -> pd.DataFrame | None:
    """Return the rows of a CSV file; None if there is none.

    Args:
        path: The file.
        columns: Names of columns that it must have.
        **options: Of ``pandas.read_csv``.

    Raises:
        ConfigError: If it cannot be read, or lacks a column.
    """
    try:
        found: pd.DataFrame = pd.read_csv(path, encoding_errors="surrogateescape", **options)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({first_line(error)})") from error
    if missing := [name for name in columns if name not in found]:
        raise ConfigError(f"{path}: cannot be read (no column {missing[0]!r})")
    return found


def _splits(folder: Path) -> pd.DataFrame | None:
    columns = ("path", "label", "split", "content")
    return read_table(folder / SPLITS, columns, dtype=object, keep_default_na=False)
