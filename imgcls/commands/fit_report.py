"""The end of a fit: why it stopped, its result files, where everything is, and what to type next."""

import logging
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from imgcls.callbacks.checkpoint_saver import CheckpointSaver
from imgcls.checkpoints.run_folder import BEST, CHECKPOINTS, RESULTS, results_file
from imgcls.commands.evaluation_report import class_details
from imgcls.commands.trainer import device_name
from imgcls.metrics.class_counts import ClassCounts
from imgcls.runtime.progress import duration
from imgcls.runtime.serialize import versions
from imgcls.runtime.tables import short_path, write_results

log = logging.getLogger(__name__)

_SUFFIXES = {".csv", ".html", ".json", ".yaml"}
_NOT_SHOWN = {"schema.json", "hparams.yaml", "thumbnails.csv"}  # for editors, TensorBoard and the report
_COLUMNS = 80


def log_stop_reason(trainer: Trainer, options: dict[str, Any]) -> None:
    """Log each rule that stopped a fit early: early stopping, a time limit, ``max_epochs`` before ``max_steps``."""
    for item in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(item, EarlyStopping) and item.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
            log.info("Stopped early: %s did not improve for %d validations", item.monitor, item.wait_count)
        elif isinstance(item, EarlyStopping) and item.stopping_reason_message:
            log.info("Stopped early: %s", item.stopping_reason_message.replace(" Signaling Trainer to stop.", ""))
        remaining = item.time_remaining() if isinstance(item, Timer) else None
        if remaining is not None and remaining <= 0:
            key = "trainer.max_time" if options["max_time"] is not None else "the duration of Timer"
            log.info("Stopped: %s is over", key)
    epochs, steps = options["max_epochs"], options["max_steps"]
    if trainer.current_epoch == epochs and trainer.global_step < steps:
        log.info(
            "trainer.max_epochs: %d ended the run after %d of max_steps: %d; to reach them, set max_epochs: -1",
            epochs,
            trainer.global_step,
            steps,
        )


def write_fit_results(
    folder: Path,
    epoch: int | None,
    results: Mapping[str, Mapping[str, float]],
    about: Mapping[str, Any],
    counts: Mapping[str, ClassCounts | None],
    more: Mapping[str, Any],
) -> None:
    """Write the results of a fit, all together and of each split.

    Args:
        folder: The run folder.
        epoch: Zero-based epoch of the evaluated weights; None if there is no best epoch.
        results: Split -> logged name -> value.
        about: What is evaluated, for the file of each split.
        counts: Split -> counts of its classes.
        more: Further keys of the file of all splits.
    """
    write_results(folder / RESULTS, epoch, results, details={**more, **class_details(counts)})
    for split, values in results.items():
        details = class_details({split: counts.get(split)})
        write_results(folder / results_file(split), epoch, {split: values}, about, details)


def about_run(
    trainer: Trainer, precision: str, seconds: float, resumed: bool, chosen: Mapping[str, float]
) -> dict[str, Any]:
    """Return what ``results.json`` says of the machine, the duration and the versions of a fit.

    Args:
        trainer: The Trainer of the run.
        precision: The number format of the training; that of the evaluation may be another one.
        seconds: Duration of the run so far.
        resumed: Whether an earlier process has done a part of it.
        chosen: Dotted key of an argument of the model -> the default that was used in place of null.
    """
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    times = {"seconds": round(seconds, 1), "resumed": resumed, "finished": finished}
    defaults = {f"model.{key}": value for key, value in chosen.items()}
    machine = {"device": device_name(trainer), "precision": precision, "versions": versions()}
    return times | {"defaults": defaults} | machine


def log_end(folder: Path, saver: CheckpointSaver | None, has_test: bool, seconds: float) -> None:
    """Log the total time, the files, and the commands that use the best checkpoint, if one is kept."""
    log.info("Total time: %s", duration(max(seconds, 1)))
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES and path.name not in _NOT_SHOWN)
    if saver is not None and saver.best.exists():
        names.insert(0, f"{CHECKPOINTS}/{BEST}")
    log.info("%s", fill(f"Files in the run folder: {', '.join(names)}", _COLUMNS, subsequent_indent="  "))
    if saver is None or not saver.best.exists():
        return
    run = shlex.quote(short_path(folder))
    log.info("To predict: imgcls predict %s IMAGES", run)
    if not has_test:
        log.info("To test: imgcls test %s FOLDER", run)
