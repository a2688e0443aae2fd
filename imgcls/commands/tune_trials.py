"""Fit the trials of a search with the parser that is there: to make another takes a second of CPU."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning import seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI

from imgcls.commands.absolute_paths import make_absolute
from imgcls.commands.command import Parts
from imgcls.commands.fit import Fit
from imgcls.commands.fit_callbacks import Trial
from imgcls.commands.lr_and_batch_size_finders import refuse_in_trials
from imgcls.commands.refused_options import check_options
from imgcls.commands.trackers import name_of_trial
from imgcls.commands.trainer import as_list
from imgcls.models.huggingface.hub import load_config
from imgcls.tune.pruning import SCREEN


class Trials:
    """The fits of a search; ``base`` is what all of them share."""

    def __init__(self, cli: LightningCLI, base: Parts) -> None:
        self.cli = cli
        self.base = base

    def check(self, config: dict[str, Any]) -> None:
        """Parse the configuration of a trial and make its classes; raise an error if it is wrong."""
        quiet = config["trainer"] | {"logger": False}  # Comet's begins a run when it is made
        made = self.cli.parser.instantiate(self._parsed(config | {"trainer": quiet}))["fit"]
        check_options(dict(made["trainer"]), "fit")
        refuse_in_trials(as_list(made["trainer"]["callbacks"]))
        made["data"].pipelines.check()
        load_config(made["model"].model_name)

    def fit(self, config: dict[str, Any], folder: Path, callbacks: Sequence[Callback]) -> dict[str, Any] | None:
        """Fit the resolved configuration of a trial in its run folder, with callbacks of the search.

        Returns:
            The logged values of the best epoch; None if the monitored value was never a number.
        """
        gc.collect()  # models are parts of reference cycles, and their memory is needed now
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        name = folder.name if folder.name != SCREEN else f"{folder.parent.name}/{SCREEN}"
        parsed = self._parsed(name_of_trial(config, name, self.base.runs_folder.name))
        make_absolute(parsed["fit"])
        saved = plain_values(self.cli.parser, parsed)
        self.cli.config_dump = saved  # Lightning records it as the hyper-parameters of model and data
        seed_everything(saved["seed_everything"], workers=True, verbose=False)
        made = self.cli.parser.instantiate(parsed)["fit"]
        parts = Parts("fit", made, saved | {"ckpt_path": None}, made["model"], made["data"], made["ckpt_path"])
        command = Fit(parts, Trial(folder, callbacks, self.base, evaluates=folder.name != SCREEN))
        command.run()
        return command.best_row

    def _parsed(self, config: dict[str, Any]) -> Namespace:
        return self.cli.parser.parse_object({"subcommand": "fit", "fit": config})


def plain_values(parser: ArgumentParser, config: Namespace) -> dict[str, Any]:
    """Return the parsed configuration of a command as plain values."""
    # parsed, and so valid already; to check the values again takes longer than to write them
    text = parser.dump(config, skip_link_targets=False, skip_unset=False, skip_validation=True, format="yaml")
    plain: dict[str, Any] = yaml.safe_load(text)[config["subcommand"]]
    return plain
