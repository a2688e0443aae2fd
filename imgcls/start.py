"""Where a fit starts from: nothing, or a checkpoint whose run goes on or whose weights alone are taken."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imgcls.checkpoint import Content, read_checkpoint
from imgcls.errors import ConfigError
from imgcls.run_folder import folder_name, newest_checkpoint, run_folder_of


@dataclass(frozen=True)
class Start:
    """A checkpoint that a command starts from.

    Args:
        path: The file.
        content: What it holds.
        run_folder: The folder of the run that goes on in place; None where a new one begins.
    """

    path: Path
    content: Content
    run_folder: Path | None = None

    @property
    def record(self) -> dict[str, Any]:
        """What the checkpoint records of its model."""
        record: dict[str, Any] = self.content["imgcls"]
        return record


def open_start(path: str | Path) -> Start:
    """Read the checkpoint that an evaluation needs.

    Raises:
        ConfigError: If it is none.
    """
    file = Path(path).expanduser()
    return Start(file, read_checkpoint(file))


def find_start(given: str | None, parent: Path, weights_only: bool) -> Start | None:
    """Find the checkpoint that a fit starts from.

    Args:
        given: The key ``ckpt_path``; ``last`` is the newest whole checkpoint below ``parent``.
        parent: The folder of the runs of that name.
        weights_only: Whether the weights alone are taken, so that a new run begins.

    Raises:
        ConfigError: If there is none.
    """
    if given is None:
        return None
    start = open_start(given) if given != "last" else _newest(parent, weights_only)
    if not weights_only and "optimizer_states" not in start.content:
        raise ConfigError(f"{start.path}: holds weights alone; add --experiment.only_weights_load true")
    return start


def _newest(parent: Path, weights_only: bool) -> Start:
    path = newest_checkpoint(parent)
    if path is None:
        raise ConfigError(f"--ckpt_path last: there is no checkpoint below {parent}; leave it out to start anew")
    return Start(path, read_checkpoint(path), None if weights_only else run_folder_of(path))


def check_same_model(start: Start, model_name: str) -> None:
    """Refuse another architecture than the checkpoint's, which would be used without a word.

    Raises:
        ConfigError: Names both.
    """
    ours, theirs = (folder_name(name) for name in (model_name, start.record["model_name"]))
    if ours != theirs:
        raise ConfigError(
            f"model.init_args.model_name: {model_name!r}, but {start.path} holds {start.record['model_name']!r}; "
            "name that one, or leave ckpt_path out"
        )


def finished(start: Start, options: dict[str, Any]) -> str:
    """Return why nothing is left to train, empty if something is.

    Args:
        start: The checkpoint to go on from.
        options: The Trainer's arguments.
    """
    progress = start.content["loops"]["fit_loop"]["epoch_progress"]["current"]
    epochs, steps = progress["processed"], start.content["global_step"]
    for done, key in ((epochs, "max_epochs"), (steps, "max_steps")):
        if options[key] is not None and 0 <= options[key] <= done:
            return f"{start.path} is trained to {done} of trainer.{key}: {options[key]}; raise it to go on"
    for name, state in (start.content.get("callbacks") or {}).items():
        if name.startswith("EarlyStopping") and state.get("wait_count", 0) >= state.get("patience", math.inf):
            return (
                f"{start.path} was stopped early after {epochs} epochs; --experiment.only_weights_load true begins a "
                "new run from it"
            )
    return ""
