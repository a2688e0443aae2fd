"""By which rules a training set is divided."""

import os
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from imgcls.data.config import KEY
from imgcls.data.scan.files import HashKind
from imgcls.data.splitting.train_val_split import Fold
from imgcls.datasets.dataset import ImageDataset
from imgcls.errors import ConfigError, did_you_mean

OnLeak = Literal["error", "warn"]


@dataclass(frozen=True)
class Rules:
    """How a training set is divided.

    Args:
        share: Share of the samples that is held out, 0 to 1.
        seed: Seed of the choice.
        fold: The part of a cross-validation that is held out, in place of ``share``.
        group_column: Column of the samples that names the group; None for ``group`` where there is one.
        group_regex: Finds the group in the path below the root.
        on_leak: What happens when an image or a group is on two sides.
        train_on_validation: Whether validation images are trained on, too.
        content_hash: By what images are told apart.
    """

    share: float
    seed: int
    fold: Fold | None
    group_column: str | None
    group_regex: str | None
    on_leak: OnLeak
    train_on_validation: bool
    content_hash: HashKind = "full"

    def __post_init__(self) -> None:
        column, regex = self.group_column, self.group_regex
        if column is not None and regex is not None:
            raise ConfigError(f"{KEY}.group_column: {column!r}, but group_regex: {regex!r}; leave out one of them")

    def groups(self, data: ImageDataset, needed: bool = True) -> NDArray[Any] | None:
        """Return the group of each sample; None where there are none.

        Args:
            data: The dataset.
            needed: Whether a group that is asked for must be there; otherwise a sample without is one by itself.

        Raises:
            ConfigError: If the column is not there, or the expression finds nothing in a path.
        """
        if self.group_regex is not None:
            root = getattr(data, "root", None)
            return np.array([self._found(str(path), root, needed) for path in data.samples["path"]], dtype=object)
        columns = list(data.samples.columns)
        if needed and self.group_column is not None and self.group_column not in columns:
            hint = did_you_mean(self.group_column, columns) or f"; there are {', '.join(columns)}"
            raise ConfigError(f"{KEY}.group_column: the samples have no column {self.group_column!r}{hint}")
        column = self.group_column or "group"
        if column not in columns:
            return None
        named = zip(data.samples[column], data.samples["path"], strict=True)
        return np.array([_group(name, path) for name, path in named], object)

    def _found(self, path: str, root: str | None, needed: bool) -> str:
        match = re.search(str(self.group_regex), os.path.relpath(path, root) if root else path)
        if match is None and needed:
            raise ConfigError(f"{KEY}.group_regex: {self.group_regex!r} finds nothing in {path!r}")
        name = match and (match[1] if match.re.groups else match[0])
        return f"path {path}" if name is None else str(name)  # None, too, of a bracket that took no part


def _group(name: Any, path: object) -> str:
    """Return a group as a text; what has none is one by itself."""
    if pd.isna(name) or name == "":
        return f"path {path}"
    # pandas makes floats of a column of whole numbers where one is missing
    return str(int(name) if isinstance(name, (float, np.floating)) and name.is_integer() else name)
