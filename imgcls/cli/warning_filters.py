"""Silence for what others print and a user of imgcls can do nothing about; each entry says what it is."""

import logging
import warnings

_WARNINGS = (
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # torch, of Lightning's own code
    ".*Dump of a value that does not round-trip",  # jsonargparse, of tuples; read back as lists and taken as such
    ".*does not have many workers which may be a bottleneck",  # imgcls chooses the workers, or the user did
    "This DataLoader will create \\d+ worker processes",  # more than there are cores: the user said how many
    ".*The number of training batches .* is smaller than the logging interval",  # of small data sets
    ".*Found \\d+ module\\(s\\) in eval mode at the start of training",  # frozen layers, which we report ourselves
    ".*dirpath has changed from",  # a checkpoint used in another run folder
    ".*Checkpoint directory .* exists and is not empty",  # two savers share the run's folder
    ".*It is recommended to use `self.log\\(.*sync_dist=True\\)`",  # our metrics are computed over all processes
    ".*is supported for historical reasons but its usage is discouraged",  # precision: 16, as the user's guide has it
    ".*Trying to infer the `batch_size` from an ambiguous collection",  # no value of ours is averaged over batches
    "Be aware that when using `ckpt_path`, callbacks used to create the checkpoint",  # an evaluation needs none of them
    ".*LightningCLI's args parameter is intended to run from within Python",  # that is how main(args) is used
    ".*is experimental \\(supported from",  # Optuna, of heartbeats, retries and plots
    "Argument ``heartbeat_interval`` is an experimental feature",  # Optuna
    "Heartbeat of storage is supposed to be used with Study.optimize",  # imgcls sends it, as optimize would
    "Grad strides do not match bucket view strides",  # torch, of kernels of one channel in channels-last memory
    "No (positive|negative) samples in targets",  # torchmetrics, of a class that we name
    ".*`training_step` returned `None`",  # a batch of which no image could be read; each of them is reported
    "Your `IterableDataset` has `__len__` defined",  # a stream's loader shares it out among the workers itself
    ".*`lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`",  # Lightning, when a step is skipped by the scaler
)
_LOGGERS = ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric")
_ASKED_FOR = (  # these print only what a user asked for: a profiler, a summary, or verbose: true
    "lightning.pytorch.profilers.profiler",
    "lightning.pytorch.callbacks.early_stopping",
    "lightning.pytorch.callbacks.model_summary",
)
_RANK_ZERO = "lightning.pytorch.utilities.rank_zero"  # of tips, devices, and ModelCheckpoint with verbose: true


def quieten() -> None:
    """Hide tips, device listings and warnings of other packages; what is left is one line each, and errors stay."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in (*_ASKED_FOR, _RANK_ZERO):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger(_RANK_ZERO).addFilter(_is_asked_for)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message)
    warnings.formatwarning = _one_line


def _is_asked_for(record: logging.LogRecord) -> bool:
    return record.levelno > logging.INFO or record.getMessage().startswith("Epoch ")


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {message}\n"
