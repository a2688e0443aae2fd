"""imgcls: one YAML in, a trustworthy image classifier out.

Importing this package imports nothing else: its public names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

HOMES = {  # public name -> the module that it lies in
    "Augmentations": "data.data_config",
    "CsvImageDataset": "datasets.table",
    "DatasetClasses": "data.data_config",
    "DigitsDataset": "datasets.digits",
    "EMA": "callbacks.ema",
    "FolderImageDataset": "datasets.folder",
    "HubImageDataset": "datasets.hub",
    "ImageClassifier": "model.classifier",
    "ImageDataModule": "data.datamodule",
    "ImageDataset": "datasets.dataset",
    "LossConfig": "model.losses",
    "MetricsLogger": "callbacks.metrics",
    "MixConfig": "model.losses",
    "OptimizerConfig": "model.optim",
    "SchedulerConfig": "model.schedules",
    "ShardImageDataset": "datasets.shards",
    "StreamImageDataset": "datasets.stream",
}

__all__ = [*HOMES, "__version__"]

if TYPE_CHECKING:
    from imgcls.callbacks.ema import EMA as EMA
    from imgcls.callbacks.metrics import MetricsLogger as MetricsLogger
    from imgcls.data.data_config import Augmentations as Augmentations
    from imgcls.data.data_config import DatasetClasses as DatasetClasses
    from imgcls.data.datamodule import ImageDataModule as ImageDataModule
    from imgcls.datasets.dataset import ImageDataset as ImageDataset
    from imgcls.datasets.digits import DigitsDataset as DigitsDataset
    from imgcls.datasets.folder import FolderImageDataset as FolderImageDataset
    from imgcls.datasets.hub import HubImageDataset as HubImageDataset
    from imgcls.datasets.shards import ShardImageDataset as ShardImageDataset
    from imgcls.datasets.stream import StreamImageDataset as StreamImageDataset
    from imgcls.datasets.table import CsvImageDataset as CsvImageDataset
    from imgcls.model.classifier import ImageClassifier as ImageClassifier
    from imgcls.model.losses import LossConfig as LossConfig
    from imgcls.model.losses import MixConfig as MixConfig
    from imgcls.model.optim import OptimizerConfig as OptimizerConfig
    from imgcls.model.schedules import SchedulerConfig as SchedulerConfig


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
