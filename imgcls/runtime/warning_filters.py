"""Hide warnings and tips of dependencies that a user of imgcls can do nothing about."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS = (
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # torch, about Lightning 2.6's own code
    ".*Dump of a value that does not round-trip",  # jsonargparse: tuples are read back as lists, which are accepted
    ".*does not have many workers which may be a bottleneck",  # imgcls chooses the number of workers, or the user did
    "This DataLoader will create \\d+ worker processes",  # more than there are cores: the user chose the number
    ".*The number of training batches .* is smaller than the logging interval",  # in small data sets
    ".*Found \\d+ module\\(s\\) in eval mode at the start of training",  # frozen layers, which imgcls reports itself
    ".*dirpath has changed from",  # a checkpoint is used in another run folder
    ".*Checkpoint directory .* exists and is not empty",  # two savers share the run's folder
    ".*It is recommended to use `self.log\\(.*sync_dist=True\\)`",  # imgcls computes metrics over all processes
    "You're using the WeightAveraging callback with a model that overrides",  # for sharded models, which are refused
    ".*is supported for historical reasons but its usage is discouraged",  # precision: 16, as in the user's guide
    ".*Trying to infer the `batch_size` from an ambiguous collection",  # imgcls averages no value over batches
    # Lightning, where loaders are made again: AutoCache does so once, with the former workers idle
    "The combination of `DataLoader\\(`pin_memory=True`, `persistent_workers=True`\\)",
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",  # an evaluation needs none of them
    ".*LightningCLI's args parameter is intended to run from within Python",  # main(args) does
    ".*is experimental \\(supported from",  # Optuna: heartbeats, retries and plots
    "Argument ``heartbeat_interval`` is an experimental feature",  # Optuna
    "Heartbeat of storage is supposed to be used with Study.optimize",  # imgcls sends the heartbeat, as optimize would
    "Grad strides do not match bucket view strides",  # torch: kernels of one channel in channels-last memory
    "No (positive|negative) samples in targets",  # torchmetrics: a class that imgcls names itself
    ".*`training_step` returned `None`",  # no image of a batch could be read; each is reported
    "Your `IterableDataset` has `__len__` defined",  # a stream's loader divides it among the workers itself
    ".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`",  # Lightning, when the gradient scaler skips a step
)
_LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
_ASKED_FOR = (  # these print only what a user asks for: a profiler, a summary, or verbose: true
    "lightning.pytorch.profilers.profiler",
    "lightning.pytorch.callbacks.early_stopping",
    "lightning.pytorch.callbacks.model_summary",
)
_RANK_ZERO = "lightning.pytorch.utilities.rank_zero"  # tips, devices, and ModelCheckpoint with verbose: true


def quieten() -> None:
    """Hide tips, device listings and the warnings above; print other warnings as one line each."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in (*_ASKED_FOR, _RANK_ZERO):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger(_RANK_ZERO).addFilter(_is_asked_for)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = _one_line


@contextmanager
def quiet() -> Iterator[None]:
    """Apply ``quieten`` within a block, for a run in another program's process."""
    names = (*_LOGGERS, *_ASKED_FOR, _RANK_ZERO)
    levels = {name: logging.getLogger(name).level for name in names}
    formatted = warnings.formatwarning
    with warnings.catch_warnings():
        quieten()
        try:
            yield
        finally:
            warnings.formatwarning = formatted
            logging.getLogger(_RANK_ZERO).removeFilter(_is_asked_for)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _is_asked_for(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or record.getMessage().startswith("Epoch ")


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {message}\n"
