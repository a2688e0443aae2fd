"""The commands validate and test: evaluate a checkpoint."""

import logging
import shlex

from imgcls.callbacks.run_summary import EvaluationSummary
from imgcls.checkpoints.run_folder import BEST, run_folder_of
from imgcls.commands.checkpoint_config import Recorded
from imgcls.commands.command import Command, Parts
from imgcls.commands.default_callbacks import shown_callbacks, user_callbacks
from imgcls.commands.evaluation_files import EvaluationFiles
from imgcls.commands.lr_and_batch_size_finders import take_finders
from imgcls.commands.model_setup import set_up_evaluated
from imgcls.commands.refused_options import check_options
from imgcls.commands.report_files import report_run
from imgcls.commands.resume import Start
from imgcls.commands.trainer import build_trainer, evaluation_precision, is_first_process, log_device
from imgcls.data.splitting.split_report import warn_missing_classes
from imgcls.errors import ConfigError
from imgcls.runtime.tables import short_path

log = logging.getLogger(__name__)

_SPLITS = {"validate": "validation", "test": "test"}


class Evaluation(Command):
    """Evaluate a checkpoint; its recorded configuration holds for what the user does not give."""

    start: Start

    def __init__(self, parts: Parts, start: Start, recorded: Recorded) -> None:
        super().__init__(parts, start)
        options = parts.options | {"precision": evaluation_precision(parts.options, start.record.get("precision"))}
        check_options(options, parts.command)
        if options["devices"] == "auto":
            options["devices"] = 1  # starting several processes takes longer than most evaluations
        if self.data.class_names not in ([], start.record["class_names"]):
            raise ConfigError(f"data.init_args.class_names differs from the classes of {start.path}; leave the key out")
        set_up_evaluated(self.model, self.data, start, recorded)
        self._take_images()
        self.data.setup(parts.command)
        if parts.command != "predict":
            self.model.check_task("the data", self.data.multilabel)
        self.model.tta, self.model.uncalibrated = parts.section["tta"], parts.section["raw"]
        callbacks, _ = take_finders(user_callbacks(options))  # a fit alone uses them
        if parts.experiment.default_callbacks:
            callbacks = shown_callbacks(callbacks, options, recorded.metrics)
        self.trainer = build_trainer(options, [*callbacks, EvaluationSummary()], self.files)
        if parts.command in _SPLITS:
            self.results = EvaluationFiles(parts, _SPLITS[parts.command], start, recorded)

    def _take_images(self) -> None:
        """Use the images of the command line; overridden by ``predict``."""

    def run(self) -> None:
        """Evaluate, write the files, and print the tables."""
        split = _SPLITS[self.parts.command]
        log_device(self.trainer)
        warn_missing_classes(self.data.splitter, split)
        try:
            folder = self.results.choose() if is_first_process() else None
            values = self.evaluate(split, self.start.path, folder)
            self.refuse_not_finite_loss(split, values, self.start.path)
        except BaseException:
            self.results.forget()
            raise
        if is_first_process():
            self.results.write(values, self.counts[split], self.data.splitter)
        self.show({split: values})
        if is_first_process():
            if folder is not None and self.parts.experiment.report:
                report_run(folder, split, self.data, [split], (self.model, self.trainer.strategy.root_device))
            self.results.log()
        path = self.start.path
        typed = run_folder_of(path) if path.name == BEST else None  # which stands for its best checkpoint
        log.info("To predict: imgcls predict %s IMAGES", shlex.quote(short_path(typed or path)))
