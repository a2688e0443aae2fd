"""Rebuild the datasets that a checkpoint records: only imgcls' own classes, with local data and plain arguments."""

import inspect
import math
import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, create_model

from imgcls.datasets.csv_dataset import CsvImageDataset
from imgcls.datasets.dataset import ImageDataset
from imgcls.datasets.digits import DigitsDataset
from imgcls.datasets.folder import FolderImageDataset
from imgcls.datasets.huggingface import HubImageDataset
from imgcls.datasets.webdataset_local import RANGE, ShardImageDataset
from imgcls.errors import ConfigError

# without StreamImageDataset, whose URLs may run commands (pipe:)
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
    """Return the folder that a checkpoint names; None for a text that is not a local folder.

    An absolute path that does not exist is kept, so that the error names it when the data are needed.
    """
    return FolderImageDataset(text) if os.path.isabs(text) or os.path.isdir(text) else None


def recorded_dataset(class_path: str, arguments: Mapping[str, Any], where: str) -> ImageDataset | None:
    """Make a dataset of one of ``CLASSES`` with a checkpoint's arguments; ``where`` is the config key, for messages.

    Returns:
        The dataset; None for a dataset on the Hub, which a checkpoint must not download, or a local copy that is gone.

    Raises:
        ConfigError: If an argument is unknown, or has another type or size than allowed.
    """
    kind = CLASSES[class_path]
    try:
        values = _arguments_of(kind).model_validate(arguments).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].lower()}"
        raise ConfigError(f"{where}: the checkpoint's arguments of {class_path} are invalid: {reason}") from error
    if kind is HubImageDataset and not (os.path.isabs(values["name"]) and os.path.exists(values["name"])):
        return None
    _check_sizes(values, f"{where}: the checkpoint's {class_path}")
    return kind(**values)


def _arguments_of(kind: type[ImageDataset]) -> type[BaseModel]:
    """Return a strict pydantic model of a constructor's arguments, from its annotations."""
    fields: dict[str, Any] = {
        name: (
            _Pixels if name == "max_pixels" else parameter.annotation,
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for name, parameter in inspect.signature(kind).parameters.items()
    }
    return create_model(kind.__name__, __config__={"strict": True, "extra": "forbid"}, **fields)


def _check_sizes(values: Mapping[str, Any], where: str) -> None:
    """Refuse texts, lists of texts and ranges of shards that are too long."""
    for key, value in values.items():
        texts = value if isinstance(value, list) else [value] if isinstance(value, str) else []
        if len(texts) > _MOST_NAMES or any(len(text) > _MOST_TEXT or "\0" in text for text in texts):
            raise ConfigError(
                f"{where}.{key}: must have at most {_MOST_TEXT} characters per text, and {_MOST_NAMES} texts"
            )
        if key == "shards" and sum(map(_count_shards, texts)) > _MOST_SHARDS:
            raise ConfigError(f"{where}.{key}: must name at most {_MOST_SHARDS} shards")


def _count_shards(pattern: str) -> int:
    """Return the number of shards that ``{000..012}`` expands to, without expanding it."""
    # at least 1 each, since those before an empty range are expanded, too
    return math.prod(max(int(last) - int(first) + 1, 1) for first, last in RANGE.findall(pattern))
