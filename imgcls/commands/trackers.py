"""Trackers: loggers of other programs (W&B, MLflow, Comet), which get the files of a run besides its curves."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CometLogger, CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from imgcls.checkpoints.run_folder import BEST, CHECKPOINTS, REPORT, RESULTS
from imgcls.runtime.optional_part import optional_part

log = logging.getLogger(__name__)

_FILES = ("config.yaml", RESULTS, REPORT, f"{CHECKPOINTS}/{BEST}")
_LOCAL = (CSVLogger, TensorBoardLogger)  # which write files of their own alone


def trackers(loggers: Sequence[Logger]) -> list[Logger]:
    """Return the loggers that hand values to another program."""
    return [logger for logger in loggers if not isinstance(logger, _LOCAL)]


class TrackerGuard(Callback):
    """Finalize the trackers at the end of training, before Lightning does, whose fit would fail with them."""

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Finalize the trackers, and take them from the Trainer; an evaluation after it is reported at the end."""
        found = trackers(trainer.loggers)
        for logger in found:
            with _guard(logger):
                logger.finalize("success")
        trainer.loggers = [logger for logger in trainer.loggers if logger not in found]


def complete(found: Sequence[Logger], folder: Path, values: Mapping[str, float], step: int) -> None:
    """Give trackers the values of the test, and the files of the run; an error is logged and not raised."""
    files = [folder / name for name in _FILES if (folder / name).is_file()]
    for logger in found:
        with _guard(logger):
            if values:
                logger.log_metrics(dict(values), step)
            if files:
                _log_files(logger, files)


def close(found: Sequence[Logger], failed: bool = False) -> None:
    """End the runs of the trackers, so that the next fit in this process begins new ones; an error is logged."""
    for logger in found:
        with _guard(logger):
            if isinstance(logger, WandbLogger):
                import wandb  # there, since the logger is

                if wandb.run is not None:
                    wandb.run.finish(exit_code=int(failed))
            elif isinstance(logger, CometLogger):
                logger.experiment.end()


def name_of_trial(config: dict[str, Any], name: str, group: str) -> dict[str, Any]:
    """Return the configuration of a trial whose trackers have its name and that of the search, unless they have one.

    W&B groups runs by the name of the search.
    """
    given = config["trainer"].get("logger")
    specs = given if isinstance(given, list) else [given]
    named = [_named(spec, name, group) if isinstance(spec, dict) else spec for spec in specs]
    return config | {"trainer": config["trainer"] | {"logger": named if isinstance(given, list) else named[0]}}


def _named(spec: dict[str, Any], name: str, group: str) -> dict[str, Any]:
    kind = str(spec.get("class_path")).rpartition(".")[2]
    given, more = spec.get("init_args") or {}, spec.get("dict_kwargs") or {}
    if kind == "WandbLogger":
        more = {"group": group} | more
        given = given | {"name": given.get("name") or name}
    elif kind == "MLFlowLogger":
        given = given | {"run_name": given.get("run_name") or name}
    elif kind == "CometLogger":
        more = {"name": name} | more
    return spec | {"init_args": given} | ({"dict_kwargs": more} if more else {})


def _log_files(logger: Logger, files: Sequence[Path]) -> None:
    if isinstance(logger, WandbLogger):
        _log_to_wandb(logger, files)
    elif isinstance(logger, MLFlowLogger):
        for file in files:
            logger.experiment.log_artifact(logger.run_id, str(file))
    elif isinstance(logger, CometLogger):
        for file in files:
            logger.experiment.log_asset(str(file), file_name=file.name)
    elif callable(log_file := getattr(logger, "log_file", None)):  # of a class of the user's own
        for file in files:
            log_file(file)
    else:
        log.info("%s cannot log files; the report and the checkpoint are in %s", type(logger).__name__, files[0].parent)


def _log_to_wandb(logger: WandbLogger, files: Sequence[Path]) -> None:
    """Log the files of the run as one artifact, and the checkpoint as another, of type ``model``."""
    import wandb

    run = logger.experiment
    for kind in ("run", "model"):
        artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
        for file in files:
            if (file.suffix == ".ckpt") == (kind == "model"):
                artifact.add_file(str(file))
        run.log_artifact(artifact)


def _guard(logger: Logger) -> AbstractContextManager[None]:
    return optional_part(type(logger).__name__, "the run is complete without it")
