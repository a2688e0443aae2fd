"""imgcls: Train, evaluate and apply image classifiers.

Importing this package imports nothing else: its public names are loaded when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

HOMES = {  # public name -> the module that defines it
    "Augmentations": "data.config",
    "Batch": "types",
    "CenterCrop": "data.transforms.resize",
    "Classifier": "inference.classifier",
    "ConfigError": "errors",
    "CsvImageDataset": "datasets.csv_dataset",
    "DatasetClasses": "data.config",
    "DigitsDataset": "datasets.digits",
    "EMA": "callbacks.ema",
    "FitResult": "api.fit",
    "FolderImageDataset": "datasets.folder",
    "HubImageDataset": "datasets.huggingface",
    "ImageClassifier": "models.classifier",
    "ImageDataModule": "data.datamodule",
    "ImageDataset": "datasets.dataset",
    "ImageError": "errors",
    "LossConfig": "models.training.losses",
    "MetricsLogger": "callbacks.metrics_logger",
    "MixConfig": "models.training.losses",
    "OptimizerConfig": "models.training.optimizer",
    "RandomResizedCrop": "data.transforms.resize",
    "Resize": "data.transforms.resize",
    "ResizeShortestEdge": "data.transforms.resize",
    "RunError": "errors",
    "SchedulerConfig": "models.training.scheduler",
    "ShardImageDataset": "datasets.webdataset_local",
    "StreamImageDataset": "datasets.webdataset_stream",
    "fit": "api.fit",
    "load": "inference.load",
}

__all__ = [*HOMES, "__version__"]

if TYPE_CHECKING:
    from imgcls.api.fit import FitResult as FitResult
    from imgcls.api.fit import fit as fit
    from imgcls.callbacks.ema import EMA as EMA
    from imgcls.callbacks.metrics_logger import MetricsLogger as MetricsLogger
    from imgcls.data.config import Augmentations as Augmentations
    from imgcls.data.config import DatasetClasses as DatasetClasses
    from imgcls.data.datamodule import ImageDataModule as ImageDataModule
    from imgcls.data.transforms.resize import CenterCrop as CenterCrop
    from imgcls.data.transforms.resize import RandomResizedCrop as RandomResizedCrop
    from imgcls.data.transforms.resize import Resize as Resize
    from imgcls.data.transforms.resize import ResizeShortestEdge as ResizeShortestEdge
    from imgcls.datasets.csv_dataset import CsvImageDataset as CsvImageDataset
    from imgcls.datasets.dataset import ImageDataset as ImageDataset
    from imgcls.datasets.digits import DigitsDataset as DigitsDataset
    from imgcls.datasets.folder import FolderImageDataset as FolderImageDataset
    from imgcls.datasets.huggingface import HubImageDataset as HubImageDataset
    from imgcls.datasets.webdataset_local import ShardImageDataset as ShardImageDataset
    from imgcls.datasets.webdataset_stream import StreamImageDataset as StreamImageDataset
    from imgcls.errors import ConfigError as ConfigError
    from imgcls.errors import ImageError as ImageError
    from imgcls.errors import RunError as RunError
    from imgcls.inference.classifier import Classifier as Classifier
    from imgcls.inference.load import load as load
    from imgcls.models.classifier import ImageClassifier as ImageClassifier
    from imgcls.models.training.losses import LossConfig as LossConfig
    from imgcls.models.training.losses import MixConfig as MixConfig
    from imgcls.models.training.optimizer import OptimizerConfig as OptimizerConfig
    from imgcls.models.training.scheduler import SchedulerConfig as SchedulerConfig
    from imgcls.types import Batch as Batch


def __getattr__(name: str) -> object:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in {"fit", "load"}:
        from imgcls.runtime.cores import share_cores

        share_cores()  # before torch is imported, as the commands do
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
