"""The datasets that a checkpoint records: of our own classes, on this machine, made of plain values."""

import inspect
import math
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, create_model

from imgcls.datasets.csv_dataset import CsvImageDataset
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.digits import DigitsDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.datasets.huggingface import HubImageDataset
from imgcls.datasets.webdataset_local import ShardImageDataset
from imgcls.errors import ConfigError

# no StreamImageDataset: its urls may be commands
CLASSES: dict[str, type[ImageDataset]] = {
    "imgcls.FolderImageDataset": FolderImageDataset,
    "imgcls.CsvImageDataset": CsvImageDataset,
    "imgcls.ShardImageDataset": ShardImageDataset,
    "imgcls.DigitsDataset": DigitsDataset,
    "imgcls.HubImageDataset": HubImageDataset,
}
_MOST_TEXT = 4096
_MOST_NAMES = 1_000_000
_MOST_SHARDS = 100_000
_Pixels = Annotated[int, Field(ge=1, le=2**31)]  # more than an image file can hold in memory here


def recorded_folder(text: str) -> FolderImageDataset | None:
    """Return the folder that a checkpoint names; None for a text that is no folder of this machine.

    A path that is gone is kept, for the message that says so when it is needed.
    """
    return FolderImageDataset(text) if os.path.isabs(text) or os.path.isdir(text) else None


def recorded_dataset(class_path: str, arguments: Mapping[str, Any], where: str) -> ImageDataset | None:
    """Make a dataset of a class of the table.

    Args:
        class_path: One of ``CLASSES``.
        arguments: Those of the constructor, as the checkpoint has them.
        where: The config key, for messages.

    Returns:
        None for one of the Hub, or a local one that is gone: a checkpoint must not make anyone load one of the Hub.

    Raises:
        ConfigError: If an argument is unknown, or of another type or size.
    """
    kind = CLASSES[class_path]
    try:
        values = _arguments_of(kind).model_validate(arguments).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}"
        raise ConfigError(f"{where}: the checkpoint's arguments of {class_path} are not taken: {reason}") from error
    if kind is HubImageDataset and not (os.path.isabs(values["name"]) and os.path.exists(values["name"])):
        return None
    _check_sizes(values, f"{where}: the checkpoint's {class_path}")
    return kind(**values)


def _arguments_of(kind: type[ImageDataset]) -> type[BaseModel]:
    """Return what the constructor's annotations say of its arguments, as a strict model."""
    fields: dict[str, Any] = {
        name: (
            _Pixels if name == "max_pixels" else parameter.annotation,
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    return create_model(kind.__name__, __config__={"strict": True, "extra": "forbid"}, **fields)


def _check_sizes(values: Mapping[str, Any], where: str) -> None:
    """Refuse texts, and lists of them, that are longer than any of a run; and rows of shards without an end."""
    for key, value in values.items():
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        if len(texts) > _MOST_NAMES or any(len(text) > _MOST_TEXT or "\0" in text for text in texts):
            raise ConfigError(f"{where}.{key}: holds a text of more than {_MOST_TEXT} letters, or too many")
        if key == "shards" and sum(map(_counted, texts)) > _MOST_SHARDS:
            raise ConfigError(f"{where}.{key}: stands for more than {_MOST_SHARDS} shards")


def _counted(pattern: str) -> int:
    """Return how many shards ``{000..012}`` stands for, without writing them out."""
    ranges = re.findall(r"\{(\d{1,18})\.\.(\d{1,18})\}", pattern)
    return math.prod(max(int(last) - int(first) + 1, 0) for first, last in ranges)


def stand_in(class_path: str) -> dict[str, Any]:
    """Return a spec of a class of the table in which the arguments that it needs are dots, to be replaced."""
    parameters = inspect.signature(CLASSES[class_path]).parameters.values()
    needed = {parameter.name: "..." for parameter in parameters if parameter.default is parameter.empty}
    return {"class_path": class_path, "init_args": needed}
