"""Train from Python: the command ``imgcls fit`` in this process, with its result as an object."""

import html
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.callbacks import Callback

from imgcls.api.configuration import read_sections
from imgcls.checkpoints.run_folder import RESULTS
from imgcls.cli import precheck
from imgcls.cli.parser import ImgclsCLI
from imgcls.cli.run_command import logging_to_stderr, no_traceback_of_tensorboard
from imgcls.commands.fit import Fit
from imgcls.config.yaml_values import dump_yaml
from imgcls.errors import INTERRUPTED, ConfigError, ImageError, ImgclsError, RunError, listed
from imgcls.inference.classifier import Classifier
from imgcls.inference.load import load
from imgcls.runtime.error_messages import known
from imgcls.runtime.signals import Stopped, listening
from imgcls.runtime.warning_filters import quiet

_SPLITS = ("validation", "test")


@dataclass(frozen=True, repr=False)
class FitResult:
    """The result of ``imgcls.fit``; a notebook shows it as a table.

    Args:
        run_folder: The run folder; None under ``fast_dev_run``, which keeps nothing.
        class_names: The classes, in the order of the outputs.
    """

    run_folder: Path | None
    class_names: list[str] = field(default_factory=list)

    @cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json: the figures of the best epoch on validation, and on test if it is given."""
        if self.run_folder is None:
            return {}
        found: dict[str, Any] = json.loads((self.run_folder / RESULTS).read_text(encoding="utf-8"))
        return found

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The content of metrics.csv: one row per epoch."""
        return pd.read_csv(self._folder / "metrics.csv")

    @cached_property
    def classifier(self) -> Classifier:
        """The classifier of best.ckpt, loaded at first use; ``imgcls.load(run_folder)`` also chooses the device."""
        return load(self._folder)

    @property
    def _folder(self) -> Path:
        if self.run_folder is None:
            raise ConfigError("fast_dev_run keeps no files; fit without it")
        return self.run_folder

    def _figures(self) -> pd.DataFrame:
        """Return the figures, one row per metric and one column per split."""
        figures = {
            split: {
                name.removeprefix(f"{split}_"): value
                for name, value in self.results.items()
                if name.startswith(f"{split}_") and isinstance(value, (int, float))
            }
            for split in _SPLITS
        }
        return pd.DataFrame({split: values for split, values in figures.items() if values}, dtype=float)

    def __repr__(self) -> str:
        figures = self._figures().to_string(float_format="{:.4f}".format) if self.results else "no results"
        return f"FitResult({self.run_folder}, {len(self.class_names)} classes: {listed(self.class_names)})\n{figures}"

    def _repr_html_(self) -> str:
        classes = f"{len(self.class_names)} classes: {listed(self.class_names)}"
        lines = [f"<code>{html.escape(str(self.run_folder))}</code>", html.escape(classes)]
        figures = self._figures().to_html(float_format="{:.4f}".format) if self.results else ""
        return f"<p>{'<br>'.join(lines)}</p>{figures}"


def fit(config: Mapping[str, Any] | str | os.PathLike[str] | None = None, **sections: Any) -> FitResult:
    """Train a classifier, as the command ``imgcls fit`` does: same defaults, checks, log on stderr and run folder.

    Args:
        config: A configuration: a YAML file, or a dict of the same structure, whose keys may be dotted
            (``{"trainer.max_epochs": 3}``). A folder is the training data.
        sections: Sections of the configuration, which win over ``config``: ``data``, ``model``, ``trainer``,
            ``experiment``, ``seed_everything``, ``ckpt_path``. A path as ``data`` is the training folder, a text as
            ``model`` the name of the network. ``trainer.callbacks`` may hold callback objects, which the saved
            config.yaml does not have; all other objects are given by ``class_path`` and ``init_args``.

    Returns:
        Figures, run folder, and the classifier.

    Raises:
        ConfigError: If the configuration or the data are invalid.
        RunError: If the run started and failed.
        KeyboardInterrupt: At Ctrl-C, after last.ckpt is saved; ``ckpt_path="last"`` resumes the run.
    """
    if isinstance(config, (str, os.PathLike)) and os.path.isdir(config):
        config, sections = None, {"data": config} | sections
    file = [f"--config={os.fspath(config)}"] if isinstance(config, (str, os.PathLike)) else []
    given = {key: value for key, value in sections.items() if value is not None}
    values, callbacks = read_sections(config if isinstance(config, Mapping) else {}, given)
    with tempfile.TemporaryDirectory(prefix="imgcls-") as folder:
        values_file = Path(folder, "fit.yaml")
        values_file.write_text(dump_yaml(values), encoding="utf-8")
        file += [f"--config={values_file}"] if values else []
        with _errors_of(values_file), listening(ends_process=False):
            command = _run(["fit", *file], callbacks)
    run_folder: Path | None = command.trainer.strategy.broadcast(command.folder)  # which other processes do not know
    return FitResult(run_folder, list(command.data.class_names))


def _run(arguments: list[str], callbacks: list[Callback]) -> Fit:
    precheck.check(arguments)
    with quiet(), logging_to_stderr(), no_traceback_of_tensorboard():
        command = ImgclsCLI(arguments, callbacks).command
    assert isinstance(command, Fit)  # noqa: S101 - the command is fit
    return command


@contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    """Raise what a user of Python expects instead of exits, and name the call instead of its temporary file."""
    try:
        yield
    except SystemExit as stop:
        # Lightning 2.6 ends with 1 after a KeyboardInterrupt
        interrupted = isinstance(stop, Stopped) and stop.code == INTERRUPTED
        if interrupted or isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    except Exception as error:
        text, code = known(error)
        if not text:
            raise  # of the user's code, or a fault of imgcls
        kind = ConfigError if code == ConfigError.exit_code else RunError
        named = re.sub(rf"{re.escape(str(file))}(:\d+)?", "imgcls.fit", text).removeprefix("--config ")
        if named == str(error) and isinstance(error, (ImgclsError, ImageError)):
            raise
        raise kind(named) from (error if kind is RunError else None)  # a configuration error says it all
